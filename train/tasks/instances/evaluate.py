"""Instances of whole scans, and how good they are by the benchmark's rules.

A scan's points are brought into a fixed order first, so what is found does not depend on the order of its file. Masks
are of points: all points of a voxel are in or out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.objects import instances_of
from train.inputs.scans import LabelledScan
from train.inputs.voxels import voxelise
from train.run.world import to_device
from train.tasks.instances.ap import Compared, Found, InstanceError, Precision, Truth, average_precision, compare
from train.tasks.instances.config import Instances
from train.tasks.instances.group import suppress
from train.tasks.instances.model import Grouper
from train.tasks.scene import fixed_order


class Evaluation(NamedTuple):
    """AP over scans, and what was found in the first of them."""

    precision: Precision
    scans: int
    shown: tuple[tuple[LabelledScan, Found], ...]


def predict(model: Grouper, scan: LabelledScan, own: Instances, device: torch.device) -> Found:
    """Instances of a scan, surest first. Raises InstanceError, BatchError."""
    order = fixed_order(scan.point)
    voxels, row = voxelise(scan.point[order], model.voxel_m)
    points = np.bincount(row, minlength=len(voxels.coordinate))
    with torch.no_grad():
        try:
            found = model.proposals(to_device(voxels, device), points)
        except ValueError as error:
            raise InstanceError(f"scan {scan.name}: {error}") from None
    found = found.at(np.flatnonzero((found.score > own.least_score) & (found.points >= own.kept_points)))
    found = suppress(found, points, own.overlap)
    inside, masks = np.zeros(len(points), bool), []
    for rows in found.rows:
        inside[rows] = True
        masks.append(np.sort(order[inside[row]]))
        inside[rows] = False
    return Found(masks, found.kind, found.score)


def truth_of(scan: LabelledScan, stuff: frozenset[int], classes: int) -> Truth:
    """A scan's true instances."""
    found = instances_of(scan, stuff, classes)
    return Truth(found.number, found.kind)


def evaluate(
    model: Grouper,
    scans: Sequence[LabelledScan],
    own: Instances,
    device: torch.device,
    use: Callable[[LabelledScan, Found], None] | None = None,
    shown: int = 3,
) -> Evaluation:
    """AP of a model on its device over scans, of which those without instances add nothing. use(scan, found) gets
    every prediction; the first few are kept for pictures. The model is left in the mode it was in."""
    classes = model.head.out_features
    training = model.training
    model.eval()
    compared: list[Compared] = []
    kept = []
    for scan in scans:
        found = predict(model, scan, own, device)
        if scan.label is not None and scan.instance is not None:
            compared.append(compare(truth_of(scan, frozenset(model.how.stuff), classes), found))
        if use:
            use(scan, found)
        if len(kept) < shown:
            kept.append((scan, found))
    model.train(training)
    return Evaluation(average_precision(compared, classes), len(scans), tuple(kept))
