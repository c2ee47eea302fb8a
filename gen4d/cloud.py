"""A scan's points, thinned to one a voxel and put in Morton order."""

import numpy as np

from gen4d import kernels

_BITMAP_BITS = 2**30  # 128 MiB, of which only touched pages cost
_LIMIT = 2**kernels.VOXEL_BITS


class CloudError(ValueError):
    """Points that cannot be a scan."""


def voxel_index(point: np.ndarray, voxel_m: float) -> np.ndarray:
    """Voxel (N, 3) int32 of every point (N, 3) in metres; voxel corners are multiples of `voxel_m`.

    Raises CloudError where a point lies farther out than 2^20 voxels.
    """
    if len(point) and float(np.abs(point).max()) * (1.0 / voxel_m) >= _LIMIT - 1:
        far = float(np.abs(point).max())
        raise CloudError(f"a point lies at {far:.6g} m, more than {_LIMIT * voxel_m:.6g} m out: check --units")
    out = np.empty((len(point), 3), np.int32)
    kernels.voxel_index(point, 1.0 / voxel_m, out)
    return out


def first_in_voxel(voxel: np.ndarray) -> np.ndarray:
    """Mark (N,) the first row of every distinct voxel (N, 3), in file order."""
    out = np.zeros(len(voxel), np.bool_)
    if not len(voxel):
        return out
    low = voxel.min(axis=0)
    size = (voxel.max(axis=0) - low + 1).astype(np.int64)
    if float(size[0]) * float(size[1]) * float(size[2]) <= _BITMAP_BITS:
        kernels.first_in_voxel_bitmap(voxel, low, size, np.zeros((int(size.prod()) + 63) // 64, np.uint64), out)
    else:
        table = np.zeros(1 << int(2 * len(voxel)).bit_length(), np.uint64)
        kernels.first_in_voxel_hash(morton_key(voxel), table, out)
    return out


def morton_key(voxel: np.ndarray) -> np.ndarray:
    """Morton key (N,) uint64 of every voxel (N, 3): 21 bits an axis, x lowest, origin -2^20."""
    out = np.empty(len(voxel), np.uint64)
    kernels.morton_key(voxel, out)
    return out


def thin(point: np.ndarray, voxel_m: float) -> np.ndarray:
    """Rows of the points (N, 3) that stay, one a voxel and the first in file order, sorted by Morton key.

    Keys are unique because voxels are, so the order does not depend on the sort.
    """
    voxel = voxel_index(point, voxel_m)
    row = np.flatnonzero(first_in_voxel(voxel))
    return row[np.argsort(morton_key(voxel[row]))]
