"""Tables, desks and kitchen counters."""

import numpy as np

from gen4d.samples.draws import Tint, ceramic, chance, metal, paint, pick, vary, wood
from gen4d.samples.objects.pieces import Piece, Top
from gen4d.samples.objects.seats import legs
from gen4d.samples.objects.solids import (
    Solid,
    block,
    join,
    lathe,
    lean,
    loft,
    mirrored,
    place,
    ring,
    span,
    tube,
    uncovered,
)
from gen4d.samples.objects.storage import fronts


def _plate(width: float, depth: float, z: float, thick: float, power: float, tint: Tint) -> Solid:
    """A table top whose upper side is at z: power 2 is an ellipse, 5 a boat, 40 nearly a rectangle."""
    outline = [
        ring((width / 2, depth / 2), (0, 0, z - thick), power, 28),
        ring((width / 2, depth / 2), (0, 0, z), power, 28),
    ]
    return loft(outline, tint)


def _top(width: float, depth: float, z: float, inset: float = 0.06) -> Top:
    return Top(-width / 2 + inset, -depth / 2 + inset, width / 2 - inset, depth / 2 - inset, z)


def _four_legs(rng: np.random.Generator, name: str, size: tuple[float, float, float]) -> Piece:
    width, depth, height = size
    tint, thick = pick(rng, [wood, wood, paint])(rng), rng.uniform(0.045, 0.09)
    inset = rng.uniform(0.0, 0.08)
    parts = [block((width, depth, 0.035), (0, 0, height - 0.035), tint)]
    parts += legs((width - inset, depth - inset, height - 0.03), thick, tint, rng.uniform(0, 0.03), chance(rng, 0.4))
    if chance(rng, 0.6):
        apron = rng.uniform(0.06, 0.1)
        parts += [
            block(
                (width - inset - thick, 0.025, apron), (0, s * (depth - inset) / 2 * 0.94, height - 0.03 - apron), tint
            )
            for s in (-1, 1)
        ]
        parts += [
            block(
                (0.025, depth - inset - thick, apron), (s * (width - inset) / 2 * 0.96, 0, height - 0.03 - apron), tint
            )
            for s in (-1, 1)
        ]
    return Piece(name, join(parts), (_top(width, depth, height),))


def dining_table(rng: np.random.Generator) -> Piece:
    """A rectangular table on four legs."""
    return _four_legs(rng, "dining table", (rng.uniform(0.9, 1.9), rng.uniform(0.7, 0.95), rng.uniform(0.72, 0.78)))


def round_table(rng: np.random.Generator) -> Piece:
    """A round or oval table on a turned pedestal, on a disc foot or on three legs."""
    radius, height, tint = rng.uniform(0.38, 0.65), rng.uniform(0.7, 0.78), pick(rng, [wood, paint])(rng)
    stretch = pick(rng, [1.0, 1.0, rng.uniform(1.15, 1.5)])
    parts = [_plate(2 * radius * stretch, 2 * radius, height, 0.035, 2.0, tint)]
    if chance(rng, 0.65):
        base, foot = pick(rng, [wood, metal])(rng), radius * rng.uniform(0.5, 0.7)
        bulge = rng.uniform(0.04, 0.09)
        profile = [
            (foot, 0.0),
            (foot, 0.02),
            (0.06, 0.07),
            (bulge, height * 0.45),
            (0.045, height * 0.75),
            (0.14, height - 0.035),
        ]
        parts.append(lathe(profile, (0, 0, 0), base, 16))
    else:
        count = int(rng.integers(3, 5))
        for angle in np.arange(count) * (2 * np.pi / count):
            x, y = radius * np.cos(angle), radius * np.sin(angle)
            parts.append(
                tube(
                    [(0.92 * x, 0.92 * y, 0.0), (0.85 * x, 0.85 * y, height / 2), (0.72 * x, 0.72 * y, height - 0.03)],
                    0.024,
                    tint,
                )
            )
    inner = radius * 1.3
    return Piece("table", join(parts), (_top(inner * stretch, inner, height),))


def trestle_table(rng: np.random.Generator) -> Piece:
    """A long plate on two A-shaped or X-shaped trestles, or on two end boards."""
    width, depth, height = rng.uniform(1.2, 2.0), rng.uniform(0.7, 0.9), rng.uniform(0.72, 0.77)
    tint, kind = wood(rng), pick(rng, ["a", "x", "board"])
    parts = [block((width, depth, 0.04), (0, 0, height - 0.04), tint)]
    for x in (-width * 0.38, width * 0.38):
        if kind == "board":
            parts.append(block((0.06, depth * 0.7, height - 0.03), (x, 0, 0), tint))
            continue
        top = -1 if kind == "x" else 0.35
        for side in (-1, 1):
            foot, head = side * depth * 0.42, side * top * depth * 0.42
            parts.append(
                tube([(x, foot, 0), (x, (foot + head) / 2, height / 2), (x, head, height - 0.03)], 0.028, tint, 4)
            )
    parts.append(block((width * 0.76, 0.05, 0.07), (0, 0, height * 0.3), tint))
    return Piece("table", join(parts), (_top(width, depth, height),))


def conference_table(rng: np.random.Generator, width: float | None = None) -> Piece:
    """A long table with rounded sides on two or three pedestals."""
    width = rng.uniform(2.0, 3.6) if width is None else width
    depth, height, tint = rng.uniform(0.95, 1.3), rng.uniform(0.72, 0.76), wood(rng)
    parts = [_plate(width, depth, height, 0.05, pick(rng, [3.0, 5.0, 40.0]), tint)]
    base = pick(rng, [wood, metal, paint])(rng)
    slim = chance(rng, 0.5)
    for x in np.linspace(-0.32, 0.32, 3 if width > 2.8 else 2) * width:
        parts.append(block((0.12 if slim else 0.5, depth * 0.5, height - 0.04), (x, 0, 0), base))
        if slim:
            parts.append(block((0.4, depth * 0.7, 0.05), (x, 0, 0), base))
    return Piece("conference table", join(parts), (_top(width * 0.85, depth * 0.75, height),))


def coffee_table(rng: np.random.Generator) -> Piece:
    """A low table before a sofa: four legs, a shelf below, a closed block, or round."""
    width, depth, height = rng.uniform(0.75, 1.25), rng.uniform(0.45, 0.7), rng.uniform(0.34, 0.48)
    kind = pick(rng, ["legs", "shelf", "box", "round"])
    if kind in ("legs", "shelf"):
        table = _four_legs(rng, "coffee table", (width, depth, height))
        if kind == "legs":
            return table
        plate = block(
            (width - 0.08, depth - 0.08, 0.025), (0, 0, height * 0.3), tuple(int(c) for c in table.mesh.tint[0])
        )
        return table._replace(mesh=join([table.mesh, plate]))
    tint = pick(rng, [wood, paint])(rng)
    if kind == "box":
        parts = [
            block((width, depth, 0.05), (0, 0, height - 0.05), tint),
            block((width, depth, 0.05), (0, 0, 0.03), tint),
        ]
        parts += [block((0.05, depth, height - 0.05), (s * (width - 0.05) / 2, 0, 0.02), tint) for s in (-1, 1)]
        return Piece("coffee table", join(parts), (_top(width, depth, height),))
    radius = rng.uniform(0.35, 0.5)
    profile = [(radius * 0.7, 0.0), (radius * 0.5, height * 0.5), (radius * 0.6, height - 0.04)]
    parts = [_plate(2 * radius, 2 * radius, height, 0.04, 2.0, tint), lathe(profile, (0, 0, 0), tint, 16)]
    return Piece("coffee table", join(parts), (_top(radius * 1.3, radius * 1.3, height),))


def end_table(rng: np.random.Generator) -> Piece:
    """A small square table beside a seat."""
    side = rng.uniform(0.4, 0.6)
    return _four_legs(rng, "end table", (side, side * rng.uniform(0.8, 1.0), rng.uniform(0.45, 0.62)))


def pedestal_desk(rng: np.random.Generator) -> Piece:
    """A desk with drawers on one or both sides and a board at the back."""
    width, depth, height, tint = (
        rng.uniform(1.1, 1.7),
        rng.uniform(0.58, 0.8),
        rng.uniform(0.71, 0.77),
        pick(rng, [wood, wood, paint])(rng),
    )
    wide, both = rng.uniform(0.34, 0.44), chance(rng, 0.4) and width > 1.35
    parts = [block((width, depth, 0.04), (0, 0, height - 0.04), tint)]
    stack = fronts(rng, (wide, depth - 0.06, height - 0.04), (1, int(rng.integers(2, 5))), tint, 0.0)
    parts.append(place(stack, ((width - wide) / 2 - 0.01, 0, 0)))
    parts.append(
        place(stack, (-(width - wide) / 2 + 0.01, 0, 0))
        if both
        else block((0.035, depth - 0.04, height - 0.03), (-width / 2 + 0.03, 0, 0), tint)
    )
    parts.append(
        block((width - 0.06, 0.025, height * rng.uniform(0.4, 0.9)), (0, depth / 2 - 0.05, height * 0.08), tint)
    )
    mesh = join(parts)
    return Piece("desk", mirrored(mesh) if chance(rng, 0.5) else mesh, (_top(width, depth, height),))


def office_desk(rng: np.random.Generator) -> Piece:
    """A plate on a steel frame: four posts or two T feet, with a modesty board; some stand high."""
    width, depth, tint, frame = (
        rng.uniform(1.2, 1.8),
        rng.uniform(0.65, 0.85),
        pick(rng, [wood, paint])(rng),
        metal(rng),
    )
    height = rng.uniform(0.95, 1.12) if chance(rng, 0.12) else rng.uniform(0.7, 0.77)
    parts = [block((width, depth, 0.035), (0, 0, height - 0.035), tint)]
    if chance(rng, 0.5):
        parts += legs((width - 0.06, depth - 0.06, height - 0.03), 0.055, frame)
    else:
        for x in (-width * 0.42, width * 0.42):
            parts.append(block((0.08, 0.09, height - 0.03), (x, 0.05, 0), frame))
            parts.append(block((0.08, depth * 0.9, 0.045), (x, 0, 0), frame))
    if chance(rng, 0.6):
        parts.append(block((width * 0.82, 0.025, rng.uniform(0.2, 0.42)), (0, depth / 2 - 0.07, height - 0.5), tint))
    if chance(rng, 0.3):
        parts.append(block((width, 0.035, 0.38), (0, depth / 2 + 0.01, height - 0.05), vary(rng, (120, 130, 140), 30)))
    return Piece("desk", join(parts), (_top(width, depth, height),))


def corner_desk(rng: np.random.Generator) -> Piece:
    """An L-shaped desk: the second wing reaches forward at one end."""
    width, depth, height, tint = (
        rng.uniform(1.4, 1.9),
        rng.uniform(0.6, 0.75),
        rng.uniform(0.72, 0.76),
        pick(rng, [wood, paint])(rng),
    )
    wing, reach, frame = rng.uniform(0.45, 0.6), rng.uniform(0.5, 0.9), pick(rng, [metal, wood])(rng)
    parts = [block((width, depth, 0.035), (0, 0, height - 0.035), tint)]
    parts.append(block((wing, reach, 0.035), (width / 2 - wing / 2, -(depth + reach) / 2, height - 0.035), tint))
    parts += legs((width - 0.04, depth - 0.06, height - 0.03), 0.06, frame)
    stack = fronts(rng, (0.4, wing - 0.06, height - 0.05), (1, 3), tint, 0.0)
    parts.append(place(stack, (width / 2 - wing / 2, -depth / 2 - reach + 0.22, 0), -np.pi / 2))
    mesh, low = join(parts), (-width / 2, -depth / 2 - reach)
    tops = (_top(width - wing, depth, height),)
    flip = chance(rng, 0.5)
    mesh = mirrored(mesh) if flip else mesh
    return Piece("desk", mesh, tops).at(0.0, -(low[1] + depth / 2) / 2, 0.0)


def hutch_desk(rng: np.random.Generator) -> Piece:
    """A desk with shelves on top of its rear half."""
    desk = pedestal_desk(rng)
    low, high = desk.mesh.bounds()
    width, tint, rise = high[0] - low[0], tuple(int(c) for c in desk.mesh.tint[0]), rng.uniform(0.45, 0.75)
    y, z, deep = high[1] - 0.13, high[2], 0.26
    parts = [
        block((0.03, deep, rise), (x, y, z), tint)
        for x in np.linspace(low[0] + 0.02, high[0] - 0.02, int(rng.integers(2, 5)))
    ]
    parts += [block((width, deep, 0.03), (0, y, z + rise * s), tint) for s in (0.5, 1.0)]
    parts.append(block((width, 0.025, rise), (0, high[1] - 0.012, z), tint))
    front = Top(low[0] + 0.05, low[1] + 0.05, high[0] - 0.05, high[1] - deep - 0.08, z)
    return Piece("desk", join([desk.mesh, *parts]), (front,))


def plate_around(width: float, depth: float, hole: tuple[float, float, float, float], z: float, tint: Tint) -> Solid:
    """A counter plate 4 cm thick below z, with a rectangular hole x0, y0, x1, y1."""
    x0, y0, x1, y1 = hole
    low, high, half, deep = z - 0.04, z, width / 2, depth / 2
    sides = [((-half, -deep), (x0, deep)), ((x1, -deep), (half, deep)), ((x0, -deep), (x1, y0)), ((x0, y1), (x1, deep))]
    return join(span((*start, low), (*end, high), tint) for start, end in sides)


def basin(hole: tuple[float, float, float, float], z: float, tint: Tint, round_: bool) -> Solid:
    """A sunk basin below a hole x0, y0, x1, y1 in a plate at z, with a thin rim, and a tap behind it."""
    x0, y0, x1, y1 = hole
    centre, half, power = ((x0 + x1) / 2, (y0 + y1) / 2), np.array([x1 - x0, y1 - y0]) / 2, 2.5 if round_ else 9.0
    levels = [(1.08, 0.012), (1.0, 0.012), (0.94, -0.03), (0.85, -0.13), (0.5, -0.16)]
    bowl = [ring(half * s, (*centre, z + dz), power, 24) for s, dz in levels]
    spout = [(0, y1 + 0.03, z), (0, y1 + 0.03, z + 0.22), (0, y1 - 0.06, z + 0.27), (0, y1 - 0.13, z + 0.2)]
    shifted = np.array(spout) + [centre[0], 0, 0]
    return join(
        [loft(bowl, tint, False), loft([bowl[-1], bowl[-1] * 0.999], tint), tube(shifted, 0.017, (190, 190, 195, 40))]
    )


def kitchen_counter(rng: np.random.Generator, width: float | None = None, with_sink: bool = True) -> Piece:
    """Base cabinets under a counter plate; one run holds the sink, another may hold a hob."""
    width = rng.uniform(1.4, 2.8) if width is None else width
    depth, z, tint, plate = (
        rng.uniform(0.58, 0.65),
        rng.uniform(0.86, 0.93),
        pick(rng, [paint, wood])(rng),
        vary(rng, (120, 115, 110), 60),
    )
    base = fronts(
        rng, (width, depth - 0.03, z - 0.04), (max(1, round(width / 0.55)), int(rng.integers(1, 3))), tint, 0.1
    )
    cabinet = Piece("kitchen cabinet", place(uncovered(base) if with_sink else base, (0, 0.015, 0)))
    tops = (Top(-width / 2 + 0.05, -depth / 2 + 0.08, width / 2 - 0.05, depth / 2 - 0.05, z),)
    if not with_sink:
        return Piece("kitchen counter", join([block((width, depth, 0.04), (0, 0, z - 0.04), plate)]), tops, (cabinet,))
    wide, x = rng.uniform(0.4, 0.6), rng.uniform(-0.2, 0.2) * width
    hole = (x - wide / 2, -depth / 2 + 0.1, x + wide / 2, depth / 2 - 0.13)
    tint = vary(rng, (185, 188, 190), 8, 30) if chance(rng, 0.7) else ceramic(rng)
    tops = (
        Top(-width / 2 + 0.05, -depth / 2 + 0.08, hole[0] - 0.05, depth / 2 - 0.05, z),
        Top(hole[2] + 0.05, -depth / 2 + 0.08, width / 2 - 0.05, depth / 2 - 0.05, z),
    )
    return Piece(
        "kitchen counter",
        plate_around(width, depth, hole, z, plate),
        tops,
        (cabinet, Piece("sink", basin(hole, z, tint, False))),
    )


def bar_counter(rng: np.random.Generator) -> Piece:
    """A free-standing counter or kitchen island with an overhanging plate."""
    width, depth, z, tint = (
        rng.uniform(1.2, 2.2),
        rng.uniform(0.55, 0.9),
        rng.uniform(0.9, 1.08),
        pick(rng, [paint, wood])(rng),
    )
    body = block((width - 0.1, depth - 0.25, z - 0.05), (0, 0.08, 0), tint)
    ribs = [
        block((0.03, 0.02, z - 0.1), (x, -depth / 2 + 0.2, 0.02), tint) for x in np.linspace(-0.45, 0.45, 5) * width
    ]
    parts = [body, *ribs, block((width, depth, 0.05), (0, 0, z - 0.05), vary(rng, (130, 120, 110), 60))]
    return Piece("counter", join(parts), (_top(width, depth, z),))


def stove(rng: np.random.Generator) -> Piece:
    """A cooker with an oven door, knobs and four hobs."""
    width, depth, z = rng.uniform(0.55, 0.76), rng.uniform(0.6, 0.66), rng.uniform(0.88, 0.93)
    tint, dark = pick(rng, [paint, metal])(rng), (40, 40, 42, 60)
    parts = [
        block((width, depth, z), (0, 0, 0), tint),
        block((width * 0.8, 0.03, z * 0.5), (0, -depth / 2, z * 0.2), dark),
    ]
    parts.append(
        tube(
            [
                (-width * 0.36, -depth / 2 - 0.05, z * 0.76),
                (0, -depth / 2 - 0.05, z * 0.76),
                (width * 0.36, -depth / 2 - 0.05, z * 0.76),
            ],
            0.014,
            tint,
        )
    )
    parts += [
        lathe([(0.1, 0.0), (0.1, 0.018), (0.05, 0.02)], (sx * width * 0.24, sy * depth * 0.22, z), dark)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    if chance(rng, 0.5):
        parts.append(lean(block((width, 0.06, 0.16), (0, depth / 2 - 0.03, z), tint), 0.0, (0.0, 0.0)))
    return Piece("stove", join(parts))


TABLES = (dining_table, dining_table, round_table, round_table, trestle_table, coffee_table, end_table)
DESKS = (pedestal_desk, pedestal_desk, office_desk, office_desk, corner_desk, hutch_desk)
