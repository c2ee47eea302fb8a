"""How much memory a run will need, counted from its own data and nets, and how much there is.

What autograd keeps is counted layer by layer (tests compare it with what autograd really keeps): a convolution keeps
its input and the index pairs of its level, a norm its input, a ReLU its output. All frames' graphs live until the
backward pass, so their voxels add up.
"""

import pathlib
from typing import NamedTuple

import numpy as np
import torch

from train.batch import Voxels
from train.loader import Loader
from train.methods.contrast import Contrast
from train.nets.unet import NetShape

_SAMPLED = 4  # sequences whose voxels are counted
_OVERHEAD = 1.15  # gradients in flight, buffers of convolutions, fragmentation


class NeedsMemory(ValueError):
    """More memory is needed than there is."""


class Estimate(NamedTuple):
    """Bytes, and what they were counted from."""

    voxels_3d: int  # of one frame index, in one forward
    voxels_4d: int
    parameters: int
    weights: int  # with gradients and momentum
    kept: int  # for the backward pass
    batch: int  # one, on the device
    host: int  # batches being made ahead

    @property
    def device(self) -> int:
        """Where the nets run."""
        return int((self.weights + self.kept + self.batch) * _OVERHEAD)


def estimate(loader: Loader, model: Contrast, precision: str) -> Estimate:
    """Memory for training `model` on batches of `loader`, from the voxels of its first sequences."""
    size = loader.share.part_size
    sampled = min(size, _SAMPLED)
    batch = loader.sample(sampled)
    scale = size / sampled
    element = {"float16": 2, "float32": 4, "float64": 8}[precision]
    shapes = model.config.net_3d, model.config.net_4d
    kept = sum(kept_bytes(shapes[0], 3, level_counts(v, shapes[0].levels), element) for v in batch.frame)
    if batch.sequence:
        kept += kept_bytes(shapes[1], 4, level_counts(batch.sequence, shapes[1].levels), element)
    parameters = sum(p.numel() for p in model.parameters())
    copies = 3 * max(element, 4) + (element if precision == "float16" else 0)
    tensors = int(_batch_bytes(batch) * scale)
    return Estimate(
        voxels_3d=int(np.mean([len(v.coordinate) for v in batch.frame]) * scale),
        voxels_4d=int(len(batch.sequence.coordinate) * scale) if batch.sequence else 0,
        parameters=parameters,
        weights=parameters * copies,
        kept=int(kept * scale),
        batch=tensors,
        host=tensors * (loader.workers + 1) * 3 // 2,
    )


def level_counts(voxels: Voxels, levels: int) -> list[int]:
    """Voxels at level 0, 1, .. `levels`: every level halves x, y and z, and keeps time."""
    coordinate = voxels.coordinate.numpy().astype(np.int64)
    shift = np.array([0, 1, 1, 1, 0][: coordinate.shape[1]])
    counts = []
    for level in range(levels + 1):
        key = np.zeros(len(coordinate), np.int64)
        for column in (coordinate >> (shift * level)).T:
            key = key * (int(column.max(initial=0)) + 1) + column
        counts.append(len(np.unique(key)))
    return counts


def kept_bytes(shape: NetShape, dims: int, voxels: list[int], element: int) -> int:
    """What autograd keeps of one forward of a U-Net, given the voxels of each level and the bytes of a number."""
    floats = pairs = 0
    widths = (shape.stem, *shape.planes[: shape.levels - 1])
    floats += 2 * shape.stem * voxels[0]
    for level in range(shape.levels):
        floats += 2 * widths[level] * voxels[level + 1]
        floats += _blocks(widths[level], shape.planes[level], shape.layers[level]) * voxels[level + 1]
    for stage, level in enumerate(reversed(range(shape.levels)), start=shape.levels):
        width, joined = shape.planes[stage], shape.planes[stage] + widths[level]
        floats += (2 * width + joined + _blocks(joined, width, shape.layers[stage])) * voxels[level]
    taps = 27 if dims == 3 else 30
    for level in range(shape.levels + 1):
        pairs += taps * 2 * voxels[level]
    pairs += sum(8 * 2 * n for n in voxels[:-1])
    return floats * element + pairs * 4


def _blocks(c_in: int, c_out: int, count: int) -> int:
    """Numbers a voxel that a stage's blocks keep: of each two convolutions, norms and ReLUs, and of its shortcut."""
    return 4 * c_out * count + (c_out if c_in != c_out else 0)


def _batch_bytes(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(_batch_bytes, value)) if isinstance(value, tuple) else 0


def available(device: torch.device) -> int:
    """Bytes that can still be had: of the GPU, or of the machine within its control group's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    group = pathlib.Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def check(needed: Estimate, loader: Loader, device: torch.device) -> None:
    """Raises NeedsMemory, with the split of the batch that would fit, where less is available than needed."""
    free = available(device)
    host = 0 if device.type == "cuda" else needed.host
    if needed.device + host <= free:
        return
    share, size = loader.share, loader.share.part_size
    parts = [size // n for n in range(size, 0, -1) if size % n == 0]
    fits = [n for n in parts if needed.weights * _OVERHEAD + (needed.device - needed.weights * _OVERHEAD) / n <= free]
    remedy = f"set accumulate={share.accumulate * fits[0]}" if fits else "use larger voxels or smaller nets"
    raise NeedsMemory(
        f"a step needs about {needed.device / 1e9:.1f} GB on {device}, {free / 1e9:.1f} GB are free: {remedy}"
    )
