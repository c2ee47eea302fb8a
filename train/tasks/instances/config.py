"""Settings of instance segmentation. (F): PointGroup's, as Contrastive Scene Contexts has them; (A) our own."""

from dataclasses import dataclass

from train.config import check, not_negative, positive, shares
from train.inputs.objects import STUFF


@dataclass(frozen=True)
class Instances:
    """How voxels become instances. Scans are varied as `segment.augmentation` says."""

    stuff: tuple[str, ...] = STUFF  # classes that are no objects
    radius_m: float = 0.03  # of a step from voxel to voxel in a cluster: 1.5 voxels of 2 cm (F)
    both_sets: bool = True  # clusters where voxels lie, besides those where they point to
    least_points: int = 50  # of a cluster (F)
    kept_points: int = 100  # of a prediction (F)
    least_score: float = 0.09  # of a prediction (F)
    overlap: float = 0.3  # of masks, above which the less sure one is left out (F)
    soft: bool = False  # a voxel joins all classes that are probable enough, as in SoftGroup
    soft_share: float = 0.2  # the probability that is enough
    soft_size: float = 0.05  # of a class's mean size, the least of a cluster in place of least_points
    score_net: bool = False  # a small net judges proposals, as in PointGroup, in place of the mean probability
    score_after: int = 1000  # updates before it learns (A: PointGroup waits for a third of its epochs)
    score_channels: int = 16

    def __post_init__(self):
        rules = [
            ("radius_m", 0.001 <= self.radius_m <= 1, "from 1 mm to 1 m"),
            *positive(self, "least_points", "kept_points", "score_channels"),
            *not_negative(self, "score_after", "soft_size"),
            *shares(self, "least_score", "overlap", "soft_share"),
        ]
        check(self, rules)
