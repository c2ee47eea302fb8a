"""Labelled scans become batches of labelled voxels.

Shapes. N points of a scan, m voxels of a batch, K classes. Labels are classes from 0, or NONE.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.labels import NONE
from train.inputs.order import BatchKey, Share, keyed_generator
from train.inputs.scans import GEOMETRY, LabelledScan, point_inputs
from train.inputs.views import Augmentation, augment, vary_colour
from train.inputs.voxels import BatchError, Grid, Rows, Voxels, voxel_means
from train.tasks.scene import SceneStream, crop


class ScanBatch(NamedTuple):
    """Voxels of several scans. label (m,) int64: class or NONE; features (m, C) float32, None for occupancy alone."""

    voxels: Voxels
    label: torch.Tensor
    size: int
    features: torch.Tensor | None = None


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
    max_voxels: int | None = None  # of a scan: more are left out, but for those around a point that is drawn
    inputs: tuple[str, ...] = GEOMETRY


def make_scan_batch(
    scans: Sequence[LabelledScan], generators: Sequence, recipe: ScanRecipe, rows: Rows, grid: Grid
) -> ScanBatch:
    """One batch in the memory of `rows`, each scan varied by its own generator. Raises BatchError."""
    rows.clear()
    parts = []
    for number, (scan, rng) in enumerate(zip(scans, generators, strict=True)):
        try:
            parts.append(_add_scan(scan, number, rng, recipe, rows, grid))
        except BatchError as error:
            raise BatchError(f"scan {scan.name}: {error}") from None
    labels, features = zip(*parts, strict=True)
    seen = None if features[0] is None else torch.from_numpy(np.concatenate(features))
    return ScanBatch(rows.voxels(), torch.from_numpy(np.concatenate(labels)), len(scans), seen)


def _add_scan(scan: LabelledScan, number: int, rng, recipe: ScanRecipe, rows: Rows, grid: Grid):
    """Voxels of one scan go to `rows`; returns their labels and features."""
    made = augment(scan.point, recipe.augmentation, rng)
    matrix = np.ascontiguousarray(made.view[:3] / recipe.voxel_m)
    grid.clear(len(made.point), 1)
    grid.mark(made.point, made.plane[None], 0, matrix)
    first = rows.used
    grid.write(number, rows)
    row = np.empty(len(made.point), np.int64)
    grid.rows_of(made.point, made.plane, 0, matrix, np.arange(len(row)), row)
    kept, count = row >= 0, rows.used - first
    row = row[kept] - first
    label = voxel_labels(row, scan.label[kept], count, recipe.classes, recipe.voxel_label)
    features = _features(scan, made.view, kept, row, count, recipe, rng)
    if recipe.max_voxels is None or count <= recipe.max_voxels:
        return label, features
    inside = crop(rows, first, recipe.max_voxels, rng)
    return label[inside], None if features is None else features[inside]


def _features(scan: LabelledScan, view: np.ndarray, kept, row, count: int, recipe: ScanRecipe, rng):
    """What a scan's voxels give the net besides their places, (count, C) float32, or None for occupancy alone."""
    if recipe.inputs == GEOMETRY:
        return None
    varied = scan if scan.colour is None else scan._replace(colour=vary_colour(scan.colour, recipe.augmentation, rng))
    return voxel_means(row, point_inputs(varied, recipe.inputs, view)[kept], count)


class ScanStream(SceneStream):
    """Batches of labelled scans."""

    def __init__(self, scans: Sequence[LabelledScan], recipe: ScanRecipe, share: Share, seed: int, workers: int):
        super().__init__(scans, share, seed, workers)
        self.recipe = recipe

    def make(self, key: BatchKey, memory: tuple[Rows, Grid]) -> ScanBatch:
        """The scans of a key as a batch."""
        scans = [self.scans[number] for number in key.item]
        return make_scan_batch(scans, [keyed_generator(*one) for one in key.key], self.recipe, *memory)
