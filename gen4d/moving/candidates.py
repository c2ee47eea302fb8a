"""Where the centre of a shape may be: cells whose whole disc lies in valid cells (4DContrast, section 3.3)."""

from typing import NamedTuple

import numpy as np

from gen4d.moving import kernels
from gen4d.sequence import FloorPlan


class FreeSpace(NamedTuple):
    """Distance from every cell's centre to the nearest edge of an invalid cell: one transform a scan for all shapes."""

    distance_m: np.ndarray  # (nx, ny) float64, 0 in invalid cells
    origin: np.ndarray  # (2,) int32, as in FloorPlan
    cell_m: float

    @property
    def widest_m(self) -> float:
        """Radius of the widest disc that fits anywhere."""
        return float(self.distance_m.max(initial=0.0))


def find_free_space(plan: FloorPlan) -> FreeSpace:
    """Free space of a floor plan. What is outside the grid is not free."""
    distance = np.empty(plan.valid.shape)
    kernels.edge_distance(plan.valid, np.empty(plan.valid.shape), distance)
    return FreeSpace(distance * plan.cell_m, plan.origin, plan.cell_m)


def find_candidates(space: FreeSpace, radius_m: float) -> np.ndarray:
    """Centres (C, 2) in metres of the cells around which a disc of `radius_m` is free, row by row."""
    cell = np.argwhere((space.distance_m >= radius_m) & (space.distance_m > 0))
    return (cell + space.origin + 0.5) * space.cell_m
