"""What an evaluation of boxes leaves behind: a table, JSON, pictures.

results.json, results.md   AP at IoU 0.25 and 0.5 of every class
pictures/<scan>.png        true boxes in green and what was found in red, from above
boxes/<scan>.txt           a line per box and class: class, score, centre x y z, size x y z, heading
"""

import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from gen4d import files
from train.tasks.detect.boxes import corners
from train.tasks.detect.evaluate import Detected, Evaluation
from train.tasks.pictures import draw_above
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
    lines = class_table(summaries, "boxes", _FIGURES)
    heads = [f"{name} (step {about['step'][name]}): {headline(found)}" for name, found in summaries.items()]
    rule = "area under precision over recall, mean over the classes that have boxes"
    lines = [*lines, "", *heads, f"{drawn.scans} scans, {rule}; {about['machine']}"]
    if "best" in summaries and "validations" in about:
        lines.append(f"best: the best of {about['validations']} validations on these same scans, so it flatters itself")
    files.make_folder(folder / "pictures")
    files.write(folder / "results.json", (json.dumps(about | {"results": summaries}) + "\n").encode())
    files.write(folder / "results.md", ("\n".join(lines) + "\n").encode())
    for name, scan, found in drawn.shown:
        sure = found.box[found.score.max(axis=1, initial=0) >= _SHOWN_SCORE]
        outlines = [(_outline(box), "green") for box in corners(scan.box)]
        outlines += [(_outline(box), "red") for box in corners(sure)]
        legend = {"true": np.array([0, 0.5, 0]), "found": np.array([1.0, 0, 0])}
        grey = np.full((len(scan.point), 3), 0.75)
        draw_above(scan.point, grey, folder / "pictures" / f"{name}.png", legend, outlines)
    return lines


def _outline(corner: np.ndarray) -> np.ndarray:
    """A box's ground (5, 2), closed, of its corners (8, 3)."""
    return corner[[0, 1, 2, 3, 0], :2]


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
