"""A target net that follows an online one by an exponential moving average (STRL, Eq. 3, after BYOL)."""

import math

import torch
from torch import nn


def decay_at(step: int, steps: int, start: float) -> float:
    """Decay tau after `step` of `steps` updates: `start` before the first, 1 after the last (STRL, section 4)."""
    return 1 - (1 - start) * (math.cos(math.pi * step / steps) + 1) / 2


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, decay: float) -> None:
    """Eq. 3: phi <- tau phi + (1 - tau) theta, for parameters. Running statistics of norms are left to the target's
    own forward passes, as in BYOL."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - decay)
