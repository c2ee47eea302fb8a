"""The generator as research code is commonly written: the slow reference of the benchmark.

np.unique(axis=0) for duplicates, dicts and Python loops over points and cells, boxes tested on (N, 3) arrays,
correspondences found again by KD-trees. Straightforward, neither slowed down on purpose nor tuned; where two habits
are common the faster one is taken: free discs are grown once per scan, not per shape, and a frame's KD-tree serves all
its pairs. Correspondences want the points of a shape's cloud more than 20 micrometres apart.
"""

import itertools
import math

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from tests import naive

_MATCH_M = (1e-9, 1e-5)  # scan points are copied bit for bit; those of the shape return through a rounded pose


def prepare(vertex, *, floor_m, voxel_m=0.02, cell_m=0.10, ceiling_m=2.0, near_floor_m=0.20, close_m=0.5):
    """What all sequences of a scan share, as naive.Prepared, from the scan's vertices (V, 3) float32 in metres."""
    voxel = np.floor(vertex.astype(np.float64) * (1 / voxel_m)).astype(np.int32)
    _, first = np.unique(voxel, axis=0, return_index=True)
    cloud = vertex[first][np.argsort(naive.morton_key(voxel[first]))]
    cell = np.floor(cloud[:, :2].astype(np.float64) * (1 / cell_m)).astype(np.int32)
    origin = cell.min(axis=0) if len(cell) else np.zeros(2, np.int32)
    shape = tuple((cell.max(axis=0) + 1 - origin).tolist()) if len(cell) else (0, 0)
    layers, top = _columns(cloud, origin, floor_m, ceiling_m, cell_m)
    valid = _footprint(layers, shape, cell_m, close_m)
    for column, occupied in layers.items():
        valid[column] = len(occupied) == 1 and abs(top[column] - floor_m) <= near_floor_m
    quantised = naive.quantise(cloud, *_bounding_box(cloud))
    return naive.Prepared(cloud, valid, origin, _free_disc(valid) * cell_m, quantised, cell_m, floor_m)


def _bounding_box(cloud):
    """Lowest corner and extent, each (3,) float64."""
    if len(cloud) == 0:
        return np.zeros(3), np.zeros(3)
    low = cloud.min(axis=0).astype(np.float64)
    return low, cloud.max(axis=0) - low


def _columns(cloud, origin, floor_m, ceiling_m, cell_m):
    """The set of occupied layers and the highest z of each observed column (ix, iy)."""
    layers, top = {}, {}
    origin_x, origin_y = origin.tolist()
    inverse_m = 1 / cell_m
    for x, y, z in cloud.tolist():
        if z > floor_m + ceiling_m:
            continue
        column = (math.floor(x * inverse_m) - origin_x, math.floor(y * inverse_m) - origin_y)
        layer = max(math.floor((z - floor_m) / cell_m + 0.5), -16)
        if column in layers:
            layers[column].add(layer)
            top[column] = max(top[column], z)
        else:
            layers[column] = {layer}
            top[column] = z
    return layers, top


def _footprint(observed, shape, cell_m, close_m):
    """Cells (nx, ny) inside the observed columns, closed by a disc of `close_m`."""
    reach = math.ceil(close_m / cell_m)
    span = np.arange(-reach, reach + 1)
    disc = np.hypot(*np.meshgrid(span, span)) * cell_m <= close_m
    grid = np.zeros(shape, bool)
    for column in observed:
        grid[column] = True
    closed = ndimage.binary_closing(np.pad(grid, reach + 1), disc)
    return closed[reach + 1 : reach + 1 + shape[0], reach + 1 : reach + 1 + shape[1]]


def _free_disc(valid):
    """Radius (nx, ny), in cells, of the disc around each cell that grows until it touches an invalid cell."""
    reach = min(valid.shape) // 2 + 1  # outside the grid is invalid
    span = range(-reach, reach + 1)
    ring = [(math.hypot(max(abs(x) - 0.5, 0), max(abs(y) - 0.5, 0)), x, y) for x in span for y in span]
    ring.sort()
    free = set(map(tuple, np.argwhere(valid).tolist()))
    radius = np.zeros(valid.shape)
    for x, y in free:
        for gap, step_x, step_y in ring:
            if (x + step_x, y + step_y) not in free:
                radius[x, y] = gap
                break
    return radius


def sequence(prepared, shape_cloud, radius_m, plan):
    """Frames, list of naive.Frame, and the pair lists of every two frames, of one attempt; ([], [], False) if refused.

    An attempt is refused where no cell is free to `radius_m`, the walk gets stuck, or too few points are kept.
    """
    position = _trajectory(prepared, radius_m, plan)
    if position is None:
        return [], [], False
    box = [boxes[:count] for boxes, count in zip(plan.box, plan.box_count, strict=True)]
    scan_kept = _kept(prepared.quantised.T, box, plan.threshold, plan.scan_key)
    nowhere = [()] * len(box)
    shape_kept = _kept(shape_cloud, nowhere, plan.threshold, plan.shape_key)
    common = (np.all(scan_kept, axis=0).sum(), np.all(shape_kept, axis=0).sum())
    kept = scan_kept.sum(axis=1) + shape_kept.sum(axis=1)
    if not naive.accepted(common, (len(prepared.cloud), len(shape_cloud)), kept):
        return [], [], False
    poses = naive.shape_poses(position, plan.yaw_rad, prepared.floor_m)
    frames = [
        _compose(prepared.cloud, shape_cloud, pose, *rows)
        for pose, *rows in zip(poses, scan_kept, shape_kept, strict=True)
    ]
    return frames, _correspondences(frames, poses), True


def _trajectory(prepared, radius_m, plan):
    """Positions (t, 2) of the shape in metres, or None."""
    cell = np.argwhere(prepared.valid & (prepared.distance >= radius_m))
    if len(cell) == 0:
        return None
    candidate = (cell + prepared.origin + 0.5) * prepared.cell_m
    tree = cKDTree(candidate)
    current = candidate[int(plan.start_draw * len(candidate))]
    path, heading = [current], None
    for tries in plan.walk_draw:
        for length_draw, turn_draw in tries.tolist():
            length = naive.STEP_MIN_M + (naive.STEP_MAX_M - naive.STEP_MIN_M) * length_draw
            if heading is None:
                angle = 2 * math.pi * turn_draw
            else:
                angle = heading + naive.TURN_MAX_RAD * (2 * turn_draw - 1)
            _, row = tree.query(current + length * np.array([math.cos(angle), math.sin(angle)]))
            step = candidate[row] - current
            new_heading = math.atan2(step[1], step[0])
            turn = 0.0 if heading is None else (new_heading - heading + math.pi) % (2 * math.pi) - math.pi
            if naive.STEP_MIN_M <= math.hypot(*step) <= naive.STEP_MAX_M and abs(turn) < naive.TURN_MAX_RAD:
                current, heading = candidate[row], new_heading
                path.append(current)
                break
        else:
            return None
    return np.array(path)


def _kept(point, box, threshold, key):
    """Which points (N, 3) each frame keeps (t, N): those in none of its boxes that sampling keeps."""
    point = np.ascontiguousarray(point)
    kept = []
    for frame, boxes in enumerate(box):
        keep = naive.lane(len(point), frame, key) < threshold
        for row in boxes:
            keep &= ~np.all((point >= row[:3]) & (point <= row[3:]), axis=1)
        kept.append(keep)
    return np.array(kept)


def _compose(cloud, shape_cloud, pose, scan_rows, shape_rows):
    """One frame: the kept points of the scan, then those of the shape where its pose puts them."""
    scan_point, shape_point = cloud[scan_rows], naive.posed(shape_cloud[shape_rows], pose)
    point = np.concatenate([scan_point, shape_point])
    actor = np.concatenate([np.zeros(len(scan_point), np.uint8), np.ones(len(shape_point), np.uint8)])
    index = np.concatenate([np.where(scan_rows)[0], np.where(shape_rows)[0]]).astype(np.int32)
    return naive.Frame(point, actor, index)


def _correspondences(frames, poses):
    """Rows (first, second) of corresponding points of every two frames, found in the actors' own coordinates."""
    own = []
    for frame, pose in zip(frames, poses, strict=True):
        scan = frame.point[frame.actor == 0].astype(np.float64)
        shape = (frame.point[frame.actor == 1].astype(np.float64) - pose[:3, 3]) @ np.linalg.inv(pose[:3, :3].T)
        own.append((scan, shape))
    trees = [[cKDTree(point) for point in actors] for actors in own]
    pairs = []
    for i, j in itertools.combinations(range(len(frames)), 2):
        first, second = [], []
        for actor, radius_m in enumerate(_MATCH_M):
            _, nearest = trees[j][actor].query(own[i][actor], distance_upper_bound=radius_m)
            found = np.where(nearest < len(own[j][actor]))[0]
            first.append(found + actor * len(own[i][0]))
            second.append(nearest[found] + actor * len(own[j][0]))
        pairs.append((np.concatenate(first).astype(np.int32), np.concatenate(second).astype(np.int32)))
    return pairs
