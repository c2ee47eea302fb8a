"""Several shapes that move at once: how many, how they are counted and told, and what the trainer sees of them.

That they never overlap, and every other law, is checked from the stored bytes in test_laws.py.
"""

import collections

import numpy as np
import pytest
from scipy import stats

import gen4d
from gen4d import building
from gen4d.config import Config, ConfigError, override
from gen4d.moving.generate import count_shapes
from gen4d.sequence import ROLE_MOVING
from tests.makers import commands, meshes
from tests.makers.builds import make_inputs, run_build
from tests.makers.meshes import write_shapes
from tests.makers.rooms import furnished_room, write_furnished

SHAPES = {"chair": {"a": meshes.chair(0.25), "b": meshes.chair(0.32)}, "table": {"c": meshes.table(64, 0.4)}}


def recording(**settings):
    return gen4d.generate(furnished_room(5, 6000), SHAPES, name="fixed", seed=3, shape_points=200, **settings)


def test_how_many_shapes_move_is_drawn_evenly_for_every_sequence():
    config = Config(movers_min=1, movers_max=3)
    counts = collections.Counter(count_shapes(config, "room", k) for k in range(3000))
    assert sorted(counts) == [1, 2, 3]
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert {count_shapes(Config(movers_min=2, movers_max=2), "room", k) for k in range(9)} == {2}


def test_each_shape_has_its_own_draws_and_is_one_mover():
    made = recording(sequences=6, movers_min=2, movers_max=2)
    for sequence in made:
        first, second = sequence.actors[1:]
        assert [actor.mover for actor in sequence.actors] == [-1, 0, 1] and len(sequence.movers) == 2
        assert not np.array_equal(first.cloud.point, second.cloud.point)
        assert not np.array_equal(first.planes, second.planes)
        assert not np.array_equal(first.pose, second.pose)
    assert len(made) == 6


def test_the_first_shape_of_an_attempt_is_what_it_would_be_alone():
    """So a sequence in which one shape moves is the same in a build of up to three."""
    alone = {sequence.id: sequence for sequence in recording(sequences=12)}
    some = recording(sequences=12, movers_max=3)
    single = [sequence for sequence in some if count_shapes(Config(seed=3, movers_max=3), "fixed", sequence.k) == 1]
    assert single
    for sequence in single:
        for one, other in zip(sequence.actors, alone[sequence.id].actors, strict=True):
            assert one.pose.tobytes() == other.pose.tobytes() and one.planes.tobytes() == other.planes.tobytes()


@pytest.mark.parametrize("change", ["movers_min=0", "movers_min=2", "movers_max=9", "movers_max=1.5"])
def test_a_number_that_cannot_be_is_refused(change):
    with pytest.raises(ConfigError, match=r"from 1 to movers_max|at most 8|whole"):
        override(Config(), (change,))


def test_what_does_not_fit_is_counted_and_told(tmp_path):
    """In rooms that are too small for eight shapes: the same bytes from two workers, and a summary of who moved."""
    scans, shapes = write_furnished(tmp_path / "scans", 2, 5000), write_shapes(tmp_path / "shapes")
    inputs = make_inputs(scans, shapes, sequences=8, movers_max=8, scans_per_shard=1)
    run_build(tmp_path / "one", inputs)
    run_build(tmp_path / "two", inputs, workers=2)
    files = sorted(path.name for path in (tmp_path / "one" / "shards").iterdir())
    for name in files:
        assert (tmp_path / "one" / "shards" / name).read_bytes() == (tmp_path / "two" / "shards" / name).read_bytes()
    outcome = commands.gen4d("inspect", str(tmp_path / "one"))
    assert "shapes at once: 1 in " in outcome.out and "no way beside the other shapes" in outcome.out
    assert "of the shapes, " in outcome.out and "beside shapes of radius" in outcome.out
    sidecars = building.read_done(tmp_path / "one", building.read_plan(tmp_path / "one"))
    scan = sidecars[0]["scans"][0]
    assert sum(scan["movers"].values()) == len(scan["sequences"]) <= sum(scan["accepted"].values())
    assert sum(scan["rejections"].values()) + len(scan["sequences"]) == scan["attempts"]


@pytest.mark.parametrize("text", ["0", "3-2", "9", "1-9", "two", "1-", "-1"])
def test_a_range_of_movers_that_is_none_is_refused_by_the_command(tmp_path, text):
    outcome = commands.gen4d("build", "--scans", str(tmp_path), "--shapes", str(tmp_path), "--movers", text)
    assert outcome.code in (1, 2) and "movers" in outcome.err and not list(tmp_path.iterdir())


def test_the_command_takes_a_range(tmp_path):
    scans, shapes = write_furnished(tmp_path / "scans", 1, 4000), write_shapes(tmp_path / "shapes")
    options = ["--movers", "2-3", "--sequences", "3", "--classes", "chair,table", "--out", str(tmp_path / "built")]
    outcome = commands.gen4d("build", "--scans", str(scans), "--shapes", str(shapes), *options)
    assert outcome.code == 0, outcome.text
    dataset = gen4d.open_dataset(tmp_path / "built")
    assert {len(sequence.movers) for sequence in dataset} <= {2, 3} and dataset.config["movers_max"] == 3


def test_the_trainer_takes_every_shape_for_one_that_moves():
    torch = pytest.importorskip("torch")
    from train.inputs.order import keyed_generator
    from train.methods.contrast4d.batch import BatchBuffer, Recipe, make_batch, new_scratch, sample_common

    sequence = recording(sequences=1, movers_min=3, movers_max=3)[0]
    recipe = Recipe(voxel_m=0.05, voxel_4d_m=0.1, samples=400, moving_share=0.5)
    batch = make_batch([sequence], [keyed_generator(1, 2, 3)], BatchBuffer(1, 4, recipe), new_scratch())
    assert (batch.moving.sum(dim=1) == 200).all() and torch.is_tensor(batch.moving)
    parts = sample_common(sequence.actors, 0, 3, recipe, keyed_generator(1, 2, 3))
    share = {part.actor: part.index.size for part in parts}
    assert set(share) == {0, 1, 2, 3} and all(40 < share[actor] < 95 for actor in (1, 2, 3))
    static = recipe._replace(moving_actors=False, voxel_4d_m=None)
    still = make_batch([sequence], [keyed_generator(1, 2, 3)], BatchBuffer(1, 4, static), new_scratch())
    assert not still.moving.any() and all(actor.role == ROLE_MOVING for actor in sequence.actors[1:])
