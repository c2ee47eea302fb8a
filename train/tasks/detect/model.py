"""VoteNet on a sparse U-Net: seeds vote for the middles of objects, votes are gathered to proposals of boxes.

Shapes. m voxels of a batch of n scans, s seeds and p proposals of each, K classes of objects, B boxes. A proposal's row
is objectness (2), centre (3), then of each class of sizes its score and a residual (K + 3K), classes (K) and, where
boxes have headings, of each of H directions its score and a residual (H + H).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from train.inputs.voxels import Voxels
from train.nets.pointnet2 import PointNet2, pointwise
from train.nets.points import farthest_points, points_in_balls
from train.nets.unet import Norm, UNet, initialise
from train.run.loop import Loss
from train.run.memory import Forward
from train.tasks.detect.batch import DetectBatch
from train.tasks.detect.config import Detect
from train.tasks.detect.losses import losses
from train.tasks.scene import Scene

_LEAST_MOMENTUM = 0.001


class Proposed(NamedTuple):
    """seed (n, s, 3) metres, seed_row (n, s) rows of voxels, vote (n, s, 3); of each proposal: middle (n, p, 3) of the
    votes that it is made of, centre (n, p, 3), objectness (n, p, 2), size_score (n, p, K), residual (n, p, K, 3) as a
    share of the mean size, kind (n, p, K); with headings, facing (n, p, H) and swerve (n, p, H), the score of each
    direction and the residual to it as a share of half the angle between two, else both (n, p, 0)."""

    seed: torch.Tensor
    seed_row: torch.Tensor
    vote: torch.Tensor
    middle: torch.Tensor
    centre: torch.Tensor
    objectness: torch.Tensor
    size_score: torch.Tensor
    residual: torch.Tensor
    kind: torch.Tensor
    facing: torch.Tensor
    swerve: torch.Tensor


class VoteNet(Scene):
    """Backbone, votes and proposals."""

    def __init__(
        self,
        backbone: UNet | PointNet2,
        classes: int,
        own: Detect,
        norm: Norm,
        generator: torch.Generator,
        frozen: bool = False,
    ):
        """classes: of objects; generator (a CPU one) draws the heads. `mean_size` (K, 3) is 1 m until it is set."""
        super().__init__(backbone, frozen)
        width, half = own.width, max(own.width // 2, 1)
        self.own, self.classes, self.norm_momentum = own, classes, norm.momentum
        self.headings = own.headings if own.headings > 1 else 0
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean_size", torch.ones(classes, 3))
        self.lift = nn.Linear(backbone.channels, width)
        self.voter = nn.Sequential(*pointwise((width, width, width), norm), nn.Linear(width, 3 + width))
        self.gather = pointwise((width + 3, half, half, half), norm)
        self.propose = nn.Sequential(
            *pointwise((half, half, half), norm), nn.Linear(half, 5 + 5 * classes + 2 * self.headings)
        )
        for part in (self.lift, self.voter, self.gather, self.propose):
            initialise(part, generator)

    def after_update(self, step: int) -> None:
        """Counts updates: the momentum of norms falls with them."""
        self.updates.fill_(step)

    def set_momentum(self) -> None:
        """Momentum of all norms that learn, by the number of updates made."""
        if not self.own.momentum_steps:
            return
        halvings = int(self.updates) // self.own.momentum_steps
        momentum = max(self.own.momentum_start * 0.5**halvings, _LEAST_MOMENTUM)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.momentum = momentum

    def proposals(self, voxels: Voxels, position: torch.Tensor, size: int) -> Proposed:
        """What is proposed in each of `size` scans. position (m, 3) metres of the voxels."""
        row, feature = self._seeds(voxels, position, size)
        seed, feature = position[row], self.lift(feature)
        moved = self.voter(feature.flatten(0, 1)).unflatten(0, row.shape)
        vote = seed + moved[..., :3]
        feature = F.normalize(feature + moved[..., 3:], dim=-1)
        return self._gathered(seed, row, vote, feature)

    def _seeds(self, voxels: Voxels, position: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows (n, s) of the voxels that vote, and their features (n, s, channels)."""
        mine = [torch.nonzero(voxels.coordinate[:, 0] == scan)[:, 0] for scan in range(size)]
        if isinstance(self.backbone, PointNet2):
            chosen, features = self.backbone([position[rows] for rows in mine])
            row = torch.stack([rows[index] for rows, index in zip(mine, chosen, strict=True)])
            return row, torch.stack(features)
        features = self.features(voxels, size)
        row = torch.stack([rows[farthest_points(position[rows], self.own.seeds)] for rows in mine])
        return row, features[row]

    def forwards(self, batch: DetectBatch, element: int) -> list[Forward]:
        """What the pass over a batch costs in memory, given the bytes of a number."""
        if isinstance(self.backbone, PointNet2):
            kept = self.backbone.kept_floats(batch.size) * element
            return [Forward(3, len(batch.position), kept, kept // 12, 0)]
        return super().forwards(batch, element)

    def _gathered(self, seed, row, vote, feature) -> Proposed:
        """Votes (n, s, 3) with features (n, s, width) to proposals."""
        own, size = self.own, len(vote)
        middle, grouped = [], []
        voted = vote
        vote = vote if own.moved_by_boxes else vote.detach()
        for scan in range(size):
            spread = vote[scan] if own.centres == "vote" else seed[scan]
            chosen = farthest_points(spread, own.proposals)
            middle.append(vote[scan][chosen])
            near = points_in_balls(middle[-1], vote[scan], own.ball_m, own.ball_votes)
            offset = (vote[scan][near] - middle[-1][:, None]) / own.ball_m
            grouped.append(torch.cat([offset, feature[scan][near]], dim=-1))
        middle, grouped = torch.stack(middle), torch.stack(grouped)
        made = self.gather(grouped.flatten(0, 2)).unflatten(0, grouped.shape[:3]).amax(dim=2)
        out = self.propose(made.flatten(0, 1)).unflatten(0, made.shape[:2]).float()
        k, h = self.classes, self.headings
        sureness, moved, size_score, residual, kind, facing, swerve = out.split([2, 3, k, 3 * k, k, h, h], dim=-1)
        middle, residual = middle.float(), residual.unflatten(-1, (k, 3))
        return Proposed(
            seed, row, voted.float(), middle, middle + moved, sureness, size_score, residual, kind, facing, swerve
        )

    def sizes(self, found: Proposed, kind: torch.Tensor) -> torch.Tensor:
        """Sizes (n, p, 3) metres of proposals, as of the classes of sizes (n, p)."""
        index = kind[..., None, None].expand(*kind.shape, 1, 3)
        residual = found.residual.gather(2, index)[:, :, 0]
        return (self.mean_size[kind] * (1 + residual)).clamp(min=1e-3)

    def turns(self, found: Proposed) -> torch.Tensor:
        """Headings (n, p) of proposals, radians: the direction of the highest score and its residual; 0 without."""
        if not self.headings:
            return found.centre.new_zeros(found.centre.shape[:-1])
        direction = found.facing.argmax(dim=-1, keepdim=True)
        swerve = found.swerve.gather(-1, direction)
        return ((2 * direction + swerve) * math.pi / self.headings)[..., 0]

    def forward(self, batch: DetectBatch) -> Loss:
        """The losses of a batch, `train.tasks.detect.losses`."""
        if self.training:
            self.set_momentum()
        return losses(self, self.proposals(batch.voxels, batch.position, batch.size), batch)
