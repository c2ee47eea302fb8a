"""Labelled shapes as sets of points: read by gen4d's readers from whatever it recognises, split, and few chosen.

Points are those of the files in their order, z up, in any unit. Where a shape is a mesh, they are drawn on its
surface, by its own name.
"""

import hashlib
import pathlib
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gen4d.moving.shape import ShapeError, make_model, sample_surface
from gen4d.sources import SourceError, load_shape
from gen4d.sources.manifest import is_litter
from gen4d.sources.pointsets import UNLABELLED, PointSource, find_any_shapes, load_points
from gen4d.sources.splits import read_split
from train.errors import Refused

PARTS = {"train": ("train", "training"), "test": ("test",)}  # as folders and files name them
NO_CLASS = ("other", UNLABELLED)  # labels that say that there is none
_SURFACE = 2048  # points that are drawn on a mesh


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
    """The shapes of a folder, or of one file of many in it. part: `train` or `test`, or None for all of them.

    Raises LabelledShapesError, SourceError.
    """
    if not path.exists():
        raise LabelledShapesError(f"{path}: is not there: give a folder of shapes, or a file of many")
    folder = path if path.is_dir() else path.parent
    if part:
        _check_list(folder, part)
    found = _find(folder, part)
    if found.refused:
        raise LabelledShapesError(found.refused[0][1])
    for warning in found.warnings:
        warnings.warn(warning, stacklevel=2)
    sources = [source for source in found.sources if path.is_dir() or folder / source.path == path]
    _check_variants(folder, sources)
    _check_empty(folder, sources)
    if not sources:
        raise LabelledShapesError(
            f"{path}: its folder was recognised as {found.entry}, of which it is no part: give it a folder of its own"
        )
    classes = tuple(sorted({source.class_name for source in sources} - set(NO_CLASS)))
    if not classes:
        raise LabelledShapesError(
            f"{path}: none of {len(sources)} shapes has a class: give labels, or folders of classes"
        )
    number = {name: i for i, name in enumerate(classes)} | dict.fromkeys(NO_CLASS, -1)
    label = np.array([number[source.class_name] for source in sources], np.int64)
    points = [_load(source) for source in sources]
    return Shapes(tuple(source.name for source in sources), points, label, _makers(folder, sources), classes)


def _find(folder: pathlib.Path, part: str | None):
    """The sources of a part: of the files that are named by it, or of those in its list."""
    listed = sorted(folder.glob(f"*_{part}.txt")) if part else []
    if listed:  # of ModelNet40 where there are ModelNet10's too
        found = find_any_shapes(folder, split=listed[-1])
        absent = sorted(set(read_split(listed[-1])) - {source.name for source in found.sources})
        if absent:
            raise LabelledShapesError(f"{listed[-1]}: names {absent[0]}, which is not there: restore it, or the list")
        return found
    refused = None
    for split in PARTS[part] if part else (None,):
        try:
            return find_any_shapes(folder, split=split)
        except (SourceError, OSError) as error:
            refused = refused or error
    if part and isinstance(refused, SourceError) and not has_parts(folder):
        raise LabelledShapesError(f"{folder}: has no part {part!r}: validate by folds instead, --folds 3")
    raise refused


def _check_list(folder: pathlib.Path, part: str) -> None:
    """Raises LabelledShapesError where ModelNet40's list of files names one that is not there. Its lines have folders
    of whoever wrote them."""
    listed = folder / f"{part}_files.txt"
    names = [pathlib.PurePosixPath(line).name for line in listed.read_text().split()] if listed.is_file() else []
    absent = next((name for name in names if not (folder / name).is_file()), None)
    if absent:
        raise LabelledShapesError(f"{listed}: names {absent}, which is not there: copy the folder again")


def _check_variants(folder: pathlib.Path, sources) -> None:
    """Raises LabelledShapesError where several variants of ScanObjectNN lie together."""
    files = sorted({source.path for source in sources if "_objectdataset" in source.path})
    if len(files) > 1:
        raise LabelledShapesError(f"{folder}: several variants of one part ({', '.join(files)}): leave one there")


def _check_empty(folder: pathlib.Path, sources) -> None:
    """Raises LabelledShapesError where a folder among those of the classes holds no file."""
    if any("/" not in source.path for source in sources):
        return
    for below in sorted(folder.iterdir()):
        if below.is_dir() and not is_litter(below.name) and not any(path.is_file() for path in below.rglob("*")):
            raise LabelledShapesError(
                f"{below}: holds no file, so a class of this name would have no shape: copy it again, or remove it"
            )


def has_parts(path: pathlib.Path) -> bool:
    """Whether shapes lie in parts train and test."""
    found = ("*/test", "test_*.h5", "*/test_*.h5", "*_test.txt", "*_test*.h5")
    return path.is_dir() and any(next(path.glob(pattern), None) for pattern in found)


def _load(source) -> np.ndarray:
    """A shape's points (n, 3) float32, those that are finite."""
    if isinstance(source, PointSource):
        point = load_points(source)[0].astype(np.float32)
        point = point[np.isfinite(point).all(axis=1)]
        if not len(point):
            raise LabelledShapesError(f"{source.root / source.path}: {source.name} has no finite point: remove it")
        return point
    mesh = load_shape(source)
    key = int.from_bytes(hashlib.sha256(source.name.encode()).digest()[:8], "little")
    try:
        model = make_model(mesh.vertex, mesh.face)
    except ShapeError as error:
        raise LabelledShapesError(f"{source.root / source.path}: {error}: remove it") from None
    return sample_surface(model, 1.0, _SURFACE, np.random.Generator(np.random.Philox(key=[key, 0])))[0]


def _makers(folder: pathlib.Path, sources) -> tuple[str, ...]:
    """Who made each shape, where an .npz says so (`creator`), or its own name."""
    creators: dict[str, np.ndarray] = {}
    for name in {source.path for source in sources if source.path.endswith(".npz")}:
        with np.load(folder / name, allow_pickle=False) as stored:
            if "creator" in stored.files:
                creators[name] = stored["creator"]
    return tuple(
        str(creators[source.path][source.row]) if source.path in creators else source.name for source in sources
    )


def same_classes(path: pathlib.Path, train: Shapes, test: Shapes) -> None:
    """Raises LabelledShapesError where two sides of the data at `path` do not know the same classes."""
    for side, other in ((train, test), (test, train)):
        if alone := sorted(set(side.classes) - set(other.classes)):
            having, lacking = ("train", "test") if side is train else ("test", "train")
            raise LabelledShapesError(
                f"{path}: {having} has the class {alone[0]} and {lacking} has not: both need the same classes; remove "
                f"it ({len(alone)} in all), or add shapes of it"
            )
    if train.classes != test.classes:
        raise LabelledShapesError(f"{path}: train and test have their classes in another order: give both the same")


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
    makers = [{shapes.group[row] for row in labelled.tolist() if shapes.label[row] == c} for c in range(len(total))]
    if lone := [shapes.classes[c] for c, own in enumerate(makers) if len(own) == 1]:
        raise LabelledShapesError(
            f"class {lone[0]}: all its shapes are of one maker (`creator`, or the shape itself), so no fold could be "
            "tested on it: add shapes of others, or remove the class"
        )
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
