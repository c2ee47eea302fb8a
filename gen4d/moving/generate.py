"""A moving sequence's whole story, and a scan's: one step after another, every draw from a generator of its own.

The key of a draw is (seed, name of the scan, k, attempt, step), so a sequence does not depend on the order of the
work, on the number of workers, or on what else is in the build.
"""

import collections
import math
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np

from gen4d import sources
from gen4d.config import Config
from gen4d.lanes import lane
from gen4d.moving import accept, augment, candidates, cloud, joints, models, occupancy, shape, trajectory
from gen4d.sequence import ROLE_MOVING, ROLE_STATIC, Actor, Cloud, FloorPlan, Mover, Recording, Sequence

_UNREADABLE = "unreadable shape"
_LEAST_HEIGHT_M, _MOST_HEIGHT_M = 0.05, 5.0  # of shapes that have a unit: others are mistakes


class Rejection(NamedTuple):
    """Why an attempt gave no sequence: a counted reason, and this attempt's figures."""

    reason: str
    detail: str
    class_names: tuple[str, ...]  # of the shapes that were drawn, the one that failed last


class Prepared(NamedTuple):
    """What all sequences of a scan share."""

    name: str
    cloud: Cloud  # the scan's, N points
    quantised: np.ndarray  # (3, N) uint16
    floor: FloorPlan
    space: candidates.FreeSpace
    still: np.ndarray  # (t, 4, 4) float32: the scan's poses
    below: float  # share of the points that lie below the floor
    top_heavy: float  # see occupancy.top_heaviness


class Drawn(NamedTuple):
    """A shape of an attempt."""

    source: sources.AnyShape
    figures: models.Figures
    height_m: float

    def radius_m(self, bound: str) -> float:
        """What has to be free around the shape's axis, if it is not shrunk."""
        return self.height_m * (self.figures.disc if bound == "disc" else self.figures.sphere)


class Fit(NamedTuple):
    """A way through the scan for a shape, shrunk by `shrink` where it had to be."""

    trajectory: trajectory.Trajectory
    shrink: float
    radius_m: float


class Placed(NamedTuple):
    """A shape of an attempt that has a way."""

    drawn: Drawn
    fit: Fit

    @property
    def height_m(self) -> float:
        """Its height in the sequence."""
        return self.drawn.height_m * self.fit.shrink


class Made(NamedTuple):
    """An accepted sequence, and the files that its shapes were read from, if from any."""

    sequence: Sequence
    files: tuple[sources.SourceFile, ...]


class Generated(NamedTuple):
    """A scan's sequences, what became of all attempts, the shapes' files that were used, and signs of a wrong axis."""

    recording: Recording
    counts: "Counts"
    files: tuple[sources.SourceFile, ...]
    below: float  # share of the scan's points that lie below its floor
    top_heavy: float  # see occupancy.top_heaviness


class Counts(NamedTuple):
    """What became of a scan's attempts."""

    attempts: int
    reasons: dict[str, int]  # rejections
    example: dict[str, str]  # the first detail of each reason
    drawn: dict[str, int]  # shapes in attempts, by class
    accepted: dict[str, int]  # shapes in sequences, by class
    movers: dict[str, int]  # sequences by how many shapes move in them
    shrunk: dict[str, int]  # shrunk shapes in sequences, by class
    least_shrink: float  # the smallest factor among them, 1 where there is none
    gaps: tuple[int, ...]  # k without a sequence
    unreadable: tuple[str, ...]  # shapes that were drawn and cannot be used: file, what is wrong and what to do


def draw_sequence(prepared: Prepared, shapes: "Shapes", config: Config, k: int, attempt: int) -> Made | Rejection:
    """One attempt at sequence k (4DContrast, section 3.3)."""
    placed = place_shapes(prepared, shapes, config, k, attempt)
    if isinstance(placed, Rejection):
        return placed
    names = tuple(one.drawn.source.class_name for one in placed)
    rng = lane(config, prepared.name, k, attempt, "augment")
    size = (config.chunk_min, config.chunk_max)
    chunks = augment.draw_chunks(config.frames, (config.chunks_min, config.chunks_max), size, rng)
    scan_bits = augment.draw_bits(prepared.quantised, chunks, config.keep, rng)
    scan_counts = accept.mask_histogram(scan_bits, config.frames)
    reason = accept.find_scan_reason(scan_counts, config.common_min)  # most often, and before the surface is read
    figures = f"in attempt {attempt} at sequence {k}, keep = {config.keep}"
    if reason:
        return Rejection(reason, figures, names)
    actors = [Actor(prepared.cloud, ROLE_STATIC, prepared.still, augment.pack_planes(scan_bits, config.frames))]
    histograms = []
    for number, one in enumerate(placed):
        try:
            model = models.load_model(one.drawn.source, shapes.up)
        except (sources.SourceError, shape.ShapeError) as error:  # since its figures were found
            return _unreadable(one.drawn.source, error, names)
        rng_surface = lane(config, prepared.name, k, attempt, _step("surface", number))
        point, part = shape.sample_surface(model, one.height_m, config.shape_points, rng_surface)
        rng = rng if not number else lane(config, prepared.name, k, attempt, _step("augment", number))
        bits = augment.draw_bits(augment.quantise(point), augment.no_chunks(config.frames), config.keep, rng)
        histograms.append(accept.mask_histogram(bits, config.frames))
        rng_joints = lane(config, prepared.name, k, attempt, _step("joints", number))
        for row, pose in _parts(model, one, part, prepared.floor.floor_m, rng_joints, config.joints):
            planes = augment.pack_planes(bits[row], config.frames)
            actors.append(Actor(Cloud(point[row]), ROLE_MOVING, pose, planes, mover=number))
    reason = accept.find_reason(scan_counts, histograms, config.common_min, config.frame_min)
    if reason:
        return Rejection(reason, figures, names)
    sequence = Sequence(prepared.name, k, tuple(actors), tuple(map(_mover, placed)), attempt=attempt)
    figures_of = [one.drawn.figures for one in placed]
    return Made(sequence, tuple(file for one in figures_of for file in (one.file, *one.others) if file))


def _parts(
    model: shape.Model, placed: Placed, part: np.ndarray, floor_m: float, rng: np.random.Generator, moving: bool
) -> Iterator[tuple[np.ndarray | slice, np.ndarray]]:
    """Rows of the points and poses (t, 4, 4) float32 of each part of a shape, its base first: the pose of the whole,
    times how the part's joints stand."""
    way = placed.fit.trajectory
    pose = shape.shape_pose(way.position, way.yaw_rad, floor_m)
    yield (slice(None) if not model.joints else np.flatnonzero(part == 0)), pose
    if model.joints:
        value = joints.draw_joints(model.joints, len(pose), rng, moving)
        own = joints.part_poses(model.joints, value, placed.height_m)
        for number in range(1, len(own)):
            yield np.flatnonzero(part == number), (pose @ own[number]).astype(np.float32)


def _step(name: str, number: int) -> str:
    """The key of a step for one of several shapes; the first has the key of a shape that moves alone."""
    return f"{name} {number}" if number else name


def _mover(placed: Placed) -> Mover:
    source, fit = placed.drawn.source, placed.fit
    return Mover(source.name, source.class_name, placed.height_m, fit.shrink, float(fit.radius_m))


def count_shapes(config: Config, scan: str, k: int) -> int:
    """How many shapes are to move in sequence k: drawn for the sequence, not for an attempt, or few would prevail."""
    spread = config.movers_max - config.movers_min
    draw = lane(config, scan, k, 0, "movers").random() if spread else 0.0
    return config.movers_min + int(draw * (spread + 1))


def place_shapes(
    prepared: Prepared, shapes: "Shapes", config: Config, k: int, attempt: int
) -> list[Placed] | Rejection:
    """Draw the shapes of an attempt one after another, each with a way that is clear of those before it.

    Other shapes come first: in the later half of the attempts they may be shrunk, and in the last fifth one that has no
    way beside those before it is left out if these are `movers_min` already (A).
    """
    shrink_min = 1.0 if attempt < config.attempts // 2 else config.shrink_min
    least = config.movers_min if attempt >= config.attempts * 4 // 5 else config.movers_max
    placed: list[Placed] = []
    for number in range(count_shapes(config, prepared.name, k)):
        rng = lane(config, prepared.name, k, attempt, _step("shape", number))
        drawn = draw_shape(shapes, config, rng, prepared.space.widest_m)
        before = tuple(one.drawn.source.class_name for one in placed)
        if isinstance(drawn, Rejection):
            return drawn._replace(class_names=before + drawn.class_names)
        rng = lane(config, prepared.name, k, attempt, _step("trajectory", number))
        fit = find_fit(prepared.space, drawn, config, rng, shrink_min, [one.fit for one in placed])
        if isinstance(fit, Rejection) and len(placed) >= least:
            break
        if isinstance(fit, Rejection):
            return fit._replace(class_names=before + fit.class_names)
        placed.append(Placed(drawn, fit))
    return placed


def _unreadable(source: sources.AnyShape, error: ValueError, names: tuple[str, ...] = ()) -> Rejection:
    detail = f"{source.path}: {getattr(error, 'problem', error)}"
    return Rejection(_UNREADABLE, detail, names or (source.class_name,))


class Shapes(NamedTuple):
    """The shapes of a build by class, and how to read them."""

    by_class: dict[str, tuple[sources.AnyShape, ...]]
    up: str


def group_shapes(shapes: Iterable[sources.AnyShape], up: str) -> Shapes:
    """Shapes sorted by class and path, so that a draw does not depend on the order of a listing."""
    by_class: dict[str, list[sources.AnyShape]] = collections.defaultdict(list)
    for source in sorted(shapes, key=lambda source: (source.class_name, source.path)):
        by_class[source.class_name].append(source)
    return Shapes({name: tuple(members) for name, members in by_class.items()}, up)


def draw_shape(
    shapes: Shapes, config: Config, rng: np.random.Generator, widest_m: float = math.inf
) -> Drawn | Rejection:
    """Draw a class, one of its shapes and its height, uniformly each (A); while the shape fits nowhere, the shape and
    the height again, a few times. Returns the first that fits, or else the narrowest."""
    class_draw, *draws = rng.random(1 + 2 * (1 + config.redraws)).tolist()
    names = list(shapes.by_class)
    members = shapes.by_class[names[int(class_draw * len(names))]]
    best: Drawn | None = None
    for shape_draw, height_draw in zip(draws[::2], draws[1::2], strict=True):
        drawn = _sized(members[int(shape_draw * len(members))], shapes.up, config, height_draw)
        if isinstance(drawn, Rejection):
            return drawn
        if best is None or drawn.radius_m(config.bound) < best.radius_m(config.bound):
            best = drawn
        if best.radius_m(config.bound) <= widest_m:
            break
    assert best is not None
    return best


def _sized(source: sources.AnyShape, up: str, config: Config, height_draw: float) -> Drawn | Rejection:
    """A shape at its own size, where shapes have a unit, or at a height of its class."""
    try:
        figures = models.find_figures(source, up)
    except (sources.SourceError, shape.ShapeError) as error:
        return _unreadable(source, error)
    if not config.shape_metres:
        return Drawn(source, figures, config.height_of(source.class_name, height_draw))
    height_m = figures.height * config.shape_metres
    if not _LEAST_HEIGHT_M <= height_m <= _MOST_HEIGHT_M:
        detail = f"{source.path}: is {height_m:.3g} m high: check --shape-units"
        return Rejection("no size of furniture", detail, (source.class_name,))
    return Drawn(source, figures, height_m)


def find_fit(
    space: candidates.FreeSpace,
    drawn: Drawn,
    config: Config,
    rng: np.random.Generator,
    shrink_min: float = 1.0,
    others: Many[Fit] = (),
) -> Fit | Rejection:
    """A trajectory for the shape, clear of other shapes, at its drawn size or at the largest size tried that has one.

    Sizes start at the widest that fits anywhere and fall by `shrink_step` to `shrink_min` at the least (A): a shape
    that only just fits in one cell cannot move.
    """
    full_m = drawn.radius_m(config.bound)
    shrink = min(1.0, space.widest_m / full_m)
    step_m, turn = (config.step_min_m, config.step_max_m), math.radians(config.turn_max_deg)
    figures = f"{drawn.source.name}: radius {full_m:.2f} m, "
    figures += f"shrunk to {shrink_min:g} of it {full_m * shrink_min:.2f} m, " if shrink_min < 1 else ""
    figures += f"widest free disc {space.widest_m:.2f} m"
    if shrink < shrink_min or not shrink:
        return Rejection("no cell is wide enough", f"no cell is wide enough for {figures}", (drawn.source.class_name,))
    discs = trajectory.discs_of([o.trajectory for o in others], [o.radius_m for o in others], config.frames)
    while shrink >= shrink_min:
        places, radius_m = candidates.find_candidates(space, full_m * shrink), full_m * shrink
        way = trajectory.draw_trajectory(places, config.frames, step_m, turn, config.step_tries, rng, discs, radius_m)
        if way is not None:
            return Fit(way, shrink, radius_m)
        shrink *= config.shrink_step
    detail = f"no walk of {config.frames} positions for {figures}"
    if others:
        detail += f", beside shapes of radius {', '.join(f'{o.radius_m:.2f}' for o in others)} m"
        return Rejection("no way beside the other shapes", detail, (drawn.source.class_name,))
    return Rejection("no way through the free cells", detail, (drawn.source.class_name,))


def prepare_scan(scan: sources.Scan, config: Config) -> Prepared:
    """The scan's cloud in Morton order with its free space. Raises CloudError, OccupancyError."""
    row = cloud.thin(scan.point, config.voxel_m)
    point = scan.point[row]
    label, instance = (None if column is None else column[row] for column in (scan.label, scan.instance))
    floor = occupancy.find_floor_plan(point, config.cell_m, config.ceiling_m, config.near_floor_m, config.close_m)
    space = candidates.find_free_space(floor)
    still = np.tile(np.eye(4, dtype=np.float32), (config.frames, 1, 1))
    below = occupancy.share_below(point, floor.floor_m)
    top_heavy = occupancy.top_heaviness(point, floor.floor_m, config.cell_m)
    thinned = Cloud(point, scan.row[row], label, instance)
    return Prepared(scan.name, thinned, augment.quantise(point), floor, space, still, below, top_heavy)


def generate_scan(scan: sources.Scan, shapes: Shapes, config: Config) -> Generated:
    """All sequences of a scan. Raises CloudError, OccupancyError."""
    prepared = prepare_scan(scan, config)
    made, rejections = [], []
    for k in range(config.sequences):
        for attempt in range(config.attempts):
            result = draw_sequence(prepared, shapes, config, k, attempt)
            if isinstance(result, Made):
                made.append(result)
                break
            rejections.append(result)
    sequences = tuple(one.sequence for one in made)
    files = {file.path: file for one in made for file in one.files}
    counts = _count(rejections, sequences, config)
    recording = _record(scan, prepared, sequences)
    read = tuple(files[path] for path in sorted(files))
    return Generated(recording, counts, read, prepared.below, prepared.top_heavy)


def _count(rejections: list[Rejection], sequences: tuple[Sequence, ...], config: Config) -> Counts:
    accepted = collections.Counter(mover.class_name for sequence in sequences for mover in sequence.movers)
    kept = {sequence.k for sequence in sequences}
    example: dict[str, str] = {}
    for rejection in rejections:
        example.setdefault(rejection.reason, rejection.detail)
    return Counts(
        attempts=len(rejections) + len(sequences),
        reasons=dict(collections.Counter(rejection.reason for rejection in rejections)),
        example=example,
        drawn=dict(accepted + collections.Counter(name for rejection in rejections for name in rejection.class_names)),
        accepted=dict(accepted),
        movers=dict(collections.Counter(str(len(sequence.movers)) for sequence in sequences)),
        shrunk=dict(collections.Counter(mover.class_name for s in sequences for mover in s.movers if mover.shrink < 1)),
        least_shrink=min((mover.shrink for s in sequences for mover in s.movers), default=1.0),
        gaps=tuple(k for k in range(config.sequences) if k not in kept),
        unreadable=tuple(sorted({rejection.detail for rejection in rejections if rejection.reason == _UNREADABLE})),
    )


def _record(scan: sources.Scan, prepared: Prepared, sequences: tuple[Sequence, ...]) -> Recording:
    return Recording(
        name=scan.name,
        sequences=sequences,
        cloud=prepared.cloud,
        floor=prepared.floor,
        free_m=prepared.space.widest_m,
        label_space=scan.label_space,
        transform=scan.transform,
        axis_alignment=scan.axis_alignment,
        source_points=len(scan.point),
        dropped=scan.dropped,
    )
