"""Every compiled loop of the generator: arrays in, `out` filled, no checks, no draws.

The callers check and allocate. `tests/naive.py` holds a plain NumPy twin of each kernel; the suite compares them jitted
and with NUMBA_DISABLE_JIT=1. Kernels are serial: parallelism is over scans, by processes, because Numba's OpenMP layer
kills forked children and a parallel float sum changes with the number of threads. No fastmath: it would let the
compiler reorder sums, and results must not depend on the processor.
"""

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SECOND_KEY = np.uint64(0xD6E8FEB86659FD93)
_BLOCK = 4096  # points a block of draw_masks: three uint16 rows and two uint8 rows stay in the first-level cache
FLOOR_LAYER = 16  # the layer that holds the floor in its middle; lower points count as layer 0
VOXEL_BITS = 20  # voxel indices lie in [-2^20, 2^20): 42 km at 2 cm


@njit(**_FLAGS)
def voxel_index(point, inverse_m, out):
    """Voxel of every point (N, 3), with voxel corners at multiples of the size whatever the scan's extent."""
    for i in range(point.shape[0]):
        for axis in range(3):
            out[i, axis] = np.int32(np.floor(np.float64(point[i, axis]) * inverse_m))


@njit(**_FLAGS)
def first_in_voxel_bitmap(voxel, low, size, bitmap, out):
    """Mark the first row of each voxel with one bit a voxel of the bounding box: 7 times faster than hashing."""
    for i in range(voxel.shape[0]):
        x = np.int64(voxel[i, 0] - low[0])
        y = np.int64(voxel[i, 1] - low[1])
        z = np.int64(voxel[i, 2] - low[2])
        cell = (x * size[1] + y) * size[2] + z
        bit = np.uint64(1) << np.uint64(cell & 63)
        word = bitmap[cell >> 6]
        out[i] = (word & bit) == 0
        bitmap[cell >> 6] = word | bit


@njit(**_FLAGS)
def first_in_voxel_hash(key, table, out):
    """Mark the first row of each key by open addressing; `table` is a power of two of zeros, at least twice the rows.

    For scans whose bounding box is too large for a bitmap, because of one far outlier for example.
    """
    last = np.uint64(table.shape[0] - 1)
    for i in range(key.shape[0]):
        tag = key[i] + np.uint64(1)  # 0 marks an empty slot
        slot = _mix(tag) & last
        while table[slot] != 0 and table[slot] != tag:
            slot = (slot + np.uint64(1)) & last
        out[i] = table[slot] == 0
        table[slot] = tag


@njit(**_FLAGS)
def _spread(value):
    """Put two zero bits before each of the 21 low bits of `value`."""
    x = np.uint64(value) & np.uint64(0x1FFFFF)
    x = (x | (x << np.uint64(32))) & np.uint64(0x1F00000000FFFF)
    x = (x | (x << np.uint64(16))) & np.uint64(0x1F0000FF0000FF)
    x = (x | (x << np.uint64(8))) & np.uint64(0x100F00F00F00F00F)
    x = (x | (x << np.uint64(4))) & np.uint64(0x10C30C30C30C30C3)
    return (x | (x << np.uint64(2))) & np.uint64(0x1249249249249249)


@njit(**_FLAGS)
def morton_key(voxel, out):
    """Interleave the bits of x, y and z (x lowest), so that neighbours in space are neighbours in order."""
    shift = np.int64(1) << np.int64(VOXEL_BITS)
    for i in range(voxel.shape[0]):
        x = _spread(voxel[i, 0] + shift)
        y = _spread(voxel[i, 1] + shift)
        z = _spread(voxel[i, 2] + shift)
        out[i] = x | (y << np.uint64(1)) | (z << np.uint64(2))


@njit(**_FLAGS)
def column_minimum(point, inverse_m, origin, out):
    """Lowest z of every column; `out` (nx, ny) comes in filled with infinity."""
    for i in range(point.shape[0]):
        x = np.int64(np.floor(np.float64(point[i, 0]) * inverse_m)) - origin[0]
        y = np.int64(np.floor(np.float64(point[i, 1]) * inverse_m)) - origin[1]
        z = np.float64(point[i, 2])
        if z < out[x, y]:
            out[x, y] = z


@njit(**_FLAGS)
def column_layers(point, inverse_m, origin, floor_m, ceiling_m, layer_m, layers, top):
    """Occupied layers of every column as bits, and its highest point, of the points below the ceiling height.

    `layers` (nx, ny) comes in as zeros and `top` filled with minus infinity. The floor lies in the middle of
    FLOOR_LAYER, so that a flat noisy floor does not fall into two layers.
    """
    for i in range(point.shape[0]):
        z = np.float64(point[i, 2])
        if z > floor_m + ceiling_m:
            continue
        x = np.int64(np.floor(np.float64(point[i, 0]) * inverse_m)) - origin[0]
        y = np.int64(np.floor(np.float64(point[i, 1]) * inverse_m)) - origin[1]
        layer = max(np.int64(np.floor((z - floor_m) / layer_m + 0.5)) + FLOOR_LAYER, 0)
        layers[x, y] |= np.uint64(1) << np.uint64(layer)
        if z > top[x, y]:
            top[x, y] = z


@njit(**_FLAGS)
def edge_distance(valid, square, out):
    """Distance in cells from the centre of every valid cell to the nearest edge of an invalid cell or of the grid.

    Two passes, exact: squared distance along y into `square` (nx, ny), then the best over x, which stops as soon as
    the x part alone is farther than the best found.
    """
    nx, ny = valid.shape
    for x in range(nx):
        run = 0
        for y in range(ny):
            run = run + 1 if valid[x, y] else 0
            square[x, y] = run
        run = 0
        for y in range(ny - 1, -1, -1):
            run = run + 1 if valid[x, y] else 0
            cells = min(square[x, y], run)
            square[x, y] = (cells - 0.5) ** 2 if cells > 0 else 0.0
    for x in range(nx):
        for y in range(ny):
            best = square[x, y]
            step = 1
            while best > 0.0:
                part = (step - 0.5) ** 2
                if part >= best:
                    break
                left = square[x - step, y] if x >= step else 0.0
                right = square[x + step, y] if x + step < nx else 0.0
                best = min(best, part + min(left, right))
                step += 1
            out[x, y] = np.sqrt(best)


@njit(**_FLAGS)
def _nearest(candidate, x, y):
    best, row = np.inf, 0
    for i in range(candidate.shape[0]):
        dx = candidate[i, 0] - x
        dy = candidate[i, 1] - y
        square = dx * dx + dy * dy
        if square < best:
            best, row = square, i
    return row


@njit(**_FLAGS)
def walk(candidate, start, draw, step_min_m, step_max_m, turn_max_rad, out):
    """Walk over candidate positions (C, 2), section 3.3; `out` (t,) gets rows, or -1 throughout where no try passes.

    `draw` (t-1, tries, 2) in [0, 1) gives each try's length and heading. The limits on length and turn hold for the
    step after snapping to the nearest candidate (the lowest row among equals), not only for the drawn one.
    """
    out[0] = start
    last_x, last_y, heading = 0.0, 0.0, 0.0
    for s in range(draw.shape[0]):
        here_x, here_y = candidate[out[s], 0], candidate[out[s], 1]
        found = False
        for j in range(draw.shape[1]):
            length = step_min_m + (step_max_m - step_min_m) * draw[s, j, 0]
            turn = 2.0 * np.pi * draw[s, j, 1] if s == 0 else heading + turn_max_rad * (2.0 * draw[s, j, 1] - 1.0)
            row = _nearest(candidate, here_x + length * np.cos(turn), here_y + length * np.sin(turn))
            dx, dy = candidate[row, 0] - here_x, candidate[row, 1] - here_y
            distance = np.hypot(dx, dy)
            if distance < step_min_m or distance > step_max_m:
                continue
            if s > 0 and abs(np.arctan2(last_x * dy - last_y * dx, last_x * dx + last_y * dy)) >= turn_max_rad:
                continue
            out[s + 1], last_x, last_y, heading, found = row, dx, dy, np.arctan2(dy, dx), True
            break
        if not found:
            out[:] = -1
            return


@njit(**_FLAGS)
def farthest(point, x, y):
    """Row of the point (N, 2) farthest from (x, y), and the square of its distance."""
    best, row = -1.0, 0
    for i in range(point.shape[0]):
        dx = point[i, 0] - x
        dy = point[i, 1] - y
        square = dx * dx + dy * dy
        if square > best:
            best, row = square, i
    return row, best


@njit(**_FLAGS)
def quantise(point, low, scale, out):
    """Points as 16-bit fractions of the extent, one row an axis: `out` (3, N). Chunk removal is defined on these."""
    for axis in range(3):
        for i in range(point.shape[0]):
            value = np.floor((np.float64(point[i, axis]) - low[axis]) * scale[axis])
            out[axis, i] = np.uint16(min(max(value, 0.0), 65535.0))


@njit(**_FLAGS)
def _mix(z):
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@njit(**_FLAGS)
def draw_masks(quantised, box, box_count, threshold, key, bits):
    """Bit f of `bits` (N,) is set where frame f keeps the point: it is in no chunk and its lot is below the threshold.

    A point's lots are 16-bit lanes of one hash of (key, point): four frames a hash. Boxes (t, B, 6) are in the units
    of `quantise`, both ends included. Per block, so that the points stay in cache while the boxes pass over them.
    """
    n = quantised.shape[1]
    cut = np.empty(_BLOCK, np.uint8)
    for begin in range(0, n, _BLOCK):
        size = min(_BLOCK, n - begin)
        qx = quantised[0, begin : begin + size]
        qy = quantised[1, begin : begin + size]
        qz = quantised[2, begin : begin + size]
        block = bits[begin : begin + size]
        _draw_lots(begin, key, threshold, box.shape[0], block)
        for f in range(box.shape[0]):
            cut[:size] = 0
            for b in range(box_count[f]):
                _cut_box(qx, qy, qz, box[f, b], cut)
            for i in range(size):
                block[i] &= np.uint8(0xFF) ^ np.uint8(cut[i] << f)


@njit(**_FLAGS)
def _cut_box(qx, qy, qz, box, cut):
    x0, y0, z0, x1, y1, z1 = box[0], box[1], box[2], box[3], box[4], box[5]
    for i in range(qx.shape[0]):
        inside = (qx[i] >= x0) & (qx[i] <= x1) & (qy[i] >= y0) & (qy[i] <= y1) & (qz[i] >= z0) & (qz[i] <= z1)
        cut[i] |= np.uint8(inside)


@njit(**_FLAGS)
def _draw_lots(begin, key, threshold, frames, block):
    limit = np.uint64(threshold)
    for i in range(block.shape[0]):
        step = np.uint64(begin + i + 1) * _GOLDEN
        lots = _mix(key + step)
        kept = np.uint8(0)
        for f in range(frames):
            if f == 4:
                lots = _mix((key ^ _SECOND_KEY) + step)
            lane = (lots >> np.uint64(16 * (f & 3))) & np.uint64(0xFFFF)
            kept |= np.uint8(lane < limit) << np.uint8(f)
        block[i] = kept


@njit(**_FLAGS)
def mask_histogram(bits, out):
    """Count points by their bit pattern: `out` (2**t,) comes in as zeros and answers every acceptance question."""
    for i in range(bits.shape[0]):
        out[bits[i]] += 1


@njit(**_FLAGS)
def pack_planes(bits, out):
    """Bit planes (t, ceil(N/8)) in numpy.packbits order, padding bits 0, from one byte a point."""
    n = bits.shape[0]
    for f in range(out.shape[0]):
        for byte in range(out.shape[1]):
            value = 0
            begin = 8 * byte
            for j in range(min(8, n - begin)):
                value |= ((bits[begin + j] >> f) & 1) << (7 - j)
            out[f, byte] = value


@njit(**_FLAGS)
def frame_rows(plane, out):
    """Indices of the set bits of one plane, ascending; `out` holds all of them. Returns how many there are."""
    count = 0
    for byte in range(plane.shape[0]):
        value = plane[byte]
        for j in range(8):
            if (value >> (7 - j)) & 1:
                out[count] = 8 * byte + j
                count += 1
    return count


@njit(**_FLAGS)
def pair_list(plane_i, plane_j, offset_i, offset_j, first, second):
    """Rows of frame i and of frame j of every point that both keep, ascending. Returns how many there are.

    Branch-free: every point writes, only kept ones advance, so `first` and `second` need one row more than points.
    """
    count = 0
    rank_i, rank_j = offset_i, offset_j
    for byte in range(plane_i.shape[0]):
        a, b = plane_i[byte], plane_j[byte]
        for j in range(8):
            in_i = (a >> (7 - j)) & 1
            in_j = (b >> (7 - j)) & 1
            first[count] = rank_i
            second[count] = rank_j
            count += in_i & in_j
            rank_i += in_i
            rank_j += in_j
    return count


@njit(**_FLAGS)
def count_bits(plane):
    """Number of set bits of one plane."""
    count = 0
    for byte in range(plane.shape[0]):
        value = plane[byte]
        while value:
            value &= value - 1
            count += 1
    return count


@njit(**_FLAGS)
def compact(plane, point, out_point, out_index):
    """Points (N, 3) that a plane keeps, and their indices, in order, branch-free; outputs have one row to spare."""
    count = 0
    for i in range(point.shape[0]):
        out_point[count, 0] = point[i, 0]
        out_point[count, 1] = point[i, 1]
        out_point[count, 2] = point[i, 2]
        out_index[count] = i
        count += (plane[i >> 3] >> (7 - (i & 7))) & 1
    return count
