"""What every reader of points returns, whatever the file's format."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.files import SourceError

_LABEL_NAMES = ("label", "segment")
_INSTANCE_NAMES = ("instance",)


class PointTable(NamedTuple):
    """The rows of a points file, in file order and in the file's own axes and units, NaN rows included.

    point (N, 3) float32 or float64; label and instance (N,) int32, or None where the file has none.
    """

    point: np.ndarray
    label: np.ndarray | None = None
    instance: np.ndarray | None = None


def table_from_columns(path: Path, rows: np.ndarray) -> PointTable:
    """A table from a structured array that has columns x, y, z.

    Raises SourceError where one is missing, or a label is no integer.
    """
    names = rows.dtype.names or ()
    if missing := [axis for axis in "xyz" if axis not in names]:
        raise SourceError(path, f"has no column {', '.join(missing)} (columns: {', '.join(names) or 'none'})")
    wide = any(rows.dtype[axis].itemsize > 4 or rows.dtype[axis].kind in "iu" for axis in "xyz")
    point = np.empty((len(rows), 3), np.float64 if wide else np.float32)
    for axis, name in enumerate("xyz"):
        point[:, axis] = rows[name]
    label = next((rows[name] for name in _LABEL_NAMES if name in names), None)
    instance = next((rows[name] for name in _INSTANCE_NAMES if name in names), None)
    return PointTable(point, integers(path, "label", label), integers(path, "instance", instance))


def integers(path: Path, name: str, values: np.ndarray | None) -> np.ndarray | None:
    """`values` as (N,) int32, or None for None. Raises SourceError unless they are whole numbers that fit."""
    if values is None:
        return None
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iufb":
        raise SourceError(path, f"has a column `{name}` of shape {values.shape} and type {values.dtype}: (N,) integers")
    if len(values) and not (np.abs(values.astype(np.float64)) < 2**31).all():
        raise SourceError(
            path, f"has a column `{name}` with values that are NaN or beyond 2^31: ids are small integers"
        )
    whole = values.astype(np.int32)
    if not np.array_equal(whole, values):
        raise SourceError(path, f"has a column `{name}` with fractions: labels and instances are whole numbers")
    return whole
