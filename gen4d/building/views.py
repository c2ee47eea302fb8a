"""Sequences of views of shapes (STRL, Eq. 2), as a build makes them."""

import dataclasses

import numpy as np

from gen4d import compiled, sources
from gen4d.building.errors import BuildError
from gen4d.building.inputs import Found, Given, Inputs, Made
from gen4d.config import ViewsConfig
from gen4d.lanes import lane
from gen4d.sequence import Actor, Cloud, Sequence
from gen4d.sources.formats import mesh_kernels
from gen4d.sources.pointsets import AnySource, find_any_shapes
from gen4d.views.kernels import turned_extent
from gen4d.views.shapes import chain, generate_shape

CONFIGS = {"views": ViewsConfig}
UNUSABLE = (sources.SourceError,)


def find(kind: str, given: Given, config: ViewsConfig) -> Found:
    """The shapes of a folder, meshes or sets of points, of all classes or of some."""
    given.check(kind, ("shapes",), ("split", "shape_units", "limit"))
    if config.shape_up != "auto":
        try:
            sources.up_rotation(config.shape_up)
        except sources.SourceError as error:
            raise BuildError(f"--shape-up: {error.problem}, or auto") from None
    found = find_any_shapes(given.shapes, config.classes, given.split)
    unit = sources.entry_units(found.entry) if given.shape_units is None else given.shape_units
    if unit:
        config = dataclasses.replace(config, shape_metres=sources.parse_units(unit, "--shape-units"))
    ordered = tuple(sorted(found.sources, key=lambda source: source.name))[: given.limit]
    inputs = Inputs(ordered, (), config, kind, (sources.entry_of(found.entry),))
    return Found(inputs, found.warnings, tuple(message for _, message in found.refused))


def share(inputs: Inputs) -> None:
    """Nothing: a shape's views depend on the shape alone."""


def make(source: AnySource, shared: None, config: ViewsConfig) -> Made:
    """A shape read, and its sequences."""
    recording, files = generate_shape(source, config)
    return Made(recording, {"files": [list(file) for file in files], "class": source.class_name})


def probe(source: AnySource, config: ViewsConfig) -> None:
    """Make it: to know takes as long."""
    generate_shape(source, config)


def warm_up(config: ViewsConfig) -> None:
    """Compile the few kernels that a shape and its frames need."""
    point = np.eye(3, dtype=np.float32)
    turned_extent(point.astype(np.float64), np.eye(4), np.empty(3))
    mesh_kernels.double_areas(point.astype(np.float64), np.array([[0, 1, 2]], np.int32), np.empty(1))
    pose = chain(point, config, lane(config, "", 0, 0, "warm up")).astype(np.float32)
    planes = np.packbits(np.ones((config.frames, 3), np.bool_), axis=1)
    sequence = Sequence("", 0, (Actor(Cloud(point), 1, pose, planes),), kind="views")
    sequence.correspondences(0, 1)
    sequence.frame(1)


def is_cold() -> bool:
    """Whether the kernels have to be compiled first."""
    return compiled.is_cold(turned_extent)
