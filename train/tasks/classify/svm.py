"""A linear support vector machine on frozen features (STRL, section 5.2.1): scikit-learn's, features as they are."""

from typing import NamedTuple

import numpy as np

_LEAST = 2  # shapes of a class, so that one can be held out


class Scored(NamedTuple):
    """Shares of test shapes that are right: of all, and the mean over classes."""

    accuracy: float
    class_mean: float
    cost: float


def score(truth: np.ndarray, prediction: np.ndarray, cost: float) -> Scored:
    """Accuracy of predictions (M,) of classes (M,)."""
    right = truth == prediction
    return Scored(float(right.mean()), float(np.mean([right[truth == c].mean() for c in np.unique(truth)])), cost)


def fit(train: np.ndarray, label: np.ndarray, test: np.ndarray, cost: float) -> np.ndarray:
    """Classes (m,) of test features (m, c), by a machine of features (M, c) and classes (M,)."""
    from sklearn.svm import SVC  # slow to import, and needed for this alone

    return SVC(kernel="linear", C=cost).fit(train, label).predict(test)


def held_out(label: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which training shapes (M,) bool are held out to choose C: `share` of each class, at least one of those that have
    two, none of those that have one."""
    out = np.zeros(len(label), bool)
    for number in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == number))
        if len(rows) >= _LEAST:
            out[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return out


def choose_cost(train: np.ndarray, label: np.ndarray, costs, share: float, rng: np.random.Generator) -> float:
    """The C whose machine, of a part of the training shapes, is right most often on the rest; the least of equals. Test
    shapes have no part in it."""
    out = held_out(label, share, rng)
    if not out.any():
        return float(sorted(costs)[0])
    found = {cost: (fit(train[~out], label[~out], train[out], cost) == label[out]).mean() for cost in sorted(costs)}
    return float(max(found, key=found.get))
