"""What an evaluation leaves behind: a table, JSON, a picture of the confusion matrix, and predictions for others.

predictions/<scan>.npy   class of every row of the scan's points file, int16; -1: none
benchmark/<scan>.txt     the benchmark's id of every row, one a line; 0: none (ScanNet's format for submissions)
ply/<scan>.ply           the points, coloured by predicted class
"""

import io
import json
import math
import pathlib
import platform
from collections.abc import Sequence

import numpy as np
import torch

from gen4d import __version__, files
from train.doctor import installed_sparse
from train.metrics import NONE, scores
from train.tasks.evaluate import Evaluation
from train.tasks.scenes import LabelledScan

FORMATS = ("npy", "txt", "ply")
COUNTED = {"points": "all points", "voxels": "2 cm voxels"}


def summary(evaluation: Evaluation, names: Sequence[str]) -> dict:
    """Scores as JSON values; None where nothing defines one."""
    return {"scans": evaluation.scans} | {kind: scored(getattr(evaluation, kind), names) for kind in COUNTED}


def scored(matrix: np.ndarray, names: Sequence[str]) -> dict:
    """Scores of a confusion matrix (K, K + 1) as JSON values."""
    found = scores(matrix)
    per_class = {
        name: {"iou": _number(iou), "recall": _number(recall), "count": int(count)}
        for name, iou, recall, count in zip(names, found.iou, found.recall, found.count, strict=True)
    }
    mean = {name: _number(getattr(found, name)) for name in ("miou", "macc", "accuracy")}
    return mean | {"count": int(found.count.sum()), "classes": per_class}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def headline(summarised: dict) -> str:
    """The scores of both ways of counting, on one line."""
    parts = []
    for kind, name in COUNTED.items():
        found = summarised[kind]
        parts.append(f"{name}: mIoU {percent(found['miou'])} mAcc {percent(found['macc'])}")
    return "; ".join(parts)


def percent(share: float | None) -> str:
    """A share as per cent with two digits after the point."""
    return "-" if share is None else f"{100 * share:.2f}"


def table(summaries: dict[str, dict]) -> list[str]:
    """Lines of a Markdown table: a row per class and one of the means; per named evaluation its IoU and accuracy on all
    points, and its IoU on 2 cm voxels. All evaluations are of the same scans."""
    names = list(next(iter(summaries.values()))["points"]["classes"])
    head = ["class", "points", *(f"{name} {kind}" for name in summaries for kind in ("IoU", "acc", "IoU 2 cm"))]
    points = next(iter(summaries.values()))["points"]
    rows = [[name, points["classes"][name]["count"], *_cells(summaries, name)] for name in names]
    rows.append(["mean", points["count"], *_means(summaries)])
    return aligned(head, rows)


def _cells(summaries: dict[str, dict], name: str) -> list[str]:
    cells = []
    for found in summaries.values():
        points, voxels = (found[kind]["classes"][name] for kind in COUNTED)
        cells += [percent(points["iou"]), percent(points["recall"]), percent(voxels["iou"])]
    return cells


def _means(summaries: dict[str, dict]) -> list[str]:
    cells = []
    for found in summaries.values():
        cells += [percent(found["points"]["miou"]), percent(found["points"]["macc"]), percent(found["voxels"]["miou"])]
    return cells


def aligned(head: Sequence, rows: Sequence[Sequence]) -> list[str]:
    """A Markdown table with columns of one width, the first to the left and the others to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    width = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]  # a rule needs some
    lines = []
    for row in cells:
        padded = [cell.rjust(width[column]) if column else cell.ljust(width[0]) for column, cell in enumerate(row)]
        lines.append("| " + " | ".join(padded) + " |")
    rule = ["-" * width[0], *("-" * (w - 1) + ":" for w in width[1:])]
    return [lines[0], "| " + " | ".join(rule) + " |", *lines[1:]]


def write_results(folder: pathlib.Path, summaries: dict[str, dict], drawn: Evaluation, about: dict) -> list[str]:
    """results.json, results.md and confusion.png (of the evaluation `drawn`, the first of `summaries`) in a folder.

    about: JSON values: `step` of each named summary, `machine`, and whatever else explains the numbers. Returns the
    table's lines.
    """
    names = list(next(iter(summaries.values()))["points"]["classes"])
    lines = table(summaries)
    heads = [f"{name} (step {about['step'][name]}): {headline(found)}" for name, found in summaries.items()]
    lines = [*lines, "", *heads, f"{drawn.scans} scans; {about['machine']}"]
    if "best" in summaries and "validations" in about:
        lines.append(f"best: the best of {about['validations']} validations on these same scans, so it flatters itself")
    about = about | {"confusion": {kind: getattr(drawn, kind).tolist() for kind in COUNTED}}
    files.make_folder(folder)
    files.write(folder / "results.json", (json.dumps(about | {"results": summaries}) + "\n").encode())
    files.write(folder / "results.md", ("\n".join(lines) + "\n").encode())
    name = next(iter(summaries))
    draw_confusion(drawn.points, names, f"{name}, all points of {drawn.scans} scans", folder / "confusion.png")
    return lines


PROBE_HEAD = ("features", "probe", "mIoU", "mAcc", "mIoU 2 cm", "mAcc 2 cm", "counted on")


def probe_rows(name: str, linear: Evaluation, knn: np.ndarray) -> list[list[str]]:
    """Rows under PROBE_HEAD: of the linear probe, on all points and on 2 cm voxels, and of k-NN on sampled points."""
    points, voxels, sampled = scores(linear.points), scores(linear.voxels), scores(knn)
    shares = [percent(_number(share)) for share in (points.miou, points.macc, voxels.miou, voxels.macc)]
    some = [percent(_number(share)) for share in (sampled.miou, sampled.macc)]
    return [
        [name, "linear", *shares, f"all {points.count.sum()} points"],
        [name, "k-NN", *some, "-", "-", f"{sampled.count.sum()} sampled points"],
    ]


def machine(device: torch.device) -> str:
    """Versions and hardware that a number was measured with."""
    spconv = next((f"{n} {v}" for n, v in installed_sparse().items() if n.startswith("spconv")), "no spconv")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return f"gen4d {__version__}, torch {torch.__version__}, {spconv}, {name}"


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


class Writer:
    """Writes predictions of scans in the formats that are asked for."""

    def __init__(self, folder: pathlib.Path, ids: Sequence[int], formats: Sequence[str]):
        """ids: the benchmark's id of each class."""
        self._folder, self._ids, self._formats = folder, np.array([*ids, 0]), formats
        self._colours = class_colours(len(ids))

    def write(self, scan: LabelledScan, prediction: np.ndarray) -> None:
        """The files of one scan. prediction (N,): the class of each of its points."""
        full = np.full(scan.rows, NONE, np.int16)
        full[scan.row] = prediction
        if "npy" in self._formats:
            buffer = io.BytesIO()
            np.save(buffer, full)
            self._put("predictions", f"{scan.name}.npy", buffer.getvalue())
        if "txt" in self._formats:
            text = "\n".join(map(str, self._ids[full].tolist())) + "\n"
            self._put("benchmark", f"{scan.name}.txt", text.encode())
        if "ply" in self._formats:
            self._put("ply", f"{scan.name}.ply", coloured_ply(scan.point, prediction, self._colours[prediction]))

    def _put(self, kind: str, name: str, content: bytes) -> None:
        files.make_folder(self._folder / kind)
        files.write(self._folder / kind / name, content)


def class_colours(classes: int) -> np.ndarray:
    """A colour (K + 1, 3) uint8 for each class, hues far apart for neighbours; grey for none, at -1."""
    hue = np.arange(classes) * 0.618034 % 1
    light = np.array([0.95, 0.65, 0.8])[np.arange(classes) % 3]
    rgb = np.clip(np.abs((hue[:, None] * 6 + [0, 4, 2]) % 6 - 3) - 1, 0.1, 1) * light[:, None]
    return np.vstack([np.round(255 * rgb), [128, 128, 128]]).astype(np.uint8)


def coloured_ply(point: np.ndarray, label: np.ndarray, colour: np.ndarray) -> bytes:
    """A binary PLY of points (N, 3) metres with a class (N,) and a colour (N, 3) uint8 each."""
    fields = [(axis, "<f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertex = np.empty(len(point), [*fields, ("label", "<i2")])
    for column, axis in enumerate("xyz"):
        vertex[axis] = point[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertex[name] = colour[:, column]
    vertex["label"] = label
    kind = {"<f4": "float", "|u1": "uchar", "<i2": "short"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertex)}"]
    lines += [f"property {kind[vertex.dtype[name].str]} {name}" for name in vertex.dtype.names]
    return "\n".join([*lines, "end_header", ""]).encode() + vertex.tobytes()
