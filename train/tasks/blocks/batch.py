"""Labelled rooms are cut into blocks, and blocks become batches.

Shapes. n points of a room, B blocks, N points drawn of each. Labels are classes from 0, or NONE.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.labels import SceneError
from train.inputs.order import BatchKey, Order, Share, keyed_generator
from train.inputs.scans import LabelledScan
from train.inputs.stream import Stream
from train.inputs.voxels import Allocate, new_tensor
from train.tasks.blocks.config import Blocks


class BlockBatch(NamedTuple):
    """Points (B, N, 3) float32 of blocks, and their labels (B, N) int64."""

    point: torch.Tensor
    label: torch.Tensor


class Room:
    """The blocks of a room: columns of `block_m` a side that begin at multiples of `stride_m` from its lowest x and y.

    Points are kept by cells of one stride, so a block is a few runs of them.
    """

    def __init__(self, point: np.ndarray, recipe: Blocks):
        """point (n, 3) in metres, z up."""
        self.recipe, self.low = recipe, point.min(axis=0)
        self._width = round(recipe.block_m / recipe.stride_m)  # of a block, in cells
        extent = (point[:, :2].max(axis=0) - self.low[:2]).astype(np.float64)
        self.count = np.maximum(np.ceil((extent - recipe.block_m) / recipe.stride_m), 0).astype(int) + 1
        cells = self.count + self._width - 1
        cell = np.minimum(((point[:, :2] - self.low[:2]) / recipe.stride_m).astype(np.int64), cells - 1)
        number = cell[:, 0] * cells[1] + cell[:, 1]
        self._order = np.argsort(number, kind="stable").astype(np.int32)
        self._start = np.searchsorted(number[self._order], np.arange(cells.prod() + 1))
        self._columns = int(cells[1])

    def rows(self, block: int) -> np.ndarray:
        """Rows (m,) of the points in a block, which has a number from 0 to count[0] * count[1] - 1."""
        i, j = divmod(block, int(self.count[1]))
        first = (i + np.arange(self._width)) * self._columns + j
        return np.concatenate([self._order[self._start[f] : self._start[f + self._width]] for f in first])

    def inputs(self, point: np.ndarray, block: int) -> np.ndarray:
        """Points (.., 3) of a block as a net takes them, float32: x and y from its middle, z from the lowest of its
        room."""
        i, j = divmod(block, int(self.count[1]))
        corner = np.array([i, j]) * self.recipe.stride_m + self.recipe.block_m / 2
        return (point - (self.low + np.array([*corner, 0]))).astype(np.float32)

    def blocks(self) -> range:
        """Numbers of all blocks, empty ones too."""
        return range(int(self.count.prod()))

    def sizes(self) -> np.ndarray:
        """How many points each block has."""
        cells = np.diff(self._start).reshape(-1, self._columns)
        windows = np.lib.stride_tricks.sliding_window_view(cells, (self._width, self._width))
        return windows.sum(axis=(2, 3)).ravel()


def draw(count: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """`wanted` of `count` points: different ones, or all of them and some again where there are fewer (A: the published
    blocks draw with repetition from larger ones too)."""
    if count >= wanted:
        return rng.choice(count, wanted, replace=False)
    return np.concatenate([np.arange(count), rng.integers(0, count, wanted - count)])


class BlockStream(Stream):
    """Batches of blocks of labelled rooms, which lie in memory: each once an epoch, in an order keyed by (seed, epoch),
    and each time other points of it."""

    def __init__(self, scans: Sequence[LabelledScan], recipe: Blocks, share: Share, seed: int, workers: int):
        """Raises SceneError where no block has enough points."""
        self.scans, self.recipe = scans, recipe
        self.rooms = [Room(scan.point, recipe) for scan in scans]
        self.items = [
            (number, int(block))
            for number, room in enumerate(self.rooms)
            for block in np.flatnonzero(room.sizes() >= recipe.least_in_block)
        ]
        if not self.items:
            raise SceneError(
                f"no block of {len(scans)} rooms (first: {scans[0].name}) has {recipe.least_in_block} points: set a "
                "smaller least_in_block, or larger blocks"
            )
        super().__init__(Order(np.arange(len(self.items)), seed, len(self.items)), share, seed, workers)

    def memory(self, size: int, allocate: Allocate = new_tensor) -> BlockBatch:
        """A batch's buffers."""
        shape = (size, self.recipe.points)
        return BlockBatch(allocate((*shape, 3), torch.float32), allocate(shape, torch.int64))

    def make(self, key: BatchKey, memory: BlockBatch) -> BlockBatch:
        """The blocks of a key as a batch."""
        for slot, (item, own) in enumerate(zip(key.item, key.key, strict=True)):
            number, block = self.items[item]
            rows = self.rooms[number].rows(block)
            rows = rows[draw(len(rows), self.recipe.points, keyed_generator(*own))]
            scan = self.scans[number]
            memory.point[slot] = torch.from_numpy(self.rooms[number].inputs(scan.point[rows], block))
            memory.label[slot] = torch.from_numpy(scan.label[rows].astype(np.int64))
        return memory
