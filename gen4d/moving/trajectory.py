"""A shape's way through the candidates (4DContrast, section 3.3, "Trajectory Generation")."""

import math
from typing import NamedTuple

import numpy as np

from gen4d.moving import kernels


class Trajectory(NamedTuple):
    """Where the shape is in every frame."""

    position: np.ndarray  # (t, 2) float64, metres
    yaw_rad: np.ndarray  # (t,) float64


def draw_trajectory(
    candidate: np.ndarray,
    frames: int,
    step_m: tuple[float, float],
    turn_max_rad: float,
    tries: int,
    rng: np.random.Generator,
) -> Trajectory | None:
    """Walk over candidates (C, 2) in metres, or None where the draws lead nowhere.

    The start is uniform among the candidates. Each step is drawn in length and heading, goes to the nearest
    candidate, and must obey both limits there too. The yaw starts at random and turns with the heading.
    """
    start_draw, yaw_draw = rng.random(2)
    draw = rng.random((frames - 1, tries, 2))
    if not len(candidate):
        return None
    row = np.empty(frames, np.int64)
    kernels.walk(candidate, int(start_draw * len(candidate)), draw, *step_m, turn_max_rad, row)
    if row[0] < 0:
        return None
    position = candidate[row]
    step = np.diff(position, axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    yaw = 2 * math.pi * yaw_draw + np.concatenate([[0.0], heading - heading[0]])
    return Trajectory(position, yaw)
