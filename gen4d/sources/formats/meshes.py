"""Meshes: read, bring z up, and refuse what no shape can be made of."""

from pathlib import Path

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
_UP_AXES = {".off": "z", ".obj": "y", ".glb": "y"}
_READERS = {".off": read_off, ".obj": read_obj, ".glb": read_glb}


def read_mesh(path: Path, content: bytes, up: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64, z up, in the file's units, and triangles (F, 3) int32 with an area, each once.

    up: "auto" (.off z, .obj and .glb y), an axis or a vector. Raises SourceError for what cannot be a shape.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise SourceError(path, f"has an unknown suffix for a mesh: must be one of {', '.join(sorted(_READERS))}")
    vertex, face = _READERS[suffix](path, content)
    return sound_mesh(path, vertex, face, _UP_AXES[suffix] if up == "auto" else up)


def sound_mesh(path: Path, vertex: np.ndarray, face: np.ndarray, up: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64 with the axis or vector `up` turned to z, and triangles (F, 3) int32 with an area, each
    once. Raises SourceError for what cannot be a shape."""
    _check_mesh(path, vertex, face)
    vertex = vertex @ up_rotation(up).T
    return np.ascontiguousarray(vertex), _sound_faces(path, vertex, face)


def _check_mesh(path: Path, vertex: np.ndarray, face: np.ndarray) -> None:
    if not len(vertex) or not len(face):
        raise SourceError(path, f"has {len(vertex)} vertices and {len(face)} triangles: a shape needs a surface")
    if (bad := int((~np.isfinite(vertex)).any(axis=1).sum())) > 0:
        raise SourceError(path, f"has {bad} of {len(vertex)} vertices with NaN or infinity: repair or remove it")
    if face.min() < 0 or face.max() >= len(vertex):
        raise SourceError(
            path,
            f"has face indices from {face.min()} to {face.max()} for {len(vertex)} vertices: repair or remove it",
        )
    if (reach := float(np.abs(vertex).max())) > _EXTENT_LIMIT:
        raise SourceError(
            path, f"has a point at infinity (a coordinate of {reach:.3g}, at most {_EXTENT_LIMIT:.0e} units): repair it"
        )


def _sound_faces(path: Path, vertex: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The faces that have an area, each triple of corners once, in the file's order."""
    double_area = np.empty(len(face))
    mesh_kernels.double_areas(vertex, face, double_area)
    kept = face[double_area > _ZERO_AREA * float(np.ptp(vertex, axis=0).max()) ** 2]
    if double_area.sum() < _LEAST_AREA * float(np.ptp(vertex, axis=0).max()) ** 2 or not len(kept):
        raise SourceError(path, f"has {len(face)} triangles, all of zero area or nearly: a shape needs a surface")
    first, table = np.empty(len(kept), bool), np.full(1 << int(2 * len(kept)).bit_length(), -1, np.int64)
    mesh_kernels.first_triples(kept, table, first)
    return kept[first].astype(np.int32)
