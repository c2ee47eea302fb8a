"""Pointwise heads on sampled rows (4DContrast, section 3.3.1 and appendix A).

Shapes. n sampled points. A 1x1x1(x1) sparse convolution is a linear layer on rows, so heads see only the rows that are
sampled.
"""

import torch
import torch.nn.functional as F
from torch import nn

from train.inputs.voxels import Voxels
from train.nets.unet import NetShape, Norm, UNet, initialise

CHANNELS_IN = 3  # occupancy, repeated to the width that the field's nets take (appendix A)


class Projector(nn.Linear):
    """One pointwise layer: (n, channels) -> (n, width)."""


class Predictor(nn.Sequential):
    """Two pointwise layers with norm and ReLU between (A): (n, width) -> (n, hidden) -> (n, width)."""

    def __init__(self, width: int, hidden: int, norm: Norm, generator: torch.Generator):
        super().__init__(nn.Linear(width, hidden, bias=False), norm.layer(hidden), nn.ReLU(), nn.Linear(hidden, width))
        initialise(self, generator)


class Encoder(nn.Module):
    """U-Net and projector: Phi of the paper. What fine-tuning takes is `backbone` alone.

    centred: projections end in a norm without weights (A). The projector's bias has no gradient where a predictor with
    a norm follows, so nothing else moves the mean of z, which is half to two thirds of each unit vector (measured)."""

    def __init__(
        self, shape: NetShape, dims: int, width: int, norm: Norm, generator: torch.Generator, centred: bool = False
    ):
        super().__init__()
        self.backbone = UNet(shape, dims, generator, CHANNELS_IN, norm)
        self.projector = Projector(self.backbone.channels, width)
        self.centre = nn.BatchNorm1d(width, norm.eps, norm.momentum, affine=False) if centred else nn.Identity()
        initialise(self.projector, generator)

    def features(self, voxels: Voxels, batch_size: int) -> torch.Tensor:
        """Backbone features (n, channels) of the occupancy of n voxels."""
        return self.backbone(voxels, occupancy(voxels, self.projector.weight), batch_size)

    def forward(self, voxels: Voxels, row: torch.Tensor, batch_size: int) -> torch.Tensor:
        """z of the sampled rows: row (...) int64 of voxel rows -> (..., width)."""
        return self.project(self.features(voxels, batch_size), row)

    def project(self, features: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """z of the sampled rows of features (n, channels): row (...) int64 -> (..., width)."""
        z = self.projector(gather(features, row))
        return self.centre(z.flatten(0, -2)).unflatten(0, z.shape[:-1])


def occupancy(voxels: Voxels, like: torch.Tensor) -> torch.Tensor:
    """Ones (n, 3) with the dtype of `like`: the net sees geometry only."""
    return like.new_ones(len(voxels.coordinate), CHANNELS_IN)


def gather(features: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """features (n, d) at row (...) int64 -> (..., d).

    As an embedding: on CPU threads the backward of plain indexing adds the gradients of one row in any order (4 of 8
    runs differed, measured with two threads), that of an embedding in one order, and a resumed run could not be
    bit-identical."""
    return F.embedding(row, features)
