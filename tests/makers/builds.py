"""Data sets of a few small furnished rooms, built in this process."""

import pathlib

from gen4d import building, sources
from gen4d.building import moving
from gen4d.config import Config
from tests.makers.meshes import write_shapes
from tests.makers.rooms import write_furnished


def make_inputs(scans: pathlib.Path, shapes: pathlib.Path, **config) -> building.Inputs:
    """What a build makes of two folders and a config, with the shapes of every class that is there."""
    return moving.make_inputs(sources.find_scans(scans), sources.find_shapes(shapes), Config(**config))


def run_build(out: pathlib.Path, inputs: building.Inputs, workers: int = 1, strict: bool = False) -> dict:
    """Build all that is planned into `out`, and return the content of dataset.json."""
    return building.build_found(building.Found(inputs, (), ()), out, workers, strict=strict).manifest


def small_build(folder: pathlib.Path) -> pathlib.Path:
    """Three rooms in two shards, three sequences each, with pair lists."""
    scans, shapes = write_furnished(folder / "scans", 3, 3000), write_shapes(folder / "shapes")
    run_build(folder / "built", make_inputs(scans, shapes, sequences=3, scans_per_shard=2, pairs=True))
    return folder / "built"
