"""Animated glTF (`.glb`) for slides, web pages and Blender: a cloud is there once and its actor's node moves.

glTF has no word for the points that a frame keeps, so all points of a cloud are always there. An actor that is absent
from a frame has size 0 meanwhile. A frame takes a second; what lies between two frames is interpolated.
"""

import json
import struct

import numpy as np
from scipy.spatial.transform import Rotation

from gen4d.sequence import ROLE_MOVING, ROLES, Actor, Sequence

_UP = [-(0.5**0.5), 0.0, 0.0, 0.5**0.5]  # quaternion that turns z up to y up, which glTF has
_FLOAT = 5126
_POINTS = 0
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
_COLOURS = {"still": [0.55, 0.58, 0.62, 1.0], "moving": [0.95, 0.45, 0.1, 1.0]}


class _Buffer:
    """Arrays of float32 one after another, and what glTF says of each."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.views: list[dict] = []
        self.accessors: list[dict] = []
        self.size = 0

    def add(self, array: np.ndarray, kind: str) -> int:
        """Number of the accessor of rows of a kind: SCALAR, VEC3 or VEC4."""
        rows = np.ascontiguousarray(array, "<f4").reshape(-1, _WIDTHS[kind])
        self.views.append({"buffer": 0, "byteOffset": self.size, "byteLength": rows.nbytes})
        bounds = {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        view = {"bufferView": len(self.views) - 1, "componentType": _FLOAT, "count": len(rows), "type": kind}
        self.accessors.append(view | bounds)
        self.parts.append(rows.tobytes())
        self.size += rows.nbytes
        return len(self.accessors) - 1


def encode(name: str, sequence: Sequence, about: dict) -> dict[str, bytes]:
    """`<name>.glb`: a node per actor under one that turns z up; vertex i is point i of the actor's cloud."""
    buffer, meshes, nodes = _Buffer(), {}, [{"name": sequence.id, "rotation": _UP, "extras": about}]
    samplers: list[dict] = []
    channels: list[dict] = []
    times = buffer.add(np.arange(sequence.t + 1), "SCALAR")  # the last frame stays for a second too
    for number, actor in enumerate(sequence.actors):
        node: dict = {"name": f"{ROLES[actor.role]} {number}{_shape(sequence, actor)}"}
        if len(actor.cloud):
            key = id(actor.cloud), actor.role == ROLE_MOVING
            if key not in meshes:
                meshes[key] = len(meshes), buffer.add(actor.cloud.point, "VEC3"), int(key[1])
            node["mesh"] = meshes[key][0]
        for path, values, way in _motion(actor):
            node[path] = values[0].tolist()
            if (values != values[0]).any():
                kind = "VEC4" if path == "rotation" else "VEC3"
                output = buffer.add(np.concatenate([values, values[-1:]]), kind)
                samplers.append({"input": times, "output": output, "interpolation": way})
                target = {"node": len(nodes), "path": path}
                channels.append({"sampler": len(samplers) - 1, "target": target})
        nodes.append(node)
    nodes[0]["children"] = list(range(1, len(nodes)))
    scene = {
        "asset": {"version": "2.0", "generator": "gen4d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": points}, "mode": _POINTS, "material": material}]}
            for _, points, material in meshes.values()
        ],
        "materials": [_material(key) for key in _COLOURS],
        "extensionsUsed": ["KHR_materials_unlit"],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.size}],
    }
    if channels:
        scene["animations"] = [{"name": "frames", "samplers": samplers, "channels": channels}]
    return {f"{name}.glb": _pack(scene, b"".join(buffer.parts))}


def _shape(sequence: Sequence, actor: Actor) -> str:
    return f": {sequence.movers[actor.mover].shape}" if actor.mover >= 0 else ""


def _motion(actor: Actor) -> list[tuple[str, np.ndarray, str]]:
    """How an actor moves: glTF's path, values (t, 3 or 4) float32, and what lies between two of them."""
    pose = actor.pose.astype(np.float64)
    size = np.cbrt(np.linalg.det(pose[:, :3, :3]))
    turn = Rotation.from_matrix(pose[:, :3, :3] / size[:, None, None]).as_quat()
    for i in range(1, len(turn)):  # a quaternion and its negative are one rotation: take the nearer one
        turn[i] *= 1.0 if turn[i] @ turn[i - 1] >= 0 else -1.0
    present = actor.present
    shown = np.repeat(np.where(present, size, 0.0)[:, None], 3, axis=1)
    return [
        ("translation", pose[:, :3, 3].astype(np.float32), "LINEAR"),
        ("rotation", turn.astype(np.float32), "LINEAR"),
        ("scale", shown.astype(np.float32), "LINEAR" if present.all() else "STEP"),
    ]


def _material(key: str) -> dict:
    surface = {"baseColorFactor": _COLOURS[key], "metallicFactor": 0.0}
    return {"name": key, "pbrMetallicRoughness": surface, "extensions": {"KHR_materials_unlit": {}}}


def _pack(scene: dict, content: bytes) -> bytes:
    """A GLB file: a header, and the scene and the buffer as chunks of whole words."""
    text = json.dumps(scene, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(content), b"BIN\0") + content
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
