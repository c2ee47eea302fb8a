"""What tasks on whole scenes share: a backbone that may be frozen, a scan's voxels in a batch, an order of points.

Shapes. N points of a scan, m voxels.
"""

import numpy as np
import torch
from torch import nn

from train.inputs.voxels import Grid, Rows, Voxels
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
