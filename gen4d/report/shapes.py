"""Examining a folder of shapes, meshes or sets of points, before views of them are built."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

from gen4d.config import ViewsConfig
from gen4d.report.doctor import Finding, Progress
from gen4d.report.summary import counted, format_bytes
from gen4d.sources import SourceError
from gen4d.sources.manifest import entry_of
from gen4d.sources.pointsets import PointSource, find_any_shapes
from gen4d.views.shapes import Shape, read_shape

_SHOWN = 5
_BYTES_A_POINT = 11.5  # of a shard: measured on 820 shapes of 2,048 points


def examine_shape_views(
    folder: Path, config: ViewsConfig, split: Path | None = None, progress: Progress = lambda *_: None
) -> list[Finding]:
    """What is wrong with a folder of shapes, and what is in it: every shape is read as a build reads it. Never raises
    SourceError: such errors are findings."""
    try:
        found = find_any_shapes(folder, config.classes, split)
    except SourceError as error:
        return [Finding("error", error.path, error.problem)]
    where = str(folder)
    findings = [Finding("note", where, f"{entry_of(found.entry).title}: {counted(len(found.sources), 'shape')}")]
    findings += [Finding("warning", where, message.removeprefix(f"{where}: ")) for message in found.warnings]
    findings += [Finding("error", *message.split(": ", 1)) for _, message in found.refused]
    classes = Counter(source.class_name for source in found.sources)
    findings.append(
        Finding("note", where, "classes: " + ", ".join(f"{name} {classes[name]}" for name in sorted(classes)))
    )
    copies: dict[str, list[str]] = defaultdict(list)
    read: list[Shape] = []
    for number, source in enumerate(found.sources):
        progress("shapes", number, len(found.sources))
        try:
            shape = read_shape(source, config)
        except SourceError as error:
            findings.append(Finding("error", error.path, error.problem))
            continue
        read.append(shape._replace(cloud=None))
        if isinstance(source, PointSource):
            copies[hashlib.sha256(shape.cloud.point.tobytes()).hexdigest()].append(source.name)
    return findings + _whole(where, read, copies, config)


def _whole(where: str, read: list[Shape], copies: dict[str, list[str]], config: ViewsConfig) -> list[Finding]:
    """What is said of all shapes together."""
    findings = []
    sizes = sorted(shape.points for shape in read if shape.points)
    if sizes:
        text = (
            f"{sizes[0]} to {sizes[-1]} points each, median {sizes[len(sizes) // 2]}, of which {config.points} are used"
        )
        findings.append(Finding("note", where, text))
    if dropped := sum(shape.dropped for shape in read):
        findings.append(Finding("note", where, f"{dropped} points with NaN or infinity are dropped"))
    for names in copies.values():
        if len(names) > 1:
            more = ", ..." if len(names) > _SHOWN else ""
            message = f"{', '.join(names[:_SHOWN])}{more} are the same points: they count {len(names)} times"
            findings.append(Finding("warning", where, message))
    if read:
        size = format_bytes(_BYTES_A_POINT * config.points * len(read))
        findings.append(Finding("note", where, f"a build of these {counted(len(read), 'shape')} takes about {size}"))
    return findings
