"""Evaluation of a segmenter on labelled scans, counted in two ways.

points: every vertex of the scan that has a class, with the prediction of the voxel it lies in. This is what ScanNet's
benchmark counts.
voxels: voxels of 2 cm whose vertices agree, with the prediction of their first vertex. This is what PointContrast and
Contrastive Scene Contexts report (their nets see 2 cm voxels); dense parts of a scan count less. For nets on coarser
voxels the 2 cm stay, so that nets can be compared.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.labels import NONE
from train.inputs.scans import LabelledScan
from train.inputs.voxels import voxelise
from train.run.world import to_device
from train.tasks.metrics import confusion
from train.tasks.segment.batch import voxel_labels
from train.tasks.segment.model import Segmenter, SegmentError

COUNTED_VOXEL_M = 0.02


class Evaluation(NamedTuple):
    """Confusion matrices (K, K + 1) over all points, and over all 2 cm voxels, of a number of scans."""

    points: np.ndarray
    voxels: np.ndarray
    scans: int


def evaluate(
    model: Segmenter,
    scans: Sequence[LabelledScan],
    voxel_m: float,
    device: torch.device,
    use: Callable[[LabelledScan, np.ndarray], None] | None = None,
) -> Evaluation:
    """Confusion of a model on its device over scans, of which those without labels add nothing. use(scan, classes) gets
    every prediction. The model is left in the mode it was in. Raises SegmentError."""
    classes = model.head.out_features
    points = np.zeros((classes, classes + 1), np.int64)
    voxels = np.zeros_like(points)
    training = model.training
    model.eval()
    for scan in scans:
        prediction = predict(model, scan, voxel_m, device)
        if scan.label is not None:
            points += confusion(scan.label, prediction, classes)
            voxels += voxel_confusion(scan, prediction, classes)
        if use:
            use(scan, prediction)
    model.train(training)
    return Evaluation(points, voxels, len(scans))


def predict(model: Segmenter, scan: LabelledScan, voxel_m: float, device: torch.device) -> np.ndarray:
    """The class (N,) int16 of each point: that of its voxel."""
    voxels, row = voxelise(scan.point, voxel_m)
    with torch.no_grad():
        logits = model.logits(to_device(voxels, device), 1)
    if not torch.isfinite(logits).all():
        raise SegmentError(f"the net's output on {scan.name} is not finite: its training went wrong, use other weights")
    return logits.argmax(dim=1).short().cpu().numpy()[row]


def voxel_confusion(scan: LabelledScan, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Confusion (K, K + 1) over the 2 cm voxels of a scan whose points all have one class."""
    voxels, row = voxelise(scan.point, COUNTED_VOXEL_M)
    count = len(voxels.coordinate)
    truth = voxel_labels(row, scan.label, count, classes, "unanimous")
    first = voxel_labels(row, prediction, count, classes, "first")
    assert (first != NONE).all()
    return confusion(truth, first, classes)
