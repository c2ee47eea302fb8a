"""Labelled scans to batches, the segmenter, and its evaluation, each against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive_segment
from tests.makers.labelled import keyed, labelled
from train.config import ConfigError, change, resolve
from train.inputs import kernels
from train.inputs.labels import NONE
from train.inputs.order import LoaderError, Share
from train.inputs.views import Augmentation, augment, distort
from train.inputs.voxels import BatchError, Grid, Rows, new_tensor, voxelise
from train.nets.unet import NETS, UNet
from train.nets.weights import Backbone
from train.run.optim import make_optimiser
from train.run.world import World, to_device
from train.tasks.backbone import WeightsError, calibrate
from train.tasks.config import PRESETS, FinetuneConfig
from train.tasks.segment.batch import ScanBatch, ScanRecipe, ScanStream, make_scan_batch, voxel_labels
from train.tasks.segment.config import VOXEL_LABELS
from train.tasks.segment.evaluate import Seeing, evaluate, predict
from train.tasks.segment.make import make_model
from train.tasks.segment.model import Segmenter, SegmentError

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
TINY = change(PRESETS["small"], net="small-4d", voxel_m=0.2, workers=0)
SCANS = [labelled(number) for number in range(5)]
RECIPE = ScanRecipe(0.2, "majority", 20, Augmentation())


def tiny_model(seed=0, classes=20, frozen=False):
    generator = torch.Generator().manual_seed(seed)
    return Segmenter(UNet(NETS["small-4d"], 3, generator), classes, generator, frozen)


def batch_of(scans, keys=None, recipe=RECIPE):
    keys = keys or range(len(scans))
    return make_scan_batch(scans, [keyed(9, key) for key in keys], recipe, Rows(4, new_tensor), Grid())


def cells_of(batch, number):
    """Cell -> label of one scan of a batch."""
    rows = (batch.voxels.coordinate[:, 0] == number).numpy()
    cells = map(tuple, batch.voxels.coordinate[rows, 1:].tolist())
    return dict(zip(cells, batch.label[rows].tolist(), strict=True))


# Augmentation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [kernels.bounds, kernels.bounds.py_func], ids=["jitted", "plain"])
@pytest.mark.parametrize("odd", [0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_kernel_bounds_equal_the_numpy_twin(kernel, odd, count):
    point = keyed(count).standard_normal((count, 3), np.float32)
    point[count // 2, 1] = odd
    low, high = np.empty((2, 3), np.float32)
    kernel(point, low, high)
    for own, twin in zip((low, high), naive_segment.bounds(point), strict=True):
        np.testing.assert_array_equal(own, twin)


@pytest.mark.parametrize("kernel", [kernels.displace, kernels.displace.py_func], ids=["jitted", "plain"])
def test_kernel_displacement_equals_the_numpy_twin(kernel):
    point = labelled(0, 80).point
    low = point.min(axis=0).astype(np.float64)
    extent = np.floor((point.max(axis=0) - low) / 0.4).astype(int) + 3
    noise = keyed(1).standard_normal((*extent, 3), np.float32)
    out = np.empty_like(point)
    kernel(point, noise, low, 0.4, 0.3, out)
    np.testing.assert_allclose(out, naive_segment.displace(point, noise, low, 0.4, 0.3), atol=1e-6)


def test_distortion_is_smooth_repeats_and_vanishes_with_its_size():
    point = labelled(1, 400).point
    near = point + np.float32(1e-3)
    both = np.concatenate([point, near])
    moved = distort(both, 0.2, 0.4, keyed(2)) - both
    assert np.array_equal(distort(both, 0.2, 0.4, keyed(2)) - both, moved)
    assert not np.array_equal(distort(both, 0.2, 0.4, keyed(3)) - both, moved)
    apart = np.abs(moved[: len(point)] - moved[len(point) :]).max()
    assert apart < 0.02 < np.abs(moved).max() < 0.5
    assert np.array_equal(distort(point, 0.2, 0.0, keyed(2)), point)


def test_a_point_far_off_is_refused_where_its_field_would_fill_the_memory():
    point = np.float32([[0, 0, 0], [400, 400, 400]])
    with pytest.raises(BatchError, match=r"400 x 400 x 400 m are too much for elastic distortion: .*elastic_share=0"):
        distort(point, 0.2, 0.4, keyed(1))


def test_one_point_or_a_plane_is_distorted_without_fail():
    for point in (np.zeros((1, 3), np.float32), np.tile([[0, 0, 1]], (5, 1)).astype(np.float32)):
        assert np.isfinite(distort(point, 0.8, 1.6, keyed(1))).all()


def test_the_rigid_part_of_an_augmentation_mirrors_scales_and_turns_within_its_ranges():
    recipe = Augmentation(elastic_share=0.0)
    views = [augment(SCANS[0].point, recipe, keyed(4, k)).view for k in range(300)]
    linear = np.array([view[:3, :3] for view in views])
    determinant = np.linalg.det(linear)
    scale = np.cbrt(np.abs(determinant))
    assert 0.9 <= scale.min() < 0.92 and 1.08 < scale.max() <= 1.1
    np.testing.assert_allclose(linear @ linear.transpose(0, 2, 1), scale[:, None, None] ** 2 * np.eye(3), atol=1e-9)
    assert 0.4 < (determinant < 0).mean() < 0.6  # one mirror of two: 2 x 0.475 x 0.525
    tilt = np.arccos(np.clip(linear[:, 2, 2] / scale, -1, 1))
    assert 0.04 < tilt.max() < math.sqrt(2) * math.pi / 64 + 1e-9
    assert np.abs(np.array([view[:3, 3] for view in views])).max() <= 1


def test_what_is_left_out_is_a_share_of_the_points_of_a_share_of_the_scans():
    point = SCANS[0].point
    made = [augment(point, Augmentation(elastic_share=0.0), keyed(5, k)) for k in range(200)]
    kept = np.array([np.unpackbits(one.plane)[: len(point)].mean() for one in made])
    assert all(np.array_equal(one.point, point) for one in made)
    assert 0.1 < (kept < 1).mean() < 0.3
    assert 0.75 < kept[kept < 1].min() and kept[kept < 1].max() < 0.85


# Voxel labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", VOXEL_LABELS)
@settings(derandomize=True, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=40))
def test_voxel_labels_equal_counting_point_by_point(rule, pairs):
    rows = sorted({row for row, _ in pairs})
    row = np.array([rows.index(row) for row, _ in pairs])
    label = np.array([label for _, label in pairs], np.int16)
    expected = [naive_segment.vote(label[row == voxel].tolist(), rule) for voxel in range(len(rows))]
    assert voxel_labels(row, label, len(rows), 4, rule).tolist() == expected


# Batches -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", VOXEL_LABELS)
def test_a_batch_equals_voxels_and_votes_made_by_hand(rule):
    recipe = RECIPE._replace(voxel_label=rule, augmentation=Augmentation(dropout_share=0.5))
    batch = batch_of(SCANS[:3], recipe=recipe)
    lost = 0
    for number, scan in enumerate(SCANS[:3]):
        made = augment(scan.point, recipe.augmentation, keyed(9, number))
        kept = np.unpackbits(made.plane)[: len(scan.point)].astype(bool)
        point = made.point[kept].astype(np.float64) @ made.view[:3, :3].T + made.view[:3, 3]
        cells = naive_segment.voxels(point, recipe.voxel_m)
        low = np.array(list(cells)).min(axis=0) // 8 * 8
        label = scan.label[kept]
        lost += not kept.all()
        expected = {
            tuple(int(v) for v in np.array(cell) - low): naive_segment.vote(label[rows].tolist(), rule)
            for cell, rows in cells.items()
        }
        found = cells_of(batch, number)
        different = [cell for cell in expected.keys() | found.keys() if expected.get(cell) != found.get(cell)]
        assert len(different) <= 2  # a point on the face of two voxels may be rounded to either
    assert batch.size == 3 and 0 < lost < 3


def test_a_slot_does_not_depend_on_its_neighbours():
    alone, together = batch_of(SCANS[2:3], [7]), batch_of(SCANS[:3], [1, 2, 7])
    assert cells_of(alone, 0) == cells_of(together, 2)


def test_a_bad_scan_is_named():
    bad = SCANS[1]._replace(point=np.where(np.arange(1500)[:, None] == 3, np.float32(1e8), SCANS[1].point))
    with pytest.raises(BatchError, match=r"scan scene0001_00: point 3 at .* is not finite or beyond"):
        batch_of([SCANS[0], bad], recipe=RECIPE._replace(augmentation=Augmentation(0.0, dropout_share=0.0)))


def steps_of(loader, first, count):
    with_close = loader.batches(first)
    found = []
    for _ in range(count):
        batch = next(with_close)
        found.append((batch.voxels.coordinate.clone(), batch.label.clone()))
    with_close.close()
    return found


def same(first, second):
    return all(torch.equal(a, b) for pair in zip(first, second, strict=True) for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_identical_for_any_number_of_workers_and_from_any_step(workers):
    share = Share(2)
    expected = steps_of(ScanStream(SCANS, RECIPE, share, 3, 0), 0, 7)
    loader = ScanStream(SCANS, RECIPE, share, 3, workers)
    assert same(steps_of(loader, 0, 7), expected)
    assert same(steps_of(loader, 4, 3), expected[4:])


def test_every_scan_comes_once_an_epoch_and_a_batch_may_be_larger_than_the_data():
    loader = ScanStream(SCANS, RECIPE, Share(7), 0, 0)
    taken = [number for _, key in zip(range(5), loader.keys_from(0), strict=False) for number in key.item]
    assert all(sorted(taken[start : start + 5]) == list(range(5)) for start in range(0, 35, 5))
    with pytest.raises(LoaderError, match="does not divide"):
        ScanStream(SCANS, RECIPE, Share(7, world=2), 0, 0)


# Model ---------------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_voxels_that_have_a_class():
    model, batch = tiny_model(), batch_of(SCANS[:2])
    logits = model.logits(batch.voxels, batch.size).detach().double().numpy()
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = batch.label.numpy()
    counted = np.flatnonzero(label != NONE)
    expected = np.mean([-math.log(probability[i, label[i]]) for i in counted])
    loss = model(batch)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    right = np.mean([logits[i].argmax() == label[i] for i in counted])
    assert loss.terms["accuracy"].item() == pytest.approx(right)
    assert 0 < len(counted) < len(label)


def test_a_batch_without_any_class_has_no_loss_and_no_gradient_and_is_not_nan():
    model, batch = tiny_model(), batch_of(SCANS[:1])
    loss = model(batch._replace(label=torch.full_like(batch.label, NONE)))
    loss.total.backward()
    assert loss.total.item() == 0
    assert all((p.grad == 0).all() for p in model.parameters())


def test_a_frozen_backbone_gets_no_gradient_and_keeps_its_norms():
    model, batch = tiny_model(frozen=True), batch_of(SCANS[:2])
    assert not model.backbone.training and model.training
    model.train()
    assert not model.backbone.training
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model(batch).total.backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.head.weight.grad.abs().sum() > 0
    assert all(torch.equal(before[name], value) for name, value in model.backbone.state_dict().items())
    learned = make_optimiser(TINY.optim, model).param_groups[0]["params"]
    assert {id(p) for p in learned} == {id(p) for p in model.head.parameters()}


def test_calibrated_norms_see_a_scan_in_evaluation_as_they_saw_it_in_training():
    net = UNet(NETS["small-4d"], 3, torch.Generator().manual_seed(0))
    voxels, _ = voxelise(SCANS[0].point, 0.1)
    ones = torch.ones(len(voxels.coordinate), 3)
    wanted = net(voxels, ones, 1).detach()
    assert not torch.allclose(net.eval()(voxels, ones, 1), wanted, atol=0.2)
    momentum = [m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    calibrate(net, SCANS[:1], 0.1, CPU)
    assert not net.training
    assert momentum == [m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    difference = (net(voxels, ones, 1) - wanted).abs().mean() / wanted.abs().mean()
    assert difference < 0.1  # running variances are unbiased, those of a batch are not, and deep levels are small


def test_pretrained_weights_replace_the_backbone_and_leave_the_head():
    weights = Backbone(UNet(NETS["small-4d"], 3, torch.Generator().manual_seed(5)), 0.2)
    scratch, tuned = (make_model(TINY, 20, given) for given in (None, weights))
    assert torch.equal(scratch.head.weight, tuned.head.weight)
    for name, value in weights.net.state_dict().items():
        assert torch.equal(tuned.backbone.state_dict()[name], value)
    assert not torch.equal(scratch.backbone.stem.conv.weight, tuned.backbone.stem.conv.weight)
    norms = [m.momentum for m in tuned.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert set(norms) == {TINY.backbone.norm_momentum}


def test_weights_of_another_net_are_refused_with_the_setting_that_helps():
    weights = Backbone(UNet(NETS["small"], 3, torch.Generator().manual_seed(5)), 0.2)
    with pytest.raises(WeightsError, match="--weights are of the net small, the run is of small-4d: --set net=small"):
        make_model(TINY, 20, weights)


# Settings ------------------------------------------------------------------------------------------------------------


def test_the_presets_have_the_papers_schedules():
    paper, efficient = PRESETS["paper"], PRESETS["efficient"]
    assert (paper.run.batch, paper.optim.lr, paper.optim.power, paper.run.steps) == (48, 0.8, 0.9, 10_000)
    assert paper.backbone.voxel_m == 0.02
    assert (efficient.run.batch, efficient.run.steps, efficient.optim.lr) == (6, 15_000, 0.8)
    assert paper.optim.lr_at(0, 10_000) == 0.8
    assert paper.optim.lr_at(5_000, 10_000) == pytest.approx(0.8 * 0.5**0.9)
    assert 0 < paper.optim.lr_at(9_999, 10_000) < 1e-3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("voxel_label=mode", "voxel_label = mode: one of majority, first, unanimous"),
        ("percent=0", "percent = 0.0: above 0, and 100 at most"),
        ("validate_steps=30", "validate_steps = 30: a multiple of checkpoint_steps = 50"),
        ("net=big", "net = big: one of 34"),
        ("freeze=head", "freeze = head: one of nothing, backbone"),
        ("learning_rate=1", "no such key"),
        ("steps=0", "steps = 0: at least 1"),
    ],
)
def test_settings_that_break_a_rule_are_refused(assignment, message):
    with pytest.raises(ConfigError, match=message):
        resolve("small", (assignment,), PRESETS)


def test_settings_are_of_the_kind_that_the_presets_have():
    config = resolve("small", ("percent=20", "net=34"), PRESETS)
    assert isinstance(config, FinetuneConfig)
    assert (config.labels.percent, config.backbone.net) == (20.0, "34")


# Evaluation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxel_m", [0.02, 0.13])
def test_an_evaluation_equals_counting_points_and_voxels_one_by_one(voxel_m):
    model = tiny_model(seed=3, classes=8)
    scans = [scan._replace(point=(scan.point * 0.2).astype(np.float32)) for scan in SCANS[:2]]  # several a voxel
    calibrate(model.backbone, scans, voxel_m, CPU)
    seen = {}
    found = evaluate(model, scans, Seeing(voxel_m), CPU, lambda scan, prediction: seen.update({scan.name: prediction}))
    points, voxels = np.zeros((8, 9), int), np.zeros((8, 9), int)
    mixed = 0
    for scan in scans:
        prediction = seen[scan.name]
        for truth, guess in zip(scan.label, prediction, strict=True):
            if truth != NONE:
                points[truth, guess] += 1
        for rows in naive_segment.voxels(scan.point, 0.02).values():
            truth = naive_segment.vote(scan.label[rows].tolist(), "unanimous")
            mixed += len(set(scan.label[rows].tolist())) > 1
            if truth != NONE:
                voxels[truth, prediction[rows[0]]] += 1
    assert np.array_equal(found.points, points)
    assert np.array_equal(found.each.sum(axis=0), points) and found.each.any(axis=(1, 2)).all()
    assert np.array_equal(found.voxels, voxels)
    assert mixed > 5 and voxels.sum() < points.sum()
    assert (points.sum(axis=0) > 0).sum() > 1  # more than one class is predicted
    assert found.scans == 2


def test_every_point_has_the_class_of_its_voxel():
    model, scan = tiny_model(classes=8).eval(), SCANS[0]
    prediction = predict(model, scan, Seeing(0.3), CPU)
    voxels, row = voxelise(scan.point, 0.3)
    with torch.no_grad():
        expected = model.logits(voxels, 1).argmax(dim=1).numpy()[row]
    assert prediction.dtype == np.int16 and np.array_equal(prediction, expected)
    for rows in naive_segment.voxels(scan.point, 0.3).values():
        assert len(set(prediction[rows].tolist())) == 1


def test_an_evaluation_leaves_the_model_as_it_was():
    model = tiny_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, SCANS[:1], Seeing(0.2), CPU)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_scans_without_labels_are_predicted_and_add_nothing():
    seen = []
    found = evaluate(tiny_model(), [SCANS[0]._replace(label=None)], Seeing(0.2), CPU, lambda *given: seen.append(given))
    assert len(seen) == 1 and not found.points.any() and not found.voxels.any()


def test_an_output_that_is_not_finite_is_an_error_not_a_class():
    model = tiny_model()
    with torch.no_grad():
        model.head.bias[0] = math.nan
    with pytest.raises(SegmentError, match="output on scene0000_00 is not finite"):
        evaluate(model, SCANS[:1], Seeing(0.2), CPU)


def test_a_batch_goes_to_a_device_whole():
    batch = batch_of(SCANS[:1])
    moved = to_device(batch, CPU)
    assert isinstance(moved, ScanBatch) and torch.equal(moved.label, batch.label)
