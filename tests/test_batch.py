"""Voxel kernels and batches: equal to plain NumPy, and the laws that losses rely on."""

import itertools
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from gen4d.sequence import Cloud, make_actor
from gen4d.shards import frame_pairs
from tests import naive_train
from tests.makers.sequences import actor_of, keyed, make_dataset, make_sequence, room_points
from train.config import change
from train.inputs import kernels
from train.inputs.order import Share, keyed_generator
from train.inputs.views import draw_views
from train.inputs.voxels import BatchError, Grid, Rows, new_tensor
from train.methods.config import PRESETS
from train.methods.contrast4d.batch import (
    BatchBuffer,
    Recipe,
    make_batch,
    mask_patches,
    new_scratch,
    sample_common,
)
from train.methods.contrast4d.make import make_stream

SMALL = Recipe(voxel_m=0.05, voxel_4d_m=0.1, samples=64)
MASKED = SMALL._replace(voxel_4d_m=None, places=True, mask_share=0.4, mask_patch_m=0.25, whole=True)


def made(sequences, recipe=SMALL, seed=3, step=5):
    buffer = BatchBuffer(len(sequences), sequences[0].t, recipe)
    generators = [keyed_generator(seed, step, slot) for slot in range(len(sequences))]
    return make_batch(sequences, generators, buffer, new_scratch())


def assert_equal(a, b):
    """Two batches hold the same numbers."""
    assert a.size == b.size
    frames = itertools.chain(zip(a.frame, b.frame, strict=True), zip(a.whole, b.whole, strict=True))
    for x, y in itertools.chain(frames, [(a.sequence, b.sequence)]):
        if x is None or y is None:
            assert x is y
            continue
        assert x.size == y.size
        assert torch.equal(x.coordinate, y.coordinate)
    for name in ("pair_row", "pair_row_4d", "point_row", "point_row_4d", "moving"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.whole_row is None) == (b.whole_row is None) and (a.pair_place is None) == (b.pair_place is None)
    assert a.whole_row is None or torch.equal(a.whole_row, b.whole_row)
    assert (a.vote is None) == (b.vote is None)
    for one, other in ((a.pair_place, b.pair_place), (a.vote, b.vote)):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


CLOUDS = {
    "random": lambda rng: rng.uniform(-3, 3, (2000, 3)),
    "surface": lambda rng: room_points(2000, rng),
    "one point": lambda rng: np.array([[0.1, -0.2, 0.3]]),
    "no point": lambda rng: np.zeros((0, 3)),
    "all in one voxel": lambda rng: rng.uniform(0.001, 0.009, (50, 3)),
    "on voxel faces": lambda rng: rng.integers(-40, 40, (500, 3)) * 0.02,
    "a line": lambda rng: rng.uniform(-5, 5, (300, 1)) * np.array([[1.0, 0, 0]]),
    "far outliers": lambda rng: np.concatenate([rng.uniform(0, 1, (300, 3)), [[4e4, -4e4, 4e4], [-3e4, 0, 0]]]),
    "hash neighbours": lambda rng: rng.integers(-30, 30, (3000, 3)) * 0.16,
}


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("t", [1, 4])
def test_kernel_voxels_and_rows_equal_the_numpy_twin(name, t):
    rng = keyed(len(name), t)
    point = CLOUDS[name](rng).astype(np.float32)
    planes = np.packbits(rng.random((t, len(point))) < 0.7, axis=1)
    moving = rng.uniform(-1, 1, (200, 3)).astype(np.float32)
    moving_planes = np.packbits(rng.random((t, 200)) < 0.5, axis=1)
    matrix = np.concatenate([np.eye(3) * 50 + rng.normal(0, 0.5, (3, 3)), rng.normal(0, 9, (3, 1))], axis=1)
    fast, slow, rows = Grid(), naive_train.Grid(), Rows(5 if t > 1 else 4, new_tensor)
    fast.clear(len(point) + 200 * t, t)
    calls = [(point, planes, 0, matrix)] + [(moving, moving_planes[i : i + 1], i, matrix * 0.5) for i in range(t)]
    for call in calls:
        fast.mark(*call)
        slow.mark(*call)
    fast.write(7, rows)
    voxel = slow.sort()
    expected = np.concatenate([np.full((len(voxel), 1), 7), voxel[:, 1:] - slow.low, voxel[:, :1]], axis=1)
    np.testing.assert_array_equal(rows.array[: rows.used], expected[:, : rows.array.shape[1]])
    np.testing.assert_array_equal(rows.size, slow.size)
    for cloud, plane, time, m in [(point, planes[i], i, matrix) for i in range(t)]:
        index = np.arange(len(cloud))
        out = np.empty(len(cloud), np.int64)
        fast.rows_of(cloud, plane, time, m, index, out)
        np.testing.assert_array_equal(out, slow.rows_of(cloud, plane, time, m, index))


@pytest.mark.parametrize("points", [1, 7, 8, 9, 1000])
def test_kernel_common_points_equal_the_numpy_twin(points):
    rng = keyed(points)
    first, second = np.packbits(rng.random((2, points)) < 0.6, axis=1)
    expected = naive_train.common(first, second, points)
    assert kernels.count_common(first, second) == len(expected)
    rank = np.sort(rng.integers(0, len(expected), 40)) if len(expected) else np.zeros(0, np.int64)
    out = np.empty(len(rank), np.int64)
    kernels.select_common(first, second, rank, out)
    np.testing.assert_array_equal(out, expected[rank])


def test_kernels_agree_without_compilation():
    """Compiled and interpreted integers differ (wrap-around, division), so the kernel tests run both ways."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", __file__, "-k", "test_kernel_"]
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "warning" not in done.stdout


def test_a_far_outlier_costs_no_memory():
    rng = keyed(11)
    point = np.concatenate([rng.uniform(0, 3, (5000, 3)), [[8e4, 8e4, 8e4]]]).astype(np.float32)
    grid, rows = Grid(), Rows(4, new_tensor)
    grid.clear(len(point), 1)
    planes = np.full((1, 626), 255, np.uint8)
    planes[0, -1] = 0x80
    grid.mark(point, planes, 0, np.eye(3, 4) * 50)
    grid.write(0, rows)
    assert rows.size.max() > 3_000_000
    assert sum(getattr(grid, name).nbytes for name in ("_table", "_block", "_word", "_first_row")) < 2_000_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e6])
def test_a_point_that_cannot_be_a_voxel_is_an_error_with_its_place(value):
    sequence = make_sequence(0)
    sequence.actors[0].cloud.point[3] = [0, value, 0]
    sequence.actors[0].planes[:, 0] = 0xFF
    with pytest.raises(BatchError, match=r"sequence room0000/000: point 3 at .* m is not finite or beyond"):
        made([sequence])


@pytest.mark.parametrize(
    "recipe",
    [
        SMALL,
        SMALL._replace(voxel_4d_m=None, moving_actors=False),
        SMALL._replace(moving_share=None, voxel_4d_m=None),
        SMALL._replace(samples=2000),
        SMALL._replace(places=True),
        MASKED,
        SMALL._replace(votes=True),
    ],
    ids=["4d", "static", "uniform", "more samples than points", "places", "masked", "votes"],
)
def test_a_batch_equals_its_numpy_twin(recipe):
    sequences = [make_sequence(0), make_sequence(5, points=900), make_sequence(2, shape_points=0)]
    generators = [keyed_generator(3, 5, slot) for slot in range(3)]
    assert_equal(made(sequences, recipe), naive_train.make_batch(sequences, generators, recipe, 4))


def test_voxels_are_unique_and_within_bounds():
    result = made([make_sequence(k) for k in range(3)])
    for voxels in (*result.frame, result.sequence):
        coordinate = voxels.coordinate.numpy()
        assert len(np.unique(coordinate, axis=0)) == len(coordinate)
        assert coordinate.min() == 0
        assert (coordinate[:, 1:] < np.array(voxels.size)).all()
        assert (np.diff(coordinate[:, 0]) >= 0).all()


def test_corresponding_points_at_rest_share_their_4d_voxel_at_all_times():
    result = made([make_sequence(0, shape_points=0)])
    xyz = result.sequence.coordinate[:, 1:4]
    first, second = result.pair_row_4d[:, 0], result.pair_row_4d[:, 1]
    assert torch.equal(xyz[first], xyz[second])
    assert not torch.equal(first, second)


def test_pair_rows_lead_back_to_one_point_under_two_views():
    """Undo each frame's view: both voxel centres lie within a voxel's diagonal of each other."""
    sequence, recipe = make_sequence(1, shape_points=0), SMALL._replace(voxel_4d_m=None)
    result = made([sequence], recipe)
    view = draw_views(4, recipe.views, keyed_generator(3, 5, 0))
    room = sequence.actors[0].cloud.point
    for p, (i, j) in enumerate(frame_pairs(4)):
        centre = []
        for side, frame in enumerate((i, j)):
            moved = room @ view[frame, :3, :3].T + view[frame, :3, 3]
            kept = naive_train.unpack(sequence.actors[0].planes[frame], len(room))
            low = np.floor(np.floor(moved[kept] / recipe.voxel_m).min(axis=0) / 8) * 8
            voxel = result.frame[frame].coordinate[result.pair_row[p, side], 1:].numpy()
            metres = (voxel + low + 0.5) * recipe.voxel_m - view[frame, :3, 3]
            centre.append(metres @ np.linalg.inv(view[frame, :3, :3]).T)
        distance = np.linalg.norm(centre[0] - centre[1], axis=1)
        assert distance.max() < recipe.voxel_m * math.sqrt(3) / recipe.views.scale_low


def test_absent_points_have_no_4d_row_and_their_own_frame_always_has_one():
    result = made([make_sequence(0), make_sequence(1)])
    own = torch.stack([result.point_row_4d[i, :, i] for i in range(4)])
    assert (own >= 0).all()
    assert (result.point_row_4d == -1).any()
    time = result.sequence.coordinate[:, 4]
    for i, tau in itertools.product(range(4), range(4)):
        rows = result.point_row_4d[i, :, tau]
        assert (time[rows[rows >= 0]] == tau).all()


def test_samples_repeat_only_where_there_are_too_few_points():
    sequence = make_sequence(0, shape_points=30)
    parts = sample_common(sequence.actors, 0, 1, SMALL._replace(samples=200), keyed(1))
    shared = [naive_train.common(a.planes[0], a.planes[1], len(a.cloud.point)) for a in sequence.actors]
    assert [part.index.size for part in parts] == [150, 50]
    assert len(np.unique(parts[0].index)) == 150 <= len(shared[0])
    assert set(parts[1].index) <= set(shared[1])
    assert len(np.unique(parts[1].index)) < 50


@pytest.mark.parametrize(("share", "expected"), [(0.25, 16), (0.5, 32), (0.0, 0)])
def test_the_moving_share_is_exact(share, expected):
    result = made([make_sequence(0), make_sequence(1)], SMALL._replace(moving_share=share))
    assert (result.moving.reshape(4, 2, 64).sum(dim=2) == expected).all()


def test_uniform_samples_follow_the_number_of_points():
    sequence = make_sequence(0, points=600, shape_points=600)
    result = made([sequence], SMALL._replace(moving_share=None, samples=400))
    assert 0.4 < result.moving.float().mean() < 0.6


def hidden_points(sequence, recipe=MASKED, seed=1):
    """Which of each actor's points (N,) the masks take from even and from odd frames, (2, N)."""
    everywhere = [
        actor._replace(planes=np.packbits(np.ones((4, len(actor.cloud.point)), bool), axis=1))
        for actor in sequence.actors
    ]
    masked = mask_patches(everywhere, recipe, keyed(seed))
    masks = [np.stack([~actor.mask(i) for i in range(4)]) for actor in masked]
    assert all((mask[:2] == mask[2:]).all() for mask in masks)
    return [mask[:2] for mask in masks]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
def test_masks_of_even_and_odd_frames_are_disjoint_and_of_the_stated_share(share):
    """Of patches, which are counted here by where their points lie."""
    sequence, recipe = make_sequence(0, points=4000), MASKED._replace(mask_share=share)
    corner, cells, hidden = keyed(1).random(3), 0, np.zeros(2, int)
    for actor, lacking in zip(sequence.actors, hidden_points(sequence, recipe), strict=True):
        assert not (lacking[0] & lacking[1]).any()
        cell = np.floor(actor.cloud.point / recipe.mask_patch_m + corner)
        inside = {tuple(c): lacking[:, (cell == c).all(axis=1)] for c in np.unique(cell, axis=0)}
        assert all((mask == mask[:, :1]).all() for mask in inside.values())  # whole patches
        cells += len(inside)
        hidden += np.sum([mask[:, 0] for mask in inside.values()], axis=0)
    assert hidden.tolist() == [int(cells * share)] * 2


def test_masks_only_take_points_away_and_another_draw_masks_others():
    sequence = make_sequence(0)
    for before, after in zip(sequence.actors, mask_patches(sequence.actors, MASKED, keyed(2)), strict=True):
        assert not (after.planes & ~before.planes).any() and (after.planes != before.planes).any()
        assert after.cloud is before.cloud
    one, other = (np.concatenate(hidden_points(sequence, seed=seed), axis=1) for seed in (1, 2))
    assert 0.3 < one.mean() < 0.5 and (one != other).any()


def test_masked_frames_are_parts_of_the_whole_ones_with_the_same_points_compared():
    """Whole frames are those of the recipe without masks; the pairs' points lie at the same place in both."""
    sequence = make_sequence(0, points=2000)
    masked, plain = made([sequence], MASKED), made([sequence], MASKED._replace(mask_share=0.0, whole=False))
    for whole, frame, less in zip(masked.whole, plain.frame, masked.frame, strict=True):
        assert torch.equal(whole.coordinate, frame.coordinate) and whole.size == frame.size
        assert 0.3 * len(frame.coordinate) < len(less.coordinate) < 0.8 * len(frame.coordinate)
    for p, (i, j) in enumerate(frame_pairs(4)):
        for side, k in enumerate((i, j)):
            one = masked.frame[k].coordinate[masked.pair_row[p, side]]
            other = masked.whole[k].coordinate[masked.whole_row[p, side]]
            assert len(torch.unique(other - one, dim=0)) == 1  # both grids start at a corner of their own


def test_points_at_rest_are_at_one_place_in_both_frames_and_moving_ones_are_not():
    result = made([make_sequence(0)], SMALL._replace(places=True))
    away = (result.pair_place[:, 0] - result.pair_place[:, 1]).norm(dim=-1)
    still = 64 - int(64 * SMALL.moving_share)
    assert away[:, :still].max() == 0 and away[:, still:].min() > 0


def test_points_of_one_shape_vote_for_one_place_also_where_it_has_parts_that_move_for_themselves():
    sequence = make_sequence(0)
    room, box = sequence.actors
    half = np.arange(100) < 50
    parts = [make_actor(Cloud(box.cloud.point[k]), np.ones((4, 50), bool), box.pose, 1, 0) for k in (half, ~half)]
    parts[1].pose[:, :3, 3] += [0.3, 0, 0]
    sequence.actors = (room, *parts)
    recipe = SMALL._replace(votes=True, moving_share=1.0)
    result, view = made([sequence], recipe), draw_views(4, recipe.views, keyed_generator(3, 5, 0))
    assert result.moving.all()
    for i in range(4):
        point = np.concatenate([part.cloud.point @ part.pose[i, :3, :3].T + part.pose[i, :3, 3] for part in parts])
        own = point @ view[i, :3, :3].T
        reached = own[None] + result.vote[i].numpy()[:, None]  # of each sample, if it were each of the points
        assert np.abs(reached - own.mean(axis=0)).max(axis=2).min(axis=1).max() < 1e-5
        assert len(np.unique(result.vote[i].numpy(), axis=0)) > 20
    rows = sequence.actors[:1]
    sequence.actors = rows
    still = made([sequence], recipe)
    assert not still.moving.any() and not still.vote.any()


def test_votes_are_refused_where_no_shape_moves():
    config = change(PRESETS["small"], method="moving-3d-votes", block_scans=2)
    views = make_dataset(2, shape_points=0)
    for sequence in views:
        sequence.kind = "views"
    with pytest.raises(BatchError, match=r"room0000/00\d is of kind views, and no shape moves .*moving-3d-infonce"):
        make_stream(config, views, Share(2))


def test_masks_that_leave_nothing_to_compare_are_refused_with_the_settings_to_change():
    """Of one point in all frames, which either mask takes in two of five draws."""
    sequence, message = make_sequence(0, shape_points=0), r"no common point outside their masks.*set a smaller mask_p"
    sequence.actors[0].planes[0] = 0
    sequence.actors[0].planes[:, 0] = 0x80
    refused = 0
    for step in range(10):
        try:
            made([sequence], MASKED, step=step)
        except BatchError as error:
            assert re.search(message, str(error))
            refused += 1
    assert 0 < refused < 10


def test_only_moving_points_left_in_common_fill_all_samples():
    sequence = make_sequence(0)
    sequence.actors[0].planes[0] = 0
    parts = sample_common(sequence.actors, 0, 1, SMALL, keyed(1))
    assert [(part.actor, part.index.size) for part in parts] == [(1, 64)]


def test_static_methods_drop_moving_actors():
    recipe = SMALL._replace(voxel_4d_m=None, moving_actors=False)
    with_shape, without = make_sequence(0), make_sequence(0)
    without.actors = without.actors[:1]
    result = made([with_shape], recipe)
    assert_equal(result, made([without], recipe))
    assert result.sequence is None
    assert result.pair_row_4d.shape == (6, 2, 0)
    assert result.point_row_4d.shape == (4, 0, 4)
    assert not result.moving.any()


def test_a_shape_at_rest_is_as_in_the_first_frame_in_all_of_them():
    recipe, sequence, still = SMALL._replace(at_rest=True), make_sequence(0), make_sequence(0)
    shape = still.actors[1]
    still.actors = (still.actors[0], shape._replace(pose=np.repeat(shape.pose[:1], 4, axis=0)))
    assert_equal(made([sequence], recipe), made([still]))
    assert made([sequence], recipe).moving.any()
    with pytest.raises(AssertionError):
        assert_equal(made([sequence], recipe), made([sequence]))


def test_a_slot_does_not_depend_on_its_neighbours_or_on_reused_memory():
    buffer, scratch = BatchBuffer(2, 4, SMALL), new_scratch()
    big = [make_sequence(k, points=3000, shape_points=500) for k in (8, 12)]
    make_batch(big, [keyed_generator(1, 1, s) for s in (0, 1)], buffer, scratch)
    small = [make_sequence(k) for k in (0, 1)]
    reused = make_batch(small, [keyed_generator(1, 2, s) for s in (0, 1)], buffer, scratch)
    fresh = make_batch(small, [keyed_generator(1, 2, s) for s in (0, 1)], BatchBuffer(2, 4, SMALL), new_scratch())
    assert_equal(reused, fresh)
    alone = make_batch(small[:1], [keyed_generator(1, 2, 0)], BatchBuffer(1, 4, SMALL), new_scratch())
    assert torch.equal(alone.point_row, fresh.point_row[:, :64])


def test_seed_step_and_slot_each_change_the_draws():
    draws = {keyed_generator(*key).random() for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(draws) == 4
    assert keyed_generator(7, 8, 9).random() == keyed_generator(7, 8, 9).random()


def test_views_stay_within_their_ranges():
    recipe = Recipe()
    view = np.concatenate([draw_views(4, recipe.views, keyed_generator(0, step, 0)) for step in range(500)])
    scale = np.cbrt(np.linalg.det(view[:, :3, :3]))
    assert 0.9 <= scale.min() < 0.91 and 1.09 < scale.max() <= 1.1
    assert 0.49 < np.abs(view[:, :3, 3]).max() <= 0.5
    rotation = view[:, :3, :3] / scale[:, None, None]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (2000, 1, 1)), atol=1e-12)
    tilt = np.arccos(np.clip(rotation[:, 2, 2], -1, 1))
    assert 0.03 < tilt.max() <= math.pi / 64 * math.sqrt(2) + 1e-9
    yaw = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    assert np.histogram(yaw, bins=4, range=(-math.pi, math.pi))[0].min() > 400


def test_another_number_of_frames_is_refused():
    buffer = BatchBuffer(1, 4, SMALL)
    with pytest.raises(BatchError, match="sequence room0000/000: 3 frames in a data set of 4"):
        make_batch([make_sequence(0, t=3)], [keyed_generator(0, 0, 0)], buffer, new_scratch())


def test_frames_without_a_common_point_are_refused_by_name():
    sequence = make_sequence(0, shape_points=0)
    masks = np.zeros((4, 600), bool)
    masks[0, :300], masks[1, 300:], masks[2:] = True, True, True
    sequence.actors = (actor_of(sequence.actors[0].cloud.point[:600], masks),)
    with pytest.raises(BatchError, match=r"frames 0 and 1 have no common point.*method=strl"):
        made([sequence])
