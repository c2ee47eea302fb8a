"""Sequences: the one value that the generator makes, shards hold, readers give and trainers learn from.

    Cloud      points in a frame of reference of their own
    Actor      a cloud that takes part in a sequence: a pose per frame, and one bit per point and frame
    Sequence   t frames of the same actors, and what moves among them
    Frame      the points of one time step, made from the actors when asked for
    Recording  a scan, or another source, with all its sequences and what they share
    Views      the frames or sweeps of a recording, where they were taken, and how far they overlap

Identity is (actor, point index). Two points of two frames correspond if and only if their identities are equal.
Frames and sweeps have clouds of their own and so no identity in common: where such a sequence has a radius `match_m`,
points correspond that are each other's nearest within it.
Axes are right-handed with z up, lengths in metres, poses map clouds to the sequence's frame of reference.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from gen4d import sequence_kernels as kernels

ROLE_STATIC, ROLE_MOVING, ROLE_VIEW = 0, 1, 2
ROLES = ("static", "moving", "view")
KINDS = ("moving", "frames", "sweeps", "views")  # their order is sequence/kind on disk
MOST_FRAMES = 64
_SPARE = 8  # rows that branch-free kernels write past their result
_IDENTITY = np.eye(4, dtype=np.float32)
_WIDER = 1 + 1e-9  # a cell is a little wider than the radius, so that rounding cannot put a point two cells off
_RIGID = 1e-5  # what float32 leaves of an orthogonal matrix


class SequenceError(ValueError):
    """A sequence, or an array given for one, that breaks a rule; the message names the value, the rule and a remedy."""


def frame_pairs(frames: int) -> list[tuple[int, int]]:
    """All pairs of frames i < j, in the one order that pair lists have everywhere: (0, 1), (0, 2), ..., (1, 2), ..."""
    return [(i, j) for i in range(frames) for j in range(i + 1, frames)]


class Cloud:
    """An immutable set of points in its own frame of reference.

    point (N, 3) float32, metres; vertex (N,) int32, the row of each point in its source file, -1 if it was sampled;
    label and instance (N,) int32, -1 = none, or None if no point has one.
    """

    columns = ("point", "vertex", "label", "instance")

    def __init__(
        self,
        point: np.ndarray,
        vertex: np.ndarray | None = None,
        label: np.ndarray | None = None,
        instance: np.ndarray | None = None,
    ):
        """Points (N, 3) of any float type, and whole numbers (N,). Raises SequenceError for other shapes and NaN."""
        self.point = as_points(point, "point")
        count = len(self.point)
        self.vertex = np.full(count, -1, np.int32) if vertex is None else as_column(vertex, count, "vertex")
        self.label = None if label is None else as_column(label, count, "label")
        self.instance = None if instance is None else as_column(instance, count, "instance")

    def __iter__(self) -> Iterator[np.ndarray | None]:
        return (getattr(self, name) for name in self.columns)

    def __len__(self) -> int:
        return len(self.point)

    def __repr__(self) -> str:
        return f"<Cloud of {len(self.point)} points>"


def as_points(value: np.ndarray, name: str, kind: type = np.float32, least: int = 0) -> np.ndarray:
    """`value` as a C-ordered (N, 3) array of floats. Raises SequenceError for another shape, fewer rows, or NaN."""
    try:
        point: np.ndarray = np.ascontiguousarray(value, kind)
    except (TypeError, ValueError) as error:
        raise SequenceError(f"{name} is not an array of numbers ({error}): give one of shape (N, 3)") from None
    if point.ndim != 2 or point.shape[1] != 3 or len(point) < least:
        raise SequenceError(f"{name} has shape {point.shape}: give rows of x, y and z, (N, 3), at least {least}")
    if not np.isfinite(point).all():
        bad = int((~np.isfinite(point)).any(axis=1).sum())
        raise SequenceError(f"{name} has NaN or infinity in {bad} of {len(point)} rows: remove those rows first")
    return point


def as_column(value: np.ndarray, count: int, name: str) -> np.ndarray:
    """`value` as (count,) int32. Raises SequenceError unless it is as many whole numbers that fit."""
    column = np.asarray(value)
    if column.shape != (count,) or column.dtype.kind not in "iu":
        raise SequenceError(
            f"{name} has shape {column.shape} and type {column.dtype}: give one whole number per point, ({count},)"
        )
    if count and not -(2**31) <= column.min() <= column.max() < 2**31:
        raise SequenceError(f"{name} has a value of {max(column.max(), -column.min())}: at most 2^31 - 1")
    return np.ascontiguousarray(column, np.int32)


class Actor(NamedTuple):
    """A cloud that takes part in a sequence. `make_actor` makes one from masks and checks it."""

    cloud: Cloud
    role: int  # 0 static, 1 moving, 2 a view of its own frame
    pose: np.ndarray  # (t, 4, 4) float32: cloud -> the sequence's frame of reference
    planes: np.ndarray  # (t, ceil(N/8)) uint8: which points each frame keeps, numpy.packbits order; absent: none
    mover: int = -1  # which of the sequence's movers it is, or is a part of; -1 = none

    def mask(self, frame: int) -> np.ndarray:
        """Which of the cloud's points (N,) bool a frame keeps."""
        return np.unpackbits(self.planes[frame], count=len(self.cloud.point)).view(np.bool_)

    @property
    def present(self) -> np.ndarray:
        """In which frames (t,) bool it has points."""
        return np.asarray(self.planes.any(axis=1))

    def __repr__(self) -> str:
        return f"<Actor: {ROLES[self.role]}, {len(self.cloud.point)} points, in {int(self.present.sum())} frames>"


def make_actor(
    cloud: Cloud, mask: np.ndarray, pose: np.ndarray | None = None, role: int = ROLE_STATIC, mover: int = -1
) -> Actor:
    """An actor of a cloud of N points from masks (t, N) bool and poses (t, 4, 4), identities by default.

    Raises SequenceError for other shapes, and for values that are not finite.
    """
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.ndim != 2 or mask.shape[1] != len(cloud.point):
        wanted = f"(t, {len(cloud.point)}) bool"
        raise SequenceError(f"mask has shape {mask.shape} and type {mask.dtype}: {wanted}, one row per frame")
    if role not in (ROLE_STATIC, ROLE_MOVING, ROLE_VIEW):
        raise SequenceError(f"role = {role}: 0 static, 1 moving or 2 view")
    if pose is None:
        pose = np.tile(_IDENTITY, (len(mask), 1, 1))
    pose = np.asarray(pose, np.float32)
    if pose.shape != (len(mask), 4, 4) or not np.isfinite(pose).all():
        raise SequenceError(f"pose has shape {pose.shape}: ({len(mask)}, 4, 4) finite numbers, one matrix per frame")
    return Actor(cloud, role, np.ascontiguousarray(pose), np.packbits(mask, axis=1), mover)


class Mover(NamedTuple):
    """A shape that moves in a sequence: one actor or, if it is articulated, several."""

    shape: str
    class_name: str
    height_m: float = math.nan
    shrink: float = 1.0  # factor by which the drawn height was shrunk to fit
    radius_m: float = math.nan  # kept free around the shape's axis


class Frame(NamedTuple):
    """The points of one time step: actor 0's kept points first, each actor's in cloud order."""

    point: np.ndarray  # (N, 3) float32, in the sequence's frame of reference, metres
    actor: np.ndarray  # (N,) uint8 and
    point_index: np.ndarray  # (N,) int32: the point's identity
    label: np.ndarray | None  # (N,) int32, -1 = none
    instance: np.ndarray | None  # (N,) int32, -1 = none

    def __repr__(self) -> str:
        return f"<Frame of {len(self.point)} points of {len(np.unique(self.actor))} actors>"


class FloorPlan(NamedTuple):
    """Where a shape may stand in a scan: cell (i, j) covers [origin + (i, j), origin + (i + 1, j + 1)] * cell_m."""

    valid: np.ndarray  # (nx, ny) bool: the floor is free here
    origin: np.ndarray  # (2,) int32: index of the first cell, counted from x = y = 0
    floor_m: float
    cell_m: float
    unseen: float = math.nan  # share of the valid cells that hold no point of the scan; NaN = not known

    @property
    def valid_m2(self) -> float:
        """Area of the valid cells."""
        return float(self.valid.sum()) * self.cell_m**2


class Sequence:
    """t frames of the same actors: `len`, iteration and `sequence[i]` give its frames."""

    def __init__(
        self,
        scan: str,
        k: int,
        actors: tuple[Actor, ...],
        movers: tuple[Mover, ...] = (),
        kind: str = "moving",
        attempt: int = 0,
        match_m: float = math.nan,
        stored: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None,
    ):
        """scan: name of the scan, or of another source; k: number of the sequence within it; kind: one of KINDS;
        attempt: which attempt of the generator was accepted; match_m: of frames and sweeps, the radius within which
        points of two frames correspond if each is the other's nearest, NaN = by identity; stored: gives the pair list
        of a number in `frame_pairs` that was made so, if there are any."""
        self.scan, self.k, self.kind, self.attempt = scan, k, kind, attempt
        self.actors, self.movers = tuple(actors), tuple(movers)
        self.match_m, self._stored = match_m, stored

    @property
    def id(self) -> str:
        """Name of the scan and number of the sequence, "scene0000_00/003"."""
        return f"{self.scan}/{self.k:03d}"

    @property
    def shape(self) -> str:
        """Name of the shape that moves, of the first if there are several, or "" if there is none."""
        return self.movers[0].shape if self.movers else ""

    @property
    def class_name(self) -> str:
        """Class of the shape that moves, of the first if there are several, or "" if there is none."""
        return self.movers[0].class_name if self.movers else ""

    @property
    def t(self) -> int:
        """Number of frames."""
        return len(self.actors[0].pose)

    def __len__(self) -> int:
        return self.t

    def __getitem__(self, i: int) -> Frame:
        return self.frame(i)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(i) for i in range(self.t))

    def __repr__(self) -> str:
        what = ", ".join(f"{mover.shape} ({mover.class_name})" for mover in self.movers) or f"{len(self.actors)} actors"
        return f"<Sequence {self.id}: {self.kind}, {self.t} frames, {what}>"

    @property
    def frames(self) -> list[Frame]:
        """All frames, in time."""
        return list(self)

    @functools.cached_property
    def _kept(self) -> list[list[int]]:
        """Points that each frame keeps of each actor."""
        return [[kernels.count_bits(actor.planes[i]) for actor in self.actors] for i in range(self.t)]

    def _number(self, i: int) -> int:
        if not -self.t <= i < self.t:
            raise IndexError(f"frame {i} of {self.id}, which has the frames 0 to {self.t - 1}")
        return i % self.t

    def frame(self, i: int) -> Frame:
        """The points that frame i keeps, under their actors' poses. Raises IndexError."""
        i = self._number(i)
        counts = self._kept[i]
        ends = list(itertools.accumulate(counts))
        point, index = np.empty((ends[-1] + _SPARE, 3), np.float32), np.empty(ends[-1] + _SPARE, np.int32)
        for actor, count, end in zip(self.actors, counts, ends, strict=True):
            if not count:
                continue
            kept = slice(end - count, end)
            kernels.compact(actor.planes[i], actor.cloud.point, point[end - count :], index[end - count :])
            if not np.array_equal(actor.pose[i], _IDENTITY):  # where it is, points stay as they are, bit for bit
                kernels.transform(point[kept], actor.pose[i], point[kept])
        point, index = point[: ends[-1]], index[: ends[-1]]
        number = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
        columns = [_column(self.actors, counts, index, name) for name in ("label", "instance")]
        return Frame(point, number, index, *columns)

    def correspondences(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (K,) int32 of frame i and rows (K,) int32 of frame j of the points that correspond, rising in i.

        They have equal identities or, in frames and sweeps with a `match_m`, are each other's nearest within it.
        Raises IndexError.
        """
        i, j = self._number(i), self._number(j)
        if not math.isnan(self.match_m):
            return self._matched(i, j)
        kept_i, kept_j = self._kept[i], self._kept[j]
        space = sum(map(min, kept_i, kept_j)) + _SPARE
        first, second = np.empty(space, np.int32), np.empty(space, np.int32)
        done, row_i, row_j = 0, 0, 0
        for actor, in_i, in_j in zip(self.actors, kept_i, kept_j, strict=True):
            planes = actor.planes[i], actor.planes[j]
            done += kernels.pair_list(*planes, row_i, row_j, first[done:], second[done:])
            row_i, row_j = row_i + in_i, row_j + in_j
        return first[:done], second[:done]

    def _matched(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        if self._stored is not None and i < j:
            return self._stored(frame_pairs(self.t).index((i, j)))
        return match_points(self.frame(i).point, self.frame(j).point, self.match_m)

    def arrays(self) -> dict[str, np.ndarray]:
        """All frames and correspondences as plain arrays, ready for `numpy.savez`.

        For every frame i `point_i` (N, 3) float32, `actor_i` (N,) uint8, `index_i` (N,) int32 and, if the source has
        them, `label_i` and `instance_i` (N,) int32; for every two frames i < j `pairs_i_j` (K, 2) int32, rows of both.
        """
        out: dict[str, np.ndarray] = {}
        for i, frame in enumerate(self):
            out |= {f"point_{i}": frame.point, f"actor_{i}": frame.actor, f"index_{i}": frame.point_index}
            out |= {} if frame.label is None else {f"label_{i}": frame.label}
            out |= {} if frame.instance is None else {f"instance_{i}": frame.instance}
        for i, j in frame_pairs(self.t):
            out[f"pairs_{i}_{j}"] = np.stack(self.correspondences(i, j), axis=1)
        return out


def match_points(first: np.ndarray, second: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows (K,) int32 of points (N, 3) and of others (M, 3), float32 in one frame of reference, that are each other's
    nearest and at most the radius apart; of equal ones the lowest row counts. Rising in the first.

    The one rule by which frames and sweeps correspond (PointContrast has all within a radius), whether the pairs are
    stored or made when they are asked for.
    """
    forth, back = _nearest(first, second, radius), _nearest(second, first, radius)
    rows, others = np.empty(len(first), np.int32), np.empty(len(first), np.int32)
    count = kernels.keep_mutual(forth, back, rows, others)
    return rows[:count], others[:count]


def _nearest(point: np.ndarray, other: np.ndarray, radius: float) -> np.ndarray:
    """Row (N,) int32 of the nearest of the other points within the radius of each point, -1 for none."""
    out = np.empty(len(point), np.int32)
    head = np.full(1 << max(4, len(other).bit_length()), -1, np.int32)
    following = np.empty(len(other), np.int32)
    inverse_m = 1.0 / (radius * _WIDER)
    kernels.link_cells(other, inverse_m, head, following)
    kernels.nearest(point, other, radius, inverse_m, head, following, out)
    return out


def _column(actors: tuple[Actor, ...], counts: list[int], index: np.ndarray, name: str) -> np.ndarray | None:
    """Label or instance of a frame's points, or None where no actor has any."""
    columns = [getattr(actor.cloud, name) for actor in actors]
    if all(column is None for column in columns):
        return None
    rows = np.split(index, np.cumsum(counts)[:-1])
    parts = [np.full(len(r), -1, np.int32) if c is None else c[r] for c, r in zip(columns, rows, strict=True)]
    return np.concatenate(parts)


class Views(NamedTuple):
    """The V frames or sweeps of a scan, whatever sequences they are in."""

    clouds: tuple[Cloud, ...]  # V, each in its sensor's frame; a vertex is the pixel, row by row, or the sweep's row
    number: np.ndarray  # (V,) int32: of the frame in its source
    time_s: np.ndarray  # (V,) float64, NaN where the source has none
    pose: np.ndarray  # (V, 4, 4) float64, rigid: sensor -> the scan's world, z up
    overlap: np.ndarray | None  # (V, V) float32: share of the points of one that another one overlaps; None: not known

    def __repr__(self) -> str:
        return f"<Views: {len(self.clouds)} frames>"


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A scan, or another source of sequences, with what its sequences share: a shard holds several.

    cloud: the scan's, if there is one, stored even if it has no sequence; floor: its free floor; free_m: radius of
    the widest free disc; label_space: what labels mean; transform (4, 4) float64 from the source's frame to the
    cloud's; axis_alignment (4, 4) float64, the source's own, not applied; source_points: finite points of the source;
    dropped: those that are not finite; views: its frames or sweeps, if it is made of them.
    """

    name: str
    sequences: tuple[Sequence, ...]
    cloud: Cloud | None = None
    floor: FloorPlan | None = None
    free_m: float = math.nan
    label_space: str = ""
    transform: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(4))
    axis_alignment: np.ndarray | None = None
    source_points: int = 0
    dropped: int = 0
    views: Views | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self.sequences)

    def __getitem__(self, i: int) -> Sequence:
        return self.sequences[i]

    def __repr__(self) -> str:
        return f"<Recording {self.name}: {len(self.sequences)} sequences>"


def find_fault(sequence: Sequence) -> str | None:
    """What is wrong with a sequence, or None. What is checked of poses and roles depends on its kind."""
    if sequence.kind not in KINDS:
        return f"kind is {sequence.kind!r}: one of {', '.join(KINDS)}"
    if not sequence.actors:
        return "it has no actors: at least one"
    if not 2 <= sequence.t <= MOST_FRAMES:
        return f"it has {sequence.t} frames: from 2 (one frame has nothing to correspond to) to {MOST_FRAMES}"
    if len(sequence.actors) > 256:
        return f"it has {len(sequence.actors)} actors: at most 256, since frames store an actor's number in one byte"
    geometric = sequence.kind in ("frames", "sweeps")
    if not math.isnan(sequence.match_m) and not (geometric and 0 < sequence.match_m < 1e3):
        return f"its match_m is {sequence.match_m}: metres above 0, of frames and sweeps alone; NaN is by identity"
    faults = (_actor_fault(sequence, number, actor) for number, actor in enumerate(sequence.actors))
    return next((fault for fault in faults if fault), None)


def _actor_fault(sequence: Sequence, number: int, actor: Actor) -> str | None:
    """What is wrong with one actor: its arrays' sizes, its role and mover for this kind, or a pose."""
    points, t = len(actor.cloud.point), sequence.t
    if actor.pose.shape != (t, 4, 4) or actor.planes.shape != (t, (points + 7) // 8):
        shapes = f"poses of shape {actor.pose.shape} and masks of shape {actor.planes.shape}"
        return (
            f"actor {number} has {shapes}: {t} frames of {points} points need ({t}, 4, 4) and ({t}, {-(-points // 8)})"
        )
    if points % 8 and (actor.planes[:, -1] & (0xFF >> points % 8)).any():
        return f"actor {number} has padding bits set in its masks: they must be 0"
    allowed = {"moving": (ROLE_STATIC, ROLE_MOVING), "views": (ROLE_MOVING, ROLE_VIEW)}
    if actor.role not in allowed.get(sequence.kind, (ROLE_VIEW,)):
        return f"actor {number} has role {actor.role}, which sequences of kind {sequence.kind} cannot have"
    if not -1 <= actor.mover < len(sequence.movers) or (actor.role == ROLE_STATIC and actor.mover >= 0):
        return (
            f"actor {number} is mover {actor.mover} of {len(sequence.movers)}: use -1 for none, and for static actors"
        )
    return pose_fault(actor.pose, scaled=sequence.kind == "views", name=f"actor {number}")


def pose_fault(pose: np.ndarray, scaled: bool, name: str) -> str | None:
    """What is wrong with poses (..., 4, 4): each is rigid or, if `scaled`, a similarity, whose scale is positive."""
    turn = pose[..., :3, :3].astype(np.float64)
    if not np.isfinite(pose).all() or not bool((pose[..., 3, :] == [0, 0, 0, 1]).all()):
        return f"{name} has a pose that is not a finite affine matrix with the last row 0, 0, 0, 1"
    size = np.cbrt(np.abs(np.linalg.det(turn)))[..., None, None] if scaled else 1.0
    product = turn @ np.swapaxes(turn, -1, -2)
    even = bool((np.abs(product - size**2 * np.eye(3)) <= _RIGID * size**2).all())
    if even and bool((np.linalg.det(turn) > 0).all()):
        return None
    return f"{name} has a pose that is not {'a similarity' if scaled else 'rigid'}"
