"""In which numbers a run computes.

`tf32` is float32 whose products are made of numbers with 10 bits of mantissa, by the matrix units of NVIDIA GPUs from
Ampere on: no overflow as in float16, less exact than float32.
"""

import torch

from train.config import ConfigError

PRECISIONS = ("auto", "float16", "tf32", "float32", "float64")
CHECKED = {"float16": torch.float16, "tf32": torch.float32, "float32": torch.float32, "float64": torch.float64}
WEIGHTS = {name: torch.float32 for name in CHECKED} | {"float64": torch.float64}  # float16 is by autocast
BYTES = {"float16": 2, "tf32": 4, "float32": 4, "float64": 8}  # of a number that a forward pass makes


def resolve_precision(precision: str, device: torch.device) -> str:
    """What the setting `precision` means on a device. Raises ConfigError for float16 and tf32 without CUDA."""
    if precision == "auto":
        return "float16" if device.type == "cuda" else "float32"
    if precision in ("float16", "tf32") and device.type != "cuda":
        raise ConfigError(f"precision = {precision}: needs CUDA; set precision=float32 on a CPU")
    return precision
