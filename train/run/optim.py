"""What makes updates: the optimiser, and its rate as a function of the step.

    step         lr x decay ^ (step // decay_steps)
    drops        lr x decay for each share of the steps in `drops` that is made
    poly         lr x (1 - step / steps) ^ power
    cosine       half a cosine from lr to lr x last
    cosine-rest  the same over the steps after the warm-up, as BYOL has it
    onecycle     half a cosine up from lr / 25 to lr over the first 30 % of the steps, and one down to lr x last
    constant     lr

The first `warmup_steps` rise to it linearly, whichever it is. A parameter group has a `scale` on the rate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from train.config import ConfigError, check, not_negative, one_of
from train.run.lars import Lars, vectors_apart

OPTIMISERS = ("sgd", "adamw", "lars")
SCHEDULES = ("step", "drops", "poly", "cosine", "cosine-rest", "onecycle", "constant")
_RISE, _FIRST = 0.3, 1 / 25  # of one cycle


@dataclass(frozen=True)
class Optim:
    """Optimiser, schedule and rates."""

    optimiser: str = "sgd"
    lr: float = 0.25
    schedule: str = "step"
    decay: float = 0.99  # step: factor every decay_steps; drops: at each of them
    decay_steps: int = 1000
    drops: tuple[float, ...] = ()  # shares of the steps
    power: float = 0.9  # poly
    last: float = 0.0  # cosines, onecycle: share of lr at the end
    warmup_steps: int = 0
    momentum: float = 0.9  # of adamw the first moment's
    second_moment: float = 0.999  # adamw
    dampening: float = 0.0  # sgd
    trust: float = 0.001  # lars: length of an update, as a share of the tensor's own
    weight_decay: float = 1e-4
    clip: float | None = None  # largest norm of the gradient; none: as it is
    scales: tuple[str, ...] = ()  # of the rate by parts of the model, e.g. head:10,backbone:0.1

    def __post_init__(self):
        rules = [
            one_of(self, "optimiser", OPTIMISERS),
            one_of(self, "schedule", SCHEDULES),
            ("lr", self.lr > 0, "above 0"),
            ("decay", 0 < self.decay <= 1, "above 0, and 1 at most"),
            ("decay_steps", self.decay_steps >= 1, "at least 1"),
            ("drops", all(0 < share < 1 for share in self.drops), "each above 0 and below 1"),
            ("last", 0 <= self.last <= 1, "from 0 to 1"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("second_moment", 0 <= self.second_moment < 1, "from 0 to below 1"),
            ("dampening", 0 <= self.dampening <= 1, "from 0 to 1"),
            ("trust", self.trust > 0, "above 0"),
            ("clip", self.clip is None or self.clip > 0, "above 0, or none"),
            *not_negative(self, "power", "weight_decay", "warmup_steps"),
        ]
        check(self, rules)
        for text in self.scales:
            _parse_scale(text)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of the update after `step` others, of `steps` in all."""
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return rise * self._scheduled(step, steps)

    def _scheduled(self, step: int, steps: int) -> float:
        match self.schedule:
            case "step":
                return self.lr * self.decay ** (step // self.decay_steps)
            case "drops":
                return self.lr * self.decay ** sum(step >= share * steps for share in self.drops)
            case "poly":
                return self.lr * (1 - step / steps) ** self.power
            case "cosine":
                return self.lr * _half_cosine(1.0, self.last, step / steps)
            case "cosine-rest":
                rest = max(steps - self.warmup_steps, 1)
                return self.lr * _half_cosine(1.0, self.last, max(step - self.warmup_steps, 0) / rest)
            case "onecycle":
                done = step / steps
                if done < _RISE:
                    return self.lr * _half_cosine(_FIRST, 1.0, done / _RISE)
                return self.lr * _half_cosine(1.0, self.last, (done - _RISE) / (1 - _RISE))
            case _:
                return self.lr


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _parse_scale(text: str) -> tuple[str, float]:
    """A part of the model and its scale. Raises ConfigError."""
    name, colon, value = text.partition(":")
    try:
        scale = float(value)
    except ValueError:
        scale = math.nan
    if not name or not colon or not 0 <= scale < math.inf:
        raise ConfigError(f"scales = {text}: a part of the model, a colon and a factor from 0 on, e.g. head:10")
    return name, scale


def make_optimiser(config: Optim, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of all parameters of a model that learn. Raises ConfigError for scales of parts that are not
    there."""
    groups = parameter_groups(model, [_parse_scale(text) for text in config.scales])
    if config.optimiser == "adamw":
        moments = (config.momentum, config.second_moment)
        return torch.optim.AdamW(groups, lr=config.lr, betas=moments, weight_decay=config.weight_decay)
    if config.optimiser == "lars":
        return Lars(vectors_apart(groups), config.lr, config.momentum, config.weight_decay, config.trust)
    rates = {"lr": config.lr, "momentum": config.momentum, "dampening": config.dampening}
    return torch.optim.SGD(groups, **rates, weight_decay=config.weight_decay)


def parameter_groups(model: nn.Module, scales: Sequence[tuple[str, float]]) -> list[dict]:
    """What learns, grouped by scale: that of the longest of the named parts that a parameter lies in, else 1."""
    learned = {name: value for name, value in model.named_parameters() if value.requires_grad}
    groups: dict[float, list] = {1.0: []}
    for part, _ in scales:
        if not any(_lies_in(name, part) for name in learned):
            known = ", ".join(sorted({name.partition(".")[0] for name in learned}))
            raise ConfigError(f"scales: no part {part} of the model learns; its parts are {known}")
    for name, value in learned.items():
        own = max(
            (pair for pair in scales if _lies_in(name, pair[0])), key=lambda pair: len(pair[0]), default=("", 1.0)
        )
        groups.setdefault(own[1], []).append(value)
    return [{"params": values, "scale": scale} for scale, values in groups.items() if values]


def _lies_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
