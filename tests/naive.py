"""Plain NumPy twins of the kernels, one of the same name each, and what the reference pipelines share.

A twin is written to be seen right, not to be fast: integers and bools must equal the kernel's exactly, floats to 1e-12
(the enclosing circle to 1e-9 of the points' extent). Twins check nothing: the kernels' callers guarantee finite points,
voxels within +-2^20, every point's column inside the grid, at most 8 frames.

Conventions: z up, metres, radians; `(nx, ny)` grids are indexed [x, y]; arithmetic in float64 unless said otherwise.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's increment
LATE_FRAMES = 0xD6E8FEB86659FD93  # separates the lanes of frames 4-7 from those of frames 0-3
_FLOOR_LAYER = 16  # the layer in whose middle the floor lies

STEP_MIN_M, STEP_MAX_M = 0.30, 0.90  # 4DContrast, section 3.3
TURN_MAX_RAD = math.radians(150)
COMMON_SHARE = 0.30  # of the scan's points, and of the shape's, that all frames together must keep
FRAME_SHARE = 0.50  # of all points that every frame must keep


# Points to voxels and columns


def voxel_index(point, inverse_m):
    """The voxel (N, 3) int32 of each point (N, 3) float32; voxel (0, 0, 0) starts at the origin."""
    return np.floor(point.astype(np.float64) * inverse_m).astype(np.int32)


def first_in_voxel(voxel):
    """True (N,) at the first row, in file order, of each distinct voxel (N, 3) int32."""
    first = np.zeros(len(voxel), bool)
    seen = set()
    for row, key in enumerate(map(tuple, voxel.tolist())):
        first[row] = key not in seen
        seen.add(key)
    return first


def morton_key(voxel):
    """Interleaved bits (N,) uint64 of voxels (N, 3) int32: key bit 3 b + a is bit b of axis a, offset by 2^20."""
    shifted = (voxel.astype(np.int64) + 2**20).astype(np.uint64)
    key = np.zeros(len(voxel), np.uint64)
    for bit in range(21):
        for axis in range(3):
            key |= ((shifted[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return key


def columns(point, inverse_m, origin):
    """The grid column of each point, a tuple of two (N,) int64, for grids whose first column is `origin` (2,)."""
    index = np.floor(point[:, :2].astype(np.float64) * inverse_m).astype(np.int64) - np.asarray(origin, np.int64)
    return index[:, 0], index[:, 1]


def column_minimum(point, inverse_m, origin, shape):
    """The lowest z (nx, ny) float64 of each column, +inf where no point is."""
    lowest = np.full(shape, np.inf)
    np.minimum.at(lowest, columns(point, inverse_m, origin), point[:, 2].astype(np.float64))
    return lowest


def column_layers(point, inverse_m, origin, shape, floor_m, ceiling_m, layer_m):
    """Occupied layers (nx, ny) uint64, one bit each, and highest z (nx, ny) float64, -inf where none, of each column.

    Points more than `ceiling_m` above the floor do not count; what is below layer 0 counts as layer 0.
    """
    point = point[point[:, 2].astype(np.float64) <= floor_m + ceiling_m]
    height = point[:, 2].astype(np.float64)
    layer = np.floor((height - floor_m) / layer_m + 0.5).astype(np.int64) + _FLOOR_LAYER
    bit = np.uint64(1) << np.maximum(layer, 0).astype(np.uint64)
    layers, top = np.zeros(shape, np.uint64), np.full(shape, -np.inf)
    np.bitwise_or.at(layers, columns(point, inverse_m, origin), bit)
    np.maximum.at(top, columns(point, inverse_m, origin), height)
    return layers, top


# Levelling


def lowest_rows(point, low, inverse_m, shape):
    """The row (nx, ny) int32 of the lowest point of each column, the first of equals, -1 where there is none."""
    place = ((point[:, :2].astype(np.float64) - low) * inverse_m).astype(np.int64)
    rows = np.full(shape, -1, np.int32)
    for column in set(map(tuple, place.tolist())):
        inside = np.flatnonzero((place == column).all(axis=1))
        rows[column] = inside[np.argmin(point[inside, 2])]
    return rows


def slope_votes(lowest, slope, bin_m, bins):
    """How many heights (S,) int64 of the points (C, 3) over each slope (S, 2) four bins in a row hold at most."""
    votes = np.zeros(len(slope), np.int64)
    for number, (a, b) in enumerate(slope.tolist()):
        height = lowest[:, 2] - lowest[:, 0] * a - lowest[:, 1] * b
        bin_of = np.floor(height * (1.0 / bin_m)).astype(np.int64) + bins // 2
        bin_of = bin_of[(bin_of >= 0) & (bin_of < bins)]
        votes[number] = max(((bin_of >= first) & (bin_of < first + 4)).sum() for first in range(-4, bins))
    return votes


def off_plane(point, plane):
    """Height (N,) of points (N, 3) above z = plane[0] x + plane[1] y + plane[2]."""
    return point[:, 2] - plane[0] * point[:, 0] - plane[1] * point[:, 1] - plane[2]


def near_plane(point, low, inverse_m, plane, width_m):
    """The points (M, 3) float64 near a plane, x and y from `low`, and the number (M,) int32 of their columns, which are
    numbered in the order in which they occur."""
    local = point.astype(np.float64) - [*low, 0.0]
    local = local[np.abs(off_plane(local, plane)) < width_m]
    numbers = {}
    column = [
        numbers.setdefault(tuple(place), len(numbers)) for place in (local[:, :2] * inverse_m).astype(int).tolist()
    ]
    return local, np.array(column, np.int32)


def column_sums(near, column, plane, width_m, columns):
    """Sums (C, 4) of x, y, z and 1 over each column's points (M, 3) near a plane."""
    sums = np.zeros((columns, 4))
    inside = np.abs(off_plane(near, plane)) < width_m
    np.add.at(sums, column[inside], np.column_stack([near[inside], np.ones(inside.sum())]))
    return sums


# Free space and trajectories


def edge_distance(valid):
    """Cells (nx, ny) float64 from a valid cell's centre to the nearest edge of an invalid cell; 0 for invalid cells.

    Everything outside the grid is invalid. One ring stands for it: no cell further out is nearer.
    """
    padded = np.pad(valid, 1)
    wall = np.argwhere(~padded)
    distance = np.zeros(padded.shape)
    for cell in np.argwhere(padded):
        gap = np.maximum(np.abs(wall - cell) - 0.5, 0)
        distance[tuple(cell)] = np.hypot(gap[:, 0], gap[:, 1]).min()
    return distance[1:-1, 1:-1]


def walk(candidate, start, draw, step_min, step_max, turn_max_rad, others=()):
    """Candidate rows (t,) int64 that a walk from row `start` visits, or all -1 where a step finds none.

    others: (position (t, 2), least distance) of discs that go straight from frame to frame and are kept clear of.
    `candidate` (C, 2) float64 metres, `draw` (t - 1, tries, 2) float64 in [0, 1): step length and heading of each try.
    """
    path = np.full(len(draw) + 1, -1, np.int64)
    path[0] = start
    previous = None
    for step, tries in enumerate(draw):
        current = candidate[path[step]]
        for try_draw in tries.tolist():
            target = current + _aim(try_draw, previous, step_min, step_max, turn_max_rad)
            offset = candidate - target
            row = int(np.argmin(offset[:, 0] ** 2 + offset[:, 1] ** 2))
            snapped = candidate[row] - current
            clear = all(_least_gap(current - p[step], candidate[row] - p[step + 1]) >= far for p, far in others)
            if clear and _may_step(previous, snapped, step_min, step_max, turn_max_rad):
                path[step + 1], previous = row, snapped
                break
        else:
            return np.full(len(path), -1, np.int64)
    return path


def view_chain(point, draw, rotate_deg, shift, scale, chance):
    """Poses (t, 4, 4) of STRL's Eq. 2: points (N, 3) turned, shifted and scaled from frame to frame, by moving them.

    draw (t - 1, 10) in [0, 1): which of the three are applied, angles, shifts, factor.
    """
    seen, poses = [point.astype(np.float64)], [np.eye(4)]
    for applied, angle, by, size in zip(draw[:, :3], draw[:, 3:6], draw[:, 6:9], draw[:, 9], strict=True):
        before, step = seen[-1], np.eye(3)
        if applied[0] < chance:
            for axis, turn in enumerate(np.radians(rotate_deg) * (2 * angle - 1)):
                step = _turn_about(axis, turn) @ step
        if applied[2] < chance:
            step = (scale[0] + (scale[1] - scale[0]) * size) * step
        middle = before.mean(axis=0)
        after = (before - middle) @ step.T + middle
        if applied[1] < chance:
            after = after + shift * np.ptp(before, axis=0) * (2 * by - 1)
        seen.append(after)
        poses.append(_pose_between(seen[0], after))
    return np.stack(poses)


def _turn_about(axis, angle):
    """The rotation (3, 3) about x, y or z."""
    out, (i, j) = np.eye(3), [(1, 2), (2, 0), (0, 1)][axis]
    out[[i, i, j, j], [i, j, i, j]] = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    return out


def _pose_between(first, second):
    """The affine map (4, 4) that takes points (N, 3) to others, by least squares."""
    out = np.eye(4)
    out[:3] = np.linalg.lstsq(np.c_[first, np.ones(len(first))], second, rcond=None)[0].T
    return out


def _least_gap(start, end):
    """Least distance from the origin of what goes straight from `start` to `end`, both (2,)."""
    way = end - start
    square = way @ way
    share = np.clip(-(start @ way) / square, 0, 1) if square else 0.0
    return np.linalg.norm(start + share * way)


def _aim(try_draw, previous, step_min, step_max, turn_max_rad):
    """The step (2,) that one try aims at."""
    length = step_min + (step_max - step_min) * try_draw[0]
    if previous is None:
        heading = 2 * math.pi * try_draw[1]
    else:
        heading = math.atan2(previous[1], previous[0]) + turn_max_rad * (2 * try_draw[1] - 1)
    return np.array([length * math.cos(heading), length * math.sin(heading)])


def _may_step(previous, snapped, step_min, step_max, turn_max_rad):
    """Whether a snapped step (2,) obeys the limits on its length and on its turn from the previous one."""
    if not step_min <= math.hypot(snapped[0], snapped[1]) <= step_max:
        return False
    if previous is None:
        return True
    cross = previous[0] * snapped[1] - previous[1] * snapped[0]
    dot = previous[0] * snapped[0] + previous[1] * snapped[1]
    return abs(math.atan2(cross, dot)) < turn_max_rad


def enclosing_circle(point):
    """The smallest circle (x, y, radius) around points (N, 2) float64, N >= 1; no point lies further out than radius.

    The circle of a few support points grows: the point furthest outside joins them, those not needed leave. When none
    is outside, the circle is the smallest of a subset and encloses all, hence the smallest of all.
    """
    base = point[0]
    local = point - base
    centre, support = _circle_of_few(local[:1])
    radius = 0.0
    while True:
        furthest = local[np.argmax(np.hypot(*(local - centre).T))]
        few = np.vstack([support, furthest])
        grown, grown_support = _circle_of_few(few)
        grown_radius = np.hypot(*(few - grown).T).max()
        if not grown_radius > radius:
            break
        centre, support, radius = grown, grown_support, grown_radius
    centre = centre + base
    return float(centre[0]), float(centre[1]), float(np.hypot(*(point - centre).T).max())


def _circle_of_few(point):
    """Centre (2,) of the smallest circle around at most four points, and the one to three of them that define it.

    Every centre encloses all points with the largest distance as radius: the best centre is the one where it is least.
    Of two diagonals with one middle, only the longer defines the circle: those that do lie on it.
    """
    best = (math.inf, None, None)
    for size in (1, 2, 3):
        for chosen in map(np.array, itertools.combinations(point, size)):
            centre = circumcentre(chosen)
            radius = math.inf if centre is None else np.hypot(*(point - centre).T).max()
            if radius < best[0] and np.hypot(*(chosen - centre).T).max() >= radius * (1 - 1e-9):
                best = (radius, centre, chosen)
    return best[1], best[2]


def circumcentre(point):
    """The point (2,) as far from each of one, two or three points (k, 2), or None where three lie on a line."""
    if len(point) < 3:
        return point.mean(axis=0)
    side = point[1:] - point[0]
    cross = side[0, 0] * side[1, 1] - side[0, 1] * side[1, 0]
    if cross == 0:
        return None
    square = (side**2).sum(axis=1)
    x = side[1, 1] * square[0] - side[0, 1] * square[1]
    y = side[0, 0] * square[1] - side[1, 0] * square[0]
    return point[0] + np.array([x, y]) / (2 * cross)


# Masks


def quantise(point, low, extent):
    """Points (N, 3) float32 as (3, N) uint16 in the box that starts at `low` (3,) and is `extent` (3,) metres large."""
    scale = np.array([65535 / side if side > 0 else 0.0 for side in extent])
    step = np.floor((point.astype(np.float64) - low) * scale)
    return np.ascontiguousarray(np.clip(step, 0, 65535).astype(np.uint16).T)


def mixed(count, key):
    """Hash (N,) uint64 of each of `count` points: SplitMix64's finaliser over a sequence that starts at the key."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def lane(count, frame, key):
    """Sixteen bits (N,) uint64 that decide whether one frame samples each of `count` points; a hash serves 4 frames."""
    hashed = mixed(count, key if frame < 4 else int(key) ^ LATE_FRAMES)
    return (hashed >> np.uint64(16 * (frame % 4))) & np.uint64(0xFFFF)


def draw_masks(quantised, box, box_count, threshold, key):
    """Bits (N,) uint8: bit f is set where frame f keeps the point.

    A frame keeps what lies in none of its boxes, rows (low x, y, z, high x, y, z) of `box` (t, B, 6) uint16 with both
    ends inclusive, of which the first `box_count[f]` count, and whose lane is below `threshold` of 65536.
    """
    bits = np.zeros(quantised.shape[1], np.uint8)
    for frame, count in enumerate(box_count):
        kept = lane(len(bits), frame, key) < threshold
        for row in box[frame, :count]:
            inside = (quantised >= row[:3, None]) & (quantised <= row[3:, None])
            kept &= ~inside.all(axis=0)
        bits |= kept.astype(np.uint8) << np.uint8(frame)
    return bits


def mask_histogram(bits, t):
    """How many points (2^t,) int64 have each bit pattern."""
    return np.array([(bits == pattern).sum() for pattern in range(2**t)], np.int64)


def pack_planes(bits, t):
    """One bit plane a frame, (t, ceil(N / 8)) uint8, first point in the highest bit, padding bits 0."""
    return np.array([np.packbits((bits >> np.uint8(frame)) & np.uint8(1)) for frame in range(t)], np.uint8)


def frame_rows(plane, count):
    """The points (K,) int32, ascending, that a plane (B,) uint8 over `count` points keeps."""
    return np.flatnonzero(np.unpackbits(plane, count=count)).astype(np.int32)


def masks(planes, count):
    """Which of `count` points each plane (t, B) keeps, (t, count) bool."""
    return np.unpackbits(planes, axis=1, count=count).astype(bool)


def pair_lists(planes, count, offset):
    """Corresponding rows (first (K,), second (K,)) int32 of every two frames, in order (0, 1), (0, 2) .. (1, 2) ..

    A point's row in a frame is `offset` (t,) int32 plus the number of points before it that the frame keeps.
    """
    rows = [frame_rows(plane, count) for plane in planes]
    pairs = []
    for i, j in itertools.combinations(range(len(planes)), 2):
        _, first, second = np.intersect1d(rows[i], rows[j], assume_unique=True, return_indices=True)
        pairs.append(((first + int(offset[i])).astype(np.int32), (second + int(offset[j])).astype(np.int32)))
    return pairs


# What the reference pipelines share: their input, their output, and the poses


class Plan(NamedTuple):
    """All that is drawn for one sequence of t frames."""

    start_draw: float  # in [0, 1): the walk starts at candidate row int(start_draw * C)
    walk_draw: np.ndarray  # (t - 1, tries, 2) float64 in [0, 1)
    yaw_rad: float  # of the shape in frames 0 and 1
    box: np.ndarray  # (t, B, 6) uint16, in the scan's quantised coordinates
    box_count: np.ndarray  # (t,) int64
    threshold: int  # of 65536: the share of points that sampling keeps
    scan_key: int
    shape_key: int


class Prepared(NamedTuple):
    """A scan, ready for sequences; column (ix, iy) covers (ix + origin_x) * cell_m to (ix + origin_x + 1) * cell_m."""

    cloud: np.ndarray  # (N, 3) float32, one vertex a voxel, in Morton order
    valid: np.ndarray  # (nx, ny) bool
    origin: np.ndarray  # (2,) int32
    distance: np.ndarray  # (nx, ny) float64 metres from a valid cell's centre to the nearest edge of an invalid cell
    quantised: np.ndarray  # (3, N) uint16, quantise(cloud, lowest corner, extent) of the cloud's own bounding box
    cell_m: float
    floor_m: float


class Frame(NamedTuple):
    """The points that one frame keeps: the scan's, then the shape's."""

    point: np.ndarray  # (K, 3) float32
    actor: np.ndarray  # (K,) uint8, 0 the scan, 1 the shape
    point_index: np.ndarray  # (K,) int32, the row in the actor's cloud


def accepted(common, size, kept):
    """Whether a sequence keeps enough (4DContrast, section 3.3).

    `common` (2,) points of scan and shape that all frames keep, `size` (2,) points they have, `kept` (t,) points that
    each frame keeps of both.
    """
    all_share_enough = all(part >= COMMON_SHARE * whole for part, whole in zip(common, size, strict=True))
    return bool(all_share_enough and min(kept) >= FRAME_SHARE * sum(size))


def shape_poses(position, yaw_rad, floor_m):
    """Poses (t, 4, 4) float32 of a shape that stands at positions (t, 2) float64 metres.

    The yaw is `yaw_rad` in frames 0 and 1 and then turns with the heading of the step into each frame.
    """
    step = np.diff(position, axis=0)
    heading = [math.atan2(y, x) for x, y in step.tolist()]
    pose = np.zeros((len(position), 4, 4), np.float32)
    for frame, (x, y) in enumerate(position.tolist()):
        yaw = yaw_rad + (heading[frame - 1] - heading[0] if frame else 0.0)
        cos, sin = math.cos(yaw), math.sin(yaw)
        pose[frame] = [[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, floor_m], [0, 0, 0, 1]]
    return pose


def posed(cloud, pose):
    """Points (N, 3) float32 of a cloud under a pose (4, 4) float32: R p + t in float64, then rounded."""
    exact = cloud.astype(np.float64) @ pose[:3, :3].astype(np.float64).T + pose[:3, 3].astype(np.float64)
    return exact.astype(np.float32)


def splat(point, colour, camera, scale, size, image, depth):
    """Points as discs, the nearest on top: every pixel of every point's disc, in turn."""
    rows, columns = np.indices(depth.shape)
    x = camera[:, :3] @ point.astype(np.float64).T + camera[:, 3:]
    for i in np.flatnonzero(x[2] > 1e-6):
        across = x[0, i] * scale / x[2, i] + depth.shape[1] / 2
        down = depth.shape[0] / 2 - x[1, i] * scale / x[2, i]
        radius = min(max(0.5 * size * scale / x[2, i], 0.6), 12.0)
        disc = (columns + 0.5 - across) ** 2 + (rows + 0.5 - down) ** 2 <= radius**2
        front = disc & (x[2, i] < depth)
        depth[front], image[front] = x[2, i], colour[i]


def shade(image, depth, reach, strength):
    """Eye-dome lighting by shifted copies of the whole depth."""
    rows, columns = np.indices(depth.shape)
    behind = np.zeros(depth.shape)
    with np.errstate(invalid="ignore"):
        for dy, dx in ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)):
            there = depth[
                np.clip(rows + dy * reach, 0, depth.shape[0] - 1), np.clip(columns + dx * reach, 0, depth.shape[1] - 1)
            ]
            behind += np.where(there < depth, np.log2(depth) - np.log2(there), 0)
    drawn = np.isfinite(depth)
    image[drawn] = (image[drawn] * np.exp(-np.minimum(strength * behind[drawn], 1))[:, None]).astype(np.uint8)
