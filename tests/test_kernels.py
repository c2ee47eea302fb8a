"""Every kernel against its plain NumPy twin, on random and degenerate input, jitted and as plain Python.

Integers and bools must be equal, floats to 1e-12; the enclosing circle to 1e-9 of the points' extent. Kernels run
through their public functions where they have one, so that checks, allocations and arguments are tested with them.
"""

import itertools
import math
import os
import pathlib
import subprocess
import sys

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gen4d import sequence_kernels
from gen4d.moving import accept, augment, candidates, cloud, kernels, occupancy, trajectory
from gen4d.moving.shape import enclosing_circle, shape_pose
from gen4d.sequence import Cloud, FloorPlan, Sequence, frame_pairs, make_actor
from tests import naive

JITTED = not numba.config.DISABLE_JIT
MANY = 20_000 if JITTED else 700  # points; both above 256, where an 8-bit counter would overflow
FEW = 300
CELL = 10.0
NO_POINT = np.zeros((0, 3), np.float32)


def rng(key):
    return np.random.default_rng(key)


def spread(key, count, size=(3.0, 2.0, 2.5), low=(-1.3, -0.4, -1.2)):
    """Points (count, 3) float32 all over a box."""
    return (rng(key).random((count, 3)) * size + low).astype(np.float32)


CLOUDS = {
    "none": NO_POINT,
    "one": np.array([[-0.01, 0.0, 0.02]], np.float32),
    "equal": np.full((9, 3), 0.37, np.float32),
    "collinear": np.outer(np.linspace(-2, 2, 401), [1, -1, 0.5]).astype(np.float32),
    "flat": spread(1, FEW, size=(3, 2, 0)),
    "on the corners of voxels": (rng(2).integers(-40, 40, (FEW, 3)) * 0.02).astype(np.float32),
    "dense": spread(3, MANY, size=(0.5, 0.3, 0.2)),
    "sparse": spread(4, MANY),
    "far from the origin": spread(5, FEW, low=(-900, 4000, 80)),
    "with far outliers": np.concatenate([spread(6, FEW), [[9000, -9000, 9000], [-9e3, 1, 0]]]).astype(np.float32),
}
EVERY_CLOUD = pytest.mark.parametrize("name", CLOUDS)
FRAMES = pytest.mark.parametrize("t", [2, 3, 4, 5, 8])
COUNTS = pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 255, 257, MANY])


def assert_same(actual, expected):
    assert_array_equal(actual, expected)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape


# Points to voxels and columns


@EVERY_CLOUD
@pytest.mark.parametrize("voxel_m", [0.02, 0.05, 1.0])
def test_voxels_their_first_rows_and_their_keys_equal_the_twins(name, voxel_m):
    voxel = cloud.voxel_index(CLOUDS[name], voxel_m)
    assert_same(voxel, naive.voxel_index(CLOUDS[name], 1.0 / voxel_m))
    assert_same(cloud.first_in_voxel(voxel), naive.first_in_voxel(voxel))
    assert_same(cloud.morton_key(voxel), naive.morton_key(voxel))


@EVERY_CLOUD
def test_bounds_are_the_lowest_and_highest_values(name):
    if len(CLOUDS[name]):
        low, high = cloud.bounds(CLOUDS[name])
        assert_same(low, CLOUDS[name].min(axis=0))
        assert_same(high, CLOUDS[name].max(axis=0))


@EVERY_CLOUD
def test_the_hash_marks_the_same_rows_as_the_bitmap(name, monkeypatch):
    voxel = naive.voxel_index(CLOUDS[name], 50.0)
    monkeypatch.setattr(cloud, "_BITMAP_BITS", 0)
    assert_same(cloud.first_in_voxel(voxel), naive.first_in_voxel(voxel))


def test_voxels_at_the_limits_have_the_keys_of_the_twin():
    edge = [-(2**20), -1, 0, 1, 2**20 - 1]
    voxel = np.array(list(itertools.product(edge, repeat=3)), np.int32)
    assert_same(cloud.morton_key(voxel), naive.morton_key(voxel))
    twice = np.concatenate([voxel, voxel[::-1]])
    assert_same(cloud.first_in_voxel(twice), naive.first_in_voxel(twice))


@EVERY_CLOUD
def test_a_thinned_cloud_is_the_first_point_of_each_voxel_in_the_order_of_the_keys(name):
    voxel = naive.voxel_index(CLOUDS[name], 50.0)
    first = np.flatnonzero(naive.first_in_voxel(voxel))
    assert_array_equal(cloud.thin(CLOUDS[name], 0.02), first[np.argsort(naive.morton_key(voxel[first]))])


@pytest.mark.parametrize("far", [2**20 * 0.02, -(2**20) * 0.02, 1e30])
def test_a_point_beyond_the_last_voxel_is_refused(far):
    with pytest.raises(cloud.CloudError, match="--units"):
        cloud.voxel_index(np.array([[0, 0, far]], np.float32), 0.02)


def grid_of(point):
    """First column (2,) int32 and shape of the grid of 10 cm columns around points."""
    x, y = naive.columns(point, CELL, np.zeros(2))
    low = np.array([x.min(initial=0), y.min(initial=0)], np.int32)
    return low, (int(x.max(initial=0) - low[0] + 1), int(y.max(initial=0) - low[1] + 1))


@pytest.mark.parametrize("name", [name for name in CLOUDS if name not in ("with far outliers", "far from the origin")])
def test_columns_have_the_minima_layers_and_tops_of_the_twins(name):
    origin, shape = grid_of(CLOUDS[name])
    lowest = np.full(shape, np.inf)
    kernels.column_minimum(CLOUDS[name], CELL, origin, lowest)
    assert_same(lowest, naive.column_minimum(CLOUDS[name], CELL, origin, shape))
    for floor_m, ceiling_m in ((-1.0, 2.0), (0.013, 0.3), (-5.0, 2.0)):
        layers, top = np.zeros(shape, np.uint64), np.full(shape, -np.inf)
        kernels.column_layers(CLOUDS[name], CELL, origin, floor_m, ceiling_m, 0.1, layers, top)
        twin_layers, twin_top = naive.column_layers(CLOUDS[name], CELL, origin, shape, floor_m, ceiling_m, 0.1)
        assert_same(layers, twin_layers)
        assert_same(top, twin_top)


@pytest.mark.parametrize("key", range(3))
def test_the_floor_plan_of_a_room_is_valid_where_the_twins_say(key):
    floor, clutter = spread((7, key), MANY, (3, 2, 0.03), (-1, -1, -0.5)), spread((8, key), 60, (3, 2, 2), (-1, -1, 0))
    point = np.concatenate([floor, clutter])
    plan = occupancy.find_floor_plan(point, 0.1, 2.0, 0.2, 0.5)
    origin, shape = grid_of(point)
    assert_array_equal(plan.origin, origin)
    layers, top = naive.column_layers(point, CELL, origin, shape, plan.floor_m, 2.0, 0.1)
    observed = layers != 0
    free = (np.bitwise_count(layers) == 1) & (np.abs(top - plan.floor_m) <= 0.2)
    assert plan.floor_m == pytest.approx(-0.5, abs=0.03)
    assert_array_equal(plan.valid[observed], free[observed])


@pytest.mark.parametrize("thick_m", [0.0, 0.004, 0.03, 0.06])
@pytest.mark.parametrize("others", [[], [0.7] * 30, [-0.31], [-0.02] * 3 + [1.9] * 30])
def test_the_floor_is_found_to_2_cm_even_if_it_is_flat_or_the_lowest_of_all(thick_m, others):
    """Ceilings, tables and stray points below must not lift it, nor where the floor fills a single bin."""
    minimum = np.concatenate([0.013 + thick_m * rng(36).random(200), others])
    assert occupancy.find_floor(minimum) == pytest.approx(0.013 + thick_m / 2, abs=0.02)


@pytest.mark.parametrize(
    ("floor", "others"),
    [
        (30, [0.7] * 100),  # in a crowded office more columns begin on tables than on the floor
        (50, [0.4] * 100),
        (100, [-0.6] * 12 + [-1.1] * 10),  # points below the floor, as windows and mirrors give them
    ],
)
def test_the_floor_is_the_lowest_peak_with_a_quarter_of_the_columns_of_the_strongest(floor, others):
    minimum = np.concatenate([0.02 * rng(37).random(floor), others + 0.02 * rng(38).random(len(others))])
    assert occupancy.find_floor(minimum) == pytest.approx(0.01, abs=0.02)


# Free space and trajectories


def plan_of(valid):
    return FloorPlan(valid, np.array([-3, 5], np.int32), -1.2, 0.1)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (1, 9), (8, 1), (17, 12), (30, 31)])
def test_free_space_equals_the_least_distance_to_an_invalid_cell(shape, share):
    valid = rng((9, *shape)).random(shape) < share
    space = candidates.find_free_space(plan_of(valid))
    assert_allclose(space.distance_m, naive.edge_distance(valid) * 0.1, rtol=1e-12)
    assert space.widest_m == space.distance_m.max(initial=0)


@pytest.mark.parametrize("radius_m", [0.0, 0.05, 0.3, 9.0])
def test_candidates_are_the_centres_of_the_cells_whose_disc_is_free(radius_m):
    valid = rng(10).random((25, 20)) < 0.98
    twin = naive.edge_distance(valid) * 0.1
    cell = [(x - 3 + 0.5, y + 5 + 0.5) for x, y in np.argwhere(valid) if twin[x, y] >= radius_m]
    place = candidates.find_candidates(candidates.find_free_space(plan_of(valid)), radius_m)
    assert_array_equal(place, np.array(cell).reshape(-1, 2) * 0.1)
    assert len(place) == (0 if radius_m == 9.0 else len(cell)) and (radius_m == 9.0 or len(cell) > 10)


GRID = np.array([[0.1 * x + 0.05, 0.1 * y + 0.05] for x in range(18) for y in range(14)])
LIMITS = (0.3, 0.9, math.radians(150))
PLACES = {
    "grid": GRID,
    "one": GRID[:1],
    "line": GRID[:14],
    "with holes": GRID[rng(11).random(len(GRID)) < 0.4],
    "islands": np.concatenate([GRID[:5], GRID[-5:]]),
}


def walked(candidate, start, draw, limits=LIMITS, others=()):
    out = np.empty(len(draw) + 1, np.int64)
    position = np.array([p for p, _ in others], np.float64).reshape(-1, len(out), 2)
    kernels.walk(candidate, start, draw, *limits, position, np.array([far for _, far in others], np.float64), out)
    return out


@FRAMES
@pytest.mark.parametrize("name", PLACES)
def test_a_walk_visits_the_rows_of_the_twins_walk(name, t):
    candidate, arrived = PLACES[name], 0
    for key in range(30 if JITTED else 5):
        draw = rng((12, t, key)).random((t - 1, 6, 2))
        start = int(rng((13, key)).integers(len(candidate)))
        path = walked(candidate, start, draw)
        assert_same(path, naive.walk(candidate, start, draw, *LIMITS))
        arrived += path[0] >= 0
    assert arrived > 0 or name != "grid"


@FRAMES
def test_a_walk_beside_other_discs_visits_the_rows_of_the_twins_walk_and_meets_none(t):
    """Between frames too: places are compared at a hundred moments of every step."""
    arrived, kept_off = 0, 0
    for key in range(30 if JITTED else 5):
        draw = rng((17, t, key)).random((t - 1, 24, 2))
        start = int(rng((18, key)).integers(len(GRID)))
        others = [(GRID[walked(GRID, row, rng((19, t, key, row)).random((t - 1, 32, 2)))], 0.6) for row in (7, 60)]
        path = walked(GRID, start, draw, others=others)
        assert_same(path, naive.walk(GRID, start, draw, *LIMITS, others))
        kept_off += not np.array_equal(path, walked(GRID, start, draw))
        if path[0] < 0:
            continue
        arrived += 1
        moment = np.linspace(0, t - 1, 100 * (t - 1) + 1)
        here, *there = (
            np.stack([np.interp(moment, np.arange(t), way[:, axis]) for axis in (0, 1)])
            for way in (GRID[path], *(p for p, _ in others))
        )
        later = moment >= 1  # the walk does not choose its start
        gap = min(np.hypot(*(here - other))[later].min() for other in there)
        assert gap >= 0.6 - 1e-9
    assert arrived and kept_off


def test_a_disc_that_crosses_a_way_between_two_frames_is_kept_clear_of():
    """In the frames they are a metre apart; halfway they would be in one place."""
    cross = np.array([[[0.4, 0.5], [0.4, -0.5]]])
    apart = np.array([0.3])
    assert not kernels.keeps_apart(0.0, 0.0, 0.8, 0.0, cross, apart, 0)
    assert kernels.keeps_apart(0.0, 0.0, 0.0, 0.8, cross, apart, 0)
    assert kernels.keeps_apart(0.0, 0.0, 0.4, -1.0, cross, np.array([0.5]), 0)
    still = np.array([[[0.4, 0.1], [0.4, 0.1]]])
    assert not kernels.keeps_apart(0.0, 0.0, 0.8, 0.0, still, apart, 0)
    assert kernels.keeps_apart(0.1, 0.1, 0.1, 0.1, still, np.array([0.29]), 0)
    assert kernels.keeps_apart(0.0, 0.0, 0.8, 0.0, still[:0], apart[:0], 0)


def test_a_walk_takes_the_lowest_of_equally_near_rows_and_may_fail():
    candidate = np.array([[0.5, 0.25], [0.0, 0.0], [0.5, -0.25], [0.5, 0.25]])
    ahead = np.array([[(1 / 3, 0.0)]])
    assert_array_equal(walked(candidate, 1, ahead), [1, 0])
    assert_array_equal(walked(candidate[::-1].copy(), 2, ahead), [2, 0])
    assert_array_equal(walked(GRID[:1], 0, rng(14).random((3, 5, 2))), [-1] * 4)


def test_a_trajectory_gives_the_poses_of_the_twin():
    arrived = 0
    for key in range(20):
        way = trajectory.draw_trajectory(GRID, 4, LIMITS[:2], LIMITS[2], 32, rng((15, key)))
        if way is not None:
            arrived += 1
            twin = naive.shape_poses(way.position, float(way.yaw_rad[0]), -1.27)
            assert_allclose(shape_pose(way.position, way.yaw_rad, -1.27), twin, atol=3e-7)
            step = np.hypot(*np.diff(way.position, axis=0).T)
            assert (step >= 0.3).all() and (step <= 0.9).all()
    assert arrived >= 10
    assert trajectory.draw_trajectory(GRID[:0], 4, LIMITS[:2], LIMITS[2], 32, rng(16)) is None


def ring(count, digits):
    """Points on a circle as a mesh file holds them, rounded to some digits."""
    angle = np.arange(count) * (2 * math.pi / count)
    return np.round(np.stack([np.cos(angle), np.sin(angle)], axis=1), digits)


FLAT = {
    "one": np.array([[3.0, 4.0]]),
    "equal": np.array([[3.0, 4.0]] * 7),
    "two": np.array([[3.0, 4.0], [-1.0, 2.0]]),
    "collinear": np.outer(np.linspace(-1, 3, 50), [2.0, 1.0]) + 5,
    "square": np.array([[0.0, 0], [0, 2], [2, 0], [2, 2], [1, 1.5]]),
    "cloud": rng(17).random((MANY, 2)) * [1, 3],
    "far away": rng(18).random((FEW, 2)) + [1e4, -2e4],
    "nearly equal": rng(19).random((FEW, 2)) * 1e-9 + 1,
    "just outside": np.array([[-1, 0], [1, 0], [0, 1 + 2e-10]]),
    "two diagonals of one middle": np.array([[1.0, 0.4], [-1.0, -0.4], [1.0, -0.40001], [-1.0, 0.40001]]),
} | {f"a ring to {digits} digits": ring(96, digits) for digits in (5, 8, 9, 10, 11, 16)}


@pytest.mark.parametrize("name", FLAT)
def test_the_enclosing_circle_is_the_twins_and_holds_every_point(name):
    point = FLAT[name]
    x, y, radius = enclosing_circle(point)
    extent = float(np.ptp(point, axis=0).max())
    assert_allclose((x, y, radius), naive.enclosing_circle(point), rtol=1e-13, atol=1e-9 * extent)
    assert np.hypot(*(point - [x, y]).T).max() <= radius * (1 + 1e-15)


# Masks


@pytest.mark.parametrize("name", [name for name in CLOUDS if name != "none"])
def test_quantised_points_equal_the_twins(name):
    point = CLOUDS[name]
    low = point.min(axis=0).astype(np.float64)
    assert_same(augment.quantise(point), naive.quantise(point, low, point.max(axis=0).astype(np.float64) - low))


def test_quantised_points_outside_the_box_are_clipped_and_no_points_give_none():
    low, extent = np.array([-0.5, 0.0, -0.1]), np.array([1.0, 0.0, 0.3])
    for point in (spread(20, FEW), NO_POINT):
        out = np.empty((3, len(point)), np.uint16)
        kernels.quantise(point, low, np.divide(65535, extent, out=np.zeros(3), where=extent > 0), out)
        assert_same(out, naive.quantise(point, low, extent))


@FRAMES
@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 9000] if JITTED else [0, 1, 300])
@pytest.mark.parametrize("threshold", [0, 1, 62259, 65535, 65536])
def test_masks_equal_the_twins(t, count, threshold):
    quantised = rng((21, count)).integers(0, 65536, (3, count)).astype(np.uint16)
    box = np.sort(rng((22, t)).integers(0, 65536, (t, 5, 2, 3)), axis=2).reshape(t, 5, 6).astype(np.uint16)
    box_count = rng((23, t)).integers(0, 6, t)
    for key in (0, 2**64 - 1, 0x0123456789ABCDEF):
        bits = np.empty(count, np.uint8)
        kernels.draw_masks(quantised, box, box_count, threshold, np.uint64(key), bits)
        assert_same(bits, naive.draw_masks(quantised, box, box_count, threshold, key))


@pytest.mark.parametrize("name", ["dense", "sparse", "flat", "equal"])
def test_masks_of_points_in_morton_order_equal_the_twins(name):
    """Where whole blocks lie within chunks, apart from them, and across their edges."""
    point = CLOUDS[name][cloud.thin(CLOUDS[name], 0.02)]
    quantised, key = augment.quantise(point), np.uint64(77)
    chunks = augment.draw_chunks(4, (5, 15), (0.15, 0.45), rng(28))
    bits = np.empty(len(point), np.uint8)
    kernels.draw_masks(quantised, *chunks, 60000, key, bits)
    assert_same(bits, naive.draw_masks(quantised, *chunks, 60000, key))


@pytest.mark.parametrize("keep", [1e-9, 0.5, 0.95, 1.0])
def test_drawn_bits_are_the_twins_of_the_drawn_chunks(keep):
    point = augment.quantise(spread(24, MANY))
    chunks = augment.draw_chunks(4, (5, 15), (0.15, 0.45), rng(25))
    assert ((chunks.count >= 5) & (chunks.count <= 15)).all() and chunks.box.shape == (4, 15, 6)
    key = rng(26).integers(0, 2**64, dtype=np.uint64)
    bits = augment.draw_bits(point, chunks, keep, rng(26))
    assert_same(bits, naive.draw_masks(point, chunks.box, chunks.count, round(keep * 65536), key))
    assert keep < 1 or bits.any()
    none = augment.no_chunks(4)
    assert_array_equal(augment.draw_bits(point, none, 1.0, rng(27)), np.full(MANY, 15))


def drawn_bits(key, t, count):
    """Bit patterns with many set bits, as the masks of sequences have."""
    return (rng((28, key)).integers(0, 2**t, count) | rng((29, key)).integers(0, 2**t, count)).astype(np.uint8)


@FRAMES
@COUNTS
def test_planes_histogram_and_rows_equal_the_twins(t, count):
    bits = drawn_bits(t, t, count)
    assert_same(accept.mask_histogram(bits, t), naive.mask_histogram(bits, t))
    planes = augment.pack_planes(bits, t)
    assert_same(planes, naive.pack_planes(bits, t))
    for plane in planes:
        assert sequence_kernels.count_bits(plane) == len(naive.frame_rows(plane, count))


def test_the_masks_of_every_frame_may_be_empty_or_full():
    for bits in (np.zeros(FEW, np.uint8), np.full(FEW, 255, np.uint8)):
        planes = augment.pack_planes(bits, 8)
        assert_same(planes, naive.pack_planes(bits, 8))
        sequence = Sequence("scan", 0, (make_actor(Cloud(spread(34, FEW)), naive.masks(planes, FEW)),))
        for i, j in frame_pairs(8):
            first, second = sequence.correspondences(i, j)
            assert len(first) == len(second) == (FEW if bits.any() else 0)


def actor(key, t, count, role):
    """An actor of random points and masks."""
    planes = naive.pack_planes(drawn_bits((key, t), t, count), t) if count else np.zeros((t, 0), np.uint8)
    pose = shape_pose(rng((30, key)).random((t, 2)) * 3, rng((31, key)).random(t) * 7, -1.2)
    held = Cloud(spread((32, key), count), instance=np.full(count, -1) if role else np.arange(count))
    return make_actor(held, naive.masks(planes, count), pose if role else None, role)


SIZES = pytest.mark.parametrize("sizes", [(MANY, 1000), (300, 1), (257, 7), (1, 0), (0, 300), (0, 0)])


def twin_pairs(actors):
    """Pair lists of all frames of a sequence, from the twins of its actors."""
    offset, parts = np.zeros(len(actors[0].planes), np.int32), []
    for one in actors:
        count = len(one.cloud.point)
        parts.append(naive.pair_lists(one.planes, count, offset))
        offset = offset + np.array([len(naive.frame_rows(plane, count)) for plane in one.planes], np.int32)
    return [tuple(map(np.concatenate, zip(*lists, strict=True))) for lists in zip(*parts, strict=True)]


@FRAMES
@SIZES
def test_pair_lists_are_the_twins(t, sizes):
    actors = tuple(actor(role, t, count, role) for role, count in enumerate(sizes))
    sequence = Sequence("scan", 0, actors)
    for (i, j), twin in zip(itertools.combinations(range(t), 2), twin_pairs(actors), strict=True):
        first, second = sequence.correspondences(i, j)
        assert_same(first, twin[0])
        assert_same(second, twin[1])


@FRAMES
@SIZES
def test_frames_hold_the_points_that_the_twins_keep_where_their_pose_puts_them(t, sizes):
    actors = tuple(actor(role, t, count, role) for role, count in enumerate(sizes))
    sequence = Sequence("scan", 0, actors)
    for number, frame in enumerate(sequence.frames):
        rows = [naive.frame_rows(one.planes[number], len(one.cloud.point)) for one in actors]
        assert_same(frame.point_index, np.concatenate(rows))
        assert_array_equal(frame.actor, np.repeat([0, 1], [len(row) for row in rows]))
        moved = naive.posed(actors[1].cloud.point[rows[1]], actors[1].pose[number])
        assert_array_equal(frame.point[: len(rows[0])], actors[0].cloud.point[rows[0]])
        assert_allclose(frame.point[len(rows[0]) :], moved, rtol=2e-7, atol=2e-7)
        assert frame.label is None and frame.point.dtype == np.float32
        assert_array_equal(frame.instance, np.concatenate([rows[0], np.full(len(rows[1]), -1)]))


def test_a_pose_is_applied_in_float64_and_rounded_once():
    """Far from the origin, as scans in a map's coordinates are, float32 would lose the millimetres of a shape."""
    point, pose = spread(70, MANY), np.eye(4, dtype=np.float32)
    pose[:2, :2], pose[:3, 3] = [[0.6, -0.8], [0.8, 0.6]], [4000.3, -9000.7, 0.2]
    wide, out = [row.astype(np.float64) for row in point.T], np.empty_like(point)
    sequence_kernels.transform(point, pose, out)
    for axis, (a, b, c, d) in enumerate(pose[:3].astype(np.float64)):
        assert_array_equal(out[:, axis], (a * wide[0] + b * wide[1] + c * wide[2] + d).astype(np.float32))


# Acceptance


@FRAMES
def test_a_sequence_is_accepted_where_the_twin_accepts_it(t):
    seen = set()
    for key in range(300 if JITTED else 60):
        keep = rng((33, key)).random() * 0.5 + 0.5
        scan, shape = ((rng((34, key, n)).random((n, t)) < keep) @ (1 << np.arange(t)) for n in (200, 40))
        histograms = [np.bincount(bits, minlength=2**t) for bits in (scan, shape)]
        reason = accept.find_reason(histograms[0], histograms[1:], naive.COMMON_SHARE, naive.FRAME_SHARE)
        common = [(bits == 2**t - 1).sum() for bits in (scan, shape)]
        kept = [sum((bits >> f & 1).sum() for bits in (scan, shape)) for f in range(t)]
        assert (reason is None) == naive.accepted(common, (200, 40), kept)
        seen.add(reason)
    assert {None, "too few scan points common to all frames"} <= seen


def test_each_rule_of_acceptance_has_its_own_reason_and_its_limit_is_inclusive():
    def reason(scan, shape):
        return accept.find_reason(np.array(scan), [np.array(shape)], 0.3, 0.5)

    assert reason([70, 0, 0, 30], [0, 0, 0, 100]) is None
    assert reason([71, 0, 0, 29], [0, 0, 0, 100]) == "too few scan points common to all frames"
    assert reason([0, 0, 0, 100], [71, 0, 0, 29]) == "too few shape points common to all frames"
    assert reason([50, 20, 0, 30], [0, 0, 0, 0]) == "a frame keeps too few points"
    assert reason([50, 0, 20, 30], [0, 0, 0, 0]) == "a frame keeps too few points"
    assert reason([0, 50, 20, 30], [0, 0, 0, 0]) is None
    several = [np.array([0, 0, 0, 100]), np.array([71, 0, 0, 29])]
    assert "shape points" in accept.find_reason(np.array([0, 0, 0, 100]), several, 0.3, 0.5)
    assert accept.find_reason(np.array([50, 20, 0, 30]), several[:1] * 2, 0.3, 0.5) is None


# Plain Python


@pytest.mark.skipif(not JITTED, reason="this is the plain run itself")
def test_the_kernels_equal_their_twins_without_the_compiler_too():
    """The two really differ: integers overflow, divisions by zero raise, counters take the type of what they count."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-W", "ignore:overflow:RuntimeWarning", __file__]
    root = pathlib.Path(__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed, 1 skipped" in done.stdout
