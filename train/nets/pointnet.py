"""PointNet without transform nets: every point by itself through five pointwise layers (STRL, section 5.2.1).

Shapes. B clouds of N points each.
"""

import math

import torch
from torch import nn

WIDTHS = (64, 64, 64, 128, 1024)


def pointwise(c_in: int, c_out: int, generator: torch.Generator) -> nn.Linear:
    """A layer on rows without bias, since a norm follows; weights by He's rule over the fan-out, from the generator."""
    layer = nn.Linear(c_in, c_out, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / c_out), generator=generator)
    return layer


class PointNet(nn.Module):
    """Points (B, N, 3) to features of each (B, N, 1024). A cloud's own are their maximum."""

    channels = WIDTHS[-1]
    pools = ("max",)

    def __init__(self, generator: torch.Generator):
        """generator (a CPU one) draws the weights."""
        super().__init__()
        ends = zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        parts = [(pointwise(*pair, generator), nn.BatchNorm1d(pair[1]), nn.ReLU()) for pair in ends]
        self.layers = nn.Sequential(*(part for layer in parts for part in layer))

    def forward(self, point: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) -> (B, N, 1024). Norms see the points of all clouds together."""
        return self.layers(point.flatten(0, 1)).unflatten(0, point.shape[:2])

    def kept(self, points: int, element: int) -> int:
        """Bytes that autograd keeps for `points` points in all, given the bytes of a number."""
        return points * element * (3 + 2 * sum(WIDTHS))
