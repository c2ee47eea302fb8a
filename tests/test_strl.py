"""STRL's parts by hand: LARS, the moving average, Eq. 4, the frames that are compared, and the whole method."""

import contextlib
import dataclasses
import json
import math
import re
import unittest.mock

import numpy as np
import pytest
import torch
from torch import nn

from gen4d import write_dataset
from gen4d.sequence import Cloud, Mover, Recording, Sequence, make_actor
from gen4d.shards import open_dataset
from tests.makers.sequences import MemoryDataset, keyed, make_dataset
from train.config import ConfigError, change
from train.inputs import spatial
from train.inputs.order import LoaderError
from train.inputs.spatial import Spatial, Temporal
from train.inputs.voxels import BatchError
from train.methods import ema
from train.methods.config import PRESETS, PretrainConfig
from train.methods.losses import prediction_loss
from train.methods.pretrain import make, make_model, make_stream, pretrain
from train.methods.strl.batch import draw_frames, pair_of
from train.methods.strl.config import Strl
from train.nets.pooled import Clouds, Pooled
from train.run import memory
from train.run.checkpoint import newest
from train.run.lars import Lars, vectors_apart
from train.run.optim import Optim, make_optimiser
from train.run.world import World


def lars(model, **options):
    return make_optimiser(Optim(optimiser="lars", lr=0.5, momentum=0.9, weight_decay=0.1, trust=0.02, **options), model)


def test_lars_equals_two_updates_by_hand():
    layer = nn.Linear(2, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[3.0, 4.0]]), torch.tensor([2.0])
    optimiser, weight, bias, speed_w, speed_b = lars(layer), [3.0, 4.0], 2.0, [0.0, 0.0], 0.0
    for gradient in ([1.0, 0.0], [0.5, -2.0]):
        layer.weight.grad, layer.bias.grad = torch.tensor([gradient]), torch.tensor([7.0])
        optimiser.step()
        change = [g + 0.1 * w for g, w in zip(gradient, weight, strict=True)]
        scale = 0.02 * math.hypot(*weight) / math.hypot(*change)
        speed_w = [0.9 * v + scale * c for v, c in zip(speed_w, change, strict=True)]
        speed_b = 0.9 * speed_b + 7.0  # neither decayed nor adapted
        weight, bias = [w - 0.5 * v for w, v in zip(weight, speed_w, strict=True)], bias - 0.5 * speed_b
    assert layer.weight.flatten().tolist() == pytest.approx(weight, rel=1e-6)
    assert layer.bias.item() == pytest.approx(bias, rel=1e-6)


@pytest.mark.parametrize("weight, gradient", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_lars_scales_nothing_where_a_norm_is_zero(weight, gradient):
    value = nn.Parameter(torch.full((2, 2), weight))
    optimiser = Lars(vectors_apart([{"params": [value]}]), 0.5, 0.9, 0.0, 0.02)
    value.grad = torch.full((2, 2), gradient)
    optimiser.step()
    assert torch.equal(value.data, torch.full((2, 2), weight - 0.5 * gradient))


def test_biases_and_norms_are_not_adapted_and_scales_of_parts_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
    groups = lars(model, scales=("2:0.1",)).param_groups
    of = {id(p): (group["adapt"], group["scale"]) for group in groups for p in group["params"]}
    assert {name: of[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": (True, 1.0),
        "0.bias": (False, 1.0),
        "1.weight": (False, 1.0),
        "1.bias": (False, 1.0),
        "2.weight": (True, 0.1),
    }


def test_the_decay_starts_where_it_is_told_to_and_ends_at_one():
    assert [ema.decay_at(k, 1000, 0.996) for k in (0, 500, 1000)] == pytest.approx([0.996, 0.998, 1.0], abs=1e-12)


def test_a_target_follows_in_parameters_alone():
    online, target = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    online[1].running_mean.fill_(5.0)
    ema.follow(target, online, 0.75)
    for name, value in target.named_parameters():
        torch.testing.assert_close(value.data, 0.75 * before[name] + 0.25 * dict(online.named_parameters())[name].data)
    assert all(torch.equal(value, before[name]) for name, value in target.named_buffers())


def test_eq_4_is_the_squared_distance_of_unit_vectors_and_stops_at_the_target():
    draw = torch.Generator().manual_seed(0)
    p, z = (torch.randn(6, 5, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = prediction_loss(p, z)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (p, z)]
    assert loss.item() == pytest.approx((unit[0] - unit[1]).square().sum(1).mean().item(), rel=1e-12)
    loss.backward()
    assert p.grad.abs().max() > 0 and z.grad is None
    assert prediction_loss(z, 3 * z).item() == pytest.approx(0, abs=1e-12)


# Batches -------------------------------------------------------------------------------------------------------------


def poses(t: int, rng) -> np.ndarray:
    """Similarities chained as Eq. 2 has them."""
    pose = [np.eye(4)]
    for _ in range(t - 1):
        step = np.eye(4)
        step[:3, :3] = spatial.about_axes(rng.uniform(-0.2, 0.2, 3)) * rng.uniform(0.8, 1.25)
        step[:3, 3] = rng.uniform(-0.1, 0.1, 3)
        pose.append(step @ pose[-1])
    return np.stack(pose)


def views_of(number: int, points: int = 300, t: int = 3) -> Sequence:
    """A box of its own proportions under chained similarities."""
    rng = keyed(number, 21)
    point = rng.random((points, 3)) * rng.uniform(0.3, 1, 3)
    point[np.arange(points), rng.integers(0, 3, points)] = 0
    actor = make_actor(Cloud(point), np.ones((t, points), bool), poses(t, rng), role=1, mover=0)
    return Sequence(f"shape{number}", 0, (actor,), (Mover(f"shape{number}", "box"),), kind="views")


def frames_of(number: int, t: int = 3) -> Sequence:
    """A wall seen by a camera that moves, a cloud for every frame."""
    rng, actors = keyed(number, 22), []
    for i in range(t):
        pose = np.tile(np.eye(4), (t, 1, 1))
        pose[:, :3, 3] = [10 + number, i, 0]
        mask = np.zeros((t, 400), bool)
        mask[i] = True
        actors.append(make_actor(Cloud(rng.random((400, 3)) * [1, 2, 3]), mask, pose, role=2))
    return Sequence(f"room{number}", 0, tuple(actors), kind="frames")


class Shapes(MemoryDataset):
    """Sequences, each of a source of its own."""

    scan_names = property(lambda self: [sequence.scan for sequence in self])

    def scan_of(self, i: int) -> int:
        return i


STILL = Spatial(crop_chance=0, cutout_chance=0, jitter=0, dropout=0)
SAME = Temporal(chance=0)
SMALL = dict(net="pointnet", points=64, head_width=16, head_out=8)


def test_two_frames_lie_in_a_window_and_every_pair_of_it_is_drawn():
    drawn = {draw_frames(5, 3, keyed(n)) for n in range(500)}
    assert drawn == {(i, j) for i in range(5) for j in range(5) if 0 < abs(i - j) < 3}
    assert {draw_frames(2, 7, keyed(n)) for n in range(50)} == {(0, 1), (1, 0)}


WHOLE = Strl(net="small", spatial=STILL, temporal=SAME)  # all points, as they are


def extent(point) -> float:
    return float(np.linalg.norm(point - point.mean(axis=0), axis=1).max())


def test_a_shape_s_two_frames_share_one_unit_sphere_so_that_what_lies_between_them_stays():
    sequence = views_of(0)
    first, second = pair_of(sequence, WHOLE, keyed(1))
    i, j = draw_frames(3, 3, keyed(1))
    scale = [float(np.cbrt(np.linalg.det(sequence.actors[0].pose[n, :3, :3]))) for n in (i, j)]
    assert extent(first) == pytest.approx(1, abs=1e-5) and np.abs(first.mean(axis=0)).max() < 1e-5
    assert extent(second) == pytest.approx(scale[1] / scale[0], rel=1e-4)
    metres = pair_of(sequence, dataclasses.replace(WHOLE, sphere="none"), keyed(1))
    np.testing.assert_allclose(metres[1], sequence.frame(j).point, rtol=1e-6)


def test_eq_2_can_be_drawn_anew_from_the_shape_itself_and_is_chained():
    recipe = dataclasses.replace(WHOLE, redraw=True)
    first, second = pair_of(views_of(0), recipe, keyed(2))
    assert np.array_equal(first, second) and extent(first) == pytest.approx(1, abs=1e-5)
    grow = dataclasses.replace(recipe, temporal=Temporal(0, 0, 1.2, 1.2, chance=1))
    assert [extent(point) for point in pair_of(views_of(0), grow, keyed(2))] == pytest.approx([1.2, 1.44], rel=1e-4)


def test_natural_frames_start_where_the_first_sensor_stood_in_metres_each_under_eq_2():
    sequence = frames_of(4)
    first, second = pair_of(sequence, WHOLE, keyed(3))
    i, j = draw_frames(3, 3, keyed(3))
    np.testing.assert_allclose(first, sequence.actors[i].cloud.point, atol=1e-5)
    np.testing.assert_allclose(second, sequence.actors[j].cloud.point + [0, j - i, 0], atol=1e-5)
    grow = dataclasses.replace(WHOLE, temporal=Temporal(0, 0, 1.2, 1.2, chance=1))
    grown = pair_of(sequence, grow, keyed(3))
    assert [extent(p) for p in grown] == pytest.approx([1.2 * extent(first), 1.2 * extent(second)], rel=1e-4)


def test_a_frame_without_points_is_refused_by_the_name_of_its_sequence():
    empty = frames_of(0)
    gone = empty.actors[1]._replace(planes=np.zeros_like(empty.actors[1].planes))
    sequence = Sequence("room0", 0, (empty.actors[0], gone, gone), kind="frames")
    config = dataclasses.replace(small(), strl=WHOLE)
    stream = make_stream(config, Shapes([sequence]), World(0, 1, torch.device("cpu")))
    with pytest.raises(BatchError, match=r"sequence room0/000: frame [12] has no point"):
        stream.sample(1)


# The method ----------------------------------------------------------------------------------------------------------


def small(**settings) -> PretrainConfig:
    base = change(PRESETS["strl-small"], steps=6, batch=4, checkpoint_steps=2, log_steps=1, workers=0)
    return change(base, **{f"strl.{name}": value for name, value in (SMALL | settings).items()})


CPU = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    "kind, settings",
    [
        ("views", {}),
        ("views", {"compat": "code"}),
        ("views", {"net": "dgcnn", "k": 5, "points": 32}),
        ("views", {"net": "small", "voxel": 0.2}),
        ("frames", {}),
        ("moving", {"net": "dgcnn-seg", "k": 5, "points": 32}),
    ],
)
def test_every_kind_of_sequence_trains_every_net(kind, settings, tmp_path):
    data = make_dataset(4) if kind == "moving" else Shapes(map(views_of if kind == "views" else frames_of, range(4)))
    model = make_model(small(**settings))
    before = {name: value.clone() for name, value in model.named_parameters()}
    records = list(pretrain(small(**settings), data, tmp_path / "run", CPU))
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert all(0 <= value <= 4 for record in records for value in record.terms.values())
    found = newest(tmp_path / "run")
    model.load_state_dict(found.model)
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert not {name for name in still if model.get_parameter(name).ndim > 1}
    about = json.loads((tmp_path / "run" / "config.json").read_text())["backbone"]
    assert any(name.startswith(about["prefix"]) for name in found.model) and about["method"] == "strl"


def test_the_target_gets_no_gradient_and_no_optimiser_state_and_follows_after_the_update():
    data, config = Shapes(map(views_of, range(4))), small(target_decay=0.5)
    prepared = make(config, data, CPU)
    model, optimiser = prepared.model, prepared.optimiser
    start = {name: value.clone() for name, value in model.target.named_parameters()}
    assert all(torch.equal(value, model.online.get_parameter(name)) for name, value in start.items())
    loss = model(prepared.stream.sample(4))
    loss.total.backward()
    assert all(value.grad is None for value in model.target.parameters())
    assert all(value.grad is not None for value in (*model.online.parameters(), *model.predictor.parameters()))
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert not held & {id(p) for p in model.target.parameters()}
    optimiser.step()
    assert all(torch.equal(value, model.target.get_parameter(name)) for name, value in start.items())
    model.after_update(3)  # of 6: half way from 0.5 to 1
    for name, value in start.items():
        expected = 0.75 * value + 0.25 * model.online.get_parameter(name)
        torch.testing.assert_close(model.target.get_parameter(name), expected)


def test_the_loss_of_identical_frames_under_an_identity_predictor_is_zero():
    model = make_model(small())
    model.predictor = nn.Identity()
    stream = make_stream(small(), Shapes(map(views_of, range(4))), CPU)
    batch = stream.sample(4)
    assert model(batch._replace(second=batch.first)).total.item() == pytest.approx(0, abs=1e-5)
    assert model(batch).total.item() > 0.05


def test_a_constant_encoder_shows_as_collapsed():
    model = make_model(small())
    batch = make_stream(small(), Shapes(map(views_of, range(4))), CPU).sample(4)
    assert min(model(batch).spread.values()) > 0.3
    model.online.projector[0].weight.data.zero_()
    assert model(batch).spread["online"] < 0.01


@pytest.mark.parametrize("optimiser", ["lars", "adamw"])
def test_a_run_killed_at_a_step_ends_in_the_same_bits(optimiser, tmp_path):
    torch.set_num_threads(1)
    write_dataset([Recording(f"shape{n}", (views_of(n),)) for n in range(8)], tmp_path / "data")
    data, config = open_dataset(tmp_path / "data"), change(small(), optimiser=optimiser)
    list(pretrain(config, data, tmp_path / "whole", CPU))
    with contextlib.closing(pretrain(change(config, workers=2), data, tmp_path / "parts", CPU)) as records:
        assert next(record for record in records if record.step == 3)
    list(pretrain(change(config, workers=1), data, tmp_path / "parts", CPU))
    whole, parts = (newest(tmp_path / name) for name in ("whole", "parts"))
    assert whole.step == parts.step == 6
    for one, other in ((whole.model, parts.model), (whole.tensors, parts.tensors)):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_warm_up_lasts_the_epochs_that_are_asked_for():
    data = Shapes(map(views_of, range(8)))
    config = change(small(), steps=100, warmup_epochs=5, schedule="cosine-rest")
    lr_at = make(config, data, CPU).plan.lr_at
    rates = [lr_at(step) for step in range(100)]
    assert np.argmax(rates) == 9 and rates[0] == pytest.approx(rates[9] / 10)  # two steps an epoch
    with pytest.raises(ConfigError, match="warmup_epochs = 60: 120 steps of 100"):
        make(change(config, warmup_epochs=60), data, CPU)


def test_the_paper_s_preset_is_the_paper_s():
    paper = PRESETS["strl"]
    assert (paper.strl.points, paper.strl.k, paper.strl.target_decay, paper.warmup_epochs) == (2048, 40, 0.996, 10)
    assert (paper.strl.temporal, paper.strl.spatial, paper.optim.optimiser) == (Temporal(), Spatial(), "lars")
    assert 64 <= paper.run.batch <= 256 and not paper.strl.redraw and paper.strl.sphere == "auto"


@pytest.mark.parametrize(
    "settings, rule",
    [
        ({"net": "pointnet2"}, "net = pointnet2: one of pointnet, dgcnn"),
        ({"net": "dgcnn", "points": 30, "k": 40}, "points = 30: at least k = 40"),
        ({"window": 1}, "window = 1: at least 2"),
        ({"compat": "theirs"}, "compat = theirs: one of paper, code"),
        ({"target_decay": 1.5}, "target_decay = 1.5: from 0 to 1"),
    ],
)
def test_settings_that_break_a_rule_are_refused(settings, rule):
    with pytest.raises(ConfigError, match=re.escape(rule)):
        Strl(**settings)


def test_a_forward_of_one_cloud_is_refused_and_not_proposed():
    config = small(net="pointnet", k=8, points=64)
    data = Shapes(map(views_of, range(4)))
    with pytest.raises(LoaderError, match="a batch of 4 leaves 1 to a forward pass, whose norms need 2"):
        make_stream(change(config, accumulate=4, batch=4), data, CPU)
    stream, model = make_stream(change(config, batch=4), data, CPU), make_model(config)
    needed = memory.estimate(stream, model, "float32")
    least = int(needed.weights * 1.15 + (needed.device - needed.weights * 1.15) / 3) + needed.host
    with unittest.mock.patch.object(memory, "available", lambda device: least):
        assert "set accumulate=" not in memory.problem(needed, stream.share, CPU.device)
        assert "set accumulate=4" in memory.problem(needed, stream.share._replace(least=1), CPU.device)


@pytest.mark.parametrize("net", ["pointnet", "dgcnn", "dgcnn-seg"])
def test_the_memory_that_is_asked_for_is_about_what_autograd_keeps(net):
    config = small(net=net, k=8, points=64)
    stream, model = make_stream(config, Shapes(map(views_of, range(4))), CPU), make_model(config)
    kept, batch = {}, stream.sample(4)

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.online.encoder(batch.first)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found = sum(size for place, size in kept.items() if place not in own)
    found += 4 * 64 * 1024 * 4  # the gradient of the last layer
    needed = memory.estimate(stream, model, "float32")
    assert 0.75 < needed.kept / (2 * found) < 1.35 and needed.widest == 0


@pytest.mark.parametrize("net", ["pointnet", "dgcnn"])
def test_nets_on_points_take_points_of_any_precision(net):
    pooled = Pooled(net, 4, torch.Generator().manual_seed(0)).double()
    point = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(1))
    assert pooled(Clouds(point, None, 2)).dtype == torch.float64
