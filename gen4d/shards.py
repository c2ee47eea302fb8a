"""Read a data set: folder -> shards -> sequences, with everything checked before it is believed."""

import bisect
import functools
import itertools
import os
import pathlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gen4d import kernels
from gen4d.format import (
    ARRAYS,
    HDF5_SUFFIX,
    SHARD_SUFFIX,
    FormatError,
    check_version,
    frame_pairs,
    unseal_digest,
)
from gen4d.zipshard import ZipShard

ShardError = FormatError

_OPEN_SHARDS = 32
_CACHED_CLOUDS = 64  # 3 MB each: those of the scans that a loader shuffles among
_SPARE = 8  # rows that branch-free kernels write past their result
_STRANGER = "cut short, or a file of another build; restore it from a copy, and run gen4d verify"
_IDENTITY = np.eye(4, dtype=np.float32)
_TABLES = ("actor/", "sequence/", "scan/", "cloud/start")


class Cloud:
    """An immutable set of points in its own frame of reference, metres."""

    columns = ("point", "vertex", "label", "instance")

    def __init__(self, point: np.ndarray, vertex: np.ndarray, label: np.ndarray | None, instance: np.ndarray | None):
        self.point = point  # (N, 3) float32
        self.vertex = vertex  # (N,) int32: index in the source file, -1 if sampled
        self.label, self.instance = label, instance  # (N,) int32, -1 = none

    def __iter__(self):
        return (getattr(self, name) for name in self.columns)


class StoredCloud(Cloud):
    """A cloud of a shard. What a trainer never looks at is read when it is asked for, and checked then."""

    def __init__(self, point: np.ndarray, number: int, tables: Callable[[], "Tables"]):
        self.point, self._number, self._tables = point, number, tables

    def _read(self, name: str) -> np.ndarray | None:
        return self._tables().column(name, self._number)

    vertex = functools.cached_property(lambda self: self._read("vertex"))
    label = functools.cached_property(lambda self: self._read("label"))
    instance = functools.cached_property(lambda self: self._read("instance"))

    def __reduce__(self):
        return Cloud, tuple(self)


class Actor(NamedTuple):
    """A cloud that takes part in a sequence."""

    cloud: Cloud
    role: int  # 0 static, 1 moving, 2 a view of its own frame
    pose: np.ndarray  # (t, 4, 4) float32: cloud -> the sequence's frame of reference
    planes: np.ndarray  # (t, ceil(N/8)) uint8: which points each frame keeps, numpy.packbits order

    def mask(self, frame: int) -> np.ndarray:
        """Which of the cloud's points (N,) bool a frame keeps."""
        return np.unpackbits(self.planes[frame], count=len(self.cloud.point)).view(np.bool_)


class Frame(NamedTuple):
    """The points of one time step: actor 0's kept points first, each actor's in cloud order."""

    point: np.ndarray  # (N, 3) float32, in the sequence's frame of reference, metres
    actor: np.ndarray  # (N,) uint8 and
    index: np.ndarray  # (N,) int32: the point's identity
    label: np.ndarray | None  # (N,) int32, -1 = none
    instance: np.ndarray | None  # (N,) int32, -1 = none


class FloorPlan(NamedTuple):
    """Where a shape may stand in a sequence's scan: cell (i, j) starts at (origin + (i, j)) * cell_m."""

    valid: np.ndarray  # (nx, ny) bool
    origin: np.ndarray  # (2,) int32
    cell_m: float
    floor_m: float
    radius_m: float  # kept free around the shape's axis


class Sequence:
    """t frames of the same actors. Two points of two frames correspond if their identities are equal."""

    def __init__(self, id: str, scan: str, shape: str, class_name: str, actors: tuple[Actor, ...]):
        self.id, self.scan, self.shape, self.class_name, self.actors = id, scan, shape, class_name, actors

    @property
    def t(self) -> int:
        """Number of frames."""
        return len(self.actors[0].pose)

    @property
    def frames(self) -> list[Frame]:
        """All frames, in time."""
        return [self.frame(i) for i in range(self.t)]

    @functools.cached_property
    def _kept(self) -> list[list[int]]:
        """Points that each frame keeps of each actor."""
        return [[kernels.count_bits(actor.planes[i]) for actor in self.actors] for i in range(self.t)]

    def frame(self, i: int) -> Frame:
        """The points that frame i keeps, under their actors' poses."""
        counts = self._kept[i]
        ends = list(itertools.accumulate(counts))
        point, index = np.empty((ends[-1] + _SPARE, 3), np.float32), np.empty(ends[-1] + _SPARE, np.int32)
        for actor, count, end in zip(self.actors, counts, ends, strict=True):
            kept = slice(end - count, end)
            kernels.compact(actor.planes[i], actor.cloud.point, point[end - count :], index[end - count :])
            if not np.array_equal(actor.pose[i], _IDENTITY):  # where it is, points stay as they are, bit for bit
                kernels.transform(point[kept], actor.pose[i], point[kept])
        point, index = point[: ends[-1]], index[: ends[-1]]
        number = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
        columns = [_column(self.actors, counts, index, name) for name in ("label", "instance")]
        return Frame(point, number, index, *columns)

    def correspondences(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (K,) int32 of frame i and rows (K,) int32 of frame j of the points that both keep."""
        kept_i, kept_j = self._kept[i], self._kept[j]
        space = sum(map(min, kept_i, kept_j)) + _SPARE
        first, second = np.empty(space, np.int32), np.empty(space, np.int32)
        done, row_i, row_j = 0, 0, 0
        for actor, in_i, in_j in zip(self.actors, kept_i, kept_j, strict=True):
            planes = actor.planes[i], actor.planes[j]
            done += kernels.pair_list(*planes, row_i, row_j, first[done:], second[done:])
            row_i, row_j = row_i + in_i, row_j + in_j
        return first[:done], second[:done]


def _column(actors, counts, index, name):
    """Label or instance of a frame's points, or None where no actor has any."""
    columns = [getattr(actor.cloud, name) for actor in actors]
    if all(column is None for column in columns):
        return None
    rows = np.split(index, np.cumsum(counts)[:-1])
    parts = [np.full(len(r), -1, np.int32) if c is None else c[r] for c, r in zip(columns, rows, strict=True)]
    return np.concatenate(parts)


def open_shard(path: pathlib.Path):
    """The arrays of a shard, Zarr or HDF5 by its name. Raises FormatError."""
    if path.name.endswith(HDF5_SUFFIX):
        from gen4d.export import Hdf5Shard  # h5py takes a quarter of a second to import

        return Hdf5Shard(path)
    return ZipShard(path)


class Tables:
    """A shard with its small tables in memory."""

    def __init__(self, path: pathlib.Path):
        self.shard = open_shard(path)
        self.attributes, self.frames = self.shard.attributes, self.shard.frames
        names = [name for name in self.shard.arrays if name.startswith(_TABLES) and name not in _LARGE]
        self.table = {name: self.shard.read(name, 0, self.shard.length(name)) for name in names}
        self.scans, self.shapes, self.classes = (self._names(kind) for kind in ("scans", "shapes", "classes"))
        check_lengths(self.shard)
        for name, column in _STARTS.items():
            check_starts(self.shard, self.table[name], self.shard.length(column), name)

    def sequence_counts(self) -> list[int]:
        """How many sequences each scan has. Raises FormatError where one is of a scan that is not there."""
        scan = self.table["sequence/scan"]
        if not ((scan >= 0) & (scan < len(self.scans))).all():
            raise FormatError(f"{self.shard.path}: sequence/scan points outside: damaged tables")
        return np.bincount(scan, minlength=len(self.scans)).tolist()

    def _names(self, kind: str) -> list[str]:
        names = self.attributes.get(kind)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise FormatError(f"{self.shard.path}: attribute {kind} is no list of names: not written by gen4d")
        return names

    def sequence(self, row: int, scan_cloud, shape_cloud=None) -> Sequence:
        """Decode a sequence; `scan_cloud(number)` gives a static actor's cloud, from a cache or from here."""
        shape_cloud = shape_cloud or self.cloud
        table = self.table
        scan = self._name(self.scans, table["sequence/scan"][row])
        actors = []
        for a in range(*self._range("actor/start", row)):
            cloud, role = int(table["actor/cloud"][a]), int(table["actor/role"][a])
            points = scan_cloud(cloud) if role == 0 else shape_cloud(cloud)
            actors.append(Actor(points, role, table["actor/pose"][a], self._planes(a, len(points.point))))
        if not actors:
            raise FormatError(f"{self.shard.path}: sequence {row} has no actors: damaged tables")
        return Sequence(
            id=f"{scan}/{int(table['sequence/k'][row]):03d}",
            scan=scan,
            shape=self._name(self.shapes, table["sequence/shape"][row]),
            class_name=self._name(self.classes, table["sequence/class"][row]),
            actors=tuple(actors),
        )

    def cloud(self, number: int, tables: Callable[[], "Tables"] | None = None) -> Cloud:
        """Decode a cloud's points; `tables()` gives these tables when the rest is asked for, if they close before."""
        return StoredCloud(self.column("point", number), number, tables or (lambda: self))

    def column(self, name: str, number: int) -> np.ndarray | None:
        """One column of a cloud, read-only, or None where it has no label or instance."""
        rows = self.shard.read(f"cloud/{name}", *self._range("cloud/start", number))
        rows.flags.writeable = False  # clouds are cached, and shared by the sequences of a scan
        return None if name in ("label", "instance") and not (rows >= 0).any() else rows

    def floor_plan(self, row: int, cell_m: float) -> FloorPlan:
        """The floor plan of a sequence's scan."""
        table = self.table
        scan = int(table["sequence/scan"][row])
        nx, ny = table["scan/cells"][scan].tolist()
        bits = self.shard.read("scan/valid", *self._range("scan/valid_start", scan))
        if min(nx, ny) < 0 or len(bits) != (nx * ny + 7) // 8:
            raise FormatError(f"{self.shard.path}: floor plan {scan} of {nx} x {ny} cells has {len(bits)} bytes")
        valid = np.unpackbits(bits, count=nx * ny).reshape(nx, ny).view(np.bool_)
        floor_m, radius_m = float(table["scan/floor_m"][scan]), float(table["sequence/radius_m"][row])
        return FloorPlan(valid, table["scan/origin"][scan], cell_m, floor_m, radius_m)

    def _range(self, name: str, row: int) -> tuple[int, int]:
        table = self.table[name]
        if not 0 <= row < len(table) - 1:
            raise FormatError(f"{self.shard.path}: row {row} of {name} does not exist: damaged tables")
        return int(table[row]), int(table[row + 1])

    def _name(self, names: list[str], number: int) -> str:
        if not 0 <= number < len(names):
            raise FormatError(f"{self.shard.path}: name {number} of {len(names)} does not exist: damaged tables")
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
            raise FormatError(f"{self.shard.path}: the masks of actor {actor} have padding bits set: damaged tables")
        return planes


_LARGE = ("actor/mask", "scan/valid")
_STARTS = {"cloud/start": "cloud/point", "actor/start": "actor/cloud", "scan/valid_start": "scan/valid"}


_GROUPS = (
    ("cloud/point", "cloud/vertex", "cloud/label", "cloud/instance"),
    ("actor/cloud", "actor/role", "actor/pose", "actor/mask_start"),
    tuple(name for name in ARRAYS if name.startswith("sequence/")),
    tuple(name for name in ARRAYS if name.startswith("scan/") and name not in ("scan/valid", "scan/valid_start")),
    ("pair/first", "pair/second"),
)


def check_lengths(shard) -> None:
    """Raise FormatError where arrays of one table differ in length."""
    for group in _GROUPS:
        lengths = {shard.length(name) for name in group if name in shard.arrays}
        if len(lengths) > 1:
            raise FormatError(f"{shard.path}: the arrays {', '.join(group)} differ in length: damaged tables")


def check_starts(shard, start: np.ndarray, end: int, name: str) -> None:
    """Raise FormatError where a column of starts does not rise from 0 to `end`: negative rows would read others."""
    if not (len(start) >= 1 and start[0] == 0 and start[-1] == end and (np.diff(start) >= 0).all()):
        raise FormatError(f"{shard.path}: {name} does not rise from 0 to {end}: damaged tables, restore or rebuild it")


class _OpenShards:
    """The shards of a data set that are open: those that were used last. Clouds hold this, not their data set, which
    holds them."""

    def __init__(self, folder: pathlib.Path, manifest: dict):
        self.folder, self.manifest = folder, manifest
        self._shards: OrderedDict = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, shard: int) -> Tables:
        return _cached(self._lock, self._shards, shard, _OPEN_SHARDS, lambda: self._load(shard))

    def _load(self, shard: int) -> Tables:
        """Open a shard that is the one that dataset.json means, not one of the same name."""
        path, entry = self._path(shard), self.manifest["shards"][shard]
        if path.is_file() and path.stat().st_size != entry["bytes"]:
            raise FormatError(
                f"{path}: has {path.stat().st_size} bytes, dataset.json says {entry['bytes']}: {_STRANGER}"
            )
        tables = Tables(path)
        named = [[name, count] for name, count in zip(tables.scans, tables.sequence_counts(), strict=True)]
        if named != entry["scans"]:
            raise FormatError(f"{path}: holds other scans or sequences than dataset.json says: {_STRANGER}")
        if tables.attributes.get("config") != self.manifest["config"]:
            raise FormatError(f"{path}: is of another config than dataset.json: {_STRANGER}")
        return tables

    def _path(self, shard: int) -> pathlib.Path:
        return self.folder / "shards" / self.manifest["shards"][shard]["file"]

    def __len__(self) -> int:
        return len(self._shards)


class Dataset:
    """The sequences of a folder, in the order of its shards; those of one scan are consecutive."""

    def __init__(self, folder: pathlib.Path, manifest: dict, digest: str):
        self.folder, self.manifest, self.digest = folder, manifest, digest
        self.config: dict = manifest["config"]
        scans = [
            (number, name, count) for number, shard in enumerate(manifest["shards"]) for name, count in shard["scans"]
        ]
        self.scan_names = [name for _, name, _ in scans]
        self._shard_of_scan = [number for number, _, _ in scans]
        self._end = list(itertools.accumulate(count for _, _, count in scans))
        first = itertools.accumulate((sum(c for _, c in s["scans"]) for s in manifest["shards"]), initial=0)
        self._shard_start = list(first)
        self._tables = _OpenShards(folder, manifest)
        self._clouds: OrderedDict = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._end[-1] if self._end else 0

    def scan_of(self, i: int) -> int:
        """Number of the scan of sequence i: an index into `scan_names`."""
        return bisect.bisect_right(self._end, i)

    @property
    def ids(self) -> list[str]:
        """Id of every sequence: name of its scan and its number within it. Opens every shard."""
        return [
            f"{tables._name(tables.scans, scan)}/{k:03d}"
            for tables in map(self._tables, range(len(self.manifest["shards"])))
            for scan, k in zip(tables.table["sequence/scan"].tolist(), tables.table["sequence/k"].tolist(), strict=True)
        ]

    def __getitem__(self, i: int) -> Sequence:
        shard, row = self._locate(i)
        tables, again = self._tables(shard), functools.partial(self._tables, shard)
        return tables.sequence(row, lambda number: self._cloud(shard, number), lambda n: tables.cloud(n, again))

    def floor_plan(self, i: int) -> FloorPlan:
        """The floor plan of the scan of sequence i."""
        shard, row = self._locate(i)
        return self._tables(shard).floor_plan(row, self.config["cell_m"])

    def find(self, id: str) -> int:
        """Number of the sequence of an id, "scene0000_00/003". Raises KeyError where there is none."""
        scan, _, k = id.rpartition("/")
        if scan in self.scan_names and k.isdecimal():
            number = self.scan_names.index(scan)
            start = self._end[number - 1] if number else 0
            for i in range(start, self._end[number]):
                shard, row = self._locate(i)
                if int(self._tables(shard).table["sequence/k"][row]) == int(k):
                    return i
        raise KeyError(id)

    def _locate(self, i: int) -> tuple[int, int]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"sequence {i} of a data set of {len(self)}")
        i %= len(self)
        shard = self._shard_of_scan[self.scan_of(i)]
        return shard, i - self._shard_start[shard]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def _cloud(self, shard: int, number: int) -> Cloud:
        load = lambda: self._tables(shard).cloud(number, functools.partial(self._tables, shard))  # noqa: E731
        return _cached(self._lock, self._clouds, (shard, number), _CACHED_CLOUDS, load)

    def __getstate__(self):
        """What another process needs: open files and caches stay here."""
        return (self.folder, self.manifest, self.digest)

    def __setstate__(self, state):
        self.__init__(*state)


def _cached(lock, cache: OrderedDict, key, size: int, load):
    with lock:
        if key in cache:
            cache.move_to_end(key)
            return cache[key]
    value = load()
    with lock:
        cache[key] = value
        while len(cache) > size:
            cache.popitem(last=False)
    return value


def open_dataset(folder: str | os.PathLike) -> Dataset:
    """Open a data set by its folder. Reads dataset.json; shards are opened when a sequence of theirs is asked for.

    Raises FormatError where the folder holds no finished data set, or one of a version that this gen4d does not know.
    """
    folder = pathlib.Path(folder)
    manifest, digest = read_manifest(folder)
    return Dataset(folder, manifest, digest)


def _is_sound(manifest: dict) -> bool:
    """Whether everything that readers take from a manifest is there and of its type."""
    try:
        shards, totals, config = manifest["shards"], manifest["totals"], manifest["config"]
        kinds = [(shards, list), (totals["sequences"], int), (config["cell_m"], int | float), (manifest["gen4d"], str)]
        kinds += [(manifest["versions"], dict), (manifest["shapes"], dict)]
        for entry in shards:
            kinds += [(entry["file"], str), (entry["bytes"], int), (entry["scans"], list)]
            kinds += [(entry["content_sha256"], str), (entry["sidecar_sha256"], str)]
            kinds += [(name, str) for name, _ in entry["scans"]] + [(count, int) for _, count in entry["scans"]]
        whole = all(isinstance(value, kind) for value, kind in kinds)
        counts = [count for entry in shards for _, count in entry["scans"]] if whole else []
        return whole and all(0 <= n < 2**31 for n in counts) and all(_is_plain(entry["file"]) for entry in shards)
    except (KeyError, TypeError, ValueError):
        return False


def _is_plain(name: str) -> bool:
    return name.isprintable() and not set(name) & set("/\\") and name.endswith((SHARD_SUFFIX, HDF5_SUFFIX))


def read_manifest(folder: pathlib.Path) -> tuple[dict, str]:
    """The content of dataset.json and its own hash."""
    path = folder / "dataset.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        built = (folder / "build.json").exists()
        unfinished = "the build is not finished: run the same gen4d build again, or merge its parts"
        remedy = unfinished if built else "not a gen4d data set"
        raise FormatError(f"{path}: not there; {remedy}") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from None
    manifest, digest = unseal_digest(content, str(path))
    check_version(manifest, str(path))
    if not _is_sound(manifest):
        raise FormatError(f"{path}: lacks what a data set has, or has it in another form: not written by gen4d")
    return manifest, digest


__all__ = [
    "SHARD_SUFFIX",
    "Actor",
    "Cloud",
    "Dataset",
    "Frame",
    "Sequence",
    "ShardError",
    "frame_pairs",
    "open_dataset",
    "open_shard",
]
