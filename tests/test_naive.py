"""The kernels' twins against brute force and cases worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests import naive

NO_POINT = np.zeros((0, 3), np.float32)


def rng(key):
    return np.random.default_rng(key)


def cluttered(key, shape=(9, 7), share=0.8):
    return rng(key).random(shape) < share


# Points to voxels and columns


def test_a_voxel_is_the_mathematical_floor_of_the_scaled_float32_coordinate():
    point = np.array([[-0.01, 0.0, 0.0199], [0.02, 0.04, -0.04], [-1e-30, 3.99, 7.5]], np.float32)
    expected = [[math.floor(float(x) * 50.0) for x in row] for row in point]
    assert_array_equal(naive.voxel_index(point, 50.0), expected)
    # float32 rounds 0.02 and 0.04 down by less than 1e-9, so the points lie in the voxel below
    assert_array_equal(naive.voxel_index(point, 50.0), [[-1, 0, 0], [0, 1, -2], [-1, 199, 375]])
    assert naive.voxel_index(point, 50.0).dtype == np.int32


def test_the_first_row_of_every_voxel_is_kept_in_file_order():
    voxel = np.array([[1, 2, 3], [0, 0, 0], [1, 2, 3], [1, 2, -3], [0, 0, 0]], np.int32)
    assert_array_equal(naive.first_in_voxel(voxel), [True, True, False, True, False])
    many = rng(1).integers(-3, 3, (500, 3)).astype(np.int32)
    _, first = np.unique(many, axis=0, return_index=True)
    assert_array_equal(np.flatnonzero(naive.first_in_voxel(many)), np.sort(first))


def test_a_morton_key_interleaves_the_bits_of_x_y_z_lowest_first():
    voxel = rng(2).integers(-(2**20), 2**20, (50, 3)).astype(np.int32)
    voxel[:3] = [[0, 0, 0], [-(2**20)] * 3, [2**20 - 1] * 3]
    digits = [[f"{v + 2**20:021b}" for v in row] for row in voxel.tolist()]
    expected = [int("".join(z + y + x for x, y, z in zip(*row, strict=True)), 2) for row in digits]
    assert_array_equal(naive.morton_key(voxel), np.array(expected, np.uint64))
    assert naive.morton_key(voxel)[1] == 0 and naive.morton_key(voxel)[2] == 2**63 - 1
    steps = naive.morton_key(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.int32)) - naive.morton_key(voxel[:1])
    assert_array_equal(steps, [1, 2, 4])


def test_the_minimum_of_a_column_is_over_its_points_alone():
    point = (rng(3).random((200, 3)) * [1, 0.6, 2] - 0.3).astype(np.float32)
    expected = np.full((11, 7), np.inf)
    for x, y, z in point.tolist():
        column = math.floor(x * 10.0) + 3, math.floor(y * 10.0) + 3
        expected[column] = min(expected[column], z)
    assert_array_equal(naive.column_minimum(point, 10.0, np.array([-3, -3], np.int32), (11, 7)), expected)


def test_the_floor_lies_in_the_middle_of_layer_16():
    height = 0.7 + np.array([-0.049, 0.049, 0.051, -0.051, 1.0, -9.0])
    point = np.array([[0.05, 0.1 * i + 0.05, z] for i, z in enumerate(height)], np.float32)
    layers, top = naive.column_layers(point, 10.0, np.zeros(2, np.int32), (1, 7), 0.7, 2.0, 0.1)
    assert_array_equal(layers[0], [1 << 16, 1 << 16, 1 << 17, 1 << 15, 1 << 26, 1 << 0, 0])
    assert_array_equal(top[0], [*point[:, 2].astype(np.float64), -np.inf])
    assert layers.dtype == np.uint64


def test_points_above_the_ceiling_count_neither_as_layers_nor_as_top():
    point = np.array([[0, 0, 0.0], [0, 0, 2.0], [0, 0, 2.01], [0.1, 0, 2.5]], np.float32)
    layers, top = naive.column_layers(point, 10.0, np.zeros(2, np.int32), (2, 1), 0.0, 2.0, 0.1)
    assert_array_equal(layers, [[1 << 16 | 1 << 36], [0]])
    assert_array_equal(top, [[2.0], [-np.inf]])


def test_layers_collect_every_point_of_a_column():
    point = (rng(4).random((300, 3)) * [0.5, 0.3, 2.6] - [0, 0, 0.2]).astype(np.float32)
    layers, top = naive.column_layers(point, 10.0, np.zeros(2, np.int32), (5, 3), 0.05, 2.0, 0.1)
    for column in np.ndindex(5, 3):
        inside = [p for p in point.tolist() if (math.floor(p[0] * 10.0), math.floor(p[1] * 10.0)) == column]
        inside = [z - 0.05 for _, _, z in inside if z <= 0.05 + 2.0]
        assert int(layers[column]) == sum(1 << bit for bit in {math.floor(z / 0.1 + 0.5) + 16 for z in inside})
        assert top[column] == pytest.approx(max(inside) + 0.05, abs=1e-15)


# Free space and trajectories


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 5), (9, 4)])
@pytest.mark.parametrize("share", [0.0, 0.6, 0.95, 1.0])
def test_edge_distance_is_the_least_distance_to_a_closed_invalid_cell(shape, share):
    valid = cluttered(5, shape, share)
    expected = np.zeros(shape)
    for x, y in np.argwhere(valid):
        gaps = [
            math.hypot(max(abs(i - x) - 0.5, 0), max(abs(j - y) - 0.5, 0))
            for i in range(-3, shape[0] + 3)
            for j in range(-3, shape[1] + 3)
            if not (0 <= i < shape[0] and 0 <= j < shape[1] and valid[i, j])
        ]
        expected[x, y] = min(gaps)
    assert_allclose(naive.edge_distance(valid), expected, rtol=1e-12)


def test_edge_distance_of_hand_made_grids():
    assert_array_equal(naive.edge_distance(np.ones((1, 1), bool)), [[0.5]])
    one_pillar = np.ones((7, 7), bool)
    one_pillar[3, 3] = False
    distance = naive.edge_distance(one_pillar)
    assert distance[3, 3] == 0 and distance[3, 2] == 0.5 and distance[1, 1] == 1.5
    assert distance[2, 2] == math.hypot(0.5, 0.5)  # a corner
    assert naive.edge_distance(np.ones((0, 4), bool)).shape == (0, 4)


LIMITS = (0.3, 0.9, math.radians(150))
GRID = np.array([[0.1 * x + 0.05, 0.1 * y + 0.05] for x in range(25) for y in range(20)])


def test_a_walk_obeys_its_limits_after_snapping():
    reached = 0
    for key in range(40):
        draw = rng((6, key)).random((5, 4, 2))
        start = int(rng((7, key)).integers(len(GRID)))
        path = naive.walk(GRID, start, draw, *LIMITS)
        if path[0] < 0:
            assert (path == -1).all() and len(path) == 6
            continue
        reached += 1
        step = np.diff(GRID[path], axis=0)
        length = np.hypot(step[:, 0], step[:, 1])
        turn = np.diff(np.arctan2(step[:, 1], step[:, 0]))
        assert path[0] == start and path.dtype == np.int64
        assert (length >= 0.3).all() and (length <= 0.9).all()
        assert (np.abs((turn + math.pi) % (2 * math.pi) - math.pi) < math.radians(150)).all()
    assert 20 < reached  # starts in the middle of the grid nearly always get somewhere


def test_a_walk_takes_the_first_try_that_passes():
    candidate = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.6], [1.0, 0.1]])
    nowhere, right, up, straight = (0.0, 0.5), (0.4, 0.0), (0.5, 0.25), (0.4, 0.5)
    # the first try aims 30 cm to the left and snaps back to the start: too short
    path = naive.walk(candidate, 0, np.array([[nowhere, right, up], [straight, nowhere, nowhere]]), *LIMITS)
    assert_array_equal(path, [0, 1, 3])
    path = naive.walk(candidate, 0, np.array([[nowhere, up, right]]), *LIMITS)
    assert_array_equal(path, [0, 2])


def test_a_walk_may_not_turn_back():
    corridor = np.array([[0.0, 0.0], [0.5, 0.0]])
    ahead, back = (1 / 3, 0.0), (1 / 3, 0.999999)
    assert_array_equal(naive.walk(corridor, 0, np.array([[ahead]]), *LIMITS), [0, 1])
    assert_array_equal(naive.walk(corridor, 0, np.array([[ahead], [back]]), *LIMITS), [-1, -1, -1])
    # with the limit at more than half a turn the same draws lead back to the start
    assert_array_equal(naive.walk(corridor, 0, np.array([[ahead], [back]]), 0.3, 0.9, math.pi + 1e-3), [0, 1, 0])


def test_a_walk_prefers_the_lowest_row_among_equally_near_candidates():
    candidate = np.array([[0.5, 0.25], [0.0, 0.0], [0.5, -0.25], [0.5, 0.25]])
    assert_array_equal(naive.walk(candidate, 1, np.array([[(1 / 3, 0.0)]]), *LIMITS), [1, 0])
    assert_array_equal(naive.walk(candidate[::-1], 2, np.array([[(1 / 3, 0.0)]]), *LIMITS), [2, 0])


def test_a_walk_from_the_only_candidate_is_stuck():
    assert_array_equal(naive.walk(GRID[:1], 0, rng(8).random((3, 5, 2)), *LIMITS), [-1] * 4)


def every_circle(point):
    """Radius of the smallest circle among those through every one, two or three points, each grown to enclose all."""
    centres = [naive.circumcentre(np.array(c)) for k in (1, 2, 3) for c in itertools.combinations(point, k)]
    return min(np.hypot(*(point - centre).T).max() for centre in centres if centre is not None)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("kind", ["cloud", "line", "grid", "ring", "far away"])
def test_no_circle_through_two_or_three_points_is_smaller_than_the_enclosing_circle(kind, count):
    x, y = rng((9, count)).random((2, count))
    point = {
        "cloud": np.stack([x, 3 * y], axis=1),
        "line": np.stack([x, 2 * x], axis=1),
        "grid": np.round(np.stack([3 * x, 3 * y], axis=1)),
        "ring": np.stack([np.cos(7 * x), np.sin(7 * x)], axis=1),
        "far away": np.stack([x, y], axis=1) + [1e4, -2e4],
    }[kind]
    *centre, radius = naive.enclosing_circle(point)
    extent = float(np.ptp(point, axis=0).max()) or 1.0
    assert radius == pytest.approx(every_circle(point), abs=1e-9 * extent)
    assert (np.hypot(*(point - centre).T) <= radius).all()


def test_enclosing_circles_known_by_heart():
    assert naive.enclosing_circle(np.array([[3.0, 4.0]])) == (3.0, 4.0, 0.0)
    assert naive.enclosing_circle(np.array([[3.0, 4.0]] * 5)) == (3.0, 4.0, 0.0)
    square = np.array([[0, 0], [0, 2], [2, 0], [2, 2], [1, 1.5]])
    assert naive.enclosing_circle(square) == pytest.approx((1, 1, math.sqrt(2)))
    obtuse = np.array([[-2.0, 0], [2, 0], [0, 0.5]])
    assert naive.enclosing_circle(obtuse) == pytest.approx((0, 0, 2))
    angle = np.linspace(0, 2 * math.pi, 1000)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.36 + [5, -3]
    assert naive.enclosing_circle(ring) == pytest.approx((5, -3, 0.36))


# Masks


def test_quantised_coordinates_span_the_box_and_are_clipped_to_it():
    point = np.array([[0, 0, 5], [2, 1, 5], [1, 0.5, 5], [-1, 9, 6]], np.float32)
    step = naive.quantise(point, np.array([0.0, 0.0, 5.0]), np.array([2.0, 1.0, 0.0]))
    assert_array_equal(step, [[0, 65535, 32767, 0], [0, 65535, 32767, 65535], [0, 0, 0, 0]])
    assert step.dtype == np.uint16 and step.flags.c_contiguous


def splitmix(state):
    """SplitMix64's finaliser in Python integers."""
    state %= 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_the_hash_is_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]  # seed 1234567
    assert_array_equal(naive.mixed(4, 1234567), np.array(published, np.uint64))


@pytest.mark.parametrize("key", [0, 12345, 2**64 - 1])
@pytest.mark.parametrize("threshold", [0, 1, 40000, 65536])
def test_masks_equal_their_definition_point_by_point(key, threshold):
    t, n = 8, 60
    quantised = rng(10).integers(0, 12, (3, n)).astype(np.uint16)
    box = np.sort(rng(11).integers(0, 12, (t, 3, 2, 3)), axis=2).reshape(t, 3, 6).astype(np.uint16)
    box_count = rng(12).integers(0, 4, t)
    expected = np.zeros(n, int)
    for i, f in itertools.product(range(n), range(t)):
        lanes = splitmix((key if f < 4 else key ^ 0xD6E8FEB86659FD93) + (i + 1) * 0x9E3779B97F4A7C15)
        p = quantised[:, i].tolist()
        removed = any(all(row[a] <= p[a] <= row[a + 3] for a in range(3)) for row in box[f, : box_count[f]].tolist())
        expected[i] |= (not removed and (lanes >> (16 * (f % 4))) % 65536 < threshold) << f
    assert_array_equal(naive.draw_masks(quantised, box, box_count, threshold, key), expected)


def test_boxes_remove_their_faces_and_a_box_turned_inside_out_removes_nothing():
    quantised = np.array([[4, 5, 6, 7, 8], [0] * 5, [65535] * 5], np.uint16)
    box = np.array([[[5, 0, 65535, 7, 0, 65535]], [[7, 0, 0, 5, 0, 65535]]], np.uint16)
    assert_array_equal(naive.draw_masks(quantised, box, np.array([1, 1]), 65536, 3), [3, 2, 2, 2, 3])
    assert_array_equal(naive.draw_masks(quantised, box, np.array([0, 1]), 65536, 3), [3] * 5)
    assert_array_equal(naive.draw_masks(quantised, box, np.array([0, 0]), 0, 3), [0] * 5)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
@pytest.mark.parametrize("t", [1, 4, 8])
def test_planes_histogram_and_rows_say_the_same_as_the_bits(t, count):
    bits = rng((13, t, count)).integers(0, 2**t, count).astype(np.uint8)
    planes = naive.pack_planes(bits, t)
    assert planes.shape == (t, math.ceil(count / 8)) and planes.dtype == np.uint8
    for f in range(t):
        rows = [i for i in range(count) if bits[i] >> f & 1]
        assert_array_equal(naive.frame_rows(planes[f], count), rows)
        assert int.from_bytes(planes[f].tobytes(), "big") == sum(1 << (8 * planes.shape[1] - 1 - i) for i in rows)
    assert_array_equal(naive.mask_histogram(bits, t), np.bincount(bits, minlength=2**t))


@pytest.mark.parametrize("count", [0, 1, 50])
def test_pairs_are_all_and_only_equal_identities(count):
    bits = rng((14, count)).integers(0, 16, count).astype(np.uint8)
    planes, offset = naive.pack_planes(bits, 4), np.array([0, 10, 200, 3000], np.int32)
    place = [{int(i): k + offset[f] for k, i in enumerate(naive.frame_rows(planes[f], count))} for f in range(4)]
    pairs = naive.pair_lists(planes, count, offset)
    assert len(pairs) == 6
    for (i, j), (first, second) in zip(itertools.combinations(range(4), 2), pairs, strict=True):
        both = sorted(place[i].keys() & place[j].keys())
        assert_array_equal(first, [place[i][identity] for identity in both])
        assert_array_equal(second, [place[j][identity] for identity in both])
        assert first.dtype == second.dtype == np.int32


def test_the_yaw_turns_with_the_heading_from_the_second_step_on():
    position = np.array([[0.0, 0.0], [0.0, 0.5], [-0.6, 0.5], [-0.6, 0.1]])
    poses = naive.shape_poses(position, 0.3, -1.0)
    yaw = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
    assert_allclose(yaw, [0.3, 0.3, 0.3 + math.pi / 2, 0.3 - math.pi], atol=1e-6)
    assert_allclose(poses[:, :3, 3], np.c_[position, np.full(4, -1.0)], atol=1e-7)
    assert_allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (4, 1, 1)), atol=1e-6)


def test_nothing_in_gives_nothing_out():
    voxel = naive.voxel_index(NO_POINT, 50.0)
    origin = np.zeros(2, np.int32)
    assert voxel.shape == (0, 3) and naive.first_in_voxel(voxel).shape == (0,) and naive.morton_key(voxel).shape == (0,)
    assert np.isposinf(naive.column_minimum(NO_POINT, 10.0, origin, (2, 3))).all()
    layers, top = naive.column_layers(NO_POINT, 10.0, origin, (2, 3), 0.0, 2.0, 0.1)
    assert not layers.any() and np.isneginf(top).all()
    assert naive.quantise(NO_POINT, np.zeros(3), np.ones(3)).shape == (3, 0)
    box = np.zeros((4, 0, 6), np.uint16)
    assert naive.draw_masks(np.zeros((3, 0), np.uint16), box, np.zeros(4, int), 65536, 1).shape == (0,)
