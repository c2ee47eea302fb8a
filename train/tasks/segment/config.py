"""Settings of semantic segmentation."""

from dataclasses import dataclass

from train.config import check, one_of
from train.inputs.views import Augmentation

VOXEL_LABELS = ("majority", "first", "unanimous")


@dataclass(frozen=True)
class Segment:
    """How labelled scans become labelled voxels."""

    voxel_label: str = "majority"  # of a voxel's points; "first" of them, or "unanimous": mixed voxels do not count (A)
    augmentation: Augmentation = Augmentation()

    def __post_init__(self):
        check(self, [one_of(self, "voxel_label", VOXEL_LABELS)])
