"""The loader against the same work with np.unique and a plain DataLoader, in one run: `python -m benchmarks loader`.

Both read the same shards, draw the same numbers and give the same voxels and samples, which is checked first.
"""

import contextlib
import pathlib
import statistics
import tempfile
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from gen4d import build_dataset
from gen4d.shards import frame_pairs, open_dataset
from tests import naive_train
from tests.makers.meshes import write_box
from tests.makers.rooms import write_full_size
from train.config import change
from train.inputs.order import BatchKey, keyed_generator
from train.inputs.views import draw_views
from train.methods.config import PRESETS
from train.methods.contrast4d.batch import SequenceStream
from train.methods.pretrain import make_stream, pretrain
from train.run.world import World

BATCH, WORKERS, ROUNDS = 12, 2, 3
OWN_BATCHES = 12  # timed in a round, after as many as there are buffers


def build_data(folder: pathlib.Path, scans: int = 8) -> pathlib.Path:
    """Twenty sequences of each of a few scans of 115 k points; returns the data set's folder."""

    classes = ("chair", "night_stand")
    write_full_size(folder / "scans", scans)
    for name in classes:
        write_box(folder / "shapes", name)
    build_dataset(folder / "scans", folder / "shapes", folder / "data", classes=classes)
    return folder / "data"


class UniqueParts(Dataset):
    """What a plain Dataset does: one sequence's frames, voxels by np.unique(axis=0), samples as rows of them."""

    def __init__(self, dataset, recipe, keys: list[BatchKey]):
        self.dataset, self.recipe = dataset, recipe
        self.items = [item for key in keys for item in zip(key.item, key.key, strict=True)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        index, key = self.items[number]
        sequence, recipe, rng = self.dataset[index], self.recipe, keyed_generator(*key)
        t = sequence.t
        view = draw_views(t, recipe.views, rng)
        pairs = [naive_train.sample_common(sequence.actors, i, j, recipe, rng) for i, j in frame_pairs(t)]
        points = [naive_train.sample_common(sequence.actors, i, i, recipe, rng) for i in range(t)]
        frames = [_frame(sequence, i) for i in range(t)]
        row_of = [_rows_of_identities(sequence, identity) for _, identity in frames]
        part = {"frame": [], "pair_row": np.zeros((len(pairs), 2, recipe.samples), np.int64)}
        part["point_row"] = np.zeros((t, recipe.samples), np.int64)
        for i, (point, _) in enumerate(frames):
            moved = point @ view[i, :3, :3].T + view[i, :3, 3]
            coordinate, inverse = _unique(np.floor(moved / recipe.voxel_m).astype(np.int64))
            part["frame"].append(coordinate)
            for p, pair in enumerate(frame_pairs(t)):
                if i in pair:
                    part["pair_row"][p, pair.index(i)] = inverse[row_of[i](pairs[p])]
            part["point_row"][i] = inverse[row_of[i](points[i])]
        return part | self._four([point for point, _ in frames], row_of, pairs, points)

    def _four(self, frames, row_of, pairs, points):
        t, samples = len(frames), self.recipe.samples
        voxel = [np.floor(point / self.recipe.voxel_4d_m).astype(np.int64) for point in frames]
        time = np.repeat(np.arange(t), [len(v) for v in voxel])[:, None]
        coordinate, inverse = _unique(np.concatenate([np.concatenate(voxel), time], axis=1))
        first = np.cumsum([0, *(len(v) for v in voxel)])
        pair_row = np.zeros((len(pairs), 2, samples), np.int64)
        point_row = np.zeros((t, samples, t), np.int64)
        for i in range(t):
            for p, pair in enumerate(frame_pairs(t)):
                if i in pair:
                    pair_row[p, pair.index(i)] = inverse[first[i] + row_of[i](pairs[p])]
            for f in range(t):
                row = row_of[i](points[f])
                point_row[f, :, i] = np.where(row < 0, -1, inverse[first[i] + row])
        return {"sequence": coordinate, "pair_row_4d": pair_row, "point_row_4d": point_row}


def _frame(sequence, i):
    """Points (n, 3) float64 of a frame and their identities (n, 2)."""
    point, identity = [], []
    for a, actor in enumerate(sequence.actors):
        index = np.flatnonzero(actor.mask(i))
        pose = actor.pose[i].astype(np.float64)
        point.append(actor.cloud.point[index].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3])
        identity.append(np.stack([np.full(len(index), a), index], axis=1))
    return np.concatenate(point), np.concatenate(identity)


def _rows_of_identities(sequence, identity):
    """A function from identities (k, 2) to rows of the frame with identities (n, 2), -1 where absent."""
    start = np.cumsum([0, *(len(actor.cloud.point) for actor in sequence.actors)])
    row = np.full(start[-1], -1)
    row[start[identity[:, 0]] + identity[:, 1]] = np.arange(len(identity))
    return lambda asked: row[start[asked[:, 0]] + asked[:, 1]]


def _unique(voxel):
    """Unique rows and the row of each; moved to start near 0, as the loader does."""
    coordinate, inverse = np.unique(voxel, axis=0, return_inverse=True)
    coordinate[:, :3] -= coordinate[:, :3].min(axis=0) // 8 * 8
    return coordinate.astype(np.int32), inverse.reshape(-1)


def collate(parts):
    """Parts of a batch side by side, rows counted on."""
    t = len(parts[0]["frame"])
    batch = {"frame": [_stack([part["frame"][i] for part in parts]) for i in range(t)]}
    batch["sequence"] = _stack([part["sequence"] for part in parts])
    before = [np.cumsum([0, *(len(part["frame"][i]) for part in parts[:-1])]) for i in range(t)]
    sides = np.array(frame_pairs(t))
    offset = np.array([[[before[i][b] for i in pair] for pair in sides] for b in range(len(parts))])
    rows = [part["pair_row"] + offset[b][:, :, None] for b, part in enumerate(parts)]
    batch["pair_row"] = torch.from_numpy(np.concatenate(rows, axis=2))
    rows = [part["point_row"] + np.array([before[i][b] for i in range(t)])[:, None] for b, part in enumerate(parts)]
    batch["point_row"] = torch.from_numpy(np.concatenate(rows, axis=1))
    first = np.cumsum([0, *(len(part["sequence"]) for part in parts[:-1])])
    rows = [part["pair_row_4d"] + n for part, n in zip(parts, first, strict=True)]
    batch["pair_row_4d"] = torch.from_numpy(np.concatenate(rows, axis=2))
    rows = [np.where(p["point_row_4d"] < 0, -1, p["point_row_4d"] + n) for p, n in zip(parts, first, strict=True)]
    batch["point_row_4d"] = torch.from_numpy(np.concatenate(rows, axis=1))
    return batch


def _stack(coordinates):
    number = np.repeat(np.arange(len(coordinates), dtype=np.int32), [len(c) for c in coordinates])[:, None]
    return torch.from_numpy(np.concatenate([number, np.concatenate(coordinates)], axis=1))


def check_equal(own, unique) -> None:
    """Raise where the two batches differ in voxels or in the voxel of a sample; rows are in another order."""
    for a, b in zip([*(v.coordinate for v in own.frame)], unique["frame"], strict=True):
        assert np.array_equal(_sorted(a), _sorted(b)), "voxels of a frame differ"
    assert np.array_equal(_sorted(own.sequence.coordinate), _sorted(unique["sequence"])), "4D voxels differ"
    for i in range(len(own.frame)):
        a, b = own.frame[i].coordinate[own.point_row[i]], unique["frame"][i][unique["point_row"][i]]
        assert torch.equal(a, b), "sampled points differ"
    for p, pair in enumerate(frame_pairs(len(own.frame))):
        for side, i in enumerate(pair):
            a = own.frame[i].coordinate[own.pair_row[p, side]]
            assert torch.equal(a, unique["frame"][i][unique["pair_row"][p, side]]), "sampled pairs differ"
    for name in ("pair_row_4d", "point_row_4d"):
        a, b = getattr(own, name), unique[name]
        assert torch.equal(a < 0, b < 0), "presence differs"
        there = a >= 0
        assert torch.equal(own.sequence.coordinate[a[there]], unique["sequence"][b[there]]), f"{name} differs"


def _sorted(coordinate):
    values = coordinate.numpy()
    return values[np.lexsort(values.T[::-1])]


def time_own(loader: SequenceStream) -> float:
    """Sequences a second into ready batches, after the buffers have been touched."""
    with contextlib.closing(loader.batches(0)) as batches:
        for _ in range(loader.workers + 1):
            next(batches)
        started = time.perf_counter()
        for _ in range(OWN_BATCHES):
            next(batches)
        return OWN_BATCHES * BATCH / (time.perf_counter() - started)


def time_unique(loader: SequenceStream) -> float:
    """Sequences a second of np.unique in a plain DataLoader of as many processes, their start counted in."""
    todo = loader.keys_from(0)
    keys = [next(todo) for _ in range(WORKERS)]
    parts = UniqueParts(loader.dataset, loader.recipe, keys)
    started = time.perf_counter()
    for _ in DataLoader(parts, BATCH, num_workers=WORKERS, collate_fn=collate):
        pass
    return len(parts) / (time.perf_counter() - started)


def bench_step(data: pathlib.Path, folder: pathlib.Path) -> str:
    """The share of a training step of the small preset that waits for data."""
    config = change(PRESETS["small"], steps=4, checkpoint_steps=100)
    world = World(0, 1, torch.device("cpu"))
    with contextlib.closing(pretrain(config, open_dataset(data), folder, world)) as records:
        timing = [record.timing for record in records][1:]
    wait, seconds = (statistics.median(row[key] for row in timing) for key in ("wait_share", "seconds"))
    return f"  a step of the small preset on the CPU takes {seconds:.2f} s and waits {wait:.1%} of it for data"


def main() -> None:
    """Build, check, measure, print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        data = build_data(pathlib.Path(name))
        config = change(PRESETS["paper"], batch=BATCH)
        alone = World(0, 1, torch.device("cpu"))
        loaders = {w: make_stream(change(config, workers=w), open_dataset(data), alone) for w in (1, 2)}
        loader = loaders[WORKERS]
        key = next(loader.keys_from(0))
        print(f"loader: {len(loader.dataset)} sequences from shards into batches of {BATCH}, voxels of 2 and 5 cm")
        parts = UniqueParts(loader.dataset, loader.recipe, [key])
        own = loader.sample(BATCH)
        check_equal(own, collate([parts[i] for i in range(BATCH)]))
        voxels = [len(v.coordinate) // BATCH for v in (own.frame[0], own.sequence)]
        print(f"  {voxels[0]} voxels a frame, {voxels[1]} in 4D; voxels and samples of both are equal")
        rate = {1: [], 2: [], "unique": []}
        for _ in range(ROUNDS):
            for workers in (1, 2):
                rate[workers].append(time_own(loaders[workers]))
            rate["unique"].append(time_unique(loader))
        median = {name: statistics.median(values) for name, values in rate.items()}
        print(f"  np.unique, DataLoader of {WORKERS} processes {median['unique']:8.2f} sequences/s")
        for workers in (1, 2):
            gain = median[workers] / median["unique"]
            print(f"  train.loader, {workers} thread{'s' * (workers > 1):<1} {median[workers]:18.1f} {gain:19.1f} x")
        print(bench_step(data, pathlib.Path(name) / "run"))
