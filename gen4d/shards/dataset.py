"""Read a data set: folder -> shards -> sequences, with everything checked before it is believed."""

import bisect
import difflib
import functools
import itertools
import math
import os
import pathlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, overload

import numpy as np

from gen4d.sequence import Cloud, FloorPlan, Recording, Sequence, Views
from gen4d.shards.format import FormatError
from gen4d.shards.home import Home, LocalHome, find_home
from gen4d.shards.manifest import read_manifest
from gen4d.shards.tables import Tables

_OPEN_SHARDS = 128  # opening one takes 4 ms, a third of what making a sequence a part of a batch does
_COMPARED = 10_000  # names, when the nearest to a wrong one is looked for
_CACHED_CLOUDS = 64  # 3 MB each: those of the scans that a loader shuffles among in blocks
_OF_SCAN = ("scan/cloud", "scan/free_m", "scan/transform", "scan/axis_alignment", "scan/source_points", "scan/dropped")
_STRANGER = "cut short, or a file of another build; restore it from a copy, and run gen4d verify"


class _Cache:
    """The values that were used last, by key. Safe among threads, which may load one twice."""

    def __init__(self, size: int):
        self.size = size
        self._values: OrderedDict = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """The value of a key: the one that is here, or what `load()` gives."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = load()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self.size:
                self._values.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._values)


class _Shards:
    """The shards of a data set that are open: those that were used last. Clouds hold this to read their other columns,
    not their data set, which holds them."""

    def __init__(self, home: Home, manifest: dict, digest: str):
        self.home, self.manifest, self.digest = home, manifest, digest
        self._open = _Cache(_OPEN_SHARDS)

    def __call__(self, shard: int) -> Tables:
        return self._open.get(shard, lambda: self._load(shard))

    def _load(self, shard: int) -> Tables:
        """Open a shard that is the one that dataset.json means, not one of the same name."""
        entry = self.manifest["shards"][shard]
        file = self.home.file(f"shards/{entry['file']}", entry["bytes"])
        if file.size != entry["bytes"]:
            raise FormatError(f"{file.where}: has {file.size} bytes, dataset.json says {entry['bytes']}: {_STRANGER}")
        tables = Tables(file)
        named = [[name, count] for name, count in zip(tables.scans, tables.sequence_counts(), strict=True)]
        if named != entry["scans"]:
            raise FormatError(f"{file.where}: holds other scans or sequences than dataset.json says: {_STRANGER}")
        if tables.attributes.get("config") != self.manifest["config"]:
            raise FormatError(f"{file.where}: is of another config than dataset.json: {_STRANGER}")
        return tables

    def __len__(self) -> int:
        return len(self._open)

    def __reduce__(self):
        """In another process a cloud needs no more than where its data set is, and which one."""
        return _ShardsElsewhere, (self.home, self.digest)


class _ShardsElsewhere:
    """The shards of a data set in a process that was sent one of its clouds: opened when a column is asked for."""

    def __init__(self, home: Home, digest: str):
        self.home, self.digest = home, digest

    def __call__(self, shard: int) -> Tables:
        dataset = _open_again(self.home)
        if dataset.digest != self.digest:
            raise FormatError(
                f"{self.home.where()}: another data set lies here than the one the cloud is of: read it again"
            )
        return dataset._tables(shard)


@functools.lru_cache(8)
def _open_again(home: Home) -> "Dataset":
    return Dataset(home, *read_manifest(home))


class Dataset:
    """The sequences of a folder, near or far, in the order of its shards; those of one scan are consecutive.

    `dataset[i]`, `dataset[i:j]` (a list) and `dataset["scene0000_00/003"]` give sequences, `len` and iteration work.
    Threads may share it; another process gets its own by pickling or forking.
    """

    def __init__(self, home: Home, manifest: dict, digest: str):
        self.home, self.manifest, self.digest = home, manifest, digest
        self.config: dict = manifest["config"]
        scans = [
            (number, name, count) for number, shard in enumerate(manifest["shards"]) for name, count in shard["scans"]
        ]
        self.scan_names = [name for _, name, _ in scans]
        self._shard_of_scan = [number for number, _, _ in scans]
        self._end = list(itertools.accumulate(count for _, _, count in scans))
        first = itertools.accumulate((sum(c for _, c in s["scans"]) for s in manifest["shards"]), initial=0)
        self._shard_start = list(first)
        self._tables, self._clouds = _Shards(home, manifest, digest), _Cache(_CACHED_CLOUDS)

    @property
    def folder(self) -> pathlib.Path:
        """The folder on this machine's disk. Raises FormatError if the data set is behind a URL."""
        if not isinstance(self.home, LocalHome):
            raise FormatError(f"{self.home.where()}: is behind a URL, not in a folder: copy it to a disk, or use .home")
        return self.home.folder

    @property
    def local(self) -> bool:
        """Whether the data set lies in a folder of this machine, not behind a URL."""
        return isinstance(self.home, LocalHome)

    def __len__(self) -> int:
        return self._end[-1] if self._end else 0

    def __repr__(self) -> str:
        counts = f"sequences: {len(self)}, scans: {len(self.scan_names)}, shards: {len(self.manifest['shards'])}"
        return f"<Dataset {self.home.where()}, {counts}>"

    def scan_of(self, i: int) -> int:
        """Number of the scan of sequence i: an index into `scan_names`. Raises IndexError."""
        return bisect.bisect_right(self._end, self._number(i))

    def id_of(self, i: int) -> str:
        """Id of sequence i. Opens its shard. Raises IndexError."""
        shard, row = self._locate(i)
        return self._tables(shard).id(row)

    @property
    def ids(self) -> list[str]:
        """Id of every sequence: name of its scan and its number within it. Opens every shard."""
        shards = map(self._tables, range(len(self.manifest["shards"])))
        return [tables.id(row) for tables in shards for row in range(len(tables.table["sequence/k"]))]

    @property
    def class_names(self) -> list[str]:
        """Class of every sequence's shape, of the first of several, "" where there is none. Opens every shard."""
        shards = map(self._tables, range(len(self.manifest["shards"])))
        return [tables.class_name(row) for tables in shards for row in range(len(tables.table["sequence/k"]))]

    @overload
    def __getitem__(self, i: int | str) -> Sequence: ...

    @overload
    def __getitem__(self, i: slice) -> list[Sequence]: ...

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[number] for number in range(*i.indices(len(self)))]
        if isinstance(i, str):
            i = self.find(i)
        shard, row = self._locate(i)
        tables = self._tables(shard)
        pairs = functools.partial(_read_pairs, self._tables, shard)
        return tables.sequence(row, lambda number: self._cloud(tables, shard, number), pairs)

    def views(self, i: int) -> Views | None:
        """The frames or sweeps of the scan of sequence i, with poses and overlaps, or None if it is of another kind."""
        shard, row = self._locate(i)
        tables = self._tables(shard)
        scan = int(tables.table["sequence/scan"][row])
        return tables.views(scan, lambda number: self._cloud(tables, shard, number))

    def members(self, i: int) -> list[int]:
        """Which of the frames or sweeps of its scan sequence i has: their places in `views(i)`; none of other kinds."""
        shard, row = self._locate(i)
        return self._tables(shard).members(row)

    def floor_plan(self, i: int) -> FloorPlan | None:
        """The floor plan of the scan of sequence i, or None if its source has none."""
        shard, row = self._locate(i)
        tables = self._tables(shard)
        return tables.floor_plan(int(tables.table["sequence/scan"][row]), self.config.get("cell_m", math.nan))

    def label_space(self, i: int) -> str:
        """What the labels of sequence i mean: the name of a label space in datasets_manifest.yaml, or ""."""
        shard, row = self._locate(i)
        tables = self._tables(shard)
        spaces = tables.attributes.get("label_spaces", [])
        scan = int(tables.table["sequence/scan"][row])
        return spaces[scan] if scan < len(spaces) else ""

    def numbers(self, scan: str) -> range:
        """Numbers of a scan's sequences, which are consecutive. Raises KeyError if there is no such scan."""
        if scan not in self.scan_names:
            close = difflib.get_close_matches(scan, self.scan_names[:_COMPARED], 1) or self.scan_names[:1]
            like = f"the nearest is {close[0]!r}" if close else "it is empty"
            raise KeyError(f"no scan {scan!r} in {self.home.where()}: {like}")
        number = self.scan_names.index(scan)
        return range(self._end[number - 1] if number else 0, self._end[number])

    def scan(self, name: str) -> Recording:
        """A scan by its name, with its cloud and all that its sequences share, but without these. Raises KeyError if
        there is no such scan."""
        self.numbers(name)
        number = self.scan_names.index(name)
        shard = self._shard_of_scan[number]
        row = number - self._shard_of_scan.index(shard)
        tables = self._tables(shard)
        spaces, clouds = tables.attributes.get("label_spaces", []), functools.partial(self._cloud, tables, shard)
        of = {key.partition("/")[2]: rows[row] for key, rows in tables.table.items() if key in _OF_SCAN}
        return Recording(
            name=name,
            sequences=(),
            cloud=clouds(int(of["cloud"])) if of["cloud"] >= 0 else None,
            floor=tables.floor_plan(row, self.config.get("cell_m", math.nan)),
            free_m=float(of["free_m"]),
            label_space=spaces[row] if row < len(spaces) else "",
            transform=of["transform"],
            axis_alignment=None if np.isnan(of["axis_alignment"]).any() else of["axis_alignment"],
            source_points=int(of["source_points"]),
            dropped=int(of["dropped"]),
            views=tables.views(row, clouds),
        )

    def find(self, id: str) -> int:
        """Number of the sequence of an id, "scene0000_00/003". Raises KeyError if there is none."""
        scan, _, k = id.rpartition("/")
        if scan not in self.scan_names:
            close = difflib.get_close_matches(scan or k, self.scan_names[:_COMPARED], 1) or self.scan_names[:1]
            like = (
                f"the nearest scan is {close[0]!r}, its sequences {close[0]}/000 and so on" if close else "it is empty"
            )
            raise KeyError(f"no sequence {id!r} in {self.home.where()}: {like}")
        there = []
        for i in self.numbers(scan):
            shard, row = self._locate(i)
            there.append(int(self._tables(shard).table["sequence/k"][row]))
            if k.isdecimal() and int(k) == there[-1]:
                return i
        listed = ", ".join(f"{k:03d}" for k in there) or "none"
        raise KeyError(f"no sequence {id!r} in {self.home.where()}: {scan} has {listed}")

    def _number(self, i: int) -> int:
        i = int(i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"sequence {i} of a data set of {len(self)}")
        return i % len(self)

    def _locate(self, i: int) -> tuple[int, int]:
        i = self._number(i)
        shard = self._shard_of_scan[self.scan_of(i)]
        return shard, i - self._shard_start[shard]

    def __iter__(self) -> Iterator[Sequence]:
        return (self[i] for i in range(len(self)))

    def _cloud(self, tables: Tables, shard: int, number: int) -> Cloud:
        """A cloud, from the cache if sequences share it."""
        load = functools.partial(tables.cloud, number, functools.partial(_read_column, self._tables, shard, number))
        return self._clouds.get((shard, number), load) if tables.is_shared(number) else load()

    def __getstate__(self):
        """What another process needs: open files and caches stay here."""
        return (self.home, self.manifest, self.digest)

    def __setstate__(self, state):
        self.__init__(*state)


def _read_column(shards: "_Shards | _ShardsElsewhere", shard: int, number: int, name: str) -> np.ndarray | None:
    return shards(shard).column(name, number)


def _read_pairs(
    shards: "_Shards | _ShardsElsewhere", shard: int, row: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    return shards(shard).pairs(row, number)


def open_dataset(folder: str | os.PathLike, storage_options: Mapping[str, object] | None = None) -> Dataset:
    """Open a data set. Reads dataset.json; a shard is opened when one of its sequences is asked for.

    folder: a path, or a URL that fsspec reads: https://, s3://, hf:// and others, with the extra `remote`. Only what
    is asked for is downloaded: a shard opens with one request for its end, and neighbouring chunks are one request.
    storage_options: for fsspec's file system, for example {"anon": True} for a public bucket of S3.

    Raises FormatError if the folder holds no finished data set, or one of an unknown version, or if a URL cannot be
    read.
    """
    home = find_home(folder, storage_options)
    return Dataset(home, *read_manifest(home))
