"""Shapes become batches to fine-tune on.

Shapes. B shapes, N points of each.
"""

from typing import NamedTuple

import numpy as np
import torch

from train.inputs.order import BatchKey, Order, Share, keyed_generator
from train.inputs.shapes import Shapes, take_points
from train.inputs.spatial import moved, unit_sphere
from train.inputs.stream import Stream
from train.inputs.voxels import Allocate, new_tensor
from train.nets.pooled import Clouds
from train.tasks.classify.config import Tuning
from train.tasks.classify.features import clouds_of


class ShapeBatch(NamedTuple):
    """Shapes in the unit sphere, varied, and their classes (B,) int64."""

    clouds: Clouds
    label: torch.Tensor


def vary(point: np.ndarray, recipe: Tuning, rng: np.random.Generator) -> np.ndarray:
    """`recipe.points` of a shape's points in the unit sphere, stretched along each axis and moved, (N, 3) float32."""
    chosen = take_points(point, recipe.points, "random", rng)
    matrix = unit_sphere(chosen)
    stretch = rng.uniform(recipe.stretch_low, recipe.stretch_high, 3)
    change = np.diag([*stretch, 1.0])
    change[:3, 3] = rng.uniform(-recipe.shift, recipe.shift, 3)
    return moved(chosen, change @ matrix)


class ShapeStream(Stream):
    """Batches of labelled shapes, which lie in memory: each once an epoch, in an order keyed by (seed, epoch)."""

    def __init__(self, shapes: Shapes, recipe: Tuning, voxel: float | None, seed: int, workers: int):
        """voxel: of sparse nets, None for nets on points."""
        order = Order(np.arange(len(shapes.point)), seed, len(shapes.point))
        super().__init__(order, Share(recipe.batch, least=2), seed, workers)
        self.shapes, self.recipe, self.voxel = shapes, recipe, voxel

    def memory(self, size: int, allocate: Allocate = new_tensor) -> None:
        """Batches are small: each is made anew."""

    def make(self, key: BatchKey, memory: None) -> ShapeBatch:
        """The shapes of a key as a batch."""
        made = [
            vary(self.shapes.point[i], self.recipe, keyed_generator(*k)) for i, k in zip(key.item, key.key, strict=True)
        ]
        label = torch.from_numpy(self.shapes.label[list(key.item)])
        return ShapeBatch(clouds_of(np.stack(made), self.voxel), label)
