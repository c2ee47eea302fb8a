"""Sequences in, one training batch out: augmented 2 cm voxels of every frame, 5 cm voxels of the 4D sequence, and the
rows of sampled points in both. Where a method asks for it, patches of the frames are masked, which takes their points
away before anything is sampled, and the whole frames come with them.

Conventions: t frames, B sequences, P pairs of frames in the order of `gen4d.shards.frame_pairs`, n samples per pair and
frame, S = B * n rows, sequence-major. Masks stay packed and frames are never written out.
"""

from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np
import torch

from gen4d.sequence import ROLE_MOVING, frame_pairs
from train.inputs import kernels
from train.inputs.order import BatchKey, Order, Share, keyed_generator
from train.inputs.stream import Stream
from train.inputs.views import Rigid, draw_views
from train.inputs.voxels import Allocate, BatchError, Grid, Rows, Voxels, new_tensor


class Batch(NamedTuple):
    """What one forward pass reads. Row tensors index `frame[i].coordinate` and `sequence.coordinate`."""

    frame: tuple[Voxels, ...]  # t, each sequence under its own rotation, translation and scale
    sequence: Voxels | None  # as generated; None where the method has no 4D encoder
    pair_row: torch.Tensor  # (P, 2, S) int64: corresponding points as rows of frame i and of frame j
    pair_row_4d: torch.Tensor  # (P, 2, S) int64: the same points as rows of `sequence`; (P, 2, 0) without 4D
    point_row: torch.Tensor  # (t, S) int64: points of each frame as rows of frame i
    point_row_4d: torch.Tensor  # (t, S, t) int64: their rows in `sequence` at every time step, -1 where absent
    moving: torch.Tensor  # (t, S) bool: whether the point of `point_row` lies on a moving shape
    size: int  # B
    pair_place: torch.Tensor | None = None  # (P, 2, S, 3) float32: where the pairs' points are, metres, without a view
    whole: tuple[Voxels, ...] = ()  # t, the frames without their masks
    whole_row: torch.Tensor | None = None  # (P, 2, S) int64: the pairs' points as rows of `whole`
    vote: torch.Tensor | None = None  # (t, S, 3) float32: from a point of `point_row` that moves to its shape's middle


class Recipe(NamedTuple):
    """How a sequence becomes a part of a batch (4DContrast, sections 3.3 and 4; ranges are assumptions)."""

    voxel_m: float = 0.02
    voxel_4d_m: float | None = 0.05  # None: no 4D voxels
    samples: int = 1024
    moving_share: float | None = 0.25  # share of samples on moving shapes, where there are any; None: uniform
    moving_actors: bool = True  # False leaves only what stands still
    at_rest: bool = False  # what moves is as in frame 0 in all of them
    views: Rigid = Rigid()
    places: bool = False  # with `pair_place`
    mask_share: float = 0.0  # of patches, masked in frames 0, 2, ..; as many others are in frames 1, 3, ..
    mask_patch_m: float = 0.1  # edge of a patch
    whole: bool = False  # with `whole` and `whole_row`
    votes: bool = False  # with `vote`


def places_of(i: int, t: int) -> list[tuple[int, int]]:
    """(pair, side) of frame i in every pair that it belongs to."""
    return [(p, pair.index(i)) for p, pair in enumerate(frame_pairs(t)) if i in pair]


# Sampled points ------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """Sampled points of one actor: rows of its cloud, for sample slots start, start + 1, .."""

    actor: int
    start: int
    index: np.ndarray  # (k,) int64 ascending


def sample_common(actors: Many, i: int, j: int, recipe: Recipe, rng: np.random.Generator) -> list[Part]:
    """Points that frames i and j both keep (i == j: points of one frame), `recipe.samples` slots in all.

    Without replacement as long as there are enough. Moving shapes get `moving_share` of the slots where the frames
    share any of their points, and everything where they share nothing else.
    """
    count = np.array([kernels.count_common(actor.planes[i], actor.planes[j]) for actor in actors], np.int64)
    moving = np.array([actor.role == ROLE_MOVING for actor in actors])
    if not count.sum():
        return []
    if recipe.moving_share is None:
        groups = [(np.arange(len(actors)), recipe.samples)]
    else:
        slots = _moving_slots(int(count[moving].sum()), int(count[~moving].sum()), recipe)
        groups = [(np.flatnonzero(~moving), recipe.samples - slots), (np.flatnonzero(moving), slots)]
    parts, start = [], 0
    for members, slots in groups:
        for a, rank in _draw_ranks(count[members], slots, rng):
            actor = int(members[a])
            index = np.empty(rank.size, np.int64)
            kernels.select_common(actors[actor].planes[i], actors[actor].planes[j], rank, index)
            parts.append(Part(actor, start, index))
            start += rank.size
    return parts


def _moving_slots(moving: int, still: int, recipe: Recipe) -> int:
    """How many sample slots moving shapes get, given how many points of each kind there are."""
    if not moving:
        return 0
    return int(recipe.samples * recipe.moving_share) if still else recipe.samples


def _draw_ranks(count: np.ndarray, slots: int, rng: np.random.Generator):
    """Yield (member, ascending ranks among its points) for `slots` draws from all members' points together."""
    if not slots:
        return
    total = int(count.sum())
    rank = np.sort(rng.choice(total, slots, replace=total < slots, shuffle=False))
    end = np.cumsum(count)
    cut = np.searchsorted(rank, end)
    for member, (first, last) in enumerate(zip(np.concatenate(([0], cut[:-1])), cut, strict=True)):
        if last > first:
            yield member, rank[first:last] - (end[member] - count[member])


# Masks ---------------------------------------------------------------------------------------------------------------

_MIXED = np.array([1, 1_000_003, 998_244_353])  # cells to numbers; two that fall together are one patch


def mask_patches(actors: Many, recipe: Recipe, rng: np.random.Generator) -> list:
    """Actors without the points of masked patches: cubes of each cloud's own space, so that a patch of a moving shape
    stays one.

    Of all patches `mask_share` are masked in even frames, and as many others in odd ones: an even and an odd frame
    never lack the same point (Masked Scene Contrast's cross masks).
    """
    corner, cells, first = rng.random(3), [], 0
    for actor in actors:
        corners = np.floor(actor.cloud.point / recipe.mask_patch_m + corner).astype(np.int64)
        _, cell = np.unique(corners @ _MIXED, return_inverse=True)
        cells.append(cell + first)
        first += int(cell.max(initial=-1)) + 1
    rank, masked = rng.permutation(first), int(first * recipe.mask_share)
    return [_without(actor, rank[cell], masked) for actor, cell in zip(actors, cells, strict=True)]


def _without(actor, rank: np.ndarray, masked: int):
    """An actor that lacks points (N,) of rank 0 to `masked` in even frames, and of the next as many in odd ones."""
    kept = [np.packbits((rank < masked * side) | (rank >= masked * (side + 1))) for side in (0, 1)]
    planes = [plane & kept[i % 2] for i, plane in enumerate(actor.planes)]
    return actor._replace(planes=np.stack(planes))


# The batch -----------------------------------------------------------------------------------------------------------


class BatchBuffer:
    """Memory for one batch of `size` sequences of t frames; what `batch` returns is valid until the next `clear`."""

    def __init__(self, size: int, t: int, recipe: Recipe, allocate: Allocate = new_tensor) -> None:
        self.size, self.t, self.recipe = size, t, recipe
        pairs, rows = len(frame_pairs(t)), size * recipe.samples
        rows_4d = rows if recipe.voxel_4d_m else 0
        self.frame = [Rows(4, allocate) for _ in range(t)]
        self.sequence = Rows(5, allocate)
        self._pair_row = allocate((pairs, 2, rows), torch.int64)
        self._pair_row_4d = allocate((pairs, 2, rows_4d), torch.int64)
        self._point_row = allocate((t, rows), torch.int64)
        self._point_row_4d = allocate((t, rows_4d, t), torch.int64)
        self._moving = allocate((t, rows), torch.bool)
        self._pair_place = allocate((pairs, 2, rows if recipe.places else 0, 3), torch.float32)
        self.whole = [Rows(4, allocate) for _ in range(t if recipe.whole else 0)]
        self._whole_row = allocate((pairs, 2, rows if recipe.whole else 0), torch.int64)
        self._vote = allocate((t, rows if recipe.votes else 0, 3), torch.float32)
        self.pair_row, self.pair_row_4d = self._pair_row.numpy(), self._pair_row_4d.numpy()
        self.point_row, self.point_row_4d = self._point_row.numpy(), self._point_row_4d.numpy()
        self.moving = self._moving.numpy()
        self.pair_place, self.whole_row = self._pair_place.numpy(), self._whole_row.numpy()
        self.vote = self._vote.numpy()

    def clear(self) -> None:
        for rows in (*self.frame, self.sequence, *self.whole):
            rows.clear()

    def batch(self) -> Batch:
        """The tensors over this memory."""
        frames = tuple(rows.voxels() for rows in self.frame)
        sequence = self.sequence.voxels(self.t) if self.recipe.voxel_4d_m else None
        row = (self._pair_row, self._pair_row_4d, self._point_row, self._point_row_4d)
        place = self._pair_place if self.recipe.places else None
        whole = tuple(rows.voxels() for rows in self.whole)
        whole_row = self._whole_row if self.recipe.whole else None
        vote = self._vote if self.recipe.votes else None
        return Batch(frames, sequence, *row, self._moving, self.size, place, whole, whole_row, vote)


class Scratch(NamedTuple):
    """Grids of one worker."""

    frame: Grid
    sequence: Grid


def new_scratch() -> Scratch:
    return Scratch(Grid(), Grid())


def make_batch(sequences: Many, generators: Many, buffer: BatchBuffer, scratch: Scratch) -> Batch:
    """Fill `buffer` with sequences, each drawing from its own generator.

    Raises BatchError where a sequence has another number of frames, or frames without common points.
    """
    buffer.clear()
    for b, (sequence, rng) in enumerate(zip(sequences, generators, strict=True)):
        try:
            _add_sequence(sequence, b, rng, buffer, scratch)
        except BatchError as error:
            raise BatchError(f"sequence {sequence.id}: {error}") from None
    return buffer.batch()


def _add_sequence(sequence, b: int, rng: np.random.Generator, buffer: BatchBuffer, scratch: Scratch) -> None:
    """One sequence's way into the batch: views, samples, 3D frames, 4D sequence."""
    recipe, t = buffer.recipe, buffer.t
    if sequence.t != t:
        raise BatchError(f"{sequence.t} frames in a data set of {t}: rebuild the data set")
    whole = [actor for actor in sequence.actors if recipe.moving_actors or actor.role != ROLE_MOVING]
    if recipe.at_rest:
        whole = [actor._replace(pose=np.broadcast_to(actor.pose[:1], actor.pose.shape)) for actor in whole]
    view = draw_views(t, recipe.views, rng)
    actors = mask_patches(whole, recipe, rng) if recipe.mask_share else whole
    pairs = [_some(sample_common(actors, i, j, recipe, rng), i, j, recipe) for i, j in frame_pairs(t)]
    points = [_some(sample_common(actors, i, i, recipe, rng), i, i, recipe) for i in range(t)]
    slots = slice(b * recipe.samples, (b + 1) * recipe.samples)
    for i in range(t):
        matrix = _matrices(actors, i, view[i], recipe.voxel_m)
        _add_frame(actors, i, matrix, b, buffer.frame[i], scratch.frame)
        wanted = [(buffer.pair_row[p, side, slots], pairs[p]) for p, side in places_of(i, t)]
        for out, parts in (*wanted, (buffer.point_row[i, slots], points[i])):
            _look_up(actors, i, matrix, parts, scratch.frame, 0, out)
        for part in points[i]:
            moving = buffer.moving[i, slots][part.start : part.start + part.index.size]
            moving[:] = actors[part.actor].role == ROLE_MOVING
        if recipe.votes:
            _write_votes(actors, i, points[i], view[i], buffer.vote[i, slots])
        for p, side in places_of(i, t) if recipe.places else ():
            _write_places(actors, i, pairs[p], buffer.pair_place[p, side, slots])
        if recipe.whole:
            _add_frame(whole, i, matrix, b, buffer.whole[i], scratch.frame)
            for p, side in places_of(i, t):
                _look_up(whole, i, matrix, pairs[p], scratch.frame, 0, buffer.whole_row[p, side, slots])
    if recipe.voxel_4d_m is None:
        return
    matrix = [_matrices(actors, i, np.eye(4), recipe.voxel_4d_m) for i in range(t)]
    _add_4d(actors, matrix, b, buffer.sequence, scratch.sequence)
    for i in range(t):
        wanted = [(buffer.pair_row_4d[p, side, slots], pairs[p]) for p, side in places_of(i, t)]
        wanted += [(buffer.point_row_4d[f, slots, i], points[f]) for f in range(t)]
        for out, parts in wanted:
            _look_up(actors, i, matrix[i], parts, scratch.sequence, i, out)


def _some(parts: list[Part], i: int, j: int, recipe: Recipe) -> list[Part]:
    if not parts and recipe.mask_share:
        rule = "have no common point outside their masks, so there is nothing to compare"
        raise BatchError(f"frames {i} and {j} {rule}: set a smaller mask_patch or mask_share")
    if not parts:
        raise BatchError(
            f"frames {i} and {j} have no common point, so there is nothing to compare: contrastive methods know "
            "points by their rows, which frames and sweeps do not share; for these take --set method=strl"
        )
    return parts


def _matrices(actors: Many, i: int, view: np.ndarray, voxel_m: float) -> list[np.ndarray]:
    """Each actor's cloud metres -> voxel units in frame i, (3, 4) float64."""
    scaled = view / voxel_m
    return [np.ascontiguousarray((scaled @ actor.pose[i].astype(np.float64))[:3]) for actor in actors]


def _add_frame(actors: Many, i: int, matrix: list[np.ndarray], b: int, out: Rows, grid: Grid) -> None:
    """Voxels of frame i under its view."""
    grid.clear(sum(len(actor.cloud.point) for actor in actors), 1)
    for actor, to_voxel in zip(actors, matrix, strict=True):
        grid.mark(actor.cloud.point, actor.planes[i : i + 1], 0, to_voxel)
    grid.write(b, out)


def _add_4d(actors: Many, matrix: list[list[np.ndarray]], b: int, out: Rows, grid: Grid) -> None:
    """Voxels of the whole sequence, time steps as generated. An actor at rest is marked once for all steps."""
    t = len(matrix)
    at_rest = [bool((actor.pose == actor.pose[0]).all()) for actor in actors]
    grid.clear(sum(len(actor.cloud.point) * (1 if rest else t) for actor, rest in zip(actors, at_rest, strict=True)), t)
    for a, actor in enumerate(actors):
        if at_rest[a]:
            grid.mark(actor.cloud.point, actor.planes, 0, matrix[0][a])
            continue
        for i in range(t):
            grid.mark(actor.cloud.point, actor.planes[i : i + 1], i, matrix[i][a])
    grid.write(b, out)


def _look_up(actors: Many, i: int, matrix: list[np.ndarray], parts: list[Part], grid: Grid, time: int, out) -> None:
    """Voxel rows of sampled points in frame i of a grid, into out (samples,) int64."""
    for part in parts:
        actor, rows = actors[part.actor], out[part.start : part.start + part.index.size]
        grid.rows_of(actor.cloud.point, actor.planes[i], time, matrix[part.actor], part.index, rows)


def _write_places(actors: Many, i: int, parts: list[Part], out: np.ndarray) -> None:
    """Places of sampled points in frame i without its view, metres, into out (samples, 3) float32."""
    for part in parts:
        out[part.start : part.start + part.index.size] = _placed(actors[part.actor], i, part.index)


def _placed(actor, i: int, index=slice(None)) -> np.ndarray:
    """Points of an actor in frame i without its view, metres."""
    pose = actor.pose[i]
    return actor.cloud.point[index] @ pose[:3, :3].T + pose[:3, 3]


def _write_votes(actors: Many, i: int, parts: list[Part], view: np.ndarray, out: np.ndarray) -> None:
    """Ways from sampled points in frame i to the middle of their moving shape, the mean of all its points, seen or not,
    under the frame's view, metres; 0 for points at rest. Into out (samples, 3) float32."""
    for part in parts:
        actor = actors[part.actor]
        rows = out[part.start : part.start + part.index.size]
        if actor.role != ROLE_MOVING:
            rows[:] = 0
            continue
        shape = [actor] if actor.mover < 0 else [one for one in actors if one.mover == actor.mover]
        middle = np.concatenate([_placed(one, i) for one in shape]).mean(axis=0, dtype=np.float64)
        rows[:] = (middle - _placed(actor, i, part.index)) @ view[:3, :3].T


# Many of them --------------------------------------------------------------------------------------------------------


class SequenceStream(Stream):
    """Batches of a data set's sequences."""

    def __init__(self, dataset, order: Order, recipe: Recipe, share: Share, seed: int, workers: int = 1) -> None:
        """dataset: as `gen4d.shards.open_dataset` gives it."""
        super().__init__(order, share, seed, workers)
        first = dataset[order.item_at(0)]
        if recipe.votes and first.kind != "moving":
            raise BatchError(
                f"sequence {first.id} is of kind {first.kind}, and no shape moves in it to vote for: take "
                "--set method=moving-3d-infonce, or sequences that gen4d build makes of scans and shapes"
            )
        self.dataset, self.recipe, self.t = dataset, recipe, first.t

    def memory(self, size: int, allocate: Allocate = new_tensor) -> tuple[BatchBuffer, Scratch]:
        """A batch's buffer and a worker's grids."""
        return BatchBuffer(size, self.t, self.recipe, allocate), new_scratch()

    def make(self, key: BatchKey, memory: tuple[BatchBuffer, Scratch]) -> Batch:
        """Reads the sequences of a key and makes them a batch."""
        sequences = [self.dataset[number] for number in key.item]
        return make_batch(sequences, [keyed_generator(*one) for one in key.key], *memory)
