"""Compiled loops of pictures: points to pixels, and their shading. Arrays in, outputs filled, no checks.

`tests/naive.py` holds plain NumPy twins. Serial, and without fastmath, for the reasons in `moving/kernels.py`.
"""

import math

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}
_NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


@njit(**_FLAGS)
def splat(point, colour, camera, scale, size, image, depth):
    """Draw points (N, 3) float32 of colours (N, 3) uint8 as discs; the nearest wins, the first among equals.

    camera (3, 4) float64: right, up and away, in camera coordinates. scale: pixels per unit at distance 1. size: of a
    point, in units. image (H, W, 3) uint8; depth (H, W) float64: how far its pixels are, infinite where nothing is.
    """
    rows, columns = depth.shape
    for i in range(point.shape[0]):
        x, y, z = np.float64(point[i, 0]), np.float64(point[i, 1]), np.float64(point[i, 2])
        far = camera[2, 0] * x + camera[2, 1] * y + camera[2, 2] * z + camera[2, 3]
        if far <= 1e-6:
            continue
        across = (camera[0, 0] * x + camera[0, 1] * y + camera[0, 2] * z + camera[0, 3]) * scale / far + columns / 2
        down = rows / 2 - (camera[1, 0] * x + camera[1, 1] * y + camera[1, 2] * z + camera[1, 3]) * scale / far
        radius = min(max(0.5 * size * scale / far, 0.6), 12.0)
        if not (-radius < across < columns + radius and -radius < down < rows + radius):
            continue
        for row in range(max(0, math.ceil(down - radius - 0.5)), min(rows, math.floor(down + radius - 0.5) + 1)):
            for column in range(
                max(0, math.ceil(across - radius - 0.5)), min(columns, math.floor(across + radius - 0.5) + 1)
            ):
                dx, dy = column + 0.5 - across, row + 0.5 - down
                if dx * dx + dy * dy <= radius * radius and far < depth[row, column]:
                    depth[row, column] = far
                    for k in range(3):
                        image[row, column, k] = colour[i, k]


@njit(**_FLAGS)
def shade(image, depth, reach, strength):
    """Eye-dome lighting, in place: a pixel of image (H, W, 3) uint8 is darker the more of its eight neighbours at
    `reach` pixels are nearer than it, by the logarithm of depth (H, W) float64; at most by a factor of e."""
    rows, columns = depth.shape
    for row in range(rows):
        for column in range(columns):
            here = depth[row, column]
            if here == np.inf:
                continue
            behind = 0.0
            for k in range(8):
                dy, dx = _NEIGHBOURS[k]
                r = min(max(row + dy * reach, 0), rows - 1)
                c = min(max(column + dx * reach, 0), columns - 1)
                if depth[r, c] < here:
                    behind += math.log2(here) - math.log2(depth[r, c])
            factor = math.exp(-min(strength * behind, 1.0))
            for k in range(3):
                image[row, column, k] = np.uint8(image[row, column, k] * factor)
