"""A shape as a cloud in metres that stands on the floor, and its poses in the scan."""

from typing import NamedTuple

import numpy as np

from gen4d.moving import kernels
from gen4d.moving.joints import sweep
from gen4d.sources import Joint
from gen4d.sources.formats.mesh_kernels import double_areas

_BELOW = 0.01  # of its height a part may come below the foot of a shape at rest: rounded or sloping feet


class ShapeError(ValueError):
    """A mesh that cannot be a shape."""


class Model(NamedTuple):
    """A mesh of height 1 that stands on z = 0, centred on the axis it will turn about."""

    vertex: np.ndarray  # (V, 3) float64
    face: np.ndarray  # (F, 3) int32
    area: np.ndarray  # (F,) float64, cumulative
    disc: float  # radius of the circumscribed circle seen from above
    sphere: float  # radius of a sphere around the middle of the axis that holds the shape
    height: float = 1.0  # of the mesh, in its own units
    part: np.ndarray | None = None  # (F,) int32: the part of each face; None: it is one part
    joints: tuple[Joint, ...] = ()  # of parts 1, 2, ...; disc and sphere hold the shape at all their values


def make_model(
    vertex: np.ndarray, face: np.ndarray, part: np.ndarray | None = None, joints: tuple[Joint, ...] = ()
) -> Model:
    """Model of a mesh (V, 3), (F, 3) with z up, in any unit, and of the parts that it may have.

    Raises ShapeError where it has no height or surface, or a joint takes a part below the floor.
    """
    is_used = np.bincount(face.ravel(), minlength=len(vertex)) > 0
    used = vertex[is_used]
    low, high = used.min(axis=0), used.max(axis=0)
    height = high[2] - low[2]
    if not height > 1e-6 * (high - low).max():
        raise ShapeError(f"its height is {height:.3g} at an extent of {(high - low).max():.3g}: a shape cannot be flat")
    slack = 0.0
    if part is not None:
        used, slack = sweep(used, _owner(len(vertex), face, part)[is_used], joints)
        if used[:, 2].min() < low[2] - _BELOW * height:
            raise ShapeError(
                f"its joints take a part {low[2] - used[:, 2].min():.3g} below its foot: narrow their ranges"
            )
    x, y, _ = enclosing_circle(used[:, :2])
    foot = np.array([x, y, low[2]])
    centred, used, slack = (vertex - foot) / height, (used - foot) / height, slack / height
    double_area = np.empty(len(face))
    double_areas(centred, face, double_area)
    disc = float(np.hypot(used[:, 0], used[:, 1]).max()) + slack
    sphere = float(np.linalg.norm(used - [0.0, 0.0, 0.5], axis=1).max()) + slack
    joints = tuple(_in_heights(joint, foot, height) for joint in joints)
    return Model(centred, face, np.cumsum(0.5 * double_area), disc, sphere, float(height), part, joints)


def _owner(vertices: int, face: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The part (V,) of every vertex; parts share none."""
    owner = np.zeros(vertices, np.int32)
    owner[face] = part[:, None]
    return owner


def _in_heights(joint: Joint, foot: np.ndarray, height: float) -> Joint:
    """A joint in the model's frame and unit."""
    unit = height if joint.kind == "slide" else 1.0
    return joint._replace(point=(joint.point - foot) / height, low=joint.low / unit, high=joint.high / unit)


def enclosing_circle(point: np.ndarray) -> tuple[float, float, float]:
    """Centre and radius of the smallest circle around points (N, 2).

    Grows the circle of a support set by the point farthest outside, until none is or the circle does not grow, because
    the point is outside by less than the rounding that `_smallest_circle` allows. So the radius rises every time, and
    it ends, after a handful of passes on furniture.
    """
    local = point - point[0]  # far from the origin squares would lose the extent's digits
    support = local[:1]
    x, y, square = 0.0, 0.0, 0.0
    while True:
        row, far = kernels.farthest(local, x, y)
        grown, grown_support = _smallest_circle(np.vstack([support, local[row]]))
        if far <= square * (1 + 1e-12) or not square < grown[2] < np.inf:
            break
        (x, y, square), support = grown, grown_support
    x, y = float(point[0, 0]) + x, float(point[0, 1]) + y
    return x, y, float(np.hypot(point[:, 0] - x, point[:, 1] - y).max())


def _smallest_circle(point: np.ndarray):
    """Smallest circle around 2 to 4 points, and the points that support it."""
    best, support = (0.0, 0.0, np.inf), point
    n = len(point)
    for rows in [(i, j) for i in range(n) for j in range(i)] + [
        (i, j, k) for i in range(n) for j in range(i) for k in range(j)
    ]:
        x, y, square = _circle_through(point[list(rows)])
        inside = ((point - [x, y]) ** 2).sum(axis=1) <= square * (1 + 1e-9)
        if square < best[2] and inside.all():
            best, support = (x, y, square), point[list(rows)]
    return best, support


def _circle_through(corner: np.ndarray) -> tuple[float, float, float]:
    """Centre and squared radius of the circle with two points as diameter, or through three; infinite if collinear."""
    a, b = corner[0], corner[1]
    if len(corner) == 2:
        centre = (a + b) / 2
        return float(centre[0]), float(centre[1]), float(((a - centre) ** 2).sum())
    u, v = b - a, corner[2] - a
    cross = 2.0 * (u[0] * v[1] - u[1] * v[0])
    if cross == 0:
        return 0.0, 0.0, np.inf
    x = (v[1] * (u @ u) - u[1] * (v @ v)) / cross
    y = (u[0] * (v @ v) - v[0] * (u @ u)) / cross
    return float(a[0] + x), float(a[1] + y), float(x * x + y * y)


def sample_surface(model: Model, scale: float, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 3) float32 on the surface, uniform by area, `scale` metres high, and the part (count,) of each."""
    draw = rng.random((count, 3))
    face = np.searchsorted(model.area, draw[:, 0] * model.area[-1], side="right")
    face = np.minimum(face, len(model.face) - 1)
    corner = model.vertex[model.face[face]]
    root = np.sqrt(draw[:, 1:2])
    weight = np.hstack([1 - root, root * (1 - draw[:, 2:]), root * draw[:, 2:]])
    point = ((corner * weight[:, :, None]).sum(axis=1) * scale).astype(np.float32)
    return point, np.zeros(count, np.int32) if model.part is None else model.part[face]


def shape_pose(position: np.ndarray, yaw_rad: np.ndarray, floor_m: float) -> np.ndarray:
    """Poses (t, 4, 4) float32 of a shape that stands on the floor at positions (t, 2), turned about z."""
    pose = np.zeros((len(position), 4, 4))
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    pose[:, 0, 0], pose[:, 0, 1], pose[:, 1, 0], pose[:, 1, 1] = cos, -sin, sin, cos
    pose[:, 2, 2] = pose[:, 3, 3] = 1
    pose[:, :2, 3] = position
    pose[:, 2, 3] = floor_m
    return pose.astype(np.float32)
