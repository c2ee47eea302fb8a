"""In which numbers a run computes."""

import torch

from train.config import ConfigError

PRECISIONS = ("auto", "float16", "float32", "float64")
CHECKED = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
WEIGHTS = {"float16": torch.float32, "float32": torch.float32, "float64": torch.float64}  # float16 is by autocast
BYTES = {"float16": 2, "float32": 4, "float64": 8}  # of a number that a forward pass makes


def resolve_precision(precision: str, device: torch.device) -> str:
    """What the setting `precision` means on a device. Raises ConfigError for float16 without CUDA."""
    if precision == "auto":
        return "float16" if device.type == "cuda" else "float32"
    if precision == "float16" and device.type != "cuda":
        raise ConfigError("precision = float16: needs CUDA; set precision=float32 on a CPU")
    return precision
