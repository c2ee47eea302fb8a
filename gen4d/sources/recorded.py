"""How posed depth images or lidar sweeps lie in a scan's folder, and what their numbers mean: all of it from YAML."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from gen4d.config import nearest
from gen4d.sources.source import SourceError

_DIRECTIONS = ("sensor-to-world", "world-to-sensor")
_MATCHES = ("key", "row", "number", "time")
_CAMERAS = ("opencv", "opengl")
_NAMES = {
    "quaternion": ("qx", "qy", "qz", "qw"),
    "axis": ("rx", "ry", "rz"),
    "geodetic": ("lat", "lon", "alt", "roll", "pitch", "yaw"),
    "shift": ("tx", "ty", "tz"),
}


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The key `frames` or `sweeps` of a layout in the manifest, or of gen4d.yaml.

    Names of files are relative to the scan's folder; {name} and other groups of the layout's path are put in. Where
    several are given, the first that is there counts.
    """

    depth: tuple[str, ...] = ()  # globs of 16-bit images; what its one * stands for is a frame's key
    sens: bool = False  # or the path is a .sens file of ScanNet, which holds poses and intrinsics too
    points: tuple[str, ...] = ()  # or globs of binary sweeps, again with one *
    tables: str = ""  # or the folder of nuScenes' tables
    columns: str = "x y z intensity"  # of a row of a sweep, float32 each
    labels: str = (
        ""  # of a sweep's points, {key} put in: 32-bit numbers, label in the low half, instance in the high one
    )
    depth_scale: float = 1000.0  # of a depth image, units a metre
    invalid: tuple[int, ...] = ()  # depths that mean none, besides 0
    intrinsics: tuple[str | float, ...] = ()  # files, {key} put in if each frame has one; or fx fy cx cy
    intrinsics_columns: str = "matrix"  # 9 or 16 numbers, or names of columns: w h fx fy cx cy
    intrinsics_of: Mapping[str, object] = dataclasses.field(default_factory=dict)  # part of a scan's name -> its own
    size: tuple[int, ...] = ()  # width and height that the intrinsics are of, if not the depth image's
    pose: tuple[str, ...] = ()  # files, {key} put in if each frame has one
    pose_columns: str = "auto"  # matrix (12 or 16 numbers), or names: time tx ty tz qx qy qz qw; auto: by their number
    pose_is: str = "sensor-to-world"  # or world-to-sensor
    camera: str = "opencv"  # x right, y down, z forward; opengl: y up, z backward
    match: str = "key"  # which pose a frame has: of its key, of its row, of its number as a row from 0, or of its time
    tolerance_s: float = 0.02  # between a frame and its pose, if by time
    mount: Mapping[str, object] = dataclasses.field(default_factory=dict)  # sensor -> what the poses are of
    world: str = "body"  # whose first frame the world is, where there is a mount: the body's, or the sensor's
    every: int = 1  # every n-th frame is used, unless --set every=N says otherwise

    @property
    def files(self) -> tuple[str, ...]:
        """Globs of the frames' files."""
        return self.depth or self.points

    def fault(self) -> str | None:
        """What is wrong with the values, or None."""
        kinds = [name for name in ("depth", "sens", "points", "tables") if getattr(self, name)]
        if len(kinds) != 1:
            return "needs one of depth, sens, points and tables"
        for pattern in self.files:
            if str(pattern).rpartition("/")[2].count("*") != 1 or str(pattern).count("*") != 1:
                return f"{kinds[0]} is {pattern!r}: needs one * in the file's name, which stands for a frame's key"
        if not {"x", "y", "z"} <= set(self.columns.split()):
            return f"columns is {self.columns!r}: x, y and z are among them"
        if kinds[0] == "depth" and not self.intrinsics:
            return "intrinsics is missing: name a file, or give fx, fy, cx, cy"
        for part, own in self.intrinsics_of.items():
            if not isinstance(own, list):
                return f"intrinsics_of says {own!r} of {part!r}: a list as for intrinsics is needed"
        if kinds[0] in ("depth", "points") and not self.pose:
            return "pose is missing: name a file, with {key} in it if each frame has one"
        choices = {"pose_is": _DIRECTIONS, "match": _MATCHES, "camera": _CAMERAS, "world": ("body", "sensor")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                return f"{name} is {getattr(self, name)!r}: one of {', '.join(known)}"
        if not self.depth_scale > 0 or self.every < 1:
            return "depth_scale is above 0, and every at least 1"
        return _columns_fault(self.pose_columns)


def parse_recorded(where: Path, key: str, item: object, groups: Iterable[str]) -> Recorded:
    """The value of a key `frames` or `sweeps`; groups: what is put into names of files. Raises SourceError that names
    what is wrong with it."""
    if not isinstance(item, dict):
        raise SourceError(where, f"{key} is not a list of keys and values")
    types = vars(Recorded())
    values = {}
    for name, value in item.items():
        if name not in types:
            raise SourceError(where, f"{key} has an unknown key {name!r}: {nearest(str(name), types)}")
        if isinstance(types[name], tuple):
            value = tuple(value) if isinstance(value, list) else (value,)
        elif isinstance(types[name], float) and isinstance(value, int):
            value = float(value)
        elif type(value) is not type(types[name]):
            raise SourceError(where, f"{key}: {name} is {value!r}, not of type {type(types[name]).__name__}")
        values[name] = value
    recorded = Recorded(**values)
    if fault := _names_fault(recorded, sorted(groups)) or recorded.fault():
        raise SourceError(where, f"{key}: {fault}")
    return recorded


def _names_fault(recorded: Recorded, groups: list[str]) -> str | None:
    """What is wrong with the names of files: they are text, with known names in braces."""
    keyed = [*groups, "key"]
    files = [name for name in recorded.intrinsics if isinstance(name, str)]
    places = {"pose": recorded.pose, "intrinsics": files, "labels": (recorded.labels,)}
    places |= {"depth": recorded.depth, "points": recorded.points, "mount": (recorded.mount.get("file", ""),)}
    for key, names in places.items():
        known = groups if key in ("depth", "points", "mount") else keyed
        for name in names:
            try:
                str.format_map(name, dict.fromkeys(known, "0"))
            except (TypeError, ValueError, LookupError, AttributeError):
                return f"{key} is {name!r}: a file's name, in which {{{'}, {'.join(known)}}} may stand"
    return None


def _columns_fault(columns: str) -> str | None:
    names = columns.split()
    if columns in ("auto", "matrix"):
        return None
    known = {"time", "_", *itertools.chain(*_NAMES.values())}
    odd = [name for name in names if name not in known]
    if odd:
        return f"pose_columns has {odd[0]!r}: known are {' '.join(sorted(known))} (_ is skipped)"
    if not any(set(_NAMES[kind]) <= set(names) for kind in ("quaternion", "axis", "geodetic")):
        return "pose_columns lacks a rotation: qx qy qz qw, rx ry rz, or lat lon alt roll pitch yaw"
    return None


# Numbers --------------------------------------------------------------------------------------------------------------


def read_numbers(path: Path, content: bytes) -> list[list[float]]:
    """Rows of numbers of a text; # begins a comment, commas are spaces, words at a row's end are left out."""
    try:
        lines = content.decode("utf-8-sig").replace(",", " ").splitlines()
    except UnicodeDecodeError:
        raise SourceError(path, "is not a text of numbers: check which file holds them") from None
    rows = []
    for number, line in enumerate(lines, 1):
        row = []
        for word in line.partition("#")[0].split():
            try:
                row.append(float(word))
            except ValueError:
                if not row:
                    raise SourceError(path, f"line {number} is not numbers: {line.strip()[:40]!r}") from None
                break
        if row:
            rows.append(row)
    return rows


def flat_row(rows: list[list[float]]) -> list[float]:
    """The numbers of a text of one matrix or pose, however it is spread over lines."""
    return [value for row in rows for value in row]


def square(path: Path, rows: list[list[float]]) -> np.ndarray:
    """Rows of numbers as a table (N, W). Raises SourceError where they differ in length, or there are none."""
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise SourceError(path, f"has rows of {lengths or 'no'} numbers: a pose a row, all of one length, is needed")
    return np.array(rows, np.float64)


def poses_of(path: Path, table: np.ndarray, columns: str) -> tuple[np.ndarray, np.ndarray]:
    """Times (N,) of poses, NaN where the rows (N, W) have none, and poses (N, 4, 4) float64. Raises SourceError.

    Rows that are no pose stay as they are: it is the caller's to drop them.
    """
    width = table.shape[1]
    if columns == "auto":
        columns = {7: "tx ty tz qx qy qz qw", 8: "time tx ty tz qx qy qz qw"}.get(width, "matrix")
    none = np.full(len(table), math.nan)
    if columns == "matrix":
        return none, _matrices(path, table)
    names = columns.split()
    if width < len(names):
        raise SourceError(path, f"has rows of {width} numbers, {len(names)} are needed: {columns}")
    column = {name: table[:, i] for i, name in enumerate(names)}
    return column.get("time", none), _from_columns(column)


def _matrices(path: Path, table: np.ndarray) -> np.ndarray:
    if table.shape[1] not in (12, 16):
        raise SourceError(path, f"has rows of {table.shape[1]} numbers, a matrix has 12 or 16: check pose_columns")
    pose = np.tile(np.eye(4), (len(table), 1, 1))
    pose[:, :3] = table[:, :12].reshape(-1, 3, 4)
    return pose


def _from_columns(column: Mapping[str, np.ndarray]) -> np.ndarray:
    first = next(iter(column.values()))
    pose = np.tile(np.eye(4), (len(first), 1, 1))
    if "qw" in column:
        pose[:, :3, :3] = quaternion_rotation(*(column[name] for name in _NAMES["quaternion"]))
    elif "rx" in column:
        pose[:, :3, :3] = _axis_rotation(np.stack([column[name] for name in _NAMES["axis"]], axis=1))
    else:
        return _geodetic(*(column[name] for name in _NAMES["geodetic"]))
    for axis, name in enumerate(_NAMES["shift"]):
        pose[:, axis, 3] = column[name] if name in column else 0.0
    return pose


def quaternion_rotation(x, y, z, w) -> np.ndarray:
    """Rotations (N, 3, 3) of quaternions, of any length; NaN where it is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y, z, w = np.stack([x, y, z, w]) / np.sqrt(x * x + y * y + z * z + w * w)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def _axis_rotation(axis: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) by vectors (N, 3) whose length is the angle in radians."""
    angle = np.linalg.norm(axis, axis=1)
    unit = axis / np.where(angle > 0, angle, 1)[:, None]
    half = np.sin(angle / 2)
    return quaternion_rotation(unit[:, 0] * half, unit[:, 1] * half, unit[:, 2] * half, np.cos(angle / 2))


_EARTH_M = 6378137.0


def _geodetic(lat, lon, alt, roll, pitch, yaw) -> np.ndarray:
    """Poses (N, 4, 4) of a GPS unit, degrees and radians, on KITTI's Mercator plane: x east, y north, z up."""
    known = lat[np.isfinite(lat)]
    scale = np.cos(np.radians(known[0])) if len(known) else math.nan
    pose = np.tile(np.eye(4), (len(lat), 1, 1))
    pose[:, 0, 3] = scale * np.radians(lon) * _EARTH_M
    pose[:, 1, 3] = scale * _EARTH_M * np.log(np.tan(np.pi * (90 + lat) / 360))
    pose[:, 2, 3] = alt
    turn = [_about(axis, angle) for axis, angle in ((2, yaw), (1, pitch), (0, roll))]
    pose[:, :3, :3] = turn[0] @ turn[1] @ turn[2]
    return pose


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) about one axis."""
    vector = np.zeros((len(angle), 3))
    vector[:, axis] = angle
    return _axis_rotation(vector)


def key_number(key: str) -> float:
    """A frame's key as a number, NaN where it is none."""
    return float(key) if re.fullmatch(r"\d+(\.\d+)?", key) else math.nan


def rigid(pose: np.ndarray) -> np.ndarray | None:
    """The rigid pose (4, 4) next to one whose digits were cut, or None where it is none: lost tracking, a scale, a
    mirror."""
    if not np.isfinite(pose).all() or np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-3:
        return None
    u, size, v = np.linalg.svd(pose[:3, :3])
    if np.abs(size - 1).max() > 1e-2 or np.linalg.det(u @ v) < 0:
        return None
    near = np.eye(4)
    near[:3, :3], near[:3, 3] = u @ v, pose[:3, 3]
    return near
