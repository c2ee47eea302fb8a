"""The shell of a room: its outline, walls with their openings, doors, windows, floor and ceiling.

An outline runs counter-clockwise, so that the room lies to the left of every wall.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gen4d.samples.draws import Tint, chance, metal, paint, pick, vary, wood
from gen4d.samples.objects.pieces import Piece
from gen4d.samples.objects.solids import Solid, block, join, place, span, tube

Rect = tuple[float, float, float, float]  # x0, y0, x1, y1, or along a wall s0, z0, s1, z1; metres

# Widths and depths of rooms, metres.
_SIZE_M = {
    "bedroom": ((2.8, 4.4), (2.8, 4.6)),
    "living room": ((3.6, 5.8), (3.4, 5.2)),
    "office": ((3.0, 6.0), (2.9, 4.8)),
    "kitchen": ((3.0, 4.8), (3.0, 5.0)),
    "bathroom": ((2.3, 3.5), (2.2, 3.4)),
    "meeting room": ((3.6, 6.4), (3.2, 4.8)),
    "classroom": ((4.4, 6.0), (3.6, 4.8)),
    "storage room": ((2.8, 5.0), (2.7, 4.2)),
}
_ANNEX_GAP_M = 0.14  # thickness of the wall between the two rooms of an apartment


class Zone(NamedTuple):
    """One room of a scan: what it is used for, its outline (K, 2), and the same area as rectangles."""

    kind: str
    outline: np.ndarray
    rects: tuple[Rect, ...]


@dataclass(eq=False)
class Wall:
    """A straight wall of a zone: s runs from `start` in direction `along`, the room lies in direction `normal`."""

    zone: int
    start: np.ndarray
    along: np.ndarray
    normal: np.ndarray
    length_m: float
    doors: list[Rect] = field(default_factory=list)
    windows: list[Rect] = field(default_factory=list)
    used: list[Rect] = field(default_factory=list)

    def yaw_rad(self) -> float:
        """The yaw at which a piece of furniture turns its back to the wall."""
        return float(np.arctan2(self.normal[0], -self.normal[1]))

    def point(self, s: float, off_m: float = 0.0) -> np.ndarray:
        """The place (2,) at s along the wall and `off_m` in front of it."""
        return self.start + s * self.along + off_m * self.normal

    def is_free(self, rect: Rect, margin_m: float = 0.03) -> bool:
        """True where a rectangle s0, z0, s1, z1 keeps clear of openings and of what hangs or stands there."""
        return not any(overlap(rect, other, margin_m) for other in (*self.doors, *self.windows, *self.used))


def overlap(a: Rect, b: Rect, margin_m: float) -> bool:
    """True where two rectangles come closer than the margin."""
    return a[0] < b[2] + margin_m and b[0] < a[2] + margin_m and a[1] < b[3] + margin_m and b[1] < a[3] + margin_m


def _rectangle(rect: Rect) -> np.ndarray:
    x0, y0, x1, y1 = rect
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def _size(rng: np.random.Generator, kind: str, scale: float) -> tuple[float, float]:
    (w0, w1), (d0, d1) = _SIZE_M[kind]
    return rng.uniform(w0, w1) * scale, rng.uniform(d0, d1) * scale


def draw_zone(rng: np.random.Generator, kind: str, scale: float = 1.0) -> Zone:
    """A rectangular room, or an L where it is large enough; `scale` makes the rooms of an apartment smaller."""
    width, depth = _size(rng, kind, scale)
    if not (min(width, depth) > 3.8 and chance(rng, 0.35)):
        return Zone(kind, _rectangle((0, 0, width, depth)), ((0.0, 0.0, width, depth),))
    cut_x, cut_y = width * rng.uniform(0.6, 0.75), depth * rng.uniform(0.55, 0.72)
    outline = [(0, 0), (width, 0), (width, cut_y), (cut_x, cut_y), (cut_x, depth), (0, depth)]
    return Zone(kind, np.array(outline), ((0.0, 0.0, width, cut_y), (0.0, cut_y, cut_x, depth)))


def draw_annex(rng: np.random.Generator, kind: str, beside: Zone, scale: float) -> Zone:
    """A second, rectangular room to the right of another one, with a wall between them."""
    width, depth = _size(rng, kind, scale)
    x0, y1 = beside.rects[0][2] + _ANNEX_GAP_M, beside.rects[0][3]
    y0 = rng.uniform(1.3 - depth, y1 - 1.3)
    rect = (x0, y0, x0 + width, y0 + depth)
    return Zone(kind, _rectangle(rect), (rect,))


def walls_of(zone: Zone, index: int) -> list[Wall]:
    """The walls along a zone's outline."""
    ends = np.roll(zone.outline, -1, axis=0)
    made = []
    for start, end in zip(zone.outline, ends, strict=True):
        length = float(np.hypot(*(end - start)))
        along = (end - start) / length
        made.append(Wall(index, start, along, np.array([-along[1], along[0]]), length))
    return made


def cut_doorway(rng: np.random.Generator, walls: list[Wall]) -> Rect:
    """Opens the wall between two zones on both sides; returns the floor of the passage, x0, y0, x1, y1."""
    left = max((wall for wall in walls if wall.zone == 0 and wall.normal[0] < -0.5), key=lambda wall: wall.start[0])
    right = next(wall for wall in walls if wall.zone == 1 and wall.normal[0] > 0.5)
    low = max(left.start[1], right.start[1] - right.length_m) + 0.1
    high = min(left.start[1] + left.length_m, right.start[1]) - 0.1
    wide = min(rng.uniform(0.85, 1.5), high - low)
    y0, tall = rng.uniform(low, high - wide), rng.uniform(2.0, 2.15)
    left.doors.append((y0 - left.start[1], 0.0, y0 + wide - left.start[1], tall))
    right.doors.append((right.start[1] - y0 - wide, 0.0, right.start[1] - y0, tall))
    return left.start[0], y0, right.start[0], y0 + wide


def cut_door(rng: np.random.Generator, walls: list[Wall], wide: float) -> tuple[Wall, Rect] | None:
    """Opens an entrance of width `wide` in one of the walls; None where no wall is long enough."""
    for wall in rng.permutation(np.array(walls, object)):
        if wall.length_m > wide + 0.3:
            at, tall = rng.uniform(0.12, wall.length_m - wide - 0.12), rng.uniform(1.98, 2.12)
            rect = (at, 0.0, at + wide, tall)
            if wall.is_free(rect, 0.15):
                wall.doors.append(rect)
                return wall, rect
    return None


def cut_windows(rng: np.random.Generator, walls: list[Wall], ceiling_m: float) -> list[tuple[Wall, Rect]]:
    """Opens one to three windows in one or two walls that have no door."""
    plain = [wall for wall in walls if not wall.doors and wall.length_m > 1.6]
    made = []
    for wall in list(rng.permutation(np.array(plain, object)))[: 1 + chance(rng, 0.35)]:
        low, high = pick(rng, [0.05, 0.75, 0.85, 0.95, 1.0, 1.1]), min(rng.uniform(2.0, 2.3), ceiling_m - 0.15)
        count = 1 if wall.length_m < 3.0 else int(rng.integers(1, 3))
        pitch = wall.length_m / count
        wide = min(rng.uniform(0.8, 2.2), pitch - 0.5)
        for i in range(count):
            middle = (i + 0.5) * pitch + rng.uniform(-0.1, 0.1)
            rect = (middle - wide / 2, low, middle + wide / 2, high)
            wall.windows.append(rect)
            made.append((wall, rect))
    return made


def quad(corner: np.ndarray, u: np.ndarray, v: np.ndarray, tint: Tint) -> Solid:
    """A parallelogram: corner, corner + u, corner + u + v, corner + v."""
    point = np.array([corner, corner + u, corner + u + v, corner + v], np.float64)
    return Solid(point, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.array([tint, tint], np.uint8))


def wall_piece(wall: Wall, ceiling_m: float, tint: Tint, skirting_m: float) -> Piece:
    """The wall's visible face around its openings, their reveals, and a skirting board."""
    holes, along = [*wall.doors, *wall.windows], np.array([*wall.along, 0.0])
    s_edge = sorted({0.0, wall.length_m, *(s for hole in holes for s in (hole[0], hole[2]))})
    z_edge = sorted({0.0, ceiling_m, *(z for hole in holes for z in (hole[1], hole[3]))})
    parts = []
    for s0, s1 in pairwise(s_edge):
        for z0, z1 in pairwise(z_edge):
            if not any(h[0] <= s0 and s1 <= h[2] and h[1] <= z0 and z1 <= h[3] for h in holes):
                parts.append(quad(np.array([*wall.point(s0), z0]), along * (s1 - s0), np.array([0, 0, z1 - z0]), tint))
        if skirting_m > 0 and not any(h[0] <= s0 and s1 <= h[2] for h in wall.doors):
            board = block((s1 - s0, 0.018, skirting_m), (0, -0.009, 0), vary_white(tint))
            parts.append(place(board, (*wall.point((s0 + s1) / 2), 0.0), wall.yaw_rad()))
    parts += [reveal for hole in holes for reveal in _reveals(wall, hole, tint)]
    return Piece("wall", join(parts))


def vary_white(tint: Tint) -> Tint:
    """A lighter shade of a tint, for skirting boards."""
    return tuple(min(255, channel + 12) for channel in tint[:3]) + (0,)


def _reveals(wall: Wall, hole: Rect, tint: Tint) -> list[Solid]:
    """The four narrow faces of an opening through the wall's thickness."""
    s0, z0, s1, z1 = hole
    along, out, up = np.array([*wall.along, 0.0]), np.array([*wall.normal, 0.0]) * -0.13, np.array([0.0, 0.0, z1 - z0])
    low, right = np.array([*wall.point(s0), z0]), np.array([*wall.point(s1), z0])
    wide = along * (s1 - s0)
    made = [quad(low, up, out, tint), quad(right, up, out, tint), quad(low + up, wide, out, tint)]
    return made if z0 == 0 else [*made, quad(low, wide, out, tint)]


def door_piece(rng: np.random.Generator, wide: float, tall: float) -> Piece:
    """A frame and one or two leaves, closed, ajar into the next room, or open into this one. Its back is at y = 0."""
    tint, grip = pick(rng, [wood, paint])(rng), metal(rng)
    parts = [
        span((x0, -0.025, 0.0), (x1, 0.06, tall + 0.06), tint)
        for x0, x1 in ((-wide / 2 - 0.06, -wide / 2), (wide / 2, wide / 2 + 0.06))
    ]
    parts.append(span((-wide / 2, -0.025, tall), (wide / 2, 0.06, tall + 0.06), tint))
    leaves = [(-wide / 2, wide / 2)] if wide < 1.2 else [(-wide / 2, 0.0), (wide / 2, 0.0)]
    style, swing = int(rng.integers(0, 4)), pick(rng, [0.0, 0.0, 0.0, rng.uniform(0.2, 0.6), rng.uniform(-1.7, -1.2)])
    for hinge, end in leaves:
        leaf = _leaf(end - hinge, tall, style, tint, grip)
        turn = swing if end > hinge else -swing
        parts.append(place(leaf, (hinge, 0.02, 0.0), turn))
    return Piece("door", join(parts))


def _leaf(reach: float, tall: float, style: int, tint: Tint, grip: Tint) -> Solid:
    """A door leaf from its hinge at x = 0 to x = reach: smooth, with panels, or with a pane; a handle on both sides."""
    sign, wide = np.sign(reach), abs(reach)
    parts = [span((0.01, 0.0, 0.01), (wide - 0.01, 0.04, tall - 0.01), tint)]
    if style in (1, 2):
        rows = [(0.12, 0.42), (0.5, 0.92)] if style == 1 else [(0.08, 0.3), (0.36, 0.6), (0.66, 0.92)]
        parts += [span((0.14, -0.022, z0 * tall), (wide - 0.14, 0.062, z1 * tall), tint) for z0, z1 in rows]
    if style == 3:
        parts.append(span((0.16, -0.01, 0.5 * tall), (wide - 0.16, 0.05, 0.9 * tall), (120, 140, 150, 150)))
    for y in (-0.05, 0.09):
        parts.append(tube([(wide - 0.07, 0.02, 1.03), (wide - 0.07, y, 1.03), (wide - 0.19, y, 1.03)], 0.015, grip))
    mesh = join(parts)
    return mesh if sign > 0 else mesh._replace(point=mesh.point * [-1, 1, 1], face=mesh.face[:, ::-1])


def window_piece(rng: np.random.Generator, wide: float, tall: float) -> Piece:
    """Casements, their glass and a sill. Stands on the opening's lower edge, its back at y = 0 in the wall's plane."""
    tint, y, bar = pick(rng, [paint, wood])(rng), rng.uniform(0.05, 0.1), rng.uniform(0.05, 0.08)
    panes = max(1, round(wide / rng.uniform(0.6, 1.1)))
    edges = np.linspace(-wide / 2, wide / 2, panes + 1)
    parts = [span((x0, y, 0), (x0 + bar, y + 0.05, tall), tint) for x0 in (edges[:-1])]
    parts += [span((x1 - bar, y, 0), (x1, y + 0.05, tall), tint) for x1 in (edges[1:])]
    rails = [0.0, tall - bar] + ([tall * rng.uniform(0.35, 0.7)] if chance(rng, 0.4) else [])
    parts += [span((-wide / 2, y, z), (wide / 2, y + 0.05, z + bar), tint) for z in rails]
    parts.append(span((-wide / 2, y + 0.03, 0), (wide / 2, y + 0.05, tall), (150, 175, 190, 205)))
    if chance(rng, 0.7):
        parts.append(span((-wide / 2 - 0.05, -0.12, -0.03), (wide / 2 + 0.05, y, 0.0), tint))
    return Piece("window", join(parts))


def blinds_piece(rng: np.random.Generator, wide: float, tall: float) -> Piece:
    """Slats in front of a window, drawn down part of the way."""
    drawn, tint = tall * rng.uniform(0.4, 1.0), paint(rng)
    slats = [block((wide, 0.03, 0.035), (0, -0.035, tall - z), tint) for z in np.arange(0.05, drawn, 0.045)]
    return Piece("blinds", join([block((wide + 0.04, 0.06, 0.06), (0, -0.03, tall - 0.03), tint), *slats]))


def level_piece(name: str, rects: list[Rect], z: float, tint: Tint) -> Piece:
    """A floor or a ceiling: level rectangles at z."""
    parts = [
        quad(np.array([x0, y0, z]), np.array([x1 - x0, 0, 0]), np.array([0, y1 - y0, 0]), tint)
        for x0, y0, x1, y1 in rects
    ]
    return Piece(name, join(parts))


def wall_tint(rng: np.random.Generator) -> Tint:
    """The colour of a painted wall."""
    return vary(rng, pick(rng, [(232, 228, 218), (222, 214, 196), (200, 208, 205), (236, 236, 236)]), 10)


def floor_tint(rng: np.random.Generator) -> Tint:
    """The colour of parquet, carpet, tiles or screed."""
    return vary(rng, pick(rng, [(164, 120, 78), (120, 110, 104), (190, 186, 178), (98, 92, 90)]), 12)
