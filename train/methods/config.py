"""Everything that can be set for pre-training, in one frozen value, and the presets to start from."""

from dataclasses import dataclass

from train.config import check, one_of
from train.methods.contrast4d.config import METHODS, Contrast4D
from train.run.loop import Running
from train.run.optim import Optim

# Settings that say how a run is carried out, not what it computes: a run may go on with other values.
FREE = frozenset(
    {"run.steps", "run.workers", "run.checkpoint_steps", "run.milestone_steps", "run.log_steps", "run.backend"}
    | {"run.rulebooks_ahead", "probe_steps", "probe_data"}
)


@dataclass(frozen=True)
class PretrainConfig:
    """A method, and how it is trained. Defaults are the paper's: preset `paper`; (A) marks what it leaves open."""

    method: str = "4dcontrast"
    contrast: Contrast4D = Contrast4D()
    optim: Optim = Optim(lr=0.25, schedule="step", decay=0.99, decay_steps=1000, momentum=0.9, weight_decay=1e-4)
    run: Running = Running(steps=50_000, batch=12)
    block_scans: int = 32  # scans among which neighbouring sequences are shuffled
    probe_steps: int = 500  # steps between two looks at what features are good for; 0: none
    probe_data: str | None = None  # folder of labelled scans for k-NN; none: points of sequences are retrieved

    def __post_init__(self):
        rules = [one_of(self, "method", METHODS), ("block_scans", self.block_scans >= 1, "at least 1")]
        rules.append(("probe_steps", self.probe_steps >= 0, "not below 0"))
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
        optim=Optim(lr=1.0),
        run=Running(steps=120, batch=2, checkpoint_steps=20, log_steps=1),
        probe_steps=60,
    ),
}
