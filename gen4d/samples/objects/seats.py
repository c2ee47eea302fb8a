"""Seats: chairs, stools, armchairs and sofas in several styles, with proportions drawn from realistic ranges."""

import numpy as np

from gen4d.samples.draws import Tint, chance, fabric, metal, paint, pick, wood
from gen4d.samples.objects.pieces import Piece, Top
from gen4d.samples.objects.solids import (
    Solid,
    block,
    cushion,
    join,
    lathe,
    lean,
    loft,
    mirrored,
    place,
    ring,
    rod,
    slab,
    tube,
)


def legs(
    size: tuple[float, float, float], thick: float, tint: Tint, splay: float = 0.0, round_: bool = False
) -> list[Solid]:
    """Four legs under a plate of `size` (width, depth, height), tapering and leaning out by `splay` metres."""
    width, depth, height = size
    power, count = (2.0, 8) if round_ else (12.0, 8)
    made = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (width - thick) / 2, sy * (depth - thick) / 2
            foot = ring((thick * 0.38,) * 2, (x + sx * splay, y + sy * splay, 0.0), power, count)
            made.append(loft([foot, ring((thick / 2,) * 2, (x, y, height), power, count)], tint))
    return made


def _back(rng: np.random.Generator, width: float, height: float, thick: float, tint: Tint) -> Solid:
    """A chair's back standing on z = 0 at y = 0: a board, bars across, bars upright, or an upholstered frame."""
    kind = pick(rng, ["board", "across", "upright", "padded"])
    if kind == "padded":
        return cushion((width, thick + 0.03, height), (0, 0, 0), fabric(rng), 7.0)
    posts = [block((thick, thick, height), (s * (width - thick) / 2, 0, 0), tint) for s in (-1, 1)]
    inner = width - 2 * thick
    if kind == "board":
        low = height * rng.uniform(0.1, 0.45)
        return join([*posts, block((inner, 0.028, height * 0.96 - low), (0, 0, low), tint)])
    if kind == "across":
        heights = np.linspace(height * rng.uniform(0.3, 0.5), height * 0.88, int(rng.integers(2, 4)))
        return join(posts + [block((inner, 0.028, 0.07), (0, 0, z - 0.035), tint) for z in heights])
    rails = [block((inner, thick, 0.06), (0, 0, z), tint) for z in (height * 0.12, height * 0.9 - 0.02)]
    places = np.linspace(-inner / 2, inner / 2, int(rng.integers(4, 7)))[1:-1]
    return join(posts + rails + [block((0.03, 0.028, height * 0.8), (x, 0, height * 0.12), tint) for x in places])


def _arms(size: tuple[float, float, float], foot_m: float, thick: float, tint: Tint) -> list[Solid]:
    """Two armrests at height size[2] beside a seat of (width, depth), each on a post that starts at `foot_m`."""
    width, depth, height = size
    made = []
    for x in (-(width + thick) / 2, (width + thick) / 2):
        made.append(block((thick + 0.02, depth * 0.85, 0.03), (x, 0.02, height), tint))
        made.append(block((thick, thick, height - foot_m), (x, -depth * 0.2, foot_m), tint))
    return made


def four_leg_chair(rng: np.random.Generator) -> Piece:
    """A dining or kitchen chair, with arms now and then."""
    width, depth, seat_m = rng.uniform(0.38, 0.5), rng.uniform(0.38, 0.48), rng.uniform(0.42, 0.48)
    thick, tint = rng.uniform(0.032, 0.048), pick(rng, [wood, wood, metal, paint])(rng)
    parts = legs((width, depth, seat_m - 0.02), thick, tint, rng.uniform(0, 0.03), chance(rng, 0.4))
    if chance(rng, 0.4):
        parts.append(cushion((width, depth, 0.07), (0, 0, seat_m - 0.03), fabric(rng), 6.0))
    else:
        parts.append(block((width, depth, 0.03), (0, 0, seat_m - 0.02), tint))
    back = place(_back(rng, width, rng.uniform(0.38, 0.58), thick, tint), (0, depth / 2 - thick / 2, seat_m - 0.02))
    parts.append(lean(back, rng.uniform(0.05, 0.25), (depth / 2, seat_m)))
    if chance(rng, 0.3):
        parts += _arms((width, depth, seat_m + rng.uniform(0.16, 0.24)), 0.0, thick, tint)
    return Piece("chair", join(parts))


def swivel_chair(rng: np.random.Generator) -> Piece:
    """An office chair: five spokes with castors, a gas spring, an upholstered seat and a curved back."""
    foot, seat = swivel_parts(rng)
    return Piece("office chair", join([*foot, *seat]))


def swivel_parts(rng: np.random.Generator) -> tuple[list[Solid], list[Solid]]:
    """An office chair's foot, and its seat with all that turns with it."""
    seat_m, width, dark, cloth = rng.uniform(0.42, 0.55), rng.uniform(0.45, 0.54), metal(rng), fabric(rng)
    parts = [rod(0.035, seat_m - 0.12, (0, 0, 0.08), dark), lathe([(0.05, 0.06), (0.06, 0.11)], (0, 0, 0), dark)]
    reach, first = rng.uniform(0.27, 0.33), rng.uniform(0, 1.2)
    for spoke in first + np.arange(5) * (2 * np.pi / 5):
        x, y = np.cos(spoke), np.sin(spoke)
        parts.append(
            tube([(0, 0, 0.1), (0.5 * reach * x, 0.5 * reach * y, 0.09), (reach * x, reach * y, 0.065)], 0.024, dark)
        )
        parts.append(lathe([(0.02, 0.0), (0.03, 0.03), (0.02, 0.06)], (reach * x, reach * y, 0.0), dark, 6))
    seat = [cushion((width, rng.uniform(0.44, 0.5), 0.1), (0, 0, seat_m - 0.06), cloth, 4.0)]
    seat.append(_swivel_back(rng, width, seat_m, cloth, dark))
    if chance(rng, 0.65):
        seat += _arms((width + 0.04, 0.34, seat_m + rng.uniform(0.17, 0.24)), seat_m - 0.02, 0.045, dark)
    return parts, seat


def _swivel_back(rng: np.random.Generator, width: float, seat_m: float, cloth: Tint, dark: Tint) -> Solid:
    high, low, bend = rng.uniform(0.36, 0.7), rng.uniform(0.06, 0.16), rng.uniform(0.03, 0.08)
    across, up = np.linspace(-1, 1, 9), np.linspace(0, 1, 7)
    x = across[None, :] * (width * 0.46) * (1 - 0.25 * up[:, None] ** 3)
    y = 0.24 + bend * (1 - across[None, :] ** 2) - 0.04 * np.sin(np.pi * up[:, None])
    z = np.broadcast_to(seat_m + low + high * up[:, None], x.shape)
    shell = slab(np.stack([x, y, z], axis=2), (0, 0.05, 0), cloth)
    stem = tube([(0, 0.1, seat_m - 0.04), (0, 0.28, seat_m), (0, 0.31 + bend, seat_m + low + 0.15)], 0.025, dark)
    return lean(join([shell, stem]), rng.uniform(0.02, 0.2), (0.2, seat_m))


def shell_chair(rng: np.random.Generator) -> Piece:
    """A moulded seat and back in one curved sheet, on four splayed legs or on a trumpet foot."""
    width, seat_m, high = rng.uniform(0.42, 0.5), rng.uniform(0.42, 0.46), rng.uniform(0.32, 0.42)
    profile = np.array(
        [(-0.22, -0.015), (-0.2, 0.0), (-0.08, -0.01), (0.08, -0.015), (0.18, 0.03), (0.215, 0.12), (0.25, high)]
    )
    across = np.linspace(-1, 1, 9)
    x = np.broadcast_to(across * width / 2, (len(profile), 9)) * np.linspace(0.92, 0.85, len(profile))[:, None]
    curl = rng.uniform(0.02, 0.07) * across**2
    y = profile[:, :1] - curl * (np.arange(len(profile)) > 3)[:, None] * 1.2
    z = seat_m + profile[:, 1:] + curl * (np.arange(len(profile)) <= 4)[:, None]
    tint = pick(rng, [fabric, paint, wood])(rng)
    parts = [
        slab(np.stack([x, np.broadcast_to(y, x.shape), np.broadcast_to(z, x.shape)], axis=2), (0, 0.02, -0.028), tint)
    ]
    base = pick(rng, [wood, metal])(rng)
    if chance(rng, 0.6):
        parts += legs((width * 0.7, 0.3, seat_m - 0.02), 0.038, base, rng.uniform(0.03, 0.07), True)
    else:
        foot = rng.uniform(0.2, 0.25)
        parts.append(
            lathe([(foot, 0.0), (foot, 0.015), (0.05, 0.06), (0.025, 0.2), (0.04, seat_m - 0.03)], (0, 0, 0), base, 14)
        )
    return Piece("chair", join(parts))


def cantilever_chair(rng: np.random.Generator) -> Piece:
    """A sled of bent tube that carries a thin seat and back, as in meeting rooms."""
    width, depth, seat_m, high = (
        rng.uniform(0.44, 0.52),
        rng.uniform(0.42, 0.48),
        rng.uniform(0.43, 0.47),
        rng.uniform(0.8, 0.95),
    )
    tint, cloth, back = metal(rng), pick(rng, [fabric, wood])(rng), depth / 2
    path = [(0, back, 0.02), (0, -back, 0.02), (0, -back, seat_m), (0, back - 0.03, seat_m), (0, back + 0.08, high)]
    side = tube(path, 0.016, tint)
    parts = [place(side, (s * width / 2, 0, 0)) for s in (-1, 1)]
    parts.append(tube([(-width / 2, back, 0.02), (0, back, 0.02), (width / 2, back, 0.02)], 0.016, tint))
    parts.append(cushion((width - 0.02, depth, 0.05), (0, 0, seat_m - 0.01), cloth, 8.0))
    rest = block((width - 0.02, 0.035, high - seat_m - rng.uniform(0.1, 0.2)), (0, 0, 0), cloth)
    parts.append(place(lean(rest, 0.2, (0.0, 0.0)), (0, back, seat_m + 0.12)))
    if chance(rng, 0.4):
        arm = tube([(0, -back + 0.05, seat_m), (0, -back + 0.03, seat_m + 0.2), (0, back, seat_m + 0.22)], 0.018, tint)
        parts += [place(arm, (s * width / 2, 0, 0)) for s in (-1, 1)]
    return Piece("chair", join(parts))


def stool(rng: np.random.Generator) -> Piece:
    """A seat without a back: round or square, three or four legs, low or bar height, some with a ring for the feet."""
    height, radius, tint = (
        pick(rng, [rng.uniform(0.42, 0.5), rng.uniform(0.6, 0.75)]),
        rng.uniform(0.16, 0.21),
        wood(rng),
    )
    top = fabric(rng) if chance(rng, 0.5) else tint
    power = 2.0 if chance(rng, 0.7) else 8.0
    rings = [
        ring((radius * s,) * 2, (0, 0, height + z), power, 16)
        for s, z in ((0.95, -0.05), (1, -0.03), (1, -0.01), (0.9, 0))
    ]
    parts, count, splay = [loft(rings, top)], int(rng.integers(3, 5)), rng.uniform(0.02, 0.08)
    for angle in np.arange(count) * (2 * np.pi / count) + 0.4:
        x, y = np.cos(angle), np.sin(angle)
        foot, head = (radius * 0.9 + splay) * np.array([x, y]), radius * 0.7 * np.array([x, y])
        parts.append(tube([(*foot, 0.0), (*(foot + head) / 2, height / 2), (*head, height - 0.04)], 0.019, tint))
    if height > 0.55:
        turn = np.linspace(0, 2 * np.pi, 13)
        hoop = (radius * 0.85 + splay * 0.6) * np.column_stack([np.cos(turn), np.sin(turn), np.zeros(13)])
        parts.append(tube(hoop + [0, 0, height * 0.3], 0.014, tint))
    return Piece("stool", join(parts))


def armchair(rng: np.random.Generator) -> Piece:
    """An upholstered easy chair: a sofa for one."""
    return _upholstered(rng, "armchair", 1)


def _side(rng: np.random.Generator, depth: float, height: float, thick: float, cloth: Tint) -> Solid:
    """An upholstered armrest, its centre at x = 0: a padded block, a slim board or a roll on a block."""
    kind = pick(rng, ["padded", "slim", "roll"])
    if kind == "padded":
        return cushion((thick, depth, height), (0, 0, 0), cloth, 7.0)
    if kind == "slim":
        return block((thick * 0.5, depth, height), (0, 0, 0), cloth)
    radius = thick * 0.55
    body = block((thick * 0.8, depth, height - radius), (0, 0, 0), cloth)
    return join(
        [
            body,
            tube(
                [(0, -depth / 2, height - radius), (0, 0, height - radius), (0, depth / 2, height - radius)],
                radius,
                cloth,
                10,
            ),
        ]
    )


def _upholstered(rng: np.random.Generator, name: str, seats: int, arms: tuple[bool, bool] = (True, True)) -> Piece:
    """Base, seat cushions, back cushions and armrests on short legs or a plinth."""
    seat_width = rng.uniform(0.55, 0.72) if seats > 1 else rng.uniform(0.5, 0.66)
    depth, seat_m, height = rng.uniform(0.78, 0.98), rng.uniform(0.38, 0.47), rng.uniform(0.72, 0.95)
    thick, foot, cloth = rng.uniform(0.12, 0.24), pick(rng, [0.02, 0.08, 0.15]), fabric(rng)
    width, back = seats * seat_width, rng.uniform(0.16, 0.24)
    base = block((width, depth - 0.04, seat_m - 0.14 - foot), (0, 0.0, foot), cloth)
    rear = cushion((width + 0.02, back * 0.8, height - foot - 0.06), (0, depth / 2 - back * 0.4, foot), cloth, 8.0)
    parts = [base, rear, *legs((width, depth - 0.1, foot + 0.01), 0.05, wood(rng))]
    separate = chance(rng, 0.75)
    for x in (np.arange(seats) - (seats - 1) / 2) * seat_width if separate else [0.0]:
        wide = seat_width if separate else width
        parts.append(cushion((wide, depth - back, 0.17), (x, -back / 2, seat_m - 0.15), cloth, 6.0))
        rest = cushion((wide - 0.01, 0.17, height - seat_m + 0.03), (x, 0, 0), cloth, 4.0)
        parts.append(place(lean(rest, rng.uniform(0.1, 0.25), (0.0, 0.0)), (0, depth / 2 - back - 0.04, seat_m - 0.02)))
    arm = place(_side(rng, depth, seat_m + rng.uniform(0.1, 0.24) - foot, thick, cloth), ((width + thick) / 2, 0, foot))
    parts += [side for side, there in zip((arm, mirrored(arm)), arms, strict=True) if there]
    seat = Top(-width / 2 + 0.05, -depth / 2 + 0.1, width / 2 - 0.05, depth / 2 - back - 0.2, seat_m + 0.01)
    return Piece(name, join(parts), (seat,))


def sofa(rng: np.random.Generator) -> Piece:
    """A sofa with two or three seats."""
    return _upholstered(rng, "couch", int(rng.integers(2, 4)))


def corner_sofa(rng: np.random.Generator) -> Piece:
    """An L: two seats with one arm, and a long seat or a second wing in front of the open end."""
    main = _upholstered(rng, "couch", int(rng.integers(2, 4)), (False, True))
    low, high = main.mesh.bounds()
    seat_m, wide, cloth = main.tops[0].z, rng.uniform(0.7, 0.9), tuple(int(c) for c in main.mesh.tint[0])
    x, reach, depth = low[0] - wide / 2, rng.uniform(0.5, 1.0), high[1] - low[1]
    parts = [main.mesh, block((wide, depth + reach, seat_m - 0.15), (x, -reach / 2, 0.04), cloth)]
    parts.append(cushion((wide, depth + reach - 0.2, 0.16), (x, -reach / 2 - 0.1, seat_m - 0.14), cloth, 7.0))
    parts.append(cushion((wide, 0.2, high[2] - 0.06), (x, depth / 2 - 0.1, 0.04), cloth, 8.0))
    if chance(rng, 0.5):
        parts.append(
            cushion((0.18, depth + reach - 0.1, high[2] - 0.06), (x - wide / 2 + 0.09, -reach / 2, 0.04), cloth, 8.0)
        )
    mesh = join(parts)
    if chance(rng, 0.5):
        mesh = mirrored(mesh)
    return _centred(Piece("couch", mesh))


def slatted_sofa(rng: np.random.Generator) -> Piece:
    """A wooden frame on visible legs with loose cushions."""
    seats, wide, depth = int(rng.integers(2, 4)), rng.uniform(0.58, 0.68), rng.uniform(0.72, 0.85)
    seat_m, height, tint, cloth, width = (
        rng.uniform(0.28, 0.33),
        rng.uniform(0.72, 0.85),
        wood(rng),
        fabric(rng),
        seats * wide,
    )
    parts = [
        block((width, depth, 0.05), (0, 0, seat_m - 0.06), tint),
        *legs((width, depth, seat_m), 0.055, tint, 0.02, True),
    ]
    parts.append(
        lean(
            block((width, 0.03, height - seat_m - 0.05), (0, depth / 2 - 0.02, seat_m), tint), 0.2, (depth / 2, seat_m)
        )
    )
    for x in (np.arange(seats) - (seats - 1) / 2) * wide:
        parts.append(cushion((wide, depth - 0.08, 0.14), (x, -0.04, seat_m - 0.01), cloth, 6.0))
        rest = cushion((wide, 0.14, height - seat_m - 0.06), (x, 0, 0), cloth, 5.0)
        parts.append(place(lean(rest, 0.22, (0.0, 0.0)), (0, depth / 2 - 0.13, seat_m + 0.1)))
    for side in (-1, 1):
        parts.append(block((0.06, depth, 0.035), (side * (width / 2 + 0.03), 0, seat_m + 0.26), tint))
        parts += [
            block((0.045, 0.05, seat_m + 0.26), (side * (width / 2 + 0.03), y, 0), tint)
            for y in (-depth * 0.4, depth * 0.4)
        ]
    seat = Top(-width / 2 + 0.05, -depth / 2 + 0.1, width / 2 - 0.05, depth / 2 - 0.35, seat_m + 0.12)
    return Piece("couch", join(parts), (seat,))


def ottoman(rng: np.random.Generator) -> Piece:
    """A padded footstool."""
    size = (rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.45))
    return Piece("ottoman", cushion(size, (0, 0, 0.02), fabric(rng), pick(rng, [3.0, 8.0])))


def bench(rng: np.random.Generator) -> Piece:
    """A long seat on two pairs of legs."""
    width, depth, height, tint = rng.uniform(0.9, 1.5), rng.uniform(0.32, 0.42), rng.uniform(0.42, 0.48), wood(rng)
    return Piece(
        "bench",
        join([block((width, depth, 0.05), (0, 0, height - 0.05), tint), *legs((width, depth, height), 0.06, tint)]),
    )


def _centred(piece: Piece) -> Piece:
    low, high = piece.mesh.bounds()
    return piece.at(-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, 0.0)


CHAIRS = (four_leg_chair, four_leg_chair, swivel_chair, shell_chair, cantilever_chair, stool, armchair)
SOFAS = (sofa, sofa, corner_sofa, slatted_sofa)
