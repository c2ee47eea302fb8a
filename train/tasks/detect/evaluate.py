"""Boxes found in whole scans, and how good they are.

A scan's points are brought into a fixed order and drawn by a key of its name, so an evaluation repeats, and what is
found does not depend on the order of its file. What is left out, in this order: boxes with too few points inside, the
less sure of two boxes of one class that overlap (of turned ones, as VoteNet has it, the boxes along the axes around
them), boxes that are hardly objects. Each of the others is a detection of
every class, with the product of its objectness and the class's probability as its score.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.objects import Boxes
from train.inputs.voxels import voxelise
from train.run.world import to_device
from train.tasks.detect.ap import Precision, Scene, average_precision
from train.tasks.detect.batch import draw_sample, named_generator, voxel_positions
from train.tasks.detect.boxes import inside, suppress
from train.tasks.detect.model import VoteNet
from train.tasks.instances.ap import InstanceError
from train.tasks.scene import fixed_order


class Detected(NamedTuple):
    """box (P, 7), score (P, K) of each class of objects."""

    box: np.ndarray
    score: np.ndarray


class Evaluation(NamedTuple):
    """AP over scans, and what was found in the first of them: name, scan, boxes."""

    precision: Precision
    scans: int
    shown: tuple[tuple[str, Boxes, Detected], ...]


def predict(model: VoteNet, name: str, point: np.ndarray, voxel_m: float, device: torch.device) -> Detected:
    """Boxes in a scan's aligned points (N, 3) float32. Raises InstanceError, BatchError."""
    own = model.own
    point = point[fixed_order(point)]
    point = point[draw_sample(len(point), own.sample, named_generator(name))]
    voxels, row = voxelise(point, voxel_m)
    position = torch.from_numpy(voxel_positions(point, row, len(voxels.coordinate)))
    with torch.no_grad():
        found = model.proposals(to_device(voxels, device), position.to(device), 1)
        size, turn = model.sizes(found, found.size_score.argmax(dim=-1))[0], model.turns(found)[0]
    objectness, kind = found.objectness[0].softmax(dim=-1)[:, 1], found.kind[0].softmax(dim=-1)
    box = torch.cat([found.centre[0], size, turn[:, None]], dim=1).double().cpu().numpy()
    objectness, kind = objectness.double().cpu().numpy(), kind.double().cpu().numpy()
    if not (np.isfinite(box).all() and np.isfinite(objectness).all() and np.isfinite(kind).all()):
        raise InstanceError(f"scan {name}: the net's output is not finite: its training went wrong, use other weights")
    full = np.flatnonzero([inside(one, point).sum() >= own.least_inside for one in box])
    kept = full[suppress(box[full], objectness[full], own.box_overlap, kind[full].argmax(axis=1))]
    kept = kept[objectness[kept] > own.least_objectness]
    return Detected(box[kept], objectness[kept, None] * kind[kept])


def evaluate(
    model: VoteNet,
    scans: Sequence[tuple[str, Boxes]],
    voxel_m: float,
    device: torch.device,
    use: Callable[[str, Detected], None] | None = None,
    shown: int = 3,
) -> Evaluation:
    """AP of a model on its device over named scans. use(name, detected) gets every prediction; the first few are kept
    for pictures. The model is left in the mode it was in."""
    training = model.training
    model.eval()
    scenes, kept = [], []
    for name, scan in scans:
        found = predict(model, name, scan.point, voxel_m, device)
        scenes.append(Scene(scan.box, scan.kind, found.box, found.score))
        if use:
            use(name, found)
        if len(kept) < shown:
            kept.append((name, scan, found))
    model.train(training)
    return Evaluation(average_precision(scenes, model.classes), len(scans), tuple(kept))
