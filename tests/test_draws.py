"""What is drawn is spread as section 3.3 says: uniform, over the whole of every range, both ends included.

Keys are fixed, so a test gives the same figure each time; its bound is a chance of one in a thousand.
"""

import math

import numpy as np
import pytest
from scipy import stats

from gen4d import sources
from gen4d.config import Config
from gen4d.moving import augment, candidates, generate, models, shape, trajectory
from gen4d.sequence import FloorPlan
from tests.makers.meshes import CUBE_TRIANGLES, CUBE_VERTEX

LIKELY = 1e-3
DRAWS = 4000
CONFIG = Config()


def rng(*key):
    return generate.lane(CONFIG, "draws", *key, "test")


def assert_uniform(values, low, high):
    """Values spread evenly over [low, high), by Kolmogorov's test, that come near to both ends."""
    values = np.asarray(values)
    assert low <= values.min() and values.max() <= high
    assert stats.kstest((values - low) / (high - low), "uniform").pvalue > LIKELY
    reach = 10 * (high - low) / len(values)
    assert values.min() < low + reach and values.max() > high - reach


def assert_even(counts):
    """Counts of things that are equally likely, by chi-square."""
    assert min(counts) > 0
    assert stats.chisquare(counts).pvalue > LIKELY


def assert_share(hits, of, share):
    """So many hits of a chance, by the binomial distribution."""
    assert stats.binomtest(int(hits), int(of), share).pvalue > LIKELY


# Chunks


@pytest.fixture(scope="module")
def chunks():
    """Chunks of all frames of many sequences, and their boxes as fractions of the extent (B, 6)."""
    size, count = (CONFIG.chunk_min, CONFIG.chunk_max), (CONFIG.chunks_min, CONFIG.chunks_max)
    drawn = [augment.draw_chunks(4, count, size, rng(k, 0)) for k in range(DRAWS // 4)]
    number = np.concatenate([one.count for one in drawn])
    used = [one.box[frame, : one.count[frame]] for one in drawn for frame in range(4)]
    return number, np.concatenate(used) / augment.LEVELS


def test_every_number_of_chunks_from_the_smallest_to_the_largest_is_as_likely(chunks):
    number, _ = chunks
    assert np.unique(number).tolist() == list(range(5, 16))
    assert_even(np.bincount(number)[5:])


@pytest.mark.parametrize("axis", range(3))
def test_chunks_are_from_15_to_45_percent_of_the_extent_with_a_centre_anywhere(chunks, axis):
    """Of boxes that no face of the scan cuts: they are of side s with a chance of 1 - s, and then their centre is
    uniform over what is left."""
    low, high = chunks[1][:, axis], chunks[1][:, 3 + axis]
    whole = (low > 0) & (high < 1)
    side = (high - low)[whole]
    below = lambda s: (s - s**2 / 2 - 0.13875) / 0.21  # noqa: E731  share of sides below s, by 1 - s on [.15, .45]
    assert_uniform(below(np.clip(side, 0.15, 0.45)), 0, 1)
    assert_uniform(low[whole] / (1 - side), 0, 1)
    assert_share(whole.sum(), len(whole), 0.7)  # the mean of 1 - s


def test_a_chunk_has_one_proportion_for_all_axes(chunks):
    box = chunks[1]
    inside = ((box[:, :3] > 0) & (box[:, 3:] < 1)).all(axis=1)
    side = (box[:, 3:] - box[:, :3])[inside]
    assert np.ptp(side, axis=1).max() < 2.1 / augment.LEVELS


# Points kept


@pytest.mark.parametrize("keep", [0.95, 0.5, 1.0])
def test_a_frame_keeps_each_point_with_the_chance_asked_for_and_no_frame_like_another(keep):
    point = np.zeros((3, 50_000), np.uint16)
    bits = augment.draw_bits(point, augment.no_chunks(4), keep, rng(1, 0))
    kept = np.array([(bits >> frame) & 1 for frame in range(4)])
    for frame in range(4):
        assert_share(kept[frame].sum(), kept.shape[1], keep)
        for other in range(frame):
            assert_share((kept[frame] & kept[other]).sum(), kept.shape[1], keep**2)


# Shapes


MEMBERS = {"chair": 7, "sofa": 1, "table": 4}
HEIGHTS = (("chair", 0.7, 1.1), ("sofa", 0.6, 0.6 + 1e-9), ("table", 0.4, 1.2))


@pytest.fixture(scope="module")
def drawn():
    meshes = [
        sources.MeshSource(f"{name}_{i}", name, CUBE_VERTEX, CUBE_TRIANGLES)
        for name, count in MEMBERS.items()
        for i in range(count)
    ]
    config = Config(classes=tuple(MEMBERS), height_m=tuple((*row, 1.0) for row in HEIGHTS))
    shapes = generate.group_shapes(meshes, config.shape_up)
    return [generate.draw_shape(shapes, config, rng(2, k)) for k in range(DRAWS)]


def test_every_class_is_as_likely_whatever_its_shapes(drawn):
    assert_even([sum(one.source.class_name == name for one in drawn) for name in MEMBERS])


@pytest.mark.parametrize("name", ["chair", "table"])
def test_every_shape_of_a_class_is_as_likely(drawn, name):
    names = [one.source.name for one in drawn if one.source.class_name == name]
    assert_even([names.count(f"{name}_{i}") for i in range(MEMBERS[name])])


@pytest.mark.parametrize(("name", "low", "high"), [row for row in HEIGHTS if row[0] != "sofa"])
def test_heights_are_uniform_over_the_range_of_the_class(drawn, name, low, high):
    assert_uniform([one.height_m for one in drawn if one.source.class_name == name], low, high)


def test_points_lie_on_a_surface_by_area():
    """On a box of 1 x 2 x 3 every face gets its share, and every place on it."""
    model = shape.make_model(CUBE_VERTEX * [1, 2, 3], CUBE_TRIANGLES)
    point = shape.sample_surface(model, 3.0, 30_000, rng(3, 0))[0] + [0.5, 1, 0]
    on = [np.isclose(point[:, axis], end, atol=1e-5) for axis, size in enumerate((1, 2, 3)) for end in (0, size)]
    area = np.array([6, 6, 3, 3, 2, 2])
    counts = np.array([rows.sum() for rows in on])
    assert stats.chisquare(counts, area / area.sum() * counts.sum()).pvalue > LIKELY
    for rows, axes in ((on[0], (1, 2)), (on[3], (0, 2)), (on[5], (0, 1))):
        for axis in axes:
            assert_uniform(np.clip(point[rows, axis], 0, axis + 1), 0, axis + 1)


# Ways


SIDE = 100  # cells of 10 cm: 10 x 10 m without an obstacle


@pytest.fixture(scope="module")
def ways():
    space = candidates.FreeSpace(np.ones((SIDE, SIDE)), np.zeros(2, np.int32), 0.1)
    place = candidates.find_candidates(space, 0.5)
    turn = math.radians(CONFIG.turn_max_deg)
    step = (CONFIG.step_min_m, CONFIG.step_max_m)
    made = [trajectory.draw_trajectory(place, 4, step, turn, CONFIG.step_tries, rng(4, k)) for k in range(DRAWS)]
    assert None not in made
    return np.stack([one.position for one in made]), np.stack([one.yaw_rad for one in made])


def far_from_walls(position):
    return (np.abs(position - 5) < 4).all(axis=1)  # a step cannot leave from here


def test_a_way_starts_at_any_free_cell_and_in_any_direction(ways):
    position, yaw = ways
    cell = np.floor(position[:, 0] / 2.5).astype(int)
    assert_even(np.bincount(4 * cell[:, 0] + cell[:, 1], minlength=16))
    row = np.round(position[:, 0] * 10 - 0.5).astype(int) @ [SIDE, 1]
    assert_uniform(row + 0.5, 0, SIDE**2)
    assert_uniform(yaw[:, 0], 0, 2 * math.pi)


def test_the_first_step_goes_anywhere_from_30_to_90_cm(ways):
    """Cells of 10 cm hold the length back from its ends, so Kolmogorov's distance is compared, not its chance."""
    position, _ = ways
    free = far_from_walls(position[:, 0])
    step = (position[:, 1] - position[:, 0])[free]
    length = np.hypot(*step.T)
    assert 0.3 <= length.min() < 0.33 and 0.87 < length.max() <= 0.9 + 1e-9
    assert stats.kstest((length - 0.3) / 0.6, "uniform").statistic < 0.08
    octant = np.floor((np.arctan2(step[:, 1], step[:, 0]) + math.pi / 8) / (math.pi / 4)).astype(int) % 8
    assert_even(np.bincount(octant, minlength=8))


def test_later_steps_turn_by_any_angle_up_to_150_degrees(ways):
    position, _ = ways
    free = far_from_walls(position[:, 1])
    step = np.diff(position[free], axis=1)
    a, b = step[:, 0], step[:, 1]
    turn = np.degrees(np.arctan2(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], (a * b).sum(axis=1)))
    assert -150 <= turn.min() < -145 and 145 < turn.max() < 150
    assert stats.kstest((turn + 150) / 300, "uniform").statistic < 0.03


@pytest.mark.parametrize(("radius_m", "shrink"), [(0.94, 1.0), (1.0, 1.0), (1.25, 0.8), (1.9, 1 / 1.9)])
def test_a_shape_is_shrunk_to_the_widest_disc_that_fits_and_no_further(radius_m, shrink):
    """In a corridor of which every place in the middle is as wide."""
    plan = FloorPlan(np.ones((200, 21), bool), np.zeros(2, np.int32), 0.0, 0.1)
    space = candidates.find_free_space(plan)
    model = shape.make_model(CUBE_VERTEX * [1, 1, 2], CUBE_TRIANGLES)
    source = sources.MeshSource("box", "chair", CUBE_VERTEX, CUBE_TRIANGLES)
    figures = models.Figures(model.disc, model.sphere, model.height, None)
    drawn = generate.Drawn(source, figures, radius_m * space.widest_m / model.disc)
    fit = generate.find_fit(space, drawn, CONFIG, rng(5, 0), shrink_min=0.5)
    assert fit.shrink == pytest.approx(shrink) and fit.radius_m == pytest.approx(min(radius_m, 1) * space.widest_m)


def test_no_draw_of_a_sequence_repeats_another():
    """Every step of every attempt at every sequence of every scan has a generator of its own."""
    lanes = [
        generate.lane(CONFIG, scan, k, attempt, step).random()
        for scan in ("a", "b", "a\0")
        for k in (0, 1, 10)
        for attempt in (0, 1)
        for step in ("shape", "trajectory", "surface", "augment")
    ]
    assert len(set(lanes)) == len(lanes)
