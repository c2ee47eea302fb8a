"""Where a data set lies: a folder, or a URL. Its files are read whole, or a range of bytes at a time."""

import os
import pathlib
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Protocol

from gen4d.shards.format import FormatError

_RESTORE = "restore the file from a copy or rebuild it"
_MISSING = "restore it from a copy; a recipe is built first: gen4d build --like"


class RangedFile(Protocol):
    """A file that is read a range at a time, by any thread and, after a fork, by any process."""

    where: str  # path or URL, for messages
    at_once: int  # bytes beyond which two neighbours had better be two reads

    @property
    def size(self) -> int:
        """Bytes of it. Raises FormatError where there is no such file."""

    def read(self, start: int, length: int) -> bytes:
        """Bytes start:start + length, fewer where the file ends before. Raises FormatError where it cannot be read."""

    def close(self) -> None:
        """Let go of what reading needs; the next read gets it again."""


class Home(Protocol):
    """A folder with a data set, near or far. Equal homes are the same folder; it is pickled without what is open."""

    def __hash__(self) -> int:
        """Of where it lies."""

    def where(self, name: str = "") -> str:
        """Path or URL of a file of it, for messages."""

    def read(self, name: str) -> bytes:
        """All of a small file. Raises FileNotFoundError, another OSError or FormatError."""

    def file(self, name: str, size: int | None = None) -> RangedFile:
        """A file to be read in ranges, of a size that is known, or is found out when it is asked for."""


class LocalFile:
    """A file on a disk. Opened lazily and anew in every process."""

    at_once = 256 << 10  # reads cost little; much larger pieces of memory come from the kernel anew each time

    def __init__(self, path: pathlib.Path):
        self.path, self.where = path, str(path)
        self._pid, self._descriptor = None, -1

    @property
    def size(self) -> int:
        """Bytes of it."""
        return os.fstat(self._opened()).st_size

    def read(self, start: int, length: int) -> bytes:
        """Bytes start:start + length, fewer where the file ends before."""
        try:
            return os.pread(self._opened(), length, start)
        except OSError as error:
            raise FormatError(f"{self.where}: not a whole shard ({error.strerror}); {_RESTORE}") from None

    def _opened(self) -> int:
        if self._pid != os.getpid():
            if not self.path.is_file() and self.path.exists():  # opening a pipe would wait for ever
                raise FormatError(f"{self.where}: not a whole shard, but no file at all; {_RESTORE}")
            try:
                self._descriptor = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                raise FormatError(f"{self.where}: the shard is missing; {_MISSING}") from None
            except OSError as error:
                raise FormatError(f"{self.where}: not a whole shard ({error.strerror}); {_RESTORE}") from None
            self._pid = os.getpid()
        return self._descriptor

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._pid == os.getpid():
            os.close(self._descriptor)
        self._pid = None

    def __del__(self):
        self.close()


class LocalHome:
    """A folder on a disk."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def where(self, name: str = "") -> str:
        """Path of a file of it."""
        return str(self.folder / name)

    def read(self, name: str) -> bytes:
        """All of a small file."""
        return (self.folder / name).read_bytes()

    def file(self, name: str, size: int | None = None) -> LocalFile:
        """A file to be read in ranges; its size is what the disk says."""
        return LocalFile(self.folder / name)

    def __eq__(self, other) -> bool:
        return isinstance(other, LocalHome) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)


def is_url(place: object) -> bool:
    """Whether a place is given by a URL."""
    return isinstance(place, str) and "://" in place


def find_home(place: str | os.PathLike, storage_options: Mapping[str, object] | None = None) -> Home:
    """The folder of a path or a URL. The options are for the file system of a URL: credentials, headers.

    Raises FormatError where nothing here can read such a URL.
    """
    if is_url(place) and not place.startswith("file://"):
        from gen4d.shards.remote import RemoteHome

        return RemoteHome(place, storage_options)
    if storage_options:
        raise FormatError(f"{place}: storage_options are for data sets that are opened by a URL: leave them out")
    if is_url(place):
        place = urllib.request.url2pathname(urllib.parse.urlsplit(place).path)
    return LocalHome(pathlib.Path(place))
