"""Meshes: read, bring z up, leave out what strayed, and refuse what no shape can be made of."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.formats import mesh_kernels
from gen4d.sources.formats.glb import read_glb
from gen4d.sources.formats.obj import read_obj
from gen4d.sources.formats.off import read_off
from gen4d.sources.level import up_rotation
from gen4d.sources.source import SourceError

_EXTENT_LIMIT = 1e6  # units: far beyond any furniture in any unit, far below what squares can hold
_ZERO_AREA = 1e-14  # of the squared extent: what rounding leaves of an area of zero
_LEAST_AREA = 1e-6  # of the squared extent, for all triangles together: less is a line written with few digits
_STRAY_AREA = 0.01  # of all area: triangles of so little do not make a shape three times as large,
_STRAY_TIMES = 3.0
_BINS = 64
_PASSES = 8  # each finds what is some twenty times as far out as the next
_UP_AXES = {".off": "z", ".obj": "y", ".glb": "y"}
_READERS = {".off": read_off, ".obj": read_obj, ".glb": read_glb}


class Triangles(NamedTuple):
    """vertex (V, 3) float64, z up, in the file's units; face (F, 3) int32, each with an area and listed once; doubts
    for the user about what was left out or guessed, without the file's name."""

    vertex: np.ndarray
    face: np.ndarray
    doubts: tuple[str, ...]


def read_mesh(path: Path, content: bytes, up: str) -> Triangles:
    """The triangles of a mesh file. up: "auto" (.off z, .obj and .glb y), an axis or a vector.

    Raises SourceError for what cannot be a shape.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise SourceError(path, f"has an unknown suffix for a mesh: must be one of {', '.join(sorted(_READERS))}")
    vertex, face, doubts = _READERS[suffix](path, content)
    mesh = sound_mesh(path, vertex, face, _UP_AXES[suffix] if up == "auto" else up)
    return mesh._replace(doubts=doubts + mesh.doubts)


def sound_mesh(path: Path, vertex: np.ndarray, face: np.ndarray, up: str) -> Triangles:
    """Triangles of vertices (V, 3) float64 with the axis or vector `up` turned to z, and faces (F, 3), without those
    that have no area or strayed. Raises SourceError for what cannot be a shape."""
    vertex, face = _check_mesh(path, vertex, face)
    vertex = np.ascontiguousarray(vertex @ up_rotation(up).T)
    face, area, size = _with_area(path, vertex, face)
    face, doubts = _without_strays(vertex, face, area, size)
    first, table = np.empty(len(face), bool), np.full(1 << int(2 * len(face)).bit_length(), -1, np.int64)
    mesh_kernels.first_triples(face, table, first)
    return Triangles(vertex, face[first].astype(np.int32), doubts)


def _check_mesh(path: Path, vertex: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh, without the vertices of no face where one of those is out of bounds."""
    if not len(vertex) or not len(face):
        raise SourceError(path, f"has {len(vertex)} vertices and {len(face)} triangles: a shape needs a surface")
    if face.min() < 0 or face.max() >= len(vertex):
        raise SourceError(
            path,
            f"has face indices from {face.min()} to {face.max()} for {len(vertex)} vertices: repair or remove it",
        )
    if np.abs(vertex).max() <= _EXTENT_LIMIT:  # and no NaN
        return vertex, face
    rows, face = np.unique(face, return_inverse=True)
    vertex, face = vertex[rows], face.reshape(-1, 3)
    if (bad := int((~np.isfinite(vertex)).any(axis=1).sum())) > 0:
        raise SourceError(path, f"has {bad} of {len(vertex)} vertices with NaN or infinity: repair or remove it")
    if (reach := float(np.abs(vertex).max())) > _EXTENT_LIMIT:
        raise SourceError(
            path, f"has a point at infinity (a coordinate of {reach:.3g}, at most {_EXTENT_LIMIT:.0e} units): repair it"
        )
    return vertex, face


def _size(vertex: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The lowest and highest coordinates (2, 3) of faces."""
    size = np.empty((2, 3))
    mesh_kernels.bounds(vertex, face, size)
    return size


def _with_area(path: Path, vertex: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The faces that have an area, twice their areas, and the lowest and highest coordinates (2, 3) of all faces."""
    area = np.empty(len(face))
    mesh_kernels.double_areas(vertex, face, area)
    size = _size(vertex, face)
    square = float(np.ptp(size, axis=0).max()) ** 2
    kept = area > _ZERO_AREA * square
    if area.sum() < _LEAST_AREA * square or not kept.any():
        raise SourceError(path, f"has {len(face)} triangles, all of zero area or nearly: a shape needs a surface")
    return (face, area, size) if kept.all() else (face[kept], area[kept], size)


def _without_strays(
    vertex: np.ndarray, face: np.ndarray, area: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The faces without the few that make the shape three times as large as 99 % of its area are, and what to say."""
    total, count, far = float(area.sum()), len(face), 1.0
    longest = [int(np.ptp(size, axis=0).argmax())]  # nothing strays where most of the area reaches along it
    low, high = _core(np.ascontiguousarray(vertex[:, longest]), face, area, size[:, longest], _STRAY_AREA * total)
    if np.ptp(size[:, longest]) < _STRAY_TIMES * float((high - low)[0]):
        return face, ()
    for _ in range(_PASSES):
        low, high = _core(vertex, face, area, size, _STRAY_AREA * total)
        side = float((high - low).max())  # a handle may stick out of a board by many times its thickness
        times = np.ptp(size, axis=0) / side
        if not (times >= _STRAY_TIMES).any():
            break
        margin = np.where(times >= _STRAY_TIMES, side, np.inf)
        outside = ((vertex < low - margin) | (vertex > high + margin)).any(axis=1)
        stray = outside[face].any(axis=1)
        if not stray.any() or float(area[~stray].sum()) < (1 - _STRAY_AREA) * total:
            break
        face, area, far = face[~stray], area[~stray], far * float(times.max())
        size = _size(vertex, face)
    if len(face) == count:
        return face, ()
    share = 1 - float(area.sum()) / total
    left = f"left out {count - len(face)} triangles, {share:.2g} of its area"
    return face, (f"{left}, that make it {far:.3g} times as large: repair it if they belong to it",)


def _core(
    vertex: np.ndarray, face: np.ndarray, area: np.ndarray, size: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """The box (A,), (A,) that holds the centres of the faces along each of A axes, but for so much of their area at
    each end; to a 64th of the size."""
    extent = np.maximum(np.ptp(size, axis=0), 1e-300)
    bins = np.zeros((vertex.shape[1], _BINS))
    mesh_kernels.area_bins(vertex, face, area, size[0], _BINS / extent, bins)
    reached = np.cumsum(bins, axis=1)
    first = (reached <= least).sum(axis=1)
    last = (reached < reached[:, -1:] - least).sum(axis=1)
    return size[0] + extent * first / _BINS, size[0] + extent * (last + 1) / _BINS
