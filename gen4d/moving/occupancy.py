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


class OccupancyError(ValueError):
    """A scan without a floor plan."""


def find_floor_plan(
    point: np.ndarray, cell_m: float, ceiling_m: float, near_floor_m: float, close_m: float
) -> FloorPlan:
    """Floor plan of a scan's points (N, 3), z up, metres.

    A column is valid with at most one occupied layer whose highest point is near the floor; one without points only
    inside the footprint. Points higher than `ceiling_m` above the floor do not count. Raises OccupancyError where the
    scan is too wide for a floor plan.
    """
    origin, shape = make_grid(point, cell_m)
    minimum = np.full(shape, np.inf)
    kernels.column_minimum(point, 1.0 / cell_m, origin, minimum)
    floor_m = find_floor(minimum[np.isfinite(minimum)])
    valid, _ = find_valid(point, origin, shape, cell_m, floor_m, (ceiling_m, near_floor_m, close_m))
    return FloorPlan(valid, origin, floor_m, cell_m)


def find_valid(
    point: np.ndarray,
    origin: np.ndarray,
    shape: tuple[int, int],
    cell_m: float,
    floor_m: float,
    limits_m: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Valid cells and observed cells (nx, ny) above a known floor; limits: ceiling, near the floor, closing radius."""
    ceiling_m, near_floor_m, close_m = limits_m
    layers = np.zeros(shape, np.uint64)
    top = np.full(shape, -np.inf)
    kernels.column_layers(point, 1.0 / cell_m, origin, floor_m, ceiling_m, cell_m, layers, top)
    observed = layers != 0
    flat = (layers & (layers - np.uint64(1))) == 0
    free = flat & (np.abs(top - floor_m) <= near_floor_m)
    return np.where(observed, free, find_footprint(observed, close_m / cell_m)), observed


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


def find_footprint(observed: np.ndarray, radius: float) -> np.ndarray:
    """The inside of a room (nx, ny): observed columns closed by a disc of `radius` cells, holes filled."""
    pad = int(np.ceil(radius)) + 1
    wide = np.pad(observed, pad)
    if not observed.any():
        return observed.copy()
    dilated = ndimage.distance_transform_edt(~wide) <= radius
    closed = ndimage.distance_transform_edt(dilated) > radius
    region, _ = ndimage.label(~closed)
    outside = region == region[0, 0]
    return ~outside[pad:-pad, pad:-pad]
