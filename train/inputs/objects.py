"""The objects of labelled scans: which points each has, its class, and the box around it.

An object is an instance of a class that counts: not one of `stuff`, which surrounds all others, and not one whose
points have no class. Its class is the one that most of its points have, the lowest of equals. Its box is the smallest
one along the axes around all points of the file (not around a sample of them), after the scan's alignment where there
is one; boxes that lie beside the points are taken as they are. Where points have no instances, as in SUN RGB-D, they
belong to the boxes that they lie in.

Shapes. N points, G instances, B boxes. A box is (centre x y z, size x y z, heading), metres and radians.
"""

import warnings
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from train.inputs.labels import NONE, LabelTable, SceneError
from train.inputs.scans import LabelledScan

STUFF = ("wall", "floor")  # of ScanNet's 20 classes, those that neither instances nor boxes are evaluated for


class Instances(NamedTuple):
    """number (N,) int32: the instance of each point from 0, NONE for none; kind (G,) int64: its class, NONE for what is
    no object."""

    number: np.ndarray
    kind: np.ndarray


class Boxes(NamedTuple):
    """Objects of a scan with boxes around them. point (N, 3) float32 aligned; box (B, 7) float64; kind (B,) int64;
    owner (N,) int32: the box of each point's object, NONE for none; None: points belong to the boxes they lie in."""

    point: np.ndarray
    box: np.ndarray
    kind: np.ndarray
    owner: np.ndarray | None


def stuff_classes(table: LabelTable, names: Collection[str]) -> frozenset[int]:
    """Classes that are no objects. Raises SceneError where no class is left."""
    found = frozenset(number for number, name in enumerate(table.names) if name in names)
    if len(found) == len(table.names):
        raise SceneError(f"stuff = {', '.join(names)}: those are all classes of {table.space}, leave one to be found")
    return found


def instances_of(scan: LabelledScan, stuff: Collection[int], classes: int) -> Instances:
    """Instances of a scan that has labels and instances."""
    ids, number = np.unique(scan.instance, return_inverse=True)
    none = int((ids < 0).sum())
    number = number.astype(np.int32) - none
    kind = np.full(len(ids) - none, NONE, np.int64)
    inside = number >= 0
    label = scan.label[inside]
    cell = number[inside].astype(np.int64) * (classes + 1) + np.where(label == NONE, classes, label)
    count = np.bincount(cell, minlength=len(kind) * (classes + 1)).reshape(-1, classes + 1)
    best = count.argmax(axis=1) if len(count) else kind
    known = (best < classes) & ~np.isin(best, list(stuff))
    return Instances(np.maximum(number, NONE), np.where(known, best, NONE))


def boxes_of(scan: LabelledScan, stuff: Collection[int], classes: int) -> Boxes:
    """Boxes of a scan's objects."""
    point = aligned(scan)
    if scan.instance is None:
        return Boxes(point, *_counted(scan.box, stuff), None)
    number, kind = instances_of(scan, stuff, classes)
    owner, box, of_kind = np.full(len(number), NONE, np.int32), [], []
    for g in np.flatnonzero(kind >= 0):
        mine = number == g
        low, high = (bound(point[mine], axis=0).astype(np.float64) for bound in (np.min, np.max))
        owner[mine] = len(box)
        box.append([*(low + high) / 2, *(high - low), 0.0])
        of_kind.append(kind[g])
    made = Boxes(point, np.array(box).reshape(-1, 7), np.array(of_kind, np.int64), owner)
    return made if scan.box is None else _stored(made, scan.box, stuff)


def _stored(made: Boxes, stored: np.ndarray, stuff: Collection[int]) -> Boxes:
    """Stored boxes in place of those around points: an object's is the one of its class whose centre is nearest, where
    that lies in the box around its points or the other way round."""
    box, kind = _counted(stored, stuff)
    of_object = np.full(len(made.box) + 1, NONE, np.int32)  # the last one: of points of no object
    for number, (own, its) in enumerate(zip(made.box, made.kind, strict=True)):
        apart = np.linalg.norm(box[:, :3] - own[:3], axis=1)
        apart[kind != its] = np.inf
        if len(apart) and np.isfinite(apart.min()):
            nearest = int(apart.argmin())
            if (np.abs(box[nearest, :3] - own[:3]) <= np.maximum(box[nearest, 3:6], own[3:6]) / 2 + 1e-6).all():
                of_object[number] = nearest
    return Boxes(made.point, box, kind, of_object[made.owner])


def _counted(stored: np.ndarray, stuff: Collection[int]) -> tuple[np.ndarray, np.ndarray]:
    """Stored boxes of classes that count, (B, 7), and their classes."""
    kept = stored[~np.isin(stored[:, 7], [NONE, *stuff])]
    return kept[:, :7], kept[:, 7].astype(np.int64)


def aligned(scan: LabelledScan) -> np.ndarray:
    """A scan's points (N, 3) float32 along its data set's axes; as they lie where there is no alignment."""
    if scan.alignment is None:
        return scan.point
    turned = scan.point.astype(np.float64) @ scan.alignment[:3, :3].T + scan.alignment[:3, 3]
    return turned.astype(np.float32)


def with_instances(scans: Sequence[LabelledScan], what: str, boxes: bool = False) -> list[LabelledScan]:
    """The scans that have instances, or boxes if these do; the others are left out with a warning. what: which scans
    they are, for the line.

    Raises SceneError where none has any."""
    has = [scan.label is not None and (scan.instance is not None or (boxes and scan.box is not None)) for scan in scans]
    kept = [scan for scan, its in zip(scans, has, strict=True) if its]
    left = [scan.name for scan, its in zip(scans, has, strict=True) if not its]
    remedy = "download segs.json and aggregation.json of each scan, or take them out of the list"
    if not kept:
        raise SceneError(f"none of {len(scans)} {what} scans (first: {left[0]}) has instances: {remedy}")
    if left:
        warnings.warn(
            f"{len(left)} of {len(scans)} {what} scans have no instances and are left out (first: {left[0]}): {remedy}",
            stacklevel=3,
        )
    return kept


def warn_of_alignment(scans: Sequence[LabelledScan], what: str) -> None:
    """Warns where some scans have an alignment and others have none: boxes of those lie along the axes of the file."""
    left = [scan.name for scan in scans if scan.alignment is None]
    if left and len(left) < len(scans):
        warnings.warn(
            f"{len(left)} of {len(scans)} {what} scans have no axisAlignment (first: {left[0]}): their boxes lie along "
            "the axes of their files; download their .txt again if it should be there",
            stacklevel=3,
        )
