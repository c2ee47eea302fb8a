"""Colour and normals of a scan's points, for those who want them: sequences are made of geometry alone."""

from typing import NamedTuple

import numpy as np

from gen4d.sources.formats.arrays import npy_array
from gen4d.sources.formats.pcd import pcd_rows
from gen4d.sources.formats.ply import ply_rows
from gen4d.sources.manifest import entry_of
from gen4d.sources.objects import read_objects
from gen4d.sources.scans import Scan, ScanSource
from gen4d.sources.source import SourceError, SourceFile, read_file

KINDS = ("colour", "normal")
_COLUMNS = {
    "colour": (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")),
    "normal": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
}


class Appearance(NamedTuple):
    """colour (N, 3) float32 from 0 to 1 and normal (N, 3) float32 of length 1 in the scan's own frame (zero where the
    file has none), each None where it was not asked for; files: those that were read for it alone."""

    colour: np.ndarray | None
    normal: np.ndarray | None
    files: tuple[SourceFile, ...]


def read_appearance(source: ScanSource, scan: Scan, kinds: tuple[str, ...]) -> Appearance:
    """Some of `KINDS` for the points of a scan that was loaded from a source: columns of its points file (PLY, PCD), or
    a file of its own (Pointcept's color.npy, normal.npy), or columns of S3DIS's texts.

    Raises SourceError where the source has none, or values that cannot be colours or normals.
    """
    files: list[SourceFile] = []
    found = {kind: _read(source, scan, kind, files) for kind in KINDS if kind in kinds}
    colour, normal = found.get("colour"), found.get("normal")
    return Appearance(
        None if colour is None else _as_colour(source, colour),
        None if normal is None else _as_normal(normal, scan.transform[:3, :3]),
        tuple(files),
    )


def _read(source: ScanSource, scan: Scan, kind: str, files: list[SourceFile]) -> np.ndarray:
    """(N, 3) values as they are stored. Raises SourceError."""
    if kind == "colour" and "objects" in source.files:  # whose files were counted when the scan was read
        return read_objects(source.root, source.files["objects"], entry_of(source.entry), []).colour[scan.row]
    name = source.files.get(kind, source.files["points"])
    path = source.root / name
    content, file = read_file(source.root, name)
    if kind in source.files:
        files.append(file)
        values = npy_array(path, content)
    else:
        values = _columns(source, kind, content)
    rows = len(scan.row) + scan.dropped
    if values.shape != (rows, 3) or values.dtype.kind not in "iuf":
        raise SourceError(path, f"holds {kind}s of shape {values.shape} for {rows} points: one of three numbers each")
    return values[scan.row]


def _columns(source: ScanSource, kind: str, content: bytes) -> np.ndarray:
    path = source.root / source.files["points"]
    rows = {".ply": ply_rows, ".pcd": pcd_rows}.get(path.suffix.lower())
    table = rows(path, content) if rows else None
    names = () if table is None else table.dtype.names
    for columns in _COLUMNS[kind]:
        if set(columns) <= set(names):
            return np.stack([table[column] for column in columns], axis=1)
    packed = next((name for name in ("rgb", "rgba") if name in names), None)
    if kind == "colour" and packed and table.dtype[packed].itemsize == 4:  # PCL packs 0xRRGGBB into one number
        bits = np.ascontiguousarray(table[packed]).view(np.uint32)
        return np.stack([bits >> shift & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)
    wanted = ", ".join(_COLUMNS[kind][0])
    has = ", ".join(names) if names else path.suffix
    raise SourceError(
        path, f"has no {kind}s ({wanted}; it has: {has}): give scans that have them, or use a net without them"
    )


def _as_colour(source: ScanSource, values: np.ndarray) -> np.ndarray:
    """From 0..255, or from 0..1 where there are fractions up to 1 alone."""
    colour = values.astype(np.float32)
    low, high = float(colour.min(initial=0)), float(colour.max(initial=0))
    if not (low >= 0 and high <= 255):  # NaN compares as false
        path = source.root / source.files.get("colour", source.files["points"])
        raise SourceError(path, f"has colours from {low:g} to {high:g}: 0 to 255, or 0 to 1; convert them")
    return colour if values.dtype.kind == "f" and high <= 1 else colour / 255


def _as_normal(values: np.ndarray, turn: np.ndarray) -> np.ndarray:
    normal = np.nan_to_num(values.astype(np.float64)) @ turn.T
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0).astype(np.float32)
