"""Whole rooms: an outline is drawn, opened, furnished by the programme of its kind, and rearranged for a rescan."""

from typing import NamedTuple

import numpy as np

from gen4d.samples.draws import chance, keyed, pick
from gen4d.samples.objects import small
from gen4d.samples.objects.pieces import Piece
from gen4d.samples.objects.solids import block
from gen4d.samples.rooms import placing
from gen4d.samples.rooms.placing import Item, RoomPlan
from gen4d.samples.rooms.programmes import PROGRAMMES
from gen4d.samples.rooms.shell import (
    Rect,
    Wall,
    blinds_piece,
    cut_door,
    cut_doorway,
    cut_windows,
    door_piece,
    draw_annex,
    draw_zone,
    floor_tint,
    level_piece,
    wall_piece,
    wall_tint,
    walls_of,
    window_piece,
)

# Eight rooms in a row have one of each kind, in an order of their own; an apartment has two rooms.
KINDS = ("living room", "bedroom", "office", "kitchen", "bathroom", "meeting room", "storage room", "apartment")
_ANNEXES = (
    ("living room", "kitchen"),
    ("bedroom", "bathroom"),
    ("living room", "bedroom"),
    ("office", "meeting room"),
    ("bedroom", "kitchen"),
)
_MAX_RESCANS = 3


class Room(NamedTuple):
    """A furnished room: its kind, how many times it is scanned, and the plan that holds every item."""

    kind: str
    scans: int
    plan: RoomPlan


def room_kind(seed: int, index: int) -> str:
    """The kind of room `index`."""
    order = keyed(seed, "kinds", index // len(KINDS)).permutation(len(KINDS))
    return KINDS[order[index % len(KINDS)]]


def make_room(seed: int, index: int) -> Room:
    """Room `index` of a seed: the same whatever other rooms are made."""
    rng, kind = keyed(seed, "room", index), room_kind(seed, index)
    scans = 1 + int(rng.choice(_MAX_RESCANS, p=[0.45, 0.35, 0.2]))
    plan = _shell(rng, kind)
    for zone, _ in enumerate(plan.zones):
        PROGRAMMES[plan.zones[zone].kind](plan, zone, rng)
        _dress(plan, rng, zone)
    return Room(kind, scans, plan)


def _shell(rng: np.random.Generator, kind: str) -> RoomPlan:
    """Zones, walls, openings, floor and ceiling as the first items of a plan."""
    kinds = pick(rng, _ANNEXES) if kind == "apartment" else (kind,)
    if kinds[0] == "meeting room" and chance(rng, 0.4):
        kinds = ("classroom",)
    scale = 1.0 if len(kinds) == 1 else 0.85
    zones = [draw_zone(rng, kinds[0], scale)]
    zones += [draw_annex(rng, other, zones[0], scale) for other in kinds[1:]]
    walls = [wall for index, zone in enumerate(zones) for wall in walls_of(zone, index)]
    passages = [cut_doorway(rng, walls)] if len(zones) > 1 else []
    ceiling_m = rng.uniform(2.35, 2.9)
    wide = (
        rng.uniform(1.3, 1.6)
        if kinds[0] in ("meeting room", "classroom") and chance(rng, 0.4)
        else rng.uniform(0.8, 0.95)
    )
    entrance = cut_door(rng, [wall for wall in walls if wall.zone == 0], wide)
    windows = cut_windows(rng, walls, ceiling_m) if kind not in ("bathroom", "storage room") or chance(rng, 0.4) else []
    plan = RoomPlan(zones, walls, passages, ceiling_m)
    _add_surfaces(plan, rng, passages)
    _add_openings(plan, rng, entrance, windows)
    for rect in passages:
        plan.keep((rect[0] - 0.6, rect[1], rect[2] + 0.6, rect[3]))
    return plan


def _add_surfaces(plan: RoomPlan, rng: np.random.Generator, passages: list[Rect]) -> None:
    tint, skirting = wall_tint(rng), pick(rng, [0.0, 0.07, 0.1])
    for index, zone in enumerate(plan.zones):
        rects = [*zone.rects, *(passages if index == 0 else [])]
        plan.add(Item(level_piece("floor", rects, 0.0, floor_tint(rng)), 0.0, 0.0), solid=False)
        plan.add(
            Item(level_piece("ceiling", list(zone.rects), plan.ceiling_m, (244, 244, 242, 0)), 0.0, 0.0), solid=False
        )
    for wall in plan.walls:
        plan.add(Item(wall_piece(wall, plan.ceiling_m, tint, skirting), 0.0, 0.0), solid=False)
    if chance(rng, 0.2):
        size = (rng.uniform(0.25, 0.45), rng.uniform(0.25, 0.45))
        column = Piece("column", block((*size, plan.ceiling_m), (0, 0, 0), tint))
        placing.against_wall(plan, rng, 0, column, corner=chance(rng, 0.5))


def _add_openings(
    plan: RoomPlan, rng: np.random.Generator, entrance: tuple[Wall, Rect] | None, windows: list[tuple[Wall, Rect]]
) -> None:
    """Doors and windows with their curtains, blinds and radiators; the floor before a door is kept free."""
    if entrance is not None:
        wall, (s0, _, s1, tall) = entrance
        placing.fasten(plan, door_piece(rng, s1 - s0, tall), wall, (s0 + s1) / 2, 0.0)
        ends = np.array([wall.point(s0), wall.point(s1), wall.point(s0, 0.95), wall.point(s1, 0.95)])
        plan.keep((*ends.min(axis=0), *ends.max(axis=0)))
    if chance(rng, 0.35):
        extra = cut_door_closed(plan, rng)
        if extra is not None:
            placing.fasten(plan, extra[0], extra[1], extra[2], 0.0)
    dressing = pick(rng, ["none", "curtains", "curtains", "curtains", "blinds"])
    for wall, (s0, z0, s1, z1) in windows:
        middle, wide, tall = (s0 + s1) / 2, s1 - s0, z1 - z0
        placing.fasten(plan, window_piece(rng, wide, tall), wall, middle, z0)
        if dressing == "blinds":
            placing.fasten(plan, blinds_piece(rng, wide + 0.05, tall), wall, middle, z0)
        elif dressing == "curtains":
            _curtains(plan, rng, wall, (s0, z0, s1, z1))
        if z0 > 0.7 and wide > 0.9 and chance(rng, 0.4):
            placing.fasten(plan, small.radiator(rng, wide * rng.uniform(0.6, 0.95)), wall, middle, 0.12)
            wall.used.append((s0, 0.0, s1, 0.75))


def cut_door_closed(plan: RoomPlan, rng: np.random.Generator):
    """A second door, closed, on the face of a wall without an opening behind it: piece, wall and place."""
    walls = [wall for wall in plan.walls if wall.length_m > 1.3]
    wall, wide, tall = pick(rng, walls), rng.uniform(0.75, 0.92), rng.uniform(1.98, 2.1)
    at = rng.uniform(0.15, wall.length_m - wide - 0.15)
    if not wall.is_free((at, 0.0, at + wide, tall), 0.12):
        return None
    wall.doors.append((at, 0.0, at + wide, tall))
    ends = np.array([wall.point(at), wall.point(at + wide), wall.point(at, 0.8), wall.point(at + wide, 0.8)])
    plan.keep((*ends.min(axis=0), *ends.max(axis=0)))
    piece = door_piece(rng, wide, tall).at(0.0, -0.045, 0.0)
    return piece, wall, at + wide / 2


def _curtains(plan: RoomPlan, rng: np.random.Generator, wall: Wall, window: Rect) -> None:
    """One or two drapes beside a window, drawn part of the way before it."""
    s0, z0, s1, z1 = window
    top, low = min(z1 + 0.12, plan.ceiling_m - 0.05), 0.03 if chance(rng, 0.7) else max(z0 - 0.15, 0.03)
    wide = min((s1 - s0) * rng.uniform(0.2, 0.45), 0.9)
    for s in (s0 + wide / 2 - 0.12, s1 - wide / 2 + 0.12)[: 2 if chance(rng, 0.85) else 1]:
        if wide / 2 < s < wall.length_m - wide / 2:
            placing.fasten(plan, small.drape(rng, "curtain", wide, top - low), wall, s, low)
            wall.used.append((s - wide / 2, low, s + wide / 2, top))


def _dress(plan: RoomPlan, rng: np.random.Generator, zone: int) -> None:
    """Pictures, a rug, lamps from the ceiling, and what lies about on tables and floors."""
    for _ in range(int(rng.integers(0, 5))):
        placing.hang(plan, rng, zone, small.picture(rng), rng.uniform(1.2, 1.55))
    x0, y0, x1, y1 = plan.zones[zone].rects[0]
    if plan.zones[zone].kind in ("living room", "bedroom") and chance(rng, 0.5):
        size = (rng.uniform(0.35, 0.6) * (x1 - x0), rng.uniform(0.35, 0.6) * (y1 - y0))
        plan.add(Item(small.rug(rng, *size), (x0 + x1) / 2, (y0 + y1) / 2, 0.0), solid=False)
    if chance(rng, 0.25):
        lamp = small.pendant(rng, plan.ceiling_m)
        plan.add(
            Item(lamp, (x0 + x1) / 2 + rng.uniform(-0.5, 0.5), (y0 + y1) / 2 + rng.uniform(-0.5, 0.5)), solid=False
        )
    _clutter(plan, rng)
    if chance(rng, 0.4):
        placing.against_wall(plan, rng, zone, small.plant(rng, tall=True), corner=True)
    for _ in range(int(rng.integers(1, 6))):
        piece = pick(rng, small.FLOOR_THINGS)(rng)
        if chance(rng, 0.6):
            placing.against_wall(plan, rng, zone, piece)
        else:
            placing.anywhere(plan, rng, zone, piece, square=False, margin_m=0.02, movable=True)


_BARE = ("couch", "bed", "shelf", "kitchen counter")  # their programmes have put there what belongs there


def _clutter(plan: RoomPlan, rng: np.random.Generator) -> None:
    """Things on every table, chest and shelf that carries nothing yet."""
    hosts = {item.host for item in plan.items}
    for index, item in enumerate(list(plan.items)):
        if not item.piece.tops or index in hosts or item.piece.name in _BARE:
            continue
        taken: list = []
        area = sum((top.x1 - top.x0) * (top.y1 - top.y0) for top in item.piece.tops)
        for _ in range(int(rng.integers(0, 3 + min(int(area * 4), 6)))):
            placing.on_top(plan, rng, index, pick(rng, small.TABLE_THINGS)(rng), taken)


def rearranged(plan: RoomPlan, rng: np.random.Generator) -> RoomPlan:
    """The room on another day: most chairs and things on the floor moved or turned, some things gone."""
    plan, gone = plan.copied(), set()
    for index, item in enumerate(plan.items):
        if not item.movable:
            continue
        if item.host >= 0:
            if chance(rng, 0.3):
                gone.add(index)
        elif chance(rng, 0.75):
            _move(plan, rng, index)
    kept = [item for index, item in enumerate(plan.items) if index not in gone]
    plan.items = kept
    return plan


def _move(plan: RoomPlan, rng: np.random.Generator, index: int) -> None:
    """Shifts and turns a movable item within its surroundings; it stays where it is if nothing fits."""
    item = plan.items[index]
    low, high = item.piece.bounds()
    carried = any(other.host == index for other in plan.items)
    plan.lift(index)
    for spread in (0.7, 0.7, 0.5, 0.5, 0.35, 0.35, 0.2, 0.2, 0.1):
        pose = (
            item.x + rng.normal(0, spread),
            item.y + rng.normal(0, spread),
            item.yaw_rad + rng.normal(0, 2 * spread),
        )
        if not carried and plan.fits(low, high, pose):
            item = item._replace(x=float(pose[0]), y=float(pose[1]), yaw_rad=float(pose[2]))
            break
    plan.items[index] = item
    found = plan.under(low, high, (item.x, item.y, item.yaw_rad))
    if found is not None:
        cells = plan.cells[found[0]]
        cells[found[1] & (cells == 0)] = index + 1
