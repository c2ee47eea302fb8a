"""AP of instances by ScanNet's rules: against hand-computed cases, and an oracle that goes rule by rule over sets."""

import numpy as np
import pytest

from tests import naive_instances as naive
from tests.makers.labelled import keyed
from train.tasks.instances.ap import (
    LOOSE,
    THRESHOLDS,
    Found,
    InstanceError,
    Truth,
    average_precision,
    compare,
)

CLASSES = 4


def truth(*sizes_and_kinds, void=0):
    """Instances (size, class) one after another, then void points."""
    number = np.repeat(np.arange(len(sizes_and_kinds)), [size for size, _ in sizes_and_kinds])
    number = np.append(number, np.full(void, -1))
    return Truth(number, np.array([kind for _, kind in sizes_and_kinds], np.int64))


def found(*masks):
    """Predictions (first point, end, class, score)."""
    point = [np.arange(first, end) for first, end, _, _ in masks]
    return Found(point, np.array([m[2] for m in masks], np.int64), np.array([m[3] for m in masks], float))


def ap_at_half(true, *guesses):
    return average_precision([compare(true, found(*guesses))], CLASSES).classes[:, 1]


TWO = truth((200, 0), (200, 0), void=200)
# Name -> truth, predictions, AP50 of class 0, worked out by hand from precision and recall at every score.
BY_HAND = {
    "all found": (TWO, [(0, 200, 0, 0.9), (200, 400, 0, 0.8)], 1.0),
    "one of two found": (TWO, [(0, 200, 0, 0.9)], 0.5),
    "nothing predicted": (TWO, [], 0.0),
    "another class predicted": (TWO, [(0, 200, 1, 0.9)], 0.0),
    "IoU of exactly a half is no match": (truth((200, 0)), [(0, 100, 0, 0.9)], 0.0),
    "IoU of just above a half is one": (truth((200, 0)), [(0, 101, 0, 0.9)], 1.0),
    # scores .9 wrong, .5 right: precision .5 at .5, 0 at .9, 1 at the end; recall 1, 0, 0: half of 1 at .5, half at .9
    "a surer wrong one halves twice": (truth((200, 0), (200, 1)), [(200, 400, 0, 0.9), (0, 200, 0, 0.5)], 0.25),
    # with a precision envelope this would be 1 as well, and at (.9 right, .5 wrong) it is
    "a less sure wrong one costs nothing": (truth((200, 0), (200, 1)), [(0, 200, 0, 0.9), (200, 400, 0, 0.5)], 1.0),
    # equal scores are one threshold: precision .5 and recall 1 at it, then 1 and 0: .5 * .5 + 1 * .5
    "equal scores are one threshold": (truth((200, 0), (200, 1)), [(0, 200, 0, 0.5), (200, 400, 0, 0.5)], 0.75),
    # the second of .9 and .7 on one instance is wrong with .7, though .7 came first: .5 * 0 + .5 * 1 + .5 * 1
    "a duplicate is wrong with the lower score": (truth((200, 0)), [(0, 190, 0, 0.7), (0, 200, 0, 0.9)], 1.0),
    "99 points are no prediction": (truth((150, 0)), [(0, 99, 0, 0.9)], 0.0),
    "100 points are one": (truth((150, 0)), [(0, 100, 0, 0.9)], 1.0),
    "on void nothing is wrong": (truth((200, 0), void=200), [(200, 400, 0, 0.9), (0, 200, 0, 0.5)], 1.0),
    # half of it on void, which is at most the threshold of a half: wrong
    "half on void is wrong": (truth((200, 0), (100, 1), void=100), [(200, 400, 0, 0.9), (0, 200, 0, 0.5)], 0.25),
    "a too small one is not demanded": (truth((200, 0), (99, 0)), [(0, 200, 0, 0.9)], 1.0),
    "nor punished": (truth((200, 0), (99, 0), (40, 1)), [(200, 339, 0, 0.9), (0, 200, 0, 0.5)], 1.0),
    "of another class it is": (truth((200, 0), (99, 1), (40, 1)), [(200, 339, 0, 0.9), (0, 200, 0, 0.5)], 0.25),
    "an instance of no class is void": (truth((200, 0), (200, -1)), [(200, 400, 0, 0.9), (0, 200, 0, 0.5)], 1.0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_ap_equals_what_is_worked_out_by_hand(name):
    true, guesses, expected = BY_HAND[name]
    assert ap_at_half(true, *guesses)[0] == pytest.approx(expected, abs=1e-12)


def test_a_class_without_true_instances_has_no_ap_and_the_mean_leaves_it_out():
    scored = average_precision([compare(TWO, found((0, 200, 0, 0.9), (200, 400, 3, 0.5)))], CLASSES)
    assert scored.ap50 == 0.5 and np.isnan(scored.classes[1:]).all() and scored.count.tolist() == [2, 0, 0, 0]
    assert np.isnan(average_precision([], CLASSES).ap)


def test_thresholds_end_before_095():
    true = truth((1000, 0))
    scored = average_precision([compare(true, found((0, 920, 0, 0.5)))], CLASSES)
    assert scored.ap == 1.0  # IoU 0.92: right at all nine
    assert average_precision([compare(true, found((0, 880, 0, 0.5)))], CLASSES).ap == pytest.approx(8 / 9)


def random_scan(rng):
    """A scan with instances of 20 to 300 points, some of no class, and predictions near them or anywhere."""
    sizes = rng.integers(20, 300, rng.integers(0, 9))
    number = rng.permutation(np.append(np.repeat(np.arange(len(sizes)), sizes), np.full(150, -1)))
    kind = rng.integers(-1, CLASSES - 1, len(sizes))  # the last class has no true instance
    masks, kinds = [], []
    for _ in range(rng.integers(0, 14)):
        seed = number == rng.integers(-1, max(len(sizes), 1))
        mask = np.where(seed, rng.random(len(number)) < rng.uniform(0.3, 1), rng.random(len(number)) < 0.08)
        masks.append(np.flatnonzero(mask))
        own = kind[number[seed][0]] if seed.any() and number[seed][0] >= 0 else -1
        kinds.append(own if own >= 0 and rng.random() < 0.8 else rng.integers(0, CLASSES))
    masks += masks[:2]  # duplicates
    kinds += kinds[:2]
    score = rng.integers(1, 6, len(masks)) / 5  # with ties
    return Truth(number, kind), Found(masks, np.array(kinds, np.int64), score)


def as_sets(true, guess):
    instances = [(kind, set(np.flatnonzero(true.number == g))) for g, kind in enumerate(true.kind) if kind >= 0]
    masks = zip(guess.kind, guess.point, guess.score, strict=True)
    return instances, [(kind, set(point), score) for kind, point, score in masks]


@pytest.mark.parametrize("seed", range(25))
def test_ap_equals_the_oracle_on_random_predictions(seed):
    scans = [random_scan(keyed(seed, k)) for k in range(4)]
    scored = average_precision([compare(*scan) for scan in scans], CLASSES)
    sets = [as_sets(*scan) for scan in scans]
    expected = [naive.ap_of_scans(sets, CLASSES, t) for t in (*THRESHOLDS, LOOSE)]
    per_class = [naive.mean([row[c] for row in expected[:-1]]) for c in range(CLASSES)]
    columns = np.array([per_class, expected[0], expected[-1]], float).T
    np.testing.assert_allclose(scored.classes, columns, atol=1e-12)
    means = [naive.mean([value for row in expected[:-1] for value in row]), naive.mean(expected[0])]
    assert (scored.ap, scored.ap50) == pytest.approx(means, nan_ok=True)


def test_what_cannot_be_compared_is_refused():
    one = np.arange(120)
    kind, score = np.zeros(1, np.int64), np.ones(1)
    for points, text in ((one[::-1], "ascending"), (one + 500, "from 0 to 599"), (np.append(one, 119), "ascending")):
        with pytest.raises(InstanceError, match=text):
            compare(TWO, Found([points], kind, score))
    with pytest.raises(InstanceError, match="not finite"):
        compare(TWO, Found([one], kind, score * np.nan))
    with pytest.raises(InstanceError, match="1 masks, 1 classes, 2 scores"):
        compare(TWO, Found([one], kind, np.ones(2)))
    with pytest.raises(InstanceError, match="instance 4 of 2"):
        compare(TWO._replace(number=np.full(600, 4)), Found([], kind[:0], score[:0]))
