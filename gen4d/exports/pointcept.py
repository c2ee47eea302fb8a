"""Folders as Pointcept's `DefaultDataset` reads them: `train/<frame>/` with an array per column.

It takes `coord`, `segment` and `instance` from there, and would take `color` and `normal`, which sequences have not.
Its `ScanNetDataset` cannot do without those two. `actor` and `index` are the identity of each point, for a class of the
user's own.
"""

import io
from collections.abc import Mapping

import numpy as np

from gen4d.sequence import Frame, Sequence
from gen4d.sources.manifest import manifest


def encode(name: str, sequence: Sequence, about: dict) -> dict[str, Mapping[str, bytes]]:
    """A folder per frame, `train/<name>_00` and so on. Frame 0 is the last: once it is there, all are."""
    frames = reversed(list(enumerate(sequence)))
    return {f"train/{name}_{i:02d}": _folder(frame, about["label_space"]) for i, frame in frames}


def _folder(frame: Frame, label_space: str) -> dict[str, bytes]:
    columns = {"coord": frame.point, "actor": frame.actor, "index": frame.point_index, "instance": frame.instance}
    if frame.label is not None:
        columns["segment"] = segments(frame.label, label_space)
    return {f"{key}.npy": npy(value) for key, value in columns.items() if value is not None}


def segments(label: np.ndarray, label_space: str) -> np.ndarray:
    """Labels (N,) int32 as numbers of the classes that count in their label space's benchmark, from 0, -1 = none, as
    ScanNet's 20 in Pointcept. In a space without a benchmark they stay, but for those that mean no label."""
    space = manifest().label_spaces.get(label_space)
    if space is None:
        return label
    if not space.benchmark:
        return np.where(np.isin(label, space.ignore), -1, label).astype(np.int32)
    ids = np.array(space.benchmark)
    order = np.argsort(ids)
    at = np.searchsorted(ids[order], label).clip(max=len(ids) - 1)
    return np.where(ids[order][at] == label, order[at], -1).astype(np.int32)


def npy(array: np.ndarray) -> bytes:
    """The content of a `.npy` file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
