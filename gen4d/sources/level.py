"""Which way is up, and how long a unit is: from a source's own frame to metres with z up."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from gen4d.sources.source import SourceError

_METRES = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048}
# Rows of the rotation that brings each axis to +z, right-handed; exact, so that points keep their digits.
_AXES = {
    "x": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
    "-x": ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),
    "y": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "-y": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-z": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
}
_COLUMN_M = 0.1
_SEARCH_DEG = ((15.0, 1.0), (1.0, 0.25))  # reach and step: tilts up to 15 degrees about each axis are found
_VOTERS = 2000  # columns that vote, evenly chosen
_VOTE_M = 0.1
_WIDTHS_M = (0.08, 0.06, 0.05, 0.04, 0.03, 0.03, 0.03)
_LEAST_SHARE = 0.1  # of the columns, near the plane that is taken for the floor's


class Orientation(NamedTuple):
    """Where up is and how long a unit is.

    up: an axis ("z", "-y"), a vector ("0.1,0,1"), or "floor" / "floor:<axis or vector>": levelled by a plane fit.
    """

    up: str = "z"
    metres_per_unit: float = 1.0


def parse_units(text: str) -> float:
    """Metres per unit for m, dm, cm, mm, in, ft or a positive number of metres. Raises SourceError."""
    name = text.strip().lower()
    try:
        metres = _METRES[name] if name in _METRES else float(name)
    except ValueError:
        metres = math.nan
    if not 1e-6 <= metres <= 1e6:
        raise SourceError("--units", f"{text!r} is not a unit: use {', '.join(_METRES)}, or a number of metres")
    return metres


def up_rotation(up: str) -> np.ndarray:
    """The (3, 3) float64 rotation that brings the direction `up` (an axis or a vector) to +z. Raises SourceError."""
    text = up.strip().lower().removeprefix("+")
    if text in _AXES:
        return np.array(_AXES[text], np.float64)
    try:
        vector = np.array([float(part) for part in text.split(",")])
    except ValueError:
        vector = np.zeros(0)
    if vector.shape != (3,) or not np.isfinite(vector).all() or not 1e-9 < np.abs(vector).max() < 1e9:
        raise SourceError(
            "--up", f"{up!r} is not a direction: use x, -x, y, -y, z, -z, a vector like 0.1,0,1, or floor"
        )
    return rotation_to_z(vector)


def rotation_to_z(vector: np.ndarray) -> np.ndarray:
    """The smallest rotation that brings `vector` (3,) to +z, (3, 3) float64."""
    x, y, z = vector / np.linalg.norm(vector)
    if z < -1 + 1e-12:
        return np.array(_AXES["-z"], np.float64)
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])  # of the axis (y, -x, 0)
    return np.eye(3) + cross + cross @ cross / (1 + z)


def split_up(up: str) -> tuple[str, bool]:
    """The direction to start from, and whether to level: `floor:-y` is ("-y", True)."""
    head, _, rest = up.strip().lower().partition(":")
    if head == "floor":
        return rest or "z", True
    return up, False


def floor_normal(point: np.ndarray) -> np.ndarray:
    """The unit normal (3,) float64 of the floor's plane in `point` (N, 3), metres, roughly z up.

    No chance is involved: the lowest points of 10 cm columns vote for a tilt, first in steps of one degree and then of
    a quarter, and least squares over the columns' points near that plane refine it, one vote a column, because
    density falls with the distance from a sensor. Raises ValueError where no plane holds a tenth of the columns.
    """
    point = point.astype(np.float64)
    column = _column_of(point)
    lowest = _lowest(point, column)
    slope = np.zeros(2)
    for reach_deg, step_deg in _SEARCH_DEG:
        slope = _voted_slope(lowest, slope, reach_deg, step_deg)
    height = lowest[:, 2] - lowest[:, :2] @ slope
    plane = np.array([*slope, height[_peak(height, _VOTE_M)].mean()])
    for width_m in _WIDTHS_M:
        near = np.abs(point[:, 2] - point[:, :2] @ plane[:2] - plane[2]) < width_m
        plane = _fitted_plane(_column_means(point[near], column[near]), plane)
    share = (np.abs(lowest[:, 2] - lowest[:, :2] @ plane[:2] - plane[2]) < _VOTE_M).mean()
    if share < _LEAST_SHARE:
        raise ValueError(f"no plane holds {_LEAST_SHARE:.0%} of the columns' lowest points (the best: {share:.0%})")
    normal = np.array([-plane[0], -plane[1], 1.0])
    return normal / np.linalg.norm(normal)


def _column_of(point: np.ndarray) -> np.ndarray:
    """The 10 cm column of every point, as (N,) int64 from 0 to the number of columns less one."""
    cell = np.floor(point[:, :2] / _COLUMN_M).astype(np.int64)
    cell -= cell.min(axis=0)
    return np.unique(cell[:, 0] * (cell[:, 1].max() + 1) + cell[:, 1], return_inverse=True)[1]


def _lowest(point: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The lowest point of every column, (C, 3)."""
    order = np.lexsort((point[:, 2], column))
    return point[order[np.searchsorted(column[order], np.arange(column.max() + 1))]]


def _voted_slope(lowest: np.ndarray, around: np.ndarray, reach_deg: float, step_deg: float) -> np.ndarray:
    """The slope (dz/dx, dz/dy) near `around` under which most columns share a height."""
    every = lowest[:: max(1, len(lowest) // _VOTERS)]
    steps = np.tan(np.radians(np.arange(-reach_deg, reach_deg + step_deg / 2, step_deg)))
    best, slope = -1.0, around
    for tilt in sorted(itertools.product(steps, steps), key=lambda pair: math.hypot(*pair)):  # of equals the least
        tried = around + tilt
        votes = _peak(every[:, 2] - every[:, :2] @ tried, _VOTE_M).sum()
        if votes > best:
            best, slope = votes, tried
    return slope


def _peak(height: np.ndarray, width_m: float) -> np.ndarray:
    """(C,) bool: the heights within `width_m` of the mean of the fullest window of twice that width."""
    order = np.sort(height)
    last = np.searchsorted(order, order + 2 * width_m, "right")
    start = int(np.argmax(last - np.arange(len(order))))
    return np.abs(height - order[start : last[start]].mean()) <= width_m


def _column_means(point: np.ndarray, column: np.ndarray) -> np.ndarray:
    count = np.bincount(column)
    sums = np.column_stack([np.bincount(column, point[:, axis]) for axis in range(3)])
    return sums[count > 0] / count[count > 0, None]


def _fitted_plane(mean: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Least squares z = ax + by + c, (3,); `plane` where there are too few columns."""
    if len(mean) < 3:
        return plane
    design = np.column_stack([mean[:, :2], np.ones(len(mean))])
    return np.linalg.lstsq(design, mean[:, 2], rcond=None)[0]
