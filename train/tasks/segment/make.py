"""Segmentation as a task: model, batches, validation and report, from their settings."""

import functools

import torch

from train.inputs.labelled import LabelledData
from train.inputs.labels import NONE, SceneError
from train.inputs.order import Share
from train.nets.unet import NETS
from train.nets.weights import Backbone
from train.run.world import World
from train.tasks.backbone import calibrate, check_extents, make_backbone
from train.tasks.config import FinetuneConfig
from train.tasks.segment.batch import ScanRecipe, ScanStream
from train.tasks.segment.evaluate import Seeing, evaluate
from train.tasks.segment.model import Segmenter
from train.tasks.segment.report import headline, kinds_of, summary, write_results
from train.tasks.task import Findings, Task


def make_model(config: FinetuneConfig, classes: int, weights: Backbone | None) -> Segmenter:
    """A net on the CPU, drawn from the seed, with the backbone's weights where there are any.

    Both arms of a comparison draw the same head. Raises WeightsError where the weights are of another net.
    """
    generator = torch.Generator().manual_seed(config.run.seed)
    backbone = make_backbone(config.backbone, weights, generator)
    return Segmenter(backbone, classes, generator, config.backbone.freeze == "backbone")


def make_stream(config: FinetuneConfig, data: LabelledData, world: World) -> ScanStream:
    """Batches of one process. Raises LoaderError, SceneError."""
    own, run = config.segment, config.run
    classes, use = len(data.table.names), config.backbone
    recipe = ScanRecipe(use.voxel_m, own.voxel_label, classes, own.augmentation, own.max_voxels, use.inputs)
    share = Share(run.batch, world.rank, world.size, run.accumulate)
    if share.part_size == 1:
        check_extents(data.train, use.voxel_m, NETS[use.net].levels)
    return ScanStream(data.train, recipe, share, run.seed, run.workers)


def seeing_of(config: FinetuneConfig, window_voxels: int | None = None, views: int = 1) -> Seeing:
    """How a run's net sees whole scans, with other windows where they are given."""
    most = window_voxels or config.segment.window_voxels
    return Seeing(config.backbone.voxel_m, config.backbone.inputs, most, views)


def validate(model: Segmenter, data: LabelledData, config: FinetuneConfig, device: torch.device) -> Findings:
    """What a model on its device scores on the validation scans."""
    found = evaluate(model, data.val, seeing_of(config), device)
    scored = summary(found, data.table.names)
    figures = {f"{kind}/{name}": scored[kind][name] or 0.0 for kind in kinds_of(scored) for name in ("miou", "macc")}
    return Findings(scored, scored["points"]["miou"] or 0.0, figures, headline(scored), found)


def make(config: FinetuneConfig, data: LabelledData, weights: Backbone | None, world: World) -> Task:
    """The task. A frozen backbone gets statistics of the training scans. Raises WeightsError, LoaderError,
    SceneError."""
    if not any((scan.label != NONE).any() for scan in data.train):
        first = data.train[0].name
        raise SceneError(
            f"no point of {len(data.train)} training scans (first: {first}) has a class, boxes alone: --task detect"
        )
    model = make_model(config, len(data.table.names), weights)
    if model.frozen:
        calibrate(model.backbone, data.train, config.backbone.voxel_m, world.device, config.backbone.inputs)
    judge = functools.partial(validate, data=data, config=config, device=world.device)
    return Task(model, make_stream(config, data, world), judge, write_results)
