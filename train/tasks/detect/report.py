"""What an evaluation of boxes leaves behind: a table, JSON, pictures.

results.json, results.md   AP at IoU 0.25 and 0.5 of every class
pictures/<scan>.png        boxes that were found, and beside them the true ones
boxes/<scan>.txt           a line per box and class: class, score, centre x y z, size x y z, heading
"""

import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from gen4d import files
from train.inputs.objects import Boxes
from train.tasks.detect.boxes import corners
from train.tasks.detect.evaluate import Detected, Evaluation
from train.tasks.pictures import Line, Panel, draw
from train.tasks.segment.predictions import class_colours
from train.tasks.tables import class_table, figures_line

_FIGURES = ("ap25", "ap50")
_SHOWN_SCORE, _WRITTEN_SCORE = 0.3, 0.001  # of boxes in pictures and in files, at least


def summary(found: Evaluation, names: Sequence[str]) -> dict:
    """Scores as JSON values; None where nothing defines one. names: of the classes of objects."""
    scored = found.precision
    classes = {}
    for c, name in enumerate(names):
        ap = {figure: as_json(value) for figure, value in zip(_FIGURES, scored.ap[c], strict=True)}
        classes[name] = ap | {"recall50": as_json(scored.recall[c, 1]), "count": int(scored.count[c])}
    means = {"ap25": as_json(scored.ap25), "ap50": as_json(scored.ap50)}
    return {"scans": found.scans} | means | {"count": int(scored.count.sum()), "classes": classes}


def as_json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def headline(summarised: dict) -> str:
    """The scores on one line."""
    return figures_line(summarised, _FIGURES)


def write_results(folder: pathlib.Path, summaries: dict[str, dict], drawn: Evaluation, about: dict) -> list[str]:
    """results.json, results.md and pictures in a folder; returns the table's lines. about: JSON values: `step` of each
    named summary, `machine`, and whatever else explains the numbers."""
    first = next(iter(summaries.values()))
    lines = class_table(summaries, "boxes", _FIGURES)
    heads = [f"{name} (step {about['step'][name]}): {headline(found)}" for name, found in summaries.items()]
    rule = "area under precision over recall, mean over the classes that have boxes"
    lines = [*lines, "", *heads, f"{drawn.scans} scans, {rule}; {about['machine']}"]
    if "best" in summaries and "validations" in about:
        lines.append(f"best: the best of {about['validations']} validations on these same scans, so it flatters itself")
    files.make_folder(folder)
    files.write(folder / "results.json", (json.dumps(about | {"results": summaries}) + "\n").encode())
    files.write(folder / "results.md", ("\n".join(lines) + "\n").encode())
    for name, scan, found in drawn.shown:
        draw_boxes(scan, found, list(first["classes"]), folder / "pictures" / f"{name}.png")
    return lines


def draw_boxes(scan: Boxes, found: Detected, names: Sequence[str], path: pathlib.Path) -> None:
    """What was found with a score of 0.3 or more, and the true boxes beside it, in colours of their classes."""
    sure = found.score.max(axis=1, initial=0) >= _SHOWN_SCORE
    kind = found.score[sure].argmax(axis=1)
    colours = class_colours(len(names))
    grey = np.full((len(scan.point), 3), 0.8)
    title = f"found with a score of {_SHOWN_SCORE} or more: {len(kind)}"
    sides = (title, found.box[sure], kind), (f"labels: {len(scan.box)}", scan.box, scan.kind)
    panels = [Panel(grey, title, _edges(box, colours[which])) for title, box, which in sides]
    used = np.unique(np.concatenate([kind, scan.kind]))
    draw(scan.point, panels, path, {names[k]: colours[k] / 255 for k in used})


def _edges(box: np.ndarray, colour: np.ndarray) -> list[Line]:
    """The edges of boxes (B, 7), in colours (B, 3) uint8."""
    rounds = [0, 1, 2, 3, 0, 4, 5, 6, 7, 4], [1, 5], [2, 6], [3, 7]
    pairs = zip(corners(box), map(tuple, colour.tolist()), strict=True)
    return [(corner[way], ink) for corner, ink in pairs for way in rounds]


def write_boxes(folder: pathlib.Path, name: str, found: Detected, names: Sequence[str]) -> None:
    """What was found in a scan, aligned metres and radians, the surest first; scores below 0.001 are left out."""
    place = [(p, c) for p, c in np.argwhere(found.score >= _WRITTEN_SCORE)]
    place.sort(key=lambda pair: -found.score[pair])
    lines = [
        " ".join([names[c].replace(" ", "_"), *(f"{value:.4f}" for value in (found.score[p, c], *found.box[p]))])
        for p, c in place
    ]
    files.make_folder(folder / "boxes")
    files.write(folder / "boxes" / f"{name}.txt", "".join(f"{line}\n" for line in lines).encode())
