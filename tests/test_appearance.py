"""Colour and normals: read from scans, turned and varied with them, given to nets, and missed by name."""

import json

import numpy as np
import pytest
import torch

from gen4d import sources
from tests.makers.files import ply, write
from tests.makers.labelled import keyed, labelled, room, write_rooms
from tests.shared import SHARED, needs_shared_data
from tests.test_train_cli import call, refusal
from train.config import ConfigError, change, resolve
from train.inputs.scans import INPUTS, point_inputs, read_scan
from train.inputs.views import Augmentation, vary_colour
from train.inputs.voxels import Grid, Rows, new_tensor, voxel_means
from train.nets.unet import NETS, UNet
from train.nets.weights import Backbone
from train.tasks.backbone import BackboneUse, make_backbone, seen_voxels
from train.tasks.config import PRESETS
from train.tasks.segment.batch import ScanRecipe, make_scan_batch


def colours(points, key=1):
    return keyed(key).integers(0, 256, (points, 3)).astype(np.uint8)


def normals(points, key=2):
    found = keyed(key).normal(size=(points, 3))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def source_of(path, **files):
    return sources.ScanSource(path.stem, path.parent, {"points": path.name} | files, "scan-files", 1)


def read(source, *kinds, up="z"):
    return read_scan(source, None, kinds, sources.Orientation(up, 1.0))


# Reading -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_columns_of_a_ply_are_scaled_turned_and_kept_for_finite_points_alone(tmp_path, order):
    point, rgb, normal = room(0, 300)[0], colours(300), normals(300)
    if order != "ascii":
        point[7] = np.nan
    columns = dict(zip(("red", "green", "blue"), rgb.T, strict=True))
    columns |= dict(zip(("nx", "ny", "nz"), normal.T, strict=True))
    scan = read(source_of(write(tmp_path / "a.ply", ply(point, columns, order))), "colour", "normal", up="y")
    kept = np.isfinite(point).all(axis=1)
    np.testing.assert_allclose(scan.colour, rgb[kept] / 255, atol=1e-6)
    turn = np.linalg.lstsq(point[kept], scan.point, rcond=None)[0].T  # y up to z up
    np.testing.assert_allclose(scan.normal, normal[kept] @ turn.T, atol=1e-5)
    assert len(scan.normal) == 300 - (order != "ascii")


def test_pointcepts_arrays_are_read_and_belong_to_the_digest(tmp_path):
    point, rgb, normal = room(0, 300)[0], colours(300), normals(300)
    base = tmp_path / "scene0000_00"
    base.mkdir()
    for name, values in (("coord", point), ("color", rgb.astype(np.float32)), ("normal", 3 * normal)):
        np.save(base / f"{name}.npy", values)
    (source,) = sources.find_scans(tmp_path).sources
    scan = read_scan(source, None, ("normal", "colour"))
    np.testing.assert_allclose(scan.colour, rgb / 255, atol=1e-6)
    np.testing.assert_allclose(scan.normal, normal, atol=1e-5)
    plain = read_scan(source, None)
    assert plain.colour is None and plain.normal is None and plain.digest != scan.digest
    np.save(base / "color.npy", rgb[:10])
    with pytest.raises(sources.SourceError, match=r"holds colours of shape \(10, 3\) for 300 points"):
        read_scan(source, None, ("colour",))


@needs_shared_data
def test_packed_colours_and_normals_of_a_real_pcd_are_read():
    scan = read(source_of(SHARED / "indoor_fragment_open3d_ml" / "open3d_fragment.pcd"), "colour", "normal")
    assert 0.3 < scan.colour.mean() < 0.7 and scan.colour.std() > 0.1 and scan.colour.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(scan.normal, axis=1), 1, atol=1e-5)
    near = np.argsort(np.linalg.norm(scan.point - scan.point[500], axis=1))[:20]
    assert np.abs(scan.normal[near] @ scan.normal[500]).mean() > 0.8  # of one surface, not of shuffled rows


@pytest.mark.parametrize(
    ("columns", "kind", "message"),
    [
        ({}, "colour", r"has no colours \(red, green, blue; it has: x, y, z\)"),
        ({"red": "u1", "green": "u1"}, "colour", "has no colours"),
        ({"red": "u1", "green": "u1", "blue": "u1"}, "normal", r"has no normals \(nx, ny, nz"),
        ({"red": "f4", "green": "f4", "blue": "f4"}, "colour", "has colours from 0 to 300"),
    ],
)
def test_what_is_missing_or_no_colour_is_named(tmp_path, columns, kind, message):
    values = {name: np.linspace(0, 255 if code == "u1" else 300, 200).astype(code) for name, code in columns.items()}
    path = write(tmp_path / "a.ply", ply(room(0, 200)[0], values))
    with pytest.raises(sources.SourceError, match=message):
        read(source_of(path), kind)


def test_fractions_are_taken_as_they_are(tmp_path):
    rgb = colours(200).astype(np.float32) / 255
    path = write(tmp_path / "a.ply", ply(room(0, 200)[0], dict(zip(("r", "g", "b"), rgb.T, strict=True))))
    np.testing.assert_allclose(read(source_of(path), "colour").colour, rgb, atol=1e-7)


# What nets are given -------------------------------------------------------------------------------------------------


def seen(number=0, points=1500):
    return labelled(number, points)._replace(colour=colours(points) / np.float32(255), normal=normals(points))


def test_points_give_ones_colours_about_zero_and_normals_under_the_view():
    scan = seen()
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    found = point_inputs(scan, ("normal", "occupancy", "colour"), 1.1 * turn)
    np.testing.assert_allclose(found[:, :3], scan.normal @ turn.T, atol=1e-6)
    assert (found[:, 3:6] == 1).all()
    np.testing.assert_allclose(found[:, 6:], scan.colour - 0.5, atol=1e-6)


def test_a_voxel_gets_the_mean_of_its_points():
    scan = seen()
    voxels, values, row = seen_voxels(scan, 0.3, ("colour",))
    for voxel in range(0, len(voxels.coordinate), 7):
        np.testing.assert_allclose(values[voxel], scan.colour[row == voxel].mean(axis=0) - 0.5, atol=1e-5)
    assert voxel_means(np.array([1, 1, 0]), np.array([[1.0], [2.0], [5.0]]), 2).tolist() == [[5.0], [1.5]]


def test_a_batch_holds_the_values_of_its_voxels_and_leaves_the_geometry_as_it_was():
    still = Augmentation(0.0, dropout_share=0.0, contrast_share=0.0, colour_share=0.0)
    recipe = ScanRecipe(0.2, "majority", 20, still, inputs=("colour", "normal"))
    plain = recipe._replace(inputs=("occupancy",))
    scans = [seen(0), seen(1)]
    made, other = (
        make_scan_batch(scans, [keyed(3), keyed(4)], given, Rows(4, new_tensor), Grid()) for given in (recipe, plain)
    )
    assert other.features is None and torch.equal(made.voxels.coordinate, other.voxels.coordinate)
    assert made.features.shape == (len(made.label), 6) and made.features.dtype == torch.float32
    first = made.features[made.voxels.coordinate[:, 0] == 0, :3].double().mean(dim=0).numpy()
    assert np.abs(first - (scans[0].colour.mean(axis=0) - 0.5)).max() < 0.05
    cropped = make_scan_batch(scans, [keyed(3), keyed(4)], recipe._replace(max_voxels=300), Rows(4, new_tensor), Grid())
    whole = {tuple(c): f for c, f in zip(made.voxels.coordinate.tolist(), made.features.tolist(), strict=True)}
    part = zip(cropped.voxels.coordinate.tolist(), cropped.features.tolist(), strict=True)
    assert all(whole[tuple(c)] == f for c, f in part) and len(cropped.features) == 600


def test_colours_vary_within_their_range_repeatably():
    rgb = colours(400) / np.float32(255)
    made = [vary_colour(rgb, Augmentation(), keyed(5, key)) for key in range(40)]
    assert all(0 <= one.min() and one.max() <= 1 and one.dtype == np.float32 for one in made)
    assert np.array_equal(made[3], vary_colour(rgb, Augmentation(), keyed(5, 3)))
    shifts = np.array([(one - rgb).mean(axis=0) for one in made])
    assert 0.02 < shifts.std() < 0.08 and sum(np.array_equal(one, rgb) for one in made) < 10


def test_settings_name_the_inputs_each_once():
    assert resolve("small", ("inputs=colour,normal",), PRESETS).backbone.inputs == ("colour", "normal")
    for value in ("", "colour,colour", "colour,depth"):
        with pytest.raises(ConfigError, match="inputs = "):
            resolve("small", (f"inputs={value}",), PRESETS)


def test_colour_is_for_segmentation_alone():
    with pytest.raises(ConfigError, match="task = instances: takes geometry alone"):
        change(PRESETS["small"], inputs=("colour",), task="instances")


# Weights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "known", "loaded"),
    [
        (("occupancy",), ("occupancy",), True),
        (("colour",), ("occupancy",), False),  # the same shape, another meaning
        (("colour", "normal"), ("occupancy",), False),
        (("colour",), None, True),  # weights of others do not say
        (("colour", "normal"), None, False),
    ],
)
def test_the_first_layer_alone_starts_from_scratch_where_inputs_differ(inputs, known, loaded):
    given = Backbone(UNet(NETS["small-4d"], 3, torch.Generator().manual_seed(5)), 0.2, (), known)
    use = BackboneUse(net="small-4d", voxel_m=0.2, inputs=inputs)
    made = make_backbone(use, given, torch.Generator().manual_seed(1)).state_dict()
    drawn = make_backbone(use, None, torch.Generator().manual_seed(1)).state_dict()
    for name, value in given.net.state_dict().items():
        taken = loaded or name != "stem.conv.weight"
        assert torch.equal(made[name], value if taken else drawn[name]), name


# A run ---------------------------------------------------------------------------------------------------------------

TINY = ("net=small-4d", "voxel_m=0.2", "steps=2", "batch=2", "workers=0", "log_steps=1", "checkpoint_steps=2")
TINY += ("validate_steps=2",)


def tune(data, run, *changes, weights="none"):
    given = ["finetune", "--data", data, "--weights", weights, "--preset", "small", "--run", run]
    return [*given, *(word for change in (*TINY, *changes) for word in ("--set", change))]


def test_a_run_with_colour_is_trained_evaluated_lent_and_refused_where_colour_is_missing(tmp_path):
    write_rooms(tmp_path / "data", train=1, val=1)
    plain = tmp_path / "plain"
    assert call(*tune(tmp_path / "data", plain)).exit_code == 0
    result = call(*tune(tmp_path / "data", tmp_path / "run", "inputs=colour", weights=plain))
    assert result.exit_code == 0, result.output
    said = "its first layer takes occupancy, this run gives colour: that layer starts from scratch, all others are"
    assert said in result.output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["backbone"]["inputs"] == ["colour"]
    out = tmp_path / "run" / "evaluation-tta2"
    result = call("evaluate", tmp_path / "run", "--data", tmp_path / "data", "--tta", "2", "--window-voxels", "1000")
    assert result.exit_code == 0, result.output
    results = json.loads((out / "results.json").read_text())
    assert (results["views"], results["window_voxels"]) == (2, 1000)
    assert "test-time augmentation: mean of 2 views): all points: mIoU" in (out / "results.md").read_text()
    cloud = write(tmp_path / "bare.ply", ply(room(3)[0]))
    assert "bare.ply: has no colours" in refusal("predict", tmp_path / "run", cloud, "--out", tmp_path / "p")
    scan = tmp_path / "data" / "scene0100_00" / "scene0100_00_vh_clean_2.ply"
    result = call("predict", tmp_path / "run", scan, "--tta", "3", "--out", tmp_path / "p")
    assert result.exit_code == 0 and "mean of 3 views" in result.output
    line = refusal("features", tmp_path / "run", "--scan", scan, "--out", tmp_path / "f.npy")
    assert "first layer takes colour, and only nets of geometry can be used here" in line
    assert "has no normals (nx, ny, nz" in refusal(*tune(tmp_path / "data", tmp_path / "n", "inputs=normal"))


def test_inputs_are_three_channels_each():
    for inputs in (("occupancy",), INPUTS):
        use = change(PRESETS["small"], inputs=inputs).backbone
        net = make_backbone(use, None, torch.Generator().manual_seed(0))
        assert net.stem.conv.weight.shape[-1] == 3 * len(inputs)
