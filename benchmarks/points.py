"""What a step of STRL costs with the nets on points, on a GPU or on this CPU: shapes a second and peak memory.

    python -m benchmarks points              PointNet and DGCNN with k = 40 at 2,048 points, of several batches
    python -m benchmarks points --points 64 --batch 4 --seconds 1    a look at this part on a CPU

A step is both views through both nets, Eqs. 4 and 5, backward, LARS and the moving average, on random points that lie
on the device. `plain` is DGCNN with every edge written out. Needs torch alone, neither data nor spconv.
"""

import argparse
import copy
import json
import time

import torch
from torch import nn

from train.nets.dgcnn import DGCNN, SLOPE, nearest
from train.nets.pointnet import PointNet, pointwise
from train.run.lars import Lars, vectors_apart

K, HEAD, OUT = 40, 4096, 256
PAIRS = ((3, 64), (64, 64), (64, 128), (128, 256))


class PlainEdge(nn.Module):
    """An edge convolution with every edge written out."""

    def __init__(self, c_in: int, c_out: int, k: int):
        super().__init__()
        self.k, self.linear, self.norm = k, nn.Linear(2 * c_in, c_out, bias=False), nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, c_in) -> (B, N, c_out)."""
        near = nn.functional.embedding(nearest(x, self.k), x.flatten(0, 1))
        own = x.flatten(0, 1).unsqueeze(1).expand_as(near)
        made = self.linear(torch.cat([near - own, own], -1)).unflatten(0, x.shape[:2])
        return nn.functional.leaky_relu(self.norm(made.permute(0, 3, 1, 2)), SLOPE).amax(-1).transpose(1, 2)


class Branch(nn.Module):
    """A net on points, pooling and projector."""

    def __init__(self, net: nn.Module, generator: torch.Generator):
        super().__init__()
        self.net, self.projector = net, mlp(net.channels * len(net.pools), generator)

    def forward(self, point: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) -> (B, OUT)."""
        features = self.net(point)
        pooled = [features.amax(1) if pool == "max" else features.mean(1) for pool in self.net.pools]
        return self.projector(torch.cat(pooled, -1))


def mlp(c_in: int, generator: torch.Generator) -> nn.Sequential:
    """Projector or predictor."""
    first, second = pointwise(c_in, HEAD, generator), pointwise(HEAD, OUT, generator)
    return nn.Sequential(first, nn.BatchNorm1d(HEAD), nn.ReLU(), second)


def make_net(name: str, k: int, generator: torch.Generator) -> nn.Module:
    """pointnet, dgcnn, or dgcnn with its edges written out."""
    if name == "pointnet":
        return PointNet(generator)
    net = DGCNN(k, generator)
    if name == "plain":
        net.layers = nn.ModuleList(PlainEdge(*pair, k) for pair in PAIRS)
    return net


def measure(name: str, batch: int, given, device: torch.device) -> dict:
    """Milliseconds a step, shapes a second and peak memory."""
    generator = torch.Generator().manual_seed(0)
    online = Branch(make_net(name, min(K, given.points), generator), generator).to(device)
    predictor, target = mlp(OUT, generator).to(device), copy.deepcopy(online).requires_grad_(False)
    groups = vectors_apart([{"params": [*online.parameters(), *predictor.parameters()]}])
    optimiser, made, start = Lars(groups, 0.45, 0.9, 1e-6, 1e-3), 0, 0.0
    views = [torch.randn(batch, given.points, 3, generator=generator).to(device) for _ in range(2)]
    while made < 4 or time.perf_counter() - start < given.seconds:
        if made == 2:  # of warm-up
            _reset(device)
            start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        found = [predictor(online(view)) for view in views]
        with torch.no_grad():
            goal = [target(view) for view in reversed(views)]
        pairs = zip(found, goal, strict=True)
        sum(2 - 2 * nn.functional.cosine_similarity(*pair).mean() for pair in pairs).backward()
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 0.004)
        if device.type == "cuda":
            torch.cuda.synchronize()
        made += 1
    seconds = (time.perf_counter() - start) / (made - 2)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    return {"net": name, "batch": batch, "ms": 1e3 * seconds, "shapes_per_s": batch / seconds, "peak_gb": peak}


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def main(arguments: list[str]) -> None:
    """Measure, a line of JSON each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks points")
    parser.add_argument("--points", type=int, default=2048)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--seconds", type=float, default=5)
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(torch.__version__, torch.cuda.get_device_name() if device.type == "cuda" else "CPU")
    runs = [(name, batch) for name in ("pointnet", "dgcnn") for batch in given.batch]
    for name, batch in [*runs, ("plain", min(given.batch))]:
        print(json.dumps(measure(name, batch, given, device)), flush=True)
