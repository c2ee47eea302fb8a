"""Reading one file of a source: every way in which that can fail becomes a `SourceError` that names the file, but for
a `PassingError` where the fault is not the file's.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

_MESSAGE_LIMIT = 600
_LASTING = "ENOENT EACCES EPERM ENOTDIR EISDIR ELOOP ENAMETOOLONG EINVAL".split()  # which lie in the file or its place
_LASTING_NUMBERS = {getattr(errno, name) for name in _LASTING}


class SourceError(ValueError):
    """A scan, a shape or a folder of them cannot be used. The message names the file, the value, the rule and a remedy.

    Attributes: `path`, the file or folder; `problem`, the message without it.
    """

    def __init__(self, path: str | Path, problem: str):
        # One printable line whatever the file put into it; both in args, so that the error survives pickling.
        line = "".join(letter if letter.isprintable() else " " for letter in problem[:_MESSAGE_LIMIT])
        super().__init__(str(path), line)
        self.path = str(path)
        self.problem = line

    def __str__(self) -> str:
        return f"{escaped(self.path)}: {self.problem}"


class PassingError(OSError):
    """A file cannot be read through no fault of its own: a disk or a network fails, or files are too many. What is left
    out of a data set stays out, so a build stops here, and goes on later."""


def unreadable(path: str | Path, error: OSError, remedy: str = "check its permissions") -> Exception:
    """The error of a file or folder that cannot be read: SourceError, or PassingError where it may be gone later."""
    if is_passing(error):
        return PassingError(error.errno, error.strerror, str(path))
    return SourceError(path, f"cannot be read ({error.strerror or error}): {remedy}")


def is_passing(error: BaseException) -> bool:
    """Whether what failed may work later: the system says why, and it does not lie in the file."""
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _LASTING_NUMBERS


def escaped(path: str) -> str:
    """A path for people: bytes that are not UTF-8 as \\xff, line ends and other letters that cannot be seen as \\n."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class SourceFile(NamedTuple):
    """A file that was read: `path` relative to the folder given by the user, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


def check_name(root: Path, relative: str) -> None:
    """Raise SourceError where the path of a scan or a shape is no name: bytes that are not UTF-8, or not printable."""
    if not relative.isprintable():
        text = "has a name with bytes that are not UTF-8, or with letters that cannot be seen: rename it"
        raise SourceError(root / relative, text)


def file_size(root: Path, relative: str) -> int:
    """Bytes of the regular file `root / relative`. Raises SourceError where there is none, PassingError."""
    path = os.path.join(root, relative)
    try:
        status = os.stat(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise SourceError(path, f"is {kind} where a file is needed: give the file itself, or another name")
    return status.st_size


def read_file(root: Path, relative: str) -> tuple[bytes, SourceFile]:
    """The whole content of `root / relative`, read once, with its size and hash.

    Raises SourceError for anything that is not a readable regular file with at least one byte, PassingError.
    """
    path = root / relative
    file_size(root, relative)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if not content:
        raise SourceError(path, "is empty (0 bytes): copy or download it again")
    return content, SourceFile(relative, len(content), hashlib.sha256(content).hexdigest())
