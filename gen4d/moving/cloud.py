"""A scan's points, thinned to one a voxel and put in Morton order."""

import numpy as np

from gen4d.moving import kernels

_BITMAP_BITS = 2**30  # 128 MiB, of which only touched pages cost
_LIMIT = 2**kernels.VOXEL_BITS


class CloudError(ValueError):
    """Points that cannot be a scan."""


def bounds(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of each column of (N, 3) rows, N >= 1."""
    low, high = np.empty(3, row.dtype), np.empty(3, row.dtype)
    kernels.bounds(row, low, high)
    return low, high


def voxel_index(point: np.ndarray, voxel_m: float) -> np.ndarray:
    """Voxel (N, 3) int32 of every point (N, 3) in metres; voxel corners are multiples of `voxel_m`.

    Raises CloudError where a point lies farther out than 2^20 voxels.
    """
    far = float(np.abs(bounds(point)).max()) if len(point) else 0.0
    if far * (1.0 / voxel_m) >= _LIMIT - 1:
        raise CloudError(
            f"a point lies {far:.6g} m from the origin, the limit is {_LIMIT * voxel_m:.6g} m: check --units"
        )
    out = np.empty((len(point), 3), np.int32)
    kernels.voxel_index(point, 1.0 / voxel_m, out)
    return out


def first_in_voxel(voxel: np.ndarray) -> np.ndarray:
    """Mark (N,) the first row of every distinct voxel (N, 3), in file order."""
    out = np.zeros(len(voxel), np.bool_)
    if not len(voxel):
        return out
    low, high = bounds(voxel)
    size = (high - low + 1).astype(np.int64)
    if float(size[0]) * float(size[1]) * float(size[2]) <= _BITMAP_BITS:
        kernels.first_in_voxel_bitmap(voxel, low, size, np.zeros((int(size.prod()) + 63) // 64, np.uint64), out)
    else:
        table = np.zeros(1 << int(2 * len(voxel)).bit_length(), np.uint64)
        kernels.first_in_voxel_hash(morton_key(voxel), table, out)
    return out


def morton_key(voxel: np.ndarray) -> np.ndarray:
    """Morton key (N,) uint64 of every voxel (N, 3): 21 bits an axis, x lowest, each counted from -2^20."""
    out = np.empty(len(voxel), np.uint64)
    kernels.morton_key(voxel, kernels.VOXEL_BITS, out)
    return out


def thin(point: np.ndarray, voxel_m: float) -> np.ndarray:
    """Rows of the points (N, 3) that stay, one a voxel and the first in file order, sorted by Morton key.

    Keys are unique because voxels are, so the order does not depend on the sort. Where a key and its row fit into one
    number, numbers are sorted in place of rows, which takes a tenth of the time.
    """
    voxel = voxel_index(point, voxel_m)
    keep = first_in_voxel(voxel)
    half = int(np.abs(bounds(voxel)).max()).bit_length() if len(voxel) else 0
    bits = len(voxel).bit_length()
    if 3 * (half + 1) + bits > 64:
        row = np.flatnonzero(keep)
        return row[np.argsort(morton_key(voxel[row]))]
    packed = np.empty(len(voxel), np.uint64)
    packed = packed[: kernels.pack_rows(voxel, keep, half, bits, packed)]
    kernels.radix_sort(packed, bits, bits + 3 * (half + 1), np.empty_like(packed))
    return (packed & np.uint64((1 << bits) - 1)).astype(np.int64)
