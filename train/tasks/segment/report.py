"""What an evaluation leaves behind: a table, JSON, pictures.

results.json, results.md   IoU and accuracy of every class
confusion.png              the confusion matrix
pictures/<scan>.png        predicted classes, and the labels beside them, of the first scans
"""

import io
import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gen4d import files
from train.tasks.metrics import scores
from train.tasks.segment.predictions import draw_classes
from train.tasks.tables import aligned, percent

COUNTED = {"points": "all points", "voxels": "2 cm voxels", "sampled": "sampled points"}
_BESIDE = {"voxels": "IoU 2 cm", "sampled": "IoU sampled"}  # columns beside those of all points


def summary(evaluation: NamedTuple, names: Sequence[str]) -> dict:
    """Scores as JSON values; None where nothing defines one. evaluation: how many `scans`, and the confusion matrices
    of some ways of counting."""
    return {"scans": evaluation.scans} | {
        kind: scored(getattr(evaluation, kind), names) for kind in kinds_of(evaluation._fields)
    }


def kinds_of(names: Iterable[str]) -> list[str]:
    """Those of some names that are ways of counting: all points, and what is beside them."""
    return [kind for kind in COUNTED if kind in names]


def scored(matrix: np.ndarray, names: Sequence[str]) -> dict:
    """Scores of a confusion matrix (K, K + 1) as JSON values."""
    found = scores(matrix)
    per_class = {
        name: {"iou": as_json(iou), "recall": as_json(recall), "count": int(count)}
        for name, iou, recall, count in zip(names, found.iou, found.recall, found.count, strict=True)
    }
    mean = {name: as_json(getattr(found, name)) for name in ("miou", "macc", "accuracy")}
    return mean | {"count": int(found.count.sum()), "classes": per_class}


def as_json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def headline(summarised: dict) -> str:
    """The scores of both ways of counting, on one line."""
    parts = []
    for kind in kinds_of(summarised):
        found = summarised[kind]
        right = f" acc {percent(found['accuracy'])}" if kind == "sampled" else ""  # as the tables of blocks have it
        parts.append(f"{COUNTED[kind]}: mIoU {percent(found['miou'])} mAcc {percent(found['macc'])}{right}")
    return "; ".join(parts)


def table(summaries: dict[str, dict]) -> list[str]:
    """Lines of a Markdown table: a row per class and one of the means; per named evaluation its IoU and accuracy on all
    points, and its IoU on what is counted beside them. All evaluations are of the same scans."""
    first = next(iter(summaries.values()))
    points, (_, beside) = first["points"], kinds_of(first)
    head = ["class", "points", *(f"{name} {kind}" for name in summaries for kind in ("IoU", "acc", _BESIDE[beside]))]
    rows = [[name, found["count"], *_cells(summaries, beside, name)] for name, found in points["classes"].items()]
    rows.append(["mean", points["count"], *_means(summaries, beside)])
    return aligned(head, rows)


def _cells(summaries: dict[str, dict], beside: str, name: str) -> list[str]:
    cells = []
    for found in summaries.values():
        points, others = (found[kind]["classes"][name] for kind in ("points", beside))
        cells += [percent(points["iou"]), percent(points["recall"]), percent(others["iou"])]
    return cells


def _means(summaries: dict[str, dict], beside: str) -> list[str]:
    cells = []
    for found in summaries.values():
        cells += [percent(found["points"]["miou"]), percent(found["points"]["macc"]), percent(found[beside]["miou"])]
    return cells


def write_results(folder: pathlib.Path, summaries: dict[str, dict], drawn: NamedTuple, about: dict) -> list[str]:
    """results.json, results.md and pictures (of the evaluation `drawn`, the first of `summaries`) in a folder.

    about: JSON values: `step` of each named summary, `machine`, `views` where a scan was seen by several, and whatever
    else explains the numbers. Returns the table's lines.
    """
    names = list(next(iter(summaries.values()))["points"]["classes"])
    lines = table(summaries)
    views = about.get("views", 1)
    mean = f"; test-time augmentation: mean of {views} views" if views > 1 else ""
    heads = [f"{name} (step {about['step'][name]}{mean}): {headline(found)}" for name, found in summaries.items()]
    lines = [*lines, "", *heads, f"{drawn.scans} scans; {about['machine']}"]
    if "best" in summaries and "validations" in about:
        lines.append(f"best: the best of {about['validations']} validations on these same scans, so it is optimistic")
    about = about | {"confusion": {kind: getattr(drawn, kind).tolist() for kind in kinds_of(drawn._fields)}}
    files.make_folder(folder)
    files.write(folder / "results.json", (json.dumps(about | {"results": summaries}) + "\n").encode())
    files.write(folder / "results.md", ("\n".join(lines) + "\n").encode())
    name = next(iter(summaries))
    draw_confusion(drawn.points, names, f"{name}, all points of {drawn.scans} scans", folder / "confusion.png")
    for scan, prediction in drawn.shown:
        draw_classes(scan, prediction, names, folder / "pictures" / f"{scan.name}.png")
    return lines


def draw_confusion(matrix: np.ndarray, names: Sequence[str], title: str, path: pathlib.Path) -> None:
    """A picture of a confusion matrix (K, K + 1): of each class's points, the share that each prediction got."""
    import matplotlib  # not needed by any other command

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, count, out=np.full(matrix.shape, np.nan), where=count > 0)
    shown = share if matrix[:, -1].any() else share[:, :-1]
    columns = [*names, "none"][: shown.shape[1]]
    figure, axes = pyplot.subplots(figsize=(2 + 0.42 * len(columns), 1.5 + 0.42 * len(names)), dpi=120)
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(shown):
        if value >= 0.005:
            colour = "white" if value > 0.5 else "black"
            axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted, % of the class's points")
    axes.set_ylabel("truth (blank: no point)")
    axes.set_title(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    files.write(path, buffer.getvalue())
