"""Recordings of every kind, made by hand: several movers, an articulated shape, one actor per frame, scaled views."""

import math

import numpy as np

from gen4d import Cloud, FloorPlan, Mover, Recording, Sequence, make_actor
from gen4d.sequence import ROLE_MOVING, ROLE_VIEW

T = 4
PLAN = FloorPlan(np.ones((30, 20), bool), np.array([-2, 3], np.int32), 0.0, 0.1)


def rng(*key):
    return np.random.default_rng(key)


def turned(yaw: float, x: float, y: float, z: float = 0.0) -> np.ndarray:
    """A pose: turned about z, then moved."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1]])


def box(key: int, points: int = 90) -> Cloud:
    return Cloud(rng(key, 1).uniform((-0.2, -0.2, 0), (0.2, 0.2, 0.8), (points, 3)))


def room(key: int, points: int = 3001) -> Cloud:
    point = rng(key, 2).uniform((-0.2, 0.3, 0), (2.8, 2.3, 0.02), (points, 3))
    return Cloud(point, np.arange(points), rng(key, 3).integers(0, 5, points))


def masks(key: int, cloud: Cloud, share: float = 0.7) -> np.ndarray:
    return rng(key, 4).random((T, len(cloud))) < share


def way(key: int) -> np.ndarray:
    """Poses (T, 4, 4) of a walk."""
    yaw, place = rng(key, 5).uniform(0, 6, T), rng(key, 6).uniform((0, 0.5), (2.5, 2), (T, 2))
    return np.stack([turned(a, *xy) for a, xy in zip(yaw, place.tolist(), strict=True)])


def three_movers() -> Recording:
    """Two sequences: three shapes at once, two of them the same; the third is there in two frames only."""
    scan, sequences = room(1), []
    for k in range(2):
        clouds = [box(10 * k + i) for i in range(3)]
        kept = [masks(10 * k + i, cloud) for i, cloud in enumerate(clouds)]
        kept[2][[0, 3]] = False
        actors = [make_actor(scan, masks(90 + k, scan))]
        actors += [
            make_actor(cloud, mask, way(10 * k + i), ROLE_MOVING, mover=i)
            for i, (cloud, mask) in enumerate(zip(clouds, kept, strict=True))
        ]
        movers = (Mover("chair_0001", "chair", 0.8, 0.9, 0.3), Mover("table_7", "table", 0.7, 1.0, 0.5))
        sequences.append(Sequence("three", 2 * k, tuple(actors), (*movers, movers[0]), attempt=k))
    return Recording("three", tuple(sequences), scan, PLAN, 0.9, "nyu40")


def articulated() -> Recording:
    """A cupboard whose doors and drawer move with it and by themselves: four actors, one mover."""
    scan, base = room(2), way(7)
    parts = [box(20 + i, 40 + i) for i in range(4)]
    own = [np.stack([turned(0.3 * f * i, 0.02 * f * i, 0) for f in range(T)]) for i in range(4)]
    actors = [make_actor(scan, masks(30, scan))]
    actors += [
        make_actor(part, masks(31 + i, part), base @ own[i], ROLE_MOVING, mover=0) for i, part in enumerate(parts)
    ]
    return Recording("doors", (Sequence("doors", 0, tuple(actors), (Mover("cupboard", "cabinet"),)),), scan, PLAN, 0.9)


def one_actor_a_frame() -> Recording:
    """Windows over frames of a camera: every frame is a cloud of its own, and neighbouring windows share clouds."""
    views = [room(40 + f, 500 + f) for f in range(T + 1)]
    sequences = []
    for k in range(2):
        actors = []
        for f in range(T):
            mask = np.zeros((T, len(views[k + f])), bool)
            mask[f] = True
            actors.append(make_actor(views[k + f], mask, np.tile(turned(0.2 * f, f, 0), (T, 1, 1)), ROLE_VIEW))
        sequences.append(Sequence("video", k, tuple(actors), kind="frames"))
    return Recording("video", tuple(sequences))


def scaled_views() -> Recording:
    """STRL, Eq. 2: one shape under chained similarities."""
    shape, pose, poses = box(50, 300), np.eye(4), []
    for f in range(T):
        step = turned(0.2, 0.05, -0.02, 0.01)
        step[:3, :3] *= 0.8 + 0.1 * f
        pose = step @ pose
        poses.append(pose)
    actor = make_actor(shape, np.ones((T, 300), bool), np.stack(poses), ROLE_MOVING, mover=0)
    return Recording("chair_3", (Sequence("chair_3", 0, (actor,), (Mover("chair_3", "chair"),), "views"),))


MAKERS = {
    "three movers": three_movers,
    "articulated": articulated,
    "one actor a frame": one_actor_a_frame,
    "scaled views": scaled_views,
}
