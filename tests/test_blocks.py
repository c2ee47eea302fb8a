"""Segmentation by blocks: how rooms are cut, what is counted, and the whole way from pre-training to S3DIS's areas."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from tests.makers.labelled import keyed, write_room
from tests.makers.s3dis import write_s3dis_room
from tests.test_strl import CPU, Shapes, frames_of, small
from tests.test_train_cli import call, refusal
from train.config import ConfigError, change
from train.inputs.labelled import LabelUse, Places, read_labelled
from train.inputs.labels import NONE, SceneError
from train.inputs.order import Share
from train.inputs.scans import LabelledScan
from train.methods.pretrain import pretrain
from train.nets.dgcnn import DGCNN, SegmentingDGCNN
from train.run import memory
from train.run.checkpoint import newest
from train.tasks.backbone import read_weights
from train.tasks.blocks import batch, evaluate
from train.tasks.blocks.config import Blocks
from train.tasks.blocks.make import make_model
from train.tasks.blocks.model import BlockSegmenter
from train.tasks.config import BLOCKS
from train.tasks.metrics import confusion

SMALL = Blocks(points=64, least_in_block=20, k=5)


def room(number: int, points: int = 1200, size=(2.3, 1.6, 2.0)) -> LabelledScan:
    """Points whose class is a third of the height, every tenth without one."""
    rng = keyed(number, 51)
    point = (rng.random((points, 3)) * size + [-7.0, 3.0, 1.0]).astype(np.float32)
    label = np.minimum((point[:, 2] - point[:, 2].min()) / size[2] * 3, 2).astype(np.int16)
    label[::10] = NONE
    return LabelledScan(f"room{number}", point, label, np.arange(points, dtype=np.int32), points, str(number))


class ByPlace(nn.Module):
    """Says the class of a point by where it lies in its block, so that what was counted can be computed by hand."""

    classes = 3

    def logits(self, point: torch.Tensor) -> torch.Tensor:
        x, y, z = point.unbind(-1)
        return torch.stack([2 - z + x, 1 + y, z - x * y], -1)


# Blocks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("size", [(2.3, 1.6, 2.0), (0.4, 1.0, 2.0), (1.0, 3.01, 1.0)])
def test_blocks_are_columns_from_the_lowest_corner_on_and_leave_no_point_out(stride, size):
    scan = room(1, size=size)
    cut = batch.Room(scan.point, Blocks(stride_m=stride))
    away = scan.point[:, :2].astype(np.float64) - cut.low[:2].astype(np.float64)
    count = np.maximum(np.ceil((away.max(axis=0) - 1) / stride), 0).astype(int) + 1
    assert tuple(cut.count) == tuple(count) and len(cut.blocks()) == count.prod()
    for block in cut.blocks():
        corner = np.array(divmod(block, count[1])) * stride
        inside = ((away >= corner - 1e-6) & (away < corner + 1 + 1e-6)).all(axis=1)
        found = cut.rows(block)
        assert set(found) <= set(np.flatnonzero(inside)) and len(set(found)) == len(found) == cut.sizes()[block]
        sure = ((away >= corner + 1e-6) & (away < corner + 1 - 1e-6)).all(axis=1)
        assert set(np.flatnonzero(sure)) <= set(found)
    times = np.bincount(np.concatenate([cut.rows(block) for block in cut.blocks()]), minlength=len(scan.point))
    assert times.min() >= 1 and (stride < 1 or times.max() == 1)


def test_a_net_gets_metres_from_the_middle_of_the_block_and_the_floor_of_the_room():
    scan = room(2)
    cut = batch.Room(scan.point, SMALL)
    for block in cut.blocks():
        seen = cut.inputs(scan.point[cut.rows(block)], block)
        assert np.abs(seen[:, :2]).max() <= 0.5 + 1e-5 and seen[:, 2].min() >= 0
    rows = cut.rows(1)  # half a metre along y
    np.testing.assert_allclose(
        cut.inputs(scan.point[rows], 1), scan.point[rows] - scan.point.min(axis=0) - [0.5, 1.0, 0], atol=1e-5
    )


def test_points_are_drawn_once_where_there_are_enough_and_all_of_them_elsewhere():
    many, few = batch.draw(100, 64, keyed(1)), batch.draw(40, 64, keyed(1))
    assert len(set(many)) == 64 and many.max() < 100
    assert len(few) == 64 and set(few) == set(range(40))


def stream_of(scans, recipe=SMALL, size=4, workers=0):
    return batch.BlockStream(scans, recipe, Share(size), 0, workers)


def test_an_epoch_has_every_block_of_enough_points_once_and_a_run_goes_on_at_any_step():
    scans = [room(1), room(2, points=400)]
    stream = stream_of(scans)
    wanted = {
        (n, b) for n, scan in enumerate(scans) for b in np.flatnonzero(batch.Room(scan.point, SMALL).sizes() >= 20)
    }
    assert set(stream.items) == wanted and len(stream.items) == len(wanted)
    steps = stream.batches(0)
    first = [tuple(value.clone() for value in next(steps)) for _ in range(4)]
    again = next(stream_of(scans, workers=2).batches(3))
    assert all(torch.equal(*pair) for pair in zip(first[3], again, strict=True))
    for point, label in first:  # the class is the height, from the room's floor
        told = label != NONE
        assert point.shape == (4, 64, 3) and torch.equal((point[..., 2] / 2 * 3).long().clamp(max=2)[told], label[told])


def test_rooms_without_a_block_of_enough_points_are_refused():
    with pytest.raises(SceneError, match=r"no block of 1 rooms \(first: room1\) has 5000 points: set a smaller least"):
        stream_of([room(1)], Blocks(points=64, least_in_block=5000))


# What is counted -----------------------------------------------------------------------------------------------------


def test_all_points_count_once_by_all_their_blocks_and_sampled_ones_as_often_as_they_were_drawn():
    scan, recipe = room(3), Blocks(points=4096, least_in_block=100, k=5)  # every block is seen whole, by one look
    found = evaluate.evaluate(ByPlace(), [scan], recipe, CPU.device)
    cut, total = batch.Room(scan.point, recipe), np.zeros((len(scan.point), 3))
    counted = 0
    for block in cut.blocks():
        rows = cut.rows(block)
        total[rows] += ByPlace().logits(torch.from_numpy(cut.inputs(scan.point[rows], block))).numpy()
        counted += len(rows) >= 100
    assert np.array_equal(found.points, confusion(scan.label, total.argmax(1), 3))
    assert found.points.sum() == (scan.label != NONE).sum() and found.scans == 1
    assert 0.8 * counted * 4096 < found.sampled.sum() < counted * 4096  # a tenth of the points has no class


def test_large_blocks_take_several_looks_and_the_first_is_the_sample():
    scan = room(4)
    cut = batch.Room(scan.point, SMALL)
    seen = list(evaluate.looks(scan, SMALL))
    for block in cut.blocks():
        wanted = -(-len(cut.rows(block)) // 64)
        own, seen = seen[:wanted], seen[wanted:]
        assert [look.counted for look in own] == [True] + [False] * (wanted - 1)
        new = np.concatenate([look.rows[: look.own] for look in own])
        assert sorted(new) == sorted(cut.rows(block)) and all(len(look.rows) == 64 for look in own)
        assert {row for look in own for row in look.rows} <= set(cut.rows(block))
    assert not seen
    once, twice = (evaluate.evaluate(ByPlace(), [scan], SMALL, CPU.device) for _ in range(2))
    assert np.array_equal(once.sampled, twice.sampled)


# The net -------------------------------------------------------------------------------------------------------------


def model_of(kind=SegmentingDGCNN, k=5):
    draw = torch.Generator().manual_seed(0)
    return BlockSegmenter(kind(k, draw), 3, 0.5, 0.2, draw)


@pytest.mark.parametrize("kind, width", [(SegmentingDGCNN, 1216), (DGCNN, 1536)])
def test_the_head_is_the_published_one_on_what_a_point_and_its_block_have(kind, width):
    model = model_of(kind)
    shapes = [tuple(layer.weight.shape) for layer in model.head if isinstance(layer, nn.Linear)]
    assert shapes == [(512, width), (256, 512), (3, 256)] and not any(
        layer.bias is not None for layer in model.head if isinstance(layer, nn.Linear)
    )
    given = next(stream_of([room(1)]).batches(0))
    loss = model.eval()(given)
    log = model.logits(given.point).log_softmax(-1).detach()
    told = given.label != NONE
    wanted = -(0.8 * log.gather(-1, given.label.clamp(min=0)[..., None])[..., 0] + 0.2 * log.mean(-1))[told].mean()
    torch.testing.assert_close(loss.total, wanted, rtol=1e-5, atol=1e-6)
    none = model(given._replace(label=torch.full_like(given.label, NONE)))
    assert none.total == 0


def test_the_memory_that_is_asked_for_is_about_what_autograd_keeps():
    model, stream = model_of(k=8), stream_of([room(1, 4000)], Blocks(points=128, k=8))
    kept, given = {}, stream.sample(4)

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(given)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found = sum(size for place, size in kept.items() if place not in own)
    assert 0.75 < memory.estimate(stream, model, "float32").kept / found < 1.35


# Settings ------------------------------------------------------------------------------------------------------------


def test_the_paper_s_preset_is_the_paper_s_and_its_code_s():
    paper = BLOCKS["paper"]
    own, optim = paper.blocks, paper.optim
    assert (own.block_m, own.points, paper.backbone.inputs, paper.backbone.net) == (
        1,
        4096,
        ("occupancy",),
        "dgcnn-seg",
    )
    assert (own.stride_m, own.least_in_block, own.k, own.head_dropout, own.smoothing) == (0.5, 100, 20, 0.5, 0.2)
    assert (optim.optimiser, optim.momentum, optim.weight_decay, paper.run.batch) == ("sgd", 0.9, 1e-4, 32)
    rates = [optim.lr_at(step, 100) for step in (0, 100)]
    assert rates == pytest.approx([0.1, 0.001]) and paper.run.steps == 100 * (3687 // 32)


@pytest.mark.parametrize(
    "settings, rule",
    [
        ({"stride_m": 0.3}, "stride_m = 0.3: block_m, or a whole part of it"),
        ({"stride_m": 2.0}, "stride_m = 2.0: block_m, or a whole part of it"),
        ({"blocks.points": 10}, "points = 10: at least k = 20"),
        ({"net": "34"}, "task = blocks: takes a net on points: --set net= one of dgcnn-seg, dgcnn"),
        ({"freeze": "backbone"}, "task = blocks: trains the whole net"),
        ({"inputs": ("colour",)}, "task = blocks: takes geometry alone"),
    ],
)
def test_settings_that_break_a_rule_are_refused(settings, rule):
    with pytest.raises(ConfigError, match=re.escape(rule)):
        change(BLOCKS["paper"], **settings)


# The whole way -------------------------------------------------------------------------------------------------------

TINY = ("blocks.points=64", "least_in_block=20", "blocks.k=5", "steps=2", "batch=4", "log_steps=1")
TINY += ("checkpoint_steps=2", "validate_steps=2", "workers=1")


def tune(data, run, weights="none", changes=(), split="Area_1", val="Area_6"):
    words = [word for one in (*TINY, *changes) for word in ("--set", one)]
    given = ["finetune", "--task", "blocks", "--preset", "small", "--data", data, "--run", run, "--weights", weights]
    return [*given, "--split", split, "--val-split", val, *words]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3dis")
    for area, name, number in (("Area_1", "office_1", 1), ("Area_1", "WC_1", 2), ("Area_2", "office_1", 3)):
        write_s3dis_room(folder, area, name, number)
    write_s3dis_room(folder, "Area_6", "office_1", 4)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Backbones that `strl` pre-trained: of segmentation, and of shapes."""
    folder = tmp_path_factory.mktemp("strl")
    for net in ("dgcnn-seg", "dgcnn"):
        config = change(small(net=net, k=5, points=64), steps=2)
        list(pretrain(config, Shapes(map(frames_of, range(4))), folder / net, CPU))
    return folder


def test_what_strl_pre_trained_is_fine_tuned_on_one_area_and_judged_on_another(data, weights, tmp_path):
    run = tmp_path / "run"
    first = call(*tune(data, run, weights / "dgcnn-seg"))
    assert first.exit_code == 0, first.output
    assert "sampled points: mIoU" in first.output and "all points: mIoU" in first.output
    results = json.loads((run / "results.json").read_text())["results"]["last"]
    assert results["points"]["count"] == 800 and results["sampled"]["count"] % 64 == 0 < results["sampled"]["count"]
    assert len(results["points"]["classes"]) == 13
    assert "IoU sampled" in (run / "results.md").read_text()
    assert (run / "train_scans.txt").read_text().split("\n")[1:3] == ["Area_1_WC_1", "Area_1_office_1"]
    again = call("evaluate", run, "--data", data, "--split", "Area_6", "--out", tmp_path / "out", "--write", "npy")
    assert again.exit_code == 0, again.output
    found = json.loads((tmp_path / "out" / "results.json").read_text())["results"]["last"]
    assert found["points"] == results["points"] and found["sampled"] == results["sampled"]
    assert np.load(tmp_path / "out/last/predictions/Area_6_office_1.npy").shape == (800,)
    assert call("export-weights", run, "--out", tmp_path / "own.safetensors").exit_code == 0
    more = call(*tune(data, tmp_path / "more", tmp_path / "own.safetensors", split="Area_2"), "--dry-run")
    assert more.exit_code == 0 and "1 training scans in 5 blocks" in more.output


@pytest.mark.parametrize("net", ["dgcnn-seg", "dgcnn"])
def test_a_run_starts_from_the_backbone_that_strl_pre_trained_and_its_own_k(weights, net):
    config = change(BLOCKS["small"], net=net)
    given = read_weights(weights / net, config.backbone)
    made = make_model(config, 13, given)
    assert made.backbone.k == 8 and given.net.k == 5 and given.scans
    stored = newest(weights / net).model
    for name, value in made.backbone.state_dict().items():
        assert torch.equal(value, stored[f"online.encoder.backbone.{name}"])
    scratch = make_model(config, 13, None)
    assert all(torch.equal(*pair) for pair in zip(made.head.parameters(), scratch.head.parameters(), strict=True))


def test_pointcept_s_rooms_are_cut_as_the_raw_ones(data, tmp_path):
    for number, area in ((1, "Area_1"), (4, "Area_6")):
        rows = write_s3dis_room(tmp_path / "raw", area, "office_1", number)
        folder = tmp_path / "pointcept" / area / "office_1"
        folder.mkdir(parents=True)
        table = np.concatenate(list(rows.values()))
        np.save(folder / "coord.npy", table[:, :3].astype(np.float32))
        classes = {"ceiling": 0, "floor": 1, "wall": 2, "chair": 8, "clutter": 12, "stairs": 12}
        label = np.repeat([classes[name.split("_")[0]] for name in rows], [len(values) for values in rows.values()])
        np.save(folder / "segment.npy", label[:, None].astype(np.int16))
    parts = [pathlib.Path(f"Area_{number}") for number in (1, 6)]
    read = [read_labelled(Places(tmp_path / name, *parts), LabelUse(), 1, print) for name in ("raw", "pointcept")]
    batches = [next(stream_of(found.train).batches(0)) for found in read]
    assert all(torch.equal(*pair) for pair in zip(*batches, strict=True)) and read[0].table == read[1].table


def test_weights_and_nets_that_do_not_fit_are_refused_with_what_to_do(data, weights, tmp_path):
    line = refusal(*tune(data, tmp_path / "run", weights / "dgcnn"))
    assert "--weights are of the net dgcnn, the run is of dgcnn-seg: --set net=dgcnn" in line
    line = refusal("finetune", "--data", data, "--preset", "small", "--weights", weights / "dgcnn", "--split", "Area_1",
                   "--val-split", "Area_6", "--run", tmp_path / "run")  # fmt: skip
    assert "of dgcnn, a net on points: give it to the task blocks" in line
    assert "a net on points" in refusal("features", weights / "dgcnn", "--scan", data / "Area_6/office_1/office_1.txt")
    assert "leave out --module" in refusal("export-weights", weights / "dgcnn", "--out", tmp_path / "w", "--module")
    line = refusal(*tune(data, tmp_path / "run", split="Area_9"))
    assert "Area_9" in line
    given = tune(data, tmp_path / "run")
    given = given[: given.index("--split")] + given[given.index("--split") + 4 :]
    assert "or one of its parts (Area_1, Area_2, Area_6)" in refusal(*given)
    assert not (tmp_path / "run").exists()


def test_a_repaired_byte_is_said_when_a_net_is_trained(data, tmp_path):
    shutil.copytree(data / "Area_6", tmp_path / "Area_6")
    write_s3dis_room(tmp_path, "Area_5", "hallway_6", 5)
    path = tmp_path / "Area_5/hallway_6/Annotations/ceiling_1.txt"
    path.write_bytes(path.read_bytes() + b"-10.0 30.5 2.9 185\x00187 190\n")
    result = call(*tune(tmp_path, tmp_path / "run", split="Area_5"), "--dry-run")
    assert result.exit_code == 0 and "ceiling_1.txt: has '185\\x00187' at byte" in result.output


def test_rooms_of_any_data_set_are_cut(tmp_path):
    for number, name in enumerate(("scene0000_00", "scene0001_00")):
        write_room(tmp_path / "scans", name, number, points=600)
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    given = tune(
        tmp_path / "scans", tmp_path / "run", split=tmp_path / "scene0000_00.txt", val=tmp_path / "scene0001_00.txt"
    )
    dry = call(*given, "--dry-run")
    assert dry.exit_code == 0 and re.search(r"data: 1 training scans in \d+ blocks, seen [\d.]+ times", dry.output)
