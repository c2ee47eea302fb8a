"""PCD points: ascii, binary and binary_compressed, organised clouds with NaN rows included."""

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.formats.lzf import lzf_expand
from gen4d.sources.formats.text import as_text, header_lines, is_padding, read_numbers, read_rows, without_comments
from gen4d.sources.source import SourceError

_KINDS = {("F", 4), ("F", 8), ("I", 1), ("I", 2), ("I", 4), ("I", 8), ("U", 1), ("U", 2), ("U", 4), ("U", 8)}
_KEY = re.compile("[A-Z_]{2,20}")  # others than those read here say nothing of where the points are
_ALSO = {"COLUMNS": "FIELDS"}  # as versions before 0.6 call it
_LZF_RATIO = 88  # a three-byte item writes at most 264 bytes


class Header(NamedTuple):
    dtype: np.dtype  # one packed row
    rows: int
    data: str  # ascii, binary, binary_compressed
    end: int  # offset of the first byte of data


def pcd_rows(path: Path, content: bytes) -> np.ndarray:
    """The points of a PCD file, (N,) structured, one field each of its FIELDS; a view into `content` where possible.

    VIEWPOINT is not applied: other readers of the format do not either. Raises SourceError for a broken header and
    counts that do not fit the bytes.
    """
    header = _parse_header(path, content)
    if header.data == "ascii":
        return _ascii_rows(path, content, header)
    return _binary_rows(path, content, header) if header.data == "binary" else _compressed_rows(path, content, header)


def _parse_header(path: Path, content: bytes) -> Header:
    values, end = _header_values(path, content)
    if missing := [name for name in ("FIELDS", "SIZE", "TYPE") if name not in values]:
        raise SourceError(path, f"has no header line {', '.join(missing)}: truncated or not a PCD, copy it again")
    dtype = _row_type(path, values)
    rows = _row_count(path, values)
    data = " ".join(values["DATA"])
    if data not in ("ascii", "binary", "binary_compressed"):
        raise SourceError(path, f"has DATA {data[:40]!r}: one of ascii, binary, binary_compressed; convert it")
    return Header(dtype, rows, data, end)


def _header_values(path: Path, content: bytes) -> tuple[dict[str, list[str]], int]:
    values: dict[str, list[str]] = {}
    lines, end = header_lines(path, content, "DATA", "PCD")
    for line in lines:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = _ALSO.get(words[0], words[0])
        if not _KEY.fullmatch(key) or key in values:
            raise SourceError(
                path,
                f"has an unknown or repeated header line {words[0][:40]!r}: damaged or not a PCD, copy it again",
            )
        values[key] = words[1:]
    return values, end


def _row_type(path: Path, values: dict[str, list[str]]) -> np.dtype:
    names = values["FIELDS"]
    counts = _whole(path, "COUNT", values.get("COUNT", ["1"] * len(names)))
    sizes = _whole(path, "SIZE", values["SIZE"])
    kinds = values["TYPE"]
    if not len(names) == len(sizes) == len(kinds) == len(counts):
        raise SourceError(
            path,
            f"has {len(names)} FIELDS, {len(sizes)} SIZE, {len(kinds)} TYPE, "
            f"{len(counts)} COUNT: they must agree, write it again",
        )
    fields = []
    for index, (name, size, kind, count) in enumerate(zip(names, sizes, kinds, counts, strict=True)):
        if (kind, size) not in _KINDS or count > 4096:
            raise SourceError(
                path,
                f"has a field {name!r} of TYPE {kind} SIZE {size} COUNT {count}: not known to PCD, write it as F 4",
            )
        if not count:  # no bytes of it follow
            continue
        unique = f"_{index}" if name == "_" else name  # `_` pads, any number of times
        fields.append((unique, f"<{kind.lower()}{size}", (count,)) if count > 1 else (unique, f"<{kind.lower()}{size}"))
    if len({field[0] for field in fields}) < len(fields):
        raise SourceError(path, f"declares a field twice ({' '.join(names)[:80]}): rename one")
    return np.dtype(fields)


def _row_count(path: Path, values: dict[str, list[str]]) -> int:
    width = _single(path, values, "WIDTH")
    height = _single(path, values, "HEIGHT")
    points = _single(path, values, "POINTS")
    size = width * (1 if height is None else height) if width is not None else points
    if size is None or (points is not None and points != size):
        raise SourceError(
            path, f"declares WIDTH {width} x HEIGHT {height} and POINTS {points}: they must agree, write it again"
        )
    return size


def _single(path: Path, values: dict[str, list[str]], name: str) -> int | None:
    if name not in values:
        return None
    numbers = _whole(path, name, values[name])
    if len(numbers) != 1:
        raise SourceError(path, f"has {len(numbers)} numbers in its header line {name}: one is needed, write it again")
    return numbers[0]


def _whole(path: Path, name: str, words: list[str]) -> list[int]:
    if bad := [word for word in words if not (word.isascii() and word.isdigit() and len(word) < 16)]:
        raise SourceError(path, f"has {bad[0][:40]!r} in its header line {name}: it must hold whole numbers from 0 on")
    return [int(word) for word in words]


def _check_size(path: Path, header: Header, needed: int, present: int) -> None:
    if needed > present:
        raise SourceError(
            path,
            f"is truncated or its counts are wrong: {header.rows} points need {needed} bytes and {present} are there: "
            "copy or download it again",
        )


def _binary_rows(path: Path, content: bytes, header: Header) -> np.ndarray:
    needed = header.rows * header.dtype.itemsize
    _check_size(path, header, needed, len(content) - header.end)
    surplus = content[header.end + needed :]
    if not is_padding(surplus):
        raise SourceError(
            path, f"has {len(surplus)} bytes after its {header.rows} points: its counts are wrong, copy it again"
        )
    return np.frombuffer(content, header.dtype, header.rows, header.end)


def _compressed_rows(path: Path, content: bytes, header: Header) -> np.ndarray:
    _check_size(path, header, 8, len(content) - header.end)
    packed, unpacked = (int(value) for value in np.frombuffer(content, "<u4", 2, header.end))
    _check_size(path, header, packed, len(content) - header.end - 8)
    needed = header.rows * header.dtype.itemsize
    if unpacked != needed or unpacked > packed * _LZF_RATIO:
        raise SourceError(
            path,
            f"declares {header.rows} points of {header.dtype.itemsize} bytes, and {packed} compressed bytes that "
            f"unpack to {unpacked}: the counts do not fit, copy or download it again",
        )
    out = np.empty(unpacked, np.uint8)
    if lzf_expand(np.frombuffer(content, np.uint8, packed, header.end + 8), out) != unpacked:
        raise SourceError(path, f"has a broken compressed stream ({packed} bytes): copy or download it again")
    return _from_planes(out, header)


def _from_planes(out: np.ndarray, header: Header) -> np.ndarray:
    """binary_compressed stores field after field, not row after row."""
    rows = np.empty(header.rows, header.dtype)
    at = 0
    for name in header.dtype.names:
        kind = header.dtype[name]
        size = header.rows * kind.itemsize
        rows[name] = out[at : at + size].view(kind.base).reshape(header.rows, *kind.shape)
        at += size
    return rows


def _ascii_rows(path: Path, content: bytes, header: Header) -> np.ndarray:
    width = sum(math.prod(header.dtype[name].shape) for name in header.dtype.names)
    _check_size(path, header, header.rows * 2 * width, len(content) - header.end + 1)
    text = as_text(path, without_comments(content[header.end :]))
    numbers = read_numbers(path, text, (len(text) + 1) // 2)
    if len(numbers.value) != header.rows * width:
        lines, found = len(numbers.starts), len(numbers.value)
        raise SourceError(
            path,
            f"has {found} numbers on {lines} lines of data and declares {header.rows} points of {width}: "
            "truncated or wrong, copy it again",
        )
    values = read_rows(path, numbers, header.rows, width, "point")
    rows, column = np.empty(header.rows, np.dtype([(name, "f8") for name in header.dtype.names])), 0
    for name in header.dtype.names:
        rows[name] = values[:, column]  # the first value of a field with COUNT > 1: such fields are not used
        column += math.prod(header.dtype[name].shape)
    return rows
