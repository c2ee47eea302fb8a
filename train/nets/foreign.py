"""Weights that other projects pre-trained: Res16UNet34C of PointContrast and Contrastive Scene Contexts.

It is our net `34`, layer by layer. Their convolution weights lie as (taps, in, out), the first axis running fastest,
pointwise ones as (in, out); norms lie one level deeper, under `bn`. Their checkpoints are pickles that name classes of
packages which need not be here: nothing but tensors and plain values is unpickled, all else becomes an empty object.
"""

import pathlib
import pickle
import types
from collections import OrderedDict

import torch

from train.errors import reason
from train.run.checkpoint import CheckpointError

NET, VOXEL_M, STEM = "34", 0.025, "conv0p1s1"  # both projects pre-train on voxels of 2.5 cm
_DOWN = ("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2")
_UP = ("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2")
_BLOCK = {
    "conv1": "first.conv",
    "norm1": "first.norm",
    "conv2": "second",
    "norm2": "norm",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}


def read_foreign(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """The backbone of a .pth file under our names, without its head. Raises CheckpointError."""
    try:
        stored = torch.load(path, map_location="cpu", pickle_module=_TENSORS_ONLY, weights_only=False)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of torch ({reason(error)}): take the file that was released"
        ) from None
    state = stored.get("state_dict", stored) if isinstance(stored, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: holds a {type(stored).__name__} without a state_dict: take the whole checkpoint"
        )
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if f"{STEM}.kernel" not in state:
        raise CheckpointError(f"{path}: has no {STEM}.kernel: only Res16UNet34C of PointContrast and CSC is known")
    return {_our_name(name): _our_layout(name, value) for name, value in state.items() if not name.startswith("final.")}


def _our_name(name: str) -> str:
    """conv1p1s2.kernel, bntr4.bn.weight, block5.0.norm1.bn.bias, .. in our words; unknown ones stay."""
    part, _, rest = name.partition(".")
    rest = rest.removeprefix("bn.").replace("kernel", "weight")
    if part == STEM:
        return f"stem.conv.{rest}"
    if part in _DOWN + _UP:
        return f"down.{_DOWN.index(part)}.conv.{rest}" if part in _DOWN else f"up.{_UP.index(part)}.conv.{rest}"
    if part.startswith("bntr"):
        return f"up.{int(part[4:]) - 4}.norm.{rest}"
    if part.startswith("bn"):
        return f"stem.norm.{rest}" if part == "bn0" else f"down.{int(part[2:]) - 1}.norm.{rest}"
    if part.startswith("block"):
        stage = int(part[5:]) - 1
        number, _, inner = rest.partition(".")
        layer = next((layer for layer in _BLOCK if inner.startswith(f"{layer}.")), "")
        field = inner.removeprefix(f"{layer}.").removeprefix("bn.")
        place = f"encoder.{stage}" if stage < 4 else f"decoder.{stage - 4}"
        return f"{place}.{number}.{_BLOCK.get(layer, layer)}.{field}"
    return name


def _our_layout(name: str, value: torch.Tensor) -> torch.Tensor:
    """Kernels (taps, in, out) to (out, x, y, z, in), pointwise ones (in, out) to (out, in)."""
    if not name.endswith("kernel"):
        return value
    if value.ndim == 2 or value.shape[0] == 1:
        return value.reshape(value.shape[-2:]).T.contiguous()
    side = round(value.shape[0] ** (1 / 3))
    return value.reshape(side, side, side, *value.shape[1:]).permute(4, 2, 1, 0, 3).contiguous()


# Unpickling ----------------------------------------------------------------------------------------------------------


class _Empty:
    """What stands for an object of a class that is not unpickled: it takes everything and does nothing."""

    def __init__(self, *given, **named):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        """An element of what would have been a list."""

    def extend(self, values):
        """Elements of what would have been a list."""


_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Finds what tensors are made of, and nothing else."""

    def find_class(self, module: str, name: str):
        """A known class, or the empty one."""
        return _KNOWN.get((module, name), _Empty)


def _load(file, **options):
    return _Unpickler(file, **options).load()


_TENSORS_ONLY = types.SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="tensors only")
