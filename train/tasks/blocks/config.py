"""Settings of segmentation by blocks. Protocol: STRL, section 5.2.2; what it leaves open follows its published code and
is marked (F), our own choices (A)."""

from dataclasses import dataclass

from train.config import check, positive

NETS = ("dgcnn-seg", "dgcnn")  # those whose points have features of their own


@dataclass(frozen=True)
class Blocks:
    """How rooms are cut, and what a head on points is."""

    block_m: float = 1.0  # side of a block in x and y; it is as high as the room
    stride_m: float = 0.5  # between blocks, in training and evaluation (F)
    points: int = 4096  # of a block, in one forward
    least_in_block: int = 100  # blocks with fewer are not learned, nor counted among sampled points (F)
    k: int = 20  # neighbours of DGCNN's (F)
    head_dropout: float = 0.5  # before the last layer (F)
    smoothing: float = 0.2  # of labels (F)

    def __post_init__(self):
        parts = self.block_m / self.stride_m if self.stride_m > 0 else 0
        rules = [
            ("block_m", 0.1 <= self.block_m <= 100, "from 10 cm to 100 m"),
            ("stride_m", parts >= 1 and abs(parts - round(parts)) < 1e-6, "block_m, or a whole part of it"),
            *positive(self, "least_in_block"),
            ("k", 1 <= self.k <= 255, "from 1 to 255"),
            ("points", self.points >= self.k, f"at least k = {self.k}"),
            ("head_dropout", 0 <= self.head_dropout < 1, "from 0 to below 1"),
            ("smoothing", 0 <= self.smoothing < 1, "from 0 to below 1"),
        ]
        check(self, rules)
