"""The whole story of a shape's views (STRL, Eq. 2): a set of points under chained similarities.

The key of a draw is (seed, name of the shape, k, 0, step).
"""

import math
from typing import NamedTuple

import numpy as np

from gen4d.config import ViewsConfig
from gen4d.lanes import lane
from gen4d.moving.shape import Model, sample_surface
from gen4d.sequence import ROLE_MOVING, Actor, Cloud, Mover, Recording, Sequence
from gen4d.sources import SourceError, SourceFile, load_shape
from gen4d.sources.formats.mesh_kernels import double_areas
from gen4d.sources.pointsets import AnySource, PointSource, load_points
from gen4d.views import kernels

_DRAWS = 10  # of a transform: which of the three parts are applied, three angles, three shifts, the factor


class Shape(NamedTuple):
    """A shape as its views see it: a cloud, how it came from the file's frame, and what was read."""

    cloud: Cloud
    transform: np.ndarray  # (4, 4)
    height_m: float  # NaN where the shape has no unit
    points: int  # finite ones in the file; 0 of a mesh
    dropped: int
    files: tuple[SourceFile, ...]


def generate_shape(source: AnySource, config: ViewsConfig) -> tuple[Recording, tuple[SourceFile, ...]]:
    """All sequences of a shape, and the files that it was read from. Raises SourceError."""
    shape = read_shape(source, config)
    planes = np.packbits(np.ones((config.frames, len(shape.cloud)), np.bool_), axis=1)
    mover = Mover(source.name, source.class_name, shape.height_m)
    sequences = []
    for k in range(config.sequences):
        pose = chain(shape.cloud.point, config, lane(config, source.name, k, 0, "views")).astype(np.float32)
        actor = Actor(shape.cloud, ROLE_MOVING, pose, planes, mover=0)
        sequences.append(Sequence(source.name, k, (actor,), (mover,), "views"))
    recording = Recording(
        name=source.name,
        sequences=tuple(sequences),
        cloud=shape.cloud,
        transform=shape.transform,
        source_points=shape.points,
        dropped=shape.dropped,
    )
    return recording, shape.files


def chain(point: np.ndarray, config: ViewsConfig, rng: np.random.Generator) -> np.ndarray:
    """Poses (t, 4, 4) float64 of points (N, 3): the first is the identity, each other a transform of the one before.

    A transform turns about x, then y, then z through the cloud's mean, shifts by a share of the cloud's extent along
    each axis, as it is then, and scales about its mean. Rotation, translation and scaling are each applied or not.
    The shift is not scaled and the mean not turned, so that their order makes no difference.
    """
    draw = rng.random((config.frames - 1, _DRAWS))
    point = point.astype(np.float64)
    mean = point.mean(axis=0)
    pose = np.tile(np.eye(4), (config.frames, 1, 1))
    extent = np.empty(3)
    for t, (applied, angle, shift, size) in enumerate(zip(*np.split(draw, [3, 6, 9], axis=1), strict=True), 1):
        turns, moves, scales = applied < (config.rotate_p, config.shift_p, config.scale_p)
        step = np.eye(4)
        if turns:
            step[:3, :3] = rotation(np.radians(config.rotate_deg) * (2 * angle - 1))
        if scales:
            step[:3, :3] *= config.scale_min + (config.scale_max - config.scale_min) * float(size[0])
        by = np.zeros(3)
        if moves:
            kernels.turned_extent(point, pose[t - 1], extent)
            by = config.shift * extent * (2 * shift - 1)
        step[:3, 3] = mean - step[:3, :3] @ mean + by
        pose[t] = step @ pose[t - 1]
        mean = mean + by
    return pose


def rotation(angle: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) about x, then y, then z by angles (3,) in radians."""
    (a, b, c), (x, y, z) = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, a, -x], [0, x, a]])
    about_y = np.array([[b, 0, y], [0, 1, 0], [-y, 0, b]])
    about_z = np.array([[c, -z, 0], [z, c, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def read_shape(source: AnySource, config: ViewsConfig) -> Shape:
    """A shape read, sampled and put to scale: around its mean in a sphere of radius 1, or in metres where shapes have a
    unit. Raises SourceError for what cannot be a shape."""
    path = source.root / source.path
    rng = lane(config, source.name, 0, 0, "points")
    if isinstance(source, PointSource):
        every, file = load_points(source, config.shape_up)
        finite = np.flatnonzero(np.isfinite(every).all(axis=1))
        row = _subset(path, source, finite, config.points, rng)
        point, files, points, dropped = every[row], (file,), len(finite), len(every) - len(finite)
    else:
        mesh = load_shape(source, config.shape_up)
        point, row = _sample(mesh.vertex, mesh.face, config.points, rng), None
        files, points, dropped = (mesh.file, *mesh.others), 0, 0
    transform = _to_scale(path, point, config.shape_metres)
    placed = point @ transform[:3, :3].T + transform[:3, 3]
    height_m = float(np.ptp(placed[:, 2])) if config.shape_metres else math.nan
    vertex = None if row is None else row.astype(np.int32)
    return Shape(Cloud(placed.astype(np.float32), vertex), transform, height_m, points, dropped, files)


def _subset(path, source: PointSource, finite: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows (count,) of a set's points in the file's order, which may be that of farthest points: all, or some."""
    if len(finite) < count:
        which = f"shape {source.row} of it" if source.row >= 0 else "it"
        raise SourceError(
            path, f"has {len(finite)} finite points in {which}, {count} are asked for: --set points={len(finite)}"
        )
    return finite if len(finite) == count else np.sort(rng.choice(finite, count, replace=False))


def _sample(vertex: np.ndarray, face: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points (count, 3) of a mesh, uniform by area, around its first vertex, where float32 holds them well."""
    local = vertex - vertex[0]
    area = np.empty(len(face))
    double_areas(local, face, area)
    size = float(np.ptp(local, axis=0).max())
    point, _ = sample_surface(Model(local / size, face, np.cumsum(area), 0.0, 0.0), 1.0, count, rng)
    return point.astype(np.float64) * size + vertex[0]


def _to_scale(path, point: np.ndarray, metres: float) -> np.ndarray:
    """The transform (4, 4) from the file's frame, upright, to the cloud's."""
    out = np.eye(4)
    middle = point.mean(axis=0)
    radius = float(np.linalg.norm(point - middle, axis=1).max())
    if not 1e-9 < radius < 1e9:
        raise SourceError(path, f"has an extent of {2 * radius:.3g}: a shape has one that float32 can hold: repair it")
    out[:3, :3] *= metres or 1 / radius
    out[:3, 3] = 0.0 if metres else -middle / radius
    return out
