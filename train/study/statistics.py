"""Paired differences of a study's arms, with their uncertainty.

Pairs of one pre-trained model are not independent of each other: what that model is like is in all of them. So every
difference is given over all pairs, and beside it the mean of each pre-training seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

FLOOR = "scratch"


class Paired(NamedTuple):
    """Differences of two arms, in points of mIoU (0 to 100). p: of a two-sided paired t-test, NaN below two pairs;
    visible: the true difference that this many pairs of this spread show at p < 0.05 in four studies of five."""

    mean: float
    sd: float
    pairs: int
    p: float
    visible: float
    by_seed: dict[int, float]


def paired(lines: Sequence[dict], arm: str, percent: float, metric: str, floor: str = FLOOR) -> Paired:
    """An arm against another over all pairs that have both. Raises ValueError where there is none."""
    value = {
        (line["arm"], line["seed"], line["subset"]): 100 * line[metric] for line in lines if line["percent"] == percent
    }
    keys = sorted(key[1:] for key in value if key[0] == arm and (floor, *key[1:]) in value)
    if not keys:
        raise ValueError(f"no pair of {arm} and {floor} at {percent:g} %: let the study make more cells")
    difference = np.array([value[arm, *key] - value[floor, *key] for key in keys])
    count = len(difference)
    sd = float(difference.std(ddof=1)) if count > 1 else np.nan
    error = sd / np.sqrt(count)
    mean = float(difference.mean())
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1)) if count > 1 and error > 0 else np.nan
    visible = float(error * (stats.t.ppf(0.975, count - 1) + stats.t.ppf(0.8, count - 1))) if count > 1 else np.nan
    seeds = {key[0] for key in keys}
    by_seed = {seed: float(difference[[key[0] == seed for key in keys]].mean()) for seed in sorted(seeds)}
    return Paired(mean, sd, count, p, visible, by_seed)
