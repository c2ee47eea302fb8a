"""Sequences in, one training batch out: augmented 2 cm voxels of every frame, 5 cm voxels of the 4D sequence, and the
rows of sampled points in both.

Conventions: t frames, B sequences, pairs of frames in the order (0, 1), (0, 2), .., (1, 2), .. (P of them), n samples
per pair and frame, S = B * n rows, sequence-major. Masks stay packed and frames are never written out: kernels go from
a cloud, its planes and a matrix straight to voxels.

Randomness is a function of (seed, step, slot in the global batch) alone.
"""

import itertools
import math
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np
import torch

from train import kernels

MOVING = 1  # role of an actor that moves, as in gen4d.shards

Allocate = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]


class BatchError(ValueError):
    """A sequence cannot become part of a batch."""


class Voxels(NamedTuple):
    """Occupied voxels of one frame index of all sequences, or of the 4D sequences."""

    coordinate: torch.Tensor  # (m, 1 + d) int32: sequence in the batch, x, y, z (, time); unique, >= 0
    size: tuple[int, ...]  # d exclusive bounds


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


class Recipe(NamedTuple):
    """How a sequence becomes a part of a batch (4DContrast, sections 3.3 and 4; ranges are assumptions)."""

    voxel_m: float = 0.02
    voxel_4d_m: float | None = 0.05  # None: no 4D voxels
    samples: int = 1024
    moving_share: float | None = 0.25  # share of samples on moving shapes, where there are any; None: uniform
    moving_actors: bool = True  # False leaves only what stands still
    tilt_rad: float = math.pi / 64
    shift_m: float = 0.5
    scale_low: float = 0.9
    scale_high: float = 1.1


class Part(NamedTuple):
    """Sampled points of one actor: rows of its cloud, for sample slots start, start + 1, .."""

    actor: int
    start: int
    index: np.ndarray  # (k,) int64 ascending


def keyed_generator(seed: int, step: int, slot: int) -> np.random.Generator:
    """The random stream of one slot of the global batch at one step, independent of all others."""
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, slot, step]))


def frame_pairs(t: int) -> list[tuple[int, int]]:
    """Pairs of frames i < j in the order of every pair axis."""
    return list(itertools.combinations(range(t), 2))


# Per-frame augmentation ----------------------------------------------------------------------------------------------


def draw_views(t: int, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """One similarity transform per frame: any yaw, small tilt about x and y, translation, scale.

    Returns (t, 4, 4) float64, sequence frame -> augmented frame, metres (section 3.3, "Scene Augmentation").
    """
    yaw = rng.uniform(0, 2 * math.pi, t)
    tilt = rng.uniform(-recipe.tilt_rad, recipe.tilt_rad, (t, 2))
    scale = rng.uniform(recipe.scale_low, recipe.scale_high, t)
    view = np.zeros((t, 4, 4))
    view[:, :3, 3] = rng.uniform(-recipe.shift_m, recipe.shift_m, (t, 3))
    view[:, 3, 3] = 1
    for i in range(t):
        rotation = _about(0, tilt[i, 0]) @ _about(1, tilt[i, 1]) @ _about(2, yaw[i])
        view[i, :3, :3] = scale[i] * rotation
    return view


def _about(axis: int, angle_rad: float) -> np.ndarray:
    """Right-handed rotation about a coordinate axis, (3, 3)."""
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    u, v = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[u, u], matrix[u, v], matrix[v, u], matrix[v, v] = cos, -sin, sin, cos
    return matrix


# Sampled points ------------------------------------------------------------------------------------------------------


def sample_common(actors: Many, i: int, j: int, recipe: Recipe, rng: np.random.Generator) -> list[Part]:
    """Points that frames i and j both keep (i == j: points of one frame), `recipe.samples` slots in all.

    Without replacement as long as there are enough. Moving shapes get `moving_share` of the slots where the frames
    share any of their points, and everything where they share nothing else.
    """
    count = np.array([kernels.count_common(actor.planes[i], actor.planes[j]) for actor in actors], np.int64)
    moving = np.array([actor.role == MOVING for actor in actors])
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


# Voxel grids ---------------------------------------------------------------------------------------------------------


class Grid:
    """Scratch memory of one voxel grid, kept from frame to frame because fresh memory is slow."""

    def __init__(self) -> None:
        self._capacity, self._steps, self.count = 0, 0, 0
        self._low, self._size = np.zeros(3, np.int64), np.zeros(3, np.int64)

    def clear(self, capacity: int, steps: int) -> None:
        """Empty the grid and make room for `capacity` points in `steps` time steps."""
        if capacity > self._capacity or steps != self._steps:
            self._capacity, self._steps = max(capacity, self._capacity), steps
            self._table = np.zeros(1 << (2 * self._capacity + 1).bit_length(), np.int32)
            self._block = np.zeros(self._capacity, np.int64)
            self._word = np.zeros((self._capacity, steps, kernels.BLOCK_WORDS), np.uint32)
            self._first_row = np.zeros((self._capacity, steps, kernels.BLOCK_WORDS), np.int64)
        self._table[:] = 0
        self.count = 0

    def mark(self, point: np.ndarray, planes: np.ndarray, time: int, matrix: np.ndarray) -> None:
        """Occupy the voxels of a cloud's kept points at time steps `time`, `time` + 1, .., one a plane."""
        count = kernels.mark(point, planes, time, matrix, self._table, self._block, self._word, self.count)
        if count < 0:
            where = f"point {-1 - count} at {point[-1 - count].tolist()} m"
            raise BatchError(f"{where} is not finite or beyond {kernels.AXIS_LIMIT} voxels: rebuild the data set")
        self.count = count

    def write(self, batch_index: int, out: "Rows") -> None:
        """Append the occupied voxels to `out`, moved so that none is negative."""
        rows = kernels.measure(self._block, self._word, self.count, self._low, self._size)
        out.reserve(rows)
        fixed = (self._block, self._word, self.count, self._low, batch_index)
        out.used = kernels.emit(*fixed, out.used, out.array, self._first_row)
        out.size = np.maximum(out.size, self._size)

    def rows_of(self, point, plane, time: int, matrix, index: np.ndarray, out: np.ndarray) -> None:
        """Rows of a cloud's points, after `write`; -1 where `plane` does not keep them."""
        grid = (self._table, self._block, self._word, self._first_row)
        kernels.find_rows(point, plane, time, matrix, index, grid, out)


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Ordinary memory for batch buffers; a loader that feeds a GPU passes one that pins it."""
    return torch.empty(shape, dtype=dtype)


class Rows:
    """A growing array of voxel rows, reused from batch to batch."""

    def __init__(self, columns: int, allocate: Allocate) -> None:
        self._allocate, self._tensor = allocate, allocate((0, columns), torch.int32)
        self.array = self._tensor.numpy()
        self.clear()

    def clear(self) -> None:
        self.used, self.size = 0, np.zeros(3, np.int64)

    def reserve(self, rows: int) -> None:
        """Make room for `rows` more; growing by half again keeps later batches from growing."""
        if self.used + rows <= len(self.array):
            return
        grown = self._allocate(((self.used + rows) * 3 // 2, self.array.shape[1]), torch.int32)
        grown[: self.used] = self._tensor[: self.used]
        self._tensor, self.array = grown, grown.numpy()

    def voxels(self, *more: int) -> Voxels:
        """What was written, with the bounds of further axes."""
        return Voxels(self._tensor[: self.used], (*(int(s) for s in self.size), *more))


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
        self.pair_row, self.pair_row_4d = self._pair_row.numpy(), self._pair_row_4d.numpy()
        self.point_row, self.point_row_4d = self._point_row.numpy(), self._point_row_4d.numpy()
        self.moving = self._moving.numpy()

    def clear(self) -> None:
        for rows in (*self.frame, self.sequence):
            rows.clear()

    def batch(self) -> Batch:
        """The tensors over this memory."""
        frames = tuple(rows.voxels() for rows in self.frame)
        sequence = self.sequence.voxels(self.t) if self.recipe.voxel_4d_m else None
        row = (self._pair_row, self._pair_row_4d, self._point_row, self._point_row_4d)
        return Batch(frames, sequence, *row, self._moving, self.size)


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
    actors = [actor for actor in sequence.actors if recipe.moving_actors or actor.role != MOVING]
    view = draw_views(t, recipe, rng)
    pairs = [_some(sample_common(actors, i, j, recipe, rng), i, j) for i, j in frame_pairs(t)]
    points = [_some(sample_common(actors, i, i, recipe, rng), i, i) for i in range(t)]
    slots = slice(b * recipe.samples, (b + 1) * recipe.samples)
    for i in range(t):
        matrix = _matrices(actors, i, view[i], recipe.voxel_m)
        _add_frame(actors, i, matrix, b, buffer.frame[i], scratch.frame)
        wanted = [(buffer.pair_row[p, pair.index(i), slots], pairs[p]) for p, pair in _pairs_of(i, t)]
        for out, parts in (*wanted, (buffer.point_row[i, slots], points[i])):
            _look_up(actors, i, matrix, parts, scratch.frame, 0, out)
        for part in points[i]:
            moving = buffer.moving[i, slots][part.start : part.start + part.index.size]
            moving[:] = actors[part.actor].role == MOVING
    if recipe.voxel_4d_m is None:
        return
    matrix = [_matrices(actors, i, np.eye(4), recipe.voxel_4d_m) for i in range(t)]
    _add_4d(actors, matrix, b, buffer.sequence, scratch.sequence)
    for i in range(t):
        wanted = [(buffer.pair_row_4d[p, pair.index(i), slots], pairs[p]) for p, pair in _pairs_of(i, t)]
        wanted += [(buffer.point_row_4d[f, slots, i], points[f]) for f in range(t)]
        for out, parts in wanted:
            _look_up(actors, i, matrix[i], parts, scratch.sequence, i, out)


def _some(parts: list[Part], i: int, j: int) -> list[Part]:
    if not parts:
        raise BatchError(f"frames {i} and {j} have no common point, so there is nothing to compare: leave it out")
    return parts


def _pairs_of(i: int, t: int) -> list[tuple[int, tuple[int, int]]]:
    """(pair number, pair) of every pair that frame i belongs to."""
    return [(p, pair) for p, pair in enumerate(frame_pairs(t)) if i in pair]


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


def to_device(value, device: torch.device):
    """A batch, or any nest of tuples with tensors, with its tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        parts = [to_device(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
