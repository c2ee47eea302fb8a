"""Compiled loops over points on a CPU: arrays in, `out` filled, no checks, no randomness.

Shapes: n points, m centres, k taken, all (.., 3) float32. Squared distances are sums of float32 products in the order
x, y, z, as `train.nets.points` has them on a GPU; of equals the lowest index counts. Twins in tests/naive_points.py.
"""

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True}


@njit(**_OPTIONS)
def _squared(a, i, b, j):
    x, y, z = a[i, 0] - b[j, 0], a[i, 1] - b[j, 1], a[i, 2] - b[j, 2]
    return x * x + y * y + z * z


@njit(**_OPTIONS)
def farthest(point, nearest, out):
    """Indices (k,) int64, k <= n: the first is 0, each further one lies farthest from those before it.

    nearest (n,) float32 is scratch.
    """
    nearest[:] = np.inf
    last = np.int64(0)
    for taken in range(out.size):
        out[taken] = last
        nearest[last] = -1  # never again, however many points lie in one place
        best, place = np.float32(-1), np.int64(0)
        for i in range(point.shape[0]):
            if nearest[i] < 0:
                continue
            squared = _squared(point, i, point, last)
            if squared < nearest[i]:
                nearest[i] = squared
            if nearest[i] > best:
                best, place = nearest[i], np.int64(i)
        last = place


@njit(**_OPTIONS)
def in_balls(centre, point, squared_radius, out):
    """Indices (m, k) int64 of the first k points, by index, nearer to each centre than a radius; what is left repeats
    the first of them, 0 where there is none."""
    for i in range(centre.shape[0]):
        found = 0
        for j in range(point.shape[0]):
            if _squared(centre, i, point, j) < squared_radius:
                out[i, found] = j
                found += 1
                if found == out.shape[1]:
                    break
        first = out[i, 0] if found else 0
        out[i, found:] = first


@njit(**_OPTIONS)
def three(centre, point, squared, out):
    """Indices (m, 3) int64 of the three nearest points, nearest first, and their squared distances (m, 3) float32.
    n >= 3."""
    for i in range(centre.shape[0]):
        for slot in range(3):
            squared[i, slot], out[i, slot] = np.inf, -1
        for j in range(point.shape[0]):
            found = _squared(centre, i, point, j)
            slot = 3
            while slot > 0 and found < squared[i, slot - 1]:
                slot -= 1
            if slot < 3:
                for later in range(2, slot, -1):
                    squared[i, later], out[i, later] = squared[i, later - 1], out[i, later - 1]
                squared[i, slot], out[i, slot] = found, j
