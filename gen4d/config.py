"""Every constant of a build, in one frozen value that is stored with the data."""

import dataclasses
import difflib
import math
import numbers
import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any, TypeVar

# Changes with every change of draws or bytes: a data set is continued and merged by the same generator only, whatever
# the release. tests/test_generator_version.py holds the digests that belong to it.
GENERATOR = 4
_PACKAGES = ("numpy", "numba", "scipy", "zarr", "numcodecs")
BUILT = (
    "moving",
    "frames",
    "sweeps",
    "views",
)  # kinds of sequences that a build makes; gen4d/building/kinds.py says how
HEIGHT_CLASSES = ("chair", "desk", "dresser", "night_stand", "sofa", "table", "bathtub", "toilet")


class ConfigError(ValueError):
    """A value that breaks a rule; the message names value, rule and remedy."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Constants of 4DContrast, section 3.3; those marked (A) are assumptions where the paper is silent.

    Lengths are in metres, angles in degrees.
    """

    seed: int = 0  # of all random draws
    sequences: int = 20  # per scan
    frames: int = 4  # t; at most 8, since a point has one byte with one bit per frame
    attempts: int = 50  # per sequence, before it is given up as a gap (A)
    pairs: bool = False  # also store explicit pair lists
    scans_per_shard: int = 16  # scans in one file

    up: str = "auto"  # up axis of the scans: an axis, a vector, "floor", or "auto": levelled where it is tilted (A)
    metres_per_unit: float = 1.0  # unit of the scans
    shape_up: str = "auto"  # up axis of the shapes: an axis, or by file type
    classes: tuple[str, ...] = HEIGHT_CLASSES  # of shapes that move
    shape_metres: float = 0.0  # per unit of the shapes; 0: they have no unit and are scaled to a height of their class
    height_m: tuple[tuple[str, float, float, float], ...] = ()  # (class, lowest, highest, share of its shapes) (A)

    voxel_m: float = 0.02  # edge of a voxel; one point of the scan in each
    cell_m: float = 0.10  # edge of a voxel and a cell of the occupancy map
    ceiling_m: float = 2.0  # points this far above the floor do not count (A)
    near_floor_m: float = 0.20  # the highest point of a valid column is at most this far from the floor
    close_m: float = 0.50  # radius that closes the footprint (A)
    bound: str = "disc"  # or the paper's "sphere"; the disc is exact because shapes only turn about z (A)
    redraws: int = 8  # of a shape of the class and its height while none fits anywhere (A)
    shrink_min: float = 0.8  # in the later half of the attempts a shape that has no way is shrunk, never below this (A)
    shrink_step: float = 0.9  # tried factors: the widest that fits, then each time this much smaller (A)
    shape_points: int = 1000  # per shape, drawn by area

    step_min_m: float = 0.30  # length of a step of the trajectory
    step_max_m: float = 0.90
    turn_max_deg: float = 150.0  # between steps
    movers_min: int = 1  # shapes that move at once, whose discs never overlap; how many is drawn per sequence (A)
    movers_max: int = 1
    joints: bool = True  # parts of articulated shapes move on one another; false: they stay as they are at rest (A)
    step_tries: int = 32  # draws for one step before the walk is given up (A)

    keep: float = 0.95  # probability that a frame keeps a point (A)
    chunks_min: int = 5  # removed from the scan in each frame
    chunks_max: int = 15
    chunk_min: float = 0.15  # size of a chunk, as a share of the scan's extent
    chunk_max: float = 0.45
    common_min: float = 0.30  # of the scan's points, and of the shape's, kept by all frames together
    frame_min: float = 0.50  # of all points, kept by every frame

    def __post_init__(self) -> None:
        for field, value, rule in _broken_rules(self):
            raise ConfigError(f"{field} = {value}: {rule}")

    def height_of(self, class_name: str, draw: float) -> float:
        """Height in metres of a class for a draw in [0, 1): of its ranges one by its share, and uniform in it.

        Raises ConfigError if there is none for the class.
        """
        ranges = [row[1:] for row in self.height_m if row[0] == class_name]
        if not ranges:
            known = ", ".join(dict.fromkeys(row[0] for row in self.height_m)) or "none"
            raise ConfigError(f"height_m has no range for the class {class_name!r}, known: {known}: add one")
        place = draw * sum(share for _, _, share in ranges)
        while place >= ranges[0][2] and len(ranges) > 1:
            place -= ranges.pop(0)[2]
        low, high, share = ranges[0]
        return low + (high - low) * (place / share)


@dataclasses.dataclass(frozen=True)
class FramesConfig:
    """Constants of sequences of posed depth images (STRL, section 3.1; PointContrast); (A) marks assumptions.

    Lengths are in metres.
    """

    seed: int = 0  # of all random draws
    sequences: int = 0  # per scan at most, drawn from all there are; 0: all of them
    frames: int = 4  # t, of a window; 2 where sequences are pairs
    pairs: bool = False  # also store explicit pair lists
    scans_per_shard: int = 4  # scans in one file

    up: str = ""  # axis or vector of the source's world that points up; "": as datasets_manifest.yaml has it
    every: int = 0  # every n-th frame of a scan is used; 0: as datasets_manifest.yaml has it
    near_m: float = 0.0  # what is nearer to the sensor does not count; above 0 where sweeps have lost returns at it
    far_m: float = 10.0  # nor what is farther away (A)
    voxel_m: float = 0.02  # edge of a voxel; one point of the frame in each
    least_points: int = 1000  # a frame with fewer is left out (A)

    choose: str = "windows"  # of neighbouring frames (STRL), or "pairs" of frames that overlap (PointContrast)
    step: int = 1  # frames from one window to the next
    overlap_m: float = 0.05  # a point of one frame overlaps another frame that has a point this near; 0: not measured
    overlap_min: float = 0.30  # share of the points of either frame of a pair that the other one overlaps
    match_m: float = 0.03  # points of two frames correspond if each is the other's nearest and this near

    def __post_init__(self) -> None:
        for field, value, rule in _broken_frame_rules(self):
            raise ConfigError(f"{field} = {value}: {rule}")


@dataclasses.dataclass(frozen=True)
class SweepsConfig(FramesConfig):
    """Constants of sequences of lidar sweeps (STRL, section 5.1.2): those of frames, larger."""

    scans_per_shard: int = 1  # scans in one file; they are long
    far_m: float = 100.0  # nor what is farther away (A)
    voxel_m: float = 0.05  # edge of a voxel; one point of the sweep in each (A)
    overlap_m: float = 0.5  # a point of one sweep overlaps another sweep that has a point this near (A)
    match_m: float = 0.10  # points of two sweeps correspond if each is the other's nearest and this near (A)


@dataclasses.dataclass(frozen=True)
class ViewsConfig:
    """Constants of sequences of views of shapes (STRL, Eq. 2 and section 4); (A) marks assumptions.

    Angles are in degrees. Probabilities are those with which a step between two frames turns, shifts and scales.
    """

    seed: int = 0  # of all random draws
    sequences: int = 1  # per shape
    frames: int = 4  # T; the first is the shape as it is, each other one is made from the one before it (A)
    pairs: bool = False  # also store explicit pair lists
    scans_per_shard: int = 256  # shapes in one file

    classes: tuple[str, ...] = ()  # of shapes; none named: all
    shape_up: str = "auto"  # up axis of the shapes: an axis, or as datasets_manifest.yaml has it, or by file type
    shape_metres: float = 0.0  # per unit of the shapes; 0: they have no unit and are put into a sphere of radius 1
    points: int = 2048  # per shape: drawn by area from a mesh, at random from a larger set

    rotate_deg: float = 15.0  # a step turns by up to this about x, y and z, uniformly
    rotate_p: float = 0.5
    shift: float = 0.10  # and shifts by up to this share of the extent along x, y and z, uniformly
    shift_p: float = 0.5
    scale_min: float = 0.8  # and scales by a factor between these, uniformly (A)
    scale_max: float = 1.25
    scale_p: float = 0.5

    def __post_init__(self) -> None:
        for field, value, rule in _broken_view_rules(self):
            raise ConfigError(f"{field} = {value}: {rule}")


@dataclasses.dataclass(frozen=True)
class ScansConfig:
    """Of labelled scans that are kept as they are, without sequences: nothing to choose but the size of a shard."""

    frames: int = 1
    pairs: bool = False
    scans_per_shard: int = 16  # scans in one file
    entry: str = ""  # the data set in datasets_manifest.yaml
    up: str = ""  # and what that declares
    metres_per_unit: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.scans_per_shard <= 256:
            raise ConfigError(
                f"scans_per_shard = {self.scans_per_shard}: from 1 to 256, so that a shard fits in memory"
            )


AnyConfig = Config | FramesConfig | ViewsConfig | ScansConfig  # of the kinds of sequences that are built
Made = TypeVar("Made", bound=AnyConfig)


def _broken_rules(c: Config) -> list[tuple[str, object, str]]:
    """(field, value, rule) of each rule that does not hold, in the order of the fields."""
    rules = [
        ("seed", 0 <= c.seed < 2**63, "a seed is a whole number from 0 to 2^63 - 1"),
        ("sequences", c.sequences >= 1, "at least 1 sequence per scan"),
        (
            "frames",
            2 <= c.frames <= 8,
            "from 2 (one frame has nothing to correspond to) to 8 (one bit per frame in a byte)",
        ),
        ("attempts", c.attempts >= 1, "at least 1 attempt per sequence"),
        ("scans_per_shard", 1 <= c.scans_per_shard <= 256, "from 1 to 256, so that a shard fits in memory"),
        ("metres_per_unit", 0 < c.metres_per_unit < 1e6, "a positive number of metres"),
        ("classes", len(c.classes) >= 1, "at least one class"),
        ("shape_metres", 0 <= c.shape_metres < 1e6, "metres a unit, or 0 for shapes without one"),
        ("height_m", all(0 < row[1] <= row[2] < 100 for row in c.height_m), "0 < lowest <= highest < 100 metres"),
        ("height_m", all(0 < row[3] < math.inf for row in c.height_m), "a share above 0 of the class's shapes"),
        ("voxel_m", 0.001 <= c.voxel_m <= 1, "from 1 mm to 1 m"),
        ("cell_m", 0.01 <= c.cell_m <= 1, "from 1 cm to 1 m"),
        ("ceiling_m", c.near_floor_m < c.ceiling_m <= 40 * c.cell_m, "above near_floor_m and at most 40 cells"),
        ("near_floor_m", c.near_floor_m > 0, "positive"),
        ("close_m", 0 <= c.close_m <= 10, "from 0 to 10 m"),
        ("bound", c.bound in ("disc", "sphere"), "disc or sphere"),
        ("redraws", 0 <= c.redraws <= 1000, "from 0 to 1000"),
        ("shrink_min", 0 < c.shrink_min <= 1, "above 0 and at most 1; 1 turns shrinking off"),
        ("shrink_step", 0.1 <= c.shrink_step < 1, "from 0.1 to below 1"),
        ("shape_points", 10 <= c.shape_points <= 1_000_000, "from 10 to a million points"),
        ("step_min_m", 0 < c.step_min_m < c.step_max_m, "positive and below step_max_m"),
        ("turn_max_deg", 0 < c.turn_max_deg <= 180, "above 0 and at most 180"),
        ("movers_min", 1 <= c.movers_min <= c.movers_max, "from 1 to movers_max"),
        ("movers_max", c.movers_max <= 8, "at most 8 shapes at once"),
        ("step_tries", c.step_tries >= 1, "at least 1"),
        ("keep", 0 < c.keep <= 1, "a probability above 0"),
        ("chunks_min", 0 <= c.chunks_min <= c.chunks_max, "from 0 to chunks_max"),
        ("chunk_min", 0 < c.chunk_min <= c.chunk_max <= 1, "positive and at most chunk_max, which is at most 1"),
        ("common_min", 0 <= c.common_min <= 1, "a share of the points"),
        ("frame_min", 0 <= c.frame_min <= 1, "a share of the points"),
    ]
    return [(field, getattr(c, field), rule) for field, holds, rule in rules if not holds]


def _broken_frame_rules(c: FramesConfig) -> list[tuple[str, object, str]]:
    """(field, value, rule) of each rule that does not hold, in the order of the fields."""
    rules = [
        ("seed", 0 <= c.seed < 2**63, "a seed is a whole number from 0 to 2^63 - 1"),
        ("sequences", 0 <= c.sequences < 2**31, "how many per scan at most, or 0 for all"),
        ("frames", 2 <= c.frames <= 16, "from 2 (one frame has nothing to correspond to) to 16"),
        ("frames", c.choose != "pairs" or c.frames == 2, "sequences that are pairs have 2 frames: give --frames 2"),
        ("scans_per_shard", 1 <= c.scans_per_shard <= 256, "from 1 to 256, so that a shard fits in memory"),
        ("every", c.every >= 0, "1 or more, or 0 for the data set's own"),
        ("near_m", 0 <= c.near_m < c.far_m, "from 0 to below far_m"),
        ("far_m", c.far_m <= 1e4, "at most 10 km"),
        ("voxel_m", 0.001 <= c.voxel_m <= 1, "from 1 mm to 1 m"),
        ("least_points", c.least_points >= 1, "at least 1 point"),
        ("choose", c.choose in ("windows", "pairs"), "windows or pairs"),
        ("step", c.step >= 1, "at least 1 frame"),
        ("overlap_m", c.overlap_m == 0 or 0.001 <= c.overlap_m <= 10, "from 1 mm to 10 m, or 0: not measured"),
        ("overlap_m", c.choose != "pairs" or c.overlap_m > 0, 'above 0, since choose = "pairs" needs the overlaps'),
        ("overlap_min", 0 < c.overlap_min <= 1, "a share of the points above 0"),
        ("match_m", 0.0001 <= c.match_m <= 10, "from 0.1 mm to 10 m"),
    ]
    return [(field, getattr(c, field), rule) for field, holds, rule in rules if not holds]


def _broken_view_rules(c: ViewsConfig) -> list[tuple[str, object, str]]:
    """(field, value, rule) of each rule that does not hold, in the order of the fields."""
    rules = [
        ("seed", 0 <= c.seed < 2**63, "a seed is a whole number from 0 to 2^63 - 1"),
        ("sequences", 1 <= c.sequences < 2**31, "at least 1 sequence per shape"),
        ("frames", 2 <= c.frames <= 16, "from 2 (one frame has nothing to correspond to) to 16"),
        ("scans_per_shard", 1 <= c.scans_per_shard <= 4096, "from 1 to 4096, so that a shard fits in memory"),
        ("shape_metres", 0 <= c.shape_metres < 1e6, "metres a unit, or 0 for shapes without one"),
        ("points", 10 <= c.points <= 1_000_000, "from 10 to a million points"),
        ("rotate_deg", 0 <= c.rotate_deg <= 180, "from 0 to 180"),
        ("shift", 0 <= c.shift <= 10, "a share of the extent, from 0 to 10"),
        ("scale_min", 0.01 <= c.scale_min <= c.scale_max, "from 0.01 to scale_max"),
        ("scale_max", c.scale_max <= 100, "at most 100"),
        *((name, 0 <= getattr(c, name) <= 1, "a probability") for name in ("rotate_p", "shift_p", "scale_p")),
    ]
    return [(field, getattr(c, field), rule) for field, holds, rule in rules if not holds]


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def to_plain(config: AnyConfig) -> dict:
    """The config as JSON values."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def make_config(of: type[Made], /, **settings: Any) -> Made:
    """A config of a kind with some fields set. Raises ConfigError where one is unknown, of another type or breaks a
    rule."""
    types = {field.name: field.type for field in dataclasses.fields(of)}
    for name, value in settings.items():
        if name not in types:
            raise ConfigError(f"unknown setting {name!r}; {nearest(name, types)}")
        kind = types[name]
        settings[name] = _coerced(name, value, kind if isinstance(kind, type) else tuple)
    return of(**settings)


def _coerced(name: str, value: Any, kind: type) -> Any:
    """The value as the type of its field, without loss: NumPy's whole numbers are whole numbers, True is not."""
    wide: type = {int: numbers.Integral, float: numbers.Real}.get(kind, kind)
    if not isinstance(value, wide) or (wide is not kind and isinstance(value, bool)):
        raise ConfigError(f"{name} = {value!r}: must be of type {kind.__name__}")
    return kind(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is none of those known."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)


def override(config: Made, assignments: tuple[str, ...]) -> Made:
    """The config with `field=value` assignments applied, as the command line takes them."""
    types = {field.name: field.type for field in dataclasses.fields(config)}
    values = {}
    for text in assignments:
        name, _, value = text.partition("=")
        if name not in types:
            raise ConfigError(f"--set {text}: unknown setting {name!r}; {nearest(name, types)}")
        if types[name] not in (int, float, bool, str):
            raise ConfigError(f"--set {text}: {name} has its own option or comes from the manifest")
        values[name] = _parse(text, value, types[name])
    return dataclasses.replace(config, **values)


def _parse(text: str, value: str, kind: Any) -> Any:
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"--set {text}: must be true or false")
        return value.lower() == "true"
    try:
        number = kind(value)
    except ValueError:
        raise ConfigError(f"--set {text}: {value!r} is not {'a whole' if kind is int else 'a'} number") from None
    if kind is float and not math.isfinite(number):
        raise ConfigError(f"--set {text}: must be a finite number")
    return number


def difference(old: dict, new: dict) -> list[str]:
    """Lines that name every field in which two plain configs differ."""
    names = [*new, *(name for name in old if name not in new)]
    return [
        f"{name}: {in_words(old.get(name))} there, {in_words(new.get(name))} here"
        for name in names
        if old.get(name) != new.get(name)
    ]


def in_words(value: Any) -> str:
    """A value of a plain config for people: lists by their members."""
    return "(" + " ".join(map(in_words, value)) + ")" if isinstance(value, list) else str(value)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a build's bytes may depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}
