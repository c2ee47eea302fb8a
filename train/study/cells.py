"""The work of a study's cells: pre-train, fine-tune, probe; and what their steps cost.

<out>/<side>/pretrain/<arm>-<seed>   runs; of built-in rooms, one for all cells of an arm and seed
<out>/cells/<name>.json              what a cell found, and that it is done
<out>/cells/<name>.npz               confusion matrices of its test scans, of segmentation in the comparison
"""

import contextlib
import functools
import io
import json
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from gen4d import files, sources
from gen4d.shards import open_dataset
from train.config import change
from train.inputs.labelled import LabelledData, LabelUse, Places, read_labelled
from train.inputs.subsets import nested_rooms, room_of
from train.methods.pretrain import make as make_pretraining
from train.methods.pretrain import make_model, pretrain
from train.nets.unet import match_norms
from train.nets.weights import Backbone
from train.run.checkpoint import newest
from train.run.log import Record, read_lines
from train.run.loop import LoopError, Prepared, train
from train.run.world import World
from train.study.arms import ARMS, SCRATCH, pretrained_as, recipe_of
from train.study.plan import BEST, SCORES, Cell, Costs, Study, finetune_config, pretrain_config, probe_config
from train.study.rooms import Rooms, StudyError
from train.tasks import probe
from train.tasks.backbone import BackboneUse, calibrate, read_weights
from train.tasks.finetune import Validation, finetune_prepared, make
from train.tasks.instances.ap import InstanceError
from train.tasks.metrics import scores
from train.tasks.segment.model import SegmentError
from train.tasks.task import Task

_FAILED = "failed.txt"  # in the run of an arm whose loss was not finite
_DRAWN_BY = "moving-3d-infonce"  # whose net is scratch; all methods draw the backbone first


class Work(NamedTuple):
    """What a worker process needs for one piece of work. best: the arm that `best` stands for."""

    out: pathlib.Path
    study: Study
    rooms: dict[str, Rooms]
    cell: Cell
    device: str
    best: str = ""
    manifest: pathlib.Path | None = None

    @property
    def arm(self) -> str:
        """The cell's arm, by its own name."""
        return self.best if self.cell.arm == BEST else self.cell.arm

    @property
    def side(self) -> str:
        """Which rooms the cell's stage uses."""
        return "final" if self.cell.stage == "compare" else "tuning"

    @property
    def run(self) -> pathlib.Path:
        """The run of the arm's pre-training."""
        return self.out / self.side / "pretrain" / f"{pretrained_as(self.arm)}-{self.cell.seed}"

    @property
    def place(self) -> pathlib.Path:
        """Where the cell's results go, without suffix."""
        return self.out / "cells" / self.cell.name

    @property
    def world(self) -> World:
        """One process."""
        return World(0, 1, torch.device(self.device))


def pretrain_arm(work: Work) -> float:
    """Pre-train one arm with one seed; returns the seconds that its steps took."""
    _begin(work)
    config = pretrain_config(work.study, work.arm, work.cell.seed)
    data = open_dataset(work.rooms[work.side].sequences)
    try:
        with contextlib.closing(pretrain(config, data, work.run, work.world)) as records:
            for _ in records:
                pass
    except LoopError as error:
        if work.cell.stage != "screen":
            raise StudyError(f"{work.run}: {error}; or compare without {work.arm}, in another --out") from None
        files.write(work.run / _FAILED, f"{error}\n".encode())  # its cell says so, and the others go on
    return seconds_of(work.run)


def is_pretrained(work: Work) -> bool:
    """Whether all steps of the arm's pre-training are made and saved, or it failed."""
    found = newest(work.run)
    steps = pretrain_config(work.study, work.arm, work.cell.seed).run.steps
    return (work.run / _FAILED).exists() or (found is not None and found.step >= steps)


def seconds_of(run: pathlib.Path) -> float:
    """What the steps of a run took, without what was done between them."""
    return sum(line["timing"]["seconds"] for line in read_lines(run / "log.jsonl"))


def measure_cell(work: Work) -> dict:
    """Fine-tune or probe one cell and write what was found; returns it."""
    _begin(work)
    data = labels_of(work)
    line = work.cell._asdict() | {"name": work.cell.name, "scans": len(data.train), "judged": len(data.val)}
    line["pretrain_seconds"] = seconds_of(work.run) if ARMS[work.arm].method else 0.0
    if ARMS[work.arm].method and (work.run / _FAILED).exists():
        line |= dict.fromkeys(("linear", "knn"), 0.0) | dict.fromkeys(("objectness", "moving", "resting"))
        line["failed"] = (work.run / _FAILED).read_text().strip()
    else:
        weights = weights_of(work)
        line |= _probe(work, data, weights) if work.cell.measure == "probes" else _finetune(work, data, weights)
    files.make_folder(work.place.parent)
    files.write(pathlib.Path(f"{work.place}.json"), json.dumps(line).encode() + b"\n")
    clear(work)
    return line


def clear(work: Work) -> None:
    """Remove the run of a cell that is done: what was found is what stays."""
    if work.place.is_dir():
        shutil.rmtree(work.place)


def _begin(work: Work) -> None:
    torch.set_num_threads(1)
    if work.manifest is not None:  # which a new process does not know
        sources.add_manifest(work.manifest)


def labels_of(work: Work) -> LabelledData:
    """A cell's scans: those of its subset, and those that it is judged on. Scans are read once a process."""
    every = _read(work.rooms[work.side], work.study.label_space)
    chosen = nested_rooms({room_of(scan.name) for scan in every.train}, work.cell.percent, work.cell.pair_seed)
    return every._replace(train=[scan for scan in every.train if room_of(scan.name) in chosen])


@functools.lru_cache(maxsize=2)
def _read(rooms: Rooms, label_space: str) -> LabelledData:
    places = Places(rooms.labelled, rooms.learned, rooms.judged)
    return read_labelled(places, LabelUse(label_space), 2, lambda text: None)


def weights_of(work: Work) -> Backbone:
    """The backbone that a cell starts from: a pre-trained one, or the one that its pre-training would start from."""
    arm, study = ARMS[work.arm], work.study
    drawn = make_model(pretrain_config(study, _DRAWN_BY, work.cell.seed)).encoder3d.backbone
    if not arm.method:
        return Backbone(drawn, study.voxel_m)
    weights = read_weights(work.run, BackboneUse(net=study.net_3d, voxel_m=study.voxel_m))
    if arm.norms == SCRATCH:
        match_norms(weights.net, drawn)
    return weights


# Probes --------------------------------------------------------------------------------------------------------------


def _probe(work: Work, data: LabelledData, weights: Backbone) -> dict:
    rooms = work.rooms[work.side]
    moving = None if rooms.moving is None else open_dataset(rooms.moving)
    given = (probe_config(work.study, work.cell), data, weights, torch.device(work.device), moving)
    found = next(iter(probe.probe(*given)))
    told = None if np.isnan(found.objectness) else found.objectness
    line = {"linear": scores(found.linear.points).miou, "knn": scores(found.knn).miou, "objectness": told}
    known = found.moved
    return line | {"moving": known and known.moving, "resting": known and known.resting}


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def _finetune(work: Work, data: LabelledData, weights: Backbone) -> dict:
    """Its curve over the judged rooms, whose last point is the cell's score; a net that goes wrong has 0. The run goes
    on where it stopped."""
    run, every = work.place, finetune_config(work.study, work.cell).validate_steps
    task, prepared = prepare(work, data, weights)
    try:
        with contextlib.closing(finetune_prepared(task, prepared, data, every, run, work.world)) as items:
            last = [item for item in items if isinstance(item, Validation)][-1]
    except (LoopError, InstanceError, SegmentError) as error:  # at too high a rate: a recipe that is not to be chosen
        steps = [*range(every, work.cell.steps + 1, every)]
        nothing = {"step": steps, "score": [0.0] * len(steps), "seconds": [0.0] * len(steps)}
        return {"curve": nothing, "score": 0.0, "failed": str(error)}
    looks = read_lines(run / "validation.jsonl")
    spent = {line["step"]: line["timing"]["seconds"] for line in read_lines(run / "log.jsonl")}
    line = {"curve": {"step": [x["step"] for x in looks], "score": [_score(work.cell, x) for x in looks]}}
    line["curve"]["seconds"] = [sum(s for at, s in spent.items() if at <= x["step"]) for x in looks]
    line |= {"score": line["curve"]["score"][-1], "figures": last.findings.figures}
    if work.cell.measure == "segmentation" and work.cell.stage == "compare":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, scan=np.array([scan.name for scan in data.val]), each=last.findings.details.each)
        files.write(pathlib.Path(f"{work.place}.npz"), buffer.getvalue())
    return line


def prepare(work: Work, data: LabelledData, weights: Backbone) -> tuple[Task, Prepared]:
    """The task of a cell and all that the loop needs of it."""
    config = finetune_config(work.study, work.cell)
    task, prepared = make(config, data, weights, work.world)
    if recipe_of(work.cell.recipe).way == "head-first":
        _start_head(task.model, data, work)
    return task, prepared


def _start_head(model, data: LabelledData, work: Work) -> None:
    """Makes the linear probe of the net's features the head that fine-tuning starts with."""
    config, device, classes = probe_config(work.study, work.cell), torch.device(work.device), len(data.table.names)
    calibrate(model.backbone, data.train, config.voxel_m, device)
    known, scale = probe.standardised(Backbone(model.backbone, config.voxel_m), data.train, config, classes, device)
    model.to(device)
    probe.put_linear(model, scale, *probe.fit_linear(known, classes, config.decay, config.iterations))
    model.train()


def _score(cell: Cell, line: dict) -> float:
    """What a validation counts by, from 0 to 1."""
    found = line["points"]["miou"] if cell.measure == "segmentation" else line[SCORES[cell.measure].lower()]
    return found or 0.0


# What steps cost -----------------------------------------------------------------------------------------------------


def measure_costs(study: Study, rooms: dict[str, Rooms], device: str, arms: list[str], steps: int = 8) -> Costs:
    """From a few steps of every arm and measure, on the rooms that are there; the first are left out. On a CPU its own
    time counts, which does not depend on what else the machine does."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        cell = Cell("length", SCRATCH, 0, "probes", 100.0, 0, "all:1", steps * study.looks)
        work = Work(pathlib.Path(folder), study, rooms, cell, device)
        _begin(work)
        data, weights = labels_of(work), weights_of(work)
        pretraining, step, look = {}, {}, {}
        for arm in arms:
            config = change(pretrain_config(study, arm, 0), **{"run.steps": steps, "log_steps": 1})
            prepared = make_pretraining(config, open_dataset(rooms["tuning"].sequences), work.world)
            pretraining[arm] = _median_step(train(prepared, work.out / arm, work.world), clock)
        for measure in study.measures:
            task, prepared = prepare(work._replace(cell=cell._replace(measure=measure)), data, weights)
            running = change(prepared.plan.running, steps=steps, log_steps=1)
            prepared = prepared._replace(plan=prepared.plan._replace(running=running))
            step[measure] = _median_step(train(prepared, work.out / measure, work.world), clock)
            start = clock()
            task.validate(task.model)
            look[measure] = (clock() - start) / len(data.val)
        start = clock()
        _probe(work, data, weights)
        return Costs(pretraining, step, look, clock() - start, len(data.val))


def _median_step(records: Iterator[Record], clock: Callable[[], float]) -> float:
    """Seconds from one record to the next."""
    at = [clock() for _ in records]
    return float(np.median(np.diff(at)[1:]))
