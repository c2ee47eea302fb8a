"""The shard format, version 1.0: names, types and rules that the writer and the readers share.

A data set is a folder:

    build.json               written first: the config, the shapes and the plan (which scans go to which shard)
    shards/00000.zarr.zip    a Zarr v3 group in an uncompressed zip
    shards/00000.json        its length and hash, its scans, sequences, counts, rejections, source files
    dataset.json             written last: version, config, totals, hash of every shard's json

Both .json kinds are canonical and carry their own hash. Every array's last codec is crc32c.
"""

import hashlib
import json
from typing import NamedTuple

from gen4d.sequence import MOST_FRAMES

FORMAT = "gen4d"
VERSION = "1.0"
SHARD_SUFFIX = ".zarr.zip"
HDF5_SUFFIX = ".h5"
HDF5_ATTRIBUTES = "attributes"  # a scalar string: HDF5 limits real attributes to 64 KB; sealed, as it has no checksum


class FormatError(ValueError):
    """Data that break the format; the message names the file, what is wrong and what to do."""


class ArraySpec(NamedTuple):
    """One array of a shard. The first axis is open; `frames` in `row` stands for t."""

    dtype: str
    row: tuple[int | str, ...]
    chunk: int  # rows of a chunk
    meaning: str
    optional: bool = False
    rising: bool = False  # whole numbers that rise, as pair lists do

    @property
    def blosc(self) -> tuple[str, int, str]:
        """Compressor, level and shuffle: lz4 for floats (within 3 % of zstd's size, 4 times faster to read), zstd for
        masks, which it makes 40 % smaller, and for whole numbers; bitshuffle for pair lists, which rise."""
        if self.dtype.startswith("<f"):
            return ("lz4", 5, "shuffle")
        if self.rising:
            return ("zstd", 1, "bitshuffle")
        return ("zstd", 1, "noshuffle" if self.dtype == "|u1" else "shuffle")


_TABLE = 4096
_POINTS = 16384
_BYTES = 65536
_PAIR = (True, True)  # optional, rising

ARRAYS = {
    "cloud/point": ArraySpec("<f4", (3,), _POINTS, "points of all clouds, one cloud after another, metres"),
    "cloud/start": ArraySpec("<i8", (), _TABLE, "cloud c is point[start[c]:start[c + 1]]"),
    "cloud/vertex": ArraySpec("<i4", (), _POINTS, "index of the point in its source file, -1 if sampled"),
    "cloud/label": ArraySpec("<i4", (), _POINTS, "label in the source's own label space, -1 = none"),
    "cloud/instance": ArraySpec("<i4", (), _POINTS, "instance in the source's own numbering, -1 = none"),
    "actor/start": ArraySpec("<i8", (), _TABLE, "actors of sequence s are start[s]:start[s + 1]"),
    "actor/cloud": ArraySpec("<i4", (), _TABLE, "the actor's cloud"),
    "actor/role": ArraySpec("|u1", (), _TABLE, "0 static, 1 moving, 2 a view of its own frame"),
    "actor/pose": ArraySpec("<f4", ("frames", 4, 4), 1024, "cloud -> the sequence's frame of reference"),
    "actor/mask": ArraySpec("|u1", (), _BYTES, "bit planes, big bit order, each on a byte boundary, padding bits 0"),
    "actor/mask_start": ArraySpec("<i8", ("frames",), 1024, "byte offset of a plane, -1 = not in the frame"),
    "sequence/scan": ArraySpec("<i4", (), _TABLE, "row of the scan"),
    "sequence/k": ArraySpec("<i4", (), _TABLE, "number of the sequence within its scan"),
    "sequence/attempt": ArraySpec("<i4", (), _TABLE, "the attempt that was accepted"),
    "sequence/shape": ArraySpec("<i4", (), _TABLE, "index into the attribute `shapes`, of the first mover, -1 = none"),
    "sequence/class": ArraySpec("<i4", (), _TABLE, "index into the attribute `classes`, of the first mover, -1 = none"),
    "sequence/kind": ArraySpec("|u1", (), _TABLE, "0 shapes move through a scan, 1 frames, 2 sweeps, 3 views"),
    "sequence/height_m": ArraySpec("<f8", (), _TABLE, "height of the first mover, NaN = not known"),
    "sequence/shrink": ArraySpec("<f8", (), _TABLE, "factor by which the drawn height was shrunk to fit"),
    "sequence/radius_m": ArraySpec("<f8", (), _TABLE, "radius kept free around the first mover's axis, or NaN"),
    "mover/start": ArraySpec("<i8", (), _TABLE, "movers of sequence s are start[s]:start[s + 1]", True),
    "mover/shape": ArraySpec("<i4", (), _TABLE, "index into the attribute `shapes`", True),
    "mover/class": ArraySpec("<i4", (), _TABLE, "index into the attribute `classes`", True),
    "mover/height_m": ArraySpec("<f8", (), _TABLE, "height of the shape, NaN = not known", True),
    "mover/shrink": ArraySpec("<f8", (), _TABLE, "factor by which the drawn height was shrunk to fit", True),
    "mover/radius_m": ArraySpec("<f8", (), _TABLE, "radius that was kept free around the shape's axis, or NaN", True),
    "actor/mover": ArraySpec("<i4", (), _TABLE, "number within its sequence of the mover that it is part of, -1", True),
    "scan/cloud": ArraySpec("<i4", (), _TABLE, "the scan's cloud, -1 = none"),
    "scan/floor_m": ArraySpec("<f8", (), _TABLE, "height of the floor, NaN = not known"),
    "scan/origin": ArraySpec("<i4", (2,), _TABLE, "index of the floor plan's first cell; cell i starts at i * cell_m"),
    "scan/cells": ArraySpec("<i4", (2,), _TABLE, "size of the floor plan in cells, x and y"),
    "scan/valid": ArraySpec("|u1", (), _BYTES, "floor plans row by row, one bit a cell, each on a byte boundary"),
    "scan/valid_start": ArraySpec("<i8", (), _TABLE, "byte offset of a floor plan, and the end of the last"),
    "scan/free_m": ArraySpec("<f8", (), _TABLE, "radius of the widest disc of free floor"),
    "scan/unseen": ArraySpec("<f8", (), _TABLE, "share of the valid cells without a point, NaN = not known", True),
    "scan/transform": ArraySpec("<f8", (4, 4), 1024, "source file -> cloud: units and levelling"),
    "scan/axis_alignment": ArraySpec("<f8", (4, 4), 1024, "the source's own alignment, not applied; NaN = none"),
    "scan/source_points": ArraySpec("<i4", (), _TABLE, "finite points in the source file"),
    "scan/dropped": ArraySpec("<i4", (), _TABLE, "points of the source file that are not finite"),
    "sequence/match_m": ArraySpec("<f8", (), _TABLE, "points that are each other's nearest this near correspond", True),
    "view/start": ArraySpec("<i8", (), _TABLE, "views (frames or sweeps) of scan n are start[n]:start[n + 1]", True),
    "view/cloud": ArraySpec("<i4", (), _TABLE, "the view's cloud, in its sensor's frame", True),
    "view/number": ArraySpec("<i4", (), _TABLE, "number of the frame in its source", True),
    "view/time_s": ArraySpec("<f8", (), _TABLE, "time in the source, NaN = none", True),
    "view/pose": ArraySpec("<f8", (4, 4), 1024, "sensor -> the scan's world, z up", True),
    "view/overlap_start": ArraySpec("<i8", (), _TABLE, "overlaps of scan n are overlap[start[n]:start[n + 1]]", True),
    "view/overlap": ArraySpec("<f4", (), _POINTS, "share of view i's points that view j overlaps, at i * V + j", True),
    "pair/start": ArraySpec("<i8", (), _TABLE, "list p of sequence s is start[s * P + p]:start[s * P + p + 1]", *_PAIR),
    "pair/first": ArraySpec("<i4", (), _BYTES, "row in frame i; lists in order (0,1), (0,2), ... (1,2), ...", *_PAIR),
    "pair/second": ArraySpec("<i4", (), _BYTES, "row in frame j of the same point", *_PAIR),
}  # fmt: skip

# Arrays that are read a piece at a time, in the order in which they lie in a shard: what every sequence needs first.
# All others are small tables, read whole when a shard is opened; they and all metadata lie at its end, beside the zip's
# directory, so that one read of a file far away opens it.
LARGE = (
    "cloud/point",
    "actor/mask",
    "cloud/vertex",
    "cloud/label",
    "cloud/instance",
    "scan/valid",
    "pair/first",
    "pair/second",
    "view/overlap",
)


def is_table(name: str) -> bool:
    """Whether an array is a small table that every reader needs: pairs concern those alone who ask for them."""
    return name not in LARGE and not name.startswith("pair/")


def is_small(entry: str) -> bool:
    """Whether an entry of the zip is metadata or a chunk of a small table, which lie together at its end."""
    array, _, chunk = entry.partition("/c/")
    return not chunk or array not in LARGE


def row_shape(spec: ArraySpec, frames: int) -> tuple[int, ...]:
    """Shape of one row of an array in a shard of sequences of `frames` frames."""
    return tuple(frames if size == "frames" else size for size in spec.row)


def canonical(value: dict) -> bytes:
    """The one way to write a JSON value: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def seal(value: dict) -> bytes:
    """Canonical JSON of a value, with the SHA-256 of the rest under `sha256`, and a newline."""
    before = canonical({name: item for name, item in value.items() if name < "sha256"})[1:-1]
    after = canonical({name: item for name, item in value.items() if name > "sha256"})[1:-1]
    digest = hashlib.sha256(_join(before, after)).hexdigest()
    return _join(before, f'"sha256":"{digest}"'.encode(), after) + b"\n"


def _join(*parts: bytes) -> bytes:
    return b"{" + b",".join(filter(None, parts)) + b"}"


def unseal(content: bytes, name: str) -> dict:
    """The value that `seal` wrote. Raises FormatError where one bit differs."""
    return unseal_digest(content, name)[0]


def unseal_digest(content: bytes, name: str) -> tuple[dict, str]:
    """The value that `seal` wrote, and its hash. Raises FormatError where one bit differs."""
    try:
        value = json.loads(content)
        digest = value.pop("sha256")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise FormatError(f"{name}: not a sealed JSON file of gen4d; restore it from a copy or rebuild") from None
    try:
        intact = seal(value) == content
    except (ValueError, RecursionError):
        intact = False
    if not intact:
        raise FormatError(f"{name}: its content does not match its own hash; restore it from a copy or rebuild")
    return value, digest


def check_version(value: dict, name: str) -> None:
    """Raise FormatError where `format` and `version` name something this reader does not understand."""
    if value.get("format") != FORMAT:
        raise FormatError(f"{name}: format is {value.get('format')!r}, not {FORMAT!r}: not a gen4d data set")
    version = str(value.get("version"))
    if version.split(".")[0] != VERSION.split(".")[0]:
        raise FormatError(f"{name}: format version {version}, this gen4d reads {VERSION.split('.')[0]}.x: update gen4d")
    unknown = value.get("must_understand", [])
    if not isinstance(unknown, list):
        raise FormatError(f"{name}: must_understand is {unknown!r}, not a list of names: not written by gen4d")
    if unknown:
        raise FormatError(f"{name}: needs {', '.join(map(str, unknown))}, unknown to this gen4d: update gen4d")


def read_frames(attributes: dict, where: str) -> int:
    """Frames per sequence, from a shard's attributes. Raises FormatError."""
    frames = attributes.get("frames")
    if not isinstance(frames, int) or not 1 <= frames <= MOST_FRAMES:
        raise FormatError(f"{where}: attribute frames is {frames!r}, not a number from 1 to {MOST_FRAMES}")
    return frames
