"""A student, the teacher that follows it, and what one predicts of the other.

Shapes. t frames, P pairs of frames, B sequences, S sampled points of all of them, d projected width, K prototypes.

    student    encoder, prototypes    masked frames    theta, learned
    teacher    encoder, prototypes    whole frames     follows theta after every update

The teacher's shares are balanced over all samples of a step (Sinkhorn), so that no prototype can take them all. Each
sample of a masked frame predicts the shares of the same point in the other, whole frame of its pair. Norms of both nets
see one frame index at a time, and the teacher's run in training mode, as STRL's target.
"""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from train.inputs.voxels import Voxels
from train.methods.contrast4d.batch import Batch, places_of
from train.methods.contrast4d.config import Contrast4D
from train.methods.contrast4d.model import into_pairs
from train.methods.distill.config import Distill
from train.methods.ema import decay_at, follow
from train.methods.losses import balanced_assignments, fit, prototype_loss, spread, unit
from train.nets.cost import forward_cost
from train.nets.heads import Encoder
from train.nets.recompute import made_again
from train.nets.unet import DEFAULT_NORM, NETS, NetShape, Norm, initialise
from train.run.loop import Loss
from train.run.memory import Forward


class Branch(nn.Module):
    """Encoder, and prototypes on the unit sphere."""

    def __init__(self, encoder: Encoder, width: int, prototypes: int, generator: torch.Generator):
        super().__init__()
        self.encoder = encoder
        self.prototypes = nn.Linear(width, prototypes, bias=False)
        initialise(self.prototypes, generator)

    def features(self, frames: tuple[Voxels, ...], rows: torch.Tensor, size: int, again: bool) -> torch.Tensor:
        """z of the pairs' samples, rows (P, 2, S) -> (P, 2, S, d), one forward per frame index. again: whether a net's
        tensors are made again in the backward pass."""
        t, z = len(frames), []
        for i, voxels in enumerate(frames):
            own = torch.stack([rows[pair, side] for pair, side in places_of(i, t)])
            given = (self.encoder, voxels, own, size)
            z.append(made_again(self.encoder, *given) if again else self.encoder(*given[1:]))
        return into_pairs(z)

    def scores(self, z: torch.Tensor) -> torch.Tensor:
        """Cosines (..., K) of features (..., d) with the prototypes."""
        return F.linear(unit(z), unit(self.prototypes.weight))


class Distillation(nn.Module):
    """The student, the teacher and their comparison."""

    def __init__(
        self,
        config: Distill,
        contrast: Contrast4D,
        steps: int,
        generator: torch.Generator,
        nets: Mapping[str, NetShape] = NETS,
        norm: Norm = DEFAULT_NORM,
    ):
        """steps: updates of the whole training, over which the teacher's decay rises; generator (a CPU one) draws all
        weights. The teacher starts as a copy."""
        super().__init__()
        self.config, self.contrast, self.steps = config, contrast, steps
        encoder = Encoder(nets[contrast.net_3d], 3, contrast.width, norm, generator)
        self.student = Branch(encoder, contrast.width, config.prototypes, generator)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, batch: Batch) -> Loss:
        """Each masked frame's prediction of what the teacher makes of the other one, whole. Raises sparse.SparseError
        for a bad batch."""
        config = self.config
        again = self.contrast.recompute and torch.is_grad_enabled()
        z = self.student.features(batch.frame, batch.pair_row, batch.size, again)
        with torch.no_grad():
            goal = self.teacher.features(batch.whole, batch.whole_row, batch.size, again=False).flip(1)
            scores = self.teacher.scores(goal)
            target = balanced_assignments(scores.flatten(0, -2), config.teacher_temperature).view_as(scores)
        total = prototype_loss(self.student.scores(z), target, config.student_temperature)
        found = fit(z[:, 0], goal[:, 0], batch.whole_row[0, 1], batch.size)
        spreads = {"student": spread(z), "teacher": spread(goal)}
        return Loss(
            total, {"3d-3d": total.detach()}, spreads, {f"3d-3d/{kind}": value for kind, value in found.items()}
        )

    def after_update(self, step: int) -> None:
        """The teacher follows once the student has been updated. step: updates made."""
        follow(self.teacher, self.student, decay_at(step, self.steps, self.config.teacher_decay))

    def forwards(self, batch: Batch, element: int) -> list[Forward]:
        """What the passes over a batch cost in memory, given the bytes of a number: the teacher's keep nothing."""
        shape, contrast = self.student.encoder.backbone.shape, self.contrast
        costs = [forward_cost(shape, 3, voxels, element) for voxels in batch.frame]
        if contrast.recompute:
            most = max(cost.kept for cost in costs)  # one at a time
            costs = [cost._replace(kept=most if i == 0 else 0, pairs=0) for i, cost in enumerate(costs)]
        for voxels in batch.whole:
            costs.append(forward_cost(shape, 3, voxels, element)._replace(kept=0, pairs=0))
        # Of a row, in four bytes a number: its projection, before and after it is normalised, and of all prototypes the
        # teacher's shares and the student's logarithms (measured).
        kept = batch.pair_row.numel() * (2 * contrast.width + 2 * self.config.prototypes) * 4
        if not contrast.recompute:
            kept += batch.pair_row.numel() * self.student.encoder.backbone.channels * 4
        return [*costs, Forward(0, 0, kept, 0)]
