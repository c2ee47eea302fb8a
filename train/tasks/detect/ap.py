"""Average precision of boxes as VoteNet and those after it compute it (VOC 2010's area).

Per class, detections of all scenes in the order of their scores, of equal ones in the order given. Each is compared
with the true box of its class and scene with which its IoU is greatest: it is right if that is above the threshold,
strictly, and the box is not taken yet; else wrong. The area lies under precision made monotone, over recall. A class
without true boxes has no AP and is left out of the mean; one without detections has 0.

Shapes. G true boxes and P detections of a scene, K classes from 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train.tasks.detect.boxes import box_overlaps

THRESHOLDS = (0.25, 0.5)


class Scene(NamedTuple):
    """True boxes of a scene: box (G, 7), kind (G,). Detections: found (P, 7) and their scores (P, K), one a class; NaN
    where a box is no detection of a class."""

    box: np.ndarray
    kind: np.ndarray
    found: np.ndarray
    score: np.ndarray


class Precision(NamedTuple):
    """AP (K, 2) and greatest recall (K, 2) at IoU 0.25 and 0.5, NaN for classes without true boxes; their means over
    the other classes; count (K,): true boxes."""

    ap: np.ndarray
    recall: np.ndarray
    ap25: float
    ap50: float
    count: np.ndarray


def average_precision(scenes: Sequence[Scene], classes: int) -> Precision:
    """AP over scenes."""
    best = [_best(scene, classes) for scene in scenes]
    ap, recall = np.full((classes, 2), np.nan), np.full((classes, 2), np.nan)
    count = np.zeros(classes, np.int64)
    for scene in scenes:
        count += np.bincount(scene.kind, minlength=classes)
    for c in np.flatnonzero(count):
        score = np.concatenate([scene.score[:, c] for scene in scenes])
        overlap = np.concatenate([found[0][:, c] for found in best])
        owner = np.concatenate([_apart(found[1][:, c], number) for number, found in enumerate(best)])
        given = ~np.isnan(score)
        for column, threshold in enumerate(THRESHOLDS):
            right = _right(score[given], overlap[given], owner[given], threshold)
            ap[c, column], recall[c, column] = _area(right, count[c])
    means = ap[count > 0].mean(axis=0) if count.any() else np.full(2, np.nan)
    return Precision(ap, recall, float(means[0]), float(means[1]), count)


def _best(scene: Scene, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Greatest IoU (P, K) with a true box of each class, and that box's number (P, K), -1 where there is none."""
    overlap = box_overlaps(scene.found, scene.box)
    most = np.zeros((len(scene.found), classes))
    number = np.full((len(scene.found), classes), -1, np.int64)
    for c in np.unique(scene.kind):
        mine = np.flatnonzero(scene.kind == c)
        chosen = mine[overlap[:, mine].argmax(axis=1)]
        most[:, c], number[:, c] = overlap[np.arange(len(chosen)), chosen], chosen
    return most, number


def _apart(number: np.ndarray, scene: int) -> np.ndarray:
    """Numbers of boxes that differ between scenes."""
    return np.where(number < 0, -1, number + (scene << 32))


def _right(score: np.ndarray, overlap: np.ndarray, owner: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each detection is right, the surest first."""
    order = np.argsort(-score, kind="stable")
    owner = np.where(overlap[order] > threshold, owner[order], -1)
    right = np.zeros(len(order), bool)
    right[np.unique(owner, return_index=True)[1]] = True  # the first that claims a box
    return right & (owner >= 0)


def _area(right: np.ndarray, true: int) -> tuple[float, float]:
    """Area under precision, made monotone from its end, over recall; and the greatest recall."""
    if not len(right):
        return 0.0, 0.0
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((precision * right).sum() / true), float(hits[-1] / true)
