"""Scores of semantic segmentation from a confusion matrix.

Conventions. K classes, numbered from 0; NONE in a truth means that the point does not count, in a prediction that there
is none. A confusion matrix (K, K + 1) int64 counts points by truth (row) and prediction (column); its last column holds
points without a prediction: they are missed by their class and held against no other.
"""

from typing import NamedTuple

import numpy as np

from train.errors import Refused
from train.inputs.labels import NONE


class MetricError(Refused):
    """Labels and predictions that cannot be compared."""


class Scores(NamedTuple):
    """Shares from 0 to 1, NaN where nothing defines them.

    iou (K,): of class c, true positives / (true + false positives + misses); NaN for a class that is neither in the
    truth nor predicted. recall (K,): true positives / points of the class; NaN for a class that is not in the truth.
    miou, macc: means over the classes that are not NaN. accuracy: points that are right. count (K,): points of a class.
    """

    miou: float
    macc: float
    accuracy: float
    iou: np.ndarray
    recall: np.ndarray
    count: np.ndarray


def confusion(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """The matrix (K, K + 1) int64 of truth and prediction, each (N,) integer. Raises MetricError."""
    truth, prediction = _classes(truth, "label", classes), _classes(prediction, "prediction", classes)
    if len(truth) != len(prediction):
        raise MetricError(f"{len(prediction)} predictions for {len(truth)} labels: one each, of the same points")
    counted = truth != NONE
    column = np.where(prediction == NONE, classes, prediction)[counted]
    cell = truth[counted] * (classes + 1) + column
    return np.bincount(cell, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def _classes(values: np.ndarray, what: str, classes: int) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise MetricError(f"{what}s of shape {values.shape} and type {values.dtype}: one whole number per point")
    if len(values) and not (values.min() >= NONE and values.max() < classes):
        odd = values[(values < NONE) | (values >= classes)][0]
        raise MetricError(f"{what} {odd}: a class from 0 to {classes - 1}, or {NONE} for none")
    return values.astype(np.int64)


def scores(matrix: np.ndarray) -> Scores:
    """Scores of a confusion matrix (K, K + 1)."""
    classes = len(matrix)
    right = np.diagonal(matrix).astype(np.float64)
    count = matrix.sum(axis=1)
    predicted = matrix[:, :classes].sum(axis=0)
    iou = _share(right, count + predicted - right)
    recall = _share(right, count)
    total = count.sum()
    return Scores(_mean(iou), _mean(recall), float(right.sum() / total) if total else np.nan, iou, recall, count)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(shares: np.ndarray) -> float:
    """The mean of what is defined; NaN of nothing."""
    defined = shares[~np.isnan(shares)]
    return float(defined.mean()) if len(defined) else np.nan
