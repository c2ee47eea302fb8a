"""A study on the built-in rooms, from rooms to results, going on where it was stopped.

<out>/study.json              the plan, with the rooms' version and digest: written before anything is compared
<out>/samples, sequences      rooms, shapes and the data set, as `gen4d samples` and `gen4d build` make them
<out>/pretrain/<arm>-<seed>   runs
<out>/results.jsonl           a line per cell: arm, pre-training seed, share of labels, subset, scores
<out>/results.md, results.png
"""

import contextlib
import functools
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from gen4d import building, files
from gen4d.building import workers
from gen4d.config import difference
from gen4d.samples import GENERATOR_VERSION, write_samples
from gen4d.shards import open_dataset
from train.config import to_plain
from train.errors import Refused
from train.inputs.labelled import LabelledData, LabelUse, Places, read_labelled
from train.inputs.subsets import choose_subset
from train.methods.pretrain import make_model, pretrain
from train.nets.weights import Backbone
from train.run.log import read_lines
from train.run.world import World
from train.study.plan import ARMS, Cell, Study, cells, finetune_config, pretrain_config, probe_config
from train.tasks import probe
from train.tasks.backbone import read_weights
from train.tasks.finetune import Validation, finetune
from train.tasks.metrics import scores
from train.tasks.segment.evaluate import Evaluation


class StudyError(Refused):
    """A study that cannot go on; the message says why and what to do."""


class Work(NamedTuple):
    """What a worker process needs for one piece of work."""

    out: pathlib.Path
    study: Study
    cell: Cell
    device: str


def run_study(study: Study, out: pathlib.Path, processes: int, device: str, say: Callable[[str], None]) -> list[dict]:
    """Make the whole study, going on from where it is; returns the lines of results.jsonl. processes 0: this one alone.

    Raises StudyError where the folder holds another study, and what its steps raise.
    """
    make_rooms(study, out, say)
    _claim(study, out)
    make_sequences(study, out, processes, say)
    pretrained = [Cell(arm, seed, 0.0, 0) for seed in range(study.seeds) for arm in study.arms if ARMS[arm].method]
    todo = [Work(out, study, cell, device) for cell in pretrained]
    for index, seconds in _spread(pretrain_arm, todo, processes):
        say(f"pre-trained {todo[index].cell.arm}, seed {todo[index].cell.seed}: {seconds:.0f} s")
    done = {cell_of(line) for line in read_lines(out / "results.jsonl")}
    todo = [Work(out, study, cell, device) for cell in cells(study) if cell not in done]
    say(f"{len(done)} cells are done, {len(todo)} to do")
    for count, (_, line) in enumerate(_spread(measure_cell, todo, processes), start=1):
        _append(out / "results.jsonl", line)
        say(f"{count}/{len(todo)}  {cell_of(line)}: mIoU {line['miou']:.4f}, probe {line['linear']:.4f}")
    return read_lines(out / "results.jsonl")


def _spread(do: Callable, todo: list[Work], processes: int) -> Iterator[tuple[int, object]]:
    """(index, result) of each piece of work as it is done, by worker processes or, with none, by this one."""
    return workers.run(do, todo, processes, "spawn") if processes else enumerate(map(do, todo))


def cell_of(line: dict) -> Cell:
    """The cell that a line of results.jsonl is of."""
    return Cell(*(line[name] for name in Cell._fields))


def _append(path: pathlib.Path, line: dict) -> None:
    """Add a line; a file that a kill cut short loses its last one."""
    lines = [*read_lines(path), line]
    files.write(path, "".join(json.dumps(each) + "\n" for each in lines).encode())


# Data ----------------------------------------------------------------------------------------------------------------


def make_rooms(study: Study, out: pathlib.Path, say: Callable[[str], None]) -> None:
    """The built-in samples of a study, with shapes."""
    files.make_folder(out)
    written = write_samples(out / "samples", rooms=study.rooms, seed=study.samples_seed)
    say(f"{written.scans} scans of {study.rooms} rooms, digest {written.digest[:12]}")


def _claim(study: Study, out: pathlib.Path) -> None:
    """Write the plan, or check that the folder's is this one."""
    digest = json.loads((out / "samples" / "gen4d_samples.json").read_text())["digest"]
    ways = {arm: to_plain(ARMS[arm]) for arm in study.arms if ARMS[arm].method}
    plan = to_plain(study) | {"pretraining": ways, "generator_version": GENERATOR_VERSION, "samples_digest": digest}
    plan = json.loads(json.dumps(plan))
    path = out / "study.json"
    if path.exists():
        changed = "; ".join(difference(json.loads(path.read_text()), plan))
        if changed:
            raise StudyError(f"{out}: holds another study ({changed}): use another --out")
    files.write(path, json.dumps(plan, indent=1).encode() + b"\n")


def make_sequences(study: Study, out: pathlib.Path, processes: int, say: Callable[[str], None]) -> None:
    """The data set of the training rooms."""

    def progress(state: building.Progress) -> None:
        if state.stage == "compiling":
            say("compiling kernels (once)")

    places = out / "samples" / "scans", out / "samples" / "shapes", out / "sequences"
    building.build_dataset(
        *places, workers=max(processes, 1), strict=True, progress=progress, sequences=study.sequences
    )


# Work ----------------------------------------------------------------------------------------------------------------


def pretrain_folder(out: pathlib.Path, cell: Cell) -> pathlib.Path:
    """The run of a cell's arm and seed."""
    return out / "pretrain" / f"{cell.arm}-{cell.seed}"


def pretrain_arm(work: Work) -> float:
    """Pre-train one arm with one seed; returns the seconds that its steps took."""
    torch.set_num_threads(1)
    config = pretrain_config(work.study, work.cell.arm, work.cell.seed)
    run, world = pretrain_folder(work.out, work.cell), World(0, 1, torch.device(work.device))
    with contextlib.closing(pretrain(config, open_dataset(work.out / "sequences"), run, world)) as records:
        for _ in records:
            pass
    return pretrain_seconds(run)


def pretrain_seconds(run: pathlib.Path) -> float:
    """What the steps of a run took."""
    return sum(line["timing"]["seconds"] for line in read_lines(run / "log.jsonl"))


def measure_cell(work: Work) -> dict:
    """Fine-tune and probe one cell; returns its line of results.jsonl."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    cell, study, device = work.cell, work.study, torch.device(work.device)
    data, weights = labels_of(work), weights_of(work)
    tuned = _finetune(work, data, weights)
    points, voxels = scores(tuned.points), scores(tuned.voxels)
    found = next(iter(probe.probe(probe_config(study, cell), data, weights, device)))
    line = cell._asdict() | {"scans": len(data.train), "miou": points.miou, "macc": points.macc}
    line |= {"miou_voxels": voxels.miou, "linear": scores(found.linear.points).miou, "knn": scores(found.knn).miou}
    pretrained = ARMS[cell.arm].method
    line["pretrain_seconds"] = pretrain_seconds(pretrain_folder(work.out, cell)) if pretrained else 0.0
    line["seconds"] = time.perf_counter() - started
    line["test"] = {"scans": len(data.val), "points": int(points.count.sum()), "classes": int((points.count > 0).sum())}
    line["plan"] = hashlib.sha256(json.dumps(to_plain(study), sort_keys=True).encode()).hexdigest()[:16]
    return line


def labels_of(work: Work) -> LabelledData:
    """A cell's scans. Scans are read once a process."""
    scans = work.out / "samples" / "scans"
    every, use = _scans(scans), finetune_config(work.study, work.cell).labels
    names = [scan.name for scan in every.train]
    subset = choose_subset(scans, "gen4d-samples", names, use.percent, use.subset_seed)
    chosen = [scan for scan in every.train if scan.name in set(subset.names)]
    return every._replace(train=chosen, origin=subset.origin)


def weights_of(work: Work) -> Backbone:
    """The backbone that a cell starts from: a pre-trained one, or the one that its pre-training would start from."""
    cell, study = work.cell, work.study
    if ARMS[cell.arm].method:
        use = finetune_config(study, cell).backbone
        return read_weights(pretrain_folder(work.out, cell), use)
    drawn = make_model(pretrain_config(study, next(arm for arm in ARMS if ARMS[arm].method), cell.seed))
    return Backbone(drawn.encoder3d.backbone, study.voxel_m)


@functools.lru_cache(maxsize=1)
def _scans(folder: pathlib.Path) -> LabelledData:
    return read_labelled(Places(folder), LabelUse(), 2, lambda text: None)


def _finetune(work: Work, data: LabelledData, weights: Backbone) -> Evaluation:
    """What the last checkpoint scores on the test rooms. The run's folder is removed: its line is what stays."""
    run = work.out / "cells" / "-".join(map(str, work.cell))
    shutil.rmtree(run, ignore_errors=True)
    world = World(0, 1, torch.device(work.device))
    config = finetune_config(work.study, work.cell)
    with contextlib.closing(finetune(config, data, weights, run, world)) as items:
        last = [item for item in items if isinstance(item, Validation)][-1]
    shutil.rmtree(run)
    return last.findings.details
