"""IoU, suppression and AP of boxes, each against another way to compute it, and AP against cases worked out by hand."""

import math

import numpy as np
import pytest

from tests import naive_boxes as naive
from tests.makers.labelled import keyed
from train.tasks.detect import kernels
from train.tasks.detect.ap import THRESHOLDS, Scene, average_precision
from train.tasks.detect.boxes import box_overlaps, corners, hulls, inside, suppress

CLASSES = 3


def boxes(rng, count, turned=True):
    """Boxes that often meet."""
    heading = rng.uniform(-4, 4, (count, 1)) if turned else np.zeros((count, 1))
    return np.hstack([rng.uniform(0, 1.5, (count, 3)), rng.uniform(0.2, 1.5, (count, 3)), heading])


@pytest.mark.parametrize("turned", [False, True])
def test_iou_equals_that_of_hulls_of_corners_and_crossings(turned):
    first, second = boxes(keyed(1), 12, turned), boxes(keyed(2), 9, turned)
    found = box_overlaps(first, second)
    np.testing.assert_allclose(found, [[naive.iou(a, b) for b in second] for a in first], atol=1e-9)
    assert (found > 0.2).sum() > 3
    plain = np.empty((12, 9))
    kernels.overlaps.py_func(first, second, plain)
    np.testing.assert_allclose(plain, found, atol=1e-12)


def test_iou_of_turned_boxes_equals_that_of_counted_points():
    first, second = boxes(keyed(6), 4), boxes(keyed(7), 3)
    step = 0.05
    grid = np.stack(np.meshgrid(*[np.arange(-1.1, 2.6, step) + step / 2] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    held = [[inside(box, grid) for box in side] for side in (first, second)]
    counted = [[(a & b).sum() / (a | b).sum() for b in held[1]] for a in held[0]]
    np.testing.assert_allclose(box_overlaps(first, second), counted, atol=0.02)


def test_iou_of_known_boxes():
    unit = np.array([0, 0, 0, 1, 1, 1, 0.0])
    turned = {
        "itself": (unit, 1.0),
        "half as high": (unit * [1, 1, 1, 1, 1, 0.5, 1], 0.5),
        "moved by a half": (unit + [0.5, 0, 0, 0, 0, 0, 0], 1 / 3),
        "touching": (unit + [1, 0, 0, 0, 0, 0, 0], 0.0),
        "a quarter turn": (unit + [0, 0, 0, 0, 0, 0, math.pi / 2], 1.0),
        "an eighth turn": (unit + [0, 0, 0, 0, 0, 0, math.pi / 4], 2 * (math.sqrt(2) - 1) / (4 - 2 * math.sqrt(2))),
        "without volume": (unit * 0, 0.0),
    }
    for name, (other, expected) in turned.items():
        assert box_overlaps(unit, other)[0, 0] == pytest.approx(expected, abs=1e-12), name
    assert box_overlaps(unit * 0, unit * 0)[0, 0] == 0


def test_hulls_corners_and_insides_agree():
    box = boxes(keyed(3), 20)
    corner = corners(box)
    around = hulls(box)
    np.testing.assert_allclose(corner.max(axis=1) - corner.min(axis=1), around[:, 3:6])
    np.testing.assert_allclose((corner.max(axis=1) + corner.min(axis=1)) / 2, around[:, :3])
    for one, its in zip(box, corner, strict=True):
        assert inside(one, one[:3] + 0.99 * (its - one[:3])).all()
        assert not inside(one, one[:3] + 1.01 * (its - one[:3])).any()


@pytest.mark.parametrize("by_class", [False, True])
def test_suppression_keeps_what_going_through_one_by_one_keeps(by_class):
    rng = keyed(4)
    box, kind = boxes(rng, 60, False), rng.integers(0, CLASSES, 60)
    score = rng.integers(0, 20, 60) / 20  # with ties
    given = kind if by_class else None
    kept = suppress(box, score, 0.25, given)
    assert kept.tolist() == naive.suppress(box, score, 0.25, given)
    assert 5 < len(kept) < 60
    assert suppress(box[:0], score[:0], 0.25).tolist() == []


def random_scene(rng, turned):
    true = boxes(rng, rng.integers(0, 5), turned)
    near = np.repeat(true, 3, axis=0)
    near[:, :6] += rng.normal(0, 0.06, (len(near), 6))
    found = np.vstack([near, boxes(rng, 4, turned)])
    found[:, 3:6] = np.abs(found[:, 3:6])
    score = rng.integers(1, 8, (len(found), CLASSES)) / 8
    score[rng.random(score.shape) < 0.4] = np.nan
    return Scene(true, rng.integers(0, CLASSES - 1, len(true)), found, score)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("turned", [False, True])
def test_ap_equals_the_oracle_on_random_detections(seed, turned):
    scenes = [random_scene(keyed(seed, k), turned) for k in range(3)]
    scored = average_precision(scenes, CLASSES)
    expected = np.array([[naive.ap(scenes, c, t) for t in THRESHOLDS] for c in range(CLASSES)], float)
    np.testing.assert_allclose(scored.ap, expected, atol=1e-12)
    assert np.isnan(scored.ap[-1]).all()  # detected, and nowhere there: no NaN in the mean
    defined = expected[scored.count > 0]
    assert (scored.ap25, scored.ap50) == pytest.approx(tuple(defined.mean(axis=0)) if len(defined) else (math.nan,) * 2,
                                                       nan_ok=True)  # fmt: skip


UNIT = np.array([0, 0, 0, 1, 1, 1, 0.0])


def shifted(by):
    return UNIT + np.array([by, 0, 0, 0, 0, 0, 0])


# Name -> true boxes, detections with scores, AP at 0.25 and 0.5: IoU of a box moved by d is (1 - d) / (1 + d).
BY_HAND = {
    "all found": ([UNIT, shifted(5)], [(UNIT, 0.9), (shifted(5), 0.8)], (1, 1)),
    "one of two": ([UNIT, shifted(5)], [(UNIT, 0.9)], (0.5, 0.5)),
    "nothing": ([UNIT], [], (0, 0)),
    "a third is above a quarter only": ([UNIT], [(shifted(0.5), 0.9)], (1, 0)),
    "exactly a threshold is not above it": ([UNIT], [(UNIT * [1, 1, 1, 0.5, 1, 1, 1], 0.9)], (1, 0)),
    "a surer wrong one": ([UNIT], [(shifted(5), 0.9), (UNIT, 0.5)], (0.5, 0.5)),
    "a duplicate is wrong": ([UNIT, shifted(5)], [(UNIT, 0.9), (UNIT, 0.8), (shifted(5), 0.7)], (5 / 6, 5 / 6)),
    # the surest takes the box that it overlaps most, though a later one fits better
    "the greatest overlap decides": ([UNIT, shifted(0.2)], [(shifted(0.05), 0.9), (UNIT, 0.8)], (0.5, 0.5)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_ap_equals_what_is_worked_out_by_hand(name):
    true, guesses, expected = BY_HAND[name]
    found = np.array([box for box, _ in guesses]).reshape(-1, 7)
    score = np.full((len(guesses), CLASSES), np.nan)
    score[:, 1] = [value for _, value in guesses]
    scored = average_precision([Scene(np.array(true), np.ones(len(true), np.int64), found, score)], CLASSES)
    assert (scored.ap25, scored.ap50) == pytest.approx(expected)


def test_no_scene_and_scenes_without_boxes_have_no_ap():
    empty = Scene(np.zeros((0, 7)), np.zeros(0, np.int64), UNIT[None], np.ones((1, CLASSES)))
    for scenes in ([], [empty]):
        assert math.isnan(average_precision(scenes, CLASSES).ap50)
