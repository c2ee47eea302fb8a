"""Examining raw folders before a long run: everything that is wrong with them, in one pass."""

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen4d import workers as processes
from gen4d.config import Config
from gen4d.moving.cloud import CloudError
from gen4d.moving.generate import prepare_scan
from gen4d.moving.occupancy import TOP_HEAVY, OccupancyError
from gen4d.report.contradictions import mesh_contradictions, scan_contradictions
from gen4d.report.summary import BELOW_SHARE, UNSEEN_SHARE, counted, format_bytes
from gen4d.sources import (
    FoundScans,
    FoundShapes,
    Mesh,
    Orientation,
    Scan,
    ScanSource,
    ShapeSource,
    SourceError,
    default_orientation,
    find_scans,
    find_shapes,
    height_ranges,
    load_scan,
    load_shape,
)
from gen4d.sources.entries import Entry, Split
from gen4d.sources.manifest import entry_of, manifest
from gen4d.sources.source import escaped, file_size
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
    workers: int = 1,
) -> list[Finding]:
    """What is wrong with a folder of scans, and what is in it. quick: no file but split lists is opened.

    orientation: None takes the data set's own. progress: called for every scan. workers: processes that read scans.
    Never raises SourceError: such errors are findings.
    """
    folder = Path(folder)
    try:
        found = find_scans(folder, split)
    except SourceError as error:
        return [_from_error(error)]
    entry = entry_of(found.entry)
    findings = [Finding("note", str(folder), f"{entry.title}: {counted(len(found.sources), 'scan')}")]
    findings += _lists(folder, entry, found)
    findings += [_from_text("warning", message, folder) for message in found.warnings]
    findings += [_from_text("error", message, folder) for _, message in found.refused]
    findings += _missing_files(folder, entry, found.sources)
    findings += _empty_files(found.sources)
    if not quick:
        examine = functools.partial(_read_scan, orientation=orientation or default_orientation(entry.name))
        findings += _sum_up(folder, _each(examine, found.sources, "scans", progress, workers))
    return list(dict.fromkeys(findings))


def examine_shapes(
    folder: Path,
    classes: tuple[str, ...] | None = None,
    split: str | Path | None = None,
    up: str = "auto",
    quick: bool = False,
    metres_per_unit: float = 0.0,
    progress: Progress = _silent,
    workers: int = 1,
) -> list[Finding]:
    """What is wrong with a folder of shapes, and what is in it. quick: no mesh is opened.

    classes: those that a build would use, of which each needs a height, all if None. metres_per_unit: of shapes that
    keep their size. progress: called for every shape. workers: processes that read shapes. Never raises SourceError:
    such errors are findings.
    """
    folder = Path(folder)
    try:
        found = find_shapes(folder, classes, split)
    except SourceError as error:
        return [_from_error(error)]
    entry = entry_of(found.entry)
    findings = [Finding("note", str(folder), f"{entry.title}: {counted(len(found.sources), 'shape')}")]
    findings += [_from_text("warning", message, folder) for message in found.warnings]
    findings += [_from_text("error", message, folder) for _, message in found.refused]
    findings += _class_counts(folder, entry, found, split, _no_height_level(classes, metres_per_unit))
    if not quick:
        examine = functools.partial(_read_shape, up=up, metres_per_unit=metres_per_unit)
        findings += _same_meshes(folder, found, _each(examine, found.sources, "shapes", progress, workers))
    return findings


def _each(
    examine: Callable, sources: Sequence, what: str, progress: Progress, workers: int
) -> list[tuple[list[Finding], Any]]:
    """What `examine` says of each source, in order: findings, and what it found. The first is examined here, so that
    no kernel is compiled by several processes."""
    said = []
    for number, source in enumerate(sources[:1] if workers > 1 else sources):
        progress(what, number, len(sources))
        said.append(examine(source))
    if rest := sources[len(said) :]:
        later = {}
        for number, result in processes.run(examine, rest, min(workers, len(rest))):
            later[number] = result
            progress(what, len(said) + len(later), len(sources))
        said += [later[number] for number in range(len(rest))]
    return said


def _no_height_level(classes: tuple[str, ...] | None, metres_per_unit: float) -> str:
    """How bad a class without a height is: a build refuses it, unless shapes keep their size."""
    if metres_per_unit:
        return "note"
    return "warning" if classes is None else "error"


def _from_error(error: SourceError) -> Finding:
    return Finding("error", escaped(error.path), error.problem)


def _from_text(level: str, text: str, folder: Path) -> Finding:
    """A finding from a message that names its file in front, in a folder whose own path may have a colon in it."""
    start = len(escaped(str(folder))) if text.startswith(escaped(str(folder))) else 0
    path, _, message = text[start:].partition(": ")
    return Finding(level, text[:start] + path, message) if message else Finding(level, str(folder), text)


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
    if role == "objects":
        return "warning", ": those are built without labels"
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
        for role, relative in source.files.items():
            if role == "objects":  # a folder, whose files are read with the scan
                continue
            try:
                if not file_size(source.root, relative):
                    message = "is empty (0 bytes): copy or download it again"
                    yield Finding("error", str(source.root / relative), message)
            except SourceError as error:
                yield _from_error(error)


class _Read(NamedTuple):
    """What is summed up of a scan that could be read."""

    name: str
    points: int
    dropped: int
    sha256: str  # of the points file
    label_space: str
    labels: dict[int, int]  # points of each id
    disk: float  # bytes that its sequences will take


def _read_scan(source: ScanSource, orientation: Orientation) -> tuple[list[Finding], _Read | None]:
    scan, errors = _load_whole(source, orientation)
    findings = [_from_error(error) for error in errors]
    if scan is None:
        return findings, None
    findings += _odd_size(source, scan)
    findings += [Finding(*said) for said in scan_contradictions(source, scan)]
    finding, disk = _free_space(source, scan)
    ids, counts = np.unique(scan.label, return_counts=True) if scan.label is not None else np.zeros((2, 0), int)
    labels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    digest = scan.files[0].sha256
    return [*findings, finding], _Read(scan.name, len(scan.point), scan.dropped, digest, scan.label_space, labels, disk)


def _sum_up(folder: Path, said: list[tuple[list[Finding], _Read | None]]) -> Iterator[Finding]:
    for findings, _ in said:
        yield from findings
    read = [one for _, one in said if one is not None]
    yield from _summary(folder, read)
    if disk := sum(one.disk for one in read):
        yield Finding(
            "note", str(folder), f"a build takes about {format_bytes(disk)}, with {_SEQUENCES} sequences per scan"
        )
    for space in dict.fromkeys(one.label_space for one in read if one.labels):
        counts: Counter[int] = Counter()
        for one in read:
            counts.update(one.labels if one.label_space == space else {})
        yield from _label_counts(folder, space, counts, len(read))


def _load_whole(source: ScanSource, orientation: Orientation) -> tuple[Scan | None, list[SourceError]]:
    """A scan and all errors of its files: one beside the points that is broken is left out and the rest tried again."""
    errors: list[SourceError] = []
    files = dict(source.files)
    while True:
        try:
            return load_scan(dataclasses.replace(source, files=files), orientation, Config().voxel_m), errors
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
    text += ", points put on its coarse surface" if scan.row[0] < 0 else ""
    doubts = []
    if prepared.below > BELOW_SHARE:
        doubts.append(f"{prepared.below:.0%} of the points lie more than 20 cm below the floor: check --up")
    if prepared.top_heavy > TOP_HEAVY:
        times = f"{prepared.top_heavy:.1f} times as many points lie below the ceiling as above the floor"
        doubts.append(f"{times}: a scan that stands on its head, check --up")
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


def _summary(folder: Path, read: list[_Read]) -> Iterator[Finding]:
    if read:
        low, middle, high = np.percentile([one.points for one in read], (0, 50, 100)).astype(int)
        message = f"{counted(len(read), 'scan')} read, {low} to {high} points, median {middle}"
        yield Finding("note", str(folder), message)
    if dropped := [one for one in read if one.dropped]:
        rows = sum(one.dropped for one in dropped)
        whose = f"{counted(len(dropped), 'scan')} ({_some(one.name for one in dropped)})"
        message = f"{rows} rows with NaN or infinity are dropped from {whose}"
        yield Finding("note", str(folder), message)
    for names in _copies((one.sha256, one.name) for one in read):
        yield Finding("warning", str(folder), f"the points of {_some(names)} are the same file: copy them again")


def _copies(digests: Iterable[tuple[str, str]]) -> Iterator[list[str]]:
    """Names of what has the same digest as others, for (digest, name) of all."""
    names = defaultdict(list)
    for digest, name in digests:
        names[digest].append(name)
    return (group for group in names.values() if len(group) > 1)


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


def _read_shape(source: ShapeSource, up: str, metres_per_unit: float) -> tuple[list[Finding], str]:
    """Findings, and the digest of the mesh's file, empty where it cannot be read."""
    try:
        mesh = load_shape(source, up)
    except SourceError as error:
        return [_from_error(error)], ""
    path = str(source.root / source.path)
    findings = [Finding(*said) for said in mesh_contradictions(source, mesh)]
    if _lies_flat(mesh):
        findings.append(Finding("warning", path, "is a plate lying on the floor: check --shape-up"))
    height_m = float(np.ptp(mesh.vertex[:, 2])) * metres_per_unit
    if metres_per_unit and not _LEAST_M <= height_m <= _MOST_M:
        findings.append(
            Finding("warning", path, f"is {height_m:.3g} m high, no size of furniture: check --shape-units")
        )
    return findings, mesh.file.sha256


def _same_meshes(folder: Path, found: FoundShapes, said: list[tuple[list[Finding], str]]) -> Iterator[Finding]:
    for findings, _ in said:
        yield from findings
    pairs = zip(said, found.sources, strict=True)
    for names in _copies((digest, source.name) for (_, digest), source in pairs if digest):
        yield Finding("note", str(folder), f"{_some(names)} are the same mesh")


def _lies_flat(mesh: Mesh) -> bool:
    extent = np.ptp(mesh.vertex, axis=0)
    return bool(extent[2] < _FLAT * extent[:2].max())
