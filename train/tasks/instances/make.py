"""Instance segmentation as a task: model, batches, validation and report, from their settings."""

import functools

import numpy as np
import torch

from train.inputs.labelled import LabelledData
from train.inputs.labels import LabelTable, SceneError
from train.inputs.objects import instances_of, stuff_classes, with_instances
from train.inputs.order import Share
from train.nets.unet import NETS, Norm
from train.nets.weights import Backbone
from train.run.world import World
from train.tasks.backbone import calibrate, check_extents, make_backbone
from train.tasks.config import FinetuneConfig
from train.tasks.instances.batch import InstanceRecipe, InstanceStream
from train.tasks.instances.evaluate import evaluate
from train.tasks.instances.group import Grouping
from train.tasks.instances.model import Grouper
from train.tasks.instances.report import headline, summary, write_results
from train.tasks.task import Findings, Task


def make_model(config: FinetuneConfig, table: LabelTable, weights: Backbone | None, least=None) -> Grouper:
    """A net on the CPU, drawn from the seed, with the backbone's weights where there are any. least (K,): points of a
    cluster; by default what the settings say, and a checkpoint overwrites it. Raises WeightsError, SceneError."""
    own, use = config.instances, config.backbone
    generator = torch.Generator().manual_seed(config.run.seed)
    backbone = make_backbone(use, weights, generator)
    stuff = tuple(sorted(stuff_classes(table, own.stuff)))
    least = np.full(len(table.names), float(own.least_points)) if least is None else least
    how = Grouping(stuff, own.radius_m, own.both_sets, own.soft_share if own.soft else None, least)
    score = (own.score_channels if own.score_net else 0, own.score_after)
    norm = Norm(momentum=use.norm_momentum)
    return Grouper(backbone, how, use.voxel_m, norm, generator, use.freeze == "backbone", *score)


def make(config: FinetuneConfig, data: LabelledData, weights: Backbone | None, world: World) -> Task:
    """The task. Scans without instances are left out with a warning. Raises WeightsError, LoaderError, SceneError."""
    own, table, run = config.instances, data.table, config.run
    stuff, classes = stuff_classes(table, own.stuff), len(table.names)
    train, val = with_instances(data.train, "training"), with_instances(data.val, "validation")
    instances = [instances_of(scan, stuff, classes) for scan in train]
    if not any((one.kind >= 0).any() for one in instances):
        raise SceneError(f"no object in {len(train)} training scans: give scans with instances of the classes")
    least = np.full(classes, float(own.least_points))
    if own.soft:
        least = np.maximum(own.soft_size * mean_sizes(instances, classes), 1)
    model = make_model(config, table, weights, least)
    if model.frozen:
        calibrate(model.backbone, train, config.backbone.voxel_m, world.device)
    recipe = InstanceRecipe(config.backbone.voxel_m, classes, config.segment.augmentation, config.segment.max_voxels)
    share = Share(run.batch, world.rank, world.size, run.accumulate)
    if share.part_size == 1:
        check_extents(train, config.backbone.voxel_m, NETS[config.backbone.net].levels)
    stream = InstanceStream(train, instances, recipe, share, run.seed, run.workers)

    def validate(model: Grouper) -> Findings:
        found = evaluate(model, val, own, world.device)
        scored = summary(found, table.names, stuff)
        figures = {name: scored[name] or 0.0 for name in ("ap", "ap50", "ap25")}
        return Findings(scored, scored["ap50"] or 0.0, figures, headline(scored), found)

    return Task(model, stream, validate, functools.partial(write_results, stuff=stuff))


def mean_sizes(instances, classes: int) -> np.ndarray:
    """Mean number of points (K,) of a class's instances; of classes without any, that of all instances."""
    total, count = np.zeros(classes), np.zeros(classes)
    for one in instances:
        size = np.bincount(one.number[one.number >= 0], minlength=len(one.kind))
        counted = one.kind >= 0
        total += np.bincount(one.kind[counted], size[counted], classes)
        count += np.bincount(one.kind[counted], minlength=classes)
    overall = total.sum() / max(count.sum(), 1)
    return np.where(count > 0, total / np.maximum(count, 1), overall)
