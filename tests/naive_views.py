"""Plain NumPy twins of the kernels of views and of geometric correspondences."""

import numpy as np


def back_project(depth, camera, scale, near_m, far_m):
    """Points (N, 3) float32 and pixels (N,) of a depth image, row by row."""
    v, u = np.indices(depth.shape)
    z = depth * (1.0 / scale)
    fx, fy, cx, cy = camera
    point = np.stack([(u - cx) * (1.0 / fx) * z, (v - cy) * (1.0 / fy) * z, z], axis=-1).reshape(-1, 3)
    pixel = np.flatnonzero((depth.ravel() > 0) & (z.ravel() >= near_m) & (z.ravel() <= far_m))
    return point[pixel].astype(np.float32), pixel


def select_sweep(source, near_m, far_m):
    """Rows (N,) of a sweep whose distance is within the limits."""
    distance = np.sqrt((source.astype(np.float64) ** 2).sum(axis=1))
    return np.flatnonzero((distance >= near_m) & (distance <= far_m))


def overlaps(views, radius):
    """Shares (V, V) by all distances."""
    share = np.eye(len(views), dtype=np.float32)
    for i, first in enumerate(views):
        for j, second in enumerate(views):
            if i != j and len(first) and len(second):
                gap = first[:, None].astype(np.float64) - second[None].astype(np.float64)
                share[i, j] = ((gap**2).sum(axis=2).min(axis=1) <= radius * radius).mean()
    return share


def match(first, second, radius):
    """Rows of points that are each other's nearest within the radius, by all distances; ties go to the lowest row."""
    if not len(first) or not len(second):
        return np.zeros(0, int), np.zeros(0, int)
    square = ((first[:, None].astype(np.float64) - second[None].astype(np.float64)) ** 2).sum(axis=2)
    forth, back = square.argmin(axis=1), square.argmin(axis=0)
    rows = np.arange(len(first))
    good = (back[forth] == rows) & (square[rows, forth] <= radius * radius)
    return rows[good], forth[good]
