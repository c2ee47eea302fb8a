"""What every reader of points returns, whatever the file's format, and what its columns may be called."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.source import SourceError

# As columns are called in files, lower-case and without the `scalar_` that CloudCompare puts in front. What holds the
# first names is an id or the file is broken; the others are taken where they hold whole numbers.
LABEL_NAMES, INSTANCE_NAMES = ("label", "segment"), ("instance",)
_LABELS = ("labels", "segment20", "semantic_gt20", "semantic", "semantics", "semantic_label", "semantic_id")
_LABELS += ("sem_label", "class", "class_id", "classification", "category", "category_id", "label_id")
_LABELS += ("nyu40", "nyu40id")
_INSTANCES = ("instances", "instance_id", "instance_label", "ins_label", "inst", "object", "object_id", "objectid")
# Columns that carry no ids: nobody misses them.
_LOOKS = {"red", "green", "blue", "alpha", "r", "g", "b", "a", "rgb", "rgba", "color", "colour", "colors", "colours"}
_LOOKS |= {"nx", "ny", "nz", "n_x", "n_y", "n_z", "normal", "normals", "normal_x", "normal_y", "normal_z", "curvature"}
_LOOKS |= {"intensity", "reflectance", "reflectivity", "quality", "confidence", "value", "radius", "scale"}
_LOOKS |= {"u", "v", "s", "t", "texture_u", "texture_v", "time", "timestamp", "gps_time", "ring", "range", "tris"}


class PointColumns(NamedTuple):
    """The rows of a points file, in file order and in the file's own axes and units, NaN rows included.

    point (N, 3) float32 or float64; label and instance (N,) int32, or None where the file has none; unused: columns
    that may be ids and were not taken.
    """

    point: np.ndarray
    label: np.ndarray | None = None
    instance: np.ndarray | None = None
    unused: tuple[str, ...] = ()


def plain_name(name: str) -> str:
    """A column's name as names are compared."""
    return name.strip().lower().removeprefix("scalar_").replace(" ", "_").replace("-", "_")


def columns_of(path: Path, rows: np.ndarray) -> PointColumns:
    """A table from a structured array that has columns x, y, z.

    Raises SourceError where one is missing, or a label is no integer.
    """
    axes = _axes(path, rows)
    columns = {name: rows[name] for name in rows.dtype.names or () if name not in axes}
    return with_ids(path, points_of(path, rows), columns)


def points_of(path: Path, rows: np.ndarray) -> np.ndarray:
    """The points (N, 3), float32 or float64, of a structured array. Raises SourceError where x, y or z is missing."""
    axes = _axes(path, rows)
    wide = any(rows.dtype[axis].itemsize > 4 or rows.dtype[axis].kind in "iu" for axis in axes)
    point = np.empty((len(rows), 3), np.float64 if wide else np.float32)
    for column, axis in enumerate(axes):
        point[:, column] = rows[axis]
    return point


def _axes(path: Path, rows: np.ndarray) -> list[str]:
    """The names of the columns x, y and z."""
    names = rows.dtype.names or ()
    axes = [axis if axis in names else axis.upper() for axis in "xyz"]
    if missing := [axis.lower() for axis in axes if axis not in names]:
        raise SourceError(
            path,
            f"has no column {', '.join(missing)} (columns: {', '.join(names) or 'none'}): a point needs x, y and z",
        )
    if any(rows.dtype[axis].shape for axis in axes):
        raise SourceError(
            path,
            "has several values in x, y or z of one point: must be one number each, write it again",
        )
    return axes


def with_ids(path: Path, point: np.ndarray, columns: Mapping[str, np.ndarray]) -> PointColumns:
    """A table of points and what there is besides. Raises SourceError where a label or an instance is no integer."""
    label_name, label = _ids(path, columns, LABEL_NAMES, _LABELS)
    instance_name, instance = _ids(path, columns, INSTANCE_NAMES, _INSTANCES)
    unused = [name for name in columns if name not in (label_name, instance_name) and not _is_look(name)]
    return PointColumns(point, label, instance, tuple(unused))


def has_ids(name: str) -> bool:
    """Whether a column of that name may hold labels or instances."""
    return plain_name(name) in LABEL_NAMES + _LABELS + INSTANCE_NAMES + _INSTANCES


def _is_look(name: str) -> bool:
    return name.startswith("_") or plain_name(name) in _LOOKS


def label_column(path: Path, rows: np.ndarray) -> np.ndarray | None:
    """The labels (N,) int32 of a structured array, or None. Raises SourceError where they are no integers."""
    names = [name for name in rows.dtype.names or () if name not in ("x", "y", "z")]
    return _ids(path, {name: rows[name] for name in names}, LABEL_NAMES, _LABELS)[1]


def _ids(
    path: Path, columns: Mapping[str, np.ndarray], names: tuple[str, ...], others: tuple[str, ...]
) -> tuple[str, np.ndarray | None]:
    """The name and the values (N,) int32 of the first column that is called so, or nothing."""
    for name in _called(columns, names):
        return name, integers(path, name, columns[name])
    for name in _called(columns, others):
        try:
            return name, integers(path, name, columns[name])
        except SourceError:  # a name that others use for something else
            continue
    return "", None


def _called(columns: Iterable[str], names: tuple[str, ...]) -> list[str]:
    """The columns of these names, in the order of the names, as they are before those with a prefix or in capitals."""
    exact = [name for name in names if name in columns]
    return exact + [column for name in names for column in columns if plain_name(column) == name and column != name]


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
