"""Everything that can be set for pre-training, in one frozen value, and the presets to start from."""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass

from train.batch import Recipe
from train.methods.contrast import METHODS, ContrastConfig
from train.methods.losses import STOP_GRADIENTS
from train.nets.unet import NETS

Config = typing.TypeVar("Config")  # of a command: a frozen dataclass

PRECISIONS = ("auto", "float16", "float32", "float64")

# Fields that say how a run is carried out, not what it computes: a run may go on with other values.
FREE = frozenset({"steps", "workers", "checkpoint_steps", "log_steps"})


class ConfigError(ValueError):
    """A setting that does not exist or breaks a rule; the message names value, rule and remedy."""


@dataclass(frozen=True)
class PretrainConfig:
    """4DContrast, sections 3 and 4; (A) marks what the paper leaves open. Defaults are the paper's: preset `paper`."""

    method: str = "4dcontrast"
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

    batch: int = 12  # sequences of a step, over all processes
    accumulate: int = 1  # parts in which a process takes its share of the batch; norms see one part at a time
    samples: int = 1024  # points per pair of frames and per frame (A)
    moving_share: float | None = 0.25  # of the samples, on moving shapes where there are any; none: uniform (A)
    voxel_m: float = 0.02
    voxel_4d_m: float = 0.05
    tilt_rad: float = math.pi / 64  # of a static frame, besides any yaw (A)
    shift_m: float = 0.5  # (A)
    scale_low: float = 0.9  # (A)
    scale_high: float = 1.1

    steps: int = 50_000
    lr: float = 0.25
    lr_decay: float = 0.99  # factor every lr_decay_steps
    lr_decay_steps: int = 1000
    momentum: float = 0.9  # (A)
    weight_decay: float = 1e-4  # (A)
    precision: str = "auto"  # float16 under autocast on CUDA, float32 elsewhere

    seed: int = 0
    block_scans: int = 32  # scans among which neighbouring sequences are shuffled
    workers: int = 2  # threads that make batches ahead; 0: none
    checkpoint_steps: int = 500
    log_steps: int = 10

    def __post_init__(self):
        for field, rule in _broken_rules(self):
            raise ConfigError(f"{field} = {getattr(self, field)}: {rule}")

    def contrast(self) -> ContrastConfig:
        """The method with its nets."""
        same = {f.name: getattr(self, f.name) for f in dataclasses.fields(ContrastConfig) if hasattr(self, f.name)}
        return ContrastConfig(**same | {"net_3d": NETS[self.net_3d], "net_4d": NETS[self.net_4d]})

    def recipe(self) -> Recipe:
        """How sequences become batches."""
        method = METHODS[self.method]
        same = {name: getattr(self, name) for name in Recipe._fields if hasattr(self, name)}
        return Recipe(**same)._replace(
            voxel_4d_m=self.voxel_4d_m if method.has_4d else None, moving_actors=method.moving
        )

    def lr_at(self, step: int) -> float:
        """Learning rate of the update after `step` others."""
        return self.lr * self.lr_decay ** (step // self.lr_decay_steps)


def _broken_rules(c: PretrainConfig):
    """(field, rule) of each rule that does not hold."""
    positive = ("width", "hidden", "batch", "accumulate", "samples", "steps", "lr_decay_steps", "block_scans")
    positive += ("checkpoint_steps", "log_steps")
    rules = [
        ("method", c.method in METHODS, "one of " + ", ".join(METHODS)),
        ("net_3d", c.net_3d in NETS, "one of " + ", ".join(NETS)),
        ("net_4d", c.net_4d in NETS, "one of " + ", ".join(NETS)),
        ("stop_gradient", c.stop_gradient in STOP_GRADIENTS, "one of " + ", ".join(STOP_GRADIENTS)),
        ("precision", c.precision in PRECISIONS, "one of " + ", ".join(PRECISIONS)),
        *((name, getattr(c, name) >= 1, "at least 1") for name in positive),
        *((name, getattr(c, name) >= 0, "not below 0") for name in ("weight_3d", "weight_3d4d", "weight_4d")),
        *((name, 0.001 <= getattr(c, name) <= 1, "from 1 mm to 1 m") for name in ("voxel_m", "voxel_4d_m")),
        ("moving_share", c.moving_share is None or 0 <= c.moving_share <= 1, "a share from 0 to 1, or none"),
        ("tilt_rad", 0 <= c.tilt_rad <= math.pi, "from 0 to pi"),
        ("shift_m", 0 <= c.shift_m <= 100, "from 0 to 100 m"),
        ("scale_low", 0 < c.scale_low <= c.scale_high, "above 0 and not above scale_high"),
        ("lr", c.lr > 0, "above 0"),
        ("lr_decay", 0 < c.lr_decay <= 1, "above 0, and 1 at most"),
        ("momentum", 0 <= c.momentum < 1, "from 0 to below 1"),
        ("weight_decay", c.weight_decay >= 0, "not below 0"),
        ("seed", 0 <= c.seed < 2**63, "a whole number from 0 to 2^63 - 1"),
        ("workers", 0 <= c.workers <= 64, "from 0 to 64"),
    ]
    return [(field, rule) for field, holds, rule in rules if not holds]


PRESETS = {
    "paper": PretrainConfig(),
    # For CPUs, in minutes: coarser voxels, small nets, few samples, and the rate of the study's cosine losses.
    "small": PretrainConfig(
        net_3d="small",
        net_4d="small-4d",
        width=32,
        hidden=16,
        batch=2,
        samples=256,
        voxel_m=0.05,
        voxel_4d_m=0.1,
        steps=120,
        lr=1.0,
        checkpoint_steps=20,
        log_steps=1,
    ),
}


def resolve(preset: str, assignments: tuple[str, ...], presets: dict[str, Config] = PRESETS) -> Config:
    """A preset with `key=value` assignments. Raises ConfigError for an unknown preset or key, or a bad value."""
    if preset not in presets:
        raise ConfigError(f"--preset {preset}: {_hint(preset, presets)}")
    kinds = typing.get_type_hints(type(presets[preset]))
    values = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: needs key=value")
        if key not in kinds:
            raise ConfigError(f"--set {text}: no such key; {_hint(key, kinds)}")
        values[key] = _parse(text, value, kinds[key])
    return dataclasses.replace(presets[preset], **values)


def _hint(name: str, known) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)


def _parse(text: str, value: str, kind: type):
    if isinstance(kind, types.UnionType):
        if value.lower() == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        return tuple(_parse(text, part.strip(), typing.get_args(kind)[0]) for part in value.split(","))
    try:
        parsed = kind(value)
    except ValueError:
        raise ConfigError(f"--set {text}: {value!r} is not a {'whole number' if kind is int else 'number'}") from None
    if kind is float and not math.isfinite(parsed):
        raise ConfigError(f"--set {text}: must be finite")
    return parsed


def to_plain(config) -> dict:
    """A config as JSON values."""
    return dataclasses.asdict(config)


def from_plain(plain: dict, kind: type[Config] = PretrainConfig) -> Config:
    """The config that `to_plain` wrote. Raises ConfigError where its fields are not this version's."""
    fields = {field.name for field in dataclasses.fields(kind)}
    if set(plain) != fields:
        odd = ", ".join(sorted(set(plain) ^ fields))
        raise ConfigError(f"a configuration of another version: it differs in the fields {odd}")
    return kind(**plain)
