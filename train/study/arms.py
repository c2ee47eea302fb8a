"""Arms, the ways of pre-training that a study compares, and recipes, the ways of fine-tuning that each of them tries.

A further arm is a line of `ARMS`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from train.config import ConfigError

SCRATCH = "scratch"


@dataclass(frozen=True)
class Arm:
    """A way of pre-training, or none.

    settings: of pre-training, as `--set` takes them; cost: of one of its steps, in steps of `moving-3d-infonce`: it
    makes so many times fewer; norms: `scratch` scales every weight before a norm to the length that it started with,
    which leaves the net's function as it is; longer: fine-tuning has the time of pre-training on top.
    """

    method: str = ""
    settings: tuple[str, ...] = ()
    cost: float = 1.0
    norms: str = "own"
    longer: bool = False


# Rates: by probes after 300 steps, on rooms of another seed than the study's (docs/log.md). Costs: measured on a CPU.
_RATE = "lr=2"  # of the hardest-contrastive loss
_COST_4D = 1.3
ARMS = {
    SCRATCH: Arm(),
    "scratch-long": Arm(longer=True),
    # The same loss on static scans and on moving shapes.
    "static-3d-infonce": Arm("static-3d-infonce"),
    "moving-3d-infonce": Arm("moving-3d-infonce"),
    "static-3d-hardest": Arm("static-3d-simclr", (_RATE,)),
    "moving-3d-hardest": Arm("moving-3d-simclr", (_RATE,)),
    "static-3d": Arm("static-3d"),
    "moving-3d": Arm("moving-3d"),
    # What of it is the motion: the shape is there and never sampled, there and at rest, sampled as often as its points.
    "moving-3d-infonce-unsampled": Arm("moving-3d-infonce", ("moving_share=0",)),
    "moving-3d-infonce-resting": Arm("moving-3d-infonce", ("shape_rests=true",)),
    "moving-3d-infonce-uniform": Arm("moving-3d-infonce", ("moving_share=none",)),
    # Other methods of the field on the same frames.
    "moving-3d-csc": Arm("moving-3d-csc"),
    "moving-3d-vicreg": Arm("moving-3d-vicreg"),
    "moving-3d-msc": Arm("moving-3d-msc", cost=0.8),
    "moving-3d-distill": Arm("moving-3d-distill", cost=1.2),  # a forward of the teacher besides
    # Ours: what moves together is one body. Its control: the same body, at rest.
    "moving-3d-votes": Arm("moving-3d-votes"),
    "moving-3d-votes-resting": Arm("moving-3d-votes", ("shape_rests=true",)),
    # What of it is the effective rate.
    "moving-3d-infonce-norms": Arm("moving-3d-infonce", norms=SCRATCH),
    # The 4D encoder.
    "4dcontrast": Arm("4dcontrast", cost=_COST_4D),
    "4dcontrast-shared": Arm("4dcontrast", ("predictors=shared",), cost=_COST_4D),
    "4dcontrast-light": Arm("4dcontrast", ("weight_3d4d=0.2", "weight_4d=0.2"), cost=_COST_4D),
    "4dcontrast-printed": Arm("4dcontrast", ("stop_gradient=printed", "weight_3d4d=0.1"), cost=_COST_4D),
    "4dcontrast-hardest": Arm("4dcontrast-simclr", (_RATE,), cost=_COST_4D),
}


def pretrained_as(arm: str) -> str:
    """The first arm with the same pre-training: what its runs are named after. Empty for scratch."""
    key = ARMS[arm].method, ARMS[arm].settings
    return next(name for name, way in ARMS.items() if (way.method, way.settings) == key) if key[0] else ""


# Ways of fine-tuning; a recipe is one of them and a factor on the task's rate. Layers: (A).
WAYS = ("all", "layered", "head-first", "frozen")
LAYERED = ("backbone.stem:0.1", "backbone.down:0.2", "backbone.encoder:0.2", "backbone.up:0.5", "backbone.decoder:0.5")


class Recipe(NamedTuple):
    """all: every layer at one rate; layered: lower rates towards the stem; head-first: the head starts as the linear
    probe of the frozen features; frozen: the head alone learns."""

    way: str
    factor: float


def recipe_of(text: str) -> Recipe:
    """`way:factor`. Raises ConfigError."""
    way, _, factor = text.partition(":")
    try:
        found = Recipe(way, float(factor or 1))
    except ValueError:
        found = Recipe("", 0.0)
    if found.way not in WAYS or not 0 < found.factor < 1000:
        raise ConfigError(f"recipes = {text}: one of {', '.join(WAYS)}, a colon and a factor on the rate, e.g. all:0.5")
    return found
