"""Meshes: read, bring z up, and refuse what no shape can be made of."""

from pathlib import Path

import numpy as np

from gen4d.sources.files import SourceError
from gen4d.sources.level import up_rotation
from gen4d.sources.off import read_off

_EXTENT_LIMIT = 1e6  # units: far beyond any furniture in any unit, far below what squares can hold
_UP_AXES = {".off": "z", ".obj": "y", ".glb": "y"}
_READERS = {".off": read_off}


def read_mesh(path: Path, content: bytes, up: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64, z up, in the file's units, and triangles (F, 3) int32 with an area, each once.

    up: "auto" (.off z, .obj and .glb y), an axis or a vector. Raises SourceError for what cannot be a shape.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise SourceError(path, f"has a suffix that no mesh reader knows: one of {', '.join(sorted(_READERS))}")
    vertex, face = _READERS[suffix](path, content)
    _check_mesh(path, vertex, face)
    vertex = vertex @ up_rotation(_UP_AXES[suffix] if up == "auto" else up).T
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
    a, b, c = (vertex[face[:, corner]] for corner in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    kept = face[area > 1e-14 * float(np.ptp(vertex, axis=0).max()) ** 2]  # rounding error counts as none
    if not len(kept):
        raise SourceError(path, f"has {len(face)} triangles, all of zero area: a shape needs a surface")
    _, first = np.unique(np.sort(kept, axis=1), axis=0, return_index=True)
    return kept[np.sort(first)].astype(np.int32)
