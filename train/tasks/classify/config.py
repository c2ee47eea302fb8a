"""Settings of shape classification. Protocol: STRL, section 5.2.1; what it leaves open follows its published code and
is marked (F), our own choices (A)."""

from dataclasses import dataclass

from train.config import check, one_of, positive, seed, shares, voxel_sizes, workers
from train.nets.pooled import BACKBONES
from train.run.optim import Optim

FREE = frozenset({"workers"})


@dataclass(frozen=True)
class Tuning:
    """Fine-tuning, of every share of the labels alike."""

    percents: tuple[float, ...] = (100.0, 20.0, 10.0, 5.0, 1.0)  # of the training shapes; none: no fine-tuning
    subsets: int = 5  # draws of every share below 100 (A), the same for all arms
    points: int = 1024
    k: int = 20  # neighbours of DGCNN's (F)
    epochs: float = 250.0
    batch: int = 32
    validations: int = 10  # of a run; the last one is its result (A)
    dropout: float = 0.5
    smoothing: float = 0.2  # of labels (F)
    stretch_low: float = 2 / 3  # of a shape, along each axis (F)
    stretch_high: float = 3 / 2
    shift: float = 0.2  # either way along each axis, in radii (F)
    optim: Optim = Optim(lr=0.1, schedule="cosine", last=0.01, momentum=0.9, weight_decay=1e-4)  # (F)

    def __post_init__(self):
        rules = [
            ("percents", all(0 < share <= 100 for share in self.percents), "all above 0, and 100 at most"),
            *positive(self, "subsets", "points", "k", "batch", "validations"),
            ("epochs", self.epochs > 0, "above 0"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            ("smoothing", 0 <= self.smoothing < 1, "from 0 to below 1"),
            ("stretch_low", 0 < self.stretch_low <= self.stretch_high, "above 0 and not above stretch_high"),
            ("shift", 0 <= self.shift <= 10, "from 0 to 10"),
        ]
        check(self, rules)


@dataclass(frozen=True)
class ClassifyConfig:
    """A linear machine on frozen features, and fine-tuning."""

    net: str = "dgcnn"  # of random features, and from scratch, where no weights say which
    k: int = 40  # neighbours of DGCNN's for frozen features, those of pre-training
    voxel: float = 0.05  # of sparse nets, in radii
    points: int = 2048  # of a shape, for frozen features
    rows: str = "random"  # points of a shape; first: those of its first rows, as the published code takes them
    costs: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)  # C, of which a part of train chooses
    held_out: float = 0.2  # that part
    tuning: Tuning = Tuning()
    picture: int = 2000  # shapes of the picture of features, at most; 0: none
    seed: int = 0
    workers: int = 2

    def __post_init__(self):
        rules = [
            one_of(self, "net", BACKBONES),
            ("k", 1 <= self.k <= 255, "from 1 to 255"),
            *voxel_sizes(self, "voxel"),
            *positive(self, "points"),
            one_of(self, "rows", ("random", "first")),
            ("costs", len(self.costs) > 0 and all(cost > 0 for cost in self.costs), "one or more, all above 0"),
            *shares(self, "held_out"),
            ("picture", self.picture >= 0, "not below 0"),
            seed(self),
            workers(self),
        ]
        check(self, rules)


PRESETS = {
    "paper": ClassifyConfig(),
    # For CPUs, in minutes: as pre-training's preset of this name.
    "small": ClassifyConfig(
        net="pointnet",
        points=256,
        tuning=Tuning(
            percents=(20.0, 1.0),
            subsets=2,
            points=256,
            epochs=240.0,  # a few shapes make a step an epoch: after 60 of them a net from scratch guesses
            batch=16,
            validations=4,
            # At (F)'s 0.1 by SGD, for DGCNN and batches of 32, a PointNet learns less from 16 (docs/log.md).
            optim=Optim(optimiser="adamw", lr=0.002, schedule="cosine", last=0.01, weight_decay=1e-4),
        ),
    ),
}
