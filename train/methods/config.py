"""Everything that can be set for pre-training, in one frozen value, and the presets to start from."""

from dataclasses import dataclass
from typing import NamedTuple

from train.config import check, not_negative, one_of
from train.methods.contrast4d.config import METHODS as CONTRASTS
from train.methods.contrast4d.config import Contrast4D
from train.methods.distill.config import METHODS as DISTILLATIONS
from train.methods.distill.config import Distill
from train.methods.strl.config import Strl
from train.run.loop import Running
from train.run.optim import Optim

METHODS = (*CONTRASTS, *DISTILLATIONS, "strl")

# Settings that say how a run is carried out, not what it computes: a run may go on with other values.
FREE = frozenset(
    {"run.steps", "run.workers", "run.checkpoint_steps", "run.milestone_steps", "run.log_steps", "run.backend"}
    | {"run.rulebooks_ahead", "probe_steps", "probe_data"}
)


class Advice(NamedTuple):
    """What to do in a method where features collapse, and where a term stays below what a constant would reach."""

    collapsed: str
    unlearned: str


def advice(method: str) -> Advice:
    """Of one of the named methods: of a stopped gradient and predictors, of BYOL's target, of prototypes, of VICReg's
    moments, or of negatives."""
    if method in CONTRASTS and CONTRASTS[method].cosine:
        return Advice("lower lr, and keep stop_gradient=conventional", "set predictors=own, or its weight to 0")
    if method == "strl":
        collapsed = "lower lr, and keep target_decay at 0.99 or more"
    elif method in DISTILLATIONS:
        collapsed = "lower lr, or take more prototypes"
    elif CONTRASTS[method].loss == "vicreg":
        collapsed = "lower lr, or give the variance more of vicreg_weights"
    else:
        collapsed = "lower lr, or take more samples: they are the negatives"
    return Advice(collapsed, "lower lr, or train for more steps")


@dataclass(frozen=True)
class PretrainConfig:
    """A method, and how it is trained. Defaults are the paper's: preset `paper`; (A) marks what it leaves open."""

    method: str = "4dcontrast"
    contrast: Contrast4D = Contrast4D()  # of all methods but strl
    distill: Distill = Distill()  # of distillations, besides
    strl: Strl = Strl()  # of strl
    optim: Optim = Optim(lr=0.25, schedule="step", decay=0.99, decay_steps=1000, momentum=0.9, weight_decay=1e-4)
    run: Running = Running(steps=50_000, batch=12)
    warmup_epochs: float = 0.0  # of rising rates, besides optim.warmup_steps
    # Scans among which sequences are shuffled; none: all of a data set on a disk, 32 of one behind a URL, where a shard
    # is fetched once for many of its sequences.
    block_scans: int | None = None
    probe_steps: int = 500  # steps between two looks at what features are good for; 0: none; strl has none
    probe_data: str | None = None  # folder of labelled scans for k-NN; none: points of sequences are retrieved

    def __post_init__(self):
        rules = [
            one_of(self, "method", METHODS),
            *not_negative(self, "warmup_epochs", "probe_steps"),
            ("block_scans", self.block_scans is None or self.block_scans >= 1, "at least 1, or none"),
        ]
        check(self, rules)


PRESETS = {
    "paper": PretrainConfig(),
    # For CPUs, in minutes: coarser voxels, small nets, few samples, and the rate of the study's cosine losses.
    "small": PretrainConfig(
        contrast=Contrast4D(
            net_3d="small",
            net_4d="small-4d",
            width=32,
            hidden=16,
            samples=256,
            voxel_m=0.05,
            voxel_4d_m=0.1,
            temperature=0.2,  # of 0.1, 0.2 and 0.4 the best with 255 negatives (one model each, by probes)
        ),
        # (A) A teacher that has hundreds of steps to follow in, and prototypes for some hundreds of samples.
        distill=Distill(prototypes=64, teacher_decay=0.95),
        optim=Optim(lr=1.0),
        run=Running(steps=120, batch=2, shared_norms=True, checkpoint_steps=20, log_steps=1),
        probe_steps=60,
    ),
    # STRL, section 4. Its rate, decay of weights and length are in its supplement alone: (A) BYOL's for 100 epochs, and
    # 100 epochs of ShapeNet's 57,448 shapes. One batch in one part: norms see all of it.
    "strl": PretrainConfig(
        method="strl",
        optim=Optim(optimiser="lars", lr=0.45, schedule="cosine-rest", weight_decay=1e-6),
        run=Running(steps=22_440, batch=256, precision="float32"),  # float16 saves 7 % of DGCNN's time alone
        warmup_epochs=10,
    ),
    # For CPUs, in minutes.
    "strl-small": PretrainConfig(
        method="strl",
        strl=Strl(net="pointnet", points=256, head_width=512, head_out=128, redraw=True),
        optim=Optim(optimiser="adamw", lr=0.001, schedule="cosine", weight_decay=0.0),
        run=Running(steps=200, batch=16, checkpoint_steps=50, log_steps=10),
        warmup_epochs=1,
    ),
}
