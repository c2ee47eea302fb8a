"""Settings of STRL (Huang et al., ICCV 2021, sections 3 and 4). Defaults are the paper's; (A) marks what it leaves
open."""

from dataclasses import dataclass

from train.config import check, one_of, positive, voxel_sizes
from train.inputs.spatial import Spatial, Temporal
from train.nets.pooled import BACKBONES, POINT_NETS

COMPAT = ("paper", "code")
SPHERES = ("auto", "shared", "none")


@dataclass(frozen=True)
class Strl:
    """What is compared, by which net."""

    net: str = "dgcnn"  # or pointnet, dgcnn-seg, or a sparse U-Net: small, 34
    k: int = 40  # neighbours of DGCNN's points (20 in fine-tuning, and for segmentation)
    points: int = 2048  # of an input; all that are left go to a sparse U-Net
    voxel: float = 0.05  # of a sparse U-Net, in metres, or in radii where clouds are brought to a unit sphere
    head_width: int = 4096  # of projector and predictor
    head_out: int = 256  # of what they give
    target_decay: float = 0.996  # of the target's moving average at the start; 1 at the end

    window: int = 3  # frames among which two are drawn (A: the paper's is of a fixed length)
    # Eq. 2 anew at every step for sequences of views, instead of the poses that they were stored with. Natural
    # sequences get it always, both frames apart.
    redraw: bool = False
    temporal: Temporal = Temporal()
    spatial: Spatial = Spatial()
    # auto: shapes are brought to a unit sphere, scenes stay in metres. Both frames get the transform of the first of
    # them (A): each by its own would take away what lies between them.
    sphere: str = "auto"
    compat: str = "paper"  # code: transforms, augmentations and spheres as the published code has them

    def __post_init__(self):
        rules = [
            one_of(self, "net", BACKBONES),
            one_of(self, "sphere", SPHERES),
            one_of(self, "compat", COMPAT),
            *positive(self, "points", "head_width", "head_out"),
            *voxel_sizes(self, "voxel"),
            ("k", 1 <= self.k <= 255, "from 1 to 255"),
            ("points", not self.net.startswith("dgcnn") or self.points >= self.k, f"at least k = {self.k}"),
            ("target_decay", 0 <= self.target_decay <= 1, "from 0 to 1"),
            ("window", self.window >= 2, "at least 2: two frames are compared"),
        ]
        check(self, rules)

    @property
    def on_points(self) -> bool:
        """Whether the net takes points, not voxels."""
        return self.net in POINT_NETS
