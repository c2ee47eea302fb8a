"""Faces of any number of corners to triangles."""

from collections.abc import Mapping

import numpy as np

from gen4d.sources.formats import mesh_kernels

Polygons = Mapping[int, np.ndarray]  # number of corners n -> (F, n) int64


def triangulate(vertex: np.ndarray, polygons: Polygons) -> tuple[np.ndarray, tuple[str, ...]]:
    """Triangles (T, 3) int64 of faces of three corners and more, by their number of corners, and doubts about them.

    A face is cut around its first corner where that covers it once, which is so for all convex ones, and else ear by
    ear. A face that crosses itself has no area that one could be right about: it is cut around its first corner too,
    and counted. Indices beyond the vertices (V, 3) are left for the caller to refuse.
    """
    parts, crossed, total = [], 0, 0
    for corners, polygon in sorted(polygons.items()):
        total += len(polygon)
        triangle = _fan(polygon)
        if corners > 3 and len(polygon) and polygon.min() >= 0 and polygon.max() < len(vertex):
            polygon = np.ascontiguousarray(polygon)
            crossed += mesh_kernels.clip_ears(vertex, polygon, triangle)
        parts.append(triangle.reshape(-1, 3))
    if not parts:
        return np.empty((0, 3), np.int64), ()
    doubts = (f"has {crossed} faces of {total} that cross themselves: their area is a guess",) if crossed else ()
    return np.concatenate(parts), doubts


def _fan(polygon: np.ndarray) -> np.ndarray:
    """Polygons (F, n) as triangles (F, n - 2, 3) around the first corner."""
    first = np.broadcast_to(polygon[:, :1], (len(polygon), polygon.shape[1] - 2))
    return np.stack([first, polygon[:, 1:-1], polygon[:, 2:]], axis=2)
