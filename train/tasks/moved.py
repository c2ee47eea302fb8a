"""Whether features know a class wherever its shape has moved: moving shapes among the k-NN probe's furniture at rest.

Shapes of a data set of sequences stand in for the class that they are of, in the last of their frames; their points ask
the samples that the probe learned from, which are of labelled scans, where nothing moves. Beside them stands the same
for furniture at rest in judged scans. Shapes are other models than that furniture, and stand elsewhere: what is lost
between the two is not motion alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gen4d.sequence import ROLE_MOVING, Sequence
from gen4d.shards import Dataset
from train.inputs.labels import LabelTable
from train.inputs.order import keyed_generator


class Asked(NamedTuple):
    """Points (N, 3) of a frame, the rows (n,) of its moving shapes that are asked for, their classes (n,)."""

    point: np.ndarray
    row: np.ndarray
    label: np.ndarray


class Moved(NamedTuple):
    """Share of points that get their class, the mean over the classes that both moving shapes and judged scans have:
    of moving shapes, and of furniture at rest."""

    moving: float
    resting: float
    classes: tuple[str, ...]


def asked_of(sequence: Sequence, table: LabelTable, most: int, rng: np.random.Generator) -> Asked | None:
    """Up to `most` points of the moving shapes in the last frame; None where none is of a class of the table."""
    frame = sequence.frame(-1)
    classes = np.full(len(sequence.actors), -1)
    for number, actor in enumerate(sequence.actors):
        if actor.role == ROLE_MOVING and sequence.movers[actor.mover].class_name in table.names:
            classes[number] = table.names.index(sequence.movers[actor.mover].class_name)
    label = classes[frame.actor]
    row = np.sort(rng.permutation(np.flatnonzero(label >= 0))[:most])
    return Asked(frame.point, row, label[row]) if len(row) else None


def moved(
    dataset: Dataset,
    table: LabelTable,
    vote: Callable[[np.ndarray, np.ndarray], np.ndarray],
    resting: np.ndarray,
    queries: int,
    seed: int,
) -> Moved | None:
    """What votes say of moving shapes; None where no shape is of a class that judged scans have. vote: classes (n,) of
    rows (n,) of points (N, 3); resting (K, K + 1): confusion of points of judged scans."""
    count = np.zeros((len(table.names), 2), np.int64)
    share = -(-queries // max(len(dataset), 1))
    for number in range(len(dataset)):
        asked = asked_of(dataset[number], table, share, keyed_generator(seed, 3, number))
        if asked is not None:
            right = vote(asked.point, asked.row) == asked.label
            np.add.at(count, (asked.label, right.astype(int)), 1)
    there = np.flatnonzero(count.any(axis=1) & resting.any(axis=1))
    if not len(there):
        return None
    recall = np.diag(resting)[there] / resting[there].sum(axis=1)
    return Moved(
        float((count[there, 1] / count[there].sum(axis=1)).mean()),
        float(recall.mean()),
        tuple(table.names[number] for number in there),
    )
