"""Points as plain text, a line a point: .xyz, .txt, .csv and .pts, with or without a line of names.

Numbers are parted by blanks, tabs, commas or semicolons; decimal commas are understood where something else parts the
numbers. A first line with one whole number is the count of points (.pts).
"""

import itertools
import re
from pathlib import Path

import numpy as np

from gen4d.sources.formats.columns import PointColumns, plain_name, with_ids
from gen4d.sources.formats.text import HEADER_LIMIT, as_text, is_number, read_numbers, skip_mark, without_comments
from gen4d.sources.source import SourceError

_PARTS = re.compile(r"[\s,;]+")
_COMMENT = ("#", "//")
_LINE = re.compile(rb"[^\s,;][^\r\n]*")  # with anything in it
_EMPTY = re.compile(rb"[,;][ \t]*[,;]|[\r\n][ \t]*[,;]")


def read_xyz(path: Path, content: bytes) -> PointColumns:
    """Points from a text of numbers. Without names the first three of a line are x, y, z and the rest is not used.

    Raises SourceError for lines of several lengths, a count that is wrong, and names without x, y and z.
    """
    return _table(path, *xyz_rows(path, content))


def xyz_rows(path: Path, content: bytes) -> tuple[np.ndarray, list[str]]:
    """All numbers of a text (N, columns) float64, and the names of its columns, where it has any. Raises SourceError
    as `read_xyz` does."""
    text = as_text(path, content)
    names, count, at = _head(path, text)
    body = without_comments(text[at:])
    first = at + skip_mark(path, content)
    if empty := _EMPTY.search(body):
        line = body.count(b"\n", 0, empty.start()) + 1
        raise SourceError(path, f"has an empty cell on line {line} of its data: fill it, or write nan there")
    numbers = read_numbers(path, _parted(body), (len(body) + 1) // 2, first)
    starts = numbers.starts
    widths = np.diff(np.append(starts, len(numbers.value)))
    width = int(widths[0]) if len(widths) else max(len(names), 3)
    if (odd := np.flatnonzero(widths != width)).size:
        line = int(odd[0])
        byte = first + next(itertools.islice(_LINE.finditer(body), line, None)).start()
        raise SourceError(
            path,
            f"has {widths[line]} numbers in point {line}, at byte {byte} of the file, and {width} before: "
            "repair that line",
        )
    if count is not None and count != len(starts):
        raise SourceError(path, f"declares {count} points and has {len(starts)}: truncated, copy it again")
    if width < 3 or (names and len(names) != width):
        named = f" and {len(names)} names ({', '.join(names[:8])})" if names else ""
        raise SourceError(
            path, f"has {width} numbers a line{named}: x, y and z are needed, and a name for each or none"
        )
    return numbers.value.reshape(-1, width), names


def _head(path: Path, text: bytes) -> tuple[list[str], int | None, int]:
    """The names of the columns, the count of points, where they are given, and where the numbers begin."""
    names: list[str] = []
    count, at = None, 0
    while at < min(len(text), HEADER_LIMIT):
        end = re.compile(rb"\r\n|\n|\r").search(text, at)
        line = text[at : end.start() if end else len(text)].decode("utf-8", "replace").strip()
        marked = line.startswith(_COMMENT)
        shown = line.lstrip("#/ \t") if marked else without_comments(line.encode()).decode()
        words = [word.strip("\"'") for word in _PARTS.split(shown) if word.strip("\"'")]
        if words and not marked and all(map(is_number, words)):
            if len(words) > 1 or count is not None or names or not words[0].isdigit():
                break
            count = int(words[0])
        elif set("xyz") <= set(map(str.lower, words)):
            names = words
        elif words and not marked:
            raise SourceError(
                path, f"begins with {line[:40]!r}, no numbers and no names x, y, z: not points, remove it"
            )
        at = end.end() if end else len(text)
    return names, count, at


def _parted(body: bytes) -> bytes:
    """The numbers parted by blanks alone, with decimal points."""
    line = body.lstrip().split(b"\n", 1)[0].strip()
    words = line.split(b";") if b";" in line else line.split()
    decimal = all(word.strip().count(b",") <= 1 and word.strip()[-1:] != b"," for word in words)
    if b"," in line and len(words) > 2 and decimal:
        return body.translate(bytes.maketrans(b";,", b" ."))
    return body.translate(bytes.maketrans(b";,", b"  "))


def _table(path: Path, values: np.ndarray, names: list[str]) -> PointColumns:
    if not names:
        extra = {f"column {i + 1}": values[:, i] for i in range(3, values.shape[1])}
        ids = [name for name, column in extra.items() if _may_be_ids(column)]
        colours = values.shape[1] == 6  # red, green and blue
        return PointColumns(np.ascontiguousarray(values[:, :3]), unused=() if colours else tuple(ids))
    plain = [plain_name(name) for name in names]
    axes = [plain.index(axis) for axis in "xyz"]
    columns = {name: values[:, i] for i, name in enumerate(names) if i not in axes}
    return with_ids(path, np.ascontiguousarray(values[:, axes]), columns)


def _may_be_ids(values: np.ndarray) -> bool:
    return bool((values == np.floor(values)).all() and (values != values[:1]).any())
