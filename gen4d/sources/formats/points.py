"""Points files by suffix."""

from pathlib import Path

import numpy as np

from gen4d.sources.formats.arrays import npy_array, read_npy, read_npz
from gen4d.sources.formats.columns import PointColumns, columns_of, integers, label_column, points_of
from gen4d.sources.formats.pcd import pcd_rows
from gen4d.sources.formats.ply import ply_rows
from gen4d.sources.formats.survey import read_e57, read_las
from gen4d.sources.formats.xyz import read_xyz
from gen4d.sources.source import SourceError


def read_points(path: Path, content: bytes) -> PointColumns:
    """The points in `content`, the bytes of the file at `path`. Raises SourceError for whatever is wrong with them."""
    match path.suffix.lower():
        case ".ply":
            return columns_of(path, ply_rows(path, content))
        case ".pcd":
            return columns_of(path, pcd_rows(path, content))
        case ".npy":
            return read_npy(path, content)
        case ".npz":
            return read_npz(path, content)
        case ".xyz" | ".txt" | ".csv" | ".pts":
            return read_xyz(path, content)
        case ".las" | ".laz":
            return read_las(path, content)
        case ".e57":
            return read_e57(path, content)
    known = ".ply, .pcd, .npz, .npy, .xyz, .txt, .csv, .pts, .las, .laz and .e57"
    raise SourceError(path, f"has the suffix {path.suffix!r}: points are read from {known}")


def read_column(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """One whole number a point, (N,) int32: the property `label` of a .ply, or a .npy; and the points (N, 3) that a
    .ply says they belong to, None where it has none. Raises SourceError."""
    if path.suffix.lower() == ".npy":
        return integers(path, "the array", npy_array(path, content)), None
    rows = ply_rows(path, content)
    label = label_column(path, rows)
    if label is None:
        raise SourceError(path, "has no property `label`: copy it again, or remove it to go without labels")
    return label, points_of(path, rows) if {"x", "y", "z"} <= set(rows.dtype.names) else None
