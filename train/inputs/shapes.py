"""Labelled shapes as sets of points: read from what lies on users' disks, split, and few of them chosen.

    <class>/{train,test}/*.off            ModelNet; .obj and .glb too, and without parts: any folder of classes
    modelnet40_normal_resampled/          10,000 rows of x, y, z and normals a shape, lists of train and test
    modelnet40_ply_hdf5_2048/             ply_data_*.h5 with lists of their files
    h5_files/main_split/                  ScanObjectNN: training_objectdataset*.h5, test_objectdataset*.h5
    *.npz                                 point (M, N, 3), label (M,), and if there are any name and creator

Points are those of the files, in any unit. Where a shape is a mesh, they are drawn on its surface, by its own name.
"""

import hashlib
import pathlib
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import h5py
import numpy as np

from gen4d import sources
from gen4d.moving.shape import ShapeError, make_model, sample_surface
from train.errors import Refused

PARTS = ("train", "test")
NO_CLASS = "other"  # a label that says that there is none
_SURFACE = 2048  # points that are drawn on a mesh
_LISTED = 8


class LabelledShapesError(Refused):
    """Shapes that cannot be used; the message names the file, what is wrong and what to do."""


class Shapes(NamedTuple):
    """M shapes. point: of each (n, 3) float32; label (M,) int64: class, -1 where it has none; group: who made each, or
    its own name, so that shapes of one maker can be kept on one side."""

    name: tuple[str, ...]
    point: Sequence[np.ndarray]
    label: np.ndarray
    group: tuple[str, ...]
    classes: tuple[str, ...]

    def of(self, rows) -> "Shapes":
        """Some of them, in this order."""
        rows = np.asarray(rows, np.int64)
        pick = rows.tolist()
        names, groups = (tuple(values[i] for i in pick) for values in (self.name, self.group))
        return Shapes(names, [self.point[i] for i in pick], self.label[rows], groups, self.classes)

    @property
    def digest(self) -> str:
        """SHA-256 over names, labels and points."""
        sha = hashlib.sha256("\n".join((*self.classes, "", *self.name)).encode())
        sha.update(self.label.tobytes())
        for point in self.point:
            sha.update(np.ascontiguousarray(point).tobytes())
        return sha.hexdigest()


# Reading -------------------------------------------------------------------------------------------------------------


def read_shapes(path: pathlib.Path, part: str | None) -> Shapes:
    """The shapes of a folder or .npz file. part: `train` or `test`, or None for those of data that have no parts.

    Raises LabelledShapesError, SourceError.
    """
    if not path.exists():
        raise LabelledShapesError(f"{path}: is not there: give a folder of shapes, or an .npz file")
    npz = path if path.is_file() else next(iter(sorted(path.glob("*.npz"))), None)
    if npz is not None:
        found = None if part else _read_npz(npz)
    elif list(path.glob("*.h5")):
        found = _read_hdf5(path, part)
    elif list(path.glob("*_shape_names.txt")):
        found = _read_resampled(path, part)
    else:
        found = _read_meshes(path, part)
    if found is None:
        raise LabelledShapesError(f"{path}: has no part {part!r}: validate by folds instead, --folds 5")
    return _checked(path, found, part)


def has_parts(path: pathlib.Path) -> bool:
    """Whether shapes lie in parts train and test."""
    if path.is_file() or list(path.glob("*.npz")):
        return False
    return bool(list(path.glob("*.h5")) or list(path.glob("*_shape_names.txt")) or list(path.glob("*/test")))


def _checked(path: pathlib.Path, shapes: Shapes, part: str | None) -> Shapes:
    """Raises LabelledShapesError where a class is empty or a shape has no finite points."""
    where = f"{path}: {part + ': ' if part else ''}"
    if not len(shapes.point):
        raise LabelledShapesError(f"{where}holds no shape: give a folder of classes with files in them")
    count = np.bincount(shapes.label[shapes.label >= 0], minlength=len(shapes.classes))
    empty = [name for name, number in zip(shapes.classes, count, strict=True) if not number]
    if empty:
        listed = ", ".join(empty[:_LISTED])
        raise LabelledShapesError(f"{where}no shape of the class {listed}: add some, or remove the class everywhere")
    for name, point in zip(shapes.name, shapes.point, strict=True):
        if point.ndim != 2 or point.shape[1] != 3 or not len(point) or not np.isfinite(point).all():
            raise LabelledShapesError(f"{where}{name} has points of shape {point.shape}, or NaN: repair or remove it")
    return shapes


def _read_npz(path: pathlib.Path) -> Shapes:
    try:
        with np.load(path, allow_pickle=False) as stored:
            tables = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise LabelledShapesError(f"{path}: no .npz of plain arrays ({error}): write it again") from None
    point, label = tables.get("point"), tables.get("label")
    if point is None or label is None or point.ndim != 3 or point.shape[2] != 3 or label.shape != point.shape[:1]:
        shapes = {name: value.shape for name, value in tables.items()}
        raise LabelledShapesError(f"{path}: has arrays {shapes}: it needs point (M, N, 3) and label (M,)")
    names = [str(name) for name in tables.get("name", np.arange(len(point)))]
    names = [f"{number:04d} {name}" for number, name in enumerate(names)]
    classes = tuple(sorted({str(name) for name in label} - {NO_CLASS}))
    number = {name: i for i, name in enumerate(classes)} | {NO_CLASS: -1}
    own = np.array([number[str(name)] for name in label], np.int64)
    group = tuple(str(name) for name in tables.get("creator", names))
    return Shapes(tuple(names), list(point.astype(np.float32)), own, group, classes)


def _read_hdf5(path: pathlib.Path, part: str | None) -> Shapes:
    """ModelNet40 and ScanObjectNN."""
    if part is None:
        raise LabelledShapesError(f"{path}: has the parts train and test: leave --folds out")
    listed = path / f"{part}_files.txt"
    if listed.is_file():  # its lines name folders of whoever wrote them
        files = [path / pathlib.PurePosixPath(line).name for line in listed.read_text().split()]
    else:
        stem = {"train": "training", "test": "test"}[part]
        files = sorted(path.glob(f"{stem}_objectdataset*.h5"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise LabelledShapesError(f"{path}: several variants of the part {part} ({names}): leave one in the folder")
    absent = [file.name for file in files if not file.is_file()]
    if absent or not files:
        what = f"{listed.name} names {absent[0]}, which is not there" if absent else f"no .h5 of the part {part}"
        raise LabelledShapesError(f"{path}: {what}: copy the folder again")
    points, labels = zip(*map(_read_h5, files), strict=True)
    point, label = np.concatenate(points), np.concatenate(labels)
    names_file = path / "shape_names.txt"
    classes = tuple(names_file.read_text().split()) if names_file.is_file() else tuple(map(str, range(label.max() + 1)))
    if label.max() >= len(classes):
        raise LabelledShapesError(f"{names_file}: names {len(classes)} classes, a shape has {label.max()}: restore it")
    names = tuple(f"{part}_{number:05d}" for number in range(len(point)))
    return Shapes(names, list(point), label, names, classes)


def _read_h5(file: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with h5py.File(file) as stored:
            point, label = stored["data"][:], stored["label"][:]
    except (OSError, KeyError) as error:
        raise LabelledShapesError(f"{file}: not an HDF5 file with data and label ({error}): copy it again") from None
    if point.ndim != 3 or point.shape[2] != 3 or label.size != len(point) or label.dtype.kind not in "iu":
        rule = "(M, N, 3) numbers and M whole ones are needed"
        raise LabelledShapesError(f"{file}: data {point.shape} and label {label.shape} {label.dtype}: {rule}")
    return point.astype(np.float32), label.reshape(-1).astype(np.int64)


def _read_resampled(path: pathlib.Path, part: str | None) -> Shapes:
    """ModelNet40 or 10 as points with normals. A shape's class is its name without the last number."""
    if part is None:
        raise LabelledShapesError(f"{path}: has the parts train and test: leave --folds out")
    names_file = sorted(path.glob("*_shape_names.txt"))[-1]  # of ModelNet40 where both are there
    classes = tuple(names_file.read_text().split())
    listed = names_file.with_name(names_file.name.replace("shape_names", part))
    if not listed.is_file():
        raise LabelledShapesError(f"{listed}: is not there: restore the list of the part {part}")
    names = tuple(listed.read_text().split())
    number = {name: i for i, name in enumerate(classes)}
    unknown = next((name for name in names if name.rpartition("_")[0] not in number), None)
    if unknown:
        raise LabelledShapesError(f"{listed}: {unknown} is of no class of {names_file.name}: restore either")
    label = np.array([number[name.rpartition("_")[0]] for name in names], np.int64)
    points = [_read_rows(path / name.rpartition("_")[0] / f"{name}.txt") for name in names]
    return Shapes(names, points, label, names, classes)


def _read_rows(file: pathlib.Path) -> np.ndarray:
    """x, y and z of a text file of points, with commas or blanks between."""
    try:
        text = file.read_text()
        separator = "," if "," in text[:200] else None
        rows = np.loadtxt(text.splitlines(), np.float32, delimiter=separator, ndmin=2)
    except OSError as error:
        raise LabelledShapesError(f"{file}: {error.strerror}: restore it, or take it out of the list") from None
    except ValueError as error:
        raise LabelledShapesError(f"{file}: not rows of numbers ({error}): copy it again") from None
    if rows.shape[1] < 3:
        raise LabelledShapesError(f"{file}: {rows.shape[1]} numbers a row: x, y and z are needed")
    return np.ascontiguousarray(rows[:, :3])


def _read_meshes(path: pathlib.Path, part: str | None) -> Shapes:
    """A folder of classes, as gen4d finds them; points are drawn on the surfaces."""
    found = sources.find_shapes(path, split=part)
    if found.refused:
        raise LabelledShapesError(found.refused[0][1])
    classes = tuple(sorted({source.class_name for source in found.sources}))
    number = {name: i for i, name in enumerate(classes)}
    points = [_draw_surface(source) for source in found.sources]
    names = tuple(source.name for source in found.sources)
    label = np.array([number[source.class_name] for source in found.sources], np.int64)
    return Shapes(names, points, label, names, classes)


def _draw_surface(source) -> np.ndarray:
    mesh = sources.load_shape(source)
    key = int.from_bytes(hashlib.sha256(source.name.encode()).digest()[:8], "little")
    try:
        model = make_model(mesh.vertex, mesh.face)
    except ShapeError as error:
        raise LabelledShapesError(f"{source.root / source.path}: {error}: remove it") from None
    return sample_surface(model, 1.0, _SURFACE, np.random.Generator(np.random.Philox(key=[key, 0])))


def same_classes(train: Shapes, test: Shapes) -> None:
    """Raises LabelledShapesError where two sides do not know the same classes."""
    odd = sorted(set(train.classes) ^ set(test.classes))
    if odd or train.classes != test.classes:
        what = f"the class {odd[0]}" if odd else "another order of classes"
        raise LabelledShapesError(f"only one of train and test has {what}: both need the same classes")


# Choosing ------------------------------------------------------------------------------------------------------------


def few_rows(label: np.ndarray, percent: float, seed: int) -> np.ndarray:
    """Rows of `percent` of labels (M,): one of each class first, at least, and then any; smaller shares lie in larger
    ones (STRL, section 5.2.1)."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
    order = rng.permutation(len(label))
    _, first = np.unique(label[order], return_index=True)
    rest = np.setdiff1d(np.arange(len(label)), first)  # in the order of the draw
    chosen = np.concatenate([order[first], order[rest]])
    return np.sort(chosen[: max(len(first), round(len(label) * percent / 100))])


def folds_of(shapes: Shapes, count: int, seed: int) -> np.ndarray:
    """A fold (M,) from 0 to count - 1 of every shape that has a class, -1 of the others. Groups are never cut.

    Greedy: groups, largest first, each to the fold in which its classes are rarest. Raises LabelledShapesError where a
    class would be missing from a fold's training side.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, 3]))
    labelled = np.flatnonzero(shapes.label >= 0)
    groups: dict[str, list[int]] = {}
    for row in labelled.tolist():
        groups.setdefault(shapes.group[row], []).append(row)
    names = sorted(groups)
    names = [names[i] for i in rng.permutation(len(names))]
    held = np.zeros((count, len(shapes.classes)))
    total = np.bincount(shapes.label[labelled], minlength=len(shapes.classes))
    fold = np.full(len(shapes.label), -1)
    for name in sorted(names, key=lambda name: -len(groups[name])):
        own = np.bincount(shapes.label[groups[name]], minlength=len(shapes.classes)) / total
        best = int(np.argmin(((held + own) ** 2).sum(axis=1) - (held**2).sum(axis=1)))
        held[best] += own
        fold[groups[name]] = best
    full = [(f, c) for f in range(count) for c in range(len(shapes.classes)) if held[f, c] > 1 - 1e-9]
    if full:
        f, c = full[0]
        raise LabelledShapesError(
            f"class {shapes.classes[c]}: all its shapes would be in fold {f}, since they are of too few makers "
            "(`creator`): use fewer folds, or another seed"
        )
    return fold


def take_points(point: np.ndarray, count: int, how: str, rng: np.random.Generator) -> np.ndarray | None:
    """`count` of a shape's points (n, 3): `random`, or the `first` of its rows; None where it has fewer."""
    if len(point) < count:
        return None
    if how == "first":
        return point[:count]
    return point[rng.choice(len(point), count, replace=False)]
