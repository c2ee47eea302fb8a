"""Plain NumPy twins of train/inputs/kernels.py and of 4DContrast's batch made with them: slow, and the definition of
what is right."""

import numpy as np
import torch

from gen4d.shards import frame_pairs
from train.inputs.views import draw_views
from train.inputs.voxels import Voxels
from train.methods.contrast4d.batch import Batch


def unpack(plane, points):
    """A packed plane as (points,) bool."""
    return np.unpackbits(plane, count=points).astype(bool)


def voxel_of(point, matrix):
    """(n, 3) int64 voxels of points (n, 3) under a matrix (3, 4) to voxel units."""
    x, y, z = point.astype(np.float64).T
    return np.stack([np.floor(m[0] * x + m[1] * y + m[2] * z + m[3]) for m in matrix], axis=1).astype(np.int64)


class Grid:
    """Twin of train.inputs.voxels.Grid: collects (block, time, voxel) rows and sorts them with np.unique."""

    def __init__(self):
        self.touched, self.entry = [np.zeros((0, 3), np.int64)], [np.zeros((0, 4), np.int64)]

    def mark(self, point, planes, time, matrix):
        masks = np.stack([unpack(plane, len(point)) for plane in planes])
        voxel = voxel_of(point, matrix) if len(point) else np.zeros((0, 3), np.int64)
        self.touched.append(voxel[masks.any(axis=0)] >> 3)
        for j, mask in enumerate(masks):
            kept = voxel[mask]
            self.entry.append(np.concatenate([np.full((len(kept), 1), time + j), kept], axis=1))

    def sort(self):
        """(m, 4) voxels (time, x, y, z): blocks in order of first touch, then ascending."""
        block, first = np.unique(np.concatenate(self.touched), axis=0, return_index=True)
        rank = {tuple(b): f for b, f in zip(block.tolist(), first.tolist(), strict=True)}
        entry = np.unique(np.concatenate(self.entry), axis=0)
        order = np.array([rank[tuple(b)] for b in (entry[:, 1:] >> 3).tolist()], np.int64)
        self.voxel = entry[np.argsort(order, kind="stable")]
        self.row = {tuple(v): r for r, v in enumerate(self.voxel.tolist())}
        self.low = (block.min(axis=0) if len(block) else np.zeros(3, np.int64)) * 8
        self.size = (block.max(axis=0) * 8 + 8 - self.low) if len(block) else np.zeros(3, np.int64)
        return self.voxel

    def rows_of(self, point, plane, time, matrix, index):
        voxel, kept = voxel_of(point, matrix), unpack(plane, len(point))
        return np.array([self.row[(time, *voxel[i].tolist())] if kept[i] else -1 for i in index.tolist()], np.int64)


def common(first, second, points):
    """Ascending indices of the points that both planes keep."""
    return np.flatnonzero(unpack(first, points) & unpack(second, points))


def sample_common(actors, i, j, recipe, rng):
    """(n, 2) identities (actor, index) with the draws of train.batch.sample_common."""
    identity = [
        np.stack([np.full(len(index), a), index], axis=1)
        for a, actor in enumerate(actors)
        for index in [common(actor.planes[i], actor.planes[j], len(actor.cloud.point))]
    ]
    moves = np.array([actor.role == 1 for actor in actors])
    still = np.concatenate([x for x, m in zip(identity, moves, strict=True) if not m] or [np.zeros((0, 2), np.int64)])
    moving = np.concatenate([x for x, m in zip(identity, moves, strict=True) if m] or [np.zeros((0, 2), np.int64)])
    groups = [(np.concatenate(identity), recipe.samples)]
    if recipe.moving_share is not None:
        share = (
            0 if not len(moving) else recipe.samples if not len(still) else int(recipe.samples * recipe.moving_share)
        )
        groups = [(still, recipe.samples - share), (moving, share)]
    drawn = [
        pool[np.sort(rng.choice(len(pool), slots, replace=len(pool) < slots, shuffle=False))]
        for pool, slots in groups
        if slots
    ]
    return np.concatenate(drawn)


def mask_patches(actors, recipe, rng):
    """Twin of train.methods.contrast4d.batch.mask_patches, patch by patch."""
    corner, patches = rng.random(3), []
    for a, actor in enumerate(actors):
        cell = [tuple(c) for c in np.floor(actor.cloud.point / recipe.mask_patch_m + corner).astype(int).tolist()]
        number = {c: x + 1_000_003 * y + 998_244_353 * z for c in set(cell) for x, y, z in [c]}
        for c in sorted(number, key=number.get):
            patches.append((a, np.array([one == c for one in cell])))
    order = rng.permutation(len(patches))
    hidden, masked = (
        [np.zeros((2, len(actor.cloud.point)), bool) for actor in actors],
        int(len(patches) * recipe.mask_share),
    )
    for (a, inside), rank in zip(patches, order, strict=True):
        if rank < 2 * masked:
            hidden[a][rank // masked] |= inside
    out = []
    for actor, lacking in zip(actors, hidden, strict=True):
        kept = [unpack(plane, lacking.shape[1]) & ~lacking[i % 2] for i, plane in enumerate(actor.planes)]
        out.append(actor._replace(planes=np.packbits(kept, axis=1)))
    return out


def make_batch(sequences, generators, recipe, t):
    """Twin of train.methods.contrast4d.batch.make_batch."""
    parts, start = [], np.zeros(t + 1, np.int64)  # rows so far in frame 0..t-1 and, last, in the 4D voxels
    whole_start = np.zeros(t + 1, np.int64)
    for b, (sequence, rng) in enumerate(zip(sequences, generators, strict=True)):
        whole = [a for a in sequence.actors if recipe.moving_actors or a.role != 1]
        view = draw_views(t, recipe.views, rng)
        actors = mask_patches(whole, recipe, rng) if recipe.mask_share else whole
        pair_sample = [sample_common(actors, i, j, recipe, rng) for i, j in frame_pairs(t)]
        point_sample = [sample_common(actors, i, i, recipe, rng) for i in range(t)]
        part = _frames(actors, b, recipe, view, pair_sample, point_sample, start)
        part |= _four(actors, b, recipe, pair_sample, point_sample, start[t])
        if recipe.whole:
            before = _frames(whole, b, recipe, view, pair_sample, point_sample, whole_start)
            part |= {f"whole_{k}": before[k] for k in ("frame", "frame_size", "pair_row")}
            whole_start += [*(len(rows) for rows in before["frame"]), 0]
        part["pair_place"] = _places(actors, pair_sample)
        part["vote"] = _votes(actors, point_sample, view)
        part["moving"] = np.array([[actors[a].role == 1 for a in sample[:, 0]] for sample in point_sample])
        parts.append(part)
        start += [*(len(rows) for rows in part["frame"]), len(part["sequence"])]
    axis = {"pair_row": 2, "pair_row_4d": 2, "point_row": 1, "point_row_4d": 1, "moving": 1}
    row = {k: torch.from_numpy(np.concatenate([part[k] for part in parts], axis=a)) for k, a in axis.items()}
    frame = tuple(_voxels([p["frame"][i] for p in parts], [p["frame_size"][i] for p in parts]) for i in range(t))
    sequence = _voxels([p["sequence"] for p in parts], [p["sequence_size"] for p in parts], t)
    more = {}
    if recipe.places:
        more["pair_place"] = torch.from_numpy(np.concatenate([part["pair_place"] for part in parts], axis=2))
    if recipe.votes:
        more["vote"] = torch.from_numpy(np.concatenate([part["vote"] for part in parts], axis=1))
    if recipe.whole:
        more["whole_row"] = torch.from_numpy(np.concatenate([part["whole_pair_row"] for part in parts], axis=2))
        more["whole"] = tuple(
            _voxels([p["whole_frame"][i] for p in parts], [p["whole_frame_size"][i] for p in parts]) for i in range(t)
        )
    return Batch(frame, sequence if recipe.voxel_4d_m else None, **row, size=len(parts), **more)


def _places(actors, pair_sample):
    """Places of the pairs' points (P, 2, n, 3) in either frame, one by one."""
    pairs = frame_pairs(len(actors[0].pose))
    out = np.zeros((len(pairs), 2, len(pair_sample[0]), 3), np.float32)
    for p, pair in enumerate(pairs):
        for side, i in enumerate(pair):
            for s, (a, index) in enumerate(pair_sample[p].tolist()):
                pose = actors[a].pose[i]
                out[p, side, s] = pose[:3, :3] @ actors[a].cloud.point[index] + pose[:3, 3]
    return out


def _votes(actors, point_sample, view):
    """Ways from moving points to the middles of their shapes (t, n, 3), one by one, between augmented places."""

    def placed(actor, i):
        return [(view[i] @ actor.pose[i] @ [*point, 1.0])[:3] for point in actor.cloud.point.tolist()]

    out = np.zeros((len(view), len(point_sample[0]), 3), np.float32)
    for i in range(len(view)):
        place = [placed(actor, i) if actor.role == 1 else [] for actor in actors]
        for s, (a, index) in enumerate(point_sample[i].tolist()):
            if actors[a].role == 1:
                shape = [p for k, other in enumerate(actors) for p in place[k] if other.mover == actors[a].mover]
                out[i, s] = np.mean(shape if actors[a].mover >= 0 else place[a], axis=0) - place[a][index]
    return out


def _voxels(coordinate, size, *more):
    joined = np.concatenate(coordinate).astype(np.int32)
    return Voxels(torch.from_numpy(joined), (*np.max(size, axis=0).tolist(), *more))


def _frames(actors, b, recipe, view, pair_sample, point_sample, start):
    t, pairs = len(view), frame_pairs(len(view))
    out = {"frame": [], "frame_size": [], "pair_row": np.zeros((len(pairs), 2, recipe.samples), np.int64)}
    out["point_row"] = np.zeros((t, recipe.samples), np.int64)
    for i in range(t):
        grid = Grid()
        matrix = [(view[i] / recipe.voxel_m @ actor.pose[i].astype(np.float64))[:3] for actor in actors]
        for actor, m in zip(actors, matrix, strict=True):
            grid.mark(actor.cloud.point, actor.planes[i : i + 1], 0, m)
        voxel = grid.sort()
        out["frame"].append(np.concatenate([np.full((len(voxel), 1), b), voxel[:, 1:] - grid.low], axis=1))
        out["frame_size"].append(grid.size)
        for p, pair in enumerate(pairs):
            if i in pair:
                out["pair_row"][p, pair.index(i)] = start[i] + _rows(actors, i, matrix, pair_sample[p], grid, 0)
        out["point_row"][i] = start[i] + _rows(actors, i, matrix, point_sample[i], grid, 0)
    return out


def _four(actors, b, recipe, pair_sample, point_sample, start):
    t, pairs = len(point_sample), frame_pairs(len(point_sample))
    samples = recipe.samples if recipe.voxel_4d_m else 0
    out = {"pair_row_4d": np.zeros((len(pairs), 2, samples), np.int64)}
    out["point_row_4d"] = np.zeros((t, samples, t), np.int64)
    if not recipe.voxel_4d_m:
        return out | {"sequence": np.zeros((0, 5)), "sequence_size": np.zeros(3, np.int64)}
    grid, scale = Grid(), np.eye(4) / recipe.voxel_4d_m
    matrix = [[(scale @ actor.pose[i].astype(np.float64))[:3] for actor in actors] for i in range(t)]
    for a, actor in enumerate(actors):
        rest = (actor.pose == actor.pose[0]).all()
        for i in range(1 if rest else t):
            grid.mark(actor.cloud.point, actor.planes if rest else actor.planes[i : i + 1], i, matrix[i][a])
    voxel = grid.sort()
    out["sequence"] = np.concatenate([np.full((len(voxel), 1), b), voxel[:, 1:] - grid.low, voxel[:, :1]], axis=1)
    out["sequence_size"] = grid.size
    for i in range(t):
        for p, pair in enumerate(pairs):
            if i in pair:
                out["pair_row_4d"][p, pair.index(i)] = start + _rows(actors, i, matrix[i], pair_sample[p], grid, i)
        for f in range(t):
            row = _rows(actors, i, matrix[i], point_sample[f], grid, i)
            out["point_row_4d"][f, :, i] = np.where(row < 0, -1, start + row)
    return out


def _rows(actors, i, matrix, sample, grid, time):
    """Rows of sampled identities (n, 2) in frame i of a grid, -1 where absent."""
    row = np.zeros(len(sample), np.int64)
    for a, actor in enumerate(actors):
        mine = sample[:, 0] == a
        row[mine] = grid.rows_of(actor.cloud.point, actor.planes[i], time, matrix[a], sample[mine, 1])
    return row
