"""Evaluation of a segmenter of blocks, counted in two ways.

sampled: `points` points of each block, some of them more than once where a block has fewer, or where blocks overlap.
This is what STRL and DGCNN's published code report; points that were not drawn are never judged.
points: every point of a room that has a class, by the sum of what all blocks that it lies in say. What figures of other
nets can be compared with.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.scans import LabelledScan
from train.tasks.blocks.batch import Room, draw
from train.tasks.blocks.config import Blocks
from train.tasks.blocks.model import BlockSegmenter
from train.tasks.metrics import confusion
from train.tasks.segment.model import SegmentError

_CHUNK = 16  # looks at blocks in one forward


class Evaluation(NamedTuple):
    """Confusion matrices (K, K + 1) over all points, and over all sampled ones, of a number of scans. shown: the first
    few scans with their predictions (N,), for pictures."""

    points: np.ndarray
    sampled: np.ndarray
    scans: int
    shown: tuple[tuple[LabelledScan, np.ndarray], ...] = ()


class Look(NamedTuple):
    """Points of a block in one forward. rows (N,) of the room's points; inputs (N, 3); own: how many rows are new, not
    repeated; counted: whether they are the block's sampled points."""

    rows: np.ndarray
    inputs: np.ndarray
    own: int
    counted: bool


def looks(scan: LabelledScan, recipe: Blocks) -> Iterator[Look]:
    """Every point of every block of a scan once, drawn by a key of its name: a block of many points takes several
    looks, of which the first is its sample."""
    room = Room(scan.point, recipe)
    key = int.from_bytes(hashlib.sha256(scan.name.encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.Philox(key=[key, 4]))
    for block in room.blocks():
        rows = rng.permutation(room.rows(block))
        for start in range(0, len(rows), recipe.points):
            part = rows[start : start + recipe.points]
            # A short look is filled up by points of the block: all of them are its surroundings.
            fill = draw(len(rows), recipe.points - len(part), rng) if len(part) < recipe.points else ()
            taken = np.concatenate([part, rows[fill]]) if len(part) < recipe.points else part
            counted = start == 0 and len(rows) >= recipe.least_in_block
            yield Look(taken, room.inputs(scan.point[taken], block), len(part), counted)


def evaluate(
    model: BlockSegmenter,
    scans: Sequence[LabelledScan],
    recipe: Blocks,
    device: torch.device,
    use: Callable[[LabelledScan, np.ndarray], None] | None = None,
    shown: int = 3,
) -> Evaluation:
    """Confusion of a model on its device over scans, of which those without labels add nothing. use(scan, classes) gets
    the prediction (n,) int16 of all points of each; the first few are kept for pictures. The model is left in the mode
    it was in. Raises SegmentError."""
    points = np.zeros((model.classes, model.classes + 1), np.int64)
    sampled = np.zeros_like(points)
    training, kept = model.training, []
    model.eval()
    for scan in scans:
        total = torch.zeros(len(scan.point), model.classes, device=device)
        for group in _grouped(looks(scan, recipe)):
            logits = _logits(model, group, scan, device)
            for look, found in zip(group, logits, strict=True):
                total.index_add_(0, torch.from_numpy(look.rows[: look.own]).long().to(device), found[: look.own])
                if look.counted and scan.label is not None:
                    sampled += confusion(scan.label[look.rows], found.argmax(1).cpu().numpy(), model.classes)
        prediction = total.argmax(1).short().cpu().numpy()
        if scan.label is not None:
            points += confusion(scan.label, prediction, model.classes)
        if use:
            use(scan, prediction)
        if len(kept) < shown:
            kept.append((scan, prediction))
    model.train(training)
    return Evaluation(points, sampled, len(scans), tuple(kept))


def _grouped(all_looks: Iterator[Look]) -> Iterator[list[Look]]:
    group = []
    for look in all_looks:
        group.append(look)
        if len(group) == _CHUNK:
            yield group
            group = []
    if group:
        yield group


def _logits(model: BlockSegmenter, group: list[Look], scan: LabelledScan, device: torch.device) -> torch.Tensor:
    with torch.no_grad():
        logits = model.logits(torch.from_numpy(np.stack([look.inputs for look in group])).to(device)).float()
    if not torch.isfinite(logits).all():
        raise SegmentError(f"the net's output on {scan.name} is not finite: its training went wrong, use other weights")
    return logits
