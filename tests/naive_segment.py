"""Plain twins of what the downstream tasks compute: loops and dictionaries, as slow as they are easy to check."""

import itertools
import math

import numpy as np


def scores(truth, prediction, classes: int) -> dict:
    """IoU and recall of every class by counting points one by one; None where nothing defines them."""
    pairs = [(int(t), int(p)) for t, p in zip(truth, prediction, strict=True) if t != -1]
    iou, recall = [], []
    for c in range(classes):
        hit = sum(t == c and p == c for t, p in pairs)
        missed = sum(t == c and p != c for t, p in pairs)
        wrong = sum(t != c and p == c for t, p in pairs)
        iou.append(hit / (hit + missed + wrong) if hit + missed + wrong else None)
        recall.append(hit / (hit + missed) if hit + missed else None)
    right = sum(t == p for t, p in pairs)
    return {
        "iou": iou,
        "recall": recall,
        "miou": _mean(iou),
        "macc": _mean(recall),
        "accuracy": right / len(pairs) if pairs else math.nan,
    }


def _mean(values) -> float:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else math.nan


def voxels(point, voxel_m: float) -> dict:
    """Cell -> rows of its points, in their order."""
    cells: dict[tuple, list[int]] = {}
    for row, (x, y, z) in enumerate(np.asarray(point, np.float64)):
        cell = tuple(math.floor(value / voxel_m) for value in (x, y, z))
        cells.setdefault(cell, []).append(row)
    return cells


def vote(labels: list[int], rule: str) -> int:
    """The label of a voxel whose points have `labels`, in their order; -1 is no label."""
    found = [label for label in labels if label != -1]
    if rule == "first":
        return labels[0]
    if rule == "unanimous":
        return labels[0] if len(set(labels)) == 1 else -1
    return min(found, key=lambda label: (-found.count(label), label)) if found else -1


def bounds(point):
    """Least and greatest of each axis."""
    return point.min(axis=0), point.max(axis=0)


def displace(point, noise, low, step_m: float, size_m: float):
    """Points moved by trilinear interpolation of noise (a, b, c, 3) on nodes at low + step * (index - 1)."""
    moved = []
    for p in np.asarray(point, np.float64):
        place = (p - low) / step_m + 1
        corner = [math.floor(value) for value in place]
        shift = np.zeros(3)
        for bits in itertools.product((0, 1), repeat=3):
            weight = math.prod(
                (value - c) if bit else (1 - (value - c)) for value, c, bit in zip(place, corner, bits, strict=True)
            )
            node = tuple(min(c + bit, extent - 1) for c, bit, extent in zip(corner, bits, noise.shape, strict=False))
            shift += weight * noise[node]
        moved.append(p + size_m * shift)
    return np.array(moved)
