"""A study's results as Markdown and as a picture."""

import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from gen4d import files
from train.study.statistics import FLOOR, paired
from train.tasks.tables import aligned

METRICS = {"miou": "fine-tuned", "linear": "linear probe", "knn": "k-NN probe"}
STEPS = [  # an arm, and the one that it adds something to
    ("moving-3d", "static-3d"),
    ("4dcontrast", "moving-3d"),
    ("4dcontrast", "4dcontrast-shared"),
    ("4dcontrast-simclr", "moving-3d-simclr"),
    ("moving-3d-simclr", "static-3d-simclr"),
    ("moving-3d-simclr", "moving-3d"),
    ("moving-3d-infonce", "static-3d-infonce"),
]


def write_report(out: pathlib.Path, lines: Sequence[dict], machine: str) -> list[str]:
    """results.md and results.png of a study's folder; returns the lines of results.md."""
    plan = json.loads((out / "study.json").read_text())
    text = report(lines, plan, machine)
    files.write(out / "results.md", ("\n".join(text) + "\n").encode())
    draw(lines, plan, out / "results.png")
    return text


def report(lines: Sequence[dict], plan: dict, machine: str) -> list[str]:
    """The Markdown of a study's results."""
    text = []
    for metric, name in METRICS.items():
        rows = [_row(lines, arm, percent, metric) for percent in plan["percents"] for arm in plan["arms"]]
        head = ("labels", "arm", "mIoU", "sd", "n", f"- {FLOOR}", "sd", "pairs", "p", "visible from", "by seed")
        text += [f"{name}:", "", *aligned(head, [row for row in rows if row]), ""]
    if steps := [row for percent in plan["percents"] for row in _step_rows(lines, percent)]:
        head = ("labels", "arm", "against", *(word for name in METRICS.values() for word in (name, "sd")), "pairs", "p")
        text += ["One way of pre-training against another (p: of fine-tuning):", "", *aligned(head, steps), ""]
    test = lines[0]["test"] if lines else {}
    return [
        *text,
        f"mIoU in % on all points of {test.get('scans')} scans of test rooms ({test.get('classes')} classes there); "
        f"rooms of generator {plan['generator_version']}, digest {plan['samples_digest'][:12]}; {plan['seeds']} "
        f"pre-training seeds x {plan['subsets']} subsets; p: paired t-test over pairs, which share a pre-trained model "
        "within a seed, so it flatters; visible from: the difference seen with 80 % power",
        f"pre-training: {_seconds(lines, plan)}",
        machine,
    ]


def _row(lines: Sequence[dict], arm: str, percent: float, metric: str) -> list[str] | None:
    found = np.array([100 * line[metric] for line in lines if (line["arm"], line["percent"]) == (arm, percent)])
    if not len(found):
        return None
    sd = f"{found.std(ddof=1):.2f}" if len(found) > 1 else "-"
    row = [f"{percent:g} %", arm, f"{found.mean():.2f}", sd, len(found)]
    if arm == FLOOR:
        return [*row, "", "", "", "", "", ""]
    try:
        gain = paired(lines, arm, percent, metric)
    except ValueError:
        return [*row, "-", "-", 0, "-", "-", ""]
    seeds = " ".join(f"{value:+.2f}" for value in gain.by_seed.values())
    return [*row, f"{gain.mean:+.2f}", f"{gain.sd:.2f}", gain.pairs, f"{gain.p:.3f}", f"{gain.visible:.2f}", seeds]


def _step_rows(lines: Sequence[dict], percent: float) -> list[list[str]]:
    """Arms against those that they add something to, where there are pairs."""
    rows = []
    for arm, floor in STEPS:
        try:
            found = [paired(lines, arm, percent, metric, floor) for metric in METRICS]
        except ValueError:
            continue
        gains = [word for one in found for word in (f"{one.mean:+.2f}", f"{one.sd:.2f}")]
        rows.append([f"{percent:g} %", arm, floor, *gains, found[0].pairs, f"{found[0].p:.3f}"])
    return rows


def _seconds(lines: Sequence[dict], plan: dict) -> str:
    """Mean time of each arm's pre-training."""
    parts = []
    for arm in plan["arms"]:
        found = {line["seed"]: line["pretrain_seconds"] for line in lines if line["arm"] == arm}
        if any(found.values()):
            parts.append(f"{arm} {np.mean(list(found.values())):.0f} s")
    return ", ".join(parts) or "none"


def draw(lines: Sequence[dict], plan: dict, path: pathlib.Path) -> None:
    """A picture like the paper's Figure 4: mIoU over the share of labels, per arm, bars one standard error."""
    import matplotlib  # not needed by any other command

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(METRICS), figsize=(4.2 * len(METRICS), 3.6), dpi=130, layout="constrained")
    for axes, (metric, name) in zip(panels, METRICS.items(), strict=True):
        for number, arm in enumerate(plan["arms"]):
            _draw_arm(axes, lines, (arm, number, len(plan["arms"])), plan["percents"], metric)
        axes.set_xscale("log")
        axes.set_xticks(plan["percents"], [f"{percent:g}" for percent in plan["percents"]])
        axes.minorticks_off()
        axes.set_xlabel("rooms with labels, %")
        axes.set_title(name, fontsize=10)
    panels[0].set_ylabel("mIoU of test rooms, %")
    panels[0].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    pyplot.close(figure)
    files.write(path, buffer.getvalue())


def _draw_arm(axes, lines: Sequence[dict], place: tuple[str, int, int], percents: Sequence[float], metric: str) -> None:
    arm, number, arms = place
    groups = [[100 * x[metric] for x in lines if (x["arm"], x["percent"]) == (arm, percent)] for percent in percents]
    there = [(percent, group) for percent, group in zip(percents, groups, strict=True) if group]
    if not there:
        return
    shift = 1 + 0.03 * (number - (arms - 1) / 2)  # bars side by side
    mean = [np.mean(group) for _, group in there]
    error = [np.std(group, ddof=1) / np.sqrt(len(group)) if len(group) > 1 else 0 for _, group in there]
    axes.errorbar(
        [percent * shift for percent, _ in there], mean, error, marker="o", ms=4, capsize=2, lw=1.2, label=arm
    )
