"""A shape's way through the candidates (4DContrast, section 3.3, "Trajectory Generation"), clear of other shapes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gen4d.moving import kernels


class Trajectory(NamedTuple):
    """Where the shape is in every frame."""

    position: np.ndarray  # (t, 2) float64, metres
    yaw_rad: np.ndarray  # (t,) float64


class Discs(NamedTuple):
    """What other shapes take of the floor in every frame."""

    position: np.ndarray  # (m, t, 2) float64, metres
    radius_m: np.ndarray  # (m,) float64


def discs_of(ways: Sequence[Trajectory], radius_m: Sequence[float], frames: int) -> Discs:
    """The discs of shapes that have their ways already."""
    position = np.array([way.position for way in ways], np.float64).reshape(-1, frames, 2)
    return Discs(position, np.array(radius_m, np.float64))


def draw_trajectory(
    candidate: np.ndarray,
    frames: int,
    step_m: tuple[float, float],
    turn_max_rad: float,
    tries: int,
    rng: np.random.Generator,
    others: Discs | None = None,
    radius_m: float = 0.0,
) -> Trajectory | None:
    """Walk over candidates (C, 2) in metres, or None where the draws lead nowhere.

    The start is uniform among the candidates. Each step is drawn in length and heading, goes to the nearest
    candidate, and must obey both limits there too. The yaw starts at random and turns with the heading.

    A disc of `radius_m` around the shape never overlaps those of `others` (A): not in any frame and not between frames,
    where every disc goes straight and at a constant speed from one position to the next.
    """
    start_draw, yaw_draw = rng.random(2)
    draw = rng.random((frames - 1, tries, 2))
    others = others or discs_of((), (), frames)
    apart = others.radius_m + radius_m
    gap = np.hypot(*(candidate[:, None] - others.position[None, :, 0]).transpose(2, 0, 1))
    start = np.flatnonzero((gap >= apart).all(axis=1))
    if not len(start):
        return None
    row = np.empty(frames, np.int64)
    first = int(start[int(start_draw * len(start))])
    kernels.walk(candidate, first, draw, *step_m, turn_max_rad, others.position, apart, row)
    if row[0] < 0:
        return None
    position = candidate[row]
    step = np.diff(position, axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    yaw = 2 * math.pi * yaw_draw + np.concatenate([[0.0], heading - heading[0]])
    return Trajectory(position, yaw)
