"""A scan that lies object by object: a folder with a text of points for each, named by class and number (S3DIS)."""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.entries import Entry, Repair
from gen4d.sources.formats.xyz import xyz_rows
from gen4d.sources.manifest import is_litter, manifest
from gen4d.sources.source import SourceError, SourceFile, read_file

_COLUMNS = 6  # x, y, z, red, green, blue


class Objects(NamedTuple):
    """Points (N, 3) float64 of all objects, which lie in the order of their files' names; label and instance (N,)
    int32, colour (N, 3) float32 as it is stored; doubts: what was repaired, a line each."""

    point: np.ndarray
    label: np.ndarray
    instance: np.ndarray
    colour: np.ndarray
    doubts: tuple[str, ...]


def read_objects(root: Path, folder: str, entry: Entry, files: list[SourceFile]) -> Objects:
    """All objects of a scan, `root / folder / <class>_<number>.txt`; what is read is added to `files`.

    Classes are those of the data set's label space, by the names that `classes` of the manifest gives them. Raises
    SourceError for other classes, and for lines that are not six numbers unless `repairs` of the manifest says what
    they should read.
    """
    names = sorted(path.name for path in (root / folder).glob("*.txt") if not is_litter(path.name))
    if not names:
        raise SourceError(root / folder, "holds no texts of objects (chair_1.txt and so on): unpack them again")
    numbers = {name: number for number, name in manifest().label_spaces[entry.label_space].names.items()}
    rows, labels, doubts = [], [], []
    for name in names:
        relative = f"{folder}/{name}"
        labels.append(_class_of(root / relative, entry, numbers))
        content, file = read_file(root, relative)
        files.append(file)
        content, repaired = repair(entry.repairs, relative, content)
        doubts += repaired
        try:
            values, _ = xyz_rows(root / relative, content)
        except SourceError as error:
            rule = f"or say what it should read under `repairs` of {entry.name} in a manifest of yours"
            raise SourceError(root / relative, f"{error.problem}, {rule}") from None
        if values.shape[1] != _COLUMNS:
            text = f"has {values.shape[1]} numbers a line where x, y, z, red, green and blue belong: copy it again"
            raise SourceError(root / relative, text)
        rows.append(values)
    table, counts = np.concatenate(rows), [len(values) for values in rows]
    label, instance = (np.repeat(np.array(ids, np.int32), counts) for ids in (labels, range(len(names))))
    return Objects(np.ascontiguousarray(table[:, :3]), label, instance, table[:, 3:].astype(np.float32), tuple(doubts))


def _class_of(path: Path, entry: Entry, numbers: Mapping[str, int]) -> int:
    """The label of an object by its file's name."""
    name = path.stem.rpartition("_")[0] or path.stem
    known = entry.classes.get(name, name)
    if known not in numbers:
        raise SourceError(
            path,
            f"is of the class {name!r}, which {entry.label_space} does not know: rename the file, or say what it "
            f"counts as under `classes` of {entry.name} in a manifest of yours (--manifest)",
        )
    return numbers[known]


def repair(repairs: tuple[Repair, ...], relative: str, content: bytes) -> tuple[bytes, list[str]]:
    """A text with what the rules for it say in place of what they find exactly once, and a line for each such place."""
    doubts = []
    for rule in repairs:
        found = rule.found.encode()
        if fnmatch.fnmatchcase(relative, rule.file) and content.count(found) == 1:
            at = content.index(found)
            content = content[:at] + rule.put.encode() + content[at + len(found) :]
            doubts.append(f"{relative}: has {rule.found!r} at byte {at}: read as {rule.put!r}, as the manifest says")
    return content, doubts
