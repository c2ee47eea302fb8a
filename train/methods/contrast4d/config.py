"""Settings of the methods that contrast frames with each other and with a 4D sequence, and what each of them compares.

static-3d          3D-3D on static scans            Table 2, first ablation
moving-3d          3D-3D on moving-object sequences Table 2, second ablation
4dcontrast         3D-3D, 3D-4D, 4D-4D              Eq. 9
moving-3d-simclr   3D-3D, no predictors             the loss of appendix C.2 on one encoder, as PointContrast's
4dcontrast-simclr  3D-3D, 3D-4D, no predictors      appendix C.2
"""

from dataclasses import dataclass

from train.config import check, not_negative, one_of, positive, voxel_sizes
from train.inputs.views import Rigid
from train.methods.contrast4d.batch import Recipe
from train.methods.losses import STOP_GRADIENTS
from train.nets.unet import NETS


@dataclass(frozen=True)
class Method:
    """terms: what is compared; cosine: Eqs. 1-9 with predictors, else the hardest-contrastive loss; moving: whether
    frames have their moving shapes."""

    terms: tuple[str, ...]
    cosine: bool
    moving: bool

    @property
    def has_4d(self) -> bool:
        """Whether a 4D encoder takes part."""
        return self.terms != ("3d-3d",)


METHODS = {
    "static-3d": Method(("3d-3d",), cosine=True, moving=False),
    "moving-3d": Method(("3d-3d",), cosine=True, moving=True),
    "4dcontrast": Method(("3d-3d", "3d-4d", "4d-4d"), cosine=True, moving=True),
    "moving-3d-simclr": Method(("3d-3d",), cosine=False, moving=True),
    "4dcontrast-simclr": Method(("3d-3d", "3d-4d"), cosine=False, moving=True),
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
    stop_gradient: str = "conventional"  # or "printed", Eq. 5 to the letter
    positive_margin: float = 0.1  # of the hardest-contrastive loss
    negative_margin: float = 1.4

    samples: int = 1024  # points per pair of frames and per frame (A)
    moving_share: float | None = 0.25  # of the samples, on moving shapes where there are any; none: uniform (A)
    voxel_m: float = 0.02
    voxel_4d_m: float = 0.05
    views: Rigid = Rigid()  # of a static frame (A)

    def __post_init__(self):
        rules = [
            one_of(self, "net_3d", NETS),
            one_of(self, "net_4d", NETS),
            one_of(self, "stop_gradient", STOP_GRADIENTS),
            *positive(self, "width", "hidden", "samples"),
            *not_negative(self, "weight_3d", "weight_3d4d", "weight_4d"),
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
            views=self.views,
        )

    def weights(self, method: Method) -> dict[str, float]:
        """Weight of each of a method's terms."""
        every = {"3d-3d": self.weight_3d, "3d-4d": self.weight_3d4d, "4d-4d": self.weight_4d}
        return {term: every[term] for term in method.terms}
