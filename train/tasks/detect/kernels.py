"""Compiled loops over boxes: arrays in, `out` filled, no checks. A box is (centre x y z, size x y z, heading), float64;
its heading turns its own x about z, counterclockwise. Twins in tests/naive_boxes.py.
"""

import math

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True}


@njit(**_OPTIONS)
def _cut(polygon, count, axis, sign, limit, out):
    """The part of a convex polygon (count, 2) where sign * coordinate <= limit; returns its number of corners."""
    found = 0
    for i in range(count):
        j = (i + 1) % count
        a, b = sign * polygon[i, axis] - limit, sign * polygon[j, axis] - limit
        if a <= 0:
            out[found, 0], out[found, 1] = polygon[i, 0], polygon[i, 1]
            found += 1
        if (a < 0 and b > 0) or (a > 0 and b < 0):
            share = a / (a - b)
            out[found, 0] = polygon[i, 0] + share * (polygon[j, 0] - polygon[i, 0])
            out[found, 1] = polygon[i, 1] + share * (polygon[j, 1] - polygon[i, 1])
            found += 1
    return found


@njit(**_OPTIONS)
def _ground(a, b, first, second):
    """Area that two boxes share on the ground: a is brought into b's frame and cut at b's four sides."""
    cos, sin = math.cos(b[6]), math.sin(b[6])
    px, py = a[0] - b[0], a[1] - b[1]
    x, y = cos * px + sin * py, cos * py - sin * px
    if a[6] == b[6]:
        wide = min(x + a[3] / 2, b[3] / 2) - max(x - a[3] / 2, -b[3] / 2)
        deep = min(y + a[4] / 2, b[4] / 2) - max(y - a[4] / 2, -b[4] / 2)
        return max(wide, 0.0) * max(deep, 0.0)
    cos, sin = math.cos(a[6] - b[6]), math.sin(a[6] - b[6])
    for i in range(4):
        u = a[3] / 2 if i == 0 or i == 3 else -a[3] / 2
        v = a[4] / 2 if i < 2 else -a[4] / 2
        first[i, 0], first[i, 1] = x + cos * u - sin * v, y + sin * u + cos * v
    count = _cut(first, 4, 0, 1.0, b[3] / 2, second)
    count = _cut(second, count, 0, -1.0, b[3] / 2, first)
    count = _cut(first, count, 1, 1.0, b[4] / 2, second)
    count = _cut(second, count, 1, -1.0, b[4] / 2, first)
    area = 0.0
    for i in range(count):
        j = (i + 1) % count
        area += first[i, 0] * first[j, 1] - first[j, 0] * first[i, 1]
    return abs(area) / 2


@njit(**_OPTIONS)
def overlaps(a, b, out):
    """IoU (m, n) of boxes (m, 7) and (n, 7); 0 where neither has a volume."""
    first, second = np.empty((12, 2)), np.empty((12, 2))
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            low = max(a[i, 2] - a[i, 5] / 2, b[j, 2] - b[j, 5] / 2)
            high = min(a[i, 2] + a[i, 5] / 2, b[j, 2] + b[j, 5] / 2)
            shared = 0.0
            if high > low:
                shared = (high - low) * _ground(a[i], b[j], first, second)
            whole = a[i, 3] * a[i, 4] * a[i, 5] + b[j, 3] * b[j, 4] * b[j, 5] - shared
            out[i, j] = shared / whole if whole > 0 else 0.0
