"""Evaluation of a segmenter on labelled scans, counted in two ways.

points: every vertex of the scan that has a class, with the prediction of the voxel it lies in. This is what ScanNet's
benchmark counts.
voxels: voxels of 2 cm whose vertices agree, with the prediction of their first vertex. This is what PointContrast and
Contrastive Scene Contexts report (their nets see 2 cm voxels); dense parts of a scan count less. For nets on coarser
voxels the 2 cm stay, so that nets can be compared.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.labels import NONE
from train.inputs.scans import GEOMETRY, LabelledScan
from train.inputs.voxels import Voxels, voxelise
from train.run.world import to_device
from train.tasks.backbone import seen_voxels
from train.tasks.metrics import confusion
from train.tasks.segment.batch import voxel_labels
from train.tasks.segment.model import Segmenter, SegmentError
from train.tasks.segment.windows import by_windows, most_voxels

COUNTED_VOXEL_M = 0.02


class Seeing(NamedTuple):
    """How a net sees whole scans.

    inputs: what it is given at a voxel; window_voxels: most voxels of one forward (None: what spconv can address);
    views: how many the mean is taken of, 1: the scan as it lies.
    """

    voxel_m: float
    inputs: tuple[str, ...] = GEOMETRY
    window_voxels: int | None = None
    views: int = 1


class Evaluation(NamedTuple):
    """Confusion matrices (K, K + 1) over all points, and over all 2 cm voxels, of a number of scans; each (scans, K,
    K + 1): of the points of every scan; and what was predicted in the first of them."""

    points: np.ndarray
    voxels: np.ndarray
    scans: int
    each: np.ndarray
    shown: tuple[tuple[LabelledScan, np.ndarray], ...] = ()


def evaluate(
    model: Segmenter,
    scans: Sequence[LabelledScan],
    seeing: Seeing,
    device: torch.device,
    use: Callable[[LabelledScan, np.ndarray], None] | None = None,
    shown: int = 3,
) -> Evaluation:
    """Confusion of a model on its device over scans, of which those without labels add nothing. use(scan, classes) gets
    every prediction; the first few are kept for pictures. The model is left in the mode it was in. Raises
    SegmentError."""
    classes = model.head.out_features
    each = np.zeros((len(scans), classes, classes + 1), np.int64)
    voxels = np.zeros((classes, classes + 1), np.int64)
    training, kept = model.training, []
    model.eval()
    for number, scan in enumerate(scans):
        prediction = predict(model, scan, seeing, device)
        if scan.label is not None:
            each[number] = confusion(scan.label, prediction, classes)
            voxels += voxel_confusion(scan, prediction, classes)
        if use:
            use(scan, prediction)
        if len(kept) < shown:
            kept.append((scan, prediction))
    model.train(training)
    return Evaluation(each.sum(axis=0), voxels, len(scans), each, tuple(kept))


def predict(model: Segmenter, scan: LabelledScan, seeing: Seeing, device: torch.device) -> np.ndarray:
    """The class (N,) int16 of each point: that of its voxel, or of several views by the mean of its voxels' logits."""
    total = None
    for view in views(seeing.views):
        voxels, given, row = seen_voxels(scan, seeing.voxel_m, seeing.inputs, view)
        logits = _logits(model, voxels, given, seeing.window_voxels, device)
        if not torch.isfinite(logits).all():
            raise SegmentError(
                f"the net's output on {scan.name} is not finite: its training went wrong, use other weights"
            )
        if seeing.views == 1:
            return logits.argmax(dim=1).short().cpu().numpy()[row]
        found = logits[torch.from_numpy(row).to(device)]
        total = found if total is None else total.add_(found)
    return total.argmax(dim=1).short().cpu().numpy()


def views(count: int) -> Iterator[np.ndarray | None]:
    """Rotations about z by equal steps of a turn (3, 3), every second one mirrored at the xz plane besides; the first
    is None: the scan as it lies."""
    yield None
    for number in range(1, count):
        cos, sin = math.cos(2 * math.pi * number / count), math.sin(2 * math.pi * number / count)
        mirror = np.diag([1.0, -1.0 if number % 2 else 1.0, 1.0])
        yield np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ mirror


def _logits(model: Segmenter, voxels: Voxels, given: torch.Tensor, wanted: int | None, device) -> torch.Tensor:
    """(m, K) of a scan's voxels, by windows where there are too many for one forward."""
    most = most_voxels(model.backbone.shape, voxels, model.head.weight.element_size(), wanted)

    def forward(part: Voxels, rows: torch.Tensor | None) -> torch.Tensor:
        seen = given if rows is None else given[rows]
        with torch.no_grad():
            return model.logits(to_device(part, device), 1, seen.to(device))

    return by_windows(forward, voxels, most)


def voxel_confusion(scan: LabelledScan, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Confusion (K, K + 1) over the 2 cm voxels of a scan whose points all have one class."""
    voxels, row = voxelise(scan.point, COUNTED_VOXEL_M)
    count = len(voxels.coordinate)
    truth = voxel_labels(row, scan.label, count, classes, "unanimous")
    first = voxel_labels(row, prediction, count, classes, "first")
    assert (first != NONE).all()
    return confusion(truth, first, classes)
