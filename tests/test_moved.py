"""Moving shapes asked of neighbours at rest: whose points are asked for, how they count, and where there is nothing."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from gen4d.sequence import Mover, Sequence
from tests.makers.labelled import labelled
from tests.makers.sequences import MemoryDataset, actor_of, keyed, make_dataset, make_sequence
from train.inputs.labelled import LabelledData
from train.inputs.labels import label_table
from train.tasks import probe
from train.tasks.moved import asked_of, moved

TABLE = label_table("nyu40")
CHAIR, SOFA, WALL = (TABLE.names.index(name) for name in ("chair", "sofa", "wall"))
RESTING = np.zeros((20, 21), np.int64)
RESTING[CHAIR, [CHAIR, WALL]], RESTING[SOFA, [SOFA, 20]], RESTING[WALL, WALL] = (30, 10), (1, 3), 500


def two_movers():
    """A room with a chair and a dresser, whose class the table does not have, and a sofa at rest."""
    rng = keyed(5)
    clouds = [rng.random((n, 3)).astype(np.float32) for n in (50, 20, 30)]
    actors = [actor_of(cloud, np.ones((2, len(cloud)), bool), role=int(i > 0)) for i, cloud in enumerate(clouds)]
    actors[2] = actors[2]._replace(mover=1)
    return Sequence("room", 0, tuple(actors), (Mover("a", "chair"), Mover("b", "dresser"))), clouds


def walking(number, name, **options):
    """A shape of a class that moves through a room."""
    made = make_sequence(number, **options)
    return Sequence(made.scan, made.k, made.actors, (Mover("b", name),))


def test_points_are_those_of_moving_shapes_of_known_classes_in_the_last_frame():
    sequence, clouds = two_movers()
    asked = asked_of(sequence, TABLE, 1000, keyed(0))
    np.testing.assert_array_equal(asked.point[asked.row], clouds[1])
    assert set(asked.label.tolist()) == {CHAIR} and len(asked.point) == 100
    some = asked_of(sequence, TABLE, 7, keyed(0))
    assert len(set(some.row.tolist())) == 7 and set(some.row.tolist()) < set(asked.row.tolist())
    assert asked_of(make_sequence(0, shape_points=0), TABLE, 10, keyed(0)) is None
    last = make_sequence(3)
    np.testing.assert_array_equal(asked_of(last, TABLE, 10, keyed(0)).point, last.frame(last.t - 1).point)


def test_classes_count_alike_however_many_points_they_have():
    chairs, sofa = make_sequence(0), walking(1, "sofa", shape_points=20)
    right = {"chair": 0.5, "sofa": 1.0}

    def vote(point, row):
        name = "sofa" if len(point) == len(sofa.frame(-1).point) else "chair"
        wrong = round(len(row) * (1 - right[name]))
        return np.where(np.arange(len(row)) < wrong, WALL, CHAIR if name == "chair" else SOFA)

    found = moved(MemoryDataset([chairs, sofa]), TABLE, vote, RESTING, 10**6, 0)
    assert found.classes == ("chair", "sofa")
    assert found.moving == pytest.approx((0.5 + 1) / 2, abs=0.01)
    assert found.resting == pytest.approx((30 / 40 + 1 / 4) / 2)


@pytest.mark.parametrize(
    "dataset, resting",
    [
        (make_dataset(2), np.zeros((20, 21), np.int64)),
        (make_dataset(2, shape_points=0), RESTING),
        (MemoryDataset(), RESTING),
    ],
    ids=["no_class_at_rest", "nothing_moves", "no_sequence"],
)
def test_there_is_no_figure_where_nothing_can_be_compared(dataset, resting):
    assert moved(dataset, TABLE, lambda point, row: np.zeros(len(row), int), resting, 100, 0) is None


def test_a_probe_asks_its_own_neighbours_and_writes_what_they_say(tmp_path):
    config = dataclasses.replace(probe.PRESETS["small"], net="small-4d", voxel_m=0.15, samples=600, queries=300)
    data = LabelledData(TABLE, [labelled(number) for number in range(3)], [labelled(3)])
    given = (config, data, None, torch.device("cpu"))
    assert [one.moved for one in probe.probe(*given)] == [None]
    number = np.bincount(data.val[0].label[data.val[0].label >= 0]).argmax()
    (found,) = probe.probe(*given, MemoryDataset(walking(k, TABLE.names[number]) for k in range(2)))
    assert found.moved.classes == (TABLE.names[number],)
    assert found.moved.resting == found.knn[number, number] / found.knn[number].sum()
    (nothing,) = probe.probe(*given, MemoryDataset())
    assert nothing.moved is None
    lines = probe.write_probes(tmp_path, [found], data, None, config, "a machine")
    stored = json.loads((tmp_path / "probe.json").read_text())["results"]["random"]["moved"]
    assert stored == {"moving": found.moved.moving, "resting": found.moved.resting, "classes": [TABLE.names[number]]}
    assert any(line.startswith(f"moving shapes: random {100 * found.moved.moving:.2f}, at rest ") for line in lines)


def test_a_shape_that_stays_where_furniture_was_judged_gets_what_that_furniture_got():
    """The judged scan itself as a sequence, whose furniture is the moving shape: the same points, the same votes."""
    config = dataclasses.replace(probe.PRESETS["small"], net="small-4d", voxel_m=0.15, samples=600, queries=10**6)
    scan = labelled(3)
    data = LabelledData(TABLE, [labelled(number) for number in range(3)], [scan])
    for name in ("floor", "table"):
        own = scan.label == TABLE.names.index(name)
        clouds = [scan.point[~own], scan.point[own]]
        actors = [actor_of(c, np.ones((2, len(c)), bool), role=role) for role, c in enumerate(clouds)]
        asked = MemoryDataset([Sequence("scan", 0, tuple(actors), (Mover("a", name),))])
        (found,) = probe.probe(config, data, None, torch.device("cpu"), asked)
        assert found.moved.classes == (name,)
        assert found.moved.moving == pytest.approx(found.moved.resting) and 0 < found.moved.resting < 1, name
