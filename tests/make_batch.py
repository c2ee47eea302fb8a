"""A small training batch from random rooms with a moving box, made point by point without the loader's kernels."""

import numpy as np
import torch

from gen4d.shards import frame_pairs
from train.inputs.voxels import Voxels
from train.methods.contrast4d.batch import Batch

VOXEL_M, VOXEL_4D_M = 0.1, 0.15  # coarse, so that nets of two levels see more than one voxel


def make_batch(rng, t=3, size=2, points=500, samples=48, has_4d=True, moving=True, masked=0.0) -> Batch:
    """t frames of `size` sequences with `points` points and `samples` samples each, a quarter of them moving.

    moving: False leaves the box where it starts. masked: share of points that frames lack and `whole` ones have, which
    are given where it is not 0."""
    sequences = [_Sequence(rng, t, points, samples, moving, masked) for _ in range(size)]
    frame, rows = [], []
    for i in range(t):
        clouds = [(s.view[i](s.world[i]), s.kept[i]) for s in sequences]
        voxels, row = _voxelise([cloud[kept] for cloud, kept in clouds], VOXEL_M)
        frame.append(voxels)
        rows.append([_spread_out(r, s.kept[i]) for r, s in zip(row, sequences, strict=True)])
    pairs = frame_pairs(t)
    pair_row = [[_stack(sequences, rows[k], p) for k in pair] for p, pair in enumerate(pairs)]
    point_row = [np.concatenate([r[s.point[i]] for s, r in zip(sequences, rows[i], strict=True)]) for i in range(t)]
    on_box = [np.concatenate([s.point[i] >= s.static for s in sequences]) for i in range(t)]
    sequence, pair_row_4d, point_row_4d = _rows_4d(sequences, t, samples) if has_4d else (None, None, None)
    if not has_4d:
        pair_row_4d, point_row_4d = np.zeros((len(pairs), 2, 0), np.int64), np.zeros((t, 0, t), np.int64)
    tensors = (torch.from_numpy(np.array(x)) for x in (pair_row, pair_row_4d, point_row, point_row_4d, on_box))
    place = [[np.concatenate([s.world[k][s.pair[p]] for s in sequences]) for k in pair] for p, pair in enumerate(pairs)]
    place = torch.from_numpy(np.array(place, np.float32))
    whole = _whole(sequences, t, pairs) if masked else ((), None)
    vote = [np.concatenate([s.votes(i) for s in sequences]) for i in range(t)]
    return Batch(tuple(frame), sequence, *tensors, size, place, *whole, torch.from_numpy(np.array(vote, np.float32)))


def _whole(sequences, t, pairs):
    """The frames without masks, and the rows of the pairs' points there."""
    frame, rows = [], []
    for i in range(t):
        voxels, row = _voxelise([s.view[i](s.world[i])[s.before[i]] for s in sequences], VOXEL_M)
        frame.append(voxels)
        rows.append([_spread_out(r, s.before[i]) for r, s in zip(row, sequences, strict=True)])
    pair_row = [[_stack(sequences, rows[k], p) for k in pair] for p, pair in enumerate(pairs)]
    return tuple(frame), torch.from_numpy(np.array(pair_row))


class _Sequence:
    """Points of a room and a box that moves by `step`, where each frame keeps nine tenths, and what is sampled."""

    def __init__(self, rng, t, points, samples, moving, masked):
        box = points // 4
        self.static = points - box
        room = rng.random((self.static, 3)) * [2.0, 2.0, 1.0]
        face = rng.integers(0, 5, self.static)
        room[np.arange(self.static), face % 3] = np.array([0.0, 0.0, 0.0, 0.7, 1.3])[face]
        shape = rng.random((box, 3)) * [0.5, 0.4, 0.3]
        shape[np.arange(box), rng.integers(0, 3, box)] = 0.0
        steps = np.cumsum(rng.uniform(0.3, 0.5, (t, 3)) * [1, 1, 0], axis=0)
        steps = steps if moving else steps[:1].repeat(t, axis=0)
        self.world = [np.concatenate([room, shape + step]) for step in steps]
        self.kept = rng.random((t, points)) < 0.9
        self.view = [_view(rng) for _ in range(t)]
        self.before = self.kept
        if masked:
            self.kept = self.kept & (rng.random((t, points)) >= masked)
        common = [self.kept[i] & self.kept[j] for i, j in frame_pairs(t)]
        self.pair = [self._draw(rng, mask, samples) for mask in common]
        self.point = [self._draw(rng, mask, samples) for mask in self.kept]

    def votes(self, i):
        """Ways (samples, 3) from the sampled points of frame i to the middle of the box, under the view; 0 at rest."""
        place = self.view[i](self.world[i])
        way = place[self.static :].mean(axis=0) - place[self.point[i]]
        return way * (self.point[i] >= self.static)[:, None]

    def _draw(self, rng, mask, samples):
        index = np.flatnonzero(mask)
        still, moving = index[index < self.static], index[index >= self.static]
        return np.concatenate([rng.choice(still, samples - samples // 4), rng.choice(moving, samples // 4)])


def _view(rng):
    yaw, shift = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5, 3)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return lambda point: point @ turn.T + shift


def _voxelise(clouds, voxel_m) -> tuple[Voxels, list[np.ndarray]]:
    """Unique voxels of several clouds (n, 3 or 4), time last, and the batch row of every point of each."""
    coordinate, rows, used = [], [], 0
    for b, cloud in enumerate(clouds):
        cell = np.floor(cloud / np.array([voxel_m] * 3 + [1] * (cloud.shape[1] - 3))).astype(np.int32)
        cell[:, :3] -= cell[:, :3].min(0)
        unique, inverse = np.unique(cell, axis=0, return_inverse=True)
        coordinate.append(np.insert(unique, 0, b, axis=1))
        rows.append(inverse.ravel() + used)
        used += len(unique)
    coordinate = np.concatenate(coordinate).astype(np.int32)
    return Voxels(torch.from_numpy(coordinate), tuple(int(n) for n in coordinate[:, 1:].max(0) + 1)), rows


def _spread_out(row, kept):
    """Rows of the kept points, -1 for the others."""
    out = np.full(len(kept), -1)
    out[kept] = row
    return out


def _stack(sequences, rows, p):
    return np.concatenate([row[s.pair[p]] for s, row in zip(sequences, rows, strict=True)])


def _rows_4d(sequences, t, samples):
    timed = [[np.insert(s.world[i], 3, i, axis=1)[s.kept[i]] for i in range(t)] for s in sequences]
    voxels, row = _voxelise([np.concatenate(frames) for frames in timed], VOXEL_4D_M)
    by_time = []  # per sequence (t, points)
    for s, r in zip(sequences, row, strict=True):
        out = np.full(s.kept.shape, -1)
        out[s.kept] = r
        by_time.append(out)
    pairs = frame_pairs(t)
    pair_row = [[_stack(sequences, [r[k] for r in by_time], p) for k in pair] for p, pair in enumerate(pairs)]
    point_row = [
        np.concatenate([r[:, s.point[i]].T for s, r in zip(sequences, by_time, strict=True)]) for i in range(t)
    ]
    return voxels, pair_row, point_row
