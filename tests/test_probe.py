"""Probes of frozen features: the solver at its optimum, neighbours one by one, and what is sampled."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.makers.labelled import keyed, labelled
from train.config import ConfigError, resolve
from train.inputs.labelled import LabelledData
from train.inputs.labels import NONE, label_table
from train.inputs.voxels import voxelise
from train.nets.unet import NETS, UNet
from train.nets.weights import Backbone
from train.tasks import probe
from train.tasks.metrics import confusion, scores
from train.tasks.objectness import Seen, area, matched_pairs, objectness, reach
from train.tasks.probe import PRESETS, Samples, Scale
from train.tasks.segment.batch import voxel_labels
from train.tasks.segment.model import Segmenter, SegmentError

CPU = torch.device("cpu")
SCANS = [labelled(number) for number in range(4)]
TABLE = label_table("nyu40")
CONFIG = dataclasses.replace(PRESETS["small"], net="small-4d", voxel_m=0.15, samples=600, queries=300, workers=0)


def samples(count=60, channels=5, classes=3, seed=0):
    rng = keyed(seed, 1)
    label = rng.integers(0, classes, count)
    features = rng.normal(0, 1, (count, channels)) + label[:, None] * rng.normal(0, 0.7, channels)
    return Samples(torch.from_numpy(features.astype(np.float32)), torch.from_numpy(label))


def random_net(seed=0):
    return UNet(NETS["small-4d"], 3, torch.Generator().manual_seed(seed)).eval()


@pytest.mark.parametrize("decay", [1e-3, 0.1])
def test_the_linear_probe_is_where_the_gradient_written_out_is_zero(decay):
    known = samples()
    weight, bias = (value.numpy() for value in probe.fit_linear(known, 3, decay, 500))
    x, y = known.features.double().numpy(), np.eye(3)[known.label.numpy()]
    logits = x @ weight.T + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose((p - y).T @ x / len(x) + decay * weight, 0, atol=1e-5)
    np.testing.assert_allclose((p - y).mean(axis=0), 0, atol=1e-5)
    assert np.abs(weight).max() > 0.05


def test_the_linear_probe_is_the_same_for_any_scale_of_the_features():
    """Features are standardised, so a net whose features are ten times as large is not regularised less."""
    known = samples()
    for factor, shift in ((10.0, 0.0), (0.01, 3.0)):
        other = known.features * factor + shift
        found = []
        for features in (known.features, other):
            scale = Scale(features.mean(0), features.std(0, correction=0))
            found.append(probe.fit_linear(Samples(scale.of(features), known.label), 3, 0.01, 500)[0])
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_the_probe_put_into_a_segmenter_gives_the_same_logits():
    model = Segmenter(random_net(), 3, torch.Generator().manual_seed(0), frozen=True).eval()
    voxels, _ = voxelise(SCANS[0].point, 0.2)
    features, _ = probe.voxel_features(Backbone(model.backbone, 0.2), SCANS[0], CPU)
    scale = Scale(features.mean(0), features.std(0))
    rng = keyed(3)
    weight, bias = (torch.from_numpy(rng.normal(size=shape)) for shape in ((3, features.shape[1]), 3))
    probe.put_linear(model, scale, weight, bias)
    expected = scale.of(features).double() @ weight.T + bias
    torch.testing.assert_close(model.logits(voxels, 1).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("neighbours", [1, 4, 1000])
def test_neighbours_vote_as_when_counted_one_by_one(neighbours):
    known, asked = samples(80, seed=1), samples(30, seed=2).features
    found = probe.vote(known, asked, 3, neighbours, 0.5)
    reference = known.features.double().numpy()
    for query, answer in zip(asked.double().numpy(), found.tolist(), strict=True):
        cosine = reference @ query / np.linalg.norm(reference, axis=1) / np.linalg.norm(query)
        votes = np.zeros(3)
        for i in np.argsort(-cosine)[:neighbours]:
            votes[known.label[i]] += np.exp(cosine[i] / 0.5)
        assert answer == votes.argmax()


def test_a_known_sample_is_its_own_nearest_neighbour():
    known = samples(50)
    assert torch.equal(probe.vote(known, known.features, 3, 1, 0.07), known.label)


def test_samples_have_a_class_do_not_repeat_and_are_an_equal_share_of_every_scan():
    backbone = Backbone(random_net(), 0.15)
    found = probe.sample_voxels(backbone, SCANS, CONFIG, 20, CPU)
    assert len(found.label) == 600 and found.label.min() >= 0
    again = probe.sample_voxels(backbone, SCANS, CONFIG, 20, CPU)
    assert torch.equal(found.features, again.features) and torch.equal(found.label, again.label)
    other = probe.sample_voxels(backbone, SCANS, dataclasses.replace(CONFIG, seed=1), 20, CPU)
    assert not torch.equal(found.label, other.label)
    every = dataclasses.replace(CONFIG, samples=10**6, queries=10**6)
    assert len(probe.sample_points(backbone, SCANS, every, CPU).label) == sum((s.label != NONE).sum() for s in SCANS)
    voxels, row = voxelise(SCANS[0].point, 0.15)
    label = voxel_labels(row, SCANS[0].label, len(voxels.coordinate), 20, "majority")
    alone = probe.sample_voxels(backbone, SCANS[:1], every, 20, CPU)
    assert alone.label.tolist() == label[label != NONE].tolist()


def test_sampled_points_have_the_features_of_their_voxels():
    backbone = Backbone(random_net(), 0.15)
    features, row = probe.voxel_features(backbone, SCANS[0], CPU)
    found = probe.sample_points(backbone, SCANS[:1], dataclasses.replace(CONFIG, queries=10**6), CPU)
    counted = np.flatnonzero(SCANS[0].label != NONE)
    assert torch.equal(found.features, features[row[counted]])
    assert found.label.tolist() == SCANS[0].label[counted].tolist()


def test_both_probes_read_the_floor_from_random_features_and_all_numbers_are_written(tmp_path):
    data = LabelledData(TABLE, SCANS[:3], SCANS[3:])
    (found,) = probe.probe(CONFIG, data, None, CPU)
    guess = confusion(SCANS[3].label, np.full(len(SCANS[3].label), 1), 20)
    assert found.features == "random"
    for matrix in (found.linear.points, found.knn):
        assert scores(matrix).accuracy > scores(guess).accuracy + 0.1
    assert found.linear.points.sum() == (SCANS[3].label != NONE).sum()
    assert found.knn.sum() == 300
    lines = probe.write_probes(tmp_path, [found], data, None, CONFIG, "a machine")
    results = json.loads((tmp_path / "probe.json").read_text())
    assert results["results"]["random"]["linear"]["points"]["miou"] == scores(found.linear.points).miou
    assert results["results"]["random"]["knn"]["miou"] == scores(found.knn).miou
    assert (tmp_path / "probe.md").read_text().splitlines() == lines
    assert f"{100 * scores(found.linear.points).miou:.2f}" in lines[2] and "300 sampled points" in lines[3]


def test_weights_are_probed_beside_a_random_net_of_their_shape_that_does_not_depend_on_them():
    config = dataclasses.replace(CONFIG, net="small", samples=100, queries=50)
    weights, data = Backbone(random_net(7), 0.15), LabelledData(TABLE, SCANS[:2], SCANS[3:])
    of_weights, of_random = probe.probe(config, data, weights, CPU)
    assert (of_weights.features, of_random.features) == ("weights", "random")
    (alone,) = probe.probe(dataclasses.replace(config, net="small-4d"), data, None, CPU)
    assert np.array_equal(alone.linear.points, of_random.linear.points)
    assert np.array_equal(alone.knn, of_random.knn)
    assert not np.array_equal(of_weights.linear.points, of_random.linear.points)


def touching(number):
    """A floor, and four tables that touch one another, as a labelled scan with instances."""
    rng = keyed(number, 11)
    place = rng.uniform((0, 0, 0), (2, 2, 0.8), (9000, 3))
    ids = 1 + 2 * (place[:, 0] > 1) + (place[:, 1] > 1)
    ids[place[:, 2] < 0.1] = 0
    label = np.where(ids > 0, 6, 1).astype(np.int16)
    scan = labelled(number, len(place))
    return scan._replace(point=place.astype(np.float32), label=label, instance=ids.astype(np.int32))


TOUCHING = [touching(number) for number in range(3)]


def told_apart(features_of):
    """Objectness of features that are made from voxels and their objects."""

    def see(scan):
        voxels, row = voxelise(scan.point, 0.1)
        cell = voxels.coordinate[:, 1:].numpy()
        owner = np.zeros(len(cell), int)
        owner[row] = scan.instance
        return Seen(cell, features_of(cell, owner), row)

    return objectness(TOUCHING, TABLE, 0.1, see, 0)


def test_features_of_chance_of_place_and_of_height_do_not_tell_objects_apart_and_their_names_do():
    rng = keyed(8)
    assert abs(told_apart(lambda cell, owner: rng.normal(size=(len(cell), 16))) - 0.5) < 0.03
    waves = np.array([[0.2], [0.5], [1.0]])
    assert abs(told_apart(lambda cell, owner: np.cos(waves * cell[:, 2]).T + 0.1) - 0.5) < 0.06
    assert told_apart(lambda cell, owner: np.eye(5)[owner] + rng.normal(0, 0.1, (len(cell), 5))) > 0.97


def test_pairs_are_matched_by_distance_and_are_neighbours_of_owners():
    rng = keyed(9)
    cell = rng.integers(0, 12, (900, 3))
    cell = np.unique(cell, axis=0)
    owner = np.where(cell[:, 0] < 6, 0, 1)
    owner[rng.random(len(cell)) < 0.2] = NONE
    first, second, same = matched_pairs(cell, owner, 3.0, rng)
    assert (owner[first] >= 0).all() and (owner[second] >= 0).all() and same.sum() == (~same).sum() > 100
    assert np.array_equal(same, owner[first] == owner[second])
    apart = np.abs(cell[first] - cell[second])
    assert (apart**2).sum(axis=1).max() <= 9
    kinds = [sorted(zip((a[:, :2] ** 2).sum(axis=1), a[:, 2], strict=True)) for a in (apart[same], apart[~same])]
    assert kinds[0] == kinds[1]
    assert not matched_pairs(cell, np.zeros(len(cell), int), 3.0, rng)[2].size  # of one object alone there is none


def test_the_area_under_the_curve_counts_pairs_in_order():
    rng = keyed(10)
    score, positive = rng.integers(0, 8, 60), rng.random(60) < 0.4
    pairs = np.sign(score[positive][:, None] - score[~positive][None])
    assert area(score, positive) == pytest.approx(((pairs + 1) / 2).mean())


@pytest.mark.parametrize(("voxel_m", "voxels"), [(0.02, 15), (0.05, 6), (0.1, 3), (0.15, 2)])
def test_pairs_reach_to_thirty_centimetres_whatever_the_voxel(voxel_m, voxels):
    """Although 0.3 / 0.1 is below 3."""
    cell = np.array([[0, 0, 0], [voxels, 0, 0], [0, 9, 0], [voxels, 9, 0]])
    first, second, same = matched_pairs(cell, np.array([0, 0, 1, 2]), reach(voxel_m), keyed(8))
    assert sorted(zip(first, second, same, strict=True)) == [(0, 1, True), (2, 3, False)]


def test_scans_without_instances_have_no_objectness():
    assert np.isnan(objectness(SCANS, TABLE, 0.1, lambda scan: None, 0))


def test_features_that_are_not_finite_are_an_error():
    net = random_net()
    with torch.no_grad():
        net.stem.conv.weight.fill_(float("inf"))
    with pytest.raises(SegmentError, match="features of scene0000_00 are not finite"):
        probe.voxel_features(Backbone(net, 0.2), SCANS[0], CPU)


def test_settings_that_break_a_rule_are_refused():
    with pytest.raises(ConfigError, match=r"decay = 0.0: above 0"):
        resolve("small", ("decay=0",), PRESETS)
