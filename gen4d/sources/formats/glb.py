"""GLB meshes: every node's transform applied, the triangles of all primitives in one mesh.

An own reader, because trimesh (5.2) draws 4 of the 12 triangles of a cube of fans, and every count and extension has to
be looked at before it anyway. Tests compare the two on everything else.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gen4d.sources.source import SourceError

_MAGIC, _JSON, _BINARY = b"glTF", b"JSON", b"BIN\0"
# Extensions that change looks only; any other required one changes how geometry is stored.
_HARMLESS = ("KHR_materials_", "KHR_texture_", "EXT_texture_", "KHR_lights_", "KHR_xmp", "KHR_animation_pointer")
_TRIANGLE_LIMIT = 5_000_000  # a scene can repeat one mesh any number of times
_POSITION = ("VEC3", {5126: "<f4"})
_INDEX = ("SCALAR", {5121: "u1", 5123: "<u2", 5125: "<u4"})
_COMPONENTS = {"SCALAR": 1, "VEC3": 3}
_LINES = {0: "points", 1: "lines", 2: "a closed line", 3: "a line"}  # primitives without a surface, by mode
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
# What a tree of other types and missing keys raises where it is looked into.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

Part = tuple[np.ndarray, np.ndarray]  # vertices (V, 3) float64, triangles (F, 3) int64


def read_glb(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Vertices (V, 3) float64, triangles (F, 3) int64 of a GLB file in its scene's frame, and doubts: none.

    Raises SourceError for damaged files, geometry in other files, and compressed geometry (Draco, meshopt).
    """
    tree, binary = _chunks(path, content)
    try:
        _check_tree(path, tree, len(binary))
        with np.errstate(all="ignore"):  # what is not finite is refused by the caller
            parts = _parts(path, tree, binary)
        if not parts:
            raise SourceError(path, f"has no triangles{_others(tree)}: a shape needs a surface")
    except _DAMAGE as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(path, f"is damaged ({type(error).__name__}: {error}): export it again") from error
    start = np.cumsum([0] + [len(vertex) for vertex, _ in parts])
    face = np.concatenate([face + at for (_, face), at in zip(parts, start[:-1], strict=True)])
    return np.concatenate([vertex for vertex, _ in parts]), face, ()


def _parts(path: Path, tree: dict, binary: bytes) -> list[Part]:
    """The surfaces of all nodes, in the scene's frame."""
    meshes: dict[int, list[Part]] = {}
    parts: list[Part] = []
    triangles = 0
    for node, matrix in _placed(path, tree):
        number = node["mesh"]
        if number not in meshes:
            meshes[number] = [_part(path, tree, binary, item) for item in _surfaces(tree["meshes"][number])]
        triangles += sum(len(face) for _, face in meshes[number])
        if triangles > _TRIANGLE_LIMIT:
            limit = f"at most {_TRIANGLE_LIMIT}: simplify it"
            raise SourceError(path, f"repeats its meshes to {triangles} triangles and more: {limit}")
        parts += [_moved(part, matrix) for part in meshes[number] if len(part[1])]
    return parts


def _chunks(path: Path, content: bytes) -> tuple[dict, bytes]:
    """The JSON tree, and the binary data that follow it."""
    if content[:4] != _MAGIC or len(content) < 20:
        raise SourceError(
            path, f"is not a GLB file: it starts with {content[:8]!r} instead of glTF: convert or remove it"
        )
    version, length, size = struct.unpack("<III", content[4:16])
    if version != 2 or length > len(content) or content[16:20] != _JSON or 20 + size > length:
        raise SourceError(
            path,
            f"is truncated or not glTF 2.0 (version {version}, {length} bytes declared, "
            f"{len(content)} there): copy or export it again",
        )
    try:
        tree = json.loads(content[20 : 20 + size])
    except (ValueError, RecursionError) as error:
        raise SourceError(path, f"has an invalid JSON part ({error}): export it again") from error
    if not isinstance(tree, dict):
        raise SourceError(path, "has a JSON part that is not an object: export it again")
    at = 20 + size
    if at + 8 > length:
        return tree, b""
    binary = int.from_bytes(content[at : at + 4], "little")
    if content[at + 4 : at + 8] != _BINARY or at + 8 + binary > length:
        raise SourceError(
            path, f"is truncated: {binary} bytes of binary data declared, {length - at - 8} there: copy it again"
        )
    return tree, content[at + 8 : at + 8 + binary]


def _check_tree(path: Path, tree: dict, binary: int) -> None:
    required = [name for name in tree.get("extensionsRequired", []) if not str(name).startswith(_HARMLESS)]
    if required:
        raise SourceError(
            path,
            f"stores its geometry by {', '.join(map(str, required))}, not read here: export it uncompressed",
        )
    children = [child for node in tree.get("nodes", []) for child in node.get("children", [])]
    if len(set(children)) < len(children) or set(_roots(tree)) & set(children):
        raise SourceError(path, "has a node with two parents, or nodes in a cycle: export it again")
    buffers = tree.get("buffers", [])
    if any("uri" in buffer for buffer in buffers) or len(buffers) > 1:
        raise SourceError(path, "keeps geometry outside its binary part: export everything into one .glb")
    if buffers and buffers[0]["byteLength"] > binary:
        raise SourceError(
            path, f"is truncated: {buffers[0]['byteLength']} bytes of geometry declared, {binary} there: copy it again"
        )


def _roots(tree: dict) -> list[int]:
    """The nodes of the scene to show, or those that no node holds where no scene is declared."""
    if scenes := tree.get("scenes"):
        return scenes[tree.get("scene", 0)].get("nodes", [])
    nodes = tree.get("nodes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    return [number for number in range(len(nodes)) if number not in children]


def _placed(path: Path, tree: dict) -> Iterator[tuple[dict, np.ndarray]]:
    """Each node with a mesh, a parent before its children, and its transform (4, 4) to the scene's frame."""
    nodes = tree.get("nodes", [])
    waiting = [(root, np.eye(4)) for root in _roots(tree)]
    while waiting:
        number, parent = waiting.pop()
        if number < 0:
            raise SourceError(path, f"shows a node {number}: nodes are counted from 0, export it again")
        node = nodes[number]
        matrix = parent @ _matrix(node)
        if "mesh" in node:
            yield node, matrix
        waiting += [(child, matrix) for child in node.get("children", [])]


def _matrix(node: dict) -> np.ndarray:
    """A node's transform (4, 4): its matrix, which is stored by columns, or translation, rotation and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    matrix = np.eye(4)
    if "rotation" in node:
        x, y, z, w = np.array(node["rotation"], np.float64) / np.linalg.norm(node["rotation"])
        matrix[0, :3] = 1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)
        matrix[1, :3] = 2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)
        matrix[2, :3] = 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)
    if "scale" in node:
        matrix[:3, :3] *= np.array(node["scale"], np.float64).reshape(3)
    if "translation" in node:
        matrix[:3, 3] = np.array(node["translation"], np.float64).reshape(3)
    return matrix


def _moved(part: Part, matrix: np.ndarray) -> Part:
    """A part under a transform; its triangles are turned over where that is a mirror."""
    vertex, face = part
    if np.array_equal(matrix, np.eye(4)):
        return part
    mirror = np.linalg.det(matrix[:3, :3]) < 0
    return (matrix @ np.column_stack([vertex, np.ones(len(vertex))]).T)[:3].T, face[:, ::-1] if mirror else face


def _surfaces(mesh: dict) -> list[dict]:
    """The primitives of a mesh that have positions, and a mode with a surface."""
    items = mesh["primitives"]
    return [item for item in items if "POSITION" in item["attributes"] and item.get("mode", _TRIANGLES) not in _LINES]


def _others(tree: dict) -> str:
    """What there is instead of triangles, for a message."""
    items = [item for mesh in tree.get("meshes", []) for item in mesh["primitives"]]
    modes = {_LINES[item["mode"]] for item in items if item.get("mode") in _LINES}
    bare = ["primitives without POSITION"] if any("POSITION" not in item["attributes"] for item in items) else []
    found = [*sorted(modes), *bare]
    return f", but {' and '.join(found)}" if found else ""


def _part(path: Path, tree: dict, binary: bytes, item: dict) -> Part:
    """The vertices and triangles of a primitive, in its own frame."""
    vertex = _accessor(path, tree, binary, item["attributes"]["POSITION"], _POSITION).astype(np.float64)
    if "indices" in item:
        index = _accessor(path, tree, binary, item["indices"], _INDEX)[:, 0].astype(np.int64)
    else:
        index = np.arange(len(vertex))
    if len(index) and index.max() >= len(vertex):
        raise SourceError(
            path, f"has face indices from {index.min()} to {index.max()} for {len(vertex)} vertices: export it again"
        )
    match item.get("mode", _TRIANGLES):
        case 4:
            face = index[: len(index) // 3 * 3].reshape(-1, 3)
        case 5:  # every second triangle of a strip is listed the other way around
            face = np.stack([index[:-2], index[1:-1], index[2:]], axis=1) if len(index) > 2 else index[:0].reshape(0, 3)
            face[1::2] = face[1::2, [1, 0, 2]]
        case 6:
            face = np.stack([np.full(max(len(index) - 2, 0), index[0] if len(index) else 0), index[1:-1], index[2:]], 1)
        case mode:
            raise SourceError(path, f"has a primitive of mode {mode!r}: 0 to 6 are known, export it as triangles")
    return vertex, face


def _accessor(path: Path, tree: dict, binary: bytes, number: int, kind: tuple[str, dict[int, str]]) -> np.ndarray:
    """The items (N, components) of an accessor, a view into the binary part."""
    accessor: dict[str, Any] = tree["accessors"][number]
    if accessor["type"] != kind[0] or accessor["componentType"] not in kind[1]:
        raise SourceError(path, f"has an accessor {number} of another type than {kind[0]}: export it again")
    view = tree["bufferViews"][accessor["bufferView"]] if "bufferView" in accessor else None
    if view is None or "sparse" in accessor:
        raise SourceError(path, f"has an accessor {number} without a buffer view, or a sparse one: export it plainly")
    dtype, width = np.dtype(kind[1][accessor["componentType"]]), _COMPONENTS[kind[0]]
    item = dtype.itemsize * width
    start, count, stride = accessor.get("byteOffset", 0), accessor["count"], view.get("byteStride", item)
    needed = start + max(count - 1, 0) * stride + item
    first = view.get("byteOffset", 0)
    end = first + view["byteLength"]
    if min(start, count, first) < 0 or stride < item or needed > view["byteLength"] or end > len(binary):
        raise SourceError(
            path,
            f"is truncated or its counts are wrong: accessor {number} declares {count} items, {needed} bytes of "
            f"{view['byteLength']}: export it again",
        )
    return np.ndarray((count, width), dtype, binary, first + start, (stride, dtype.itemsize))
