"""Points on the surface of a mesh whose vertices are too far apart to stand for it: CAD-like rooms, decimated walls.

A scanned mesh has a vertex every few centimetres, and its vertices are its points. Where most of a mesh's surface lies
in large triangles, floors and walls would be holes. There every triangle is covered by a regular grid of its own, with
a point at least every voxel. No chance is involved.
"""

from pathlib import Path

import numpy as np

from gen4d.sources.formats.columns import points_of
from gen4d.sources.formats.meshes import read_mesh
from gen4d.sources.formats.ply import ply_faces, ply_rows
from gen4d.sources.formats.polygons import triangulate
from gen4d.sources.source import SourceError

MESHES = (".off", ".obj", ".glb")  # besides .ply, which may hold points alone
_LARGE_M = 0.10  # an edge so long leaves cells of the floor without a point
_SHARE = 0.5  # of the surface, in triangles with such an edge
_MOST_POINTS = 40_000_000


def read_surface(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices (V, 3) and triangles (F, 3) of a scan's file in its own axes, None where it holds points alone. Of a
    .ply the vertices are all of its rows, in their order. Raises SourceError where another mesh is broken."""
    if path.suffix.lower() in MESHES:
        vertex, face = read_mesh(path, content, "z")[:2]
        return vertex, face
    head = content[:65536].partition(b"end_header")[0]
    if path.suffix.lower() != ".ply" or b"element face " not in head:
        return None
    try:
        polygons = ply_faces(path, content)
    except SourceError:  # its points were read: faces that cannot be are as if not there
        return None
    vertex = points_of(path, ply_rows(path, content)).astype(np.float64)
    face, _ = triangulate(vertex, {corners: rows for corners, rows in polygons.items() if corners > 2})
    inside = len(face) and face.min() >= 0 and face.max() < len(vertex)
    return (vertex, face) if inside else None


def is_coarse(vertex: np.ndarray, face: np.ndarray, metres_per_unit: float) -> bool:
    """Whether most of a mesh's surface lies in triangles whose vertices are too far apart."""
    corner = vertex[face]
    longest = _longest(corner)
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    area[~np.isfinite(area)] = 0
    return bool(area[longest * metres_per_unit > _LARGE_M].sum() > _SHARE * area.sum())


def sample(path: Path, vertex: np.ndarray, face: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, 3) float64 that cover a mesh at least every `spacing` units, and the vertex (K,) int32 nearest to each
    within its triangle. Raises SourceError where they would be too many."""
    corner = vertex[face].astype(np.float64)
    whole = np.isfinite(corner).all(axis=(1, 2))
    corner, face = corner[whole], face[whole]
    parts = np.maximum(np.ceil(_longest(corner) / spacing), 1)  # of each edge
    if ((parts + 1) * (parts + 2) / 2).sum() > _MOST_POINTS:
        raise SourceError(path, "has a surface too large to be covered by points at voxels' spacing: check --units")
    points, nearest = [], []
    for count in np.unique(parts.astype(np.int64)).tolist():
        rows = np.flatnonzero(parts == count)
        weight = _grid(count)
        points.append((weight @ corner[rows]).reshape(-1, 3))
        nearest.append(face[rows][:, weight.argmax(axis=1)].reshape(-1))
    return np.concatenate(points), np.concatenate(nearest).astype(np.int32)


def _longest(corner: np.ndarray) -> np.ndarray:
    """The longest edge (F,) of triangles (F, 3, 3)."""
    return np.sqrt(((corner - np.roll(corner, 1, axis=1)) ** 2).sum(axis=2).max(axis=1))


def _grid(count: int) -> np.ndarray:
    """Barycentric weights (K, 3) of the points of a triangle whose edges are cut into `count` parts."""
    i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
    i, j = i[i + j <= count], j[i + j <= count]
    return np.stack([i, j, count - i - j], axis=1) / count
