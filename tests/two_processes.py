"""Run by tests in several processes that gloo joins: `python -m tests.two_processes FOLDER`.

Two processes train two steps in float64 with frozen norms; any number writes down which sequences each process takes.
"""

import contextlib
import dataclasses
import json
import pathlib
import sys

import torch
from torch import distributed, nn

from tests.makers.sequences import make_dataset
from train import pretrain
from train.loop import train
from train.presets import PRESETS

CONFIG = dataclasses.replace(
    PRESETS["small"],
    net_3d="small-4d",
    width=8,
    hidden=4,
    samples=16,
    voxel_m=0.2,
    voxel_4d_m=0.4,
    batch=4,
    lr=0.05,
    steps=2,
    workers=1,
    precision="float64",
)


def freeze_norms(model):
    """Norms use their running statistics: what they see no longer depends on how a batch is split."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    return model


def run_frozen(folder, world, config=CONFIG):
    """Two steps; returns the model and the log's records."""
    loader = pretrain.make_loader(config, make_dataset(8, points=200), world.rank, world.size)
    model = freeze_norms(pretrain.make_model(config).double())
    plan = pretrain.make_plan(config, "float64", {})
    with contextlib.closing(
        train(model, pretrain.make_optimiser(config, model), loader.batches, plan, folder, world)
    ) as r:
        records = list(r)
    return model, records


def main(folder: pathlib.Path) -> None:
    """One process of several."""
    from train.world import join_world

    torch.set_num_threads(1)
    with join_world("cpu") as world:
        if world.size == 2:
            run_frozen(folder, world)
        loader = pretrain.make_loader(CONFIG, make_dataset(8, points=200), world.rank, world.size)
        todo = loader.jobs_from(3)
        mine = [next(todo) for _ in range(5)]
        everyone = [None] * world.size
        distributed.all_gather_object(everyone, mine)
        if world.leads:
            (folder / "order.json").write_text(json.dumps(everyone))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
