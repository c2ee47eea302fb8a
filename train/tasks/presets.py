"""Everything that can be set for fine-tuning and for probing, as frozen values, and the presets to start from."""

import math
from dataclasses import dataclass

from train.nets.unet import NETS
from train.presets import PRECISIONS, ConfigError
from train.tasks.augment import Augmentation

VOXEL_LABELS = ("majority", "first", "unanimous")
FREEZES = ("nothing", "backbone")

# Fields that say how a run is carried out, not what it computes. `steps` is none of them: the rate falls towards it.
FREE = frozenset({"workers"})


@dataclass(frozen=True)
class SegmentConfig:
    """Semantic segmentation. Schedule: 4DContrast, section 4 and appendix C.1; what it leaves open follows the field's
    code (PointContrast, Contrastive Scene Contexts) and is marked (F), our own choices (A)."""

    net: str = "34"
    voxel_m: float = 0.02
    label_space: str = "auto"  # of the scans; auto: what datasets_manifest.yaml says of their data set
    percent: float = 100.0  # of the training scans whose labels are used, by room
    subset_seed: int = 0  # of the rooms, where the benchmark's own list is not there
    freeze: str = "nothing"  # or "backbone": only the head learns
    norm_momentum: float = 0.02  # (F)
    voxel_label: str = "majority"  # of a voxel's points; "first" of them, or "unanimous": mixed voxels do not count (A)

    elastic_share: float = 0.95  # (F), as all that follow; see tasks/augment.py
    dropout_share: float = 0.2
    dropout: float = 0.2
    flip: float = 0.475
    tilt_rad: float = math.pi / 64
    scale_low: float = 0.9
    scale_high: float = 1.1
    shift_m: float = 1.0

    steps: int = 10_000
    batch: int = 48  # scans of a step, over all processes
    accumulate: int = 1  # parts in which a process takes its share of the batch; norms see one part at a time
    lr: float = 0.8
    lr_power: float = 0.9  # lr x (1 - step / steps) ^ lr_power
    momentum: float = 0.9  # (F)
    dampening: float = 0.1  # (F)
    weight_decay: float = 1e-4  # (F)
    precision: str = "auto"  # float16 under autocast on CUDA, float32 elsewhere

    seed: int = 0
    workers: int = 2  # threads that read scans, and make batches ahead; 0: none
    validate_steps: int = 500
    checkpoint_steps: int = 500
    log_steps: int = 10

    def __post_init__(self):
        for field, rule in _broken_rules(self):
            raise ConfigError(f"{field} = {getattr(self, field)}: {rule}")

    def augmentation(self) -> Augmentation:
        """How a scan is varied."""
        return Augmentation(**{name: getattr(self, name) for name in Augmentation._fields if hasattr(self, name)})

    def lr_at(self, step: int) -> float:
        """Learning rate of the update after `step` others."""
        return self.lr * (1 - step / self.steps) ** self.lr_power


def _broken_rules(c: SegmentConfig):
    """(field, rule) of each rule that does not hold."""
    positive = ("steps", "batch", "accumulate", "validate_steps", "checkpoint_steps", "log_steps")
    shares = ("elastic_share", "dropout_share", "flip")
    rules = [
        ("net", c.net in NETS, "one of " + ", ".join(NETS)),
        ("freeze", c.freeze in FREEZES, "one of " + ", ".join(FREEZES)),
        ("voxel_label", c.voxel_label in VOXEL_LABELS, "one of " + ", ".join(VOXEL_LABELS)),
        ("precision", c.precision in PRECISIONS, "one of " + ", ".join(PRECISIONS)),
        ("voxel_m", 0.001 <= c.voxel_m <= 1, "from 1 mm to 1 m"),
        ("percent", 0 < c.percent <= 100, "above 0, and 100 at most"),
        ("norm_momentum", 0 < c.norm_momentum <= 1, "above 0, and 1 at most"),
        *((name, getattr(c, name) >= 1, "at least 1") for name in positive),
        *((name, 0 <= getattr(c, name) <= 1, "from 0 to 1") for name in shares),
        ("dropout", 0 <= c.dropout < 1, "from 0 to below 1"),
        ("tilt_rad", 0 <= c.tilt_rad <= math.pi, "from 0 to pi"),
        ("shift_m", 0 <= c.shift_m <= 100, "from 0 to 100 m"),
        ("scale_low", 0 < c.scale_low <= c.scale_high, "above 0 and not above scale_high"),
        ("lr", c.lr > 0, "above 0"),
        ("lr_power", c.lr_power >= 0, "not below 0"),
        ("momentum", 0 <= c.momentum < 1, "from 0 to below 1"),
        ("dampening", 0 <= c.dampening <= 1, "from 0 to 1"),
        ("weight_decay", c.weight_decay >= 0, "not below 0"),
        ("seed", 0 <= c.seed < 2**63, "a whole number from 0 to 2^63 - 1"),
        ("subset_seed", c.subset_seed >= 0, "a whole number from 0 on"),
        ("workers", 0 <= c.workers <= 64, "from 0 to 64"),
    ]
    for name in ("checkpoint_steps", "log_steps"):  # so that a resumed run validates what it would have, and no more
        every = getattr(c, name)
        rules.append(("validate_steps", every < 1 or c.validate_steps % every == 0, f"a multiple of {name} = {every}"))
    return [(field, rule) for field, holds, rule in rules if not holds]


@dataclass(frozen=True)
class ProbeConfig:
    """Linear and k-NN probe of frozen features; all choices are ours (A)."""

    net: str = "34"  # of random features, where no weights say which
    voxel_m: float = 0.02
    label_space: str = "auto"
    percent: float = 100.0
    subset_seed: int = 0
    samples: int = 50_000  # labelled voxels of the training scans that probes learn from, an equal share a scan
    decay: float = 1e-4  # weight of half the squared norm of the linear probe's weights, on standardised features
    iterations: int = 200  # of L-BFGS, at most
    neighbours: int = 20
    temperature: float = 0.07  # a neighbour's vote is exp(cosine / temperature)
    queries: int = 20_000  # labelled points of the validation scans that k-NN is asked for, an equal share a scan
    seed: int = 0  # of random features, samples and queries
    workers: int = 2

    def __post_init__(self):
        for field, rule in _broken_probe_rules(self):
            raise ConfigError(f"{field} = {getattr(self, field)}: {rule}")


def _broken_probe_rules(c: ProbeConfig):
    rules = [
        ("net", c.net in NETS, "one of " + ", ".join(NETS)),
        ("voxel_m", 0.001 <= c.voxel_m <= 1, "from 1 mm to 1 m"),
        ("percent", 0 < c.percent <= 100, "above 0, and 100 at most"),
        *((name, getattr(c, name) >= 1, "at least 1") for name in ("samples", "iterations", "neighbours", "queries")),
        ("decay", c.decay > 0, "above 0, or separable classes have no solution"),
        ("temperature", c.temperature > 0, "above 0"),
        ("seed", 0 <= c.seed < 2**63, "a whole number from 0 to 2^63 - 1"),
        ("subset_seed", c.subset_seed >= 0, "a whole number from 0 on"),
        ("workers", 0 <= c.workers <= 64, "from 0 to 64"),
    ]
    return [(field, rule) for field, holds, rule in rules if not holds]


PRESETS = {
    "paper": SegmentConfig(),
    # ScanNet's data-efficient benchmark, appendix C.1.
    "efficient": SegmentConfig(batch=6, steps=15_000, percent=10.0),
    # For CPUs, in minutes: the net and voxels of pre-training's preset of this name. Distortion is left out: nets see
    # each of a few rooms some thirty times only, and learn them faster as they are.
    "small": SegmentConfig(
        net="small",
        voxel_m=0.05,
        batch=2,
        elastic_share=0.0,
        steps=200,
        lr=0.2,
        validate_steps=50,
        checkpoint_steps=50,
        log_steps=10,
    ),
}

PROBES = {
    "paper": ProbeConfig(),
    "small": ProbeConfig(net="small", voxel_m=0.05, samples=20_000, queries=10_000),
}
