"""Examining raw folders before a long run: everything that is wrong with them, in one pass."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.config import Config
from gen4d.moving.cloud import CloudError
from gen4d.moving.generate import prepare_scan
from gen4d.moving.occupancy import OccupancyError
from gen4d.report.contradictions import mesh_contradictions, scan_contradictions
from gen4d.report.summary import BELOW_SHARE, UNSEEN_SHARE, counted, format_bytes
from gen4d.sources import (
    FoundScans,
    FoundShapes,
    Mesh,
    Orientation,
    Scan,
    ScanSource,
    SourceError,
    default_orientation,
    find_scans,
    find_shapes,
    height_ranges,
    load_scan,
    load_shape,
)
from gen4d.sources.manifest import Entry, Split, entry_of, manifest
from gen4d.sources.source import file_size
from gen4d.sources.splits import read_split

_SHOWN = 5
_EXTENT_M = (1.0, 200.0)  # of a room or floor of a building, the longer side
_HEIGHT_M = 8.0
_MANY_SCANS = 50  # with so many, a class of the benchmark that never occurs is a mistake in the labels
_LEAST_M, _MOST_M = 0.05, 5.0  # heights of shapes that a build takes at their own size
_FLAT = 0.02  # height over footprint
_NARROW_M = 0.2  # of a small chair's radius, shrunk to half
_SEQUENCES = Config().sequences
_BYTES_A_POINT = 16  # of a shard: measured on the built-in rooms with 20 sequences each


class Finding(NamedTuple):
    """level: "error" (a build would refuse it), "warning" (it would go on with less), "note" (good to know)."""

    level: str
    path: str
    message: str


Progress = Callable[[str, int, int], object]  # what is read, done, of


def _silent(what: str, done: int, of: int) -> None:
    """Says nothing."""


def examine_scans(
    folder: Path,
    split: Path | None = None,
    orientation: Orientation | None = None,
    quick: bool = False,
    progress: Progress = _silent,
) -> list[Finding]:
    """What is wrong with a folder of scans, and what is in it. quick: no file but split lists is opened.

    orientation: None takes the data set's own. progress: called for every scan. Never raises SourceError: such errors
    are findings.
    """
    folder = Path(folder)
    try:
        found = find_scans(folder, split)
    except SourceError as error:
        return [_from_error(error)]
    entry = entry_of(found.entry)
    findings = [Finding("note", str(folder), f"{entry.title}: {counted(len(found.sources), 'scan')}")]
    findings += _lists(folder, entry, found)
    findings += [_from_text("warning", message) for message in found.warnings]
    findings += [_from_text("error", message) for _, message in found.refused]
    findings += _missing_files(folder, entry, found.sources)
    findings += _empty_files(found.sources)
    if not quick:
        findings += _read_scans(folder, entry, found.sources, orientation or default_orientation(entry.name), progress)
    return list(dict.fromkeys(findings))


def examine_shapes(
    folder: Path,
    classes: tuple[str, ...] | None = None,
    split: str | Path | None = None,
    up: str = "auto",
    quick: bool = False,
    metres_per_unit: float = 0.0,
    progress: Progress = _silent,
) -> list[Finding]:
    """What is wrong with a folder of shapes, and what is in it. quick: no mesh is opened.

    classes: those that a build would use, of which each needs a height, all if None. metres_per_unit: of shapes that
    keep their size. progress: called for every shape. Never raises SourceError: such errors are findings.
    """
    folder = Path(folder)
    try:
        found = find_shapes(folder, classes, split)
    except SourceError as error:
        return [_from_error(error)]
    entry = entry_of(found.entry)
    findings = [Finding("note", str(folder), f"{entry.title}: {counted(len(found.sources), 'shape')}")]
    findings += [_from_text("warning", message) for message in found.warnings]
    findings += [_from_text("error", message) for _, message in found.refused]
    findings += _class_counts(folder, entry, found, split, _no_height_level(classes, metres_per_unit))
    if not quick:
        findings += _read_shapes(folder, found, up, metres_per_unit, progress)
    return findings


def _no_height_level(classes: tuple[str, ...] | None, metres_per_unit: float) -> str:
    """How bad a class without a height is: a build refuses it, unless shapes keep their size."""
    if metres_per_unit:
        return "note"
    return "warning" if classes is None else "error"


def _from_error(error: SourceError) -> Finding:
    return Finding("error", error.path, error.problem)


def _from_text(level: str, text: str) -> Finding:
    """A finding from a message that names its file in front."""
    path, _, message = text.partition(": ")
    return Finding(level, path, message)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f", ... ({len(names)})" if len(names) > _SHOWN else "")


def _lists(folder: Path, entry: Entry, found: FoundScans) -> Iterator[Finding]:
    """Each split list of the data set: how many names it holds against the published number."""
    for name, split in entry.splits.items():
        for place in entry.places:
            path = folder / place / split.file
            if path.is_file():
                yield from _list(path, name, split)
                break


def _list(path: Path, name: str, split: Split) -> Iterator[Finding]:
    try:
        count = len(read_split(path))
    except SourceError as error:
        yield _from_error(error)
        return
    if split.count and count != split.count:
        yield Finding(
            "warning",
            str(path),
            f"lists {counted(count, 'scan')}, the {name} split has {split.count}: copy it again",
        )
    else:
        yield Finding("note", str(path), f"lists {counted(count, 'scan')}")


def _missing_files(folder: Path, entry: Entry, sources: tuple[ScanSource, ...]) -> Iterator[Finding]:
    """One finding a role that the data set has and some scans lack."""
    roles = dict.fromkeys(role for layout in entry.layouts for role in (*layout.files, *layout.shared))
    lacking = {role: [source.name for source in sources if role not in source.files] for role in roles}
    for role, names in lacking.items():
        if names and role not in ("points", "colour", "normal"):  # the first is refused, sequences need no others
            level, reason = _weight(role, [source for source in sources if role not in source.files])
            share = f"{len(names)} of {len(sources)} scans have no {role}"
            yield Finding(level, str(folder), f"{share} ({_some(names)}){reason}")


def _weight(role: str, sources: list[ScanSource]) -> tuple[str, str]:
    """How bad it is that these scans lack a file."""
    if role == "labels":
        whole = all({"segments", "aggregation", "label_table"} <= set(source.files) for source in sources)
        return ("note", ": taken from segments") if whole else ("warning", ": those are built without labels")
    if role in ("segments", "aggregation"):
        half = [source.name for source in sources if {"segments", "aggregation"} & set(source.files)]
        if half:
            return "warning", f": instances need segments and aggregation, {_some(half)} have one of them"
        return "note", ": those are built without instances"
    if role == "label_table":
        needed = any("labels" not in source.files and "segments" in source.files for source in sources)
        return ("warning", ": labels cannot be taken from segments") if needed else ("note", ": not needed")
    return "note", ""


def _empty_files(sources: tuple[ScanSource, ...]) -> Iterator[Finding]:
    for source in sources:
        for relative in source.files.values():
            try:
                if not file_size(source.root, relative):
                    message = "is empty (0 bytes): copy or download it again"
                    yield Finding("error", str(source.root / relative), message)
            except SourceError as error:
                yield _from_error(error)


class _Tally:
    """What is summed up over all scans that could be read."""

    def __init__(self):
        self.points: list[int] = []
        self.dropped: dict[str, int] = {}
        self.labels: dict[str, Counter[int]] = defaultdict(Counter)  # label space -> points of each id
        self.copies: dict[str, list[str]] = defaultdict(list)  # hash of the points file -> scans

    def add(self, scan: Scan) -> None:
        self.points.append(len(scan.point))
        self.copies[scan.files[0].sha256].append(scan.name)
        if scan.dropped:
            self.dropped[scan.name] = scan.dropped
        if scan.label is not None:
            ids, counts = np.unique(scan.label, return_counts=True)
            self.labels[scan.label_space].update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))


def _read_scans(
    folder: Path, entry: Entry, sources: tuple[ScanSource, ...], orientation: Orientation, progress: Progress
) -> Iterator[Finding]:
    tally, disk = _Tally(), 0.0
    for number, source in enumerate(sources):
        progress("scans", number, len(sources))
        scan, errors = _load_whole(source, orientation)
        yield from map(_from_error, errors)
        if scan is not None:
            tally.add(scan)
            yield from _odd_size(source, scan)
            yield from (Finding(*said) for said in scan_contradictions(source, scan))
            finding, size = _free_space(source, scan)
            yield finding
            disk += size
    yield from _summary(folder, tally)
    if disk:
        yield Finding(
            "note", str(folder), f"a build takes about {format_bytes(disk)}, with {_SEQUENCES} sequences per scan"
        )
    for space, counts in tally.labels.items():
        yield from _label_counts(folder, space, counts, len(tally.points))


def _load_whole(source: ScanSource, orientation: Orientation) -> tuple[Scan | None, list[SourceError]]:
    """A scan and all errors of its files: one beside the points that is broken is left out and the rest tried again."""
    errors: list[SourceError] = []
    files = dict(source.files)
    while True:
        try:
            return load_scan(dataclasses.replace(source, files=files), orientation), errors
        except SourceError as error:
            errors.append(error)
            role = next((role for role, path in files.items() if str(source.root / path) == error.path), "points")
            if role == "points":
                return None, errors
            del files[role]


def _free_space(source: ScanSource, scan: Scan) -> tuple[Finding, float]:
    """Where a shape could stand in a scan, with the default config; and the bytes that its sequences will take."""
    path = str(source.root / source.files["points"])
    try:
        prepared = prepare_scan(scan, Config())
    except (CloudError, OccupancyError) as error:
        return Finding("error", path, str(error)), 0.0
    widest_m, floor = prepared.space.widest_m, prepared.floor
    text = f"{len(prepared.cloud)} points at 2 cm, free floor {floor.valid_m2:.1f} m2 ({floor.unseen:.0%} unseen), "
    text += f"widest free disc {widest_m:.2f} m"
    text += f", levelled by {scan.tilt_deg:.1f} degrees" if scan.tilt_deg else ""
    doubts = []
    if prepared.below > BELOW_SHARE:
        doubts.append(f"{prepared.below:.0%} of the points lie more than 20 cm below the floor: check --up")
    if widest_m < _NARROW_M:
        doubts.append("hardly any shape fits: check --up and --units")
    elif floor.unseen > UNSEEN_SHARE:
        doubts.append(
            "most of the floor is unseen, in thin clouds or large gaps: --set close_m=0 keeps to what is seen"
        )
    size = len(prepared.cloud) * _BYTES_A_POINT if widest_m >= _NARROW_M else 0.0
    return Finding("warning" if doubts else "note", path, "; ".join([text, *doubts])), size


def _odd_size(source: ScanSource, scan: Scan) -> Iterator[Finding]:
    extent = np.ptp(scan.point, axis=0)
    path, side = str(source.root / source.files["points"]), float(extent[:2].max())
    if not _EXTENT_M[0] <= max(side, float(extent[2])) <= _EXTENT_M[1]:
        yield Finding("warning", path, f"is {extent[0]:.3g} x {extent[1]:.3g} x {extent[2]:.3g} m large: check --units")
    elif extent[2] > _HEIGHT_M or extent[2] > 2 * side:
        yield Finding("warning", path, f"is {extent[2]:.1f} m high and {side:.1f} m wide: check --up")


def _summary(folder: Path, tally: _Tally) -> Iterator[Finding]:
    if tally.points:
        low, middle, high = np.percentile(tally.points, (0, 50, 100)).astype(int)
        message = f"{counted(len(tally.points), 'scan')} read, {low} to {high} points, median {middle}"
        yield Finding("note", str(folder), message)
    if tally.dropped:
        rows = sum(tally.dropped.values())
        whose = f"{counted(len(tally.dropped), 'scan')} ({_some(tally.dropped)})"
        message = f"{rows} rows with NaN or infinity are dropped from {whose}"
        yield Finding("note", str(folder), message)
    for names in tally.copies.values():
        if len(names) > 1:
            yield Finding("warning", str(folder), f"the points of {_some(names)} are the same file: copy them again")


def _label_counts(folder: Path, space: str, counts: Counter[int], scans: int) -> Iterator[Finding]:
    known = manifest().label_spaces.get(space)
    total = counts.total()
    names = {} if known is None else known.names
    shares = [f"{names.get(label, label)} {count / total:.1%}" for label, count in counts.most_common()]
    yield Finding("note", str(folder), f"labels ({space}): {', '.join(shares[:20])}")
    if known is None:
        return
    if strange := sorted(label for label in counts if label not in names and label not in known.ignore):
        message = f"labels {_some(map(str, strange))} are not in {space}: {counts[strange[0]]} points have {strange[0]}"
        yield Finding("warning", str(folder), message)
    if absent := [names[label] for label in known.benchmark if not counts[label]]:
        level = "warning" if scans >= _MANY_SCANS else "note"  # a few rooms need not have them all
        yield Finding(level, str(folder), f"no point is labelled {', '.join(absent)}: check the labels")


def _class_counts(
    folder: Path, entry: Entry, found: FoundShapes, split: str | Path | None, no_height: str
) -> Iterator[Finding]:
    counts = Counter(source.class_name for source in found.sources)
    part = 1 if split == "test" else 0
    for name, count in sorted(counts.items()):
        published = entry.counts.get(name)
        if published and split in (None, "train", "test") and count != published[part]:
            message = f"class {name}: {counted(count, 'shape')}, the data set has {published[part]}: compare"
            yield Finding("warning", str(folder), message)
        elif not height_ranges(name):
            remedy = "leave it out by --classes, or give --shape-units"
            message = f"class {name}: {counted(count, 'shape')}, but no metric height: {remedy}"
            yield Finding(no_height, str(folder), message)
        else:
            yield Finding("note", str(folder), f"class {name}: {counted(count, 'shape')}")


def _read_shapes(
    folder: Path, found: FoundShapes, up: str, metres_per_unit: float, progress: Progress
) -> Iterator[Finding]:
    copies: dict[str, list[str]] = defaultdict(list)
    for number, source in enumerate(found.sources):
        progress("shapes", number, len(found.sources))
        try:
            mesh = load_shape(source, up)
        except SourceError as error:
            yield _from_error(error)
            continue
        copies[mesh.file.sha256].append(source.name)
        yield from (Finding(*said) for said in mesh_contradictions(source, mesh))
        if _lies_flat(mesh):
            yield Finding("warning", str(source.root / source.path), "is a plate lying on the floor: check --shape-up")
        height_m = float(np.ptp(mesh.vertex[:, 2])) * metres_per_unit
        if metres_per_unit and not _LEAST_M <= height_m <= _MOST_M:
            path = str(source.root / source.path)
            yield Finding("warning", path, f"is {height_m:.3g} m high, no size of furniture: check --shape-units")
    for names in copies.values():
        if len(names) > 1:
            yield Finding("note", str(folder), f"{_some(names)} are the same mesh")


def _lies_flat(mesh: Mesh) -> bool:
    extent = np.ptp(mesh.vertex, axis=0)
    return bool(extent[2] < _FLAT * extent[:2].max())
