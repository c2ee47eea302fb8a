"""Compiled loops over meshes: areas, triangles listed twice, faces cut into triangles. NumPy twins:
`tests/naive_meshes.py`."""

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}
_NEARLY = 1e-6  # of a face's area: a triangle that is turned over by less is rounding


@njit(**_FLAGS)
def double_areas(vertex, face, out):
    """Twice the area (F,) of each triangle (F, 3) of points (V, 3): the length of the cross product of two sides."""
    for i in range(face.shape[0]):
        a, b, c = face[i, 0], face[i, 1], face[i, 2]
        ux, uy, uz = vertex[b, 0] - vertex[a, 0], vertex[b, 1] - vertex[a, 1], vertex[b, 2] - vertex[a, 2]
        vx, vy, vz = vertex[c, 0] - vertex[a, 0], vertex[c, 1] - vertex[a, 1], vertex[c, 2] - vertex[a, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        out[i] = np.sqrt((x * x + y * y) + z * z)


@njit(**_FLAGS)
def bounds(vertex, face, out):
    """The lowest and highest coordinates, `out` (2, 3), of the corners of triangles (F, 3), F > 0, of points (V, 3)."""
    out[0], out[1] = np.inf, -np.inf
    for i in range(face.shape[0]):
        for corner in range(3):
            for axis in range(3):
                value = vertex[face[i, corner], axis]
                out[0, axis] = min(out[0, axis], value)
                out[1, axis] = max(out[1, axis], value)


@njit(**_FLAGS)
def area_bins(vertex, face, area, low, inverse, out):
    """Add the area (F,) of each triangle (F, 3) of points (V, A) to the bin of its centre along each of A axes, `out`
    (A, B) float64: bins of 1 / `inverse` (A,) from `low` (A,), what lies beyond in the last."""
    bins = out.shape[1]
    for i in range(face.shape[0]):
        a, b, c = face[i, 0], face[i, 1], face[i, 2]
        for axis in range(out.shape[0]):
            middle = (vertex[a, axis] + vertex[b, axis] + vertex[c, axis]) / 3
            out[axis, min(max(np.int64((middle - low[axis]) * inverse[axis]), 0), bins - 1)] += area[i]


@njit(**_FLAGS)
def first_triples(face, table, out):
    """Mark the first triangle (F, 3) of each three corners, in whatever order they are listed.

    By open addressing: `table` holds rows, is a power of two of at least twice the triangles, and comes in filled with
    -1.
    """
    last = np.uint64(table.shape[0] - 1)
    for i in range(face.shape[0]):
        low, middle, high = _ordered(face[i, 0], face[i, 1], face[i, 2])
        mixed = (np.uint64(low) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(middle) * np.uint64(0xBF58476D1CE4E5B9))
        mixed ^= np.uint64(high) * np.uint64(0x94D049BB133111EB)
        slot = (mixed ^ (mixed >> np.uint64(29))) & last
        out[i] = True
        while table[slot] >= 0:
            row = table[slot]
            if (low, middle, high) == _ordered(face[row, 0], face[row, 1], face[row, 2]):
                out[i] = False
                break
            slot = (slot + np.uint64(1)) & last
        if out[i]:
            table[slot] = i


@njit(**_FLAGS)
def _ordered(a, b, c):
    low, high = min(a, b, c), max(a, b, c)
    return low, a + b + c - low - high, high


@njit(**_FLAGS)
def clip_ears(vertex, polygon, triangle):
    """Cut polygons (F, n) of points (V, 3) into `triangle` (F, n - 2, 3), which comes in cut around their first
    corners, and stays so where no triangle of a face is turned over. Returns how many faces cross themselves: those
    have no cut without a triangle that is turned over, and stay as they come.

    Areas are signed by the side of the face's own plane (Newell's), on which all corners are looked at, so slightly
    bent faces do no harm. If no triangle is turned over, each point inside is covered once, since areas and winding
    numbers add up.
    """
    count = polygon.shape[1]
    flat, order, crossed = np.empty((count, 2)), np.empty(count, np.int64), 0
    for i in range(polygon.shape[0]):
        area, folded = _flatten(vertex, polygon[i], flat)
        least = -_NEARLY * area
        turned = area < _NEARLY * folded
        for k in range(1, count - 1):
            turned |= _side(flat, 0, k, k + 1) < least
        if turned and (area == 0 or not _clip(flat, least, order, polygon[i], triangle[i])):
            crossed += 1
    return crossed


@njit(**_FLAGS)
def _flatten(vertex, corner, flat):
    """The corners (n, 2) in the plane of a face, from its first, counter-clockwise. Returns twice its area, and twice
    that of the triangles around its first corner, whichever way they are turned."""
    n = corner.shape[0]
    a = corner[0]
    x, y, z, folded = 0.0, 0.0, 0.0, 0.0
    for k in range(1, n - 1):
        b, c = corner[k], corner[k + 1]
        ux, uy, uz = vertex[b, 0] - vertex[a, 0], vertex[b, 1] - vertex[a, 1], vertex[b, 2] - vertex[a, 2]
        vx, vy, vz = vertex[c, 0] - vertex[a, 0], vertex[c, 1] - vertex[a, 1], vertex[c, 2] - vertex[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        x, y, z = x + nx, y + ny, z + nz
        folded += np.sqrt(nx * nx + ny * ny + nz * nz)
    area = np.sqrt(x * x + y * y + z * z)
    if not area > _NEARLY * folded:
        flat[:] = 0.0
        return 0.0, folded
    x, y, z = x / area, y / area, z / area
    # Two axes of the plane: the first is the unit axis farthest from the normal, made orthogonal to it.
    px, py, pz = 1.0 - x * x, -x * y, -x * z
    if abs(y) < abs(x) and abs(y) <= abs(z):
        px, py, pz = -x * y, 1.0 - y * y, -y * z
    elif abs(z) < abs(x) and abs(z) < abs(y):
        px, py, pz = -x * z, -y * z, 1.0 - z * z
    length = np.sqrt(px * px + py * py + pz * pz)
    px, py, pz = px / length, py / length, pz / length
    qx, qy, qz = y * pz - z * py, z * px - x * pz, x * py - y * px
    for k in range(n):
        dx, dy, dz = (vertex[corner[k], 0] - vertex[a, 0], vertex[corner[k], 1] - vertex[a, 1],
                      vertex[corner[k], 2] - vertex[a, 2])  # fmt: skip
        flat[k, 0], flat[k, 1] = px * dx + py * dy + pz * dz, qx * dx + qy * dy + qz * dz
    return area, folded


@njit(**_FLAGS)
def _side(flat, a, b, c):
    """Twice the signed area of the triangle of three corners."""
    return (flat[b, 0] - flat[a, 0]) * (flat[c, 1] - flat[a, 1]) - (flat[b, 1] - flat[a, 1]) * (flat[c, 0] - flat[a, 0])


@njit(**_FLAGS)
def _holds(flat, a, b, c, other):
    """Whether a corner lies in a triangle, but not on one of its corners."""
    x, y = flat[other, 0], flat[other, 1]
    for corner in (a, b, c):
        if flat[corner, 0] == x and flat[corner, 1] == y:
            return False
    return _side(flat, a, b, other) >= 0 and _side(flat, b, c, other) >= 0 and _side(flat, c, a, other) >= 0


@njit(**_FLAGS)
def _clip(flat, least, order, corner, out):
    """Cut ears off until three corners are left; false where there is none to cut, and `out` is as it was."""
    left, made = corner.shape[0], 0
    kept = out.copy()
    for k in range(left):
        order[k] = k
    at, tried = 0, 0
    while left > 3:
        if tried == left:
            out[:] = kept
            return False
        at %= left
        a, b, c = order[(at - 1) % left], order[at], order[(at + 1) % left]
        ear = _side(flat, a, b, c) >= least
        k = 0
        while ear and k < left:
            other = order[k]
            if other != a and other != b and other != c:
                ear = not _holds(flat, a, b, c, other)
            k += 1
        if not ear:
            at, tried = at + 1, tried + 1
            continue
        out[made, 0], out[made, 1], out[made, 2] = corner[a], corner[b], corner[c]
        made, left, tried = made + 1, left - 1, 0
        order[at:left] = order[at + 1 : left + 1]
    if _side(flat, order[0], order[1], order[2]) < least:
        out[:] = kept
        return False
    out[made, 0], out[made, 1], out[made, 2] = corner[order[0]], corner[order[1]], corner[order[2]]
    return True
