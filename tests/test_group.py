"""Clusters and proposals of PointGroup against all pairs of points, and that nothing depends on their order."""

import numpy as np
import pytest

from tests import naive_instances as naive
from tests.makers.labelled import keyed
from train.tasks.instances import kernels
from train.tasks.instances.group import Grouping, clusters, propose, shared_points, suppress

HOW = Grouping((0,), 0.15, False, None, np.full(3, 3.0))


def cloud(seed, spread):
    rng = keyed(seed)
    centre = rng.uniform(0, 1, (6, 3))
    point = centre[rng.integers(0, 6, 150)] + rng.normal(0, spread, (150, 3))
    return point, rng.integers(0, 3, 150)


def as_sets(number):
    return {frozenset(np.flatnonzero(number == c)) for c in np.unique(number)}


@pytest.mark.parametrize("spread", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("radius", [0.02, 0.1, 0.4])
def test_clusters_equal_chains_over_all_pairs(spread, radius):
    point, group = cloud(1, spread)
    assert as_sets(clusters(point, group, radius)) == naive.clusters(point, group, radius)


def test_points_on_a_lattice_are_joined_below_the_radius_only():
    point = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [3, 0, 0], [5, 1, 1.0]])
    group = np.zeros(5, np.int64)
    assert clusters(point, group, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert clusters(point, group, 1.001).tolist() == [0, 0, 0, 1, 2]
    assert clusters(point, group, 2.001).tolist() == [0, 0, 0, 0, 1]
    assert clusters(point, np.array([0, 0, 1, 0, 0]), 2.001).tolist() == [0, 0, 1, 0, 2]
    assert clusters(point[:0], group[:0], 1.0).tolist() == []


def test_the_compiled_loop_equals_its_python_form(monkeypatch):
    point, group = cloud(2, 0.1)
    expected = clusters(point, group, 0.1)
    monkeypatch.setattr(kernels, "join", kernels.join.py_func)
    assert np.array_equal(clusters(point, group, 0.1), expected)


def scene(seed):
    """Voxels of two things of class 1, one of class 2, and a floor; offsets to their means; probabilities."""
    rng = keyed(seed)
    position = rng.uniform(0, 0.4, (80, 3)) + np.repeat([[0, 0, 0], [0.45, 0, 0], [2, 0, 0], [0, 0, -1]], 20, axis=0)
    owner = np.repeat(np.arange(4), 20)
    mean = np.stack([position[owner == g].mean(axis=0) for g in range(4)])
    probability = np.full((80, 3), 0.1)
    probability[np.arange(80), np.array([1, 1, 2, 0])[owner]] = 0.8
    return position, mean[owner] - position, probability, owner


def test_where_voxels_point_to_parts_what_touches():
    position, offset, probability, owner = scene(5)
    points = np.ones(80)
    found = propose(position, offset, probability, points, HOW)
    assert [rows.tolist() for rows in found.rows] == [np.flatnonzero(owner == g).tolist() for g in range(3)]
    assert found.kind.tolist() == [1, 1, 2] and found.score == pytest.approx([0.8] * 3)
    assert found.points.tolist() == [20] * 3
    touching = propose(position, offset * 0, probability, points, HOW._replace(radius_m=0.4))
    assert len(touching.rows) == 2  # the two of class 1 are one
    both = propose(position, offset, probability, points, HOW._replace(radius_m=0.4, both=True))
    assert len(both.rows) == 5  # three of one set, two of the other
    few = propose(position, offset, probability, points, HOW._replace(least=np.array([3.0, 21.0, 3.0])))
    assert few.kind.tolist() == [2]


def test_soft_grouping_lets_a_voxel_join_every_probable_class():
    position, offset, probability, owner = scene(6)
    probability[owner == 2] = [0.1, 0.45, 0.45]
    probability[owner == 3] = [0.7, 0.25, 0.05]  # a floor that may be something
    hard = propose(position, offset, probability, np.ones(80), HOW)
    soft = propose(position, offset, probability, np.ones(80), HOW._replace(soft=0.2))
    assert sorted(hard.kind) == [1, 1, 1] and sorted(soft.kind) == [1, 1, 1, 1, 2]


def test_suppression_is_by_masks_across_classes_and_keeps_the_surer():
    position, offset, probability, _ = scene(7)
    points = keyed(8).integers(1, 5, 80)
    found = propose(position, offset, probability, points, HOW._replace(both=True))
    twice = found._replace(
        rows=found.rows + [found.rows[0][:15]], kind=np.append(found.kind, 2), score=np.append(found.score, 0.9),
        points=np.append(found.points, points[found.rows[0][:15]].sum()),
    )  # fmt: skip
    kept = suppress(twice, points, 0.3)
    assert kept.score[0] == 0.9 and len(kept.rows[0]) == 15
    common = shared_points(kept.rows, kept.rows, points)
    union = kept.points[:, None] + kept.points - common
    assert ((common / union)[~np.eye(len(kept.rows), dtype=bool)] <= 0.3).all()
    sets = [set(rows) for rows in twice.rows]
    expected = [[sum(points[i] for i in a & b) for b in sets] for a in sets]
    np.testing.assert_allclose(shared_points(twice.rows, twice.rows, points), expected)
    nothing = propose(position[:0], offset[:0], probability[:0], points[:0], HOW)
    assert len(suppress(nothing, points[:0], 0.3).rows) == 0
