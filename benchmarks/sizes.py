"""How large shapes are where rooms are as narrow as ScanNet's.

`python benchmarks/sizes.py FOLDER` writes built-in rooms to FOLDER once. Their free floors are wider than those of
ScanNet's scans, whose widest free disc is 0.45 to 1.05 m and 0.65 m in the median. So of the level scans of 40 rooms
those between 0.45 and 1.05 m are taken, all below the median and as many above it, evenly chosen by width; their names
go to FOLDER/narrow.txt. `python benchmarks/sizes.py FOLDER SCANS SHAPES UP` takes all scans of another folder instead.
With PYTHONPATH=CHECKOUT the gen4d of that checkout is measured, an older generator for example, on the same scans.
"""

import collections
import pathlib
import sys

import numpy as np

from gen4d import sources
from gen4d.config import GENERATOR, Config
from gen4d.moving.generate import generate_scan, group_shapes, prepare_scan
from gen4d.samples import write_samples

try:
    from gen4d.building import moving
except ImportError:  # generators up to 3, before there were kinds
    from gen4d import building as moving
    from gen4d.building import shard

    moving.load_scan = shard.load_scan

ROOMS, MEDIAN_M, WIDEST_M = 40, 0.65, (0.45, 1.05)
LOWEST_M = {"chair": 0.70, "desk": 0.70, "dresser": 0.75, "night_stand": 0.45, "sofa": 0.65, "table": 0.40}
LOWEST_M |= {"bathtub": 0.50, "toilet": 0.65}  # of each class, in all generators
ROUNDING_M = 1e-9


def write_narrow(folder: pathlib.Path) -> pathlib.Path:
    """Built-in rooms and, beside them, the list of those whose free floors are spread as ScanNet's."""
    write_samples(folder, ROOMS, 6)
    listed = folder / "narrow.txt"
    if listed.exists():
        return listed
    every = folder / "all.txt"
    every.write_text("\n".join(path.name for path in (folder / "scans").glob("scene*")))
    width = {}
    for scan in sources.find_scans(folder / "scans", every).sources:
        width[scan.name] = prepare_scan(moving.load_scan(scan, Config(up="z")), Config()).space.widest_m
    inside = sorted((name for name in width if WIDEST_M[0] <= width[name] <= WIDEST_M[1]), key=width.__getitem__)
    narrow = [name for name in inside if width[name] <= MEDIAN_M]
    wide = inside[len(narrow) :]
    even = np.linspace(0, len(wide) - 1, min(len(narrow), len(wide))).round().astype(int)
    chosen = narrow + [wide[i] for i in even.tolist()]
    found = [width[name] for name in chosen]
    print(f"{len(chosen)} scans, widest free disc {found[0]:.2f} to {found[-1]:.2f} m, median {np.median(found):.2f} m")
    listed.write_text("\n".join(chosen))
    return listed


def measure(inputs) -> str:
    """A row of the table: all sequences of some scans."""
    shapes, total, movers = group_shapes(inputs.shapes, "auto"), collections.Counter(), []
    for source in inputs.scans:
        made = generate_scan(moving.load_scan(source, inputs.config), shapes, inputs.config)
        total.update(attempts=made.counts.attempts, sequences=len(made.recording))
        movers += [mover for sequence in made.recording for mover in sequence.movers]
    count, wanted = len(movers), len(inputs.scans) * inputs.config.sequences
    shrunk = sum(mover.shrink < 1 for mover in movers)
    low = sum(mover.height_m < LOWEST_M[mover.class_name] - ROUNDING_M for mover in movers)
    least = min(mover.shrink for mover in movers)
    tables = [mover.height_m for mover in movers if mover.class_name == "table"]
    middle = f"{np.median(tables):.2f} m" if tables else "none"
    return (
        f"| {GENERATOR} | {count} of {wanted} | {count / total['attempts']:.0%} | {shrunk / count:.0%} "
        f"| {least:.2f} | {low / count:.0%} | {middle} |"
    )


def main(folder: pathlib.Path, scans: str = "", shapes: str = "", up: str = Config.up) -> None:
    """Measure and print the table."""
    if scans:
        found, meshes = sources.find_scans(scans), sources.find_shapes(shapes, Config.classes)
    else:
        found = sources.find_scans(folder / "scans", write_narrow(folder))
        meshes = sources.find_shapes(folder / "shapes", Config.classes)
    print("| generator | sequences | accepted | shrunk | least factor | below its class | tables, median |")
    print("|---|---|---|---|---|---|---|")
    print(measure(moving.make_inputs(found, meshes, Config(up=up))))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
