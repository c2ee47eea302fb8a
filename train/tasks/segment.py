"""Semantic segmentation: labelled scans become batches of labelled voxels, a backbone gets a linear head.

Shapes. N points of a scan, m voxels of a batch, K classes. Labels are classes from 0, or NONE.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from train.batch import Allocate, BatchError, Grid, Rows, Voxels, keyed_generator, new_tensor, to_device
from train.features import Backbone, voxelise
from train.loader import Job, Order, Share, Stream
from train.metrics import NONE
from train.nets.heads import CHANNELS_IN, occupancy
from train.nets.unet import NETS, Norm, UNet, initialise
from train.tasks.augment import Augmentation, augment
from train.tasks.presets import SegmentConfig
from train.tasks.scenes import LabelledScan
from train.world import World


class SegmentError(ValueError):
    """Weights, a run and scans that do not fit each other; the message says which and what to do."""


# Batches -------------------------------------------------------------------------------------------------------------


class ScanBatch(NamedTuple):
    """Voxels of several scans. label (m,) int64: class or NONE."""

    voxels: Voxels
    label: torch.Tensor
    size: int


def voxel_labels(row: np.ndarray, label: np.ndarray, voxels: int, classes: int, rule: str) -> np.ndarray:
    """Labels (voxels,) int64 from the voxel `row` (N,) and `label` (N,) of each point.

    majority: the class that most points have, the lowest of equals, points without a class not counted. first: that of
    the first point. unanimous: NONE unless all points agree, as PointContrast and CSC have it.
    """
    if rule == "first":
        found = np.full(voxels, NONE, np.int64)
        found[row[::-1]] = label[::-1]  # the last of equal indices stays
        return found
    count = np.bincount(row * (classes + 1) + np.where(label == NONE, classes, label), minlength=voxels * (classes + 1))
    count = count.reshape(voxels, classes + 1)
    found = count[:, :classes].argmax(axis=1)
    most = np.take_along_axis(count, found[:, None], axis=1)[:, 0]
    enough = most == count.sum(axis=1) if rule == "unanimous" else most > 0
    return np.where(enough & (most > 0), found, NONE)


class Recipe(NamedTuple):
    """How scans become a batch."""

    voxel_m: float
    voxel_label: str
    classes: int
    augmentation: Augmentation


def make_batch(
    scans: Sequence[LabelledScan], generators: Sequence, recipe: Recipe, rows: Rows, grid: Grid
) -> ScanBatch:
    """One batch in the memory of `rows`, each scan varied by its own generator. Raises BatchError."""
    rows.clear()
    labels = []
    for number, (scan, rng) in enumerate(zip(scans, generators, strict=True)):
        try:
            labels.append(_add_scan(scan, number, rng, recipe, rows, grid))
        except BatchError as error:
            raise BatchError(f"scan {scan.name}: {error}") from None
    return ScanBatch(rows.voxels(), torch.from_numpy(np.concatenate(labels)), len(scans))


def _add_scan(scan: LabelledScan, number: int, rng, recipe: Recipe, rows: Rows, grid: Grid) -> np.ndarray:
    """Voxels of one scan go to `rows`; returns their labels."""
    made = augment(scan.point, recipe.augmentation, rng)
    matrix = np.ascontiguousarray(made.view[:3] / recipe.voxel_m)
    grid.clear(len(made.point), 1)
    grid.mark(made.point, made.plane[None], 0, matrix)
    first = rows.used
    grid.write(number, rows)
    row = np.empty(len(made.point), np.int64)
    grid.rows_of(made.point, made.plane, 0, matrix, np.arange(len(row)), row)
    kept = row >= 0
    return voxel_labels(row[kept] - first, scan.label[kept], rows.used - first, recipe.classes, recipe.voxel_label)


class ScanLoader(Stream):
    """Batches of labelled scans, which lie in memory: each once an epoch, in an order keyed by (seed, epoch)."""

    def __init__(self, scans: Sequence[LabelledScan], recipe: Recipe, share: Share, seed: int, workers: int):
        super().__init__(Order(np.arange(len(scans)), seed, max(len(scans), 1)), share, seed, workers)
        self.scans, self.recipe = scans, recipe

    def memory(self, size: int, allocate: Allocate = new_tensor) -> tuple[Rows, Grid]:
        """A batch's rows and a worker's grid."""
        return Rows(4, allocate), Grid()

    def make(self, job: Job, memory: tuple[Rows, Grid]) -> ScanBatch:
        """The scans of a job as a batch."""
        scans = [self.scans[number] for number in job.sequence]
        return make_batch(scans, [keyed_generator(*key) for key in job.key], self.recipe, *memory)


# Model ---------------------------------------------------------------------------------------------------------------


class Loss(NamedTuple):
    """What the loop reads: total to minimise, terms for the log."""

    total: torch.Tensor
    terms: dict[str, torch.Tensor]
    spread: dict[str, torch.Tensor]


class Segmenter(nn.Module):
    """Backbone and linear head: classes of voxels."""

    def __init__(self, backbone: UNet, classes: int, generator: torch.Generator, frozen: bool = False):
        """generator (a CPU one) draws the head. frozen: the backbone is a fixed function, its norms included."""
        super().__init__()
        self.backbone, self.frozen = backbone, frozen
        self.head = nn.Linear(backbone.channels, classes)
        initialise(self.head, generator)
        if frozen:
            backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Segmenter":
        """A frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def logits(self, voxels: Voxels, size: int) -> torch.Tensor:
        """(m, K) of the voxels of `size` scans. Raises sparse.SparseError."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(voxels, occupancy(voxels, self.head.weight), size)
        return self.head(features)

    def forward(self, batch: ScanBatch) -> Loss:
        """Mean cross-entropy over the voxels that have a label; zero where none has."""
        logits = self.logits(batch.voxels, batch.size).float()
        counted = (batch.label != NONE).sum().clamp(min=1)
        total = F.cross_entropy(logits, batch.label, ignore_index=NONE, reduction="sum") / counted
        right = (logits.argmax(dim=1) == batch.label).sum() / counted
        return Loss(total, {"cross-entropy": total.detach(), "accuracy": right}, {})


def make_model(config: SegmentConfig, classes: int, weights: Backbone | None) -> Segmenter:
    """A net on the CPU, drawn from the seed, with the backbone's weights where there are any.

    Both arms of a comparison draw the same head. Raises SegmentError where the weights are of another net.
    """
    generator = torch.Generator().manual_seed(config.seed)
    backbone = UNet(NETS[config.net], 3, generator, CHANNELS_IN, Norm(momentum=config.norm_momentum))
    if weights is not None:
        if weights.net.shape != NETS[config.net]:
            name = next((name for name, shape in NETS.items() if shape == weights.net.shape), "another")
            raise SegmentError(f"--weights are of the net {name}, the run is of {config.net}: --set net={name}")
        backbone.load_state_dict(weights.net.state_dict())
    return Segmenter(backbone, classes, generator, config.freeze == "backbone")


def make_loader(config: SegmentConfig, scans: Sequence[LabelledScan], classes: int, world: World) -> ScanLoader:
    """Batches of one process."""
    recipe = Recipe(config.voxel_m, config.voxel_label, classes, config.augmentation())
    share = Share(config.batch, world.rank, world.size, config.accumulate)
    return ScanLoader(scans, recipe, share, config.seed, config.workers)


def make_optimiser(config: SegmentConfig, model: nn.Module) -> torch.optim.SGD:
    """SGD over what learns."""
    rates = {"lr": config.lr, "momentum": config.momentum, "dampening": config.dampening}
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(learned, **rates, weight_decay=config.weight_decay)


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
