"""Detection as a task: model, batches, validation and report, from their settings."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

from train.inputs.labelled import LabelledData
from train.inputs.labels import NONE, LabelTable, SceneError
from train.inputs.objects import Boxes, aligned, boxes_of, stuff_classes, warn_of_alignment, with_instances
from train.inputs.order import Share, keyed_generator
from train.inputs.scans import LabelledScan
from train.nets.pointnet2 import PointNet2
from train.nets.unet import NETS, Norm, UNet
from train.nets.weights import Backbone
from train.run.world import World
from train.tasks.backbone import WeightsError, calibrate, check_extents, make_backbone
from train.tasks.config import FinetuneConfig
from train.tasks.detect.batch import DetectStream, draw_sample, named_generator
from train.tasks.detect.evaluate import evaluate
from train.tasks.detect.model import VoteNet
from train.tasks.detect.report import headline, summary, write_results
from train.tasks.scene import fixed_order
from train.tasks.task import Findings, Task


def object_classes(config: FinetuneConfig, table: LabelTable) -> list[int]:
    """Classes of the table that have boxes. Raises SceneError."""
    surrounding = stuff_classes(table, config.detect.surrounding)
    return [c for c in range(len(table.names)) if c not in surrounding]


def boxes_of_scan(scan: LabelledScan, config: FinetuneConfig, table: LabelTable) -> Boxes:
    """A scan's boxes, their classes counted among those of objects; none where it has no labels. Points come in a fixed
    order, in training as at test: where a scan starts decides which voxels become seeds."""
    objects = object_classes(config, table)
    if scan.label is None:
        none = np.zeros(0, np.int64)
        return Boxes(aligned(scan), np.zeros((0, 7)), none, np.full(len(scan.point), NONE, np.int32))
    found = boxes_of(scan, frozenset(range(len(table.names))) - set(objects), len(table.names))
    found = found._replace(kind=np.searchsorted(objects, found.kind))
    order = fixed_order(found.point)
    if np.array_equal(order, np.arange(len(order))):
        return found
    return found._replace(point=found.point[order], owner=None if found.owner is None else found.owner[order])


def draw_boxes(name: str, scan: Boxes, count: int, seed: int) -> Boxes:
    """A scan with `count` of its boxes, drawn by the seed and the scan's name; smaller draws lie in larger ones. Points
    of the others belong to none, so the net is taught that there is nothing, as in the benchmark's limited boxes."""
    drawn = keyed_generator(seed, zlib.crc32(name.encode()), 0).permutation(len(scan.box))[:count]
    kept = np.sort(drawn)
    owner = scan.owner
    if owner is not None:
        number_of = np.full(len(scan.box) + 1, NONE, np.int32)  # the last one: of points of no box
        number_of[kept] = np.arange(len(kept))
        owner = number_of[owner]
    return scan._replace(box=scan.box[kept], kind=scan.kind[kept], owner=owner)


def make_model(config: FinetuneConfig, table: LabelTable, weights: Backbone | None) -> VoteNet:
    """A net on the CPU, drawn from the seed, with the backbone's weights where there are any. Raises WeightsError,
    SceneError."""
    use = config.backbone
    generator = torch.Generator().manual_seed(config.run.seed)
    norm, classes = Norm(momentum=use.norm_momentum), len(object_classes(config, table))
    if config.detect.seen_by == "pointnet2":
        if weights is not None or use.freeze == "backbone":
            raise WeightsError("seen_by = pointnet2: it starts from scratch: --weights none, and freeze=nothing")
        backbone: UNet | PointNet2 = PointNet2(generator, norm)
    else:
        backbone = make_backbone(use, weights, generator)
    return VoteNet(backbone, classes, config.detect, norm, generator, use.freeze == "backbone")


def mean_sizes(scans: Sequence[Boxes], classes: int) -> np.ndarray:
    """Mean size (K, 3) of a class's boxes; of classes without any, that of all boxes. Raises SceneError for none."""
    box, kind = np.concatenate([scan.box for scan in scans]), np.concatenate([scan.kind for scan in scans])
    if not len(box):
        raise SceneError(f"no object in {len(scans)} training scans: give scans with instances of the classes")
    sizes = np.tile(box[:, 3:6].mean(axis=0), (classes, 1))
    for c in np.unique(kind):
        sizes[c] = box[kind == c, 3:6].mean(axis=0)
    return sizes


def _sampled(scan: LabelledScan, boxes: Boxes, most: int) -> LabelledScan:
    """A scan's points as the net sees them at test."""
    return scan._replace(point=boxes.point[draw_sample(len(boxes.point), most, named_generator(scan.name))])


def make(config: FinetuneConfig, data: LabelledData, weights: Backbone | None, world: World) -> Task:
    """The task. Scans without instances are left out with a warning. Raises WeightsError, LoaderError, SceneError."""
    own, table, run, voxel_m = config.detect, data.table, config.run, config.backbone.voxel_m
    names = [table.names[c] for c in object_classes(config, table)]
    train, val = with_instances(data.train, "training", True), with_instances(data.val, "validation", True)
    warn_of_alignment([*train, *val], "training and validation")
    learned = [boxes_of_scan(scan, config, table) for scan in train]
    if own.boxes_per_scan:
        seed = config.labels.subset_seed
        learned = [
            draw_boxes(scan.name, boxes, own.boxes_per_scan, seed) for scan, boxes in zip(train, learned, strict=True)
        ]
    judged = [(scan.name, boxes_of_scan(scan, config, table)) for scan in val]
    model = make_model(config, table, weights)
    model.mean_size.copy_(torch.from_numpy(mean_sizes(learned, len(names))))
    if model.frozen:
        seen = [_sampled(scan, boxes, own.sample) for scan, boxes in zip(train, learned, strict=True)]
        calibrate(model.backbone, seen, voxel_m, world.device)
    share = Share(run.batch, world.rank, world.size, run.accumulate)
    if share.part_size == 1 and own.seen_by == "unet":
        check_extents(train, voxel_m, NETS[config.backbone.net].levels)
    stream = DetectStream([scan.name for scan in train], learned, voxel_m, own, share, run.seed, run.workers)

    def validate(model: VoteNet) -> Findings:
        found = evaluate(model, judged, voxel_m, world.device)
        scored = summary(found, names)
        figures = {name: scored[name] or 0.0 for name in ("ap25", "ap50")}
        return Findings(scored, scored["ap50"] or 0.0, figures, headline(scored), found)

    return Task(model, stream, validate, write_results)
