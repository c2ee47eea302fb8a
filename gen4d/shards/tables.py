"""One shard with its small tables in memory: from rows of arrays to sequences, nothing believed unchecked."""

import functools
import math
import pathlib
from collections.abc import Callable
from typing import Protocol

import numpy as np

from gen4d.sequence import KINDS, ROLE_MOVING, Actor, Cloud, FloorPlan, Mover, Sequence, Views, frame_pairs
from gen4d.shards.format import ARRAYS, HDF5_SUFFIX, FormatError
from gen4d.shards.home import LocalFile, RangedFile
from gen4d.shards.zarr_reader import StoredArray, ZipShard

_STARTS = {
    "cloud/start": "cloud/point",
    "actor/start": "actor/cloud",
    "mover/start": "mover/shape",
    "scan/valid_start": "scan/valid",
    "view/start": "view/cloud",
    "view/overlap_start": "view/overlap",
}
_GROUPS = (
    ("cloud/point", "cloud/vertex", "cloud/label", "cloud/instance"),
    ("actor/cloud", "actor/role", "actor/pose", "actor/mask_start", "actor/mover"),
    tuple(name for name in ARRAYS if name.startswith("sequence/")),
    tuple(name for name in ARRAYS if name.startswith("mover/") and name != "mover/start"),
    tuple(name for name in ARRAYS if name.startswith("scan/") and name not in ("scan/valid", "scan/valid_start")),
    ("pair/first", "pair/second"),
    ("view/cloud", "view/number", "view/time_s", "view/pose"),
)


class Shard(Protocol):
    """The arrays of a shard, whatever its container."""

    where: str  # path or URL, for messages
    attributes: dict
    frames: int
    arrays: dict[str, StoredArray]
    tables: dict[str, np.ndarray]  # the small ones, whole

    def length(self, name: str) -> int:
        """Rows of an array."""

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start:stop of an array. Raises FormatError where they do not exist or are damaged."""

    def close(self) -> None:
        """Close the file; the next read opens it again."""


def open_shard(file: RangedFile | pathlib.Path) -> Shard:
    """The arrays of a shard, Zarr or HDF5 by its name. Raises FormatError."""
    file = LocalFile(file) if isinstance(file, pathlib.Path) else file
    if not file.where.endswith(HDF5_SUFFIX):
        return ZipShard(file)
    if not isinstance(file, LocalFile):
        raise FormatError(f"{file.where}: HDF5 is read from a disk only: copy it there, or give the Zarr data set")
    from gen4d.shards.hdf5_reader import Hdf5Shard  # h5py takes a quarter of a second to import

    return Hdf5Shard(file.path)


class StoredCloud(Cloud):
    """A cloud of a shard. What a trainer never looks at is read when it is asked for, and checked then.

    It takes to another process what was read here; there too, the rest is read when it is asked for.
    """

    def __init__(self, point: np.ndarray, read: Callable[[str], np.ndarray | None]):
        """read: gives another column by its name; it is pickled with the cloud."""
        self.point, self._read = point, read

    vertex = functools.cached_property(lambda self: self._read("vertex"))
    label = functools.cached_property(lambda self: self._read("label"))
    instance = functools.cached_property(lambda self: self._read("instance"))


CloudOf = Callable[[int], Cloud]
PairsOf = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


class Tables:
    """A shard with its small tables in memory."""

    def __init__(self, file: RangedFile | pathlib.Path):
        self.shard = open_shard(file)
        self.attributes, self.frames, self.table = self.shard.attributes, self.shard.frames, self.shard.tables
        self.scans, self.shapes, self.classes = (self._names(kind) for kind in ("scans", "shapes", "classes"))
        self._check_lengths()
        self._rows = {name: column.tolist() for name, column in self.table.items() if column.ndim == 1}
        for name, column in _STARTS.items():
            if name in self.table:
                self._check_starts(name, self.shard.length(column))

    def _check_lengths(self) -> None:
        """Raise FormatError where arrays of one table differ in length."""
        for group in _GROUPS:
            lengths = {self.shard.length(name) for name in group if name in self.shard.arrays}
            if len(lengths) > 1:
                raise FormatError(f"{self.shard.where}: the arrays {', '.join(group)} differ in length: damaged tables")

    def _check_starts(self, name: str, end: int) -> None:
        """Raise FormatError where a column of starts does not rise from 0 to `end`: negative rows would read others."""
        start = self.table[name]
        if not (len(start) >= 1 and start[0] == 0 and start[-1] == end and (np.diff(start) >= 0).all()):
            raise FormatError(
                f"{self.shard.where}: {name} does not rise from 0 to {end}: damaged tables, restore or rebuild it"
            )

    def sequence_counts(self) -> list[int]:
        """How many sequences each scan has. Raises FormatError where one is of a scan that is not there."""
        scan = self.table["sequence/scan"]
        if not ((scan >= 0) & (scan < len(self.scans))).all():
            raise FormatError(f"{self.shard.where}: sequence/scan points outside: damaged tables")
        return np.bincount(scan, minlength=len(self.scans)).tolist()

    def _names(self, kind: str) -> list[str]:
        names = self.attributes.get(kind)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise FormatError(f"{self.shard.where}: attribute {kind} is not a list of names: not written by gen4d")
        return names

    def id(self, row: int) -> str:
        """Id of the sequence in a row."""
        return f"{self._name(self.scans, self._rows['sequence/scan'][row])}/{self._rows['sequence/k'][row]:03d}"

    def class_name(self, row: int) -> str:
        """Class of the shape of the sequence in a row, "" if it has none."""
        number = self._rows["sequence/class"][row]
        return self._name(self.classes, number) if number >= 0 else ""

    def sequence(self, row: int, cloud_of: CloudOf | None = None, pairs_of: PairsOf | None = None) -> Sequence:
        """Decode a sequence; `cloud_of(number)` gives its actors' clouds, from a cache or from here, and `pairs_of(row,
        list)` its stored pair lists, which are read where they would have to be searched for."""
        cloud_of = cloud_of or self.cloud
        rows = self._rows
        kind = rows["sequence/kind"][row]
        if kind >= len(KINDS):
            raise FormatError(
                f"{self.shard.where}: sequence {row} is of kind {kind}, unknown to this gen4d: update gen4d"
            )
        movers = self._movers(row)
        actors = tuple(self._actor(a, cloud_of, len(movers)) for a in range(*self._range("actor/start", row)))
        if not actors:
            raise FormatError(f"{self.shard.where}: sequence {row} has no actors: damaged tables")
        return Sequence(
            scan=self._name(self.scans, rows["sequence/scan"][row]),
            k=rows["sequence/k"][row],
            actors=actors,
            movers=movers,
            kind=KINDS[kind],
            attempt=rows["sequence/attempt"][row],
            **self._matching(row, pairs_of or self.pairs),
        )

    def _matching(self, row: int, pairs_of: PairsOf) -> dict:
        """How points of a sequence correspond, where it is not by identity."""
        match_m = self._rows["sequence/match_m"][row] if "sequence/match_m" in self._rows else math.nan
        if math.isnan(match_m):
            return {}
        stored = functools.partial(pairs_of, row) if "pair/start" in self.shard.arrays else None
        return {"match_m": match_m, "stored": stored}

    def pairs(self, row: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A stored pair list of a sequence, by its number in `frame_pairs`."""
        place = row * len(frame_pairs(self.frames)) + number
        if place + 2 > self.shard.length("pair/start"):
            raise FormatError(f"{self.shard.where}: pair/start is too short: damaged tables, restore or rebuild it")
        a, b = self.shard.read("pair/start", place, place + 2).tolist()
        return self.shard.read("pair/first", a, b), self.shard.read("pair/second", a, b)

    def views(self, scan: int, cloud_of: CloudOf | None = None) -> Views | None:
        """The frames or sweeps of a scan, or None where it is not made of any."""
        if "view/start" not in self._rows:
            return None
        a, b = self._range("view/start", scan)
        if a == b:
            return None
        start, end = self._range("view/overlap_start", scan)
        if end - start not in (0, (b - a) ** 2):
            raise FormatError(f"{self.shard.where}: scan {scan} has {b - a} views and {end - start} overlaps: damaged")
        overlap = self.shard.read("view/overlap", start, end).reshape(b - a, b - a) if end > start else None
        columns = (self.table[f"view/{name}"][a:b] for name in ("number", "time_s", "pose"))
        return Views(tuple(map(cloud_of or self.cloud, self._rows["view/cloud"][a:b])), *columns, overlap)

    def members(self, row: int) -> list[int]:
        """Which of the views of its scan the actors of the sequence in a row are."""
        if "view/start" not in self._rows:
            return []
        first, last = self._range("view/start", self._rows["sequence/scan"][row])
        known = {cloud: number for number, cloud in enumerate(self._rows["view/cloud"][first:last])}
        clouds = self._rows["actor/cloud"][slice(*self._range("actor/start", row))]
        return [known[cloud] for cloud in clouds if cloud in known]

    def _actor(self, a: int, cloud_of: CloudOf, movers: int) -> Actor:
        rows = self._rows
        cloud, role = cloud_of(rows["actor/cloud"][a]), rows["actor/role"][a]
        if "actor/mover" in rows:
            mover = rows["actor/mover"][a]
        else:
            mover = 0 if role == ROLE_MOVING and movers else -1
        return Actor(cloud, role, self.table["actor/pose"][a], self._planes(a, len(cloud.point)), mover)

    def _movers(self, row: int) -> tuple[Mover, ...]:
        """The shapes that move: those of mover/*, or, in a shard without, the one of sequence/*."""
        if "mover/start" in self._rows:
            return tuple(self._mover("mover", m) for m in range(*self._range("mover/start", row)))
        return (self._mover("sequence", row),) if self._rows["sequence/shape"][row] >= 0 else ()

    def _mover(self, group: str, row: int) -> Mover:
        names = ("shape", "class", "height_m", "shrink", "radius_m")
        number, class_number, *figures = (self._rows[f"{group}/{name}"][row] for name in names)
        return Mover(self._name(self.shapes, number), self._name(self.classes, class_number), *figures)

    def is_shared(self, cloud: int) -> bool:
        """Whether several actors have a cloud, as all sequences of a scan have the scan's."""
        return 0 <= cloud < len(self._uses) and self._uses[cloud] > 1

    @functools.cached_property
    def _uses(self) -> list[int]:
        """How many actors each cloud has."""
        clouds = len(self.table["cloud/start"]) - 1
        return np.bincount(self.table["actor/cloud"].clip(0, clouds), minlength=clouds)[:clouds].tolist()

    def cloud(self, number: int, read: Callable[[str], np.ndarray | None] | None = None) -> Cloud:
        """Decode a cloud's points; `read` gives its other columns, if these tables close before they are asked for."""
        return StoredCloud(self.column("point", number), read or functools.partial(self.column, number=number))

    def column(self, name: str, number: int) -> np.ndarray | None:
        """One column of a cloud, read-only, or None where it has no label or instance."""
        rows = self.shard.read(f"cloud/{name}", *self._range("cloud/start", number))
        rows.flags.writeable = False  # clouds are cached, and shared by the sequences of a scan
        return None if name in ("label", "instance") and not (rows >= 0).any() else rows

    def floor_plan(self, scan: int, cell_m: float) -> FloorPlan | None:
        """The floor plan of a scan, or None where it has none."""
        table = self.table
        nx, ny = table["scan/cells"][scan].tolist()
        bits = self.shard.read("scan/valid", *self._range("scan/valid_start", scan))
        if min(nx, ny) < 0 or len(bits) != (nx * ny + 7) // 8:
            raise FormatError(f"{self.shard.where}: floor plan {scan} of {nx} x {ny} cells has {len(bits)} bytes")
        floor_m = float(table["scan/floor_m"][scan])
        if not nx * ny and math.isnan(floor_m):
            return None
        valid = np.unpackbits(bits, count=nx * ny).reshape(nx, ny).view(np.bool_)
        unseen = float(table["scan/unseen"][scan]) if "scan/unseen" in table else math.nan
        return FloorPlan(valid, table["scan/origin"][scan], floor_m, cell_m, unseen)

    def _range(self, name: str, row: int) -> tuple[int, int]:
        rows = self._rows[name]
        if not 0 <= row < len(rows) - 1:
            raise FormatError(f"{self.shard.where}: row {row} of {name} does not exist: damaged tables")
        return rows[row], rows[row + 1]

    def _name(self, names: list[str], number: int) -> str:
        if not 0 <= number < len(names):
            raise FormatError(f"{self.shard.where}: name {number} of {len(names)} does not exist: damaged tables")
        return names[number]

    def _planes(self, actor: int, points: int) -> np.ndarray:
        size = (points + 7) // 8
        starts = self.table["actor/mask_start"][actor].tolist()
        if starts == [starts[0] + f * size for f in range(len(starts))] and starts[0] >= 0:
            planes = self.shard.read("actor/mask", starts[0], starts[-1] + size).reshape(len(starts), size)
        else:
            absent = np.zeros(size, np.uint8)
            planes = np.stack([absent if s == -1 else self.shard.read("actor/mask", s, s + size) for s in starts])
        if points % 8 and (planes[:, -1] & (0xFF >> points % 8)).any():  # kernels would read past the cloud
            raise FormatError(f"{self.shard.where}: the masks of actor {actor} have padding bits set: damaged tables")
        return planes
