"""Boxes by other ways: shared ground from the hull of all corners and crossings, AP from single precisions."""

import itertools
import math

import numpy as np
from scipy.spatial import ConvexHull, QhullError


def ground(box):
    """Four corners of a box on the ground."""
    cos, sin = math.cos(box[6]), math.sin(box[6])
    signs = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    halves = [(sx * box[3] / 2, sy * box[4] / 2) for sx, sy in signs]
    return [(box[0] + cos * u - sin * v, box[1] + sin * u + cos * v) for u, v in halves]


def holds(box, x, y):
    cos, sin = math.cos(box[6]), math.sin(box[6])
    u, v = cos * (x - box[0]) + sin * (y - box[1]), cos * (y - box[1]) - sin * (x - box[0])
    return abs(u) <= box[3] / 2 + 1e-9 and abs(v) <= box[4] / 2 + 1e-9


def crossing(a, b, c, d):
    """Where two segments meet, or None."""
    matrix = np.array([[b[0] - a[0], c[0] - d[0]], [b[1] - a[1], c[1] - d[1]]])
    if abs(np.linalg.det(matrix)) < 1e-12:
        return None
    s, t = np.linalg.solve(matrix, [c[0] - a[0], c[1] - a[1]])
    return (a[0] + s * (b[0] - a[0]), a[1] + s * (b[1] - a[1])) if 0 <= s <= 1 and 0 <= t <= 1 else None


def iou(first, second):
    one, other = ground(first), ground(second)
    shared = [p for p in one if holds(second, *p)] + [p for p in other if holds(first, *p)]
    for i, j in itertools.product(range(4), range(4)):
        met = crossing(one[i], one[(i + 1) % 4], other[j], other[(j + 1) % 4])
        shared += [met] if met else []
    area = 0.0
    if len(shared) >= 3:
        try:
            area = ConvexHull(np.array(shared)).volume
        except QhullError:  # all on one line
            area = 0.0
    low = max(box[2] - box[5] / 2 for box in (first, second))
    high = min(box[2] + box[5] / 2 for box in (first, second))
    common = area * max(high - low, 0)
    return common / (np.prod(first[3:6]) + np.prod(second[3:6]) - common)


def suppress(box, score, overlap, kind):
    left, kept = sorted(range(len(box)), key=lambda i: (-score[i], i)), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if (kind is not None and kind[i] != kind[best]) or iou(box[i], box[best]) <= overlap]
    return kept


def ap(scenes, c, threshold):
    """AP of one class, None without true boxes: at each right detection, the greatest precision from there on."""
    total = sum(int((scene.kind == c).sum()) for scene in scenes)
    if not total:
        return None
    claims = []
    for number, scene in enumerate(scenes):
        for p, scores in enumerate(scene.score):
            if not math.isnan(scores[c]):
                claims.append((-scores[c], number, p))
    used, outcome = set(), []
    for _, number, p in sorted(claims):
        scene = scenes[number]
        best, place = 0.0, None
        for g, box in enumerate(scene.box):
            value = iou(scene.found[p], box) if scene.kind[g] == c else 0.0
            if value > best:
                best, place = value, (number, g)
        outcome.append(best > threshold and place not in used)
        if best > threshold:
            used.add(place)
    precision = [sum(outcome[: i + 1]) / (i + 1) for i in range(len(outcome))]
    return sum(max(precision[i:]) for i, right in enumerate(outcome) if right) / total
