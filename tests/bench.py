"""`make bench`: what the generator costs, against references that do the same work in the same run.

    python -m tests.bench            everything
    python -m tests.bench pipeline   one part: pipeline, build (with reading) or loader
    python -m tests.bench scale      a simulated data set of 100,000 scans; only when asked for, it takes minutes

Ratios count; times depend on the machine, which is printed.
"""

import contextlib
import itertools
import os
import pathlib
import platform
import sys
import tempfile
import time

import numpy as np

from gen4d import building, sources
from gen4d.building import estimate
from gen4d.config import Config
from gen4d.moving import augment
from gen4d.shards import frame_pairs, open_dataset
from tests import careful, compiled, naive, research

_FRAMES = 4
_SEQUENCES = 20
_ROUNDS = {"research": 3, "careful": 9, "gen4d": 15}  # the shorter, the more


def make_scan(key: int = 0, vertices: int = 168_000) -> np.ndarray:
    """Vertices (V, 3) float32 of a furnished room of 6 x 5 m whose floor lies at z = 0; about 115 k after thinning."""
    rng = np.random.Generator(np.random.Philox(key=key))
    sheets = [((0, 0, 0), (6, 0, 0), (0, 5, 0), 0.30)]
    sheets += [((0, 0, 0), (6, 0, 0), (0, 0, 2.4), 0.13), ((0, 5, 0), (6, 0, 0), (0, 0, 1.5), 0.08)]
    sheets += [((0, 0, 0), (0, 5, 0), (0, 0, 2.4), 0.12), ((6, 0, 0), (0, 5, 0), (0, 0, 1.2), 0.06)]
    for x, y, side in zip(rng.random(8) * 5, [0, 0.1, 0.2, 0.3, 4.1, 4.2, 4.3, 4.4], rng.random(8), strict=True):
        size = 0.3 + 0.5 * side
        sheets.append(((x, y, size), (size, 0, 0), (0, size, 0), 0.02))
        sheets.append(((x, y + size * (y < 2), 0), (size, 0, 0), (0, 0, size), 0.019))
    point = [
        np.array(corner) + rng.random((int(share * vertices), 1)) * u + rng.random((int(share * vertices), 1)) * v
        for corner, u, v, share in sheets
    ]
    joined = np.concatenate(point)
    return (joined + rng.normal(scale=0.004, size=joined.shape)).astype(np.float32)


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


def bench_pipeline() -> None:
    """One scan, 20 accepted sequences, frames and all pair lists in memory: research style, careful NumPy, gen4d."""
    vertex = make_scan()
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


def write_ply(path: pathlib.Path, point: np.ndarray) -> None:
    """A binary PLY of vertices only."""
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(point)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_bytes(header.encode() + point.astype("<f4").tobytes())


def write_off(path: pathlib.Path, size: tuple[float, float, float]) -> None:
    """A box."""
    corners = [(x * size[0], y * size[1], z * size[2]) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    lines = ["OFF", f"{len(corners)} {len(quads)} 0"]
    lines += [" ".join(map(str, corner)) for corner in corners] + ["4 " + " ".join(map(str, quad)) for quad in quads]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _make_inputs(folder: pathlib.Path, scans: int) -> building.Inputs:
    (folder / "scans").mkdir()
    vertex = make_scan()
    for number in range(scans):
        write_ply(folder / "scans" / f"room{number:04d}.ply", vertex + np.float32([0, 0, 0.001 * number]))
    for name in ("chair", "table", "night_stand"):
        write_off(folder / "shapes" / name / "train" / f"{name}_0001.off", (1.0, 0.8, 1.2))
    found = (
        sources.find_scans(folder / "scans"),
        sources.find_shapes(folder / "shapes", ("chair", "table", "night_stand")),
    )
    return building.make_inputs(*found, Config(classes=("chair", "table", "night_stand")))


def bench_build(scans: int = 208) -> None:
    """From PLY to fsynced shards with 1 and 2 processes, and what ScanNet's 1201 training scans would take."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        inputs = _make_inputs(folder, scans)
        estimate.warm_up(inputs.config, lambda: None)
        print(f"{scans} scans of {os.path.getsize(folder / 'scans' / 'room0000.ply') / 1e6:.1f} MB to fsynced shards")
        seconds = {}
        for workers in (1, 2, 1, 2):
            out = folder / f"out{len(seconds)}-{workers}-{time.monotonic_ns()}"
            started = time.perf_counter()
            plan = building.make_plan(out, inputs)
            sidecars = dict(building.run(plan.jobs, workers))
            manifest = building.finish(out, sidecars)
            seconds[workers] = min(seconds.get(workers, 1e9), time.perf_counter() - started)
        for workers, spent in seconds.items():
            rate = f"{spent / scans * 1e3:6.1f} ms a scan, {60 * scans / spent:6.0f} scans a minute"
            print(f"  {workers} process{'es' * (workers > 1):<2} {rate}; 1201 scans in {1201 * spent / scans:.0f} s")
        print(f"  scaling from 1 to 2 processes {seconds[1] / seconds[2]:.2f}")
        size = manifest["totals"]["bytes"] / scans
        print(f"  {size / 1e6:.2f} MB a scan, {size * 1201 / 1e9:.2f} GB for 1201")
        _bench_stages(inputs)
        _bench_read(out)


def _bench_stages(inputs: building.Inputs) -> None:
    """Where the time of one shard goes."""
    from gen4d.config import to_plain
    from gen4d.moving.generate import generate_scan, group_shapes, prepare_scan
    from gen4d.shards.zarr_writer import shard_bytes

    shapes, source = group_shapes(inputs.shapes, "auto"), inputs.scans[:16]
    spent = {}
    started = time.perf_counter()
    scans = [building.load_scan(one, inputs.config) for one in source]
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


def bench_loader() -> None:
    """Sequences from shards into training batches; needs torch and spconv."""
    from tests import bench_loader

    bench_loader.main()


def bench_scale() -> None:
    """What grows with the number of scans; needs torch for the part of the trainer."""
    from tests import bench_scale

    bench_scale.main()


def main(parts: list[str]) -> None:
    """Run the named parts, or all but `scale`."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, part in (("pipeline", bench_pipeline), ("build", bench_build), ("loader", bench_loader)):
        if not parts or name in parts:
            part()
    if "scale" in parts:
        bench_scale()


if __name__ == "__main__":
    main(sys.argv[1:])
