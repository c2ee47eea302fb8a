"""What makes updates: the optimiser, and its rate as a function of the step.

    step       lr x decay ^ (step // decay_steps)
    poly       lr x (1 - step / steps) ^ power
    constant   lr

A parameter group has a `scale` on the rate, 1 where none is set.
"""

from dataclasses import dataclass

import torch
from torch import nn

from train.config import check, not_negative, one_of

OPTIMISERS = ("sgd",)
SCHEDULES = ("step", "poly", "constant")


@dataclass(frozen=True)
class Optim:
    """Optimiser, schedule and rates."""

    optimiser: str = "sgd"
    lr: float = 0.25
    schedule: str = "step"
    decay: float = 0.99  # step: factor every decay_steps
    decay_steps: int = 1000
    power: float = 0.9  # poly
    momentum: float = 0.9
    dampening: float = 0.0
    weight_decay: float = 1e-4

    def __post_init__(self):
        rules = [
            one_of(self, "optimiser", OPTIMISERS),
            one_of(self, "schedule", SCHEDULES),
            ("lr", self.lr > 0, "above 0"),
            ("decay", 0 < self.decay <= 1, "above 0, and 1 at most"),
            ("decay_steps", self.decay_steps >= 1, "at least 1"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("dampening", 0 <= self.dampening <= 1, "from 0 to 1"),
            *not_negative(self, "power", "weight_decay"),
        ]
        check(self, rules)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of the update after `step` others, of `steps` in all."""
        match self.schedule:
            case "step":
                return self.lr * self.decay ** (step // self.decay_steps)
            case "poly":
                return self.lr * (1 - step / steps) ** self.power
            case _:
                return self.lr


def make_optimiser(config: Optim, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of all parameters of a model that learn."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rates = {"lr": config.lr, "momentum": config.momentum, "dampening": config.dampening}
    return torch.optim.SGD(learned, **rates, weight_decay=config.weight_decay)
