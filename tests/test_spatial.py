"""STRL's transforms and augmentations: every range and chance that section 4 prints, over ten thousand draws."""

import dataclasses
import math

import numpy as np
import pytest

from tests.makers.sequences import keyed
from train.config import ConfigError
from train.inputs import spatial
from train.inputs.spatial import Spatial, Temporal

DRAWS = 10_000
STILL = Spatial(crop_chance=0, cutout_chance=0, jitter=0, dropout=0)


def ball(count: int = 600, number: int = 0) -> np.ndarray:
    """Points (count, 3) float32 in a box of 2 x 1 x 4 away from the origin."""
    return (keyed(number, 7).random((count, 3)) * [2, 1, 4] + [5, -3, 1]).astype(np.float32)


def is_uniform(values, low: float, high: float) -> bool:
    """Whether values fill a range evenly: all within it, and every tenth of it by a tenth of them."""
    values = np.asarray(values)
    count, _ = np.histogram(values, 10, (low, high))
    spare = 5 * math.sqrt(len(values) * 0.09)
    return bool(values.min() >= low and values.max() <= high and (abs(count - len(values) / 10) < spare).all())


def has_chance(hits: np.ndarray, chance: float) -> bool:
    return abs(np.mean(hits) - chance) < 5 * math.sqrt(chance * (1 - chance) / len(hits))


def test_transforms_have_the_printed_ranges_each_with_a_chance_of_a_half():
    point, rng = ball(50), keyed(1)
    size, middle = np.ptp(point, axis=0), point.mean(axis=0, dtype=np.float64)
    angle, shift, scale = [], [], []
    for _ in range(DRAWS):
        matrix = spatial.draw_transform(point, Temporal(), rng)
        s = np.cbrt(np.linalg.det(matrix[:3, :3]))
        r = matrix[:3, :3] / s
        angle.append([math.atan2(r[2, 1], r[2, 2]), math.asin(-r[2, 0]), math.atan2(r[1, 0], r[0, 0])])
        shift.append((matrix[:3, :3] @ middle + matrix[:3, 3] - middle) / size)
        scale.append(s)
    angle, shift, scale = map(np.array, (angle, shift, scale))
    turned, went, grown = (
        (abs(x) > 1e-6).reshape(DRAWS, -1).any(axis=1) for x in (np.degrees(angle), shift, scale - 1)
    )
    assert all(has_chance(hits, 0.5) for hits in (turned, went, grown))
    assert has_chance(turned & went & grown, 0.125)
    assert all(is_uniform(np.degrees(column), -15, 15) for column in angle[turned].T)
    assert all(is_uniform(column, -0.1 - 1e-7, 0.1 + 1e-7) for column in shift[went].T)
    assert is_uniform(scale[grown], 0.8, 1.25)


def test_crops_have_the_printed_volume_and_aspects_and_lie_in_the_box():
    side, low = [], []
    rng = keyed(2)
    for _ in range(DRAWS):
        first, last = spatial.draw_crop(Spatial(), rng)
        side.append(last - first)
        low.append(first / np.maximum(1 - last + first, 1e-9))
    side = np.array(side)
    assert is_uniform(side.prod(axis=1), 0.6, 1.0)
    ratio = side.max(axis=1) / side.min(axis=1)
    assert ratio.max() <= 1 / 0.75 + 1e-9 and side.max() <= 1 + 1e-12
    assert (np.array(low) >= 0).all() and (np.array(low) <= 1 + 1e-9).all()
    small = [np.subtract(*spatial.draw_crop(Spatial(crop_high=0.6), rng)[::-1]) for _ in range(DRAWS)]
    ratios = np.array([x[i] / x[j] for x in small for i, j in ((0, 1), (1, 2), (2, 0))])
    assert 0.75 - 1e-9 <= ratios.min() < 0.76 and 1.32 < ratios.max() <= 4 / 3 + 1e-9


def test_cut_outs_have_the_printed_sides_each_by_itself():
    rng = keyed(3)
    boxes = [spatial.draw_cutout(Spatial(), rng) for _ in range(DRAWS)]
    side = np.array([high - low for low, high in boxes])
    assert all(is_uniform(column, 0.1 - 1e-12, 0.4 + 1e-12) for column in side.T)
    assert abs(np.corrcoef(side.T)[np.triu_indices(3, 1)]).max() < 0.05
    assert all((low >= 0).all() and (high <= 1 + 1e-12).all() for low, high in boxes)


@pytest.mark.parametrize("kind", ["crop", "cutout"])
def test_crop_and_cut_out_are_made_half_of_the_time(kind):
    recipe = dataclasses.replace(STILL, **{f"{kind}_chance": getattr(Spatial(), f"{kind}_chance")})
    recipe = dataclasses.replace(recipe, crop_high=0.6, cutout_low=0.3)
    point, rng = ball(400), keyed(4)
    assert has_chance(np.array([len(spatial.vary(point, None, recipe, rng)) < 400 for _ in range(DRAWS)]), 0.5)


def test_jitter_moves_every_coordinate_by_up_to_a_twentieth_and_never_back():
    point = ball(DRAWS)
    moved = spatial.vary(point, None, dataclasses.replace(STILL, jitter=0.05), keyed(5)).astype(np.float64) - point
    assert moved.shape == (DRAWS, 3)
    assert all(is_uniform(column, -1e-6, 0.05 + 1e-6) for column in moved.T)


def test_the_share_of_points_that_drop_out_is_uniform_up_to_seven_tenths():
    point, rng = ball(4000), keyed(6)
    left = np.array([len(spatial.drop_out(point, 0.7, rng)) for _ in range(2000)]) / 4000
    assert is_uniform(np.clip(1 - left, 0, 0.7), 0, 0.7)  # the count itself varies by a hundredth
    assert left.min() > 0.27


def test_down_sampling_takes_points_that_are_there_without_repeats_while_there_are_enough():
    point = ball(300)
    fewer, more = (spatial.down_sample(point, count, keyed(8)) for count in (200, 500))
    assert fewer.shape == (200, 3) and len(np.unique(fewer, axis=0)) == 200
    assert np.array_equal(more[:300], point) and more.shape == (500, 3)
    assert set(map(tuple, more)) == set(map(tuple, point))
    share = [spatial.down_sample(point, 100, keyed(9, n))[:, None] == point[0] for n in range(1000)]
    assert has_chance(np.array([hit.all(axis=-1).any() for hit in share]), 1 / 3)


def test_a_unit_sphere_holds_the_cloud_around_its_mean():
    found = spatial.moved(ball(), spatial.unit_sphere(ball()))
    assert np.linalg.norm(found, axis=1).max() == pytest.approx(1, abs=1e-6)
    assert found.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-6)
    assert np.isfinite(spatial.moved(ball(1), spatial.unit_sphere(ball(1)))).all()


@pytest.mark.parametrize("count", [1, 2, 130, 600])
def test_a_cloud_of_few_points_keeps_some(count):
    rng = keyed(10)
    for _ in range(200):
        found = spatial.vary(ball(count), None, Spatial(dropout=0), rng)
        assert min(count, spatial.LEAST) <= len(found) <= count
        assert spatial.vary(ball(count), 64, Spatial(), rng).shape == (64, 3)


def test_a_draw_repeats_and_depends_on_its_key():
    once, again, other = (spatial.vary(ball(), 100, Spatial(), keyed(key)) for key in (11, 11, 12))
    assert once.dtype == np.float32 and np.array_equal(once, again) and not np.array_equal(once, other)


# The published code's values -----------------------------------------------------------------------------------------


def test_points_between_others_are_means_of_five_neighbours():
    point = ball(50)
    made = spatial.between(point, 120, keyed(13))
    assert made.shape == (120, 3) and np.array_equal(made[:50], point)
    near = np.sort(np.linalg.norm(made[50:, None] - point[None], axis=2), axis=1)
    assert (made[50:] >= point.min(axis=0)).all() and (made[50:] <= point.max(axis=0)).all()
    assert near[:, 0].max() < near[:, -1].min()


@pytest.mark.parametrize("shape", [True, False])
def test_clouds_as_published_are_normalised_by_themselves_and_have_overwritten_points(shape):
    rng, reach, repeats = keyed(14), [], []
    for _ in range(300):
        found = spatial.vary_as_published(ball(400), 256, shape, rng)
        assert found.shape == (256, 3) and found.dtype == np.float32
        reach.append(np.linalg.norm(found, axis=1).max())
        repeats.append(1 - len(np.unique(found, axis=0)) / 256)
    assert 0.6 < min(reach) and max(reach) < 1.25 * (1 + 0.2 * math.sqrt(3)) + 0.1
    assert 0.7 < max(repeats) <= 0.9 and 0.3 < np.mean(repeats) < 0.55


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        (Spatial(), "crop_low", 0.0),
        (Spatial(), "aspect_low", 1.1),
        (Spatial(), "cutout_low", 0.5),
        (Spatial(), "dropout", 1.0),
        (Spatial(), "crop_chance", 1.5),
        (Temporal(), "scale_least", 2.0),
        (Temporal(), "chance", -0.1),
    ],
)
def test_ranges_that_break_a_rule_are_refused(record, field, value):
    with pytest.raises(ConfigError, match=f"{field} = "):
        dataclasses.replace(record, **{field: value})
