"""Encoders, predictors and the comparisons of the methods of `config.METHODS`.

Shapes. t frames, P pairs of frames, B sequences, S sampled points of all of them, d projected width.

Terms are sums over pairs or frames, divided by the number of pairs (A), so the lowest value of a cosine term is -1 for
3d-3d and 4d-4d and -t / P for 3d-4d. Of masked frames only those pairs count that lack different patches.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from gen4d.sequence import frame_pairs
from train.methods.contrast4d.batch import Batch, places_of
from train.methods.contrast4d.config import METHODS, Contrast4D
from train.methods.losses import (
    FIT,
    fit,
    frame_loss,
    hardest_contrastive,
    match_average,
    pair_loss,
    point_info_nce,
    regions_around,
    same_voxel,
    scene_contexts,
    spread,
    unit,
    vicreg,
    vote_loss,
)
from train.nets.cost import forward_cost
from train.nets.heads import Encoder, Predictor, gather
from train.nets.recompute import made_again
from train.nets.unet import DEFAULT_NORM, NETS, NetShape, Norm, initialise
from train.run.loop import Loss
from train.run.memory import Forward


class Samples(NamedTuple):
    """Features of the sampled points: pair (P, 2, S, d) and, where the method has 4D, point (t, S, d)."""

    pair: torch.Tensor
    point: torch.Tensor | None


class Frames(NamedTuple):
    """What the 3D encoder makes of all frames: z, p where there are predictors, and votes (t, S, 4) where there are
    any."""

    z: Samples
    p: Samples | None
    vote: torch.Tensor | None


class Contrast(nn.Module):
    """Encoders, predictors and the comparison of one method."""

    def __init__(
        self,
        method: str,
        config: Contrast4D,
        generator: torch.Generator,
        nets: Mapping[str, NetShape] = NETS,
        norm: Norm = DEFAULT_NORM,
    ):
        """generator (a CPU one) draws all weights, so that equal seeds give equal models. nets: shapes of the nets that
        `config` names."""
        super().__init__()
        self.config, self.method = config, METHODS[method]
        self._margins = (config.positive_margin, config.negative_margin)
        head = (config.width, config.hidden, norm, generator)
        centred = config.centred and self.method.cosine
        self.encoder3d = Encoder(nets[config.net_3d], 3, config.width, norm, generator, centred)
        if self.method.cosine:
            self.predictor3d = Predictor(*head)
        if self.method.has_4d:
            self.encoder4d = Encoder(nets[config.net_4d], 4, config.width, norm, generator, centred)
        if self.method.has_4d and self.method.cosine:
            self.predictor4d = Predictor(*head)
            if config.predictors == "own":
                self.cross3d, self.cross4d = Predictor(*head), Predictor(*head)
        if self.method.votes:  # drawn last: all else is as without
            self.voter = nn.Linear(self.encoder3d.backbone.channels, 4)
            initialise(self.voter, generator)

    def forward(self, batch: Batch) -> Loss:
        """One forward per frame index and one of the 4D sequences. Raises sparse.SparseError for a bad batch."""
        terms, samples, fits = self._cosine(batch) if self.method.cosine else self._contrastive(batch)
        pairs = len(self._pairs(batch))
        terms = {name: value / pairs for name, value in terms.items()}
        total = sum(weight * terms[name] for name, weight in self.config.weights(self.method).items())
        spreads = {name: spread(z) for name, z in samples.items()}
        flat = {f"{name}/{kind}": value for name, figures in fits.items() for kind, value in figures.items()}
        return Loss(total, {name: value.detach() for name, value in terms.items()}, spreads, flat)

    def with_rulebooks(self, batch: Batch) -> Batch:
        """A batch on its device with the rulebooks of its forwards; without, where memory is to be spared.

        Raises sparse.SparseError for a bad batch."""
        if self.config.recompute:
            return batch
        frames = tuple(self.encoder3d.backbone.with_rulebooks(voxels, batch.size) for voxels in batch.frame)
        sequence = batch.sequence and self.encoder4d.backbone.with_rulebooks(batch.sequence, batch.size)
        return batch._replace(frame=frames, sequence=sequence)

    def forwards(self, batch: Batch, element: int) -> list[Forward]:
        """What the passes over a batch cost in memory, given the bytes of a number."""
        costs = [forward_cost(self.encoder3d.backbone.shape, 3, voxels, element) for voxels in batch.frame]
        if batch.sequence:
            costs.append(forward_cost(self.encoder4d.backbone.shape, 4, batch.sequence, element))
        if self.config.recompute:
            most = max(cost.kept for cost in costs)  # one at a time; which of them does not matter to the sum
            costs = [cost._replace(kept=most if i == 0 else 0, pairs=0) for i, cost in enumerate(costs)]
        return [*costs, Forward(0, 0, self._rows_kept(batch), 0)]

    def _rows_kept(self, batch: Batch) -> int:
        """Bytes that heads and losses keep of the sampled rows, which are widened to four bytes a number: of a row its
        projection, normalised, and where there is a predictor its hidden layer twice (measured)."""
        config, samples, pairs = self.config, batch.pair_row.shape[-1], len(self._pairs(batch))
        rows = 2 * pairs * samples
        if self.method.has_4d:
            rows += 2 * batch.point_row.numel() + (batch.pair_row_4d.numel() if self.method.cosine else 0)
        widths = 2 if self.method.loss == "vicreg" else 3  # whose features keep their lengths
        kept = rows * (widths * config.width + (2 * config.hidden if self.method.cosine else 0)) * 4
        if not config.recompute:
            rows += batch.point_row.numel() if self.method.votes else 0
            kept += rows * self.encoder3d.backbone.channels * 4
        similarities = pairs * samples * (samples // batch.size)
        return kept + similarities * {"infonce": 9, "csc": 24}.get(self.method.loss, 0)

    def _pairs(self, batch: Batch) -> list[int]:
        """Numbers of the pairs of frames that are compared."""
        pairs = enumerate(frame_pairs(len(batch.frame)))
        return [p for p, (i, j) in pairs if not self.method.masked or (j - i) % 2]

    def _cosine(self, batch: Batch) -> tuple[dict, dict, dict]:
        """Eqs. 1-8."""
        stop, pair, size = self.config.stop_gradient, batch.pair_row, batch.size
        z3, p3, _ = self._frames(batch)
        terms, samples = {"3d-3d": pair_loss(p3.pair, z3.pair, stop)}, {"3d": z3.pair}
        fits = {"3d-3d": fit(p3.pair[:, 0], z3.pair[:, 1], pair[0, 1], size)}
        if self.method.has_4d:
            z4, p4 = self._sequence(batch)
            terms["3d-4d"] = frame_loss(p3.point, z3.point, p4.point, z4.point, stop)
            terms["4d-4d"] = pair_loss(p4.pair, z4.pair, stop)
            samples["4d"] = z4.pair
            fits["3d-4d"] = fit(p3.point, z4.point, batch.point_row_4d[0, :, 0], size)
            fits["4d-3d"] = fit(p4.point, z3.point, batch.point_row[0], size)
            fits["4d-4d"] = fit(p4.pair[:, 0], z4.pair[:, 1], batch.pair_row_4d[0, 1], size)
        return terms, samples, fits

    def _contrastive(self, batch: Batch) -> tuple[dict, dict, dict]:
        """Appendix C.2: contrast between frames and, with 4D, between a frame and time-averaged features. Other losses
        take the place of the hardest-contrastive one."""
        z3, _, vote = self._frames(batch)
        pairs = self._pairs(batch)
        place = [None if batch.pair_place is None else batch.pair_place[p] for p in pairs]
        losses = [
            self._contrast(*z3.pair[p], batch.pair_row[p], batch.size, at) for p, at in zip(pairs, place, strict=True)
        ]
        seen = z3.pair.detach()[pairs]
        terms, fits = {"3d-3d": sum(losses)}, {"3d-3d": fit(seen[:, 0], seen[:, 1], batch.pair_row[0, 1], batch.size)}
        if self.method.loss == "vicreg":  # which leaves the mean of features where it is: no sign of a collapse
            seen = seen - seen.mean((0, 1, 2))
        samples = {"3d": seen}
        if vote is not None:
            terms["votes"] = vote_loss(vote, batch.vote, batch.moving)
            fits["votes"] = self._fit_of_votes(vote, batch)
        if self.method.has_4d:
            features = self._run(self.encoder4d, self.encoder4d.features, batch.sequence, batch.size)
            z4 = self.encoder4d.projector(match_average(features, batch.point_row_4d))  # affine: mean of projections
            own = torch.stack([batch.point_row_4d[i, :, i] for i in range(len(batch.frame))])
            rows = torch.stack([batch.point_row, own], dim=1)
            terms["3d-4d"] = sum(self._contrast(z3.point[i], z4[i], rows[i], batch.size) for i in range(len(rows)))
            samples["4d"], fits["3d-4d"] = z4, fit(z3.point, z4, own[0], batch.size)
        return terms, samples, fits

    def _contrast(
        self, first: torch.Tensor, second: torch.Tensor, row: torch.Tensor, size: int, place: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The method's loss of one pair: features (S, d) of the same points, which lie in voxels `row` (2, S), and,
        where negatives are told apart by that, at `place` (2, S, 3)."""
        config = self.config
        if self.method.loss == "vicreg":
            return vicreg(first, second, config.vicreg_weights)
        first, second = (z.unflatten(0, (size, -1)) for z in (first, second))  # (B, n, d)
        same = same_voxel(row, size)
        match self.method.loss:
            case "infonce":
                temperature = config.mask_temperature if self.method.masked else config.temperature
                return point_info_nce(first, second, same, temperature)
            case "csc":
                at = place.unflatten(1, (size, -1))
                region = tuple(regions_around(one, same, config.near_m, config.far_m) for one in at)
                return scene_contexts(first, second, region, config.temperature)
            case _:
                return hardest_contrastive(first, second, same, config.positive_margin, config.negative_margin)

    def _fit_of_votes(self, vote: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """Of the directions in the first frame; zeros if nothing moves in it: all processes log the same names."""
        moving = batch.moving[0]
        way, target = vote[0, moving, 1:].detach(), batch.vote[0, moving]
        if not len(way):
            return dict.fromkeys(FIT, vote.new_zeros(()))
        return fit(way.to(target.dtype), target, batch.point_row[0, moving], 1)

    def _frames(self, batch: Batch) -> Frames:
        """The sampled points by the 3D encoder, one forward per frame index."""
        t, z, p, votes = len(batch.frame), [], [], []
        for i, voxels in enumerate(batch.frame):
            rows = [batch.pair_row[pair, side] for pair, side in places_of(i, t)]
            rows += [batch.point_row[i]] if self.method.has_4d else []
            if self.method.votes:
                given = (voxels, torch.stack(rows), batch.point_row[i], batch.size)
                projected, vote = self._run(self.encoder3d, self._project_and_vote, *given)
                z.append(projected)
                votes.append(vote)
            else:
                z.append(self._run(self.encoder3d, self.encoder3d, voxels, torch.stack(rows), batch.size))
            if self.method.cosine:
                p.append(self._predict(z[i], t - 1, "3d"))
        return Frames(self._regroup(z), self._regroup(p) if p else None, torch.stack(votes) if votes else None)

    def _project_and_vote(self, voxels, rows, voting, size) -> tuple[torch.Tensor, torch.Tensor]:
        """z at `rows`, and votes (S, 4) at the rows `voting` (S,), of one frame. Votes are made of directions alone, as
        InfoNCE is, so that its rates suit both."""
        features = self.encoder3d.features(voxels, size)
        return self.encoder3d.project(features, rows), self.voter(unit(gather(features, voting)))

    def _regroup(self, frames: list[torch.Tensor]) -> Samples:
        """Features (t - 1 or t, S, d) of each frame, its pairs first, back into pairs and points."""
        point = torch.stack([features[-1] for features in frames]) if self.method.has_4d else None
        return Samples(into_pairs(frames), point)

    def _sequence(self, batch: Batch) -> tuple[Samples, Samples]:
        """z and p of the sampled points by the 4D encoder, in one forward."""
        pairs, frames = len(batch.pair_row_4d), range(len(batch.frame))
        rows = [*batch.pair_row_4d.flatten(0, 1), *(batch.point_row_4d[i, :, i] for i in frames)]
        z = self._run(self.encoder4d, self.encoder4d, batch.sequence, torch.stack(rows), batch.size)
        p = self._predict(z, 2 * pairs, "4d")
        return tuple(Samples(x[: 2 * pairs].unflatten(0, (pairs, 2)), x[2 * pairs :]) for x in (z, p))

    def _run(self, encoder: Encoder, call, *given) -> torch.Tensor:
        """A forward of an encoder, whose tensors are kept for the backward pass or made again there."""
        again = self.config.recompute and torch.is_grad_enabled()
        return made_again(encoder, call, *given) if again else call(*given)

    def _predict(self, z: torch.Tensor, pairs: int, encoder: str) -> torch.Tensor:
        """p of z (k, S, d), of which the first `pairs` are of pairs and the rest of the 3D-4D term."""
        head = getattr(self, f"predictor{encoder}")
        if self.config.predictors == "shared" or len(z) == pairs:
            return _rowwise(head, z)
        return torch.cat([_rowwise(head, z[:pairs]), _rowwise(getattr(self, f"cross{encoder}"), z[pairs:])])


def into_pairs(frames: list[torch.Tensor]) -> torch.Tensor:
    """Features (t - 1 or more, S, d) of each frame, in the order of its pairs, as features (P, 2, S, d) of pairs."""
    t = len(frames)
    row = {place: (i, r) for i in range(t) for r, place in enumerate(places_of(i, t))}
    sides = [[row[p, side] for side in (0, 1)] for p in range(len(frame_pairs(t)))]
    return torch.stack([torch.stack([frames[i][r] for i, r in both]) for both in sides])


def _rowwise(head: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A head on rows, for (..., d): its norm takes all of them together."""
    return head(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
