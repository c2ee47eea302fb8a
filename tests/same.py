"""Run by tests in processes of other environments: `python -m tests.same FOLDER`, builds in many ways, as JSON lines.

Standard input names ways to build the rooms in FOLDER, one a line; the answer to each is a hash over every file.
"""

import hashlib
import json
import pathlib
import shutil
import sys
from typing import NamedTuple

from gen4d import building, sources
from gen4d.building import moving
from gen4d.building.plan import Part
from gen4d.config import Config

CONFIG = Config(sequences=2, scans_per_shard=1, shape_points=20)


class Way(NamedTuple):
    """One way to build: its environment is that of the process."""

    workers: int
    start: str
    shuffled: bool
    parts: int


def make_inputs(folder: pathlib.Path, shuffled: bool) -> building.Inputs:
    """Inputs as their folders list them, or the other way round."""
    step = -1 if shuffled else 1
    scans, shapes = sources.find_scans(folder / "scans"), sources.find_shapes(folder / "shapes")
    found = (listing._replace(sources=listing.sources[::step]) for listing in (scans, shapes))
    return moving.make_inputs(*found, CONFIG)


def hash_of(folder: pathlib.Path, way: Way) -> str:
    """SHA-256 over names and contents of all files of a build."""
    out, inputs = folder / "same", make_inputs(folder, way.shuffled)
    for number in range(1, way.parts + 1):
        part = Part(number, way.parts) if way.parts > 1 else None
        plan = building.make_plan(out, inputs, part=part)
        jobs = plan.jobs[::-1] if way.shuffled else plan.jobs
        done = dict(building.run(jobs, way.workers, way.start))
    if way.parts > 1:
        building.merge(out)
    else:
        building.finish(out, done)
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        digest.update(path.relative_to(out).as_posix().encode() + b"\0" + path.read_bytes())
    shutil.rmtree(out)
    return digest.hexdigest()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(hash_of(pathlib.Path(sys.argv[1]), Way(*json.loads(line)))), flush=True)
