"""What pictures and pages show of a sequence: where the camera looks, which walls are cut, which pairs are drawn."""

import math

import numpy as np
from scipy import ndimage

from gen4d.sequence import ROLE_MOVING, FloorPlan, Frame, Sequence

HEADROOM_M = 2.0  # above the floor: what is higher hides the room
INNER = (0.02, 0.98)  # of the points, for the camera and the range of heights
_WALL_M = 0.35  # from the outline of a scan: cut away where it faces the camera
_AROUND_M = 1.0  # of free floor and walls: what the camera frames
_LINES = 25  # drawn between corresponding points, of what moves and of what is still


def title(sequence: Sequence) -> str:
    """What a sequence shows, in a line."""
    shapes = " and ".join(mover.shape for mover in sequence.movers)
    if sequence.kind == "moving" and shapes:
        return f"{sequence.id}: {shapes} {'moves' if len(sequence.movers) == 1 else 'move'} through {sequence.scan}"
    return f"{sequence.id}: {sequence.kind}{' of ' + shapes if shapes else ''}"


def moving(sequence: Sequence) -> list[int]:
    """Numbers of the actors that move through a scan; in views of a shape there is nothing else to see."""
    here = enumerate(sequence.actors)
    return [number for number, actor in here if sequence.kind == "moving" and actor.role == ROLE_MOVING]


def way_m(sequence: Sequence) -> float:
    """Length of the longest way that something takes in a sequence."""
    steps = [np.linalg.norm(np.diff(actor.pose[:, :3, 3], axis=0), axis=1).sum() for actor in sequence.actors]
    return float(max(steps))


def framed(point: np.ndarray, plan: FloorPlan | None) -> tuple[list[float], float]:
    """What the camera looks at and how far around it: most points, of a scan those near its free floor, so that far
    returns do not shrink the room."""
    if plan is not None and plan.valid.any():
        low = (plan.origin + np.argwhere(plan.valid).min(axis=0)) * plan.cell_m - _AROUND_M
        high = (plan.origin + np.argwhere(plan.valid).max(axis=0) + 1) * plan.cell_m + _AROUND_M
        flat = ((point[:, :2] > low) & (point[:, :2] < high)).all(axis=1)
        point = point[flat & (np.abs(point[:, 2] - plan.floor_m) < HEADROOM_M)]
    if not len(point):
        return [0.0, 0.0, 0.0], 1.0
    ends = np.quantile(point, INNER, axis=0)
    radius = float(np.linalg.norm(ends[1] - ends[0])) / 2
    return [round(float(v), 4) for v in ends.mean(axis=0)], round(max(radius, 1e-3), 4)


def outward(point: np.ndarray, plan: FloorPlan) -> np.ndarray:
    """Which way out of the scan each point (N, 3) faces if it is at the scan's outline, as a wall is: 1 to 255, an
    angle from x towards y in 254ths of a turn; 0 for all other points."""
    cell = plan.cell_m
    at = np.floor(point[:, :2] / cell).astype(np.int64)
    near = (point[:, 2] > plan.floor_m - _AROUND_M) & (point[:, 2] < plan.floor_m + HEADROOM_M)
    if not near.any():
        return np.zeros(len(point), np.uint8)
    low = np.minimum(at[near].min(axis=0), plan.origin) - 2
    shape = np.maximum(at[near].max(axis=0), plan.origin + plan.valid.shape) - low + 3
    held = np.zeros(np.minimum(shape, 4000), bool)
    inside = ((at >= low) & (at < low + held.shape)).all(axis=1)
    rows, columns = (at - low)[inside].T
    held[rows, columns] = True
    x, y = plan.origin - low
    free = held[x : x + plan.valid.shape[0], y : y + plan.valid.shape[1]]
    free |= plan.valid[: free.shape[0], : free.shape[1]]
    around = np.ones((3, 3), bool)
    held = ndimage.binary_fill_holes(ndimage.binary_closing(held, around, 2))
    held = ndimage.binary_opening(held, around, 2)  # without thin arms, where a scanner saw through a door
    depth, beyond = ndimage.distance_transform_edt(held, return_indices=True)
    _, within = ndimage.distance_transform_edt(~held, return_indices=True)
    here = np.indices(held.shape)
    way = np.where(held, beyond - here, here - within)[:, rows, columns]
    angle = np.rint(np.arctan2(way[1], way[0]) % (2 * math.pi) / (2 * math.pi) * 254).astype(np.uint8) + 1
    out = np.full(len(point), 0, np.uint8)
    wall = depth[rows, columns] * cell <= _WALL_M
    out[np.flatnonzero(inside)[wall]] = angle[wall]
    return out


def chosen_pairs(
    sequence: Sequence, frames: list[Frame], top: float, i: int = 0, j: int = -1
) -> list[tuple[int, int, bool]]:
    """Rows of frame i and of frame j of some points that both hold, and whether each moves: an even choice among those
    that move and among those of the rest that lie below `top`."""
    first = frames[i]
    a, b = sequence.correspondences(i, j)
    moves_now = np.isin(first.actor[a], moving(sequence))
    still = ~moves_now & (first.point[a, 2] < top)
    chosen = []
    for which, moves in ((np.flatnonzero(moves_now), True), (np.flatnonzero(still), False)):
        rows = which[:: max(1, len(which) // _LINES)][:_LINES]
        chosen += [(int(a[row]), int(b[row]), moves) for row in rows]
    return chosen
