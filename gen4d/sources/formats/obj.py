"""OBJ meshes: positions and faces only.

An own reader, because trimesh (5.2) loads broken ones without a word: face index 0 becomes the last vertex, a short
vertex line is skipped and shifts all that follow, a truncated face is dropped, and relative indices of a file that
mixes vertices and faces point to the wrong vertices. `tests/test_sources_meshes.py` holds these cases.
"""

from pathlib import Path

import numpy as np

from gen4d.sources.formats.off import fan
from gen4d.sources.source import SourceError


def read_obj(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64 and triangles (F, 3) int64 of an OBJ file; polygons become fans.

    Raises SourceError for lines that are no vertices or faces. Indices beyond the vertices are left to the caller.
    """
    vertices: list[list[bytes]] = []
    polygons: dict[int, list[int]] = {}
    lines = content.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if words[0] == b"v":
            vertices.append(_position(path, number, words))
        elif words[0] == b"f":
            corners = _corners(path, number, words, len(vertices))
            polygons.setdefault(len(corners), []).extend(corners)
    return _numbers(path, vertices), _triangles(path, polygons)


def _position(path: Path, number: int, words: list[bytes]) -> list[bytes]:
    if len(words) < 4:
        raise SourceError(
            path, f"has {len(words) - 1} numbers in the vertex on line {number}: x, y and z are needed: repair it"
        )
    return words[1:4]


def _corners(path: Path, number: int, words: list[bytes], vertices: int) -> list[int]:
    """Zero-based corners of one face; negative indices count back from the latest vertex."""
    try:
        indices = [int(word.partition(b"/")[0]) for word in words[1 : _comment_start(words)]]
    except ValueError:
        indices = []
    if len(indices) < 3 or 0 in indices or min(indices) < -vertices or max(indices) >= 2**31:
        text = b" ".join(words)[:40].decode("latin-1")
        raise SourceError(
            path,
            f"has no face on line {number} ({text!r}, {vertices} vertices so far): "
            "3 or more corners, counted from 1: repair it",
        )
    return [index - 1 if index > 0 else vertices + index for index in indices]


def _comment_start(words: list[bytes]) -> int:
    return next((at for at, word in enumerate(words) if word.startswith(b"#")), len(words))


def _numbers(path: Path, vertices: list[list[bytes]]) -> np.ndarray:
    try:
        return np.array(vertices, np.float64).reshape(-1, 3)
    except ValueError as error:
        raise SourceError(path, f"has something else where a number belongs ({error}): write it again") from error


def _triangles(path: Path, polygons: dict[int, list[int]]) -> np.ndarray:
    parts = [fan(np.array(corners, np.int64).reshape(-1, length)) for length, corners in sorted(polygons.items())]
    return np.concatenate(parts) if parts else np.empty((0, 3), np.int64)
