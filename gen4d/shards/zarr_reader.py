"""The arrays of one Zarr shard, read without zarr-python.

A zip of stored entries lies flat in its file, so a chunk is one read at a known place, one crc32c and one
decompression into memory of the size that the metadata promise. That takes an eighth of zarr-python's time per array
and cannot be made to allocate more. zarr-python reads the same files; the tests compare the two.

Nothing is believed that a changed bit could have changed: a chunk has its crc32c, a zarr.json the zip's CRC-32, and the
name, size and place of both stand in the zip twice, in its directory and before the content, and must be equal.
"""

import json
import math
import pathlib
import re
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c
import numcodecs.blosc
import numpy as np

from gen4d.shards.format import (
    ARRAYS,
    ArraySpec,
    FormatError,
    check_version,
    is_small,
    is_table,
    read_frames,
    row_shape,
)
from gen4d.shards.home import LocalFile, RangedFile

_MAX_GROUP = 4 << 20  # bytes of a zarr.json: names of scans and shapes
_MAX_ARRAY = 64 << 10
_MAX_BRACKETS = 10_000  # objects and lists in it: without a limit, a few megabytes of them are gigabytes in memory
MAX_READ = 1 << 30  # bytes that one read may decode
_MAX_ENTRIES = 1 << 20
_MOST_AHEAD = 8 << 20  # bytes of tables and metadata that are read before they are asked for
_TAIL = 512 << 10  # bytes that opening reads: directory, metadata and tables of 16 scans with pair lists have 400 KB
_MOST_OVERHEAD = 20  # bytes of a chunk that does not compress: blosc's header and the crc32c
_CACHED_BYTES = 2 << 20  # of decoded chunks, of each open shard: a scan's masks and its shapes' points

_RECORD = struct.Struct("<4s4x2H4x3L3H4x2L")  # of an entry, in the zip's directory
_END = struct.Struct("<4s4H2LH")  # of the directory
_PLACE_64 = struct.Struct("<4sLQL")  # both in zips beyond 4 GB or 65,534 entries
_END_64 = struct.Struct("<4sQ2H2L4Q")
_FILE = 0o10  # kind of an entry in the highest bits of its rights, as in Unix
_USUAL = re.compile(rb"[a-z0-9_]+(?:/[a-z0-9_]+)*(?:/zarr\.json)?|zarr\.json")  # names that need no closer look
_RESTORE = "restore the file from a copy or rebuild it"


class StoredArray(NamedTuple):
    """What a shard says of one of its arrays."""

    dtype: np.dtype
    shape: tuple[int, ...]
    chunk: tuple[int, ...]


class Located(NamedTuple):
    """Where an entry of the zip lies."""

    offset: int  # of its header
    header: bytes  # what must stand there, but for bytes 4 and 5, the version of the zip that it needs
    size: int
    crc: int

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.offset + len(self.header) + self.size


class _Tail:
    """A file whose end has been read: what lies there takes no other read."""

    def __init__(self, file: RangedFile):
        self.file, self.where, self.size, self.at_once = file, file.where, file.size, file.at_once
        self._start = max(0, self.size - _TAIL)
        self._content = file.read(self._start, self.size - self._start)

    def reach(self, start: int, more: int = 0) -> None:
        """Have the end from byte `start` on, and if that takes a read, `more` before it."""
        if start < self._start:
            start = max(0, start - more)
            self._content = self.file.read(start, self._start - start) + self._content
            self._start = start

    def read(self, start: int, length: int) -> bytes:
        """Bytes start:start + length of the file."""
        if start < self._start:
            return self.file.read(start, length)
        return self._content[start - self._start : start - self._start + length]


class ZipShard:
    """The arrays of a Zarr shard. A fork may share it.

    Raises FormatError where the file is not a shard that this reader understands.
    """

    def __init__(self, file: RangedFile | pathlib.Path):
        """file: by its path, or to be read from elsewhere. Its end, with all that opening needs, is one read."""
        file = LocalFile(file) if isinstance(file, pathlib.Path) else file
        self.where = file.where
        self._chunks: OrderedDict = OrderedDict()
        self._cached = 0  # bytes of them
        self._lock = threading.Lock()
        self._file = tail = _Tail(file)
        self._place = _parse_directory(tail)
        _reach_tables(tail, self._place)
        group = self._metadata("zarr.json")
        self.attributes = group.get("attributes")
        if not isinstance(self.attributes, dict):
            raise FormatError(f"{self.where}: zarr.json has no attributes: not written by gen4d")
        check_version(self.attributes, self.where)
        self.frames = read_frames(self.attributes, self.where)
        self.arrays = {
            name: self._describe(name, spec)
            for name, spec in ARRAYS.items()
            if not (spec.optional and f"{name}/zarr.json" not in self._place)
        }
        self.tables = {name: self.read(name, 0, self.length(name)) for name in self.arrays if is_table(name)}
        self._file = file  # the end's bytes have served

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._file.close()

    def _find(self, entry: str) -> Located:
        if entry not in self._place:
            raise FormatError(f"{self.where}: {entry} is missing; {_RESTORE}")
        return self._place[entry]

    def _read(self, entry: str) -> memoryview:
        """Content of an entry."""
        place = self._find(entry)
        return self._checked(entry, place, memoryview(self._file.read(place.offset, place.end - place.offset)))

    def _contents(self, entries: list[str]) -> Iterator[memoryview]:
        """Contents of entries; those that lie side by side come in one read."""
        for run in _runs([(entry, self._find(entry)) for entry in entries], self._file.at_once):
            start = run[0][1].offset
            content = memoryview(self._file.read(start, run[-1][1].end - start))
            for entry, place in run:
                yield self._checked(entry, place, content[place.offset - start : place.end - start])

    def _checked(self, entry: str, place: Located, content: memoryview) -> memoryview:
        """What follows an entry's header, if the header is the one of the directory."""
        length = len(place.header)
        if len(content) != length + place.size:
            raise FormatError(f"{self.where}: {entry} is cut short; {_RESTORE}")
        if content[:4] != place.header[:4] or content[6:length] != place.header[6:]:
            raise FormatError(f"{self.where}: {entry} is not where the directory says; restore the file or rebuild it")
        return content[length:]

    def _metadata(self, entry: str) -> dict:
        place, limit = self._find(entry), _MAX_ARRAY if "/" in entry else _MAX_GROUP
        if place.size > limit:
            raise FormatError(f"{self.where}: {entry} has more than {limit} bytes: not written by gen4d")
        content = bytes(self._read(entry))
        if zlib.crc32(content) != place.crc:
            raise FormatError(f"{self.where}: {entry} fails its CRC-32: the file is damaged, restore or rebuild it")
        value = parse_json(content, f"{self.where}: {entry}")
        if value.get("zarr_format") != 3:
            raise FormatError(f"{self.where}: {entry} does not describe a Zarr v3 node")
        return value

    def _describe(self, name: str, spec: ArraySpec) -> StoredArray:
        meta = self._metadata(f"{name}/zarr.json")
        dtype, row = np.dtype(spec.dtype), row_shape(spec, self.frames)
        try:
            shape, chunk = tuple(meta["shape"]), tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
            names = [codec["name"] for codec in meta["codecs"]]
            keys = meta["chunk_key_encoding"]
            plain = keys["name"] == "default" and keys.get("configuration", {}).get("separator", "/") == "/"
            plain &= not meta.get("storage_transformers")
            known = meta["data_type"] == dtype.name
        except (KeyError, TypeError, IndexError, AttributeError):
            raise FormatError(f"{self.where}: {name}/zarr.json lacks what a Zarr v3 array has") from None
        if names != ["bytes", "blosc", "crc32c"]:
            listed = ", ".join(map(str, names)) or "none"
            raise FormatError(f"{self.where}: {name} has codecs {listed}, this reader takes bytes, blosc, crc32c")
        sizes = [*shape, *chunk]
        whole = all(isinstance(size, int) and 0 <= size < 2**40 for size in sizes) and len(shape) == len(chunk)
        if not (known and plain and whole and shape[1:] == chunk[1:] == row and 1 <= chunk[0] <= 4 * spec.chunk):
            raise FormatError(f"{self.where}: {name} has shape {shape}, chunks {chunk}: not as the format has it")
        most = dtype.itemsize * math.prod(chunk) + _MOST_OVERHEAD
        first, last = _chunk_name(name, len(shape))
        for number in range(-(-shape[0] // chunk[0])):  # ends at the first that is missing, whatever the shape says
            place = self._place.get(entry := f"{first}{number}{last}") or self._find(entry)
            if place.size > most:
                raise FormatError(f"{self.where}: {entry} has {place.size} bytes, more than {most}: not by gen4d")
        return StoredArray(dtype, shape, chunk)

    def length(self, name: str) -> int:
        """Rows of an array."""
        return self.arrays[name].shape[0]

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start:stop of an array. Raises FormatError where they do not exist or a chunk is damaged."""
        array = self.arrays[name]
        check_rows(self.where, name, array, start, stop)
        size = array.chunk[0]
        numbers = range(start // size, -(-stop // size)) if stop > start else range(0)
        here = self._recall(name, numbers)
        entries = _chunk_entries(name, array, [n for n in numbers if n not in here]) if len(here) < len(numbers) else []
        if len(numbers) == 1:
            n = numbers[0]
            chunk = here[n] if here else self._keep(name, n, array, entries[0], self._read(entries[0]))
            return chunk[start - n * size : stop - n * size]
        fetched = zip(entries, self._contents(entries), strict=True) if entries else iter(())
        out = np.empty((stop - start, *array.shape[1:]), array.dtype)
        for n in numbers:
            low, high = max(start, n * size), min(stop, (n + 1) * size)
            if high - low == size and n not in here:  # nothing of it is left over that the next read could want
                self._decode(*next(fetched), out[low - start : high - start])
            else:
                chunk = here[n] if n in here else self._keep(name, n, array, *next(fetched))
                out[low - start : high - start] = chunk[low - n * size : high - n * size]
        return out

    def _recall(self, name: str, numbers: range) -> dict[int, np.ndarray]:
        """Those of an array's chunks that are here, decoded."""
        with self._lock:
            here = {n: self._chunks[name, n] for n in numbers if (name, n) in self._chunks}
            for n in here:
                self._chunks.move_to_end((name, n))
        return here

    def _keep(self, name: str, number: int, array: StoredArray, entry: str, content: memoryview) -> np.ndarray:
        """Decode a chunk, for this read and the next ones."""
        chunk = np.empty(array.chunk, array.dtype)
        self._decode(entry, content, chunk)
        chunk.flags.writeable = False
        with self._lock:
            if (name, number) not in self._chunks:
                self._chunks[name, number] = chunk
                self._cached += chunk.nbytes
            while self._cached > _CACHED_BYTES:
                self._cached -= self._chunks.popitem(last=False)[1].nbytes
        return chunk

    def _decode(self, entry: str, content: memoryview, out: np.ndarray) -> None:
        """Decompress a chunk into memory of its size."""
        body, tail = bytes(content[:-4]), content[-4:]
        if google_crc32c.value(body).to_bytes(4, "little") != tail:
            raise FormatError(f"{self.where}: {entry} fails its crc32c: the file is damaged, restore or rebuild it")
        if len(body) < 16 or int.from_bytes(body[4:8], "little") != out.nbytes:
            raise FormatError(f"{self.where}: {entry} promises a different size from its chunk's {out.nbytes} bytes")
        if int.from_bytes(body[12:16], "little") != len(body):  # blosc reads as far as its header says
            raise FormatError(f"{self.where}: {entry} does not decompress: its header promises another length")
        try:
            numcodecs.blosc.decompress(body, out)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"{self.where}: {entry} does not decompress: {error}") from None


def _runs(entries: list[tuple[str, Located]], most: int) -> Iterator[list[tuple[str, Located]]]:
    """Parts of a list of entries that lie side by side in the zip, of at most so many bytes if more than one entry."""
    run: list[tuple[str, Located]] = []
    for entry, place in entries:
        if run and (place.offset != run[-1][1].end or place.end - run[0][1].offset > most):
            yield run
            run = []
        run.append((entry, place))
    if run:
        yield run


def _reach_tables(tail: _Tail, places: dict[str, Located]) -> None:
    """Have the tables and metadata beside the directory in the tail, where they lie there: in shards whose entries are
    in another order, each is a read of its own."""
    first = tail.size
    for entry, place in reversed(places.items()):
        if not is_small(entry) or place.offset > first or tail.size - place.offset > _MOST_AHEAD:
            break
        first = place.offset
    tail.reach(first)


def _chunk_entries(name: str, array: StoredArray, numbers: list[int]) -> list[str]:
    first, last = _chunk_name(name, len(array.shape))
    return [f"{first}{number}{last}" for number in numbers]


def _chunk_name(name: str, dimensions: int) -> tuple[str, str]:
    """What stands before and after a chunk's number in the name of its entry."""
    return f"{name}/c/", "/0" * (dimensions - 1)


def check_rows(where: str, name: str, array: StoredArray, start: int, stop: int) -> None:
    """Raise FormatError where rows start:stop of an array do not exist, or take more memory than one read may."""
    if not 0 <= start <= stop <= array.shape[0]:
        raise FormatError(f"{where}: rows {start}:{stop} of {name}, which has {array.shape[0]}: damaged tables")
    rows = stop - start
    size = rows * math.prod(array.shape[1:]) * array.dtype.itemsize
    if size > MAX_READ:
        raise FormatError(f"{where}: {rows} rows of {name} take {size} bytes, more than {MAX_READ}: not by gen4d")


def parse_json(content: bytes, name: str) -> dict:
    """A JSON object of bounded size in memory, without NaN and without two values of one name."""
    if content.count(b"{") + content.count(b"[") > _MAX_BRACKETS:
        raise FormatError(f"{name} has more than {_MAX_BRACKETS} objects and lists: not written by gen4d")
    try:
        value = json.loads(content, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise FormatError(f"{name} is not JSON; {_RESTORE}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{name} does not describe a Zarr v3 node: it is not a JSON object")
    return value


def _object(pairs: list) -> dict:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("two values of one name")
    return value


def _refuse_constant(text: str):
    raise ValueError(f"{text} is not JSON")


def read_directory(path: pathlib.Path) -> dict[str, Located]:
    """The entries of a zip by their names. Raises FormatError."""
    return _parse_directory(_Tail(LocalFile(path)))


def _parse_directory(tail: _Tail) -> dict[str, Located]:
    """The entries by their names. Refuses what gen4d does not write: compression, links, odd names, comments."""
    where = tail.where
    count, directory, start = _find_directory(tail)
    places, at = {}, 0
    for _ in range(count):
        name, place, at = _parse_record(directory, at, where)
        if name in places:
            raise FormatError(f"{where}: entry {name!r} is there twice: not written by gen4d")
        if place.offset + len(place.header) + place.size > start:
            raise FormatError(f"{where}: not a whole shard (entry {name} reaches past its end); {_RESTORE}")
        places[name] = place
    if at != len(directory):
        raise FormatError(
            f"{where}: not a whole shard (its directory has {len(directory) - at} bytes more); {_RESTORE}"
        )
    return places


def _find_directory(tail: _Tail) -> tuple[int, bytes, int]:
    """Number of entries, the records, and where they start: they and their end record end the file."""
    size, behind = tail.size, _END.size
    end = _last(tail, size - behind, _END)
    count, length, start = end[4:7]
    whole = end[0] == b"PK\5\6"
    if whole and start + length + behind != size:  # then a second record of the end lies between: from 2 GiB on
        behind += _PLACE_64.size + _END_64.size
        end_64 = _last(tail, size - behind, _END_64)
        count, length, start = end_64[7:]
        whole = end_64[0] == b"PK\6\6"
    if not whole or end[-1] or start + length + behind != size or not 0 <= count <= min(_MAX_ENTRIES, length):
        raise FormatError(f"{tail.where}: not a whole shard (no directory at its end); {_RESTORE}")
    tail.reach(start, _TAIL)
    return count, tail.read(start, length), start


def _last(tail: _Tail, place: int, record: struct.Struct) -> tuple:
    content = tail.read(place, record.size) if place >= 0 else b""
    return record.unpack(content) if len(content) == record.size else (b"",) + (0,) * 9


def _parse_record(directory: bytes, at: int, where: str) -> tuple[str, Located, int]:
    """Name and place of the entry whose record starts at a byte of the directory, and where the next one starts."""
    first = at + _RECORD.size
    if directory[at : at + 4] != b"PK\1\2" or first > len(directory):
        raise FormatError(f"{where}: not a whole shard (its directory is broken at byte {at}); {_RESTORE}")
    _, flags, method, crc, packed, size, length, extra, comment, rights, offset = _RECORD.unpack_from(directory, at)
    end = first + length + extra
    raw = directory[first : first + length]
    name = raw.decode("ascii") if _USUAL.fullmatch(raw) else _check_name(raw, where)
    if method or packed != size or flags & 1:
        raise FormatError(f"{where}: entry {name} is compressed or encrypted: not written by gen4d")
    if rights >> 28 not in (0, _FILE):
        raise FormatError(f"{where}: entry {name} is a link or not a file: not written by gen4d")
    more = directory[first + length : end]
    if offset == 0xFFFFFFFF and more[:4] == b"\1\0\10\0" and extra == 12:
        offset = int.from_bytes(more[4:], "little")
    elif extra or comment:
        raise FormatError(f"{where}: entry {name} has extra fields or a comment: not written by gen4d")
    return name, Located(offset, b"PK\3\4" + directory[at + 6 : at + 30] + b"\0\0" + raw, size, crc), end


def _check_name(raw: bytes, where: str) -> str:
    name = raw.decode("ascii", "backslashreplace")
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ".." in parts or "" in parts or not name.isprintable():
        raise FormatError(f"{where}: entry {name!r} is not a plain relative name: not written by gen4d")
    return name
