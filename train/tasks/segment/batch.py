"""Labelled scans become batches of labelled voxels.

Shapes. N points of a scan, m voxels of a batch, K classes. Labels are classes from 0, or NONE.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.labels import NONE
from train.inputs.order import BatchKey, Order, Share, keyed_generator
from train.inputs.scans import LabelledScan
from train.inputs.stream import Stream
from train.inputs.views import Augmentation, augment
from train.inputs.voxels import Allocate, BatchError, Grid, Rows, Voxels, new_tensor


class ScanBatch(NamedTuple):
    """Voxels of several scans. label (m,) int64: class or NONE."""

    voxels: Voxels
    label: torch.Tensor
    size: int


def voxel_labels(row: np.ndarray, label: np.ndarray, voxels: int, classes: int, rule: str) -> np.ndarray:
    """Labels (voxels,) int64 from the voxel `row` (N,) and `label` (N,) of each point.

    majority: the class that most points have, the lowest of equals, points without a class not counted. first: that of
    the first point. unanimous: NONE unless all points agree, as PointContrast and CSC have it.
    """
    if rule == "first":
        found = np.full(voxels, NONE, np.int64)
        found[row[::-1]] = label[::-1]  # the last of equal indices stays
        return found
    count = np.bincount(row * (classes + 1) + np.where(label == NONE, classes, label), minlength=voxels * (classes + 1))
    count = count.reshape(voxels, classes + 1)
    found = count[:, :classes].argmax(axis=1)
    most = np.take_along_axis(count, found[:, None], axis=1)[:, 0]
    enough = most == count.sum(axis=1) if rule == "unanimous" else most > 0
    return np.where(enough & (most > 0), found, NONE)


class ScanRecipe(NamedTuple):
    """How scans become a batch."""

    voxel_m: float
    voxel_label: str
    classes: int
    augmentation: Augmentation


def make_scan_batch(
    scans: Sequence[LabelledScan], generators: Sequence, recipe: ScanRecipe, rows: Rows, grid: Grid
) -> ScanBatch:
    """One batch in the memory of `rows`, each scan varied by its own generator. Raises BatchError."""
    rows.clear()
    labels = []
    for number, (scan, rng) in enumerate(zip(scans, generators, strict=True)):
        try:
            labels.append(_add_scan(scan, number, rng, recipe, rows, grid))
        except BatchError as error:
            raise BatchError(f"scan {scan.name}: {error}") from None
    return ScanBatch(rows.voxels(), torch.from_numpy(np.concatenate(labels)), len(scans))


def _add_scan(scan: LabelledScan, number: int, rng, recipe: ScanRecipe, rows: Rows, grid: Grid) -> np.ndarray:
    """Voxels of one scan go to `rows`; returns their labels."""
    made = augment(scan.point, recipe.augmentation, rng)
    matrix = np.ascontiguousarray(made.view[:3] / recipe.voxel_m)
    grid.clear(len(made.point), 1)
    grid.mark(made.point, made.plane[None], 0, matrix)
    first = rows.used
    grid.write(number, rows)
    row = np.empty(len(made.point), np.int64)
    grid.rows_of(made.point, made.plane, 0, matrix, np.arange(len(row)), row)
    kept = row >= 0
    return voxel_labels(row[kept] - first, scan.label[kept], rows.used - first, recipe.classes, recipe.voxel_label)


class ScanStream(Stream):
    """Batches of labelled scans, which lie in memory: each once an epoch, in an order keyed by (seed, epoch)."""

    def __init__(self, scans: Sequence[LabelledScan], recipe: ScanRecipe, share: Share, seed: int, workers: int):
        super().__init__(Order(np.arange(len(scans)), seed, max(len(scans), 1)), share, seed, workers)
        self.scans, self.recipe = scans, recipe

    def memory(self, size: int, allocate: Allocate = new_tensor) -> tuple[Rows, Grid]:
        """A batch's rows and a worker's grid."""
        return Rows(4, allocate), Grid()

    def make(self, key: BatchKey, memory: tuple[Rows, Grid]) -> ScanBatch:
        """The scans of a key as a batch."""
        scans = [self.scans[number] for number in key.item]
        return make_scan_batch(scans, [keyed_generator(*one) for one in key.key], self.recipe, *memory)
