"""Triangle meshes of simple solids, the parts of which the built-in furniture is made.

Conventions: metres, z up. A piece of furniture stands on z = 0, its footprint is centred on the origin, its front looks
along -y.
Meshes are joined without Boolean operations: parts overlap, as in most CAD collections.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gen4d.samples.draws import Tint


class Solid(NamedTuple):
    """Triangles with a colour each.

    point: (V, 3) float64, metres. face: (F, 3) int32. tint: (F, 4) uint8, see `draws.Tint`.
    """

    point: np.ndarray
    face: np.ndarray
    tint: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner, (3,) float64 each."""
        return self.point.min(axis=0), self.point.max(axis=0)


_CORNER = np.array([[x, y, z] for z in (0, 1) for y in (-0.5, 0.5) for x in (-0.5, 0.5)], np.float64)
_BLOCK = np.array(
    [[0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4]]
    + [[2, 6, 7], [2, 7, 3], [0, 4, 6], [0, 6, 2], [1, 3, 7], [1, 7, 5]],
    np.int32,
)


def _mesh(point: np.ndarray, face: np.ndarray, tint: Tint) -> Solid:
    return Solid(point, face, np.broadcast_to(np.array(tint, np.uint8), (len(face), 4)))


def block(size: Sequence[float], at: Sequence[float], tint: Tint) -> Solid:
    """A box of `size` (x, y, z) whose bottom face is centred on `at`."""
    return _mesh(_CORNER * np.asarray(size) + np.asarray(at), _BLOCK, tint)


def span(low: Sequence[float], high: Sequence[float], tint: Tint) -> Solid:
    """A box from its lowest to its highest corner."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return _mesh(low + (_CORNER + [0.5, 0.5, 0.0]) * (high - low), _BLOCK, tint)


def ring(radius: Sequence[float], at: Sequence[float], power: float = 2.0, count: int = 12) -> np.ndarray:
    """A level superellipse, (count, 3): power 2 is an ellipse, larger ones tend to a rectangle."""
    angle = np.arange(count) * (2 * np.pi / count) + np.pi / count
    turn = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(count)])
    if power != 2.0:
        turn = np.sign(turn) * np.abs(turn) ** (2.0 / power)
    return turn * [radius[0], radius[1], 0.0] + np.asarray(at)


def loft(rings: Sequence[np.ndarray], tint: Tint, capped: bool = True) -> Solid:
    """A skin through rings of equally many points, (R, K, 3), closed at both ends by fans where `capped`."""
    rings = np.asarray(rings)
    layers, count, _ = rings.shape
    index = np.arange(layers * count, dtype=np.int32).reshape(layers, count)
    ahead = np.roll(index, -1, axis=1)
    low, high = (index[:-1].ravel(), ahead[:-1].ravel()), (index[1:].ravel(), ahead[1:].ravel())
    face = [np.column_stack([*low, high[1]]), np.column_stack([low[0], high[1], high[0]])]
    point = rings.reshape(-1, 3)
    if capped:
        point = np.vstack([point, rings[0].mean(axis=0), rings[-1].mean(axis=0)])
        bottom, top = np.full(count, layers * count, np.int32), np.full(count, layers * count + 1, np.int32)
        face += [np.column_stack([ahead[0], index[0], bottom]), np.column_stack([index[-1], ahead[-1], top])]
    return _mesh(point, np.vstack(face).astype(np.int32), tint)


def lathe(profile: Sequence[tuple[float, float]], at: Sequence[float], tint: Tint, count: int = 12) -> Solid:
    """A solid of revolution about the vertical through `at`, from (radius, height) pairs."""
    return loft([ring((radius, radius), (at[0], at[1], at[2] + z), 2.0, count) for radius, z in profile], tint)


def rod(radius: float, height: float, at: Sequence[float], tint: Tint, count: int = 8) -> Solid:
    """An upright cylinder standing on `at`."""
    return lathe([(radius, 0.0), (radius, height)], at, tint, count)


def cushion(size: Sequence[float], at: Sequence[float], tint: Tint, power: float = 5.0) -> Solid:
    """A rounded box of `size` whose lowest point is at `at`: upholstery, mattresses, bags."""
    half = np.asarray(size) / 2
    rings = []
    for step in (-1.0, -0.82, -0.45, 0.0, 0.45, 0.82, 1.0):
        shrink = max((1 - abs(step) ** power) ** (1 / power), 0.72)
        rings.append(ring(half[:2] * shrink, (at[0], at[1], at[2] + half[2] * (1 + step)), power, 20))
    return loft(rings, tint)


def tube(path: Sequence[Sequence[float]], radius: float, tint: Tint, count: int = 6) -> Solid:
    """A bent tube along a path (P, 3)."""
    path = np.asarray(path, np.float64)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.where(np.abs(along[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    side = np.cross(helper, along)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(along, side)
    angle = np.arange(count) * (2 * np.pi / count)
    turn = np.cos(angle)[:, None, None] * side + np.sin(angle)[:, None, None] * up
    return loft(np.swapaxes(path + radius * turn, 0, 1), tint)


def slab(sheet: np.ndarray, offset: np.ndarray | Sequence[float], tint: Tint) -> Solid:
    """A bent board: a sheet of points (n, m, 3), its copy shifted by `offset` (3,) or (n, m, 3), the rim between."""
    n, m, _ = sheet.shape
    index = np.arange(n * m, dtype=np.int32).reshape(n, m)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    front = np.vstack([np.column_stack([a, b, c]), np.column_stack([a, c, d])])
    rim = np.concatenate([index[0], index[1:, -1], index[-1, -2::-1], index[-2:0:-1, 0]])
    ahead = np.roll(rim, -1)
    sides = np.vstack(
        [np.column_stack([rim, ahead, ahead + n * m]), np.column_stack([rim, ahead + n * m, rim + n * m])]
    )
    point = np.vstack([sheet.reshape(-1, 3), (sheet + np.asarray(offset)).reshape(-1, 3)])
    return _mesh(point, np.vstack([front, front[:, ::-1] + n * m, sides]).astype(np.int32), tint)


def join(meshes: Iterable[Solid]) -> Solid:
    """All triangles of several meshes in one."""
    meshes = list(meshes)
    start = np.cumsum([0] + [len(mesh.point) for mesh in meshes[:-1]])
    face = np.vstack([mesh.face + first for mesh, first in zip(meshes, start, strict=True)]).astype(np.int32)
    return Solid(np.vstack([mesh.point for mesh in meshes]), face, np.vstack([mesh.tint for mesh in meshes]))


def place(mesh: Solid, at: Sequence[float], yaw_rad: float = 0.0) -> Solid:
    """The mesh turned about z, then shifted by `at`."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    x, y, z = mesh.point.T
    point = np.column_stack([cos * x - sin * y + at[0], sin * x + cos * y + at[1], z + at[2]])
    return mesh._replace(point=point)


def lean(mesh: Solid, angle_rad: float, pivot: tuple[float, float]) -> Solid:
    """The mesh turned about the x direction through pivot (y, z): a positive angle leans its top to the back (+y)."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    x, y, z = mesh.point[:, 0], mesh.point[:, 1] - pivot[0], mesh.point[:, 2] - pivot[1]
    return mesh._replace(point=np.column_stack([x, cos * y + sin * z + pivot[0], cos * z - sin * y + pivot[1]]))


def uncovered(mesh: Solid) -> Solid:
    """A block, or a join that starts with one, without the block's top face: what is let into it stays visible."""
    return mesh._replace(face=np.delete(mesh.face, [2, 3], axis=0), tint=np.delete(mesh.tint, [2, 3], axis=0))


def mirrored(mesh: Solid) -> Solid:
    """Left and right exchanged."""
    return mesh._replace(point=mesh.point * [-1.0, 1.0, 1.0], face=mesh.face[:, ::-1])
