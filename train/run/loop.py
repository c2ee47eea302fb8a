"""The training loop: resume, step, log, save, stop. It knows nothing of the method or the task.

A model is called with a batch and returns a `Loss`. What it may have besides: `after_update(step)`, called when an
update was made (a target that follows by a moving average). Steps are counted by updates made, everywhere.
"""

import contextlib
import math
import pathlib
import signal
import threading
import types
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from train.config import check, one_of, positive, seed, workers
from train.errors import Refused
from train.run import checkpoint
from train.run.ahead import Ahead
from train.run.log import Log, Meter, Record
from train.run.machine import note_start
from train.run.precision import PRECISIONS, WEIGHTS
from train.run.world import World

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
BACKENDS = ("auto", "spconv", "spconv-triton")
LEAST_SCALE = 2.0**-10  # of half-precision gradients: below, overflow is no matter of scale


class LoopError(Refused):
    """Training cannot go on."""


class Stopped(Exception):
    """A signal asked for the end; the step that was being made is finished and saved."""

    def __init__(self, number: int, step: int):
        super().__init__(f"{signal.Signals(number).name} at step {step}: saved, the same command goes on from here")
        self.number = number


@dataclass(frozen=True)
class Running:
    """How long a run is and how it is carried out."""

    steps: int = 50_000
    batch: int = 12  # items of a step, over all processes
    accumulate: int = 1  # parts in which a process takes its share of the batch; norms see one part at a time
    shared_norms: bool = False  # over all processes: else norms see their own process's share
    precision: str = "auto"  # float16 under autocast on CUDA, float32 elsewhere; tf32: float32 with products of TF32
    backend: str = "auto"  # of sparse convolutions: spconv where it is installed, else spconv-triton
    rulebooks_ahead: bool = False  # on CUDA: the next batch's index pairs are made beside this one's step
    seed: int = 0
    workers: int = 2  # threads that make batches ahead; 0: none
    checkpoint_steps: int = 500
    milestone_steps: int = 10_000  # checkpoints of multiples of it stay, besides the last two
    log_steps: int = 10

    def __post_init__(self):
        counts = positive(self, "steps", "batch", "accumulate", "checkpoint_steps", "milestone_steps", "log_steps")
        names = [one_of(self, "precision", PRECISIONS), one_of(self, "backend", BACKENDS)]
        check(self, [*counts, *names, seed(self), workers(self)])


class Loss(NamedTuple):
    """What a model returns: total to minimise, and for the log, detached, its terms, the spread of its features, and
    how well comparisons are fitted (`train.methods.losses.fit`)."""

    total: torch.Tensor
    terms: dict[str, torch.Tensor]
    spread: dict[str, torch.Tensor]
    fit: dict[str, torch.Tensor] = types.MappingProxyType({})


class Plan(NamedTuple):
    """How to train. stored: what every checkpoint remembers; precision: resolved; lr_at: updates made -> rate of the
    next."""

    running: Running
    precision: str
    lr_at: Callable[[int], float]
    stored: dict
    clip: float | None = None  # largest norm of the gradient


class Prepared(NamedTuple):
    """What the loop trains: a model on the CPU, its optimiser, a stream of batches, a plan.

    stream.batches(step) gives batches from a step on, `running.accumulate` a step, without end.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    stream: Any
    plan: Plan


class Training(NamedTuple):
    """What a step works on."""

    model: nn.Module
    replica: nn.Module  # the model, averaging gradients over processes
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    plan: Plan
    world: World


def train(prepared: Prepared, run: pathlib.Path, world: World) -> Iterator[Record]:
    """Train from the newest checkpoint in `run`, or from the start, to the last step; yields what every log step did.

    Raises LoopError at a step that is not finite, Stopped after a signal, CheckpointError, OSError.
    """
    model, optimiser, stream, plan = prepared
    running = plan.running
    model.to(world.device, WEIGHTS[plan.precision])  # in place: the optimiser keeps its parameters

    # Resume -----------------------------------------------------------------------------------------------------------
    scaler = torch.amp.GradScaler(world.device.type, enabled=plan.precision == "float16")
    step, skipped = _resume(model, optimiser, scaler, run, world)
    parts = Training(model, world.replicate(model, running.shared_norms), optimiser, scaler, plan, world)
    with (
        contextlib.closing(stream.batches(step)) as batches,
        contextlib.closing(Log(run, step, world.leads)) as log,
        _caught_signals() as caught,
    ):
        if world.leads and step < running.steps:
            note_start(run, step, world)
        meter = Meter(world.device)
        prepare = getattr(model, "with_rulebooks", None) if running.rulebooks_ahead else None
        ahead = Ahead(batches, world.device, meter, prepare)
        while step < running.steps:
            # Step -----------------------------------------------------------------------------------------------------
            lr = plan.lr_at(step)
            if world.rank:  # processes draw apart, dropout say; the first one's draws are those of a run without others
                torch.manual_seed(zlib.crc32(f"{running.seed} {world.rank} {step}".encode()))
            figures, gradient, stop = _step(parts, lr, ahead, meter, step + 1, caught)
            step, skipped = step + 1, skipped + (gradient is None)

            # Log ------------------------------------------------------------------------------------------------------
            if step % running.log_steps == 0 or step == running.steps:
                record = Record(step, *figures, lr, gradient, skipped, meter.take())
                log.write(record)
                yield record
                meter.begin()  # what the caller did meanwhile, a validation say, is not the step's

            # Save, and stop -------------------------------------------------------------------------------------------
            due = step % running.checkpoint_steps == 0 or step % running.milestone_steps == 0
            if due or step == running.steps or stop:
                _save(parts, run, step, skipped)
            if stop:
                raise Stopped(stop, step)


def _save(parts: Training, run: pathlib.Path, step: int, skipped: int) -> None:
    """Write a checkpoint by the leading process; the others wait."""
    plain = {"scaler": parts.scaler.state_dict(), "skipped": skipped}
    given = (run, step, parts.plan.stored, parts.model, parts.optimiser, plain, parts.plan.running.milestone_steps)
    parts.world.led(lambda: checkpoint.save(*given))


def _resume(model, optimiser, scaler, run: pathlib.Path, world: World) -> tuple[int, int]:
    """Load the newest checkpoint that the leading process sees, in all processes. Returns the updates made and how many
    of them were left out."""
    found = world.led(lambda: checkpoint.newest(run))
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
    fit: dict[str, float]


def _step(parts: Training, lr: float, batches: Ahead, meter: Meter, number: int, caught: list[int]):
    """One update. Returns its Figures, the gradient's norm (None: overflow, left out), and a signal to stop at or 0."""
    for group in parts.optimiser.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
    parts.optimiser.zero_grad(set_to_none=True)
    sums = _accumulate(parts, batches)
    figures, stop = _agree(sums, caught, parts.world)
    if not all(map(math.isfinite, (figures.loss, *figures.terms.values()))):
        terms = ", ".join(f"{name} {value:.4g}" for name, value in figures.terms.items())
        raise LoopError(f"step {number}: the loss is {figures.loss} ({terms}); {_remedy(lr)}")
    gradient = _update(parts, lr, number)
    meter.count(parts.plan.running.batch)
    return figures, gradient, stop


def _remedy(lr: float) -> str:
    return f"training stops, and the same command would stop here again: start another run with lr below {lr:.4g}"


def _accumulate(parts: Training, batches: Ahead) -> dict[tuple[str, str], torch.Tensor]:
    """Forward and backward of this process's share of a step. Returns (kind, name) -> mean over its batches."""
    plan, world, means = parts.plan, parts.world, {}
    count = plan.running.accumulate
    for part in range(count):
        batch = batches.take()
        apart = world.size > 1 and part < count - 1  # processes exchange gradients once a step
        with parts.replica.no_sync() if apart else contextlib.nullcontext():
            with torch.autocast(world.device.type, torch.float16, enabled=plan.precision == "float16"):
                loss = parts.replica(batch)
            parts.scaler.scale(loss.total / count).backward()
        batches.make_next()
        named = {("loss", ""): loss.total.detach()}
        named |= {("terms", name): value for name, value in loss.terms.items()}
        named |= {("spread", name): value for name, value in loss.spread.items()}
        named |= {("fit", name): value for name, value in loss.fit.items()}
        for key, value in named.items():
            means[key] = means.get(key, 0) + value.double() / count
    return means


def _agree(means: dict[tuple[str, str], torch.Tensor], caught: list[int], world: World) -> tuple[Figures, int]:
    """Means over processes, and a signal that any of them got: all stop after the same step."""
    signals = torch.zeros(signal.NSIG, dtype=torch.float64)
    signals[caught] = 1
    agreed = world.mean(torch.cat([torch.stack(list(means.values())), signals.to(world.device)])).tolist()
    named = {"terms": {}, "spread": {}, "fit": {}, "loss": {}}
    for (kind, name), value in zip(means, agreed, strict=False):
        named[kind][name] = value
    stop = next((number for number, share in enumerate(agreed[len(means) :]) if share), 0)
    return Figures(named["loss"][""], named["terms"], named["spread"], named["fit"]), stop


def _update(parts: Training, lr: float, number: int) -> float | None:
    """Make the update. Returns the gradient's norm, None if half-precision gradients overflowed and it was left out."""
    scaler = parts.scaler
    scaler.unscale_(parts.optimiser)
    learned = [p for p in parts.model.parameters() if p.grad is not None]
    total = nn.utils.get_total_norm([p.grad for p in learned])
    if parts.plan.clip is not None:
        nn.utils.clip_grads_with_norm_(learned, parts.plan.clip, total)
    norm = total.item()
    hopeless = not scaler.is_enabled() or scaler.get_scale() < LEAST_SCALE
    if hopeless and not math.isfinite(norm):
        raise LoopError(f"step {number}: the gradient's norm is {norm}; {_remedy(lr)}")
    scaler.step(parts.optimiser)  # leaves the update out where a gradient is not finite
    scaler.update()
    if not math.isfinite(norm):
        return None
    if follow := getattr(parts.model, "after_update", None):
        follow(number)
    return norm


@contextlib.contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collects SIGTERM, Ctrl-C and a hang-up instead of dying of them; the second of a kind acts as usual, and what is
    ignored, as nohup has it, stays so. Only the main thread can: a run in another one hears none."""
    caught: list[int] = []

    def catch(number, _frame):
        caught.append(number)
        signal.signal(number, before[number])

    main = threading.current_thread() is threading.main_thread()
    heard = [number for number in STOPPING if main and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, catch) for number in heard}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
