"""A run as one page for people, in the look of `gen4d report`: what it reached, its curves, pictures and settings, and
how to go on.

All of it is read from the run's folder, so a run that goes on, or was stopped, has a page too.
"""

import io
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from gen4d import __version__, files
from gen4d.report import sheet
from gen4d.report.sheet import Html, number, tag
from train.config import flatten, to_plain
from train.errors import Refused
from train.methods.config import PRESETS
from train.nets.pooled import POINT_NETS
from train.run.log import read_lines
from train.study import scores
from train.study.compare import Run, read_run, thinned
from train.tasks.classify.config import PRESETS as CLASSIFY
from train.tasks.config import PRESETS_OF

_MADE_SO = frozenset({"run.precision", "block_scans"})  # settings that a run makes definite when it starts
_PICTURES = 6  # of scans, at most
_SHOWN = (1440, 720)  # most pixels of a picture
_TITLES = {"pretrain": "Pre-training", "segment": "Segmentation", "instances": "Instance segmentation"}
_TITLES |= {"detect": "Detection", "blocks": "Segmentation by blocks", "classify": "Classification of shapes"}
_CSS = """
.charts { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.charts > div { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 12px 14px;
  min-width: 0; }
.charts svg { width: 100%; }
td:first-child { overflow-wrap: normal; }
td b { white-space: nowrap; }
.shots img { max-width: 100%; height: auto; margin: 4px 0 18px; }
.heat table { width: auto; }
.heat td, .heat th { min-width: 0; padding: 3px 5px; font-size: 12px; border: 0; }
.heat thead th { writing-mode: vertical-rl; transform: rotate(180deg); }
.heat thead th:first-child { writing-mode: initial; transform: none; }
.heat td[style] { min-width: 30px; text-align: center;
  background: color-mix(in srgb, var(--s0) var(--v), transparent); }
"""


class PageError(Refused):
    """A folder that no page can be made of."""


class Told(NamedTuple):
    """What a run's folder says: where it is, its configuration, its log and validations, its curves if it has any."""

    folder: pathlib.Path
    config: dict
    log: list[dict]
    validations: list[dict]
    results: dict
    run: Run | None

    @property
    def task(self) -> str:
        return str(self.config.get("task"))

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None where it has none of its own."""
        settings = self.config.get("settings", {})
        return self.config.get("steps") or settings.get("run", {}).get("steps")

    @property
    def made(self) -> int:
        """Steps that were made."""
        return self.log[-1]["step"] if self.log else 0

    @property
    def finished(self) -> bool:
        return self.made >= self.steps if self.steps else bool(self.results)


def write_page(folder: pathlib.Path, out: pathlib.Path) -> str:
    """Write the page of a run of pretrain, finetune or classify; returns what it shows, in words. Raises PageError,
    CompareError."""
    told = _read(folder)
    method = told.config.get("settings", {}).get("method", "")
    what = _TITLES.get(told.task, told.task) + (f" by {method}" if method else "")
    state = _state(told)
    body = (
        tag("h1", folder.resolve().name),
        sheet.note(f"{what}. {state}"),
        sheet.tiles(_figures(told)),
        scores.score_table(told.task, told.results, told.validations),
        scores.fit_table(told.log),
        scores.confusion_table(told.results, told.config.get("classes", ())),
        _pictures(told),
        _curves(told),
        _settings(told),
        _data(told),
        _environment(told),
        _going_on(told),
        sheet.note(f"Made by gen4d {__version__} from what the run's folder holds."),
    )
    files.make_folder(out.parent)
    files.write(out, sheet.page(f"{folder.resolve().name}: {what}", *body, css=_CSS).encode())
    return f"{what}, {state[0].lower()}{state[1:].rstrip('.')}"


def _read(folder: pathlib.Path) -> Told:
    config = _json(folder / "config.json")
    if not config:
        raise PageError(f"{folder}: no run there: give a run folder of pretrain, finetune or classify")
    log, results = read_lines(folder / "log.jsonl"), _json(folder / "results.json")
    run = read_run(folder) if log or not results else None
    return Told(folder, config, log, read_lines(folder / "validation.jsonl"), results, run)


def _json(path: pathlib.Path) -> dict:
    """What a file holds, nothing where it is not there. Raises PageError where it is not JSON."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PageError(f"{path}: damaged, no JSON object: repeat the command of this run, which writes it anew")
    return found


def _state(told: Told) -> str:
    if not told.steps:
        return "Finished." if told.finished else "Not finished."
    return f"{told.made:,} of {told.steps:,} steps made{'.' if told.finished else ': not finished.'}"


def _figures(told: Told) -> list[tuple[str, str]]:
    """The large figures at the top."""
    timing = [line["timing"] for line in told.log]
    if not timing:
        return []
    hours = sum(one["seconds"] for one in timing) / 3600
    speed = float(np.median([one["sequences_per_s"] for one in timing]))
    items = "sequences" if told.task == "pretrain" else "shapes" if told.task == "classify" else "scans"
    shown = [
        (f"{told.made:,}", "steps"),
        (sheet.figure(told.log[-1]["loss"]), "loss"),
        (f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min", "of steps, without validations"),
        (sheet.figure(speed), f"{items} per second"),
        (f"{max(one['memory_gb'] for one in timing):.2f} GB", "memory at most"),
    ]
    skipped = told.log[-1].get("skipped", 0)
    return shown + ([(f"{skipped:,}", "updates left out: gradients overflowed")] if skipped else [])


# Pictures ------------------------------------------------------------------------------------------------------------


def _pictures(told: Told) -> Html:
    """Pictures that the run left, smaller."""
    shots = sorted((told.folder / "pictures").glob("*.png"))[:_PICTURES]
    scans = [part for path in shots for part in (tag("h3", path.stem), _embedded(path))]
    feature = told.folder / "features.png"
    if feature.exists():
        said = "Classes of test shapes by their features."
        if told.task == "pretrain":
            said = "Features of a scan by their three principal components: what has one colour is alike to the net."
        scans = [sheet.note(said), _embedded(feature), *scans]
    return sheet.section("Pictures", tag("div", *scans, class_="shots")) if scans else Html("")


def _embedded(path: pathlib.Path) -> Html:
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail(_SHOWN)
    buffer = io.BytesIO()
    small.save(buffer, "webp", quality=75, method=4)
    return sheet.picture(buffer.getvalue(), "webp", path.stem, *small.size)


def _curves(told: Told) -> Html:
    """A chart per group of figures that belong together."""
    if told.run is None:
        return Html("")
    charts: dict[str, dict] = {}
    for name, (steps, values) in told.run.curves.items():
        group, label = _group(name)
        charts.setdefault(group, {})[label] = thinned(steps, values)
    drawn = []
    for group, of in charts.items():
        names = [name for name, (steps, _) in of.items() if len(steps) > 1]
        for first in range(0, len(names), _LINES):
            some = {name: of[name] for name in names[first : first + _LINES]}
            title = f"{group}: {names[0]}" if len(names) == 1 and names[0] != group and group in _NAMED else group
            drawn.append(tag("div", tag("h3", title), sheet.lines(some, "step", size=(420, 190))))
    return sheet.section("Curves", tag("div", *drawn, class_="charts")) if drawn else Html("")


_LINES = 6  # of a chart, so that each has a colour
_NAMED = ("validation", "what features are good for")  # charts whose line is named even if there is one
_GROUPS = {"terms": "terms of the loss", "spread": "spread of features: 1 is even, 0 collapsed"}
_GROUPS |= {"lr": "learning rate", "gradient": "norm of the gradient", "probe": "what features are good for"}


def _group(name: str) -> tuple[str, str]:
    """The chart of a figure, and its name there."""
    first, _, rest = name.partition(".")
    if first == "fit":
        comparison, _, figure = rest.partition("/")
        return (f"fit of {comparison}", figure) if figure != "top1" else ("counterparts found", comparison)
    return _GROUPS.get(first, first), rest or first


# Settings and the rest -----------------------------------------------------------------------------------------------


def _settings(told: Told) -> Html:
    """Settings that differ from the nearest preset, and all of them."""
    own = flatten(told.config.get("settings", {}))
    presets = {"pretrain": PRESETS, "classify": CLASSIFY}.get(told.task) or PRESETS_OF.get(told.task)
    if not presets:
        return Html("")
    plain = {name: flatten(json.loads(json.dumps(to_plain(preset)))) for name, preset in presets.items()}
    changed = {name: _differing(own, preset) for name, preset in plain.items()}
    nearest = min(changed, key=lambda name: len(changed[name]))
    rows = [[path, _text(own[path]), _text(plain[nearest][path])] for path in changed[nearest]]
    head = ["setting", "this run", f"preset {nearest}"]
    said = f"The nearest preset is {nearest}" + ("; what differs:" if rows else ", and nothing differs.")
    other = sorted(set(own) ^ set(plain[nearest]))
    parts = [sheet.note(said), sheet.table(head, rows) if rows else ""]
    if other:
        parts.append(sheet.note(f"Made by another version of gen4d; settings that one alone has: {', '.join(other)}."))
    whole = sheet.table(["setting", "value"], [[path, _text(value)] for path, value in own.items()])
    return sheet.section("Settings", *parts, sheet.details(f"all {len(own)} settings", whole))


def _differing(own: Mapping, preset: Mapping) -> list[str]:
    return [path for path in own if path in preset and path not in _MADE_SO and own[path] != preset[path]]


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _data(told: Told) -> Html:
    """What was learned from, and what it started with."""
    config, lines = told.config, []
    learned = config.get("scans", [])
    if learned:
        lines.append(sheet.details(f"learned from {len(learned)} scans", sheet.note(", ".join(learned))))
    path = told.folder / "val_scans.txt"
    if path.exists():
        names = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
        lines.append(sheet.details(f"validated on {len(names)}", sheet.note(", ".join(names))))
    facts = [("data", config.get("data")), ("weights", _weights(config)), ("backbone", _backbone(config))]
    rows = [[name, value] for name, value in facts if value]
    return sheet.section("Data and net", sheet.table(["", ""], rows, sortable=False), *lines)


def _weights(config: Mapping) -> str:
    given = config.get("weights", "")
    return "from scratch" if given in ("none", []) else ", ".join(given) if isinstance(given, list) else given


def _backbone(config: Mapping) -> str:
    net = config.get("backbone", {})
    size = f", voxels of {net['voxel_m']:g} m" if net.get("voxel_m") else ""
    return f"{net['net']}{size}" if net.get("net") else ""


def _environment(told: Told) -> Html:
    """What it was computed with, start by start."""
    starts = read_lines(told.folder / "machine.jsonl")
    if not starts:
        known = told.results.get("machine")
        return sheet.section("Environment", sheet.note(known or "Not noted: made by an earlier gen4d."))
    rows = [[number(line["step"]), line["machine"], line["python"], number(line["processes"])] for line in starts]
    head = ["from step", "versions and hardware", "Python", "processes"]
    return sheet.section("Environment", sheet.table(head, rows, sortable=False))


def _going_on(told: Told) -> Html:
    """Commands: of an unfinished run those that finish it, of a finished one those that use it."""
    run = str(told.folder)
    weights = "none" if told.config.get("weights", "none") in ("none", []) else "WEIGHTS"
    again = {"pretrain": f"gen4d-train pretrain --data DATA --config {run}/config.json --run {run}"}
    again["classify"] = f"gen4d-train classify --data SHAPES --weights {weights} --run {run}"
    tuned = f"gen4d-train finetune --task {told.task} --data SCANS --weights {weights}"
    after = {
        "pretrain": [*_uses(told, run), f"gen4d-train export-weights {run} --out backbone.safetensors"],
        "segment": [f"gen4d-train evaluate {run} --data SCANS", f"gen4d-train predict {run} SCAN.ply"],
        "instances": [f"gen4d-train evaluate {run} --data SCANS"],
        "detect": [f"gen4d-train evaluate {run} --data SCANS"],
        "blocks": [f"gen4d-train evaluate {run} --data SCANS"],
    }
    if not told.finished:
        command = again.get(told.task, f"{tuned} --config {run}/config.json --run {run}")
        said = "The command that started it goes on from its last checkpoint. With its data in place of capitals:"
        return sheet.section("How to go on", sheet.note(said), tag("pre", command))
    commands = after.get(told.task)
    if not commands:
        return Html("")
    said = "With your files in place of capitals:"
    return sheet.section("How to go on", sheet.note(said), tag("pre", "\n".join(commands)))


def _uses(told: Told, run: str) -> list[str]:
    """Commands that take a pre-trained backbone."""
    net = told.config.get("backbone", {}).get("net")
    if net == "dgcnn-seg":
        return [f"gen4d-train finetune --task blocks --data S3DIS --weights {run} --run runs/finetune"]
    if net in POINT_NETS:
        return [f"gen4d-train classify --data SHAPES --weights {run} --run runs/classify"]
    preset = " --preset small" if net == "small" else ""
    return [
        f"gen4d-train finetune --data SCANS{preset} --weights {run} --run runs/finetune",
        f"gen4d-train probe --data SCANS --weights {run}",
        f"gen4d-train features {run} --scan SCAN.ply",
    ]
