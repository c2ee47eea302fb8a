"""The arrays of one Zarr shard, read without zarr-python.

A zip of stored entries lies flat in its file, so a chunk is one read at a known place, one crc32c and one
decompression into memory of the size that the metadata promise. That takes a third of zarr-python's time a sequence
and cannot be made to allocate more. zarr-python reads the same files; the tests compare the two.
"""

import json
import os
import pathlib
import threading
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import google_crc32c
import numcodecs.blosc
import numpy as np

from gen4d.format import ARRAYS, ArraySpec, FormatError, check_version, row_shape

_MAX_METADATA = 16 << 20
_CACHED_CHUNKS = 8


class StoredArray(NamedTuple):
    """What a shard says of one of its arrays."""

    dtype: np.dtype
    shape: tuple[int, ...]
    chunk: tuple[int, ...]


class ZipShard:
    """The arrays of a Zarr shard. Opened lazily and anew in every process: a fork may share it.

    Raises FormatError where the file is not a shard that this reader understands.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._pid, self._file = None, -1
        self._place = _zip_entries(path)
        self._chunks: OrderedDict = OrderedDict()
        self._lock = threading.Lock()
        group = self._metadata("zarr.json")
        self.attributes = group.get("attributes", {})
        check_version(self.attributes, str(path))
        self.frames = _frames(self.attributes, path)
        self.arrays = {
            name: self._describe(name, spec)
            for name, spec in ARRAYS.items()
            if not (spec.optional and f"{name}/zarr.json" not in self._place)
        }

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._pid == os.getpid():
            os.close(self._file)
        self._pid = None

    def __del__(self):
        self.close()

    def _read(self, entry: str) -> bytes:
        if entry not in self._place:
            raise FormatError(f"{self.path}: {entry} is missing; restore the file from a copy or rebuild it")
        if self._pid != os.getpid():
            self._file, self._pid = os.open(self.path, os.O_RDONLY), os.getpid()
        offset, size = self._place[entry]
        content = os.pread(self._file, size, offset)
        if len(content) != size:
            raise FormatError(f"{self.path}: {entry} is cut short; restore the file from a copy or rebuild it")
        return content

    def _metadata(self, entry: str) -> dict:
        if self._place.get(entry, (0, 0))[1] > _MAX_METADATA:
            raise FormatError(f"{self.path}: {entry} has more than {_MAX_METADATA} bytes: not written by gen4d")
        content = self._read(entry)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            raise FormatError(f"{self.path}: {entry} is not JSON; restore the file from a copy or rebuild it") from None
        if not isinstance(value, dict) or value.get("zarr_format") != 3:
            raise FormatError(f"{self.path}: {entry} does not describe a Zarr v3 node")
        return value

    def _describe(self, name: str, spec: ArraySpec) -> StoredArray:
        meta = self._metadata(f"{name}/zarr.json")
        row = row_shape(spec, self.frames)
        try:
            shape, chunk = tuple(meta["shape"]), tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
            names = [codec["name"] for codec in meta["codecs"]]
            plain = meta["chunk_key_encoding"]["name"] == "default" and not meta.get("storage_transformers")
            known = meta["data_type"] == np.dtype(spec.dtype).name
        except (KeyError, TypeError, IndexError):
            raise FormatError(f"{self.path}: {name}/zarr.json lacks what a Zarr v3 array has") from None
        if names != ["bytes", "blosc", "crc32c"]:
            raise FormatError(f"{self.path}: {name} has codecs {names}, this reader takes bytes, blosc, crc32c")
        sizes = [*shape, *chunk]
        whole = all(isinstance(size, int) and 0 <= size < 2**40 for size in sizes) and len(shape) == len(chunk)
        if not (known and plain and whole and shape[1:] == chunk[1:] == row and 1 <= chunk[0] <= 4 * spec.chunk):
            raise FormatError(f"{self.path}: {name} has shape {shape}, chunks {chunk}: not as the format has it")
        return StoredArray(np.dtype(spec.dtype), shape, chunk)

    def length(self, name: str) -> int:
        """Rows of an array."""
        return self.arrays[name].shape[0]

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start:stop of an array. Raises FormatError where they do not exist or a chunk is damaged."""
        array = self.arrays[name]
        if not 0 <= start <= stop <= array.shape[0]:
            raise FormatError(f"{self.path}: rows {start}:{stop} of {name}, which has {array.shape[0]}: damaged tables")
        size = array.chunk[0]
        numbers = range(start // size, (stop + size - 1) // size if stop > start else start // size)
        parts = [self._chunk(name, array, n)[max(start - n * size, 0) : stop - n * size] for n in numbers]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, *array.shape[1:]), array.dtype)

    def _chunk(self, name: str, array: StoredArray, number: int) -> np.ndarray:
        with self._lock:
            if (name, number) in self._chunks:
                self._chunks.move_to_end((name, number))
                return self._chunks[name, number]
        chunk = self._decode(name, array, number)
        with self._lock:
            self._chunks[name, number] = chunk
            while len(self._chunks) > _CACHED_CHUNKS:
                self._chunks.popitem(last=False)
        return chunk

    def _decode(self, name: str, array: StoredArray, number: int) -> np.ndarray:
        entry = f"{name}/c/{number}" + "/0" * (len(array.shape) - 1)
        content = self._read(entry)
        body, tail = content[:-4], content[-4:]
        if google_crc32c.value(body).to_bytes(4, "little") != tail:
            raise FormatError(f"{self.path}: {entry} fails its crc32c: the file is damaged, restore or rebuild it")
        out = np.empty(array.chunk, array.dtype)
        if len(body) < 16 or int.from_bytes(body[4:8], "little") != out.nbytes:
            raise FormatError(f"{self.path}: {entry} promises another size than its chunk's {out.nbytes} bytes")
        try:
            numcodecs.blosc.decompress(body, out)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"{self.path}: {entry} does not decompress: {error}") from None
        out.flags.writeable = False
        return out


def _frames(attributes: dict, path: pathlib.Path) -> int:
    frames = attributes.get("frames")
    if not isinstance(frames, int) or not 1 <= frames <= 64:
        raise FormatError(f"{path}: attribute frames is {frames!r}, not a number from 1 to 64")
    return frames


def _zip_entries(path: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Offset and size of every entry's content. Refuses what gen4d does not write: compression, links, odd names."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return {entry.filename: _place(file, entry, size, path) for entry in archive.infolist()}
    except FileNotFoundError:
        raise FormatError(f"{path}: the shard is missing; restore it from a copy or rebuild it") from None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: not a whole shard ({error}); restore it from a copy or rebuild it") from None


def _place(file, entry: zipfile.ZipInfo, size: int, path: pathlib.Path) -> tuple[int, int]:
    name = entry.filename
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ".." in parts or "" in parts:
        raise FormatError(f"{path}: entry {name!r} is not a plain relative name: not written by gen4d")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
        raise FormatError(f"{path}: entry {name} is compressed or encrypted: not written by gen4d")
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise FormatError(f"{path}: entry {name} has no header; restore the file from a copy or rebuild it")
    skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    offset = entry.header_offset + 30 + skip
    if offset + entry.file_size > size:
        raise FormatError(
            f"{path}: entry {name} reaches past the end of the file; restore it from a copy or rebuild it"
        )
    return offset, entry.file_size
