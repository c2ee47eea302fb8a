"""Where a shape may stand: the floor, and the cells of the floor that are free (4DContrast, section 3.3)."""

import numpy as np
from scipy import ndimage

from gen4d.moving import kernels
from gen4d.moving.cloud import bounds
from gen4d.sequence import FloorPlan

_MAX_CELLS = 50_000_000
_PEAK_BIN_M = 0.05
_PEAK_SHARE = 0.25  # of the strongest bin: what makes a peak strong
_INLIER_M = 0.05
_BELOW_M = 0.2
TOP_HEAVY = 1.3  # 11 real and built-in rooms with a ceiling have 0.63 at most, on their heads 1.59 at least
_ROOM_M = 2.0  # a plane so far above the floor is a ceiling
_BAND_M = (0.3, 1.0)  # from the floor, where furniture is, and from the ceiling, where it is not


class OccupancyError(ValueError):
    """A scan without a floor plan."""


def find_floor_plan(
    point: np.ndarray, cell_m: float, ceiling_m: float, near_floor_m: float, close_m: float
) -> FloorPlan:
    """Floor plan of a scan's points (N, 3), z up, metres.

    The rule, from which anybody can derive the plan again; all arithmetic is in float64:

    1. A point lies in the column (floor(x * (1 / cell_m)), floor(y * (1 / cell_m))); the plan spans all columns from
       the lowest to the highest index of any point.
    2. Points with z > floor_m + ceiling_m do not count. The layer of the others is floor((z - floor_m) / cell_m + 0.5),
       so that the floor lies in the middle of layer 0; layers below -16 count as -16.
    3. A column with points that count is seen. It is valid if all of them are in one layer and the highest of them is
       at most near_floor_m from floor_m.
    4. A column that is not seen is valid inside the footprint alone: the seen columns closed by a disc of close_m. A
       disc around a column, of the plan or beyond it, holds the columns whose centres are at most close_m from its
       own; the footprint is every column that lies in no disc without a seen column. So no valid column is farther
       than close_m from a seen one, and with close_m = 0 seen columns alone are valid.

    `unseen` is the share of valid columns that are not seen. Raises OccupancyError where the scan is too wide.
    """
    origin, shape = make_grid(point, cell_m)
    minimum = np.full(shape, np.inf)
    kernels.column_minimum(point, 1.0 / cell_m, origin, minimum)
    floor_m = find_floor(minimum[np.isfinite(minimum)])
    valid, seen = find_valid(point, origin, shape, cell_m, floor_m, (ceiling_m, near_floor_m, close_m))
    unseen = float((valid & ~seen).sum() / max(valid.sum(), 1))
    return FloorPlan(valid, origin, floor_m, cell_m, unseen)


def share_below(point: np.ndarray, floor_m: float) -> float:
    """Share of a scan's points (N, 3) that lie more than 20 cm below its floor: many where another axis points up."""
    return float((point[:, 2] < np.float32(floor_m - _BELOW_M)).mean())


def top_heaviness(point: np.ndarray, floor_m: float, cell_m: float) -> float:
    """How many of a scan's points (N, 3) lie 0.3 to 1.0 m below its ceiling for each that lies as far above its floor:
    more than one in a room that stands on its head, whose ceiling is then taken for its floor. 0 without a ceiling.

    The ceiling is the highest strong peak of the columns' highest points, as the floor is the lowest of the lowest.
    """
    mirrored = point * np.float32([1, 1, -1])
    origin, shape = make_grid(mirrored, cell_m)
    minimum = np.full(shape, np.inf)
    kernels.column_minimum(mirrored, 1.0 / cell_m, origin, minimum)
    ceiling_m = -find_floor(minimum[np.isfinite(minimum)])
    if ceiling_m - floor_m < _ROOM_M:
        return 0.0
    low, high = (_in_band(distance) for distance in (point[:, 2] - floor_m, ceiling_m - point[:, 2]))
    return high / max(low, 1)


def _in_band(distance_m: np.ndarray) -> int:
    return int(((distance_m >= _BAND_M[0]) & (distance_m < _BAND_M[1])).sum())


def find_valid(
    point: np.ndarray,
    origin: np.ndarray,
    shape: tuple[int, int],
    cell_m: float,
    floor_m: float,
    limits_m: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Valid cells and seen cells (nx, ny) above a known floor; limits: ceiling, near the floor, closing radius."""
    ceiling_m, near_floor_m, close_m = limits_m
    layers = np.zeros(shape, np.uint64)
    top = np.full(shape, -np.inf)
    kernels.column_layers(point, 1.0 / cell_m, origin, floor_m, ceiling_m, cell_m, layers, top)
    seen = layers != 0
    flat = (layers & (layers - np.uint64(1))) == 0
    free = flat & (np.abs(top - floor_m) <= near_floor_m)
    return np.where(seen, free, find_footprint(seen, close_m / cell_m)), seen


def make_grid(point: np.ndarray, cell_m: float) -> tuple[np.ndarray, tuple[int, int]]:
    """First cell (2,) int32 and size of the grid that covers all points (N, 3). Raises OccupancyError if too wide."""
    low, high = (np.floor(end[:2].astype(np.float64) * (1.0 / cell_m)).astype(np.int64) for end in bounds(point))
    nx, ny = (high - low + 1).tolist()
    if nx * ny > _MAX_CELLS:
        raise OccupancyError(
            f"the scan spans {nx * cell_m:.0f} x {ny * cell_m:.0f} m, more than {_MAX_CELLS} cells of {cell_m} m: "
            "check --units, or remove far outliers"
        )
    return low.astype(np.int32), (nx, ny)


def find_floor(minimum: np.ndarray) -> float:
    """Height of the floor in metres from the lowest points of all columns (n,).

    The lowest strong peak of their histogram, refined as the mean of its inliers. Columns, not points, because the
    density of a laser scan varies by orders of magnitude between the floor near the scanner and far walls.
    """
    low = float(minimum.min())
    index = np.floor((minimum - low) / _PEAK_BIN_M).astype(np.int64)
    count = np.pad(np.bincount(np.minimum(index, 100_000)), 1)
    smooth = np.convolve(count, np.ones(3), "same")
    strong = np.flatnonzero(smooth >= _PEAK_SHARE * smooth.max())[0]
    rising = strong + np.argmax(np.append(smooth[strong + 1 :], -1.0) < smooth[strong:])
    inlier = np.abs(index + 1 - rising) <= 1
    for _ in range(4):
        floor_m = float(minimum[inlier].mean())
        inlier = np.abs(minimum - floor_m) <= _INLIER_M
        if not inlier.any():
            break
    return floor_m


def find_footprint(seen: np.ndarray, radius: float) -> np.ndarray:
    """Cells (nx, ny) that are seen or in gaps and holes between seen ones into which no disc of `radius` cells fits.

    Wider holes stay open: nothing says whether an unscanned core, or the floor behind a bed, is free.
    """
    if not seen.any():
        return seen.copy()
    pad = int(np.ceil(radius)) + 1  # discs that touch the plan have their centres in it
    dilated = ndimage.distance_transform_edt(~np.pad(seen, pad)) <= radius
    closed = ndimage.distance_transform_edt(dilated) > radius
    return closed[pad:-pad, pad:-pad]
