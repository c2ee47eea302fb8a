"""Does pre-training help? Arms that differ in their pre-training alone, compared on the built-in rooms.

    <out>/study.json              the plan, with the rooms' version and digest: written before anything is compared
    <out>/samples, sequences      rooms, shapes and the data set, as `gen4d samples` and `gen4d build` make them
    <out>/pretrain/<arm>-<seed>   runs
    <out>/results.jsonl           a line per cell: arm, pre-training seed, share of labels, subset, scores
    <out>/results.md, results.png

A cell fine-tunes one pre-trained backbone with the labels of one subset of the training rooms, and probes its frozen
features. Cells of one seed, share and subset are pairs: scratch is the very net that the other arms of its seed started
from, and labels, head, batches and number of steps are the same. Arms without a 4D encoder make more pre-training
steps, as many as take the same time (`Arm.steps`). Only the last checkpoint counts.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from gen4d import building, files, sources
from gen4d.building import estimate, workers
from gen4d.config import Config, difference
from gen4d.samples import GENERATOR_VERSION, write_samples
from gen4d.shards import open_dataset
from train.features import Backbone
from train.log import read_lines
from train.metrics import scores
from train.presets import PRESETS as PRETRAINING
from train.presets import ConfigError, PretrainConfig, to_plain
from train.pretrain import make_model, pretrain
from train.tasks import finetune, probe
from train.tasks.presets import PRESETS, PROBES
from train.world import World


class StudyError(ValueError):
    """A study that cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Arm:
    """A way of pre-training, or none. steps: of pre-training, as a multiple of what arms with a 4D encoder make;
    lr: its rate; weight_4d: of the terms 3D-4D and 4D-4D."""

    method: str = ""
    stop_gradient: str = "conventional"
    steps: float = 1.0
    lr: float = 1.0
    weight_4d: float = 1.0


# Steps, 1.5: one of the small nets on 10 cm voxels takes 0.84 s without and 1.22 s with the 4D encoder (one core of
# two). Rates: by probes after 300 steps, from 0.25 to 4, on rooms of another seed than the study's (README, study log).
ARMS = {
    "scratch": Arm(),
    "static-3d": Arm("static-3d", steps=1.5),
    "moving-3d": Arm("moving-3d", steps=1.5),
    "4dcontrast": Arm("4dcontrast"),
    "4dcontrast-printed": Arm("4dcontrast", "printed"),
    "4dcontrast-light": Arm("4dcontrast", weight_4d=0.2),
    "moving-3d-simclr": Arm("moving-3d-simclr", steps=1.5, lr=2.0),
    "4dcontrast-simclr": Arm("4dcontrast-simclr", lr=2.0),
}


@dataclass(frozen=True)
class Study:
    """What is compared, and how long everything takes."""

    arms: tuple[str, ...] = ("scratch", "moving-3d", "4dcontrast", "moving-3d-simclr")
    rooms: int = 60  # of which every fifth is for testing
    samples_seed: int = 1  # rates and everything else were chosen on the rooms of seed 0
    sequences: int = 20  # a scan
    net_3d: str = "small"
    net_4d: str = "small-4d"
    voxel_m: float = 0.1
    voxel_4d_m: float = 0.2
    pretrain_steps: int = 600
    seeds: int = 2  # of pre-training
    percents: tuple[float, ...] = (5.0, 20.0)
    subsets: int = 4  # of the training rooms, for every seed and share
    finetune_steps: int = 600
    finetune_lr: float = 0.2
    samples: int = 10_000  # of the probes
    queries: int = 10_000

    def __post_init__(self):
        for field, rule in _broken_rules(self):
            raise ConfigError(f"{field} = {getattr(self, field)}: {rule}")


def _broken_rules(s: Study):
    positive = ("sequences", "pretrain_steps", "seeds", "subsets", "finetune_steps", "samples", "queries")
    rules = [
        ("arms", set(s.arms) <= set(ARMS), "of " + ", ".join(ARMS)),
        ("arms", "scratch" in s.arms, "scratch among them, which all others are compared with"),
        ("rooms", s.rooms >= 3, "at least 3: two to learn from and one to be tested on"),
        ("percents", all(0 < percent <= 100 for percent in s.percents), "above 0, and 100 at most"),
        ("subsets", s.subsets <= 1000, "1000 at most"),
        ("finetune_lr", s.finetune_lr > 0, "above 0"),
        *((name, getattr(s, name) >= 1, "at least 1") for name in positive),
    ]
    return [(field, rule) for field, holds, rule in rules if not holds]


STUDIES = {
    "small": Study(),
    "full": Study(
        arms=tuple(arm for arm in ARMS if arm != "4dcontrast-light"),
        rooms=500,
        voxel_m=0.05,
        voxel_4d_m=0.1,
        pretrain_steps=10_000,
        seeds=3,
        percents=(2.0, 5.0, 10.0, 20.0, 100.0),
        finetune_steps=2_000,
        samples=50_000,
        queries=20_000,
    ),
}


class Cell(NamedTuple):
    """One comparison's unit. seed: of pre-training; subset: of the labelled rooms."""

    arm: str
    seed: int
    percent: float
    subset: int

    @property
    def pair_seed(self) -> int:
        """Of the choice of labels, of head and batches: the same in all arms."""
        return 1000 * self.seed + self.subset


class Work(NamedTuple):
    """What a worker process needs for one piece of work."""

    out: pathlib.Path
    study: Study
    cell: Cell
    device: str


def cells(study: Study) -> list[Cell]:
    """All cells, pairs side by side, so that a study that stops early has seen every seed and share alike. A subset of
    all labels is always the same, but its seed differs."""
    return [
        Cell(arm, seed, percent, subset)
        for subset in range(study.subsets)
        for seed in range(study.seeds)
        for percent in study.percents
        for arm in study.arms
    ]


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
    samples, folder = out / "samples", out / "sequences"
    inputs = building.make_inputs(
        sources.find_scans(samples / "scans"),
        sources.find_shapes(samples / "shapes"),
        Config(sequences=study.sequences),
    )
    files.make_folder(folder)
    with files.locked(folder):
        plan = building.make_plan(folder, inputs, strict=True)
        estimate.warm_up(inputs.config, lambda: say("compiling kernels (once)"))
        building.finish(folder, plan.sidecars | dict(building.run(plan.jobs, max(processes, 1))))


# Work ----------------------------------------------------------------------------------------------------------------


def pretrain_config(study: Study, arm: str, seed: int) -> PretrainConfig:
    """How an arm is pre-trained."""
    same = {name: getattr(study, name) for name in ("net_3d", "net_4d", "voxel_m", "voxel_4d_m")}
    way = ARMS[arm]
    return dataclasses.replace(
        PRETRAINING["small"],
        **same,
        method=way.method,
        stop_gradient=way.stop_gradient,
        lr=way.lr,
        weight_3d4d=way.weight_4d,
        weight_4d=way.weight_4d,
        precision="float32",  # the same on every device
        steps=max(1, round(study.pretrain_steps * way.steps)),
        seed=seed,
        workers=1,
        checkpoint_steps=100,
        log_steps=10,
    )


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
    job = _job(work)
    tuned = _finetune(work, job)
    points, voxels = scores(tuned.points), scores(tuned.voxels)
    found = next(iter(probe.probe(_probe_config(work), job, device)))
    line = cell._asdict() | {"scans": len(job.train), "miou": points.miou, "macc": points.macc}
    line |= {"miou_voxels": voxels.miou, "linear": scores(found.linear.points).miou, "knn": scores(found.knn).miou}
    pretrained = ARMS[cell.arm].method
    line["pretrain_seconds"] = pretrain_seconds(pretrain_folder(work.out, cell)) if pretrained else 0.0
    line["seconds"] = time.perf_counter() - started
    line["test"] = {"scans": len(job.val), "points": int(points.count.sum()), "classes": int((points.count > 0).sum())}
    line["plan"] = hashlib.sha256(json.dumps(to_plain(study), sort_keys=True).encode()).hexdigest()[:16]
    return line


def _job(work: Work) -> finetune.Job:
    """A cell's scans and weights. Scans are read once a process."""
    scans = work.out / "samples" / "scans"
    every = _scans(scans)
    config = _finetune_config(work)
    names = [scan.name for scan in every.train]
    subset = finetune.choose_subset(scans, "gen4d-samples", names, config.percent, config.subset_seed)
    chosen = [scan for scan in every.train if scan.name in set(subset.names)]
    return every._replace(train=chosen, weights=weights_of(work), origin=subset.origin)


def weights_of(work: Work) -> Backbone:
    """The backbone that a cell starts from: a pre-trained one, or the one that its pre-training would start from."""
    cell, study = work.cell, work.study
    if ARMS[cell.arm].method:
        return finetune.read_weights(pretrain_folder(work.out, cell), study.voxel_m)
    drawn = make_model(pretrain_config(study, next(arm for arm in ARMS if ARMS[arm].method), cell.seed))
    return Backbone(drawn.encoder3d.backbone, study.voxel_m)


@functools.lru_cache(maxsize=1)
def _scans(folder: pathlib.Path) -> finetune.Job:
    return finetune.read_job(finetune.Inputs(folder), PRESETS["small"], lambda text: None)


def _finetune_config(work: Work):
    cell, study = work.cell, work.study
    return dataclasses.replace(
        PRESETS["small"],
        net=study.net_3d,
        voxel_m=study.voxel_m,
        percent=cell.percent,
        subset_seed=cell.pair_seed,
        seed=cell.pair_seed,
        steps=study.finetune_steps,
        lr=study.finetune_lr,
        precision="float32",
        validate_steps=study.finetune_steps,
        checkpoint_steps=study.finetune_steps,
        log_steps=study.finetune_steps,
        workers=0,
    )


def _probe_config(work: Work):
    study = work.study
    same = {"voxel_m": study.voxel_m, "samples": study.samples, "queries": study.queries}
    return dataclasses.replace(PROBES["small"], **same, net=study.net_3d, seed=work.cell.pair_seed)


def _finetune(work: Work, job: finetune.Job) -> finetune.Evaluation:
    """What the last checkpoint scores on the test rooms. The run's folder is removed: its line is what stays."""
    run = work.out / "cells" / "-".join(map(str, work.cell))
    shutil.rmtree(run, ignore_errors=True)
    world = World(0, 1, torch.device(work.device))
    with contextlib.closing(finetune.finetune(_finetune_config(work), job, run, world)) as items:
        last = [item for item in items if isinstance(item, finetune.Validation)][-1]
    shutil.rmtree(run)
    return last.evaluation
