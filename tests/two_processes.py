"""Run by tests in several processes that gloo joins: `python -m tests.two_processes FOLDER`.

Two processes train two steps in float64 with frozen norms; any number writes down which sequences each process takes.
"""

import contextlib
import json
import pathlib
import sys

import torch
from torch import distributed, nn

from tests.make_sequences import make_dataset
from train.config import change
from train.methods.config import PRESETS
from train.methods.pretrain import make, make_stream
from train.run.loop import train
from train.run.world import join_world

CONFIG = change(
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
    prepared = make(config, make_dataset(8, points=200), world)
    freeze_norms(prepared.model)
    with contextlib.closing(train(prepared, folder, world)) as records:
        return prepared.model, list(records)


def main(folder: pathlib.Path) -> None:
    """One process of several."""
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        if world.size == 2:
            run_frozen(folder, world)
        todo = make_stream(CONFIG, make_dataset(8, points=200), world).keys_from(3)
        mine = [next(todo) for _ in range(5)]
        everyone = [None] * world.size
        distributed.all_gather_object(everyone, mine)
        if world.leads:
            (folder / "order.json").write_text(json.dumps(everyone))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
