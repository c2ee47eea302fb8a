"""Self-distillation on a small synthetic batch: what is predicted of what, who learns and who follows."""

import itertools

import numpy as np
import pytest
import torch

from tests.make_batch import make_batch
from train.config import ConfigError
from train.methods import losses
from train.methods.config import METHODS as EVERY
from train.methods.contrast4d.config import Contrast4D
from train.methods.distill.config import METHODS, Distill
from train.methods.distill.model import Distillation
from train.nets.unet import NetShape

NETS = {"34": NetShape((1, 1), (32, 32), 16)}


def batch_of(**sizes):
    return make_batch(np.random.default_rng([0]), has_4d=False, masked=0.4, **sizes)


def model_of(steps=100, prototypes=16, decay=0.9, **fields) -> Distillation:
    config = Distill(prototypes=prototypes, teacher_decay=decay)
    return Distillation(config, Contrast4D(width=32, **fields), steps, torch.Generator().manual_seed(0), NETS)


def test_the_loss_equals_predictions_of_the_other_whole_frame_pair_by_pair():
    """In evaluation mode, so that norms do not depend on the grouping, with a teacher unlike the student."""
    batch, model = batch_of(), model_of().double().eval()
    with torch.no_grad():
        for weight in model.teacher.parameters():
            weight.mul_(1.1).add_(0.01)
    pairs, student, goal = list(itertools.combinations(range(3), 2)), [], []
    for p, (i, j) in enumerate(pairs):
        for side, (own, other) in enumerate(((i, j), (j, i))):
            z = model.student.encoder(batch.frame[own], batch.pair_row[p, side], batch.size)
            student.append(losses.unit(z) @ losses.unit(model.student.prototypes.weight).T)
            z = model.teacher.encoder(batch.whole[other], batch.whole_row[p, 1 - side], batch.size)
            goal.append(losses.unit(z) @ losses.unit(model.teacher.prototypes.weight).T)
    target = losses.balanced_assignments(torch.cat(goal), 0.07)
    expected = losses.prototype_loss(torch.cat(student), target, 0.1).item()
    loss = model(batch)
    assert loss.total.item() == pytest.approx(expected, rel=1e-9)
    assert loss.terms == {"3d-3d": loss.total} and set(loss.spread) == {"student", "teacher"}
    assert set(loss.fit) == {f"3d-3d/{kind}" for kind in ("cos", "constant", "centred", "top1")}
    assert not any(x.requires_grad for x in (*loss.terms.values(), *loss.spread.values(), *loss.fit.values()))


def test_the_student_learns_and_the_teacher_follows_it_with_a_decay_that_rises_to_one():
    batch, model = batch_of(), model_of(steps=10, decay=0.8)
    model(batch).total.backward()
    assert all(weight.grad is not None for weight in model.student.parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in model.teacher.parameters())
    idle = [name for name, weight in model.student.named_parameters() if weight.grad.abs().max() == 0]
    assert not [name for name in idle if not name.endswith("bias")], idle
    torch.optim.SGD(model.student.parameters(), lr=1.0).step()
    for step, share in ((5, 0.1), (10, 0.0)):
        expected = [old.lerp(new, share) for old, new in zip(*map(list, parts(model)), strict=True)]
        model.after_update(step)
        for found, wanted in zip(model.teacher.parameters(), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def parts(model):
    """Parameters of the teacher and of the student."""
    return [p.detach().clone() for p in model.teacher.parameters()], [p.detach() for p in model.student.parameters()]


def test_forwards_that_are_made_again_give_the_same_loss_gradients_and_statistics():
    found = []
    for again in (False, True):
        model = model_of(recompute=again)
        loss = model(batch_of())
        loss.total.backward()
        found.append([loss.total, *(p.grad for p in model.student.parameters()), *model.buffers()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_equal_seeds_give_equal_losses_and_gradients():
    results = []
    for _ in range(2):
        model = model_of()
        loss = model(batch_of())
        loss.total.backward()
        results.append([loss.total, *(weight.grad for weight in model.student.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_it_fits_one_sequence_without_a_collapse_of_either_net():
    batch, model = batch_of(size=1, samples=8, points=200), model_of(steps=25, prototypes=16, decay=0.8)
    optimiser = torch.optim.Adam(model.student.parameters(), lr=0.01)
    first = None
    for step in range(25):
        loss = model(batch)
        first = first or loss.total.item()
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        model.after_update(step + 1)
    assert loss.total.item() < 0.5 * first
    assert min(loss.spread.values()) > 0.6 and loss.fit["3d-3d/cos"] > loss.fit["3d-3d/constant"]


def test_every_distillation_is_a_method_on_masked_frames_beside_its_control():
    assert set(METHODS) < set(EVERY) and [method.moving for method in METHODS.values()] == [False, True]
    assert all(method.masked and not method.has_4d and not method.cosine for method in METHODS.values())


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("prototypes", 0, "at least 1"),
        ("student_temperature", 0.0, "above 0"),
        ("teacher_temperature", 0.01, "at least 0.025"),
        ("teacher_decay", 1.5, "from 0 to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_rule(field, value, rule):
    with pytest.raises(ConfigError, match=rule):
        Distill(**{field: value})
