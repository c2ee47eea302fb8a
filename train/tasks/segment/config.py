"""Settings of semantic segmentation."""

from dataclasses import dataclass

from train.config import check, one_of
from train.inputs.views import Augmentation
from train.tasks.segment.windows import LEAST

VOXEL_LABELS = ("majority", "first", "unanimous")


@dataclass(frozen=True)
class Segment:
    """How labelled scans become labelled voxels."""

    voxel_label: str = "majority"  # of a voxel's points; "first" of them, or "unanimous": mixed voxels do not count (A)
    max_voxels: int | None = None  # of a scan in training: those around a drawn point are taken of larger ones (A)
    window_voxels: int | None = None  # of a scan in one forward of an evaluation; none: what spconv can address
    augmentation: Augmentation = Augmentation()

    def __post_init__(self):
        rules = [one_of(self, "voxel_label", VOXEL_LABELS)]
        for name in ("max_voxels", "window_voxels"):
            most = getattr(self, name)
            rules.append((name, most is None or most >= LEAST, f"at least {LEAST}, or none"))
        check(self, rules)
