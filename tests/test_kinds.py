"""Sequences that no generator of gen4d makes yet are written, verified, read, drawn and exported like its own.

Three shapes that move at once, an articulated shape of four parts, one actor per frame, and scaled views.
"""

import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gen4d
from gen4d import Actor, Cloud, Mover, Recording, Sequence, make_actor
from gen4d.exports.hdf5 import export_hdf5
from gen4d.report.picture import draw_png
from gen4d.report.scene import chosen_pairs
from gen4d.sequence import ROLE_MOVING, ROLE_VIEW, SequenceError, find_fault
from tests import laws
from tests.equal import assert_same_sequence
from tests.makers import commands
from tests.makers.kinds import (
    MAKERS,
    PLAN,
    T,
    articulated,
    box,
    masks,
    one_actor_a_frame,
    scaled_views,
    three_movers,
)


@pytest.fixture(params=MAKERS)
def recording(request):
    return MAKERS[request.param]()


@pytest.fixture
def dataset(recording, tmp_path):
    return gen4d.write_dataset([recording], tmp_path / "data")


def naive_frame(sequence: Sequence, f: int):
    """Points and identities of a frame, by masks and matrices alone."""
    points, identities = [], []
    for a, actor in enumerate(sequence.actors):
        kept = np.flatnonzero(np.unpackbits(actor.planes[f], count=len(actor.cloud)))
        pose = actor.pose[f].astype(np.float64)
        points.append(actor.cloud.point[kept] @ pose[:3, :3].T + pose[:3, 3])
        identities += [(a, int(row)) for row in kept]
    return np.concatenate(points), identities


def test_it_comes_back_as_it_was_given(recording, dataset):
    assert len(dataset) == len(recording) and list(gen4d.verify(dataset)) == [None]
    for read, given in zip(dataset, recording, strict=True):
        assert_same_sequence(read, given)
        for f in range(T):
            point, identity = naive_frame(given, f)
            assert np.abs(read[f].point - point).max() < 1e-5
            assert list(zip(read[f].actor.tolist(), read[f].point_index.tolist(), strict=True)) == identity
        first, second = read.correspondences(0, T - 1)
        a, b = naive_frame(given, 0)[1], naive_frame(given, T - 1)[1]
        assert [a[row] for row in first] == [b[row] for row in second]
        assert {a[row] for row in first} == set(a) & set(b)
    plan = dataset.floor_plan(0)
    assert (plan is None) == (recording.floor is None)
    assert plan is None or (plan.valid.tobytes(), plan.floor_m) == (PLAN.valid.tobytes(), 0.0)


def test_absent_actors_have_no_plane_on_disk(tmp_path):
    gen4d.write_dataset([three_movers(), one_actor_a_frame()], tmp_path / "data")
    table = laws.read_shard(tmp_path / "data" / "shards" / "00000.zarr.zip").table
    start = table["actor/mask_start"]
    assert (start[3] == -1).tolist() == (start[7] == -1).tolist() == [True, False, False, True]
    frames = start[8:]
    assert_array_equal(frames == -1, np.tile(~np.eye(T, dtype=bool), (2, 1)))
    assert len(table["cloud/start"]) - 1 == 1 + 6 + T + 1, "clouds that windows share are stored once"


def test_several_movers_have_tables_of_their_own_and_one_has_none(tmp_path):
    gen4d.write_dataset([three_movers()], tmp_path / "many")
    gen4d.write_dataset([articulated()], tmp_path / "one")
    many, one = (laws.read_shard(tmp_path / name / "shards" / "00000.zarr.zip").table for name in ("many", "one"))
    assert not [name for name in one if "mover" in name]
    assert many["mover/start"].tolist() == [0, 3, 6] and many["actor/mover"].tolist() == [-1, 0, 1, 2] * 2
    assert many["mover/shape"].tolist() == [0, 1, 0] * 2
    assert np.allclose(many["mover/height_m"], [0.8, 0.7, 0.8] * 2)
    assert many["sequence/shape"].tolist() == [0, 0], "the first mover's, for readers that know one"


def test_which_shape_a_view_shows_is_kept(tmp_path):
    """An actor that does not move may be of a mover too, in views: sequence/* alone would not say so."""
    cloud = box(60)
    seen = make_actor(cloud, masks(61, cloud), role=ROLE_VIEW)
    views = Sequence("pair", 0, (seen._replace(mover=0), seen), (Mover("chair_3", "chair"),), "views")
    dataset = gen4d.write_dataset([Recording("pair", (views,))], tmp_path / "data")
    assert [actor.mover for actor in dataset[0].actors] == [0, -1]


def test_it_is_drawn_and_inspected(recording, dataset, tmp_path):
    from PIL import Image

    draw_png(dataset, 0, tmp_path / "picture.png")
    picture = np.asarray(Image.open(io.BytesIO((tmp_path / "picture.png").read_bytes())).convert("RGB"))
    assert min(picture.shape[:2]) > 300 and picture.std() > 5
    outcome = commands.gen4d("inspect", dataset.home.where(), dataset[0].id)
    assert outcome.code == 0
    for actor in range(len(recording[0].actors)):
        assert f"actor {actor}: " in outcome.out
    assert commands.gen4d("inspect", dataset.home.where()).code == 0


def test_the_picture_joins_equal_identities(recording):
    sequence = recording[0]
    frames = sequence.frames
    chosen = chosen_pairs(sequence, frames, top=1.0)
    for i, j, moves in chosen:
        first, last = ((frame.actor[row], frame.point_index[row]) for frame, row in ((frames[0], i), (frames[-1], j)))
        assert first == last
        assert moves == (sequence.kind == "moving" and sequence.actors[first[0]].role == ROLE_MOVING)
    assert bool(chosen) == (sequence.kind != "frames")


def test_it_is_exported(recording, dataset, tmp_path):
    list(export_hdf5(dataset, tmp_path / "hdf5", pairs=True))
    exported = gen4d.open_dataset(tmp_path / "hdf5")
    assert list(gen4d.verify(exported)) == [None]
    for read, given in zip(exported, recording, strict=True):
        assert_same_sequence(read, given)


def scale_pose(actor: Actor, factor: float) -> Actor:
    return actor._replace(pose=actor.pose @ np.diag([factor, factor, factor, 1]).astype(np.float32))


@pytest.mark.parametrize(("factor", "rigid"), [(1 + 1e-6, True), (1 + 1e-4, False), (1 - 1e-4, False)])
def test_a_moving_pose_is_rigid_to_what_float32_leaves_of_it(factor, rigid):
    moving = articulated()[0]
    actors = [scale_pose(actor, factor) if actor.role == ROLE_MOVING else actor for actor in moving.actors]
    assert (find_fault(Sequence("a", 0, tuple(actors), moving.movers)) is None) is rigid


def test_a_frame_numbers_256_actors_and_no_more():
    actor = make_actor(Cloud(np.zeros((1, 3), np.float32)), np.ones((2, 1), bool))
    most = Sequence("a", 0, (actor,) * 256)
    assert find_fault(most) is None and most[0].actor.tolist() == list(range(256))
    assert "257" in find_fault(Sequence("a", 0, (actor,) * 257))


def test_what_is_checked_depends_on_the_kind():
    views, moving, frames = scaled_views()[0], articulated()[0], one_actor_a_frame()[0]
    assert find_fault(views) is find_fault(moving) is find_fault(frames) is None
    assert "not rigid" in find_fault(Sequence("a", 0, (scale_pose(moving.actors[1], 1.1),), moving.movers))
    uneven = views.actors[0]._replace(pose=views.actors[0].pose @ np.diag([1, 1.1, 1, 1]).astype(np.float32))
    assert "not a similarity" in find_fault(Sequence("a", 0, (uneven,), views.movers, "views"))
    mirrored = views.actors[0]._replace(pose=views.actors[0].pose @ np.diag([1, -1, 1, 1]).astype(np.float32))
    assert "not a similarity" in find_fault(Sequence("a", 0, (mirrored,), views.movers, "views"))
    assert "role" in find_fault(Sequence("a", 0, frames.actors, kind="moving"))
    assert "role" in find_fault(Sequence("a", 0, moving.actors, moving.movers, kind="sweeps"))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda s: Sequence("three", 0, ()), "no actors"),
        (lambda s: Sequence("three", 0, s.actors, s.movers, kind="dance"), "'dance'"),
        (lambda s: Sequence("three", 0, s.actors, s.movers[:2]), "mover 2 of 2"),
        (lambda s: Sequence("three", 0, (s.actors[0]._replace(mover=0), *s.actors[1:]), s.movers), "actor 0 is mover"),
        (lambda s: Sequence("three", 0, (s.actors[0]._replace(pose=s.actors[0].pose[:3]),)), "of shape"),
        (lambda s: Sequence("three", 0, (s.actors[0]._replace(planes=s.actors[0].planes | 1),)), "padding bits"),
        (
            lambda s: Sequence("three", 0, tuple(a._replace(pose=a.pose[:1], planes=a.planes[:1]) for a in s.actors)),
            "1",
        ),
        (lambda s: Sequence("other", 0, s.actors, s.movers), "'other'"),
        (lambda s: Sequence("three", -1, s.actors, s.movers), "-1"),
    ],
)
def test_a_sequence_that_breaks_a_rule_is_refused_and_nothing_is_written(tmp_path, change, part):
    whole = three_movers()
    broken = Recording("three", (whole[0], change(whole[1])), whole.cloud, whole.floor)
    with pytest.raises(SequenceError) as error:
        gen4d.write_dataset([broken], tmp_path / "data")
    assert part in str(error.value)
    assert not list((tmp_path / "data").rglob("*"))
