"""Fine-tuning, evaluation and probes as users run them, on rooms in ScanNet's files; and what they read when something
is wrong."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gen4d import sources
from gen4d.sources.splits import read_split
from tests.makers.files import ply, write
from tests.makers.labelled import OBJECTS, write_room, write_rooms
from tests.naive_segment import scores, vote, voxels
from tests.test_train_cli import call, refusal
from train.config import change, resolve
from train.inputs.labelled import Places, read_labelled
from train.inputs.labels import NONE
from train.methods import config as methods
from train.methods.pretrain import make_model
from train.nets.weights import stored_backbone, weights_digest
from train.run import checkpoint, memory
from train.run.log import Record, read_lines
from train.run.loop import Stopped
from train.run.optim import make_optimiser
from train.run.world import World
from train.tasks import finetune
from train.tasks.backbone import read_weights
from train.tasks.config import PRESETS
from train.tasks.finetune import Validation

TINY = ("net=small-4d", "voxel_m=0.2", "steps=6", "batch=2", "workers=1", "log_steps=1", "checkpoint_steps=2")
TINY += ("validate_steps=2",)
CONFIG = resolve("small", TINY, PRESETS)
ROOT = pathlib.Path(__file__).parents[1]
ALONE = World(0, 1, torch.device("cpu"))


def settings(*assignments):
    return [word for assignment in assignments for word in ("--set", assignment)]


def tune(data, run, *more, weights="none", changes=()):
    given = ["finetune", "--data", data, "--weights", weights, "--preset", "small", "--run", run]
    return [*given, *settings(*TINY, *changes), *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four rooms to learn, one of them scanned twice, and two to validate on."""
    folder = tmp_path_factory.mktemp("scannet")
    write_rooms(folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run from scratch."""
    folder = tmp_path_factory.mktemp("runs") / "scratch"
    result = call(*tune(data, folder))
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A pre-training run whose weights were drawn and not trained."""
    config = resolve("small", ("net_3d=small-4d", "voxel_m=0.2", "seed=5"), methods.PRESETS)
    folder = tmp_path_factory.mktemp("runs") / "pretrain"
    model = make_model(config)
    folder.mkdir()
    backbone = stored_backbone("small-4d", 0.2, "encoder3d.backbone.", "4dcontrast")
    stored = {"task": "pretrain", "backbone": backbone, "scans": ["scene0002_00", "scene0100_01"]}
    checkpoint.save(folder, 9, stored, model, make_optimiser(config.optim, model), {})
    return folder


def labelled(data, **more):
    return read_labelled(Places(data, **more), CONFIG.labels, 1, print)


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def test_a_run_prints_its_table_and_leaves_everything_in_its_folder(data, run):
    assert sorted(path.name for path in run.iterdir()) == [
        "best", "checkpoint-00000004", "checkpoint-00000006", "config.json", "confusion.png", "curves.png",
        "log.jsonl", "machine.jsonl", "pictures", "results.json", "results.md", "tensorboard", "train_scans.txt",
        "val_scans.txt", "validation.jsonl",
    ]  # fmt: skip
    assert [line["step"] for line in read_lines(run / "log.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in read_lines(run / "validation.jsonl")] == [2, 4, 6]
    assert Image.open(run / "confusion.png").size[0] > 300
    assert sorted(path.stem for path in (run / "pictures").iterdir()) == ["scene0100_00", "scene0101_00"]
    again = call(*tune(data, run))
    assert "step 1/6" not in again.output  # nothing is left to do
    table = (run / "results.md").read_text()
    assert again.exit_code == 0 and table in again.output
    for words in ("| wall ", "| mean ", "last (step 6): all points: mIoU", "2 cm voxels: mIoU", "2 scans; gen4d"):
        assert words in table


def test_last_and_best_are_both_reported_and_best_is_the_best_validation(run):
    results, lines = results_of(run), read_lines(run / "validation.jsonl")
    best = max(lines, key=lambda line: line["points"]["miou"])
    assert results["step"] == {"last": 6, "best": best["step"]}
    assert results["results"]["last"] == {key: value for key, value in lines[-1].items() if key != "step"}
    assert results["results"]["best"]["points"] == best["points"]
    assert checkpoint.newest(run / "best").step == best["step"]
    assert results["validations"] == 3


def test_a_few_steps_teach_floor_and_wall(data, tmp_path):
    result = call(*tune(data, tmp_path, changes=("steps=40", "log_steps=10", "checkpoint_steps=40", "validate_steps=40",
                                                 "norm_momentum=0.1")))  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = read_lines(tmp_path / "log.jsonl")
    assert lines[-1]["loss"] < 0.6 * np.log(20)
    found = results_of(tmp_path)["results"]["last"]["points"]
    assert found["classes"]["floor"]["iou"] > 0.5 and found["classes"]["wall"]["iou"] > 0.3


def test_pretrained_weights_and_scratch_start_from_one_head_and_see_the_same_batches(data, weights, tmp_path):
    scans, pretrained = labelled(data), read_weights(weights, CONFIG.backbone)
    tasks = [finetune.make_task(CONFIG, scans, given, ALONE) for given in (None, pretrained)]
    heads = [task.model.head.weight for task in tasks]
    firsts = [task.stream.sample(2) for task in tasks]
    assert torch.equal(*heads)
    assert torch.equal(firsts[0].voxels.coordinate, firsts[1].voxels.coordinate)
    result = call(*tune(data, tmp_path, weights=weights, changes=("steps=2",)))
    assert result.exit_code == 0, result.output
    assert f"segmentation from weights of {weights}" in result.output
    assert json.loads((tmp_path / "config.json").read_text())["weights"] == weights_digest(pretrained)


def test_a_frozen_random_backbone_is_a_fixed_function(data, tmp_path):
    result = call(*tune(data, tmp_path, changes=("steps=4", "freeze=backbone")))
    assert result.exit_code == 0, result.output
    first, last = (checkpoint.read(tmp_path / f"checkpoint-0000000{step}").model for step in (2, 4))
    for name, value in first.items():
        assert torch.equal(value, last[name]) == name.startswith("backbone."), name
    norms = [value for name, value in last.items() if name.endswith("running_mean")]
    assert norms and all(value.abs().max() > 0 for value in norms)  # those of the scans, not those of a new net


def test_weights_of_other_voxels_are_warned_about(data, weights, tmp_path):
    result = call(*tune(data, tmp_path, "--dry-run", weights=weights, changes=("voxel_m=0.1",)))
    assert "warning: " in result.output and "trained on voxels of 20 cm, used on 10 cm" in result.output
    assert "optim.lr = 0.2" in result.output and "classes: wall, floor" in result.output
    assert not (tmp_path / "config.json").exists()


def test_validation_rooms_that_were_pre_trained_on_are_warned_about(data, run, weights, tmp_path):
    """By fine-tuning, by probing, through exported weights, and when the run is evaluated later."""
    seen = "1 of 2 validation scans were pre-trained on (1 as another scan of the room; first: scene0100_00)"
    assert call("export-weights", weights, "--out", tmp_path / "own.safetensors").exit_code == 0
    for given in (weights, tmp_path / "own.safetensors"):
        result = call(*tune(data, tmp_path / "dry", "--dry-run", weights=given))
        assert f"warning: {seen}: the score will be too high" in result.output
    given = ["--data", data, "--weights", weights, "--preset", "small", "--run", tmp_path / "probe"]
    result = call("probe", *given, *settings("voxel_m=0.2", "samples=40", "queries=20", "workers=1"))
    assert result.exit_code == 0 and seen in result.output
    assert call(*tune(data, tmp_path / "run", weights=weights, changes=("steps=1",))).exit_code == 0
    result = call("evaluate", tmp_path / "run", "--data", data, "--out", tmp_path / "out", "--checkpoint", "last")
    assert seen in result.output and "fine-tuned on" not in result.output
    result = call("evaluate", run, "--data", data, "--part", "train", "--out", tmp_path / "o", "--checkpoint", "last")
    assert "5 of 5 validation scans were fine-tuned on (5 themselves; first: scene0000_00)" in result.output
    assert "pre-trained on" not in call("evaluate", run, "--data", data, "--out", tmp_path / "o2").output


def test_the_first_scans_of_each_side_are_read_alone(data):
    whole, few = (read_labelled(Places(data), CONFIG.labels, 1, print, first=first) for first in ((None, None), (2, 1)))
    assert len(whole.train) > 2 and len(whole.val) > 1
    for wanted, found in ((whole.train[:2], few.train), (whole.val[:1], few.val)):
        assert [scan.name for scan in found] == [scan.name for scan in wanted]


def test_a_share_of_the_labels_is_drawn_by_room_and_written_beside_the_run(data, tmp_path):
    chosen = {}
    for percent in (25, 50):
        run = tmp_path / str(percent)
        result = call(*tune(data, run, "--percent", str(percent), changes=("steps=1",)))
        assert result.exit_code == 0, result.output
        chosen[percent] = set(read_split(run / "train_scans.txt"))
        assert f"# {percent // 25} rooms, {percent} % drawn with seed 0\n" in (run / "train_scans.txt").read_text()
        assert f"{len(chosen[percent])} of 5 training scans: " in result.output
        assert len({name[:9] for name in chosen[percent]}) == percent * 4 // 100
        assert read_split(run / "val_scans.txt") == ("scene0100_00", "scene0101_00")
    assert chosen[25] < chosen[50]


def test_limited_points_leave_the_other_points_without_labels(data, tmp_path):
    names = ["scene0000_00", "scene0000_01", "scene0001_00", "scene0002_00", "scene0003_00"]
    torch.save({name: list(range(40)) for name in names}, tmp_path / "points40")
    job = labelled(data, points=tmp_path / "points40")
    assert all(0 < (scan.label != NONE).sum() <= 40 for scan in job.train)
    assert all((scan.label != NONE).sum() > 1000 for scan in job.val)
    result = call(*tune(data, tmp_path / "run", "--points", tmp_path / "points40", changes=("steps=1",)))
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "run" / "config.json").read_text())["points"]) == 64


def test_a_fine_tuned_run_lends_its_backbone(data, run, tmp_path):
    """As supervised pre-training: the first checkpoint of the second run goes on from the first run's last."""
    assert call(*tune(data, tmp_path, weights=run, changes=("steps=1",))).exit_code == 0
    before, after = (checkpoint.newest(folder).model for folder in (run, tmp_path))
    moved = [
        (before[name] - after[name]).norm() / before[name].norm() for name in before if name.endswith("conv.weight")
    ]
    assert 0 < max(moved) < 0.2
    lent = read_weights(run, CONFIG.backbone).net.state_dict()
    assert all(torch.equal(value, before[f"backbone.{name}"]) for name, value in lent.items())


# Resuming ------------------------------------------------------------------------------------------------------------


def run_until(job, run, stop=None, number=None):
    """Fine-tune until the record of a step, then stop without warning, or by a signal."""
    with contextlib.closing(finetune.finetune(CONFIG, job, None, run, ALONE)) as found:
        for item in found:
            if isinstance(item, Record) and item.step == stop:
                if number is None:
                    return
                signal.raise_signal(number)


def state_of(run):
    config = {name: value.tolist() for name, value in checkpoint.newest(run).model.items()}
    log = [{k: v for k, v in line.items() if k != "timing"} for line in read_lines(run / "log.jsonl")]
    best = checkpoint.newest(run / "best")
    kept = (best.step, {name: value.tolist() for name, value in best.model.items()})
    return config, log, read_lines(run / "validation.jsonl"), kept


@pytest.mark.parametrize("stop", [2, 3, 4])
@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights_logs_validations_and_best(
    data, run, tmp_path, stop, number
):
    job = labelled(data)
    with pytest.raises(Stopped) if number else contextlib.nullcontext():
        run_until(job, tmp_path, stop, number)
    assert not (tmp_path / "checkpoint-00000006").exists() or number
    run_until(job, tmp_path)
    assert state_of(tmp_path) == state_of(run)


def test_a_run_folder_of_other_labels_or_weights_is_refused(data, run, weights):
    assert "started with another configuration (weights: none there" in refusal(*tune(data, run, weights=weights))
    assert "labels.percent: 100.0 there, 50.0 here" in refusal(*tune(data, run, "--percent", "50"))


# Evaluation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["ply", "segments"])
def test_numbers_equal_a_count_over_written_predictions_and_scannets_own_files(run, tmp_path, labels):
    ids = write_rooms(tmp_path / "scans", train=2, val=2, labels=labels)
    result = call("evaluate", run, "--data", tmp_path / "scans", "--out", tmp_path / "out", "--write", "npy")
    assert result.exit_code == 0, result.output
    class_of = {nyu40: number for _, nyu40, number in OBJECTS.values()}
    for which in ("last", "best"):
        truth, guess, voxel_truth, voxel_guess = [], [], [], []
        for name in ("scene0100_00", "scene0101_00"):
            prediction = np.load(tmp_path / "out" / which / "predictions" / f"{name}.npy")
            label = [class_of[int(nyu40)] for nyu40 in ids[name]]
            truth, guess = truth + label, guess + prediction.tolist()
            point = sources.load_scan(source_of(tmp_path / "scans", name), sources.Orientation("z", 1.0)).point
            for rows in voxels(point, 0.02).values():
                voxel_truth.append(vote([label[row] for row in rows], "unanimous"))
                voxel_guess.append(int(prediction[rows[0]]))
        found = results_of(tmp_path / "out")["results"][which]
        for kind, expected in (("points", scores(truth, guess, 20)), ("voxels", scores(voxel_truth, voxel_guess, 20))):
            for name in ("miou", "macc", "accuracy"):
                assert found[kind][name] == pytest.approx(expected[name], abs=1e-12)
            assert [c["iou"] for c in found[kind]["classes"].values()] == pytest.approx(expected["iou"])
            assert [c["recall"] for c in found[kind]["classes"].values()] == pytest.approx(expected["recall"])


def source_of(folder, name):
    found = sources.find_scans(folder, write(folder.parent / f"{name}.list", name + "\n"))
    return found.sources[0]


def test_evaluating_again_gives_the_numbers_of_training(data, run, tmp_path):
    call("evaluate", run, "--data", data, "--out", tmp_path)
    assert results_of(tmp_path)["results"] == results_of(run)["results"]
    assert results_of(tmp_path)["confusion"] == results_of(run)["confusion"]


def test_evaluations_come_as_json_where_that_is_asked_for(data, run, tmp_path):
    result = call("evaluate", run, "--data", data, "--out", tmp_path, "--json")
    assert json.loads(result.stdout)["results"] == results_of(run)["results"] and "| wall " in result.stderr
    again = call(*tune(data, run), "--json")
    assert json.loads(again.stdout)["step"] == results_of(run)["step"]


def test_predictions_are_written_for_the_benchmark_and_for_eyes(data, run, tmp_path):
    formats = [word for kind in ("npy", "txt", "ply") for word in ("--write", kind)]
    result = call("evaluate", run, "--data", data, "--checkpoint", "last", "--out", tmp_path, *formats)
    assert result.exit_code == 0, result.output
    prediction = np.load(tmp_path / "last" / "predictions" / "scene0100_00.npy")
    assert prediction.shape == (1500,) and prediction.dtype == np.int16
    lines = (tmp_path / "last" / "benchmark" / "scene0100_00.txt").read_text().splitlines()
    nyu40 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]
    assert [int(line) for line in lines] == [nyu40[number] for number in prediction]
    assert not (tmp_path / "best").exists()
    source = sources.ScanSource("a", tmp_path / "last" / "ply", {"points": "scene0100_00.ply"}, "scan-files", 1)
    scan = sources.load_scan(source, sources.Orientation("z", 1.0))
    assert np.array_equal(scan.label, prediction)
    header = (tmp_path / "last" / "ply" / "scene0100_00.ply").read_bytes()[:300]
    assert b"property uchar red" in header and b"element vertex 1500" in header


def test_rows_of_the_points_file_that_hold_no_point_have_no_prediction(run, tmp_path):
    write_rooms(tmp_path, train=1, val=1)
    base = tmp_path / "scene0100_00"
    scan = sources.load_scan(source_of(tmp_path, "scene0100_00"), sources.Orientation("z", 1.0))
    point = scan.point.copy()
    point[[4, 9]] = np.nan
    write(base / "scene0100_00_vh_clean_2.ply", ply(point))
    formats = ("--write", "npy", "--write", "txt")
    result = call("evaluate", run, "--data", tmp_path, "--out", tmp_path / "out", "--checkpoint", "last", *formats)
    assert result.exit_code == 0, result.output
    prediction = np.load(tmp_path / "out" / "last" / "predictions" / "scene0100_00.npy")
    assert np.flatnonzero(prediction == NONE).tolist() == [4, 9]
    lines = (tmp_path / "out" / "last" / "benchmark" / "scene0100_00.txt").read_text().splitlines()
    assert len(lines) == 1500 and [i for i, line in enumerate(lines) if line == "0"] == [4, 9]


def test_scans_without_labels_are_predicted_where_that_is_asked_for(run, tmp_path):
    write_room(tmp_path, "scene0700_00", 70, labels="none")
    write(tmp_path / "scannetv2_test.txt", "scene0700_00\n")
    given = ("evaluate", run, "--data", tmp_path, "--part", "test", "--out", tmp_path / "out", "--write", "txt")
    assert "scan scene0700_00 has no labels" in refusal(*given)
    result = call(*given, "--no-labels")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "last" / "benchmark" / "scene0700_00.txt").exists()
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_file_of_any_name_in_any_units_and_a_folder_get_the_same_classes_a_coloured_cloud_and_a_picture(
    data, run, tmp_path
):
    """A scan of the benchmark as a file of another name, in millimetres, with a row that holds no point."""
    scan = sources.load_scan(source_of(data, "scene0100_00"), sources.Orientation("z", 1.0))
    point = np.concatenate([[[np.nan] * 3], scan.point * np.float32(1000)]).astype(np.float32)
    write(tmp_path / "my room.ply", ply(point))
    given = ["--units", "mm", "--out", tmp_path / "out", "--json"]
    result = call("predict", run, tmp_path / "my room.ply", *given)
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["scans"]
    assert (found["name"], found["points"]) == ("my room", 1500) and sum(found["shares"].values()) == pytest.approx(1)
    prediction = np.load(tmp_path / "out" / "predictions" / "my room.npy")
    assert prediction.shape == (1501,) and prediction[0] == NONE and (prediction[1:] >= 0).all()
    names = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert names["0"] == "wall" and names["1"] == "floor" and len(names) == 21
    counted = {names[str(k)]: (prediction[1:] == k).mean() for k in np.unique(prediction[1:])}
    assert counted == pytest.approx(found["shares"])
    coloured = sources.ScanSource("a", tmp_path / "out/ply", {"points": "my room.ply"}, "scan-files", 1)
    assert np.array_equal(sources.load_scan(coloured, sources.Orientation("z", 1.0)).label, prediction[1:])
    assert Image.open(tmp_path / "out/pictures/my room.png").size[0] > 500
    result = call("predict", run, data, "--out", tmp_path / "all")
    assert result.exit_code == 0 and "scene0100_00: 1500 points; " in result.output
    same = np.load(tmp_path / "all" / "predictions" / "scene0100_00.npy")
    assert (same == prediction[1:]).mean() > 0.98  # a point on the face of two voxels may be rounded to either


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("nothing.ply", (), "nothing.ply"),
        ("scene0100_00", ("--units", "ell"), "ell"),
        ("empty", (), "empty"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(data, run, tmp_path, source, more, message):
    (tmp_path / "empty").mkdir()
    places = {"scene0100_00": data / "scene0100_00" / "scene0100_00_vh_clean_2.ply"}
    assert message in refusal("predict", run, places.get(source, tmp_path / source), *more, "--out", tmp_path / "out")


# Bad input -----------------------------------------------------------------------------------------------------------


def test_a_training_scan_without_labels_is_one_line(tmp_path):
    write_rooms(tmp_path / "scans")
    (tmp_path / "scans" / "scene0002_00" / "scene0002_00_vh_clean_2.labels.ply").unlink()
    line = refusal(*tune(tmp_path / "scans", tmp_path / "run"))
    assert "scan scene0002_00 has no labels (files: alignment, points): download its labels, or take it out" in line
    assert not (tmp_path / "run").exists()


def test_an_unknown_label_is_one_line(tmp_path):
    write_rooms(tmp_path / "scans")
    base = tmp_path / "scans" / "scene0001_00"
    point = sources.load_scan(source_of(tmp_path / "scans", "scene0001_00"), sources.Orientation("z", 1.0)).point
    write(base / "scene0001_00_vh_clean_2.labels.ply", ply(point, {"label": np.full(1500, 41, np.uint16)}))
    line = refusal(*tune(tmp_path / "scans", tmp_path / "run"))
    assert "scene0001_00_vh_clean_2.labels.ply: has the label 41 on 1500 of 1500 points, which nyu40 does not" in line


def test_classes_that_are_not_the_checkpoints_are_one_line(run, tmp_path):
    for area in ("Area_1", "Area_5"):
        base = tmp_path / area / "office_1"
        base.mkdir(parents=True)
        np.save(base / "coord.npy", np.random.Generator(np.random.Philox(key=[0, 0])).random((300, 3), np.float32))
        np.save(base / "segment.npy", np.zeros(300, np.int16))
    path = write(tmp_path / "val.txt", "Area_5_office_1\n")
    line = refusal("evaluate", run, "--data", tmp_path, "--split", path)
    assert "its 20 classes are not the 13 of s3dis13: class 0 is wall there, ceiling here" in line


@pytest.mark.parametrize("content", ["", "\n\n", "scene0909_00\n"])
def test_an_empty_split_is_one_line(data, tmp_path, content):
    path = write(tmp_path / "none.txt", content)
    for option in ("--split", "--val-split"):
        line = refusal(*tune(data, tmp_path / "run", option, path))
        assert "none.txt" in line and ("holds no" in line or "is empty" in line or "holds none of" in line)


def test_a_missing_list_a_room_on_both_sides_and_no_scans_are_one_line(data, tmp_path):
    write_room(tmp_path / "a", "scene0000_00", 0)
    assert "one name per line by --split" in refusal(*tune(tmp_path / "a", tmp_path / "run"))
    listed = write(tmp_path / "train.txt", "scene0000_00\n")
    line = refusal(*tune(tmp_path / "a", tmp_path / "run", "--split", listed))
    assert "no scannetv2_val.txt beside the scans: give a file with one name per line by --val-split" in line
    path = write(tmp_path / "val.txt", "scene0000_01\n")
    assert "1 room is in both the training and the validation list" in refusal(
        *tune(data, tmp_path / "r", "--val-split", path)
    )
    assert "does not exist" in refusal(*tune(tmp_path / "nothing", tmp_path / "run"))


def test_weights_that_do_not_fit_are_one_line(data, weights, run, tmp_path):
    line = refusal(*tune(data, tmp_path / "r", weights=weights, changes=("net=small",)))
    assert "--weights are of the net small-4d, the run is of small: --set net=small-4d" in line
    assert "no checkpoint there" in refusal(*tune(data, tmp_path / "r", weights=tmp_path / "nowhere"))
    line = refusal("evaluate", weights, "--data", data, "--checkpoint", "last")
    assert "of the task pretrain: give a run of finetune" in line
    assert "no best checkpoint there" in refusal("evaluate", tmp_path, "--data", data, "--checkpoint", "best")


# Probes --------------------------------------------------------------------------------------------------------------


def test_probes_of_pretrained_weights_stand_beside_random_ones(data, weights, tmp_path):
    given = ["probe", "--data", data, "--weights", weights, "--preset", "small", "--run", tmp_path]
    result = call(*given, *settings("voxel_m=0.2", "samples=400", "queries=200", "workers=1"))
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "probe.json").read_text())
    assert list(found["results"]) == ["weights", "random"]
    assert found["results"]["weights"]["linear"]["points"]["count"] > 2000
    assert (tmp_path / "probe.md").read_text() in result.output
    assert "5 scans to learn from, 2 to be tested on; gen4d" in result.output


# Memory and settings -------------------------------------------------------------------------------------------------


def test_more_memory_than_there_is_is_refused_before_training(data, tmp_path, monkeypatch):
    monkeypatch.setattr("train.run.memory.available", lambda device: 1_000_000)
    line = refusal(*tune(data, tmp_path / "run"))
    assert "a step needs about" in line and not (tmp_path / "run").exists()


def test_the_estimate_counts_what_autograd_keeps(data):
    config = change(CONFIG, voxel_m=0.05)
    job = labelled(data)
    task = finetune.make_task(config, job, None, ALONE)
    needed = memory.estimate(task.stream, task.model, "float32")
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        task.model(task.stream.sample(2)).total.backward()
    assert 0.5 < needed.kept / sum(kept.values()) < 2
    frozen = finetune.make_task(change(config, freeze="backbone"), job, None, ALONE)
    assert memory.estimate(frozen.stream, frozen.model, "float32").kept == 0


def test_validation_records_carry_their_step(data, tmp_path):
    job = labelled(data)
    with contextlib.closing(finetune.finetune(CONFIG, job, None, tmp_path, ALONE)) as found:
        items = list(found)
    assert [item.step for item in items] == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert [isinstance(item, Validation) for item in items].count(True) == 3


# Several processes ---------------------------------------------------------------------------------------------------


def test_two_processes_make_the_update_of_one_that_takes_its_batch_in_two_parts(data, tmp_path):
    """With frozen norms: free ones see one part at a time."""
    changes = ("freeze=backbone", "steps=3", "validate_steps=2", "percent=50")
    alone = call(*tune(data, tmp_path / "alone", changes=(*changes, "accumulate=2")))
    assert alone.exit_code == 0, alone.output
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "train", *map(str, tune(data, tmp_path / "together", changes=changes))]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=shared | {"RANK": str(rank), "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert said[1][0] == "" and "validation at step 3" in said[0][0]
    first, second = (checkpoint.newest(tmp_path / name).model for name in ("alone", "together"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert results_of(tmp_path / "together")["results"]["last"]["scans"] == 2


# A GPU ---------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_fine_tuning_on_a_gpu_is_close_to_the_cpu(data, tmp_path, precision):
    job = labelled(data)
    losses = {}
    for device, kind in (("cpu", "float32"), ("cuda", precision)):
        world = World(0, 1, torch.device(device))
        config = change(CONFIG, precision=kind)
        with contextlib.closing(finetune.finetune(config, job, None, tmp_path / device, world)) as found:
            items = list(found)
        losses[device] = [item.loss for item in items if isinstance(item, Record)]
        assert [item.findings.details.points.sum() for item in items if isinstance(item, Validation)] == [
            sum((scan.label != NONE).sum() for scan in job.val)
        ] * 3
    np.testing.assert_allclose(losses["cuda"][:3], losses["cpu"][:3], atol=5e-3 if precision == "float32" else 5e-2)
