"""Which way is up, and how long a unit is: from a source's own frame to metres with z up."""

import math
from typing import NamedTuple

import numpy as np

from gen4d.sources.files import SourceError

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
_COARSE_TILT_DEG = 20  # the largest tilt that is looked for
_COARSE_STEP_DEG = 1
_LEAST_SHARE = 0.1  # of the columns, on the plane that is taken for the floor's


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
        raise SourceError("--units", f"{text!r} is no unit: one of {', '.join(_METRES)}, or a number of metres")
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
        raise SourceError("--up", f"{up!r} is no direction: x, -x, y, -y, z, -z, a vector like 0.1,0,1, or floor")
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

    No chance is involved: the lowest points of 10 cm columns vote for the tilt in steps of one degree whose levelled
    heights agree best, and trimmed least squares refine it. Raises ValueError where no plane holds a tenth of them.
    """
    minimum = _column_minima(point)
    slope = _coarse_slope(minimum)
    for width_m in (0.1, 0.06, 0.04, 0.03, 0.03, 0.03):
        slope = _refined_slope(minimum, slope, width_m)
    inside = _peak(minimum[:, 2] - minimum[:, :2] @ slope, 0.03)
    if inside.sum() < max(3, _LEAST_SHARE * len(minimum)):
        raise ValueError(f"no plane holds {_LEAST_SHARE:.0%} of the {len(minimum)} columns' lowest points")
    normal = np.array([-slope[0], -slope[1], 1.0])
    return normal / np.linalg.norm(normal)


def _column_minima(point: np.ndarray) -> np.ndarray:
    """The lowest point of every 10 cm column, (C, 3) float64, in the columns' order."""
    column = np.floor(point[:, :2].astype(np.float64) / _COLUMN_M).astype(np.int64)
    key = (column[:, 0] - column[:, 0].min()) * (np.ptp(column[:, 1]) + 1) + column[:, 1] - column[:, 1].min()
    order = np.lexsort((point[:, 2], key))
    first = np.ones(len(order), bool)
    first[1:] = key[order][1:] != key[order][:-1]
    lowest = point[order[first]].astype(np.float64)
    return lowest - [lowest[:, 0].mean(), lowest[:, 1].mean(), 0]


def _coarse_slope(minimum: np.ndarray) -> np.ndarray:
    steps = np.tan(np.radians(np.arange(-_COARSE_TILT_DEG, _COARSE_TILT_DEG + 1, _COARSE_STEP_DEG)))
    every = minimum[:: max(1, len(minimum) // 2000)]
    best, slope = -1.0, np.zeros(2)
    for a in steps:
        for b in steps:
            height = every[:, 2] - a * every[:, 0] - b * every[:, 1]
            votes = _peak(height, 0.1).sum() - 0.001 * len(every) * math.hypot(a, b)  # of two equals the smaller tilt
            if votes > best:
                best, slope = votes, np.array([a, b])
    return slope


def _peak(height: np.ndarray, width_m: float) -> np.ndarray:
    """(C,) bool: the heights within `width_m` of the middle of the fullest window of twice that width."""
    order = np.sort(height)
    last = np.searchsorted(order, order + 2 * width_m, "right")
    start = int(np.argmax(last - np.arange(len(order))))
    middle = order[start : last[start]].mean()
    return np.abs(height - middle) <= width_m


def _refined_slope(minimum: np.ndarray, slope: np.ndarray, width_m: float) -> np.ndarray:
    inside = minimum[_peak(minimum[:, 2] - minimum[:, :2] @ slope, width_m)]
    if len(inside) < 3:
        return slope
    design = np.column_stack([inside[:, :2], np.ones(len(inside))])
    return np.linalg.lstsq(design, inside[:, 2], rcond=None)[0][:2]
