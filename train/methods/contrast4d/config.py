"""Settings of the methods that contrast frames with each other and with a 4D sequence, and what each of them compares.

static-3d           3D-3D on static scans            Table 2, first ablation
moving-3d           3D-3D on moving-object sequences Table 2, second ablation
4dcontrast          3D-3D, 3D-4D, 4D-4D              Eq. 9
static-3d-simclr    3D-3D, no predictors             the loss of appendix C.2 on one encoder and static scans
moving-3d-simclr    3D-3D, no predictors             the same on moving-object sequences
4dcontrast-simclr   3D-3D, 3D-4D, no predictors      appendix C.2
static-3d-infonce   3D-3D, no predictors             PointContrast's other loss, on static scans
moving-3d-infonce   3D-3D, no predictors             the same on moving-object sequences

Other methods of the field on these pairs of frames, each beside its control on static scans:

moving-3d-csc       Contrastive Scene Contexts (CVPR 2021): InfoNCE with negatives of one part of space at a time
moving-3d-vicreg    VICReg (ICLR 2022) over corresponding points: no negatives
moving-3d-msc       Masked Scene Contrast (CVPR 2023): InfoNCE between frames that lack different patches. Masked voxels
                    are taken away, since their occupancy would tell what is asked for; so only points that both frames
                    have are compared, and there is no colour or normal to reconstruct

And one of ours, for tasks on objects:

moving-3d-votes     InfoNCE, and every point says from its own frame alone whether it is of a shape that moves, and
                    where the middle of that shape is, as points of VoteNet and PointGroup do. What moves together is
                    one body, so sequences know what those two need labels for
"""

from dataclasses import dataclass

from train.config import check, not_negative, one_of, positive, voxel_sizes
from train.inputs.views import Rigid
from train.methods.contrast4d.batch import Recipe
from train.methods.losses import STOP_GRADIENTS
from train.nets.unet import NETS


@dataclass(frozen=True)
class Method:
    """terms: what is compared, and `votes`, which is not; loss: `cosine` (Eqs. 1-9, with predictors), `hardest`
    (appendix C.2), `infonce`, `csc`, `vicreg` or `prototypes`; moving: whether frames have their moving shapes; masked:
    whether frames lack patches, and only those are compared that lack different ones."""

    terms: tuple[str, ...]
    loss: str
    moving: bool
    masked: bool = False

    @property
    def has_4d(self) -> bool:
        """Whether a 4D encoder takes part."""
        return "3d-4d" in self.terms

    @property
    def votes(self) -> bool:
        """Whether points vote for the middle of their moving shape."""
        return "votes" in self.terms

    @property
    def cosine(self) -> bool:
        """Whether predictors take part."""
        return self.loss == "cosine"


PREDICTORS = ("shared", "own")

METHODS = {
    "static-3d": Method(("3d-3d",), "cosine", moving=False),
    "moving-3d": Method(("3d-3d",), "cosine", moving=True),
    "4dcontrast": Method(("3d-3d", "3d-4d", "4d-4d"), "cosine", moving=True),
    "static-3d-simclr": Method(("3d-3d",), "hardest", moving=False),
    "moving-3d-simclr": Method(("3d-3d",), "hardest", moving=True),
    "4dcontrast-simclr": Method(("3d-3d", "3d-4d"), "hardest", moving=True),
    "static-3d-infonce": Method(("3d-3d",), "infonce", moving=False),
    "moving-3d-infonce": Method(("3d-3d",), "infonce", moving=True),
    "static-3d-csc": Method(("3d-3d",), "csc", moving=False),
    "moving-3d-csc": Method(("3d-3d",), "csc", moving=True),
    "static-3d-vicreg": Method(("3d-3d",), "vicreg", moving=False),
    "moving-3d-vicreg": Method(("3d-3d",), "vicreg", moving=True),
    "static-3d-msc": Method(("3d-3d",), "infonce", moving=False, masked=True),
    "moving-3d-msc": Method(("3d-3d",), "infonce", moving=True, masked=True),
    "moving-3d-votes": Method(("3d-3d", "votes"), "infonce", moving=True),
}


@dataclass(frozen=True)
class Contrast4D:
    """4DContrast, sections 3 and 4; (A) marks what the paper leaves open. Defaults are the paper's."""

    net_3d: str = "34"
    net_4d: str = "14a"
    width: int = 128  # of projected features (A)
    hidden: int = 64  # of the predictor (A)
    weight_3d: float = 1.0  # Eq. 9 (A)
    weight_3d4d: float = 1.0
    weight_4d: float = 1.0
    weight_votes: float = 1.0  # of ours, `moving-3d-votes`
    # Of an encoder: its own for the 3D-4D term, or one shared by all terms, which cannot hit two targets that know
    # nothing of each other. Measured after 120 steps of the study's size, three seeds: cosines of the 3D-4D term .26 to
    # .33 shared, below a constant vector's .38 to .55 in all of them, and .70 to .88 with its own, above it in all.
    predictors: str = "own"
    # Whether projections that predictors follow end in a norm. After 120 steps of the study's size, two seeds: cosines
    # of the 3D-4D term .78 to .92, spread .91 to .94 instead of .77 to .82, probes 9.9 and 9.3 instead of 9.8 and 8.7
    # (linear), 10.6 and 10.4 instead of 9.2 and 9.9 (neighbours). Not the default: too few models, none trained long.
    centred: bool = False
    stop_gradient: str = "conventional"  # or "printed", Eq. 5 to the letter
    positive_margin: float = 0.1  # of the hardest-contrastive loss
    negative_margin: float = 1.4
    temperature: float = 0.07  # of InfoNCE, PointContrast's and CSC's
    near_m: float = 0.05  # CSC: nearer points are no negatives; 2 voxels of its script
    far_m: float = 0.5  # CSC: where the outer shell begins; 20 of them
    vicreg_weights: tuple[float, ...] = (25.0, 25.0, 1.0)  # of invariance, variance and covariance
    mask_share: float = 0.4  # MSC: of the patches, masked in either of two frames
    mask_patch: int = 5  # MSC: voxels along an edge of a patch, 10 cm of 2 cm
    mask_temperature: float = 0.4  # of MSC's InfoNCE

    recompute: bool = False  # a net's tensors are made again in the backward pass: less memory, a fifth more time

    samples: int = 1024  # points per pair of frames and per frame (A)
    moving_share: float | None = 0.25  # of the samples, on moving shapes where there are any; none: uniform (A)
    shape_rests: bool = False  # moving shapes stay where they are in the first frame: a control of what motion gives
    voxel_m: float = 0.02
    voxel_4d_m: float = 0.05
    views: Rigid = Rigid()  # of a static frame (A)

    def __post_init__(self):
        rules = [
            one_of(self, "net_3d", NETS),
            one_of(self, "net_4d", NETS),
            one_of(self, "stop_gradient", STOP_GRADIENTS),
            one_of(self, "predictors", PREDICTORS),
            ("temperature", self.temperature > 0, "above 0"),
            ("mask_temperature", self.mask_temperature > 0, "above 0"),
            ("mask_share", 0 < self.mask_share < 0.5, "above 0 and below 0.5: two frames lack different patches"),
            ("far_m", 0 <= self.near_m <= self.far_m, "not below near_m, which is not below 0"),
            ("vicreg_weights", len(self.vicreg_weights) == 3, "three"),
            ("vicreg_weights", min(self.vicreg_weights, default=0) >= 0, "none below 0"),
            ("vicreg_weights", max(self.vicreg_weights, default=0) > 0, "one above 0"),
            ("samples", self.samples >= 2, "at least 2, whose features a norm can tell apart"),
            *positive(self, "width", "hidden", "samples", "mask_patch"),
            *not_negative(self, "weight_3d", "weight_3d4d", "weight_4d", "weight_votes"),
            *voxel_sizes(self, "voxel_m", "voxel_4d_m"),
            ("moving_share", self.moving_share is None or 0 <= self.moving_share <= 1, "a share from 0 to 1, or none"),
        ]
        check(self, rules)

    def recipe(self, method: Method) -> Recipe:
        """How sequences become batches of a method."""
        return Recipe(
            voxel_m=self.voxel_m,
            voxel_4d_m=self.voxel_4d_m if method.has_4d else None,
            samples=self.samples,
            moving_share=self.moving_share,
            moving_actors=method.moving,
            at_rest=self.shape_rests,
            views=self.views,
            places=method.loss == "csc",
            mask_share=self.mask_share if method.masked else 0.0,
            mask_patch_m=self.mask_patch * self.voxel_m,
            votes=method.votes,
        )

    def weights(self, method: Method) -> dict[str, float]:
        """Weight of each of a method's terms."""
        every = {"3d-3d": self.weight_3d, "3d-4d": self.weight_3d4d, "4d-4d": self.weight_4d}
        every["votes"] = self.weight_votes
        return {term: every[term] for term in method.terms}
