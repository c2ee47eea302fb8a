"""Which way is up, and how long a unit is: from a source's own frame to metres with z up."""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from gen4d.sources import level_kernels as kernels
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
_LEVELLED = {"floor": "always", "auto": "tilted"}
_TILTED_DEG = 1.0  # more than this is levelled unasked,
_BETTER = 1.05  # if so many times the columns lie in the floor's plane; it is 1.2 and 1.8 in real scans that are tilted
_COLUMN_M = 0.1
_MOST_COLUMNS = 50_000_000
_COARSE_DEG, _FINE_DEG = (20.0, 2.0), (1.0, 0.5)  # reach and step: tilts up to 20 degrees about each axis are found
_COARSE_M, _FINE_M = 0.2, 0.1  # heights of the windows that hold votes
_STARTS = 6
_NEARLY = 0.95
_VOTERS = 1000  # columns that vote, evenly chosen
_VOTE_M = 0.1
_BINS = 2048  # of a quarter of the window: heights of 50 m and more up and down from the middle
_NEAR_M = 0.3  # from the voted plane: what refines it
_WIDTHS_M = (0.08, 0.05, 0.03, 0.03)
_LEAST_SHARE = 0.1  # of the columns, near the plane that is taken for the floor's


class Orientation(NamedTuple):
    """Where up is and how long a unit is.

    up: an axis ("z", "-y") or a vector ("0.1,0,1"), taken as it is; "floor" or "floor:<axis or vector>": levelled by
    the floor from there (z where none is named); "auto" or "auto:<axis or vector>": levelled where the floor is tilted
    by more than a degree and there is one to level by.
    """

    up: str = "auto"
    metres_per_unit: float = 1.0


def parse_units(text: str, option: str = "--units") -> float:
    """Metres per unit for m, dm, cm, mm, in, ft or a positive number of metres. Raises SourceError."""
    name = text.strip().lower()
    try:
        metres = _METRES[name] if name in _METRES else float(name)
    except ValueError:
        metres = math.nan
    if not 1e-6 <= metres <= 1e6:
        raise SourceError(option, f"{text!r} is not a unit: use {', '.join(_METRES)}, or a number of metres")
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
            "--up", f"{up!r} is not a direction: use x, -x, y, -y, z, -z, a vector like 0.1,0,1, auto or floor"
        )
    return rotation_to_z(vector)


def rotation_to_z(vector: np.ndarray) -> np.ndarray:
    """The smallest rotation that brings `vector` (3,) to +z, (3, 3) float64."""
    x, y, z = vector / np.linalg.norm(vector)
    if z < -1 + 1e-12:
        return np.array(_AXES["-z"], np.float64)
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])  # of the axis (y, -x, 0)
    return np.eye(3) + cross + cross @ cross / (1 + z)


def split_up(up: str) -> tuple[str, str]:
    """The direction to start from, and when to level: `floor:-y` is ("-y", "always"), "z" is ("z", "never")."""
    head, _, rest = up.strip().lower().partition(":")
    if head in _LEVELLED:
        return rest or "z", _LEVELLED[head]
    return up, "never"


class Floor(NamedTuple):
    """A floor's plane: its unit normal (3,) float64, and the share of the columns whose lowest points lie on it, and of
    those that lie at one height, whichever holds most."""

    normal: np.ndarray
    share: float
    level_share: float

    @property
    def is_tilted(self) -> bool:
        """Whether the floor is tilted by more than a degree, and more of it lies in its plane than at any height."""
        return self.tilt_deg > _TILTED_DEG and self.share > _BETTER * self.level_share

    @property
    def tilt_deg(self) -> float:
        """Angle between the normal and +z."""
        return math.degrees(math.acos(min(1.0, float(self.normal[2]))))


def floor_normal(point: np.ndarray) -> np.ndarray:
    """The unit normal (3,) float64 of the floor's plane in `point` (N, 3): see `find_floor`."""
    return find_floor(point).normal


def find_floor(point: np.ndarray) -> Floor:
    """The floor's plane in `point` (N, 3), metres, roughly z up: tilted by up to 20 degrees about each axis.

    No chance is involved: the lowest points of 10 cm columns vote for a tilt, first in steps of two degrees and then of
    half a degree, and least squares over the columns' points near that plane refine it, one vote a column, because
    density falls with the distance from a sensor. Raises ValueError where no plane holds a tenth of the columns.
    """
    point = np.ascontiguousarray(point, np.float32)
    grid, low = _grid(point)
    kernels.lowest_rows(point, low, 1 / _COLUMN_M, grid)
    lowest = point[grid[grid >= 0]].astype(np.float64) - [*low, 0.0]
    slope = _voted_slope(lowest)
    height = lowest[:, 2] - lowest[:, :2] @ slope
    plane = np.array([*slope, height[_peak(height, _VOTE_M)].mean()])
    grid.fill(-1)
    plane = _refined(point, grid, low, plane)
    share = float((np.abs(lowest[:, 2] - lowest[:, :2] @ plane[:2] - plane[2]) < _VOTE_M / 2).mean())
    level_share = float(_peak(lowest[:, 2], _VOTE_M / 2).mean())
    if share < _LEAST_SHARE:
        raise ValueError(f"no plane holds {_LEAST_SHARE:.0%} of the columns' lowest points (the best: {share:.0%})")
    normal = np.array([-plane[0], -plane[1], 1.0])
    return Floor(normal / np.linalg.norm(normal), share, level_share)


def _grid(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A grid (nx, ny) int32 of -1 for all columns, and its corner (2,) float64."""
    low, high = np.empty(2), np.empty(2)
    kernels.plan_bounds(point, low, high)
    nx, ny = (np.int64((high - low) / _COLUMN_M) + 2).tolist()
    if nx * ny > _MOST_COLUMNS:
        raise ValueError(f"it spans {high[0] - low[0]:.0f} x {high[1] - low[1]:.0f} m, too wide to look for a floor")
    return np.full((nx, ny), -1, np.int32), low


@functools.lru_cache
def _tilts(reach_deg: float, step_deg: float) -> np.ndarray:
    """Slopes (S, 2) in steps of an angle about both axes."""
    steps = np.tan(np.radians(np.arange(-reach_deg, reach_deg + step_deg / 2, step_deg)))
    return np.array(list(itertools.product(steps, steps)))


def _voted_slope(lowest: np.ndarray) -> np.ndarray:
    """The slope (dz/dx, dz/dy) under which most columns share a height; of those with nearly as many, the least steep.

    The best few of a coarse search, and level, are searched around more finely: in a small room full of furniture the
    tops of beds and cupboards may hold a plane at first that the floor does not.
    """
    every = lowest[:: max(1, len(lowest) // _VOTERS)]
    every = every - np.median(every, axis=0)
    coarse = _tilts(*_COARSE_DEG)
    votes = _votes(every, coarse, _COARSE_M)
    start = np.vstack([[0.0, 0.0], coarse[np.argsort(-votes, kind="stable")[:_STARTS]]])
    fine = (start[:, None] + _tilts(*_FINE_DEG)).reshape(-1, 2)
    votes = _votes(every, fine, _FINE_M)
    good = fine[votes >= _NEARLY * votes.max()]
    return good[np.argmin((good**2).sum(axis=1))]


def _votes(lowest: np.ndarray, slope: np.ndarray, window_m: float) -> np.ndarray:
    """Columns (S,) int64 in the fullest window of that height over each slope (S, 2)."""
    votes = np.empty(len(slope), np.int64)
    kernels.slope_votes(lowest, slope, window_m / 4, _BINS, votes)
    return votes


def _peak(height: np.ndarray, width_m: float) -> np.ndarray:
    """(C,) bool: the heights within `width_m` of the mean of the fullest window of twice that width."""
    order = np.sort(height)
    last = np.searchsorted(order, order + 2 * width_m, "right")
    start = int(np.argmax(last - np.arange(len(order))))
    return np.abs(height - order[start : last[start]].mean()) <= width_m


def _refined(point: np.ndarray, number: np.ndarray, low: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Least squares z = ax + by + c, (3,), over the means of columns of points ever nearer to the plane."""
    near, column = np.empty((len(point), 3)), np.empty(len(point), np.int32)
    count, columns = kernels.near_plane(point, low, 1 / _COLUMN_M, plane, _NEAR_M, number, near, column)
    near, column = near[:count], column[:count]
    for width_m in _WIDTHS_M:
        sums = np.zeros((columns, 4))
        kernels.column_sums(near, column, plane, width_m, sums)
        mean = sums[sums[:, 3] > 0, :3] / sums[sums[:, 3] > 0, 3:]
        if len(mean) >= 3:
            design = np.column_stack([mean[:, :2], np.ones(len(mean))])
            plane = np.linalg.lstsq(design, mean[:, 2], rcond=None)[0]
    return plane
