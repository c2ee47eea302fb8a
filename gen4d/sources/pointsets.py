"""Shapes that are sets of points: a file each, or many in one; and any shapes, meshes or points, of a folder."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gen4d.sources.formats.collections import list_sets, load_sets
from gen4d.sources.formats.points import read_points
from gen4d.sources.level import up_rotation
from gen4d.sources.manifest import Entry, Hit, class_name_of, entry_of, recognise
from gen4d.sources.shapes import AnyShape, FoundShapes, find_shapes
from gen4d.sources.source import SourceError, SourceFile, check_name, file_size, read_file
from gen4d.sources.splits import choose_split

UNLABELLED = "unlabelled"  # the class of shapes whose source names none
_SHOWN = 20
_NAMES = "shape_names.txt"  # one class a line, in the order of their numbers: ModelNet40's own


@dataclass(frozen=True)
class PointSource:
    """One set of points: name, unique in its folder; class_name; path relative to `root`; bytes of the file; its row in
    a file of many, or -1."""

    name: str
    class_name: str
    root: Path
    path: str
    size: int
    row: int = -1
    entry: str = ""


def find_any_shapes(folder: Path, classes: tuple[str, ...] = (), split: Path | None = None) -> FoundShapes:
    """The shapes of a folder, meshes or sets of points, of some classes or of all. Of meshes none is opened, of files
    of many sets the labels are read. Raises SourceError where there are none."""
    folder, errors = Path(folder), []
    for role in ("shapes", "pointsets"):
        try:
            entry, hits = recognise(folder, role)
        except SourceError as error:
            errors.append(error)
            continue
        if role == "shapes":
            return find_shapes(folder, classes or None, split)
        return _find_sets(folder, entry, hits, classes, split)
    raise errors[-1]


def _find_sets(
    folder: Path, entry: Entry, hits: list[Hit], classes: tuple[str, ...], split: Path | None
) -> FoundShapes:
    if split is not None and any(hit.groups.get("part") == str(split) for hit in hits):
        hits, warnings = [hit for hit in hits if hit.groups.get("part") == str(split)], ()
    else:
        chosen = choose_split(folder, entry, hits, split)
        hits, warnings = chosen.hits, tuple(note.replace("scans", "shapes") for note in chosen.warnings)
    sources: list[PointSource] = []
    refused = []
    for hit in hits:
        try:
            sources += _sources(folder, entry, hit)
        except SourceError as error:
            refused.append((hit.name, str(error)))
    if not sources and refused:
        raise SourceError(folder, f"has no shape that can be read: {refused[0][1]}")
    sources, unknown = _of_classes(folder, sources, classes)
    names = [source.name for source in sources]
    if twice := next((a for a, b in zip(sorted(names), sorted(names)[1:], strict=False) if a == b), None):
        raise SourceError(folder, f"has two shapes named {twice!r}: rename one")
    sources.sort(key=lambda source: (source.class_name, source.name))
    return FoundShapes(tuple(sources), entry.name, (*warnings, *unknown), tuple(refused))


def _sources(folder: Path, entry: Entry, hit: Hit) -> list[PointSource]:
    check_name(folder, hit.path)
    size = file_size(folder, hit.path)
    if "class" in hit.groups:
        given = hit.groups["class"]
        class_name = class_name_of(given)
        starts = hit.name.lower().startswith((class_name.lower(), given.lower()))
        name = hit.name if starts else f"{class_name}_{hit.name}"  # numbers are often those within the class
        return [PointSource(name, class_name, folder, hit.path, size, -1, entry.name)]
    listing = list_sets(folder, hit.path)
    names = _class_names(folder, entry, hit)
    numbers = [] if listing.label is None or listing.label.dtype.kind not in "iuf" else np.unique(listing.label)
    if names and (odd := [int(number) for number in numbers if int(number) not in names]):
        rule = f"has the label {odd[0]}, and names of the classes {min(names)} to {max(names)} alone"
        raise SourceError(folder / hit.path, f"{rule}: copy it and its list of names again")
    labels = [UNLABELLED] * listing.count if listing.label is None else [_class(one, names) for one in listing.label]
    return [
        PointSource(f"{hit.name}_{row:05d}", label, folder, hit.path, size, row, entry.name)
        for row, label in enumerate(labels)
    ]


def _class_names(folder: Path, entry: Entry, hit: Hit) -> dict[int, str]:
    """Names of the classes by their numbers: of a list beside the file, or of the manifest."""
    beside = folder / hit.parent / _NAMES
    if beside.is_file():
        content, _ = read_file(beside.parent, beside.name)
        lines = content.decode("utf-8", "replace").split()
        return dict(enumerate(lines))
    return {int(number): name for number, name in entry.classes.items() if number.isdecimal()}


def _class(label, names: dict[int, str]) -> str:
    """The class that a label means: itself if it is a text, or what its number stands for."""
    if isinstance(label, bytes):
        label = label.decode("utf-8", "replace")
    if isinstance(label, str):
        return class_name_of(label) if label and label.isprintable() else UNLABELLED
    return class_name_of(names[int(label)]) if int(label) in names else f"class_{int(label)}"


def _of_classes(
    folder: Path, sources: list[PointSource], classes: tuple[str, ...]
) -> tuple[list[PointSource], tuple[str, ...]]:
    present = sorted({source.class_name for source in sources})
    wanted = tuple(dict.fromkeys(map(class_name_of, classes)))
    missing = [name for name in wanted if name not in present]
    listed = ", ".join(present[:_SHOWN]) + (", ..." if len(present) > _SHOWN else "")
    if wanted and len(missing) == len(wanted):
        raise SourceError(folder, f"has no shape of the class {', '.join(missing)}: its classes are {listed}")
    note = (f"{folder}: no shape of the class {', '.join(missing)}: its classes are {listed}",) if missing else ()
    return [source for source in sources if not wanted or source.class_name in wanted], note


def load_points(source: PointSource, up: str = "auto") -> tuple[np.ndarray, SourceFile]:
    """All points (N, 3) float64 of a set, z up, in the file's own units, NaN rows included; and its file.

    up: "auto" is what the manifest declares for the data set, or z. Raises SourceError.
    """
    if source.row >= 0:
        sets = load_sets(source.root, source.path)
        point, file = np.asarray(sets.point[source.row], np.float64)[:, :3], sets.file
    else:
        content, file = read_file(source.root, source.path)
        point = np.asarray(read_points(source.root / source.path, content).point, np.float64)
    declared = entry_of(source.entry).up if source.entry else "z"
    up = ("z" if declared == "auto" else declared) if up == "auto" else up
    return point @ _turn(up).T, file


@functools.lru_cache(8)
def _turn(up: str) -> np.ndarray:
    return up_rotation(up)


AnySource = AnyShape | PointSource
