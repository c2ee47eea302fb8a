"""Instances and boxes as users train and evaluate them, on rooms in ScanNet's files."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.makers.files import write
from tests.makers.labelled import room, write_room, write_rooms
from tests.test_train_cli import call, refusal
from train.inputs.labelled import LabelUse, Places, read_labelled
from train.run.log import read_lines

TINY = {
    "instances": ("radius_m=0.4", "least_points=20"),
    "detect": ("seeds=64", "proposals=32", "width=16", "sample=1000", "least_objectness=0", "least_inside=0"),
}


def tune(task, data, run, *changes, steps=4):
    shared = ("net=small-4d", "voxel_m=0.2", f"steps={steps}", "batch=2", "workers=1", "log_steps=1")
    shared += ("checkpoint_steps=2", "validate_steps=2", *TINY[task], *changes)
    words = [word for assignment in shared for word in ("--set", assignment)]
    return ["finetune", "--task", task, "--data", data, "--weights", "none", "--preset", "small", "--run", run, *words]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four rooms to learn and two to validate on, with segments and aggregation."""
    folder = tmp_path_factory.mktemp("scannet")
    write_rooms(folder, train=2, val=1, labels="segments")
    return folder


@pytest.fixture(scope="module", params=list(TINY))
def run(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    result = call(*tune(request.param, data, folder))
    assert result.exit_code == 0, result.output
    return folder


def test_a_run_leaves_a_table_numbers_and_pictures_and_is_evaluated_to_the_same(data, run, tmp_path):
    results = json.loads((run / "results.json").read_text())
    figures = {"instances": "ap25", "detect": "ap25"}[run.name]
    assert set(results["results"]) == {"last", "best"} and figures in results["results"]["last"]
    assert results["results"]["last"]["count"] == 1  # a table; floor and wall are none, a lamp is of no class
    assert "wall" not in results["results"]["last"]["classes"]
    table = (run / "results.md").read_text()
    assert "| mean" in table and "| table" in table and "AP50" in table
    assert Image.open(run / "pictures" / "scene0100_00.png").size[0] > 300
    again = call("evaluate", run, "--data", data, "--out", tmp_path / "out", "--write", "txt")
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "out/results.json").read_text())["results"] == results["results"]
    name = {"instances": "benchmark", "detect": "boxes"}[run.name]
    assert (tmp_path / "out/last" / name / "scene0100_00.txt").exists()
    bare = call("evaluate", run, "--data", data, "--out", tmp_path / "bare", "--checkpoint", "last")
    assert bare.exit_code == 0 and (tmp_path / "bare/pictures/scene0100_00.png").exists(), bare.output


def test_a_run_goes_on_to_what_it_would_have_been(data, run, tmp_path):
    task = run.name
    assert call(*tune(task, data, tmp_path / "run", steps=4), "--dry-run").exit_code == 0
    last = read_lines(run / "log.jsonl")[-1]
    shutil.copytree(run, tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole" / "checkpoint-00000004")
    result = call(*tune(task, data, tmp_path / "whole"))
    assert result.exit_code == 0, result.output
    again = read_lines(tmp_path / "whole" / "log.jsonl")[-1]
    assert again["loss"] == last["loss"] and again["terms"] == last["terms"]


def test_scans_without_labels_are_predicted(data, run, tmp_path):
    out = tmp_path / "out"
    given = ["evaluate", run, "--data", data, "--no-labels", "--write", "txt", "--out", out, "--checkpoint", "last"]
    result = call(*given)
    assert result.exit_code == 0, result.output
    name = {"instances": "benchmark", "detect": "boxes"}[run.name]
    lines = (out / "last" / name / "scene0100_00.txt").read_text().splitlines()
    if run.name == "detect":
        assert lines and all(len(line.split()) == 9 for line in lines)
        scores = [float(line.split()[1]) for line in lines]
        assert scores == sorted(scores, reverse=True)


def test_boxes_are_limited_by_a_file(data, tmp_path):
    path = tmp_path / "bbox_list"
    torch.save({name: ([0], [3]) for name in ("scene0000_00", "scene0000_01", "scene0001_00")}, path)
    found = read_labelled(Places(data, boxes=path), LabelUse(), 1, lambda line: None)
    assert [np.unique(scan.instance).tolist() for scan in found.train] == [[-1, 2]] * 3 and len(found.points) == 64
    assert all(len(np.unique(scan.instance)) == 5 for scan in found.val)
    result = call(*tune("detect", data, tmp_path / "run"), "--boxes", path, "--set", "boxes_per_scan=1", "--dry-run")
    assert result.exit_code == 0 and "detect.boxes_per_scan = 1" in result.output, result.output
    text = refusal(*tune("instances", data, tmp_path / "no"), "--boxes", path)
    assert "boxes are for --task detect, this is instances: leave it out" in text


def test_limited_points_are_refused_where_sizes_of_objects_are_taken_from_labels(data, tmp_path):
    text = refusal(*tune("detect", data, tmp_path / "no"), "--points", path := tmp_path / "points20")
    assert f"--points {path}: boxes are around all points, this is detect: give --boxes" in text
    text = refusal(*tune("instances", data, tmp_path / "no"), "--points", path, "--set", "soft=true")
    assert "soft takes the sizes of objects from labels of all points: --set soft=false" in text


# What is wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", list(TINY))
def test_scans_without_instances_are_one_line_and_the_others_are_learned(task, tmp_path):
    write_rooms(tmp_path, train=2, val=1, labels="segments")
    (tmp_path / "scene0001_00/scene0001_00.aggregation.json").unlink()
    write_room(tmp_path, "scene0001_00", 9, "ply")
    result = call(*tune(task, tmp_path, tmp_path / "run", steps=2))
    assert result.exit_code == 0, result.output
    said = [line for line in result.output.splitlines() if "have no instances and are left out" in line]
    assert len(said) == 1 and "1 of 3 training scans" in said[0] and "first: scene0001_00" in said[0]


@pytest.mark.parametrize("task", list(TINY))
def test_no_instances_at_all_are_refused(task, tmp_path):
    write_rooms(tmp_path, train=2, val=1, labels="ply")
    text = refusal(*tune(task, tmp_path, tmp_path / "run"))
    assert "none of 3 training scans (first: scene0000_00) has instances: download segs.json" in text
    assert not (tmp_path / "run").exists()


def test_settings_of_another_task_are_refused(data, run, tmp_path):
    given = ["finetune", "--data", data, "--weights", "none", "--preset", "small", "--run", tmp_path / "run"]
    text = refusal(*given, "--config", run / "config.json")
    assert f"--task segment: the settings are those of {run.name}: --task {run.name}" in text


def test_what_is_for_segmentation_alone_is_refused(data, run):
    for option, value in (("--tta", "2"), ("--window-voxels", "1000")):
        line = refusal("evaluate", run, "--data", data, option, value)
        assert "of blocks, instances or boxes: leave out --tta and --window-voxels" in line


def test_scans_of_other_classes_and_folders_without_a_run_are_refused(data, run, tmp_path):
    folder = tmp_path / "s3dis/Area_5/office_1"
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", room(3)[0])
    for name in ("segment", "instance"):
        np.save(folder / f"{name}.npy", np.zeros(1500, np.int16))
    write(tmp_path / "names.txt", "Area_5_office_1\n")
    text = refusal("evaluate", run, "--data", tmp_path / "s3dis", "--split", tmp_path / "names.txt")
    assert "its classes are not the 13 of s3dis13: evaluate on scans of its labels" in text
    assert "no last checkpoint there" in refusal("evaluate", tmp_path / "nothing", "--data", data)


# A GPU ---------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("task", list(TINY))
def test_training_on_a_gpu_starts_close_to_the_cpu(task, precision, data, tmp_path):
    first = {}
    for device, kind in (("cpu", "float32"), ("cuda", precision)):
        result = call(*tune(task, data, tmp_path / device, f"precision={kind}"), "--device", device)
        assert result.exit_code == 0, result.output
        first[device] = read_lines(tmp_path / device / "log.jsonl")[0]["loss"]
    assert first["cuda"] == pytest.approx(first["cpu"], rel=1e-2 if precision == "float32" else 0.1)
