"""Trained models of blocks, instances and boxes, from the runs they lie in, evaluated on scans, with what is written.

`train.tasks.segment.trained` does the same for nets that see whole scans.
"""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from gen4d import files
from train.config import from_plain
from train.errors import Refused
from train.inputs.labels import LabelTable, benchmark_ids, table_of
from train.inputs.objects import stuff_classes, with_instances
from train.inputs.scans import LabelledScan, read_scans
from train.inputs.subsets import find_part, warn_of_seen
from train.run import checkpoint
from train.run.checkpoint import Checkpoint, CheckpointError
from train.tasks.blocks import evaluate as points
from train.tasks.blocks import make as blocks
from train.tasks.config import FinetuneConfig
from train.tasks.detect import evaluate as boxes
from train.tasks.detect import make as detect
from train.tasks.detect import report as detect_report
from train.tasks.instances import evaluate as masks
from train.tasks.instances import make as instances
from train.tasks.instances import report as instances_report
from train.tasks.segment import report as segment_report
from train.tasks.segment.predictions import Writer, coloured_ply
from train.tasks.task import BEST

JUDGED = ("blocks", "instances", "detect")  # tasks of this file


class TrainedError(Refused):
    """A run and scans that do not fit each other."""


class Judge(NamedTuple):
    """How the models of a task are evaluated. evaluate(model, scans, folder) -> evaluation; summary(evaluation) -> JSON
    values; write(folder, summaries, evaluation, about) -> lines."""

    make: Callable[[], torch.nn.Module]
    evaluate: Callable[..., Any]
    summary: Callable[[Any], dict]
    write: Callable[..., list[str]]


def find_checkpoint(path: pathlib.Path, which: str) -> Checkpoint:
    """The `last` or `best` checkpoint of a run folder, or the checkpoint of a folder of one, whatever `which` says.
    Raises CheckpointError."""
    if path.name.startswith("checkpoint-"):
        return checkpoint.read(path)
    found = checkpoint.newest(path / BEST if which == "best" else path)
    if found is None:
        raise CheckpointError(f"{path}: no {which} checkpoint there: give a run folder of finetune, or a checkpoint")
    return found


def task_of(run: pathlib.Path, which: str = "last") -> str:
    """The task that a run, or a checkpoint, was trained for: `which` of its checkpoints is asked. Raises
    CheckpointError."""
    return str(find_checkpoint(run, "best" if which == "best" else "last").config.get("task"))


def evaluate_run(
    run: pathlib.Path, which: str, wanted, out: pathlib.Path, device: torch.device, machine: str
) -> Iterator[str]:
    """Evaluate the checkpoints `last`, `best` or `both` of a run of `JUDGED`, write to `out`, and yield lines
    for the user. wanted: `train.tasks.segment.trained.Wanted`.

    Raises SourceError, SceneError, TrainedError, InstanceError, CheckpointError.
    """
    if wanted.views > 1 or wanted.window_voxels:
        raise TrainedError(
            f"{run}: of blocks, instances or boxes: leave out --tta and --window-voxels, which are for the task segment"
        )
    names = ("last", "best") if which == "both" and not run.name.startswith("checkpoint-") else (which,)
    found = {"last" if name == "both" else name: find_checkpoint(run, name) for name in names}
    first = next(iter(found.values()))
    config = from_plain(first.config["settings"], FinetuneConfig)
    table, scans = _read(wanted, config, first)
    judge = _judge(config, table, wanted.formats, device)
    yield f"{len(scans)} scans; {', '.join(str(one.path) for one in found.values())}"
    evaluations = {}
    for name, one in found.items():
        model = judge.make()
        checkpoint.load_weights(one.model, model, str(one.path))
        evaluations[name] = judge.evaluate(model.to(device).eval(), scans, out / name)
    if wanted.labels:
        about = {"step": {name: one.step for name, one in found.items()}, "config": first.config, "machine": machine}
        summaries = {name: judge.summary(evaluation) for name, evaluation in evaluations.items()}
        yield from judge.write(out, summaries, next(iter(evaluations.values())), about)
    yield f"written to {out}"


def _read(wanted, config: FinetuneConfig, found: Checkpoint) -> tuple[LabelTable, list[LabelledScan]]:
    """Raises TrainedError where the classes of scans are not those of the run."""
    part = find_part(wanted.data, wanted.part, wanted.split)
    table = table_of(part.entry, config.labels.label_space)
    if tuple(found.config["classes"]) != table.names:
        raise TrainedError(
            f"{found.path}: its classes are not the {len(table.names)} of {table.space}: evaluate on scans of its "
            "labels, or fine-tune on these"
        )
    scans = read_scans(part.scans, table if wanted.labels else None, config.run.workers)
    if wanted.labels:
        for key, how in (("scans", "fine-tuned on"), ("weights_scans", "pre-trained on")):
            warn_of_seen([scan.name for scan in scans], found.config[key], how)
        if config.task != "blocks":
            scans = with_instances(scans, "evaluated", boxes=config.task == "detect")
    return table, scans


def _judge(config: FinetuneConfig, table: LabelTable, formats: Sequence[str], device: torch.device) -> Judge:
    match config.task:
        case "blocks":
            return _judge_blocks(config, table, formats, device)
        case "instances":
            return _judge_masks(config, table, formats, device)
        case "detect":
            return _judge_boxes(config, table, formats, device)
    raise TrainedError(f"a run of the task {config.task}: give one of {', '.join(JUDGED)}")


def _judge_blocks(config: FinetuneConfig, table: LabelTable, formats: Sequence[str], device: torch.device) -> Judge:
    ids, count = benchmark_ids(table.names, table), len(table.names)

    def evaluate(model, scans, folder: pathlib.Path):
        return points.evaluate(model, scans, config.blocks, device, Writer(folder, ids, formats).write)

    return Judge(
        lambda: blocks.make_model(config, count, None),
        evaluate,
        lambda found: segment_report.summary(found, table.names),
        segment_report.write_results,
    )


def _judge_masks(config: FinetuneConfig, table: LabelTable, formats: Sequence[str], device: torch.device) -> Judge:
    own, stuff = config.instances, stuff_classes(table, config.instances.stuff)
    ids = benchmark_ids(table.names, table)

    def evaluate(model, scans, folder: pathlib.Path):
        def write(scan: LabelledScan, found) -> None:
            if "txt" in formats:
                instances_report.write_benchmark(folder, scan, found, ids)
            _write_numbers(folder, scan, found, formats)

        return masks.evaluate(model, scans, own, device, write)

    return Judge(
        lambda: instances.make_model(config, table, None),
        evaluate,
        lambda found: instances_report.summary(found, table.names, stuff),
        lambda *given: instances_report.write_results(*given, stuff),
    )


def _write_numbers(folder: pathlib.Path, scan: LabelledScan, found, formats: Sequence[str]) -> None:
    """npy: the surest instance of every row of the points file, -1 for none; ply: points coloured by it."""
    number = np.full(len(scan.point), -1, np.int32)
    for p, point in reversed(list(enumerate(found.point))):
        number[point] = p
    if "npy" in formats:
        files.make_folder(folder / "predictions")
        rows = np.full(scan.rows, -1, np.int32)
        rows[scan.row] = number
        np.save(folder / "predictions" / f"{scan.name}.npy", rows)
    if "ply" in formats:
        files.make_folder(folder / "ply")
        colour = np.round(255 * instances_report.number_colours(number)).astype(np.uint8)
        files.write(folder / "ply" / f"{scan.name}.ply", coloured_ply(scan.point, number.astype(np.int16), colour))


def _judge_boxes(config: FinetuneConfig, table: LabelTable, formats: Sequence[str], device: torch.device) -> Judge:
    names = [table.names[c] for c in detect.object_classes(config, table)]

    def evaluate(model, scans, folder: pathlib.Path):
        def write(name: str, found) -> None:
            if "txt" in formats:
                detect_report.write_boxes(folder, name, found, names)

        judged = [(scan.name, detect.boxes_of_scan(scan, config, table)) for scan in scans]
        return boxes.evaluate(model, judged, config.backbone.voxel_m, device, write)

    return Judge(
        lambda: detect.make_model(config, table, None),
        evaluate,
        lambda found: detect_report.summary(found, names),
        detect_report.write_results,
    )
