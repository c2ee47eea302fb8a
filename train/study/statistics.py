"""Statistics of a study whose unit is the pre-training seed.

Cells of one seed share a pre-trained model, so they count once, by their mean: a comparison of two arms is a paired
t-test over seeds. Each function takes any number of studies at once in leading axes, by which
`tests/test_study.py` simulates thousands of them.

Shapes. S seeds, K subsets of a seed, m tests, R test scans, C classes, L steps at which a curve was looked at.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

LEVEL, POWER = 0.05, 0.8
_DRAWS = 2000  # of the bootstrap
_SPREADS = 4000  # over which power is integrated


class Compared(NamedTuple):
    """Differences of two arms over S seeds, in points of the measure. p: two-sided; NaN where nothing defines it."""

    mean: np.ndarray
    sd: np.ndarray  # over seeds
    p: np.ndarray
    icc: np.ndarray  # of cells of one seed; NaN for one subset


def compare(difference: np.ndarray) -> Compared:
    """What differences (..., S, K) of pairs show, with the seed as the unit."""
    by_seed = difference.mean(axis=-1)
    seeds = by_seed.shape[-1]
    mean = by_seed.mean(axis=-1)
    sd = by_seed.std(axis=-1, ddof=1) if seeds > 1 else np.full(mean.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(sd > 0, np.abs(mean) / sd * np.sqrt(seeds), np.nan)
    return Compared(mean, sd, 2 * stats.t.sf(t, seeds - 1), intraclass(difference))


def intraclass(difference: np.ndarray) -> np.ndarray:
    """Correlation of two cells of one seed, from one-way analysis of variance of (..., S, K): it may come out below 0.
    NaN for one seed or subset."""
    seeds, subsets = difference.shape[-2:]
    if seeds < 2 or subsets < 2:
        return np.full(difference.shape[:-2], np.nan)
    between = subsets * difference.mean(axis=-1).var(axis=-1, ddof=1)
    within = difference.var(axis=-1, ddof=1).mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (between - within) / (between + (subsets - 1) * within)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p of m tests (..., m). A test that could not be made (NaN) counts among the m."""
    filled = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(filled, axis=-1)
    factor = p.shape[-1] - np.arange(p.shape[-1])
    raised = np.minimum(np.take_along_axis(filled, order, axis=-1) * factor, 1.0)
    adjusted = np.empty_like(raised)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(raised, axis=-1), axis=-1)
    return np.where(np.isnan(p), np.nan, adjusted)


@functools.cache
def detectable(seeds: int, level: float = LEVEL, power: float = POWER) -> float:
    """The minimum detectable difference in standard deviations over seeds: the true one that a t-test at `level` finds
    in a share `power` of studies. NaN below two seeds."""
    if seeds < 2:
        return np.nan
    # The share of the spreads that studies find, and what t has to exceed at each of them.
    share = (np.arange(_SPREADS) + 0.5) / _SPREADS
    limit = stats.t.isf(level / 2, seeds - 1) * np.sqrt(stats.chi2.ppf(share, seeds - 1) / (seeds - 1))

    def lacking(shift: float) -> float:
        return (stats.norm.cdf(shift - limit) + stats.norm.cdf(-shift - limit)).mean() - power

    return optimize.brentq(lacking, 0, limit.max() + 10) / np.sqrt(seeds)


# Test rooms ----------------------------------------------------------------------------------------------------------


def mean_iou(matrix: np.ndarray) -> np.ndarray:
    """Mean IoU of confusion matrices (..., C, C + 1), as `train.tasks.metrics.scores` has it."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1).astype(np.float64)
    whole = matrix.sum(axis=-1) + matrix[..., :-1].sum(axis=-2) - right
    iou = np.divide(right, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return np.nanmean(iou, axis=-1)


def rooms_interval(
    first: np.ndarray, second: np.ndarray, room: Sequence[str], rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of the mean difference in mIoU of two arms, in points, over draws of the test rooms with
    replacement. first, second: confusion matrices (cells, R, C, C + 1) of the same cells and scans; room (R,): of each
    scan, all of whose scans are drawn together. The models are taken as they are."""
    _, number = np.unique(room, return_inverse=True)
    rooms = number.max() + 1
    drawn = rng.multinomial(rooms, np.full(rooms, 1 / rooms), _DRAWS)[:, number].astype(np.float64)
    gain = np.zeros(_DRAWS)
    for one, other in zip(first, second, strict=True):
        totals = (np.tensordot(drawn, matrix, axes=1) for matrix in (one, other))
        gain += np.subtract(*map(mean_iou, totals)) / len(first)
    low, high = 100 * np.percentile(gain, [2.5, 97.5])
    return float(low), float(high)


# Curves --------------------------------------------------------------------------------------------------------------


def steps_to_reach(steps: np.ndarray, curve: np.ndarray, target: float) -> float:
    """The step at which a curve (L,) over `steps` (L,) first reaches a target, between two looks by a straight line;
    NaN where it never does. A curve that has reached it at the first look is given that step."""
    above = np.flatnonzero(curve >= target)
    if not len(above):
        return np.nan
    at = above[0]
    if at == 0:
        return float(steps[0])
    return float(np.interp(target, curve[at - 1 : at + 1], steps[at - 1 : at + 1]))
