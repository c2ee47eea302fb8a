"""Trained segmenters of runs, evaluated on scans, with what is written."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from train.config import from_plain
from train.inputs.labels import LabelTable, benchmark_ids, table_of
from train.inputs.scans import LabelledScan, read_scans
from train.inputs.subsets import find_part, warn_of_seen
from train.run import checkpoint
from train.run.checkpoint import Checkpoint, CheckpointError
from train.tasks.config import FinetuneConfig
from train.tasks.segment.evaluate import Evaluation, evaluate
from train.tasks.segment.make import make_model, seeing_of
from train.tasks.segment.model import Segmenter, SegmentError
from train.tasks.segment.predictions import Writer
from train.tasks.segment.report import summary, write_results
from train.tasks.task import BEST

TASK = "segment"


class Trained(NamedTuple):
    """A segmenter of a run in evaluation mode, the classes that it knows, and the checkpoint it is from."""

    model: Segmenter
    config: FinetuneConfig
    names: tuple[str, ...]
    found: Checkpoint


def load_trained(path: pathlib.Path, which: str) -> Trained:
    """From a run folder, its `last` or its `best` checkpoint, or from a checkpoint folder, whatever `which` says.

    Raises CheckpointError, SegmentError where it is no fine-tuned one.
    """
    if path.name.startswith("checkpoint-"):
        found = checkpoint.read(path)
    else:
        found = checkpoint.newest(path / BEST if which == "best" else path)
    if found is None:
        raise CheckpointError(f"{path}: no {which} checkpoint there: give a run folder of finetune, or a checkpoint")
    if found.config.get("task") != TASK:
        raise SegmentError(
            f"{path}: of the task {found.config.get('task')}: give a run of finetune --task segment, or fine-tune it"
        )
    config = from_plain(found.config["settings"], FinetuneConfig)
    names = tuple(found.config["classes"])
    model = make_model(config, len(names), None)
    checkpoint.load_weights(found.model, model, str(found.path))
    return Trained(model.eval(), config, names, found)


def check_classes(trained: Trained, table: LabelTable) -> None:
    """Raises SegmentError unless a segmenter's classes are those of a label table, in its order."""
    if trained.names == table.names:
        return
    both = zip([*trained.names, "nothing"], [*table.names, "nothing"], strict=False)
    number, (there, here) = next((i, pair) for i, pair in enumerate(both) if pair[0] != pair[1])
    raise SegmentError(
        f"{trained.found.path}: its {len(trained.names)} classes are not the {len(table.names)} of {table.space}: "
        f"class {number} is {there} there, {here} here; evaluate on scans of its labels, or fine-tune on these"
    )


class Wanted(NamedTuple):
    """Scans to predict: a part of a data set or a list file, formats to write, whether there are labels, and how scans
    are seen, if not as in training: by several views, in windows of so many voxels."""

    data: pathlib.Path
    part: str
    split: pathlib.Path | None
    formats: Sequence[str]
    labels: bool
    views: int = 1
    window_voxels: int | None = None


def evaluate_run(
    run: pathlib.Path, which: str, wanted: Wanted, out: pathlib.Path, device: torch.device, machine: str
) -> Iterator[str]:
    """Evaluate the checkpoints `last`, `best` or `both` of a run, write to `out`, and yield lines for the user.
    machine: what it is measured with.

    Raises SourceError, SceneError, SegmentError, CheckpointError.
    """
    names = ("last", "best") if which == "both" else (which,)
    if run.name.startswith("checkpoint-"):
        names = ("last",)
    trained = {name: load_trained(run, name) for name in names}
    any_of = trained[names[0]]
    table, scans = _read(wanted, any_of)
    if wanted.labels:
        _warn_of_seen(scans, any_of.found.config)
    yield f"{len(scans)} scans; {', '.join(str(one.found.path) for one in trained.values())}"
    found = {name: _evaluate(t, scans, wanted, table, out / name, device) for name, t in trained.items()}
    if wanted.labels:
        about = {"step": {name: t.found.step for name, t in trained.items()}, "config": any_of.found.config}
        about |= {"machine": machine, "views": wanted.views, "window_voxels": wanted.window_voxels}
        summaries = {name: summary(evaluation, any_of.names) for name, evaluation in found.items()}
        yield from write_results(out, summaries, found[names[0]], about)
    yield f"written to {out}"


def _warn_of_seen(scans: Sequence[LabelledScan], config: dict) -> None:
    """Whether a run has seen these scans or their rooms."""
    for key, how in (("scans", "fine-tuned on"), ("weights_scans", "pre-trained on")):
        warn_of_seen([scan.name for scan in scans], config[key], how)


def _read(wanted: Wanted, trained: Trained) -> tuple[LabelTable, list[LabelledScan]]:
    part = find_part(wanted.data, wanted.part, wanted.split)
    table = table_of(part.entry, trained.config.labels.label_space)
    if wanted.labels:
        check_classes(trained, table)
    return table, read_scans(
        part.scans, table if wanted.labels else None, trained.config.run.workers, inputs=trained.config.backbone.inputs
    )


def _evaluate(trained: Trained, scans, wanted: Wanted, table: LabelTable, folder: pathlib.Path, device) -> Evaluation:
    writer = Writer(folder, benchmark_ids(trained.names, table), wanted.formats)
    seeing = seeing_of(trained.config, wanted.window_voxels, wanted.views)
    return evaluate(trained.model.to(device), scans, seeing, device, writer.write)
