"""Losses of 4DContrast: Eqs. 1-9 and the hardest-contrastive loss of its SimCLR variant (appendix C.2); of STRL: Eq. 4.

Shapes. P pairs of frames, t frames, S sampled points of all B sequences, d feature width. Every pair's or frame's
term is the mean over its samples (the paper sums: a mean keeps the learning rate independent of their number), and
terms are summed over pairs or frames as in Eqs. 4, 6 and 8. Half precision is widened to float32 first."""

from typing import Literal

import torch
import torch.nn.functional as F

from train.nets.heads import gather

StopGradient = Literal["conventional", "printed", "none"]
STOP_GRADIENTS = ("conventional", "printed", "none")  # none: only to show the collapse that it brings


def negative_cosine(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Eq. 1: (..., d) and (..., d) -> (...) in [-1, 1]."""
    return -(unit(p) * unit(z)).sum(-1)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Rows (..., d) at length 1, at least float32."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def pair_loss(p: torch.Tensor, z: torch.Tensor, stop: StopGradient) -> torch.Tensor:
    """Eqs. 3 and 4, or 7 and 8: p and z (P, 2, S, d), predictions and projections of both frames of every pair.

    The gradient stops at z, in both readings of Eq. 5."""
    target = z if stop == "none" else z.detach()
    return 0.5 * (negative_cosine(p[:, 0], target[:, 1]) + negative_cosine(p[:, 1], target[:, 0])).mean(-1).sum()


def frame_loss(
    p3: torch.Tensor, z3: torch.Tensor, p4: torch.Tensor, z4: torch.Tensor, stop: StopGradient
) -> torch.Tensor:
    """Eqs. 5 and 6: predictions and projections (t, S, d) of the same points by the 3D and the 4D encoder.

    stop: `conventional` stops the gradient at the other encoder's z, as Eq. 3 does; `printed` stops it at p and trains
    z, as the paper prints Eq. 5."""
    if stop == "conventional":
        z3, z4 = z3.detach(), z4.detach()
    elif stop == "printed":
        p3, p4 = p3.detach(), p4.detach()
    return 0.5 * (negative_cosine(p3, z4) + negative_cosine(p4, z3)).mean(-1).sum()


def hardest_contrastive(
    first: torch.Tensor, second: torch.Tensor, same: torch.Tensor, positive_margin: float, negative_margin: float
) -> torch.Tensor:
    """Hardest-contrastive loss of one pair of frames, a scalar (appendix C.2, after PointContrast and FCGF).

    first, second: (B, n, d), row k of both is the same point. same: (B, n, n) bool, symmetric: k is no negative of i.
    Squared hinges on distances of unit vectors: of a positive beyond `positive_margin`, and, half weight in each
    direction, of the nearest negative within `negative_margin`. Negatives are the other samples of the same sequence
    (A): a scan may come twice in a batch, and its points would be negatives of themselves.
    """
    first, second = unit(first), unit(second)
    with torch.no_grad():
        distance = (2 - 2 * first @ second.transpose(1, 2)).masked_fill_(same, torch.inf)
        to_second, to_first = distance.argmin(2), distance.argmin(1)
        exists = ~same.all(2)
    positive = F.relu((first - second).norm(dim=-1) - positive_margin).square().mean()
    forth = _nearest_hinge(first, second, to_second, exists, negative_margin)
    back = _nearest_hinge(second, first, to_first, exists, negative_margin)
    return positive + 0.5 * (forth + back)


def point_info_nce(first: torch.Tensor, second: torch.Tensor, same: torch.Tensor, temperature: float) -> torch.Tensor:
    """PointInfoNCE of one pair of frames, a scalar (PointContrast, section 3.3), both ways and halved (A).

    first, second: (B, n, d), row k of both is the same point. same: (B, n, n) bool, symmetric: k is no negative of i.
    Of each point the cross-entropy of finding its own among all samples of the same sequence (A), by cosine similarity
    over `temperature`.
    """
    logits = unit(first) @ unit(second).transpose(1, 2) / temperature
    others = same & ~torch.eye(same.shape[-1], dtype=torch.bool, device=same.device)
    logits = logits.masked_fill(others, -torch.inf)
    own = torch.arange(logits.shape[-1], device=logits.device).expand(len(logits), -1)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.transpose(1, 2), own))


def _nearest_hinge(
    anchor: torch.Tensor, other: torch.Tensor, nearest: torch.Tensor, exists: torch.Tensor, margin: float
) -> torch.Tensor:
    """Mean over the anchors that have a negative at all."""
    first_row = torch.arange(len(other), device=other.device).unsqueeze(1) * other.shape[1]
    negative = gather(other.flatten(0, 1), nearest + first_row)
    hinge = F.relu(margin - (anchor - negative).norm(dim=-1)).square()
    return (hinge * exists).sum() / exists.sum().clamp(min=1)


def same_voxel(row: torch.Tensor, size: int) -> torch.Tensor:
    """Which samples of a sequence share a voxel, in any of k voxel sets: row (k, S) -> (B, n, n) bool, for size = B."""
    row = row.reshape(len(row), size, -1)
    return (row.unsqueeze(-1) == row.unsqueeze(-2)).any(0)


def prediction_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """STRL, Eq. 4: squared distance of unit vectors (B, d) and (B, d), 2 - 2 cos, mean over clouds. The gradient stops
    at the target."""
    return 2 + 2 * negative_cosine(prediction, target.detach()).mean()


def match_average(features: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Match average pooling (appendix C.2): the mean of a point's features over the time steps that have it.

    features (n, d), row (..., t) int64, -1 where the point is absent -> (..., d); zeros for a point that no step
    has."""
    total = features.new_zeros(*row.shape[:-1], features.shape[1])
    for step in row.unbind(-1):
        total = total + torch.where((step >= 0).unsqueeze(-1), gather(features, step.clamp(min=0)), 0)
    return total / (row >= 0).sum(-1, keepdim=True).clamp(min=1)


def fit(prediction: torch.Tensor, target: torch.Tensor, row: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
    """How well predictions (k, S, d) meet targets (k, S, d), sample by sample, in four figures.

    cos: mean cosine. constant: what the best constant prediction would reach, so a cosine below it has learned less
    than nothing of what tells samples apart. centred: mean cosine after the mean direction of either is taken away.
    top1: share of samples, of the first k and the first of `size` sequences, whose own target is the nearest of all
    (targets of one voxel count as one: row (S,) are those of the first k).
    """
    with torch.no_grad():
        p, z = unit(prediction).flatten(0, -2), unit(target).flatten(0, -2)
        middle_p, middle_z = p.mean(0), z.mean(0)
        centred = F.cosine_similarity(p - middle_p, z - middle_z).mean()
        first = len(row) // size
        nearest = (p[:first] @ z[:first].T).argmax(1)
        top1 = (row[:first][nearest] == row[:first]).to(z.dtype).mean()
        return {"cos": (p * z).sum(-1).mean(), "constant": middle_z.norm(), "centred": centred, "top1": top1}


def spread(z: torch.Tensor) -> torch.Tensor:
    """How far features (..., d) are from collapse: standard deviation of their unit vectors, mean over d, times
    sqrt(d).

    1 where directions are spread evenly, 0 where all are one."""
    with torch.no_grad():
        z = unit(z).reshape(-1, z.shape[-1])
        return z.std(0, correction=0).mean() * z.shape[-1] ** 0.5
