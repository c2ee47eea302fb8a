"""What a manifest declares: data sets, label spaces, heights. Read from YAML and checked, key by key."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

import yaml

from gen4d.config import nearest
from gen4d.sources.recorded import Recorded, parse_recorded
from gen4d.sources.source import SourceError

ROLES = ("scans", "shapes", "pointsets", "frames", "sweeps")
FILES = (
    "points",
    "labels",
    "instance",
    "segments",
    "aggregation",
    "alignment",
    "boxes",
    "colour",
    "normal",
    "objects",
)  # roles of files beside a scan
UNKNOWN = "unknown"  # the label space of labels that nobody named
_TEXTS = "name title units up home terms licence label_space marker note default_part".split()  # of an entry
_DEFAULTS = {"scans": {"units": "m", "up": "z"}, "shapes": {"units": "", "up": "auto"}}


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
    recorded: Recorded | None = None  # of frames and sweeps, under the key of their role


@dataclass(frozen=True)
class ClassFile:
    """A JSON file that says the class of each shape: a list of objects with keys `id` and `cls`, or class -> names."""

    file: str
    id: str = ""
    cls: str = ""


class Repair(NamedTuple):
    """What `found` in a text of objects should read, where it is there exactly once. file: path or pattern below the
    folder."""

    file: str
    found: str
    put: str


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
    licence: str = ""
    label_space: str = ""
    marker: str = ""
    note: str = ""
    default_part: str = ""
    places: tuple[str, ...] = (".", "..")
    splits: Mapping[str, Split] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    class_file: ClassFile | None = None
    repairs: tuple[Repair, ...] = ()
    surface: bool = True


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


@dataclass(frozen=True, eq=False)
class Manifest:
    """What one file declares, or several together."""

    label_spaces: Mapping[str, LabelSpace]
    heights: Mapping[str, tuple[HeightRange, ...]]  # by class
    names: Mapping[str, str]  # of classes, the first of each and its aliases -> the first
    entries: tuple[Entry, ...]


class _Wrong(ValueError):
    """What is wrong, and where in the file."""


def load_manifest(path: Path) -> Manifest:
    """The manifest at `path`. A data set needs a name, a role and layouts; the rest has defaults. Raises SourceError
    that names the entry and the key that is wrong, and the nearest one that there is."""
    try:
        tree = yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(path, f"is not YAML ({' '.join(str(error).split())}): repair it") from error
    except OSError as error:
        raise SourceError(path, f"cannot be read ({error.strerror or error}): give the path of a manifest") from error
    try:
        return _manifest(tree)
    except _Wrong as error:
        raise SourceError(path, str(error)) from None


def _manifest(tree: Any) -> Manifest:
    _check_keys("the file", tree, ("version", "label_spaces", "heights", "datasets"))
    if tree.get("version", 1) != 1:
        raise _Wrong(f"has version {tree['version']!r}: this gen4d reads version 1")
    spaces = {name: _label_space(f"label space {name!r}", item) for name, item in _items(tree, "label_spaces")}
    heights: dict[str, tuple[HeightRange, ...]] = {}
    names: dict[str, str] = {}
    for name, item in _items(tree, "heights"):
        _check_keys(f"heights of {name!r}", item, ("low", "high", "ranges", "share", "seen", "also"))
        ranges = _ranges(name, item)
        for alias in (name, *_strings(f"heights of {name!r}", item, "also", ())):
            heights[alias], names[alias] = ranges, name
    datasets = tree.get("datasets") or []
    if not isinstance(datasets, list):
        raise _Wrong(f"datasets: is a {type(datasets).__name__}, not a list of data sets, each with a dash: repair it")
    entries = tuple(_entry(number, item) for number, item in enumerate(datasets, start=1))
    listed = [entry.name for entry in entries]
    if twice := sorted({name for name in listed if listed.count(name) > 1}):
        raise _Wrong(f"declares {twice[0]!r} twice: one name, one data set")
    return Manifest(spaces, heights, names, entries)


def _items(tree: Mapping, key: str) -> Iterable[tuple[str, Any]]:
    value = tree.get(key) or {}
    if not isinstance(value, dict):
        raise _Wrong(f"{key}: is a {type(value).__name__}, not names with what belongs to them: repair it")
    return [(str(name), item) for name, item in value.items()]


def _check_keys(where: str, item: Any, known: Iterable[str], needed: Iterable[str] = ()) -> None:
    if not isinstance(item, dict):
        raise _Wrong(f"{where} is a {type(item).__name__}, not keys with values: repair it")
    for key in item:
        if key not in known:
            raise _Wrong(f"{where} has the key {key!r}: {nearest(str(key), known)}")
    for key in needed:
        if not item.get(key):
            raise _Wrong(f"{where} has no {key}: add it")


def _strings(where: str, item: Mapping, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """A list of texts; one text is a list of one."""
    value = item.get(key, default)
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise _Wrong(f"{where}: {key} is {value!r}, not a list of texts: repair it")
    return tuple(value)


def _entry(number: int, item: Any) -> Entry:
    named = isinstance(item, dict) and item.get("name")
    where = f"data set {item['name']!r}" if named else f"data set {number}"
    _check_keys(where, item, [one.name for one in dataclasses.fields(Entry)], ("name", "role", "layouts"))
    if (role := item["role"]) not in ROLES:
        raise _Wrong(f"{where}: role is {role!r}: {nearest(str(role), ROLES)}")
    general = {"title": item["name"], "built": True, "home": "yours", "terms": "yours"}
    values = general | _DEFAULTS.get(role, {"units": "m", "up": "z"}) | item
    for key in _TEXTS:
        if not isinstance(values.get(key, ""), str):
            raise _Wrong(f"{where}: {key} is {values[key]!r}, not a text: put it in quotes")
    if not isinstance(item["layouts"], list):
        raise _Wrong(f"{where}: layouts is a {type(item['layouts']).__name__}, not a list, each with a dash: repair it")
    needs_class = role == "shapes" and "class_file" not in item
    needs_class &= ".urdf" not in str(item["layouts"])  # whose meta.json says it
    rows = enumerate(item["layouts"], start=1)
    values["layouts"] = tuple(_layout(f"{where}, layout {i}", one, role, needs_class) for i, one in rows)
    if "class_file" in item:
        _check_keys(f"{where}, class_file", item["class_file"], ("file", "id", "class"), ("file",))
        given = {{"class": "cls"}.get(key, key): str(value) for key, value in item["class_file"].items()}
        values["class_file"] = ClassFile(**given)
    splits = {}
    for name, split in _items(item, "splits"):
        _check_keys(f"{where}, split {name!r}", split, ("file", "count", "default"), ("file",))
        splits[name] = Split(**split)
    values["splits"] = splits
    values["repairs"] = tuple(_repair(f"{where}, repairs", one) for one in item.get("repairs") or ())
    values["places"] = _strings(where, values, "places", (".", ".."))
    values["classes"] = {str(key): str(value) for key, value in _items(item, "classes")}
    return Entry(**values)


def _repair(where: str, item: Any) -> Repair:
    _check_keys(where, item, Repair._fields, Repair._fields)
    if not all(isinstance(value, str) and value.isascii() for value in item.values()):
        raise _Wrong(f"{where}: file, found and put are texts of ASCII letters: put them in quotes")
    return Repair(**item)


def _layout(where: str, item: Any, role: str, needs_class: bool) -> Layout:
    known = ["find", "path", "name", "files", "shared"] + [role] * (role in ("frames", "sweeps"))
    _check_keys(where, item, known, ("find", "path"))
    try:
        path = re.compile(item["path"])
    except (re.error, TypeError) as error:
        raise _Wrong(f"{where}: path {item['path']!r} is not a regular expression ({error}): repair it") from None
    name = item.get("name", "{name}")
    groups = path.groupindex
    _check_fields(where, "name", name, {**groups, "name": 0} if role in ("frames", "sweeps") else groups)
    if needs_class and "class" not in groups:
        raise _Wrong(f"{where}: path has no group (?P<class>...), which every shape needs: add it, or a class_file")
    files = {key: _strings(where, {key: value}, key) for key, value in _items(item, "files")}
    for key, templates in files.items():
        if key not in FILES:
            raise _Wrong(f"{where}: files has the key {key!r}: {nearest(key, FILES)}")
        for template in templates:
            _check_fields(where, f"files of {key}", template, {**groups, "name": 0})
    shared = {key: str(value) for key, value in _items(item, "shared")}
    recorded = None
    if role in known and role in item:
        try:
            recorded = parse_recorded(Path(where), role, item[role], {"name", "scene", *groups})
        except SourceError as error:
            raise _Wrong(f"{where}: {error.problem}") from None
    return Layout(_strings(where, item, "find"), path, name, files, shared, recorded)


def _check_fields(where: str, what: str, template: Any, groups: Iterable[str]) -> None:
    """Raise where a template names something that the path has no group for."""
    try:
        used = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except (ValueError, TypeError) as error:
        raise _Wrong(f"{where}: {what} {template!r} is not text with names in braces ({error}): repair it") from None
    if odd := [name for name in used if name not in groups]:
        raise _Wrong(f"{where}: {what} {template!r} names {odd[0]!r}, which path has no group for: "
                     f"{nearest(odd[0], groups)}")  # fmt: skip


def _label_space(where: str, item: Any) -> LabelSpace:
    _check_keys(where, item, ("names", "benchmark", "ignore"), ("names",))
    names, ignore = item["names"], item.get("ignore", [-1])
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(one, int) for one in names):
        raise _Wrong(f"{where}: names is neither a list of names nor whole numbers with names: repair it")
    benchmark = item.get("benchmark", [one for one in names if one not in ignore])
    for key, ids in (("ignore", ignore), ("benchmark", benchmark)):
        if not isinstance(ids, list) or not all(isinstance(one, int) for one in ids):
            raise _Wrong(f"{where}: {key} is {ids!r}, not a list of whole numbers: repair it")
    if odd := [one for one in benchmark if one not in names]:
        raise _Wrong(f"{where}: benchmark lists {odd[0]}, which has no name: add it")
    return LabelSpace({number: str(name) for number, name in names.items()}, tuple(benchmark), tuple(ignore))


def _ranges(name: str, item: Mapping) -> tuple[HeightRange, ...]:
    rows = item.get("ranges") or [item]
    try:
        ranges = tuple(HeightRange(float(row["low"]), float(row["high"]), float(row.get("share", 1))) for row in rows)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _Wrong(f"heights of {name!r}: low and high in metres are needed, like {{low: 0.7, high: 1.05}}") from None
    for low, high, share in ranges:
        if not 0 < low <= high < 10 or not 0 < share <= 1:
            raise _Wrong(f"gives {name} heights from {low:g} to {high:g} m: rising, below 10 m")
    return ranges
