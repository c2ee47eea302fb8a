"""Every compiled loop of the generator: arrays in, `out` filled, no checks, no draws.

The callers check and allocate. `tests/naive.py` holds plain NumPy twins of them, some of several kernels together; the
suite compares them jitted and with NUMBA_DISABLE_JIT=1. Kernels are serial: parallelism is over scans, by processes,
because Numba's OpenMP layer kills forked children and a parallel float sum changes with the number of threads. No
fastmath: it would let the compiler reorder sums, and results must not depend on the processor.
"""

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SECOND_KEY = np.uint64(0xD6E8FEB86659FD93)
_BLOCK = 512  # points a block of draw_masks: about half a metre of a scan, which most chunks miss or hold whole
FLOOR_LAYER = 16  # the layer that holds the floor in its middle; lower points count as layer 0
VOXEL_BITS = 20  # voxel indices lie in [-2^20, 2^20): 42 km at 2 cm


@njit(**_FLAGS)
def bounds(row, low, high):
    """Lowest and highest value of each column of (N, 3) rows, N >= 1: 20 times faster than NumPy along axis 0."""
    low[:] = row[0]
    high[:] = row[0]
    for i in range(row.shape[0]):
        for axis in range(3):
            low[axis] = min(low[axis], row[i, axis])
            high[axis] = max(high[axis], row[i, axis])


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
def morton_key(voxel, half, out):
    """Interleave the bits of x, y and z (x lowest), each counted from -2^half: neighbours in space come in a row.

    The order is the same for every `half` that holds all voxels: the bits between the sign and the highest used one
    repeat the sign.
    """
    shift = np.int64(1) << np.int64(half)
    for i in range(voxel.shape[0]):
        x = _spread(voxel[i, 0] + shift)
        y = _spread(voxel[i, 1] + shift)
        z = _spread(voxel[i, 2] + shift)
        out[i] = x | (y << np.uint64(1)) | (z << np.uint64(2))


@njit(**_FLAGS)
def pack_rows(voxel, keep, half, bits, out):
    """(Morton key, row) of every kept row as one number, the row in its low `bits`. Returns how many there are."""
    shift = np.int64(1) << np.int64(half)
    count = 0
    for i in range(voxel.shape[0]):
        if keep[i]:
            x = _spread(voxel[i, 0] + shift)
            y = _spread(voxel[i, 1] + shift)
            z = _spread(voxel[i, 2] + shift)
            key = x | (y << np.uint64(1)) | (z << np.uint64(2))
            out[count] = (key << np.uint64(bits)) | np.uint64(i)
            count += 1
    return count


@njit(**_FLAGS)
def radix_sort(value, low, high, scratch):
    """Sort numbers (N,) uint64 by their bits `low` to `high`, stably, 11 bits a pass: 5 times faster than comparing."""
    count = np.empty(2048, np.int64)
    source, target = value, scratch
    for shift in range(low, high, 11):
        count[:] = 0
        for i in range(source.shape[0]):
            count[(source[i] >> np.uint64(shift)) & np.uint64(2047)] += 1
        place = 0
        for digit in range(2048):
            place, count[digit] = place + count[digit], place
        for i in range(source.shape[0]):
            digit = (source[i] >> np.uint64(shift)) & np.uint64(2047)
            target[count[digit]] = source[i]
            count[digit] += 1
        source, target = target, source
    if (high - low + 10) // 11 % 2:
        value[:] = scratch


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
        top[x, y] = max(top[x, y], z)


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
def keeps_apart(from_x, from_y, to_x, to_y, other, apart, s):
    """Whether a disc that goes straight from one place to another in step s stays clear of other discs, which go
    straight from `other` (m, t, 2) in frame s to their places in frame s + 1 in the same time: their centres are at
    least `apart` (m,) from its centre all the way."""
    for m in range(other.shape[0]):
        x, y = from_x - other[m, s, 0], from_y - other[m, s, 1]
        dx, dy = to_x - other[m, s + 1, 0] - x, to_y - other[m, s + 1, 1] - y
        length = dx * dx + dy * dy
        along = min(max(-(x * dx + y * dy) / length, 0.0), 1.0) if length > 0.0 else 0.0
        if np.hypot(x + along * dx, y + along * dy) < apart[m]:
            return False
    return True


@njit(**_FLAGS)
def walk(candidate, start, draw, step_min_m, step_max_m, turn_max_rad, other, apart, out):
    """Walk over candidate positions (C, 2), section 3.3; `out` (t,) gets rows, or -1 throughout where no try passes.

    `draw` (t-1, tries, 2) in [0, 1) gives each try's length and heading. The limits on length and turn, and the
    distances from other discs of `keeps_apart`, hold for the step after snapping to the nearest candidate (the lowest
    row among equals), not only for the drawn one.
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
            if not keeps_apart(here_x, here_y, candidate[row, 0], candidate[row, 1], other, apart, s):
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
    of `quantise`, both ends included. Points come in Morton order, so most blocks lie wholly inside or outside a box.
    """
    n = quantised.shape[1]
    cut = np.empty(_BLOCK, np.uint8)
    low, high = np.empty(3, np.uint16), np.empty(3, np.uint16)
    for begin in range(0, n, _BLOCK):
        size = min(_BLOCK, n - begin)
        qx = quantised[0, begin : begin + size]
        qy = quantised[1, begin : begin + size]
        qz = quantised[2, begin : begin + size]
        block = bits[begin : begin + size]
        _draw_lots(begin, key, threshold, box.shape[0], block)
        low[0], high[0] = _range(qx)
        low[1], high[1] = _range(qy)
        low[2], high[2] = _range(qz)
        for f in range(box.shape[0]):
            cut[:size] = 0
            for b in range(box_count[f]):
                side = _side_of(low, high, box[f, b])
                if side == _WITHIN:
                    cut[:size] = 1
                    break
                if side == _ACROSS:
                    _cut_box(qx, qy, qz, box[f, b], cut)
            for i in range(size):
                block[i] &= np.uint8(0xFF) ^ np.uint8(cut[i] << f)


_APART, _ACROSS, _WITHIN = 0, 1, 2


@njit(**_FLAGS)
def _side_of(low, high, box):
    """Whether a block of points lies apart from a box, across its border, or within it."""
    within = True
    for axis in range(3):
        if high[axis] < box[axis] or low[axis] > box[axis + 3]:
            return _APART
        within &= low[axis] >= box[axis] and high[axis] <= box[axis + 3]
    return _WITHIN if within else _ACROSS


@njit(**_FLAGS)
def _range(values):
    low, high = values[0], values[0]
    for i in range(values.shape[0]):
        low = min(low, values[i])
        high = max(high, values[i])
    return low, high


@njit(**_FLAGS)
def _cut_box(qx, qy, qz, box, cut):
    x0, y0, z0, x1, y1, z1 = box[0], box[1], box[2], box[3], box[4], box[5]
    for i in range(qx.shape[0]):
        inside = (qx[i] >= x0) & (qx[i] <= x1) & (qy[i] >= y0) & (qy[i] <= y1) & (qz[i] >= z0) & (qz[i] <= z1)
        cut[i] |= np.uint8(inside)


@njit(**_FLAGS)
def _draw_lots(begin, key, threshold, frames, block):
    """Straight through four frames a hash, whether there are as many or not, so that it runs on whole vectors."""
    limit = np.uint64(threshold)
    low = np.uint64(0xFFFF)
    for i in range(block.shape[0]):
        lots = _mix(key + np.uint64(begin + i + 1) * _GOLDEN)
        kept = np.uint8((lots & low) < limit)
        kept |= np.uint8(((lots >> np.uint64(16)) & low) < limit) << np.uint8(1)
        kept |= np.uint8(((lots >> np.uint64(32)) & low) < limit) << np.uint8(2)
        kept |= np.uint8((lots >> np.uint64(48)) < limit) << np.uint8(3)
        block[i] = kept
    if frames > 4:
        for i in range(block.shape[0]):
            lots = _mix((key ^ _SECOND_KEY) + np.uint64(begin + i + 1) * _GOLDEN)
            kept = np.uint8((lots & low) < limit) << np.uint8(4)
            kept |= np.uint8(((lots >> np.uint64(16)) & low) < limit) << np.uint8(5)
            kept |= np.uint8(((lots >> np.uint64(32)) & low) < limit) << np.uint8(6)
            kept |= np.uint8((lots >> np.uint64(48)) < limit) << np.uint8(7)
            block[i] |= kept
    mask = np.uint8((1 << frames) - 1)
    for i in range(block.shape[0]):
        block[i] &= mask


@njit(**_FLAGS)
def mask_histogram(bits, out):
    """Count points by their bit pattern: `out` (2**t,) comes in as zeros and answers every acceptance question.

    Two tables in turn, because neighbours tend to have the same pattern and would wait for each other's count.
    """
    other = np.zeros_like(out)
    n = bits.shape[0]
    for i in range(0, n - 1, 2):
        out[bits[i]] += 1
        other[bits[i + 1]] += 1
    if n & 1:
        out[bits[n - 1]] += 1
    for i in range(out.shape[0]):
        out[i] += other[i]


@njit(**_FLAGS)
def pack_planes(words, out):
    """Bit planes (t, B) in numpy.packbits order from bytes of bits, eight to a word (B,), padded with zeros.

    A product moves the lowest bits of a word's eight bytes into its highest byte, the first byte's on top.
    """
    for f in range(out.shape[0]):
        for i in range(words.shape[0]):
            lowest = (words[i] >> np.uint64(f)) & np.uint64(0x0101010101010101)
            out[f, i] = np.uint8((lowest * np.uint64(0x8040201008040201)) >> np.uint64(56))
