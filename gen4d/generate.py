"""A sequence's whole story, and a scan's: one step after another, every draw from a generator keyed by its place.

The key of a draw is (seed, name of the scan, k, attempt, step), so a sequence does not depend on the order of the
work, on the number of workers, or on what else is in the build.
"""

import collections
import functools
import hashlib
import math
from typing import NamedTuple

import numpy as np

from gen4d import accept, augment, candidates, cloud, compose, occupancy, sources, trajectory
from gen4d.config import Config
from gen4d.writer import ScanRecord, SequenceRecord

_CACHED_MODELS = 128
_UNREADABLE = "unreadable shape"


class Rejection(NamedTuple):
    """Why an attempt gave no sequence: a counted reason, and this attempt's figures."""

    reason: str
    detail: str
    class_name: str


class Prepared(NamedTuple):
    """What all sequences of a scan share."""

    name: str
    point: np.ndarray  # (N, 3) float32: the scan's cloud
    quantised: np.ndarray  # (3, N) uint16
    occupancy: occupancy.Occupancy
    space: candidates.FreeSpace


class Drawn(NamedTuple):
    """A shape of an attempt."""

    source: sources.ShapeSource
    file: sources.SourceFile
    model: compose.Model
    height_m: float


class Fit(NamedTuple):
    """A way through the scan for a shape, shrunk by `shrink` where it had to be."""

    trajectory: trajectory.Trajectory
    shrink: float
    radius_m: float


class Counts(NamedTuple):
    """What became of a scan's attempts."""

    attempts: int
    reasons: dict[str, int]  # rejections
    example: dict[str, str]  # the first detail of each reason
    drawn: dict[str, int]  # attempts by class
    accepted: dict[str, int]  # sequences by class
    shrunk: dict[str, int]  # sequences with a shrunk shape, by class
    gaps: tuple[int, ...]  # k without a sequence
    unreadable: tuple[str, ...]  # shapes that were drawn and cannot be used: file, what is wrong and what to do


def lane(config: Config, scan: str, k: int, attempt: int, step: str) -> np.random.Generator:
    """The generator of one step of one attempt at sequence k of a scan."""
    key = hashlib.blake2b(f"{config.seed}\0{scan}\0{k}\0{attempt}\0{step}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def draw_sequence(prepared: Prepared, shapes: "Shapes", config: Config, k: int, attempt: int):
    """One attempt at sequence k (4DContrast, section 3.3): a SequenceRecord and its shape's file, or a Rejection."""
    drawn = draw_shape(shapes, config, lane(config, prepared.name, k, attempt, "shape"))
    if isinstance(drawn, Rejection):
        return drawn
    fit = find_fit(prepared.space, drawn, config, lane(config, prepared.name, k, attempt, "trajectory"))
    if isinstance(fit, Rejection):
        return fit
    rng = lane(config, prepared.name, k, attempt, "surface")
    shape = compose.sample_surface(drawn.model, drawn.height_m * fit.shrink, config.shape_points, rng)
    pose = compose.shape_pose(fit.trajectory.position, fit.trajectory.yaw_rad, prepared.occupancy.floor_m)
    rng = lane(config, prepared.name, k, attempt, "augment")
    size = (config.chunk_min, config.chunk_max)
    chunks = augment.draw_chunks(config.frames, (config.chunks_min, config.chunks_max), size, rng)
    scan_bits = augment.draw_bits(prepared.quantised, chunks, config.keep, rng)
    shape_bits = augment.draw_bits(augment.quantise(shape), augment.no_chunks(config.frames), config.keep, rng)
    reason = accept.find_reason(
        accept.mask_histogram(scan_bits, config.frames),
        accept.mask_histogram(shape_bits, config.frames),
        config.common_min,
        config.frame_min,
    )
    if reason:
        return Rejection(reason, f"in attempt {attempt} at sequence {k}, keep = {config.keep}", drawn.source.class_name)
    planes = (augment.pack_planes(scan_bits, config.frames), augment.pack_planes(shape_bits, config.frames))
    source = drawn.source
    height_m = drawn.height_m * fit.shrink
    name = (k, attempt, source.name, source.class_name)
    return SequenceRecord(*name, height_m, fit.shrink, fit.radius_m, shape, pose, *planes), drawn.file


class Shapes(NamedTuple):
    """The shapes of a build by class, and how to read them."""

    by_class: dict[str, tuple[sources.ShapeSource, ...]]
    up: str


def group_shapes(shapes: tuple[sources.ShapeSource, ...], up: str) -> Shapes:
    """Shapes sorted by class and path, so that a draw does not depend on the order of a listing."""
    by_class: dict[str, tuple[sources.ShapeSource, ...]] = {}
    for shape in sorted(shapes, key=lambda s: (s.class_name, s.path)):
        by_class[shape.class_name] = (*by_class.get(shape.class_name, ()), shape)
    return Shapes(by_class, up)


def draw_shape(shapes: Shapes, config: Config, rng: np.random.Generator) -> Drawn | Rejection:
    """Draw a class, one of its shapes, and a height in the class's range, uniformly each (A)."""
    class_draw, shape_draw, height_draw = rng.random(3)
    names = list(shapes.by_class)
    members = shapes.by_class[names[int(class_draw * len(names))]]
    source = members[int(shape_draw * len(members))]
    low, high = next((low, high) for name, low, high in config.height_m if name == source.class_name)
    try:
        model, file = _load_model(source, shapes.up)
    except (sources.SourceError, compose.ShapeError) as error:
        problem = getattr(error, "problem", error)
        return Rejection(_UNREADABLE, f"{source.path}: {problem}", source.class_name)
    return Drawn(source, file, model, low + (high - low) * height_draw)


@functools.lru_cache(_CACHED_MODELS)
def _load_model(source: sources.ShapeSource, up: str) -> tuple[compose.Model, sources.SourceFile]:
    mesh = sources.load_shape(source, up)
    return compose.make_model(mesh.vertex, mesh.face), mesh.file


def find_fit(space: candidates.FreeSpace, drawn: Drawn, config: Config, rng: np.random.Generator) -> Fit | Rejection:
    """A trajectory for the shape at its drawn size, or at the largest size tried that has one.

    Sizes start at the widest that fits anywhere and fall by `shrink_step` to `shrink_min` at the least (A): a shape
    that only just fits in one cell cannot move.
    """
    full_m = drawn.height_m * (drawn.model.disc if config.bound == "disc" else drawn.model.sphere)
    shrink = min(1.0, space.widest_m / full_m)
    step_m, turn = (config.step_min_m, config.step_max_m), math.radians(config.turn_max_deg)
    figures = f"{drawn.source.name}: radius {full_m:.2f} m, shrunk to {config.shrink_min:g} of it "
    figures += f"{full_m * config.shrink_min:.2f} m, widest free disc {space.widest_m:.2f} m"
    if shrink < config.shrink_min or not shrink:
        return Rejection("no cell is wide enough", f"no cell is wide enough for {figures}", drawn.source.class_name)
    while shrink >= config.shrink_min:
        places = candidates.find_candidates(space, full_m * shrink)
        way = trajectory.draw_trajectory(places, config.frames, step_m, turn, config.step_tries, rng)
        if way is not None:
            return Fit(way, shrink, full_m * shrink)
        shrink *= config.shrink_step
    detail = f"no walk of {config.frames} positions for {figures}"
    return Rejection("no way through the free cells", detail, drawn.source.class_name)


def prepare_scan(scan: sources.Scan, config: Config) -> tuple[Prepared, np.ndarray]:
    """The scan's cloud in Morton order with its free space, and the rows (N,) of `scan` that it keeps."""
    row = cloud.thin(scan.point, config.voxel_m)
    point = scan.point[row]
    plan = occupancy.find_occupancy(point, config.cell_m, config.ceiling_m, config.near_floor_m, config.close_m)
    return Prepared(scan.name, point, augment.quantise(point), plan, candidates.find_free_space(plan)), row


def generate_scan(scan: sources.Scan, shapes: Shapes, config: Config):
    """All sequences of a scan as a ScanRecord, the Counts of its attempts, and the shapes' files that it used."""
    prepared, row = prepare_scan(scan, config)
    sequences, rejections, files = [], [], {}
    for k in range(config.sequences):
        for attempt in range(config.attempts):
            result = draw_sequence(prepared, shapes, config, k, attempt)
            if not isinstance(result, Rejection):
                sequences.append(result[0])
                files[result[1].path] = result[1]
                break
            rejections.append(result)
    counts = _count(rejections, sequences, config)
    return _record(scan, prepared, row, tuple(sequences)), counts, tuple(files[path] for path in sorted(files))


def _count(rejections: list[Rejection], sequences: list[SequenceRecord], config: Config) -> Counts:
    accepted = collections.Counter(record.class_name for record in sequences)
    kept = {record.k for record in sequences}
    example: dict[str, str] = {}
    for rejection in rejections:
        example.setdefault(rejection.reason, rejection.detail)
    return Counts(
        attempts=len(rejections) + len(sequences),
        reasons=dict(collections.Counter(rejection.reason for rejection in rejections)),
        example=example,
        drawn=dict(accepted + collections.Counter(rejection.class_name for rejection in rejections)),
        accepted=dict(accepted),
        shrunk=dict(collections.Counter(record.class_name for record in sequences if record.shrink < 1)),
        gaps=tuple(k for k in range(config.sequences) if k not in kept),
        unreadable=tuple(sorted({rejection.detail for rejection in rejections if rejection.reason == _UNREADABLE})),
    )


def _record(scan: sources.Scan, prepared: Prepared, row: np.ndarray, sequences) -> ScanRecord:
    none = np.full(len(row), -1, np.int32)
    return ScanRecord(
        name=scan.name,
        point=prepared.point,
        vertex=scan.row[row],
        label=none if scan.label is None else scan.label[row],
        instance=none if scan.instance is None else scan.instance[row],
        label_space=scan.label_space,
        floor_m=prepared.occupancy.floor_m,
        origin=prepared.occupancy.origin,
        valid=prepared.occupancy.valid,
        free_m=prepared.space.widest_m,
        transform=scan.transform,
        axis_alignment=scan.axis_alignment,
        source_points=len(scan.point),
        dropped=scan.dropped,
        sequences=sequences,
    )
