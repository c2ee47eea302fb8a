"""What a downstream task gives the loop that fine-tunes to it."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from train.inputs.stream import Stream

BEST = "best"  # folder of a run's best checkpoint


class Findings(NamedTuple):
    """What a validation found. summary: as JSON values; score: of which the highest is the best; figures: for curves;
    headline: one line; details: what the task's report draws."""

    summary: dict
    score: float
    figures: dict[str, float]
    headline: str
    details: Any


class Task(NamedTuple):
    """Model on the CPU and stream of batches; validate(model on its device) -> Findings; report(run, summaries of named
    steps, details of the last validation, JSON values that explain the numbers) -> lines of its table."""

    model: nn.Module
    stream: Stream
    validate: Callable[[nn.Module], Findings]
    report: Callable[[pathlib.Path, dict[str, dict], Any, dict], list[str]]
