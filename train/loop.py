"""The training loop: resume, step, log, save, stop. It knows nothing of the method or the task.

A model is called with a batch and returns a loss with `total` (a scalar to minimise), `terms` and `spread` (names to
detached scalars, for the log). Steps are counted by updates made, everywhere.
"""

import contextlib
import math
import pathlib
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from train import checkpoint
from train.batch import to_device
from train.log import Log, Meter, Record
from train.world import World

LEAST_SCALE = 2.0**-10  # of half-precision gradients: below, overflow is no matter of scale


class LoopError(ValueError):
    """Training cannot go on."""


class Stopped(Exception):
    """A signal asked for the end; the step that was being made is finished and saved."""

    def __init__(self, number: int, step: int):
        super().__init__(f"{signal.Signals(number).name} at step {step}: saved, the same command goes on from here")
        self.number = number


class Plan(NamedTuple):
    """How to train."""

    steps: int
    batch: int  # sequences of a step, over all processes
    accumulate: int  # batches of one process in a step
    precision: str  # float16 (autocast, CUDA), float32 or float64
    checkpoint_steps: int
    log_steps: int
    lr_at: Callable[[int], float]  # updates made -> learning rate of the next
    config: dict  # stored with every checkpoint


class Training(NamedTuple):
    """What a step works on."""

    model: nn.Module
    replica: nn.Module  # the model, averaging gradients over processes
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    plan: Plan
    world: World


def train(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches_from: Callable[[int], Iterator],
    plan: Plan,
    run: pathlib.Path,
    world: World,
) -> Iterator[Record]:
    """Train from the newest checkpoint in `run`, or from the start, to `plan.steps`; yields what every log step did.

    batches_from(step) gives batches from a step on, `plan.accumulate` a step, without end.
    Raises LoopError at a step that is not finite, Stopped after a signal, CheckpointError, OSError.
    """
    # Resume -----------------------------------------------------------------------------------------------------------
    scaler = torch.amp.GradScaler(world.device.type, enabled=plan.precision == "float16")
    step, skipped = _resume(model, optimiser, scaler, run)
    parts = Training(model, world.replicate(model), optimiser, scaler, plan, world)
    with (
        contextlib.closing(batches_from(step)) as batches,
        contextlib.closing(Log(run, step, world.leads)) as log,
        _caught_signals() as caught,
    ):
        meter = Meter(world.device)
        while step < plan.steps:
            # Step -----------------------------------------------------------------------------------------------------
            lr = plan.lr_at(step)
            figures, gradient, stop = _step(parts, lr, batches, meter, step + 1, caught)
            step, skipped = step + 1, skipped + (gradient is None)

            # Log ------------------------------------------------------------------------------------------------------
            if step % plan.log_steps == 0 or step == plan.steps:
                record = Record(step, *figures, lr, gradient, skipped, meter.take())
                log.write(record)
                yield record

            # Save, and stop -------------------------------------------------------------------------------------------
            if step % plan.checkpoint_steps == 0 or step == plan.steps or stop:
                if world.leads:
                    plain = {"scaler": scaler.state_dict(), "skipped": skipped}
                    checkpoint.save(run, step, plan.config, model, optimiser, plain)
                world.wait()
            if stop:
                raise Stopped(stop, step)


def _resume(model, optimiser, scaler, run: pathlib.Path) -> tuple[int, int]:
    """Load the newest checkpoint. Returns the updates made and how many of them were left out."""
    found, damaged = checkpoint.newest(run)
    for line in damaged:
        warnings.warn(line, stacklevel=2)
    if not found:
        return 0, 0
    checkpoint.restore(found, model, optimiser)
    scaler.load_state_dict(found.plain["scaler"])
    return found.step, found.plain["skipped"]


class Figures(NamedTuple):
    """What a step computed, over all its batches."""

    loss: float
    terms: dict[str, float]
    spread: dict[str, float]


def _step(parts: Training, lr: float, batches: Iterator, meter: Meter, number: int, caught: list[int]):
    """One update. Returns its Figures, the gradient's norm (None: overflow, left out), and a signal to stop at or 0."""
    for group in parts.optimiser.param_groups:
        group["lr"] = lr
    parts.optimiser.zero_grad(set_to_none=True)
    sums = _accumulate(parts, batches, meter)
    figures, stop = _agree(sums, caught, parts.world)
    if not all(map(math.isfinite, (figures.loss, *figures.terms.values()))):
        terms = ", ".join(f"{name} {value:.4g}" for name, value in figures.terms.items())
        raise LoopError(f"step {number}: the loss is {figures.loss} ({terms}); {_remedy(lr)}")
    gradient = _update(parts, lr, number)
    meter.count(parts.plan.batch)
    return figures, gradient, stop


def _remedy(lr: float) -> str:
    return f"training stops, and the same command would stop here again: start another run with lr below {lr:.4g}"


def _accumulate(parts: Training, batches: Iterator, meter: Meter) -> dict[tuple[str, str], torch.Tensor]:
    """Forward and backward of this process's share of a step. Returns (kind, name) -> mean over its batches."""
    plan, world, means = parts.plan, parts.world, {}
    for part in range(plan.accumulate):
        batch = to_device(meter.next_of(batches), world.device)
        apart = world.size > 1 and part < plan.accumulate - 1  # processes exchange gradients once a step
        with parts.replica.no_sync() if apart else contextlib.nullcontext():
            with torch.autocast(world.device.type, torch.float16, enabled=plan.precision == "float16"):
                loss = parts.replica(batch)
            parts.scaler.scale(loss.total / plan.accumulate).backward()
        named = {("loss", ""): loss.total.detach()}
        named |= {("terms", name): value for name, value in loss.terms.items()}
        named |= {("spread", name): value for name, value in loss.spread.items()}
        for key, value in named.items():
            means[key] = means.get(key, 0) + value.double() / plan.accumulate
    return means


def _agree(means: dict[tuple[str, str], torch.Tensor], caught: list[int], world: World) -> tuple[Figures, int]:
    """Means over processes, and a signal that any of them got: all stop after the same step."""
    signals = torch.zeros(signal.NSIG, dtype=torch.float64)
    signals[caught] = 1
    agreed = world.mean(torch.cat([torch.stack(list(means.values())), signals.to(world.device)])).tolist()
    named = {"terms": {}, "spread": {}, "loss": {}}
    for (kind, name), value in zip(means, agreed, strict=False):
        named[kind][name] = value
    stop = next((number for number, share in enumerate(agreed[len(means) :]) if share), 0)
    return Figures(named["loss"][""], named["terms"], named["spread"]), stop


def _update(parts: Training, lr: float, number: int) -> float | None:
    """Make the update. Returns the gradient's norm, None if half-precision gradients overflowed and it was left out."""
    scaler = parts.scaler
    scaler.unscale_(parts.optimiser)
    norm = nn.utils.get_total_norm([p.grad for p in parts.model.parameters() if p.grad is not None]).item()
    hopeless = not scaler.is_enabled() or scaler.get_scale() < LEAST_SCALE
    if hopeless and not math.isfinite(norm):
        raise LoopError(f"step {number}: the gradient's norm is {norm}; {_remedy(lr)}")
    scaler.step(parts.optimiser)  # leaves the update out where a gradient is not finite
    scaler.update()
    return norm if math.isfinite(norm) else None


@contextlib.contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and Ctrl-C instead of dying of them; the second of a kind acts as usual."""
    caught: list[int] = []

    def catch(number, _frame):
        caught.append(number)
        signal.signal(number, before[number])

    before = {number: signal.signal(number, catch) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
