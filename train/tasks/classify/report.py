"""Tables and a picture of what was measured on shapes. The unit is the pre-trained model: its figure is the mean over
folds and subsets, and a table has the mean and standard deviation over models, and their number."""

import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from gen4d import files
from train.tasks.classify.config import ClassifyConfig
from train.tasks.classify.features import Look, features_of, normalised, random_encoder
from train.tasks.classify.run import Data, base_of
from train.tasks.tables import aligned

_TITLES = {"pretrained": "pre-trained", "random": "random encoder", "simple": "simple features", "scratch": "scratch"}
_COLOURS = 10  # after which a picture's markers change


def write_report(run: pathlib.Path, lines: Sequence[dict], about: dict) -> list[str]:
    """Write results.json and results.md; returns the lines of the latter. about: what explains the numbers."""
    svm = [_svm_row(lines, arm, rule) for arm in ("pretrained", "random", "simple") for rule in ("1", "chosen")]
    svm = [row for row in svm if row]
    percents = sorted({line["percent"] for line in lines if line["kind"] == "tuned"}, reverse=True)
    tuned = [_tuned_row(lines, percent, arm) for percent in percents for arm in ("pretrained", "scratch")]
    tuned = [row for row in tuned if row]
    text = ["Linear SVM on frozen features, % of test shapes", ""]
    head = ["features", "C", "accuracy", "mean of classes", "n"]
    text += aligned(head, [[row[name] for name in head] for row in svm])
    if tuned:
        head = ["labels", "from", "shapes", "last", "best of validations", "n"]
        text += ["", "Fine-tuned, % of test shapes", ""]
        text += aligned(head, [[row[name] for name in head] for row in tuned])
    text += ["", f"{about['data']}; {about['machine']}", "best: chosen on the test shapes, only for comparison"]
    files.write(run / "results.md", ("\n".join(text) + "\n").encode())
    files.write(run / "results.json", json.dumps({"svm": svm, "tuned": tuned} | about, indent=1).encode() + b"\n")
    return text


def per_seed(lines: Sequence[dict], figure: str, **key) -> list[float]:
    """A figure of each pre-trained model, mean over its folds and subsets, of the lines that have a key."""
    values: dict[int, list[float]] = {}
    for line in lines:
        if key.items() <= line.items():
            values.setdefault(line["seed"], []).append(line[figure])
    return [float(np.mean(values[seed])) for seed in sorted(values)]


def spoken(values: Sequence[float]) -> str:
    """Mean and, of several, standard deviation, of shares as per cent."""
    mean = f"{100 * np.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}"


def _svm_row(lines: Sequence[dict], arm: str, rule: str) -> dict | None:
    key = {"kind": "svm", "arm": arm, "rule": rule}
    found = per_seed(lines, "accuracy", **key)
    if not found:
        return None
    costs = sorted({line["cost"] for line in lines if key.items() <= line.items()})
    cost = "1" if rule == "1" else "chosen: " + ", ".join(f"{cost:g}" for cost in costs)
    row = {"features": _TITLES[arm], "C": cost, "accuracy": spoken(found), "n": len(found), "accuracies": found}
    return row | {"mean of classes": spoken(per_seed(lines, "class_mean", **key))}


def _tuned_row(lines: Sequence[dict], percent: float, arm: str) -> dict | None:
    key = {"kind": "tuned", "percent": percent, "arm": arm}
    found = per_seed(lines, "accuracy", **key)
    if not found:
        return None
    shapes = {line["shapes"] for line in lines if key.items() <= line.items()}
    counts = "-".join(map(str, sorted({min(shapes), max(shapes)})))
    row = {"labels": f"{percent:g} %", "from": _TITLES[arm], "shapes": counts}
    best = spoken(per_seed(lines, "best", **key))
    return row | {"last": spoken(found), "best of validations": best, "n": len(found), "accuracies": found}


def draw_features(config: ClassifyConfig, data: Data, encoders, out: pathlib.Path, world) -> None:
    """Features of test shapes of the first split by t-SNE, in colours of their classes (STRL, Figure 4)."""
    rows = data.splits[0][1][:: -(-len(data.splits[0][1]) // config.picture)]
    if len(rows) < 8:
        return
    points = normalised(data.shapes.of(rows), Look(config.points, config.rows, config.voxel, config.seed))
    base = base_of(config, encoders)
    given = (points, config.voxel)
    encoder = encoders[0][1].encoder() if encoders else random_encoder(base, *given, config.seed, world.device)
    features = features_of(encoder, *given, world.device)
    from sklearn.manifold import TSNE  # slow to import, as is the next

    perplexity = min(30.0, (len(rows) - 1) / 3)
    place = TSNE(2, init="pca", perplexity=perplexity, random_state=config.seed).fit_transform(features)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 7), dpi=150)
    label = data.shapes.label[rows]
    for number, name in enumerate(data.shapes.classes):
        own = place[label == number]
        axes.scatter(*own.T, s=12, color=f"C{number % _COLOURS}", marker="os^Dv"[number // _COLOURS % 5], label=name)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, ncols=1 + len(data.shapes.classes) // 25)
    axes.set(xticks=[], yticks=[])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    files.write(out, buffer.getvalue())
