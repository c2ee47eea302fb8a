"""Small sequences in memory, in the reader's own types, for tests of the trainer that need no files."""

from typing import NamedTuple

import numpy as np


class Cloud(NamedTuple):
    point: np.ndarray
    vertex: np.ndarray
    label: np.ndarray | None = None
    instance: np.ndarray | None = None


class Actor(NamedTuple):
    cloud: Cloud
    role: int
    pose: np.ndarray
    planes: np.ndarray


class Sequence(NamedTuple):
    id: str
    scan: str
    actors: tuple[Actor, ...]
    t: int


def keyed(*key: int) -> np.random.Generator:
    """A generator for a test, keyed by numbers."""
    return np.random.Generator(np.random.Philox(key=[0, 0], counter=[*key, 0, 0, 0, 0][:4]))


def make_actor(point: np.ndarray, masks: np.ndarray, pose: np.ndarray | None = None, role: int = 0) -> Actor:
    """An actor of points (n, 3), masks (t, n) bool and poses (t, 4, 4), identities by default."""
    t = len(masks)
    pose = np.tile(np.eye(4, dtype=np.float32), (t, 1, 1)) if pose is None else pose.astype(np.float32)
    vertex = np.arange(len(point), dtype=np.int32)
    return Actor(Cloud(point.astype(np.float32), vertex), role, pose, np.packbits(masks, axis=1))


def room_points(points: int, rng: np.random.Generator, extent_m: float = 2.0) -> np.ndarray:
    """Floor and two walls with noise, one point per 2 cm voxel, (points or fewer, 3) float32."""
    flat = rng.uniform(0, extent_m, (3 * points, 3))
    flat[np.arange(len(flat)), rng.integers(0, 3, len(flat))] = 0
    flat = (flat + rng.normal(0, 0.004, flat.shape)).astype(np.float32)
    _, first = np.unique(np.floor(flat / 0.02).astype(np.int64), axis=0, return_index=True)
    return flat[np.sort(first)[:points]]


def make_sequence(number: int, points: int = 600, t: int = 4, keep: float = 0.8, shape_points: int = 100) -> Sequence:
    """A room at rest and, unless shape_points is 0, a box that moves and turns through it."""
    rng = keyed(number, 1)
    room = room_points(points, keyed(number // 4, 2))
    actors = [make_actor(room, rng.random((t, len(room))) < keep)]
    if shape_points:
        pose = np.tile(np.eye(4), (t, 1, 1))
        for i in range(t):
            angle = rng.uniform(0, 6.28)
            pose[i, :2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            pose[i, :3, 3] = [0.5 + 0.3 * i, 1.0, 0.02]
        box = rng.uniform(-0.2, 0.2, (shape_points, 3)) + [0, 0, 0.2]
        actors.append(make_actor(box, rng.random((t, shape_points)) < keep, pose, role=1))
    return Sequence(f"room{number // 4:04d}/{number % 4:03d}", f"room{number // 4:04d}", tuple(actors), t)
