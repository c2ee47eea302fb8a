"""Runs side by side: the settings in which they differ, what they reached, and their curves over each other."""

import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gen4d import files
from train.config import flatten
from train.errors import Refused
from train.run.log import read_lines
from train.tasks.tables import aligned

_POINTS = 400  # of a curve; longer ones are averaged to so many
_HIDDEN = ("scans", "weights_scans")


class CompareError(Refused):
    """A folder that is no run."""


class Run(NamedTuple):
    """A run folder as it was read: its configuration by path, and its log and validations as figures by name."""

    name: str
    config: dict[str, object]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]  # figure -> steps, values


def read_run(folder: pathlib.Path, name: str = "") -> Run:
    """A run folder of pretrain or finetune. Raises CompareError where it has no log."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        raise CompareError(f"{folder}: no run there: give run folders of pretrain or finetune") from None
    plain = {key: value for key, value in config.items() if key not in _HIDDEN}
    plain = flatten(plain | plain.pop("settings", {}))
    lines = [{key: line[key] for key in ("step", "loss", "terms", "spread", "fit", "lr", "gradient") if key in line}
             for line in read_lines(folder / "log.jsonl")]  # fmt: skip
    found: dict[str, list] = {}
    looks = [{"step": x.pop("step"), "probe": x} for x in read_lines(folder / "probe.jsonl")]
    for line in (*lines, *({"step": x["step"], "validation": _scores(x)} for x in _validations(folder)), *looks):
        step = line.pop("step")
        for figure, value in flatten(line).items():
            if isinstance(value, int | float):
                found.setdefault(figure, []).append((step, value))
    if not found:
        raise CompareError(f"{folder}: has logged nothing yet: wait for its first step")
    curves = {figure: tuple(np.array(pairs, float).T) for figure, pairs in found.items()}
    return Run(name or folder.name, plain, curves)


def _validations(folder: pathlib.Path) -> list[dict]:
    return read_lines(folder / "validation.jsonl")


def _scores(line: dict) -> dict:
    """Means of a validation; what is said of single classes and how much was counted are left out."""
    kept = {name: value for name, value in line.items() if name not in ("step", "scans", "count", "classes")}
    return {name: _scores(value) if isinstance(value, dict) else value for name, value in kept.items()}


def read_runs(folders: Sequence[pathlib.Path]) -> list[Run]:
    """Several runs, named by what tells their paths apart. Raises CompareError."""
    parts = [folder.resolve().parts for folder in folders]
    shared = len(parts[0]) - 1 if len(folders) == 1 else 0
    while len(folders) > 1 and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return [read_run(f, "/".join(p[shared:]) or f.name) for f, p in zip(folders, parts, strict=True)]


def differences(runs: Sequence[Run]) -> dict[str, list[object]]:
    """Settings that are not the same in all runs, with the value of each."""
    paths = dict.fromkeys(path for run in runs for path in run.config)
    found = {path: [run.config.get(path) for run in runs] for path in paths}
    return {path: values for path, values in found.items() if any(value != values[0] for value in values)}


def table(runs: Sequence[Run]) -> list[str]:
    """A Markdown table: a row per setting that differs and per figure, a column per run; of figures the last, the mean
    of the last tenth."""
    rows = [[path, *map(_short, values)] for path, values in differences(runs).items()]
    rows.append(["steps", *(f"{max(steps[-1] for steps, _ in run.curves.values()):g}" for run in runs)])
    for figure in dict.fromkeys(name for run in runs for name in run.curves):
        cells = [run.curves.get(figure) for run in runs]
        rows.append([figure, *("-" if cell is None else _reached(cell[1]) for cell in cells)])
    return aligned(["", *(run.name for run in runs)], rows)


def _short(value) -> str:
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else f"{text[:12]}.."


def _reached(values: np.ndarray) -> str:
    last = values[-max(1, len(values) // 10) :]
    return f"{values[-1]:.4g} ({last.mean():.4g})"


def draw(runs: Sequence[Run], path: pathlib.Path) -> None:
    """A page with a panel per figure that changes, the runs' curves over each other."""
    import matplotlib  # slow to import, and needed for pictures alone

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = _panels(runs)
    columns = min(4, len(panels))
    shape = -(-len(panels) // columns), columns
    size = (3.6 * columns, 2.6 * shape[0])
    figure, grid = pyplot.subplots(*shape, figsize=size, dpi=110, squeeze=False, layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        for label, (steps, values) in curves.items():
            axes.plot(*thinned(steps, values), lw=1.0, label=label)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    if len(runs) > 1:
        grid.flat[0].legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    pyplot.close(figure)
    files.write(path, buffer.getvalue())


def _panels(runs: Sequence[Run]) -> Mapping[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Figure -> run -> curve, of the figures that any run has more than one value of."""
    names = dict.fromkeys(name for run in runs for name in run.curves)
    every = {name: {run.name: run.curves[name] for run in runs if name in run.curves} for name in names}
    moving = {name: curves for name, curves in every.items() if any(np.ptp(v) > 0 for _, v in curves.values())}
    return moving or every


def thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most _POINTS points, each a mean of as many neighbours."""
    if len(steps) <= _POINTS:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), _POINTS)
    return np.array([steps[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])
