"""NPY and NPZ points. Nothing is unpickled, nothing allocated before its declared shape was compared with the bytes.

The header is taken apart here: NumPy's public functions read those of versions 1 and 2 alone, and `np.load` allocates
what a header declares before it looks for the bytes.
"""

import math
import re
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np

from gen4d.sources.formats.columns import PointColumns, has_ids, plain_name, with_ids
from gen4d.sources.source import SourceError

_MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 64 * 1024
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*(?:(['"])([^'"]{1,40})\1|(\[))""")
_FORTRAN = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([0-9L, ]{0,200})\)""")
_NUMBER = re.compile(r"[<>|=]?[biuf][1248]")
_POINT_NAMES = ("points", "point", "coord", "coords", "xyz", "pc", "pcd", "arr_0")
_SHOWN = 20
_UNPACKED_LIMIT = 32 * 1024 * 1024  # and 16 bytes for each packed one: coordinates never pack that tightly
_PACK_RATIO = 16


def read_npy(path: Path, content: bytes) -> PointColumns:
    """Points from an array (N, 3) or wider: its first three columns. Raises SourceError for anything else."""
    return PointColumns(_points(path, "the array", npy_array(path, content)))


def read_npz(path: Path, content: bytes) -> PointColumns:
    """Points from an archive of arrays: points, coord, xyz, pc, or the only one of the shape (N, 3+) that holds no ids;
    label or segment (N,); instance (N,); each also by the other names that `columns.py` knows.

    Raises SourceError for broken archives, those that unpack to far more than their size, and wrong shapes.
    """
    limit = _UNPACKED_LIMIT + _PACK_RATIO * len(content)
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            there = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            name = _points_name(path, archive, there)
            arrays = _archive_arrays(path, archive, {name, *filter(has_ids, there)}, limit)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, LookupError, RuntimeError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(path, f"is not a readable archive of arrays ({error}): copy or write it again") from error
    point = _points(path, f"`{name}`", arrays.pop(name))
    table = with_ids(path, point, arrays)
    for column, values in (("label", table.label), ("instance", table.instance)):
        if values is not None and len(values) != len(point):
            raise SourceError(
                path, f"has {len(point)} points and {len(values)} values of {column}: they must agree, save it again"
            )
    return table


def _points_name(path: Path, archive: zipfile.ZipFile, there: list[str]) -> str:
    """The array of points: one of a name that is known, or else the only one that can be."""
    known = [name for wanted in _POINT_NAMES for name in there if plain_name(name) == wanted]
    others = [name for name in there if not has_ids(name)]
    if known or len(others) == 1:
        return (known or others)[0]
    shapes = {name: _member_shape(path, archive, name) for name in others[:_SHOWN]}
    if len(others) <= _SHOWN and len(fits := [name for name, shape in shapes.items() if _is_points(shape)]) == 1:
        return fits[0]
    listed = ", ".join(f"{name} {shape}" if shape is not None else name for name, shape in shapes.items()) or "none"
    more = ", ..." if len(others) > _SHOWN else ""
    raise SourceError(
        path, f"has no array points, coord, xyz or pc (its arrays: {listed}{more}): rename the one of points"
    )


def _is_points(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and len(shape) == 2 and shape[1] >= 3


def _member_shape(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[int, ...] | None:
    """The shape of an array of an archive by its header alone, None where it holds no numbers."""
    try:
        with archive.open(f"{name}.npy") as member:
            return _npy_header(path, member.read(_HEADER_LIMIT + 12))[2]
    except (SourceError, KeyError, NotImplementedError, RuntimeError):
        return None


def npy_array(path: Path, content: bytes) -> np.ndarray:
    """The array of numbers in the bytes of a .npy file, read-only. Raises SourceError."""
    dtype, fortran, shape, start = _npy_header(path, content)
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(content) - start:
        raise SourceError(
            path,
            f"declares {dtype} {shape}, {needed} bytes, and {len(content) - start} follow its header: "
            "truncated, or its shape is wrong, save it again",
        )
    values = np.frombuffer(content, dtype, math.prod(shape), start)
    return values.reshape(shape, order="F" if fortran else "C")


def _npy_header(path: Path, content: bytes) -> tuple[np.dtype, bool, tuple[int, ...], int]:
    if content[:6] != _MAGIC or content[6:7] not in (b"\1", b"\2", b"\3"):
        raise SourceError(
            path, f"holds no NumPy array: it starts with {bytes(content[:8])!r}, save it again by np.save"
        )
    start = 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:start], "little")
    if length > _HEADER_LIMIT or start + length > len(content):
        raise SourceError(
            path, f"has an array header of {length} bytes in {len(content)}: truncated or broken, copy it again"
        )
    text = bytes(content[start : start + length]).decode("latin-1")
    descr, fortran, shape = (pattern.search(text) for pattern in (_DESCR, _FORTRAN, _SHAPE))
    if descr is None or fortran is None or shape is None:
        raise SourceError(path, f"has an invalid array header ({text[:60]!r}): save it again with np.save")
    kind = descr[2] or "records"
    if not _NUMBER.fullmatch(kind) or kind[-2:] in ("f1", "b2", "b4", "b8"):
        reason = "Python objects are never loaded" if "O" in kind else "numbers are needed"
        raise SourceError(path, f"holds an array of type {kind!r}: {reason}, save one of float32")
    sizes = tuple(int(size) for size in re.findall("[0-9]+", shape[1]))
    return np.dtype(kind), fortran[1] == "True", sizes, start + length


def _archive_arrays(path: Path, archive: zipfile.ZipFile, wanted: set[str], limit: int) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name not in wanted:
            continue
        if name in arrays:
            raise SourceError(path, f"holds the array `{name}` twice: save it again")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise SourceError(path, f"holds `{name}` encrypted or packed by method {info.compress_type}: use np.savez")
        limit -= info.file_size
        if limit < 0:
            raise SourceError(
                path,
                f"unpacks to over {info.file_size} bytes (`{name}`), far more than "
                "points ever do: save it again by np.savez",
            )
        arrays[name] = npy_array(path, archive.read(info))
    return arrays


def _points(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or values.shape[1] < 3:
        raise SourceError(path, f"has the shape {values.shape} in {name}: points are (N, 3) or wider, save it again")
    narrow = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    return np.ascontiguousarray(values[:, :3], np.float32 if narrow else np.float64)
