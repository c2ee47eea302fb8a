"""Segmentation by blocks: DGCNN and a head of three layers on what a point and its block have.

Shapes. B blocks, N points of each, K classes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from train.inputs.labels import NONE
from train.nets.dgcnn import DGCNN, SLOPE
from train.nets.pointnet import pointwise
from train.run.loop import Loss
from train.run.memory import Forward
from train.tasks.blocks.batch import BlockBatch

_HIDDEN = (512, 256)  # (F)


class BlockSegmenter(nn.Module):
    """Backbone and head: classes of points."""

    def __init__(self, backbone: DGCNN, classes: int, dropout: float, smoothing: float, generator: torch.Generator):
        """generator (a CPU one) draws the head."""
        super().__init__()
        self.backbone, self.classes, self.smoothing = backbone, classes, smoothing
        first, second = _HIDDEN
        self.head = nn.Sequential(
            *(pointwise(backbone.channels + backbone.local, first, generator), nn.BatchNorm1d(first)),
            *(nn.LeakyReLU(SLOPE), pointwise(first, second, generator), nn.BatchNorm1d(second)),
            *(nn.LeakyReLU(SLOPE), nn.Dropout(dropout), pointwise(second, classes, generator)),
        )

    def logits(self, point: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) -> (B, N, K)."""
        return self.head(self.backbone.features(point).flatten(0, 1)).unflatten(0, point.shape[:2])

    def forwards(self, batch: BlockBatch, element: int) -> list[Forward]:
        """What the pass over a batch costs in memory, given the bytes of a number."""
        points = batch.label.numel()
        head = self.backbone.channels + self.backbone.local + 3 * sum(_HIDDEN) + 2 * self.classes
        return [Forward(3, points, self.backbone.kept(points, element) + points * head * element, 0, 0)]

    def forward(self, batch: BlockBatch) -> Loss:
        """Mean cross-entropy with smoothed labels over the points that have one; zero where none has."""
        logits, label = self.logits(batch.point).float().flatten(0, 1), batch.label.flatten()
        counted = (label != NONE).sum().clamp(min=1)
        total = (
            F.cross_entropy(logits, label, ignore_index=NONE, reduction="sum", label_smoothing=self.smoothing) / counted
        )
        right = (logits.argmax(dim=1) == label).sum() / counted
        return Loss(total, {"cross-entropy": total.detach(), "accuracy": right}, {})
