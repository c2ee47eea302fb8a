"""Segmentation as a task: model, batches, validation and report, from their settings."""

import functools

import torch

from train.inputs.labelled import LabelledData
from train.inputs.order import Share
from train.nets.weights import Backbone
from train.run.world import World
from train.tasks.backbone import calibrate, make_backbone
from train.tasks.config import FinetuneConfig
from train.tasks.segment.batch import ScanRecipe, ScanStream
from train.tasks.segment.evaluate import evaluate
from train.tasks.segment.model import Segmenter
from train.tasks.segment.report import COUNTED, headline, summary, write_results
from train.tasks.task import Findings, Task


def make_model(config: FinetuneConfig, classes: int, weights: Backbone | None) -> Segmenter:
    """A net on the CPU, drawn from the seed, with the backbone's weights where there are any.

    Both arms of a comparison draw the same head. Raises WeightsError where the weights are of another net.
    """
    generator = torch.Generator().manual_seed(config.run.seed)
    backbone = make_backbone(config.backbone, weights, generator)
    return Segmenter(backbone, classes, generator, config.backbone.freeze == "backbone")


def make_stream(config: FinetuneConfig, data: LabelledData, world: World) -> ScanStream:
    """Batches of one process. Raises LoaderError."""
    own, run = config.segment, config.run
    recipe = ScanRecipe(config.backbone.voxel_m, own.voxel_label, len(data.table.names), own.augmentation)
    share = Share(run.batch, world.rank, world.size, run.accumulate)
    return ScanStream(data.train, recipe, share, run.seed, run.workers)


def validate(model: Segmenter, data: LabelledData, config: FinetuneConfig, device: torch.device) -> Findings:
    """What a model on its device scores on the validation scans."""
    found = evaluate(model, data.val, config.backbone.voxel_m, device)
    scored = summary(found, data.table.names)
    figures = {f"{kind}/{name}": scored[kind][name] or 0.0 for kind in COUNTED for name in ("miou", "macc")}
    return Findings(scored, scored["points"]["miou"] or 0.0, figures, headline(scored), found)


def make(config: FinetuneConfig, data: LabelledData, weights: Backbone | None, world: World) -> Task:
    """The task. A frozen backbone gets statistics of the training scans. Raises WeightsError, LoaderError."""
    model = make_model(config, len(data.table.names), weights)
    if model.frozen:
        calibrate(model.backbone, data.train, config.backbone.voxel_m, world.device)
    judge = functools.partial(validate, data=data, config=config, device=world.device)
    return Task(model, make_stream(config, data, world), judge, write_results)
