"""Pre-training from a data set to a run folder: puts loader, method, optimiser and loop together."""

import pathlib
from collections.abc import Iterator

import numpy as np
import torch

from train import checkpoint
from train.loader import Loader, Order, Share
from train.log import Record
from train.loop import Plan, train
from train.methods.contrast import Contrast
from train.presets import FREE, ConfigError, PretrainConfig, to_plain
from train.world import World

SELF_CHECK = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
DTYPE = {
    "float16": torch.float32,
    "float32": torch.float32,
    "float64": torch.float64,
}  # of weights; float16 by autocast


def resolve_precision(config: PretrainConfig, device: torch.device) -> str:
    """What `precision` means on a device. Raises ConfigError for float16 without CUDA."""
    if config.precision == "auto":
        return "float16" if device.type == "cuda" else "float32"
    if config.precision == "float16" and device.type != "cuda":
        raise ConfigError("precision = float16: needs CUDA; set precision=float32 on a CPU")
    return config.precision


def make_model(config: PretrainConfig) -> Contrast:
    """The method's nets on the CPU, with weights drawn from the seed."""
    return Contrast(config.contrast(), torch.Generator().manual_seed(config.seed))


def make_loader(config: PretrainConfig, dataset, rank: int = 0, size: int = 1) -> Loader:
    """Batches of one process out of `size`."""
    scan_of = np.array([dataset.scan_of(i) for i in range(len(dataset))])
    order = Order(scan_of, config.seed, config.block_scans)
    share = Share(config.batch, rank, size, config.accumulate)
    return Loader(dataset, order, config.recipe(), share, config.seed, config.workers)


def stored_config(config: PretrainConfig, dataset, precision: str) -> dict:
    """What a run and its checkpoints remember: a rerun must ask for the same, but for `presets.FREE`."""
    return {"task": "pretrain", "data": dataset.digest} | to_plain(config) | {"precision": precision}


def make_optimiser(config: PretrainConfig, model: torch.nn.Module) -> torch.optim.SGD:
    """SGD over all parameters."""
    rates = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    return torch.optim.SGD(model.parameters(), **rates)


def make_plan(config: PretrainConfig, precision: str, stored: dict) -> Plan:
    """The loop's part of a configuration; `stored` goes into every checkpoint."""
    same = {name: getattr(config, name) for name in Plan._fields if hasattr(config, name)}
    return Plan(**same | {"precision": precision, "config": stored})


def pretrain(config: PretrainConfig, dataset, run: pathlib.Path, world: World) -> Iterator[Record]:
    """Pre-train in a run folder, going on from where it is; yields the log's records.

    dataset: as `gen4d.shards.open_dataset` gives it. Raises what `train.loop.train` raises, LoaderError, BatchError.
    """
    precision = resolve_precision(config, world.device)
    stored = stored_config(config, dataset, precision)
    loader = make_loader(config, dataset, world.rank, world.size)
    model = make_model(config).to(world.device, DTYPE[precision])
    torch.manual_seed(config.seed)  # for methods that draw while they train; weights have a generator of their own
    if world.leads:
        checkpoint.claim(run, stored, FREE)
    world.wait()
    yield from train(
        model, make_optimiser(config, model), loader.batches, make_plan(config, precision, stored), run, world
    )
