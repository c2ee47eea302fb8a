"""Shape classification: the linear machine and its C, fine-tuning of both arms alike, and the whole command."""

import dataclasses
import json
import re

import click.testing
import numpy as np
import pytest
import torch

from tests.makers.files import off, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX
from tests.makers.sequences import keyed
from tests.test_strl import CPU, Shapes, small, views_of
from train.__main__ import main
from train.config import ConfigError, change
from train.inputs import shapes as labelled
from train.inputs.order import LoaderError
from train.methods.pretrain import pretrain
from train.nets.pooled import Pooled, Trained
from train.nets.weights import load_trained
from train.run.checkpoint import CheckpointError
from train.tasks.classify import svm
from train.tasks.classify.batch import vary
from train.tasks.classify.config import PRESETS, ClassifyConfig, Tuning
from train.tasks.classify.features import ClassifyError, Look, features_of, normalised, random_encoder, simple_features
from train.tasks.classify.report import per_seed, spoken
from train.tasks.classify.run import Data, classify, read_data
from train.tasks.classify.tune import tune

TINY = Tuning(percents=(100.0, 1.0), subsets=1, points=32, epochs=8, batch=8, validations=2)
SMALL = ClassifyConfig(net="pointnet", points=48, costs=(0.1, 10.0), tuning=TINY, workers=0, picture=20)


def shapes_of(count: int = 24, points: int = 64) -> labelled.Shapes:
    """Boxes that are flat, long, or neither."""
    proportions = np.array([[1, 1, 0.1], [1, 0.1, 0.1], [1, 1, 1]])
    label = np.arange(count) % 3
    clouds = [(keyed(i, 41).random((points, 3)) * proportions[label[i]]).astype(np.float32) for i in range(count)]
    names = tuple(f"shape{i}" for i in range(count))
    return labelled.Shapes(names, clouds, label, names, ("flat", "long", "round"))


def data_of(count: int = 24) -> Data:
    rows = np.arange(count)
    return Data(shapes_of(count), [(rows[: 2 * count // 3], rows[2 * count // 3 :])])


# The linear machine --------------------------------------------------------------------------------------------------


def test_the_cost_is_chosen_on_a_part_of_the_training_shapes_alone(monkeypatch):
    """Test features never reach the choice; of equals the least cost is taken."""
    rng = keyed(1, 42)
    label = np.repeat(np.arange(3), 20)
    features = np.eye(3)[label] + rng.normal(0, 0.3, (60, 3))
    seen = []
    real = svm.fit
    monkeypatch.setattr(
        svm, "fit", lambda train, own, test, cost: seen.append((len(train), cost)) or real(train, own, test, cost)
    )
    cost = svm.choose_cost(features, label, (10.0, 0.1, 1.0), 0.2, keyed(2))
    assert cost in (0.1, 1.0, 10.0) and seen == [(48, 0.1), (48, 1.0), (48, 10.0)]
    perfect = np.eye(3)[label] * 10
    assert svm.choose_cost(perfect, label, (10.0, 0.1, 1.0), 0.2, keyed(2)) == 0.1


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_some_of_every_class_of_two_is_held_out_and_some_stays(share):
    label = np.array([0] * 10 + [1] * 2 + [2])
    out = svm.held_out(label, share, keyed(3))
    assert not out[label == 2].any() and out[label == 1].sum() == 1
    assert 1 <= out[label == 0].sum() <= 9
    assert svm.choose_cost(np.zeros((3, 2)), np.arange(3), (10.0, 0.1), 0.2, keyed(3)) == 0.1  # nothing to hold out


def test_accuracy_and_the_mean_of_classes_differ_where_classes_do():
    found = svm.score(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), 1.0)
    assert (found.accuracy, found.class_mean) == (0.75, 0.5)


# Features ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net, k", [("pointnet", 1), ("dgcnn", 6), ("small", 1)])
def test_features_of_a_shape_do_not_depend_on_the_order_of_its_points(net, k):
    trained, points = Trained(net, k, None, 0.1), normalised(shapes_of(6), Look(48, "random", 0.1, 0))
    encoder = random_encoder(trained, points, 0.1, 0, CPU.device)
    order = keyed(4).permutation(48)
    found, other = (features_of(encoder, x, 0.1, CPU.device) for x in (points, np.ascontiguousarray(points[:, order])))
    assert found.shape == (6, encoder.channels)
    np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-5)
    assert np.abs(found - found[0]).max() > 0.1


def test_a_random_encoder_s_norms_have_the_statistics_of_the_shapes():
    points = normalised(shapes_of(), Look(48, "random", 0.1, 0))
    encoder = random_encoder(Trained("pointnet", 1, None, 0.1), points, 0.1, 0, CPU.device)
    with torch.no_grad():
        rows = encoder.backbone.layers[0](torch.from_numpy(points).flatten(0, 1))
    torch.testing.assert_close(encoder.backbone.layers[1].running_mean, rows.mean(0), rtol=1e-3, atol=1e-4)
    same = random_encoder(Trained("pointnet", 1, None, 0.1), points, 0.1, 0, CPU.device)
    assert all(
        torch.equal(a, b) for a, b in zip(encoder.state_dict().values(), same.state_dict().values(), strict=True)
    )


def test_simple_features_tell_flat_from_long_and_from_round():
    points = normalised(shapes_of(60), Look(48, "random", 0.1, 0))
    features, label = simple_features(points, 0), shapes_of(60).label
    assert features.shape == (60, 74)
    assert (svm.fit(features[:40], label[:40], features[40:], 1.0) == label[40:]).all()


def test_points_are_taken_at_random_or_from_the_first_rows_and_too_few_are_refused():
    shapes = shapes_of(3)
    first = normalised(shapes, Look(16, "first", 0.1, 0))
    other = normalised(shapes._replace(point=[point[:16] for point in shapes.point]), Look(16, "first", 0.1, 0))
    assert np.array_equal(first, other) and not np.array_equal(first, normalised(shapes, Look(16, "random", 0.1, 0)))
    assert np.linalg.norm(first, axis=2).max(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    rule = "shape shape0 has 64 points, 65 are asked for: set points=64 (and tuning.points) or fewer"
    with pytest.raises(ClassifyError, match=re.escape(rule)):
        normalised(shapes, Look(65, "random", 0.1, 0))


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def test_shapes_are_stretched_and_moved_within_the_published_ranges():
    point, found = shapes_of(1).point[0], []
    cube = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8).T.astype(np.float32)
    for n in range(2000):
        made = vary(cube, dataclasses.replace(TINY, points=8), keyed(n, 43))
        found.append([*np.ptp(made, axis=0) * 3**0.5 / 2, *(made.max(axis=0) + made.min(axis=0)) / 2])
    low, high = np.min(found, axis=0), np.max(found, axis=0)
    assert (low[:3] >= 2 / 3 - 1e-5).all() and (low[:3] < 0.68).all() and (high[:3] <= 1.5 + 1e-5).all()
    assert (abs(low[3:] + 0.2) < 0.01).all() and (abs(high[3:] - 0.2) < 0.01).all()
    assert vary(point, TINY, keyed(1)).shape == (32, 3)


def test_both_arms_draw_the_same_head_and_see_the_same_shapes_and_it_learns(tmp_path):
    shapes, trained = shapes_of(), Trained("pointnet", 1, None, 0.1)
    encoder = Pooled("pointnet", 1, torch.Generator().manual_seed(9))
    sides = shapes.of(range(18)), shapes.of(range(18, 24))
    weights = trained._replace(weights=encoder.state_dict())
    arms, longer = {"scratch": trained, "pretrained": weights}, change(SMALL, epochs=24.0)
    found = {name: tune(longer, arm, sides, tmp_path / name, 0, CPU) for name, arm in arms.items()}
    assert all(result.best >= max(result.accuracy, 0.6) for result in found.values()), found
    lists = [(tmp_path / name / "train_scans.txt").read_text() for name in found]
    assert lists[0] == lists[1]
    again = tune(longer, trained, sides, tmp_path / "scratch", 0, CPU)  # nothing is left to be done
    assert again == found["scratch"]


def test_everything_is_measured_once_and_a_rerun_goes_on(tmp_path, monkeypatch):
    said = []
    found = classify(SMALL, data_of(), [], tmp_path, CPU, said.append)
    kinds = [(line["kind"], line["arm"], line.get("percent")) for line in found]
    assert kinds == [
        *[("svm", "random", None)] * 2,
        *[("svm", "simple", None)] * 2,
        ("tuned", "scratch", 100.0),
        ("tuned", "scratch", 1.0),
    ]
    assert found[-1]["shapes"] == 3 and len(said) == 6
    lines = (tmp_path / "lines.jsonl").read_text().splitlines(True)
    (tmp_path / "lines.jsonl").write_text("".join(lines[:3]))
    again = classify(SMALL, data_of(), [], tmp_path, CPU, said.append)
    assert again == found and len(said) == 9
    with pytest.raises(CheckpointError, match="another configuration"):
        classify(change(SMALL, points=40), data_of(), [], tmp_path, CPU, said.append)


def test_lines_of_other_weights_are_not_taken_for_those_of_the_same_name(tmp_path):
    """A run that is trained on has other weights later."""
    config = change(SMALL, percents=())
    nets = [Pooled("pointnet", 20, torch.Generator().manual_seed(seed)).state_dict() for seed in (0, 1)]
    first, later = (Trained("pointnet", 20, weights, 0.05) for weights in nets)
    assert first.digest != later.digest
    found = classify(config, data_of(), [("runs/strl", first)], tmp_path, CPU, lambda text: None)
    assert classify(config, data_of(), [("elsewhere", first)], tmp_path, CPU, lambda text: None) == found
    with pytest.raises(CheckpointError, match=r"another configuration .*weights"):
        classify(config, data_of(), [("runs/strl", later)], tmp_path, CPU, lambda text: None)


def test_shapes_without_a_class_are_left_out_where_data_have_parts(tmp_path):
    for name in ("chair", "other", "table"):
        for part in ("train", "test"):
            for number in range(2):
                path = tmp_path / name / part / f"{name}_{part}_{number}.off"
                write(path, off(CUBE_VERTEX * [1, 1 + number, 2], CUBE_QUADS))
    data = read_data(tmp_path, None, 0)
    assert data.shapes.classes == ("chair", "table") and data.shapes.label.tolist() == [0, 0, 1, 1] * 2
    ((train, test),) = data.splits
    assert [data.shapes.name[i] for i in train] != [data.shapes.name[i] for i in test] and len(train) == len(test) == 4


def test_a_forward_of_one_cloud_is_refused(tmp_path):
    with pytest.raises(LoaderError, match="leaves 1 to a forward pass, whose norms need 2"):
        classify(change(SMALL, **{"tuning.batch": 1}), data_of(), [], tmp_path, CPU, lambda text: None)


def test_a_figure_is_the_mean_over_folds_of_each_model_and_then_over_models():
    lines = [{"arm": "a", "seed": s, "fold": f, "accuracy": 0.1 * s + 0.01 * f} for s in (0, 1, 2) for f in (0, 1)]
    assert per_seed(lines, "accuracy", arm="a") == pytest.approx([0.005, 0.105, 0.205])
    assert spoken([0.005, 0.105, 0.205]) == "10.50 ± 10.00" and spoken([0.5]) == "50.00"


def test_the_command_compares_pretrained_encoders_with_their_floors(tmp_path):
    point = np.stack([(1000 * p).astype(np.int16) for p in shapes_of(24).point])
    (tmp_path / "data").mkdir()
    np.savez(
        tmp_path / "data" / "shapes.npz", point=point, label=np.array(["flat", "long", "round"])[shapes_of(24).label]
    )
    for seed in range(2):
        config = change(small(), **{"run.seed": seed})
        list(pretrain(config, Shapes(map(views_of, range(4))), tmp_path / f"run{seed}", CPU))
    tuning = "tuning.percents=20 tuning.subsets=1 tuning.points=32 tuning.epochs=4 tuning.batch=4 tuning.validations=2"
    settings = [f"--set={text}" for text in f"points=48 costs=1 picture=20 workers=0 {tuning}".split()]
    runs = [f"--weights={tmp_path / f'run{seed}'}" for seed in range(2)]
    given = [
        "classify",
        f"--data={tmp_path / 'data' / 'shapes.npz'}",
        *runs,
        *settings,
        f"--run={tmp_path / 'out'}",
        "--folds=2",
    ]
    result = click.testing.CliRunner().invoke(main, [*given, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(row["features"], row["n"]) for row in found["svm"]] == [
        *[("pre-trained", 2)] * 2,
        *[("random encoder", 2)] * 2,
        *[("simple features", 1)] * 2,
    ]
    assert [(row["from"], row["labels"], row["n"]) for row in found["tuned"]] == [
        ("pre-trained", "20 %", 2),
        ("scratch", "20 %", 2),
    ]
    assert "| pre-trained " in (tmp_path / "out" / "results.md").read_text()
    assert (tmp_path / "out" / "features.png").stat().st_size > 2000


@pytest.mark.parametrize(
    "given, message",
    [
        (["--data=nothing"], "nothing: is not there: give a folder of shapes, or a file of many"),
        (["--data=.", "--weights=."], "no checkpoint there: give a run folder"),
        (["--data=.", "--set=rows=last"], "rows = last: one of random, first"),
        (["--data=.", "--set=tuning.percents=0"], "percents = (0.0,): all above 0, and 100 at most"),
    ],
)
def test_bad_input_is_one_line(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = click.testing.CliRunner().invoke(main, ["classify", *given, "--preset=small"])
    assert result.exit_code == 1 and message in result.output and "Traceback" not in result.output


def test_weights_of_a_run_without_a_backbone_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        load_trained(tmp_path, 20)
    with pytest.raises(ConfigError, match="costs = "):
        dataclasses.replace(PRESETS["small"], costs=())
