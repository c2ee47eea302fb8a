"""Looks at features while they are pre-trained."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.makers.labelled import labelled, write_rooms
from tests.makers.sequences import make_dataset, write_dataset
from tests.test_train_cli import call, pretrain, refusal
from train.inputs.labelled import LabelledData
from train.inputs.labels import label_table
from train.nets.unet import NETS, UNet
from train.nets.weights import Backbone
from train.run.log import read_lines
from train.tasks import watch
from train.tasks.backbone import calibrate

CPU = torch.device("cpu")
DATA = make_dataset(2, points=800)
LABELLED = LabelledData(label_table("nyu40"), [labelled(0), labelled(1)], [labelled(2)])


class Places(torch.nn.Module):
    """A net whose features are the voxels' own coordinates, or one and the same for all."""

    def __init__(self, constant=False):
        super().__init__()
        self.weight, self.constant = torch.nn.Parameter(torch.zeros(1)), constant

    def forward(self, voxels, given, size):
        assert (given == 1).all() and size == 1
        place = voxels.coordinate[:, 1:].float()
        return torch.ones_like(place) if self.constant else place - place.mean(0)


@pytest.fixture
def net():
    made = UNet(NETS["small-4d"], 3, torch.Generator().manual_seed(0))
    calibrate(made, LABELLED.train, 0.2, CPU)
    return made.train()


def test_retrieval_counts_the_counterparts_that_are_nearest_by_features():
    """Features that are the same everywhere find nothing; those that are places, what lies in the same direction."""
    sequence = DATA[0]
    constant = watch.retrieval(Backbone(Places(constant=True), 0.2), sequence, CPU)
    assert constant < 0.05
    i, j = 0, sequence.t - 1
    a, b = sequence.correspondences(i, j)
    step = -(-len(a) // 1000)
    cos, sin = math.cos(1), math.sin(1)
    first, last = (
        sequence.frame(i).point,
        sequence.frame(j).point @ np.float32([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]),
    )
    cells = [np.floor(point.astype(np.float64) / 0.2).astype(int) for point in (first, last)]
    mean = [np.unique(cell, axis=0).mean(axis=0) for cell in cells]
    p, z = (cell[k][::step] - m for cell, k, m in zip(cells, (a, b), mean, strict=True))
    p, z = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (p, z))
    nearest = (p @ z.T).argmax(axis=1)
    row = cells[1][b][::step]
    expected = (row[nearest] == row).all(axis=1).mean()
    assert watch.retrieval(Backbone(Places(), 0.2), sequence, CPU) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("scans", "names"), [(None, ["retrieval"]), (LABELLED, ["knn/miou", "knn/accuracy"])])
def test_a_look_leaves_the_net_and_chance_as_they_were_and_a_line_a_picture_and_tensorboards_files(
    net, tmp_path, scans, names
):
    before, chance = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    watched = watch.Watched(0.2, [DATA[0]], scans)
    for step in (4, 8, 6):  # as after a resume
        figures = watch.look(watched, net, step, tmp_path, CPU)
    assert net.training and torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [line["step"] for line in read_lines(tmp_path / "probe.jsonl")] == [4, 6]
    assert list(figures) == names and all(0 < value <= 1 for value in figures.values())
    assert Image.open(tmp_path / "features.png").size[0] > 300
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Tags()["images"] == ["features"] and board.Tags()["scalars"] == [f"probe/{name}" for name in names]


def test_looks_are_due_when_their_steps_are_passed_and_at_the_end_whatever_the_log_shows(net, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "look", lambda watched, net, step, run, device: {"retrieval": step / 1000})
    for every, seen, expected in (
        (4, (1, 2, 3, 4, 5, 8, 9, 10), (4, 8, 10)),
        (4, (3, 6, 9, 10), (6, 9, 10)),
        (4, (5, 6, 8, 10), (8, 10)),  # as after a resume
        (100, (1, 10), (10,)),
    ):
        looks = watch.Looks(watch.Watched(0.2, [], None), net, every, 10, tmp_path, CPU)
        assert tuple(step for step in seen if looks.at(step)) == expected


def test_sequences_without_common_points_are_said(net, tmp_path):
    class Apart:
        t = 2

        def correspondences(self, i, j):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)

    looks = watch.Looks(watch.Watched(0.2, [Apart()], None), net, 1, 9, tmp_path, CPU)
    assert looks.at(3) == "not seen (1 sequences share no point between their first and last frames)"


def test_features_that_are_not_finite_are_said(net, tmp_path):
    with torch.no_grad():
        net.decoder[-1][-1].norm.weight.fill_(math.nan)
    with pytest.raises(watch.FeatureError, match="features at step 3 are not finite"):
        watch.look(watch.Watched(0.2, [DATA[0]], None), net, 3, tmp_path, CPU)
    assert net.training and not (tmp_path / "probe.jsonl").exists()


def test_a_run_says_what_it_saw_and_compares_it(tmp_path):
    data = write_dataset(tmp_path / "built", points=800)
    write_rooms(tmp_path / "scans", train=1, val=1)
    extra = ["--set", "probe_steps=2", "--set", f"probe_data={tmp_path / 'scans'}"]
    result = call(*pretrain(data, tmp_path / "seen", *extra))
    assert result.exit_code == 0, result.output
    assert "features at step 2: knn/miou 0." in result.output
    assert [line["step"] for line in read_lines(tmp_path / "seen" / "probe.jsonl")] == [2, 3]
    result = call("compare", tmp_path / "seen", "--out", tmp_path / "c.png", "--json")
    assert "probe.knn/miou" in json.loads(result.stdout)["last"]["seen"]
    line = refusal(*pretrain(data, tmp_path / "x", "--set", f"probe_data={tmp_path / 'nowhere'}"))
    assert "nowhere" in line and not (tmp_path / "x" / "log.jsonl").exists()
