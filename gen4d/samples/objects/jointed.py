"""Furniture with parts that move: drawers that slide, doors that hinge, and chairs that swivel.

Conventions as in `solids`: metres, z up, standing on z = 0, the front looks along -y. At rest all is shut.
"""

import math
from typing import NamedTuple

import numpy as np

from gen4d.samples.draws import Tint, chance, metal, paint, pick, wood
from gen4d.samples.objects.seats import legs, swivel_parts
from gen4d.samples.objects.solids import Solid, block, join, span

_BOARD_M = 0.02
_GAP_M = 0.006


class Limb(NamedTuple):
    """A part that moves on the body: its mesh as it is at rest, and its joint.

    kind: hinge or slide; point and axis (3,): the line about or along which it moves, from `low` to `high` radians or
    metres.
    """

    name: str
    mesh: Solid
    kind: str
    point: tuple[float, float, float]
    axis: tuple[float, float, float]
    low: float
    high: float


class Jointed(NamedTuple):
    """A body that stands, and the parts that move on it."""

    body: Solid
    limbs: tuple[Limb, ...]


def _case(size: tuple[float, float, float], foot_m: float, tint: Tint) -> list[Solid]:
    """Boards of an open case of (width, depth, height), from `foot_m` up: sides, bottom, top and back."""
    width, depth, height = size
    x, y, b = width / 2, depth / 2, _BOARD_M
    return [
        span((-x, -y, foot_m), (-x + b, y, height), tint),
        span((x - b, -y, foot_m), (x, y, height), tint),
        span((-x, -y, foot_m), (x, y, foot_m + b), tint),
        span((-x, -y, height - b), (x, y, height), tint),
        span((-x, y - 0.01, foot_m), (x, y, height), tint),
    ]


def _grip(x: float, y: float, z: float, upright: bool, tint: Tint) -> Solid:
    """A handle in front of (x, y, z)."""
    size = (0.02, 0.03, 0.16) if upright else (0.14, 0.03, 0.02)
    return block(size, (x, y - 0.015, z - size[2] / 2), tint)


def _drawer(name: str, low: tuple, high: tuple, depth: float, tints: tuple[Tint, Tint]) -> Limb:
    """A drawer behind a front from `low` to `high` (x, z), open above; it comes out to three quarters of its depth."""
    (x0, z0), (x1, z1), y = low, high, -depth / 2
    wall, back = 0.012, depth / 2 - 0.03
    top = z0 + 0.75 * (z1 - z0)
    mesh = [
        span((x0 + _GAP_M, y - _BOARD_M, z0 + _GAP_M), (x1 - _GAP_M, y, z1 - _GAP_M), tints[0]),
        span((x0 + 0.02, y, z0 + 0.01), (x1 - 0.02, back, z0 + 0.01 + wall), tints[0]),
        span((x0 + 0.02, back - wall, z0 + 0.01), (x1 - 0.02, back, top), tints[0]),
        span((x0 + 0.02, y, z0 + 0.01), (x0 + 0.02 + wall, back, top), tints[0]),
        span((x1 - 0.02 - wall, y, z0 + 0.01), (x1 - 0.02, back, top), tints[0]),
        _grip((x0 + x1) / 2, y - _BOARD_M, (z0 + z1) / 2, False, tints[1]),
    ]
    return Limb(name, join(mesh), "slide", (0.0, y, z0), (0.0, -1.0, 0.0), 0.0, 0.75 * depth)


def _door(name: str, low: tuple, high: tuple, depth: float, left: bool, tints: tuple[Tint, Tint]) -> Limb:
    """A door over a front from `low` to `high` (x, z), hinged at its left or right edge; it opens outwards to 100
    degrees."""
    (x0, z0), (x1, z1), y = low, high, -depth / 2
    mesh = [
        span((x0 + _GAP_M, y - _BOARD_M, z0 + _GAP_M), (x1 - _GAP_M, y, z1 - _GAP_M), tints[0]),
        _grip(x1 - 0.05 if left else x0 + 0.05, y - _BOARD_M, (z0 + z1) / 2, True, tints[1]),
    ]
    edge = (x0 if left else x1, y - _BOARD_M, z0)
    return Limb(name, join(mesh), "hinge", edge, (0.0, 0.0, -1.0 if left else 1.0), 0.0, math.radians(100))


def dresser(rng: np.random.Generator) -> Jointed:
    """A chest of two to five drawers, one above another or in two columns, on feet or on the floor."""
    columns, rows = pick(rng, [1, 2]), int(rng.integers(2, 5))
    width, depth, height = rng.uniform(0.5, 0.6) * columns, rng.uniform(0.38, 0.5), rng.uniform(0.75, 1.05)
    tints, foot = (pick(rng, [wood, paint])(rng), metal(rng)), pick(rng, [0.0, 0.1])
    body = _case((width, depth, height), foot, tints[0]) + (legs((width, depth, foot), 0.05, tints[0]) if foot else [])
    x = np.linspace(-width / 2 + _BOARD_M, width / 2 - _BOARD_M, columns + 1)
    z = np.linspace(foot + _BOARD_M, height - _BOARD_M, rows + 1)
    body += [span((a - 0.01, -depth / 2, z[0]), (a + 0.01, depth / 2, z[-1]), tints[0]) for a in x[1:-1]]
    limbs = [
        _drawer(f"drawer_{rows * c + r + 1}", (x[c], z[r]), (x[c + 1], z[r + 1]), depth, tints)
        for c in range(columns)
        for r in range(rows)
    ]
    return Jointed(join(body), tuple(limbs))


def night_stand(rng: np.random.Generator) -> Jointed:
    """A bedside table with a drawer above a door."""
    width, depth, height = rng.uniform(0.38, 0.55), rng.uniform(0.34, 0.44), rng.uniform(0.48, 0.66)
    tints, low, left = (pick(rng, [wood, paint])(rng), metal(rng)), rng.uniform(0.5, 0.7), chance(rng, 0.5)
    x, floor, top = width / 2 - _BOARD_M, 0.05 + _BOARD_M, height - _BOARD_M
    middle = floor + low * (top - floor)
    body = [*_case((width, depth, height), 0.05, tints[0]), *legs((width, depth, 0.05), 0.04, tints[0])]
    body.append(span((-x, -depth / 2, middle - 0.01), (x, depth / 2, middle + 0.01), tints[0]))
    door = _door("door", (-x, floor), (x, middle), depth, left, tints)
    return Jointed(join(body), (door, _drawer("drawer", (-x, middle), (x, top), depth, tints)))


def cabinet(rng: np.random.Generator) -> Jointed:
    """A cupboard with one pair of doors, or two, and shelves behind them."""
    pairs = pick(rng, [1, 1, 2])
    width, depth, height = rng.uniform(0.7, 0.9) * pairs, rng.uniform(0.36, 0.5), rng.uniform(0.75, 1.7)
    tints = pick(rng, [wood, paint])(rng), metal(rng)
    body = _case((width, depth, height), 0.0, tints[0])
    shelves = np.linspace(0, height, max(2, round(height / 0.4)) + 1)[1:-1]
    body += [span((-width / 2, -depth / 2, z), (width / 2, depth / 2, z + 0.018), tints[0]) for z in shelves]
    x = np.linspace(-width / 2 + _BOARD_M, width / 2 - _BOARD_M, 2 * pairs + 1)
    limbs = [
        _door(f"door_{i + 1}", (x[i], _BOARD_M), (x[i + 1], height - _BOARD_M), depth, i % 2 == 0, tints)
        for i in range(2 * pairs)
    ]
    return Jointed(join(body), tuple(limbs))


def chair(rng: np.random.Generator) -> Jointed:
    """An office chair whose seat turns on its foot."""
    foot, seat = swivel_parts(rng)
    turn = Limb("seat", join(seat), "hinge", (0.0, 0.0, 0.3), (0.0, 0.0, 1.0), -math.pi, math.pi)
    return Jointed(join(foot), (turn,))


JOINTED = {"cabinet": cabinet, "chair": chair, "dresser": dresser, "night_stand": night_stand}
