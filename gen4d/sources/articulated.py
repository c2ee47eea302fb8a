"""Articulated shapes: parts that hinge and slide on one another, from a URDF and the meshes beside it."""

import posixpath
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.formats.meshes import read_mesh
from gen4d.sources.formats.urdf import Urdf, UrdfJoint, Visual, read_urdf
from gen4d.sources.source import SourceError, SourceFile, read_file

_MOST_PARTS = 30
_MOST_DEEP = 4  # joints on the way to a part
_CORNER = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_BOX = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]]
    + [[2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)


class Joint(NamedTuple):
    """How a part moves on another: it turns about, or slides along, a line through `point` in the direction `axis`,
    both (3,) float64 in the frame of the whole shape at rest, where every joint has the value 0.

    low, high: radians for a hinge, the shape's units for a slide.
    """

    name: str
    kind: str  # hinge or slide
    part: int
    parent: int  # a part of a lower number; 0 is the base
    point: np.ndarray
    axis: np.ndarray
    low: float
    high: float


class Parts(NamedTuple):
    """An articulated shape at rest: vertex (V, 3) float64 and face (F, 3) int32 of all parts, part (F,) int32 the part
    of each face, the joints of parts 1, 2, ... in this order, the files that it was read from, and doubts about
    their meshes."""

    vertex: np.ndarray
    face: np.ndarray
    part: np.ndarray
    joints: tuple[Joint, ...]
    files: tuple[SourceFile, ...]
    doubts: tuple[str, ...]


def load_parts(root: Path, relative: str) -> Parts:
    """The parts and joints of the URDF `root / relative`, z up. Links that are fixed to another are parts of it.

    Raises SourceError that names the file, the link or joint, and the rule.
    """
    content, first = read_file(root, relative)
    path = root / relative
    urdf = read_urdf(path, content)
    frames, parts, joints = _walk(path, urdf)
    vertices, faces, numbers = [np.zeros((0, 3))], [np.zeros((0, 3), np.int32)], [np.zeros(0, np.int32)]
    files: dict[str, SourceFile] = {}
    doubts: list[str] = []
    for link, visuals in urdf.links.items():
        for visual in visuals:
            vertex, face = _load(root, posixpath.dirname(relative), visual, files, doubts)
            start = sum(map(len, vertices))
            to_shape = frames[link] @ visual.transform
            vertices.append(vertex @ to_shape[:3, :3].T + to_shape[:3, 3])
            faces.append((face + start).astype(np.int32))
            numbers.append(np.full(len(face), parts[link], np.int32))
    if len(faces) == 1:
        raise SourceError(path, "has no visual: a shape needs a surface")
    whole = map(np.concatenate, (vertices, faces, numbers))
    return Parts(*whole, joints, (first, *files.values()), tuple(doubts))


def _load(
    root: Path, folder: str, visual: Visual, files: dict[str, SourceFile], doubts: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    if not visual.mesh:
        return _CORNER, _BOX
    relative = posixpath.join(folder, visual.mesh)
    content, files[relative] = read_file(root, relative)
    vertex, face, odd = read_mesh(root / relative, content, "z")  # as it lies in the file: the URDF says how it stands
    doubts += [f"{visual.mesh} {doubt}" for doubt in odd]
    return vertex, face


def _walk(path: Path, urdf: Urdf) -> tuple[dict[str, np.ndarray], dict[str, int], tuple[Joint, ...]]:
    """Frame (4, 4) of every link at rest, the part that it belongs to, and the joints of the parts."""
    parent_of = {joint.child: joint for joint in urdf.joints}
    if len(parent_of) < len(urdf.joints):
        twice = next(joint.child for joint in urdf.joints if parent_of[joint.child] is not joint)
        raise SourceError(path, f"has two joints to the link {twice!r}: a link hangs on one other")
    roots = [link for link in urdf.links if link not in parent_of]
    if len(roots) != 1:
        raise SourceError(path, f"has {len(roots)} links that hang on no other ({', '.join(roots[:5])}): one is needed")
    frames, parts, deep = {roots[0]: np.eye(4)}, {roots[0]: 0}, {0: 0}
    joints: list[Joint] = []
    waiting = list(urdf.joints)
    while waiting:
        ready = [joint for joint in waiting if joint.parent in frames]
        if not ready:
            raise SourceError(path, f"has joints in a circle, {waiting[0].name!r} is one: every link hangs on a base")
        for joint in ready:
            frames[joint.child] = frames[joint.parent] @ joint.origin
            parent = parts[joint.parent]
            if joint.kind == "fixed":
                parts[joint.child] = parent
                continue
            joints.append(_joint_of(joint, len(joints) + 1, parent, frames[joint.child]))
            parts[joint.child], deep[len(joints)] = len(joints), deep[parent] + 1
        waiting = [joint for joint in waiting if joint.child not in frames]
    if len(joints) > _MOST_PARTS or max(deep.values()) > _MOST_DEEP:
        raise SourceError(
            path,
            f"has {len(joints)} joints, up to {max(deep.values())} on the way to one part: at most {_MOST_PARTS} and "
            f"{_MOST_DEEP}: fix some of them",
        )
    return frames, parts, tuple(joints)


def _joint_of(joint: UrdfJoint, part: int, parent: int, frame: np.ndarray) -> Joint:
    axis = frame[:3, :3] @ joint.axis
    return Joint(joint.name, joint.kind, part, parent, frame[:3, 3].copy(), axis, joint.low, joint.high)
