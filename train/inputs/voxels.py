"""Voxel grids: points under a matrix to the voxels they occupy, and to the rows of those voxels.

Masks stay packed and moved points are never written out: kernels go from a cloud, its planes and a matrix straight to
voxels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from train.errors import Refused
from train.inputs import kernels

Allocate = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]


class BatchError(Refused):
    """Points that cannot become part of a batch."""


class Voxels(NamedTuple):
    """Occupied voxels of one frame index of all sequences, or of the 4D sequences."""

    coordinate: torch.Tensor  # (m, 1 + d) int32: sequence in the batch, x, y, z (, time); unique, >= 0
    size: tuple[int, ...]  # d exclusive bounds
    books: dict | None = None  # a net's rulebooks, where they were made ahead (`train.nets.unet.UNet.with_rulebooks`)


class Grid:
    """Scratch memory of one voxel grid, kept from frame to frame because fresh memory is slow."""

    def __init__(self) -> None:
        self._capacity, self._steps, self.count = 0, 0, 0
        self._low, self._size = np.zeros(3, np.int64), np.zeros(3, np.int64)

    def clear(self, capacity: int, steps: int) -> None:
        """Empty the grid and make room for `capacity` points in `steps` time steps."""
        if capacity > self._capacity or steps != self._steps:
            self._capacity, self._steps = max(capacity, self._capacity), steps
            self._table = np.zeros(1 << (2 * self._capacity + 1).bit_length(), np.int32)
            self._block = np.zeros(self._capacity, np.int64)
            self._word = np.zeros((self._capacity, steps, kernels.BLOCK_WORDS), np.uint32)
            self._first_row = np.zeros((self._capacity, steps, kernels.BLOCK_WORDS), np.int64)
        self._table[:] = 0
        self.count = 0

    def mark(self, point: np.ndarray, planes: np.ndarray, time: int, matrix: np.ndarray) -> None:
        """Occupy the voxels of a cloud's kept points at time steps `time`, `time` + 1, .., one a plane."""
        count = kernels.mark(point, planes, time, matrix, self._table, self._block, self._word, self.count)
        if count < 0:
            where = f"point {-1 - count} at {point[-1 - count].tolist()} m"
            raise BatchError(f"{where} is not finite or beyond {kernels.AXIS_LIMIT} voxels: rebuild the data set")
        self.count = count

    def write(self, batch_index: int, out: "Rows") -> None:
        """Append the occupied voxels to `out`, moved so that none is negative."""
        rows = kernels.measure(self._block, self._word, self.count, self._low, self._size)
        out.reserve(rows)
        fixed = (self._block, self._word, self.count, self._low, batch_index)
        out.used = kernels.emit(*fixed, out.used, out.array, self._first_row)
        out.size = np.maximum(out.size, self._size)

    def rows_of(self, point, plane, time: int, matrix, index: np.ndarray, out: np.ndarray) -> None:
        """Rows of a cloud's points, after `write`; -1 where `plane` does not keep them."""
        grid = (self._table, self._block, self._word, self._first_row)
        kernels.find_rows(point, plane, time, matrix, index, grid, out)


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Ordinary memory for batch buffers; a loader that feeds a GPU passes one that pins it."""
    return torch.empty(shape, dtype=dtype)


class Rows:
    """A growing array of voxel rows, reused from batch to batch."""

    def __init__(self, columns: int, allocate: Allocate) -> None:
        self._allocate, self._tensor = allocate, allocate((0, columns), torch.int32)
        self.array = self._tensor.numpy()
        self.clear()

    def clear(self) -> None:
        self.used, self.size = 0, np.zeros(3, np.int64)

    def reserve(self, rows: int) -> None:
        """Make room for `rows` more; growing by half again keeps later batches from growing."""
        if self.used + rows <= len(self.array):
            return
        grown = self._allocate(((self.used + rows) * 3 // 2, self.array.shape[1]), torch.int32)
        grown[: self.used] = self._tensor[: self.used]
        self._tensor, self.array = grown, grown.numpy()

    def voxels(self, *more: int) -> Voxels:
        """What was written, with the bounds of further axes."""
        return Voxels(self._tensor[: self.used], (*(int(s) for s in self.size), *more))


def voxel_means(row: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Means (count, c) float32 over the points of each voxel, of values (n, c) of points whose voxels are row (n,)."""
    times = np.bincount(row, minlength=count)
    sums = np.stack([np.bincount(row, column, count) for column in values.T], axis=1)
    return (sums / times[:, None]).astype(np.float32)


def voxelise(point: np.ndarray, voxel_m: float) -> tuple[Voxels, np.ndarray]:
    """Voxels of points (n, 3) float32 metres as they lie, and the row (n,) int64 of each point's voxel.

    Raises BatchError for points that are not finite or too far out.
    """
    planes = np.packbits(np.ones((1, len(point)), bool), axis=1)
    matrix = np.eye(3, 4) / voxel_m
    grid, rows, row = Grid(), Rows(4, new_tensor), np.empty(len(point), np.int64)
    grid.clear(len(point), 1)
    grid.mark(point, planes, 0, matrix)
    grid.write(0, rows)
    grid.rows_of(point, planes[0], 0, matrix, np.arange(len(point)), row)
    return rows.voxels(), row
