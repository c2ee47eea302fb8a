"""LARS (You et al. 2017) as BYOL has it: SGD with momentum, in which the update of a tensor is in proportion to the
tensor itself.

    g <- gradient + weight_decay x p;   g <- g x trust x |p| / |g|;   v <- momentum x v + g;   p <- p - lr x v

Biases and the scales and shifts of norms, all that has one axis, get neither decay nor adaptation: they are plain
SGD's. Where |p| or |g| is 0, nothing is scaled. Other codes of this name differ: some adapt only what has a weight
decay, some scale the gradient before another optimiser.
"""

from collections.abc import Iterable

import torch


def vectors_apart(groups: Iterable[dict]) -> list[dict]:
    """Parameter groups with `adapt`, and those with what has one axis or none of their own."""
    parts = []
    for group in groups:
        for adapt in (True, False):
            chosen = [p for p in group["params"] if (p.ndim > 1) == adapt]
            parts.append(group | {"params": chosen, "adapt": adapt})
    return [part for part in parts if part["params"]]


class Lars(torch.optim.Optimizer):
    """The optimiser of groups that `vectors_apart` made."""

    def __init__(self, groups: Iterable[dict], lr: float, momentum: float, weight_decay: float, trust: float):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update of everything that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                change = _adapted(p, p.grad, group) if group["adapt"] else p.grad
                state = self.state[p]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(p)
                state["velocity"].mul_(group["momentum"]).add_(change)
                p.add_(state["velocity"], alpha=-group["lr"])


def _adapted(p: torch.Tensor, gradient: torch.Tensor, group: dict) -> torch.Tensor:
    change = gradient.add(p, alpha=group["weight_decay"])
    own, length = p.norm(), change.norm()
    scale = torch.where((own > 0) & (length > 0), group["trust"] * own / length, 1.0)
    return change * scale
