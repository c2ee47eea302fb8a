"""Pre-training from a data set to a run folder: puts a method, its batches, its optimiser and the loop together.

A method is a folder that gives `make_model`, `make_stream` and `describe_backbone`. Its model returns a `Loss` for a
batch and says by `forwards` what a batch costs; one with a target that follows by a moving average has
`after_update(step)` besides.
"""

import functools
import pathlib
from collections.abc import Iterator

import torch
from torch import nn

from train.config import to_plain
from train.inputs.order import Share
from train.inputs.stream import Stream
from train.methods.config import FREE, PretrainConfig
from train.methods.contrast4d import config as contrast4d_config
from train.methods.contrast4d import make as contrast4d
from train.nets import backends
from train.run import checkpoint
from train.run.log import Record
from train.run.loop import Plan, Prepared, train
from train.run.optim import make_optimiser
from train.run.precision import resolve_precision
from train.run.world import World


def _maker(method: str):
    """The module that makes a method's model and batches."""
    match method:
        case name if name in contrast4d_config.METHODS:
            return contrast4d
    raise ValueError(f"method {method}: named in the settings, and no folder makes it")


def make_model(config: PretrainConfig) -> nn.Module:
    """The method's nets on the CPU, with weights drawn from the seed."""
    return _maker(config.method).make_model(config)


def make_stream(config: PretrainConfig, dataset, world: World) -> Stream:
    """Batches of one process. dataset: as `gen4d.shards.open_dataset` gives it. Raises LoaderError."""
    share = Share(config.run.batch, world.rank, world.size, config.run.accumulate)
    return _maker(config.method).make_stream(config, dataset, share)


def make(config: PretrainConfig, dataset, world: World) -> Prepared:
    """All that the loop needs, on the CPU. Raises ConfigError, LoaderError."""
    model, precision = make_model(config), resolve_precision(config.run.precision, world.device)
    backends.use(config.run.backend, precision, world.device)
    lr_at = functools.partial(config.optim.lr_at, steps=config.run.steps)
    plan = Plan(config.run, precision, lr_at, stored_config(config, dataset, precision), config.optim.clip)
    return Prepared(model, make_optimiser(config.optim, model), make_stream(config, dataset, world), plan)


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
