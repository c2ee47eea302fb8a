"""Scans with boxes become batches of voxels that know whose they are.

A scan is seen as `sample` of its points, drawn anew at every step, and at test by a key of its name alone. Voxels lie
at the mean of their points. Their object is the one that most of these have; they vote for the middle of its box,
which is that of all points of the file (VoteNet votes for the middle of what was sampled). Where points have no
instances a voxel may vote for each of the boxes that it lies in, three at most.

Shapes. N points of a scan, m voxels and B boxes of a batch, v boxes that a voxel may vote for.
"""

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from train.inputs.labels import NONE
from train.inputs.objects import Boxes
from train.inputs.order import BatchKey, Share, keyed_generator
from train.inputs.voxels import BatchError, Grid, Rows, Voxels
from train.tasks.detect.boxes import hulls, inside
from train.tasks.detect.config import Detect
from train.tasks.scene import SceneStream, put_scan
from train.tasks.segment.batch import voxel_labels

VOTED = 3  # boxes that a voxel may vote for (F)


class DetectBatch(NamedTuple):
    """Voxels of several scans. position (m, 3) float32 metres; owner (m, v) int64: boxes among those of its scan, the
    first one again where there are fewer, NONE for voxels of no object; box (B, 7) float32 centre, size and heading,
    kind (B,) int64 and of (B,) int64, the scan of each box."""

    voxels: Voxels
    position: torch.Tensor
    owner: torch.Tensor
    box: torch.Tensor
    kind: torch.Tensor
    of: torch.Tensor
    size: int


def draw_sample(points: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of the points that are seen, ascending."""
    if not most or points <= most:
        return np.arange(points)
    return np.sort(rng.choice(points, most, replace=False))


def named_generator(name: str) -> np.random.Generator:
    """What a scan's points are drawn by at test: a function of its name, so that an evaluation repeats."""
    return keyed_generator(zlib.crc32(name.encode()), 0, 0)


def voxel_positions(point: np.ndarray, row: np.ndarray, count: int) -> np.ndarray:
    """Mean (count, 3) float32 of the points in each voxel."""
    times = np.bincount(row, minlength=count)
    sums = np.stack([np.bincount(row, point[:, axis], count) for axis in range(3)], axis=1)
    return (sums / times[:, None]).astype(np.float32)


def vary(point: np.ndarray, box: np.ndarray, own: Detect, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) float32 and boxes (B, 7) under one draw: mirrored, turned about z, resized; without headings the
    boxes are the ones along the axes around the turned ones."""
    mirror = np.where(rng.random(2) < own.mirror, -1.0, 1.0)
    if own.mirrored == "x":
        mirror[1] = 1.0
    angle, size = np.radians(rng.uniform(-own.turn_deg, own.turn_deg)), 1 + rng.uniform(-own.resize, own.resize)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = size * np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.diag([*mirror, 1.0])
    box = box.copy()
    box[:, :3] = box[:, :3] @ turn.T
    box[:, 3:6] *= size
    box[:, 6] = np.arctan2(mirror[1] * np.sin(box[:, 6]), mirror[0] * np.cos(box[:, 6])) + angle
    return (point.astype(np.float64) @ turn.T).astype(np.float32), hulls(box) if own.headings == 1 else box


def owners_by_place(position: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The first three of the boxes (B, 7) that each position (m, 3) lies in, (m, 3) int64; the first one again where
    there are fewer, NONE where there is none."""
    owner = np.full((len(position), VOTED), NONE, np.int64)
    found = np.zeros(len(position), np.int64)
    for number, one in enumerate(box):
        mine = np.flatnonzero(inside(one, position) & (found < VOTED))
        first = mine[found[mine] == 0]
        owner[first] = number
        owner[mine, found[mine]] = number
        found[mine] += 1
    return owner


class DetectStream(SceneStream):
    """Batches of scans with boxes."""

    def __init__(
        self, names: Sequence[str], scans: Sequence[Boxes], voxel_m: float, own: Detect, share: Share, seed: int,
        workers: int,
    ):  # fmt: skip
        super().__init__(scans, share, seed, workers)
        self.names, self.voxel_m, self.own = names, voxel_m, own
        self.voted = VOTED if any(scan.owner is None for scan in scans) else 1  # columns of a batch's owners

    def make(self, key: BatchKey, memory: tuple[Rows, Grid]) -> DetectBatch:
        """The scans of a key as a batch. Raises BatchError."""
        rows, grid = memory
        rows.clear()
        parts = []
        for slot, item in enumerate(key.item):
            try:
                parts.append(self._add(item, slot, keyed_generator(*key.key[slot]), rows, grid))
            except BatchError as error:
                raise BatchError(f"scan {self.names[item]}: {error}") from None
        made = [torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True)]
        return DetectBatch(rows.voxels(), *made, len(key.item))

    def _add(self, item: int, slot: int, rng: np.random.Generator, rows: Rows, grid: Grid):
        """Position and owner of one scan's voxels; box, class and scan of its boxes."""
        scan = self.scans[item]
        seen = draw_sample(len(scan.point), self.own.sample, rng)
        point, box = vary(scan.point[seen], scan.box, self.own, rng)
        plane = np.packbits(np.ones(len(point), bool))
        row, cell = put_scan(point, plane, np.eye(3, 4) / self.voxel_m, slot, rows, grid)
        position = voxel_positions(point, row, len(cell))
        if scan.owner is None:
            owner = owners_by_place(position, box)
        else:
            owner = voxel_labels(row, scan.owner[seen], len(cell), max(len(box), 1), "majority")
            owner = np.where(owner < 0, NONE, owner).astype(np.int64)[:, None].repeat(self.voted, axis=1)
        of = np.full(len(box), slot, np.int64)
        return position, owner, box.astype(np.float32), scan.kind, of
