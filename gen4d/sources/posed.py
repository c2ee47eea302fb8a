"""Scans that are recordings: posed depth images or lidar sweeps, found and read by what YAML says of their folder."""

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from gen4d.sources.level import parse_units
from gen4d.sources.manifest import Entry, Hit, Layout, recognise
from gen4d.sources.recorded import (
    Recorded,
    flat_row,
    key_number,
    parse_recorded,
    poses_of,
    read_numbers,
    square,
)
from gen4d.sources.source import SourceError, check_name, file_size, read_file, unreadable
from gen4d.sources.splits import choose_split

OWN = "gen4d.yaml"  # what a user says of a folder that the manifest does not know
_OWN_KEYS = ("role", "scans", "up", "units", "frames", "sweeps")
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class PosedSource:
    """The frames or sweeps of one scan. path: its folder, or its one file, below `root`. size: bytes of that file, or
    how many frames the folder holds. groups: what is put into names of files. metres: per unit of poses."""

    name: str
    root: Path
    path: str
    size: int
    recorded: Recorded
    groups: Mapping[str, str]
    metres: float = 1.0
    label_space: str = ""


class FoundPosed(NamedTuple):
    """sources sorted by name; the data set that the folder was recognised as; the world's axis that points up; how the
    frames lie; what the user should know; refused: one line each."""

    sources: tuple[PosedSource, ...]
    entry: Entry
    up: str
    recorded: Recorded
    warnings: tuple[str, ...]
    refused: tuple[str, ...]


def find_posed(folder: Path, role: str, split: Path | None = None) -> FoundPosed:
    """The scans of a folder of role "frames" or "sweeps". Folders are listed, nothing but lists and YAML is opened.

    Raises SourceError where there are none, two have one name, or gen4d.yaml is wrong.
    """
    folder = Path(folder)
    entry, hits = _own(folder, role) if (folder / OWN).is_file() else recognise(folder, role)
    if not entry.built:
        raise SourceError(folder, f"is {entry.title}, which gen4d cannot build from: {entry.note}")
    chosen = choose_split(folder, entry, hits, split)
    sources, refused, seen = [], [], set()
    for hit in sorted(chosen.hits, key=lambda hit: hit.name):
        if hit.name in seen:
            raise SourceError(folder, f"has two scans named {hit.name!r}: rename or remove one")
        seen.add(hit.name)
        try:
            sources += _sources(folder, entry, hit)
        except SourceError as error:
            refused.append(str(error))
    if not sources and refused:
        raise SourceError(folder, f"has no scan that can be used: {refused[0]}")
    sources.sort(key=lambda source: source.name)
    recorded = hits[0].layout.recorded
    return FoundPosed(tuple(sources), entry, entry.up, recorded, chosen.warnings, tuple(refused))


def _own(folder: Path, role: str) -> tuple[Entry, list[Hit]]:
    """The data set that gen4d.yaml describes, and its scans: the folder itself, or those that a glob names."""
    path = folder / OWN
    try:
        item = yaml.safe_load(read_file(folder, OWN)[0])
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(path, f"is not YAML: {error}") from None
    if not isinstance(item, dict) or (odd := sorted(set(map(str, item)) - set(_OWN_KEYS))):
        wrong = f"has the key {odd[0]!r}" if isinstance(item, dict) else "holds no keys"
        raise SourceError(path, f"{wrong}: its keys are {', '.join(_OWN_KEYS)}")
    if item.get("role", role) != role or role not in item:
        raise SourceError(path, f"describes no {role}: give the key {role}, or the --kind that it describes")
    layout = Layout((), None, recorded=parse_recorded(path, role, item[role], ("base", "name")))
    up, units, scans = (str(item.get(name, default)) for name, default in (("up", "z"), ("units", "m"), ("scans", ".")))
    entry = Entry(OWN, f"{role} that {OWN} describes", role, True, units, up, "yours", "yours", (layout,))
    if not scans or Path(scans).is_absolute() or ".." in Path(scans).parts:
        raise SourceError(path, f"names scans {scans!r}: a glob of folders below {folder} is needed")
    places = [folder] if scans == "." else sorted(place for place in folder.glob(scans) if place.is_dir())
    if not places:
        raise SourceError(path, f"names scans {scans!r}, of which {folder} holds none")
    hits = [_own_hit(folder, place, layout) for place in places]
    return entry, hits


def _own_hit(folder: Path, place: Path, layout: Layout) -> Hit:
    base = place.relative_to(folder).as_posix()
    name = folder.resolve().name if base == "." else base.replace("/", "_")
    return Hit(base, base, name, {"name": name, "base": base}, layout)


def _sources(folder: Path, entry: Entry, hit: Hit) -> list[PosedSource]:
    check_name(folder, hit.path)
    recorded = hit.layout.recorded
    groups = {"name": hit.name, **hit.groups}
    common = {"recorded": recorded, "groups": groups, "metres": parse_units(entry.units)}
    common["label_space"] = entry.label_space if recorded.labels else ""
    if recorded.tables:
        from gen4d.sources.formats.nuscenes import scene_names

        return [
            PosedSource(name, folder, hit.path, count, **common | {"groups": groups | {"scene": name}})
            for name, count in scene_names(folder / Path(hit.path).parent)
        ]
    if recorded.sens:
        return [PosedSource(hit.name, folder, hit.path, file_size(folder, hit.path), **common)]
    base = groups.get("base", ".")
    found = _listed(folder / base, recorded, groups)
    if not found:
        wanted = " or ".join(pattern.format_map(groups) for pattern in recorded.files)
        raise SourceError(folder / base, f"has no {wanted}: check the folder, or its {OWN}")
    return [PosedSource(hit.name, folder, base, len(found), **common)]


def _listed(base: Path, recorded: Recorded, groups: Mapping[str, str]) -> list[tuple[str, str]]:
    """(key, file) of the frames of a folder, by the first glob that finds any."""
    found = (list_keys(base, pattern.format_map(groups)) for pattern in recorded.files)
    return next(filter(None, found), [])


# Frames of a folder ---------------------------------------------------------------------------------------------------


def list_keys(folder: Path, pattern: str) -> list[tuple[str, str]]:
    """(key, file below `folder`) of the files of a pattern, by number where all keys are numbers."""
    place, _, last = pattern.rpartition("/")
    before, _, after = last.partition("*")
    try:
        names = os.listdir(folder / place)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(folder / place, error) from None
    found = [
        (name[len(before) : len(name) - len(after)], f"{place}/{name}" if place else name)
        for name in names
        if name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
    ]
    found = [(key, name) for key, name in found if not key.startswith(".")]
    numbers = [key_number(key) for key, _ in found]
    if any(math.isnan(number) for number in numbers):
        return sorted(found)
    return [pair for _, pair in sorted(zip(numbers, found, strict=True))]


class Reading:
    """What became of one scan's frames: how many there are, those left out by reason, those that are broken, and the
    hash of all that was read."""

    def __init__(self) -> None:
        self.frames = 0
        self.left_out: dict[str, list[str]] = {}
        self.broken: list[SourceError] = []
        self._digest = hashlib.sha256()

    def read(self, root: Path, relative: str) -> bytes:
        """A file below `root`. Raises SourceError."""
        content, _ = read_file(root, os.path.normpath(relative))
        self._digest.update(content)
        return content

    def saw(self, content: bytes) -> None:
        """Bytes that were read in another way."""
        self._digest.update(content)

    def leave_out(self, reason: str, key: object) -> None:
        self.left_out.setdefault(reason, []).append(str(key))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def example(self, reason: str) -> str:
        """The frames that were left out for a reason, some of them by name."""
        keys = self.left_out[reason]
        return f"frames {', '.join(keys[:_NAMED])}" + (f", ... ({len(keys)})" if len(keys) > _NAMED else "")


class Keyed(NamedTuple):
    """A frame of a folder: its key and file, its number, its time in seconds or NaN, and its pose, NaN for none."""

    key: str
    file: str
    number: int
    time_s: float
    pose: np.ndarray


class Folder:
    """A scan's folder, as its source says that it lies."""

    def __init__(self, source: PosedSource, reading: Reading):
        self.source, self.recorded, self.reading = source, source.recorded, reading
        self.base = source.root / source.path

    def name(self, template: str, key: str = "") -> str:
        """A file's name below the base, with groups and key put in."""
        return template.format_map({**self.source.groups, "key": key})

    def read(self, name: str) -> bytes:
        """A file's content. Raises SourceError."""
        return self.reading.read(self.source.root, f"{self.source.path}/{name}")

    def first(self, templates: tuple) -> str:
        """The first of several files, or of several kinds of one file a frame, that is there. Raises SourceError."""
        for template in templates:
            if "{key}" in str(template):
                folder, last = os.path.split(self.name(str(template), "*"))
                if list_keys(self.base, f"{folder}/{last}" if folder else last):
                    return str(template)
            elif (self.base / self.name(str(template))).is_file():
                return str(template)
        names = " or ".join(self.name(str(template), "*") for template in templates)
        raise SourceError(self.base, f"has no {names}: write it, or say in a gen4d.yaml where it is")

    def near(self, template: str, key: str) -> str | None:
        """The file of a key, or of the nearest key within the tolerance, as names by time are rounded differently."""
        name = self.name(template, key)
        if (self.base / name).is_file():
            return name
        number = key_number(key)
        others = self._listing(template)
        if math.isnan(number) or not others:
            return None
        other = min(others, key=lambda pair: abs(key_number(pair[0]) - number))
        return other[1] if abs(key_number(other[0]) - number) <= min(self.recorded.tolerance_s, 0.0015) else None

    def _listing(self, template: str) -> list[tuple[str, str]]:
        if not hasattr(self, "_listed"):
            self._listed: dict[str, list[tuple[str, str]]] = {}
        if template not in self._listed:
            pairs = list_keys(self.base, self.name(template, "*"))
            self._listed[template] = [pair for pair in pairs if not math.isnan(key_number(pair[0]))]
        return self._listed[template]

    def keyed(self, every: int) -> Iterator[Keyed]:
        """The frames that are used and have a pose; the others are counted. Raises SourceError."""
        recorded = self.recorded
        listed = _listed(self.base, recorded, self.source.groups)
        self.reading.frames = len(listed)
        chosen = list(enumerate(listed))[::every]
        numbers = [_number(key, place) for place, (key, _) in chosen]
        times = np.array([key_number(key) for _, (key, _) in chosen])
        pose = self._poses([key for _, (key, _) in chosen], [place for place, _ in chosen], numbers, times, len(listed))
        timed = recorded.match == "time"
        for (_, (key, file)), number, time_s, one in zip(chosen, numbers, times.tolist(), pose, strict=True):
            if not np.isfinite(one).all():
                self.reading.leave_out("no pose", key)
                continue
            yield Keyed(key, file, number, time_s if timed else math.nan, one)

    def _poses(self, keys: list[str], places: list[int], numbers: list[int], times: np.ndarray, count: int):
        """The sensor's pose in its world (N, 4, 4) of each frame, NaN where there is none."""
        recorded = self.recorded
        template = self.first(recorded.pose)
        path = self.base / self.name(template, "*")
        if "{key}" in template:
            table = self._rows_of_keys(template, keys)
            _, pose = poses_of(path, table, recorded.pose_columns)
            row = np.arange(len(keys))
        else:
            rows = read_numbers(path, self.read(self.name(template)))
            if recorded.pose_columns == "auto" and {len(row) for row in rows} == {4} and len(rows) == 4 and count == 1:
                rows = [flat_row(rows)]
            stamps, pose = poses_of(path, square(path, rows), recorded.pose_columns)
            row = self._matched(path, stamps, places, numbers, times, count)
        pose = np.concatenate([pose, np.full((1, 4, 4), math.nan)])[row]
        pose[:, :3, 3] *= self.source.metres
        return self._mounted(_directed(pose, recorded))

    def _rows_of_keys(self, template: str, keys: list[str]) -> np.ndarray:
        rows: list[list[float] | None] = []
        for key in keys:
            name = self.near(template, key)
            rows.append(None)
            if name is not None:
                with self.collecting():
                    rows[-1] = flat_row(read_numbers(self.base / name, self.read(name)))
        widths = [len(row) for row in rows if row]
        width = max(set(widths), key=widths.count) if widths else 16
        return np.array([row if row and len(row) == width else [math.nan] * width for row in rows])

    @contextlib.contextmanager
    def collecting(self):
        """One frame's file that is broken costs that frame alone, and is named."""
        try:
            yield
        except SourceError as error:
            self.reading.broken.append(error)

    def _matched(self, path: Path, stamps: np.ndarray, places: list[int], numbers: list[int], times, count: int):
        """Row of the pose of each frame, one past the end where there is none."""
        rows, none = len(stamps), len(stamps)
        match self.recorded.match:
            case "time":
                return _nearest(path, stamps, times, self.recorded.tolerance_s)
            case "row":
                if rows != count:
                    remedy = "match: number or time says which pose a frame has"
                    raise SourceError(path, f"has {rows} poses for {count} frames: {remedy}")
                return np.array(places)
        return np.array([number if 0 <= number < rows else none for number in numbers])

    def _mounted(self, pose: np.ndarray) -> np.ndarray:
        """Poses of the sensor from those of the body that it is mounted on."""
        mount = self.recorded.mount
        if not mount:
            return pose
        name = self.name(str(mount.get("file", "")))
        fields = _fields(self.base / name, self.read(name))
        matrix = _mount(self.base / name, fields, mount)
        matrix[:3, 3] *= self.source.metres
        inverse = np.linalg.inv(matrix)
        if mount.get("inverse"):
            matrix, inverse = inverse, matrix
        return inverse @ pose @ matrix if self.recorded.world == "sensor" else pose @ matrix


def _number(key: str, place: int) -> int:
    """A frame's number: its key where that is a whole number, else its place among all."""
    number = key_number(key)
    return int(number) if number == number and number.is_integer() and number < 2**31 else place


def _directed(pose: np.ndarray, recorded: Recorded) -> np.ndarray:
    """Poses sensor to world, of a sensor whose axes are x right, y down, z forward where it is a camera."""
    if recorded.pose_is == "world-to-sensor":
        good = np.isfinite(pose).all(axis=(1, 2))
        good[good] = np.abs(np.linalg.det(pose[good])) > 1e-9  # zeros say in some data that tracking was lost
        out = np.full_like(pose, math.nan)
        out[good] = np.linalg.inv(pose[good])
        pose = out
    return pose @ np.diag([1.0, -1, -1, 1]) if recorded.camera == "opengl" else pose


def _nearest(path: Path, stamps: np.ndarray, times: np.ndarray, tolerance_s: float) -> np.ndarray:
    """Row of the pose nearest in time to each frame, one past the end where none is within the tolerance."""
    if not np.isfinite(stamps).all():
        raise SourceError(path, "has no times: pose_columns names one column time")
    if not np.isfinite(times).all():
        raise SourceError(path, "gives poses by time, but the names of the frames are not times: check match")
    order = np.argsort(stamps, kind="stable")
    rising = stamps[order]
    after = np.searchsorted(rising, times).clip(1, max(len(rising) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(rising) - 1)
    near = np.where(times - rising[before] <= rising[after] - times, before, after)
    return np.where(np.abs(rising[near] - times) <= tolerance_s + 1e-9, order[near], len(stamps))


def _fields(path: Path, content: bytes) -> dict[str, list[float]]:
    """`name: numbers` of a calibration file; lines of other things are left out."""
    fields = {}
    for line in content.decode("utf-8", "replace").splitlines():
        name, _, rest = line.partition(":")
        with contextlib.suppress(ValueError):
            fields[name.strip()] = [float(word) for word in rest.split()]
    return fields


def _mount(path: Path, fields: Mapping[str, list[float]], mount: Mapping[str, object]) -> np.ndarray:
    matrix = np.eye(4)
    rotation, shift = mount.get("rotation"), mount.get("translation")
    if rotation:
        wanted = ((str(rotation), 9), (str(shift), 3))
    else:
        wanted = ((str(mount.get("key", "")), 12),)
    for name, count in wanted:
        if len(fields.get(name, ())) != count:
            raise SourceError(path, f"has no {name!r} of {count} numbers: without it the sensor's poses are not known")
    if rotation:
        matrix[:3, :3] = np.reshape(fields[str(rotation)], (3, 3))
        matrix[:3, 3] = fields[str(shift)]
    else:
        matrix[:3] = np.reshape(fields[str(mount["key"])], (3, 4))
    return matrix
