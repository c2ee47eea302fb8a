"""The two reference pipelines against each other, the chain of the kernels' twins, and the laws of a sequence."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests import careful, naive, research

FLOOR_M = -1.27
PIPELINES = pytest.mark.parametrize("pipeline", [research, careful])


def sheet(rng, count, corner, side, other):
    """Points (count, 3) spread over a parallelogram."""
    share = rng.random((count, 2))
    return np.array(corner) + share[:, :1] * np.array(side) + share[:, 1:] * np.array(other)


def room(key, count=20_000):
    """A scanned room (count, 3) float32: floor with a hole, two walls, ceiling, two boxes, a table; 4 mm noise."""
    rng = np.random.default_rng(key)
    parts = [
        (0.38, (0, 0, 0), (4.2, 0, 0), (0, 3.4, 0)),
        (0.12, (0, 0, 0), (4.2, 0, 0), (0, 0, 2.4)),
        (0.12, (0, 0, 0), (0, 3.4, 0), (0, 0, 2.4)),
        (0.12, (0, 0, 2.4), (4.2, 0, 0), (0, 3.4, 0)),
        (0.06, (0.2, 0.2, 0.4), (0.8, 0, 0), (0, 0.5, 0)),
        (0.06, (0.2, 0.7, 0), (0.8, 0, 0), (0, 0, 0.4)),
        (0.06, (3.6, 2.8, 0.7), (0.5, 0, 0), (0, 0.5, 0)),
        (0.08, (3.2, 0.3, 0.75), (0.9, 0, 0), (0, 0.9, 0)),
    ]
    point = np.concatenate([sheet(rng, int(share * count), *rest) for share, *rest in parts])
    hole = np.hypot(point[:, 0] - 2.5, point[:, 1] - 2.0) < 0.35
    point = point[~(hole & (point[:, 2] < 0.1))] + [-1.7, -2.2, FLOOR_M]
    return (point + rng.normal(scale=0.004, size=point.shape)).astype(np.float32)


def draw_plan(key, t=4, keep=0.97, boxes=8):
    """A plan whose boxes have sides of 15-45 % of the scan's extent, as the paper's chunks."""
    rng = np.random.default_rng(key)
    half = rng.uniform(0.15, 0.45, (t, boxes, 1)) / 2
    centre = rng.random((t, boxes, 3))
    box = np.clip(np.concatenate([centre - half, centre + half], axis=2), 0, 1) * 65535
    return naive.Plan(
        start_draw=rng.random(),
        walk_draw=rng.random((t - 1, 20, 2)),
        yaw_rad=rng.uniform(0, 2 * math.pi),
        box=box.astype(np.uint16),
        box_count=rng.integers(boxes // 3, boxes + 1, t),
        threshold=int(keep * 65536),
        scan_key=int(rng.integers(2**63)) * 2 + 1,
        shape_key=int(rng.integers(2**63)),
    )


def nothing_removed(plan):
    return plan._replace(box_count=np.zeros_like(plan.box_count), threshold=65536)


SHAPE = (np.random.default_rng(20).random((300, 3)) * [0.5, 0.4, 0.9] - [0.25, 0.2, 0]).astype(np.float32)
RADIUS_M = 0.33


@pytest.fixture(scope="module", params=[1, 2])
def vertex(request):
    return room(request.param)


@pytest.fixture(scope="module")
def prepared(vertex):
    return careful.prepare(vertex, floor_m=FLOOR_M)


def assert_same_prepared(one, other):
    for name, a, b in zip(one._fields, one, other, strict=True):
        if name == "distance":
            assert_allclose(a, b, rtol=1e-12)
        else:
            assert_array_equal(a, b, err_msg=name)
        assert np.asarray(a).dtype == np.asarray(b).dtype, name


def assert_same_sequence(one, other):
    for a, b in zip(one[0] + one[1], other[0] + other[1], strict=True):
        for x, y in zip(a, b, strict=True):
            assert_array_equal(x, y)
            assert x.dtype == y.dtype and x.shape == y.shape
    assert one[2] is other[2]


# Both pipelines are one


def test_both_pipelines_prepare_the_same_scan(vertex, prepared):
    slow = research.prepare(vertex, floor_m=FLOOR_M)
    assert_same_prepared(slow, prepared)
    assert slow.valid.sum() > 200 and slow.distance.max() > RADIUS_M


@pytest.mark.parametrize("cell_m, close_m", [(0.10, 0.0), (0.10, 0.25), (0.07, 0.4), (0.25, 1.0)])
def test_both_pipelines_prepare_the_same_scan_at_other_sizes(cell_m, close_m):
    sizes = {"floor_m": FLOOR_M, "voxel_m": 0.05, "cell_m": cell_m, "close_m": close_m, "near_floor_m": 0.05}
    sparse = room(3, 1500)
    assert_same_prepared(research.prepare(sparse, **sizes), careful.prepare(sparse, **sizes))


def test_both_pipelines_make_the_same_sequences(prepared):
    outcomes = set()
    for key, keep, radius_m in itertools.product(range(3), (0.97, 0.72), (0.0, RADIUS_M, 1.35)):
        plan = draw_plan((21, key), keep=keep)
        slow = research.sequence(prepared, SHAPE, radius_m, plan)
        assert_same_sequence(slow, careful.sequence(prepared, SHAPE, radius_m, plan))
        outcomes.add((keep, radius_m, slow[2]))
    # sampling too few points, and too few free cells for a walk, are both met
    assert {(0.97, RADIUS_M, True), (0.72, RADIUS_M, False), (0.97, 1.35, True), (0.97, 1.35, False)} <= outcomes


@pytest.mark.parametrize("t", [2, 5, 8])
def test_both_pipelines_agree_on_other_frame_counts(prepared, t):
    plan = draw_plan((22, t), t, keep=0.99, boxes=1)._replace(box_count=np.arange(t) % 2)
    for seed in range(20):
        plan = plan._replace(walk_draw=np.random.default_rng((23, seed)).random((t - 1, 20, 2)))
        slow = research.sequence(prepared, SHAPE, RADIUS_M, plan)
        if slow[2]:
            break
    assert len(slow[0]) == t and len(slow[1]) == t * (t - 1) // 2
    assert_same_sequence(slow, careful.sequence(prepared, SHAPE, RADIUS_M, plan))


# The twins, one after another, are the pipelines


def test_the_twins_prepare_the_same_scan(vertex, prepared):
    voxel = naive.voxel_index(vertex, 1 / 0.02)
    first = naive.first_in_voxel(voxel)
    cloud = vertex[first][np.argsort(naive.morton_key(voxel[first]))]
    assert_array_equal(cloud, prepared.cloud)
    low = cloud.min(axis=0).astype(np.float64)
    assert_array_equal(naive.quantise(cloud, low, cloud.max(axis=0) - low), prepared.quantised)
    grid = (1 / 0.10, prepared.origin, prepared.valid.shape)
    layers, top = naive.column_layers(cloud, *grid, FLOOR_M, 2.0, 0.10)
    count = np.bitwise_count(layers)
    observed = np.isfinite(naive.column_minimum(cloud[cloud[:, 2].astype(np.float64) <= FLOOR_M + 2.0], *grid))
    assert_array_equal(count > 0, observed)
    assert_array_equal(prepared.valid[observed], ((count == 1) & (np.abs(top - FLOOR_M) <= 0.2))[observed])
    assert_allclose(prepared.distance, naive.edge_distance(prepared.valid) * 0.10, rtol=1e-12)


def test_the_twins_make_the_same_masks_and_pairs(prepared):
    frames, pairs, plan = accepted_sequence(prepared)
    bits = naive.draw_masks(prepared.quantised, plan.box, plan.box_count, plan.threshold, plan.scan_key)
    dummy = np.zeros((3, len(SHAPE)), np.uint16)
    shape_bits = naive.draw_masks(dummy, plan.box, np.zeros(4, int), plan.threshold, plan.shape_key)
    planes, shape_planes = naive.pack_planes(bits, 4), naive.pack_planes(shape_bits, 4)
    scan_rows = [naive.frame_rows(plane, len(bits)) for plane in planes]
    for frame, rows, plane in zip(frames, scan_rows, shape_planes, strict=True):
        assert_array_equal(frame.point_index, np.concatenate([rows, naive.frame_rows(plane, len(shape_bits))]))
    scan_pairs = naive.pair_lists(planes, len(bits), np.zeros(4, np.int32))
    shape_pairs = naive.pair_lists(shape_planes, len(shape_bits), np.array([len(rows) for rows in scan_rows]))
    for whole, scan, shape in zip(pairs, scan_pairs, shape_pairs, strict=True):
        assert_array_equal(np.array(whole), np.concatenate([scan, shape], axis=1))
    pattern, shape_pattern = naive.mask_histogram(bits, 4), naive.mask_histogram(shape_bits, 4)
    assert pattern[15] >= 0.3 * len(bits) and shape_pattern[15] >= 0.3 * len(shape_bits)


def accepted_sequence(prepared):
    """Frames, pairs and plan of the first attempt that is accepted."""
    for key in range(50):
        plan = draw_plan((24, key))
        frames, pairs, ok = careful.sequence(prepared, SHAPE, RADIUS_M, plan)
        if ok:
            return frames, pairs, plan
    raise AssertionError("50 attempts and none accepted: the room or the plans have changed")


# Laws of a sequence


def test_a_pair_joins_equal_identities_and_misses_none(prepared):
    frames, pairs, _ = accepted_sequence(prepared)
    for (i, j), (first, second) in zip(itertools.combinations(range(4), 2), pairs, strict=True):
        identity = [[*zip(f.actor.tolist(), f.point_index.tolist(), strict=True)] for f in (frames[i], frames[j])]
        assert [identity[0][row] for row in first] == [identity[1][row] for row in second]
        assert len(first) == len(set(identity[0]) & set(identity[1])) > 0


def test_scan_points_stay_bit_for_bit_and_the_shape_moves_rigidly_on_the_floor(prepared):
    frames, _, plan = accepted_sequence(prepared)
    for frame in frames:
        scan = frame.actor == 0
        assert_array_equal(frame.point[scan], prepared.cloud[frame.point_index[scan]])
        moved, own = frame.point[~scan].astype(np.float64), SHAPE[frame.point_index[~scan]].astype(np.float64)
        assert_allclose(moved[:, 2] - own[:, 2], FLOOR_M, atol=1e-6)
        assert_allclose(moved - moved[0], (own - own[0]) @ turn(own, moved), atol=3e-6)
    first = frames[0].actor == 1
    own, moved = SHAPE[frames[0].point_index[first]].astype(np.float64), frames[0].point[first].astype(np.float64)
    assert turn(own, moved)[0, :2] == pytest.approx((math.cos(plan.yaw_rad), math.sin(plan.yaw_rad)), abs=1e-5)


def turn(own, moved):
    """The rotation about z (3, 3), for row vectors, that best takes centred points to centred points."""
    a, b = own - own.mean(axis=0), moved - moved.mean(axis=0)
    angle = math.atan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a[:, :2] * b[:, :2]).sum())
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def test_the_yaw_turns_with_the_heading_from_the_second_step_on():
    position = np.array([[0.0, 0.0], [0.0, 0.5], [-0.6, 0.5], [-0.6, 0.1]])
    poses = naive.shape_poses(position, 0.3, -1.0)
    yaw = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
    assert_allclose(yaw, [0.3, 0.3, 0.3 + math.pi / 2, 0.3 - math.pi], atol=1e-6)
    assert_allclose(poses[:, :3, 3], np.c_[position, np.full(4, -1.0)], atol=1e-7)
    assert_allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (4, 1, 1)), atol=1e-6)


@PIPELINES
def test_the_disc_of_the_shape_touches_no_invalid_cell(prepared, pipeline):
    centre_of_mass = SHAPE.mean(axis=0)[:2].astype(np.float64)
    centred = SHAPE - np.array([*centre_of_mass, 0], np.float32)
    frames = [f for key in range(8) for f in pipeline.sequence(prepared, centred, 0.6, draw_plan((25, key)))[0]]
    wall = (np.argwhere(~np.pad(prepared.valid, 1)) - 1 + prepared.origin) * 0.10
    assert frames
    for frame in frames:
        where = frame.point[frame.actor == 1][:, :2].astype(np.float64).mean(axis=0)
        gap = np.hypot(*np.maximum(np.maximum(wall - where, where - wall - 0.10), 0).T).min()
        assert gap > 0.6 - 0.06  # the mean of the kept points is some centimetres off the disc's centre


# Free space by hand


def tiles(cells, z=0.0):
    """One point in the middle of each 10 cm cell (ix, iy)."""
    return np.array([[0.1 * x + 0.05, 0.1 * y + 0.05, z] for x, y in cells], np.float32).reshape(-1, 3)


def valid_cells(pipeline, *points, **sizes):
    return pipeline.prepare(np.concatenate(points), floor_m=0.0, **sizes).valid


@PIPELINES
def test_a_column_is_valid_with_nothing_but_floor_under_the_ceiling(pipeline):
    floor = tiles((x, 0) for x in range(6))
    table, ceiling = tiles([(1, 0)], 0.7), tiles([(2, 0)], 2.3)
    step, low_wall = tiles([(6, 0)], 0.19), tiles([(7, 0)], 0.31)
    noise = [tiles([(3, 0)], 0.045), tiles([(3, 0)], -0.045), tiles([(4, 0)], 0.055)]  # layers are cut at +-0.05
    valid = valid_cells(pipeline, floor, table, ceiling, step, low_wall, *noise, close_m=0.0)
    assert_array_equal(valid[:, 0], [True, False, True, True, False, True, True, False])


@PIPELINES
def test_unseen_columns_are_valid_where_the_closing_holds_them(pipeline):
    ring = [(x, y) for x in range(21) for y in range(21) if max(abs(x - 10), abs(y - 10)) == 10]
    valid = valid_cells(pipeline, tiles(ring))  # around a hole of 1.9 m, of which the corners alone are rounded
    assert valid[1, 1] and not valid[6:15, 1:20].any() and not valid[1:20, 6:15].any()
    assert valid_cells(pipeline, tiles(ring), close_m=1.0).all()
    strips = [(x, y) for x in (0, 8, 22) for y in range(30)]
    valid = valid_cells(pipeline, tiles(strips))
    assert valid[1:8, 12:18].all() and not valid[9:22, 15].any()  # 0.7 m between strips closes, 1.3 m does not


@PIPELINES
def test_without_closing_the_seen_columns_alone_are_valid(pipeline):
    ring = [(x, y) for x in range(9) for y in range(9) if max(abs(x - 4), abs(y - 4)) == 4]
    valid = valid_cells(pipeline, tiles([*ring, (2, 2)]), close_m=0.0)
    assert_array_equal(np.argwhere(valid), sorted([*ring, (2, 2)]))


# Nothing, or hardly anything


@pytest.mark.parametrize("count", [0, 1])
def test_scans_of_hardly_a_point_are_prepared_and_refused(count):
    vertex = np.full((count, 3), 0.015, np.float32)
    slow, fast = research.prepare(vertex, floor_m=0.0), careful.prepare(vertex, floor_m=0.0)
    assert_same_prepared(slow, fast)
    assert slow.valid.sum() == count and slow.cloud.shape == (count, 3)
    for pipeline in (research, careful):
        assert pipeline.sequence(slow, SHAPE, RADIUS_M, draw_plan(26)) == ([], [], False)
        # even a shape without extent cannot walk over a single cell
        assert pipeline.sequence(slow, SHAPE, 0.0, draw_plan(26)) == ([], [], False)


@PIPELINES
def test_no_cell_is_free_to_a_radius_larger_than_the_room(prepared, pipeline):
    assert pipeline.sequence(prepared, SHAPE, 9.0, draw_plan(27)) == ([], [], False)


@PIPELINES
def test_a_sequence_that_keeps_too_little_is_refused(prepared, pipeline):
    plan = accepted_sequence(prepared)[2]
    assert pipeline.sequence(prepared, SHAPE, RADIUS_M, nothing_removed(plan))[2]
    everything = np.tile(np.array([0, 0, 0, 65535, 65535, 65535], np.uint16), (4, 1, 1))
    one_frame_empty = plan._replace(box=everything, box_count=np.array([0, 0, 1, 0]), threshold=65536)
    for poor in (one_frame_empty, plan._replace(threshold=0)):
        assert pipeline.sequence(prepared, SHAPE, RADIUS_M, poor) == ([], [], False)


def test_a_shape_without_points_leaves_the_scan_alone(prepared):
    plan = accepted_sequence(prepared)[2]
    slow = research.sequence(prepared, SHAPE[:0], RADIUS_M, plan)
    assert slow[2] and not any(frame.actor.any() for frame in slow[0])
    assert_same_sequence(slow, careful.sequence(prepared, SHAPE[:0], RADIUS_M, plan))


def test_acceptance_counts_what_is_common_per_actor_and_kept_per_frame():
    assert naive.accepted((30, 3), (100, 10), [55, 110])
    assert not naive.accepted((29, 10), (100, 10), [110, 110])
    assert not naive.accepted((100, 2), (100, 10), [110, 110])
    assert not naive.accepted((100, 10), (100, 10), [54, 110])
