"""What tasks on whole scenes share: a backbone that may be frozen, batches of scans, a scan's voxels, crops.

Shapes. N points of a scan, m voxels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from train.inputs.order import Order, Share, batch_keys
from train.inputs.stream import Stream
from train.inputs.voxels import Allocate, Grid, Rows, Voxels, new_tensor
from train.nets.cost import forward_cost
from train.nets.heads import CHANNELS_IN, occupancy
from train.nets.unet import UNet
from train.run.memory import Forward
from train.tasks.backbone import WeightsError


class Scene(nn.Module):
    """A backbone under heads. frozen: it is a fixed function, its norms included. Raises WeightsError for a backbone
    that sees more than occupancy."""

    def __init__(self, backbone: nn.Module, frozen: bool):
        super().__init__()
        if isinstance(backbone, UNet) and (given := backbone.stem.conv.weight.shape[-1]) != CHANNELS_IN:
            raise WeightsError(
                f"a backbone of {given} input channels: instances and boxes are found from occupancy alone, which has "
                f"{CHANNELS_IN}: leave colour and normals out"
            )
        self.backbone, self.frozen = backbone, frozen
        if frozen:
            backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Scene":
        """A frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def features(self, voxels: Voxels, size: int) -> torch.Tensor:
        """Backbone features (m, channels) of the voxels of `size` scans. Raises sparse.SparseError."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.backbone(voxels, occupancy(voxels, next(self.backbone.parameters())), size)

    def forwards(self, batch, element: int) -> list[Forward]:
        """What the pass over a batch costs in memory, given the bytes of a number."""
        cost = forward_cost(self.backbone.shape, 3, batch.voxels, element)
        return [cost._replace(kept=0) if self.frozen else cost]


class SceneStream(Stream):
    """Batches of scans that lie in memory: each once an epoch, in an order keyed by (seed, epoch)."""

    def __init__(self, scans: Sequence, share: Share, seed: int, workers: int):
        """scans: labelled ones, or whatever else has `point`."""
        super().__init__(Order(np.arange(len(scans)), seed, max(len(scans), 1)), share, seed, workers)
        self.scans = scans

    def memory(self, size: int, allocate: Allocate = new_tensor) -> tuple[Rows, Grid]:
        """A batch's rows and a worker's grid."""
        return Rows(4, allocate), Grid()

    def sample(self, size: int):
        """As for any stream, with the largest scan as the first: one of its size decides what a run needs."""
        key = next(batch_keys(self.order, Share(size), self.seed, 0))
        largest = max(range(len(self.scans)), key=lambda number: len(self.scans[number].point))
        others = [number for number in key.item if number != largest]
        return self.make(key._replace(item=(largest, *others, *key.item)[:size]), self.memory(size))


def put_scan(point: np.ndarray, plane: np.ndarray, matrix: np.ndarray, number: int, rows: Rows, grid: Grid):
    """Adds the voxels of a scan's kept points to a batch: rows of its own from 0 on, of each point (N,) int64, -1 for
    points that are not kept, and the cells (m, 3) int32 of its voxels. Raises BatchError."""
    grid.clear(len(point), 1)
    grid.mark(point, plane[None], 0, matrix)
    first = rows.used
    grid.write(number, rows)
    row = np.empty(len(point), np.int64)
    grid.rows_of(point, plane, 0, matrix, np.arange(len(row)), row)
    return np.where(row < 0, row, row - first), rows.array[first : rows.used, 1:4]


def fixed_order(point: np.ndarray) -> np.ndarray:
    """Indices (N,) that sort points by x, y, z: what is computed in this order does not depend on that of a file."""
    return np.lexsort(point.T[::-1])


def crop(rows: Rows, first: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Leaves the `most` voxels from row `first` on that lie nearest to one of them that is drawn; returns which."""
    cell = rows.array[first : rows.used, 1:].astype(np.int64)
    away = ((cell - cell[rng.integers(len(cell))]) ** 2).sum(axis=1)
    inside = nearest(away, most)
    rows.array[first : first + most] = rows.array[first : rows.used][inside]
    rows.used = first + most
    return inside


def nearest(distance: np.ndarray, most: int) -> np.ndarray:
    """Rows of the `most` smallest of distances (m,), ascending; of equal ones the first."""
    if len(distance) <= most:
        return np.arange(len(distance))
    limit = np.partition(distance, most - 1)[most - 1]
    below, equal = np.flatnonzero(distance < limit), np.flatnonzero(distance == limit)
    return np.sort(np.concatenate([below, equal[: most - len(below)]]))
