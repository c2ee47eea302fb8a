"""A study's results as Markdown and as a picture.

The first paragraph answers the plan's questions from the plan's tests; the tables below have everything else.
"""

import io
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from gen4d import files
from train.inputs.subsets import room_of
from train.study.arms import SCRATCH
from train.study.plan import QUESTIONS, SCORES, Study, Test, test_of
from train.study.statistics import LEVEL, POWER, compare, detectable, holm, rooms_interval, steps_to_reach
from train.tasks.objectness import NEAR_M
from train.tasks.tables import aligned

_TEST_HEAD = (
    *("test", "measure", "labels", "difference", "95 % over seeds", "sd", "seeds", "p", "Holm's p", "detectable"),
    *("95 % over rooms", "ICC", "each seed"),
)
_PROBES = {"linear": "linear", "knn": "k-NN", "objectness": "objectness", "moving": "moving", "resting": "at rest"}


class Tested(NamedTuple):
    """What one test of the plan found, in points. each (S, K): differences of seeds and subsets; interval: over seeds;
    rooms: over test rooms; detectable: with this spread, at the strictest of Holm's levels."""

    test: Test
    measure: str
    percent: float
    each: np.ndarray
    mean: float
    sd: float
    interval: tuple[float, float]
    p: float
    adjusted: float
    detectable: float
    rooms: tuple[float, float] | None
    icc: float


def write_report(out: pathlib.Path, study: Study, lines: Sequence[dict], machine: str) -> list[str]:
    """results.md and results.png of a study's folder; returns the lines of results.md."""
    plan, chosen = (json.loads((out / name).read_text()) for name in ("plan.json", "chosen.json"))
    tested = make_tests(study, lines, out / "cells")
    text = [
        "# Results",
        "",
        *answers(study, tested),
        "",
        *_caveats(study, lines, plan, chosen),
        "",
        *_tables(study, lines, tested, chosen),
        *_facts(study, plan, chosen, machine),
    ]
    files.write(out / "results.md", ("\n".join(text) + "\n").encode())
    if any(line["stage"] == "compare" and "curve" in line for line in lines):
        draw(study, lines, out / "results.png")
    return text


# Tests ---------------------------------------------------------------------------------------------------------------


def make_tests(study: Study, lines: Sequence[dict], cells: pathlib.Path | None = None) -> list[Tested]:
    """Every test that the plan names and that has two seeds or more, corrected for all that the plan names. cells: the
    folder of confusion matrices."""
    made = [(*of, *_pairs(study, lines, *of)) for of in study.planned]
    found = [compare(each) if len(each) > 1 else None for *_, each, _ in made]
    adjusted = holm(np.array([np.nan if one is None else float(one.p) for one in found]))
    tested = []
    for (measure, percent, test, each, names), one, strict in zip(made, found, adjusted, strict=True):
        if one is None:
            continue
        mean, sd, seeds = float(one.mean), float(one.sd), len(each)
        half = float(stats.t.isf(LEVEL / 2, seeds - 1)) * sd / np.sqrt(seeds)
        least = detectable(seeds, LEVEL / len(made)) * sd
        rooms = _rooms(cells, names) if cells and measure == "segmentation" else None
        interval = (mean - half, mean + half)
        figures = (mean, sd, interval, float(one.p), float(strict), least, rooms, float(one.icc))
        tested.append(Tested(test, measure, percent, each, *figures))
    return tested


def _pairs(
    study: Study, lines: Sequence[dict], measure: str, percent: float, test: Test
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Differences (S, K) in points of the seeds that both arms have all subsets of, and the cells' names."""
    found = {}
    for line in lines:
        if (line["stage"], line["measure"], line["percent"]) == ("compare", measure, percent):
            found[line["arm"], line["seed"], line["subset"]] = line
    subsets = range(study.subsets)
    arms = test.arm, test.floor
    whole = [s for s in range(study.seeds) if all((arm, s, k) in found for arm in arms for k in subsets)]
    pairs = [[[found[arm, s, k] for arm in arms] for k in subsets] for s in whole]
    each = [[100 * (first["score"] - second["score"]) for first, second in row] for row in pairs]
    return np.array(each).reshape(-1, study.subsets), [tuple(x["name"] for x in pair) for row in pairs for pair in row]


def _rooms(cells: pathlib.Path, names: Sequence[tuple[str, str]]) -> tuple[float, float] | None:
    """The interval over test rooms, from the stored matrices of pairs of cells; None where a cell failed."""
    if not all((cells / f"{name}.npz").exists() for pair in names for name in pair):
        return None
    stored = [[np.load(cells / f"{name}.npz") for name in pair] for pair in names]
    first, second = (np.stack([pair[side]["each"] for pair in stored]) for side in (0, 1))
    rooms = [room_of(str(scan)) for scan in stored[0][0]["scan"]]
    return rooms_interval(first, second, rooms, np.random.default_rng(0))


def answers(study: Study, tested: Sequence[Tested]) -> list[str]:
    """A paragraph: for each question of the plan what its tests say."""
    parts = []
    for question, text in QUESTIONS.items():
        asked = [one for one in tested if one.test.question == question]
        if asked:
            parts.append(f"**{text}** {' '.join(_answer(study, one) for one in asked)}")
        elif any(test_of(test).question == question for test in study.tests):
            parts.append(f"**{text}** Not known yet: no test of it has two seeds.")
    return [" ".join(parts) if parts else "The plan names no test."]


def _answer(study: Study, one: Tested) -> str:
    """One test as a sentence."""
    low, high = one.interval
    about = f"{one.test.arm} against {one.test.floor}, {one.percent:g} % of the labels, {one.measure}"
    size = f"{one.mean:+.1f} points of {SCORES[one.measure]} (95 % from {low:+.1f} to {high:+.1f} over {len(one.each)} "
    size += f"seeds, {_p(one.adjusted)} after Holm)"
    if np.isnan(one.adjusted):
        return f"Not tested: {about}: all {len(one.each)} seeds differ by the same {one.mean:+.1f} points."
    if one.adjusted < LEVEL:
        return f"{'Yes' if one.mean > 0 else 'It harms'}: {about}: {size}."
    return f"Not shown: {about}: {size}; a true difference of {one.detectable:.1f} would probably have been seen."


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


# Tables --------------------------------------------------------------------------------------------------------------


def _caveats(study: Study, lines: Sequence[dict], plan: dict, chosen: dict) -> list[str]:
    """What limits the answers, one line each."""
    found = []
    longest = [of for of, steps in chosen["steps"].items() if steps == study.lengths[-1]]
    if longest:
        text = f"{study.lengths[-1]} steps of fine-tuning are the longest that were tried ({', '.join(longest)})"
        found.append(f"- {text}: scratch may still have been gaining, and a lead may be one of speed alone.")
    cells = [line for line in lines if line["stage"] == "compare" and line["measure"] != "probes"]
    wanted = study.seeds * study.subsets * len(study.percents) * len(study.measures) * len(study.arms)
    if len(cells) < wanted:
        found.append(f"- Not finished: {len(cells)} of {wanted} cells of the comparison are there.")
    if failed := [line["name"] for line in lines if "failed" in line]:
        found.append(f"- The training of {len(failed)} cells went wrong, which counts as 0: {', '.join(failed)}.")
    if study.seeds < 5:
        found.append(f"- {study.seeds} pre-training seeds: too few for a test to show anything but large differences.")
    if not plan["own"]:
        found.append("- Built-in rooms: synthetic, small, geometry only. They say nothing of real scans.")
    return found


def _tables(study: Study, lines: Sequence[dict], tested: Sequence[Tested], chosen: dict) -> list[str]:
    text = []
    compared = [line for line in lines if line["stage"] == "compare" and "curve" in line]
    for measure in study.measures:
        for percent in study.percents:
            mine = [line for line in compared if (line["measure"], line["percent"]) == (measure, percent)]
            if mine:
                title = f"## {measure.capitalize()}, {percent:g} % of the labels: {SCORES[measure]} in %"
                head = ("arm", "last (sd)", "seeds", "recipe", "steps", "at scratch's last after", "pre-training s")
                text += [title, "", *aligned((*head, "fine-tuning s"), _arms(study, mine)), ""]
    if tested:
        text += ["## Tests", "", *aligned(_TEST_HEAD, [_test_row(one) for one in tested]), ""]
    for stage, title in (("compare", "Probes"), ("screen", "Screen, on validation rooms, by probes")):
        rows = _probe_rows(lines, stage)
        if rows:
            head = ("arm", *(f"{name} (sd)" for name in _PROBES.values()), "seeds")
            text += [f"## {title}", "", *aligned(head, rows), ""]
    return text


def _arms(study: Study, lines: Sequence[dict]) -> list[list]:
    """A row an arm, from its lines of one measure and share."""
    scratch = [line["curve"]["score"] for line in lines if line["arm"] == SCRATCH]
    goal = np.mean(scratch, axis=0)[-1] if scratch else np.nan
    rows = []
    for arm in study.arms:
        mine = [line for line in lines if line["arm"] == arm]
        if not mine:
            continue
        by_seed = _by_seed(mine, "score")
        steps, curve = np.array(mine[0]["curve"]["step"]), np.mean([line["curve"]["score"] for line in mine], axis=0)
        reached = steps_to_reach(steps, curve, float(goal)) if scratch else np.nan
        after = "never" if np.isnan(reached) else f"{reached:.0f} steps"
        seconds = [(line["pretrain_seconds"], line["curve"]["seconds"][-1]) for line in mine]
        spent = (f"{mean:.0f}" for mean in np.mean(seconds, axis=0))
        rows.append([arm, _mean_sd(by_seed), len(by_seed), mine[0]["recipe"], steps[-1], after, *spent])
    return rows


def _by_seed(lines: Sequence[dict], value: str) -> np.ndarray:
    """Means over the subsets of each seed, in %."""
    seeds = sorted({line["seed"] for line in lines})
    return np.array([100 * np.mean([line[value] for line in lines if line["seed"] == seed]) for seed in seeds])


def _mean_sd(values: np.ndarray) -> str:
    spread = f" ({values.std(ddof=1):.2f})" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


def _test_row(one: Tested) -> list[str]:
    name = f"{one.test.arm} : {one.test.floor}"
    by_seed = " ".join(f"{value:+.2f}" for value in one.each.mean(axis=1))
    figures = (f"{one.mean:+.2f}", _range(one.interval), f"{one.sd:.2f}", len(one.each), f"{one.p:.4f}")
    rest = (
        f"{one.adjusted:.4f}",
        f"{one.detectable:.2f}",
        _range(one.rooms),
        "-" if np.isnan(one.icc) else f"{one.icc:.2f}",
    )
    return [name, one.measure, f"{one.percent:g} %", *figures, *rest, by_seed]


def _range(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:+.2f} to {ends[1]:+.2f}"


def _probe_rows(lines: Sequence[dict], stage: str) -> list[list]:
    """A row an arm, the best linear probe first."""
    mine = [line for line in lines if line["stage"] == stage and line["measure"] == "probes"]
    rows = []
    for arm in dict.fromkeys(line["arm"] for line in mine):
        own = [line for line in mine if line["arm"] == arm]
        told = [[line for line in own if line[name] is not None] for name in _PROBES]
        cells = [_mean_sd(_by_seed(some, name)) if some else "-" for name, some in zip(_PROBES, told, strict=True)]
        rows.append([arm, *cells, len(own)])
    return sorted(rows, key=lambda row: -float(row[1].split()[0]))


def _facts(study: Study, plan: dict, chosen: dict, machine: str) -> list[str]:
    """How to read the tables, and what was compared."""
    rooms = [
        f"{side}: {len(of['learned'])} scans to learn from, {len(of['judged'])} judged on, digest {of['digest'][:12]}"
        for side, of in plan["rooms"].items()
    ]
    text = [
        f"Unit: the pre-training seed, {study.seeds} of them, {study.subsets} subset(s) of the labels each. p: paired "
        "t-test over seeds, two-sided. Holm's p: corrected for the tests that the plan named before anything ran, "
        f"{plan['number_of_tests']} of them. detectable: the true difference that so many seeds of this spread show in "
        f"{POWER:.0%} of studies, at the strictest of Holm's levels. over rooms: bootstrap of test rooms, the models "
        "as they are. ICC: correlation of cells of one seed. sd: over seeds.",
        "at scratch's last after: where the mean curve reaches scratch's last score. Rates are still high on the way, "
        "so the true number is lower.",
        f"objectness: how often two neighbouring voxels, up to {100 * NEAR_M:g} cm apart, of one object are more alike "
        "than two of touching objects, in %; chance is 50.",
        "moving, at rest: accuracy of k-NN, the mean over classes, for shapes that move through judged rooms and for "
        "furniture of the same classes at rest there; neighbours are labelled points of other rooms, where nothing "
        "moves. No arm was pre-trained on these shapes.",
        f"Chosen on validation rooms, of {len(study.recipes)} recipes an arm: {_chosen(chosen)}.",
        f"Rooms, {'; '.join(rooms)}.",
        machine,
    ]
    return [line for part in text for line in (part, "")][:-1]


def _chosen(chosen: dict) -> str:
    parts = [f"{of}: {steps} steps" for of, steps in chosen["steps"].items()]
    return ", ".join([*parts, *([f"best: {chosen['best']}"] if chosen["best"] else [])])


# Picture -------------------------------------------------------------------------------------------------------------


def draw(study: Study, lines: Sequence[dict], path: pathlib.Path) -> None:
    """Curves over steps and over seconds, pre-training's included; a row a measure and share; bars: a standard error
    over seeds."""
    import matplotlib  # slow to import, and needed for pictures alone

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [(measure, percent) for measure in study.measures for percent in study.percents]
    size = (10.0, 3.6 * len(rows))
    figure, grid = pyplot.subplots(
        len(rows), 2, figsize=size, dpi=110, squeeze=False, layout="constrained", sharey="row"
    )
    for panels, (measure, percent) in zip(grid, rows, strict=True):
        for arm in study.arms:
            mine = [x for x in lines if (x["stage"], x["arm"], x["measure"]) == ("compare", arm, measure)]
            mine = [line for line in mine if line["percent"] == percent and "curve" in line]
            if mine:
                _draw_arm(panels, arm, mine)
        panels[0].set_ylabel(f"{SCORES[measure]} of test rooms, %, {percent:g} % of the labels")
        panels[0].set_xlabel("steps of fine-tuning")
        panels[1].set_xlabel("seconds, pre-training included")
    grid[0, 0].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    pyplot.close(figure)
    files.write(path, buffer.getvalue())


def _draw_arm(panels, arm: str, lines: Sequence[dict]) -> None:
    seeds = sorted({line["seed"] for line in lines})
    each = [[line["curve"]["score"] for line in lines if line["seed"] == seed] for seed in seeds]
    curves = 100 * np.array([np.mean(cells, axis=0) for cells in each])
    error = curves.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else 0
    seconds = np.mean([np.add(line["curve"]["seconds"], line["pretrain_seconds"]) for line in lines], axis=0)
    for axes, along in zip(panels, (lines[0]["curve"]["step"], seconds), strict=True):
        axes.errorbar(along, curves.mean(axis=0), error, marker="o", ms=3, capsize=2, lw=1.2, label=arm)
        axes.grid(alpha=0.3)
