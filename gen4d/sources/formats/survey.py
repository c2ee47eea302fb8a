"""Surveyors' points: LAS and LAZ by laspy, E57 by pye57, which come with the extra `survey`.

Their coordinates are mostly georeferenced; `gen4d.sources.scans` moves them to the origin.
"""

import importlib
import tempfile
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np

from gen4d.sources.formats.columns import PointColumns, has_ids, with_ids
from gen4d.sources.source import PassingError, SourceError

_INSTALL = "from a clone of gen4d, pip install '.[survey]'"
_LAS_HEAD, _LAS_LARGE_HEAD = 227, 375  # bytes of the header of version 1.2, and of 1.4
_RECORD, _LATER_RECORD = 54, 60  # least bytes of a record of variable length, before and behind the points
_ENDED = (KeyboardInterrupt, SystemExit, GeneratorExit)
_MOST_RATIO = 200  # how much smaller than its points a .laz is at most: more is a bomb


def read_las(path: Path, content: bytes) -> PointColumns:
    """Points of a .las or .laz file in its own coordinates, float64; the classification, if there is any, as label.

    Raises SourceError for broken files, counts that do not fit the bytes, and without laspy.
    """
    laspy = _module(path, "laspy")
    if content[:4] != b"LASF":
        raise SourceError(
            path, f"is not a LAS file: it starts with {content[:8]!r} instead of LASF: convert or remove it"
        )
    _check_las(path, content)
    try:
        cloud = laspy.read(BytesIO(content), laz_backend=laspy.LazBackend.Lazrs)  # no threads: workers are forked
        point = np.stack([np.asarray(cloud.x), np.asarray(cloud.y), np.asarray(cloud.z)], axis=1)
        extra = [name for name in cloud.point_format.extra_dimension_names if has_ids(name)]
        columns = {name: np.asarray(cloud[name]) for name in ("classification", *extra)}
    except _ENDED:
        raise
    except BaseException as error:  # laspy promises no type of its own, and its decoder panics outside of Exception
        raise SourceError(path, f"is damaged ({type(error).__name__}: {error}): copy or export it again") from error
    columns = {name: values for name, values in columns.items() if values.any()}  # 0: never classified
    return with_ids(path, point.astype(np.float64), columns)


def _check_las(path: Path, content: bytes) -> None:
    """Raises SourceError where more points are declared than can be there."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(content[at : at + size], "little")

    if len(content) < _LAS_HEAD:
        raise SourceError(path, f"is truncated: {len(content)} bytes, its header alone has {_LAS_HEAD}: copy it again")
    large = number(25, 1) >= 4 and len(content) >= _LAS_LARGE_HEAD
    points, later = (number(247, 8), number(243, 4)) if large else (number(107, 4), 0)
    start, length, packed = number(96, 4), number(105, 2), bool(content[104] & 0x80)
    room = (len(content) - start) * (_MOST_RATIO if packed else 1)
    if start > len(content) or points * length > room:
        raise SourceError(
            path,
            f"is truncated or its counts are wrong: it declares {points} points of {length} bytes from byte "
            f"{start} on, and has {len(content)} bytes: copy or download it again",
        )
    if packed:
        _check_chunks(path, content, start)
    records, least = number(100, 4), number(94, 2)
    if least + records * _RECORD > start or start + later * _LATER_RECORD > len(content):
        raise SourceError(
            path, f"declares {records} records before its points and {later} behind: damaged, copy it again"
        )


def _check_chunks(path: Path, content: bytes, start: int) -> None:
    """Raises SourceError where the table of packed chunks is not there, or has more entries than there are bytes:
    the decoder takes memory for all of them at once, and ends the process where it gets none."""
    at = int.from_bytes(content[start : start + 8], "little", signed=True)
    if at == -1:  # written to a stream: the place stands at the end
        at = int.from_bytes(content[-8:], "little", signed=True)
    chunks = int.from_bytes(content[at + 4 : at + 8], "little") if start < at <= len(content) - 8 else len(content) + 1
    if chunks > len(content):
        raise SourceError(path, f"has no sound table of its packed chunks (byte {at}): damaged, copy it again")


def read_e57(path: Path, content: bytes) -> PointColumns:
    """The points of all scans of an .e57 file, moved by their poses, float64.

    Raises SourceError for broken files, files without cartesian points, and without pye57.
    """
    pye57 = _module(path, "pye57")
    if content[:8] != b"ASTM-E57":
        raise SourceError(path, f"is not an E57 file: it starts with {content[:8]!r}: convert or remove it")
    with tempfile.NamedTemporaryFile(suffix=".e57") as copy:  # pye57 reads files alone; these bytes were hashed
        try:
            copy.write(content)
            copy.flush()
        except OSError as error:
            raise PassingError(error.errno, error.strerror, copy.name) from error
        try:
            file = pye57.E57(copy.name)
            scans = [file.read_scan(i, ignore_missing_fields=True) for i in range(file.scan_count)]
            file.close()
            point = [np.stack([scan[f"cartesian{axis}"] for axis in "XYZ"], axis=1) for scan in scans]
        except Exception as error:  # the library under it has many types of errors, and tells long stories
            reason = str(error).split("\n", 1)[0]
            raise SourceError(
                path, f"is damaged ({type(error).__name__}: {reason}): copy or export it again"
            ) from error
    if not point:
        raise SourceError(path, "holds no scan: export it again")
    return PointColumns(np.concatenate(point).astype(np.float64))


def _module(path: Path, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SourceError(path, f"needs the package {name}: {_INSTALL}") from None
