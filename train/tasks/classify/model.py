"""An encoder and a head of three layers: classes of shapes.

Shapes. B shapes, K classes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from train.nets.dgcnn import SLOPE
from train.nets.pointnet import pointwise
from train.nets.pooled import Clouds, Pooled
from train.nets.unet import initialise
from train.run.loop import Loss
from train.tasks.classify.batch import ShapeBatch

_HIDDEN = (512, 256)  # of DGCNN's head


class Classifier(nn.Module):
    """Encoder, and DGCNN's head: two hidden layers with norm, LeakyReLU and dropout."""

    def __init__(self, encoder: Pooled, classes: int, dropout: float, smoothing: float, generator: torch.Generator):
        """generator (a CPU one) draws the head, which is the same for equal seeds whatever the encoder."""
        super().__init__()
        self.encoder, self.smoothing = encoder, smoothing
        first, second = _HIDDEN
        middle = nn.Linear(first, second)
        last = nn.Linear(second, classes)
        self.head = nn.Sequential(
            *(pointwise(encoder.channels, first, generator), nn.BatchNorm1d(first)),
            *(nn.LeakyReLU(SLOPE), nn.Dropout(dropout), middle, nn.BatchNorm1d(second)),
            *(nn.LeakyReLU(SLOPE), nn.Dropout(dropout), last),
        )
        for layer in (middle, last):
            initialise(layer, generator)

    def logits(self, clouds: Clouds) -> torch.Tensor:
        """(B, K)."""
        return self.head(self.encoder(clouds))

    def forward(self, batch: ShapeBatch) -> Loss:
        """Mean cross-entropy with smoothed labels."""
        logits = self.logits(batch.clouds).float()
        total = F.cross_entropy(logits, batch.label, label_smoothing=self.smoothing)
        right = (logits.argmax(1) == batch.label).float().mean()
        return Loss(total, {"cross-entropy": total.detach(), "accuracy": right}, {})
