"""Rates as functions of the step, groups of parameters, and clipped gradients."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tests.test_loop import Toy, run_toy, toy_plan
from train.config import ConfigError
from train.run.optim import SCHEDULES, Optim, make_optimiser, parameter_groups


def rates(schedule, steps=100, **more):
    config = Optim(lr=0.5, schedule=schedule, **more)
    return np.array([config.lr_at(step, steps) for step in range(steps)])


def torch_rates(make, steps=100):
    """What a scheduler of torch's gives."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.9)
    schedule, found = make(optimiser), []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return np.array(found)


def test_cosine_and_polynomial_equal_torchs():
    cosine = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100, eta_min=0.05))
    np.testing.assert_allclose(rates("cosine", last=0.1), cosine, rtol=1e-9)
    poly = torch_rates(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 100, power=0.9))
    np.testing.assert_allclose(rates("poly", power=0.9), poly, rtol=1e-9)


def test_one_cycle_rises_from_a_twenty_fifth_peaks_at_three_tenths_and_ends_at_its_last_share():
    found = rates("onecycle", 1000, last=0.01)
    assert found[0] == pytest.approx(0.5 / 25) and found.argmax() == 300 and found.max() == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.005, rel=0.02)
    assert (np.diff(found[:301]) > 0).all() and (np.diff(found[300:]) < 0).all()


def test_the_cosine_of_the_rest_starts_when_the_warm_up_ends():
    found = rates("cosine-rest", 110, warmup_steps=10)
    np.testing.assert_allclose(found[:10], 0.5 * np.arange(1, 11) / 10)
    np.testing.assert_allclose(found[10:], rates("cosine"), rtol=1e-12)


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "cosine-rest"])
def test_warm_up_rises_linearly_to_the_schedule_and_leaves_the_rest(schedule):
    plain, warm = rates(schedule), rates(schedule, warmup_steps=10)
    np.testing.assert_allclose(warm[:10], plain[:10] * np.arange(1, 11) / 10)
    assert np.array_equal(warm[10:], plain[10:]) and (plain > 0).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("schedule", "linear"), ("optimiser", "lion"), ("lr", 0.0), ("clip", 0.0), ("last", 2.0), ("scales", ("head",))],
)
def test_rates_that_break_a_rule_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field} = "):
        dataclasses.replace(Optim(), **{field: value})


class Parts(nn.Module):
    """A backbone of two parts, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"stem": nn.Linear(2, 2), "rest": nn.Linear(2, 2)})
        self.head = nn.Linear(2, 1)


def test_a_parameter_has_the_scale_of_the_innermost_part_that_is_named():
    model = Parts()
    groups = parameter_groups(model, [("backbone", 0.1), ("backbone.stem", 0.0), ("head", 10.0)])
    of = {id(value): group["scale"] for group in groups for value in group["params"]}
    assert {name: of[id(value)] for name, value in model.named_parameters()} == {
        f"{part}.{kind}": scale
        for part, scale in (("backbone.stem", 0.0), ("backbone.rest", 0.1), ("head", 10.0))
        for kind in ("weight", "bias")
    }
    assert [group["scale"] for group in parameter_groups(model, [])] == [1.0]
    with pytest.raises(ConfigError, match="no part hea of the model learns; its parts are backbone, head"):
        parameter_groups(model, [("hea", 1.0)])


class TwoToys(Toy):
    """A second weight beside the toy's, moved by the same gradient."""

    def __init__(self):
        super().__init__({})
        self.other = nn.Parameter(torch.ones(3))

    def forward(self, batch):
        loss = super().forward(batch)
        return loss._replace(total=loss.total + (self.other * batch[0]).sum().square())


def test_a_groups_scale_reaches_its_updates_whatever_the_schedule(tmp_path):
    model = TwoToys()
    optimiser = make_optimiser(Optim(momentum=0.0, weight_decay=0.0, scales=("other:0.5",)), model)
    run_toy(tmp_path, model, toy_plan(1, 9, lambda step: 0.1), optimiser)
    moved = 1 - model.weight.detach(), 1 - model.other.detach()
    torch.testing.assert_close(moved[1], 0.5 * moved[0])
    assert (moved[0] > 0).all()


@pytest.mark.parametrize("clip", [0.01, 100.0])
def test_a_gradient_longer_than_the_clip_is_shortened_to_it_and_logged_as_it_was(clip, tmp_path):
    free, clipped = Toy({}), Toy({})
    plan = toy_plan(1, 9, lambda step: 1.0)
    (record,) = run_toy(tmp_path / "free", free, plan, torch.optim.SGD(free.parameters()))
    (same,) = run_toy(tmp_path / "clipped", clipped, plan._replace(clip=clip), torch.optim.SGD(clipped.parameters()))
    assert record.gradient == same.gradient > 0.01
    moved = (1 - clipped.weight.detach()).norm().item()
    assert moved == pytest.approx(min(clip, record.gradient), rel=1e-3)


def test_adamw_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path):
    config = Optim(optimiser="adamw", lr=0.1, scales=("other:2",))
    whole, parts, rest = TwoToys(), TwoToys(), TwoToys()
    run_toy(tmp_path / "a", whole, optimiser=make_optimiser(config, whole))
    run_toy(tmp_path / "b", parts, toy_plan(5, 2, lambda step: 0.1), make_optimiser(config, parts))
    run_toy(tmp_path / "b", rest, optimiser=make_optimiser(config, rest))
    assert torch.equal(whole.other, rest.other) and torch.equal(whole.weight, rest.weight)
    assert not torch.equal(whole.other, whole.weight)
