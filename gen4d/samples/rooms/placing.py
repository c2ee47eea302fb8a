"""Placing pieces in a room: on a raster that knows free floor, and on walls that know their openings."""

import copy
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from gen4d.samples.objects.pieces import Piece
from gen4d.samples.rooms.shell import Rect, Wall, Zone

CELL_M = 0.05
_OUTSIDE, _FREE = -1, 0
_TRIES = 40


class Item(NamedTuple):
    """A piece in the room: its origin in room coordinates, metres, and its yaw.

    movable: another day it may stand elsewhere (chairs, things on the floor) or be gone (things on tables).
    host: index of the item that it stands on, or -1.
    """

    piece: Piece
    x: float
    y: float
    z: float = 0.0
    yaw_rad: float = 0.0
    movable: bool = False
    host: int = -1


class RoomPlan:
    """A room while it is furnished: zones, walls, the items placed so far, and the raster of the floor."""

    def __init__(self, zones: list[Zone], walls: list[Wall], passages: list[Rect], ceiling_m: float) -> None:
        corners = np.concatenate([zone.outline for zone in zones])
        self.zones, self.walls, self.ceiling_m = zones, walls, ceiling_m
        self.origin = corners.min(axis=0) - 2 * CELL_M
        shape = np.ceil((corners.max(axis=0) - self.origin) / CELL_M).astype(int) + 2
        self.cells = np.full(shape, _OUTSIDE, np.int16)
        self.kept = np.zeros(shape, bool)
        self.items: list[Item] = []
        for rect in [*(rect for zone in zones for rect in zone.rects), *passages]:
            self.cells[self._window(rect)] = _FREE

    def copied(self) -> "RoomPlan":
        """A plan that can be rearranged without touching this one."""
        twin = copy.copy(self)
        twin.cells, twin.kept, twin.items = self.cells.copy(), self.kept.copy(), list(self.items)
        return twin

    def _window(self, rect: Rect) -> tuple[slice, slice]:
        """The cells whose centres lie in a level rectangle."""
        low = np.ceil((np.array(rect[:2]) - self.origin) / CELL_M - 0.5).astype(int)
        high = np.ceil((np.array(rect[2:]) - self.origin) / CELL_M - 0.5).astype(int)
        low = np.maximum(low, 0)
        return slice(low[0], max(high[0], 0)), slice(low[1], max(high[1], 0))

    def keep(self, rect: Rect) -> None:
        """Reserves floor that must stay walkable."""
        self.kept[self._window(rect)] = True

    def keep_disc(self, x: float, y: float, radius_m: float) -> None:
        """Reserves a disc of floor."""
        gx, gy = self.centres()
        self.kept |= (gx - x) ** 2 + (gy - y) ** 2 < radius_m**2

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """x of the cells' centres as a column, y as a row."""
        nx, ny = self.cells.shape
        x = self.origin[0] + (np.arange(nx)[:, None] + 0.5) * CELL_M
        return x, self.origin[1] + (np.arange(ny)[None, :] + 0.5) * CELL_M

    def under(self, low: np.ndarray, high: np.ndarray, pose: tuple[float, float, float]):
        """The cells under a rectangle low..high of a piece's own frame at pose (x, y, yaw): a window and a mask in it.

        None where part of the rectangle lies outside the raster.
        """
        x, y, yaw = pose
        cos, sin = np.cos(yaw), np.sin(yaw)
        cx, cy = np.array([low[0], high[0], high[0], low[0]]), np.array([low[1], low[1], high[1], high[1]])
        wx, wy = cos * cx - sin * cy + x, sin * cx + cos * cy + y
        first = np.floor((np.array([wx.min(), wy.min()]) - self.origin) / CELL_M).astype(int)
        last = np.floor((np.array([wx.max(), wy.max()]) - self.origin) / CELL_M).astype(int) + 1
        if (first < 0).any() or (last > self.cells.shape).any():
            return None
        dx = self.origin[0] + (np.arange(first[0], last[0])[:, None] + 0.5) * CELL_M - x
        dy = self.origin[1] + (np.arange(first[1], last[1])[None, :] + 0.5) * CELL_M - y
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        mask = (u >= low[0]) & (u <= high[0]) & (v >= low[1]) & (v <= high[1])
        return (slice(first[0], last[0]), slice(first[1], last[1])), mask

    def fits(self, low: np.ndarray, high: np.ndarray, pose: tuple[float, float, float], beside: int = -1) -> bool:
        """True where a rectangle at a pose covers free floor only; item `beside` does not count as an obstacle."""
        return self.is_empty(low, high, pose, beside) and not self._covers_kept(low, high, pose)

    def is_empty(self, low: np.ndarray, high: np.ndarray, pose: tuple[float, float, float], beside: int = -1) -> bool:
        """As `fits`, but floor that must stay walkable is good enough: for the space around a piece."""
        found = self.under(low, high, pose)
        if found is None:
            return False
        cells = self.cells[found[0]]
        blocked = (cells != _FREE) & (cells != beside + 1 if beside >= 0 else True)
        return not (found[1] & blocked).any()

    def _covers_kept(self, low: np.ndarray, high: np.ndarray, pose: tuple[float, float, float]) -> bool:
        window, mask = self.under(low, high, pose)
        return bool((mask & self.kept[window]).any())

    def widest(self, zone: int) -> tuple[float, float, float]:
        """Centre and radius of the widest free disc of a zone, metres."""
        inside = np.zeros(self.cells.shape, bool)
        for rect in self.zones[zone].rects:
            inside[self._window(rect)] = True
        distance = distance_transform_edt(inside & (self.cells == _FREE))
        best = np.unravel_index(int(distance.argmax()), distance.shape)
        x, y = self.origin + (np.array(best) + 0.5) * CELL_M
        return float(x), float(y), float(distance[best] * CELL_M)

    def add(self, item: Item, solid: bool = True) -> int:
        """Puts an item into the room; a solid one takes the floor below it. Returns its index."""
        self.items.append(item)
        if solid:
            low, high = item.piece.bounds()
            found = self.under(low, high, (item.x, item.y, item.yaw_rad))
            if found is not None:
                cells = self.cells[found[0]]
                cells[found[1] & (cells == _FREE)] = len(self.items)
        return len(self.items) - 1

    def lift(self, index: int) -> None:
        """Frees the floor below an item."""
        self.cells[self.cells == index + 1] = _FREE

    def zone_walls(self, zone: int) -> list[Wall]:
        """The walls of one zone."""
        return [wall for wall in self.walls if wall.zone == zone]


def against_wall(
    plan: RoomPlan, rng: np.random.Generator, zone: int, piece: Piece, corner: bool = False, clear_m: float = 0.0
) -> int | None:
    """Stands a piece with its back to a wall of the zone, or in a corner, with `clear_m` of free floor before it.

    Doors stay free, and windows that the piece would cover. None where no place was found.
    """
    low, high = piece.bounds()
    wide, walls = high[0] - low[0], plan.zone_walls(zone)
    weight = np.array([max(wall.length_m - wide - 0.02, 0.0) for wall in walls])
    if weight.sum() == 0:
        return None
    for _ in range(_TRIES):
        wall = walls[int(rng.choice(len(walls), p=weight / weight.sum()))]
        gap, room = rng.uniform(0.01, 0.06), wall.length_m - wide
        s = rng.uniform(0.0, room)
        if corner:
            s = min(0.03, room) if s < room / 2 else max(room - 0.03, 0.0)
        rect = (s, 0.0, s + wide, float(high[2]))
        x, y = wall.point(s + wide / 2, gap + high[1])
        pose = (float(x), float(y), wall.yaw_rad())
        if wall.is_free(rect) and plan.fits(low, high, pose) and plan.is_empty(low - [0, clear_m, 0], high, pose):
            wall.used.append(rect)
            return plan.add(Item(piece, *pose[:2], 0.0, pose[2]))
    return None


def hang(
    plan: RoomPlan, rng: np.random.Generator, zone: int, piece: Piece, z: float, wall: Wall | None = None
) -> int | None:
    """Hangs a piece whose back is at y = 0 on a free place of a wall, its lower edge at height z."""
    low, high = piece.bounds()
    wide = high[0] - low[0]
    walls = [wall] if wall is not None else plan.zone_walls(zone)
    walls = [one for one in walls if one.length_m > wide + 0.1]
    for _ in range(_TRIES if walls else 0):
        one = walls[int(rng.integers(len(walls)))]
        s = rng.uniform(0.05, one.length_m - wide - 0.05)
        rect = (s, z, s + wide, z + float(high[2]))
        if rect[3] < plan.ceiling_m - 0.05 and one.is_free(rect):
            one.used.append(rect)
            return fasten(plan, piece, one, s + wide / 2, z)
    return None


def fasten(plan: RoomPlan, piece: Piece, wall: Wall, s: float, z: float) -> int:
    """Fixes a piece to a wall at s and z without asking what is there."""
    x, y = wall.point(s)
    return plan.add(Item(piece, float(x), float(y), z, wall.yaw_rad()), solid=False)


def relative(item: Item, dx: float, dy: float) -> tuple[float, float]:
    """A place (dx, dy) of an item's own frame, in room coordinates."""
    cos, sin = np.cos(item.yaw_rad), np.sin(item.yaw_rad)
    return float(item.x + cos * dx - sin * dy), float(item.y + sin * dx + cos * dy)


def beside(plan: RoomPlan, piece: Piece, host: int, side: int, gap_m: float = 0.04) -> int | None:
    """Stands a piece to the left (-1) or right (1) of an item, backs aligned."""
    item = plan.items[host]
    low, high = item.piece.bounds()
    own_low, own_high = piece.bounds()
    dx = high[0] + gap_m - own_low[0] if side > 0 else low[0] - gap_m - own_high[0]
    x, y = relative(item, dx, high[1] - own_high[1])
    if not plan.fits(own_low, own_high, (x, y, item.yaw_rad)):
        return None
    wall = next((w for w in plan.walls if abs((np.array([x, y]) - w.start) @ w.normal - own_high[1]) < 0.1), None)
    if wall is not None and np.cos(wall.yaw_rad() - item.yaw_rad) > 0.99:
        s = float((np.array([x, y]) - wall.start) @ wall.along)
        rect = (s + own_low[0], 0.0, s + own_high[0], float(own_high[2]))
        if not wall.is_free(rect, 0.0):
            return None
        wall.used.append(rect)
    return plan.add(Item(piece, x, y, 0.0, item.yaw_rad))


def facing(
    plan: RoomPlan, piece: Piece, host: int, place: tuple[float, float, float], turn_rad: float = 0.0
) -> int | None:
    """Stands a movable piece, such as a chair, at (dx, dy, yaw) of a host's own frame; it may reach under the host."""
    item = plan.items[host]
    dx, dy, yaw = place
    x, y = relative(item, dx, dy)
    pose = (x, y, item.yaw_rad + yaw + turn_rad)
    low, high = piece.bounds()
    if not plan.fits(low, high, pose, host):
        return None
    return plan.add(Item(piece, *pose[:2], 0.0, pose[2], movable=True))


def anywhere(
    plan: RoomPlan,
    rng: np.random.Generator,
    zone: int,
    piece: Piece,
    square: bool,
    margin_m: float = 0.1,
    movable: bool = False,
) -> int | None:
    """Stands a piece on free floor of the zone, parallel to the walls where `square`, with free floor around it."""
    low, high = piece.bounds()
    rects = plan.zones[zone].rects
    for _ in range(_TRIES):
        x0, y0, x1, y1 = rects[int(rng.integers(len(rects)))]
        yaw = np.pi / 2 * int(rng.integers(4)) if square else rng.uniform(0, 2 * np.pi)
        pose = (rng.uniform(x0, x1), rng.uniform(y0, y1), float(yaw))
        if plan.fits(low, high, pose) and plan.is_empty(low - margin_m, high + margin_m, pose):
            return plan.add(Item(piece, *pose[:2], 0.0, pose[2], movable))
    return None


def on_top(
    plan: RoomPlan, rng: np.random.Generator, host: int, piece: Piece, taken: list, turn_rad: float = 0.5
) -> int | None:
    """Stands a piece on a top of an item, clear of the circles (x, y, z, r) in `taken`, to which it adds its own.

    None where the item has no tops or no room was found.
    """
    item = plan.items[host]
    low, high = piece.bounds()
    half = (high - low)[:2] / 2
    radius = float(half.mean())
    for _ in range(8 if item.piece.tops else 0):
        top = item.piece.tops[int(rng.integers(len(item.piece.tops)))]
        middle, reach = ((top.x0 + top.x1) / 2, (top.y0 + top.y1) / 2), ((top.x1 - top.x0) / 2, (top.y1 - top.y0) / 2)
        if high[2] > top.headroom_m or min(reach) < 0.5 * half.min() or max(reach) < half.max():
            continue
        dx = middle[0] + rng.uniform(-1, 1) * max(reach[0] - half[0], 0.0)
        dy = middle[1] + rng.uniform(-1, 1) * max(reach[1] - half[1], 0.0)
        if all(np.hypot(dx - cx, dy - cy) > radius + r for cx, cy, z, r in taken if z == top.z):
            taken.append((dx, dy, top.z, radius))
            x, y = relative(item, dx, dy)
            yaw = item.yaw_rad + rng.uniform(-turn_rad, turn_rad)
            return plan.add(Item(piece, x, y, item.z + top.z, yaw, movable=True, host=host), solid=False)
    return None


def set_on(plan: RoomPlan, host: int, piece: Piece, place: tuple[float, float, float], taken: list) -> int:
    """Stands a piece at (dx, dy, yaw) of the first top of a host, measured from the top's middle."""
    item = plan.items[host]
    top, low_high = item.piece.tops[0], piece.bounds()
    dx, dy = (top.x0 + top.x1) / 2 + place[0], (top.y0 + top.y1) / 2 + place[1]
    taken.append((dx, dy, top.z, float((low_high[1] - low_high[0])[:2].max()) / 2))
    x, y = relative(item, dx, dy)
    return plan.add(Item(piece, x, y, item.z + top.z, item.yaw_rad + place[2], movable=True, host=host), solid=False)
