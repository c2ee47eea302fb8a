"""What a forward pass of a U-Net costs in memory, counted layer by layer from the voxels of its levels.

A convolution keeps its input and the index pairs of its level, a norm its input, a ReLU its output (tests compare the
sum with what autograd really keeps). spconv addresses bytes of one tensor with 32 bits, so the largest counts too.
"""

import numpy as np

from train.inputs.voxels import Voxels
from train.nets.unet import NetShape
from train.run.memory import Forward


def forward_cost(shape: NetShape, dims: int, voxels: Voxels, element: int) -> Forward:
    """The cost of one forward, given the bytes of a number."""
    counts = level_counts(voxels, shape.levels)
    widest = max(rows * channels for rows, channels in zip(counts, widths(shape), strict=True))
    kept = kept_floats(shape, counts) * element + pair_bytes(dims, counts)
    return Forward(dims, counts[0], kept, widest * element, pair_bytes(dims, counts))


def widths(shape: NetShape) -> list[int]:
    """Most channels that a convolution reads or writes at level 0, 1, ..: of an encoder's, a decoder's joined or an
    inverse convolution's, which is addressed by the rows of the finer level."""
    skips = (shape.stem, *shape.planes[: shape.levels - 1])
    most = [shape.stem] * (shape.levels + 1)
    for level in range(shape.levels):
        most[level + 1] = max(most[level + 1], skips[level], shape.planes[level])
        most[level] = max(most[level], skips[level])
    below = shape.planes[shape.levels - 1]
    for stage, level in enumerate(reversed(range(shape.levels)), start=shape.levels):
        most[level] = max(most[level], below, shape.planes[stage] + skips[level])
        below = shape.planes[stage]
    return most


def level_counts(voxels: Voxels, levels: int) -> list[int]:
    """Voxels at level 0, 1, .. `levels`: every level halves x, y and z, and keeps time."""
    coordinate = voxels.coordinate.numpy().astype(np.int64)
    shift = np.array([0, 1, 1, 1, 0][: coordinate.shape[1]])
    counts = []
    for level in range(levels + 1):
        key = np.zeros(len(coordinate), np.int64)
        for column in (coordinate >> (shift * level)).T:
            key = key * (int(column.max(initial=0)) + 1) + column
        counts.append(len(np.unique(key)))
    return counts


def pair_bytes(dims: int, voxels: list[int]) -> int:
    """The index pairs of one forward of a U-Net, given the voxels of each level."""
    taps = 27 if dims == 3 else 30
    return 4 * 2 * (taps * sum(voxels) + 8 * sum(voxels[:-1]))


def kept_floats(shape: NetShape, voxels: list[int]) -> int:
    """How many numbers autograd keeps of one forward of a U-Net, given the voxels of each level."""
    floats = 0
    widths = (shape.stem, *shape.planes[: shape.levels - 1])
    floats += 2 * shape.stem * voxels[0]
    for level in range(shape.levels):
        floats += 2 * widths[level] * voxels[level + 1]
        floats += _blocks(widths[level], shape.planes[level], shape.layers[level]) * voxels[level + 1]
    for stage, level in enumerate(reversed(range(shape.levels)), start=shape.levels):
        width, joined = shape.planes[stage], shape.planes[stage] + widths[level]
        floats += (2 * width + joined + _blocks(joined, width, shape.layers[stage])) * voxels[level]
    return floats


def _blocks(c_in: int, c_out: int, count: int) -> int:
    """Numbers a voxel that a stage's blocks keep: of each two convolutions, norms and ReLUs, and of its shortcut."""
    return 4 * c_out * count + (c_out if c_in != c_out else 0)
