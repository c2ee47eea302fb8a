"""Sparse convolutions on whatever `train.nets.backends` has chosen, and what has to be checked before.

Conventions. A sparse tensor is a set of voxels: `indices` (n, 1 + d) int32 of [cloud in the batch, x, y, z (, time)],
and `features` (n, channels). d is 3, or 4 with time last. Weights lie as (out, kernel..., in).

What spconv does not check itself: it takes duplicate, negative and out-of-range coordinates silently, overflows 32-bit
offsets, and drops the last voxels where a stride does not divide the size. What its layers do not have: in evaluation
mode no gradients and no autocast. So layers here are our own, around its functions for index pairs and products.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from train.errors import Refused
from train.nets import backends
from train.nets.backends import one_thread

INT32_BYTES = 2**31


class SparseError(Refused):
    """Input that spconv would take silently and get wrong, or a backend that computes wrong numbers here."""


# Tensors ------------------------------------------------------------------------------------------------------------


class Rulebook(NamedTuple):
    """Which voxels one kernel connects, as the backend keeps it. Output voxels: indices (m, 1 + d) and their size."""

    indices: torch.Tensor
    size: list[int]
    pairs: tuple


class Tensor(NamedTuple):
    """Features (n, channels) on voxels: indices (n, 1 + d) below `size`, of batch_size clouds. books: the rulebooks
    made so far in this forward, by the key of their layers; tensors of one forward share them."""

    features: torch.Tensor
    indices: torch.Tensor
    size: list[int]
    batch_size: int
    books: dict[str, Rulebook]


def tensor(
    coordinate: torch.Tensor,
    features: torch.Tensor,
    size: Sequence[int],
    batch_size: int,
    multiple: Sequence[int] | None = None,
    books: dict[str, Rulebook] | None = None,
) -> Tensor:
    """A sparse tensor, after the checks that spconv omits.

    coordinate: (n, 1 + d) int32, unique rows of [cloud, x, y, z (, time)], 0 <= cloud < batch_size, 0 <= axis < size.
    features: (n, channels). size: d exclusive bounds. multiple: the size is rounded up to it per axis: give the net's
    total stride, or the last voxels of an axis vanish. books: rulebooks that were made of these voxels, which were
    checked then.
    Raises SparseError.
    """
    if books is None:
        check_coordinates(coordinate, size, batch_size)
    if features.shape[0] != coordinate.shape[0]:
        raise SparseError(f"{features.shape[0]} rows of features for {coordinate.shape[0]} voxels: one row each")
    multiple = multiple or (1,) * len(size)
    rounded = [-(-extent // step) * step for extent, step in zip(size, multiple, strict=True)]
    return Tensor(features, coordinate.contiguous(), rounded, batch_size, {} if books is None else books)


def check_coordinates(coordinate: torch.Tensor, size: Sequence[int], batch_size: int) -> None:
    """Raises SparseError unless the rows are int32, unique, in [0, size) and of clouds in [0, batch_size)."""
    bound = [int(batch_size), *map(int, size)]
    if coordinate.dtype != torch.int32 or coordinate.ndim != 2 or coordinate.shape[1] != len(bound):
        raise SparseError(
            f"coordinates {tuple(coordinate.shape)} {coordinate.dtype}: needs (n, {len(bound)}) int32 of "
            "[cloud, axes...]; cast with .int() and put the cloud's number first"
        )
    if coordinate.shape[0] == 0 or batch_size < 1:
        raise SparseError(
            f"{coordinate.shape[0]} voxels of {batch_size} clouds: at least one of each; leave empty frames out"
        )
    if math.prod(bound) >= 2**63:
        raise SparseError(f"batch x size {bound}: more cells than 64 bits count; drop far outliers before voxelising")
    low, high = torch.stack([coordinate.amin(0), coordinate.amax(0)]).tolist()
    names = ["cloud number", *(f"axis {axis}" for axis in range(len(size)))]
    for name, least, most, limit in zip(names, low, high, bound, strict=True):
        if least < 0 or most >= limit:
            raise SparseError(
                f"{name} spans {least} to {most}: 0 to {limit - 1} allowed; shift by the minimum and give the "
                "batch and size that enclose all voxels"
            )
    _check_unique(coordinate, bound)


def _check_unique(coordinate: torch.Tensor, bound: list[int]) -> None:
    key = torch.zeros(coordinate.shape[0], dtype=torch.int64, device=coordinate.device)
    for axis, extent in enumerate(bound):
        key.mul_(extent).add_(coordinate[:, axis])
    if bool((key[1:] > key[:-1]).all()):  # rows in order need no sort
        return
    ordered, row = key.sort(stable=True)
    again = torch.nonzero(ordered[1:] == ordered[:-1])
    if len(again):
        first, second = row[again[0, 0]].item(), row[again[0, 0] + 1].item()
        raise SparseError(
            f"{len(again)} of {len(key)} voxels are repeated, e.g. rows {first} and {second} are both "
            f"{coordinate[first].tolist()}: a voxel comes once; voxelise again, or keep the first row of each"
        )


def replace(x: Tensor, features: torch.Tensor) -> Tensor:
    """The same voxels with other features (n, channels')."""
    return x._replace(features=features)


def concat(x: Tensor, skip: Tensor) -> Tensor:
    """Channels of two tensors on the same voxels, side by side."""
    return replace(x, torch.cat([x.features, skip.features], dim=1))


# Layers -------------------------------------------------------------------------------------------------------------


class Conv(nn.Module):
    """One sparse convolution without bias.

    kind: `same` keeps its voxels; `down` goes from its level to the next coarser one, kernel = stride; `up` is the way
    back of the `down` of its level. Layers of one key share their index pairs."""

    def __init__(self, kind: str, c_in: int, c_out: int, kernel: Sequence[int], level: int):
        super().__init__()
        self.kind, self.channels, self.kernel, self.level = kind, (c_in, c_out), tuple(kernel), level
        self.key = f"sub{level}:" + "x".join(map(str, kernel)) if kind == "same" else f"down{level}"
        self.stride = (1,) * len(kernel) if kind == "same" else self.kernel
        self.weight = nn.Parameter(torch.zeros(c_out, *kernel, c_in))

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.channels[0]} -> {self.channels[1]}, kernel {self.kernel}"

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in) on the voxels of `x` -> (m, c_out). Raises SparseError where 32-bit offsets would overflow."""
        book = self.rulebook(x)
        rows = max(x.features.shape[0], book.indices.shape[0]) if self.kind == "up" else x.features.shape[0]
        if backends.chosen(x.features.device).name == "spconv":
            check_bytes(rows, max(self.channels), element_bytes(x.features))
        return Tensor(_convolve(self, x.features, book), book.indices, book.size, x.batch_size, x.books)

    def rulebook(self, x: Tensor) -> Rulebook:
        """The rulebook from the voxels of `x`: found among those of this forward, or made and kept there."""
        if self.key not in x.books:
            book = _make_rulebook(self, x)
            x.books[self.key] = book
            if self.kind == "down":
                x.books[f"{self.key} back"] = Rulebook(x.indices, x.size, book.pairs)
        return x.books[f"{self.key} back" if self.kind == "up" else self.key]


def _make_rulebook(conv: Conv, x: Tensor) -> Rulebook:
    dims, device = len(conv.kernel), x.indices.device
    backend, same = backends.chosen(device), conv.kind == "same"
    size = x.size if same else [extent // step for extent, step in zip(x.size, conv.stride, strict=True)]
    fixed = (x.indices, x.batch_size, x.size, backend.algorithm(device))
    shape = ([*conv.kernel], [*conv.stride], [0] * dims, [1] * dims, [0] * dims, same)
    if device.type == "cuda":
        indices, _, *pairs = backend.ops.get_indice_pairs_implicit_gemm(*fixed, *shape)
    else:
        _check_cells(x.size, x.batch_size)
        indices, *pairs = backend.ops.get_indice_pairs(*fixed, *shape)
    return Rulebook(indices, size, tuple(pairs))


def _check_cells(size: Sequence[int], batch_size: int) -> None:
    """On a CPU spconv tells voxels apart by a 32-bit number of their cell: beyond it, far ones become neighbours."""
    cells = batch_size * math.prod(size)
    if cells >= 2**32:
        raise SparseError(
            f"{batch_size} clouds of {' x '.join(map(str, size))} voxels = {cells:.2e} cells: below 2^32 for spconv on "
            "a CPU; use fewer clouds in one forward (batch, accumulate), larger voxels, or drop far outliers"
        )


def _convolve(conv: Conv, features: torch.Tensor, book: Rulebook) -> torch.Tensor:
    functional, rows = backends.chosen(features.device).functional, book.indices.shape[0]
    features = features.contiguous()
    if features.is_cuda:
        *pairs, masks = book.pairs  # three times (forth, back): pairs, their masks, the order of these
        if conv.kind == "up":
            pairs = [pairs[i] for i in (1, 0, 3, 2, 5, 4)]
        return functional.implicit_gemm(features, conv.weight, *pairs, rows, masks, True, conv.kind == "same")
    call = {"same": "indice_subm_conv", "down": "indice_conv", "up": "indice_inverse_conv"}[conv.kind]
    algorithm = backends.chosen(features.device).native
    return getattr(functional, call)(features, conv.weight, *book.pairs, rows, algorithm)


def element_bytes(features: torch.Tensor) -> int:
    """Bytes of a number in a convolution of these features: under autocast they are cast first."""
    if features.is_cuda and torch.is_autocast_enabled("cuda"):
        return torch.get_autocast_dtype("cuda").itemsize
    return features.element_size()


def check_bytes(rows: int, channels: int, element: int) -> None:
    """Raises SparseError unless rows * channels * element < 2^31: spconv addresses bytes with 32 bits."""
    needed = rows * channels * element
    if needed >= INT32_BYTES:
        raise SparseError(
            f"{rows} voxels x {channels} channels x {element} bytes = {needed}: below 2^31 for spconv; use fewer "
            "sequences in one forward (accumulate, a divisor of batch) or larger voxels"
        )


def submanifold(c_in: int, c_out: int, kernel: Sequence[int], level: int) -> Conv:
    """Convolution whose output voxels are its input voxels. kernel: one odd extent per dimension, not all of them 1.

    Layers of one level and kernel share their index pairs. Raises SparseError for another kernel."""
    if math.prod(kernel) == 1 or not all(taps % 2 for taps in kernel):
        raise SparseError(
            f"kernel {tuple(kernel)}: odd extents, not all 1: an even one has no centre, and of a kernel of 1 spconv "
            "reads the weights as (in, out) where all others are (out, in): use nn.Linear on the features"
        )
    return Conv("same", c_in, c_out, kernel, level)


def strided(c_in: int, c_out: int, stride: Sequence[int], level: int) -> Conv:
    """Convolution to the next coarser level, kernel = stride. stride: one per dimension, dividing the size."""
    return Conv("down", c_in, c_out, stride, level)


def inverse(c_in: int, c_out: int, stride: Sequence[int], level: int) -> Conv:
    """The way back of `strided` of the same level: exactly the voxels that it started from, in their order."""
    return Conv("up", c_in, c_out, stride, level)


class Hybrid(nn.Module):
    """4D convolution as the sum of one in space, k x k x k x 1, and one in time, 1 x 1 x 1 x k: 30 taps for k = 3.

    A full 3^4 kernel has 81 taps, and spconv's fast path ends at 32 (DESIGN 7)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, level: int):
        super().__init__()
        self.space = submanifold(c_in, c_out, (kernel, kernel, kernel, 1), level)
        self.time = submanifold(c_in, c_out, (1, 1, 1, kernel), level)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in) -> (n, c_out) on the same voxels."""
        return replace(x, self.space(x).features + self.time(x).features)


def block_convolution(dims: int, c_in: int, c_out: int, level: int) -> Conv | Hybrid:
    """The 3^d convolution of a residual block: 3x3x3 in 3D, hybrid in 4D."""
    return submanifold(c_in, c_out, (3, 3, 3), level) if dims == 3 else Hybrid(c_in, c_out, 3, level)


class LayerAlgorithm(NamedTuple):
    name: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    channels: tuple[int, int]
    algorithm: str


def describe_algorithms(module: nn.Module) -> list[LayerAlgorithm]:
    """What the backend runs for every convolution in `module`, on the device that it is on."""
    layers = [(name, conv) for name, conv in module.named_modules() if isinstance(conv, Conv)]
    return [
        LayerAlgorithm(name, conv.kernel, conv.stride, conv.channels, _algorithm(conv).name) for name, conv in layers
    ]


def _algorithm(conv: Conv):
    return backends.chosen(conv.weight.device).algorithm(conv.weight.device)


# Self-check ---------------------------------------------------------------------------------------------------------

_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 3e-2,
}  # of the largest value; a race errs by 0.3 and more
_TF32_TOLERANCE = 1e-2  # float32 products of 10 bits


def self_check(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
    """Raises SparseError unless small 3D and 4D nets compute what a dense one does in float64, forward and backward.

    dtype float16 runs under autocast and needs CUDA. Takes about 0.3 s on a CPU: call it before any training.
    """
    device = torch.device(device)
    backend, allowed = backends.chosen(device).name, _TOLERANCE[dtype]
    if device.type == "cuda" and dtype == torch.float32 and backends.tf32():
        allowed = _TF32_TOLERANCE
    for dims in (3, 4):
        worst, name = _largest_error(dims, device, dtype)
        if not worst <= allowed:
            raise SparseError(
                f"self-check: {backend}'s {dims}D {name} on {device} is off by {worst:.2g} of its largest value "
                f"({allowed:.0e} allowed for {dtype}): its numbers cannot be trusted here. Look for two installed "
                "spconv or cumm packages, a GPU newer than the spconv build, or TF32 used before in this process"
            )


def _largest_error(dims: int, device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    generator = torch.Generator().manual_seed(dims)
    size = (24, 23, 22) if dims == 3 else (13, 12, 11, 4)
    cells = torch.rand(2, *size, generator=generator) < 0.45
    coordinate = torch.nonzero(cells).int()
    features = torch.randn(len(coordinate), 4, generator=generator, dtype=torch.float64)
    stride = (2, 2, 2) if dims == 3 else (2, 2, 2, 1)
    layers = nn.ModuleList([block_convolution(dims, 4, 8, 0), strided(8, 6, stride, 0), inverse(6, 5, stride, 0)])
    for weight in layers.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    target = torch.randn(len(coordinate), 5, generator=generator, dtype=torch.float64)
    with one_thread():
        expected = _dense_results(layers, coordinate, features, target)
    autocast = torch.autocast(device.type, dtype=torch.float16, enabled=dtype == torch.float16)
    layers.to(device, torch.float64 if dtype == torch.float64 else torch.float32)
    given = features.to(device, next(layers.parameters()).dtype).requires_grad_()
    with autocast:
        x = tensor(coordinate.to(device), given, size, 2, multiple=stride)
        for layer in layers:
            x = layer(x)
    (x.features.double() * target.to(device)).sum().backward()
    names, weights = zip(*layers.named_parameters(), strict=True)
    results = [x.features, given.grad, *(weight.grad for weight in weights)]
    labels = ["output", "input gradient", *(f"gradient of {name}" for name in names)]
    errors = [relative_error(result, dense) for result, dense in zip(results, expected, strict=True)]
    return max(zip(errors, labels, strict=True))


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest expected value; inf where the result is not finite."""
    difference = (result.detach().double().cpu() - expected).abs().max().item()
    return difference / expected.abs().max().item() if math.isfinite(difference) else math.inf


def _dense_results(
    layers: nn.ModuleList, coordinate: torch.Tensor, features: torch.Tensor, target: torch.Tensor
) -> list[torch.Tensor]:
    weights = [weight.detach().double().requires_grad_() for weight in layers.parameters()]
    features = features.clone().requires_grad_()
    x = sum(_dense_submanifold(coordinate.long(), features, weight) for weight in weights[:-2])
    x = _dense_down_up(coordinate.long(), x, weights[-2], weights[-1])
    (x * target).sum().backward()
    return [x.detach(), features.grad, *(weight.grad for weight in weights)]


def _dense_submanifold(coordinate: torch.Tensor, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Sum over taps on a dense grid of row numbers; what is empty points at a row of zeros."""
    kernel = weight.shape[1:-1]
    extent = coordinate.amax(0) + 1 + torch.tensor([0, *(taps - 1 for taps in kernel)])
    grid = torch.full(extent.tolist(), len(features))
    centre = torch.tensor([0, *(taps // 2 for taps in kernel)])
    grid[tuple((coordinate + centre).T)] = torch.arange(len(features))
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    out = features.new_zeros(len(features), weight.shape[0])
    for tap in itertools.product(*map(range, kernel)):
        neighbour = grid[tuple((coordinate + torch.tensor([0, *tap])).T)]
        out = out + padded[neighbour] @ weight[(slice(None), *tap)].T
    return out


def _dense_down_up(
    coordinate: torch.Tensor, features: torch.Tensor, down: torch.Tensor, up: torch.Tensor
) -> torch.Tensor:
    """Kernel = stride: every voxel meets its parent cell through the one tap that its place in the cell names."""
    stride = torch.tensor(down.shape[1:-1])
    parent = torch.cat([coordinate[:, :1], coordinate[:, 1:] // stride], dim=1)
    cells, cell = torch.unique(parent, dim=0, return_inverse=True)
    tap = tuple((coordinate[:, 1:] % stride).T)
    sent = torch.einsum("noi,ni->no", down[(slice(None), *tap)].transpose(0, 1), features)
    coarse = features.new_zeros(len(cells), down.shape[0]).index_add(0, cell, sent)
    return torch.einsum("noi,ni->no", up[(slice(None), *tap)].transpose(0, 1), coarse[cell])
