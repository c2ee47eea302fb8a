"""What reading shapes costs: a build with as many shapes, of ModelNet's sizes, as ModelNet40 has of the eight classes.

`python -m benchmarks shapes [FOLDER]`: rooms of full size and OFF files of 280 KB in the mean, half of them below 150,
are written to FOLDER once. Each row is a process of its own that generates all rooms, one after another: with 36
shapes, with all and nothing kept, with all that are read and kept, and again. Takes minutes and 2 GB of disk.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

SHAPES = {"chair": 889, "desk": 200, "dresser": 200, "night_stand": 200, "sofa": 680, "table": 392}
SHAPES |= {"bathtub": 106, "toilet": 344}
ROOMS, FEW, SCANNET = 24, 36, 1201
_MEDIAN_BYTES, _SPREAD, _BYTES_A_FACE = 150e3, 1.3, 36


def lump(rng: np.random.Generator, size: float) -> str:
    """An OFF file of about `size` bytes: a lumpy, boxy closed surface."""
    side = max(3, int(np.sqrt(size / _BYTES_A_FACE / 2)))
    angles = np.linspace(0, 2 * np.pi, side, endpoint=False), np.linspace(-np.pi / 2, np.pi / 2, side)
    around, up = np.meshgrid(*angles, indexing="ij")
    cos_a, sin_a, cos_u, sin_u = (np.sign(f(x)) * abs(f(x)) ** 0.4 for x in (around, up) for f in (np.cos, np.sin))
    point = np.stack([cos_u * cos_a, cos_u * sin_a, sin_u], -1).reshape(-1, 3) * rng.uniform(9, 18, 3)
    point += rng.normal(0, 0.02, point.shape)
    row = np.arange(side * side).reshape(side, side)
    turned = np.roll(row, -1, 0)
    corner = row[:, :-1], turned[:, :-1], turned[:, 1:], row[:, 1:]
    face = np.concatenate([np.stack([corner[0], *pair], -1).reshape(-1, 3) for pair in (corner[1:3], corner[2:4])])
    lines = [f"{x:.6f} {y:.6f} {z:.6f}" for x, y, z in point.tolist()]
    lines += [f"3 {a} {b} {c}" for a, b, c in face.tolist()]
    return "\n".join([f"OFF\n{len(point)} {len(face)} 0", *lines, ""])


def write_inputs(folder: pathlib.Path) -> None:
    """Rooms and shapes, where they are not there yet."""
    from tests.makers.rooms import write_full_size

    rng = np.random.default_rng(0)
    if (folder / "done").exists():
        return
    write_full_size(folder / "scans", ROOMS)
    for name, count in SHAPES.items():
        for number in range(count):
            text = lump(rng, np.clip(rng.lognormal(np.log(_MEDIAN_BYTES), _SPREAD), 8e3, 6e6))
            for kind in ("many", "few") if number < FEW // len(SHAPES) + (name == "chair") * 4 else ("many",):
                path = folder / kind / name / "train" / f"{name}_{number + 1:04d}.off"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    (folder / "done").write_text("")


class Clock:
    """Adds up the seconds that some functions take, by what they are called for."""

    def __init__(self):
        self.seconds: collections.Counter[str] = collections.Counter()

    def watch(self, module, name: str, what: str) -> None:
        inner = getattr(module, name)

        def timed(*given, **named):
            start = time.perf_counter()
            try:
                return inner(*given, **named)
            finally:
                self.seconds[what] += time.perf_counter() - start

        setattr(module, name, timed)


def measure(folder: pathlib.Path, kind: str) -> dict:
    """Milliseconds a room by step, with the shapes of `folder / kind`, after a room that warms everything up."""
    from gen4d import sources
    from gen4d.building import estimate, moving
    from gen4d.config import Config
    from gen4d.moving import augment, generate

    planned = moving.make_inputs(
        sources.find_scans(folder / "scans"), sources.find_shapes(folder / kind), Config(up="z")
    )
    shapes = generate.group_shapes(planned.shapes, "auto")
    estimate.warm_up(planned, lambda: None)
    generate.generate_scan(moving.load_scan(planned.scans[0], planned.config), shapes, planned.config)
    clock = Clock()
    if hasattr(generate, "models"):
        clock.watch(generate.models, "find_figures", "shapes")
        clock.watch(generate.models, "load_model", "shapes")
    else:  # as it was before shapes were kept
        clock.watch(generate, "_load_model", "shapes")
    clock.watch(augment, "draw_bits", "masks")
    clock.watch(moving, "load_scan", "reading scans")
    clock.watch(generate, "prepare_scan", "preparing scans")
    clock.watch(generate, "find_fit", "trajectories")
    start, sequences = time.perf_counter(), 0
    for source in planned.scans[1:]:
        scan = moving.load_scan(source, planned.config)
        sequences += len(generate.generate_scan(scan, shapes, planned.config).recording)
    whole, rooms = time.perf_counter() - start, len(planned.scans) - 1
    shares = {name: 1e3 * seconds / rooms for name, seconds in clock.seconds.items()}
    return {"whole": 1e3 * whole / rooms, "sequences": sequences, **shares}


def read_all(folder: pathlib.Path) -> dict:
    """Milliseconds to read every shape once and keep it."""
    from gen4d import sources
    from gen4d.moving import models

    found = sources.find_shapes(folder / "many").sources
    start = time.perf_counter()
    for source in found:
        models.find_figures(source, "auto")
    return {"whole": 1e3 * (time.perf_counter() - start), "shapes": len(found)}


def run(folder: pathlib.Path, step: str, kept: str) -> dict:
    """One measurement in a process of its own, which keeps shapes in a folder of that name."""
    place = kept if kept == "off" else str(folder / kept)
    command = [sys.executable, "-m", "benchmarks.shapes", str(folder), step]
    environment = os.environ | {"GEN4D_CACHE": place}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main(folder: pathlib.Path | None = None) -> None:
    """Write the inputs, measure, and print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or pathlib.Path(temporary)
        write_inputs(folder)
        kept = f"kept-{os.getpid()}"
        run(folder, "few", kept)
        few, none = run(folder, "few", kept), run(folder, "many", "off")
        first, again = run(folder, "read", kept), run(folder, "many", kept)
        print("ms a room; shapes, masks, ... are parts of the whole")
        for name, row in ((f"{FEW} shapes", few), ("all, nothing kept", none), ("all, kept", again)):
            print(f"  {name:<20}", ", ".join(f"{key} {value:.1f}" for key, value in row.items()))
        print(f"reading {first['shapes']} shapes once: {first['whole'] / 1e3:.1f} s")
        total = (first["whole"] + SCANNET * again["whole"]) / (SCANNET * few["whole"])
        later, without = again["whole"] / few["whole"], none["whole"] / few["whole"]
        print(
            f"{SCANNET} scans with all shapes take {total:.2f} times as long as with {FEW}, {later:.2f} times when all"
        )
        print(f"are kept, {without:.2f} times when nothing is")


if __name__ == "__main__":
    place, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
    print(json.dumps(read_all(place) if wanted == "read" else measure(place, wanted)))
