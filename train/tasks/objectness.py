"""Whether frozen features tell objects apart: are neighbours of one object more alike than neighbours of two?

Pairs of voxels up to 30 cm apart, both of objects, walls and floors left out: of one object, or of two objects that
touch or nearly do. Two voxels of one object lie closer on the average, and more often above each other; so as many of
either kind are drawn for each horizontal and each vertical distance, and what is left is the objects. The figure is the
area under the ROC curve of their cosine similarity: 0.5 for features that know nothing of objects, 1 for perfect ones.

Shapes. m voxels, N points, C channels, n pairs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from train.inputs.labels import NONE, LabelTable
from train.inputs.objects import STUFF, instances_of
from train.inputs.order import keyed_generator
from train.inputs.scans import LabelledScan

NEAR_M = 0.3
_MOST_VOXELS = 5000  # of a scan: of fine ones some are left out by chance


class Seen(NamedTuple):
    """A scan as a net sees it: cell (m, 3) of its voxels, their features (m, C), each point's voxel (N,)."""

    cell: np.ndarray
    features: np.ndarray
    row: np.ndarray


def objectness(
    scans: Sequence[LabelledScan], table: LabelTable, voxel_m: float, see: Callable[[LabelledScan], Seen], seed: int
) -> float:
    """The mean over scans, weighted by their pairs. NaN where there is no pair. see: gives features of a scan."""
    stuff = frozenset(number for number, name in enumerate(table.names) if name in STUFF)
    total = pairs = 0
    for number, scan in enumerate(scans):
        if scan.label is None or scan.instance is None:
            continue
        seen, rng = see(scan), keyed_generator(seed, 2, number)
        owner = _owners(scan, stuff, len(table.names), seen)
        first, second, same = matched_pairs(seen.cell, owner, reach(voxel_m), rng)
        if len(same):
            total += len(same) * area(_cosine(seen.features, first, second), same)
            pairs += len(same)
    return total / pairs if pairs else np.nan


def reach(voxel_m: float) -> float:
    """NEAR_M in voxels, that distance included, although 0.3 / 0.1 is below 3."""
    return NEAR_M / voxel_m * (1 + 1e-9)


def _owners(scan: LabelledScan, stuff: frozenset[int], classes: int, seen: Seen) -> np.ndarray:
    """The object (m,) of each voxel, all of whose points belong to it; NONE for others."""
    number, kind = instances_of(scan, stuff, classes)
    number = np.where((number >= 0) & (np.append(kind, NONE)[number] >= 0), number, NONE)
    low, high = np.full(len(seen.cell), np.iinfo(np.int32).max), np.full(len(seen.cell), NONE)
    np.minimum.at(low, seen.row, number)
    np.maximum.at(high, seen.row, number)
    return np.where(low == high, low, NONE)


def matched_pairs(
    cell: np.ndarray, owner: np.ndarray, near: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (n,) and (n,) of neighbouring voxels that have an owner, and whether it is the same (n,) bool: as many pairs
    of either kind at each horizontal and vertical distance. cell (m, 3) whole numbers; near: in voxels."""
    chosen = np.flatnonzero(owner >= 0)
    chosen = np.sort(rng.permutation(chosen)[:_MOST_VOXELS])
    pair = cKDTree(cell[chosen]).query_pairs(near, output_type="ndarray") if len(chosen) else np.zeros((0, 2), int)
    first, second = chosen[pair[:, 0]], chosen[pair[:, 1]]
    apart = np.abs(cell[first].astype(np.int64) - cell[second])
    same = owner[first] == owner[second]
    height = int(near) + 1
    group = 2 * ((apart[:, :2] ** 2).sum(axis=1) * height + apart[:, 2]) + same
    count = np.bincount(group, minlength=2 * (group.max(initial=0) // 2 + 1))
    order = np.lexsort((rng.random(len(group)), group))
    rank = np.arange(len(group)) - (np.cumsum(count) - count)[group[order]]
    kept = order[rank < count.reshape(-1, 2).min(axis=1)[group[order] // 2]]
    return first[kept], second[kept], same[kept]


def _cosine(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return np.einsum("nc,nc->n", unit[first], unit[second])


def area(score: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve of scores (n,): the share of pairs of a positive and a negative one that are in
    order, ties counted half. Both kinds have to be there."""
    count = int(positive.sum())
    above = rankdata(score)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(score) - count)))
