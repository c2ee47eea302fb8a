"""The compiled loop that joins points to clusters: arrays in, `parent` filled, no checks.

Points lie in cells whose diagonal is the radius, so those of one cell are one cluster and no pair of them is looked at.
The twin is in tests/naive_instances.py. Shapes: n points sorted by cell, c cells.
"""

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True}


@njit(**_OPTIONS)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(**_OPTIONS)
def _near(point, a, a_end, b, b_end, squared_radius):
    """Whether any pair of points of two cells is nearer than the radius."""
    for i in range(a, a_end):
        for j in range(b, b_end):
            x, y, z = point[i, 0] - point[j, 0], point[i, 1] - point[j, 1], point[i, 2] - point[j, 2]
            if x * x + y * y + z * z < squared_radius:
                return True
    return False


@njit(**_OPTIONS)
def join(point, key, start, row_step, plane_step, squared_radius, parent):
    """Unite cells (c,) that hold points nearer to each other than a radius.

    point (n, 3) float64, key (c,) int64 ascending: x plane_step + y row_step + z of each cell, with two empty cells
    around every group; start (c + 1,) int64 of each cell's points; parent (c,) int64: 0, 1, .. at first.
    """
    for c in range(key.size):
        for dx in range(3):
            for dy in range(-2, 3):
                if dx == 0 and dy < 0:
                    continue
                middle = key[c] + dx * plane_step + dy * row_step
                low = middle + 1 if dx == 0 and dy == 0 else middle - 2
                other = np.searchsorted(key, low)
                while other < key.size and key[other] <= middle + 2:
                    mine, its = _root(parent, c), _root(parent, other)
                    if mine != its and _near(
                        point, start[c], start[c + 1], start[other], start[other + 1], squared_radius
                    ):
                        parent[max(mine, its)] = min(mine, its)
                    other += 1
