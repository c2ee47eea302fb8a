"""Pre-training from a data set to a run folder: puts a method, its batches, its optimiser and the loop together.

A method is a folder that gives `make_model`, `make_stream` and `describe_backbone`. Its model returns a `Loss` for a
batch and says by `forwards` what a batch costs; one with a target that follows by a moving average has
`after_update(step)` besides.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import torch
from torch import nn

from train.config import ConfigError, change, to_plain
from train.inputs.order import Share
from train.inputs.stream import Stream
from train.methods.config import FREE, PretrainConfig
from train.methods.contrast4d import config as contrast4d_config
from train.methods.contrast4d import make as contrast4d
from train.methods.distill import config as distill_config
from train.methods.distill import make as distill
from train.methods.strl import make as strl
from train.nets import backends
from train.run import checkpoint
from train.run.log import Record
from train.run.loop import Plan, Prepared, train
from train.run.optim import Optim, make_optimiser
from train.run.precision import resolve_precision
from train.run.world import World

BLOCK_SCANS = 32  # of a data set behind a URL


def _maker(method: str):
    """The module that makes a method's model and batches."""
    match method:
        case name if name in contrast4d_config.METHODS:
            return contrast4d
        case name if name in distill_config.METHODS:
            return distill
        case "strl":
            return strl
    raise ValueError(f"method {method}: named in the settings, and no folder makes it")


def make_model(config: PretrainConfig) -> nn.Module:
    """The method's nets on the CPU, with weights drawn from the seed."""
    return _maker(config.method).make_model(config)


def make_stream(config: PretrainConfig, dataset, world: World) -> Stream:
    """Batches of one process. dataset: as `gen4d.shards.open_dataset` gives it. Raises LoaderError."""
    share = Share(config.run.batch, world.rank, world.size, config.run.accumulate)
    return _maker(config.method).make_stream(with_blocks(config, dataset), dataset, share)


def with_blocks(config: PretrainConfig, dataset) -> PretrainConfig:
    """The settings with the number of scans to shuffle among, which a run keeps wherever its data go."""
    if config.block_scans is not None:
        return config
    return change(config, block_scans=max(1, len(dataset.scan_names)) if dataset.local else BLOCK_SCANS)


def make(config: PretrainConfig, dataset, world: World) -> Prepared:
    """All that the loop needs, on the CPU. Raises ConfigError, LoaderError."""
    config = with_blocks(config, dataset)
    model, precision = make_model(config), resolve_precision(config.run.precision, world.device)
    backends.use(config.run.backend, precision, world.device)
    lr_at = functools.partial(_with_warmup(config, len(dataset)).lr_at, steps=config.run.steps)
    plan = Plan(config.run, precision, lr_at, stored_config(config, dataset, precision), config.optim.clip)
    return Prepared(model, make_optimiser(config.optim, model), make_stream(config, dataset, world), plan)


def _with_warmup(config: PretrainConfig, sequences: int) -> Optim:
    """The optimiser's settings, with the steps of `warmup_epochs` added. Raises ConfigError."""
    steps = config.optim.warmup_steps + round(config.warmup_epochs * sequences / config.run.batch)
    if steps >= config.run.steps and config.warmup_epochs:
        rule = f"{steps} steps of {config.run.steps} would be of the warm-up: set fewer, or more run.steps"
        raise ConfigError(f"warmup_epochs = {config.warmup_epochs:g}: {rule}")
    return dataclasses.replace(config.optim, warmup_steps=steps)


def stored_config(config: PretrainConfig, dataset, precision: str) -> dict:
    """What a run and its checkpoints remember: a rerun must ask for the same, but for `FREE`."""
    settings = to_plain(config)
    settings["run"]["precision"] = precision
    facts = {"task": "pretrain", "data": dataset.digest, "backbone": _maker(config.method).describe_backbone(config)}
    return facts | {"scans": list(dataset.scan_names), "settings": settings}


def pretrain(config: PretrainConfig, dataset, run: pathlib.Path, world: World) -> Iterator[Record]:
    """Pre-train in a run folder, going on from where it is; yields the log's records.

    Raises what `train.run.loop.train` raises, LoaderError, BatchError.
    """
    yield from pretrain_prepared(make(config, dataset, world), run, world)


def pretrain_prepared(prepared: Prepared, run: pathlib.Path, world: World) -> Iterator[Record]:
    """The same for what `make` gave."""
    torch.manual_seed(prepared.plan.running.seed)  # for methods that draw while they train; weights have their own
    with checkpoint.claimed(run, prepared.plan.stored, FREE, world):
        yield from train(prepared, run, world)
