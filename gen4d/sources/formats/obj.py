"""OBJ meshes: positions and faces only.

An own reader, because trimesh (5.2) loads broken ones without a word: face index 0 becomes the last vertex, a short
vertex line is skipped and shifts all that follow, a truncated face is dropped, and relative indices of a file that
mixes vertices and faces point to the wrong vertices. `tests/test_sources_meshes.py` holds these cases.
"""

import re
from pathlib import Path

import numpy as np

from gen4d.sources.formats.polygons import triangulate
from gen4d.sources.formats.text import as_text, without_comments
from gen4d.sources.source import SourceError

_CONTINUED = re.compile(rb"\\[ \t]*(?:\r\n|\r|\n)")
_DIGITS = b"0123456789.+-"


def read_obj(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Vertices (V, 3) float64, triangles (F, 3) int64 of an OBJ file, and doubts about its faces.

    Faces of one or two corners are lines and dropped. Raises SourceError for lines that are no vertices or faces.
    Indices beyond the vertices are left to the caller.
    """
    vertices: list[list[bytes]] = []
    polygons: dict[int, list[int]] = {}
    text = without_comments(as_text(path, content))
    lines = (_CONTINUED.sub(b" ", text) if b"\\" in text else text).splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if words[0] == b"v":
            vertices.append(_position(path, number, words))
        elif words[0] == b"f":
            corners = _corners(path, number, words, len(vertices))
            if len(corners) > 2:
                polygons.setdefault(len(corners), []).extend(corners)
            elif number == len(lines) and text[-1:] not in b"\r\n":
                raise _no_face(path, number, words, len(vertices), "the file is cut off here: copy it again")
        elif words[0][:1] in _DIGITS:
            shown = words[0][:20].decode("latin-1")
            raise SourceError(
                path, f"has a line {number} that begins with {shown!r}: a broken line ends in a backslash"
            )
    vertex = _numbers(path, vertices)
    rows = {length: np.array(corners, np.int64).reshape(-1, length) for length, corners in polygons.items()}
    return vertex, *triangulate(vertex, rows)


def _position(path: Path, number: int, words: list[bytes]) -> list[bytes]:
    if len(words) < 4:
        raise SourceError(
            path, f"has {len(words) - 1} numbers in the vertex on line {number}: x, y and z are needed: repair it"
        )
    return words[1:4]


def _corners(path: Path, number: int, words: list[bytes], vertices: int) -> list[int]:
    """Zero-based corners of one face; negative indices count back from the latest vertex."""
    try:
        indices = [int(word.partition(b"/")[0]) for word in words[1:]]
    except ValueError:
        indices = []
    if not indices or 0 in indices or min(indices) < -vertices or max(indices) >= 2**31:
        raise _no_face(path, number, words, vertices, "corners are counted from 1: repair it")
    return [index - 1 if index > 0 else vertices + index for index in indices]


def _no_face(path: Path, number: int, words: list[bytes], vertices: int, rule: str) -> SourceError:
    shown = b" ".join(words)[:40].decode("latin-1")
    return SourceError(path, f"has no face on line {number} ({shown!r}, {vertices} vertices so far): {rule}")


def _numbers(path: Path, vertices: list[list[bytes]]) -> np.ndarray:
    try:
        return np.array(vertices, np.float64).reshape(-1, 3)
    except ValueError as error:
        raise SourceError(path, f"has something else where a number belongs ({error}): write it again") from error
