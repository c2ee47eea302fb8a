"""Scenes that one forward cannot take: overlapping windows, whose outputs are averaged voxel by voxel.

The voxels are halved along their longer side until a part has half of what a window may hold; the other half of a
window is what lies nearest around its part. So every voxel is seen with its surroundings, and a voxel near the edge of
one window is well inside another. Coordinates stay those of the scene, hence coarse voxels are the same in all windows.

Shapes. m voxels of a scene, K outputs a voxel.
"""

from collections.abc import Callable

import numpy as np
import torch

from train.inputs.voxels import Voxels
from train.nets.cost import forward_cost, widths
from train.nets.unet import NetShape
from train.run.memory import ADDRESSED
from train.tasks.scene import nearest

LEAST = 1000  # voxels of a window or a crop


def most_voxels(shape: NetShape, voxels: Voxels, element: int, wanted: int | None) -> int:
    """How many voxels of a scene one forward takes: `wanted`, or where that is None all of them, or as many as
    spconv can address, given the bytes of a number."""
    count = len(voxels.coordinate)
    if wanted is not None or count * max(widths(shape)) * element < ADDRESSED:
        return wanted or count
    widest = forward_cost(shape, 3, voxels, element).widest
    return count if widest < ADDRESSED else max(LEAST, int(0.9 * count * ADDRESSED / widest))


def by_windows(
    forward: Callable[[Voxels, torch.Tensor | None], torch.Tensor], voxels: Voxels, most: int
) -> torch.Tensor:
    """Outputs (m, K) of voxels on the CPU: of one forward where there are `most` or fewer, else the mean over windows.

    forward(voxels, rows) gives (k, K) of the k voxels that are these rows of all, or all of them where that is None.
    """
    if len(voxels.coordinate) <= most:
        return forward(voxels, None)
    total = times = None
    for rows in cut(voxels.coordinate[:, 1:].numpy(), most):
        index = torch.from_numpy(rows)
        found = forward(voxels._replace(coordinate=voxels.coordinate[index]), index)
        index = index.to(found.device)
        if total is None:
            total = found.new_zeros(len(voxels.coordinate), found.shape[1])
            times = found.new_zeros(len(voxels.coordinate), 1)
        total[index] += found
        times[index] += 1
    return total / times


def cut(cell: np.ndarray, most: int) -> list[np.ndarray]:
    """Windows of cells (m, 3), m > most: the rows of each, ascending. Every cell is in at least one."""
    windows = []
    for part in _halved(cell, np.arange(len(cell)), max(most // 2, 1)):
        low, high = cell[part].min(axis=0), cell[part].max(axis=0)
        outside = np.maximum(np.maximum(low - cell, cell - high), 0).max(axis=1)  # cells from the part's box
        outside[part] = -1  # before cells of other parts that lie in the box as well
        windows.append(nearest(outside, most))
    return windows


def _halved(cell: np.ndarray, rows: np.ndarray, most: int) -> list[np.ndarray]:
    """Rows cut in two along the longer side of x and y, or z where that is longest, until none has more than `most`."""
    if len(rows) <= most:
        return [rows]
    axis = int(np.ptp(cell[rows], axis=0).argmax())
    order = np.argsort(cell[rows, axis], kind="stable")
    middle = len(rows) // 2
    return [part for half in (order[:middle], order[middle:]) for part in _halved(cell, rows[half], most)]
