"""Instance segmentation: batches against plain loops, the net's losses, and that it finds what it learned."""

import numpy as np
import pytest
import torch

from tests.makers.labelled import keyed, with_objects
from train.config import change
from train.inputs.labelled import LabelledData
from train.inputs.labels import NONE, SceneError, label_table
from train.inputs.objects import STUFF, instances_of, stuff_classes
from train.inputs.order import BatchKey, Share
from train.inputs.subsets import limit
from train.inputs.views import Augmentation
from train.nets.unet import NETS, Norm, UNet
from train.run import checkpoint
from train.run.world import World
from train.tasks.backbone import WeightsError
from train.tasks.config import INSTANCES
from train.tasks.finetune import finetune, make_task
from train.tasks.instances.batch import InstanceRecipe, InstanceStream
from train.tasks.instances.evaluate import predict
from train.tasks.instances.make import make_model, mean_sizes
from train.tasks.instances.model import ScoreNet
from train.tasks.instances.report import write_benchmark
from train.tasks.scene import Scene

ALONE = World(0, 1, torch.device("cpu"))
TABLE = label_table("nyu40")
STUFF_CLASSES = stuff_classes(TABLE, STUFF)
TINY = change(
    INSTANCES["small"], net="small-4d", voxel_m=0.15, radius_m=0.3, workers=0, batch=2, least_points=20,
    norm_momentum=0.2,
)  # fmt: skip
SCANS = [with_objects(number) for number in range(3)]
DATA = LabelledData(TABLE, SCANS, [SCANS[0]._replace(name="scene0100_00")])


def stream(scans=SCANS, still=False, most=None):
    augmentation = Augmentation(0.0, dropout_share=0.0) if still else Augmentation()
    recipe = InstanceRecipe(0.15, 20, augmentation, most)
    own = [instances_of(scan, STUFF_CLASSES, 20) for scan in scans]
    return InstanceStream(scans, own, recipe, Share(len(scans)), 3, 0)


def batch_of(scans=SCANS, still=False, most=None):
    made = stream(scans, still, most)
    return made.make(BatchKey(tuple(range(len(scans))), tuple((3, 0, k) for k in range(len(scans)))), made.memory(1))


# Batches -------------------------------------------------------------------------------------------------------------


def test_a_large_scan_is_cropped_and_what_is_left_says_the_same():
    whole, part = batch_of(still=True), batch_of(still=True, most=200)
    columns = ("label", "number", "offset", "points")
    said = [
        {
            tuple(cell): [getattr(batch, name)[i].tolist() for name in columns]
            for i, cell in enumerate(batch.voxels.coordinate.tolist())
        }
        for batch in (whole, part)
    ]
    assert len(said[1]) == 3 * 200 < len(said[0]) and said[1].items() <= said[0].items()
    assert len(part.label) == 600 and (part.number >= 0).any()


def test_limited_points_keep_their_instance_and_no_other_point_has_one(tmp_path):
    """An object counts by its labelled points: most of it has no label."""
    scan = SCANS[0]
    ids = [i for i in np.unique(scan.instance) if i >= 0 and scan.label[scan.instance == i][0] not in STUFF_CLASSES]
    rows = np.concatenate([scan.row[scan.instance == i][:5] for i in ids])
    (limited,) = limit([scan], {scan.name: rows}, tmp_path / "points5")
    assert np.array_equal(np.flatnonzero(limited.instance >= 0), np.flatnonzero(np.isin(scan.row, rows)))
    found = instances_of(limited, STUFF_CLASSES, 20)
    assert sorted(found.kind) == sorted(scan.label[scan.instance == i][0] for i in ids)
    assert (batch_of([limited], still=True).number >= 0).sum() > 0


def test_scans_without_a_single_object_are_refused():
    bare = [scan._replace(label=np.full_like(scan.label, NONE)) for scan in SCANS]
    with pytest.raises(SceneError, match="no object in 3 training scans: give scans with instances of the classes"):
        make_task(TINY, DATA._replace(train=bare), None, ALONE)


def test_a_batch_points_from_every_voxel_of_an_object_to_its_middle():
    batch = batch_of(still=True)
    cell = batch.voxels.coordinate.numpy()
    centre = (cell[:, 1:] + 0.5) * 0.15
    number, offset = batch.number.numpy(), batch.offset.numpy()
    assert len(np.unique(number)) == 7  # two tables a scan, and nothing
    assert (offset[number == NONE] == 0).all()
    points = batch.points.numpy()
    for g in np.unique(number[number >= 0]):
        mine = number == g
        assert len(np.unique(cell[mine, 0])) == 1 and set(batch.label.numpy()[mine]) <= {6, 0, 1, NONE}
        target = centre[mine] + offset[mine]
        np.testing.assert_allclose(target, np.broadcast_to(target[0], target.shape), atol=1e-5)
        weighted = np.average(centre[mine], axis=0, weights=points[mine])
        assert np.linalg.norm(weighted - target[0]) < 0.1
    assert points.sum() == sum(len(scan.point) for scan in SCANS) and batch.size == 3


def test_batches_repeat_and_slots_do_not_depend_on_their_neighbours():
    first, second = batch_of(), batch_of()
    for name in ("label", "number", "offset", "points"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    alone = stream(SCANS[1:2])
    single = alone.make(BatchKey((0,), ((3, 0, 1),)), alone.memory(1))
    mine = first.voxels.coordinate[:, 0] == 1
    assert torch.equal(single.offset, first.offset[mine]) and torch.equal(single.label, first.label[mine])


# Model ---------------------------------------------------------------------------------------------------------------


def test_losses_are_means_over_labelled_voxels_and_voxels_of_objects():
    model, batch = make_model(TINY, TABLE, None), batch_of()
    loss = model(batch)
    features = model.features(batch.voxels, batch.size)
    logits, offset = model.head(features).detach().double(), model.offset(features).detach().double()
    counted = batch.label != NONE
    expected = -logits.log_softmax(dim=1)[counted, batch.label[counted]].mean()
    assert float(loss.terms["cross-entropy"]) == pytest.approx(float(expected), rel=1e-4)
    inside = batch.number >= 0
    apart = (offset - batch.offset)[inside].abs().sum(dim=1).mean()
    assert float(loss.terms["offset"]) == pytest.approx(float(apart), rel=1e-4)
    dots = (offset * batch.offset)[inside].sum(dim=1) / offset[inside].norm(dim=1) / batch.offset[inside].norm(dim=1)
    assert float(loss.terms["direction"]) == pytest.approx(-float(dots.mean()), rel=1e-4)
    assert loss.total.item() == pytest.approx(sum(float(v) for k, v in loss.terms.items() if k != "accuracy"), rel=1e-5)


def test_a_batch_without_labels_and_objects_has_a_loss_of_zero_for_them():
    none = [SCANS[0]._replace(label=np.full(len(SCANS[0].label), NONE, np.int16))]
    loss = make_model(TINY, TABLE, None)(batch_of(none))
    assert loss.total.item() == 0


def test_a_backbone_that_sees_more_than_occupancy_is_refused():
    coloured = UNet(NETS["small-4d"], 3, torch.Generator().manual_seed(0), 6)
    with pytest.raises(WeightsError, match="6 input channels: instances and boxes are found from occupancy alone"):
        Scene(coloured, False)


def test_a_score_net_waits_learns_and_judges():
    config = change(TINY, score_net=True, score_after=2, score_channels=4)
    model, batch = make_model(config, TABLE, None), batch_of()
    assert "score" not in model(batch).terms
    model.after_update(2)
    loss = model(batch)
    loss.total.backward()
    assert 0 < float(loss.terms["score"]) < 3
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.score.parameters())
    again = make_model(config, TABLE, None)
    again.load_state_dict(model.state_dict())
    assert "score" in again(batch).terms  # a resumed run goes on judging
    net = ScoreNet(3, 4, Norm(), torch.Generator().manual_seed(0)).eval()
    centre, rows = keyed(1).uniform(0, 2, (60, 3)), [np.arange(40), np.arange(40, 60)]
    given = torch.rand(60, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = net(given, centre, rows[1:])
        torch.testing.assert_close(net(given, centre, rows)[1:], alone, rtol=1e-4, atol=1e-5)


def test_soft_grouping_needs_a_share_of_a_classs_mean_size():
    own = [instances_of(scan, STUFF_CLASSES, 20) for scan in SCANS]
    sizes = mean_sizes(own, 20)
    table = np.mean([(scan.label == 6).sum() / 2 for scan in SCANS])
    assert sizes[6] == pytest.approx(table) and sizes[4] == pytest.approx(table)  # no chair: the mean of all
    task = make_task(change(TINY, soft=True), DATA, None, ALONE)
    assert task.model.grouping().soft == 0.2
    assert task.model.grouping().least[6] == pytest.approx(0.05 * table)


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run that saw one scan often, and what its validations on that scan found."""
    config = change(TINY, steps=90, batch=1, lr=0.1, validate_steps=90, checkpoint_steps=90)
    config = change(config, scale_low=1.0, scale_high=1.0, shift_m=0.0, dropout_share=0.0)
    data = DATA._replace(train=SCANS[:1])
    run = tmp_path_factory.mktemp("runs") / "one"
    items = list(finetune(config, data, None, run, ALONE))
    model = make_model(config, TABLE, None)
    checkpoint.load_weights(checkpoint.newest(run).model, model, "run")
    return config, items[-1].findings, model.eval()


def test_one_scan_is_learned_until_every_instance_is_found(learned):
    _, findings, _ = learned
    assert findings.summary["ap50"] == 1.0
    assert findings.summary["classes"]["table"]["count"] == 2


def test_what_is_found_does_not_depend_on_the_order_of_points(learned):
    config, _, model = learned
    scan = SCANS[0]
    shuffle = keyed(4).permutation(len(scan.point))
    first = predict(model, scan, config.instances, ALONE.device)
    second = predict(model, scan._replace(point=scan.point[shuffle]), config.instances, ALONE.device)
    assert len(first.point) >= 2
    assert np.array_equal(first.score, second.score) and np.array_equal(first.kind, second.kind)
    for own, other in zip(first.point, second.point, strict=True):
        assert np.array_equal(own, np.sort(shuffle[other]))


def test_files_for_the_benchmark_have_a_row_for_every_point_of_the_file(learned, tmp_path):
    config, _, model = learned
    scan = SCANS[0]._replace(row=SCANS[0].row + 1, rows=len(SCANS[0].row) + 3)  # rows that were not finite
    found = predict(model, scan, config.instances, ALONE.device)
    write_benchmark(tmp_path, scan, found, TABLE.ids)
    lines = (tmp_path / "benchmark" / f"{scan.name}.txt").read_text().splitlines()
    assert len(lines) == len(found.point)
    for line, point, kind, score in zip(lines, found.point, found.kind, found.score, strict=True):
        name, number, confidence = line.split()
        mask = np.loadtxt(tmp_path / "benchmark" / name, int)
        assert len(mask) == scan.rows and np.array_equal(np.flatnonzero(mask), point + 1)
        assert int(number) == TABLE.ids[kind] and float(confidence) == pytest.approx(score, abs=1e-6)
