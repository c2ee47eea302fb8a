"""From what a net says of voxels to instances: clusters of voxels of one class, where they are and where they point to
(PointGroup). Deterministic: nothing is drawn, and neighbours are not capped, as PointGroup's own code does by index.

Shapes. m voxels of a scan, K classes, P proposals.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import sparse

from train.tasks.instances import kernels


class Proposals(NamedTuple):
    """rows: of each proposal the voxels, ascending; kind (P,) int64; score (P,) float64; points (P,) of the scan."""

    rows: list[np.ndarray]
    kind: np.ndarray
    score: np.ndarray
    points: np.ndarray

    def at(self, kept: np.ndarray) -> "Proposals":
        """Some of them, by index."""
        return Proposals([self.rows[p] for p in kept], self.kind[kept], self.score[kept], self.points[kept])


class Grouping(NamedTuple):
    """How voxels are grouped. stuff: classes that are no objects; soft: None, or the probability from which on a voxel
    belongs to a class (SoftGroup), else to its most probable one alone; least (K,): points of a cluster of a class."""

    stuff: tuple[int, ...]
    radius_m: float
    both: bool
    soft: float | None
    least: np.ndarray


def clusters(point: np.ndarray, group: np.ndarray, radius: float) -> np.ndarray:
    """Clusters (n,) int64 of points (n, 3): chains of steps shorter than the radius within a group (n,) >= 0. They are
    numbered by the lowest index among their points."""
    if not len(point):
        return np.zeros(0, np.int64)
    point = np.asarray(point, np.float64)
    edge = radius / math.sqrt(3) * (1 - 1e-6)
    cell = np.floor((point - point.min(axis=0)) / edge).astype(np.int64) + 2
    extent = [int(size) for size in cell.max(axis=0) + 3]
    span = math.prod(extent)
    if span * (int(group.max()) + 1) >= 2**62:
        raise ValueError(f"points over {extent} cells of {edge:g} m: too far apart to be clustered, drop far outliers")
    row_step, plane_step = extent[2], extent[1] * extent[2]
    key = group.astype(np.int64) * span + cell[:, 0] * plane_step + cell[:, 1] * row_step + cell[:, 2]
    order = np.argsort(key, kind="stable")
    cells, start = np.unique(key[order], return_index=True)
    parent = np.arange(len(cells))
    bounds = np.append(start, len(point)).astype(np.int64)
    kernels.join(point[order], cells, bounds, row_step, plane_step, radius**2, parent)
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    of_point = np.empty(len(point), np.int64)
    of_point[order] = np.repeat(parent, np.diff(bounds))
    _, first, number = np.unique(of_point, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def propose(
    position: np.ndarray, offset: np.ndarray, probability: np.ndarray, points: np.ndarray, how: Grouping
) -> Proposals:
    """Proposals of one scan: clusters of voxels at position + offset (m, 3), metres, and where `both` at position as
    well. probability (m, K); points (m,): of the scan in each voxel. Score: the mean probability of the class over the
    cluster's points."""
    row, kind = _members(probability, how)
    rows, kinds, scores, sizes = [], [], [], []
    for at in (position + offset, position) if how.both else (position + offset,):
        number = clusters(at[row], kind, how.radius_m)
        count = int(number.max(initial=-1)) + 1
        weight = points[row].astype(np.float64)
        size = np.bincount(number, weight, count)
        of_kind = np.zeros(count, np.int64)
        of_kind[number] = kind
        mean = np.bincount(number, weight * probability[row, kind], count) / np.maximum(size, 1)
        parts = np.split(row[np.argsort(number, kind="stable")], np.cumsum(np.bincount(number, minlength=count))[:-1])
        for cluster in np.flatnonzero(size >= how.least[of_kind]):
            rows.append(parts[cluster])
            kinds.append(of_kind[cluster])
            scores.append(mean[cluster])
            sizes.append(size[cluster])
    return Proposals(rows, np.array(kinds, np.int64), np.array(scores), np.array(sizes))


def _members(probability: np.ndarray, how: Grouping) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (n,), ascending, and the class (n,) that each is grouped in."""
    if how.soft is None:
        kind = probability.argmax(axis=1)
        row = np.flatnonzero(~np.isin(kind, how.stuff))
        return row, kind[row]
    allowed = probability > how.soft
    allowed[:, list(how.stuff)] = False
    return np.nonzero(allowed)


def shared_points(rows: list[np.ndarray], others: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Points (P, Q) that sets of voxels have in common."""
    first, second = _incidence(rows, len(points)), _incidence(others, len(points))
    return (first.multiply(points.astype(np.float64)[None]) @ second.T).toarray()


def _incidence(rows: list[np.ndarray], voxels: int) -> sparse.csr_matrix:
    index = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64)
    return sparse.csr_matrix((np.ones(len(index)), index, bounds), shape=(len(rows), voxels))


def suppress(found: Proposals, points: np.ndarray, overlap: float) -> Proposals:
    """The proposals that stay, surest first: each takes out the less sure ones, of whatever class, whose masks' IoU
    with its own is above `overlap`. Of equal scores the first stays."""
    common = shared_points(found.rows, found.rows, points)
    union = found.points[:, None] + found.points[None] - common
    close = np.divide(common, union, out=np.zeros_like(common), where=union > 0) > overlap
    alive, kept = np.ones(len(found.rows), bool), []
    for p in np.argsort(-found.score, kind="stable"):
        if alive[p]:
            kept.append(p)
            alive &= ~close[p]
    return found.at(np.array(kept, np.int64))
