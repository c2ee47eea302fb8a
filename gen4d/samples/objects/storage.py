"""Beds and boxes: dressers, night stands, cabinets, bookshelves, refrigerators, and what stores and sleeps."""

from itertools import pairwise

import numpy as np

from gen4d.samples.draws import Tint, chance, fabric, metal, paint, pick, vary, wood
from gen4d.samples.objects.pieces import Piece, Top
from gen4d.samples.objects.seats import legs
from gen4d.samples.objects.solids import Solid, block, cushion, join, lathe, place, rod, slab, span, tube


def _handle(rng_kind: str, width: float, at: tuple[float, float, float], tint: Tint) -> Solid:
    """A knob, a bar across or a bar upright in front of (x, y, z)."""
    x, y, z = at
    if rng_kind == "knob":
        return block((0.03, 0.03, 0.03), (x, y - 0.015, z - 0.015), tint)
    if rng_kind == "bar":
        return block((min(width * 0.4, 0.2), 0.028, 0.022), (x, y - 0.018, z - 0.011), tint)
    return block((0.022, 0.03, 0.18), (x, y - 0.018, z - 0.09), tint)


def fronts(
    rng: np.random.Generator, size: tuple[float, float, float], grid: tuple[int, int], tint: Tint, foot_m: float
) -> Solid:
    """A closed body of `size` (width, depth, height) with a grid (columns, rows) of drawer or door fronts and handles.

    `foot_m` > 0 leaves a toe space of that height under the fronts.
    """
    width, depth, height = size
    columns, rows = grid
    body = [span((-width / 2, -depth / 2 + 0.025, foot_m), (width / 2, depth / 2, height), tint)]
    if foot_m > 0:
        body.append(span((-width / 2, -depth / 2 + 0.08, 0.0), (width / 2, depth / 2, foot_m), tint))
    grip, kind = metal(rng), pick(rng, ["knob", "bar", "none"] if rows > 1 else ["upright", "knob", "none"])
    relief, gap = pick(rng, [0.02, 0.025, 0.03]), 0.012
    weights = np.cumsum([0.0, *np.linspace(1.0, rng.uniform(0.6, 1.0), rows)])
    z_edge = foot_m + (height - foot_m) * weights / weights[-1]
    x_edge = np.linspace(-width / 2, width / 2, columns + 1)
    for column in range(columns):
        for row in range(rows):
            x0, x1, z0, z1 = x_edge[column], x_edge[column + 1], z_edge[row], z_edge[row + 1]
            y = -depth / 2 + 0.025 - relief
            body.append(span((x0 + gap, y, z0 + gap), (x1 - gap, y + relief, z1 - gap), tint))
            if kind != "none":
                x = (x0 + x1) / 2 if rows > 1 else (x0 + 0.06 if column % 2 else x1 - 0.06)
                body.append(_handle(kind, x1 - x0, (x, y, (z0 + z1) / 2), grip))
    return join(body)


def _lid(width: float, depth: float, z: float, deep: float | None = None) -> Top:
    return Top(-width / 2 + 0.05, -depth / 2 + 0.05, width / 2 - 0.05, depth / 2 - 0.05 if deep is None else deep, z)


def dresser(rng: np.random.Generator) -> Piece:
    """A chest of drawers, low and wide or tall and narrow, on legs, on a plinth or on the floor."""
    tall = chance(rng, 0.35)
    width = rng.uniform(0.6, 0.95) if tall else rng.uniform(1.0, 1.65)
    depth, height = rng.uniform(0.4, 0.55), rng.uniform(1.0, 1.35) if tall else rng.uniform(0.72, 0.95)
    grid = (1 if tall else int(rng.integers(2, 4)), int(rng.integers(4, 7)) if tall else int(rng.integers(3, 5)))
    tint, foot = pick(rng, [wood, wood, paint])(rng), pick(rng, [0.0, 0.1, 0.16])
    body = fronts(rng, (width, depth, height - foot - 0.03), grid, tint, 0.0)
    parts = [place(body, (0, 0, foot)), block((width + 0.03, depth + 0.02, 0.03), (0, 0, height - 0.03), tint)]
    if foot:
        parts += legs((width, depth, foot), 0.06, tint)
    return Piece("dresser", join(parts), (_lid(width, depth, height),))


def night_stand(rng: np.random.Generator) -> Piece:
    """A bedside table: drawers, an open compartment over a drawer, on legs; some are round."""
    width, depth, height = rng.uniform(0.36, 0.56), rng.uniform(0.34, 0.46), rng.uniform(0.42, 0.68)
    tint, kind = pick(rng, [wood, wood, paint])(rng), pick(rng, ["drawers", "open", "legs", "round"])
    top = block((width + 0.02, depth + 0.02, 0.03), (0, 0, height - 0.03), tint)
    if kind == "drawers":
        parts = [fronts(rng, (width, depth, height - 0.03), (1, int(rng.integers(2, 4))), tint, 0.06), top]
    elif kind == "open":
        low = height * rng.uniform(0.4, 0.55)
        parts = [fronts(rng, (width, depth, low), (1, 1), tint, 0.05), top]
        parts += [block((0.03, depth, height - low), (s * (width - 0.03) / 2, 0, low - 0.02), tint) for s in (-1, 1)]
        parts.append(block((width, 0.025, height - low), (0, depth / 2 - 0.02, low - 0.02), tint))
    elif kind == "legs":
        body = fronts(rng, (width, depth, height * 0.45), (1, int(rng.integers(1, 3))), tint, 0.0)
        parts = [place(body, (0, 0, height * 0.52)), top, *legs((width, depth, height * 0.55), 0.045, tint, 0.02, True)]
    else:
        radius = width * 0.48
        profile = [
            (radius, 0.0),
            (radius, 0.03),
            (0.05, 0.05),
            (0.045, height - 0.06),
            (radius, height - 0.03),
            (radius, height),
        ]
        return Piece("nightstand", lathe(profile, (0, 0, 0), tint, 20), (_lid(width * 0.72, width * 0.72, height),))
    return Piece("nightstand", join(parts), (_lid(width, depth, height),))


def wardrobe(rng: np.random.Generator) -> Piece:
    """A tall cupboard with two to four doors, now and then drawers below."""
    width, depth, height = rng.uniform(0.9, 2.0), rng.uniform(0.52, 0.64), rng.uniform(1.8, 2.3)
    tint, columns = pick(rng, [wood, paint])(rng), max(2, round(width / 0.5))
    if chance(rng, 0.3):
        low = fronts(rng, (width, depth, 0.5), (columns, 2), tint, 0.06)
        return Piece(
            "wardrobe",
            join([low, place(fronts(rng, (width, depth, height - 0.5), (columns, 1), tint, 0.0), (0, 0, 0.5))]),
        )
    return Piece("wardrobe", fronts(rng, (width, depth, height), (columns, 1), tint, pick(rng, [0.0, 0.08])))


def cupboard(rng: np.random.Generator) -> Piece:
    """A low cabinet with doors, or a sideboard with doors and drawers."""
    width, depth, height = rng.uniform(0.7, 1.8), rng.uniform(0.38, 0.5), rng.uniform(0.7, 1.15)
    tint, foot = pick(rng, [wood, paint])(rng), pick(rng, [0.0, 0.06, 0.14])
    columns = max(1, round(width / 0.45))
    parts = [place(fronts(rng, (width, depth, height - foot), (columns, 1), tint, 0.0), (0, 0, foot))]
    if foot:
        parts += legs((width, depth, foot), 0.05, tint)
    return Piece("cabinet", join(parts), (_lid(width, depth, height),))


def file_cabinet(rng: np.random.Generator) -> Piece:
    """A steel cabinet with two to five deep drawers."""
    rows = int(rng.integers(2, 6))
    width, depth, height = rng.uniform(0.38, 0.48), rng.uniform(0.45, 0.64), 0.06 + rows * rng.uniform(0.26, 0.31)
    mesh = fronts(rng, (width, depth, height), (1, rows), metal(rng), 0.03)
    return Piece("file cabinet", mesh, (_lid(width, depth, height),))


def wall_cabinet(rng: np.random.Generator, width: float) -> Piece:
    """A hung kitchen cupboard of a given width."""
    size = (width, rng.uniform(0.3, 0.36), rng.uniform(0.55, 0.75))
    return Piece("kitchen cabinet", fronts(rng, size, (max(1, round(width / 0.45)), 1), paint(rng), 0.0))


def books(rng: np.random.Generator, low: float, high: float, deep: float, tall: float) -> Solid:
    """A row of books from x = low to high standing on z = 0, spines at y = 0, with gaps and different heights."""
    made, x = [], low
    while x < high - 0.03:
        wide = min(rng.uniform(0.03, 0.16), high - x)
        if chance(rng, 0.82):
            size = (wide, deep * rng.uniform(0.6, 0.95), tall * rng.uniform(0.55, 0.93))
            made.append(block(size, (x + wide / 2, size[1] / 2, 0.0), vary(rng, fabric(rng), 20)))
        x += wide + 0.004
    return (
        join(made) if made else block((0.04, deep * 0.7, tall * 0.7), ((low + high) / 2, deep * 0.35, 0), fabric(rng))
    )


def bookshelf(rng: np.random.Generator) -> Piece:
    """Shelves between two sides, mostly filled with books, with or without a back, narrow, wide or low."""
    width, deep = rng.uniform(0.6, 1.6), rng.uniform(0.24, 0.36)
    rows = int(rng.integers(2, 4)) if chance(rng, 0.25) else int(rng.integers(4, 7))
    pitch, tint, board = rng.uniform(0.29, 0.37), pick(rng, [wood, wood, paint])(rng), 0.028
    height = rows * pitch + 0.08
    columns = max(1, round(width / rng.uniform(0.5, 0.9)))
    parts = [block((board, deep, height), (x, 0, 0), tint) for x in np.linspace(-width / 2, width / 2, columns + 1)]
    parts += [block((width, deep, board), (0, 0, 0.06 + row * pitch), tint) for row in range(rows + 1)]
    if chance(rng, 0.7):
        parts.append(block((width, 0.025, height), (0, deep / 2 - 0.012, 0), tint))
    fill = rng.uniform(0.4, 0.95)
    edges = np.linspace(-width / 2, width / 2, columns + 1)
    for row in range(rows):
        for low, high in pairwise(edges):
            if chance(rng, fill):
                reach = low + 0.02 + (high - low - 0.04) * pick(rng, [1.0, 1.0, rng.uniform(0.3, 0.9)])
                row_of = books(rng, low + 0.02, reach, deep * 0.9, pitch - board)
                parts.append(place(row_of, (0, -deep / 2 + 0.02, 0.06 + row * pitch + board)))
    return Piece("bookshelf", join(parts), (_lid(width, deep, height),) if height < 1.4 else ())


def rack(rng: np.random.Generator) -> Piece:
    """A steel store rack: posts and plates, with room for boxes on every level."""
    width, depth, height, tint = rng.uniform(0.8, 1.5), rng.uniform(0.35, 0.55), rng.uniform(1.5, 2.1), metal(rng)
    levels = np.linspace(0.12, height - 0.06, int(rng.integers(4, 6)))
    parts = [
        block((0.04, 0.04, height), (sx * (width / 2 - 0.02), sy * (depth / 2 - 0.02), 0), tint)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    parts += [block((width, depth, 0.03), (0, 0, z), tint) for z in levels]
    gap = float(levels[1] - levels[0]) - 0.05
    tops = tuple(
        Top(-width / 2 + 0.06, -depth / 2 + 0.04, width / 2 - 0.06, depth / 2 - 0.04, float(z) + 0.03, gap)
        for z in levels
    )
    return Piece("shelf", join(parts), tops)


def refrigerator(rng: np.random.Generator) -> Piece:
    """One door, freezer above or below, two doors side by side, or a small one that fits under a counter."""
    kind = pick(rng, ["above", "below", "double", "small"])
    width, depth = (rng.uniform(0.82, 0.95) if kind == "double" else rng.uniform(0.54, 0.72)), rng.uniform(0.58, 0.72)
    height = rng.uniform(0.8, 0.9) if kind == "small" else rng.uniform(1.5, 1.9)
    tint, grip = pick(rng, [paint, metal])(rng)[:3] + (8,), metal(rng)
    split = {"above": 0.68, "below": 0.38, "double": 0.0, "small": 0.0}[kind] * height
    parts = [span((-width / 2, -depth / 2 + 0.07, 0.03), (width / 2, depth / 2, height), tint)]
    columns = [(-width / 2, -0.006), (0.006, width / 2)] if kind == "double" else [(-width / 2, width / 2)]
    rows = [(0.08, split - 0.006), (split + 0.006, height)] if split else [(0.08, height)]
    for x0, x1 in columns:
        for z0, z1 in rows:
            parts.append(span((x0, -depth / 2, z0), (x1, -depth / 2 + 0.06, z1), tint))
            x, middle = (x1 - 0.06 if x0 < -0.01 and kind == "double" else x0 + 0.06), (z0 + z1) / 2
            reach = min(0.25, (z1 - z0) * 0.35)
            bar = [(x, -depth / 2 - 0.045, z) for z in (middle - reach, middle, middle + reach)]
            parts.append(tube(bar, 0.016, grip))
    return Piece("refrigerator", join(parts), (_lid(width, depth, height),) if kind == "small" else ())


def tv_stand(rng: np.random.Generator) -> Piece:
    """A low board under a television, open or closed."""
    width, depth, height = rng.uniform(1.0, 1.9), rng.uniform(0.35, 0.48), rng.uniform(0.4, 0.58)
    tint = pick(rng, [wood, paint])(rng)
    if chance(rng, 0.5):
        mesh = fronts(rng, (width, depth, height), (int(rng.integers(2, 5)), 1), tint, 0.05)
    else:
        parts = [block((width, depth, 0.035), (0, 0, z), tint) for z in (0.06, height * 0.5, height - 0.035)]
        parts += [
            block((0.035, depth, height), (x, 0, 0), tint)
            for x in np.linspace(-width / 2, width / 2, int(rng.integers(2, 5)))
        ]
        mesh = join([*parts, block((width, 0.025, height), (0, depth / 2, 0), tint)])
    return Piece("tv stand", mesh, (_lid(width, depth, height),))


def _pillow(rng: np.random.Generator, at: tuple[float, float, float], tint: Tint) -> Piece:
    size = (rng.uniform(0.5, 0.68), rng.uniform(0.34, 0.44), rng.uniform(0.12, 0.17))
    return Piece("pillow", place(cushion(size, (0, 0, 0), tint, 2.6), at, rng.uniform(-0.15, 0.15)))


def _cover(rng: np.random.Generator, width: float, length: float, z: float, tint: Tint) -> Solid:
    """A duvet with folds that hangs over the sides of a mattress whose top is at z."""
    x, y = np.linspace(-1, 1, 17), np.linspace(-1, 1, 15)
    over = np.clip(np.abs(x) - 0.92, 0, 1) / 0.08
    reach = length * rng.uniform(0.5, 0.75)
    phase, wave = rng.uniform(0, 6, 4), rng.uniform(2, 5, 4)
    fold = sum(np.sin(wave[i] * x[None, :] + phase[i] + (i + 1) * 1.3 * y[:, None]) for i in range(4)) * 0.012
    height = z + 0.05 + fold - rng.uniform(0.12, 0.25) * over[None, :]
    sheet_x = np.broadcast_to(x * (width / 2 + 0.04), height.shape)
    sheet_y = np.broadcast_to((y[:, None] + 1) / 2 * reach - length / 2 - 0.02, height.shape)
    return slab(np.stack([sheet_x, sheet_y, height], axis=2), (0, 0, -0.05), tint)


def bed(rng: np.random.Generator) -> Piece:
    """A single or double bed: frame or box base, headboard, footboard now and then, duvet and pillows."""
    double = chance(rng, 0.6)
    width, length = (rng.uniform(1.35, 1.85) if double else rng.uniform(0.9, 1.2)), rng.uniform(1.92, 2.1)
    base_m, thick, tint, cloth = (
        rng.uniform(0.22, 0.36),
        rng.uniform(0.16, 0.26),
        pick(rng, [wood, fabric])(rng),
        fabric(rng),
    )
    top, board = base_m + thick, pick(rng, ["none", "board", "padded", "bars"])
    parts = [
        cushion((width, length, thick), (0, 0, base_m), vary(rng, (230, 228, 222), 10), 12.0),
        _cover(rng, width, length, top, cloth),
    ]
    if chance(rng, 0.5):
        parts.append(block((width + 0.02, length, base_m - 0.04), (0, 0, 0.04), tint))
    else:
        parts += [
            block((width + 0.06, length + 0.04, 0.12), (0, 0, base_m - 0.1), tint),
            *legs((width, length, base_m), 0.07, tint),
        ]
    parts += _headboard(rng, board, width, length / 2, rng.uniform(0.85, 1.25), tint)
    if chance(rng, 0.25):
        parts.append(block((width + 0.06, 0.05, top + rng.uniform(0.0, 0.2)), (0, -length / 2 - 0.04, 0), tint))
    places = [-width / 4, width / 4] if double else [0.0]
    shade = vary(rng, (225, 225, 225), 25)
    joined = tuple(_pillow(rng, (x + rng.uniform(-0.06, 0.06), length / 2 - 0.28, top - 0.02), shade) for x in places)
    middle = Top(-width / 2 + 0.15, -length / 2 + 0.2, width / 2 - 0.15, length / 2 - 0.7, top + 0.06)
    return Piece("bed", join(parts), (middle,), joined)


def _headboard(rng: np.random.Generator, kind: str, width: float, y: float, height: float, tint: Tint) -> list[Solid]:
    if kind == "none":
        return []
    if kind == "padded":
        return [cushion((width + 0.08, 0.12, height), (0, y + 0.05, 0.0), fabric(rng), 10.0)]
    posts = [block((0.06, 0.06, height), (s * (width / 2), y + 0.04, 0), tint) for s in (-1, 1)]
    if kind == "board":
        return [*posts, block((width, 0.04, height - 0.25), (0, y + 0.04, 0.2), tint)]
    bars = [rod(0.016, height - 0.35, (x, y + 0.04, 0.3), tint, 6) for x in np.linspace(-width / 2, width / 2, 9)[1:-1]]
    return [*posts, *bars, block((width, 0.05, 0.06), (0, y + 0.04, height - 0.1), tint)]


def bunk_bed(rng: np.random.Generator) -> Piece:
    """Two beds above each other with a ladder."""
    width, length, height, tint = (
        rng.uniform(0.92, 1.05),
        rng.uniform(1.95, 2.05),
        rng.uniform(1.55, 1.75),
        pick(rng, [wood, metal])(rng),
    )
    parts = legs((width + 0.08, length + 0.08, height), 0.07, tint)
    for z in (rng.uniform(0.25, 0.35), height - rng.uniform(0.4, 0.5)):
        parts.append(block((width, length, 0.08), (0, 0, z), tint))
        parts.append(cushion((width, length, 0.15), (0, 0, z + 0.06), fabric(rng), 12.0))
        parts.append(_cover(rng, width * 0.97, length, z + 0.2, fabric(rng)))
        parts += [
            block((0.03, length, 0.1), (s * (width / 2 + 0.03), 0, z + 0.24), tint) for s in (-1, 1) if z > 1 or s > 0
        ]
    side, y = -(width / 2 + 0.05), -length * 0.3
    parts += [
        tube([(side, y + dy, 0), (side, y + dy, height / 2), (side, y + dy, height)], 0.02, tint)
        for dy in (-0.18, 0.18)
    ]
    parts += [
        tube([(side, y - 0.18, z), (side, y, z), (side, y + 0.18, z)], 0.018, tint)
        for z in np.arange(0.3, height, 0.28)
    ]
    return Piece("bunk bed", join(parts))


BEDS = (bed, bed, bed, bed, bunk_bed)
CABINETS = (wardrobe, cupboard, cupboard, file_cabinet)
