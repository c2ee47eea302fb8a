"""Average precision of instances by the rules of ScanNet's benchmark, which differ from everybody else's.

* Counted are points of the scan (mesh vertices), not voxels.
* Regions of fewer than 100 points do not count: predictions are left out, true ones are neither demanded nor punished.
* A prediction matches a true instance of its class whose IoU is above the threshold, strictly. A second one on the same
  instance is wrong, with the lower of the two scores.
* A prediction that matches nothing is wrong only if the share of it that lies on void, or on too small instances of
  its class, is at most the threshold. Void is every point of no instance of the classes: wall and floor as well.
* Precision has no envelope; recall steps are taken half way to both neighbours. Thresholds are 0.5, 0.55, .. 0.9, and
  0.25 apart: 0.95 is left out. A class without true instances has no AP, one without predictions has 0.

Shapes. N points, G true instances, P predictions of one scan, K classes from 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train.errors import Refused

LEAST_POINTS = 100
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
LOOSE = 0.25


class InstanceError(Refused):
    """Instances that cannot be used or compared."""


class Truth(NamedTuple):
    """True instances of a scan. number (N,): the instance of each point from 0, -1 for none; kind (G,): its class, -1
    for instances of no class."""

    number: np.ndarray
    kind: np.ndarray


class Found(NamedTuple):
    """Predicted instances of a scan. point: of each the indices of its points, ascending; kind (P,) classes; score
    (P,): of which the higher is the surer."""

    point: Sequence[np.ndarray]
    kind: np.ndarray
    score: np.ndarray


class Compared(NamedTuple):
    """All that the rules need of a scan. Of the true instances of the classes: kind, size (G,). Of the predictions that
    are large enough: found_kind, found_size, score, void (P,), where void counts points of no such instance; common
    (P, G): points of both."""

    kind: np.ndarray
    size: np.ndarray
    found_kind: np.ndarray
    found_size: np.ndarray
    score: np.ndarray
    void: np.ndarray
    common: np.ndarray


class Precision(NamedTuple):
    """AP of a number of scans, NaN where nothing defines it. ap: mean over thresholds and classes; ap50, ap25: over
    classes; classes (K, 3): the same three of each class; count (K,): true instances that count."""

    ap: float
    ap50: float
    ap25: float
    classes: np.ndarray
    count: np.ndarray


def compare(truth: Truth, found: Found) -> Compared:
    """Count what a scan's predictions have in common with its true instances. Raises InstanceError."""
    _check(truth, found)
    large = [p for p, point in enumerate(found.point) if len(point) >= LEAST_POINTS]
    counted = np.flatnonzero(truth.kind >= 0)
    column = np.full(len(truth.kind) + 1, len(counted))  # the last one: of void; -1 lands there as well
    column[counted] = np.arange(len(counted))
    of_point = column[truth.number]
    common = np.zeros((len(large), len(counted) + 1), np.int64)
    for row, p in enumerate(large):
        common[row] = np.bincount(of_point[found.point[p]], minlength=len(counted) + 1)
    size = np.bincount(of_point, minlength=len(counted) + 1)[:-1]
    there = size > 0
    kind, score = np.asarray(found.kind, np.int64)[large], np.asarray(found.score, np.float64)[large]
    of_kind = np.asarray(truth.kind, np.int64)[counted][there]
    return Compared(of_kind, size[there], kind, common.sum(axis=1), score, common[:, -1], common[:, :-1][:, there])


def _check(truth: Truth, found: Found) -> None:
    points = len(truth.number)
    if not len(found.point) == len(found.kind) == len(found.score):
        raise InstanceError(f"{len(found.point)} masks, {len(found.kind)} classes, {len(found.score)} scores: one each")
    if points and not (truth.number.min() >= -1 and truth.number.max() < len(truth.kind)):
        raise InstanceError(f"instance {truth.number.max()} of {len(truth.kind)}: from 0 on, and -1 for none")
    for p, point in enumerate(found.point):
        if len(point) and (point[0] < 0 or point[-1] >= points or (np.diff(point) <= 0).any()):
            raise InstanceError(f"prediction {p}: its points must be ascending, from 0 to {points - 1}")
    if not np.isfinite(np.asarray(found.score, np.float64)).all():
        raise InstanceError("a prediction's score is not finite: give numbers, of which the higher is the surer")


def average_precision(scans: Sequence[Compared], classes: int) -> Precision:
    """AP over scans."""
    table = np.array([_at_threshold(scans, classes, threshold) for threshold in (*THRESHOLDS, LOOSE)])
    per_class = np.stack([_means(table[:-1].T), table[0], table[-1]], axis=1)
    count = np.zeros(classes, np.int64)
    for scan in scans:
        count += np.bincount(scan.kind[scan.size >= LEAST_POINTS], minlength=classes)
    ap, ap50, ap25 = (float(value) for value in _means(per_class.T))
    return Precision(ap, ap50, ap25, per_class, count)


def _means(rows: np.ndarray) -> np.ndarray:
    """Mean of what is defined in each row; NaN of nothing."""
    defined = ~np.isnan(rows)
    total = np.where(defined, rows, 0).sum(axis=1)
    return np.divide(total, defined.sum(axis=1), out=np.full(len(rows), np.nan), where=defined.any(axis=1))


class Marks(NamedTuple):
    """Predictions that count at a threshold: kind, score and right, one each, and per class how many true instances
    were missed, how many there are, and how many predictions there were before any was ignored (K,)."""

    kind: np.ndarray
    score: np.ndarray
    right: np.ndarray
    missed: np.ndarray
    true: np.ndarray
    found: np.ndarray


def _at_threshold(scans: Sequence[Compared], classes: int, threshold: float) -> np.ndarray:
    """AP (K,) at one threshold."""
    marks = [_mark(scan, classes, threshold) for scan in scans]
    if not marks:
        return np.full(classes, np.nan)
    kind, score, right = (np.concatenate(parts) for parts in list(zip(*marks, strict=True))[:3])
    missed, true, found = (np.sum(parts, axis=0) for parts in list(zip(*marks, strict=True))[3:])
    ap = np.full(classes, np.nan)
    for c in np.flatnonzero(true):
        mine = kind == c
        ap[c] = _area(score[mine], right[mine], missed[c]) if found[c] else 0.0
    return ap


def _mark(scan: Compared, classes: int, threshold: float) -> Marks:
    """Right and wrong predictions of one scan."""
    same = scan.found_kind[:, None] == scan.kind[None]
    overlap = scan.common / (scan.found_size[:, None] + scan.size[None] - scan.common)
    hit = same & (overlap > threshold)
    counted = scan.size >= LEAST_POINTS
    best, wrong = _match(hit, counted, scan.score)
    matched = ~np.isnan(best)
    small = (scan.common * (same & ~counted[None])).sum(axis=1)
    ignored = (scan.void + small) / np.maximum(scan.found_size, 1)
    stray = ~hit.any(axis=1) & (ignored <= threshold)
    kind = [scan.kind[matched], scan.kind[[g for g, _ in wrong]], scan.found_kind[stray]]
    score = [best[matched], np.array([value for _, value in wrong]), scan.score[stray]]
    right = [np.ones(matched.sum(), bool), np.zeros(len(wrong) + stray.sum(), bool)]
    of_class = [scan.kind[counted & ~matched], scan.kind[counted], scan.found_kind]
    counts = [np.bincount(values, minlength=classes) for values in of_class]
    return Marks(*map(np.concatenate, (kind, score, right)), *counts)


def _match(hit: np.ndarray, counted: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Best score (G,) of the predictions that match each true instance, NaN for none, and (instance, score) of those
    that came too many. A prediction that was the first on one instance is not tried on another."""
    best = np.full(len(counted), np.nan)
    wrong, used = [], set()
    for g, p in np.argwhere(hit.T & counted[:, None]):
        if p in used:
            continue
        if np.isnan(best[g]):
            best[g] = score[p]
            used.add(p)
        else:
            wrong.append((int(g), float(min(best[g], score[p]))))
            best[g] = max(best[g], score[p])
    return best, wrong


def _area(score: np.ndarray, right: np.ndarray, missed: int) -> float:
    """The benchmark's sum under precision over recall; 0 where every prediction was ignored."""
    if not len(score):
        return 0.0
    order = np.argsort(score, kind="stable")
    _, first = np.unique(score[order], return_index=True)
    above = np.cumsum(right[order][::-1])[::-1][first]  # right predictions with at least each score
    precision = np.append(above / (len(score) - first), 1.0)
    recall = np.append(above / (right.sum() + missed), 0.0)
    around = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (around[:-2] - around[2:]) / 2)
