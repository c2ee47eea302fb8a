"""What an evaluation of instances leaves behind: a table, JSON, pictures of masks, files for the benchmark.

results.json, results.md              AP, AP50 and AP25 of every class
pictures/<scan>.png                   instances that were found, and beside them the true ones
benchmark/<scan>.txt                  a line per instance: mask file, the benchmark's class id, score
benchmark/predicted_masks/*.txt       0 or 1 per row of the points file
"""

import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from gen4d import files
from train.inputs.objects import instances_of
from train.inputs.scans import LabelledScan
from train.tasks.instances.ap import Found
from train.tasks.instances.evaluate import Evaluation
from train.tasks.pictures import Panel, draw
from train.tasks.tables import class_table, figures_line

_FIGURES = ("ap", "ap50", "ap25")


def summary(found: Evaluation, names: Sequence[str], stuff: frozenset[int]) -> dict:
    """Scores as JSON values; None where nothing defines one."""
    scored = found.precision
    classes = {
        name: dict(zip(_FIGURES, map(as_json, scored.classes[c]), strict=True)) | {"count": int(scored.count[c])}
        for c, name in enumerate(names)
        if c not in stuff
    }
    means = {name: as_json(getattr(scored, name)) for name in _FIGURES}
    return {"scans": found.scans} | means | {"count": int(scored.count.sum()), "classes": classes}


def as_json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def headline(summarised: dict) -> str:
    """The scores on one line."""
    return figures_line(summarised, _FIGURES)


def write_results(
    folder: pathlib.Path, summaries: dict[str, dict], drawn: Evaluation, about: dict, stuff: frozenset[int]
) -> list[str]:
    """results.json, results.md and pictures in a folder; returns the table's lines. about: JSON values: `step` of each
    named summary, `machine`, and whatever else explains the numbers."""
    lines = class_table(summaries, "instances", _FIGURES)
    heads = [f"{name} (step {about['step'][name]}): {headline(found)}" for name, found in summaries.items()]
    rule = "instances of at least 100 points, by the rules of ScanNet's benchmark"
    lines = [*lines, "", *heads, f"{drawn.scans} scans, {rule}; {about['machine']}"]
    if "best" in summaries and "validations" in about:
        lines.append(f"best: the best of {about['validations']} validations on these same scans, so it flatters itself")
    files.make_folder(folder)
    files.write(folder / "results.json", (json.dumps(about | {"results": summaries}) + "\n").encode())
    files.write(folder / "results.md", ("\n".join(lines) + "\n").encode())
    for scan, found in drawn.shown:
        draw_instances(scan, found, stuff, folder / "pictures" / f"{scan.name}.png")
    return lines


def draw_instances(scan: LabelledScan, found: Found, stuff: frozenset[int], path: pathlib.Path) -> None:
    """What was found, and the true instances beside it, each in a colour of its own."""
    number = np.full(len(scan.point), -1)
    for p, point in reversed(list(enumerate(found.point))):  # the surest on top
        number[point] = p
    panels = [Panel(number_colours(number), "found")]
    if scan.instance is not None and scan.label is not None:
        true = instances_of(scan, stuff, int(scan.label.max(initial=0)) + 1)
        counted = np.where(np.append(true.kind, -1)[true.number] >= 0, true.number, -1)
        panels.append(Panel(number_colours(counted), "labels"))
    draw(scan.point, panels, path)


def number_colours(number: np.ndarray) -> np.ndarray:
    """A colour (n, 3) from 0 to 1 for each number, far apart for neighbours; light grey for -1."""
    hue = number * 0.618034 % 1
    light = np.array([0.95, 0.6, 0.8])[number % 3]
    rgb = np.clip(np.abs((hue[:, None] * 6 + [0, 4, 2]) % 6 - 3) - 1, 0.3, 1) * light[:, None]
    return np.where(number[:, None] >= 0, rgb, 0.82)


def write_benchmark(folder: pathlib.Path, scan: LabelledScan, found: Found, ids: Sequence[int]) -> None:
    """A scan's files for ScanNet's benchmark: masks of all rows of the points file. ids: the benchmark's of each
    class."""
    masks = folder / "benchmark" / "predicted_masks"
    files.make_folder(masks)
    lines = []
    for p, point in enumerate(found.point):
        mask = np.full(scan.rows, b"0", "S1")
        mask[scan.row[point]] = b"1"
        name = f"{scan.name}_{p:03d}.txt"
        files.write(masks / name, b"\n".join(mask.tolist()) + b"\n")
        lines.append(f"predicted_masks/{name} {ids[found.kind[p]]} {found.score[p]:.6f}")
    files.write(folder / "benchmark" / f"{scan.name}.txt", ("\n".join(lines) + "\n" * bool(lines)).encode())
