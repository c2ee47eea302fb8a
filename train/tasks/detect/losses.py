"""VoteNet's losses, with what is no box left out.

10 (vote + 0.5 objectness + centre + 0.1 size class + size + 0.1 class), and with headings + 0.1 heading class + heading
among them. A scan has as many boxes as it has: in
VoteNet's code there are 64, and the empty ones lie at the origin, where proposals are taught that they are objects;
`phantom` brings that back, for comparisons.

Shapes. As in `train.tasks.detect.model`; b boxes of one scan.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from train.run.loop import Loss
from train.tasks.detect.batch import DetectBatch

_OBJECT_WEIGHTS = (0.2, 0.8)
_TINY = 1e-6


class Assigned(NamedTuple):
    """Of every proposal (n, p): whether it is an object, whether it counts, and the box (.., 7) and class of the box
    that is nearest to its middle."""

    positive: torch.Tensor
    counted: torch.Tensor
    box: torch.Tensor
    kind: torch.Tensor


def losses(model, found, batch: DetectBatch) -> Loss:
    """All terms of a batch, and their weighted sum."""
    assigned = _assign(model, found, batch)
    positive = assigned.positive.float()
    counted = (assigned.positive | assigned.counted).float()
    weight = found.objectness.new_tensor(_OBJECT_WEIGHTS)
    objectness = F.cross_entropy(
        found.objectness.flatten(0, 1), assigned.positive.flatten().long(), weight, reduction="none"
    )
    size_kind = F.cross_entropy(found.size_score.flatten(0, 1), assigned.kind.flatten(), reduction="none")
    kind = F.cross_entropy(found.kind.flatten(0, 1), assigned.kind.flatten(), reduction="none")
    index = assigned.kind[..., None, None].expand(*assigned.kind.shape, 1, 3)
    residual = found.residual.gather(2, index)[:, :, 0]
    target = assigned.box[..., 3:6] / model.mean_size[assigned.kind] - 1
    size = F.huber_loss(residual, target, reduction="none").mean(dim=-1)
    terms = {
        "vote": _votes(found, batch),
        "objectness": _mean(objectness, counted),
        "centre": _centres(found, assigned, batch, model.own.phantom),
        "size class": _mean(size_kind, positive),
        "size": _mean(size, positive),
        "class": _mean(kind, positive),
    }
    weights = {
        "vote": model.own.vote_weight,
        "objectness": 0.5,
        "centre": 1.0,
        "size class": 0.1,
        "size": 1.0,
        "class": 0.1,
        "heading class": 0.1,
        "heading": 1.0,
    }
    if model.headings:
        facing, swerve = _headings(found, assigned, model.headings)
        terms |= {"heading class": _mean(facing, positive), "heading": _mean(swerve, positive)}
    total = 10 * sum(weights[name] * value for name, value in terms.items())
    if model.own.iou_weight:
        decoded = torch.cat([found.centre, model.sizes(found, assigned.kind)], dim=-1)
        terms["iou"] = _mean(1 - aligned_iou(decoded, assigned.box[..., :6]), positive)
        total = total + model.own.iou_weight * terms["iou"]
    logged = {name: value.detach() for name, value in terms.items()}
    return Loss(total, logged | {"objects": positive.mean()}, {})


def _mean(value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (value.flatten() * mask.flatten()).sum() / (mask.sum() + _TINY)


def _assign(model, found, batch: DetectBatch) -> Assigned:
    """The nearest box of every proposal, by the middle of its votes."""
    own, parts = model.own, []
    for scan in range(batch.size):
        box, kind = batch.box[batch.of == scan], batch.kind[batch.of == scan]
        if own.phantom:
            empty = torch.cat([box.new_zeros(3), model.mean_size[0], box.new_zeros(1)])
            box, kind = torch.cat([box, empty[None]]), torch.cat([kind, kind.new_zeros(1)])
        middle = found.middle[scan].detach()
        if not len(box):
            none = torch.zeros(len(middle), dtype=torch.bool, device=middle.device)
            parts.append((none, ~none, middle.new_ones(len(middle), 7), none.long()))
            continue
        squared = (middle[:, None] - box[None, :, :3]).square().sum(-1)
        nearest = squared.argmin(dim=1)
        away = (squared.gather(1, nearest[:, None])[:, 0] + _TINY).sqrt()
        parts.append((away < own.near_m, away > own.far_m, box[nearest], kind[nearest]))
    return Assigned(*(torch.stack(values) for values in zip(*parts, strict=True)))


def _votes(found, batch: DetectBatch) -> torch.Tensor:
    """Distance (L1) of the votes of seeds on objects to the middle of their box, the nearest of several, the mean over
    those of the batch."""
    total, count = found.vote.sum() * 0, 0
    for scan in range(batch.size):
        owner = batch.owner[found.seed_row[scan]]
        mine = owner[:, 0] >= 0
        if mine.any():
            centre = batch.box[batch.of == scan, :3][owner[mine]]
            total = total + (found.vote[scan][mine][:, None] - centre).abs().sum(-1).amin(dim=1).sum()
            count += int(mine.sum())
    return total / (count + _TINY)


def _headings(found, assigned: Assigned, headings: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the direction (n p,) and of the residual to the right one (n, p)."""
    turn = assigned.box[..., 6] * (headings / (2 * math.pi))  # in steps of directions
    nearest = turn.round()
    direction = nearest.long() % headings
    facing = F.cross_entropy(found.facing.flatten(0, 1), direction.flatten(), reduction="none")
    swerve = found.swerve.gather(-1, direction[..., None])[..., 0]
    return facing, F.huber_loss(swerve, 2 * (turn - nearest), reduction="none")


def _centres(found, assigned: Assigned, batch: DetectBatch, phantom: bool) -> torch.Tensor:
    """Squared distance of the centres of positive proposals to the nearest box, and of boxes to the nearest centre."""
    there = back = found.centre.sum() * 0
    boxes = 0
    for scan in range(batch.size):
        real = batch.box[batch.of == scan, :3]
        centre = torch.cat([real, real.new_zeros(int(phantom), 3)])
        if not len(centre):
            continue
        squared = (found.centre[scan][:, None] - centre[None]).square().sum(-1)
        there = there + (squared.amin(dim=1) * assigned.positive[scan]).sum()
        back = back + squared[:, : len(real)].amin(dim=0).sum()
        boxes += len(real)
    return there / (assigned.positive.sum() + _TINY) + back / (boxes + _TINY)


def aligned_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """IoU (..,) of pairs of boxes (.., 6) along the axes, with gradients."""
    low = torch.maximum(first[..., :3] - first[..., 3:] / 2, second[..., :3] - second[..., 3:] / 2)
    high = torch.minimum(first[..., :3] + first[..., 3:] / 2, second[..., :3] + second[..., 3:] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (first[..., 3:].prod(-1) + second[..., 3:].prod(-1) - shared + _TINY)
