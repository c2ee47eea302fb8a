"""Every compiled loop of the trainer's loader: arrays in, `out` filled, no checks beyond what is said, no randomness.

A voxel grid is kept in blocks of 8 x 8 x 8 voxels, one bit a voxel and time step. A hash table finds a block by its
packed coordinate, `word` holds its 512 bits per time step, `first_row` the row before which each word's voxels start.
Memory is bounded by the number of points, whatever their extent: a dense bitmap is sized by the farthest outlier.

Shapes: n points of a cloud in t planes, k sampled points, c capacity in blocks (at least the number of points marked),
s time steps of the grid, m rows of voxels. A plane is a packed mask, `numpy.packbits` order, padding bits 0. A `matrix`
(3, 4) float64 maps a cloud's metres to voxel units. Grid arrays: table (a power of two above 2c,) int32, zeroed before
the first cloud; block (c,) int64; word (c, s, 16) uint32; first_row (c, s, 16) int64.

nogil: loader threads run kernels side by side. No fastmath: twins in tests/naive_train.py agree bit for bit.
"""

import math

import numpy as np
from numba import njit

BLOCK_WORDS = 16  # of 32 bits; 64-bit words would need unsigned shifts, which differ between Numba and plain Python
AXIS_LIMIT = 1 << 22  # voxels from the origin: three block coordinates fit one key

_OPTIONS = {"cache": True, "nogil": True}
_BIAS = 1 << 20
_AXIS = (1 << 21) - 1


@njit(**_OPTIONS)
def _ones(word):
    """Number of set bits of a non-negative 32-bit value held in 64 bits."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) & 0xFFFFFFFF) >> 24


@njit(**_OPTIONS)
def _pack(x, y, z):
    """Key of the block that holds a voxel."""
    return (((x >> 3) + _BIAS) << 42) | (((y >> 3) + _BIAS) << 21) | ((z >> 3) + _BIAS)


@njit(**_OPTIONS)
def _slot(key, mask):
    """Where the search for a key starts: neighbouring blocks land apart."""
    mixed = key ^ ((key >> 21) * 73) ^ ((key >> 42) * 19349)
    return (mixed ^ (mixed >> 11)) & mask


@njit(**_OPTIONS)
def _find(key, table, block):
    """Number of a block, or -1 - slot where it is not there."""
    mask = table.size - 1
    slot = _slot(key, mask)
    while table[slot] != 0:
        if block[table[slot] - 1] == key:
            return np.int64(table[slot]) - 1
        slot = (slot + 1) & mask
    return np.int64(-1 - slot)


@njit(**_OPTIONS)
def mark(point, planes, time, matrix, table, block, word, count):
    """Set the bits of a cloud's kept points; plane j is time step `time` + j, so a cloud at rest is marked in one pass.

    point (n, 3) float32, planes (t, ceil(n / 8)) uint8, count blocks so far. Returns the new count, or -1 - i where the
    kept point i is not finite or lies AXIS_LIMIT voxels or more from the origin.
    """
    last_key, last = np.int64(-1), np.int64(0)
    for i in range(point.shape[0]):
        kept = False
        for j in range(planes.shape[0]):
            kept = kept or (planes[j, i >> 3] >> (7 - (i & 7))) & 1 == 1
        if not kept:
            continue
        px, py, pz = np.float64(point[i, 0]), np.float64(point[i, 1]), np.float64(point[i, 2])
        fx = matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] * pz + matrix[0, 3]
        fy = matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] * pz + matrix[1, 3]
        fz = matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] * pz + matrix[2, 3]
        if not (abs(fx) < AXIS_LIMIT and abs(fy) < AXIS_LIMIT and abs(fz) < AXIS_LIMIT):
            return np.int64(-1 - i)
        x, y, z = np.int64(math.floor(fx)), np.int64(math.floor(fy)), np.int64(math.floor(fz))
        key = _pack(x, y, z)
        if key != last_key:  # most neighbours in a cloud share a block
            last_key, last = key, _find(key, table, block)
            if last < 0:
                table[-1 - last] = count + 1
                block[count] = key
                word[count] = 0
                last = np.int64(count)
                count += 1
        bit = np.uint32(1 << (((y & 3) << 3) | (z & 7)))
        w = ((x & 7) << 1) | ((y >> 2) & 1)
        for j in range(planes.shape[0]):
            if (planes[j, i >> 3] >> (7 - (i & 7))) & 1 == 1:
                word[last, time + j, w] |= bit
    return np.int64(count)


@njit(**_OPTIONS)
def measure(block, word, count, low, size):
    """Number of voxels; low (3,) int64 gets the lowest corner of the grid's blocks, size (3,) int64 their extent."""
    rows = np.int64(0)
    for axis in range(3):
        low[axis], size[axis] = AXIS_LIMIT, -AXIS_LIMIT
    for b in range(count):
        for axis in range(3):
            value = (((block[b] >> (42 - 21 * axis)) & _AXIS) - _BIAS) << 3
            low[axis], size[axis] = min(low[axis], value), max(size[axis], value + 8)
        for j in range(word.shape[1]):
            for w in range(BLOCK_WORDS):
                rows += _ones(np.int64(word[b, j, w]))
    for axis in range(3):
        size[axis] = max(size[axis] - low[axis], 0)
    return rows


@njit(**_OPTIONS)
def emit(block, word, count, low, batch_index, row, out, first_row):
    """Write one row per set voxel: blocks in the order in which points touched them, then time, x, y, z ascending.

    low (3,) int64 is subtracted; out (m, 4) int32 gets batch_index, x, y, z from row `row` on, out (m, 5) also the time
    step; first_row is filled. The caller has made out long enough (`measure`). Returns the row after the last.
    """
    for b in range(count):
        x0 = (((block[b] >> 42) - _BIAS) << 3) - low[0]
        y0 = ((((block[b] >> 21) & _AXIS) - _BIAS) << 3) - low[1]
        z0 = (((block[b] & _AXIS) - _BIAS) << 3) - low[2]
        for j in range(word.shape[1]):
            for w in range(BLOCK_WORDS):
                first_row[b, j, w] = row
                bits = np.int64(word[b, j, w])
                while bits:
                    bit = _ones((bits & -bits) - 1)
                    out[row, 0] = batch_index
                    out[row, 1] = x0 + (w >> 1)
                    out[row, 2] = y0 + ((w & 1) << 2) + (bit >> 3)
                    out[row, 3] = z0 + (bit & 7)
                    if out.shape[1] == 5:
                        out[row, 4] = j
                    row += 1
                    bits &= bits - 1
    return np.int64(row)


@njit(**_OPTIONS)
def find_rows(point, plane, time, matrix, index, grid, out):
    """Voxel row of each asked point at one time step, -1 where that step's plane does not keep it.

    point (n, 3) float32, plane (ceil(n / 8),) uint8, matrix as given to `mark`, index (k,) int64 rows of point, grid =
    (table, block, word, first_row) after `emit`, out (k,) int64.
    """
    table, block, word, first_row = grid
    for s in range(index.size):
        i = index[s]
        if (plane[i >> 3] >> (7 - (i & 7))) & 1 == 0:
            out[s] = -1
            continue
        px, py, pz = np.float64(point[i, 0]), np.float64(point[i, 1]), np.float64(point[i, 2])
        x = np.int64(math.floor(matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] * pz + matrix[0, 3]))
        y = np.int64(math.floor(matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] * pz + matrix[1, 3]))
        z = np.int64(math.floor(matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] * pz + matrix[2, 3]))
        b = _find(_pack(x, y, z), table, block)
        w = ((x & 7) << 1) | ((y >> 2) & 1)
        below = (1 << (((y & 3) << 3) | (z & 7))) - 1
        out[s] = first_row[b, time, w] + _ones(np.int64(word[b, time, w]) & below)


@njit(**_OPTIONS)
def count_common(first, second):
    """Number of bits set in both planes, each (b,) uint8."""
    total = np.int64(0)
    for i in range(first.size):
        total += _ones(np.int64(first[i] & second[i]))
    return total


@njit(**_OPTIONS)
def select_common(first, second, rank, out):
    """Point indices of the bits set in both planes that have the given ranks.

    first, second (b,) uint8, rank (k,) int64 ascending, each below `count_common`, repeats allowed, out (k,) int64.
    """
    seen, s = np.int64(0), 0
    for i in range(first.size):
        byte = np.int64(first[i] & second[i])
        ones = _ones(byte)
        while s < rank.size and rank[s] < seen + ones:
            skip, bit = rank[s] - seen, 7
            while skip > 0 or (byte >> bit) & 1 == 0:
                skip -= (byte >> bit) & 1
                bit -= 1
            out[s] = i * 8 + 7 - bit
            s += 1
        seen += ones


@njit(**_OPTIONS)
def bounds(point, low, high):
    """Least and greatest of each axis: point (n, 3), n above 0, into low and high (3,) of its type. NaN anywhere in an
    axis makes both NaN, as `numpy.min` has it."""
    for axis in range(3):
        low[axis] = high[axis] = point[0, axis]
    for i in range(1, point.shape[0]):
        for axis in range(3):
            value = point[i, axis]
            if not value >= low[axis]:
                low[axis] = value if low[axis] == low[axis] else low[axis]
            if not value <= high[axis]:
                high[axis] = value if high[axis] == high[axis] else high[axis]


@njit(**_OPTIONS)
def displace(point, noise, low, step_m, size_m, out):
    """Points moved by trilinear interpolation of a field of noise.

    point (n, 3) float32, noise (a, b, c, 3) float32 on nodes at low + step_m * (index - 1), where low (3,) float64 and
    the extents enclose the points: index of each axis in [0, extent - 1). size_m multiplies it; out (n, 3) float32.
    """
    for i in range(point.shape[0]):
        px, py, pz = np.float64(point[i, 0]), np.float64(point[i, 1]), np.float64(point[i, 2])
        fx, fy, fz = (px - low[0]) / step_m + 1, (py - low[1]) / step_m + 1, (pz - low[2]) / step_m + 1
        x, y, z = np.int64(math.floor(fx)), np.int64(math.floor(fy)), np.int64(math.floor(fz))
        fx, fy, fz = fx - x, fy - y, fz - z
        sx, sy, sz = 0.0, 0.0, 0.0
        for dx in range(2):
            for dy in range(2):
                for dz in range(2):
                    weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * (fz if dz else 1 - fz)
                    sx += weight * noise[x + dx, y + dy, z + dz, 0]
                    sy += weight * noise[x + dx, y + dy, z + dz, 1]
                    sz += weight * noise[x + dx, y + dy, z + dz, 2]
        out[i, 0], out[i, 1], out[i, 2] = px + size_m * sx, py + size_m * sy, pz + size_m * sz
