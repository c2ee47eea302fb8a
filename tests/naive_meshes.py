"""Plain NumPy twins of the kernels of texts and meshes, as `naive.py` has them of the others."""

import json

import numpy as np


def read_numbers(text):
    """The numbers of a text (N,) uint8, as `float` reads each."""
    return np.array([float(word) for word in text.tobytes().split()])


def line_starts(text):
    """True (M,) at the first number of each line."""
    lines = [line.split() for line in text.tobytes().splitlines()]
    return np.array([column == 0 for line in lines for column in range(len(line))], bool)


def read_json_list(text):
    """The whole numbers of a JSON list, as Python reads them; None for an empty one, and for anything else."""
    try:
        values = json.loads("[" + text[: text.index("]") + 1])
    except ValueError:
        return None
    plain = values and all(type(value) is int and 0 <= value < 10**18 for value in values) and "-" not in text
    return values if plain else None


def double_areas(vertex, face):
    """Twice the area (F,) of each triangle (F, 3) of points (V, 3)."""
    a, b, c = (vertex[face[:, corner]] for corner in range(3))
    return np.sqrt((np.cross(b - a, c - a) ** 2).sum(axis=1))


def bounds(vertex, face):
    """The lowest and highest coordinates (2, 3) of the corners of triangles."""
    corner = vertex[face.ravel()]
    return np.stack([corner.min(axis=0), corner.max(axis=0)])


def first_triples(face):
    """True (F,) at the first triangle of each three corners, in whatever order they are listed."""
    seen, first = set(), np.zeros(len(face), bool)
    for row, corners in enumerate(map(frozenset, face.tolist())):
        first[row] = corners not in seen
        seen.add(corners)
    return first


def area_bins(vertex, face, area, low, inverse, bins):
    """The area (F,) of triangles (F, 3) by the bin of their centres along each axis, (3, B)."""
    centre = (vertex[face[:, 0]] + vertex[face[:, 1]] + vertex[face[:, 2]]) / 3
    number = np.clip(((centre - low) * inverse).astype(np.int64), 0, bins - 1)
    return np.stack([np.bincount(number[:, axis], area, bins) for axis in range(3)])


def clip_ears(vertex, corner):
    """Triangles (n - 2, 3) of a face of n corners that cover it once, or None where it crosses itself: those around
    the first corner if none is turned over, else ears, the first that holds no other corner, from the last one on."""
    point = vertex[corner] - vertex[corner[0]]
    crosses = np.cross(point[1:-1], point[2:])
    normal, folded = crosses.sum(axis=0), np.linalg.norm(crosses, axis=1).sum()
    area, around = np.linalg.norm(normal), [(0, k, k + 1) for k in range(1, len(corner) - 1)]
    if area <= 1e-6 * folded:
        return around if folded == 0 else None
    normal = normal / area

    def side(a, b, c):
        return float(np.cross(point[b] - point[a], point[c] - point[a]) @ normal)

    def holds(a, b, c, other):
        if any((point[other] == point[k]).all() for k in (a, b, c)):
            return False
        return min(side(a, b, other), side(b, c, other), side(c, a, other)) >= 0

    least = -1e-6 * area
    if all(side(*triangle) >= least for triangle in around):
        return around
    left, ears, at, tried = list(range(len(corner))), [], 0, 0
    while len(left) > 3:
        if tried == len(left):
            return None
        at %= len(left)
        ear = left[at - 1], left[at], left[(at + 1) % len(left)]
        if side(*ear) < least or any(holds(*ear, k) for k in left if k not in ear):
            at, tried = at + 1, tried + 1
            continue
        ears.append(ear)
        del left[at]
        tried = 0
    return None if side(*left) < least else [*ears, tuple(left)]
