"""Sequences of posed depth images and of lidar sweeps (STRL, section 3.1; PointContrast), as a build makes them."""

import dataclasses
import pathlib

import numpy as np

from gen4d import compiled, sources
from gen4d.building.errors import BuildError
from gen4d.building.inputs import Found, Given, Inputs, Made
from gen4d.config import FramesConfig, SweepsConfig
from gen4d.moving.cloud import CloudError
from gen4d.sequence import match_points
from gen4d.sources.frames import Camera, DepthFrame
from gen4d.sources.posed import PosedSource, find_posed
from gen4d.sources.sweeps import Sweep
from gen4d.views import kernels
from gen4d.views.frames import frame_cloud
from gen4d.views.generate import generate_views, left_out
from gen4d.views.overlap import find_overlaps, sparse_points
from gen4d.views.sweeps import sweep_cloud

CONFIGS = {"frames": FramesConfig, "sweeps": SweepsConfig}
UNUSABLE = (sources.SourceError, CloudError)


def find(kind: str, given: Given, config: FramesConfig) -> Found:
    """The scans of a folder whose frames or sweeps are recorded, and what the manifest, or gen4d.yaml, says of them."""
    given.check(kind, ("scans",), ("split", "up", "limit"))
    found = find_posed(given.scans, kind, given.split)
    up = given.up or config.up or found.up
    try:
        sources.up_rotation(up)
    except sources.SourceError as error:
        raise BuildError(f"--up: {error.problem}") from None
    config = dataclasses.replace(config, up=up, every=config.every or found.recorded.every)
    inputs = Inputs(found.sources[: given.limit], (), config, kind, (found.entry,))
    return Found(inputs, found.warnings, found.refused)


def share(inputs: Inputs) -> str:
    """Which of the two kinds it is."""
    return inputs.kind


def make(source: PosedSource, kind: str, config: FramesConfig) -> Made:
    """A scan's frames or sweeps read, and its sequences."""
    made = generate_views(source, kind, config)
    reading = made.reading
    counts, examples = left_out(reading, made.too_little, config)
    described = {
        "files": [[source.path, source.size, reading.sha256]],
        "frames": reading.frames,
        "views": len(made.recording.views.clouds),
        "candidates": made.candidates,
        "left_out": counts,
        "examples": examples,
    }
    broken = sorted({_below(source, error) for error in reading.broken})
    return Made(made.recording, described, unreadable=tuple(broken))


def _below(source: PosedSource, error: sources.SourceError) -> str:
    path = pathlib.Path(error.path)
    name = path.relative_to(source.root) if path.is_relative_to(source.root) else path
    return f"{name}: {error.problem}"


def probe(source: PosedSource, config: FramesConfig) -> None:
    """Make it: to know takes as long. Its kind is that of its files."""
    generate_views(source, "frames" if source.recorded.depth or source.recorded.sens else "sweeps", config)


def warm_up(config: FramesConfig) -> None:
    """Compile the kernels by an image and a sweep of a wall."""
    depth = np.full((48, 64), 1500, np.uint16)
    frame = DepthFrame(0, 0.0, np.eye(4), depth, Camera(60.0, 60.0, 31.5, 23.5), 1000.0)
    seen = frame_cloud(frame, 0.0, 10.0, config.voxel_m)
    sweep_cloud(Sweep(0, 0.0, np.eye(4), seen.point, None, None), 0.0, 100.0, config.voxel_m)
    sparse = sparse_points(seen.point, np.eye(4), 0.05)
    find_overlaps([sparse, sparse], 0.05)
    match_points(seen.point, seen.point, config.match_m)


def is_cold() -> bool:
    """Whether the kernels have to be compiled first."""
    return compiled.is_cold(kernels.back_project)
