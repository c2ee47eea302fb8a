"""Files of many point sets: HDF5 as ModelNet40 and ScanObjectNN have it, and archives of arrays (.npz).

Points are one array (n, N, 3) or wider, labels (n,) or (n, 1) whole numbers or texts. An array that an archive stores
without compression is mapped, not read, so that one of a gigabyte costs what is used of it.
"""

import functools
import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.source import SourceError, SourceFile, file_size, is_passing, unreadable

_POINTS = ("data", "point", "points", "coord", "xyz", "pc", "arr_0")
_LABELS = ("label", "labels", "class", "category")
_OPEN = 4  # files whose points are kept; shapes of one file are neighbours in a build
_BROKEN = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
_PIECE = 4 << 20


class Listing(NamedTuple):
    """What a file says of its point sets without their points: how many, points of each, and label (n,), None where
    there is none."""

    count: int
    points: int
    label: np.ndarray | None


class Sets(NamedTuple):
    """point: (n, N, 3 or more), in memory or mapped."""

    point: np.ndarray
    file: SourceFile


def list_sets(root: Path, relative: str) -> Listing:
    """What a file holds. Raises SourceError where it is none that can be read, or its arrays disagree in length."""
    path = root / relative
    file_size(root, relative)
    try:
        listing = _list_hdf5(path) if _is_hdf5(path) else _list_npz(path)
    except SourceError:
        raise
    except _BROKEN as error:
        raise _broken(path, error) from error
    if listing.label is not None and len(listing.label) != listing.count:
        counts = f"{listing.count} shapes and {len(listing.label)} labels"
        raise SourceError(path, f"has {counts}: they must agree, save it again")
    return listing


def load_sets(root: Path, relative: str) -> Sets:
    """The points of a file. Raises SourceError."""
    path = root / relative
    file_size(root, relative)
    status = os.stat(path)
    try:
        return _load(str(root), relative, status.st_size, status.st_mtime_ns)
    except SourceError:
        raise
    except _BROKEN as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> Exception:
    if is_passing(error):
        return unreadable(path, error)
    return SourceError(path, f"is damaged, or not what its name says ({error}): copy it again")


@functools.lru_cache(_OPEN)
def _load(root: str, relative: str, size: int, changed_ns: int) -> Sets:
    path = Path(root) / relative
    point = _hdf5_points(path) if _is_hdf5(path) else _npz_points(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return Sets(point, SourceFile(relative, size, digest.hexdigest()))


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in (".h5", ".hdf5")


def _check(path: Path, name: str, shape: tuple[int, ...], kind: str) -> None:
    if len(shape) != 3 or shape[2] < 3 or not shape[0] or kind not in "fiu":
        raise SourceError(
            path,
            f"has {name} of shape {shape} and kind {kind!r}: n shapes of N points are numbers, (n, N, 3), at least one",
        )


def _first(names: tuple[str, ...], there: list[str]) -> str | None:
    return next((name for name in names if name in there), None)


# HDF5


def _list_hdf5(path: Path) -> Listing:
    import h5py  # takes a quarter of a second to import

    with h5py.File(path, "r") as file:
        data, label = _hdf5_array(path, file, _POINTS), _hdf5_array(path, file, _LABELS)
        if data is None:
            raise SourceError(
                path, f"has no array {', '.join(_POINTS[:4])} (it has {', '.join(file)}): give another file"
            )
        _check(path, data.name.strip("/"), data.shape, data.dtype.kind)
        return Listing(*data.shape[:2], None if label is None else label[:].reshape(len(label), -1)[:, 0])


def _hdf5_points(path: Path) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return _hdf5_array(path, file, _POINTS)[:]


def _hdf5_array(path: Path, file, names: tuple[str, ...]):
    """The first data set of some names that lies in the file itself, or None."""
    import h5py

    name = _first(names, list(file))
    if name is None:
        return None
    data = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise SourceError(path, f"keeps {name} outside the file, or as something else than an array: save it plainly")
    return data


# Archives


def _list_npz(path: Path) -> Listing:
    with zipfile.ZipFile(path) as archive:
        there = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        shape, _ = _npz_header(path, archive, _npz_name(path, archive, there))
        name = _first(_LABELS, there)
        return Listing(*shape[:2], None if name is None else _npz_column(path, archive, name))


def _npz_name(path: Path, archive: zipfile.ZipFile, there: list[str]) -> str:
    name = _first(_POINTS, there)
    others = [one for one in there if one not in _LABELS]
    if name is None and len(others) == 1:
        name = others[0]
    if name is None:
        raise SourceError(
            path, f"has no array {', '.join(_POINTS[:4])} (its arrays: {', '.join(there[:20])}): rename it"
        )
    shape, kind = _npz_header(path, archive, name)
    _check(path, f"`{name}`", shape, kind.kind)
    return name


def _npz_header(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, compared with the bytes that there are."""
    info = archive.getinfo(name + ".npy")
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dtype.hasobject or fortran or size != info.file_size - member.tell():
            raise SourceError(
                path, f"has the array `{name}` of {shape} {dtype} in {info.file_size} bytes: save it again"
            )
    return shape, dtype


def _header(member) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _npz_column(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    shape, dtype = _npz_header(path, archive, name)
    with archive.open(name + ".npy") as member:
        _header(member)
        return np.frombuffer(member.read(), dtype).reshape(shape[0] if shape else 1, -1)[:, 0]


def _npz_points(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        name = _npz_name(path, archive, [info.filename.removesuffix(".npy") for info in archive.infolist()])
        shape, dtype = _npz_header(path, archive, name)
        info = archive.getinfo(name + ".npy")
        with archive.open(info) as member:
            _header(member)
            skipped = member.tell()
            if info.compress_type != zipfile.ZIP_STORED:
                return np.frombuffer(member.read(), dtype).reshape(shape)
        with open(path, "rb") as file:
            file.seek(info.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2").astype(int)
        return np.memmap(path, dtype, "r", info.header_offset + 30 + int(lengths.sum()) + skipped, shape)
