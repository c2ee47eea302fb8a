"""Compiled loops over the masks and points of sequences: arrays in, outputs filled, no checks, no draws.

The callers in `gen4d.sequence` check and allocate. `tests/naive.py` holds plain NumPy twins; the suite
compares them jitted and with NUMBA_DISABLE_JIT=1. Serial, and without fastmath, for the reasons in `moving/kernels.py`.
"""

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_FLAGS)
def pair_list(plane_i, plane_j, offset_i, offset_j, first, second):
    """Rows of frame i and of frame j of every point that both keep, ascending. Returns how many there are.

    Branch-free within a byte: every point writes, only kept ones advance, so `first` and `second` need 8 rows more
    than there are points. Bytes that no point of both frames is in, as chunks leave them, only move the ranks.
    Indices are unsigned because a signed one is tested for wrapping around.
    """
    one = np.uint64(1)
    count = np.uint64(0)
    rank_i, rank_j = np.int32(offset_i), np.int32(offset_j)
    for byte in range(plane_i.shape[0]):
        a, b = np.int64(plane_i[byte]), np.int64(plane_j[byte])  # uncompiled, bytes would make counters of 8 bits
        if a & b == 0:
            rank_i += _ones(a)
            rank_j += _ones(b)
            continue
        for j in range(8):
            in_i = (a >> (7 - j)) & 1
            in_j = (b >> (7 - j)) & 1
            first[count] = rank_i
            second[count] = rank_j
            count += np.uint64(in_i & in_j) & one
            rank_i += np.int32(in_i)
            rank_j += np.int32(in_j)
    return np.int64(count)


@njit(**_FLAGS)
def _ones(byte):
    """Number of set bits of a byte."""
    x = np.int32(byte)
    x = x - ((x >> 1) & 0x55)
    x = (x & 0x33) + ((x >> 2) & 0x33)
    return np.int32((x + (x >> 4)) & 0x0F)


@njit(**_FLAGS)
def count_bits(plane):
    """Number of set bits of one plane."""
    count = 0
    for byte in range(plane.shape[0]):
        count += _ones(plane[byte])
    return count


@njit(**_FLAGS)
def compact(plane, point, out_point, out_index):
    """Points (N, 3) that a plane keeps, and their indices, in order; outputs have 8 rows to spare.

    Branch-free: every point is written, only kept ones advance. Whole bytes first, so that their loop is unrolled.
    """
    count = np.uint64(0)
    whole = point.shape[0] >> 3
    for byte in range(whole):
        value = np.int64(plane[byte])
        if value == 0:
            continue
        for j in range(8):
            i = 8 * byte + j
            out_point[count, 0] = point[i, 0]
            out_point[count, 1] = point[i, 1]
            out_point[count, 2] = point[i, 2]
            out_index[count] = i
            count += np.uint64((value >> (7 - j)) & 1)
    for i in range(8 * whole, point.shape[0]):
        if (np.int64(plane[whole]) >> (7 - (i & 7))) & 1:
            out_point[count] = point[i]
            out_index[count] = i
            count += np.uint64(1)
    return np.int64(count)


@njit(**_FLAGS)
def transform(point, pose, out):
    """Points (N, 3) under a pose (4, 4) float32: computed in float64, rounded once. `out` may be `point`."""
    for i in range(point.shape[0]):
        x, y, z = np.float64(point[i, 0]), np.float64(point[i, 1]), np.float64(point[i, 2])
        for axis in range(3):
            turned = pose[axis, 0] * x + pose[axis, 1] * y + pose[axis, 2] * z
            out[i, axis] = np.float32(turned + pose[axis, 3])


@njit(**_FLAGS)
def _slot(x, y, z, last):
    """Slot of a cell in a table of last + 1 slots, a power of two."""
    mixed = (x * np.int64(73856093)) ^ (y * np.int64(19349663)) ^ (z * np.int64(83492791))
    return (mixed ^ (mixed >> np.int64(15))) & last


@njit(**_FLAGS)
def link_cells(point, inverse_m, head, following):
    """Chains of the points (N, 3) of each cell, ascending: head (a power of two) comes in as -1, following (N,) is -1
    at a chain's end. Cells may share a chain: those who walk it go by distance."""
    last = np.int64(head.shape[0] - 1)
    for i in range(point.shape[0] - 1, -1, -1):
        x = np.int64(np.floor(np.float64(point[i, 0]) * inverse_m))
        y = np.int64(np.floor(np.float64(point[i, 1]) * inverse_m))
        z = np.int64(np.floor(np.float64(point[i, 2]) * inverse_m))
        slot = _slot(x, y, z, last)
        following[i] = head[slot]
        head[slot] = i


@njit(**_FLAGS)
def nearest(point, other, radius, inverse_m, head, following, out):
    """Row of the nearest of the other points (M, 3) within the radius of each point (N, 3), the lowest of equal ones,
    -1 for none. The other points' cells are linked in head and following; a cell is at least the radius wide."""
    last = np.int64(head.shape[0] - 1)
    limit = radius * radius
    for i in range(point.shape[0]):
        px, py, pz = np.float64(point[i, 0]), np.float64(point[i, 1]), np.float64(point[i, 2])
        x = np.int64(np.floor(px * inverse_m))
        y = np.int64(np.floor(py * inverse_m))
        z = np.int64(np.floor(pz * inverse_m))
        best, row = limit, np.int64(-1)
        for dx in range(-1, 2):
            for dy in range(-1, 2):
                for dz in range(-1, 2):
                    j = np.int64(head[_slot(x + dx, y + dy, z + dz, last)])
                    while j >= 0:
                        ex, ey, ez = other[j, 0] - px, other[j, 1] - py, other[j, 2] - pz
                        square = ex * ex + ey * ey + ez * ez
                        if square < best or (square == best and (row < 0 or j < row)):
                            best, row = square, j
                        j = np.int64(following[j])
        out[i] = row


@njit(**_FLAGS)
def keep_mutual(forth, back, first, second):
    """Pairs of rows that are each other's nearest, ascending in the first. Returns how many."""
    count = 0
    for i in range(forth.shape[0]):
        j = forth[i]
        if j >= 0 and back[j] == i:
            first[count] = i
            second[count] = j
            count += 1
    return count
