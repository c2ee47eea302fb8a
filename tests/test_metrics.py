"""Segmentation scores against counting point by point, and cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive_segment
from train.inputs.labels import NONE
from train.tasks.metrics import MetricError, confusion, scores

PAIRS = st.integers(1, 6).flatmap(
    lambda k: st.tuples(st.just(k), st.lists(st.tuples(st.integers(-1, k - 1), st.integers(-1, k - 1)), max_size=60))
)


def score(truth, prediction, classes):
    return scores(confusion(np.array(truth, np.int64), np.array(prediction, np.int64), classes))


@settings(derandomize=True, deadline=None)
@given(PAIRS)
def test_scores_equal_counting_point_by_point(case):
    classes, pairs = case
    truth, prediction = [t for t, _ in pairs], [p for _, p in pairs]
    found, expected = score(truth, prediction, classes), naive_segment.scores(truth, prediction, classes)
    for name in ("miou", "macc", "accuracy"):
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=1e-12, equal_nan=True)
    for name in ("iou", "recall"):
        wanted = [np.nan if value is None else value for value in expected[name]]
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-12, equal_nan=True)
    assert found.count.tolist() == [truth.count(c) for c in range(classes)]


def test_a_case_by_hand():
    """Class 0: 2 right, 1 missed, 1 wrongly; class 1: 1 right, 1 missed, 1 wrongly."""
    found = score([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], 2)
    assert found.iou.tolist() == [2 / 4, 1 / 3]
    assert found.recall.tolist() == [2 / 3, 1 / 2]
    assert (found.miou, found.macc, found.accuracy) == (pytest.approx(5 / 12), pytest.approx(7 / 12), 0.6)


def test_a_matrix_has_truth_in_rows_and_prediction_in_columns():
    matrix = confusion(np.array([0, 0, 1, 2]), np.array([1, 1, 1, NONE]), 3)
    assert matrix.tolist() == [[0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def test_a_class_that_is_neither_there_nor_predicted_does_not_count():
    found = score([0, 0], [0, 0], 3)
    assert (found.miou, found.macc) == (1, 1)
    assert np.isnan(found.iou[1:]).all()


def test_a_class_that_is_only_predicted_has_iou_zero_and_no_recall():
    found = score([0, 0, 0, 0], [0, 0, 0, 2], 3)
    assert found.iou[2] == 0 and np.isnan(found.recall[2])
    assert found.miou == pytest.approx((0.75 + 0) / 2)
    assert found.macc == 0.75


def test_points_without_a_label_do_not_count_whatever_is_predicted():
    assert score([0, NONE, NONE], [0, 1, 0], 2).miou == score([0], [0], 2).miou == 1


def test_points_without_a_prediction_are_missed_and_held_against_no_other_class():
    found = score([0, 0, 1], [0, NONE, 1], 2)
    assert found.iou.tolist() == [0.5, 1]
    empty = score([0, 1, 1], [NONE] * 3, 2)
    assert (empty.miou, empty.macc, empty.accuracy) == (0, 0, 0)


@pytest.mark.parametrize("truth", [[], [NONE, NONE]])
def test_nothing_to_score_is_nan_and_not_zero(truth):
    found = score(truth, [0] * len(truth), 2)
    assert np.isnan([found.miou, found.macc, found.accuracy]).all()


def test_matrices_of_scans_add_up():
    rng = np.random.Generator(np.random.Philox(key=[0, 0]))
    truth, prediction = rng.integers(-1, 4, 900), rng.integers(-1, 4, 900)
    parts = [confusion(t, p, 4) for t, p in zip(np.split(truth, 3), np.split(prediction, 3), strict=True)]
    assert np.array_equal(sum(parts), confusion(truth, prediction, 4))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 3], [0, 0], "label 3: a class from 0 to 2"),
        ([0, 1], [0, -2], "prediction -2: a class from 0 to 2, or -1"),
        ([0, 1], [0], "1 predictions for 2 labels"),
        ([[0, 1]], [0, 1], r"labels of shape \(1, 2\)"),
        ([0.5], [0], "type float64"),
    ],
)
def test_what_cannot_be_compared_is_refused(truth, prediction, message):
    with pytest.raises(MetricError, match=message):
        confusion(np.array(truth), np.array(prediction), 3)
