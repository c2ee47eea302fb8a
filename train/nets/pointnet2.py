"""PointNet++ as VoteNet has it: points of whole scans to seeds with features.

Shapes. n clouds; s seeds of each. At every level the points that lie farthest apart are kept, and each gets the most of
what small nets say of the points around it; two levels are brought back by the three nearest.

    level   points   radius   neighbours   channels
    1       2048     0.2 m    64           64, 64, 128
    2       1024     0.4 m    32           128, 128, 256
    3       512      0.8 m    16           128, 128, 256
    4       256      1.2 m    16           128, 128, 256
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from train.nets.points import farthest_points, points_in_balls, three_nearest
from train.nets.unet import Norm, initialise

FLOOR = 0.0099  # share of a scan's points that lie below its floor, as VoteNet's code takes it


class Level(NamedTuple):
    """Points that are kept, and what each sees."""

    points: int
    radius_m: float
    neighbours: int
    channels: tuple[int, ...]


LEVELS = (
    Level(2048, 0.2, 64, (64, 64, 128)),
    Level(1024, 0.4, 32, (128, 128, 256)),
    Level(512, 0.8, 16, (128, 128, 256)),
    Level(256, 1.2, 16, (128, 128, 256)),
)


class Points(NamedTuple):
    """place: of each cloud (p, 3) metres; features: of each (p, c)."""

    place: list[torch.Tensor]
    features: list[torch.Tensor]


class PointNet2(nn.Module):
    """`channels` features of the points of level 2."""

    def __init__(self, generator: torch.Generator, norm: Norm, levels: Sequence[Level] = LEVELS):
        """generator (a CPU one) draws the weights."""
        super().__init__()
        self.levels, width = tuple(levels), 1
        self.down = nn.ModuleList()
        for level in levels:
            self.down.append(pointwise((width + 3, *level.channels), norm))
            width = level.channels[-1]
        last, third, second = (level.channels[-1] for level in (levels[3], levels[2], levels[1]))
        self.channels = 256
        self.up = nn.ModuleList([pointwise((last + third, 256, 256), norm), pointwise((256 + second, 256, 256), norm)])
        initialise(self, generator)

    def forward(self, place: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Clouds (p, 3) metres -> of each the rows (s,) of its seeds and their features (s, channels). Points have
        their height above the floor as a feature."""
        height = [cloud[:, 2:] - cloud[:, 2].quantile(FLOOR) for cloud in place]
        seen, index = [Points(place, height)], []
        for level, net in zip(self.levels, self.down, strict=True):
            points, chosen = _gathered(seen[-1], level, net)
            seen.append(points)
            index.append(chosen)
        features = seen[4].features
        for below, net, above in ((3, self.up[0], 4), (2, self.up[1], 3)):
            features = _spread(seen[below], Points(seen[above].place, features), net)
        rows = [first[second] for first, second in zip(index[0], index[1], strict=True)]
        return rows, features

    def kept_floats(self, clouds: int) -> int:
        """How many numbers autograd keeps of a forward: of each pointwise layer its input, norm and ReLU."""
        total = 0
        for level in self.levels:
            total += 3 * level.points * level.neighbours * sum(level.channels)
        return clouds * total


def pointwise(widths: Sequence[int], norm: Norm) -> nn.Sequential:
    """Linear layers (.., widths[0]) -> (.., widths[-1]), each with norm and ReLU."""
    made: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        made += [nn.Linear(before, after, bias=False), norm.layer(after), nn.ReLU()]
    return nn.Sequential(*made)


def _gathered(points: Points, level: Level, net: nn.Module) -> tuple[Points, list[torch.Tensor]]:
    """The points of the next level and their rows in this one."""
    place, index, grouped = [], [], []
    for cloud, features in zip(*points, strict=True):
        chosen = farthest_points(cloud, level.points)
        centre = cloud[chosen]
        near = points_in_balls(centre, cloud, level.radius_m, level.neighbours)
        offset = (cloud[near] - centre[:, None]) / level.radius_m
        grouped.append(torch.cat([offset, features[near]], dim=-1))
        place.append(centre)
        index.append(chosen)
    stacked = torch.cat(grouped)
    made = net(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2]).amax(dim=1)
    return Points(place, list(made.split([len(centre) for centre in place]))), index


def _spread(fine: Points, coarse: Points, net: nn.Module) -> list[torch.Tensor]:
    """Features of the finer points: of the three nearest coarser ones, the nearer the more, beside their own."""
    joined = []
    for place, features, above, given in zip(*fine, *coarse, strict=True):
        distance, index = three_nearest(place, above)
        weight = 1 / (distance + 1e-8)
        weight = weight / weight.sum(dim=1, keepdim=True)
        joined.append(torch.cat([(given[index] * weight[..., None]).sum(dim=1), features], dim=-1))
    return list(net(torch.cat(joined)).split([len(place) for place in fine.place]))
