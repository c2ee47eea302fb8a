"""Semantic segmentation: a backbone gets a linear head.

Shapes. m voxels of a batch, K classes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from train.errors import Refused
from train.inputs.labels import NONE
from train.inputs.voxels import Voxels
from train.nets.cost import forward_cost
from train.nets.heads import occupancy
from train.nets.unet import UNet, initialise
from train.run.loop import Loss
from train.run.memory import Forward
from train.tasks.segment.batch import ScanBatch


class SegmentError(Refused):
    """Weights, a run and scans that do not fit each other; the message says which and what to do."""


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

    def logits(self, voxels: Voxels, size: int, given: torch.Tensor | None = None) -> torch.Tensor:
        """(m, K) of the voxels of `size` scans. given (m, channels): what the net gets at each, by default occupancy.
        Raises sparse.SparseError."""
        weight = self.head.weight
        given = occupancy(voxels, weight) if given is None else given.to(weight.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(voxels, given, size)
        return self.head(features)

    def forwards(self, batch: ScanBatch, element: int) -> list[Forward]:
        """What the pass over a batch costs in memory, given the bytes of a number."""
        cost = forward_cost(self.backbone.shape, 3, batch.voxels, element)
        return [cost._replace(kept=0) if self.frozen else cost]

    def forward(self, batch: ScanBatch) -> Loss:
        """Mean cross-entropy over the voxels that have a label; zero where none has."""
        logits = self.logits(batch.voxels, batch.size, batch.features).float()
        counted = (batch.label != NONE).sum().clamp(min=1)
        total = F.cross_entropy(logits, batch.label, ignore_index=NONE, reduction="sum") / counted
        right = (logits.argmax(dim=1) == batch.label).sum() / counted
        return Loss(total, {"cross-entropy": total.detach(), "accuracy": right}, {})
