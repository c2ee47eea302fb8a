"""Pictures of sequences: all frames by one view, framed without outliers; points to pixels as plain NumPy has them."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from gen4d.report import kernels
from gen4d.report.picture import _camera, _moved, _pixels, draw_gif, draw_png, find_view, ramp
from gen4d.report.scene import framed
from gen4d.sequence import FloorPlan
from gen4d.shards import open_dataset
from tests import naive
from tests.makers.sequences import make_sequence, write_dataset


@pytest.fixture(scope="module")
def sequence():
    return make_sequence(1, points=2000)


def test_one_view_holds_what_moves_in_all_frames(sequence):
    view = find_view(sequence, sequence.frames, None)
    camera, scale, _ = _camera(view, (480, 380))
    for frame in sequence:
        x, y = np.transpose(_pixels(frame.point[frame.actor == 1], camera, scale, (480, 380)))
        assert x.min() > 0 and x.max() < 480 and y.min() > 0 and y.max() < 380


def test_outliers_do_not_widen_the_view(sequence):
    frames = sequence.frames
    far = np.float32([[90, -70, 0.5], [-80, 60, 0.4]])
    thrown = [
        frame._replace(
            point=np.concatenate([frame.point, far]), actor=np.concatenate([frame.actor, np.zeros(2, np.uint8)])
        )
        for frame in frames
    ]
    mine, other = find_view(sequence, frames, None), find_view(sequence, thrown, None)
    assert other.radius == pytest.approx(mine.radius, rel=0.1)
    assert other.centre == pytest.approx(mine.centre, abs=0.2)


def test_a_room_is_framed_by_its_free_floor(sequence):
    plan = FloorPlan(np.ones((20, 20), bool), np.array([0, 0], np.int32), 0.0, 0.1)
    frames = [f._replace(point=f.point * np.float32([4, 4, 1])) for f in sequence]
    point = np.concatenate([f.point for f in frames])
    assert framed(point, plan)[1] < 0.6 * framed(point, None)[1]
    assert find_view(sequence, frames, plan).cut == pytest.approx(2.0)


def test_nothing_to_draw_is_a_view_too(sequence):
    empty = [f._replace(point=f.point[:0], actor=f.actor[:0], point_index=f.point_index[:0]) for f in sequence]
    assert find_view(sequence, empty, None).radius > 0


@pytest.mark.parametrize("seed", range(3))
def test_splat_and_shade_equal_plain_numpy(seed):
    rng = np.random.default_rng(seed)
    point = rng.uniform(-1, 1, (300, 3)).astype(np.float32)
    point[::7] = point[3]  # equally far
    colour = rng.integers(0, 255, (300, 3)).astype(np.uint8)
    camera = np.concatenate([np.eye(3), [[0.1], [0.2], [2.0]]], axis=1)
    results = []
    for draw, shade in ((kernels.splat, kernels.shade), (naive.splat, naive.shade)):
        image, depth = np.full((40, 50, 3), 200, np.uint8), np.full((40, 50), np.inf)
        draw(point, colour, camera, 45.0, 0.08, image, depth)
        before = image.copy()
        shade(image, depth, 2, 4.0)
        results.append((before, depth, image))
    assert_array_equal(results[0][0], results[1][0])
    assert_array_equal(results[0][1], results[1][1])
    assert np.abs(results[0][2].astype(int) - results[1][2]).max() <= 1  # of a logarithm's last digit
    assert (before != 200).any() and (results[0][2] < before).any()


def test_pixels_are_where_splats_are(sequence):
    view = find_view(sequence, sequence.frames, None)
    camera, scale, _ = _camera(view, (200, 150))
    point = np.float32([view.centre]) + np.float32([[0.3, -0.2, 0.1]])
    image, depth = np.zeros((150, 200, 3), np.uint8), np.full((150, 200), np.inf)
    kernels.splat(point, np.uint8([[9, 9, 9]]), camera, scale, 0.01, image, depth)
    ((x, y),) = _pixels(point, camera, scale, (200, 150))
    assert np.isfinite(depth[int(y), int(x)])


def test_colours_rise_from_blue_to_sand():
    assert_array_equal(
        ramp(np.array([-1.0, 0, 0.5, 1, 7])), [[33, 66, 107]] * 2 + [[64, 140, 153]] + [[222, 213, 178]] * 2
    )


def test_between_frames_what_moves_is_on_its_way_and_the_rest_is_at_rest(sequence):
    frames = sequence.frames
    first, last = sequence.actors[1].pose[0, :3, 3], sequence.actors[1].pose[1, :3, 3]
    half = _moved(sequence, frames, 0.49)
    rest = half.actor == 0
    assert_array_equal(half.point[rest], frames[0].point[rest])
    cloud = sequence.actors[1].cloud.point[half.point_index[~rest]]
    assert np.linalg.norm(half.point[~rest] - (first + 0.49 * (last - first)), axis=1).max() <= np.linalg.norm(
        cloud, axis=1
    ).max() * (1 + 1e-5)
    assert _moved(sequence, frames, 1.0) is frames[1]


def test_pictures_are_written(tmp_path):
    data = open_dataset(write_dataset(tmp_path, scans=1, sequences=1))
    draw_png(data, 0, tmp_path / "picture.png")
    draw_gif(data, 0, tmp_path / "picture.gif")
    still, moving = Image.open(tmp_path / "picture.png"), Image.open(tmp_path / "picture.gif")
    assert still.format == "PNG" and still.width == 480 * data[0].t
    assert moving.format == "GIF" and moving.n_frames == 5 * (data[0].t - 1) + 1
    colours = np.asarray(still.convert("RGB")).reshape(-1, 3)
    assert (np.abs(colours - np.array([228, 87, 46])).max(axis=1) < 20).sum() > 100  # what moves is seen
