"""Plain twins of operations on points: sorts over all distances, as slow as they are easy to check."""

import numpy as np


def squared(a, b):
    """(m, n) float32 squared distances of (m, 3) and (n, 3), summed in the order x, y, z."""
    apart = np.asarray(a, np.float32)[:, None] - np.asarray(b, np.float32)[None]
    x, y, z = np.moveaxis(apart, -1, 0)
    return x * x + y * y + z * z


def farthest(point, count):
    distance, order = squared(point, point), [0]
    while len(order) < min(count, len(point)):
        left = [i for i in range(len(point)) if i not in order]
        order.append(max(left, key=lambda i: (min(distance[i, j] for j in order), -i)))
    return [order[k % len(order)] for k in range(count)]


def in_balls(centre, point, radius, count):
    found = []
    for row in squared(centre, point):
        hits = [j for j, value in enumerate(row) if value < np.float32(radius) ** 2][:count]
        found.append(hits + [hits[0] if hits else 0] * (count - len(hits)))
    return found


def three(centre, point):
    rows = squared(centre, point)
    index = [sorted(range(len(point)), key=lambda j: (row[j], j))[:3] for row in rows]
    return np.sqrt(np.take_along_axis(rows, np.array(index), axis=1)), index
