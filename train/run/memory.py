"""How much memory a run will need, counted from its own data and nets, and how much there is.

All frames' graphs live until the backward pass, so what their forwards keep adds up.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import torch

from train.errors import Refused
from train.run.precision import BYTES

_SAMPLED = 4  # items whose voxels are counted
_OVERHEAD = 1.15  # gradients in flight, buffers of convolutions, fragmentation
ADDRESSED = 2**31  # bytes of one tensor that spconv can address


class NeedsMemory(Refused):
    """More memory is needed than there is, or than can be addressed."""


class Forward(NamedTuple):
    """One forward pass of a net. dims: of its voxels; kept: bytes for the backward pass; widest: bytes of the largest
    tensor that one convolution reads or writes; pairs: bytes of its index pairs, which are among those kept."""

    dims: int
    voxels: int
    kept: int
    widest: int
    pairs: int = 0


class Estimate(NamedTuple):
    """Bytes, and what they were counted from."""

    voxels_3d: int  # of one frame index, in one forward
    voxels_4d: int
    parameters: int
    weights: int  # with gradients and momentum
    kept: int  # for the backward pass, and index pairs made ahead for the next step
    widest: int  # largest tensor of one convolution
    batch: int  # one, on the device
    host: int  # batches being made ahead

    @property
    def device(self) -> int:
        """All that lies where the nets run."""
        return int((self.weights + self.kept + self.batch) * _OVERHEAD)


def estimate(stream, model, precision: str, rulebooks_ahead: bool = False) -> Estimate:
    """Memory for training `model` on batches of `stream`, from the voxels of its first items.

    model.forwards(batch, element) says what the passes over a batch cost, given the bytes of a number.
    rulebooks_ahead: whether a GPU has the index pairs of the next batch beside them.
    """
    size = stream.share.part_size
    sampled = min(size, _SAMPLED)
    batch = stream.sample(sampled)
    scale, element = size / sampled, BYTES[precision]
    forwards: Sequence[Forward] = model.forwards(batch, element)
    ahead = rulebooks_ahead and hasattr(model, "with_rulebooks") and torch.cuda.is_available()
    parameters = sum(p.numel() for p in model.parameters())
    copies = 3 * max(element, 4) + (element if precision == "float16" else 0)
    tensors = int(_batch_bytes(batch) * scale)
    kept = sum(forward.kept for forward in forwards) + (sum(forward.pairs for forward in forwards) if ahead else 0)
    return Estimate(
        voxels_3d=_mean_voxels(forwards, 3, scale),
        voxels_4d=_mean_voxels(forwards, 4, scale),
        parameters=parameters,
        weights=parameters * copies,
        kept=int(kept * scale),
        widest=int(max(forward.widest for forward in forwards) * scale),
        batch=tensors,
        host=tensors * (stream.workers + 1) * 3 // 2,
    )


def _mean_voxels(forwards: Sequence[Forward], dims: int, scale: float) -> int:
    counts = [forward.voxels for forward in forwards if forward.dims == dims]
    return int(sum(counts) / len(counts) * scale) if counts else 0


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
        counted = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        used -= next((int(value) for name, value in counted if name == "inactive_file"), 0)  # which gives way
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def check(needed: Estimate, share, device: torch.device) -> None:
    """Raises NeedsMemory where `problem` finds one."""
    if text := problem(needed, share, device):
        raise NeedsMemory(text)


def problem(needed: Estimate, share, device: torch.device) -> str:
    """What is wrong, with the split of the batch that would fit, where less is available than needed, or where a tensor
    of one forward is beyond what spconv can address; else nothing.

    share: how the batch is dealt out, `train.inputs.order.Share`.
    """
    free = available(device)
    host = 0 if device.type == "cuda" else needed.host
    parts = [n for n in range(1, share.part_size // share.least + 1) if share.part_size % n == 0]
    fixed = needed.weights * _OVERHEAD
    fits = [n for n in parts if needed.widest / n < ADDRESSED and fixed + (needed.device - fixed + host) / n <= free]
    other = "use larger voxels or a smaller net, or crops (max_voxels) in fine-tuning"
    remedy = f"set accumulate={share.accumulate * fits[0]}" if fits else other
    if needed.device + host > free:
        step = (needed.device + host) / 1e9
        return f"a step needs about {step:.1f} GB on {device}, {free / 1e9:.1f} GB are free: {remedy}"
    if needed.widest >= ADDRESSED:
        made = f"one forward makes tensors of about {needed.widest / 1e9:.2f} GB, spconv addresses less than"
        return f"{made} {ADDRESSED / 1e9:.2f} GB: {remedy}"
    return ""
