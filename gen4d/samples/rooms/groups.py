"""Pieces that belong together: a sofa and its table, a bed and its night stands, chairs around a table, a kitchen."""

from collections.abc import Callable, Sequence

import numpy as np

from gen4d.samples.draws import chance, pick, repeated
from gen4d.samples.objects import seats, small, storage, tables
from gen4d.samples.objects.pieces import Piece
from gen4d.samples.rooms import placing
from gen4d.samples.rooms.placing import Item, RoomPlan

Builder = Callable[[np.random.Generator], Piece]
_DINING_CHAIRS = (
    seats.four_leg_chair,
    seats.four_leg_chair,
    seats.shell_chair,
    seats.cantilever_chair,
    seats.stool,
)


def area(plan: RoomPlan, zone: int) -> float:
    """Floor area of a zone, square metres."""
    return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in plan.zones[zone].rects)


def has(plan: RoomPlan, name: str) -> bool:
    """True where a piece of this category stands in the room."""
    return any(item.piece.name == name for item in plan.items)


def stand(
    plan: RoomPlan,
    zone: int,
    rng: np.random.Generator,
    builders: Sequence[Builder],
    corner: bool = False,
    clear_m: float = 0.0,
) -> int | None:
    """Stands a piece of one of the styles against a wall; a few are drawn, as not every one fits."""
    for _ in range(4):
        spot = placing.against_wall(plan, rng, zone, pick(rng, builders)(rng), corner, clear_m)
        if spot is not None:
            return spot
    return None


def maybe(
    plan: RoomPlan, zone: int, rng: np.random.Generator, builder: Builder, probability: float, corner: bool = False
) -> int | None:
    """Stands a piece against a wall with the given probability."""
    return stand(plan, zone, rng, [builder], corner) if chance(rng, probability) else None


def keep_floor(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """Reserves a disc of floor where most is left, so that one can walk there: 0.75 to 1.3 m in radius, or less."""
    x, y, widest = plan.widest(zone)
    radius = min(rng.uniform(0.75, 1.3), widest)
    slack = widest - radius
    plan.keep_disc(x + slack * rng.uniform(-0.7, 0.7), y + slack * rng.uniform(-0.7, 0.7), radius)


def turned(plan: RoomPlan, index: int, yaw_rad: float) -> None:
    """Turns an item on its place where the floor allows it."""
    item = plan.items[index]
    low, high = item.piece.bounds()
    if plan.fits(low, high, (item.x, item.y, yaw_rad), beside=index):
        plan.lift(index)
        plan.items[index] = item._replace(yaw_rad=yaw_rad)
        window, mask = plan.under(low, high, (item.x, item.y, yaw_rad))
        plan.cells[window][mask] = index + 1


def above(plan: RoomPlan, host: int, piece: Piece, z: float) -> None:
    """Hangs a piece on the wall behind an item."""
    item = plan.items[host]
    high = item.piece.bounds()[1]
    x, y = placing.relative(item, 0.0, high[1] + 0.02)
    plan.add(Item(piece, x, y, z, item.yaw_rad), solid=False)


def sofa_group(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """A sofa at the wall or free in the room, a low table before it, a side table with a lamp, scatter cushions."""
    host = stand(plan, zone, rng, seats.SOFAS, clear_m=0.2) if chance(rng, 0.8) else None
    host = placing.anywhere(plan, rng, zone, pick(rng, seats.SOFAS)(rng), square=True) if host is None else host
    if host is None:
        return
    sofa = plan.items[host].piece
    if chance(rng, 0.75):
        table = tables.coffee_table(rng)
        ahead = sofa.bounds()[0][1] - rng.uniform(0.28, 0.45) + table.bounds()[0][1]
        spot = placing.facing(plan, table, host, (rng.uniform(-0.2, 0.2), ahead, np.pi))
        if spot is not None:
            plan.items[spot] = plan.items[spot]._replace(movable=False)
    for side in (-1, 1):
        if chance(rng, 0.35):
            _with_lamp(plan, rng, placing.beside(plan, tables.end_table(rng), host, side), 0.6)
    taken: list = []
    for _ in range(int(rng.integers(0, 4))):
        placing.on_top(plan, rng, host, small.pillow(rng), taken)


def _with_lamp(plan: RoomPlan, rng: np.random.Generator, host: int | None, probability: float) -> None:
    if host is not None and chance(rng, probability):
        placing.set_on(plan, host, small.table_lamp(rng), (0.0, 0.0, rng.uniform(0, 6)), [])


def bed_group(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """A bed with night stands of one style on both sides, where there is room, and what was dropped on it."""
    host = stand(plan, zone, rng, storage.BEDS, corner=chance(rng, 0.2))
    if host is None or plan.items[host].piece.name == "bunk bed":
        return
    bed = plan.items[host].piece
    style = int(rng.integers(2**31))
    for side in (-1, 1):
        gaps = (0.04, 0.02, 0.12) if chance(rng, 0.9) else ()
        for attempt, gap in enumerate(gaps):
            spot = placing.beside(plan, storage.night_stand(repeated(style + attempt)), host, side, gap)
            if spot is not None:
                _with_lamp(plan, rng, spot, 0.6)
                break
    if chance(rng, 0.35):
        placing.on_top(plan, rng, host, pick(rng, [small.clothes, small.bag, small.laptop])(rng), [])
    if chance(rng, 0.2):
        low = bed.bounds()[0][1]
        placing.facing(plan, seats.bench(rng), host, (0.0, low - 0.28, 0.0))


def work_place(plan: RoomPlan, zone: int, rng: np.random.Generator, against: bool = True) -> None:
    """A desk with screens and a chair."""
    if against:
        host = stand(plan, zone, rng, tables.DESKS, corner=chance(rng, 0.3), clear_m=0.45)
    else:
        host = placing.anywhere(plan, rng, zone, pick(rng, tables.DESKS)(rng), square=True, margin_m=0.3)
    if host is None:
        return
    desk = plan.items[host].piece
    taken: list = []
    top = desk.tops[0]
    _screens(plan, rng, host, taken)
    for _ in range(int(rng.integers(0, 5))):
        placing.on_top(plan, rng, host, pick(rng, small.DESK_THINGS)(rng), taken)
    chair = seats.swivel_chair if chance(rng, 0.7) else pick(rng, seats.CHAIRS[:5])
    seat(plan, rng, chair(rng), host, ((top.x0 + top.x1) / 2 + rng.uniform(-0.15, 0.15), 0.06 - top.y0))


def _screens(plan: RoomPlan, rng: np.random.Generator, host: int, taken: list) -> None:
    """Up to two monitors and a keyboard on a desk."""
    top, screens = plan.items[host].piece.tops[0], int(rng.integers(0, 3))
    wide, deep = top.x1 - top.x0, top.y1 - top.y0
    for i in range(screens):
        dx = (i - (screens - 1) / 2) * 0.7
        if abs(dx) + 0.3 < wide / 2:
            place = (dx, deep * 0.28, rng.uniform(-0.2, 0.2) - dx * 0.4)
            placing.set_on(plan, host, small.monitor(rng), place, taken)
    if screens:
        place = (rng.uniform(-0.1, 0.1), -deep * 0.22, rng.uniform(-0.1, 0.1))
        placing.set_on(plan, host, small.keyboard(rng), place, taken)


def seat(
    plan: RoomPlan, rng: np.random.Generator, chair: Piece, host: int, spot: tuple[float, float], side_rad: float = 0.0
) -> int | None:
    """Draws a chair up to a host: spot = (along the host's edge, the edge's distance from the host's origin).

    `side_rad` tells which edge: 0 the front, pi/2 the right, and so on.
    """
    along, reach = spot
    cos, sin = np.cos(side_rad), np.sin(side_rad)
    for tuck in (rng.uniform(0.0, 0.22), 0.0, -0.15):
        dx, dy = along, -reach - chair.bounds()[1][1] * 0.9 + tuck
        place = (cos * dx - sin * dy, sin * dx + cos * dy, np.pi + side_rad + rng.normal(0.0, 0.15))
        index = placing.facing(plan, chair, host, place)
        if index is not None:
            return index
    return None


def chairs_around(plan: RoomPlan, rng: np.random.Generator, host: int, chair: Builder, share: float) -> None:
    """Chairs of one style along all sides of a table, each place taken with probability `share`."""
    low, high = plan.items[host].piece.bounds()
    style, pitch = int(rng.integers(2**31)), rng.uniform(0.62, 0.8)
    for quarter in range(4):
        length, across = (high - low)[[quarter % 2, 1 - quarter % 2]] - [0.1, 0.0]
        places = max(1, int(length / pitch))
        for i in range(places):
            if chance(rng, share):
                spot = (float((i - (places - 1) / 2) * length / places), float(across / 2))
                seat(plan, rng, chair(repeated(style)), host, spot, quarter * np.pi / 2)


def dining_group(plan: RoomPlan, zone: int, rng: np.random.Generator, builder: Builder) -> None:
    """A table with chairs of one style around it."""
    for margin in (0.45, 0.3, 0.15):
        host = placing.anywhere(plan, rng, zone, builder(rng), square=True, margin_m=margin)
        if host is not None:
            break
    else:
        return
    chairs_around(plan, rng, host, pick(rng, _DINING_CHAIRS), rng.uniform(0.6, 1.0))


def row_of_stools(plan: RoomPlan, rng: np.random.Generator, bar: int | None) -> None:
    """Stools of one style along the front of a bar, where there is one."""
    if bar is None:
        return
    low, high = plan.items[bar].piece.bounds()
    style = int(rng.integers(2**31))
    for dx in np.arange(low[0] + 0.3, high[0] - 0.2, 0.55):
        seat(plan, rng, seats.stool(repeated(style)), bar, (float(dx), float(-low[1])))


def counter_run(plan: RoomPlan, zone: int, rng: np.random.Generator, with_sink: bool) -> int | None:
    """A counter, a cooker and a refrigerator beside it, and cupboards hung above."""
    longest = max(wall.length_m for wall in plan.zone_walls(zone))
    for width in (min(rng.uniform(1.6, 3.0), longest - 1.4), 1.5, 1.1):
        host = placing.against_wall(plan, rng, zone, tables.kitchen_counter(rng, width, with_sink), clear_m=0.5)
        if host is None:
            continue
        side = pick(rng, [-1, 1])
        if chance(rng, 0.7):
            placing.beside(plan, tables.stove(rng), host, side, 0.01)
        if not has(plan, "refrigerator") and chance(rng, 0.8):
            placing.beside(plan, storage.refrigerator(rng), host, -side, 0.02)
        if chance(rng, 0.75):
            item = plan.items[host]
            cupboard = storage.wall_cabinet(rng, width * rng.uniform(0.6, 1.0))
            x, y = placing.relative(item, 0.0, item.piece.bounds()[1][1] - cupboard.bounds()[1][1])
            plan.add(Item(cupboard, x, y, rng.uniform(1.4, 1.5), item.yaw_rad), solid=False)
        taken: list = []
        for _ in range(int(rng.integers(2, 7))):
            placing.on_top(plan, rng, host, pick(rng, small.KITCHEN_THINGS)(rng), taken)
        return host
    return None


def shower_curtain(plan: RoomPlan, rng: np.random.Generator, tub: int) -> None:
    """A curtain along the front of a bathtub, drawn part of the way."""
    item = plan.items[tub]
    low, high = item.piece.bounds()
    wide = (high[0] - low[0]) * rng.uniform(0.45, 1.0)
    side = pick(rng, [-1, 1])
    x, y = placing.relative(item, side * ((high[0] - low[0]) - wide) / 2, low[1] + 0.1)
    plan.add(Item(small.drape(rng, "shower curtain", wide, 1.75, 0.17), x, y, 0.2, item.yaw_rad), solid=False)


def heap(rng: np.random.Generator) -> Piece:
    """Boxes on each other."""
    lowest = small.box(rng)
    above_it, z = [], float(lowest.bounds()[1][2])
    for _ in range(int(rng.integers(0, 3))):
        upper = small.box(rng)
        above_it.append(upper.at(*rng.uniform(-0.06, 0.06, 2), z, rng.uniform(-0.3, 0.3)))
        z += float(upper.bounds()[1][2])
    return lowest._replace(joined=tuple(above_it))
