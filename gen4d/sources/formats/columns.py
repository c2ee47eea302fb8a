"""What every reader of points returns, whatever the file's format."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.source import SourceError

_LABEL_NAMES = ("label", "segment")
_INSTANCE_NAMES = ("instance",)


class PointColumns(NamedTuple):
    """The rows of a points file, in file order and in the file's own axes and units, NaN rows included.

    point (N, 3) float32 or float64; label and instance (N,) int32, or None where the file has none.
    """

    point: np.ndarray
    label: np.ndarray | None = None
    instance: np.ndarray | None = None


def columns_of(path: Path, rows: np.ndarray) -> PointColumns:
    """A table from a structured array that has columns x, y, z.

    Raises SourceError where one is missing, or a label is no integer.
    """
    names = rows.dtype.names or ()
    if missing := [axis for axis in "xyz" if axis not in names]:
        raise SourceError(
            path,
            f"has no column {', '.join(missing)} (columns: {', '.join(names) or 'none'}): a point needs x, y and z",
        )
    if any(rows.dtype[axis].shape for axis in "xyz"):
        raise SourceError(
            path,
            "has several values in x, y or z of one point: must be one number each, write it again",
        )
    wide = any(rows.dtype[axis].itemsize > 4 or rows.dtype[axis].kind in "iu" for axis in "xyz")
    point = np.empty((len(rows), 3), np.float64 if wide else np.float32)
    for axis, name in enumerate("xyz"):
        point[:, axis] = rows[name]
    instance = next((rows[name] for name in _INSTANCE_NAMES if name in names), None)
    return PointColumns(point, label_column(path, rows), integers(path, "instance", instance))


def label_column(path: Path, rows: np.ndarray) -> np.ndarray | None:
    """The labels (N,) int32 of a structured array, or None. Raises SourceError where they are no integers."""
    names = rows.dtype.names or ()
    return integers(path, "label", next((rows[name] for name in _LABEL_NAMES if name in names), None))


def integers(path: Path, name: str, values: np.ndarray | None) -> np.ndarray | None:
    """A copy of `values` as (N,) int32, or None for None. Raises SourceError unless they are whole numbers that fit."""
    if values is None:
        return None
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iufb":
        raise SourceError(
            path,
            f"has a column `{name}` of shape {values.shape} and type {values.dtype}: must be one integer per point",
        )
    if values.dtype.kind in "fu" or values.dtype.itemsize > 4:  # others fit as they are
        whole = not len(values) or bool(-(2**31) <= values.min() and values.max() < 2**31)  # NaN compares as false
        if not whole or (values.dtype.kind == "f" and (values != np.floor(values)).any()):
            raise SourceError(
                path,
                f"has values in `{name}` that are not whole numbers below 2^31, as ids must be: repair or remove them",
            )
    return values.astype(np.int32)
