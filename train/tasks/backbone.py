"""The net that a task starts from: drawn, or pre-trained."""

import math
import pathlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from train.config import check, one_of, voxel_sizes
from train.errors import Refused
from train.inputs.labels import SceneError
from train.inputs.scans import GEOMETRY, INPUTS, LabelledScan, point_inputs
from train.inputs.voxels import Voxels, voxel_means, voxelise
from train.nets.cost import level_counts
from train.nets.heads import CHANNELS_IN
from train.nets.pooled import POINT_NETS
from train.nets.unet import NETS, Norm, UNet
from train.nets.weights import Backbone, load_backbone
from train.run.world import to_device
from train.tasks.blocks.config import NETS as BLOCK_NETS

FREEZES = ("nothing", "backbone")
STEM = "stem.conv.weight"  # the only tensor whose shape depends on the inputs


class WeightsError(Refused):
    """Weights that do not fit a run."""


@dataclass(frozen=True)
class BackboneUse:
    """The net that is fine-tuned."""

    net: str = "34"  # dgcnn-seg and dgcnn: of blocks
    voxel_m: float = 0.02
    norm_momentum: float = 0.02  # (F)
    freeze: str = "nothing"  # or "backbone": only the head learns
    inputs: tuple[str, ...] = GEOMETRY  # of colour, normal and occupancy: what it is given at a voxel

    def __post_init__(self):
        rules = [
            one_of(self, "net", (*NETS, *BLOCK_NETS)),
            one_of(self, "freeze", FREEZES),
            *voxel_sizes(self, "voxel_m"),
            ("inputs", 0 < len(set(self.inputs)) == len(self.inputs), "one or more, each once"),
            ("inputs", set(self.inputs) <= set(INPUTS), "of " + ", ".join(INPUTS)),
            ("norm_momentum", 0 < self.norm_momentum <= 1, "above 0, and 1 at most"),
        ]
        check(self, rules)


def read_weights(path: pathlib.Path | None, use: BackboneUse) -> Backbone | None:
    """A pre-trained backbone; warns where it was trained on other voxels or inputs. Raises CheckpointError, and
    WeightsError where it is on points and the run is on voxels, or the reverse."""
    if path is None:
        return None
    weights = load_backbone(path)
    if weights.on_points != (use.net in POINT_NETS):
        kinds = ("voxels: give it to the tasks segment, instances or detect", "points: give it to the task blocks")
        raise WeightsError(f"{path}: of {weights.name}, a net on {kinds[weights.on_points]}, or to classify")
    if weights.on_points:
        return weights
    if weights.voxel_m != use.voxel_m:
        there, here = f"{100 * weights.voxel_m:g} cm", f"{100 * use.voxel_m:g} cm"
        warnings.warn(f"{path}: trained on voxels of {there}, used on {here}: it may transfer badly", stacklevel=3)
    if not same_inputs(weights, use):
        there = ", ".join(weights.inputs or ("another number of channels",))
        text = f"its first layer takes {there}, this run gives {', '.join(use.inputs)}"
        warnings.warn(f"{path}: {text}: that layer starts from scratch, all others are loaded", stacklevel=3)
    return weights


def make_backbone(use: BackboneUse, weights: Backbone | None, generator: torch.Generator) -> UNet:
    """A net on the CPU, drawn from the generator, with pre-trained weights where there are any.

    Raises WeightsError where the weights are of another net.
    """
    channels = CHANNELS_IN * len(use.inputs)
    backbone = UNet(NETS[use.net], 3, generator, channels, Norm(momentum=use.norm_momentum))
    if weights is not None:
        if weights.net.shape != NETS[use.net]:
            name = next((name for name, shape in NETS.items() if shape == weights.net.shape), "another")
            raise WeightsError(f"--weights are of the net {name}, the run is of {use.net}: --set net={name}")
        given = weights.net.state_dict()
        if not same_inputs(weights, use):
            given[STEM] = backbone.state_dict()[STEM]
        backbone.load_state_dict(given)
    return backbone


def same_inputs(weights: Backbone, use: BackboneUse) -> bool:
    """Whether the first layer of pre-trained weights takes what a run gives its net; weights of others do not say, and
    are taken at their number of channels."""
    if weights.inputs is None:
        return weights.net.state_dict()[STEM].shape[-1] == CHANNELS_IN * len(use.inputs)
    return weights.inputs == use.inputs


def check_extents(scans: Sequence[LabelledScan], voxel_m: float, levels: int) -> None:
    """Raises SceneError for a scan that may lie in one voxel of a net's coarsest level: a norm that sees it alone
    has nothing to take a mean of."""
    for scan in scans:
        if _across(scan) < math.sqrt(3) * voxel_m * 2**levels / 0.9:  # it may be scaled, and lie along a diagonal
            raise SceneError(_too_small(scan, voxel_m, levels))


def _across(scan: LabelledScan) -> float:
    return float(np.linalg.norm(np.ptp(scan.point, axis=0)))


def _too_small(scan: LabelledScan, voxel_m: float, levels: int) -> str:
    return (
        f"scan {scan.name}: {_across(scan):.2g} m across, and the coarsest voxels have {voxel_m * 2**levels:g} m: "
        "alone in a forward there is nothing to learn from; take it out, set a smaller voxel_m, or put more scans into "
        "one forward (batch, accumulate)"
    )


def seen_voxels(
    scan: LabelledScan, voxel_m: float, inputs: Sequence[str], view: np.ndarray | None = None
) -> tuple[Voxels, torch.Tensor, np.ndarray]:
    """Voxels of a scan, what the net is given at each (m, 3 x inputs), and the row (n,) of each point's voxel.

    view: a rotation or reflection (3, 3) that the scan is seen under, by default as it lies. Raises BatchError.
    """
    point = scan.point if view is None else (scan.point.astype(np.float64) @ view.T).astype(np.float32)
    voxels, row = voxelise(point, voxel_m)
    count = len(voxels.coordinate)
    if tuple(inputs) == GEOMETRY:
        return voxels, torch.ones(count, CHANNELS_IN), row
    values = point_inputs(scan, inputs, np.eye(3) if view is None else view)
    return voxels, torch.from_numpy(voxel_means(row, values, count)), row


def calibrate(
    backbone: UNet,
    scans: Sequence[LabelledScan],
    voxel_m: float,
    device: torch.device,
    inputs: Sequence[str] = GEOMETRY,
    most: int = 16,
):
    """Sets the statistics of the norms to their mean over up to `most` scans as they lie. A random backbone has none of
    its own, and a frozen one is compared with it: both get them so. Leaves it in evaluation mode. Raises SceneError."""
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm1d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all forwards
    backbone.to(device).train()
    for scan in scans[:: -(-len(scans) // most)]:
        voxels, given, _ = seen_voxels(scan, voxel_m, inputs)
        if level_counts(voxels, backbone.shape.levels)[-1] < 2:
            raise SceneError(_too_small(scan, voxel_m, backbone.shape.levels))
        voxels, given = to_device((voxels, given), device)
        with torch.no_grad():
            backbone(voxels, given.to(next(backbone.parameters()).dtype), 1)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    backbone.eval()
