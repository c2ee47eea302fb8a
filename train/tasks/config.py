"""Everything that can be set for fine-tuning, in one frozen value, and the presets to start from.

Schedule: 4DContrast, section 4 and appendix C.1; what it leaves open follows the field's code (PointContrast,
Contrastive Scene Contexts) and is marked (F), our own choices (A).
"""

from dataclasses import dataclass

from train.config import check, one_of
from train.inputs.labelled import LabelUse
from train.inputs.views import Augmentation
from train.run.loop import Running
from train.run.optim import Optim
from train.tasks.backbone import BackboneUse
from train.tasks.segment.config import Segment

TASKS = ("segment",)

# Settings that say how a run is carried out, not what it computes. `steps` is none of them: the rate falls towards it.
FREE = frozenset({"run.workers", "run.checkpoint_steps", "run.milestone_steps", "run.log_steps"})


@dataclass(frozen=True)
class FinetuneConfig:
    """A task, the net and labels that it uses, and how it is trained."""

    task: str = "segment"
    backbone: BackboneUse = BackboneUse()
    labels: LabelUse = LabelUse()
    segment: Segment = Segment()
    optim: Optim = Optim(lr=0.8, schedule="poly", power=0.9, momentum=0.9, dampening=0.1, weight_decay=1e-4)  # (F)
    # Eight parts of six scans, as Contrastive Scene Contexts has it (F): norms see six, and a forward fits.
    run: Running = Running(steps=10_000, batch=48, accumulate=8)
    validate_steps: int = 500

    def __post_init__(self):
        rules = [one_of(self, "task", TASKS), ("validate_steps", self.validate_steps >= 1, "at least 1")]
        for name in ("checkpoint_steps", "log_steps"):  # so that a resumed run validates what it would have, no more
            every = getattr(self.run, name)
            rules.append(("validate_steps", self.validate_steps % every == 0, f"a multiple of {name} = {every}"))
        check(self, rules)


PRESETS = {
    "paper": FinetuneConfig(),
    # ScanNet's data-efficient benchmark, appendix C.1.
    "efficient": FinetuneConfig(labels=LabelUse(percent=10.0), run=Running(steps=15_000, batch=6)),
    # For CPUs, in minutes: the net and voxels of pre-training's preset of this name. Distortion is left out: nets see
    # each of a few rooms some thirty times only, and learn them faster as they are.
    "small": FinetuneConfig(
        backbone=BackboneUse(net="small", voxel_m=0.05),
        segment=Segment(augmentation=Augmentation(elastic_share=0.0)),
        optim=Optim(lr=0.2, schedule="poly", power=0.9, momentum=0.9, dampening=0.1, weight_decay=1e-4),
        run=Running(steps=200, batch=2, checkpoint_steps=50, log_steps=10),
        validate_steps=50,
    ),
}
