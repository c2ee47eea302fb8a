"""Small sequences without a generator, in memory, and a small data set that is built of empty rooms and a box."""

import pathlib

import numpy as np

from gen4d import build_dataset
from gen4d.sequence import Actor, Cloud, Mover, Sequence, make_actor
from tests.makers.files import ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX, write_shape


def keyed(*key: int) -> np.random.Generator:
    """A generator for a test, keyed by numbers."""
    return np.random.Generator(np.random.Philox(key=[0, 0], counter=[*key, 0, 0, 0, 0][:4]))


def actor_of(point: np.ndarray, masks: np.ndarray, pose: np.ndarray | None = None, role: int = 0) -> Actor:
    """An actor of points (n, 3), masks (t, n) bool and poses (t, 4, 4), identities by default."""
    return make_actor(Cloud(point, np.arange(len(point))), masks, pose, role, mover=role - 1)


def room_points(points: int, rng: np.random.Generator, extent_m: float = 2.0) -> np.ndarray:
    """Floor and two walls with noise, one point per 2 cm voxel, (points or fewer, 3) float32."""
    flat = rng.uniform(0, extent_m, (3 * points, 3))
    flat[np.arange(len(flat)), rng.integers(0, 3, len(flat))] = 0
    flat = (flat + rng.normal(0, 0.004, flat.shape)).astype(np.float32)
    _, first = np.unique(np.floor(flat / 0.02).astype(np.int64), axis=0, return_index=True)
    return flat[np.sort(first)[:points]]


def make_sequence(
    number: int, points: int = 600, t: int = 4, keep: float = 0.8, shape_points: int = 100, extent_m: float = 2.0
) -> Sequence:
    """A room at rest and, unless shape_points is 0, a box that moves and turns through it."""
    rng = keyed(number, 1)
    room = room_points(points, keyed(number // 4, 2), extent_m)
    actors = [actor_of(room, rng.random((t, len(room))) < keep)]
    if shape_points:
        pose = np.tile(np.eye(4), (t, 1, 1))
        for i in range(t):
            angle = rng.uniform(0, 6.28)
            pose[i, :2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            pose[i, :3, 3] = [0.5 + 0.3 * i, 1.0, 0.02]
        box = rng.uniform(-0.2, 0.2, (shape_points, 3)) + [0, 0, 0.2]
        actors.append(actor_of(box, rng.random((t, shape_points)) < keep, pose, role=1))
    scan = f"room{number // 4:04d}"
    return Sequence(scan, number % 4, tuple(actors), (Mover("box", "chair"),) if shape_points else ())


class MemoryDataset(list):
    """Sequences in memory with what the trainer asks of a data set."""

    digest = "in memory"
    local = True

    @property
    def scan_names(self) -> list[str]:
        return [f"room{number:04d}" for number in range(-(-len(self) // 4))]

    def scan_of(self, i: int) -> int:
        """Number of the scan of sequence i: four sequences a scan."""
        return i // 4


def make_dataset(sequences: int = 8, **options) -> MemoryDataset:
    """A data set of small sequences."""
    return MemoryDataset(make_sequence(k, **options) for k in range(sequences))


def write_dataset(folder: pathlib.Path, scans: int = 2, sequences: int = 4, points: int = 4000) -> pathlib.Path:
    """Build a small data set, with nothing but gen4d, from empty rooms and a box; returns its folder."""
    for number in range(scans):
        write(folder / "scans" / f"room{number:04d}.ply", ply(room_points(points, keyed(number, 3), extent_m=3.0)))
    write_shape(folder / "shapes", "chair", 1, (CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_QUADS)
    places = folder / "scans", folder / "shapes", folder / "data"
    build_dataset(*places, strict=True, sequences=sequences, shape_points=300, scans_per_shard=1)
    return folder / "data"
