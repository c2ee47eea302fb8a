"""OFF meshes with the oddities of ModelNet: header glued to its counts, CRLF, comments, blank lines, colours, polygons.

An own reader, because the checks need every count and trimesh skips them: it takes truncated face lists and negative
counts without a word.
"""

import re
from pathlib import Path

import numpy as np

from gen4d.sources.formats.polygons import Polygons, triangulate
from gen4d.sources.formats.text import Numbers, as_text, read_numbers, read_rows, without_comments
from gen4d.sources.source import SourceError

_KEYWORD = re.compile(rb"\s*((?:ST)?C?N?4?n?OFF)([ \t]+BINARY)?")
_COUNTS = re.compile(rb"\s*([^\r\n]*)")
_LEAST_VERTEX_BYTES = len("0 0 0\n")
_LEAST_FACE_BYTES = len("1 0\n")


def read_off(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Vertices (V, 3) float64, triangles (F, 3) int64 of an OFF file, and doubts about its faces; edges are dropped.

    Raises SourceError for anything whose counts and lines do not agree. Indices are checked by the caller.
    """
    text = without_comments(as_text(path, content))
    vertices, faces, at = _parse_counts(path, text)
    body = text[at:]
    if vertices * _LEAST_VERTEX_BYTES + faces * _LEAST_FACE_BYTES > len(body) + 1:
        raise SourceError(
            path,
            f"is truncated or its counts are wrong: it declares {vertices} vertices and {faces} faces "
            f"and {len(body)} bytes follow: copy or download it again",
        )
    numbers = read_numbers(path, body, (len(body) + 1) // 2)
    if len(numbers.value) == 3 * vertices + 4 * faces:
        face = numbers.value[3 * vertices :].reshape(-1, 4)
        if (face[:, 0] == 3).all():
            return numbers.value[: 3 * vertices].reshape(-1, 3), _indices(path, face[:, 1:]), ()
    starts = numbers.starts
    if len(starts) == vertices + faces:
        vertex, starts, lengths = *_vertices(path, numbers, starts, vertices), _lengths(numbers, starts)[vertices:]
    else:  # lines that go on over the next
        vertex = _wrapped_vertices(path, numbers, len(starts), vertices, faces)
        starts, lengths = _wrapped_faces(path, numbers, vertices, faces)
    polygons = _polygons(path, numbers, starts, lengths)
    return vertex, *triangulate(vertex, polygons)


def _parse_counts(path: Path, text: bytes) -> tuple[int, int, int]:
    keyword = _KEYWORD.match(text)
    if keyword is None:
        raise SourceError(
            path, f"is not an OFF file: it starts with {_shown(text)} instead of OFF: convert or remove it"
        )
    if keyword[2] or b"4" in keyword[1] or b"n" in keyword[1]:
        raise SourceError(path, f"is an OFF of a kind not read here ({_shown(keyword[0])}): save it as ascii, 3D OFF")
    line = _COUNTS.match(text, keyword.end())
    words = line[1].split()
    if not 2 <= len(words) <= 3 or not all(word.isdigit() and len(word) < 16 for word in words):
        raise SourceError(
            path, f"has the counts {_shown(line[1])}: it needs those of vertices, faces and edges, 0 or more: repair it"
        )
    return int(words[0]), int(words[1]), line.end()


def _lengths(numbers: Numbers, starts: np.ndarray) -> np.ndarray:
    """How many numbers each line holds."""
    return np.diff(np.append(starts, len(numbers.value)))


def _vertices(path: Path, numbers: Numbers, starts: np.ndarray, vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) of as many lines, whatever follows their coordinates there, and where the other lines start."""
    length = _lengths(numbers, starts)[:vertices]
    if (length < 3).any():
        row = int(np.argmax(length < 3))
        raise SourceError(path, f"has {length[row]} numbers in vertex {row}: x, y and z are needed: repair it")
    return numbers.value[starts[:vertices, None] + np.arange(3)], starts[vertices:]


def _wrapped_vertices(path: Path, numbers: Numbers, lines: int, vertices: int, faces: int) -> np.ndarray:
    try:
        return read_rows(path, numbers, vertices, 3, "vertex")
    except SourceError as error:
        raise _disagree(path, lines, vertices, faces) from error


def _wrapped_faces(path: Path, numbers: Numbers, vertices: int, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each face starts, and how many numbers it has, its count of corners included."""
    starts, lengths = np.empty(faces, np.int64), np.empty(faces, np.int64)
    values, first, at = numbers.value, numbers.first, 3 * vertices
    for row in range(faces):
        if at >= len(values) or not first[at] or not 1 <= values[at] < len(values) - at:
            raise _disagree(path, len(numbers.starts), vertices, faces)
        starts[row], lengths[row] = at, 1 + int(values[at])
        at += lengths[row]
    if at != len(values):
        raise _disagree(path, len(numbers.starts), vertices, faces)
    return starts, lengths


def _disagree(path: Path, lines: int, vertices: int, faces: int) -> SourceError:
    return SourceError(
        path,
        f"has {lines} lines after its counts and declares {vertices} vertices + {faces} faces: "
        "truncated, or its counts are wrong: copy it again",
    )


def _polygons(path: Path, numbers: Numbers, starts: np.ndarray, lengths: np.ndarray) -> Polygons:
    """Corners by their number, without what follows them; faces of one or two corners are lines and dropped."""
    corners = numbers.value[starts]
    bad = ~((corners >= 1) & (corners < lengths) & (corners == np.floor(corners)))
    if bad.any():
        row = int(np.argmax(bad))
        raise SourceError(
            path,
            f"has a face {row} that declares {corners[row]:.9g} corners and lists "
            f"{lengths[row] - 1}: truncated, copy it again",
        )
    polygons = {}
    for length in np.unique(corners[corners > 2]).astype(np.int64).tolist():
        at = starts[corners == length]
        polygons[length] = _indices(path, numbers.value[at[:, None] + np.arange(1, length + 1)])
    return polygons


def _shown(text: bytes) -> str:
    return repr(text[:20].decode("latin-1"))


def _indices(path: Path, values: np.ndarray) -> np.ndarray:
    if not (np.abs(values) < 2**31).all() or (values != np.floor(values)).any():
        raise SourceError(path, "has a face index that is not a whole number: write it again")
    return values.astype(np.int64)
