"""What all text formats have in common, in one place, so that no reader is stricter or laxer than another.

A UTF-8 byte order mark is skipped, and UTF-16 refused. Lines end by LF, CRLF or CR, also mixed in one file. Blanks,
blank lines and comments from `#` on count nowhere, nor do zero bytes and Ctrl-Z at the end. A record begins on a line
of its own and may go on over the next ones. NaN and infinity may be spelled as C or Windows print them.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.formats import text_kernels
from gen4d.sources.source import SourceError

HEADER_LIMIT = 64 * 1024
_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_PADDING = b" \t\r\n\0\x1a"
_COMMENT = re.compile(rb"#(?!(?:QNAN|SNAN|IND|INF))[^\r\n]*", re.I)  # Windows prints a NaN as 1.#QNAN
_ODD = {
    re.compile(rb"[+-]?(?:s|q)?nan(?:\(\w*\))?|[+-]?1\.#(?:QNAN|SNAN|IND)0*", re.I): np.nan,
    re.compile(rb"\+?(?:inf(?:inity)?|1\.#INF0*)", re.I): np.inf,
    re.compile(rb"-(?:inf(?:inity)?|1\.#INF0*)", re.I): -np.inf,
}
_PLAIN = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_NO_DIGIT = re.compile(rb"[^0-9.eE+-]")
_LEAST_LATE = 64


class Numbers(NamedTuple):
    """All numbers of a text, (M,) float64, and which of them begin their lines, (M,) bool."""

    value: np.ndarray
    first: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """The first number of each line that has any, (L,) int64."""
        return np.flatnonzero(self.first)


def skip_mark(path: Path, content: bytes) -> int:
    """Where the text of a file begins: behind its byte order mark. Raises SourceError for UTF-16."""
    if content[:2] in _WIDE_MARKS:
        raise SourceError(path, "is text in UTF-16: save it as UTF-8, or plain ascii")
    return len(_MARK) if content[:3] == _MARK else 0


def as_text(path: Path, content: bytes) -> bytes:
    """A file of text without its byte order mark and without what pads its end. Raises SourceError for UTF-16."""
    if start := skip_mark(path, content):
        content = content[start:]
    return content.rstrip(_PADDING) + b"\n" if content[-1:] in (b"\0", b"\x1a") else content


def without_comments(text: bytes) -> bytes:
    """A text with blanks for what stands behind a `#`: all else stays at its byte."""
    return _COMMENT.sub(lambda found: b" " * len(found[0]), text) if b"#" in text else text


def is_padding(rest: bytes) -> bool:
    """Whether bytes after the last record mean nothing."""
    return not rest.strip(_PADDING)


def header_lines(path: Path, content: bytes, last: str, what: str) -> tuple[list[str], int]:
    """The stripped lines of a header up to the one whose first word is `last`, and where the data begin behind it.

    Data may be binary and begin with a byte that looks like a line end, so a CR alone ends a line with no LF behind it
    if it does so on the first line. Raises SourceError where there is no such line.
    """
    lines: list[str] = []
    at = skip_mark(path, content)
    lone_return = _ends_by_return(content, at)
    while at < min(len(content), HEADER_LIMIT):
        end = _line_end(content, at)
        lines.append(content[at:end].decode("latin-1").strip())
        at = end + (2 if content[end : end + 2] == b"\r\n" and not lone_return else 1)
        if end < len(content) and lines[-1].split()[:1] == [last]:
            return lines, at
    raise SourceError(
        path, f"has no line `{last}` in its first {HEADER_LIMIT} bytes: truncated or not a {what}, copy it again"
    )


def _line_end(content: bytes, at: int) -> int:
    ends = [end for end in (content.find(b"\n", at, HEADER_LIMIT), content.find(b"\r", at, HEADER_LIMIT)) if end >= 0]
    return min(ends, default=min(len(content), HEADER_LIMIT))


def _ends_by_return(content: bytes, at: int) -> bool:
    """Whether the first line that is not blank ends by a CR alone."""
    while content[at : at + 1].isspace():
        at += 1
    end = _line_end(content, at)
    return content[end : end + 1] == b"\r" and content[end + 1 : end + 2] != b"\n"


def read_numbers(path: Path, text: bytes, most: int, at: int | None = None) -> Numbers:
    """The numbers of a text, each as `float` reads it. at: the byte of its file at which the text begins, where errors
    shall say the byte. Raises SourceError for other words, and more than `most`."""
    value, first, late = np.empty(most), np.empty(most, bool), np.empty((_LEAST_LATE + most // 16, 3), np.int64)
    letters = np.frombuffer(text, np.uint8)
    count, waiting = text_kernels.read_numbers(letters, value, first, late)
    if waiting > len(late):
        late = np.empty((waiting, 3), np.int64)
        text_kernels.read_numbers(letters, value, first, late)
    if count > most:
        raise SourceError(
            path, f"has more numbers than the {most} that it declares: its counts are wrong, copy it again"
        )
    for index, start, end in late[:waiting].tolist():
        value[index] = _number(path, text, start, end, at)
    return Numbers(value[:count], first[:count])


def is_number(word: str) -> bool:
    """Whether a word is a number as these texts spell them."""
    return any(pattern.fullmatch(word.encode()) for pattern in (_PLAIN, *_ODD))


def _number(path: Path, text: bytes, start: int, end: int, at: int | None) -> float:
    word = text[start:end]
    if _PLAIN.fullmatch(word):
        return float(word)
    for pattern, value in _ODD.items():
        if pattern.fullmatch(word):
            return value
    line = text.count(b"\n", 0, start) + 1
    shown = word[:20].decode("latin-1")
    odd = _NO_DIGIT.search(word)
    byte = "" if at is None else f", byte {at + start + (odd.start() if odd else 0)} of the file"
    raise SourceError(path, f"has {shown!r} where a number belongs, on line {line} of its data{byte}: write it again")


def read_rows(path: Path, numbers: Numbers, rows: int, width: int, what: str, at: int = 0) -> np.ndarray:
    """Records (rows, width) float64 of a fixed number of values, from the number `at` on.

    Raises SourceError where there are too few numbers, or a record begins or the last one ends in the middle of a line.
    """
    end = at + rows * width
    if end > len(numbers.value) or not numbers.first[at:end:width].all() or not numbers.first[end : end + 1].all():
        raise SourceError(
            path, f"{_odd_line(numbers, at, width, what)}: truncated, or its counts are wrong, copy it again"
        )
    return numbers.value[at:end].reshape(rows, width)


def _odd_line(numbers: Numbers, at: int, width: int, what: str) -> str:
    """What is said of the first line that does not hold one record."""
    starts = np.append(np.flatnonzero(numbers.first[at:]), len(numbers.value) - at)
    lengths = np.diff(starts)
    odd = np.flatnonzero(lengths != width)
    if not len(odd):
        return f"has {len(lengths)} lines of data and declares more"
    return f"has {lengths[odd[0]]} numbers in {what} {odd[0]}, where {width} are declared"
