"""Everything that can be set for fine-tuning, in one frozen value, and the presets to start from.

Schedule: 4DContrast, section 4 and appendix C.1; what it leaves open follows the field's code (PointContrast,
Contrastive Scene Contexts) and is marked (F), our own choices (A).
"""

from dataclasses import dataclass

from train.config import check, one_of
from train.inputs.labelled import LabelUse
from train.inputs.scans import GEOMETRY
from train.inputs.views import Augmentation
from train.run.loop import Running
from train.run.optim import Optim
from train.tasks.backbone import BackboneUse
from train.tasks.blocks.config import NETS as BLOCK_NETS
from train.tasks.blocks.config import Blocks
from train.tasks.detect.config import Detect
from train.tasks.instances.config import Instances
from train.tasks.segment.config import Segment

TASKS = ("segment", "blocks", "instances", "detect")

# Settings that say how a run is carried out, not what it computes. `steps` is none of them: the rate falls towards it.
FREE = frozenset({"run.workers", "run.checkpoint_steps", "run.milestone_steps", "run.log_steps", "run.backend"})


@dataclass(frozen=True)
class FinetuneConfig:
    """A task, the net and labels that it uses, and how it is trained."""

    task: str = "segment"
    backbone: BackboneUse = BackboneUse()
    labels: LabelUse = LabelUse()
    segment: Segment = Segment()
    blocks: Blocks = Blocks()
    instances: Instances = Instances()
    detect: Detect = Detect()
    optim: Optim = Optim(lr=0.8, schedule="poly", power=0.9, momentum=0.9, dampening=0.1, weight_decay=1e-4)  # (F)
    # Eight parts of six scans, as Contrastive Scene Contexts has it (F): norms see six, and a forward fits.
    run: Running = Running(steps=10_000, batch=48, accumulate=8)
    validate_steps: int = 500

    def __post_init__(self):
        rules = [one_of(self, "task", TASKS), ("validate_steps", self.validate_steps >= 1, "at least 1")]
        if self.task != "segment" and self.backbone.inputs != GEOMETRY:
            rules.append(("task", False, "takes geometry alone: leave out inputs, or fine-tune with --task segment"))
        if self.task not in ("segment", "instances") and self.segment.max_voxels is not None:
            rules.append(("task", False, "crops no scans: max_voxels is for segment and instances, leave it out"))
        if self.task != "segment" and self.segment.window_voxels is not None:
            rules.append(("task", False, "has no windows: window_voxels is for segment, leave it out"))
        on_points = self.backbone.net in BLOCK_NETS
        if self.task == "blocks":
            rules.append(("task", on_points, f"takes a net on points: --set net= one of {', '.join(BLOCK_NETS)}"))
            rules.append(("task", self.backbone.freeze == "nothing", "trains the whole net: leave out freeze"))
        else:
            rules.append(("task", not on_points, f"takes a net on voxels: {self.backbone.net} is for --task blocks"))
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

# STRL, section 5.2.2. Optimiser, rates and 100 epochs are those of its published code (F): of Area 1, whose 3,687
# blocks make 115 batches of 32. Areas 2 to 5: 13,900, 5,200, 11,400 and 21,400 steps.
BLOCKS = {
    "paper": FinetuneConfig(
        task="blocks",
        backbone=BackboneUse(net="dgcnn-seg"),
        optim=Optim(lr=0.1, schedule="cosine", last=0.01, momentum=0.9, weight_decay=1e-4),
        run=Running(steps=11_500, batch=32, precision="float32", checkpoint_steps=500),
        validate_steps=2_500,
    ),
    # For CPUs, in minutes: few points, few neighbours, and blocks that do not overlap.
    "small": FinetuneConfig(
        task="blocks",
        backbone=BackboneUse(net="dgcnn-seg"),
        blocks=Blocks(stride_m=1.0, points=512, k=8),
        optim=Optim(lr=0.1, schedule="cosine", last=0.01, momentum=0.9, weight_decay=1e-4),
        run=Running(steps=100, batch=8, checkpoint_steps=50, log_steps=10),
        validate_steps=100,
    ),
}

# 4DContrast trains as PointGroup does, from a rate of 0.1; steps and batch are those of Contrastive Scene Contexts (F).
INSTANCES = {
    "paper": FinetuneConfig(
        task="instances",
        optim=Optim(lr=0.1, schedule="poly", power=0.9, momentum=0.9, dampening=0.1, weight_decay=1e-4),
        run=Running(steps=20_000, batch=48, accumulate=8),
        validate_steps=1000,
    ),
    # Its lists of scenes: 5,000 steps of a batch of 48 (F).
    "efficient": FinetuneConfig(
        task="instances",
        labels=LabelUse(percent=10.0),
        optim=Optim(lr=0.1, schedule="poly", power=0.9, momentum=0.9, dampening=0.1, weight_decay=1e-4),
        run=Running(steps=5_000, batch=48, accumulate=8),
    ),
    # For CPUs, in minutes, as the preset of this name of segmentation.
    "small": FinetuneConfig(
        task="instances",
        backbone=BackboneUse(net="small", voxel_m=0.05),
        segment=Segment(augmentation=Augmentation(elastic_share=0.0)),
        instances=Instances(radius_m=0.075),
        optim=Optim(lr=0.2, schedule="poly", power=0.9, momentum=0.9, dampening=0.1, weight_decay=1e-4),
        run=Running(steps=300, batch=2, checkpoint_steps=50, log_steps=10),
        validate_steps=100,
    ),
}

# 4DContrast, section 4: 500 epochs of ScanNet's 1,201 scans in batches of 6 are 100,000 steps; the rate is halved after
# 250, 350 and 450 epochs, norms' momentum every 80 (F). Adam without decay.
_ADAM = Optim(optimiser="adamw", lr=1e-3, schedule="drops", decay=0.5, drops=(0.5, 0.7, 0.9), weight_decay=0.0)

DETECT = {
    "paper": FinetuneConfig(
        task="detect",
        optim=_ADAM,
        run=Running(steps=100_000, batch=6, checkpoint_steps=1000),
        validate_steps=2000,
    ),
    # SUN RGB-D, section 4: 180 epochs of 5,285 frames in batches of 32, the rate divided by 10 after 80, 120 and 160;
    # directions and draws are VoteNet's, the momentum of norms is halved every 20 epochs (F).
    "sunrgbd": FinetuneConfig(
        task="detect",
        detect=Detect(sample=20_000, headings=12, mirrored="x", turn_deg=30.0, resize=0.15, momentum_steps=3300),
        optim=Optim(
            optimiser="adamw", lr=1e-3, schedule="drops", decay=0.1, drops=(4 / 9, 2 / 3, 8 / 9), weight_decay=0.0
        ),
        run=Running(steps=29_700, batch=32, accumulate=4, checkpoint_steps=1100),
        validate_steps=3300,
    ),
    # For CPUs, in minutes. Seeds and proposals are as many as ever: fewer would not cover the surfaces of a room.
    "small": FinetuneConfig(
        task="detect",
        backbone=BackboneUse(net="small", voxel_m=0.05, norm_momentum=0.1),
        detect=Detect(
            width=64, sample=10_000, momentum_steps=0, iou_weight=3.3, moved_by_boxes=False, vote_weight=10.0
        ),
        optim=Optim(optimiser="adamw", lr=4e-3, schedule="poly", power=0.9, weight_decay=0.0),
        run=Running(steps=300, batch=2, checkpoint_steps=50, log_steps=10),
        validate_steps=100,
    ),
}

PRESETS_OF = {"segment": PRESETS, "blocks": BLOCKS, "instances": INSTANCES, "detect": DETECT}  # by task
