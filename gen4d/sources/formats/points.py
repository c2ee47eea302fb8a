"""Points files by suffix."""

from pathlib import Path

import numpy as np

from gen4d.sources.formats.arrays import npy_array, read_npy, read_npz
from gen4d.sources.formats.columns import PointColumns, columns_of, integers, label_column
from gen4d.sources.formats.pcd import pcd_rows
from gen4d.sources.formats.ply import ply_rows
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
    raise SourceError(path, f"has the suffix {path.suffix!r}: points are read from .ply, .pcd, .npz and .npy")


def read_column(path: Path, content: bytes) -> np.ndarray:
    """One whole number a point, (N,) int32: the property `label` of a .ply, or a .npy. Raises SourceError."""
    if path.suffix.lower() == ".npy":
        return integers(path, "the array", npy_array(path, content))
    label = label_column(path, ply_rows(path, content))
    if label is None:
        raise SourceError(path, "has no property `label`: copy it again, or remove it to go without labels")
    return label
