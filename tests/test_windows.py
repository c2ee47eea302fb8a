"""Scenes larger than a forward: crops in training, overlapping windows in evaluation; and means over several views."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.labelled import keyed, labelled
from tests.makers.rooms import furnished_room
from train.config import ConfigError, change, resolve
from train.inputs.labelled import LabelledData
from train.inputs.labels import SceneError, label_table
from train.inputs.scans import LabelledScan
from train.inputs.views import Augmentation
from train.inputs.voxels import Grid, Rows, new_tensor, voxelise
from train.nets.cost import forward_cost
from train.nets.unet import NETS, UNet
from train.run import memory
from train.run.world import World
from train.tasks.backbone import calibrate
from train.tasks.config import BLOCKS, DETECT, INSTANCES, PRESETS
from train.tasks.segment import windows
from train.tasks.segment.batch import ScanRecipe, make_scan_batch
from train.tasks.segment.evaluate import Seeing, evaluate, predict, views
from train.tasks.segment.make import make_stream
from train.tasks.segment.model import Segmenter

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
RECIPE = ScanRecipe(0.1, "majority", 20, Augmentation())


def a_scan(point, name="scene0000_00"):
    label = (point[:, 2] > 0).astype(np.int16)
    return LabelledScan(name, point, label, np.arange(len(point), dtype=np.int32), len(point), "")


@pytest.fixture(scope="module")
def merged():
    """Four furnished rooms side by side, as one scan."""
    rooms = [furnished_room(key, 3000) + np.float32([5 * (key % 2), 4.5 * (key // 2), 0]) for key in range(4)]
    return a_scan(np.concatenate(rooms).astype(np.float32))


@pytest.fixture(scope="module")
def model(merged):
    generator = torch.Generator().manual_seed(3)
    made = Segmenter(UNet(NETS["small-4d"], 3, generator), 8, generator)
    calibrate(made.backbone, [merged], 0.1, CPU)
    return made.eval()


# Windows -------------------------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=2, max_size=60, unique=True), st.integers(1, 30))
def test_windows_hold_what_they_may_and_every_voxel_is_in_one(cells, most):
    cell = np.array(cells)
    if len(cell) <= most:
        return
    found = windows.cut(cell, most)
    assert all(len(rows) == most and (np.diff(rows) > 0).all() for rows in found)
    assert set(np.concatenate(found)) == set(range(len(cell)))
    assert all(np.array_equal(a, b) for a, b in zip(found, windows.cut(cell.copy(), most), strict=True))


def test_a_part_whose_box_holds_more_cells_than_a_window_keeps_its_own():
    """A scene in one plane: the box of the part that has the lone cell is that of all."""
    cell = np.array([[9, y, z] for y in range(4) for z in range(6)] + [[0, 3, 5], [0, 3, 0]])
    assert set(np.concatenate(windows.cut(cell, 6))) == set(range(len(cell)))


def test_the_nearest_of_equal_distances_are_the_first():
    distance = np.array([3, 1, 2, 2, 0, 2])
    assert windows.nearest(distance, 3).tolist() == [1, 2, 4]
    assert windows.nearest(distance, 6).tolist() == windows.nearest(distance, 9).tolist() == list(range(6))


def test_outputs_of_windows_are_averaged_voxel_by_voxel(merged):
    """A forward that tells its window's number and size, so that any other mean would show."""
    voxels, _ = voxelise(merged.point, 0.1)
    most = len(voxels.coordinate) // 3
    cell = voxels.coordinate[:, 1:].numpy()
    counter = itertools.count(1)

    def forward(part, rows):
        assert torch.equal(part.coordinate, voxels.coordinate[rows]) and part.size == voxels.size
        return next(counter) * part.coordinate.double()

    expected, times = np.zeros((len(cell), 4)), np.zeros(len(cell))
    for number, rows in enumerate(windows.cut(cell, most), start=1):
        for row in rows:
            expected[row] += number * voxels.coordinate[row].numpy()
            times[row] += 1
    found = windows.by_windows(forward, voxels, most)
    np.testing.assert_allclose(found.numpy(), expected / times[:, None], atol=1e-9)
    assert times.max() > 1 and next(counter) > 4


def test_a_scene_that_fits_is_seen_whole(model, merged):
    count = len(voxelise(merged.point, 0.1)[0].coordinate)
    whole = predict(model, merged, Seeing(0.1), CPU)
    assert np.array_equal(predict(model, merged, Seeing(0.1, window_voxels=count), CPU), whole)
    assert not np.array_equal(predict(model, merged, Seeing(0.1, window_voxels=count // 4), CPU), whole)


def test_windows_of_a_scene_of_four_rooms_agree_with_the_whole_and_repeat(model, merged):
    seeing = Seeing(0.1, window_voxels=1500)
    whole, cut = predict(model, merged, Seeing(0.1), CPU), predict(model, merged, seeing, CPU)
    assert (whole == cut).mean() > 0.8 and len(np.unique(whole)) > 2
    assert np.array_equal(predict(model, merged, seeing, CPU), cut)


def test_windows_are_taken_unasked_where_spconv_cannot_address_the_scene(model, merged, monkeypatch):
    voxels, _ = voxelise(merged.point, 0.1)
    count, shape = len(voxels.coordinate), model.backbone.shape
    assert windows.most_voxels(shape, voxels, 4, None) == count
    widest = forward_cost(shape, 3, voxels, 4).widest
    monkeypatch.setattr(windows, "ADDRESSED", widest)  # of which bytes must stay below
    most = windows.most_voxels(shape, voxels, 4, None)
    assert count // 2 < most < count
    cut = predict(model, merged, Seeing(0.1), CPU)
    assert np.array_equal(cut, predict(model, merged, Seeing(0.1, window_voxels=most), CPU))
    monkeypatch.setattr(windows, "ADDRESSED", widest + 1)
    assert windows.most_voxels(shape, voxels, 4, None) == count


# Crops ---------------------------------------------------------------------------------------------------------------


def cropped(scans, keys, most):
    recipe = RECIPE._replace(max_voxels=most)
    return make_scan_batch(scans, [keyed(9, key) for key in keys], recipe, Rows(4, new_tensor), Grid())


def cells_of(batch, number):
    rows = batch.voxels.coordinate[:, 0].numpy() == number
    cells = map(tuple, batch.voxels.coordinate[rows, 1:].tolist())
    return dict(zip(cells, batch.label[rows].tolist(), strict=True))


def test_a_large_scan_is_cropped_to_the_voxels_nearest_to_one_of_them_with_their_labels(merged):
    whole, part = (cells_of(cropped([merged], [5], most), 0) for most in (None, 500))
    assert len(part) == 500 < len(whole) / 3
    assert part.items() <= whole.items()
    left = np.array(sorted(whole.keys() - part.keys()))
    inside = np.array(sorted(part))
    farthest = [((inside - centre) ** 2).sum(axis=1).max() for centre in inside]
    closest = [((left - centre) ** 2).sum(axis=1).min() for centre in inside]
    assert any(far <= near for far, near in zip(farthest, closest, strict=True))  # a ball about one of its own


def test_a_crop_depends_on_its_key_alone_and_small_scans_are_left_whole(merged):
    small = labelled(1)
    both, alone = cropped([small, merged], [1, 7], 1500), cropped([merged], [7], 1500)
    assert cells_of(both, 1) == cells_of(alone, 0) != cells_of(cropped([merged], [8], 1500), 0)
    assert cells_of(both, 0) == cells_of(cropped([small], [1], None), 0)


def data_of(*scans):
    return LabelledData(label_table("nyu40"), scans, scans)


def test_the_estimate_is_of_the_largest_scan_and_knows_of_crops(merged, model):
    config = change(PRESETS["small"], net="small-4d", voxel_m=0.1, workers=0, batch=1)
    needed = {}
    for most in (None, 1500):
        stream = make_stream(change(config, max_voxels=most), data_of(labelled(0), labelled(1), merged), ALONE)
        needed[most] = memory.estimate(stream, model, "float32")
    assert needed[1500].voxels_3d == 1500 < needed[None].voxels_3d / 3
    assert needed[1500].kept < needed[None].kept / 2


def test_settings_of_size_are_counts_or_none():
    assert resolve("small", ("max_voxels=20000", "window_voxels=none"), PRESETS).segment.max_voxels == 20000
    for name in ("max_voxels", "window_voxels"):
        with pytest.raises(ConfigError, match=f"{name} = 10: at least 1000, or none"):
            resolve("small", (f"{name}=10",), PRESETS)


@pytest.mark.parametrize("task, presets", [("detect", DETECT), ("blocks", BLOCKS), ("instances", INSTANCES)])
def test_settings_of_size_are_refused_where_nothing_would_come_of_them(task, presets):
    with pytest.raises(ConfigError, match=f"task = {task}: has no windows"):
        resolve("small", ("window_voxels=2000",), presets)
    if task != "instances":
        with pytest.raises(ConfigError, match=f"task = {task}: crops no scans"):
            resolve("small", ("max_voxels=2000",), presets)


def test_a_scan_within_one_coarsest_voxel_is_refused_by_name_where_a_norm_would_see_it_alone(model):
    tiny = labelled(0)._replace(name="crumb", point=labelled(0).point * np.float32(0.05) + 1)
    config = change(PRESETS["small"], net="small-4d", voxel_m=0.1, workers=0, batch=2)
    make_stream(config, data_of(tiny), ALONE)
    for changes in ({"accumulate": 2}, {"batch": 1}):
        with pytest.raises(SceneError, match=r"scan crumb: 0\.\d+ m across, and the coarsest voxels have 0\.8 m"):
            make_stream(change(config, **changes), data_of(labelled(1), tiny), ALONE)
    with pytest.raises(SceneError, match="scan crumb"):
        calibrate(copy.deepcopy(model.backbone), [tiny], 0.1, CPU)


# Views ---------------------------------------------------------------------------------------------------------------


def test_views_are_turns_about_z_every_second_one_mirrored():
    first, *others = views(6)
    assert first is None and len(others) == 5
    for number, view in enumerate(others, start=1):
        np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(view) == pytest.approx(-1 if number % 2 else 1)
        assert view[2].tolist() == [0, 0, 1]
        assert view[:2, 0] == pytest.approx([math.cos(number * math.pi / 3), math.sin(number * math.pi / 3)])


def test_a_point_gets_the_class_of_the_mean_over_its_voxels_in_all_views(model):
    scan, total = labelled(2), 0
    for view in views(4):
        point = scan.point if view is None else (scan.point.astype(np.float64) @ view.T).astype(np.float32)
        voxels, row = voxelise(point, 0.1)
        with torch.no_grad():
            total = total + model.logits(voxels, 1).double().numpy()[row]
    found = predict(model, scan, Seeing(0.1, views=4), CPU)
    best = np.sort(total, axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-4
    assert clear.mean() > 0.99 and np.array_equal(found[clear], total.argmax(axis=1)[clear])
    assert not np.array_equal(found, predict(model, scan, Seeing(0.1), CPU))


def test_an_evaluation_by_views_and_windows_counts_every_point(model, merged):
    found = evaluate(model, [merged], Seeing(0.1, window_voxels=1500, views=2), CPU)
    assert found.points.sum() == len(merged.point)
