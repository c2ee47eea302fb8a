"""Losses of 4DContrast: Eqs. 1-9 and the hardest-contrastive loss of its SimCLR variant (appendix C.2); of STRL: Eq. 4;
of PointContrast, Contrastive Scene Contexts and VICReg; the assignment to prototypes of self-distillation; and our
votes.

Shapes. P pairs of frames, t frames, S sampled points of all B sequences, d feature width. Every pair's or frame's
term is the mean over its samples (the paper sums: a mean keeps the learning rate independent of their number), and
terms are summed over pairs or frames as in Eqs. 4, 6 and 8. Features of half precision are widened to float32 first;
under autocast products of unit vectors are of half precision again, but for VICReg's."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import distributed

from train.nets.heads import gather
from train.run.norms import sum_over_processes

StopGradient = Literal["conventional", "printed", "none"]
STOP_GRADIENTS = ("conventional", "printed", "none")  # none: only to show the collapse that it brings
FIT = ("cos", "constant", "centred", "top1")  # what `fit` measures
REGIONS = 8  # of the space around a point: two shells of four quadrants


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
    Of each point the cross-entropy of finding its own among all samples of the same sequence (A: PointContrast's code
    takes those of the whole batch, one way; here a scan may come twice in it, and its points would be negatives of
    themselves), by cosine similarity over `temperature`.
    """
    logits = unit(first) @ unit(second).transpose(1, 2) / temperature
    others = same & ~torch.eye(same.shape[-1], dtype=torch.bool, device=same.device)
    logits = logits.masked_fill(others, -torch.inf)
    own = torch.arange(logits.shape[-1], device=logits.device).expand(len(logits), -1)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.transpose(1, 2), own))


def scene_contexts(
    first: torch.Tensor, second: torch.Tensor, region: tuple[torch.Tensor, torch.Tensor], temperature: float
) -> torch.Tensor:
    """Contrastive Scene Contexts' loss of one pair of frames, a scalar (section 3.2), both ways and halved (A).

    first, second: (B, n, d), row k of both is the same point. region: of either frame (B, n, n) int64, in which part of
    the space around point i point k lies, from 1 to REGIONS, or 0: k is no negative of i. PointInfoNCE with the
    negatives of one part at a time, mean over the parts; a point without negatives in a part costs nothing there, and
    counts, as in the published code.
    """
    logits = unit(first) @ unit(second).transpose(1, 2) / temperature
    return 0.5 * (_by_region(logits, region[0]) + _by_region(logits.transpose(1, 2), region[1]))


def _by_region(logits: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the diagonal of logits (B, n, n) against each region's logits. All regions in one pass,
    each relative to its own largest, so that nothing overflows: logits are kept once instead of once a region."""
    own = logits.diagonal(dim1=1, dim2=2).unsqueeze(-1)
    start = own.detach().expand(-1, -1, REGIONS + 1)
    most = start.scatter_reduce(-1, region, logits.detach(), "amax")
    others = torch.exp(logits - most.gather(-1, region))
    total = torch.exp(own - most).scatter_add(-1, region, others)
    return (torch.log(total) + most - own)[..., 1:].mean()


def regions_around(place: torch.Tensor, same: torch.Tensor, near_m: float, far_m: float) -> torch.Tensor:
    """Which part of the space around sample i holds sample k: place (B, n, 3) metres -> (B, n, n) int64.

    0 for what is `same` or nearer than near_m; 1 to 4 up to far_m, 5 to 8 from there on, by the signs of y and z, which
    is what the angles of CSC's published code come to with two bins each.
    """
    away = place.unsqueeze(1) - place.unsqueeze(2)
    distance = away.norm(dim=-1)
    quadrant = 2 * (away[..., 1] < 0) + (away[..., 2] < 0)
    return (1 + 4 * (distance >= far_m) + quadrant).masked_fill(same | (distance < near_m), 0)


def vicreg(first: torch.Tensor, second: torch.Tensor, weights: tuple[float, float, float]) -> torch.Tensor:
    """VICReg of one pair of frames, a scalar (Bardes, Ponce, LeCun, ICLR 2022, Eqs. 1-6, with the means of its code).

    first, second: (S, d), row k of both is the same point; features as they are, without a norm. weights: of
    invariance (the mean squared difference), of variance (what a standard deviation lacks to 1, mean over dimensions
    and both frames) and of covariance (squares off the diagonal over d, summed over both frames). They are divided by
    their sum (A), so that the published 25, 25 and 1 go with the rates of the other losses. Statistics are those of all
    processes, and of one part of the batch where it is taken in parts.
    """
    first, second = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (first, second))
    with torch.autocast(first.device.type, enabled=False):  # sums of squares over all rows are beyond half precision
        lacking, mixed = zip(*(_moments(x) for x in (first, second)), strict=True)
    parts = (F.mse_loss(first, second), 0.5 * sum(lacking), sum(mixed))
    return sum(weight * part for weight, part in zip(weights, parts, strict=True)) / sum(weights)


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """VICReg's variance and covariance terms of features (S, d) of all processes."""
    rows = sum_over_processes(x.new_tensor(float(len(x))))
    centred = x - sum_over_processes(x.sum(0)) / rows
    covariance = sum_over_processes(centred.T @ centred) / (rows - 1)
    variance = covariance.diagonal()
    lacking = F.relu(1 - torch.sqrt(variance + 1e-4)).mean()
    return lacking, (covariance - torch.diag(variance)).square().sum() / x.shape[1]


def vote_loss(vote: torch.Tensor, target: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """How far votes are off, a scalar, summed over frames (ours).

    vote: (t, S, 4), a logit of lying on a moving shape and the way to its middle, metres; target: (t, S, 3), that way;
    moving: (t, S) bool. Cross-entropy over all samples and, over those that move, in all processes, Huber's distance
    summed over the axes, quadratic up to a quarter of a metre: at the rates of InfoNCE an L1 distance makes votes swing
    by metres.
    """
    vote = vote.to(torch.promote_types(vote.dtype, torch.float32))
    inside, target = moving.to(vote.dtype), target.to(vote.dtype)
    found = F.binary_cross_entropy_with_logits(vote[..., 0], inside, reduction="none").mean(1)
    off = F.smooth_l1_loss(vote[..., 1:], target, reduction="none", beta=0.25).sum(-1)
    processes = distributed.get_world_size() if distributed.is_initialized() else 1  # whose losses are averaged
    moved = sum_over_processes(inside.sum(1)).clamp(min=1) / processes
    return (found + (off * inside).sum(1) / moved).sum()


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


@torch.no_grad()
def balanced_assignments(scores: torch.Tensor, temperature: float, rounds: int = 3) -> torch.Tensor:
    """To which of K prototypes samples go: cosines (n, K) -> shares (n, K) float32, rows sum to 1.

    Rounds of Sinkhorn and Knopp, as SwAV and Sonata have them: every prototype gets the same share of all samples,
    those of all processes, then every sample is shared out whole. After many rounds both hold at once.
    """
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    shares = torch.exp((wide - 1) / temperature)
    for _ in range(rounds):
        shares = shares / sum_over_processes(shares.sum(0)).clamp(min=torch.finfo(shares.dtype).tiny)
        shares = shares / shares.sum(1, keepdim=True)
    return shares


def prototype_loss(scores: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of a student's scores (..., K) over `temperature` to a teacher's shares (..., K), their mean."""
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return -(target * F.log_softmax(wide / temperature, -1)).sum(-1).mean()


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
        return dict(zip(FIT, ((p * z).sum(-1).mean(), middle_z.norm(), centred, top1), strict=True))


def spread(z: torch.Tensor) -> torch.Tensor:
    """How far features (..., d) are from collapse: standard deviation of their unit vectors, mean over d, times
    sqrt(d).

    1 where directions are spread evenly, 0 where all are one."""
    with torch.no_grad():
        z = unit(z).reshape(-1, z.shape[-1])
        return z.std(0, correction=0).mean() * z.shape[-1] ** 0.5
