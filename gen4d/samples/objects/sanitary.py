"""Bathroom fittings: bathtubs, toilets, sinks."""

import numpy as np

from gen4d.samples.draws import Tint, ceramic, chance, paint, pick, vary, wood
from gen4d.samples.objects.pieces import Piece, Top
from gen4d.samples.objects.solids import Solid, block, cushion, join, lathe, lean, loft, place, ring, tube, uncovered
from gen4d.samples.objects.storage import fronts
from gen4d.samples.objects.tables import basin, plate_around


def _hollow(outer: list[np.ndarray], inner: list[np.ndarray], tint: Tint) -> Solid:
    """A vessel: the outer skin upwards, over the rim, and the inner skin down to a floor."""
    return loft([*outer, *inner], tint)


def built_in_bathtub(rng: np.random.Generator) -> Piece:
    """A tub in a rectangular casing against the wall."""
    length, width, height, tint = rng.uniform(1.45, 1.75), rng.uniform(0.68, 0.82), rng.uniform(0.46, 0.6), ceramic(rng)
    deep, rim = rng.uniform(0.33, 0.42), rng.uniform(0.06, 0.1)
    half = np.array([length / 2, width / 2])
    outer = [ring(half, (0, 0, z), 30.0, 32) for z in (0.0, height)]
    levels = [(1.0, height), (0.97, height - 0.1), (0.9, height - deep + 0.05), (0.75, height - deep)]
    inner = [ring((half - rim) * s, (0, 0, z), 4.5, 32) for s, z in levels]
    tap = tube(
        [
            (-length / 2 + 0.05, 0, height),
            (-length / 2 + 0.05, 0, height + 0.14),
            (-length / 2 + 0.2, 0, height + 0.12),
        ],
        0.02,
        (190, 190, 195, 40),
    )
    return Piece("bathtub", join([_hollow(outer, inner, tint), tap]))


def free_bathtub(rng: np.random.Generator) -> Piece:
    """An oval tub that stands free, with a belly or on claw feet."""
    length, width, height, tint = rng.uniform(1.5, 1.8), rng.uniform(0.7, 0.84), rng.uniform(0.52, 0.66), ceramic(rng)
    claws = chance(rng, 0.45)
    foot, half, power = 0.12 if claws else 0.0, np.array([length / 2, width / 2]), pick(rng, [2.2, 2.8])
    rise = rng.uniform(0.0, 0.1)
    outer = [
        ring(half * s, (0, 0, foot + (height - foot) * z), power, 32)
        for s, z in ((0.68, 0.0), (0.84, 0.25), (0.95, 0.7), (1.0, 1.0))
    ]
    inner = [
        ring(half * s, (0, 0, foot + (height - foot) * z), power, 32)
        for s, z in ((0.94, 1.0), (0.86, 0.65), (0.74, 0.3), (0.6, 0.16))
    ]
    body = _hollow(outer, inner, tint)
    lift = rise * np.clip(np.abs(body.point[:, :1]) / (length / 2), 0, 1) ** 2 * (body.point[:, 2:] > height * 0.6)
    parts = [body._replace(point=body.point + lift * [0, 0, 1])]
    if claws:
        places = [(sx * length * 0.27, sy * width * 0.25) for sx in (-1, 1) for sy in (-1, 1)]
        parts += [lathe([(0.03, 0), (0.025, 0.08), (0.045, 0.17)], (x, y, 0), (120, 110, 90, 10)) for x, y in places]
    return Piece("bathtub", join(parts))


def corner_bathtub(rng: np.random.Generator) -> Piece:
    """A wide tub with a rounded front that stands in a corner or at a wall."""
    length, width, height, tint = rng.uniform(1.3, 1.6), rng.uniform(0.95, 1.25), rng.uniform(0.48, 0.6), ceramic(rng)
    half, power = np.array([length / 2, width / 2]), rng.uniform(3.0, 4.5)
    outer = [ring(half * s, (0, 0, z), power, 32) for s, z in ((0.94, 0.0), (1.0, height - 0.05), (1.0, height))]
    inner = [
        ring(half * s, (0, 0, z), 2.4, 32) for s, z in ((0.86, height), (0.8, height - 0.15), (0.62, height - 0.38))
    ]
    return Piece("bathtub", _hollow(outer, inner, tint))


def _bowl(seat_m: float, width: float, length: float, y: float, tint: Tint, hung: bool) -> list[Solid]:
    """The pan of a toilet with its seat ring; its front is at y - length / 2. Where `hung`, it ends above the floor."""
    half = np.array([width / 2, length / 2])
    levels = [(0.62, 0.0), (0.58, 0.12), (0.66, 0.22), (0.95, seat_m - 0.06), (1.0, seat_m - 0.02)]
    if hung:
        levels = [(0.45, 0.12), (0.75, 0.2), (0.95, seat_m - 0.08), (1.0, seat_m - 0.02)]
    outer = [ring(half * [s, 0.5 + 0.5 * s], (0, y + (1 - s) * length * 0.16, z), 2.5, 24) for s, z in levels]
    inner = [
        ring(half * s, (0, y, z), 2.3, 24)
        for s, z in ((0.68, seat_m - 0.02), (0.55, seat_m - 0.12), (0.3, seat_m - 0.2))
    ]
    hoop = [
        ring(half * s, (0, y, seat_m + z), 2.4, 24)
        for s, z in ((1.0, -0.02), (1.02, 0.01), (0.68, 0.015), (0.66, -0.02))
    ]
    return [_hollow(outer, inner, tint), loft(hoop, tint, False)]


def toilet(rng: np.random.Generator) -> Piece:
    """A pan with a seat, the lid open or closed; the cistern stands behind it or is hidden in the wall."""
    seat_m, width, length, tint = rng.uniform(0.38, 0.45), rng.uniform(0.35, 0.4), rng.uniform(0.46, 0.56), ceramic(rng)
    kind = pick(rng, ["tank", "tank", "slim", "hung"])
    y, rear = -length * 0.22, length * 0.28
    parts = _bowl(seat_m, width, length, y, tint, kind == "hung")
    if kind == "hung":
        parts.append(block((width * 0.8, 0.12, 0.22), (0, rear + 0.04, 0.14), tint))
    else:
        parts.append(block((width * 0.62, 0.24, seat_m - 0.04), (0, rear - 0.02, 0), tint))
        size = (rng.uniform(0.36, 0.46), 0.17 if kind == "tank" else 0.13, rng.uniform(0.34, 0.42))
        low = seat_m - 0.03 if kind == "tank" else seat_m + 0.02
        parts.append(cushion(size, (0, rear + 0.08, low), tint, 9.0))
        parts.append(block((size[0] + 0.02, size[1] + 0.02, 0.03), (0, rear + 0.08, low + size[2] - 0.035), tint))
    lid = [ring((width / 2, length / 2), (0, 0, z), 2.4, 24) for z in (0.0, 0.028)]
    if chance(rng, 0.5):
        parts.append(place(loft(lid, tint), (0, y, seat_m + 0.012)))
    else:
        upright = lean(loft(lid, tint), np.pi / 2 - 0.12, (length / 2, 0.0))
        parts.append(place(upright, (0, rear - 0.02 - length / 2, seat_m + 0.02)))
    mesh = join(parts)
    low, high = mesh.bounds()
    return Piece("toilet", mesh).at(0.0, -(low[1] + high[1]) / 2, 0.0)


def pedestal_sink(rng: np.random.Generator) -> Piece:
    """A wash basin on a column, or hung on the wall with its siphon below."""
    width, depth, z, tint = rng.uniform(0.48, 0.66), rng.uniform(0.4, 0.5), rng.uniform(0.8, 0.88), ceramic(rng)
    half, power = np.array([width / 2, depth / 2]), pick(rng, [2.4, 3.5, 8.0])
    outer = [
        ring(half * s, (0, 0, z + dz), power, 24) for s, dz in ((0.45, -0.2), (0.85, -0.12), (1.0, -0.03), (1.0, 0.0))
    ]
    inner = [ring(half * s, (0, -0.02, z + dz), 2.4, 24) for s, dz in ((0.8, 0.0), (0.68, -0.08), (0.35, -0.13))]
    tap = [(0, depth * 0.4, z), (0, depth * 0.4, z + 0.13), (0, depth * 0.12, z + 0.13)]
    parts = [_hollow(outer, inner, tint), tube(tap, 0.018, (190, 190, 195, 40))]
    if chance(rng, 0.6):
        profile = [(0.12, 0.0), (0.085, 0.1), (0.075, z * 0.5), (0.11, z - 0.18)]
        parts.append(lathe(profile, (0, depth * 0.12, 0), tint, 14))
    else:
        parts.append(tube([(0, 0, z - 0.18), (0, 0, z - 0.35), (0, depth / 2, z - 0.38)], 0.025, (180, 180, 180, 30)))
    return Piece("sink", join(parts))


def vanity(rng: np.random.Generator) -> Piece:
    """A wash basin let into a cabinet with doors or drawers."""
    width, depth, z, tint = (
        rng.uniform(0.6, 1.2),
        rng.uniform(0.45, 0.55),
        rng.uniform(0.8, 0.88),
        pick(rng, [paint, wood])(rng),
    )
    foot = pick(rng, [0.08, 0.3])
    body = place(
        fronts(rng, (width, depth, z - 0.04 - foot), (max(1, round(width / 0.4)), int(rng.integers(1, 3))), tint, 0.0),
        (0, 0, foot),
    )
    wide, plate = min(width * 0.6, 0.55), vary(rng, (225, 220, 212), 20)
    hole = (-wide / 2, -depth / 2 + 0.09, wide / 2, depth / 2 - 0.13)
    sides = [block((width, depth, 0.03), (0, 0, z - 0.2), plate)] if foot > 0.2 else []
    side = Top(-width / 2 + 0.03, -depth / 2 + 0.05, hole[0] - 0.02, depth / 2 - 0.05, z)
    sink = Piece("sink", basin(hole, z, ceramic(rng), chance(rng, 0.6)))
    return Piece(
        "vanity",
        join([uncovered(body), plate_around(width, depth, hole, z, plate), *sides]),
        (side,) if side.x1 - side.x0 > 0.1 else (),
        (sink,),
    )


BATHTUBS = (built_in_bathtub, built_in_bathtub, free_bathtub, corner_bathtub)
SINKS = (pedestal_sink, vanity)
