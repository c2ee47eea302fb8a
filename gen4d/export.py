"""The same data set in HDF5, for those who read with h5py: the same names, types and rules, one file a shard."""

import functools
import hashlib
import os
import pathlib

import h5py
import numpy as np

from gen4d import files
from gen4d.build import read_sidecar_content, sidecar_path
from gen4d.format import ARRAYS, HDF5_SUFFIX, SHARD_SUFFIX, FormatError, check_version, row_shape, seal, unseal
from gen4d.shards import Dataset, Tables, frame_pairs
from gen4d.zipshard import StoredArray, check_size, parse_json, read_frames

_BLOCK = 1 << 20
_ATTRIBUTES = "attributes"  # a scalar string: HDF5 limits real attributes to 64 KB; sealed, as it has no checksum
_MAX_ATTRIBUTES = 4 << 20
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_BROKEN = (RuntimeError, KeyError, ValueError, TypeError, AttributeError)  # what h5py raises about broken metadata
_RESTORE = "restore the file from a copy or export again"


class ExportError(ValueError):
    """An export that cannot be made; the message names what and the remedy."""


def export_hdf5(dataset: Dataset, out: pathlib.Path, pairs: bool = False):
    """Write the data set to the folder `out` in HDF5, with fletcher32 checksums; yields the number of each shard.

    `pairs` adds explicit pair lists where the data set has none. Shards that an interrupted export of the same data set
    left there are kept. Raises ExportError where `out` holds anything else, BusyError where another one writes there.
    """
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out}: is a file: give a folder")
    files.make_folder(out)
    with files.locked(out):
        yield from _export(dataset, out, {"source": dataset.digest, "pairs": pairs})


def _export(dataset: Dataset, out: pathlib.Path, what: dict):
    names = [entry["file"].replace(SHARD_SUFFIX, HDF5_SUFFIX) for entry in dataset.manifest["shards"]]
    _check_folder(out, names, what)
    for path in [*files.leftovers(out), *files.leftovers(out / "shards")]:
        files.remove(path)
    if not (out / "export.json").exists():
        files.write(out / "export.json", seal(what))
    files.make_folder(out / "shards")
    entries = []
    for number, name in enumerate(names):
        sidecar = _read_done(out, number) or _export_shard(dataset, out, number, name, what["pairs"])
        described = {key: sidecar[key] for key in ("file", "bytes", "content_sha256")}
        described["sidecar_sha256"] = hashlib.sha256(seal(sidecar)).hexdigest()
        entries.append(dataset.manifest["shards"][number] | described)
        yield number
    totals = dataset.manifest["totals"] | {"bytes": sum(entry["bytes"] for entry in entries)}
    content = seal(dataset.manifest | {"shards": entries, "totals": totals, "exported": what})
    if not (out / "dataset.json").exists():
        files.write(out / "dataset.json", content)


def _read_done(out: pathlib.Path, number: int) -> dict | None:
    """What a finished shard's .json says, None where there is none or the shard disagrees with it."""
    path = sidecar_path(out, number)
    try:
        sidecar = unseal(path.read_bytes(), str(path))
        size = (out / "shards" / sidecar["file"]).stat().st_size
    except (FormatError, FileNotFoundError):
        return None
    return sidecar if sidecar["bytes"] == size else None


def _export_shard(dataset: Dataset, out: pathlib.Path, number: int, name: str, pairs: bool) -> dict:
    tables = Tables(dataset.folder / "shards" / dataset.manifest["shards"][number]["file"])
    try:
        content = _shard_bytes(tables, pairs)
    finally:
        tables.shard.close()
    described = {"file": name, "bytes": len(content), "content_sha256": hashlib.sha256(content).hexdigest()}
    sidecar = read_sidecar_content(dataset.folder, number) | described
    files.write(out / "shards" / name, content)
    files.write(sidecar_path(out, number), seal(sidecar))
    return sidecar


def _check_folder(out: pathlib.Path, names: list[str], what: dict) -> None:
    known = {*names, *(sidecar_path(out, number).name for number in range(len(names))), "shards", "build.lock"}
    known |= {"export.json", "dataset.json"}
    inside = [*out.iterdir(), *((out / "shards").iterdir() if (out / "shards").is_dir() else ())]
    odd = sorted(path.name for path in inside if path.name not in known and path.suffix != ".tmp")
    if odd:
        raise ExportError(f"{out}: holds other files ({odd[0]}, {len(odd)} in all): give an empty folder")
    path = out / "export.json"
    if path.exists() and unseal(path.read_bytes(), str(path)) != what:
        raise ExportError(f"{path}: is of another data set or other options: give an empty folder")
    if not path.exists() and any(item.name not in ("build.lock",) and item.suffix != ".tmp" for item in inside):
        raise ExportError(f"{out}: holds another data set: give an empty folder")


def _shard_bytes(tables: Tables, pairs: bool) -> bytes:
    """The shard as an HDF5 file in memory: no times, no links, no external storage, so equal data are equal bytes."""
    with h5py.File.in_memory(libver=("v110", "v110"), track_order=False) as file:
        for name, array in tables.shard.arrays.items():
            data = _create(file, name, array.shape[0], tables.frames)
            for start in range(0, array.shape[0], _BLOCK):
                stop = min(start + _BLOCK, array.shape[0])
                data[start:stop] = tables.shard.read(name, start, stop)
        if pairs and "pair/start" not in tables.shard.arrays:
            _write_pairs(file, tables)
        file.create_dataset(_ATTRIBUTES, data=np.bytes_(seal(tables.attributes)), track_times=False)
        file.flush()
        return bytes(file.id.get_file_image())


def _create(file: h5py.File, name: str, rows: int, frames: int) -> h5py.Dataset:
    spec = ARRAYS[name]
    shape = row_shape(spec, frames)
    return file.create_dataset(
        name,
        shape=(rows, *shape),
        maxshape=(None, *shape),
        chunks=(max(1, min(rows, spec.chunk)), *shape),
        dtype=spec.dtype,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fletcher32=True,
        track_times=False,
    )


def _write_pairs(file: h5py.File, tables: Tables) -> None:
    first, second = (_create(file, name, ARRAYS[name].chunk, tables.frames) for name in ("pair/first", "pair/second"))
    starts, done = [0], 0
    scan_cloud = functools.lru_cache(1)(tables.cloud)  # sequences of a scan are neighbours
    for row in range(tables.shard.length("sequence/k")):
        sequence = tables.sequence(row, scan_cloud)
        lists = [sequence.correspondences(i, j) for i, j in frame_pairs(tables.frames)]
        starts += (done + np.cumsum([len(rows) for rows, _ in lists])).tolist()
        for column, side in ((first, 0), (second, 1)):
            column.resize(starts[-1], axis=0)
            column[done:] = np.concatenate([rows[side] for rows in lists])
        done = starts[-1]
    for column in (first, second):
        column.resize(done, axis=0)
    _create(file, "pair/start", len(starts), tables.frames)[:] = np.array(starts, np.int64)


class Hdf5Shard:
    """The arrays of an exported shard, with the interface of zipshard.ZipShard. Opened anew in every process.

    Raises FormatError where the file is not one, links to others or stores data outside itself.
    """

    def __init__(self, path: pathlib.Path):
        self.path, self._pid, self._file = path, None, None
        file = self._opened()
        try:
            self.attributes = self._read_attributes(file)
            check_version(self.attributes, str(path))
            self.frames = read_frames(self.attributes, path)
            self.arrays = {
                name: self._describe(file, name)
                for name, spec in ARRAYS.items()
                if not (spec.optional and name not in file)
            }
        except FormatError:
            raise
        except (OSError, *_BROKEN) as error:
            raise FormatError(f"{path}: not a whole HDF5 file ({error}); {_RESTORE}") from None

    def _opened(self) -> h5py.File:
        if self._pid != os.getpid():
            if not self.path.is_file() and self.path.exists():
                raise FormatError(f"{self.path}: not a whole HDF5 file, but no file at all; {_RESTORE}")
            try:
                self._file = h5py.File(self.path, "r")
            except FileNotFoundError:
                raise FormatError(f"{self.path}: the shard is missing; {_RESTORE}") from None
            except (OSError, *_BROKEN) as error:
                raise FormatError(f"{self.path}: not a whole HDF5 file ({error}); {_RESTORE}") from None
            self._pid = os.getpid()
        return self._file

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._pid == os.getpid():
            self._file.close()
        self._pid = None

    def _data(self, file: h5py.File, name: str) -> h5py.Dataset:
        for end in range(1, name.count("/") + 2):
            part = "/".join(name.split("/")[:end])
            if not isinstance(file.get(part, getlink=True), h5py.HardLink):
                raise FormatError(f"{self.path}: {part} is missing or a link, which gen4d does not write")
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
            raise FormatError(f"{self.path}: {name} stores its data elsewhere, which gen4d does not write")
        return data

    def _read_attributes(self, file: h5py.File) -> dict:
        data = self._data(file, _ATTRIBUTES)
        if data.dtype.kind != "S" or data.shape != () or data.dtype.itemsize > _MAX_ATTRIBUTES:
            raise FormatError(f"{self.path}: {_ATTRIBUTES} is no text of at most {_MAX_ATTRIBUTES} bytes")
        text = bytes(data[()])
        parse_json(text, f"{self.path}: {_ATTRIBUTES}")
        return unseal(text, f"{self.path}: {_ATTRIBUTES}")

    def _describe(self, file: h5py.File, name: str) -> StoredArray:
        data, spec = self._data(file, name), ARRAYS[name]
        if data.dtype != np.dtype(spec.dtype) or data.shape[1:] != row_shape(spec, self.frames) or data.chunks is None:
            raise FormatError(
                f"{self.path}: {name} has type {data.dtype}, shape {data.shape}: not as the format has it"
            )
        filters = {
            data.id.get_create_plist().get_filter(i)[0] for i in range(data.id.get_create_plist().get_nfilters())
        }
        if not {h5py.h5z.FILTER_FLETCHER32} <= filters <= _FILTERS:
            raise FormatError(
                f"{self.path}: {name} has filters {sorted(filters)}: deflate, shuffle, fletcher32 are read"
            )
        rows, chunks = data.chunks[0], data.id.get_num_chunks()
        if rows > 4 * spec.chunk or data.chunks[1:] != data.shape[1:] or chunks != -(-data.shape[0] // rows):
            stored = f"{chunks} chunks of {data.chunks} for shape {data.shape}"
            raise FormatError(f"{self.path}: {name} has {stored}: not all it should have; {_RESTORE}")
        return StoredArray(data.dtype, data.shape, data.chunks)

    def length(self, name: str) -> int:
        """Rows of an array."""
        return self.arrays[name].shape[0]

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start:stop of an array. Raises FormatError where they do not exist or a chunk is damaged."""
        if not 0 <= start <= stop <= self.length(name):
            raise FormatError(
                f"{self.path}: rows {start}:{stop} of {name}, which has {self.length(name)}: damaged tables"
            )
        check_size(self.path, name, self.arrays[name], stop - start)
        try:
            return self._opened()[name][start:stop]
        except (OSError, *_BROKEN) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{self.path}: {name} is damaged ({error}); {_RESTORE}") from None
