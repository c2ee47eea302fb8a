"""The generator in careful NumPy and SciPy: the fast reference of the benchmark, and the kernels' strictest rival.

No Python loop over points or cells: one sort of Morton keys both finds duplicates and orders the cloud, Euclidean
distance transforms close the footprint and measure free space, boxes are compared column by column, hashes serve four
frames each, and ranks by cumulated sums give the pair lists.
"""

import itertools
import math

import numpy as np
from scipy import ndimage

from tests import naive

_LAYERS = 64
_FLOOR_LAYER = 16


def prepare(vertex, *, floor_m, voxel_m=0.02, cell_m=0.10, ceiling_m=2.0, near_floor_m=0.20, close_m=0.5):
    """What all sequences of a scan share, as naive.Prepared, from the scan's vertices (V, 3) float32 in metres."""
    cloud = _one_per_voxel(vertex, 1 / voxel_m)
    if len(cloud) == 0:
        nothing = np.zeros((0, 0))
        origin, quantised = np.zeros(2, np.int32), np.zeros((3, 0), np.uint16)
        return naive.Prepared(cloud, nothing.astype(bool), origin, nothing, quantised, cell_m, floor_m)
    cell = np.floor(cloud[:, :2].astype(np.float64) * (1 / cell_m)).astype(np.int32)
    origin = cell.min(axis=0)
    shape = tuple((cell.max(axis=0) + 1 - origin).tolist())
    column = (cell[:, 0] - origin[0]).astype(np.int64) * shape[1] + (cell[:, 1] - origin[1])
    layer_count, top = _columns(cloud[:, 2].astype(np.float64), column, math.prod(shape), floor_m, ceiling_m, cell_m)
    layer_count, top = layer_count.reshape(shape), top.reshape(shape)
    floor_only = (layer_count == 1) & (np.abs(top - floor_m) <= near_floor_m)
    valid = floor_only | ((layer_count == 0) & _footprint(layer_count > 0, cell_m, close_m))
    return naive.Prepared(cloud, valid, origin, _edge_distance(valid) * cell_m, _quantised(cloud), cell_m, floor_m)


def _one_per_voxel(vertex, inverse_m):
    """The first vertex of each voxel, in Morton order."""
    voxel = np.floor(vertex.astype(np.float64) * inverse_m).astype(np.int64) + 2**20
    spread = _spread(voxel.T.astype(np.uint64))
    _, first = np.unique(spread[0] | (spread[1] << np.uint64(1)) | (spread[2] << np.uint64(2)), return_index=True)
    return vertex[first]


def _spread(x):
    """Moves bit b of 21-bit numbers to bit 3 b, by halving groups of bits."""
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        x = (x | (x << np.uint64(shift))) & np.uint64(mask)
    return x


def _columns(height, column, size, floor_m, ceiling_m, cell_m):
    """The number of occupied layers and the highest z of each of `size` columns."""
    counted = height <= floor_m + ceiling_m
    height, column = height[counted], column[counted]
    layer = np.maximum(np.floor((height - floor_m) / cell_m + 0.5).astype(np.int64) + _FLOOR_LAYER, 0)
    occupied = np.zeros(size * _LAYERS, bool)
    occupied[column * _LAYERS + layer] = True
    top = np.full(size, -np.inf)
    np.maximum.at(top, column, height)
    return occupied.reshape(size, _LAYERS).sum(axis=1), top


def _footprint(observed, cell_m, close_m):
    """Cells (nx, ny) inside the observed columns, closed by a disc of `close_m`."""
    if not observed.any():
        return observed
    reach = math.ceil(close_m / cell_m) + 1
    grid = np.pad(observed, reach)
    dilated = ndimage.distance_transform_edt(~grid) * cell_m <= close_m
    closed = ndimage.distance_transform_edt(dilated) * cell_m > close_m
    return closed[reach:-reach, reach:-reach]


def _edge_distance(valid):
    """Cells (nx, ny) from a valid cell's centre to the nearest edge of an invalid cell or of the grid.

    On a grid of half cells the nearest point of a closed cell is always a node, so a transform between nodes is exact.
    """
    wall = ~np.pad(valid, 1)
    node = np.zeros((2 * wall.shape[0] + 1, 2 * wall.shape[1] + 1), bool)
    for x, y in itertools.product(range(3), range(3)):
        node[x : x + 2 * wall.shape[0] : 2, y : y + 2 * wall.shape[1] : 2] |= wall
    return ndimage.distance_transform_edt(~node)[3:-3:2, 3:-3:2] / 2


def _quantised(cloud):
    """The cloud as (3, N) uint16 in its own bounding box."""
    low = cloud.min(axis=0).astype(np.float64)
    extent = cloud.max(axis=0) - low
    scale = np.divide(65535, extent, out=np.zeros(3), where=extent > 0)
    step = cloud.T - low[:, None]
    step *= scale[:, None]
    return np.minimum(step, 65535).astype(np.uint16)


def sequence(prepared, shape_cloud, radius_m, plan):
    """Frames, list of naive.Frame, and the pair lists of every two frames, of one attempt; ([], [], False) if refused.

    An attempt is refused where no cell is free to `radius_m`, the walk gets stuck, or too few points are kept.
    """
    position = _trajectory(prepared, radius_m, plan)
    if position is None:
        return [], [], False
    t, scan_count, shape_count = len(position), len(prepared.cloud), len(shape_cloud)
    kept = np.empty((t, scan_count + shape_count), bool)
    _sample(kept[:, :scan_count], plan.threshold, plan.scan_key)
    _sample(kept[:, scan_count:], plan.threshold, plan.shape_key)
    _remove_boxes(kept[:, :scan_count], prepared.quantised, plan.box, plan.box_count)
    common = np.logical_and.reduce(kept)
    counts = (np.count_nonzero(common[:scan_count]), np.count_nonzero(common[scan_count:]))
    if not naive.accepted(counts, (scan_count, shape_count), np.count_nonzero(kept, axis=1)):
        return [], [], False
    poses = naive.shape_poses(position, plan.yaw_rad, prepared.floor_m)
    frames = [_compose(prepared.cloud, shape_cloud, pose, row) for pose, row in zip(poses, kept, strict=True)]
    return frames, _pair_lists(kept), True


def _trajectory(prepared, radius_m, plan):
    """Positions (t, 2) of the shape in metres, or None."""
    cell = np.argwhere(prepared.valid & (prepared.distance >= radius_m))
    if len(cell) == 0:
        return None
    candidate = (cell + prepared.origin + 0.5) * prepared.cell_m
    start = int(plan.start_draw * len(candidate))
    limits = (naive.STEP_MIN_M, naive.STEP_MAX_M, naive.TURN_MAX_RAD)
    path = naive.walk(candidate, start, plan.walk_draw, *limits)
    return None if path[0] < 0 else candidate[path]


def _sample(kept, threshold, key):
    """Fills (t, N) with whether sampling keeps each point."""
    for frame in range(len(kept)):
        if frame % 4 == 0:
            hashed = naive.mixed(kept.shape[1], key if frame == 0 else key ^ naive.LATE_FRAMES)
        np.less((hashed >> np.uint64(16 * (frame % 4))).astype(np.uint16), threshold, out=kept[frame])


def _remove_boxes(kept, quantised, box, box_count):
    """Clears in (t, N) the points that lie in a frame's boxes."""
    for keep, boxes, count in zip(kept, box, box_count, strict=True):
        for low_x, low_y, low_z, high_x, high_y, high_z in boxes[:count]:
            inside = (quantised[0] >= low_x) & (quantised[0] <= high_x)
            inside &= quantised[1] >= low_y
            inside &= quantised[1] <= high_y
            inside &= quantised[2] >= low_z
            inside &= quantised[2] <= high_z
            np.greater(keep, inside, out=keep)


def _compose(cloud, shape_cloud, pose, kept):
    """One frame: the kept points of the scan, then those of the shape where its pose puts them."""
    rows = np.flatnonzero(kept)
    cut = np.searchsorted(rows, len(cloud))
    rows[cut:] -= len(cloud)
    point = np.empty((len(rows), 3), np.float32)
    np.take(cloud, rows[:cut], axis=0, out=point[:cut])
    point[cut:] = naive.posed(shape_cloud[rows[cut:]], pose)
    actor = np.zeros(len(rows), np.uint8)
    actor[cut:] = 1
    return naive.Frame(point, actor, rows.astype(np.int32))


def _pair_lists(kept):
    """Rows (first, second) int32 of corresponding points of every two frames: a row is a count of kept points."""
    rank = np.cumsum(kept, axis=1, dtype=np.int32) - np.int32(1)
    pairs = []
    for i, j in itertools.combinations(range(len(kept)), 2):
        common = np.flatnonzero(kept[i] & kept[j])
        pairs.append((rank[i][common], rank[j][common]))
    return pairs
