"""Sequences in, one training batch of STRL out: two frames of each, varied, as points or voxels.

Conventions. B sequences, N points of an input. A frame of a shape's sequence is the shape under the pose of that frame
(Eq. 2), a frame of a natural sequence what the sensor saw, in world coordinates (Eq. 1).
"""

from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.order import BatchKey, Order, Share, keyed_generator
from train.inputs.spatial import draw_transform, moved, unit_sphere, vary, vary_as_published
from train.inputs.stream import Stream
from train.inputs.voxels import Allocate, BatchError, Grid, Rows, new_tensor
from train.methods.strl.config import Strl
from train.nets.pooled import Clouds

_NATURAL = ("frames", "sweeps")


class Batch(NamedTuple):
    """Two frames of each of `size` sequences."""

    first: Clouds
    second: Clouds
    size: int


# Two frames ----------------------------------------------------------------------------------------------------------


def draw_frames(t: int, window: int, rng: np.random.Generator) -> tuple[int, int]:
    """Two different frames of t that lie in a window of `window` neighbours: a window, then two of its frames."""
    width = min(window, t)
    start = rng.integers(0, t - width + 1)
    i, j = rng.choice(width, 2, replace=False)
    return int(start + i), int(start + j)


def pair_of(sequence, recipe: Strl, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two inputs of a sequence, (N, 3) float32 each. Raises BatchError for a frame without points."""
    i, j = draw_frames(sequence.t, recipe.window, rng)
    shape = sequence.kind == "views"
    redraw = shape and (recipe.redraw or recipe.compat == "code")
    if redraw:
        points = [np.concatenate([actor.cloud.point for actor in sequence.actors])] * 2
    else:
        points = [sequence.frame(number).point for number in (i, j)]
    for number, point in zip((i, j), points, strict=True):
        if not len(point):
            raise BatchError(f"frame {number} has no point: leave the sequence out, or build it with less removed")
    if not shape:
        points = _from_first(sequence, i, points)
    if recipe.compat == "code":
        return tuple(vary_as_published(point, recipe.points, shape, rng) for point in points)
    if recipe.sphere == "shared" or (recipe.sphere == "auto" and shape):
        matrix = unit_sphere(points[0])
        points = [moved(point, matrix) for point in points]
    if redraw:  # chained: the second starts where the first has ended
        points[0] = moved(points[0], draw_transform(points[0], recipe.temporal, rng))
        points[1] = moved(points[0], draw_transform(points[0], recipe.temporal, rng))
    elif not shape:
        points = [moved(point, draw_transform(point, recipe.temporal, rng)) for point in points]
    count = recipe.points if recipe.on_points else None
    return tuple(vary(point, count, recipe.spatial, rng) for point in points)


def _from_first(sequence, i: int, points: list[np.ndarray]) -> list[np.ndarray]:
    """Both frames from where the sensor of frame i stood (section 5.1.2), or from the middle of its points where the
    sequence has no sensor (A)."""
    if sequence.kind in _NATURAL:
        origin = next(actor.pose[i, :3, 3] for actor in sequence.actors if actor.planes[i].any())
    else:
        origin = (points[0].min(axis=0) + points[0].max(axis=0)) / 2
    return [point - origin for point in points]


# The batch -----------------------------------------------------------------------------------------------------------


class Memory:
    """Buffers of one batch of `size` sequences; what `batch` returns is valid until the next `fill`."""

    def __init__(self, size: int, recipe: Strl, allocate: Allocate = new_tensor):
        self.size, self.recipe = size, recipe
        shape = (2, size, recipe.points if recipe.on_points else 0, 3)
        self._point = allocate(shape, torch.float32)
        self._rows, self._grid = (Rows(4, allocate), Rows(4, allocate)), Grid()

    def fill(self, sequences: Many, generators: Many) -> Batch:
        """A batch of sequences, each drawing from its own generator. Raises BatchError."""
        for rows in self._rows:
            rows.clear()
        for b, (sequence, rng) in enumerate(zip(sequences, generators, strict=True)):
            try:
                for side, point in enumerate(pair_of(sequence, self.recipe, rng)):
                    self._add(side, b, point)
            except BatchError as error:
                raise BatchError(f"sequence {sequence.id}: {error}") from None
        return Batch(self._clouds(0), self._clouds(1), self.size)

    def _add(self, side: int, b: int, point: np.ndarray) -> None:
        if self.recipe.on_points:
            self._point[side, b] = torch.from_numpy(point)
            return
        planes = np.packbits(np.ones((1, len(point)), bool), axis=1)
        self._grid.clear(len(point), 1)
        self._grid.mark(point, planes, 0, np.eye(3, 4) / self.recipe.voxel)
        self._grid.write(b, self._rows[side])

    def _clouds(self, side: int) -> Clouds:
        if self.recipe.on_points:
            return Clouds(self._point[side], None, self.size)
        return Clouds(None, self._rows[side].voxels(), self.size)


class PairStream(Stream):
    """Batches of pairs of frames of a data set's sequences, of whatever kind."""

    def __init__(self, dataset, order: Order, recipe: Strl, share: Share, seed: int, workers: int = 1) -> None:
        """dataset: as `gen4d.shards.open_dataset` gives it."""
        super().__init__(order, share, seed, workers)
        self.dataset, self.recipe = dataset, recipe

    def memory(self, size: int, allocate: Allocate = new_tensor) -> Memory:
        """A batch's buffers and a worker's grid."""
        return Memory(size, self.recipe, allocate)

    def make(self, key: BatchKey, memory: Memory) -> Batch:
        """Reads the sequences of a key and makes them a batch."""
        sequences = [self.dataset[number] for number in key.item]
        return memory.fill(sequences, [keyed_generator(*one) for one in key.key])
