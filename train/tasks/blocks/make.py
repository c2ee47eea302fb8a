"""Segmentation by blocks as a task: model, batches, validation and report, from their settings."""

import functools

import torch

from train.inputs.labelled import LabelledData
from train.inputs.order import Share
from train.nets.pooled import make_backbone
from train.nets.weights import Backbone
from train.run.world import World
from train.tasks.backbone import WeightsError
from train.tasks.blocks.batch import BlockStream
from train.tasks.blocks.evaluate import evaluate
from train.tasks.blocks.model import BlockSegmenter
from train.tasks.config import FinetuneConfig
from train.tasks.segment.report import headline, kinds_of, summary, write_results
from train.tasks.task import Findings, Task

_FIGURES = ("miou", "macc", "accuracy")


def make_model(config: FinetuneConfig, classes: int, weights: Backbone | None) -> BlockSegmenter:
    """A net on the CPU, drawn from the seed, with the backbone's weights where there are any. Both arms of a comparison
    draw the same head. Raises WeightsError where the weights are of another net."""
    own, net = config.blocks, config.backbone.net
    generator = torch.Generator().manual_seed(config.run.seed)
    backbone = make_backbone(net, own.k, generator)
    if weights is not None:
        if weights.name != net:
            raise WeightsError(
                f"--weights are of the net {weights.name}, the run is of {net}: --set net={weights.name}"
            )
        backbone.load_state_dict(weights.net.state_dict())
    return BlockSegmenter(backbone, classes, own.head_dropout, own.smoothing, generator)


def validate(model: BlockSegmenter, data: LabelledData, config: FinetuneConfig, device: torch.device) -> Findings:
    """What a model on its device scores on the validation scans."""
    found = evaluate(model, data.val, config.blocks, device)
    scored = summary(found, data.table.names)
    figures = {f"{kind}/{name}": scored[kind][name] or 0.0 for kind in kinds_of(scored) for name in _FIGURES}
    return Findings(scored, scored["sampled"]["miou"] or 0.0, figures, headline(scored), found)


def make(config: FinetuneConfig, data: LabelledData, weights: Backbone | None, world: World) -> Task:
    """The task. Raises WeightsError, LoaderError, SceneError."""
    run = config.run
    model = make_model(config, len(data.table.names), weights)
    share = Share(run.batch, world.rank, world.size, run.accumulate)
    stream = BlockStream(data.train, config.blocks, share, run.seed, run.workers)
    judge = functools.partial(validate, data=data, config=config, device=world.device)
    return Task(model, stream, judge, write_results)
