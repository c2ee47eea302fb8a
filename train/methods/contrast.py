"""The named pre-training methods: what each encodes and what it compares.

    static-3d          3D-3D on static scans            Table 2, first ablation
    moving-3d          3D-3D on moving-object sequences Table 2, second ablation
    4dcontrast         3D-3D, 3D-4D, 4D-4D              Eq. 9
    moving-3d-simclr   3D-3D, no predictors             the loss of appendix C.2 on one encoder, as PointContrast's
    4dcontrast-simclr  3D-3D, 3D-4D, no predictors      appendix C.2

Shapes. t frames, P pairs of frames, B sequences, S sampled points of all of them, d projected width.
"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from train.methods.losses import (
    STOP_GRADIENTS,
    StopGradient,
    frame_loss,
    hardest_contrastive,
    match_average,
    pair_loss,
    same_voxel,
    spread,
)
from train.nets.heads import Encoder, Predictor
from train.nets.unet import DEFAULT_NORM, NETS, NetShape, Norm

if TYPE_CHECKING:
    from train.batch import Batch


@dataclass(frozen=True)
class Method:
    """terms: what is compared; cosine: Eqs. 1-9 with predictors, else the hardest-contrastive loss; moving: whether
    frames have their moving shapes."""

    terms: tuple[str, ...]
    cosine: bool
    moving: bool

    @property
    def has_4d(self) -> bool:
        """Whether a 4D encoder takes part."""
        return self.terms != ("3d-3d",)


METHODS = {
    "static-3d": Method(("3d-3d",), cosine=True, moving=False),
    "moving-3d": Method(("3d-3d",), cosine=True, moving=True),
    "4dcontrast": Method(("3d-3d", "3d-4d", "4d-4d"), cosine=True, moving=True),
    "moving-3d-simclr": Method(("3d-3d",), cosine=False, moving=True),
    "4dcontrast-simclr": Method(("3d-3d", "3d-4d"), cosine=False, moving=True),
}


@dataclass(frozen=True)
class ContrastConfig:
    """A method with its sizes. Weights are those of Eq. 9; widths and margins the paper leaves open are assumptions."""

    method: str = "4dcontrast"
    net_3d: NetShape = NETS["34"]
    net_4d: NetShape = NETS["14a"]
    width: int = 128
    hidden: int = 64
    weight_3d: float = 1.0
    weight_3d4d: float = 1.0
    weight_4d: float = 1.0
    stop_gradient: StopGradient = "conventional"
    positive_margin: float = 0.1
    negative_margin: float = 1.4
    norm: Norm = DEFAULT_NORM

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r}: one of {', '.join(METHODS)}")
        if self.stop_gradient not in STOP_GRADIENTS:
            raise ValueError(f"stop_gradient {self.stop_gradient!r}: one of {', '.join(STOP_GRADIENTS)}")

    def weights(self) -> dict[str, float]:
        """Weight of each of the method's terms."""
        every = {"3d-3d": self.weight_3d, "3d-4d": self.weight_3d4d, "4d-4d": self.weight_4d}
        return {term: every[term] for term in METHODS[self.method].terms}


class Loss(NamedTuple):
    """total = sum of weight x term. Terms are sums over pairs or frames, divided by the number of pairs (A), so the
    lowest value of a cosine term is -1 for 3d-3d and 4d-4d and -t / P for 3d-4d. terms and spread are detached, for
    logs."""

    total: torch.Tensor
    terms: dict[str, torch.Tensor]
    spread: dict[str, torch.Tensor]


class Samples(NamedTuple):
    """Features of the sampled points: pair (P, 2, S, d) and, where the method has 4D, point (t, S, d)."""

    pair: torch.Tensor
    point: torch.Tensor | None


class Contrast(nn.Module):
    """Encoders, predictors and the comparison of one method."""

    def __init__(self, config: ContrastConfig, generator: torch.Generator):
        """generator (a CPU one) draws all weights, so that equal seeds give equal models."""
        super().__init__()
        self.config, self.method = config, METHODS[config.method]
        self._margins = (config.positive_margin, config.negative_margin)
        head = (config.width, config.hidden, config.norm, generator)
        self.encoder3d = Encoder(config.net_3d, 3, config.width, config.norm, generator)
        if self.method.cosine:
            self.predictor3d = Predictor(*head)
        if self.method.has_4d:
            self.encoder4d = Encoder(config.net_4d, 4, config.width, config.norm, generator)
        if self.method.has_4d and self.method.cosine:
            self.predictor4d = Predictor(*head)

    def forward(self, batch: "Batch") -> Loss:
        """One forward per frame index and one of the 4D sequences. Raises sparse.SparseError for a bad batch."""
        terms, samples = self._cosine(batch) if self.method.cosine else self._hardest(batch)
        pairs = len(batch.pair_row)
        terms = {name: value / pairs for name, value in terms.items()}
        total = sum(weight * terms[name] for name, weight in self.config.weights().items())
        spreads = {name: spread(z) for name, z in samples.items()}
        return Loss(total, {name: value.detach() for name, value in terms.items()}, spreads)

    def _cosine(self, batch: "Batch") -> tuple[dict, dict]:
        """Eqs. 1-8."""
        stop = self.config.stop_gradient
        z3, p3 = self._frames(batch)
        terms, samples = {"3d-3d": pair_loss(p3.pair, z3.pair, stop)}, {"3d": z3.pair}
        if self.method.has_4d:
            z4, p4 = self._sequence(batch)
            terms["3d-4d"] = frame_loss(p3.point, z3.point, p4.point, z4.point, stop)
            terms["4d-4d"] = pair_loss(p4.pair, z4.pair, stop)
            samples["4d"] = z4.pair
        return terms, samples

    def _hardest(self, batch: "Batch") -> tuple[dict, dict]:
        """Appendix C.2: hardest-contrastive between frames and, with 4D, between a frame and time-averaged features."""
        z3, _ = self._frames(batch)
        apart = z3.pair.unflatten(2, (batch.size, -1))  # (P, 2, B, n, d)
        frames = [
            hardest_contrastive(first, second, same_voxel(row, batch.size), *self._margins)
            for (first, second), row in zip(apart, batch.pair_row, strict=True)
        ]
        if not self.method.has_4d:
            return {"3d-3d": sum(frames)}, {"3d": z3.pair}
        features = self.encoder4d.features(batch.sequence, batch.size)
        z4 = self.encoder4d.projector(match_average(features, batch.point_row_4d))  # affine: the mean of projections
        own = torch.stack([batch.point_row_4d[i, :, i] for i in range(len(batch.frame))])
        point, average = (z.unflatten(1, (batch.size, -1)) for z in (z3.point, z4))  # (t, B, n, d)
        sequence = [
            hardest_contrastive(*z, same_voxel(torch.stack(row), batch.size), *self._margins)
            for *z, row in zip(point, average, zip(batch.point_row, own, strict=True), strict=True)
        ]
        return {"3d-3d": sum(frames), "3d-4d": sum(sequence)}, {"3d": z3.pair, "4d": z4}

    def _frames(self, batch: "Batch") -> tuple[Samples, Samples | None]:
        """z, and p where there are predictors, of the sampled points by the 3D encoder, one forward per frame index."""
        places = frame_places(len(batch.frame))
        z, p = [], []
        for i, voxels in enumerate(batch.frame):
            rows = [batch.pair_row[pair, side] for pair, side in places[i]]
            rows += [batch.point_row[i]] if self.method.has_4d else []
            z.append(self.encoder3d(voxels, torch.stack(rows), batch.size))
            if self.method.cosine:
                p.append(_rowwise(self.predictor3d, z[i]))
        return self._regroup(z), self._regroup(p) if p else None

    def _regroup(self, frames: list[torch.Tensor]) -> Samples:
        """Features (t - 1 or t, S, d) of each frame, its pairs first, back into pairs and points."""
        count = len(frames)
        next_of = [iter(features) for features in frames]
        pair = [torch.stack([next(next_of[i]), next(next_of[j])]) for i, j in itertools.combinations(range(count), 2)]
        point = torch.stack([next(rest) for rest in next_of]) if self.method.has_4d else None
        return Samples(torch.stack(pair), point)

    def _sequence(self, batch: "Batch") -> tuple[Samples, Samples]:
        """z and p of the sampled points by the 4D encoder, in one forward."""
        pairs, frames = len(batch.pair_row_4d), range(len(batch.frame))
        rows = [*batch.pair_row_4d.flatten(0, 1), *(batch.point_row_4d[i, :, i] for i in frames)]
        z = self.encoder4d(batch.sequence, torch.stack(rows), batch.size)
        p = _rowwise(self.predictor4d, z)
        return tuple(Samples(x[: 2 * pairs].unflatten(0, (pairs, 2)), x[2 * pairs :]) for x in (z, p))


def frame_places(t: int) -> list[list[tuple[int, int]]]:
    """For every frame, the (pair, side) that it has in pairs (0, 1), (0, 2), .., (1, 2), .."""
    pairs = list(itertools.combinations(range(t), 2))
    return [[(p, pair.index(i)) for p, pair in enumerate(pairs) if i in pair] for i in range(t)]


def _rowwise(head: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A head on rows, for (..., d): its norm takes all of them together."""
    return head(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
