"""One residual sparse U-Net for 3 and 4 dimensions (4DContrast, appendix A).

Shapes. n voxels; level l has stride 2^l in space, time is never strided. planes has an entry per encoder level, then
one per decoder level.

    stem      3 -> stem
    encoder l strided convolution that keeps its channels, norm, ReLU; layers[l] blocks to planes[l]
    decoder l inverse convolution to planes, norm, ReLU; joined with the features of its encoder level; blocks to planes

Assumptions, none of them in the paper: layer counts, planes and the order above follow the field's 34-layer net and its
variant 14A; in 4D the stem sees space only and block kernels are hybrid (`sparse.Hybrid`); weights start by He's rule
over the fan-out.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from train.inputs.voxels import Voxels
from train.nets import sparse


@dataclass(frozen=True)
class NetShape:
    """layers: blocks per stage; planes: channels per stage, encoder then decoder, two a level; stem: its channels."""

    layers: tuple[int, ...]
    planes: tuple[int, ...]
    stem: int

    def __post_init__(self):
        if len(self.layers) != len(self.planes) or len(self.planes) % 2 or not self.planes:
            raise ValueError(f"layers {self.layers}, planes {self.planes}: as many of each, one pair per level")

    @property
    def levels(self) -> int:
        """How often the net halves its resolution."""
        return len(self.planes) // 2


NETS = {
    "34": NetShape((2, 3, 4, 6, 2, 2, 2, 2), (32, 64, 128, 256, 256, 128, 96, 96), 32),
    "14a": NetShape((1,) * 8, (32, 64, 128, 256, 128, 128, 96, 96), 32),
    "small": NetShape((1,) * 6, (16, 32, 64, 64, 32, 32), 16),  # a CPU's 3D net
    "small-4d": NetShape((1,) * 6, (8, 16, 32, 32, 16, 16), 8),
}


@dataclass(frozen=True)
class Norm:
    """Batch norm's fields. 0.05 is the momentum of the field's pre-training code; eps is torch's."""

    momentum: float = 0.05
    eps: float = 1e-5

    def layer(self, channels: int) -> nn.BatchNorm1d:
        """Norm over the voxels (n, channels) of one forward."""
        return nn.BatchNorm1d(channels, eps=self.eps, momentum=self.momentum)


DEFAULT_NORM = Norm()


class ConvNorm(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, conv: nn.Module, channels: int, norm: Norm):
        super().__init__()
        self.conv = conv
        self.norm = norm.layer(channels)

    def forward(self, x: sparse.Tensor) -> sparse.Tensor:
        """(n, c) -> (m, channels)."""
        x = self.conv(x)
        return sparse.replace(x, torch.relu(self.norm(x.features)))


class Block(nn.Module):
    """Two 3^d convolutions with norms beside an identity, a pointwise layer with norm where channels change."""

    def __init__(self, dims: int, c_in: int, c_out: int, level: int, norm: Norm):
        super().__init__()
        self.first = ConvNorm(sparse.block_convolution(dims, c_in, c_out, level), c_out, norm)
        self.second = sparse.block_convolution(dims, c_out, c_out, level)
        self.norm = norm.layer(c_out)
        self.shortcut = nn.Identity()
        if c_in != c_out:
            self.shortcut = nn.Sequential(nn.Linear(c_in, c_out, bias=False), norm.layer(c_out))

    def forward(self, x: sparse.Tensor) -> sparse.Tensor:
        """(n, c_in) -> (n, c_out)."""
        y = self.second(self.first(x))
        return sparse.replace(y, torch.relu(self.norm(y.features) + self.shortcut(x.features)))


def blocks(dims: int, channels: tuple[int, int], count: int, level: int, norm: Norm) -> nn.Sequential:
    """`count` blocks, the first of which changes the channels."""
    widths = [channels[0], *[channels[1]] * count]
    return nn.Sequential(*(Block(dims, *pair, level, norm) for pair in itertools.pairwise(widths)))


class UNet(nn.Module):
    """The backbone: features of voxels in, features of the same voxels out, `channels` of them."""

    def __init__(
        self, shape: NetShape, dims: int, generator: torch.Generator, channels_in: int = 3, norm: Norm = DEFAULT_NORM
    ):
        """dims 3 or 4; generator draws the weights (a CPU one). Raises ValueError for other dims."""
        super().__init__()
        if dims not in (3, 4):
            raise ValueError(f"dims {dims}: 3 or 4")
        levels, planes = shape.levels, shape.planes
        skips = (shape.stem, *planes[: levels - 1])  # channels of what level l hands over to its decoder
        step = (2, 2, 2) if dims == 3 else (2, 2, 2, 1)
        self.shape, self.dims, self.channels = shape, dims, planes[-1]
        self.multiple = tuple(2**levels if stride == 2 else 1 for stride in step)
        kernel = (3, 3, 3) if dims == 3 else (3, 3, 3, 1)
        self.stem = ConvNorm(sparse.submanifold(channels_in, shape.stem, kernel, 0), shape.stem, norm)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            width = skips[level]
            self.down.append(ConvNorm(sparse.strided(width, width, step, level), width, norm))
            self.encoder.append(blocks(dims, (width, planes[level]), shape.layers[level], level + 1, norm))
        width = planes[levels - 1]
        for stage, level in enumerate(reversed(range(levels)), start=levels):
            self.up.append(ConvNorm(sparse.inverse(width, planes[stage], step, level), planes[stage], norm))
            width = planes[stage]
            self.decoder.append(blocks(dims, (width + skips[level], width), shape.layers[stage], level, norm))
        initialise(self, generator)

    def forward(self, voxels: Voxels, features: torch.Tensor, batch_size: int | None = None) -> torch.Tensor:
        """(n, channels_in) features of n voxels -> (n, channels). batch_size: clouds in it, counted where not given.

        Raises sparse.SparseError for coordinates that spconv would get wrong without a word, or too many of them."""
        if batch_size is None:
            batch_size = int(voxels.coordinate[:, 0].amax()) + 1 if len(voxels.coordinate) else 0
        x = self.stem(sparse.tensor(voxels.coordinate, features, voxels.size, batch_size, self.multiple, voxels.books))
        skips = []
        for down, encoder in zip(self.down, self.encoder, strict=True):
            skips.append(x)
            x = encoder(down(x))
        for up, decoder in zip(self.up, self.decoder, strict=True):
            x = decoder(sparse.concat(up(x), skips.pop()))
        return x.features

    def with_rulebooks(self, voxels: Voxels, batch_size: int) -> Voxels:
        """Voxels with all rulebooks that a forward will look for. Raises what a forward raises for coordinates."""
        none = voxels.coordinate.new_zeros(len(voxels.coordinate), 0)
        at = [sparse.tensor(voxels.coordinate, none, voxels.size, batch_size, self.multiple)]
        for down in self.down:
            book = down.conv.rulebook(at[-1])
            at.append(at[-1]._replace(indices=book.indices, size=book.size))
        for part in self.modules():
            if isinstance(part, sparse.Conv) and part.kind == "same":
                part.rulebook(at[part.level])
        return voxels._replace(books=at[0].books)


def match_norms(net: UNet, like: UNet) -> None:
    """Scales every weight of a net that a norm follows to the length that it has in another net of the same shape. The
    net's function stays what it is, up to the norms' eps: their running statistics are scaled along. What changes is
    the size of an update relative to the weight."""
    with torch.no_grad():
        for (weight, norm), (wanted, _) in zip(_normed(net), _normed(like), strict=True):
            factor = wanted.norm() / weight.norm()
            weight *= factor
            norm.running_mean *= factor
            norm.running_var *= factor**2


def _normed(net: UNet) -> Iterator[tuple[torch.Tensor, nn.BatchNorm1d]]:
    """Weights without bias and the norms that follow them."""
    for part in net.modules():
        if isinstance(part, ConvNorm):
            yield part.conv.weight, part.norm
        elif isinstance(part, Block):
            yield part.second.weight, part.norm
            if isinstance(part.shortcut, nn.Sequential):
                yield part.shortcut[0].weight, part.shortcut[1]


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draws all weights anew. Convolutions: normal, std sqrt(2 / fan-out) (A), fan-out = channels out x taps, where the
    two parts of a hybrid kernel count as one. Pointwise layers: alike without bias, else uniform in +-1/sqrt(c_in)."""
    taps = {}
    for part in module.modules():
        if isinstance(part, sparse.Hybrid):
            whole = math.prod(part.space.kernel) + math.prod(part.time.kernel)
            taps |= {part.space: whole, part.time: whole}
        elif isinstance(part, sparse.Conv):
            _he(part.weight, taps.get(part, math.prod(part.kernel)), generator)
        elif isinstance(part, nn.Linear) and part.bias is None:
            _he(part.weight, 1, generator)
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            nn.init.uniform_(part.bias, -bound, bound, generator=generator)


def _he(weight: torch.Tensor, taps: int, generator: torch.Generator) -> None:
    nn.init.normal_(weight, std=math.sqrt(2 / (weight.shape[0] * taps)), generator=generator)
