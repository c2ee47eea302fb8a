"""Compiled loops of levelling: arrays in, `out` filled, no checks. `tests/naive.py` holds their NumPy twins.

Columns are 10 cm squares of the ground plan. Points are float32; sums are float64 in the order of the points, so that
they depend on nothing but the points.
"""

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_FLAGS)
def plan_bounds(point, low, high):
    """Lowest and highest x and y of points (N, 3), N >= 1."""
    low[:] = point[0, 0], point[0, 1]
    high[:] = point[0, 0], point[0, 1]
    for i in range(point.shape[0]):
        for axis in range(2):
            low[axis] = min(low[axis], point[i, axis])
            high[axis] = max(high[axis], point[i, axis])


@njit(**_FLAGS)
def lowest_rows(point, low, inverse_m, out):
    """Row of the lowest point of each column, the first of equals; `out` (nx, ny) comes in filled with -1."""
    for i in range(point.shape[0]):
        x = np.int64((np.float64(point[i, 0]) - low[0]) * inverse_m)
        y = np.int64((np.float64(point[i, 1]) - low[1]) * inverse_m)
        row = out[x, y]
        if row < 0 or point[i, 2] < point[row, 2]:
            out[x, y] = i


@njit(**_FLAGS)
def slope_votes(lowest, slope, bin_m, bins, out):
    """How many of the points (C, 3) lie in the fullest four bins in a row of their heights over each slope (S, 2).

    Bin b of `bins` holds heights from (b - bins / 2) * bin_m up; what lies beyond them has no vote.
    """
    count = np.zeros(bins, np.int64)
    inverse = 1.0 / bin_m
    for s in range(slope.shape[0]):
        first, last = bins, -1
        for i in range(lowest.shape[0]):
            height = lowest[i, 2] - lowest[i, 0] * slope[s, 0] - lowest[i, 1] * slope[s, 1]
            b = np.int64(np.floor(height * inverse)) + bins // 2
            if 0 <= b < bins:
                count[b] += 1
                first, last = min(first, b), max(last, b)
        out[s], held = 0, 0
        for b in range(first, last + 1):
            held += count[b]
            if b >= 4:
                held -= count[b - 4]
            out[s] = max(out[s], held)
        count[first : last + 1] = 0


@njit(**_FLAGS)
def near_plane(point, low, inverse_m, plane, width_m, number, near, column):
    """Points that lie less than `width_m` above or below z = plane[0] x + plane[1] y + plane[2], x and y from `low`.

    `near` (N, 3) float64 gets their x, y and z, `column` (N,) a number of their column from 0 up; `number` (nx, ny)
    comes in filled with -1. Returns how many points and how many columns there are.
    """
    count, columns = 0, 0
    for i in range(point.shape[0]):
        x, y, z = np.float64(point[i, 0]) - low[0], np.float64(point[i, 1]) - low[1], np.float64(point[i, 2])
        if abs(z - plane[0] * x - plane[1] * y - plane[2]) >= width_m:
            continue
        place = np.int64(x * inverse_m), np.int64(y * inverse_m)
        if number[place] < 0:
            number[place] = columns
            columns += 1
        near[count, 0], near[count, 1], near[count, 2] = x, y, z
        column[count] = number[place]
        count += 1
    return count, columns


@njit(**_FLAGS)
def column_sums(near, column, plane, width_m, out):
    """Sums (C, 4) of x, y, z and 1 over each column's points (M, 3) near a plane; `out` comes in as zeros."""
    for i in range(near.shape[0]):
        x, y, z = near[i, 0], near[i, 1], near[i, 2]
        if abs(z - plane[0] * x - plane[1] * y - plane[2]) < width_m:
            out[column[i], 0] += x
            out[column[i], 1] += y
            out[column[i], 2] += z
            out[column[i], 3] += 1.0
