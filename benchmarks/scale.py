"""What a build of 100,000 scans costs, on a simulated data set of that many: `python -m benchmarks scale`.

ARKitScenes, HM3D and ScanNet together are of that order. The sources are as many folders in ScanNet's layout (sparse
files of a real size), the shapes as many files as ModelNet40 has of the eight classes. The first shard is really built,
from small scans; the others are that shard under other names: each a file of its own that `gen4d verify` takes, with a
description of real size that says the truth. So all that depends on the number of entries is measured, not estimated.
What depends on the size of a scan is measured on shards of full size, 64 of them: more than a reader keeps open.

Every step runs in a process of its own, whose peak memory is the kernel's figure. Takes minutes and 4 GB of disk.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import time
import zlib

from gen4d import building
from gen4d.building import estimate, moving, refused
from gen4d.config import Config
from gen4d.report.summary import summary
from gen4d.shards import open_dataset, verify
from gen4d.shards.format import seal
from gen4d.shards.home import LocalHome
from gen4d.shards.manifest import brief, read_sidecar, shard_path, sidecar_path
from gen4d.shards.zarr_reader import read_directory
from tests.makers.files import ply, write
from tests.makers.meshes import write_box
from tests.makers.rooms import full_size_room

SCANS, SIZE, LARGE_SHARDS, SMALL_SHAPE = 100_000, 16, 64, 20
SCAN_BYTES = 2_016_142  # of a points file of 168,000 vertices
MODELNET = {
    "bathtub": 156, "chair": 989, "desk": 286, "dresser": 286, "night_stand": 286, "sofa": 780, "table": 492,
    "toilet": 444,
}  # fmt: skip


# The data set ---------------------------------------------------------------------------------------------------------


def name_of(number: int) -> str:
    """All names have one length, so that a shard's can be changed in place."""
    return f"scene{number // 10:05d}_{number % 10:02d}"


def write_shapes(folder: pathlib.Path) -> None:
    """As many boxes as ModelNet40 has shapes of the eight classes."""
    for class_name, count in MODELNET.items():
        for number in range(count):
            write_box(folder, class_name, number + 1, (1.0, 0.6 + 0.0003 * number, 0.8))


def write_scans(folder: pathlib.Path, count: int) -> None:
    """Folders in ScanNet's layout, whose points are sparse files: planning looks at names and sizes alone."""
    for number in range(count):
        name = name_of(number)
        (folder / name).mkdir(parents=True)
        path = folder / name / f"{name}_vh_clean_2.ply"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.truncate(path, SCAN_BYTES)


def find_inputs(folder: pathlib.Path, scans: str = "scans", **config) -> building.Inputs:
    """What `gen4d build` makes of the folders."""
    config = Config(classes=tuple(MODELNET), scans_per_shard=SIZE, **config)
    return building.find_inputs("moving", building.Given(folder / scans, folder / "shapes"), config).inputs


class Template:
    """A shard that was really built, to be had under other names."""

    def __init__(self, folder: pathlib.Path, kind: str, vertices: int, shape_points: int):
        self.vertices = vertices
        for number in range(SIZE):
            name = name_of(number)
            path = folder / f"scans-{kind}" / name / f"{name}_vh_clean_2.ply"
            write(path, ply(full_size_room(number, vertices)))
        inputs = find_inputs(folder, f"scans-{kind}", shape_points=shape_points)
        estimate.warm_up(inputs, lambda: None)
        self.seconds = float("inf")
        for turn in range(3):
            out, started = folder / f"built-{kind}-{turn}", time.process_time()
            building.build_found(building.Found(inputs, (), ()), out)
            self.seconds = min(self.seconds, time.process_time() - started)
        self.sidecar = brief(read_sidecar(LocalHome(out), 0))
        self.path = shard_path(out, 0)
        self.content, self.place = bytearray(self.path.read_bytes()), read_directory(self.path)["zarr.json"]

    def write(self, out: pathlib.Path, number: int) -> None:
        """Write the shard of some number, with the names of its scans, and its description."""
        body = self.place.offset + len(self.place.header)
        group = bytes(self.content[body : body + self.place.size])
        names = [name_of(number * SIZE + i) for i in range(SIZE)]
        for i, name in enumerate(names):
            group = group.replace(f'"{name_of(i)}"'.encode(), f'"\0{name}"'.encode())
        group = group.replace(b"\0", b"")
        content = self.content.copy()
        content[body : body + self.place.size] = group
        crc = zlib.crc32(group).to_bytes(4, "little")
        record = content.rindex(b"PK\1\2")  # of the last entry by name, which is the group's
        assert content[record + 46 : record + 55] == b"zarr.json"
        content[record + 16 : record + 20] = content[self.place.offset + 14 : self.place.offset + 18] = crc
        shard_path(out, number).write_bytes(content)
        self._describe(out, number, names, hashlib.sha256(content).hexdigest())

    def _describe(self, out, number: int, names: list[str], digest: str) -> None:
        scans = []
        for name, scan in zip(names, self.sidecar["scans"], strict=True):
            points = f"{name}/{name}_vh_clean_2.ply"
            scans.append(scan | {"name": name, "files": [[points, SCAN_BYTES, scan["files"][0][2]]]})
        named = {"file": shard_path(out, number).name, "content_sha256": digest, "scans": scans}
        sidecar_path(out, number).write_bytes(seal(self.sidecar | named))


def fill(out: pathlib.Path, template: Template, inputs: building.Inputs) -> None:
    """Plan a build of the inputs and write its shards."""
    for number in range(building.make_plan(out, inputs).shards):
        template.write(out, number)


def simulate(folder: pathlib.Path, scans: int) -> dict:
    """Sources and shards of as many scans in `sim`, and of full size in `large`; returns figures of the latter."""
    write_shapes(folder / "shapes")
    write_scans(folder / "scans", scans)
    small, large = Template(folder, "small", 1500, SMALL_SHAPE), Template(folder, "large", 168_000, 1000)
    fill(folder / "sim", small, find_inputs(folder, shape_points=SMALL_SHAPE))
    inputs = find_inputs(folder, shape_points=1000)
    inputs = dataclasses.replace(inputs, scans=inputs.scans[: LARGE_SHARDS * SIZE])
    fill(folder / "large", large, inputs)
    building.build_found(building.Found(inputs, (), ()), folder / "large")  # all shards are there: it finishes
    described = sidecar_path(folder / "large", 0).stat().st_size
    shard = shard_path(folder / "large", 0).stat().st_size
    return {"seconds_per_scan": large.seconds / SIZE, "sidecar_bytes": described, "shard_bytes": shard}


# Steps, each in a process of its own ----------------------------------------------------------------------------------


class Meter:
    """Time, peak memory and file-system requests of what runs under it."""

    def __init__(self):
        self.result, self.opens, self.lists, self.stats = {}, 0, 0, 0
        sys.addaudithook(self._hear)
        plain = os.stat

        def counted(*args, **options):
            self.stats += 1
            return plain(*args, **options)

        os.stat = counted

    def _hear(self, event: str, _) -> None:
        self.opens += event == "open"
        self.lists += event in ("os.scandir", "os.listdir")

    def _counts(self) -> tuple[int, ...]:
        io = dict(line.split(": ") for line in pathlib.Path("/proc/self/io").read_text().splitlines())
        return self.opens, self.lists, self.stats, int(io["syscr"]), int(io["rchar"])

    @contextlib.contextmanager
    def measure(self, name: str):
        before, started, worked = self._counts(), time.perf_counter(), time.process_time()
        yield
        seconds = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - worked}
        counts = [b - a for a, b in zip(before, self._counts(), strict=True)]
        counted = dict(zip(("open", "list", "stat", "read", "bytes"), counts, strict=True))
        self.result[name] = seconds | {"peak_mb": status("VmHWM")} | counted


def status(name: str) -> float:
    """A figure of memory of this process, in MB."""
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


def step_plan(folder: pathlib.Path, meter: Meter) -> None:
    """A build that begins: what every part of it does before its first scan."""
    with meter.measure("load the kernels"):
        moving.warm_up(Config())
    with meter.measure("find the sources"):
        inputs = find_inputs(folder, shape_points=SMALL_SHAPE)
    with meter.measure("plan"):
        plan = building.make_plan(folder / "sim-new", inputs)
    assert len(plan.jobs) == plan.shards
    with meter.measure("hand ten jobs to workers"):
        size = sum(len(pickle.dumps(job)) for job in plan.jobs[:10])
    meter.result["bytes of a job"] = size // 10


def step_resume(folder: pathlib.Path, meter: Meter) -> None:
    """A build that continues, with all or half of the shards done, and finishes."""
    inputs = find_inputs(folder, shape_points=SMALL_SHAPE)
    with meter.measure("resume"):
        plan = building.make_plan(folder / "sim", inputs)
    if not plan.jobs:
        with meter.measure("finish"):
            building.finish(folder / "sim", plan.sidecars)
        with meter.measure("summarise"):
            summary(plan.sidecars.values())
            refused(plan.sidecars.values(), "scans", "shapes")


def step_open(folder: pathlib.Path, meter: Meter) -> None:
    """Open the data set, then check its names and sizes."""
    with meter.measure("open_dataset"):
        dataset = open_dataset(folder / "sim")
    with meter.measure("read one sequence, its shard not open"):
        dataset[len(dataset) // 2]
    with meter.measure("read the next one"):
        dataset[len(dataset) // 2 + 1]
    with meter.measure("verify --quick"):
        assert not any(verify.verify(dataset, quick=True))


def step_train(folder: pathlib.Path, meter: Meter, name: str = "sim", batches: int = 60) -> None:
    """A trainer with the paper's preset and two threads, from nothing to batches in its own random order."""
    import torch

    from train.config import change
    from train.methods.config import PRESETS
    from train.methods.pretrain import make_stream
    from train.run.world import World

    torch.set_num_threads(1)
    config = change(PRESETS["paper"], workers=2)
    with meter.measure("open_dataset"):
        dataset = open_dataset(folder / name)
    with meter.measure("order and loader"):
        loader = make_stream(config, dataset, World(0, 1, torch.device("cpu")))
    stream = loader.batches(0)
    with meter.measure("first batch"):
        next(stream)
    with meter.measure(f"{batches} batches more"):
        for _ in range(batches):
            next(stream)
    with meter.measure("a batch of the second epoch"):
        next(loader.batches(len(dataset) // config.run.batch + 1))
    meter.result["files open"] = len(os.listdir("/proc/self/fd"))
    stream.close()


def step_large(folder: pathlib.Path, meter: Meter) -> None:
    """The same on shards of full size."""
    step_train(folder, meter, "large")


STEPS = {"plan": step_plan, "resume": step_resume, "open": step_open, "train": step_train, "large": step_large}


def run_step(name: str, folder: pathlib.Path) -> dict:
    """What a step measures."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", name, "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def report(title: str, result: dict) -> None:
    """Print what a step measured."""
    print(title)
    for name, row in result.items():
        if not isinstance(row, dict):
            print(f"  {name:<38} {row}")
            continue
        requests = f"{row['open']:>7} opened {row['list']:>7} listed {row['stat']:>7} stat {row['read']:>7} reads"
        cost = f"{row['seconds']:7.2f} s, {row['cpu']:6.2f} CPU, peak {row['peak_mb']:5.0f} MB"
        print(f"  {name:<38} {cost} {requests} {row['bytes'] / 1e6:7.1f} MB")


@contextlib.contextmanager
def half_done(folder: pathlib.Path):
    """Every second shard's description is away for a while."""
    shards, away = folder / "sim" / "shards", folder / "away"
    away.mkdir()
    for path in sorted(shards.glob("*.json"))[::2]:
        path.rename(away / path.name)
    yield
    for path in away.iterdir():
        path.rename(shards / path.name)
    away.rmdir()


def main(scans: int = SCANS, folder: pathlib.Path | None = None) -> None:
    """Simulate, measure, print."""
    with tempfile.TemporaryDirectory() if folder is None else contextlib.nullcontext(folder) as name:
        folder = pathlib.Path(name)
        started = time.perf_counter()
        if not (folder / "simulated.json").exists():
            (folder / "simulated.json").write_text(json.dumps(simulate(folder, scans)))
        made = json.loads((folder / "simulated.json").read_text())
        print(f"{scans} scans in {scans // SIZE} shards, simulated in {time.perf_counter() - started:.0f} s: {made}")
        begun = run_step("plan", folder)
        report("a build that begins, in each of its parts", begun)
        resumed = run_step("resume", folder)
        report("continued, all shards done", resumed)
        with half_done(folder):
            report("continued, half of the shards done", run_step("resume", folder))
        for file in ("build.json", "dataset.json"):
            print(f"  {file}: {(folder / 'sim' / file).stat().st_size / 1e6:.1f} MB")
        report("reading", run_step("open", folder))
        report("training on small scans", run_step("train", folder))
        report("training on scans of full size", run_step("large", folder))
        estimate_time(scans, made, begun, resumed)


def estimate_time(scans: int, made: dict, begun: dict, resumed: dict) -> None:
    """Print what the whole build takes on some numbers of workers by CPU time, on disks that keep up: the shards, which
    are divided, and what is not."""
    begin = sum(begun[name]["cpu"] for name in ("load the kernels", "find the sources", "plan"))
    end = sum(resumed[name]["cpu"] for name in ("resume", "finish", "summarise"))
    shards = -(-scans // SIZE)
    print(f"{scans} scans of {SCAN_BYTES / 1e6:.1f} MB, {1e3 * made['seconds_per_scan']:.0f} ms each, on")
    for count in (1, 64, 1000):
        work = -(-shards // count) * SIZE * made["seconds_per_scan"]
        total = begin + work + end
        read, written = (
            count * size / made["seconds_per_scan"] / 1e9 for size in (SCAN_BYTES, made["shard_bytes"] / SIZE)
        )
        print(
            f"  {count:>4} workers: {total:7.0f} s = begin {begin:.0f} + shards {work:.0f} + merge {end:.0f}; "
            f"the disk must give {read:.2f} and take {written:.2f} GB/s"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scans", type=int, default=SCANS)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--step", choices=STEPS)
    given = parser.parse_args()
    if given.step:
        meter = Meter()
        STEPS[given.step](given.folder, meter)
        print(json.dumps(meter.result))
    else:
        main(given.scans, given.folder)
