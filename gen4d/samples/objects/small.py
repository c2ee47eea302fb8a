"""Small things: lamps, what lies on tables and floors, and what hangs on walls."""

import numpy as np

from gen4d.samples.draws import Tint, chance, fabric, metal, paint, pick, vary, wood
from gen4d.samples.objects.pieces import Piece
from gen4d.samples.objects.solids import Solid, block, cushion, join, lathe, lean, loft, place, ring, rod, slab, tube
from gen4d.samples.objects.storage import books

_BLACK: Tint = (28, 28, 30, 90)


def _shade(rng: np.random.Generator, radius: float, height: float, at: tuple[float, float, float]) -> Solid:
    top = pick(rng, [0.55, 0.8, 1.0])
    return lathe(
        [(radius, 0.0), (radius * top, height), (radius * top * 0.3, height)], at, vary(rng, (238, 226, 196), 15), 16
    )


def table_lamp(rng: np.random.Generator) -> Piece:
    """A foot, a turned stem and a shade."""
    height, radius, tint = rng.uniform(0.34, 0.6), rng.uniform(0.1, 0.17), pick(rng, [wood, metal, fabric])(rng)
    belly = pick(rng, [0.025, 0.06, 0.08])
    stem = lathe(
        [
            (0.08, 0),
            (0.08, 0.02),
            (belly, 0.08),
            (belly * 0.9, height * 0.4),
            (0.02, height * 0.55),
            (0.018, height * 0.8),
        ],
        (0, 0, 0),
        tint,
    )
    return Piece("lamp", join([stem, _shade(rng, radius, height * 0.42, (0, 0, height * 0.58))]))


def desk_lamp(rng: np.random.Generator) -> Piece:
    """A jointed arm with a small reflector."""
    tint, reach = metal(rng), rng.uniform(0.15, 0.28)
    arm = tube([(0, 0, 0.02), (-0.06, 0, 0.26), (reach * 0.6, 0, 0.45), (reach, 0, 0.38)], 0.014, tint)
    head = lathe([(0.075, 0.0), (0.05, 0.07), (0.02, 0.1)], (reach, 0, 0.32), tint, 10)
    return Piece("lamp", join([lathe([(0.085, 0), (0.085, 0.02)], (0, 0, 0), tint), arm, head]))


def floor_lamp(rng: np.random.Generator) -> Piece:
    """A tall lamp: straight pole, tripod or arc."""
    height, radius, tint, kind = (
        rng.uniform(1.35, 1.75),
        rng.uniform(0.16, 0.25),
        metal(rng),
        pick(rng, ["pole", "tripod", "arc"]),
    )
    if kind == "tripod":
        parts = []
        for angle in np.arange(3) * (2 * np.pi / 3) + 0.5:
            x, y = 0.25 * np.cos(angle), 0.25 * np.sin(angle)
            parts.append(
                tube([(x, y, 0), (x / 2, y / 2, height * 0.4), (x * 0.1, y * 0.1, height - 0.3)], 0.02, wood(rng))
            )
        return Piece("lamp", join([*parts, _shade(rng, radius, 0.3, (0, 0, height - 0.3))]))
    foot = lathe([(0.15, 0), (0.15, 0.03), (0.03, 0.04)], (0, 0, 0), tint, 14)
    if kind == "pole":
        return Piece(
            "lamp",
            join(
                [foot, rod(0.018, height - 0.2, (0, 0, 0.02), tint), _shade(rng, radius, 0.28, (0, 0, height - 0.28))]
            ),
        )
    bend = np.linspace(0, np.pi * 0.75, 9)
    arc = [(0, 0, 0.02), (0, 0, height * 0.6)] + [
        (0.35 * (1 - np.cos(a)), 0, height * 0.6 + 0.4 * height * np.sin(a)) for a in bend[1:]
    ]
    return Piece(
        "lamp", join([foot, tube(arc, 0.018, tint), _shade(rng, radius * 0.8, 0.2, (arc[-1][0], 0, arc[-1][2] - 0.18))])
    )


def pendant(rng: np.random.Generator, ceiling_m: float) -> Piece:
    """A lamp that hangs from the ceiling; its z is the height in the room."""
    low, radius = rng.uniform(1.65, 1.95), rng.uniform(0.15, 0.28)
    cord = rod(0.012, ceiling_m - low - 0.2, (0, 0, low + 0.2), _BLACK, 6)
    return Piece("lamp", join([cord, _shade(rng, radius, 0.22, (0, 0, low))]))


def monitor(rng: np.random.Generator) -> Piece:
    """A flat screen on a stand, its face to the front."""
    width, high, low = rng.uniform(0.42, 0.68), rng.uniform(0.27, 0.38), rng.uniform(0.08, 0.16)
    dark = vary(rng, (45, 45, 48), 10, 10)
    screen = block((width, 0.035, high), (0, 0, low), dark)
    face = block((width - 0.03, 0.01, high - 0.03), (0, -0.02, low + 0.015), _BLACK)
    foot = [block((0.24, 0.18, 0.015), (0, 0.02, 0), dark), block((0.05, 0.03, low + 0.1), (0, 0.03, 0), dark)]
    return Piece("monitor", join([screen, face, *foot]))


def keyboard(rng: np.random.Generator) -> Piece:
    """A keyboard with a mouse beside it."""
    tint = pick(rng, [metal, paint])(rng)
    return Piece(
        "keyboard",
        join([block((0.42, 0.14, 0.025), (0, 0, 0), tint), cushion((0.06, 0.1, 0.035), (0.28, 0, 0), tint, 3.0)]),
    )


def laptop(rng: np.random.Generator) -> Piece:
    """An open laptop."""
    wide, tint = rng.uniform(0.3, 0.38), metal(rng)
    lid = place(lean(block((wide, 0.015, 0.22), (0, 0, 0), tint), rng.uniform(0.15, 0.5), (0, 0)), (0, 0.12, 0.02))
    return Piece("laptop", join([block((wide, 0.24, 0.022), (0, 0, 0), tint), lid]))


def television(rng: np.random.Generator, on_foot: bool = True) -> Piece:
    """A flat television on feet or for the wall."""
    width = rng.uniform(0.8, 1.35)
    high, low, dark = width * 0.57, 0.07 if on_foot else 0.0, vary(rng, (40, 40, 42), 10, 10)
    parts = [
        block((width, 0.045, high), (0, 0, low), dark),
        block((width - 0.03, 0.01, high - 0.03), (0, -0.025, low + 0.015), _BLACK),
    ]
    if on_foot:
        parts += [block((0.05, 0.24, 0.03), (s * width * 0.36, 0, 0), dark) for s in (-1, 1)]
        parts += [block((0.04, 0.04, 0.1), (s * width * 0.36, 0, 0), dark) for s in (-1, 1)]
    return Piece("tv", join(parts))


def microwave(rng: np.random.Generator) -> Piece:
    """A microwave oven."""
    width, tint = rng.uniform(0.44, 0.54), metal(rng)
    return Piece(
        "microwave",
        join(
            [
                block((width, 0.34, 0.28), (0, 0, 0), tint),
                block((width * 0.68, 0.02, 0.22), (-width * 0.12, -0.17, 0.03), _BLACK),
            ]
        ),
    )


def printer(rng: np.random.Generator) -> Piece:
    """A printer with a paper tray."""
    tint, width = paint(rng), rng.uniform(0.4, 0.52)
    return Piece(
        "printer",
        join(
            [
                block((width, 0.38, rng.uniform(0.18, 0.34)), (0, 0, 0), tint),
                block((width * 0.7, 0.2, 0.03), (0, -0.25, 0.06), tint),
            ]
        ),
    )


def book_stack(rng: np.random.Generator) -> Piece:
    """A few books, lying or standing."""
    if chance(rng, 0.3):
        return Piece("books", place(books(rng, -0.18, 0.18, 0.2, 0.28), (0, -0.08, 0)))
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 6))):
        size = (rng.uniform(0.14, 0.22), rng.uniform(0.2, 0.3), rng.uniform(0.02, 0.05))
        parts.append(place(block(size, (0, 0, z), fabric(rng)), (0, 0, 0), rng.uniform(-0.2, 0.2)))
        z += size[2]
    return Piece("books", join(parts))


def paper(rng: np.random.Generator) -> Piece:
    """A pile of paper or a magazine."""
    size = (0.22, 0.3, rng.uniform(0.01, 0.04))
    return Piece("paper", block(size, (0, 0, 0), vary(rng, (235, 235, 230), 10)))


def cup(rng: np.random.Generator) -> Piece:
    """A mug, a glass or a jar."""
    radius, height = rng.uniform(0.035, 0.055), rng.uniform(0.09, 0.15)
    return Piece(
        "cup",
        lathe(
            [(radius * 0.8, 0), (radius, height), (radius * 0.8, height), (radius * 0.7, 0.02)],
            (0, 0, 0),
            paint(rng),
            10,
        ),
    )


def bottle(rng: np.random.Generator) -> Piece:
    """A bottle or a vase."""
    radius, height = rng.uniform(0.035, 0.07), rng.uniform(0.2, 0.34)
    profile = [
        (radius * 0.8, 0),
        (radius, height * 0.3),
        (radius, height * 0.6),
        (radius * 0.4, height * 0.8),
        (radius * 0.4, height),
    ]
    return Piece("bottle", lathe(profile, (0, 0, 0), fabric(rng), 10))


def bowl(rng: np.random.Generator) -> Piece:
    """A bowl or a dish, now and then with fruit."""
    radius, height, tint = rng.uniform(0.1, 0.17), rng.uniform(0.05, 0.1), paint(rng)
    parts = [
        lathe(
            [
                (radius * 0.4, 0),
                (radius * 0.8, height * 0.5),
                (radius, height),
                (radius * 0.85, height),
                (radius * 0.3, 0.02),
            ],
            (0, 0, 0),
            tint,
            14,
        )
    ]
    if chance(rng, 0.4):
        parts += [
            cushion((0.08, 0.08, 0.08), (x, y, 0.03), fabric(rng), 2.2) for x, y in rng.uniform(-0.06, 0.06, (3, 2))
        ]
    return Piece("object", join(parts))


def device(rng: np.random.Generator) -> Piece:
    """A small appliance: loudspeaker, kettle, toaster, clock radio."""
    size = (rng.uniform(0.1, 0.28), rng.uniform(0.1, 0.2), rng.uniform(0.08, 0.3))
    return Piece("object", cushion(size, (0, 0, 0), pick(rng, [metal, paint, wood])(rng), pick(rng, [3.0, 10.0])))


def plant(rng: np.random.Generator, tall: bool = False) -> Piece:
    """A pot with leaves that bend outwards."""
    height = rng.uniform(0.7, 1.4) if tall else rng.uniform(0.2, 0.4)
    pot, wide = height * (0.28 if tall else 0.4), height * (0.16 if tall else 0.28)
    parts = [
        lathe(
            [(wide * 0.7, 0), (wide, pot), (wide * 0.9, pot), (wide * 0.8, pot * 0.8)],
            (0, 0, 0),
            pick(rng, [paint, wood])(rng),
            12,
        )
    ]
    green = vary(rng, (70, 120, 60), 30)
    for angle in np.arange(7 if tall else 5) * 2.4 + rng.uniform(0, 6):
        out = rng.uniform(0.5, 1.0) * height * 0.35
        t, side = np.linspace(0, 1, 5)[:, None], np.array([-1.0, 0.0, 1.0])[None, :] * height * 0.06
        along = out * t**1.5 + 0.0 * side
        across = side * np.sin(np.pi * np.clip(t * 0.9 + 0.08, 0, 1))
        z = pot * 0.8 + (height - pot) * (t * 1.4 - 0.6 * t**3) * rng.uniform(0.7, 1.0) + 0.0 * side
        sheet = np.stack(
            [along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle), z], axis=2
        )
        parts.append(slab(sheet, (0, 0, -0.02), green))
    return Piece("plant", join(parts))


def box(rng: np.random.Generator) -> Piece:
    """A cardboard box, closed or with open flaps."""
    size = (rng.uniform(0.25, 0.55), rng.uniform(0.22, 0.42), rng.uniform(0.15, 0.42))
    tint = vary(rng, (188, 150, 104), 20)
    parts = [block(size, (0, 0, 0), tint)]
    if chance(rng, 0.35):
        flap = lean(block((size[0], 0.02, size[1] * 0.45), (0, 0, 0), tint), rng.uniform(0.3, 1.2), (0, 0))
        parts.append(place(flap, (0, size[1] / 2, size[2] - 0.01)))
    return Piece("box", join(parts))


def bag(rng: np.random.Generator) -> Piece:
    """A backpack or a soft bag."""
    size = (rng.uniform(0.28, 0.4), rng.uniform(0.16, 0.28), rng.uniform(0.3, 0.5))
    body = cushion(size, (0, 0, 0), fabric(rng), 2.8)
    pocket = cushion((size[0] * 0.7, 0.1, size[2] * 0.45), (0, -size[1] / 2, 0.03), fabric(rng), 3.0)
    return Piece(pick(rng, ["backpack", "bag"]), lean(join([body, pocket]), rng.uniform(-0.2, 0.2), (0, 0)))


def trash_can(rng: np.random.Generator) -> Piece:
    """A bin, round or square, open."""
    radius, height, power = rng.uniform(0.12, 0.19), rng.uniform(0.28, 0.6), pick(rng, [2.0, 10.0])
    levels = [(0.78, 0.0), (1.0, height), (0.86, height), (0.68, 0.04)]
    return Piece(
        "trash can",
        loft([ring((radius * s,) * 2, (0, 0, z), power, 16) for s, z in levels], pick(rng, [metal, paint])(rng)),
    )


def shoes(rng: np.random.Generator) -> Piece:
    """A pair of shoes."""
    tint = fabric(rng)
    return Piece(
        "shoes",
        join(
            [
                place(cushion((0.1, 0.28, 0.1), (0, 0, 0), tint, 2.6), (s * 0.07, 0, 0), rng.uniform(-0.3, 0.3))
                for s in (-1, 1)
            ]
        ),
    )


def clothes(rng: np.random.Generator) -> Piece:
    """A crumpled heap of cloth."""
    size = (rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.4), rng.uniform(0.08, 0.2))
    mesh = cushion(size, (0, 0, 0), fabric(rng), 2.3)
    x, y = mesh.point[:, 0], mesh.point[:, 1]
    phase = rng.uniform(0, 6, 3)
    ripple = 1 + 0.25 * np.sin(17 * x + phase[0]) * np.sin(21 * y + phase[1]) + 0.1 * np.sin(34 * (x + y) + phase[2])
    return Piece("clothes", mesh._replace(point=mesh.point * np.column_stack([ripple, ripple, ripple])))


def pillow(rng: np.random.Generator) -> Piece:
    """A scatter cushion, leaning back."""
    side = rng.uniform(0.36, 0.48)
    flat = cushion((side, 0.13, side), (0, 0, 0), fabric(rng), 2.8)
    return Piece("pillow", lean(flat, rng.uniform(0.2, 0.5), (0, 0)))


def rug(rng: np.random.Generator, width: float, depth: float, name: str = "rug") -> Piece:
    """A carpet 1.5 cm thick, rectangular or oval."""
    power = 2.0 if chance(rng, 0.2) else 60.0
    rings = [ring((width / 2, depth / 2), (0, 0, z), power, 40) for z in (0.0, 0.015)]
    return Piece(name, loft(rings, fabric(rng)))


def picture(rng: np.random.Generator) -> Piece:
    """A framed picture, its back at y = 0."""
    width, high, deep, edge = (
        rng.uniform(0.25, 1.0),
        rng.uniform(0.25, 0.8),
        rng.uniform(0.025, 0.05),
        rng.uniform(0.02, 0.06),
    )
    frame = block((width, deep, high), (0, -deep / 2, 0), pick(rng, [wood, metal, paint])(rng))
    inner = block((width - 2 * edge, 0.012, high - 2 * edge), (0, -deep - 0.004, edge), fabric(rng))
    return Piece("picture", join([frame, inner]))


def whiteboard(rng: np.random.Generator) -> Piece:
    """A whiteboard with a pen tray, its back at y = 0."""
    width, high = rng.uniform(1.1, 2.2), rng.uniform(0.8, 1.15)
    parts = [
        block((width, 0.03, high), (0, -0.015, 0), (236, 238, 238, 40)),
        block((width * 0.8, 0.07, 0.025), (0, -0.05, 0), metal(rng)),
    ]
    return Piece("whiteboard", join(parts))


def mirror(rng: np.random.Generator) -> Piece:
    """A mirror on the wall; most of its readings are lost."""
    width, high = rng.uniform(0.45, 0.95), rng.uniform(0.55, 1.0)
    frame = block((width + 0.06, 0.03, high + 0.06), (0, -0.015, -0.03), pick(rng, [wood, metal])(rng))
    return Piece("mirror", join([frame, block((width, 0.012, high), (0, -0.034, 0), (170, 180, 185, 150))]))


def towel(rng: np.random.Generator) -> Piece:
    """A towel over a rail, its back at y = 0."""
    width, high = rng.uniform(0.35, 0.6), rng.uniform(0.4, 0.75)
    rail = tube(
        [(-width / 2 - 0.06, -0.06, high), (0, -0.06, high), (width / 2 + 0.06, -0.06, high)], 0.014, metal(rng)
    )
    return Piece("towel", join([rail, cushion((width, 0.06, high), (0, -0.07, 0.01), fabric(rng), 9.0)]))


def radiator(rng: np.random.Generator, width: float) -> Piece:
    """A ribbed radiator that hangs below a window, its back at y = 0."""
    high, tint = rng.uniform(0.45, 0.6), vary(rng, (236, 234, 228), 6)
    ribs = [block((0.045, 0.09, high), (x, -0.09, 0), tint) for x in np.arange(-width / 2 + 0.03, width / 2, 0.075)]
    return Piece(
        "radiator", join([*ribs, *(block((width, 0.04, 0.04), (0, -0.07, z), tint) for z in (0.04, high - 0.08))])
    )


def drape(rng: np.random.Generator, name: str, width: float, height: float, folds_m: float = 0.13) -> Piece:
    """Cloth that hangs in folds from z = height, its back at y = 0: curtains and shower curtains."""
    columns = max(8, int(width / 0.03))
    x = np.linspace(-width / 2, width / 2, columns)
    z = np.linspace(0.0, height, 6)
    deep, phase = rng.uniform(0.03, 0.055), rng.uniform(0, 6)
    wave = np.sin(x * 2 * np.pi / folds_m + phase) + 0.4 * np.sin(x * 4.1 / folds_m + 2 * phase)
    y = -0.08 + deep * wave[None, :] * (1.15 - 0.4 * z[:, None] / height)
    sheet = np.stack([np.broadcast_to(x, y.shape), y, np.broadcast_to(z[:, None], y.shape)], axis=2)
    cloth = slab(sheet, (0, -0.025, 0), fabric(rng))
    rail = tube(
        [(-width / 2 - 0.1, -0.08, height), (0, -0.08, height), (width / 2 + 0.1, -0.08, height)], 0.016, metal(rng)
    )
    return Piece(name, join([cloth, rail]))


TABLE_THINGS = (book_stack, book_stack, cup, cup, bottle, bowl, device, paper, plant, laptop, box, table_lamp)
DESK_THINGS = (book_stack, paper, cup, bottle, device, laptop, desk_lamp, plant, printer)
KITCHEN_THINGS = (microwave, bottle, bottle, bowl, cup, cup, device, device)
FLOOR_THINGS = (box, box, bag, bag, trash_can, trash_can, shoes, plant, book_stack, clothes)
