"""The arrays of one Zarr shard, read without zarr-python.

A zip of stored entries lies flat in its file, so a chunk is one read at a known place, one crc32c and one
decompression into memory of the size that the metadata promise. That takes a third of zarr-python's time a sequence
and cannot be made to allocate more. zarr-python reads the same files; the tests compare the two.

Nothing is believed that a changed bit could have changed: a chunk has its crc32c, a zarr.json the zip's CRC-32, and the
name, size and place of both stand in the zip twice, in its directory and before the content, and must be equal.
"""

import json
import os
import pathlib
import re
import stat
import struct
import threading
import zlib
from collections import OrderedDict
from typing import NamedTuple

import google_crc32c
import numcodecs.blosc
import numpy as np

from gen4d.shards.format import ARRAYS, ArraySpec, FormatError, check_version, read_frames, row_shape

_MAX_GROUP = 4 << 20  # bytes of a zarr.json: names of scans and shapes
_MAX_ARRAY = 64 << 10
_MAX_BRACKETS = 10_000  # objects and lists in it: without a limit, a few megabytes of them are gigabytes in memory
MAX_READ = 1 << 30  # bytes that one read may decode
_MAX_ENTRIES = 1 << 20
_CACHED_BYTES = 2 << 20  # of decoded chunks, of each open shard: a scan's masks and its shapes' points

_RECORD = struct.Struct("<4s4x2H4x3L3H4x2L")  # of an entry, in the zip's directory
_END = struct.Struct("<4s4H2LH")  # of the directory
_PLACE_64 = struct.Struct("<4sLQL")  # both in zips beyond 4 GB or 65,534 entries
_END_64 = struct.Struct("<4sQ2H2L4Q")
_USUAL = re.compile(rb"[a-z0-9_]+(?:/[a-z0-9_]+)*(?:/zarr\.json)?|zarr\.json")  # names that need no closer look
_RESTORE = "restore the file from a copy or rebuild it"


class StoredArray(NamedTuple):
    """What a shard says of one of its arrays."""

    dtype: np.dtype
    shape: tuple[int, ...]
    chunk: tuple[int, ...]


class Place(NamedTuple):
    """Where an entry of the zip lies."""

    offset: int  # of its header
    header: bytes  # what must stand there, but for bytes 4 and 5, the version of the zip that it needs
    size: int
    crc: int


class ZipShard:
    """The arrays of a Zarr shard. Opened lazily and anew in every process: a fork may share it.

    Raises FormatError where the file is not a shard that this reader understands.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._pid, self._file = None, -1
        self._place = read_directory(path)
        self._chunks: OrderedDict = OrderedDict()
        self._cached = 0  # bytes of them
        self._lock = threading.Lock()
        group = self._metadata("zarr.json")
        self.attributes = group.get("attributes")
        if not isinstance(self.attributes, dict):
            raise FormatError(f"{path}: zarr.json has no attributes: not written by gen4d")
        check_version(self.attributes, str(path))
        self.frames = read_frames(self.attributes, path)
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
            raise FormatError(f"{self.path}: {entry} is missing; {_RESTORE}")
        if self._pid != os.getpid():
            self._file, self._pid = os.open(self.path, os.O_RDONLY), os.getpid()
        place = self._place[entry]
        content = os.pread(self._file, len(place.header) + place.size, place.offset)
        if len(content) != len(place.header) + place.size:
            raise FormatError(f"{self.path}: {entry} is cut short; {_RESTORE}")
        if content[:4] != place.header[:4] or content[6 : len(place.header)] != place.header[6:]:
            raise FormatError(f"{self.path}: {entry} is not where the directory says; restore the file or rebuild it")
        return content[len(place.header) :]

    def _metadata(self, entry: str) -> dict:
        limit = _MAX_ARRAY if "/" in entry else _MAX_GROUP
        if entry in self._place and self._place[entry].size > limit:
            raise FormatError(f"{self.path}: {entry} has more than {limit} bytes: not written by gen4d")
        content = self._read(entry)
        if zlib.crc32(content) != self._place[entry].crc:
            raise FormatError(f"{self.path}: {entry} fails its CRC-32: the file is damaged, restore or rebuild it")
        value = parse_json(content, f"{self.path}: {entry}")
        if value.get("zarr_format") != 3:
            raise FormatError(f"{self.path}: {entry} does not describe a Zarr v3 node")
        return value

    def _describe(self, name: str, spec: ArraySpec) -> StoredArray:
        meta = self._metadata(f"{name}/zarr.json")
        row = row_shape(spec, self.frames)
        try:
            shape, chunk = tuple(meta["shape"]), tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
            names = [codec["name"] for codec in meta["codecs"]]
            keys = meta["chunk_key_encoding"]
            plain = keys["name"] == "default" and keys.get("configuration", {}).get("separator", "/") == "/"
            plain &= not meta.get("storage_transformers")
            known = meta["data_type"] == np.dtype(spec.dtype).name
        except (KeyError, TypeError, IndexError, AttributeError):
            raise FormatError(f"{self.path}: {name}/zarr.json lacks what a Zarr v3 array has") from None
        if names != ["bytes", "blosc", "crc32c"]:
            raise FormatError(f"{self.path}: {name} has codecs {names}, this reader takes bytes, blosc, crc32c")
        sizes = [*shape, *chunk]
        whole = all(isinstance(size, int) and 0 <= size < 2**40 for size in sizes) and len(shape) == len(chunk)
        if not (known and plain and whole and shape[1:] == chunk[1:] == row and 1 <= chunk[0] <= 4 * spec.chunk):
            raise FormatError(f"{self.path}: {name} has shape {shape}, chunks {chunk}: not as the format has it")
        for number in range(-(-shape[0] // chunk[0])):  # ends at the first that is missing, whatever the shape says
            if _chunk_entry(name, number, len(shape)) not in self._place:
                raise FormatError(f"{self.path}: {_chunk_entry(name, number, len(shape))} is missing; {_RESTORE}")
        return StoredArray(np.dtype(spec.dtype), shape, chunk)

    def length(self, name: str) -> int:
        """Rows of an array."""
        return self.arrays[name].shape[0]

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start:stop of an array. Raises FormatError where they do not exist or a chunk is damaged."""
        array = self.arrays[name]
        check_rows(self.path, name, array, start, stop)
        size = array.chunk[0]
        numbers = range(start // size, -(-stop // size)) if stop > start else range(0)
        if len(numbers) == 1:
            return self._chunk(name, array, numbers[0])[start - numbers[0] * size : stop - numbers[0] * size]
        out = np.empty((stop - start, *array.shape[1:]), array.dtype)
        for n in numbers:
            low, high = max(start, n * size), min(stop, (n + 1) * size)
            if high - low == size:  # nothing of it is left over that the next read could want
                self._decode(name, array, n, out[low - start : high - start])
            else:
                out[low - start : high - start] = self._chunk(name, array, n)[low - n * size : high - n * size]
        return out

    def _chunk(self, name: str, array: StoredArray, number: int) -> np.ndarray:
        with self._lock:
            if (name, number) in self._chunks:
                self._chunks.move_to_end((name, number))
                return self._chunks[name, number]
        chunk = np.empty(array.chunk, array.dtype)
        self._decode(name, array, number, chunk)
        chunk.flags.writeable = False
        with self._lock:
            if (name, number) not in self._chunks:
                self._chunks[name, number] = chunk
                self._cached += chunk.nbytes
            while self._cached > _CACHED_BYTES:
                self._cached -= self._chunks.popitem(last=False)[1].nbytes
        return chunk

    def _decode(self, name: str, array: StoredArray, number: int, out: np.ndarray) -> None:
        """Decompress a chunk into memory of its size."""
        entry = _chunk_entry(name, number, len(array.shape))
        content = memoryview(self._read(entry))
        body, tail = content[:-4], content[-4:]
        if google_crc32c.value(bytes(body)).to_bytes(4, "little") != tail:
            raise FormatError(f"{self.path}: {entry} fails its crc32c: the file is damaged, restore or rebuild it")
        if len(body) < 16 or int.from_bytes(body[4:8], "little") != out.nbytes:
            raise FormatError(f"{self.path}: {entry} promises another size than its chunk's {out.nbytes} bytes")
        if int.from_bytes(body[12:16], "little") != len(body):  # blosc reads as far as its header says
            raise FormatError(f"{self.path}: {entry} does not decompress: its header promises another length")
        try:
            numcodecs.blosc.decompress(body, out)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"{self.path}: {entry} does not decompress: {error}") from None


def _chunk_entry(name: str, number: int, dimensions: int) -> str:
    return f"{name}/c/{number}" + "/0" * (dimensions - 1)


def check_rows(path: pathlib.Path, name: str, array: StoredArray, start: int, stop: int) -> None:
    """Raise FormatError where rows start:stop of an array do not exist, or take more memory than one read may."""
    if not 0 <= start <= stop <= array.shape[0]:
        raise FormatError(f"{path}: rows {start}:{stop} of {name}, which has {array.shape[0]}: damaged tables")
    rows = stop - start
    size = rows * int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize
    if size > MAX_READ:
        raise FormatError(f"{path}: {rows} rows of {name} take {size} bytes, more than {MAX_READ}: not by gen4d")


def parse_json(content: bytes, name: str) -> dict:
    """A JSON object of bounded size in memory, without NaN and without two values of one name."""
    if content.count(b"{") + content.count(b"[") > _MAX_BRACKETS:
        raise FormatError(f"{name} has more than {_MAX_BRACKETS} objects and lists: not written by gen4d")
    try:
        value = json.loads(content, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise FormatError(f"{name} is not JSON; {_RESTORE}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{name} does not describe a Zarr v3 node: it is no JSON object")
    return value


def _object(pairs: list) -> dict:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("two values of one name")
    return value


def _refuse_constant(text: str):
    raise ValueError(f"{text} is not JSON")


def read_directory(path: pathlib.Path) -> dict[str, Place]:
    """The entries of a zip by their names. Refuses what gen4d does not write: compression, links, odd names, comments.

    Raises FormatError.
    """
    try:
        if not path.is_file() and path.exists():  # opening a pipe would wait for ever
            raise FormatError(f"{path}: not a whole shard, but no file at all; {_RESTORE}")
        with open(path, "rb") as file:
            count, directory, start = _find_directory(file, path)
    except FileNotFoundError:
        raise FormatError(f"{path}: the shard is missing; restore it from a copy or rebuild it") from None
    except OSError as error:
        raise FormatError(f"{path}: not a whole shard ({error.strerror}); {_RESTORE}") from None
    places, at = {}, 0
    for _ in range(count):
        name, place, at = _parse_record(directory, at, path)
        if name in places:
            raise FormatError(f"{path}: entry {name!r} is there twice: not written by gen4d")
        if place.offset + len(place.header) + place.size > start:
            raise FormatError(f"{path}: not a whole shard (entry {name} reaches past its end); {_RESTORE}")
        places[name] = place
    if at != len(directory):
        raise FormatError(f"{path}: not a whole shard (its directory has {len(directory) - at} bytes more); {_RESTORE}")
    return places


def _find_directory(file, path: pathlib.Path) -> tuple[int, bytes, int]:
    """Number of entries, the records, and where they start: they and their end record end the file."""
    size = file.seek(0, os.SEEK_END)
    tail = _END.size
    end = _last(file, size - tail, _END)
    count, length, start = end[4:7]
    if end[0] == b"PK\5\6" and (count == 0xFFFF or 0xFFFFFFFF in (length, start)):
        tail += _PLACE_64.size + _END_64.size
        end_64 = _last(file, size - tail, _END_64)
        count, length, start = end_64[7:]
        whole = end_64[0] == b"PK\6\6"
    else:
        whole = end[0] == b"PK\5\6"
    if not whole or end[-1] or start + length + tail != size or not 0 <= count <= min(_MAX_ENTRIES, length):
        raise FormatError(f"{path}: not a whole shard (no directory at its end); {_RESTORE}")
    file.seek(start)
    return count, file.read(length), start


def _last(file, place: int, record: struct.Struct) -> tuple:
    if place < 0:
        return (b"",) + (0,) * 9
    file.seek(place)
    return record.unpack(file.read(record.size))


def _parse_record(directory: bytes, at: int, path: pathlib.Path) -> tuple[str, Place, int]:
    """Name and place of the entry whose record starts at a byte of the directory, and where the next one starts."""
    if directory[at : at + 4] != b"PK\1\2" or at + _RECORD.size > len(directory):
        raise FormatError(f"{path}: not a whole shard (its directory is broken at byte {at}); {_RESTORE}")
    _, flags, method, crc, packed, size, length, extra, comment, rights, offset = _RECORD.unpack_from(directory, at)
    first, end = at + _RECORD.size, at + _RECORD.size + length + extra
    raw = directory[first : first + length]
    name = raw.decode("ascii") if _USUAL.fullmatch(raw) else _check_name(raw, path)
    if method or packed != size or flags & 1:
        raise FormatError(f"{path}: entry {name} is compressed or encrypted: not written by gen4d")
    if stat.S_IFMT(rights >> 16) not in (0, stat.S_IFREG):
        raise FormatError(f"{path}: entry {name} is a link or no file: not written by gen4d")
    more = directory[first + length : end]
    if offset == 0xFFFFFFFF and more[:4] == b"\1\0\10\0" and extra == 12:
        offset = int.from_bytes(more[4:], "little")
    elif extra or comment:
        raise FormatError(f"{path}: entry {name} has extra fields or a comment: not written by gen4d")
    return name, Place(offset, b"PK\3\4" + directory[at + 6 : at + 30] + b"\0\0" + raw, size, crc), end


def _check_name(raw: bytes, path: pathlib.Path) -> str:
    name = raw.decode("ascii", "backslashreplace")
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ".." in parts or "" in parts or not name.isprintable():
        raise FormatError(f"{path}: entry {name!r} is not a plain relative name: not written by gen4d")
    return name
