"""How the parts of an articulated shape move on one another, beside the way of the whole shape through the scan.

4DContrast moves rigid shapes and names articulated motion as future work: everything here is ours (A).
"""

import itertools
from collections.abc import Sequence

import numpy as np

from gen4d.sources import Joint

_STEPS = {1: 33, 2: 17}  # places of each joint on the way to a part at which its sweep is taken, by how many there are
_FEW_STEPS = 7


def draw_joints(joints: Sequence[Joint], frames: int, rng: np.random.Generator, moving: bool = True) -> np.ndarray:
    """Values (t, J) of the joints: from one place of its range to another, both uniform, at a constant rate; or, if
    they are not `moving`, the one nearest to rest throughout."""
    low, high = (np.array([getattr(joint, end) for joint in joints], np.float64) for end in ("low", "high"))
    if not moving:
        return np.tile(np.clip(0.0, low, high), (frames, 1))
    first, last = low + (high - low) * rng.random((2, len(joints)))
    return first + (last - first) * np.linspace(0, 1, frames)[:, None]


def part_poses(joints: Sequence[Joint], value: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Poses (P, t, 4, 4) float64 of a shape's parts, the base first, in the frame of the shape at rest.

    value: (t, J) of the joints, radians or the shape's units; scale: metres of a unit. A part's pose is its parent's
    times the transform of its joint, since all joints are given where they are at rest.
    """
    pose = np.tile(np.eye(4), (len(joints) + 1, len(value), 1, 1))
    for joint, at in zip(joints, value.T, strict=True):
        pose[joint.part] = pose[joint.parent] @ _moves(joint, at, scale)
    return pose


def _moves(joint: Joint, value: np.ndarray, scale: float) -> np.ndarray:
    """Transforms (t, 4, 4) of a joint at values (t,): Rodrigues' formula about a line, or a shift."""
    out = np.tile(np.eye(4), (len(value), 1, 1))
    if joint.kind == "slide":
        out[:, :3, 3] = value[:, None] * joint.axis * scale
        return out
    x, y, z = joint.axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sin, cos = np.sin(value)[:, None, None], np.cos(value)[:, None, None]
    out[:, :3, :3] = np.eye(3) + sin * cross + (1 - cos) * (cross @ cross)
    point = joint.point * scale
    out[:, :3, 3] = point - out[:, :3, :3] @ point
    return out


def sweep(vertex: np.ndarray, owner: np.ndarray, joints: Sequence[Joint]) -> tuple[np.ndarray, float]:
    """Where the vertices (V, 3) of parts `owner` (V,) come when every joint goes through its range: places (S, 3), and
    by how much a vertex may lie farther out between two of them, which is on an arc."""
    places, slack = [vertex[owner == 0]], [0.0]
    for part in (joint.part for joint in joints):
        chain, mine = _chain(joints, part), vertex[owner == part]
        steps = _STEPS.get(len(chain), _FEW_STEPS)
        value = np.zeros((steps ** len(chain), len(joints)))
        ranges = [np.linspace(one.low, one.high, steps) for one in chain]
        value[:, [one.part - 1 for one in chain]] = list(itertools.product(*ranges))
        places.append(_placed(mine, part_poses(joints, value)[part]))
        arcs = 0.0
        for joint in chain:
            value[:, joint.part - 1] = 0  # and so have those before it: its axis is where it is at rest
            if joint.kind == "hinge":
                away = _placed(mine, part_poses(joints, value)[part]) - joint.point
                radius = np.linalg.norm(np.cross(away, joint.axis), axis=1).max(initial=0.0)
                arcs += radius * (1 - np.cos((joint.high - joint.low) / (steps - 1) / 2))
        slack.append(float(arcs))
    return np.concatenate(places), max(slack)


def _placed(vertex: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Vertices (V, 3) under each of the poses (n, 4, 4): (n V, 3)."""
    return (vertex @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]).reshape(-1, 3)


def _chain(joints: Sequence[Joint], part: int) -> list[Joint]:
    """The joints on the way from the base to a part."""
    chain: list[Joint] = []
    while part:
        chain.insert(0, joints[part - 1])
        part = joints[part - 1].parent
    return chain
