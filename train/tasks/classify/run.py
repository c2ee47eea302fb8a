"""Pre-trained encoders, random ones and simple features on labelled shapes: everything that is measured, in its order.

<run>/config.json     what is measured; a rerun must ask for the same
<run>/lines.jsonl     a line a measurement; a rerun goes on after the last one
<run>/tuned/*         run folders of fine-tuning
<run>/results.json, results.md, features.png

Arms. `pretrained` and its floors `random` and `simple`; fine-tuned, `pretrained` against `scratch`. The n-th
pre-trained encoder is compared with the random one of seed n.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gen4d import files
from train.config import to_plain
from train.inputs.order import keyed_generator
from train.inputs.shapes import LabelledShapesError, Shapes, few_rows, folds_of, has_parts, read_shapes, same_classes
from train.nets.pooled import Trained
from train.run import checkpoint
from train.run.log import read_lines
from train.run.world import World
from train.tasks.classify import svm
from train.tasks.classify.config import FREE, ClassifyConfig
from train.tasks.classify.features import Look, features_of, normalised, random_encoder, simple_features
from train.tasks.classify.tune import tune


class Data(NamedTuple):
    """All shapes, and the rows (train, test) of each side of every split of them."""

    shapes: Shapes
    splits: list[tuple[np.ndarray, np.ndarray]]


def read_data(path: pathlib.Path, folds: int | None, seed: int) -> Data:
    """Labelled shapes: their own parts, or folds that never share a maker. Raises LabelledShapesError, SourceError."""
    if folds is None and has_parts(path):
        train, test = read_shapes(path, "train"), read_shapes(path, "test")
        same_classes(path, train, test)
        _check_several(path, train)
        both = Shapes(
            train.name + test.name,
            [*train.point, *test.point],
            np.concatenate([train.label, test.label]),
            train.group + test.group,
            train.classes,
        )
        rows = np.flatnonzero(both.label >= 0)
        cut = int((rows < len(train.name)).sum())
        return Data(both.of(rows), [(np.arange(cut), np.arange(cut, len(rows)))])
    shapes = read_shapes(path, None)
    _check_several(path, shapes)
    shapes = shapes.of(np.flatnonzero(shapes.label >= 0))
    fold = folds_of(shapes, folds or 3, seed)
    count = int(fold.max()) + 1
    return Data(shapes, [(np.flatnonzero((fold >= 0) & (fold != f)), np.flatnonzero(fold == f)) for f in range(count)])


def _check_several(path: pathlib.Path, shapes: Shapes) -> None:
    """Raises LabelledShapesError where there is nothing to tell apart."""
    if len(shapes.classes) < 2:
        raise LabelledShapesError(f"{path}: all shapes are of the class {shapes.classes[0]}: give two classes at least")


class Lines:
    """Measurements that are kept: each is made once, whatever it takes to finish all."""

    def __init__(self, path: pathlib.Path, say: Callable[[str], None]):
        self._path, self._say, self.all = path, say, read_lines(path)

    def measure(self, key: dict, do: Callable[[], dict]) -> None:
        """The line of a key: made unless it is there."""
        if any(key.items() <= line.items() for line in self.all):
            return
        self.all.append(key | do())
        files.write(self._path, "".join(json.dumps(line) + "\n" for line in self.all).encode())
        self._say("  ".join(f"{name} {_short(value)}" for name, value in self.all[-1].items()))


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def classify(
    config: ClassifyConfig,
    data: Data,
    encoders: Sequence[tuple[str, Trained]],
    run: pathlib.Path,
    world: World,
    say: Callable[[str], None],
) -> list[dict]:
    """Measure all arms in a run folder, going on from where it is; returns the lines of all measurements.

    encoders: names and pre-trained backbones, of one net, which differ in their seeds; none: floors alone.

    Raises ClassifyError, CheckpointError, what `train.run.loop.train` raises.
    """
    stored = {"task": "classify", "data": data.shapes.digest, "splits": [list(map(len, side)) for side in data.splits]}
    stored |= {"weights": [trained.digest for _, trained in encoders], "settings": to_plain(config)}
    with checkpoint.claimed(run, stored, FREE, world):
        lines = Lines(run / "lines.jsonl", say)
        _frozen(config, data, encoders, lines, world)
        _tuned(config, data, encoders, run, lines, world)
        return lines.all


def base_of(config: ClassifyConfig, encoders: Sequence[tuple[str, Trained]]) -> Trained:
    """The net of all arms, without weights."""
    return encoders[0][1]._replace(weights=None) if encoders else Trained(config.net, config.k, None, config.voxel)


def _frozen(config: ClassifyConfig, data: Data, encoders, lines: Lines, world: World) -> None:
    """Linear machines on frozen features of every arm."""
    points = normalised(data.shapes, Look(config.points, config.rows, config.voxel, config.seed))
    given = (points, config.voxel, world)
    for seed, (_, trained) in enumerate(encoders):
        _judge(config, data, lines, ("pretrained", seed), functools.partial(_pretrained_features, trained, *given))
    learned = points[data.splits[0][0]]
    for seed in range(max(1, len(encoders))):
        random = (base_of(config, encoders), learned, config.voxel, config.seed + seed, world.device)
        _judge(config, data, lines, ("random", seed), functools.partial(_random_features, random, *given))
    _judge(config, data, lines, ("simple", 0), functools.partial(simple_features, points, config.seed))


def _pretrained_features(trained: Trained, points: np.ndarray, voxel: float, world: World) -> np.ndarray:
    return features_of(trained.encoder(), points, voxel, world.device)


def _random_features(random: tuple, points: np.ndarray, voxel: float, world: World) -> np.ndarray:
    return features_of(random_encoder(*random), points, voxel, world.device)


def _judge(config: ClassifyConfig, data: Data, lines: Lines, arm: tuple[str, int], make: Callable) -> None:
    """Lines of one encoder; its features are made once, and only if a line is missing."""
    features = functools.cache(make)
    for fold, sides in enumerate(data.splits):
        for rule in ("1", "chosen"):
            key = {"kind": "svm", "arm": arm[0], "seed": arm[1], "fold": fold, "rule": rule}
            lines.measure(key, functools.partial(_svm, config, data.shapes.label, sides, rule, features))


def _svm(config: ClassifyConfig, label: np.ndarray, sides, rule: str, make: Callable[[], np.ndarray]) -> dict:
    (train, test), features, cost = sides, make(), 1.0
    if rule == "chosen":
        rng = keyed_generator(config.seed, 2, 0)
        cost = svm.choose_cost(features[train], label[train], config.costs, config.held_out, rng)
    predicted = svm.fit(features[train], label[train], features[test], cost)
    return svm.score(label[test], predicted, cost)._asdict()


def _tuned(config: ClassifyConfig, data: Data, encoders, run: pathlib.Path, lines: Lines, world: World) -> None:
    """Fine-tuning of every share of the labels, from pre-trained weights and from scratch."""
    base = base_of(config, encoders)
    for percent in config.tuning.percents:
        for subset in range(config.tuning.subsets if percent < 100 else 1):
            for fold, (train, test) in enumerate(data.splits):
                rows = train[few_rows(data.shapes.label[train], percent, config.seed + subset)]
                sides = data.shapes.of(rows), data.shapes.of(test)
                for seed in range(max(1, len(encoders))):
                    arms = {"scratch": base} | ({"pretrained": encoders[seed][1]} if encoders else {})
                    for arm, trained in arms.items():
                        key = {"kind": "tuned", "percent": percent, "arm": arm}
                        key |= {"seed": seed, "fold": fold, "subset": subset}
                        folder = run / "tuned" / f"{percent:g}-{arm}-{seed}-{fold}-{subset}"
                        once = (config, trained, sides, folder, config.seed + seed, world)
                        lines.measure(key, functools.partial(_tune, once))


def _tune(given: tuple) -> dict:
    return {"shapes": len(given[2][0].name)} | tune(*given)._asdict()
