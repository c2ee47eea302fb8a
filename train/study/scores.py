"""What a run reached, as tables of a page: scores of classes, their confusion, and whether the terms are learned."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gen4d.report import sheet
from gen4d.report.sheet import Cell, Html, number, tag

_PERCENT = 100
_BESIDE = {"voxels": "IoU of 2 cm voxels", "sampled": "IoU of sampled points"}  # besides all points
_DETECTED = ("ap", "ap50", "ap25")  # of instances and boxes
_COMPARED = ("cos", "constant", "centred", "top1")
_FIT = """Mean of the last tenth of the run. A comparison whose cosine is below what one constant vector would reach is
not being learned. Centred: the cosine after the mean is taken off; found: how often the counterpart is the nearest of
the batch's samples."""


def score_table(task: str, results: Mapping, validations: Sequence[Mapping]) -> Html:
    """A table of scores: of the report of a finished run, or else of its last validation."""
    if task == "classify" and results:
        parts = [_rows(results.get(kind, ()), what) for kind, what in _CLASSIFIED.items()]
        return sheet.section("Scores", *(part for part in parts if part))
    step, found = results.get("step", {}), results.get("results", {})
    if not found and validations:
        last = validations[-1]
        found, step = {"validation": last}, {"validation": last["step"]}
    if not found:
        return Html("")
    heads = [f"{name}: step {step[name]}" for name in found]
    if step.get("best") == step.get("last"):
        found = {name: one for name, one in found.items() if name != "best"}
    if "best" in found:
        heads.append("the best validation was chosen on the scans it is measured on, so it flatters itself")
    return sheet.section("Scores", sheet.note("; ".join(heads), ". All in percent."), _class_table(found))


_CLASSIFIED = {"svm": "Linear SVM on frozen features", "tuned": "Fine-tuned"}


def _rows(rows: Sequence[Mapping], title: str) -> Html:
    """A table of dicts of text, without what is for programs."""
    if not rows:
        return Html("")
    names = [name for name in rows[0] if name != "accuracies"]
    cells = [[row[name] for name in names] for row in rows]
    return sheet.joined([tag("h3", title, ", % of test shapes"), sheet.table(names, cells)])


def _class_table(found: Mapping[str, Mapping]) -> Html:
    """A row per class and one of the means; of each named summary every figure."""
    first = next(iter(found.values()))
    if "classes" not in first and "points" not in first:  # of a fine-tuned classifier
        rows = [[name, *(_share(one.get(name)) for one in found.values())] for name in first if name != "step"]
        return sheet.table(["", *found], rows)
    counted = "points" if "points" in first else "objects"
    tables = {name: _segmented(one) if counted == "points" else _detected(one) for name, one in found.items()}
    shown = list(next(iter(tables.values()))["mean"].figures)
    rows = []
    for name, (count, _) in next(iter(tables.values())).items():
        cells = [_share(of[name].figures.get(figure)) for of in tables.values() for figure in shown]
        rows.append([tag("b", name) if name == "mean" else name, number(count), *cells])
    return sheet.table(["class", counted, *(f"{name} {figure}" for name in tables for figure in shown)], rows)


class _Row(NamedTuple):
    """Of a class, or of all: how many points or objects, and figures by their names."""

    count: int
    figures: dict[str, float | None]


def _segmented(summary: Mapping) -> dict[str, _Row]:
    points, beside = summary["points"], {kind: title for kind, title in _BESIDE.items() if kind in summary}
    rows = {}
    for name, own in points["classes"].items():
        others = {title: summary[kind]["classes"][name]["iou"] for kind, title in beside.items()}
        rows[name] = _Row(own["count"], {"IoU": own["iou"], "accuracy": own["recall"]} | others)
    others = {title: summary[kind]["miou"] for kind, title in beside.items()}
    return rows | {"mean": _Row(points["count"], {"IoU": points["miou"], "accuracy": points["macc"]} | others)}


def _detected(summary: Mapping) -> dict[str, _Row]:
    every = summary["classes"] | {"mean": summary}
    return {name: _Row(own["count"], {key.upper(): own[key] for key in _DETECTED if key in own})
            for name, own in every.items()}  # fmt: skip


def _share(value: float | None) -> Cell:
    return number(None if value is None else _PERCENT * value, 2)


def fit_table(log: Sequence[Mapping]) -> Html:
    """How well predictions meet their targets, beside the best that one constant vector would do."""
    last = log[-max(1, len(log) // 10) :]
    names = sorted({key.partition("/")[0] for line in last for key in line.get("fit", {})})
    rows = []
    for name in names:
        cosine, constant, centred, found = (_mean(last, f"{name}/{key}") for key in _COMPARED)
        good = cosine >= constant
        verdict = sheet.verdict("above a constant" if good else "BELOW a constant", good)
        rows.append([name, *(number(value, 3) for value in (cosine, constant, centred)), _share(found), verdict])
    head = ["comparison", "cosine", "a constant's", "centred", "found, %", ""]
    return sheet.section("Are the terms learned?", sheet.note(_FIT), sheet.table(head, rows)) if rows else Html("")


def _mean(lines: Sequence[dict], key: str) -> float:
    values = [line["fit"][key] for line in lines if key in line.get("fit", {})]
    return float(np.mean(values)) if values else float("nan")


def confusion_table(results: Mapping, classes: Sequence[str]) -> Html:
    """The confusion matrix of a segmentation as a heat map."""
    given = results.get("confusion", {}).get("points")
    if not given:
        return Html("")
    matrix = np.array(given, np.float64)
    count = matrix.sum(axis=1)
    seen = matrix[:, -1].any()
    columns = [*classes, "none"][: len(classes) + seen]
    rows = []
    for k in np.flatnonzero(count):
        cells = [_heat(value) for value in matrix[k, : len(columns)] / count[k]]
        rows.append(tag("tr", tag("th", classes[k]), *cells))
    head = tag("tr", *(tag("th", name) for name in ("truth", *columns)))
    whole = tag("table", tag("thead", head), tag("tbody", *rows))
    said = "What the points of each class were predicted to be, in percent; classes without points are left out."
    return sheet.section("Confusion", sheet.note(said), tag("div", whole, class_="wide heat"))


def _heat(share: float) -> Html:
    text = f"{_PERCENT * share:.0f}" if share >= 0.005 else ""
    return tag("td", text, style=f"--v:{_PERCENT * share:.0f}%")
