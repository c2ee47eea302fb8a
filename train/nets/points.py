"""Operations on points that point nets and detectors are made of: compiled on a CPU, plain torch on a GPU.

Nothing needs a compiler of the user's. Semantics are those of PointNet++ and VoteNet as published, but for one thing:
their farthest points never are points within 3.2 cm of the origin, which here are points like any other.
"""

import torch

from train.nets import point_kernels as kernels

_CHUNK = 1 << 24  # distances that lie in a GPU's memory at once


def farthest_points(point: torch.Tensor, count: int) -> torch.Tensor:
    """Indices (count,) int64 of points (n, 3): the first is 0, each further one lies farthest from those before it, of
    equals the lowest. Of fewer than `count` points the order is repeated. Raises ValueError for none."""
    if not len(point):
        raise ValueError("no points: at least one is needed to choose from")
    taken = min(count, len(point))
    index = point.new_empty(taken, dtype=torch.int64)
    if point.is_cuda:
        _farthest_on_gpu(point, index)
    else:
        scratch = point.new_empty(len(point), dtype=torch.float32)
        kernels.farthest(_array(point), scratch.numpy(), index.numpy())
    return index[torch.arange(count, device=point.device) % taken]


def _farthest_on_gpu(point: torch.Tensor, index: torch.Tensor) -> None:
    point = point.detach().float()
    nearest = torch.full((len(point),), torch.inf, device=point.device)
    last = torch.zeros(1, dtype=torch.int64, device=point.device)  # an index of one element never waits for the device
    for taken in range(len(index)):
        index[taken : taken + 1] = last
        nearest = torch.minimum(nearest, _squared(point, point.index_select(0, last)))
        nearest.index_fill_(0, last, -1)  # which stays the least
        last = nearest.argmax().view(1)


def points_in_balls(centre: torch.Tensor, point: torch.Tensor, radius: float, count: int) -> torch.Tensor:
    """Indices (m, count) int64 of the first points (n, 3), by index, whose distance to each centre (m, 3) is below a
    radius. What is left repeats the first of them; where there is none, all are 0. Raises ValueError for no points."""
    if not len(point):
        raise ValueError("no points: at least one is needed to search in")
    squared = float(torch.tensor(radius, dtype=torch.float32) ** 2)
    if not point.is_cuda:
        out = torch.empty((len(centre), count), dtype=torch.int64)
        kernels.in_balls(_array(centre), _array(point), squared, out.numpy())
        return out
    parts = [_in_balls_on_gpu(part, point, squared, count) for part in _parts(centre, point)]
    return torch.cat(parts) if parts else torch.empty((0, count), dtype=torch.int64, device=point.device)


def _in_balls_on_gpu(centre: torch.Tensor, point: torch.Tensor, squared: float, count: int) -> torch.Tensor:
    inside = _squared(centre.detach().float()[:, None], point.detach().float()[None]) < squared
    rank = inside.cumsum(dim=1) - 1
    place = torch.where(inside & (rank < count), rank, count)
    index = torch.arange(len(point), device=point.device).expand_as(place)
    out = torch.full((len(centre), count + 1), -1, dtype=torch.int64, device=point.device)
    out = out.scatter(1, place, index)[:, :count]
    return torch.where(out < 0, out[:, :1].clamp(min=0), out)


def three_nearest(centre: torch.Tensor, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances (m, 3) float32 and indices (m, 3) int64 of the three points (n, 3) nearest to each centre (m, 3),
    nearest first, of equals the lowest index. Raises ValueError for fewer than three points."""
    if len(point) < 3:
        raise ValueError(f"{len(point)} points: three are needed")
    if point.is_cuda:
        found = [_three_on_gpu(part, point) for part in _parts(centre, point)]
        squared, index = (torch.cat(parts) for parts in zip(*found, strict=True))
    else:
        squared = torch.empty((len(centre), 3), dtype=torch.float32)
        index = torch.empty((len(centre), 3), dtype=torch.int64)
        kernels.three(_array(centre), _array(point), squared.numpy(), index.numpy())
    return squared.sqrt(), index


def _three_on_gpu(centre: torch.Tensor, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    squared = _squared(centre.detach().float()[:, None], point.detach().float()[None])
    found = squared.sort(dim=1, stable=True)
    return found.values[:, :3], found.indices[:, :3]


def _parts(centre: torch.Tensor, point: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Centres in parts whose distances to all points fit."""
    return centre.split(max(1, _CHUNK // len(point)))


def _squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared distances, summed as the compiled loops do."""
    x, y, z = (a - b).unbind(-1)
    return x * x + y * y + z * z


def _array(point: torch.Tensor):
    return point.detach().float().contiguous().numpy()
