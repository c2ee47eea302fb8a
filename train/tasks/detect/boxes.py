"""Boxes: (centre x y z, size x y z, heading), metres and radians. The heading turns a box's own x about z,
counterclockwise; it is 0 where boxes lie along the axes.

Shapes. B boxes (B, 7).
"""

import math

import numpy as np

from train.tasks.detect import kernels


def box_overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU (m, n) float64 of volumes of boxes (m, 7) and (n, 7), oriented ones too."""
    out = np.empty((len(first), len(second)))
    kernels.overlaps(_boxes(first), _boxes(second), out)
    return out


def _boxes(box: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(box, np.float64).reshape(-1, 7)


def hulls(box: np.ndarray) -> np.ndarray:
    """The smallest boxes along the axes (B, 7) around boxes."""
    box = _boxes(box).copy()
    cos, sin = np.abs(np.cos(box[:, 6])), np.abs(np.sin(box[:, 6]))
    wide, deep = box[:, 3].copy(), box[:, 4].copy()
    box[:, 3], box[:, 4], box[:, 6] = cos * wide + sin * deep, sin * wide + cos * deep, 0
    return box


def suppress(box: np.ndarray, score: np.ndarray, overlap: float, kind: np.ndarray | None = None) -> np.ndarray:
    """Indices of the boxes that stay, surest first: each takes out the less sure ones whose IoU with it is above
    `overlap`, of its own kind (B,) only where kinds are given. Overlap is that of `hulls`, as VoteNet has it. Of equal
    scores the first box stays."""
    around = hulls(box)
    common = box_overlaps(around, around) > overlap
    if kind is not None:
        common &= kind[:, None] == kind[None]
    alive, kept = np.ones(len(around), bool), []
    for i in np.argsort(-np.asarray(score), kind="stable"):
        if alive[i]:
            kept.append(i)
            alive &= ~common[i]
    return np.array(kept, np.int64)


def inside(box: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Whether each point (N, 3) lies in a box (7,), its faces included: (N,) bool."""
    cos, sin = math.cos(box[6]), math.sin(box[6])
    x, y, z = (np.asarray(point, np.float64) - box[:3]).T
    return (
        (np.abs(cos * x + sin * y) <= box[3] / 2)
        & (np.abs(cos * y - sin * x) <= box[4] / 2)
        & (np.abs(z) <= box[5] / 2)
    )


def corners(box: np.ndarray) -> np.ndarray:
    """The eight corners (B, 8, 3) of boxes: four below counterclockwise, then the four above them."""
    box = _boxes(box)
    unit = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    flat = unit[None] * box[:, None, 3:5]
    cos, sin = np.cos(box[:, 6])[:, None], np.sin(box[:, 6])[:, None]
    x, y = flat[..., 0] * cos - flat[..., 1] * sin, flat[..., 0] * sin + flat[..., 1] * cos
    ground = np.stack([x + box[:, :1], y + box[:, 1:2]], axis=-1)
    half = np.broadcast_to(box[:, None, 5:6] / 2, (len(box), 4, 1))
    low, high = (np.concatenate([ground, box[:, None, 2:3] + sign * half], axis=-1) for sign in (-1, 1))
    return np.concatenate([low, high], axis=1)
