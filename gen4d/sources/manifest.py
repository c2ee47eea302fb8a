"""`datasets_manifest.yaml`: which data sets there are, and which of them a folder is."""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gen4d.sources.recorded import Recorded, parse_recorded
from gen4d.sources.source import SourceError

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "datasets_manifest.yaml", _PACKAGE.parent / "datasets_manifest.yaml")
_ROLES = ("scans", "shapes", "pointsets", "frames", "sweeps")
# What systems and editors leave beside data: hidden files (`._room.ply` of macOS among them), backups, caches.
_LITTER = re.compile(
    r"\..*|~\$.*|.*~|#.*#|thumbs\.db|desktop\.ini|icon\r|__macosx|@eadir|\$recycle\.bin|lost\+found", re.I
)


@dataclass(frozen=True)
class Split:
    """A split's list file, its number of entries (0: not known), and whether it is taken unasked."""

    file: str
    count: int = 0
    default: bool = False


@dataclass(frozen=True)
class Layout:
    """How one scan or shape lies in a data set's folder; see the head of the manifest for the fields."""

    find: tuple[str, ...]
    path: re.Pattern
    name: str = "{name}"
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    recorded: Recorded | None = None  # of frames and sweeps


@dataclass(frozen=True)
class Entry:
    """One data set of the manifest."""

    name: str
    title: str
    role: str
    built: bool
    units: str
    up: str
    home: str
    terms: str
    layouts: tuple[Layout, ...]
    label_space: str = ""
    marker: str = ""
    note: str = ""
    default_part: str = ""
    places: tuple[str, ...] = (".", "..")
    splits: Mapping[str, Split] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)


class LabelSpace(NamedTuple):
    """Names of label ids, the ids that count in the benchmark, and the ids that mean no label."""

    names: Mapping[int, str]
    benchmark: tuple[int, ...]
    ignore: tuple[int, ...]


class HeightRange(NamedTuple):
    """Lowest and highest metric height of a share of a class's shapes."""

    low: float
    high: float
    share: float = 1.0


@dataclass(frozen=True)
class Manifest:
    label_spaces: Mapping[str, LabelSpace]
    heights: Mapping[str, tuple["HeightRange", ...]]  # by class
    names: Mapping[str, str]  # of classes, the first of each and its aliases -> the first
    entries: tuple[Entry, ...]


class Hit(NamedTuple):
    """A path below the folder that a layout matched; `parent`: where its files lie, relative to the folder."""

    path: str
    parent: str
    name: str
    groups: Mapping[str, str]
    layout: Layout


@functools.lru_cache(maxsize=1)
def manifest() -> Manifest:
    """The manifest in the package (installed) or at the repository's root. Raises SourceError if it is not whole."""
    for place in _PLACES:
        if place.is_file():
            return load_manifest(place)
    raise SourceError(_PLACES[0], "is missing: install gen4d again")


def load_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises SourceError that names the entry and the key that is wrong."""
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
        if tree.get("version") != 1:
            raise SourceError(path, f"has version {tree.get('version')!r}: this gen4d reads version 1")
        entries = tuple(_entry(path, item) for item in tree["datasets"])
        spaces = {name: _label_space(item) for name, item in tree["label_spaces"].items()}
        heights = _heights(path, tree["heights"])
        aliases = {alias: name for name, item in tree["heights"].items() for alias in (name, *item.get("also", ()))}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError, re.error) as error:
        raise SourceError(
            path, f"is not a valid manifest ({type(error).__name__}: {error}): install gen4d again"
        ) from error
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(path, f"declares {twice[0]!r} twice: one name, one data set")
    return Manifest(spaces, heights, aliases, entries)


def _entry(path: Path, item: dict) -> Entry:
    values = dict(item)
    if values["role"] not in _ROLES:
        raise SourceError(path, f"gives {values['name']!r} the role {values['role']!r}: one of {', '.join(_ROLES)}")
    values["layouts"] = tuple(_layout(path, values["role"], layout) for layout in values["layouts"])
    values["splits"] = {name: Split(**split) for name, split in values.get("splits", {}).items()}
    values["places"] = tuple(values.get("places", (".", "..")))
    return Entry(**values)


def _layout(path: Path, role: str, item: dict) -> Layout:
    values = dict(item)
    if role in values:
        values["recorded"] = parse_recorded(path, role, values.pop(role))
    values["find"] = tuple(values["find"])
    values["path"] = re.compile(values["path"])
    values["files"] = {role: tuple(names) for role, names in values.get("files", {}).items()}
    return Layout(**values)


def _label_space(item: dict) -> LabelSpace:
    return LabelSpace(dict(item["names"]), tuple(item["benchmark"]), tuple(item["ignore"]))


def _heights(path: Path, items: dict) -> dict[str, tuple[HeightRange, ...]]:
    heights = {}
    for name, item in items.items():
        rows = item.get("ranges") or [item]
        ranges = tuple(HeightRange(float(row["low"]), float(row["high"]), float(row.get("share", 1))) for row in rows)
        for low, high, share in ranges:
            if not 0 < low <= high < 10 or not 0 < share <= 1:
                raise SourceError(path, f"gives {name} heights from {low:g} to {high:g} m: rising, below 10 m")
        for alias in (name, *item.get("also", ())):
            heights[alias] = ranges
    return heights


def entry_of(name: str) -> Entry:
    """The entry of that name. Raises SourceError."""
    for entry in manifest().entries:
        if entry.name == name:
            return entry
    raise SourceError("datasets_manifest.yaml", f"has no data set {name!r}")


def class_name_of(text: str) -> str:
    """The class of the manifest that people mean by a name: `Chairs` is chair, `NightStand` and `night stand` are
    night_stand, `couch` is sofa. A name that means none of them stays as it is."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]+", "_", text.strip()).lower()
    known = manifest().names
    return next(
        (known[name] for name in (words, words.removesuffix("s"), words.removesuffix("es")) if name in known), text
    )


def entry_units(name: str) -> str:
    """The unit that the manifest declares for a data set, "" where it has none."""
    return entry_of(name).units


def height_ranges(class_name: str) -> tuple[HeightRange, ...]:
    """The metric heights that shapes of a class are scaled to, none for a class that is not known."""
    return manifest().heights.get(class_name_of(class_name), ())


def recognise(folder: Path, role: str) -> tuple[Entry, list[Hit]]:
    """The first data set of a role whose layout `folder` has, and its hits sorted by path.

    One whose scans have their points goes before one whose scans lack them. No file is opened.
    Raises SourceError where the folder is none, cannot be listed, or nothing in it matches.
    """
    if not folder.is_dir():
        raise SourceError(folder, "is not a folder, or does not exist: give the folder that holds the data")
    partial = None
    for entry in manifest().entries:
        if entry.role != role:
            continue
        hits = match(folder, entry)
        if any(has_points(folder, hit) for hit in hits):
            return entry, hits
        if hits and partial is None:
            partial = entry, hits
    if partial is None:
        raise SourceError(folder, _nothing_found(folder, role))
    return partial


def match(folder: Path, entry: Entry) -> list[Hit]:
    """What `entry`'s layouts find in `folder`: the hits of the first layout that finds any."""
    if entry.marker and not any((folder / place / entry.marker).is_file() for place in (".", "..")):
        return []
    for layout in entry.layouts:
        found = {}
        for pattern in layout.find:
            for path in _glob(folder, pattern):
                relative = path.relative_to(folder).as_posix()
                matched = layout.path.fullmatch(relative)
                if matched and not is_litter(relative):
                    found[relative] = _hit(path, relative, matched, layout)
        if found:
            return [found[relative] for relative in sorted(found)]
    return []


def is_litter(relative: str) -> bool:
    """Whether a path within a folder is, or lies in, what a system or an editor left there."""
    return any(_LITTER.fullmatch(part) for part in relative.split("/"))


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError as error:
        raise SourceError(folder, f"cannot be listed ({error.strerror or error}): check its permissions") from error


def _hit(path: Path, relative: str, matched: re.Match, layout: Layout) -> Hit:
    groups = {name: value for name, value in matched.groupdict().items() if value is not None}
    if "name" not in groups and layout.recorded:
        groups["name"] = path.resolve().parents[relative.count("/")].name
    parent = relative if layout.files and path.is_dir() else str(Path(relative).parent.as_posix())
    return Hit(relative, parent, layout.name.format_map(groups), groups, layout)


def has_points(folder: Path, hit: Hit) -> bool:
    """Whether the points (or the mesh) of a hit are there."""
    return not hit.layout.files or "points" in files_of(folder, hit)


def files_of(folder: Path, hit: Hit) -> dict[str, str]:
    """Role -> path relative to `folder`, of those files of a hit that are there."""
    if not hit.layout.files:
        return {"points": hit.path}
    try:
        present = set(os.listdir(os.path.join(folder, hit.parent)))  # pathlib is half of the time of 100,000 scans
    except OSError:
        present = set()
    files = {}
    for role, templates in hit.layout.files.items():
        names = (template.format_map({"name": hit.name, **hit.groups}) for template in templates)
        if name := next((name for name in names if name in present), None):
            files[role] = name if hit.parent == "." else f"{hit.parent}/{name}"
    return files


def _nothing_found(folder: Path, role: str) -> str:
    for entry in manifest().entries:
        if entry.role != role and match(folder, entry):
            how = {"frames": "--kind frames", "sweeps": "--kind sweeps", "pointsets": "--shapes of --kind views"}
            how = how.get(entry.role, f"--{entry.role}")
            how = f"give it as {how}, or another folder" if entry.built else entry.note
            return f"holds no {role}, it looks like {entry.title}: {how}"
    known = ", ".join(dict.fromkeys(entry.title for entry in manifest().entries if entry.built and entry.role == role))
    deeper = sorted(
        {path.parent.name for path in _glob(folder, "*/*.pl[y]") if not is_litter(path.relative_to(folder).as_posix())}
    )[:3]
    hint = f"; there are .ply files in {', '.join(deeper)}: give that folder" if deeper and role == "scans" else ""
    hint = "; any other folder can be described in a gen4d.yaml in it" if role in ("frames", "sweeps") else hint
    return f"holds no {role} that gen4d knows (it looked for: {known}){hint}"
