"""Fine-tuning from labelled scans to a run folder, for any task: the loop of pre-training, with validations between.

<run>/config.json, checkpoint-*, log.jsonl, tensorboard/   as in pre-training
<run>/train_scans.txt, val_scans.txt    names of the scans whose labels were learned, and of those validated on
<run>/validation.jsonl                  a line per validation: step and scores
<run>/best/checkpoint-*                 weights with the best score so far, among all validations
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.tensorboard import SummaryWriter

from gen4d import files
from train.config import to_plain
from train.inputs.labelled import LabelledData, scans_digest
from train.nets import backends
from train.nets.weights import Backbone, stored_backbone, weights_digest
from train.run import checkpoint
from train.run.log import Record, read_lines
from train.run.loop import Plan, Prepared, train
from train.run.optim import make_optimiser
from train.run.precision import resolve_precision
from train.run.world import World
from train.tasks.blocks import make as blocks
from train.tasks.config import FREE, FinetuneConfig
from train.tasks.detect import make as detect
from train.tasks.instances import make as instances
from train.tasks.segment import make as segment
from train.tasks.task import BEST, Findings, Task


class Validation(NamedTuple):
    """What was found at a step, and whether it is the best so far."""

    step: int
    findings: Findings
    best: bool


def make_task(config: FinetuneConfig, data: LabelledData, weights: Backbone | None, world: World) -> Task:
    """The task that a configuration names. weights None: from scratch. Raises WeightsError, LoaderError."""
    match config.task:
        case "segment":
            return segment.make(config, data, weights, world)
        case "blocks":
            return blocks.make(config, data, weights, world)
        case "instances":
            return instances.make(config, data, weights, world)
        case "detect":
            return detect.make(config, data, weights, world)
    raise ValueError(f"task {config.task}: named in the settings, and no folder makes it")


def make(config: FinetuneConfig, data: LabelledData, weights: Backbone | None, world: World) -> tuple[Task, Prepared]:
    """A task, and all that the loop needs of it. Raises ConfigError, WeightsError, LoaderError."""
    precision = resolve_precision(config.run.precision, world.device)
    backends.use(config.run.backend, precision, world.device)
    task = make_task(config, data, weights, world)
    lr_at = functools.partial(config.optim.lr_at, steps=config.run.steps)
    plan = Plan(config.run, precision, lr_at, stored_config(config, data, weights, precision), config.optim.clip)
    return task, Prepared(task.model, make_optimiser(config.optim, task.model), task.stream, plan)


def stored_config(config: FinetuneConfig, data: LabelledData, weights: Backbone | None, precision: str) -> dict:
    """What a run and its checkpoints remember: a rerun must ask for the same, but for `FREE`."""
    settings = to_plain(config)
    settings["run"]["precision"] = precision
    use = config.backbone
    backbone = stored_backbone(use.net, use.voxel_m, "backbone.", config.task, use.inputs)
    if config.task == "blocks":
        backbone |= {"k": config.blocks.k, "points": config.blocks.points}
    return {
        "task": config.task,
        "data": scans_digest(data.train),
        "val": scans_digest(data.val),
        "classes": list(data.table.names),
        "points": data.points,
        "weights": "none" if weights is None else weights_digest(weights),
        "backbone": backbone,
        "scans": [scan.name for scan in data.train],
        "weights_scans": [] if weights is None else list(weights.scans),
        "settings": settings,
    }


def finetune(
    config: FinetuneConfig, data: LabelledData, weights: Backbone | None, run: pathlib.Path, world: World
) -> Iterator[Record | Validation]:
    """Fine-tune in a run folder, going on from where it is; yields the log's records and, on the leading process, what
    validations found, the last one when all steps are made.

    Raises what `train.run.loop.train` raises, LoaderError, BatchError, SegmentError.
    """
    yield from finetune_prepared(*make(config, data, weights, world), data, config.validate_steps, run, world)


def finetune_prepared(
    task: Task, prepared: Prepared, data: LabelledData, validate_steps: int, run: pathlib.Path, world: World
) -> Iterator[Record | Validation]:
    """The same for what `make` gave."""
    plan, model = prepared.plan, task.model
    torch.manual_seed(plan.running.seed)
    with checkpoint.claimed(run, plan.stored, FREE, world):
        world.led(lambda: _write_names(run, data))
        for record in train(prepared, run, world):
            yield record
            if record.step % validate_steps == 0 and record.step < plan.running.steps and world.leads:
                yield _validate(task, model, record.step, run, plan.stored)
        if world.leads:
            yield _validate(task, model, plan.running.steps, run, plan.stored)


def _write_names(run: pathlib.Path, data: LabelledData) -> None:
    for name, origin, scans in (("train", data.origin, data.train), ("val", "validated on", data.val)):
        lines = [f"# {origin}", *(scan.name for scan in scans)]
        files.write(run / f"{name}_scans.txt", ("\n".join(lines) + "\n").encode())


def _validate(task: Task, model, step: int, run: pathlib.Path, stored: dict) -> Validation:
    """Validate a model, log what is found and keep the best weights."""
    found = task.validate(model)
    lines = [line for line in read_lines(run / "validation.jsonl") if line["step"] < step]
    lines.append({"step": step} | found.summary)
    files.write(run / "validation.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    with contextlib.closing(SummaryWriter(str(run / "tensorboard"))) as board:
        for name, value in found.figures.items():
            board.add_scalar(f"validation/{name}", value, step)
    before = checkpoint.newest(run / BEST)
    best = before is None or found.score > before.plain["score"]
    if best:
        files.make_folder(run / BEST)
        # Nothing is trained on from here: the optimiser is an empty one.
        nothing = torch.optim.SGD([torch.nn.Parameter(torch.zeros(0))])
        checkpoint.save(run / BEST, step, stored, model, nothing, {"score": found.score})
    return Validation(step, found, best)


def conclude(task: Task, run: pathlib.Path, last: Validation, about: dict) -> list[str]:
    """Write the report of a finished run: the last checkpoint and the best one. Returns its lines."""
    config = json.loads((run / "config.json").read_bytes())
    found = checkpoint.newest(run / BEST)
    lines = read_lines(run / "validation.jsonl")
    of_step = {line.pop("step"): line for line in lines}
    chosen = {"last": last.step, "best": found.step}
    about = about | {"step": chosen, "views": 1, "validations": len(lines), "config": config}
    return task.report(run, {name: of_step[step] for name, step in chosen.items()}, last.findings.details, about)
