"""A page of a whole data set: what is in it, whether it is intact and its rules are kept, and where it comes from."""

import collections
import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from gen4d import files
from gen4d.building import kind_of, refused_in
from gen4d.config import in_words, to_plain
from gen4d.report import sheet, summary
from gen4d.report.page import write_page
from gen4d.report.picture import thumbnail
from gen4d.report.rules import Measured, Rule, Rules, common_share, kept_points
from gen4d.report.scene import way_m
from gen4d.report.sheet import Html, number, tag
from gen4d.sequence import ROLE_MOVING, ROLE_STATIC, FloorPlan, Sequence, Views
from gen4d.shards import Dataset, FormatError
from gen4d.shards.manifest import read_sidecar
from gen4d.shards.verify import verify

_PICTURED, _LISTED = 200, 1000  # scans with a picture, and in the table at all
_OF_A_CLASS = 6  # pictures of shapes
_THUMBNAIL, _PLAN = (176, 120), (128, 110)  # pixels
_CELLS, _POINTS = 64, 40_000  # of a floor plan: cells across at most, points that say where walls are
_AROUND_M = 0.8  # of free floor
_WALLS_M = (0.3, 2.0)  # above the floor
_FILES = 300  # named
_STYLE = """
.plan { max-width: none; } .plan path { fill: none; vector-effect: non-scaling-stroke; }
.plan .floor, .plan .wall { stroke: var(--floor); stroke-width: 1.06; vector-effect: none; }
.plan .wall { stroke: var(--pale); opacity: .4; }
.plan .way { stroke: var(--rule); stroke-width: 1.1; stroke-linejoin: round; opacity: .75; }
.plan .start { stroke: var(--rule); stroke-width: 4; stroke-linecap: round; }
td a { display: inline-block; } td img { margin-bottom: 4px; }
@media (max-width: 700px) { td img { width: 117px; height: 80px; } .plan { width: 84px; height: auto; } }
.strip { display: flex; gap: 4px; } .strip img { width: 88px; height: 60px; }
"""


class Written(NamedTuple):
    """What a report says, in lines, and whether all is as it should be."""

    lines: list[str]
    sound: bool


@dataclasses.dataclass
class _Scan:
    """A scan of the report, or a shape of which views were made: what its shard's .json says, and what was seen."""

    name: str
    said: dict
    page: str = ""
    picture: Html = Html("")
    plan: Html = Html("")
    points: int = 0  # in all frames
    common: float = math.nan  # median share that all frames keep
    overlap: float = math.nan  # median of neighbouring frames


def write_report(
    dataset: Dataset,
    path: pathlib.Path,
    quick: bool = False,
    views: bool = False,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> Written:
    """Measure a data set and write its page.

    quick: check names and sizes of its files alone, not their content. views: also write a page of each scan, into a
    folder beside the report, which links to them. Raises FormatError where the data cannot be read.
    """
    sidecars = [read_sidecar(dataset.home, shard) for shard in range(len(dataset.manifest["shards"]))]
    problems = [line for line in verify(dataset, quick) if line]
    kind = dataset[0].kind if len(dataset) else dataset.manifest.get("kind", "moving")
    rules = Rules(kind, dataset.config)
    try:
        said = [scan for sidecar in sidecars for scan in sidecar["scans"]]
        scans = [_Scan(scan["name"], scan) for scan in said]
        beside = path.with_name(f"{path.stem}-scans") if views else None
        _look(dataset, scans, rules, beside, progress)
        measured = rules.measured()
        every = [*measured, *rules.heights().values()]
        body = [
            *_head(dataset, kind, scans, said),
            _checks(dataset, problems, quick, every, said),
            _rules(measured),
            *(
                (_shape_classes(scans), _shapes(scans))
                if kind == "views"
                else (_scans(kind, scans), _classes(scans, rules))
            ),
            _rejections(said),
            _left_out(dataset, sidecars, said),
            _sources(dataset, kind, sidecars, said),
            _settings(dataset, kind),
            _use(dataset, kind),
        ]
    except (KeyError, TypeError, AttributeError) as error:
        where = dataset.home.where()
        raise FormatError(f"{where}: a shard's .json lacks required entries ({error}): not written by gen4d") from error
    files.make_folder(path.parent)
    files.write(path, sheet.page(_name(dataset), *body, css=_STYLE).encode())
    broken = [one.rule.title for one in every if one.broken.any()]
    thing = "shape" if kind == "views" else "scan"
    count = f"{summary.counted(len(scans), thing)}, {summary.counted(len(dataset), 'sequence')}"
    ruled = sum(bool(one.rule.allowed) for one in every)
    kept = (
        f"OUTSIDE: {', '.join(broken)}"
        if broken
        else f"{ruled} of {ruled} rules kept"
        if ruled
        else "no rules to measure"
    )
    lines = [f"{path}: {count}; {'damaged' if problems else 'intact'}; {kept}", *problems]
    return Written(lines, not problems and not broken)


# What is seen --------------------------------------------------------------------------------------------------------


def _look(dataset: Dataset, scans: list[_Scan], rules: Rules, beside: pathlib.Path | None, progress) -> None:
    """Read every sequence once: measure it, and draw scans."""
    named = {scan.name: scan for scan in scans}
    of_class: collections.Counter = collections.Counter()
    for done, (name, numbers) in enumerate(_sequences_of(dataset), 1):
        scan = named[name]
        sequences = [dataset[i] for i in numbers]
        plan, views = dataset.floor_plan(numbers[0]), dataset.views(numbers[0])
        rules.measure(sequences, plan, views, [dataset.members(i) for i in numbers])
        scan.points = int(sum(kept_points(actor).sum() for sequence in sequences for actor in sequence.actors))
        still = [[actor for actor in sequence.actors if actor.role == ROLE_STATIC] for sequence in sequences]
        scan.common = float(np.median([common_share(one) for one in still])) if all(still) else math.nan
        if views is not None and views.overlap is not None and len(views.clouds) > 1:
            near = range(len(views.clouds) - 1)
            scan.overlap = float(np.median([max(views.overlap[i, i + 1], views.overlap[i + 1, i]) for i in near]))
        first = max(range(min(len(numbers), _PICTURED)), key=lambda k: way_m(sequences[k]))
        of_class[scan.said.get("class")] += 1
        few = of_class[scan.said["class"]] <= _OF_A_CLASS if "class" in scan.said else done <= _PICTURED
        if few:
            scan.picture = _thumbnail(sequences[first], plan)
            scan.plan = _floor_plan(sequences, plan) if plan is not None else _camera_way(views)
        if beside is not None:
            page = beside / f"{_file_name(name, done - 1)}.html"
            write_page(dataset, numbers[first], page)
            scan.page = quote(f"./{beside.name}/{page.name}")
        progress(done, len(scans))


def _sequences_of(dataset: Dataset) -> Iterator[tuple[str, list[int]]]:
    """Scans that have sequences, and the numbers of these."""
    for scan, numbers in itertools.groupby(range(len(dataset)), dataset.scan_of):
        yield dataset.scan_names[scan], list(numbers)


def _file_name(name: str, number: int) -> str:
    """A name of a file for a scan, which may be called anything."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
    return plain if plain == name and not plain.startswith(".") else f"{plain.lstrip('.')}-{number}"


def _thumbnail(sequence: Sequence, plan: FloorPlan | None) -> Html:
    return sheet.picture(thumbnail(sequence, plan, _THUMBNAIL), "webp", sequence.scan, *_THUMBNAIL)


def _floor_plan(sequences: list[Sequence], plan: FloorPlan) -> Html:
    """A scan from above: free floor, walls, and the ways of all that moves in its sequences, each from a dot."""
    cell, origin = plan.cell_m, plan.origin
    held = np.argwhere(plan.valid)
    if not len(held):
        return Html("")
    room = math.ceil(_AROUND_M / cell)
    low, high = held.min(axis=0) - room, held.max(axis=0) + 1 + room
    many = max(1, math.ceil((high - low).max() / _CELLS))  # cells a drawn one
    size = -(-(high - low) // many)
    floor, wall = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    np.add.at(floor, tuple(((held - low) // many).T), 1)
    point = next((actor.cloud.point for actor in sequences[0].actors if actor.role == ROLE_STATIC), np.empty((0, 3)))
    point = point[:: max(1, len(point) // _POINTS)]
    up = point[:, 2] - plan.floor_m
    at = np.floor(point[(up > _WALLS_M[0]) & (up < _WALLS_M[1]), :2] / cell).astype(np.int64) - origin - low
    at = at[((at >= 0) & (at < high - low)).all(axis=1)] // many
    wall[tuple(at.T)] = True
    ways = [
        actor.pose[:, :2, 3] / cell - origin - low
        for sequence in sequences
        for mover in range(len(sequence.movers))
        for actor in [next((a for a in sequence.actors if a.mover == mover and a.role == ROLE_MOVING), None)]
        if actor is not None
    ]
    layers = [("wall", _runs(wall)), ("floor", _runs(floor * 2 > many * many))]
    return _drawn_plan(size, [way / many for way in ways], layers)


def _runs(held: np.ndarray) -> str:
    """Cells (nx, ny) bool as a path of horizontal strokes, north up."""
    edge = np.diff(np.pad(held.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, start = np.nonzero(edge == 1)
    _, stop = np.nonzero(edge == -1)
    down = held.shape[1] - 0.5 - row
    return "".join(
        f"M{x} {y:g}h{n}" for x, y, n in zip(start.tolist(), down.tolist(), (stop - start).tolist(), strict=True)
    )


def _camera_way(views: Views | None) -> Html:
    """Where the sensor of frames or sweeps was, from above."""
    if views is None:
        return Html("")
    place = views.pose[:, :2, 3] - views.pose[:, :2, 3].min(axis=0)
    unit = float(place.max()) / (_CELLS - 8) or 1.0
    place = place[:: max(1, len(place) // 500)] / unit + 4
    return _drawn_plan(np.ceil(place.max(axis=0)).astype(int) + 4, [place], [])


def _drawn_plan(size: np.ndarray, ways: list[np.ndarray], layers: list[tuple[str, str]]) -> Html:
    wide, tall = (int(v) for v in size)
    scale = min(_PLAN[0] / wide, _PLAN[1] / tall)
    places = [[f"{x:.1f} {tall - y:.1f}" for x, y in way.tolist()] for way in ways]
    layers = [*layers, ("way", "".join("M" + "L".join(way) for way in places))]
    layers.append(("start", "".join(f"M{way[0]}h0" for way in places)))
    paths = "".join(f'<path class="{name}" d="{path}"/>' for name, path in layers if path)
    size_px = f'width="{wide * scale:.0f}" height="{tall * scale:.0f}"'
    return Html(f'<svg class="plan" viewBox="0 0 {wide} {tall}" {size_px} role="img">{paths}</svg>')


# What is said --------------------------------------------------------------------------------------------------------


def _name(dataset: Dataset) -> str:
    return dataset.home.where().rstrip("/").rpartition("/")[2] or dataset.home.where()


def _head(dataset: Dataset, kind: str, scans: list[_Scan], said: list[dict]) -> list[Html]:
    manifest, totals = dataset.manifest, dataset.manifest["totals"]
    attempts = sum(scan.get("attempts", 0) for scan in said)
    figures = [
        _counted(len(scans), "shape" if kind == "views" else "scan"),
        _counted(len(dataset), "sequence"),
        (f"{len(dataset) * (dataset[0].t if len(dataset) else 0):,}", "frames"),
        (_large(sum(scan.points for scan in scans)), "points in frames"),
        (summary.format_bytes(totals.get("bytes", 0)), "on disk"),
    ]
    if attempts:
        gaps = sum(len(scan.get("gaps", ())) for scan in said)
        figures += [(f"{len(dataset) / attempts:.0%}", "of attempts accepted"), (f"{gaps:,}", "sequences given up")]
    made = f"made by gen4d {manifest['gen4d']}"
    made += f", generator {manifest['generator']}" if manifest.get("generator") else ""
    line = f"A gen4d data set of kind {kind}, format {manifest['version']}, {made}."
    return [tag("h1", _name(dataset)), sheet.note(line), sheet.tiles(figures)]


def _counted(count: int, thing: str) -> tuple[str, str]:
    """A number, and what it counts."""
    return f"{count:,}", summary.counted(count, thing).partition(" ")[2]


def _large(count: float) -> str:
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"


def _checks(dataset: Dataset, problems: list[str], quick: bool, every: list[Measured], said: list[dict]) -> Html:
    """What a reader should know first."""
    ruled, broken = [one for one in every if one.rule.allowed], [one for one in every if one.broken.any()]
    looked = "names and sizes of all files" if quick else "every file, chunk and table"
    shards = summary.counted(len(dataset.manifest["shards"]), "shard")
    files_line = (
        [sheet.verdict("Damaged.", False), " ", "; ".join(problems[:5])]
        if problems
        else [sheet.verdict("Intact.", True), f" {shards}: {looked} checked by ", tag("code", "gen4d verify"), "."]
    )
    if broken:
        names = ", ".join(one.rule.title for one in broken)
        rules_line = [sheet.verdict("OUTSIDE.", False), f" {len(broken)} of {len(ruled)} rules are broken: {names}."]
    elif ruled:
        rules_line = [sheet.verdict("Within.", True), f" All {len(ruled)} rules of its config are kept."]
    elif not len(dataset):
        rules_line = ["There is no sequence whose rules could be measured."]
    else:
        rules_line = ["Its config states no rules: it was written by another program through gen4d's writers."]
    digest = [tag("code", dataset.digest), " is the SHA-256 of dataset.json, which holds those of all other files."]
    measured = [scan for scan in said if None not in (scan.get("valid_m2"), scan.get("free_m"))]
    doubts = [tag("p", line, class_="doubt") for line in summary.doubts(measured)]
    return sheet.joined([tag("p", *files_line), tag("p", *rules_line), *doubts, tag("p", *digest, class_="pale")])


def _rules(measured: list[Measured]) -> Html:
    cards = [_card(one) for one in measured if not one.is_single]
    rows = [
        [_titled(one.rule), _range(one.rule), _ends(one), _verdict(one), number(len(one.values))]
        for one in measured
        if one.is_single
    ]
    about = "Measured again from what is stored, in every sequence. Lines are the rules of the config."
    columns = ("rule", "allowed", "measured", "verdict", "numbers")
    table = sheet.table(columns, rows, sortable=False) if rows else ""
    told = sheet.note(about), tag("div", *cards, class_="cards"), table
    return sheet.section("Are the rules kept?", *told) if measured else Html("")


def _titled(rule: Rule) -> Html:
    return sheet.joined([rule.title, tag("div", rule.about, class_="pale")])


def _card(one: Measured) -> Html:
    rule = one.rule
    chart = sheet.histogram(one.values, rule.allowed, rule.unit, span=_span(one), broken=one.broken)
    head = tag("header", tag("h3", rule.title), _verdict(one))
    ends = f"{_ends(one)}, median {_told(one, np.median(one.values))}{rule.unit}"
    allowed = f"Rule: {_range(rule)}. " if rule.allowed else ""
    worst = (
        ", ".join(f"{name} ({sheet.figure(value)}{rule.unit})" for name, value in one.worst()) if rule.allowed else ""
    )
    bad = (
        tag("p", f"{int(one.broken.sum()):,} of {len(one.values):,} are outside: {worst}", class_="bad")
        if worst
        else ""
    )
    text = tag("p", ends), tag("p", allowed, rule.about, class_="pale")
    return tag("article", head, chart, *text, bad, class_="broken" if worst else None)


def _span(one: Measured) -> tuple[float, float] | None:
    """Ends of a histogram: the rule's, if all values are in it."""
    span = one.rule.span
    return span if span and span[0] <= one.values.min() and one.values.max() <= span[1] else None


def _verdict(one: Measured) -> Html:
    if not one.rule.allowed:
        return tag("span", "no rule", class_="pale")
    return sheet.verdict("OUTSIDE", False) if one.broken.any() else sheet.verdict("within", True)


def _range(rule: Rule) -> str:
    """The ranges of a rule in words."""
    words = []
    for low, high in rule.allowed:
        a, b = sheet.figure(low), sheet.figure(high) + rule.unit
        if low == high:
            words.append(b)
        elif not math.isfinite(high):
            words.append(f"at least {a}{rule.unit}")
        else:
            words.append(f"at most {b}" if not math.isfinite(low) else f"{a} to {b}")
    return " or ".join(words)


def _told(one: Measured, value: float) -> str:
    """A number without the digits that rounding may have changed."""
    return sheet.figure(round(float(value), max(0, -math.floor(math.log10(one.rule.slack)))) + 0.0)


def _ends(one: Measured) -> str:
    """The least and the largest value."""
    low, high = _told(one, one.values.min()), _told(one, one.values.max())
    return f"{high}{one.rule.unit}" if low == high else f"{low} to {high}{one.rule.unit}"


def _scans(kind: str, scans: list[_Scan]) -> Html:
    columns, row = _moving_row() if kind == "moving" else _frames_row()
    note = sheet.note(f"The first {_LISTED:,} of {len(scans):,}.") if len(scans) > _LISTED else ""
    return sheet.section("Scans", note, sheet.table(columns, map(row, scans[:_LISTED]))) if scans else Html("")


def _moving_row() -> tuple[tuple[str, ...], Callable]:
    columns = ("scan", Html("floor and ways"), "points", "free m²", "widest m", "sequences", "attempts")
    columns += ("accepted %", "common %", "source MB")

    def row(scan: _Scan) -> list:
        said, attempts = scan.said, scan.said.get("attempts", 0)
        accepted = 100 * len(said["sequences"]) / attempts if attempts else None
        figures = (number(said["points"]), number(said.get("valid_m2"), 1), number(said.get("free_m"), 2))
        more = (number(attempts or None), number(accepted), number(100 * scan.common), _source_mb(said))
        return [_linked(scan), scan.plan, *figures, number(len(said["sequences"])), *more]

    return columns, row


def _frames_row() -> tuple[tuple[str, ...], Callable]:
    columns = ("scan", Html("way of the sensor"), "frames", "used", "sequences", "overlap %", "points")

    def row(scan: _Scan) -> list:
        said = scan.said
        counts = [number(value) for value in (said.get("frames"), said.get("views"), len(said["sequences"]))]
        last = (number(100 * scan.overlap), number(said.get("source_points")))
        return [_linked(scan), scan.plan, *counts, *last]

    return columns, row


def _shapes(scans: list[_Scan]) -> Html:
    """All shapes of which views were made, folded."""
    rows = [
        [
            _linked(dataclasses.replace(scan, picture=Html(""))),
            scan.said.get("class", ""),
            *(number(scan.said.get(name)) for name in ("points", "source_points")),
            number(len(scan.said["sequences"])),
            _source_mb(scan.said),
        ]
        for scan in scans[:_LISTED]
    ]
    what = "All shapes" if len(scans) <= _LISTED else f"The first {_LISTED:,} of {len(scans):,} shapes"
    columns = ("shape", "class", "points", "in its file", "sequences", "source MB")
    return sheet.details(what, sheet.table(columns, rows)) if rows else Html("")


def _linked(scan: _Scan) -> Html:
    """A scan's picture and its name, which lead to its page."""
    shown = sheet.joined([scan.picture, scan.name])
    return tag("a", shown, href=scan.page) if scan.page else sheet.markup(shown)


def _source_mb(said: dict) -> sheet.Cell:
    return number(sum(file[1] for file in said.get("files", ())) / 1e6 or None, 1)


def _classes(scans: list[_Scan], rules: Rules) -> Html:
    drawn, accepted, shrunk = (
        sum((collections.Counter(scan.said.get(key, {})) for scan in scans), collections.Counter())
        for key in ("drawn", "accepted", "shrunk")
    )
    heights = rules.heights()
    rows = []
    for name in sorted({*drawn, *heights}):
        one = heights.get(name)
        share = 100 * accepted[name] / drawn[name] if drawn[name] else None
        chart = verdict = Html("")
        if one is not None:
            chart = sheet.histogram(
                one.values, one.rule.allowed, " m", 24, _common_span(heights), (240, 34), one.broken
            )
            verdict = _verdict(one)
        count = len(one.values) if one is not None else 0
        rows.append([name, number(count), number(drawn[name]), number(share), number(shrunk[name]), chart, verdict])
    columns = ("class", "in sequences", "drawn", "accepted %", "shrunk", Html("heights as drawn"), Html(""))
    about = (
        "Lines are the range of heights of the class. A shape that was shrunk to fit may be below it in its sequence."
    )
    return sheet.section("Classes of shapes", sheet.note(about), sheet.table(columns, rows)) if rows else Html("")


def _common_span(heights: dict[str, Measured]) -> tuple[float, float]:
    """One axis for the heights of all classes."""
    ends = [end for one in heights.values() for pair in one.rule.allowed for end in pair]
    return 0.0, 1.05 * max([*ends, *(float(one.values.max()) for one in heights.values())])


def _shape_classes(scans: list[_Scan]) -> Html:
    by_class: dict[str, list[_Scan]] = collections.defaultdict(list)
    for scan in scans:
        by_class[scan.said.get("class", "")].append(scan)
    rows = []
    for name in sorted(by_class):
        strip = tag("div", *(scan.picture for scan in by_class[name]), class_="strip")
        sequences = sum(len(scan.said["sequences"]) for scan in by_class[name])
        rows.append([name or "without a class", number(len(by_class[name])), number(sequences), strip])
    return sheet.section("Classes", sheet.table(("class", "shapes", "sequences", Html("some")), rows))


def _rejections(said: list[dict]) -> Html:
    """Why attempts gave no sequence, or frames were left out."""
    counts: collections.Counter = collections.Counter()
    examples: dict[str, str] = {}
    for scan in said:
        counts.update(scan.get("rejections") or scan.get("left_out") or {})
        for reason, example in scan.get("examples", {}).items():
            examples.setdefault(reason, f"{scan['name']}: {example}")
    every = sum(counts.values())
    rows = [
        [reason, number(times), sheet.share_bar(times / every), examples.get(reason, "")]
        for reason, times in counts.most_common()
    ]
    title = "What was left out" if any("left_out" in scan for scan in said) else "Why attempts were rejected"
    columns = ("reason", "times", Html(""), "first example")
    return sheet.section(title, sheet.table(columns, rows)) if rows else Html("")


def _left_out(dataset: Dataset, sidecars: list[dict], said: list[dict]) -> Html:
    """Scans with fewer sequences than were asked for, and files that cannot be used."""
    gaps = sorted((scan for scan in said if scan.get("gaps")), key=lambda scan: -len(scan["gaps"]))
    lines = refused_in(dataset.manifest, sidecars)
    parts = []
    if gaps:
        rows = [[scan["name"], number(len(scan["gaps"])), summary.explain_gaps(scan)] for scan in gaps[:_FILES]]
        parts.append(sheet.table(("scan", "given up", "why"), rows))
    if lines:
        items = [tag("li", line) for line in lines[:_FILES]]
        parts += [tag("h3", f"{summary.counted(len(lines), 'file')} refused"), tag("ul", *items)]
    return sheet.section("Gaps and refused files", *parts) if parts else Html("")


# Where it comes from -------------------------------------------------------------------------------------------------


def _sources(dataset: Dataset, kind: str, sidecars: list[dict], said: list[dict]) -> Html:
    read = [("scans" if kind != "views" else "shapes", file) for scan in said for file in scan.get("files", ())]
    read += [("shapes", file) for sidecar in sidecars for file in sidecar.get("shapes", ())]
    unique = list({(role, file[0]): (role, file) for role, file in read}.values())
    if not unique:
        return Html("")
    size = sum(file[1] for _, file in unique)
    known = dataset.manifest.get("sources", ())
    rows = [[one["role"], one["title"], _home(one["home"]), one["terms"] or one["licence"]] for one in known]
    spaces = sorted({dataset.label_space(numbers[0]) for _, numbers in _sequences_of(dataset)} - {""})
    recorded = kind in ("frames", "sweeps")  # of which a folder is named with the number of its frames
    about = summary.counted(len(unique), "recording" if recorded else "file")
    about += "." if recorded else f", {summary.format_bytes(size)}."
    about += f" Labels are those of {', '.join(spaces)}." if spaces else ""
    warning = "Shards hold the geometry of their scans: they may be passed on only as the terms of their sources allow."
    where = sheet.table(("what", "data set", "home", "terms"), rows, sortable=False) if rows else ""
    listed = [[file[0], number(file[1]), tag("code", file[2][:16])] for _, file in unique[:_FILES]]
    rest = (
        sheet.note(f"{len(unique) - _FILES:,} more are named in the .json files of the shards.")
        if len(unique) > _FILES
        else ""
    )
    table = sheet.table(("file", "frames or bytes" if recorded else "bytes", "SHA-256, its start"), listed)
    return sheet.section(
        "Sources",
        tag("p", about, " ", warning),
        where,
        sheet.details("Files that were read", table, rest),
    )


def _home(address: str) -> Html:
    """Where a data set can be had: a link, if it is one."""
    if re.match(r"https?://", address):
        return tag("a", re.sub(r"https?://(www\.)?", "", address), href=address, rel="noreferrer")
    return sheet.markup(address.replace("`", ""))


def _settings(dataset: Dataset, kind: str) -> Html:
    config, manifest = dataset.config, dataset.manifest
    built = manifest.get("generator") is not None
    usual = to_plain(kind_of(kind).CONFIGS[kind]()) if built else {}
    rows = [
        [tag("code", name), in_words(value), in_words(usual.get(name)) if built else ""]
        for name, value in config.items()
        if name != "height_m" and value != usual.get(name)
    ]
    same = sheet.note("All settings have their defaults.") if not rows else ""
    table = sheet.table(("setting", "here", "default"), rows, sortable=False) if rows else ""
    every = [[tag("code", name), in_words(value)] for name, value in config.items()]
    whole = sheet.details("All settings", sheet.table(("setting", "value"), every, sortable=False))
    versions = ", ".join(f"{name} {value}" for name, value in manifest["versions"].items())
    return sheet.section(
        "Settings that differ from the defaults", same, table, whole, sheet.note(f"Built with {versions}.")
    )


def _use(dataset: Dataset, kind: str) -> Html:
    first = dataset[0].id if len(dataset) else "SCAN/000"
    code = f"""\
import gen4d

dataset = gen4d.open_dataset({dataset.home.where()!r})
sequence = dataset[{first!r}]
frame = sequence.frame(1)  # point (N, 3) in metres, label, instance, identities
first, second = sequence.correspondences(0, 1)  # rows of the same points in both frames"""
    how = ("HDF5", "h5py") if "exported" in dataset.manifest else ("Zarr", "zarr")
    without = f"The shards are {how[0]}: docs/format.md of gen4d has a reader in twenty lines of {how[1]} and numpy."
    paper = _CHEN if kind == "moving" else _HUANG
    cite = paper + _OURS % dataset.manifest["gen4d"]
    return sheet.joined(
        [
            sheet.section("How to read it", tag("pre", code), sheet.note(without)),
            sheet.section("How to cite it", sheet.note("And the data sets that it was built from."), tag("pre", cite)),
        ]
    )


_CHEN = r"""@inproceedings{chen2022fourdcontrast,
  title     = {{4DContrast}: Contrastive Learning with Dynamic Correspondences for {3D} Scene Understanding},
  author    = {Chen, Yujin and Nie{\ss}ner, Matthias and Dai, Angela},
  booktitle = {European Conference on Computer Vision (ECCV)}, year = {2022}}
"""
_HUANG = r"""@inproceedings{huang2021strl,
  title     = {Spatio-temporal Self-Supervised Representation Learning for {3D} Point Clouds},
  author    = {Huang, Siyuan and Xie, Yichen and Zhu, Song-Chun and Zhu, Yixin},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)}, year = {2021}}
"""
_OURS = r"""@software{gen4d, title = {gen4d}, author = {{the gen4d authors}}, version = {%s}}"""
