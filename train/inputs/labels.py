"""Labels as classes of a benchmark. Which ids are classes, which mean nothing and what they are called is data:
`label_spaces` in datasets_manifest.yaml.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gen4d.sources.entries import UNKNOWN
from gen4d.sources.manifest import entry_of, manifest
from train.errors import Refused

NONE = -1  # in a truth: the point does not count; in a prediction: there is none


class SceneError(Refused):
    """Labelled scans that cannot be used; the message names the scan, what is wrong and what to do."""


class LabelTable(NamedTuple):
    """The classes of a label space's benchmark. names, ids (K,): of class 0, 1, ..; known: every id that may occur."""

    space: str
    names: tuple[str, ...]
    ids: tuple[int, ...]
    known: frozenset[int]

    def classes_of(self, label: np.ndarray) -> np.ndarray:
        """Ids (N,) as classes (N,) int16; NONE for ids outside the benchmark. Raises SceneError for unknown ids."""
        ids, inverse = np.unique(label, return_inverse=True)
        odd = [int(i) for i in ids if int(i) not in self.known]
        if odd:
            number = int((label == odd[0]).sum())
            raise SceneError(
                f"has the label {odd[0]} on {number} of {len(label)} points, which {self.space} does not know: repair "
                f"the labels, name the right table by --set label_space=..., or list {odd[0]} under `ignore` of "
                f"{self.space} in a manifest of yours (--manifest)"
            )
        number_of = {source: number for number, source in enumerate(self.ids)}
        return np.array([number_of.get(int(i), NONE) for i in ids], np.int16)[inverse]


def label_table(space: str) -> LabelTable:
    """The table of a label space of the manifest. Raises SceneError."""
    spaces = manifest().label_spaces
    if space not in spaces:
        known = ", ".join(spaces)
        named = "of these scans" if space in ("", UNKNOWN) else repr(space)
        raise SceneError(f"the label space {named} is not known: --set label_space= one of {known}")
    found = spaces[space]
    names = tuple(found.names[i] for i in found.benchmark)
    return LabelTable(space, names, found.benchmark, frozenset(found.names) | frozenset(found.ignore))


def benchmark_ids(names: Sequence[str], table: LabelTable) -> tuple[int, ...]:
    """The id that a benchmark's result files hold for each class: ScanNet's are nyu40's, whatever the scans hold."""
    nyu40 = {name: number for number, name in manifest().label_spaces["nyu40"].names.items()}
    return tuple(nyu40[name] for name in names) if all(name in nyu40 for name in names) else table.ids


def table_of(entry: str, label_space: str) -> LabelTable:
    """The label table of a data set: its own, or the one that the user names instead of `auto`."""
    return label_table(entry_of(entry).label_space if label_space == "auto" else label_space)
