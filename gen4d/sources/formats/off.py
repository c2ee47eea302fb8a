"""OFF meshes with the oddities of ModelNet: header glued to its counts, CRLF, comments, blank lines, colours, polygons.

An own reader, because the checks need every count and trimesh skips them: it takes truncated face lists and negative
counts without a word.
"""

import re
from pathlib import Path

import numpy as np

from gen4d.sources.formats import mesh_kernels
from gen4d.sources.source import SourceError

_COMMENT = re.compile(rb"#[^\r\n]*")
_KEYWORD = re.compile(rb"(?:\xef\xbb\xbf)?\s*((?:ST)?C?N?4?n?OFF)([ \t]+BINARY)?")
_COUNTS = re.compile(rb"\s*([^\r\n]*)")
_LEAST_VERTEX_BYTES = len("0 0 0\n")
_LEAST_FACE_BYTES = len("1 0\n")


def read_off(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64 and triangles (F, 3) int64 of an OFF file; polygons become fans, edges are dropped.

    Raises SourceError for anything whose counts and lines do not agree. Indices are checked by the caller.
    """
    text = _COMMENT.sub(b"", content) if b"#" in content else content
    vertices, faces, at = _parse_counts(path, text)
    body = text[at:]
    if vertices * _LEAST_VERTEX_BYTES + faces * _LEAST_FACE_BYTES > len(body) + 1:
        raise SourceError(
            path,
            f"is truncated or its counts are wrong: it declares {vertices} vertices and {faces} faces "
            f"and {len(body)} bytes follow: copy or download it again",
        )
    numbers = _plain_numbers(body, 3 * vertices + 4 * faces)
    if numbers is not None:
        face = numbers[3 * vertices :].reshape(-1, 4)
        if (face[:, 0] == 3).all():
            return numbers[: 3 * vertices].reshape(-1, 3), _indices(path, face[:, 1:])
    return _read_lines(path, body, vertices, faces)


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


def _read_lines(path: Path, body: bytes, vertices: int, faces: int) -> tuple[np.ndarray, np.ndarray]:
    lines = [words for words in map(bytes.split, body.splitlines()) if words]
    if len(lines) != vertices + faces:
        raise SourceError(
            path,
            f"has {len(lines)} lines after its counts and declares {vertices} vertices + {faces} faces: "
            "truncated, or its counts are wrong: copy it again",
        )
    short = next((row for row, words in enumerate(lines[:vertices]) if len(words) < 3), None)
    if short is not None:
        raise SourceError(path, f"has {len(lines[short])} numbers in vertex {short}: x, y and z are needed: repair it")
    vertex = _numbers(path, [word for words in lines[:vertices] for word in words[:3]]).reshape(-1, 3)
    return vertex, _fans(path, lines[vertices:])


def _fans(path: Path, lines: list[list[bytes]]) -> np.ndarray:
    corners: dict[int, list[bytes]] = {}
    for row, words in enumerate(lines):
        length = int(words[0]) if words[0].isdigit() and len(words[0]) < 10 else 0
        if not 1 <= length < len(words):
            raise SourceError(
                path,
                f"has a face {row} that declares {_shown(words[0])} corners and lists "
                f"{len(words) - 1}: truncated, copy it again",
            )
        if length > 2:
            corners.setdefault(length, []).extend(words[1 : length + 1])
    triangles = [
        fan(_indices(path, _numbers(path, words).reshape(-1, length))) for length, words in sorted(corners.items())
    ]
    return np.concatenate(triangles) if triangles else np.empty((0, 3), np.int64)


def fan(polygon: np.ndarray) -> np.ndarray:
    """Polygons (F, n) to triangles (F * (n - 2), 3): around the first corner, wrong only for concave ones."""
    first = np.broadcast_to(polygon[:, :1], (len(polygon), polygon.shape[1] - 2))
    return np.stack([first, polygon[:, 1:-1], polygon[:, 2:]], axis=2).reshape(-1, 3)


def _plain_numbers(body: bytes, wanted: int) -> np.ndarray | None:
    """All numbers (wanted,) of a text, as `float` reads them, or None where there are more, fewer or something else."""
    text = np.frombuffer(body, np.uint8)
    numbers, late = np.empty(wanted), np.empty((wanted, 3), np.int64)
    count, waiting = mesh_kernels.read_numbers(text, numbers, late)
    if count != wanted:
        return None
    for index, start, end in late[:waiting].tolist():
        numbers[index] = float(body[start:end])
    return numbers


def _shown(text: bytes) -> str:
    return repr(text[:20].decode("latin-1"))


def _numbers(path: Path, words: list[bytes]) -> np.ndarray:
    try:
        return np.array(words, np.float64) if words else np.empty(0)
    except ValueError as error:
        raise SourceError(path, f"has something else where a number belongs ({error}): write it again") from error


def _indices(path: Path, values: np.ndarray) -> np.ndarray:
    if not (np.abs(values) < 2**31).all() or (values != np.floor(values)).any():
        raise SourceError(path, "has a face index that is not a whole number: write it again")
    return values.astype(np.int64)
