"""PointGroup: a backbone gets a head for classes and one that points to the middle of a voxel's instance.

Shapes. m voxels of a batch, K classes, P proposals. All heads see voxels, whose points share what is said of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from train.inputs.labels import NONE
from train.inputs.voxels import Voxels
from train.nets.unet import NetShape, Norm, UNet, initialise
from train.run.loop import Loss
from train.tasks.instances.batch import InstanceBatch
from train.tasks.instances.group import Grouping, Proposals, propose, shared_points
from train.tasks.scene import Scene

_CELLS, _FINEST = 14, 50  # of ScoreNet's grids: cells along an axis at most, and cells a metre at most


class Grouper(Scene):
    """Backbone, classes of voxels and offsets to their instances; with a ScoreNet if there are channels for one."""

    def __init__(
        self,
        backbone: UNet,
        how: Grouping,
        voxel_m: float,
        norm: Norm,
        generator: torch.Generator,
        frozen: bool = False,
        score_channels: int = 0,
        score_after: int = 0,
    ):
        """generator (a CPU one) draws the heads. how.least has an entry a class."""
        super().__init__(backbone, frozen)
        channels = backbone.channels
        self.how, self.voxel_m, self.score_after = how, voxel_m, score_after
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("least", torch.from_numpy(how.least.astype(np.float32)))
        self.head = nn.Linear(channels, len(how.least))
        self.offset = nn.Sequential(
            nn.Linear(channels, channels), norm.layer(channels), nn.ReLU(), nn.Linear(channels, 3)
        )
        for part in (self.head, self.offset):
            initialise(part, generator)
        self.score: ScoreNet | None = None
        if score_channels:
            self.score = ScoreNet(channels, score_channels, norm, generator)

    def grouping(self) -> Grouping:
        """How voxels are grouped, with the sizes of classes that training stored."""
        return self.how._replace(least=self.least.cpu().numpy())

    def after_update(self, step: int) -> None:
        """Counts updates: ScoreNet waits for proposals that mean something."""
        self.updates.fill_(step)

    def forward(self, batch: InstanceBatch) -> Loss:
        """The sum of PointGroup's losses, each a mean: cross-entropy of classes; over voxels of objects, L1 distance of
        offsets and minus the cosine to their direction; and cross-entropy of scores once ScoreNet learns."""
        features = self.features(batch.voxels, batch.size)
        logits, offset = self.head(features).float(), self.offset(features).float()
        counted = (batch.label != NONE).sum().clamp(min=1)
        semantic = F.cross_entropy(logits, batch.label, ignore_index=NONE, reduction="sum") / counted
        inside = (batch.number >= 0).float()
        objects = inside.sum().clamp(min=1)
        distance = ((offset - batch.offset).abs().sum(dim=1) * inside).sum() / objects
        cosine = (F.cosine_similarity(offset, batch.offset, dim=1, eps=1e-6) * inside).sum() / objects
        terms = {"cross-entropy": semantic, "offset": distance, "direction": -cosine}
        if self.score is not None and int(self.updates) >= self.score_after:
            terms["score"] = self._score_loss(batch, features, logits, offset)
        total = torch.stack(list(terms.values())).sum() + self._unused()
        right = (logits.argmax(dim=1) == batch.label).sum() / counted
        return Loss(total, {name: value.detach() for name, value in terms.items()} | {"accuracy": right}, {})

    def _unused(self) -> torch.Tensor | float:
        """Nothing, of all that ScoreNet learns: processes that average gradients wait for every parameter's."""
        return 0.0 if self.score is None else sum(value.sum() for value in self.score.parameters()) * 0

    def _score_loss(self, batch, features, logits, offset) -> torch.Tensor:
        """Proposals' scores against their greatest IoU with an instance: 0 below 0.25, 1 above 0.75, linear between."""
        cloud = batch.voxels.coordinate[:, 0].cpu().numpy()
        points, number = batch.points.cpu().numpy(), batch.number.cpu().numpy()
        centre, moved, probability = self._on_host(batch.voxels, logits, offset)
        rows, targets = [], []
        for scan in range(batch.size):
            mine = np.flatnonzero(cloud == scan)
            found = propose(centre[mine], moved[mine], probability[mine], points[mine], self.grouping())
            rows += [mine[part] for part in found.rows]
            ids = np.unique(number[mine][number[mine] >= 0])
            true = [np.flatnonzero(number[mine] == g) for g in ids]
            common = shared_points(found.rows, true, points[mine])
            size = np.array([points[mine][part].sum() for part in true])
            overlap = common / np.maximum(found.points[:, None] + size[None] - common, 1e-9)
            targets.append(overlap.max(axis=1, initial=0.0))
        if not rows:
            return features.sum() * 0
        target = torch.from_numpy(np.clip(2 * np.concatenate(targets) - 0.5, 0, 1)).to(logits)
        return F.binary_cross_entropy_with_logits(self.score(features, centre, rows), target)

    def _on_host(self, voxels: Voxels, logits, offset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Centres (m, 3) metres of voxels in the batch's frame, offsets and probabilities, as arrays."""
        centre = (voxels.coordinate[:, 1:].cpu().numpy() + 0.5) * self.voxel_m
        return centre, offset.detach().cpu().numpy(), logits.detach().softmax(dim=1).cpu().numpy()

    def proposals(self, voxels: Voxels, points: np.ndarray) -> Proposals:
        """Proposals of one scan, before any is left out. points (m,): of the scan in each voxel.

        Raises ValueError where the output is not finite."""
        features = self.features(voxels, 1)
        logits, offset = self.head(features).float(), self.offset(features).float()
        if not (torch.isfinite(logits).all() and torch.isfinite(offset).all()):
            raise ValueError("the net's output is not finite: its training went wrong, use other weights")
        centre, moved, probability = self._on_host(voxels, logits, offset)
        found = propose(centre, moved, probability, points, self.grouping())
        if self.score is not None and found.rows:
            score = self.score(features, centre, found.rows).sigmoid()
            found = found._replace(score=score.double().cpu().numpy())
        return found


class ScoreNet(nn.Module):
    """A small U-Net on the voxels of each proposal alone, scaled to a grid of its own: how good the proposal is."""

    def __init__(self, channels_in: int, channels: int, norm: Norm, generator: torch.Generator):
        super().__init__()
        shape = NetShape((1, 1), (2 * channels, channels), channels)
        self.net = UNet(shape, 3, generator, channels_in, norm)
        self.last = nn.Linear(channels, 1)
        initialise(self.last, generator)

    def forward(self, features: torch.Tensor, centre: np.ndarray, rows: Sequence[np.ndarray]) -> torch.Tensor:
        """Logits (P,) of proposals, given features (m, channels_in) and centres (m, 3) metres of all voxels."""
        cells = []
        for number, row in enumerate(rows):
            at = centre[row] - centre[row].min(axis=0)
            scale = min((_CELLS - 0.01) / max(float(at.max()), 1e-6), _FINEST)
            cells.append(np.column_stack([np.full(len(row), number), np.floor(at * scale).astype(np.int64)]))
        cell, place = np.unique(np.concatenate(cells), axis=0, return_inverse=True)
        index = torch.from_numpy(np.concatenate(rows)).to(features.device)
        place = torch.from_numpy(place.reshape(-1)).to(features.device)
        times = torch.bincount(place, minlength=len(cell)).clamp(min=1)[:, None]
        seen = features.new_zeros(len(cell), features.shape[1]).index_add(0, place, F.embedding(index, features))
        coordinate = torch.from_numpy(cell.astype(np.int32)).to(features.device)
        made = self.net(Voxels(coordinate, (_CELLS,) * 3), seen / times, len(rows))
        owner = coordinate[:, :1].long().expand_as(made)
        most = made.new_full((len(rows), made.shape[1]), -torch.inf).scatter_reduce(0, owner, made, "amax")
        return self.last(most)[:, 0].float()
