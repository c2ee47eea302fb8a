"""DGCNN: convolutions over the edges of a graph of nearest neighbours, which is made anew for every layer (STRL,
section 5.2.1; Wang et al., Dynamic Graph CNN).

Shapes. B clouds of N points, M = B * N rows of all of them, k neighbours of a point, itself among them.

An edge's layer is W [x_j - x_i | x_i] = W1 x_j + (W2 - W1) x_i. Both products are made per point, and only their sum
per edge. Where the layer is the last before the maximum over neighbours, not even that: norm and LeakyReLU are
monotone, so the maximum (the minimum where the norm's scale is negative) goes through to W1 x_j, and the norm's mean
and variance over the edges follow from sums over points. Nothing of size M * k * channels is ever made.
"""

import itertools

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from train.nets.pointnet import pointwise
from train.run.norms import sum_over_processes

SLOPE = 0.2  # of LeakyReLU
_DISTANCES = 2**26  # numbers of the matrices of distances that are there at a time


def nearest(x: torch.Tensor, k: int) -> torch.Tensor:
    """Rows (M, k) int64, among all M, of the k nearest of the same cloud to each point of x (B, N, c), by Euclidean
    distance. Raises ValueError where a cloud has fewer points than k."""
    size, points = x.shape[:2]
    if points < k:
        raise ValueError(f"k = {k}: a cloud of {points} points has no more neighbours than that; set a smaller k")
    chunk = max(1, _DISTANCES // points**2)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        x = widened(x)
        x = x - x.mean(1, keepdim=True)  # far from the origin squares would lose the distances' digits
        found = [_nearest(part, k) for part in x.split(chunk)]
        first_row = torch.arange(0, size * points, points, device=x.device)
        return (torch.cat(found) + first_row[:, None, None]).flatten(0, 1)


def widened(x: torch.Tensor) -> torch.Tensor:
    """x in at least single precision: sums over a million edges need it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _nearest(x: torch.Tensor, k: int) -> torch.Tensor:
    square = x.square().sum(-1)
    closeness = torch.baddbmm(square.unsqueeze(1), x, x.transpose(1, 2), beta=-1, alpha=2)  # less the own square
    return closeness.topk(k, dim=-1, sorted=False).indices


class _Neighbours(torch.autograd.Function):
    """Greatest and sum of the neighbours' values: value (M, c), row (M, k) -> (M, c) and (M, c)."""

    @staticmethod
    def forward(ctx, value: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        greatest = value.index_select(0, row[:, 0])
        total, slot = greatest.clone(), torch.zeros(value.shape, dtype=torch.uint8, device=value.device)
        for j in range(1, row.shape[1]):
            other = value.index_select(0, row[:, j])
            total += other
            slot.masked_fill_(other > greatest, j)
            torch.maximum(greatest, other, out=greatest)
        ctx.save_for_backward(row, slot)
        return greatest, total

    @staticmethod
    @once_differentiable
    def backward(ctx, of_greatest: torch.Tensor, of_total: torch.Tensor):
        row, slot = ctx.saved_tensors
        gradient = torch.zeros_like(of_greatest)
        gradient.scatter_add_(0, row.gather(1, slot.long()), of_greatest)
        for j in range(row.shape[1]):
            gradient.index_add_(0, row[:, j], of_total)
        return gradient, None


class EdgeConv(nn.Module):
    """One or more layers on edges, each with norm and LeakyReLU, then the maximum over a point's neighbours."""

    def __init__(self, c_in: int, widths: tuple[int, ...], k: int, generator: torch.Generator):
        super().__init__()
        self.k = k
        self.first = pointwise(2 * c_in, widths[0], generator)
        self.norm = nn.BatchNorm1d(widths[0])
        pairs = itertools.pairwise(widths)
        parts = [(pointwise(*pair, generator), nn.BatchNorm1d(pair[1]), nn.LeakyReLU(SLOPE)) for pair in pairs]
        self.rest = nn.Sequential(*(part for layer in parts for part in layer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, c_in) -> (B, N, widths[-1])."""
        row, rows = nearest(x, self.k), x.flatten(0, 1)
        of_other, difference = self.first.weight.chunk(2, 1)
        other = widened(nn.functional.linear(rows, of_other))
        own = widened(nn.functional.linear(rows, difference - of_other))
        if len(self.rest):
            made = self._edges(other, own, row)
        else:
            with torch.autocast(x.device.type, enabled=False):  # sums over edges would overflow half precision
                made = self._greatest(other, own, row)
        return made.unflatten(0, x.shape[:2])

    def _greatest(self, other: torch.Tensor, own: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """Norm, LeakyReLU and maximum of other_j + own_i over the neighbours j of i, without the edges."""
        sign = torch.where(self.norm.weight < 0, -1.0, 1.0)
        if not self.training:
            greatest, _ = _Neighbours.apply(sign * other, row)
            mean, variance = self.norm.running_mean, self.norm.running_var
            return self._normed(sign * greatest + own - mean, variance)
        summed = sum_over_processes if type(self.norm) is not nn.BatchNorm1d else lambda x: x
        count = torch.bincount(row.flatten(), minlength=len(other)).to(other.dtype)
        edges = other.new_tensor([row.numel()])
        sums = summed(torch.cat([count @ other, self.k * own.sum(0), edges]))
        edges, (mean_other, mean_own) = sums[-1].detach(), (sums[:-1] / sums[-1].detach()).chunk(2)
        other, own = other - mean_other, own - mean_own
        greatest, total = _Neighbours.apply(sign * other, row)
        squares = count @ other.square() + 2 * (own * sign * total).sum(0) + self.k * own.square().sum(0)
        variance = summed(squares) / edges
        self._keep(mean_other + mean_own, variance * edges / (edges - 1))
        return self._normed(sign * greatest + own, variance)

    def _normed(self, centred: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        scale = self.norm.weight * torch.rsqrt(variance + self.norm.eps)
        return nn.functional.leaky_relu(centred * scale + self.norm.bias, SLOPE)

    @torch.no_grad()
    def _keep(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Running statistics, as batch norms keep them."""
        norm = self.norm
        norm.num_batches_tracked += 1
        share = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)

    def _edges(self, other: torch.Tensor, own: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """Several layers: the first is still made per point, its sum per edge."""
        edge = nn.functional.embedding(row, other) + own.unsqueeze(1)  # (M, k, c)
        edge = nn.functional.leaky_relu(self.norm(edge.flatten(0, 1)), SLOPE)
        return self.rest(edge).unflatten(0, row.shape).amax(1)


class DGCNN(nn.Module):
    """Points (B, N, 3) to features of each (B, N, 1024). A cloud's own are their maximum and mean, 2048."""

    channels = 1024
    pools = ("max", "mean")
    edges = ((64,), (64,), (128,), (256,))  # layers of each EdgeConv

    def __init__(self, k: int, generator: torch.Generator):
        """k: 40 in STRL's pre-training, 20 in fine-tuning; it has no weights. generator (a CPU one) draws them."""
        super().__init__()
        ends = (3, *(widths[-1] for widths in self.edges))
        self.layers = nn.ModuleList(
            EdgeConv(c_in, widths, k, generator) for c_in, widths in zip(ends, self.edges, strict=False)
        )
        self.local = sum(ends[1:])
        self.last = nn.Sequential(
            pointwise(self.local, self.channels, generator), nn.BatchNorm1d(self.channels), nn.LeakyReLU(SLOPE)
        )

    @property
    def k(self) -> int:
        """Neighbours of a point."""
        return self.layers[0].k

    def layered(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, 3) -> what all EdgeConvs made, side by side (B, N, local), and the last layer's (B, N, channels)."""
        found, x = [], point
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        local = torch.cat(found, -1)
        return local, self.last(local.flatten(0, 1)).unflatten(0, point.shape[:2])

    def forward(self, point: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) -> (B, N, channels). Norms see the points of all clouds together."""
        return self.layered(point)[1]

    def features(self, point: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) -> of each point what its cloud has and what it has itself, (B, N, channels + local)."""
        local, last = self.layered(point)
        return torch.cat([last.amax(1, keepdim=True).expand_as(last), local], -1)

    def kept(self, points: int, element: int) -> int:
        """Bytes that autograd keeps for `points` points in all, given the bytes of a number."""
        numbers = 0
        for widths in self.edges:
            per_edge = self.k * (2 * widths[0] + 3 * sum(widths[1:])) if len(widths) > 1 else 0
            numbers += 6 * widths[0] + per_edge
        numbers += self.local + 3 * self.channels
        return points * (4 * numbers + len(self.edges) * (8 * self.k) + sum(widths[-1] for widths in self.edges))


class SegmentingDGCNN(DGCNN):
    """The variant for segmentation: EdgeConvs of two, two and one layers. A cloud's own features are the maximum of its
    points' 1024; what a head on points gets is `features`, 1216."""

    pools = ("max",)
    edges = ((64, 64), (64, 64), (64,))
