"""Scans with instances become batches of voxels that know their class and where their instance is.

Shapes. N points of a scan, m voxels of a batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.labels import NONE
from train.inputs.objects import Instances
from train.inputs.order import BatchKey, Share, keyed_generator
from train.inputs.scans import LabelledScan
from train.inputs.views import Augmentation, augment
from train.inputs.voxels import BatchError, Grid, Rows, Voxels
from train.tasks.scene import SceneStream, crop, put_scan
from train.tasks.segment.batch import voxel_labels


class InstanceBatch(NamedTuple):
    """Voxels of several scans. label (m,) int64: class or NONE; number (m,) int64: instance, counted over the batch,
    NONE for voxels of no object; offset (m, 3) float32 metres from a voxel's centre to the mean of its instance's
    points, each taken at its voxel's centre, 0 without; points (m,) float32: of the scan in each voxel."""

    voxels: Voxels
    label: torch.Tensor
    number: torch.Tensor
    offset: torch.Tensor
    points: torch.Tensor
    size: int


class InstanceRecipe(NamedTuple):
    """How scans become a batch."""

    voxel_m: float
    classes: int
    augmentation: Augmentation
    max_voxels: int | None = None  # of a scan: more are left out, but for those around a point that is drawn


def offsets_to_means(cell: np.ndarray, row: np.ndarray, owner: np.ndarray, number: np.ndarray, voxel_m: float):
    """Offsets (m, 3) float32 metres of voxels with cells (m, 3) to the means of their instances `number` (m,), over
    points with voxel `row` (n,) and instance `owner` (n,)."""
    centre = (cell + 0.5) * voxel_m
    mine = owner >= 0
    count = int(max(owner.max(initial=-1), number.max(initial=-1))) + 1
    times = np.maximum(np.bincount(owner[mine], minlength=count), 1)
    at = centre[row[mine]]
    mean = np.stack([np.bincount(owner[mine], at[:, axis], count) / times for axis in range(3)], axis=1)
    offset = np.zeros(centre.shape, np.float32)
    inside = number >= 0
    offset[inside] = mean[number[inside]] - centre[inside]
    return offset


class InstanceStream(SceneStream):
    """Batches of scans with instances."""

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        instances: Sequence[Instances],
        recipe: InstanceRecipe,
        share: Share,
        seed: int,
        workers: int,
    ):
        super().__init__(scans, share, seed, workers)
        self.instances, self.recipe = instances, recipe

    def make(self, key: BatchKey, memory: tuple[Rows, Grid]) -> InstanceBatch:
        """The scans of a key as a batch. Raises BatchError."""
        rows, grid = memory
        rows.clear()
        parts, before = [], 0
        for slot, item in enumerate(key.item):
            try:
                part = self._add(item, slot, keyed_generator(*key.key[slot]), rows, grid)
            except BatchError as error:
                raise BatchError(f"scan {self.scans[item].name}: {error}") from None
            number = part[1]
            parts.append((part[0], np.where(number < 0, NONE, number + before), *part[2:]))
            before += len(self.instances[item].kind)
        made = [torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True)]
        return InstanceBatch(rows.voxels(), *made, len(key.item))

    def _add(self, item: int, slot: int, rng: np.random.Generator, rows: Rows, grid: Grid):
        """Label, instance, offset and points of one scan's voxels."""
        scan, own = self.scans[item], self.instances[item]
        varied = augment(scan.point, self.recipe.augmentation, rng)
        matrix = np.ascontiguousarray(varied.view[:3] / self.recipe.voxel_m)
        first = rows.used
        row, cell = put_scan(varied.point, varied.plane, matrix, slot, rows, grid)
        kept, count = row >= 0, len(cell)
        row = row[kept]
        owner = np.append(own.kind, NONE)[own.number[kept]]
        owner = np.where(owner < 0, NONE, own.number[kept])
        label = voxel_labels(row, scan.label[kept], count, self.recipe.classes, "majority")
        number = voxel_labels(row, owner, count, max(len(own.kind), 1), "majority")
        offset = offsets_to_means(cell, row, owner, number, self.recipe.voxel_m)
        made = label, number, offset, np.bincount(row, minlength=count).astype(np.float32)
        most = self.recipe.max_voxels
        if most is None or count <= most:
            return made
        inside = crop(rows, first, most, rng)  # means stay those of whole objects, as a net sees them when it is judged
        return tuple(values[inside] for values in made)
