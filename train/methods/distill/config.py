"""Settings of self-distillation in the spirit of Sonata (CVPR 2025), DINO and SwAV; (A) marks our own choices.

moving-3d-distill    between the frames of moving-object sequences
static-3d-distill    the same on static scans

Nets, samples, views and masks are those of `contrast`. What Sonata has and this has not: colour and normals, local
crops, a head of several layers, masks that grow, and an encoder without a decoder.
"""

from dataclasses import dataclass

from train.config import check, positive
from train.methods.contrast4d.config import Method

METHODS = {
    "static-3d-distill": Method(("3d-3d",), "prototypes", moving=False, masked=True),
    "moving-3d-distill": Method(("3d-3d",), "prototypes", moving=True, masked=True),
}


@dataclass(frozen=True)
class Distill:
    """What is predicted, and how the teacher follows. Temperatures and decay are Sonata's."""

    prototypes: int = 512  # (A: Sonata has 4,096 for 140,000 clouds)
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07  # (A: from the start; Sonata's rises to it from 0.04 in its first twentieth)
    teacher_decay: float = 0.994  # of the teacher's moving average at the start; 1 at the end

    def __post_init__(self):
        rules = [
            *positive(self, "prototypes"),
            ("student_temperature", self.student_temperature > 0, "above 0"),
            ("teacher_temperature", self.teacher_temperature >= 0.025, "at least 0.025, or shares round to nothing"),
            ("teacher_decay", 0 <= self.teacher_decay <= 1, "from 0 to 1"),
        ]
        check(self, rules)
