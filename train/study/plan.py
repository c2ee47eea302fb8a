"""What a study compares: arms, cells, and the settings of every run in it.

A cell fine-tunes one pre-trained backbone with the labels of one subset of the training rooms, and probes its frozen
features. Cells of one seed, share and subset are pairs: scratch is the very net that the other arms of its seed started
from, and labels, head, batches and number of steps are the same. Arms without a 4D encoder make more pre-training
steps, as many as take the same time (`Arm.steps`). Only the last checkpoint counts.
"""

from dataclasses import dataclass
from typing import NamedTuple

from train.config import change, check, positive
from train.methods.config import PRESETS as PRETRAINING
from train.methods.config import PretrainConfig
from train.tasks.config import PRESETS, FinetuneConfig
from train.tasks.probe import PRESETS as PROBES
from train.tasks.probe import ProbeConfig


@dataclass(frozen=True)
class Arm:
    """A way of pre-training, or none. steps: of pre-training, as a multiple of what arms with a 4D encoder make;
    lr: its rate; weight_4d: of the terms 3D-4D and 4D-4D."""

    method: str = ""
    stop_gradient: str = "conventional"
    predictors: str = "own"
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
    "4dcontrast-shared": Arm("4dcontrast", predictors="shared"),
    "4dcontrast-printed": Arm("4dcontrast", "printed"),
    "4dcontrast-light": Arm("4dcontrast", weight_4d=0.2),
    "static-3d-simclr": Arm("static-3d-simclr", steps=1.5, lr=2.0),
    "moving-3d-simclr": Arm("moving-3d-simclr", steps=1.5, lr=2.0),
    "4dcontrast-simclr": Arm("4dcontrast-simclr", lr=2.0),
    "static-3d-infonce": Arm("static-3d-infonce", steps=1.5),
    "moving-3d-infonce": Arm("moving-3d-infonce", steps=1.5),
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
        counts = ("sequences", "pretrain_steps", "seeds", "subsets", "finetune_steps", "samples", "queries")
        rules = [
            ("arms", set(self.arms) <= set(ARMS), "of " + ", ".join(ARMS)),
            ("arms", "scratch" in self.arms, "scratch among them, which all others are compared with"),
            ("rooms", self.rooms >= 3, "at least 3: two to learn from and one to be tested on"),
            ("percents", all(0 < percent <= 100 for percent in self.percents), "above 0, and 100 at most"),
            ("subsets", self.subsets <= 1000, "1000 at most"),
            ("finetune_lr", self.finetune_lr > 0, "above 0"),
            *positive(self, *counts),
        ]
        check(self, rules)


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


# Settings of its runs ------------------------------------------------------------------------------------------------


def pretrain_config(study: Study, arm: str, seed: int) -> PretrainConfig:
    """How an arm is pre-trained."""
    way = ARMS[arm]
    return change(
        PRETRAINING["small"],
        method=way.method,
        net_3d=study.net_3d,
        net_4d=study.net_4d,
        voxel_m=study.voxel_m,
        voxel_4d_m=study.voxel_4d_m,
        stop_gradient=way.stop_gradient,
        predictors=way.predictors,
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


def finetune_config(study: Study, cell: Cell) -> FinetuneConfig:
    """How a cell is fine-tuned."""
    return change(
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


def probe_config(study: Study, cell: Cell) -> ProbeConfig:
    """How a cell's features are probed."""
    return change(
        PROBES["small"],
        net=study.net_3d,
        voxel_m=study.voxel_m,
        samples=study.samples,
        queries=study.queries,
        seed=cell.pair_seed,
    )
