"""Sequences from arrays: what a build makes of files, without any file."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gen4d import sources
from gen4d.config import Config, make_config
from gen4d.moving.feasible import Heights, refuse_hopeless, with_heights
from gen4d.moving.generate import generate_scan, group_shapes
from gen4d.moving.shape import ShapeError, make_model
from gen4d.sequence import Recording, SequenceError, as_column, as_points

Triangles = tuple[np.ndarray, np.ndarray]
_EXAMPLE = "{'chair': [(vertices, triangles)]}"
Meshes = Mapping[str, Iterable[Triangles] | Mapping[str, Triangles]]


def generate(
    points: np.ndarray,
    shapes: Meshes,
    *,
    name: str = "scan",
    labels: np.ndarray | None = None,
    instances: np.ndarray | None = None,
    heights: Mapping[str, Heights] | None = None,
    **settings: Any,
) -> Recording:
    """Sequences of shapes that move through a scan (4DContrast, section 3.3), in memory.

    points: (N, 3), metres with z up unless the settings `metres_per_unit` and `up` say otherwise. labels, instances:
    one whole number per point, -1 for none. shapes: class -> its meshes, each (vertices (V, 3), triangles (F, 3)) with
    z up, in any unit; or class -> {name: mesh}. heights: class -> (lowest, highest) in metres, needed for
    classes that datasets_manifest.yaml does not know. settings: fields of `gen4d.Config`, for example seed=0,
    sequences=20, frames=4.

    A build makes the same sequences from the same points, meshes, names and settings. The recording that is returned
    iterates over them; it has fewer than asked for if the scan leaves no room.

    Raises ValueError with the value, the rule and the remedy.
    """
    if not isinstance(shapes, Mapping):
        raise SequenceError(f"shapes is a {type(shapes).__name__}: give meshes by class, {_EXAMPLE}")
    by_class = {class_name: _sources(class_name, given) for class_name, given in shapes.items()}
    empty = [class_name for class_name, members in by_class.items() if not members]
    if empty or not by_class:
        raise SequenceError(f"shapes has no mesh{f' of the class {empty[0]}' if empty else ''}: give one, {_EXAMPLE}")
    meshes = [source for members in by_class.values() for source in members]
    config = make_config(Config, **settings | {"classes": tuple(sorted(shapes))})
    config = with_heights(config, shapes, heights or {})
    refuse_hopeless(config)
    kind = np.float64 if np.asarray(points).dtype != np.float32 else np.float32
    point = as_points(points, "points", kind, least=1)
    label = None if labels is None else as_column(labels, len(point), "labels")
    instance = None if instances is None else as_column(instances, len(point), "instances")
    orientation = sources.Orientation(config.up, config.metres_per_unit)
    scan = sources.scan_from_arrays(name, point, label, instance, orientation)
    for source in meshes:  # what is wrong with a mesh is an error here, not a rejection
        mesh = sources.load_shape(source, config.shape_up)
        try:
            make_model(mesh.vertex, mesh.face)
        except ShapeError as error:
            raise SequenceError(f"shape {source.name}: {error}") from None
    return generate_scan(scan, group_shapes(meshes, config.shape_up), config).recording


def _sources(class_name: str, given: Iterable[Triangles] | Mapping[str, Triangles]) -> list[sources.MeshSource]:
    named = given.items() if isinstance(given, Mapping) else ((f"{class_name}_{i:04d}", m) for i, m in enumerate(given))
    return [_source(name, class_name, mesh) for name, mesh in named]


def _source(name: str, class_name: str, mesh: Triangles) -> sources.MeshSource:
    try:
        vertex, face = mesh
        face = np.asarray(face)
    except (TypeError, ValueError):
        raise SequenceError(f"shape {name} is not a pair (vertices (V, 3), triangles (F, 3)): give both") from None
    if face.ndim != 2 or face.shape[1] != 3 or not len(face) or face.dtype.kind not in "iu":
        raise SequenceError(
            f"shape {name} has triangles of shape {face.shape} and type {face.dtype}: at least one row of three whole "
            "numbers, (F, 3)"
        )
    return sources.MeshSource(
        name, class_name, as_points(vertex, f"shape {name}", np.float64, least=3), face.astype(np.int64)
    )
