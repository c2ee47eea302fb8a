"""Features of whole clouds: a backbone, which gives features of points or of voxels, and pooling over each cloud.

Shapes. B clouds, N points of each, n voxels of all of them.

Backbones have `channels`. On points they take (B, N, 3) and give (B, N, channels), on voxels `Voxels` and give
(n, channels). This is the one place that knows both by name.
"""

import hashlib
from typing import NamedTuple

import torch
from torch import nn

from train.inputs.voxels import Voxels
from train.nets.cost import forward_cost
from train.nets.dgcnn import DGCNN, SegmentingDGCNN
from train.nets.heads import CHANNELS_IN, occupancy
from train.nets.pointnet import PointNet
from train.nets.unet import NETS, UNet
from train.run import checkpoint
from train.run.memory import Forward

POINT_NETS = ("pointnet", "dgcnn", "dgcnn-seg")
BACKBONES = (*POINT_NETS, *NETS)


class Clouds(NamedTuple):
    """What a backbone reads of `size` clouds: point (B, N, 3) float32, or voxels; the other is None."""

    point: torch.Tensor | None
    voxels: Voxels | None
    size: int


class Pooled(nn.Module):
    """A backbone with pooling after it: (B, channels) of B clouds. What others go on with is `backbone` alone."""

    def __init__(self, net: str, k: int, generator: torch.Generator):
        """net: one of BACKBONES; k: neighbours of DGCNN's; generator (a CPU one) draws the weights."""
        super().__init__()
        self.net = net
        self.backbone = make_backbone(net, k, generator)
        self.pools = getattr(self.backbone, "pools", ("max",))
        self.channels = self.backbone.channels * len(self.pools)

    @property
    def on_points(self) -> bool:
        """Whether the backbone takes points, not voxels."""
        return self.net in POINT_NETS

    def forward(self, clouds: Clouds) -> torch.Tensor:
        """(B, channels): the maximum over the points of each cloud and, for DGCNN, their mean beside it. Raises
        sparse.SparseError, and ValueError where a cloud has fewer points than DGCNN's k."""
        like = next(self.backbone.parameters())
        if clouds.voxels is None:
            features = self.backbone(clouds.point.to(like.dtype))
            return torch.cat([features.amax(1) if pool == "max" else features.mean(1) for pool in self.pools], -1)
        features = self.backbone(clouds.voxels, occupancy(clouds.voxels, like), clouds.size)
        counts = torch.bincount(clouds.voxels.coordinate[:, 0], minlength=clouds.size).tolist()
        return torch.stack([own.amax(0) for own in features.split(counts)])  # rows of a cloud are neighbours

    def forward_cost(self, clouds: Clouds, element: int) -> Forward:
        """What a forward costs in memory, given the bytes of a number: of nets on points also the gradient of the last
        layer, which is the widest. They are not held to what spconv can address."""
        if clouds.voxels is not None:
            return forward_cost(self.backbone.shape, 3, clouds.voxels, element)
        points = clouds.point.shape[0] * clouds.point.shape[1]
        gradient = points * self.backbone.channels * element
        return Forward(3, points, self.backbone.kept(points, element) + gradient, 0, 0)


def make_backbone(net: str, k: int, generator: torch.Generator) -> nn.Module:
    """One of BACKBONES, with k neighbours where it is DGCNN's; generator (a CPU one) draws the weights."""
    match net:
        case "pointnet":
            return PointNet(generator)
        case "dgcnn":
            return DGCNN(k, generator)
        case "dgcnn-seg":
            return SegmentingDGCNN(k, generator)
    return UNet(NETS[net], 3, generator, CHANNELS_IN)


class Trained(NamedTuple):
    """A backbone of a run: its name, k, tensors by their names in `Pooled`, voxels, and names of what it has seen.
    weights None: none is pre-trained."""

    net: str
    k: int
    weights: dict[str, torch.Tensor] | None
    voxel: float
    seen: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over the tensors' names and values, `none` without."""
        if self.weights is None:
            return "none"
        sha = hashlib.sha256()
        for name, value in self.weights.items():
            sha.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def encoder(self, k: int | None = None) -> Pooled:
        """The encoder on the CPU, with another k if there is one: it has no weights."""
        made = Pooled(self.net, k or self.k, torch.Generator().manual_seed(0))
        checkpoint.load_weights(self.weights, made, self.net)
        return made
