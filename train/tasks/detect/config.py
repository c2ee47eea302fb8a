"""Settings of detection. (F): VoteNet's on ScanNet, or those of the field's sparse version of it; (A) our own. Those of
SUN RGB-D are the preset `sunrgbd`."""

from dataclasses import dataclass

from train.config import check, not_negative, one_of, positive, shares
from train.inputs.objects import STUFF

CENTRES = ("vote", "seed")
SEERS = ("unet", "pointnet2")
MIRRORED = ("xy", "x")


@dataclass(frozen=True)
class Detect:
    """How scans become batches, how votes become boxes, and which boxes stay."""

    surrounding: tuple[str, ...] = STUFF  # classes that are no objects
    sample: int = 40_000  # points of a scan that are seen; 0: all (F)
    headings: int = 1  # directions that a box may face, each with a residual; 1: boxes lie along the axes (F)
    boxes_per_scan: int = 0  # learned from, drawn by labels.subset_seed; smaller draws lie in larger ones; 0: all
    mirror: float = 0.5  # chance of an axis to be mirrored (F)
    mirrored: str = "xy"  # x, and y, each by its own chance; or x alone: a camera's frame has its front (F)
    turn_deg: float = 5.0  # about z, either way (F)
    resize: float = 0.0  # either way, as a share of the size (F)
    seen_by: str = "unet"  # or "pointnet2": PointNet++ as VoteNet has it, from scratch, of 1,024 seeds
    seeds: int = 1024  # voxels that vote (F)
    proposals: int = 256  # (F)
    width: int = 256  # channels of a seed; proposals have half (F)
    ball_m: float = 0.3  # around a proposal's middle, in which votes are taken (F)
    ball_votes: int = 16  # (F)
    centres: str = "vote"  # proposals are votes far apart, or votes of seeds far apart (F)
    moved_by_boxes: bool = True  # votes are moved by the losses of boxes too (F); else by their own alone (A)
    vote_weight: float = 1.0  # of the vote loss among the others (F); more of it helps short runs (A)
    near_m: float = 0.3  # a proposal is of an object if its middle is nearer to one (F)
    far_m: float = 0.6  # and of none if it is farther from all; between, it does not count (F)
    iou_weight: float = 0.0  # of one minus IoU of decoded boxes; 3.33 is worth 3 points of AP50 in other code (F)
    phantom: bool = False  # a box at the origin is there in every scan, as by the padding of VoteNet's code
    momentum_start: float = 0.5  # of all norms (F)
    momentum_steps: int = 16_000  # after which it is halved, again and again, down to 0.001; 0: norm_momentum holds (F)
    least_objectness: float = 0.05  # of a detection (F)
    least_inside: int = 5  # points in a detection (F)
    box_overlap: float = 0.25  # above which the less sure one of a class is left out (F)

    def __post_init__(self):
        rules = [
            one_of(self, "centres", CENTRES),
            one_of(self, "seen_by", SEERS),
            one_of(self, "mirrored", MIRRORED),
            *positive(self, "headings", "seeds", "proposals", "width", "ball_votes"),
            *not_negative(self, "sample", "turn_deg", "iou_weight", "vote_weight", "momentum_steps", "least_inside"),
            *not_negative(self, "boxes_per_scan"),
            *shares(self, "mirror", "least_objectness", "box_overlap", "momentum_start"),
            ("resize", 0 <= self.resize < 1, "from 0 to below 1"),
            ("ball_m", self.ball_m > 0, "above 0"),
            ("far_m", self.far_m >= self.near_m > 0, "not below near_m, both above 0"),
            ("iou_weight", self.headings == 1 or not self.iou_weight, "0 with headings: it is of boxes along the axes"),
            ("proposals", self.proposals <= self.seeds, f"not above seeds = {self.seeds}: each is one seed's vote"),
        ]
        check(self, rules)
