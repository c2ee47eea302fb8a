"""How far the views of a scan overlap, all pairs of them at once."""

import numpy as np

from gen4d.moving import cloud
from gen4d.views import kernels


def sparse_points(point: np.ndarray, pose: np.ndarray, radius: float) -> np.ndarray:
    """Points (N, 3) of a view under a pose (4, 4), one for each voxel of the radius' size, the first by order."""
    moved = (point.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)
    return moved[cloud.thin(moved, radius)]


def find_overlaps(views: list[np.ndarray], radius: float) -> np.ndarray:
    """Shares (V, V) float32: of view i's points (N, 3), those that have a point of view j within the radius.

    The points of all views are in one frame of reference and already sparse, at most one in a voxel of the radius'
    size, as PointContrast measures it. Every view overlaps itself wholly.
    """
    counts = [len(view) for view in views]
    total = np.zeros((len(views), len(views)), np.int64)
    if sum(counts):
        point = np.concatenate(views).astype(np.float64)
        view = np.repeat(np.arange(len(views), dtype=np.int32), counts)
        cell = np.floor(point / (radius * (1 + 1e-9))).astype(np.int64)
        cell -= cell.min(axis=0) - 1  # a margin, so that no step leaves its row
        size = cell.max(axis=0) + 2
        stride = np.array([size[1] * size[2], size[2], 1], np.int64)
        key = cell @ stride
        order = np.argsort(key, kind="stable")
        cells, start = np.unique(key[order], return_index=True)
        neighbour = np.empty((len(cells), 27), np.int32)
        kernels.find_neighbours(cells, stride, neighbour)
        starts = np.append(start, len(order)).astype(np.int64)
        seen = np.full(len(views), -1, np.int64)
        kernels.overlap_counts(point[order], view[order], starts, neighbour, radius, seen, total)
    shares = total / np.maximum(np.array(counts), 1)[:, None]
    np.fill_diagonal(shares, 1.0)
    return shares.astype(np.float32)
