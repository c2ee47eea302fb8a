"""Pictures of sequences: all frames on one scale, framed without outliers."""

import numpy as np
import pytest

from gen4d.report.picture import draw_png, find_view
from gen4d.sequence import Frame
from gen4d.shards import open_dataset
from tests.makers.sequences import make_sequence, write_dataset


@pytest.fixture(scope="module")
def sequence():
    return make_sequence(1, points=2000)


def drawn(frame: Frame, view) -> np.ndarray:
    return np.flatnonzero(frame.point[:, 2] < view.heights[1])[:: view.step]


def test_one_view_holds_what_moves_in_all_frames(sequence):
    view = find_view(sequence, sequence.frames, None)
    for frame in sequence:
        x = frame.point[frame.actor == 1, 0]
        assert view.right[0] < x.min() and x.max() < view.right[1]
    assert view.right[1] - view.right[0] < 4.5 and view.dot > 0


def test_outliers_do_not_widen_the_view(sequence):
    frames = sequence.frames
    view = find_view(sequence, frames, None)
    far = np.float32([[90, -70, 0.5], [-80, 60, 0.4]])
    thrown = [
        frame._replace(
            point=np.concatenate([frame.point, far]), actor=np.concatenate([frame.actor, np.zeros(2, np.uint8)])
        )
        for frame in frames
    ]
    wider = find_view(sequence, thrown, None)
    for mine, other in ((view.right, wider.right), (view.up, wider.up)):
        assert wider.heights[1] - wider.heights[0] < 5
        assert other == pytest.approx(mine, abs=0.2)


def test_frames_are_drawn_with_one_density_though_they_keep_unlike_many_points(sequence):
    frames = sequence.frames
    half = frames[1]._replace(point=frames[1].point[::2], actor=frames[1].actor[::2])
    view = find_view(sequence, [frames[0], half], None)
    assert view.step == 1 and len(drawn(half, view)) < 0.6 * len(drawn(frames[0], view))


def test_large_frames_are_thinned_alike(sequence):
    frames = [frame._replace(point=np.tile(frame.point, (90, 1)), actor=np.tile(frame.actor, 90)) for frame in sequence]
    view = find_view(sequence, frames, None)
    shown = [len(drawn(frame, view)) for frame in frames]
    assert view.step == 2 and 50_000 < min(shown) and max(shown) < 1.05 * min(shown)


def test_nothing_to_draw_is_a_picture_too(sequence):
    empty = [frame._replace(point=frame.point[:0], actor=frame.actor[:0]) for frame in sequence]
    view = find_view(sequence, empty, None)
    assert view.right[0] < view.right[1] and view.up[0] < view.up[1]


def test_a_picture_is_written(tmp_path):
    data = write_dataset(tmp_path, scans=1, sequences=1)
    draw_png(open_dataset(data), 0, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
