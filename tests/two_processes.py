"""Run by tests in several processes that gloo joins: `python -m tests.two_processes FOLDER WHAT`.

order: two processes train two steps in float64 with frozen norms; any number writes down which sequences each takes.
shared: two processes train two steps with norms that see both of them.
gathered: two processes make one step of each method whose loss looks at all of them.
apart: each process has a run folder of its own, of which only the first one's is ever written, and resumes from it.
"""

import contextlib
import hashlib
import json
import pathlib
import sys

import torch
from torch import distributed, nn

from tests.makers.sequences import make_dataset
from train.config import change
from train.methods.config import PRESETS
from train.methods.pretrain import make, make_stream, pretrain_prepared
from train.run.loop import train
from train.run.world import join_world

CONFIG = change(
    PRESETS["small"],
    predictors="shared",  # as when the golden losses were written
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

SHORT = make_dataset(8, points=120, shape_points=40, t=2)  # half the work a step
# Each with a loss of its own, on frames that may be masked: patches of one voxel, so that some are left.
BASELINES = tuple(f"moving-3d-{name}" for name in ("infonce", "csc", "vicreg", "msc", "distill", "votes"))
GATHERED = ("moving-3d-vicreg", "moving-3d-distill")
SMALL_MASKS = {"mask_patch": 1, "prototypes": 8}


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


def run_free(folder, world, config=CONFIG):
    """Two steps with norms that learn; returns the model."""
    prepared = make(config, make_dataset(8, points=200), world)
    with contextlib.closing(pretrain_prepared(prepared, folder, world)) as records:
        list(records)
    return prepared.model


def run_gathered(folder, world):
    """A step of each method whose loss looks at all processes, with norms that do."""
    for method in GATHERED:
        config = change(CONFIG, method=method, steps=1, shared_norms=True, **SMALL_MASKS)
        with contextlib.closing(pretrain_prepared(make(config, SHORT, world), folder / method, world)) as records:
            list(records)


def run_apart(folder, world):
    """Four steps at once and, with a folder for each process, two and then two more: of all processes the steps that
    they made, and a hash of weights and momentum."""
    found = []
    for run, stops in ((folder / "whole", (4,)), (folder / f"own{world.rank}", (2, 4))):
        for steps in stops:
            prepared = make(change(CONFIG, steps=steps), make_dataset(8, points=200), world)
            with contextlib.closing(pretrain_prepared(prepared, run, world)) as records:
                made = [record.step for record in records]
        sha = hashlib.sha256()
        for value in prepared.model.parameters():
            sha.update(value.detach().numpy().tobytes())
            sha.update(prepared.optimiser.state[value]["momentum_buffer"].numpy().tobytes())
        found.append((made, sha.hexdigest()))
    everyone = [None] * world.size
    distributed.all_gather_object(everyone, found)
    if world.leads:
        (folder / "apart.json").write_text(json.dumps(everyone))


def main(folder: pathlib.Path, what: str) -> None:
    """One process of several."""
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        if what == "apart":
            run_apart(folder, world)
        if what == "gathered":
            run_gathered(folder, world)
        if what == "shared":
            run_free(folder, world, change(CONFIG, shared_norms=True))
        if what != "order":
            return
        if world.size == 2:
            torch.manual_seed(0)  # as fine-tuning does
            run_frozen(folder, world)
            drawn = [None] * world.size
            distributed.all_gather_object(drawn, torch.rand(4).tolist())
            if world.leads:
                (folder / "drawn.json").write_text(json.dumps(drawn))
        todo = make_stream(CONFIG, make_dataset(8, points=200), world).keys_from(3)
        mine = [next(todo) for _ in range(5)]
        everyone = [None] * world.size
        distributed.all_gather_object(everyone, mine)
        if world.leads:
            (folder / "order.json").write_text(json.dumps(everyone))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
