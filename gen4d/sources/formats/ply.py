"""PLY points: ascii, binary little and big endian, any scalar types, other elements skipped with exact bounds.

Nothing is allocated before the header's counts were compared with the bytes that are there.
"""

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.source import SourceError

_HEADER_LIMIT = 64 * 1024
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_WHOLE = re.compile("[0-9]{1,20}")
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
    """The vertices of a PLY file, (N,) structured, one field a property; a view into `content` where it is binary.

    Raises SourceError for a broken header, counts that do not fit the bytes, and vertices with lists.
    """
    header = _parse_header(path, content)
    _check_counts(path, header, len(content) - header.end)
    vertex = next((item for item in header.elements if item.name == "vertex"), None)
    if vertex is None or not vertex.properties:
        names = ", ".join(item.name for item in header.elements) or "none"
        raise SourceError(path, f"has no element `vertex` with properties (elements: {names}): a scan needs points")
    if not vertex.scalar:
        raise SourceError(path, "has a list property in element `vertex`: write the vertices with scalars only")
    return _binary_rows(path, content, header) if header.order else _ascii_rows(path, content, header)


def _parse_header(path: Path, content: bytes) -> Header:
    lines, end = _header_lines(path, content)
    order: str | None = None
    elements: list[Element] = []
    for line in lines[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
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


def _header_lines(path: Path, content: bytes) -> tuple[list[str], int]:
    if content[:3] != b"ply" or content[3:4] not in (b"\n", b"\r"):
        raise SourceError(
            path, f"is not a PLY file: it starts with {content[:8]!r} instead of the line `ply`: convert or remove it"
        )
    newline = b"\r\n" if content[3:5] == b"\r\n" else content[3:4]
    start = content.find(newline + b"end_header" + newline, 0, _HEADER_LIMIT)
    if start < 0:
        raise SourceError(
            path, f"has no line `end_header` in its first {_HEADER_LIMIT} bytes: truncated or not a PLY, copy it again"
        )
    text = content[:start].decode("latin-1")
    return [line.strip() for line in text.split(newline.decode())], start + len(b"end_header") + 2 * len(newline)


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
        if element.scalar:
            dtype = np.dtype([(item.name, header.order + item.type) for item in element.properties])
            size = element.rows * dtype.itemsize
            if element.name == "vertex" and rows is None and offset + size <= len(content):
                rows = np.frombuffer(content, dtype, element.rows, offset) if dtype.itemsize else np.empty(0, dtype)
        else:
            size = _list_bytes(path, content, offset, element, header.order)
        offset += size
        if offset > len(content):
            raise SourceError(
                path,
                f"is truncated: element `{element.name}` with {element.rows} rows ends at byte {offset}, "
                f"the file at {len(content)}: copy or download it again",
            )
    if offset < len(content):
        raise SourceError(
            path,
            f"has {len(content) - offset} bytes after its last declared row: the header's counts are wrong, "
            "write the file again",
        )
    return rows


def _list_bytes(path: Path, content: bytes, offset: int, element: Element, order: str) -> int:
    """Bytes that an element with lists takes: exact for lists of one length (triangles), else by a walk."""
    size = _uniform_bytes(content, offset, element, order)
    return _walked_bytes(path, content, offset, element, order) if size is None else size


def _uniform_bytes(content: bytes, offset: int, element: Element, order: str) -> int | None:
    if not element.rows:
        return 0
    width, counts = 0, []
    for item in element.properties:
        if item.count:
            kind = np.dtype(order + item.count)
            at = offset + width
            if at + kind.itemsize > len(content):
                return None
            length = int(np.frombuffer(content, kind, 1, at)[0])
            if not _least_length(element) <= length <= len(content):
                return None
            counts.append((kind, width, length))
            width += kind.itemsize + length * np.dtype(item.type).itemsize
        else:
            width += np.dtype(item.type).itemsize
    if offset + element.rows * width > len(content):
        return None
    for kind, at, length in counts:
        lengths = np.ndarray((element.rows,), kind, content, offset + at, (width,))
        if not (lengths == length).all():
            return None
    return element.rows * width


def _least_length(element: Element) -> int:
    """A face has corners; without this rule one vertex too many in the header can pass as an empty face."""
    return 1 if element.name == "face" else 0


def _walked_bytes(path: Path, content: bytes, offset: int, element: Element, order: str) -> int:
    endian = "big" if order == ">" else "little"
    sizes = [
        (np.dtype(item.count).itemsize if item.count else 0, item.count[:1] == "i", np.dtype(item.type).itemsize)
        for item in element.properties
    ]
    at, least = offset, _least_length(element)
    for row in range(element.rows):
        for count_bytes, signed, item_bytes in sizes:
            length = 1
            if count_bytes:
                length = int.from_bytes(content[at : at + count_bytes], endian, signed=signed)
                at += count_bytes
            at += max(length, 0) * item_bytes
            if length < least or at > len(content):
                raise SourceError(
                    path,
                    f"is truncated or broken at row {row} of {element.rows} of element `{element.name}` "
                    f"(a list of {length} values, byte {at} of {len(content)}): copy or download it again",
                )
    return at - offset


def _ascii_rows(path: Path, content: bytes, header: Header) -> np.ndarray:
    lines = [line for line in content[header.end :].decode("latin-1").splitlines() if line and not line.isspace()]
    declared = sum(item.rows for item in header.elements)
    if len(lines) != declared:
        raise SourceError(
            path,
            f"has {len(lines)} lines of data where its header declares {declared}: "
            "truncated, or its counts are wrong, copy it again",
        )
    before = 0
    for element in header.elements:
        if element.name == "vertex":
            return _parse_lines(path, lines[before : before + element.rows], element)
        before += element.rows
    raise AssertionError("read_ply looked for `vertex` before")


def _reason(error: ValueError) -> str:
    return str(error).partition(";")[0]  # what follows is advice to programmers


def _parse_lines(path: Path, lines: list[str], element: Element) -> np.ndarray:
    names = [item.name for item in element.properties]
    try:
        values = np.loadtxt(io.StringIO("\n".join(lines)), np.float64, comments=None, ndmin=2) if lines else None
    except ValueError as error:
        raise SourceError(
            path, f"has a vertex line that is not a row of numbers ({_reason(error)}): write it again"
        ) from error
    if values is None or values.shape != (len(lines), len(names)):
        found = "no" if values is None else str(values.shape[1])
        raise SourceError(
            path, f"has {found} numbers on its vertex lines and declares {len(names)}: {', '.join(names)}"
        )
    return np.rec.fromarrays(list(values.T), names=names)
