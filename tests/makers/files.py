"""Small files in every format, with every oddity that sources are tested on."""

import json
import struct
from pathlib import Path

import numpy as np

_PLY_TYPES = {"f4": "float", "f8": "double", "u1": "uchar", "i1": "char", "u2": "ushort", "i2": "short"}
_PLY_TYPES |= {"i4": "int", "u4": "uint"}


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def ply(
    point: np.ndarray,
    columns: dict[str, np.ndarray] | None = None,
    order: str = "binary_little_endian",
    faces: list[tuple[int, ...]] | None = None,
    count_type: str = "u1",
    newline: str = "\n",
    faces_first: bool = False,
    extra: str = "",
) -> bytes:
    """A PLY file; `columns` follow x, y, z; `extra` are header lines after the format line."""
    named = {"x": point[:, 0], "y": point[:, 1], "z": point[:, 2], **(columns or {})}
    vertex = [f"element vertex {len(point)}"]
    vertex += [f"property {_PLY_TYPES[values.dtype.str[1:]]} {name}" for name, values in named.items()]
    polygons = [] if faces is None else [f"element face {len(faces)}"]
    polygons += [] if faces is None else [f"property list {_PLY_TYPES[count_type]} int vertex_indices"]
    parts = [(vertex, _ply_rows(named, order)), (polygons, _ply_lists(faces or [], count_type, order))]
    parts = parts[::-1] if faces_first else parts
    lines = ["ply", f"format {order} 1.0"] + ([extra] if extra else [])
    lines += [line for part in parts for line in part[0]] + ["end_header", ""]
    return newline.join(lines).encode() + b"".join(part[1] for part in parts)


def _ply_rows(named: dict[str, np.ndarray], order: str) -> bytes:
    if order == "ascii":
        rows = zip(*(values.tolist() for values in named.values()), strict=True)
        return "".join(" ".join(map(repr, row)) + "\n" for row in rows).encode()
    sign = "<" if order == "binary_little_endian" else ">"
    rows = np.empty(len(named["x"]), [(name, sign + values.dtype.str[1:]) for name, values in named.items()])
    for name, values in named.items():
        rows[name] = values
    return rows.tobytes()


def _ply_lists(faces: list[tuple[int, ...]], count_type: str, order: str) -> bytes:
    if order == "ascii":
        return "".join(f"{len(face)} {' '.join(map(str, face))}\n" for face in faces).encode()
    sign = "<" if order == "binary_little_endian" else ">"
    return b"".join(
        np.array(len(face), sign + count_type).tobytes() + np.array(face, sign + "i4").tobytes() for face in faces
    )


def pcd(rows: np.ndarray, data: str = "binary", height: int = 1, points: int | None = None) -> bytes:
    """A PCD file from a structured array; `points` overrides the declared number."""
    fields = [(name, *_pcd_field(rows.dtype[name])) for name in rows.dtype.names]
    declared = len(rows) if points is None else points
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        "FIELDS " + " ".join("_" if name.startswith("_") else name for name, *_ in fields),
        "SIZE " + " ".join(str(size) for _, _, size, _ in fields),
        "TYPE " + " ".join(kind for _, kind, _, _ in fields),
        "COUNT " + " ".join(str(count) for *_, count in fields),
        f"WIDTH {declared // height}",
        f"HEIGHT {height}",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {declared}",
        f"DATA {data}",
        "",
    ]
    return "\n".join(header).encode() + _pcd_body(rows, data)


def _pcd_field(kind: np.dtype) -> tuple[str, int, int]:
    return kind.base.kind.upper(), kind.base.itemsize, int(np.prod(kind.shape, dtype=int))


def _pcd_body(rows: np.ndarray, data: str) -> bytes:
    if data == "ascii":
        values = [[item for name in rows.dtype.names for item in np.ravel(row[name]).tolist()] for row in rows]
        return "".join(" ".join(map(repr, row)) + "\n" for row in values).encode()
    if data == "binary":
        return rows.tobytes()
    planes = b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in rows.dtype.names)
    packed = lzf_pack(planes)
    return struct.pack("<II", len(packed), len(planes)) + packed


def structured(point: np.ndarray, **columns: np.ndarray) -> np.ndarray:
    """x, y, z and further columns as a structured array."""
    named = {"x": point[:, 0], "y": point[:, 1], "z": point[:, 2], **columns}
    rows = np.empty(len(point), [(name, values.dtype, values.shape[1:]) for name, values in named.items()])
    for name, values in named.items():
        rows[name] = values
    return rows


def lzf_pack(data: bytes) -> bytes:
    """LZF with literals, short and long back references, found greedily by the last place of each three bytes."""
    out, literal, seen, at = bytearray(), bytearray(), {}, 0
    while at < len(data):
        key = data[at : at + 3]
        back = seen.get(key, -1) if len(key) == 3 else -1
        seen[key] = at
        if back < 0 or at - back > 8192:
            literal.append(data[at])
            at += 1
            continue
        length = 3
        while length < 264 and at + length < len(data) and data[back + length] == data[at + length]:
            length += 1
        _flush(out, literal)
        distance = at - back - 1
        short = length - 2
        out.append((min(short, 7) << 5) | (distance >> 8))
        if short >= 7:
            out.append(short - 7)
        out.append(distance & 255)
        at += length
    _flush(out, literal)
    return bytes(out)


def _flush(out: bytearray, literal: bytearray) -> None:
    for start in range(0, len(literal), 32):
        piece = literal[start : start + 32]
        out.append(len(piece) - 1)
        out += piece
    literal.clear()


def off(vertex: np.ndarray, faces, header: str = "OFF\n", newline: str = "\n", tail: str = "", digits: int = 9) -> str:
    """An OFF file; `tail` is appended to each face's line (a colour)."""
    lines = [f"{len(vertex)} {len(faces)} 0"]
    lines += [" ".join(f"{value:.{digits}g}" for value in row) for row in vertex]
    lines += [f"{len(face)} {' '.join(str(int(corner)) for corner in face)}{tail}" for face in faces]
    return (header + "\n".join(lines) + "\n").replace("\n", newline)


def obj(vertex: np.ndarray, faces) -> str:
    lines = ["v " + " ".join(f"{value:.9g}" for value in row) for row in vertex]
    return "\n".join(lines + ["f " + " ".join(str(int(corner) + 1) for corner in face) for face in faces]) + "\n"


def glb(tree: dict, binary: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<4sII", b"glTF", 2, length) + struct.pack("<I4s", len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def glb_mesh(vertex: np.ndarray, face: np.ndarray, nodes: list[dict] | None = None) -> tuple[dict, bytes]:
    """The JSON tree and the binary part of a scene whose nodes show one mesh."""
    points = vertex.astype("<f4").tobytes()
    corners = face.astype("<u4").tobytes()
    nodes = nodes or [{"mesh": 0}]
    tree = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "buffers": [{"byteLength": len(points) + len(corners)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": len(points)},
            {"buffer": 0, "byteOffset": len(points), "byteLength": len(corners)},
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": 5126,
                "count": len(vertex),
                "type": "VEC3",
                "min": vertex.min(axis=0).tolist(),
                "max": vertex.max(axis=0).tolist(),
            },
            {"bufferView": 1, "componentType": 5125, "count": face.size, "type": "SCALAR"},
        ],
    }
    return tree, points + corners
