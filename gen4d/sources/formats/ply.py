"""PLY points: ascii, binary little and big endian, any scalar types, other elements skipped with exact bounds.

Nothing is allocated before the header's counts were compared with the bytes that are there.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.formats.text import (
    Numbers,
    as_text,
    header_lines,
    is_padding,
    read_numbers,
    read_rows,
    skip_mark,
    without_comments,
)
from gen4d.sources.source import SourceError

_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_CORNERS = ("vertex_indices", "vertex_index")
_WHOLE = re.compile("[0-9]{1,20}")
_COMMENT_LINE = re.compile(rb"^[ \t]*(?:comment|obj_info)\b[^\r\n]*", re.M)
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"},
}


class Property(NamedTuple):
    """One property; `count` is the type of a list's length, empty for scalars. Types are NumPy codes, no byte order."""

    name: str
    type: str
    count: str = ""


class Element(NamedTuple):
    name: str
    rows: int
    properties: tuple[Property, ...]

    @property
    def scalar(self) -> bool:
        return not any(item.count for item in self.properties)

    def least_bytes(self, text: bool) -> int:
        """The fewest bytes one row can take; text: a digit and a separator for each value."""
        if text:
            return 2 * len(self.properties)
        return sum(np.dtype(item.count or item.type).itemsize for item in self.properties)


class Header(NamedTuple):
    order: str  # "" for ascii, else NumPy's "<" or ">"
    elements: tuple[Element, ...]
    end: int  # offset of the first byte of data


def ply_rows(path: Path, content: bytes) -> np.ndarray:
    """The vertices of a PLY file, (N,) structured, one field a scalar property; a view into `content` where it is
    binary and has no lists of several lengths. List properties are skipped.

    Raises SourceError for a broken header, and counts that do not fit the bytes.
    """
    header = _parse_header(path, content)
    _check_counts(path, header, len(content) - header.end)
    vertex = next((item for item in header.elements if item.name == "vertex"), None)
    if vertex is None or not vertex.properties:
        names = ", ".join(item.name for item in header.elements) or "none"
        raise SourceError(path, f"has no element `vertex` with properties (elements: {names}): a scan needs points")
    return _binary_rows(path, content, header) if header.order else _ascii_rows(path, content, header)


def ply_faces(path: Path, content: bytes) -> dict[int, np.ndarray]:
    """The faces of a PLY file by their number of corners, rows of vertices (F, n) int64 each; none where it has none.

    Raises SourceError for a broken header, and counts that do not fit the bytes.
    """
    header = _parse_header(path, content)
    _check_counts(path, header, len(content) - header.end)
    for number, element in enumerate(header.elements):
        columns = [i for i, item in enumerate(element.properties) if item.count and item.name in _CORNERS]
        if element.name == "face" and element.rows and columns:
            find = _binary_faces if header.order else _ascii_faces
            with np.errstate(invalid="ignore"):  # corners that are no whole numbers are refused by who uses them
                return find(path, content, header, number, columns[0])
    return {}


def _parse_header(path: Path, content: bytes) -> Header:
    start = skip_mark(path, content)
    if content[start : start + 64].split()[:1] != [b"ply"]:
        shown = content[start : start + 8]
        raise SourceError(
            path, f"is not a PLY file: it starts with {shown!r} instead of the line `ply`: convert or remove it"
        )
    lines, end = header_lines(path, content, "end_header", "PLY")
    order: str | None = None
    elements: list[Element] = []
    for line in lines[:-1]:
        words = line.split()
        if not words or words[0] in ("ply", "comment", "obj_info"):
            continue
        if words[0] == "format" and order is None:
            order = _parse_format(path, line)
        elif words[0] == "element" and len(words) == 3 and _WHOLE.fullmatch(words[2]):
            elements.append(Element(words[1], int(words[2]), ()))
        elif words[0] == "property" and elements:
            elements[-1] = _with_property(path, elements[-1], words)
        else:
            raise SourceError(path, f"has an invalid header line: {line[:60]!r}: write the file again")
    if order is None:
        raise SourceError(path, "has no header line `format`: write the file again")
    return Header(order, tuple(elements), end)


def _parse_format(path: Path, line: str) -> str:
    words = line.split()
    if len(words) < 2 or words[1] not in _ORDERS:
        raise SourceError(path, f"names an unknown PLY format ({line[:60]!r}): one of {', '.join(_ORDERS)}; convert it")
    return _ORDERS[words[1]]


def _with_property(path: Path, element: Element, words: list[str]) -> Element:
    item = _parse_property(path, words)
    if item.name in (known.name for known in element.properties):
        raise SourceError(path, f"declares the property {item.name!r} twice: rename one")
    return element._replace(properties=element.properties + (item,))


def _parse_property(path: Path, words: list[str]) -> Property:
    if len(words) == 3 and words[1] in _TYPES:
        return Property(words[2], _TYPES[words[1]])
    if len(words) == 5 and words[1] == "list" and words[2] in _TYPES and words[3] in _TYPES:
        if _TYPES[words[2]][0] == "f":
            raise SourceError(path, f"has a list whose length is a {words[2]}: lengths are integers, write it again")
        return Property(words[4], _TYPES[words[3]], _TYPES[words[2]])
    raise SourceError(path, f"has a property of unknown type: {' '.join(words)[:60]!r}, write it with float or int")


def _check_counts(path: Path, header: Header, remaining: int) -> None:
    least = sum(item.rows * item.least_bytes(not header.order) for item in header.elements)
    if least > remaining + (not header.order):  # the last line of a text may lack its newline
        declared = ", ".join(f"{item.rows} {item.name}" for item in header.elements)
        raise SourceError(
            path,
            f"is truncated or its counts are wrong: it declares {declared}, at least {least} bytes, "
            f"and {remaining} follow the header: copy or download it again",
        )


def _binary_rows(path: Path, content: bytes, header: Header) -> np.ndarray:
    offset, rows = header.end, None
    for element in header.elements:
        wanted = element.name == "vertex" and rows is None
        plain = _even_rows(content, offset, element, header.order)
        if plain is not None:
            size = element.rows * plain.itemsize
            if wanted and offset + size <= len(content):
                rows = np.frombuffer(content, plain, element.rows, offset) if plain.itemsize else np.empty(0, plain)
        else:
            at, size = _walk(path, content, offset, element, header.order, keep=wanted)
            rows = _gathered(content, element, at, header.order) if wanted else rows
        offset += size
        if offset > len(content):
            raise SourceError(
                path,
                f"is truncated: element `{element.name}` with {element.rows} rows ends at byte {offset}, "
                f"the file at {len(content)}: copy or download it again",
            )
    if offset < len(content) and not is_padding(content[offset:]):
        raise SourceError(
            path,
            f"has {len(content) - offset} bytes after its last declared row: the header's counts are wrong, "
            "write the file again",
        )
    return rows


def _even_rows(content: bytes, offset: int, element: Element, order: str) -> np.dtype | None:
    """The scalars of a row, with the bytes of lists between them, where all rows are of one length; else None."""
    if not element.rows or element.scalar:
        return np.dtype([(item.name, order + item.type) for item in element.properties if not item.count])
    width, counts, names, kinds, places = 0, [], [], [], []
    for item in element.properties:
        size = np.dtype(item.type).itemsize
        if item.count:
            kind = np.dtype(order + item.count)
            at = offset + width
            if at + kind.itemsize > len(content):
                return None
            length = int(np.frombuffer(content, kind, 1, at)[0])
            if not _least_length(element) <= length <= len(content):
                return None
            counts.append((kind, width, length))
            width += kind.itemsize + length * size
        else:
            names.append(item.name)
            kinds.append(order + item.type)
            places.append(width)
            width += size
    if offset + element.rows * width > len(content):
        return None
    for kind, at, length in counts:
        lengths = np.ndarray((element.rows,), kind, content, offset + at, (width,))
        if not (lengths == length).all():
            return None
    return np.dtype({"names": names, "formats": kinds, "offsets": places, "itemsize": width})


def _least_length(element: Element) -> int:
    """A face has corners; without this rule one vertex too many in the header can pass as an empty face."""
    return 1 if element.name == "face" else 0


def _walk(path: Path, content: bytes, offset: int, element: Element, order: str, keep: bool) -> tuple[list[int], int]:
    """Where each value or list of each row starts, if they are kept, and the bytes that the element takes."""
    endian = "big" if order == ">" else "little"
    sizes = [
        (np.dtype(item.count).itemsize if item.count else 0, item.count[:1] == "i", np.dtype(item.type).itemsize)
        for item in element.properties
    ]
    at, least, starts = offset, _least_length(element), []
    for row in range(element.rows):
        for count_bytes, signed, item_bytes in sizes:
            if keep:
                starts.append(at)
            length = 1
            if count_bytes:
                length = int.from_bytes(content[at : at + count_bytes], endian, signed=signed)
                at += count_bytes
            at += max(length, 0) * item_bytes
            if (count_bytes and length < least) or at > len(content):
                raise SourceError(
                    path,
                    f"is truncated or broken at row {row} of {element.rows} of element `{element.name}` "
                    f"(a list of {length} values, byte {at} of {len(content)}): copy or download it again",
                )
    return starts, at - offset


def _gathered(content: bytes, element: Element, starts: list[int], order: str) -> np.ndarray:
    """The scalars of rows of several lengths."""
    place = np.array(starts, np.int64).reshape(element.rows, len(element.properties))
    letters = np.frombuffer(content, np.uint8)
    scalars = [(column, item) for column, item in enumerate(element.properties) if not item.count]
    rows = np.empty(element.rows, [(item.name, order + item.type) for _, item in scalars])
    for column, item in scalars:
        size = np.dtype(item.type).itemsize
        rows[item.name] = letters[place[:, column, None] + np.arange(size)].view(order + item.type)[:, 0]
    return rows


def _binary_faces(path: Path, content: bytes, header: Header, number: int, column: int) -> dict[int, np.ndarray]:
    order, offset, element = header.order, header.end, header.elements[number]
    for before in header.elements[:number]:
        plain = _even_rows(content, offset, before, order)
        offset += before.rows * plain.itemsize if plain else _walk(path, content, offset, before, order, keep=False)[1]
    item, plain = element.properties[column], _even_rows(content, offset, element, order)
    count_type, kind = np.dtype(order + item.count), np.dtype(order + item.type)
    if plain:
        start = _walk(path, content, offset, element._replace(rows=1), order, keep=True)[0][column]
        corners = int(np.frombuffer(content, count_type, 1, start)[0])
        steps = (plain.itemsize, kind.itemsize)
        rows = np.ndarray((element.rows, corners), kind, content, start + count_type.itemsize, steps)
        return {corners: rows.astype(np.int64)}
    starts, _ = _walk(path, content, offset, element, order, keep=True)
    place = np.array(starts, np.int64).reshape(element.rows, -1)[:, column, None]
    letters = np.frombuffer(content, np.uint8)
    counts = letters[place + np.arange(count_type.itemsize)].view(count_type)[:, 0]
    faces = {}
    for corners in np.unique(counts).tolist():
        at = place[counts == corners] + count_type.itemsize
        faces[corners] = letters[at + np.arange(corners * kind.itemsize)].view(kind).astype(np.int64)
    return faces


def _ascii_faces(path: Path, content: bytes, header: Header, number: int, column: int) -> dict[int, np.ndarray]:
    numbers = _ascii_numbers(path, content, header)
    starts, element, at = numbers.starts, header.elements[number], 0
    if len(starts) == sum(item.rows for item in header.elements):
        at = int(starts[sum(item.rows for item in header.elements[:number])])
    else:
        for before in header.elements[:number]:
            at = _walk_numbers(path, numbers, at, before)[1]
    faces: dict[int, list[int]] = {}
    for _ in range(element.rows):
        for i, item in enumerate(element.properties):
            length = float(numbers.value[at]) if at < len(numbers.value) else -1.0
            corners = length if item.count else 0
            if not (0 <= corners < len(numbers.value) - at and corners == int(corners)):
                raise _lines_differ(path, len(starts), element.rows)
            if i == column:
                faces.setdefault(int(corners), []).extend(range(at + 1, at + 1 + int(corners)))
            at += 1 + int(corners)
    places = {corners: np.array(place, np.int64).reshape(-1, corners) for corners, place in faces.items() if corners}
    return {corners: numbers.value[place].astype(np.int64) for corners, place in places.items()}


def _ascii_numbers(path: Path, content: bytes, header: Header) -> Numbers:
    text = as_text(path, without_comments(content[header.end :]))
    if b"comment" in text or b"obj_info" in text:
        text = _COMMENT_LINE.sub(b"", text)
    return read_numbers(path, text, (len(text) + 1) // 2)


def _ascii_rows(path: Path, content: bytes, header: Header) -> np.ndarray:
    numbers = _ascii_numbers(path, content, header)
    starts, declared = numbers.starts, sum(item.rows for item in header.elements)
    by_line = len(starts) == declared
    at, line, found = 0, 0, None
    for element in header.elements:
        wanted = element.name == "vertex" and found is None
        if by_line:
            at = int(starts[line]) if line < declared else len(numbers.value)
        if wanted and element.scalar:
            found = _named(element, read_rows(path, numbers, element.rows, len(element.properties), "vertex line", at))
        elif wanted:
            places = _walk_numbers(path, numbers, at, element)[0]
            found = _named(element, numbers.value[places])
        if not by_line:
            at = _walk_numbers(path, numbers, at, element)[1]
        line += element.rows
    if not by_line and at != len(numbers.value):
        raise _lines_differ(path, len(starts), declared)
    return found


def _walk_numbers(path: Path, numbers: Numbers, at: int, element: Element) -> tuple[np.ndarray, int]:
    """Where the scalars of each row are (N, S) among the numbers, and where the element ends."""
    width, value, first = len(element.properties), numbers.value, numbers.first
    scalars = sum(not item.count for item in element.properties)
    if not element.rows or not width:
        return np.empty((element.rows, scalars), np.int64), at
    if element.scalar:
        end = at + element.rows * width
        if end > len(value) or not first[at:end:width].all():
            raise _lines_differ(path, len(numbers.starts), element.rows)
        return np.arange(at, end).reshape(-1, width), end
    places = []
    for _ in range(element.rows):
        if at >= len(value) or not first[at]:
            raise _lines_differ(path, len(numbers.starts), element.rows)
        for item in element.properties:
            length = value[at] if item.count and at < len(value) else 0
            if not (0 <= length < len(value) - at and length == int(length)):
                raise _lines_differ(path, len(numbers.starts), element.rows)
            if not item.count:
                places.append(at)
            at += 1 + int(length)
    return np.array(places, np.int64).reshape(element.rows, scalars), at


def _lines_differ(path: Path, lines: int, declared: int) -> SourceError:
    return SourceError(
        path,
        f"has {lines} lines of data where its header declares {declared}: truncated, or its counts are wrong, "
        "copy it again",
    )


def _named(element: Element, values: np.ndarray) -> np.ndarray:
    return np.rec.fromarrays(list(values.T), names=[item.name for item in element.properties if not item.count])
