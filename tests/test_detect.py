"""Detection: batches, VoteNet's losses against plain sums, and that it finds what it learned."""

import math

import numpy as np
import pytest
import torch

from tests.makers.labelled import keyed, with_solids, with_turned
from train.config import ConfigError, change, resolve
from train.inputs.labelled import LabelledData
from train.inputs.labels import NONE, SceneError, label_table
from train.inputs.order import BatchKey, Share
from train.run import checkpoint
from train.run.world import World
from train.tasks.backbone import WeightsError, calibrate
from train.tasks.config import DETECT
from train.tasks.detect.batch import DetectStream, draw_sample, named_generator, owners_by_place, vary
from train.tasks.detect.boxes import box_overlaps, corners, inside
from train.tasks.detect.evaluate import predict
from train.tasks.detect.losses import aligned_iou, losses
from train.tasks.detect.make import boxes_of_scan, draw_boxes, make_model, mean_sizes
from train.tasks.detect.model import Proposed
from train.tasks.finetune import finetune, make_task

ALONE = World(0, 1, torch.device("cpu"))
TABLE = label_table("nyu40")
TINY = change(
    DETECT["small"], net="small-4d", voxel_m=0.15, workers=0, batch=2, seeds=128, proposals=64, width=16,
    norm_momentum=0.2,
)  # fmt: skip
SCANS = [with_solids(number) for number in range(3)]
BOXES = [boxes_of_scan(scan, TINY, TABLE) for scan in SCANS]
DATA = LabelledData(TABLE, SCANS, [SCANS[0]._replace(name="scene0100_00")])


def stream(**changes):
    own = change(TINY, **changes).detect
    return DetectStream([scan.name for scan in SCANS], BOXES, 0.15, own, Share(3), 3, 0)


def batch_of(**changes):
    made = stream(**changes)
    return made.make(BatchKey((0, 1, 2), ((3, 0, 0), (3, 0, 1), (3, 0, 2))), made.memory(3))


# Batches -------------------------------------------------------------------------------------------------------------


def test_voxels_lie_at_the_mean_of_their_points_and_know_their_box():
    batch = batch_of(mirror=0.0, turn_deg=0.0)
    assert batch.of.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert sorted(batch.kind[:3].tolist()) == [1, 1, 4]  # bed, bed, table of the 18 objects
    for number, scan in enumerate(BOXES):
        mine = (batch.voxels.coordinate[:, 0] == number).numpy()
        position, owner = batch.position.numpy()[mine], batch.owner.numpy()[mine]
        low = np.floor(scan.point.min(axis=0) / 0.15)
        assert len(np.unique(np.floor(position / 0.15) - low, axis=0)) == mine.sum()
        assert owner.shape == (mine.sum(), 1)
        owner = owner[:, 0]
        for b, box in enumerate(scan.box):
            assert (owner == b).sum() > 10
            grown = box + np.array([0, 0, 0, 0.3, 0.3, 0.3, 0])
            assert inside(grown, position[owner == b]).all()
        assert (owner == NONE).sum() > 50


def test_norms_of_a_frozen_net_have_the_statistics_of_the_points_that_it_will_see():
    config = change(TINY, freeze="backbone", sample=200)
    found = make_task(config, DATA, None, ALONE).model.backbone.state_dict()
    means = {}
    for most in (200, 0):
        seen = [
            scan._replace(point=boxes.point[draw_sample(len(boxes.point), most, named_generator(scan.name))])
            for scan, boxes in zip(SCANS, BOXES, strict=True)
        ]
        net = make_model(config, TABLE, None).backbone
        calibrate(net, seen, 0.15, torch.device("cpu"))
        means[most] = {name: value for name, value in net.state_dict().items() if "running" in name}
    assert all(torch.equal(found[name], value) for name, value in means[200].items())
    assert not all(torch.equal(found[name], value) for name, value in means[0].items())


def test_scans_with_instances_and_scans_with_boxes_alone_make_one_batch():
    made = stream(mirror=0.0, turn_deg=0.0)
    made = DetectStream(made.names, [BOXES[0], BOXES[1]._replace(owner=None), BOXES[2]], 0.15, made.own, Share(3), 3, 0)
    batch = made.make(BatchKey((0, 1, 2), ((3, 0, 0), (3, 0, 1), (3, 0, 2))), made.memory(3))
    alone, cloud = batch_of(mirror=0.0, turn_deg=0.0), batch.voxels.coordinate[:, 0]
    assert batch.owner.shape == (len(cloud), 3)
    assert (batch.owner[cloud != 1] == alone.owner[cloud != 1]).all()
    assert len(torch.unique(batch.owner[cloud == 1])) == 4  # three boxes, and none


@pytest.mark.parametrize("draw", range(5))
def test_varied_boxes_enclose_varied_points_and_flips_keep_sizes(draw):
    own = change(TINY, turn_deg=30.0 * (draw > 2), resize=0.1 * (draw > 2)).detect
    point, box = vary(BOXES[0].point, BOXES[0].box, own, keyed(draw))
    for number in range(len(box)):
        mine = point[BOXES[0].owner == number]
        grown = box[number] + np.array([0, 0, 0, 1e-4, 1e-4, 1e-4, 0])
        assert inside(grown, mine).all()
        if draw <= 2:
            np.testing.assert_allclose(box[number, 3:6], np.ptp(mine, axis=0), atol=1e-4)
    assert (box[:, 6] == 0).all()


SUN = label_table("sunrgbd10")
TURNED = change(TINY, headings=12, iou_weight=0.0, mirrored="x")
FRAME = with_turned(0)


@pytest.mark.parametrize("draw", range(6))
def test_turned_boxes_stay_around_their_points_and_face_the_same_side(draw):
    own = change(TURNED, turn_deg=30.0, resize=0.15, mirrored=("x", "xy")[draw % 2], mirror=1.0 - draw % 3 / 2).detect
    boxes = boxes_of_scan(FRAME, TURNED, SUN)
    ahead = corners(boxes.box)[:, [0, 3]].mean(axis=1)  # the middle of the front edge
    point, box = vary(np.vstack([boxes.point, ahead]).astype(np.float32), boxes.box, own, keyed(draw))
    before = np.stack([inside(one, boxes.point) for one in boxes.box * (1, 1, 1, 1.01, 1.01, 1.01, 1)])
    after = np.stack([inside(one, point[:-3]) for one in box * (1, 1, 1, 1.01, 1.01, 1.01, 1)])
    assert np.array_equal(before, after) and before.sum() > 500
    np.testing.assert_allclose(corners(box)[:, [0, 3]].mean(axis=1), point[-3:], atol=1e-4)


def test_a_voxel_votes_for_the_boxes_that_it_lies_in():
    box = np.array([[x, 0, 0, 2, 1, 1, 0] for x in (0, 0.5, 1.0, 1.2, 9)], float)
    position = np.array([[-0.9, 0, 0], [0.3, 0, 0], [0.45, 0, 0], [5, 0, 0]])
    assert owners_by_place(position, box).tolist() == [[0, 0, 0], [0, 1, 2], [0, 1, 2], [NONE] * 3]


def test_smaller_draws_of_boxes_lie_in_larger_ones_and_points_of_the_others_are_of_none():
    scan = BOXES[0]
    drawn = {count: draw_boxes("a", scan, count, 3) for count in (1, 2, 3, 7)}
    sets = {count: {tuple(box) for box in one.box} for count, one in drawn.items()}
    assert sets[1] < sets[2] < sets[3] == sets[7] and len(sets[1]) == 1
    for count, one in drawn.items():
        for number, box in enumerate(one.box):
            was = np.flatnonzero((scan.box == box).all(axis=1))[0]
            assert np.array_equal(one.owner == number, scan.owner == was), count
        assert (one.owner == NONE).sum() == len(one.owner) - (one.owner >= 0).sum()
    firsts = {tuple(draw_boxes(name, scan, 1, seed).box[0]) for name in "abcd" for seed in range(4)}
    assert len(firsts) == 3


def test_a_scan_is_drawn_at_test_by_its_name_alone():
    first, second = (draw_sample(1000, 100, named_generator("scene0000_00")) for _ in range(2))
    assert np.array_equal(first, second) and len(np.unique(first)) == 100 and (np.diff(first) > 0).all()
    assert not np.array_equal(first, draw_sample(1000, 100, named_generator("scene0000_01")))
    assert draw_sample(50, 100, keyed(1)).tolist() == draw_sample(50, 0, keyed(1)).tolist() == list(range(50))
    assert torch.equal(batch_of(sample=300).position, batch_of(sample=300).position)


# Losses --------------------------------------------------------------------------------------------------------------


def handmade(middle, centre, box, kind, owner=((0,),), vote=((0.0, 0, 0),), headings=0):
    """Proposals of one scan with boxes, and the batch they belong to; everything else is drawn."""
    rng = torch.Generator().manual_seed(1)
    p = len(middle)
    found = Proposed(
        torch.zeros(1, len(vote), 3), torch.arange(len(vote))[None], torch.tensor([vote]), torch.tensor([middle]),
        torch.tensor([centre]), torch.randn(1, p, 2, generator=rng), torch.randn(1, p, 18, generator=rng),
        torch.randn(1, p, 18, 3, generator=rng), torch.randn(1, p, 18, generator=rng),
        torch.randn(1, p, headings, generator=rng), torch.randn(1, p, headings, generator=rng),
    )  # fmt: skip
    batch = batch_of()._replace(
        owner=torch.tensor(owner), box=torch.tensor(box).reshape(-1, 7), kind=torch.tensor(kind, dtype=torch.int64),
        of=torch.zeros(len(box), dtype=torch.int64), size=1,
    )  # fmt: skip
    return found, batch


BOX = [[2.0, 0, 0, 1, 1, 1, 0]]


def test_losses_equal_plain_sums():
    model = make_model(change(TINY, iou_weight=0.0, vote_weight=3.0), TABLE, None)
    middle = [[2.1, 0, 0], [2.45, 0, 0], [5.0, 0, 0], [0.05, 0, 0]]  # an object, neither, none, none at the origin
    centre = [[2.2, 0, 0], [2.0, 0, 0], [5.0, 0, 0], [0.0, 0, 0]]
    found, batch = handmade(middle, centre, BOX, [4], owner=((0,), (NONE,)), vote=((1.5, 0.25, 0), (9.0, 9, 9)))
    terms = losses(model, found, batch).terms
    assert terms["vote"].item() == pytest.approx(0.75, rel=1e-4)
    assert terms["centre"].item() == pytest.approx(0.2**2 + 0, abs=1e-6)  # there, and back from the exact one
    log = found.objectness[0].log_softmax(dim=1)
    expected = -(0.8 * log[0, 1] + 0.2 * log[2, 0] + 0.2 * log[3, 0]) / 3
    assert terms["objectness"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms["class"].item() == pytest.approx(-found.kind[0, 0].log_softmax(dim=0)[4].item(), rel=1e-4)
    assert terms["size class"].item() == pytest.approx(-found.size_score[0, 0].log_softmax(dim=0)[4].item(), rel=1e-4)
    away = found.residual[0, 0, 4].abs()  # the box has the mean size
    huber = torch.where(away <= 1, away**2 / 2, away - 0.5).mean()
    assert terms["size"].item() == pytest.approx(huber.item(), rel=1e-4)
    total = 10 * sum(
        weight * terms[name].item()
        for name, weight in {
            "vote": 3,
            "objectness": 0.5,
            "centre": 1,
            "size class": 0.1,
            "size": 1,
            "class": 0.1,
        }.items()
    )
    assert losses(model, found, batch).total.item() == pytest.approx(total, rel=1e-4)


def test_losses_of_headings_equal_plain_sums_and_give_the_box_back():
    model = make_model(TURNED, TABLE, None)
    model.mean_size.fill_(1.0)
    true = 7 * math.pi / 6 - 0.1 - 2 * math.pi  # in direction 7 of 12, by less than half a step
    found, batch = handmade([[2.1, 0, 0]], [[2.0, 0, 0]], [[2.0, 0, 0, 1, 1, 1, true]], [4], headings=12)
    terms = losses(model, found, batch).terms
    expected = -found.facing[0, 0].log_softmax(dim=0)[7].item()
    assert terms["heading class"].item() == pytest.approx(expected, rel=1e-4)
    away = abs(found.swerve[0, 0, 7].item() + 0.1 / (math.pi / 12))
    assert terms["heading"].item() == pytest.approx(away**2 / 2 if away <= 1 else away - 0.5, rel=1e-4)
    exact = found._replace(facing=torch.eye(12)[None, None, 7] * 30, swerve=torch.full((1, 1, 12), -0.1 * 12 / math.pi))
    terms = losses(model, exact, batch).terms
    assert max(terms["heading class"].item(), terms["heading"].item()) < 1e-6
    assert math.cos(model.turns(exact).item() - true) == pytest.approx(1, abs=1e-9)


def test_the_nearest_of_several_boxes_is_voted_for():
    model = make_model(TURNED, TABLE, None)
    two = [[2.0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 0]]
    vote = ((1.5, 0.25, 0), (0.25, 0, 0), (9, 9, 9.0))
    owner = ((0, 1, 0), (0, 1, 0), (NONE, NONE, NONE))
    found, batch = handmade([[2.1, 0, 0]], [[2.0, 0, 0]], two, [4, 4], owner=owner, vote=vote, headings=12)
    assert losses(model, found, batch).terms["vote"].item() == pytest.approx((0.75 + 0.25) / 2, rel=1e-4)


def test_a_phantom_at_the_origin_makes_objects_of_nothing_only_if_it_is_asked_for():
    found, batch = handmade([[2.1, 0, 0], [0.05, 0, 0]], [[2.0, 0, 0], [0.1, 0, 0]], BOX, [4])
    plain = losses(make_model(change(TINY, iou_weight=0.0), TABLE, None), found, batch).terms
    phantom = losses(make_model(change(TINY, iou_weight=0.0, phantom=True), TABLE, None), found, batch).terms
    assert plain["objects"].item() == 0.5 and phantom["objects"].item() == 1
    assert phantom["class"].item() != plain["class"].item()


def test_a_scan_without_boxes_teaches_that_there_is_no_object():
    model = make_model(TINY, TABLE, None)
    found, batch = handmade([[2.1, 0, 0]], [[2.0, 0, 0]], [], [], owner=((NONE,),))
    loss = losses(model, found, batch)
    assert loss.terms["objects"].item() == 0 and loss.terms["centre"].item() == 0 and loss.terms["vote"].item() == 0
    expected = -0.2 * found.objectness[0, 0].log_softmax(dim=0)[0]
    assert loss.total.item() == pytest.approx(5 * expected.item(), rel=1e-4)


@pytest.mark.parametrize("moved", [True, False])
def test_losses_of_boxes_move_votes_only_if_they_may(moved):
    model = make_model(change(TINY, moved_by_boxes=moved), TABLE, None)
    batch = batch_of()
    found = model.proposals(batch.voxels, batch.position, batch.size)
    (gradient,) = torch.autograd.grad(found.centre.sum(), found.vote, allow_unused=True)
    assert (gradient is not None and gradient.abs().sum() > 0) == moved


def test_iou_with_gradients_equals_that_of_evaluation():
    rng = keyed(3)
    first, second = (np.hstack([rng.uniform(0, 1, (20, 3)), rng.uniform(0.2, 1.5, (20, 3))]) for _ in range(2))
    found = aligned_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    zeros = np.zeros((20, 1))
    expected = np.diagonal(box_overlaps(np.hstack([first, zeros]), np.hstack([second, zeros])))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_mean_sizes_are_of_a_classs_boxes_and_of_all_where_it_has_none():
    sizes = mean_sizes(BOXES, 18)
    tables = [box[3:6] for scan in BOXES for box, kind in zip(scan.box, scan.kind, strict=True) if kind == 4]
    np.testing.assert_allclose(sizes[4], np.mean(tables, axis=0))
    np.testing.assert_allclose(sizes[9], np.concatenate([scan.box for scan in BOXES])[:, 3:6].mean(axis=0))
    with pytest.raises(SceneError, match="no object in 1 training scans"):
        mean_sizes([BOXES[0]._replace(box=np.zeros((0, 7)), kind=np.zeros(0, np.int64))], 18)


# Learning ------------------------------------------------------------------------------------------------------------


def test_momentum_of_norms_is_halved_with_updates():
    model = make_model(change(TINY, momentum_steps=100, momentum_start=0.5), TABLE, None)
    found = {}
    for step in (0, 99, 100, 350, 5000):
        model.after_update(step)
        model.set_momentum()
        found[step] = {part.momentum for part in model.modules() if isinstance(part, torch.nn.BatchNorm1d)}
    assert found == {0: {0.5}, 99: {0.5}, 100: {0.25}, 350: {0.0625}, 5000: {0.001}}


CONTRADICTIONS = {
    "proposals=2000": "not above seeds = 1024",
    "near_m=0.9": "not below near_m",
    "headings=0": "headings",
    "mirrored=z": "mirrored",
    "boxes_per_scan=-1": "boxes_per_scan",
}


def test_settings_that_contradict_each_other_are_refused():
    for assignment, text in CONTRADICTIONS.items():
        with pytest.raises(ConfigError, match=text):
            resolve("paper", (assignment,), DETECT)
    with pytest.raises(ConfigError, match="0 with headings"):
        resolve("sunrgbd", ("iou_weight=1",), DETECT)
    rates = [DETECT["sunrgbd"].optim.lr_at(165 * epoch, 29_700) for epoch in (79, 81, 119, 121, 159, 161)]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6])
    assert DETECT["paper"].optim.lr_at(69_999, 100_000) == pytest.approx(5e-4)
    assert DETECT["paper"].optim.lr_at(70_000, 100_000) == pytest.approx(2.5e-4)


def test_pointnet2_stands_in_for_the_sparse_net_from_scratch_only():
    config = change(TINY, seen_by="pointnet2", voxel_m=0.05)
    model, made = make_model(config, TABLE, None), stream()
    batch = made.make(BatchKey((0,), ((3, 0, 0),)), made.memory(1))
    assert sum(value.numel() for value in model.backbone.parameters()) == 641_920  # summed by hand
    loss = model(batch)
    loss.total.backward()
    assert torch.isfinite(loss.total) and all(value.grad is not None for value in model.parameters())
    assert model.forwards(batch, 4)[0].kept > 1e6
    with pytest.raises(WeightsError, match="starts from scratch"):
        make_model(change(config, freeze="backbone"), TABLE, None)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run that saw one scan often, and what its last validation on that scan found."""
    config = change(TINY, steps=120, batch=1, lr=0.01, validate_steps=120, checkpoint_steps=120, turn_deg=0.0)
    config = change(config, mirror=0.0, width=64, seeds=256, proposals=128, norm_momentum=0.5)
    run = tmp_path_factory.mktemp("runs") / "one"
    items = list(finetune(config, DATA._replace(train=SCANS[:1]), None, run, ALONE))
    model = make_model(config, TABLE, None)
    checkpoint.load_weights(checkpoint.newest(run).model, model, "run")
    return items[-1].findings, model.eval()


def test_one_scan_is_learned_until_every_box_is_found(learned):
    findings, _ = learned
    assert findings.summary["ap50"] == 1.0
    assert findings.summary["classes"]["bed"]["count"] == 2


def test_turned_boxes_of_a_frame_are_learned_with_their_headings(tmp_path):
    """AP is of boxes as they are turned; which way each faces is looked at besides, since IoU does not tell."""
    config = change(TURNED, steps=100, batch=1, lr=0.01, validate_steps=100, checkpoint_steps=100, turn_deg=0.0)
    config = change(config, mirror=0.0, width=64, seeds=256, proposals=64, norm_momentum=0.5)
    data = LabelledData(SUN, [FRAME], [FRAME._replace(name="000100")])
    found = list(finetune(config, data, None, tmp_path / "run", ALONE))[-1].findings
    assert found.summary["ap25"] == 1.0 and found.summary["ap50"] > 0.6
    _, boxes, detected = found.details.shown[0]
    for box, kind in zip(boxes.box, boxes.kind, strict=True):
        nearest = detected.box[np.linalg.norm(detected.box[:, :3] - box[:3], axis=1).argmin()]
        turned = (nearest[6] - box[6] + math.pi) % (2 * math.pi) - math.pi
        assert abs(turned) < math.radians(10), kind


def test_what_is_found_does_not_depend_on_the_order_of_points(learned):
    _, model = learned
    point = BOXES[0].point
    first = predict(model, "a", point, 0.15, ALONE.device)
    second = predict(model, "a", point[keyed(4).permutation(len(point))], 0.15, ALONE.device)
    assert len(first.box) >= 3
    assert np.array_equal(first.box, second.box) and np.array_equal(first.score, second.score)


def test_a_net_that_went_wrong_is_refused(learned):
    model = make_model(TINY, TABLE, None).eval()
    model.lift.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="scan a: the net's output is not finite"):
        predict(model, "a", BOXES[0].point, 0.15, ALONE.device)


def test_an_alignment_that_some_scans_lack_is_said():
    scans = [SCANS[0], SCANS[1]._replace(alignment=np.eye(4))]
    with pytest.warns(UserWarning, match="have no axisAlignment"):
        make_task(TINY, DATA._replace(train=scans), None, ALONE)
