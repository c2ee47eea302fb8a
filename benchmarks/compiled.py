"""gen4d's own steps under the interface of the reference pipelines, so that all three run on one input."""

import math

import numpy as np

from gen4d.moving import accept, augment, candidates, cloud, kernels, occupancy, trajectory
from gen4d.moving.shape import shape_pose
from gen4d.sequence import Actor, Cloud, FloorPlan, Sequence, frame_pairs
from tests import naive


def prepare(vertex, *, floor_m, voxel_m=0.02, cell_m=0.10, ceiling_m=2.0, near_floor_m=0.20, close_m=0.5):
    """What all sequences of a scan share, as naive.Prepared, from the scan's vertices (V, 3) float32 in metres."""
    point = vertex[cloud.thin(vertex, voxel_m)]
    origin, shape = occupancy.make_grid(point, cell_m)
    valid, _ = occupancy.find_valid(point, origin, shape, cell_m, floor_m, (ceiling_m, near_floor_m, close_m))
    plan = FloorPlan(valid, origin, floor_m, cell_m)
    space = candidates.find_free_space(plan)
    return naive.Prepared(point, valid, origin, space.distance_m, augment.quantise(point), cell_m, floor_m)


def sequence(prepared, shape_cloud, radius_m, plan):
    """Frames, list of naive.Frame, and pair lists of every two frames of one attempt; ([], [], False) if refused."""
    t = len(plan.box_count)
    space = candidates.FreeSpace(prepared.distance, prepared.origin, prepared.cell_m)
    candidate = candidates.find_candidates(space, radius_m)
    row = np.full(t, -1)
    if len(candidate):
        start = int(plan.start_draw * len(candidate))
        limits = (naive.STEP_MIN_M, naive.STEP_MAX_M, naive.TURN_MAX_RAD)
        alone = trajectory.discs_of((), (), t)
        kernels.walk(candidate, start, plan.walk_draw, *limits, alone.position, alone.radius_m, row)
    if row[0] < 0:
        return [], [], False
    step = np.diff(candidate[row], axis=0)
    heading = np.array([math.atan2(y, x) for x, y in step.tolist()])
    yaw = plan.yaw_rad + np.concatenate([[0.0], heading - heading[0]])
    pose = shape_pose(candidate[row], yaw, prepared.floor_m)
    scan_bits, shape_bits = np.empty(len(prepared.cloud), np.uint8), np.empty(len(shape_cloud), np.uint8)
    none = augment.no_chunks(t)
    kernels.draw_masks(
        prepared.quantised, plan.box, plan.box_count, plan.threshold, np.uint64(plan.scan_key), scan_bits
    )
    quantised = np.zeros((3, len(shape_cloud)), np.uint16)
    kernels.draw_masks(quantised, none.box, none.count, plan.threshold, np.uint64(plan.shape_key), shape_bits)
    counts = accept.mask_histogram(scan_bits, t), accept.mask_histogram(shape_bits, t)
    if accept.find_reason(counts[0], counts[1:], naive.COMMON_SHARE, naive.FRAME_SHARE):
        return [], [], False
    still = np.tile(np.eye(4, dtype=np.float32), (t, 1, 1))
    made = Sequence("", 0, (_actor(prepared.cloud, still, scan_bits), _actor(shape_cloud, pose, shape_bits)))
    frames = [naive.Frame(frame.point, frame.actor, frame.point_index) for frame in made.frames]
    return frames, [made.correspondences(i, j) for i, j in frame_pairs(t)], True


def _actor(point, pose, bits):
    return Actor(Cloud(point), 1, pose, augment.pack_planes(bits, len(pose)))
