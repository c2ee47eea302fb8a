"""GLB meshes: checked here, read by trimesh, every node's transform applied, all triangles in one mesh."""

import json
import struct
from io import BytesIO
from pathlib import Path

import numpy as np

from gen4d.sources.source import SourceError

_MAGIC, _JSON, _BINARY = b"glTF", b"JSON", b"BIN\0"
# Extensions that change looks only; any other required one changes how geometry is stored.
_HARMLESS = ("KHR_materials_", "KHR_texture_", "EXT_texture_", "KHR_lights_", "KHR_xmp", "KHR_animation_pointer")
_TRIANGLE_LIMIT = 5_000_000  # a scene can repeat one mesh any number of times
_FLOAT, _UNSIGNED = 5126, (5121, 5123, 5125)  # component types of positions and of indices
_COMPONENT_BYTES = {5121: 1, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC3": 3}
# What trimesh was seen to raise on damaged files; it promises no type of its own.
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError)
_DAMAGE += (TypeError, ValueError, struct.error)


def read_glb(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64 and triangles (F, 3) int64 of a GLB file, in its scene's frame.

    Raises SourceError for damaged files, geometry in other files, and compressed geometry (Draco, meshopt): without a
    decoder that reads as zeros.
    """
    import trimesh  # here, because only GLB needs it and every worker would wait half a second for it

    tree, binary = _chunks(path, content)
    try:
        _check_tree(path, tree, binary)
        loaded = trimesh.load(BytesIO(content), file_type="glb", force="scene", process=False, skip_materials=True)
        _check_size(path, loaded)
        meshes = [mesh for mesh in loaded.dump() if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
    except _DAMAGE as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(path, f"is damaged ({type(error).__name__}: {error}): export it again") from error
    if not meshes:
        raise SourceError(path, "has no triangles: a shape needs a surface")
    start = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    vertex = np.concatenate([np.asarray(mesh.vertices, np.float64) for mesh in meshes])
    return vertex, np.concatenate([np.asarray(mesh.faces) + at for mesh, at in zip(meshes, start[:-1], strict=True)])


def _chunks(path: Path, content: bytes) -> tuple[dict, int]:
    """The JSON tree, and how many bytes of binary data follow it."""
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
        return tree, 0
    binary = int.from_bytes(content[at : at + 4], "little")
    if content[at + 4 : at + 8] != _BINARY or at + 8 + binary > length:
        raise SourceError(
            path, f"is truncated: {binary} bytes of binary data declared, {length - at - 8} there: copy it again"
        )
    return tree, binary


def _check_tree(path: Path, tree: dict, binary: int) -> None:
    required = [name for name in tree.get("extensionsRequired", []) if not str(name).startswith(_HARMLESS)]
    if required:
        raise SourceError(
            path,
            f"stores its geometry by {', '.join(map(str, required))}, not read here: export it uncompressed",
        )
    _check_nodes(path, tree)
    buffers = tree.get("buffers", [])
    if any("uri" in buffer for buffer in buffers) or len(buffers) > 1:
        raise SourceError(path, "keeps geometry outside its binary part: export everything into one .glb")
    if buffers and buffers[0]["byteLength"] > binary:
        raise SourceError(
            path, f"is truncated: {buffers[0]['byteLength']} bytes of geometry declared, {binary} there: copy it again"
        )
    for mesh in tree.get("meshes", []):
        for primitive in mesh["primitives"]:
            _check_accessor(path, tree, primitive["attributes"].get("POSITION"), binary, ("VEC3", (_FLOAT,)))
            _check_accessor(path, tree, primitive.get("indices"), binary, ("SCALAR", _UNSIGNED))


def _check_nodes(path: Path, tree: dict) -> None:
    """Nodes are trees: no node has two parents, and no root has one."""
    children = [child for node in tree.get("nodes", []) for child in node.get("children", [])]
    roots = {root for scene in tree.get("scenes", []) for root in scene.get("nodes", [])}
    if len(set(children)) < len(children) or roots & set(children):
        raise SourceError(path, "has a node with two parents, or nodes in a cycle: export it again")


def _check_accessor(path: Path, tree: dict, index: int | None, binary: int, kind: tuple[str, tuple[int, ...]]) -> None:
    if index is None:
        return
    accessor = tree["accessors"][index]
    if accessor["type"] != kind[0] or accessor["componentType"] not in kind[1]:
        raise SourceError(path, f"has an accessor {index} of another type than {kind[0]}: export it again")
    view = tree["bufferViews"][accessor["bufferView"]] if "bufferView" in accessor else None
    if view is None or "sparse" in accessor:
        raise SourceError(path, f"has an accessor {index} without a buffer view, or a sparse one: export it plainly")
    item = _COMPONENT_BYTES[accessor["componentType"]] * _COMPONENTS[accessor["type"]]
    start, count = accessor.get("byteOffset", 0), accessor["count"]
    needed = start + max(count - 1, 0) * view.get("byteStride", item) + item
    end = view.get("byteOffset", 0) + view["byteLength"]
    if min(start, count, view.get("byteOffset", 0)) < 0 or needed > view["byteLength"] or end > binary:
        raise SourceError(
            path,
            f"is truncated or its counts are wrong: accessor {index} declares {count} items, {needed} bytes of "
            f"{view['byteLength']}: export it again",
        )


def _check_size(path: Path, scene) -> None:
    sizes = {name: len(getattr(geometry, "faces", ())) for name, geometry in scene.geometry.items()}
    triangles = sum(sizes[scene.graph[node][1]] for node in scene.graph.nodes_geometry)
    if triangles > _TRIANGLE_LIMIT:
        raise SourceError(path, f"repeats its meshes to {triangles} triangles: at most {_TRIANGLE_LIMIT}: simplify it")
