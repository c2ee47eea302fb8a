"""Compiled loops of sequences of views: arrays in, `out` filled, no checks, no draws.

The callers check and allocate. `tests/naive.py` holds plain NumPy twins; the suite compares them jitted and with
NUMBA_DISABLE_JIT=1. Serial, and without fastmath, for the reasons in `moving/kernels.py`.
"""

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_FLAGS)
def back_project(depth, camera, scale, near_m, far_m, point, pixel):
    """Points (N, 3) float32 of a depth image (H, W) in its camera's frame, x right, y down, z forward (STRL, Eq. 1
    without the pose), and the pixel of each, row by row. Returns how many: pixels of 0 and those too near or too far
    have none. camera: (fx, fy, cx, cy). Every pixel writes, only good ones advance: the outputs have a row to spare.
    """
    count = 0
    height, width = depth.shape
    inverse_x, inverse_y, inverse = 1.0 / camera[0], 1.0 / camera[1], 1.0 / scale
    for row in range(height):
        up = (row - camera[3]) * inverse_y
        for column in range(width):
            value = depth[row, column]
            z = np.float64(value) * inverse
            point[count, 0] = np.float32((column - camera[2]) * inverse_x * z)
            point[count, 1] = np.float32(up * z)
            point[count, 2] = np.float32(z)
            pixel[count] = row * width + column
            count += np.int64((value > 0) & (z >= near_m) & (z <= far_m))
    return count


@njit(**_FLAGS)
def select_sweep(source, near_m, far_m, point, row):
    """Points of a sweep (N, 3) whose distance from the sensor is from near to far, and their rows. Returns how many;
    what is not finite has none."""
    count = 0
    for i in range(source.shape[0]):
        x, y, z = np.float64(source[i, 0]), np.float64(source[i, 1]), np.float64(source[i, 2])
        distance = np.sqrt(x * x + y * y + z * z)
        point[count] = source[i]
        row[count] = i
        count += np.int64((distance >= near_m) & (distance <= far_m))
    return count


@njit(**_FLAGS)
def overlap_counts(point, view, start, neighbour, radius, seen, count):
    """How many points of each view have a point of each other view within the radius: `count` (V, V) += 1 each.

    point (M, 3) and view (M,) are sorted by cells of the radius' size; cell c holds start[c]:start[c + 1], and its
    neighbours, itself first, are neighbour[c], -1 for none. seen (V,) comes in as -1. A view that has a near point
    already is passed over, and most are met in the point's own cell.
    """
    limit = radius * radius
    for c in range(start.shape[0] - 1):
        for p in range(start[c], start[c + 1]):
            x, y, z = point[p, 0], point[p, 1], point[p, 2]
            own = view[p]
            seen[own] = p
            count[own, own] += 1
            for n in range(27):
                other = neighbour[c, n]
                if other < 0:
                    continue
                for q in range(start[other], start[other + 1]):
                    j = view[q]
                    if seen[j] == p:
                        continue
                    dx, dy, dz = point[q, 0] - x, point[q, 1] - y, point[q, 2] - z
                    if dx * dx + dy * dy + dz * dz <= limit:
                        seen[j] = p
                        count[own, j] += 1


@njit(**_FLAGS)
def find_neighbours(key, stride, neighbour):
    """Numbers of the 27 cells around each cell, itself first, -1 for none: `key` (C,) rises, and a step along an axis
    changes it by stride[axis]. Neighbours of rising cells rise too, so that each is found by a walk."""
    last = key.shape[0]
    n = 1
    neighbour[:, 0] = np.arange(last)
    for x in range(-1, 2):
        for y in range(-1, 2):
            for z in range(-1, 2):
                if x == 0 and y == 0 and z == 0:
                    continue
                step = x * stride[0] + y * stride[1] + z * stride[2]
                other = 0
                for c in range(last):
                    wanted = key[c] + step
                    while other < last and key[other] < wanted:
                        other += 1
                    neighbour[c, n] = other if other < last and key[other] == wanted else -1
                n += 1


@njit(**_FLAGS)
def turned_extent(point, turn, out):
    """Extent along x, y and z, `out` (3,) float64, of points (N, 3), N >= 1, under a matrix (3, 3): NumPy takes twenty
    times as long, most of it for the extremes along the first axis."""
    for axis in range(3):
        a, b, c = turn[axis, 0], turn[axis, 1], turn[axis, 2]
        low, high = np.inf, -np.inf
        for i in range(point.shape[0]):
            place = a * point[i, 0] + b * point[i, 1] + c * point[i, 2]
            low = min(low, place)
            high = max(high, place)
        out[axis] = high - low
