"""What a room of each kind holds."""

import numpy as np

from gen4d.samples.draws import chance, pick
from gen4d.samples.objects import sanitary, seats, small, storage, tables
from gen4d.samples.rooms import groups, placing
from gen4d.samples.rooms.placing import RoomPlan


def living_room(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """Sofas around a low table, a television, shelves; a dining corner in large rooms."""
    for _ in range(1 if chance(rng, 0.65) else 2):
        groups.sofa_group(plan, zone, rng)
    stand = groups.stand(plan, zone, rng, [storage.tv_stand], clear_m=0.4)
    groups.keep_floor(plan, zone, rng)
    if stand is not None and chance(rng, 0.85):
        placing.set_on(plan, stand, small.television(rng), (rng.uniform(-0.1, 0.1), 0.03, 0.0), [])
    for builder, probability in (
        (storage.bookshelf, 0.7),
        (storage.bookshelf, 0.4),
        (storage.cupboard, 0.5),
        (storage.dresser, 0.25),
    ):
        groups.maybe(plan, zone, rng, builder, probability)
    for _ in range(int(rng.integers(0, 3))):
        placing.anywhere(plan, rng, zone, seats.armchair(rng), square=False, movable=True)
    if chance(rng, 0.6):
        groups.dining_group(plan, zone, rng, pick(rng, [tables.dining_table, tables.round_table]))
    groups.maybe(plan, zone, rng, small.floor_lamp, 0.75, corner=True)
    if chance(rng, 0.3):
        groups.work_place(plan, zone, rng)


def bedroom(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """Beds with night stands, a dresser, a wardrobe, now and then a desk."""
    for _ in range(1 if chance(rng, 0.7) else 2):
        groups.bed_group(plan, zone, rng)
    dresser = groups.maybe(plan, zone, rng, storage.dresser, 0.9)
    groups.keep_floor(plan, zone, rng)
    if dresser is not None and chance(rng, 0.4):
        piece = pick(rng, [small.television, small.table_lamp])(rng)
        placing.set_on(plan, dresser, piece, (rng.uniform(-0.1, 0.1), 0.0, 0.0), [])
    groups.maybe(plan, zone, rng, storage.wardrobe, 0.75, corner=chance(rng, 0.5))
    if chance(rng, 0.5):
        groups.work_place(plan, zone, rng)
    groups.maybe(plan, zone, rng, storage.bookshelf, 0.35)
    if chance(rng, 0.35):
        placing.anywhere(plan, rng, zone, pick(rng, seats.CHAIRS)(rng), square=False, movable=True)
    groups.maybe(plan, zone, rng, storage.dresser, 0.25)
    groups.maybe(plan, zone, rng, small.floor_lamp, 0.35, corner=True)


def office(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """Desks with chairs and screens, along the walls or in the room, shelves and cabinets."""
    area = groups.area(plan, zone)
    for _ in range(int(np.clip(round(area / rng.uniform(5.5, 9.0)), 1, 6))):
        groups.work_place(plan, zone, rng, against=chance(rng, 0.65))
    groups.keep_floor(plan, zone, rng)
    for builder, probability in (
        (storage.bookshelf, 0.8),
        (storage.bookshelf, 0.4),
        (storage.file_cabinet, 0.8),
        (storage.file_cabinet, 0.5),
    ):
        groups.maybe(plan, zone, rng, builder, probability)
    groups.maybe(plan, zone, rng, storage.cupboard, 0.5)
    if chance(rng, 0.3):
        groups.dining_group(plan, zone, rng, tables.round_table)
    groups.maybe(plan, zone, rng, seats.sofa, 0.2)
    if chance(rng, 0.6):
        placing.hang(plan, rng, zone, small.whiteboard(rng), rng.uniform(0.85, 1.05))
    groups.maybe(plan, zone, rng, small.floor_lamp, 0.25, corner=True)


def kitchen(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """A run of counters with a sink, a cooker and a refrigerator, cupboards above, and a dining table."""
    run = groups.counter_run(plan, zone, rng, with_sink=True)
    if run is None or chance(rng, 0.45):
        groups.counter_run(plan, zone, rng, with_sink=run is None)
    if not groups.has(plan, "refrigerator"):
        groups.stand(plan, zone, rng, [storage.refrigerator], clear_m=0.4)
    if chance(rng, 0.4):
        groups.keep_floor(plan, zone, rng)
    groups.dining_group(plan, zone, rng, pick(rng, [tables.dining_table, tables.round_table, tables.trestle_table]))
    groups.keep_floor(plan, zone, rng)
    if groups.area(plan, zone) > 17 and chance(rng, 0.5):
        bar = placing.anywhere(plan, rng, zone, tables.bar_counter(rng), square=True, margin_m=0.35)
        groups.row_of_stools(plan, rng, bar)
    groups.maybe(plan, zone, rng, storage.cupboard, 0.4)
    groups.maybe(plan, zone, rng, storage.rack, 0.15)


def bathroom(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """A bathtub behind a curtain now and then, a toilet, a sink with a mirror, towels."""
    tub = groups.stand(plan, zone, rng, sanitary.BATHTUBS, corner=True)
    if tub is not None and chance(rng, 0.5):
        groups.shower_curtain(plan, rng, tub)
    sink = groups.stand(plan, zone, rng, sanitary.SINKS, clear_m=0.35)
    if sink is not None and chance(rng, 0.8):
        groups.above(plan, sink, small.mirror(rng), 1.15)
    groups.stand(plan, zone, rng, [sanitary.toilet], clear_m=0.35)
    groups.keep_floor(plan, zone, rng)
    groups.maybe(plan, zone, rng, sanitary.vanity, 0.3)
    for _ in range(int(rng.integers(1, 4))):
        placing.hang(plan, rng, zone, small.towel(rng), rng.uniform(0.8, 1.2))
    groups.maybe(plan, zone, rng, storage.cupboard, 0.3)
    groups.maybe(plan, zone, rng, storage.rack, 0.15)
    if chance(rng, 0.6):
        mat = small.rug(rng, rng.uniform(0.5, 0.9), rng.uniform(0.4, 0.6), "bath mat")
        spot = placing.anywhere(plan, rng, zone, mat, square=True, margin_m=-0.1)
        if spot is not None:
            plan.lift(spot)


def meeting_room(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """One long table with chairs of one kind around it, a whiteboard, a screen, a sideboard."""
    longest = max(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in plan.zones[zone].rects)
    table = tables.conference_table(rng, float(np.clip(longest - rng.uniform(2.6, 3.4), 1.8, 3.6)))
    host = placing.anywhere(plan, rng, zone, table, square=True, margin_m=0.45)
    chair = pick(rng, [seats.swivel_chair, seats.cantilever_chair, seats.four_leg_chair, seats.shell_chair])
    if host is None:
        groups.dining_group(plan, zone, rng, tables.round_table)
    else:
        groups.chairs_around(plan, rng, host, chair, 0.85)
    groups.keep_floor(plan, zone, rng)
    if chance(rng, 0.75):
        placing.hang(plan, rng, zone, small.whiteboard(rng), rng.uniform(0.85, 1.05))
    if chance(rng, 0.6):
        placing.hang(plan, rng, zone, small.television(rng, on_foot=False), rng.uniform(1.1, 1.4))
    for builder, probability in (
        (storage.cupboard, 0.7),
        (storage.bookshelf, 0.35),
        (tables.end_table, 0.3),
        (seats.sofa, 0.3),
    ):
        groups.maybe(plan, zone, rng, builder, probability)
    for _ in range(int(rng.integers(0, 4))):
        placing.against_wall(plan, rng, zone, chair(rng))


def classroom(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """Rows of tables with chairs, a whiteboard, a teacher's desk."""
    placing.hang(plan, rng, zone, small.whiteboard(rng), rng.uniform(0.85, 1.0))
    groups.work_place(plan, zone, rng, against=False)
    desk, chair = (
        pick(rng, [tables.dining_table, tables.trestle_table]),
        pick(rng, [seats.shell_chair, seats.four_leg_chair, seats.cantilever_chair]),
    )
    yaw = np.pi / 2 * int(rng.integers(4))
    for _ in range(int(rng.integers(4, 9))):
        host = placing.anywhere(plan, rng, zone, desk(rng), square=True, margin_m=0.3)
        if host is not None:
            groups.turned(plan, host, yaw)
            width = plan.items[host].piece.bounds()[1][0]
            for dx in (-width * 0.5, width * 0.5):
                groups.seat(plan, rng, chair(rng), host, (dx, 0.06 - plan.items[host].piece.tops[0].y0))
    groups.keep_floor(plan, zone, rng)
    groups.maybe(plan, zone, rng, storage.bookshelf, 0.6)
    groups.maybe(plan, zone, rng, storage.cupboard, 0.6)


def storage_room(plan: RoomPlan, zone: int, rng: np.random.Generator) -> None:
    """Racks and cabinets, boxes in heaps, furniture that nobody needs."""
    for builder, probability in (
        (storage.rack, 1.0),
        (storage.rack, 0.7),
        (storage.file_cabinet, 0.7),
        (storage.file_cabinet, 0.4),
    ):
        host = groups.maybe(plan, zone, rng, builder, probability)
        if host is not None and builder is storage.rack:
            taken: list = []
            for _ in range(int(rng.integers(4, 12))):
                placing.on_top(
                    plan, rng, host, pick(rng, [small.box, small.box, small.device, small.book_stack])(rng), taken, 0.15
                )
    spare = [
        storage.dresser,
        seats.sofa,
        tables.dining_table,
        storage.wardrobe,
        storage.refrigerator,
        storage.night_stand,
    ]
    spare += [
        tables.office_desk,
        storage.bookshelf,
        sanitary.toilet,
        storage.bookshelf,
        tables.pedestal_desk,
        sanitary.free_bathtub,
    ]
    groups.keep_floor(plan, zone, rng)
    for index in rng.permutation(len(spare))[: int(rng.integers(3, 6))]:
        placing.against_wall(plan, rng, zone, spare[index](rng))
    for _ in range(int(rng.integers(3, 9))):
        heap = placing.anywhere(plan, rng, zone, groups.heap(rng), square=False, margin_m=0.02, movable=True)
        if heap is None:
            break
    for _ in range(int(rng.integers(0, 4))):
        placing.anywhere(plan, rng, zone, pick(rng, seats.CHAIRS)(rng), square=False, movable=True)


PROGRAMMES = {
    "living room": living_room,
    "bedroom": bedroom,
    "office": office,
    "kitchen": kitchen,
    "bathroom": bathroom,
    "meeting room": meeting_room,
    "classroom": classroom,
    "storage room": storage_room,
}
