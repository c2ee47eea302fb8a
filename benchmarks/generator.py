"""From vertices to frames and pairs, from files to shards, and back: against references that do the same work."""

import contextlib
import itertools
import os
import pathlib
import tempfile
import time

import numpy as np

from benchmarks import careful, compiled, research
from gen4d import building
from gen4d.building import estimate, moving
from gen4d.config import Config
from gen4d.moving import augment
from gen4d.shards import frame_pairs, open_dataset
from tests import naive
from tests.makers.meshes import write_box
from tests.makers.rooms import full_size_room, write_full_size

_FRAMES = 4
_SEQUENCES = 20
_ROUNDS = {"research": 3, "careful": 9, "gen4d": 15}  # the shorter, the more


def draw_plan(key: int) -> naive.Plan:
    """What one attempt draws, with the defaults of the config."""
    config = Config()
    rng = np.random.Generator(np.random.Philox(key=key))
    size = (config.chunk_min, config.chunk_max)
    chunks = augment.draw_chunks(_FRAMES, (config.chunks_min, config.chunks_max), size, rng)
    walk = rng.random((_FRAMES - 1, config.step_tries, 2))
    keys = [int(rng.integers(2**63)) for _ in range(2)]
    return naive.Plan(rng.random(), walk, 6.28 * rng.random(), chunks.box, chunks.count, round(0.95 * 65536), *keys)


def _run(pipeline, vertex, shape, plans):
    started = time.perf_counter()
    prepared = pipeline.prepare(vertex, floor_m=0.0)
    ready = time.perf_counter()
    for plan in plans:
        pipeline.sequence(prepared, shape, 0.45, plan)
    return ready - started, time.perf_counter() - ready


def _enough_plans(vertex, shape) -> list[naive.Plan]:
    """Plans of attempts up to and with the 20th that is accepted."""
    prepared = compiled.prepare(vertex, floor_m=0.0)
    plans, accepted = [], 0
    while accepted < _SEQUENCES:
        plans.append(draw_plan(len(plans)))
        accepted += compiled.sequence(prepared, shape, 0.45, plans[-1])[2]
    return plans


def pipeline() -> None:
    """One scan, 20 accepted sequences, frames and all pair lists in memory: research style, careful NumPy, gen4d."""
    vertex = full_size_room()
    rng = np.random.Generator(np.random.Philox(key=1))
    shape = ((rng.random((1000, 3)) - [0.5, 0.5, 0]) * [0.6, 0.5, 0.9]).astype(np.float32)
    plans = _enough_plans(vertex, shape)
    print(f"one scan, {len(vertex)} vertices, {len(plans)} attempts, {_SEQUENCES} sequences of {_FRAMES} frames,")
    print(f"frames and {len(frame_pairs(_FRAMES))} pair lists each in memory, one thread, best of {_ROUNDS}")
    points = _check_equal(vertex, shape, plans)
    print(f"  {points} points after thinning; frames and pair lists of all three are equal")
    pipelines = {"research": research, "careful": careful, "gen4d": compiled}
    times: dict[str, list] = {name: [] for name in pipelines}
    for turn in range(max(_ROUNDS.values())):
        for name, pipeline in pipelines.items():
            if turn * _ROUNDS[name] // 15 != (turn + 1) * _ROUNDS[name] // 15:
                times[name].append(_run(pipeline, vertex, shape, plans))
    best = {name: min(rows, key=sum) for name, rows in times.items()}
    for name, (preparing, making) in best.items():
        ratio = (preparing + making) / sum(best["gen4d"])
        text = f"{(preparing + making) * 1e3:8.1f} ms = scan {preparing * 1e3:6.1f} + sequences {making * 1e3:8.1f}"
        print(f"  {name:<9} {text}  {ratio:6.1f} x")


def _check_equal(vertex, shape, plans) -> int:
    """Raise where the three differ in a frame or a pair list; returns the points after thinning."""
    prepared = [pipeline.prepare(vertex, floor_m=0.0) for pipeline in (research, careful, compiled)]
    for plan in plans:
        made = [
            pipeline.sequence(scan, shape, 0.45, plan)
            for pipeline, scan in zip((research, careful, compiled), prepared, strict=True)
        ]
        for frames, pairs, accepted in made[:2]:
            assert accepted == made[2][2]
            assert all(map(np.array_equal, itertools.chain(*frames), itertools.chain(*made[2][0]))), "frames differ"
            assert all(map(np.array_equal, itertools.chain(*pairs), itertools.chain(*made[2][1]))), "pair lists differ"
    return len(prepared[2].cloud)


def _find_inputs(folder: pathlib.Path, scans: int) -> building.Found:
    """A folder of as many scans and one of three shapes, as a build finds them."""
    classes = ("chair", "night_stand", "table")
    write_full_size(folder / "scans", scans, same=True)
    for name in classes:
        write_box(folder / "shapes", name)
    return building.find_inputs("moving", building.Given(folder / "scans", folder / "shapes"), Config(classes=classes))


def build(scans: int = 208) -> None:
    """From PLY to fsynced shards with 1 and 2 processes, and what ScanNet's 1201 training scans would take."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found = _find_inputs(folder, scans)
        estimate.warm_up(found.inputs, lambda: None)
        print(f"{scans} scans of {os.path.getsize(folder / 'scans' / 'room0000.ply') / 1e6:.1f} MB to fsynced shards")
        seconds = {}
        for workers in (1, 2, 1, 2):
            out = folder / f"out{len(seconds)}-{workers}-{time.monotonic_ns()}"
            started = time.perf_counter()
            manifest = building.build_found(found, out, workers).manifest
            seconds[workers] = min(seconds.get(workers, 1e9), time.perf_counter() - started)
        for workers, spent in seconds.items():
            rate = f"{spent / scans * 1e3:6.1f} ms a scan, {60 * scans / spent:6.0f} scans a minute"
            print(f"  {workers} process{'es' * (workers > 1):<2} {rate}; 1201 scans in {1201 * spent / scans:.0f} s")
        print(f"  scaling from 1 to 2 processes {seconds[1] / seconds[2]:.2f}")
        size = manifest["totals"]["bytes"] / scans
        print(f"  {size / 1e6:.2f} MB a scan, {size * 1201 / 1e9:.2f} GB for 1201")
        _bench_stages(found.inputs)
        _bench_read(out)


def _bench_stages(inputs: building.Inputs) -> None:
    """Where the time of one shard goes."""
    from gen4d.config import to_plain
    from gen4d.moving.generate import generate_scan, group_shapes, prepare_scan
    from gen4d.shards.zarr_writer import shard_bytes

    shapes, source = group_shapes(inputs.shapes, "auto"), inputs.scans[:16]
    spent = {}
    started = time.perf_counter()
    scans = [moving.load_scan(one, inputs.config) for one in source]
    spent["read"] = time.perf_counter() - started
    started = time.perf_counter()
    for scan in scans:
        prepare_scan(scan, inputs.config)
    spent["prepare"] = time.perf_counter() - started
    started = time.perf_counter()
    records = [generate_scan(scan, shapes, inputs.config)[0] for scan in scans]
    spent["generate"] = time.perf_counter() - started - spent["prepare"]
    started = time.perf_counter()
    shard_bytes(tuple(records), 4, to_plain(inputs.config), False)
    spent["encode"] = time.perf_counter() - started
    print("  ms a scan: " + ", ".join(f"{name} {value / len(scans) * 1e3:.1f}" for name, value in spent.items()))


def _bench_read(out: pathlib.Path, count: int = 200) -> None:
    """Random sequences, first cold then warm, and all frames and pair lists of each."""
    for path in (out / "shards").iterdir():
        with open(path, "rb") as file, contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    dataset = open_dataset(out)
    sequence = dataset[len(dataset) // 2]
    print(f"  open and read one sequence cold {1e3 * (time.perf_counter() - started):.1f} ms")
    for path in (out / "shards").iterdir():
        path.read_bytes()  # warm: in the page cache, on whatever disk
    rng = np.random.Generator(np.random.Philox(key=2))
    chosen = rng.integers(len(dataset), size=count).tolist()
    for order, what in ((chosen, "random"), (sorted(chosen), "in order")):
        for number in order[:20]:
            dataset[number]
        started = time.perf_counter()
        for number in order:
            sequence = dataset[number]
        print(f"  read a sequence warm, {what}: {1e3 * (time.perf_counter() - started) / count:.2f} ms")
    frames = sequence.frames
    sequence.correspondences(0, 1)
    started = time.perf_counter()
    for _ in range(20):
        frames = sequence.frames
    middle = time.perf_counter()
    for _ in range(20):
        for i, j in frame_pairs(len(frames)):
            sequence.correspondences(i, j)
    done = time.perf_counter()
    print(f"  decode its 4 frames {50 * (middle - started):.2f} ms, all 6 pair lists {50 * (done - middle):.2f} ms")
