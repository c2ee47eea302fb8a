"""Are the rules kept? Every rule of a build, measured again from what is stored, whoever wrote it.

Nothing here asks the generator what it did: lengths come from poses, shares from masks, free floor from points.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from gen4d.moving import cloud, occupancy
from gen4d.moving.candidates import FreeSpace, find_free_space
from gen4d.sequence import ROLE_STATIC, Actor, FloorPlan, Sequence, Views
from gen4d.views.overlap import find_overlaps, sparse_points

_EXACT_M = 1e-4  # what float32 leaves of a length in a scan
_EXACT_DEG = 0.1  # and of an angle between two steps
_APPLIED = 1e-4  # a turn in radians, a shift or a factor below this was not drawn
_SIGMAS = 5  # of a share that is drawn
_NONE = -math.inf, math.inf
_DRAWN = {"turns": "rotate_p", "shifts": "shift_p", "scales": "scale_p"}  # shares that are one number of a data set

Ranges = tuple[tuple[float, float], ...]


class Rule(NamedTuple):
    """What a number of a sequence or a scan may be."""

    title: str
    about: str
    allowed: Ranges  # none where no rule is stored
    unit: str = ""
    slack: float = 1e-9  # that rounding may take
    span: tuple[float, float] | None = None  # of its histogram

    def breaks(self, values: np.ndarray) -> np.ndarray:
        """Which values (N,) bool are in no range."""
        ranges = [(values >= low - self.slack) & (values <= high + self.slack) for low, high in self.allowed]
        return ~np.logical_or.reduce(ranges) if ranges else np.zeros(len(values), np.bool_)


class Measured(NamedTuple):
    """A rule and all numbers that it is about."""

    rule: Rule
    values: np.ndarray  # (N,)
    owners: list[str]  # N: the sequence, or the scan, of each

    @property
    def broken(self) -> np.ndarray:
        """Which values (N,) bool break the rule."""
        return self.rule.breaks(self.values)

    @property
    def is_single(self) -> bool:
        """Whether the rule allows a single number, or there is no other: a histogram would say nothing."""
        return len(self.values) == 1 or any(low == high for low, high in self.rule.allowed)

    def worst(self, count: int = 3) -> list[tuple[str, float]]:
        """Owners and values that break the rule most, each owner once."""
        far = np.min([np.maximum(low - self.values, self.values - high) for low, high in self.rule.allowed], axis=0)
        broken, found = self.broken, {}
        for row in np.argsort(-far, kind="stable").tolist():
            if broken[row] and len(found) < count:
                found.setdefault(self.owners[row], float(self.values[row]))
        return list(found.items())


class Rules:
    """The rules of a data set by what they are about, and the numbers that were measured so far."""

    def __init__(self, kind: str, config: Mapping[str, object]):
        self.kind, self.config = kind, config
        match kind:
            case "moving":
                self.rules = _moving_rules(config)
            case "views":
                self.rules = _views_rules(config)
            case _:
                self.rules = _frames_rules(config)
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in self.rules}
        self._owners: dict[str, list[tuple[str, int]]] = {name: [] for name in self.rules}
        self._heights: dict[str, list[tuple[str, float]]] = {}

    def add(self, name: str, owner: str, values: np.ndarray | Iterable[float] | float) -> None:
        """Note numbers of a sequence or a scan."""
        values = np.atleast_1d(np.asarray(values, np.float64))
        self._values[name].append(values)
        self._owners[name].append((owner, len(values)))

    def measured(self) -> list[Measured]:
        """All that there was something to measure of."""
        found = []
        for name, rule in self.rules.items():
            values = np.concatenate([np.empty(0), *self._values[name]])
            owners = [owner for owner, count in self._owners[name] for _ in range(count)]
            if len(values) and name in _DRAWN:
                share = None if _is_nothing(self.config, name) else self.config.get(_DRAWN[name])
                rule = rule._replace(allowed=_share_of(share, len(values)))
                values, owners = values.mean(keepdims=True), ["all sequences"]
            if len(values):
                found.append(Measured(rule, values, owners))
        return found

    def heights(self) -> dict[str, Measured]:
        """The heights that shapes were drawn with, by class, and the ranges of the class."""
        ranges = self.config.get("height_m") or ()
        found = {}
        for name in sorted(self._heights):
            owners, values = zip(*self._heights[name], strict=True)
            allowed = tuple(
                (row[1], row[2]) for row in ranges if row[0] == name and not self.config.get("shape_metres")
            )
            rule = Rule(f"height of the class {name}", "As it was drawn.", allowed, " m", _EXACT_M)
            found[name] = Measured(rule, np.array(values, np.float64), list(owners))
        return found

    def add_height(self, class_name: str, owner: str, height_m: float) -> None:
        """Note the height of a shape before it was shrunk."""
        self._heights.setdefault(class_name, []).append((owner, height_m))

    def measure(self, sequences: Many[Sequence], plan: FloorPlan | None, views: Views | None, members: Many) -> None:
        """Measure all sequences of a scan. members: of each sequence, which of the scan's views its frames are."""
        match self.kind:
            case "moving":
                _measure_scan(self, sequences[0], plan)
                space = None if plan is None or "bound" not in self.config else find_free_space(plan)
                for sequence in sequences:
                    _measure_moving(self, sequence, plan, space)
            case "views":
                for sequence in sequences:
                    _measure_view(self, sequence)
            case _:
                _measure_frames(self, sequences, views, members)


def _between(config: Mapping, low: str, high: str = "") -> Ranges:
    """The range between two settings, each "" for none; no range where the config lacks one, as that of a data set may
    that somebody else made."""
    values = [config.get(name) if name else end for name, end in zip((low, high), _NONE, strict=True)]
    return ((float(values[0]), float(values[1])),) if all(isinstance(v, int | float) for v in values) else ()


def _exactly(config: Mapping, *needs: str, value: float = 0.0) -> Ranges:
    """A single number, where the config has what the rule needs."""
    return ((value, value),) if all(name in config for name in needs) else ()


# Shapes that move through scans --------------------------------------------------------------------------------------


def _moving_rules(c: Mapping) -> dict[str, Rule]:
    built = _exactly(c, "bound")
    free = ((0.0, math.inf),) if built else ()
    points = c.get("shape_points", math.nan)
    step, common = _between(c, "step_min_m", "step_max_m"), _between(c, "common_min")
    return {
        "step": Rule("length of a step", "From frame to frame.", step, " m", _EXACT_M),
        "turn": Rule(
            "turn between steps", "In either direction.", _between(c, "", "turn_max_deg"), "°", _EXACT_DEG, (0, 180)
        ),
        "room": Rule(
            "free floor around a shape",
            "Beyond the disc that its points need, to the nearest cell that is not free.",
            free,
            " m",
            _EXACT_M,
        ),
        "apart": Rule(
            "between the discs of two shapes",
            "The least distance on the way, in and between frames.",
            free,
            " m",
            _EXACT_M,
        ),
        "frame": Rule(
            "points that a frame keeps", "Of all points of a sequence.", _between(c, "frame_min"), span=(0, 1)
        ),
        "scan": Rule("scan points in all frames", "Of the scan's points.", common, span=(0, 1)),
        "shape": Rule("shape points in all frames", "Of a shape's points.", common, span=(0, 1)),
        "keep": Rule(
            "shape points that a frame keeps",
            "Each is kept with a probability" + (f", {c['keep']}." if "keep" in c else "."),
            _share_of(c.get("keep"), points),
            span=(0, 1),
        ),
        "shrink": Rule(
            "size of a shape", "As a share of the height that was drawn.", _upto_one(c, "shrink_min"), span=(0, 1.05)
        ),
        "movers": Rule("shapes that move at once", "In a sequence.", _between(c, "movers_min", "movers_max")),
        "points": Rule("points of a shape", "All its parts together.", _exactly(c, "shape_points", value=points)),
        "foot": Rule("height of a shape's foot above the floor", "In every frame.", built, " m", _EXACT_M),
        "tilt": Rule("tilt of a shape", "Shapes turn about z alone.", built, "°", 0.01),
        "yaw": Rule("turn of a shape beyond that of its way", "It turns as its way does.", built, "°", 4 * _EXACT_DEG),
        "disc": Rule("points of a shape outside its disc", "The farthest, in any frame.", built, " m", _EXACT_M),
        "tall": Rule("points of a shape above its height", "The highest.", built, " m", _EXACT_M),
        "voxel": Rule("points of a scan that share a voxel", "One stays in each.", _exactly(c, "voxel_m")),
        "floor": Rule(
            "cells of free floor that differ",
            "Floor and free cells are derived from the stored points once more.",
            _exactly(c, "cell_m", "ceiling_m", "near_floor_m", "close_m"),
        ),
    }


def _upto_one(c: Mapping, low: str) -> Ranges:
    return tuple((a, 1.0) for a, _ in _between(c, low))


def _is_nothing(config: Mapping, drawn: str) -> bool:
    """Whether what is drawn changes nothing: turns by no angle, say."""
    if drawn == "scales":
        return config.get("scale_min") == config.get("scale_max") == 1
    return not np.any(config.get("rotate_deg" if drawn == "turns" else "shift", 1))


def _share_of(share: object, count: float) -> Ranges:
    """Shares that a draw with a probability gives of so many."""
    if not isinstance(share, int | float) or not count > 0:
        return ()
    room = (_SIGMAS + 1) * math.sqrt(share * (1 - share) / count)
    return ((share - room, share + room),)


def _measure_scan(rules: Rules, sequence: Sequence, plan: FloorPlan | None) -> None:
    """One point a voxel, and the floor plan that the points give."""
    scan = next((actor.cloud for actor in sequence.actors if actor.role == ROLE_STATIC), None)
    if scan is None or not len(scan):
        return
    if rules.rules["voxel"].allowed:
        rules.add("voxel", sequence.scan, _sharing(scan.point, rules.config["voxel_m"]))
    if rules.rules["floor"].allowed and plan is not None:
        limits = (rules.config[name] for name in ("cell_m", "ceiling_m", "near_floor_m", "close_m"))
        again = occupancy.find_floor_plan(scan.point, *limits)
        same = again.valid.shape == plan.valid.shape and np.array_equal(again.origin, plan.origin)
        same = same and again.floor_m == plan.floor_m
        rules.add("floor", sequence.scan, (again.valid != plan.valid).sum() if same else plan.valid.size)


def _sharing(point: np.ndarray, voxel_m: float) -> int:
    """How many points lie in a voxel that holds another one before them."""
    return len(point) - int(cloud.first_in_voxel(cloud.voxel_index(point, voxel_m)).sum())


def _measure_moving(rules: Rules, sequence: Sequence, plan: FloorPlan | None, space: FreeSpace | None) -> None:
    kept = [kept_points(actor) for actor in sequence.actors]
    total = sum(len(actor.cloud) for actor in sequence.actors)
    rules.add("frame", sequence.id, sum(kept) / max(total, 1))
    still = [actor for actor in sequence.actors if actor.role == ROLE_STATIC]
    if still:
        rules.add("scan", sequence.id, common_share(still))
    rules.add("movers", sequence.id, len(sequence.movers))
    discs = []
    for number, mover in enumerate(sequence.movers):
        parts = [actor for actor in sequence.actors if actor.mover == number]
        if not parts:
            continue
        count = sum(len(part.cloud) for part in parts)
        rules.add("points", sequence.id, count)
        rules.add("shape", sequence.id, common_share(parts))
        rules.add("keep", sequence.id, sum(map(kept_points, parts)) / max(count, 1))
        rules.add("shrink", sequence.id, mover.shrink)
        place = parts[0].pose[:, :3, 3].astype(np.float64)
        _measure_way(rules, sequence.id, parts[0].pose.astype(np.float64))
        if plan is not None:
            rules.add("foot", sequence.id, _farthest(place[:, 2] - plan.floor_m))
        if not math.isnan(mover.height_m):
            rules.add_height(mover.class_name, sequence.id, mover.height_m / mover.shrink)
            top = max(part.cloud.point[:, 2].max(initial=-math.inf) for part in parts)  # a part may have no points
            rules.add("tall", sequence.id, max(0.0, top - mover.height_m))
        if not math.isnan(mover.radius_m):
            rules.add("disc", sequence.id, max(0.0, max(map(_reach, parts, [place] * len(parts))) - mover.radius_m))
            discs.append((place[:, :2], mover.radius_m))
            if space is not None:
                rules.add("room", sequence.id, _free(space, place[:, :2]) - mover.radius_m)
    for (first, a), (second, b) in itertools.combinations(discs, 2):
        rules.add("apart", sequence.id, _nearest_apart(first - second) - a - b)


def kept_points(actor: Actor) -> np.ndarray:
    """How many points (t,) each frame keeps of an actor."""
    return np.bitwise_count(actor.planes).sum(axis=1, dtype=np.int64)


def common_share(actors: Many[Actor]) -> float:
    """Share of the points of some actors that all frames keep."""
    common = sum(int(np.bitwise_count(np.bitwise_and.reduce(actor.planes, axis=0)).sum()) for actor in actors)
    return common / max(sum(len(actor.cloud) for actor in actors), 1)


def _farthest(values: np.ndarray) -> float:
    """The value farthest from 0."""
    return float(values[np.abs(values).argmax()]) if len(values) else 0.0


def _measure_way(rules: Rules, owner: str, pose: np.ndarray) -> None:
    """Steps and turns of a way, poses (t, 4, 4), and whether the shape turns with it."""
    step = np.diff(pose[:, :2, 3], axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    turn = _wrapped(np.diff(heading))
    yaw = _wrapped(np.diff(np.arctan2(pose[:, 1, 0], pose[:, 0, 0])))
    rules.add("step", owner, np.hypot(*step.T))
    rules.add("turn", owner, np.degrees(np.abs(turn)))
    rules.add("yaw", owner, np.degrees(_farthest(_wrapped(yaw - np.concatenate([[0.0], turn])))))
    rules.add("tilt", owner, np.degrees(np.hypot(pose[:, 0, 2], pose[:, 1, 2]).max()))


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _reach(actor: Actor, place: np.ndarray) -> float:
    """How far from its shape's places (t, 3) a point of an actor is in any frame, seen from above."""
    pose = actor.pose.astype(np.float64)
    at = actor.cloud.point @ pose[:, :2, :3].transpose(0, 2, 1) + (pose[:, :2, 3] - place[:, :2])[:, None]
    return float(np.hypot(at[..., 0], at[..., 1]).max(initial=0.0))


def _free(space: FreeSpace, place: np.ndarray) -> np.ndarray:
    """How far (t,) the nearest cell that is not free is from places (t, 2), which are centres of cells."""
    cell = np.rint(place / space.cell_m - 0.5).astype(np.int64) - space.origin
    inside = ((cell >= 0) & (cell < space.distance_m.shape)).all(axis=1)
    cell = np.where(inside[:, None], cell, 0)
    off = np.abs(place / space.cell_m - 0.5 - space.origin - cell).max(axis=1) * space.cell_m
    return np.where(inside, space.distance_m[tuple(cell.T)] - np.where(off > _EXACT_M, off, 0.0), 0.0)


def _nearest_apart(between: np.ndarray) -> float:
    """The least distance of two places on straight ways, from what is between them (t, 2) in every frame."""
    step = np.diff(between, axis=0)
    square = (step**2).sum(axis=1)
    share = np.clip(-(between[:-1] * step).sum(axis=1) / np.where(square > 0, square, 1.0), 0, 1)
    on_way = between[:-1] + share[:, None] * step
    return float(np.hypot(*np.concatenate([between, on_way]).T).min())


# Frames and sweeps ---------------------------------------------------------------------------------------------------


def _frames_rules(c: Mapping) -> dict[str, Rule]:
    pairs, step = c.get("choose") == "pairs", _exactly(c, "step") if c.get("choose") == "windows" else ()
    reach, match = _between(c, "near_m", "far_m"), _between(c, "", "match_m")
    return {
        "overlap": Rule(
            "overlap of neighbouring frames",
            "The larger share of the points of one that the other overlaps.",
            _between(c, "overlap_min") if pairs else (),
            span=(0, 1),
        ),
        "far": Rule("distance of the farthest point", "Of a frame, from its sensor.", reach, " m", _EXACT_M),
        "near": Rule("distance of the nearest point", "Of a frame, from its sensor.", reach, " m", _EXACT_M),
        "points": Rule("points of a frame", "", _between(c, "least_points")),
        "match": Rule(
            "distance of corresponding points", "The farthest pair of each scan's first two frames.", match, " m", 1e-6
        ),
        "window": Rule("frames left out in a window", "A window has neighbouring frames.", step),
        "step": Rule("frames from one window to the next beyond a multiple of the step", "", step),
        "own": Rule("points that are missing from their own frame, or in another", "", ((0.0, 0.0),)),
        "pose": Rule(
            "distance of a frame's pose from its view's",
            "With the first sensor at the origin.",
            ((0.0, 0.0),),
            " m",
            _EXACT_M,
        ),
        "voxel": Rule("points of a frame that share a voxel", "One stays in each.", _exactly(c, "voxel_m")),
        "again": Rule(
            "difference of an overlap from the stored one",
            "Measured once more for two frames of each scan.",
            _exactly(c, "overlap_m"),
            slack=1e-6,
        ),
    }


def _measure_frames(rules: Rules, sequences: Many[Sequence], views: Views | None, members: Many[Many[int]]) -> None:
    scan, config = sequences[0].scan, rules.config
    if views is not None:
        for one in views.clouds:
            rules.add("points", scan, len(one))
            if not len(one):
                continue
            away = one.point[:, 2] if rules.kind == "frames" else np.linalg.norm(one.point.astype(np.float64), axis=1)
            rules.add("far", scan, away.max())
            rules.add("near", scan, away.min())
            if rules.rules["voxel"].allowed:
                rules.add("voxel", scan, _sharing(one.point, config["voxel_m"]))
        if views.overlap is not None and len(members[0]) > 1 and config.get("overlap_m"):
            rules.add("again", scan, _overlap_again(views, members[0][:2], config["overlap_m"]))
        if rules.rules["step"].allowed:
            start = np.array([rows[0] for rows in members])
            rules.add("step", scan, np.diff(start) % config["step"])
    if not math.isnan(sequences[0].match_m):
        rules.add("match", sequences[0].id, _matched_m(sequences[0]))
    for sequence, rows in zip(sequences, members, strict=True):
        kept = np.stack([kept_points(actor) for actor in sequence.actors])
        own = np.zeros_like(kept)
        if len(kept) == sequence.t:
            np.fill_diagonal(own, [len(actor.cloud) for actor in sequence.actors])
        rules.add("own", sequence.id, np.abs(kept - own).sum())
        if views is None or len(rows) != sequence.t:
            continue
        rows = np.array(rows)
        rules.add("window", sequence.id, np.diff(rows).max(initial=1) - 1)
        if views.overlap is not None:
            shares = views.overlap[rows[:-1], rows[1:]], views.overlap[rows[1:], rows[:-1]]
            rules.add("overlap", sequence.id, np.maximum(*shares))
        expected = views.pose[rows].copy()
        expected[:, :3, 3] -= expected[0, :3, 3]
        stored = np.stack([actor.pose[f] for f, actor in enumerate(sequence.actors)])
        rules.add("pose", sequence.id, np.abs(stored - expected).max())


def _overlap_again(views: Views, rows: Many[int], radius: float) -> float:
    """The largest difference of two views' overlaps from the stored ones, as far as float32 tells them."""
    origin = np.eye(4)
    origin[:3, 3] = -views.pose[0, :3, 3]
    sparse = [sparse_points(views.clouds[row].point, origin @ views.pose[row], radius) for row in rows]
    return float(np.abs(find_overlaps(sparse, radius) - views.overlap[np.ix_(rows, rows)]).max())


def _matched_m(sequence: Sequence) -> float:
    """The largest distance of two corresponding points of the first two frames."""
    a, b = sequence.correspondences(0, 1)
    return float(np.linalg.norm(sequence[0].point[a] - sequence[1].point[b], axis=1).max(initial=0.0))


# Views of shapes -----------------------------------------------------------------------------------------------------


def _views_rules(c: Mapping) -> dict[str, Rule]:
    around = lambda name: tuple((-high, high) for _, high in _between(c, "", name))  # noqa: E731
    points = c.get("points", math.nan)
    drawn = "Where it was applied, from each frame to the next."
    unit = ((1.0, 1.0),) if c.get("shape_metres") == 0 else ()
    rules = {
        "turn": Rule("turn about x, y and z", drawn, around("rotate_deg"), "°", 0.05),
        "shift": Rule("shift along x, y and z", "As a share of the extent. " + drawn, around("shift"), slack=1e-3),
        "scale": Rule("factor of size", drawn, _between(c, "scale_min", "scale_max"), "", 1e-3),
        "points": Rule("points of a shape", "", _exactly(c, "points", value=points)),
        "all": Rule("points that a frame lacks", "Every frame has all of them.", _exactly(c, "rotate_deg")),
        "first": Rule("distance of the first pose from the identity", "", _exactly(c, "rotate_deg"), slack=1e-6),
        "radius": Rule("radius of a shape around its mean", "Shapes without a unit.", unit, slack=1e-4),
    }
    for name, share in _DRAWN.items():
        rules[name] = Rule(f"share of steps with {name}", f"Each is drawn with a probability, {c.get(share)}.", ())
    return rules


def _least_angles(turn: np.ndarray) -> np.ndarray:
    """Angles (N, 3) about x, y and z in radians, of the two triples that make the same turn the one whose largest angle
    is smaller: turns that are drawn up to more than 90 degrees may be given back as the other one."""
    other = turn * (1, -1, 1) + math.pi
    other = (other + math.pi) % (2 * math.pi) - math.pi
    less = np.abs(other).max(axis=1) < np.abs(turn).max(axis=1)
    return np.where(less[:, None], other, turn)


def _measure_view(rules: Rules, sequence: Sequence) -> None:
    for actor in sequence.actors:
        pose, point = actor.pose.astype(np.float64), actor.cloud.point.astype(np.float64)
        seen = point @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]
        step = (pose[1:] @ np.linalg.inv(pose[:-1]))[:, :3, :3]
        factor = np.cbrt(np.linalg.det(step))
        turn = _least_angles(Rotation.from_matrix(step / factor[:, None, None]).as_euler("xyz"))
        shift = np.diff(seen.mean(axis=1), axis=0) / np.maximum(np.ptp(seen[:-1], axis=1), 1e-9)
        turns, shifts, scales = (np.abs(a).max(axis=-1) > _APPLIED for a in (turn, shift, factor[:, None] - 1))
        rules.add("turn", sequence.id, np.degrees(turn[turns]).ravel())
        rules.add("shift", sequence.id, shift[shifts].ravel())
        rules.add("scale", sequence.id, factor[scales])
        for name, applied in (("turns", turns), ("shifts", shifts), ("scales", scales)):
            rules.add(name, sequence.id, applied)
        rules.add("points", sequence.id, len(point))
        rules.add("all", sequence.id, len(point) * sequence.t - kept_points(actor).sum())
        rules.add("first", sequence.id, np.abs(pose[0] - np.eye(4)).max())
        if rules.rules["radius"].allowed:
            rules.add("radius", sequence.id, np.linalg.norm(point - point.mean(axis=0), axis=1).max(initial=0.0))
