"""One fine-tuning: a run folder as those of other tasks, validated on the test shapes a few times.

<run>/config.json, checkpoint-*, log.jsonl, validation.jsonl, best/   as in fine-tuning of scans
"""

import functools
import pathlib
from typing import NamedTuple

import numpy as np
import torch

from train.config import to_plain
from train.inputs.shapes import Shapes
from train.nets.pooled import Pooled, Trained
from train.run.log import read_lines
from train.run.loop import Plan, Prepared, Running
from train.run.optim import make_optimiser
from train.run.precision import resolve_precision
from train.run.world import World
from train.tasks.classify.batch import ShapeStream
from train.tasks.classify.config import ClassifyConfig
from train.tasks.classify.features import Look, chunks, normalised
from train.tasks.classify.model import Classifier
from train.tasks.classify.svm import score
from train.tasks.finetune import finetune_prepared
from train.tasks.task import Findings, Task


class Named(NamedTuple):
    """A shape of a list of names."""

    name: str


class Sides(NamedTuple):
    """Names of the shapes of both sides, as fine-tuning writes them down."""

    train: list[Named]
    val: list[Named]
    origin: str


class Tuned(NamedTuple):
    """Accuracy and mean of classes of the last validation, and the best accuracy of all, on the test shapes."""

    accuracy: float
    class_mean: float
    best: float


def tune(
    config: ClassifyConfig, trained: Trained, sides: tuple[Shapes, Shapes], run: pathlib.Path, seed: int, world: World
) -> Tuned:
    """Fine-tune, going on from where a run folder is. trained.weights None: from scratch. seed: of head, order and
    draws, and of the whole net from scratch.

    Raises ClassifyError, what `train.run.loop.train` raises.
    """
    train, test = sides
    recipe, own = config.tuning, torch.Generator().manual_seed(seed)
    steps = max(1, round(recipe.epochs * len(train.point) / recipe.batch))
    every = -(-steps // recipe.validations)
    encoder = Pooled(trained.net, recipe.k, own) if trained.weights is None else trained.encoder(recipe.k)
    head = torch.Generator().manual_seed(seed + 1)
    model = Classifier(encoder, len(train.classes), recipe.dropout, recipe.smoothing, head)
    voxel = None if encoder.on_points else config.voxel
    normalised(train, Look(recipe.points, "random", 0, 0))  # refuses shapes with too few points
    stream = ShapeStream(train, recipe, voxel, seed, config.workers)
    look = Look(recipe.points, config.rows, config.voxel, config.seed)
    judge = functools.partial(
        _validate, points=normalised(test, look), label=test.label, voxel=config.voxel, world=world
    )
    running = Running(
        steps=steps, batch=recipe.batch, seed=seed, workers=config.workers, checkpoint_steps=every, log_steps=every
    )
    precision = resolve_precision("auto", world.device)
    lr_at = functools.partial(recipe.optim.lr_at, steps=steps)
    settings = {name: value for name, value in to_plain(config).items() if name != "workers"}
    stored = {"task": "classify", "data": train.digest, "val": test.digest, "seed": seed, "steps": steps}
    stored |= {"weights": trained.digest, "settings": settings}
    prepared = Prepared(
        model, make_optimiser(recipe.optim, model), stream, Plan(running, precision, lr_at, stored, recipe.optim.clip)
    )
    task = Task(model, stream, judge, None)
    names = Sides(*([Named(name) for name in side.name] for side in sides), origin=f"{len(train.point)} shapes")
    for _ in finetune_prepared(task, prepared, names, every, run, world):
        pass
    lines = read_lines(run / "validation.jsonl")
    return Tuned(lines[-1]["accuracy"], lines[-1]["class_mean"], max(line["accuracy"] for line in lines))


def _validate(model: Classifier, points: np.ndarray, label: np.ndarray, voxel: float, world: World) -> Findings:
    """What a model on its device scores on the test shapes (M, N, 3)."""
    model.eval()
    with torch.no_grad():
        logits = [model.logits(clouds) for clouds in chunks(model.encoder, points, voxel, world.device)]
    model.train()
    found = score(label, torch.cat(logits).argmax(1).cpu().numpy(), 0)
    summary = {"accuracy": found.accuracy, "class_mean": found.class_mean}
    return Findings(summary, found.accuracy, summary, f"accuracy {100 * found.accuracy:.2f}", None)
