"""The net that a task starts from: drawn, or pre-trained."""

import pathlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from train.config import check, one_of, voxel_sizes
from train.errors import Refused
from train.inputs.scans import LabelledScan
from train.inputs.voxels import voxelise
from train.nets.heads import CHANNELS_IN, occupancy
from train.nets.unet import NETS, Norm, UNet
from train.nets.weights import Backbone, load_backbone
from train.run.world import to_device

FREEZES = ("nothing", "backbone")


class WeightsError(Refused):
    """Weights that do not fit a run."""


@dataclass(frozen=True)
class BackboneUse:
    """The net that is fine-tuned."""

    net: str = "34"
    voxel_m: float = 0.02
    norm_momentum: float = 0.02  # (F)
    freeze: str = "nothing"  # or "backbone": only the head learns

    def __post_init__(self):
        rules = [
            one_of(self, "net", NETS),
            one_of(self, "freeze", FREEZES),
            *voxel_sizes(self, "voxel_m"),
            ("norm_momentum", 0 < self.norm_momentum <= 1, "above 0, and 1 at most"),
        ]
        check(self, rules)


def read_weights(path: pathlib.Path | None, voxel_m: float) -> Backbone | None:
    """A pre-trained backbone; warns where it was trained on other voxels. Raises CheckpointError."""
    if path is None:
        return None
    weights = load_backbone(path)
    if weights.voxel_m != voxel_m:
        there, here = f"{100 * weights.voxel_m:g} cm", f"{100 * voxel_m:g} cm"
        warnings.warn(f"{path}: trained on voxels of {there}, used on {here}: it may transfer badly", stacklevel=3)
    return weights


def make_backbone(use: BackboneUse, weights: Backbone | None, generator: torch.Generator) -> UNet:
    """A net on the CPU, drawn from the generator, with pre-trained weights where there are any.

    Raises WeightsError where the weights are of another net.
    """
    backbone = UNet(NETS[use.net], 3, generator, CHANNELS_IN, Norm(momentum=use.norm_momentum))
    if weights is not None:
        if weights.net.shape != NETS[use.net]:
            name = next((name for name, shape in NETS.items() if shape == weights.net.shape), "another")
            raise WeightsError(f"--weights are of the net {name}, the run is of {use.net}: --set net={name}")
        backbone.load_state_dict(weights.net.state_dict())
    return backbone


def calibrate(backbone: UNet, scans: Sequence[LabelledScan], voxel_m: float, device: torch.device, most: int = 16):
    """Sets the statistics of the norms to their mean over up to `most` scans as they lie. A random backbone has none of
    its own, and a frozen one is compared with it: both get them so. Leaves it in evaluation mode."""
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm1d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all forwards
    backbone.to(device).train()
    for scan in scans[:: -(-len(scans) // most)]:
        voxels = to_device(voxelise(scan.point, voxel_m)[0], device)
        with torch.no_grad():
            backbone(voxels, occupancy(voxels, next(backbone.parameters())), 1)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    backbone.eval()
