"""Data sets behind a URL, by whatever fsspec reads: HTTP, S3, Hugging Face, and others.

fsspec's own caches are not used: their default fetches 159 MB for one frame of a shard of 102 MB. Every request is an
exact range of bytes, rounded out to blocks of 256 KiB, which cost a fast line no more than the request itself.

What comes back is believed no more than what a disk gives: lengths are compared here, content by the shard's readers.
No request waits for ever, and no answer is a whole file where a part was asked for.
"""

import errno
import functools
import importlib
import itertools
import os
import re
import sys
import threading
import time
import urllib.parse
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NoReturn

from gen4d.shards.format import FormatError

BLOCK = 256 << 10
_HTTP = ("http://", "https://")
_KEPT_BLOCKS = 64  # of each data set and process, 16 MiB: masks of the scans that a loader shuffles among
_MOST_WHOLE = 256 << 20  # bytes of a file that is read whole: dataset.json of 100,000 scans has 30 MB
_TRIES = 3
_PAUSE_S = 0.2
CONNECT_S = 10.0
SILENCE_S = 20.0  # without a byte
REQUEST_S = 300.0  # for one request in all
_INSTALL = "from a clone of gen4d, pip install '.[remote]'"
_HOST = "copy the data set to a disk, or host it where ranges of bytes are served: nginx, S3, Hugging Face"
_STRANGER = "it changed, or is of another build: open the data set again, and if it stays so, copy it there anew"
_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<total>\d+|\*)")

# fsspec's file systems, by their addresses, and those that a forked child got from its parent.
_living: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()
_inherited: list[object] = []


def _part_from_parent() -> None:
    """In a forked child: fsspec's thread is gone with the parent, and needs a new one. And what was inherited must not
    be collected: it would close its connections, which takes them from the parent, as both share what the kernel
    watches for them. tests/test_remote.py sees the parent wait for ever."""
    if "fsspec.asyn" in sys.modules:
        sys.modules["fsspec.asyn"].reset_lock()
    _inherited.extend(_living.values())


os.register_at_fork(after_in_child=_part_from_parent)


class RemoteError(FormatError):
    """A data set far away that cannot be read; the message names the URL, what is wrong and what to do."""


class _Again(Exception):
    """An answer that may be another a moment later."""


class _Blocks:
    """The blocks that were fetched last, by (file, number). Safe among threads, which may fetch one twice."""

    def __init__(self, most: int):
        self.most, self._lock = most, threading.Lock()
        self._block: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def get(self, key: tuple[str, int]) -> bytes | None:
        with self._lock:
            if key in self._block:
                self._block.move_to_end(key)
            return self._block.get(key)

    def put(self, key: tuple[str, int], content: bytes) -> None:
        with self._lock:
            self._block[key] = content
            while len(self._block) > self.most:
                self._block.popitem(last=False)


class RemoteHome:
    """A folder behind a URL. Every process has its own connections, a forked one too."""

    def __init__(self, url: str, storage_options: Mapping[str, object] | None = None):
        """storage_options: for fsspec's file system, for example {"anon": True} for public buckets of S3.

        Raises RemoteError where what reads such a URL is not installed.
        """
        address, mark, query = url.partition("?")
        self.url, self._query = address.rstrip("/"), mark + query
        self.options = dict(storage_options or {})
        self.blocks = _Blocks(_KEPT_BLOCKS)
        self._pid, self._system, self._root = None, None, ""
        self._opened()

    def _opened(self):
        """fsspec's file system, of this process."""
        if self._pid != os.getpid():
            self._system, self._root = _open_system(self.url, self.where(), self.options)
            _living[id(self._system)] = self._system
            self._pid = os.getpid()
        return self._system

    def _address(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}{self._query}"

    def where(self, name: str = "") -> str:
        """URL of a file of it, without passwords and keys."""
        parts = urllib.parse.urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return "/".join(filter(None, (parts._replace(netloc=host).geturl(), name)))

    def read(self, name: str) -> bytes:
        """All of a small file, in one request. Raises FileNotFoundError, RemoteError."""
        check = functools.partial(_check_whole, self.where(name))
        return self._ask(name, lambda system: system.cat_file(self._address(name), **self._checked(check)))

    def file(self, name: str, size: int | None = None) -> "RemoteFile":
        """A file to be read in ranges, of a size that is known, or is asked for when it is needed."""
        return RemoteFile(self, name, size)

    def size_of(self, name: str) -> int:
        """Bytes of a file, in one request. Raises FileNotFoundError, RemoteError."""
        size = self._ask(name, lambda system: system.size(self._address(name)))
        if size is None:
            raise RemoteError(f"{self.where(name)}: the server does not say how long it is: {_HOST}")
        return size

    def fetch(self, name: str, size: int, start: int, stop: int) -> bytes:
        """Bytes start:stop of a file of a known size, in one request. Raises FileNotFoundError, RemoteError."""
        check = functools.partial(_check_range, self.where(name), size, start)
        more = self._checked(check) or ({} if self._opened().async_impl else {"cache_type": "none"})

        def get(system) -> bytes:
            content = system.cat_file(self._address(name), start=start, end=stop, **more)
            if len(content) != stop - start:
                raise _Again(f"{len(content)} of {stop - start} bytes came: the connection broke, or it is cut short")
            return content

        return self._ask(name, get)

    def _checked(self, check: Callable) -> dict:
        """What makes HTTP look at an answer before its body is fetched."""
        return {"raise_for_status": check} if self.url.startswith(_HTTP) else {}

    def _ask(self, name: str, request: Callable):
        """What a request gives; what a moment may mend is tried again, twice."""
        for left in reversed(range(_TRIES)):
            try:
                return request(self._opened())
            except FormatError:
                raise
            except FileNotFoundError:
                raise FileNotFoundError(errno.ENOENT, "not there", self.where(name)) from None
            except (TimeoutError, PermissionError) as error:
                self._refuse(name, error)
            except Exception as error:  # every file system of fsspec has errors of its own
                if not left:
                    self._refuse(name, error)
                time.sleep(_PAUSE_S * (_TRIES - left))
        raise AssertionError

    def _refuse(self, name: str, error: Exception) -> NoReturn:
        if isinstance(error, TimeoutError):
            what = f"no answer in time ({SILENCE_S:g} s of silence end it): try again later, or copy it to a disk"
        elif isinstance(error, PermissionError):
            what = f"access is refused ({_brief(error)}): give credentials as storage_options"
        else:
            what = f"cannot be read, tried {_TRIES} times ({_brief(error)}): try again later, or check the address"
        raise RemoteError(f"{self.where(name)}: {what}") from None

    def __eq__(self, other) -> bool:
        return isinstance(other, RemoteHome) and self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash(self.url)

    def __getstate__(self) -> tuple:
        """What another process needs."""
        return self.url + self._query, self.options

    def __setstate__(self, state: tuple) -> None:
        self.__init__(*state)


class RemoteFile:
    """A file behind a URL. Reads are rounded out to blocks, of which the ends are kept for the next one."""

    at_once = 8 << 20

    def __init__(self, home: RemoteHome, name: str, size: int | None):
        self.home, self.name, self._size = home, name, size
        self.where = home.where(name)

    @property
    def size(self) -> int:
        """Bytes of it: as the data set says, or as the server does."""
        if self._size is None:
            self._size = self._found(lambda: self.home.size_of(self.name))
        return self._size

    def read(self, start: int, length: int) -> bytes:
        """Bytes start:start + length, fewer where the file ends before. Blocks side by side are one request."""
        stop = min(start + length, self.size)
        if stop <= start:
            return b""
        numbers = range(start // BLOCK, -(-stop // BLOCK))
        blocks = {n: self.home.blocks.get((self.name, n)) for n in numbers}
        pieces = []
        for missing, run in itertools.groupby(numbers, lambda n: blocks[n] is None):
            run = list(run)
            pieces += [self._fetch(run[0], run[-1] + 1)] if missing else [blocks[n] for n in run]
        content = b"".join(pieces) if len(pieces) > 1 else pieces[0]
        return content[start - numbers[0] * BLOCK : stop - numbers[0] * BLOCK]

    def _fetch(self, first: int, last: int) -> bytes:
        """Blocks first to last. Of the blocks between the ends, nothing is left that the next read could want."""
        stop = min(last * BLOCK, self.size)
        content = self._found(lambda: self.home.fetch(self.name, self.size, first * BLOCK, stop))
        for n in {first, last - 1}:
            self.home.blocks.put((self.name, n), content[(n - first) * BLOCK : (n - first + 1) * BLOCK])
        return content

    def _found(self, request: Callable):
        try:
            return request()
        except FileNotFoundError:
            raise RemoteError(f"{self.where}: the shard is missing; copy it there from where it is whole") from None

    def close(self) -> None:
        """Nothing is open: connections are the home's."""


def _open_system(url: str, where: str, options: Mapping[str, object]):
    """fsspec's file system for a URL, and the URL as it wants it. Raises RemoteError where it is not installed."""
    try:
        fsspec = importlib.import_module("fsspec")
        options = _http_options(options) if url.startswith(_HTTP) else options
        return fsspec.url_to_fs(url, skip_instance_cache=True, **options)
    except ImportError as error:
        what = f"reading a URL needs packages that are not installed ({_brief(error)})"
        raise RemoteError(f"{where}: {what}: {_INSTALL}") from None
    except ValueError as error:
        raise RemoteError(f"{where}: no such data set can be read ({error}): https, s3, hf and others can") from None


def _http_options(options: Mapping[str, object]) -> dict:
    """Limits of time, proxies as the environment has them, and bytes as they lie there, not compressed on the way."""
    import aiohttp

    limits = aiohttp.ClientTimeout(total=REQUEST_S, connect=CONNECT_S, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    client = {"timeout": limits, "trust_env": True} | dict(options.get("client_kwargs", {}))
    headers = {"Accept-Encoding": "identity"} | dict(options.get("headers", {}))
    return dict(options) | {"client_kwargs": client, "headers": headers}


async def _check_whole(where: str, answer) -> None:
    """Refuse the answer to a request for a small file by its head."""
    problem = _find_refusal(where, answer)
    length = int(answer.headers.get("Content-Length") or 0)
    if not problem and length > _MOST_WHOLE:
        problem = RemoteError(f"{where}: has {length} bytes, more than {_MOST_WHOLE}: not written by gen4d")
    _raise(problem, answer)


async def _check_range(where: str, size: int, start: int, answer) -> None:
    """Refuse the answer to a request for bytes from `start` by its head: nothing else than those is fetched."""
    given = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    problem = _find_refusal(where, answer)
    if answer.status == 416:
        problem = RemoteError(f"{where}: ends before byte {start}, dataset.json says {size} bytes: {_STRANGER}")
    elif not problem and answer.status != 206:
        problem = RemoteError(f"{where}: the server answers a request for a part with the whole file: {_HOST}")
    elif not problem and given and given["total"] not in ("*", str(size)):
        problem = RemoteError(f"{where}: has {given['total']} bytes, dataset.json says {size}: {_STRANGER}")
    elif not problem and given and given["start"] != str(start):
        problem = RemoteError(f"{where}: the server sends bytes from {given['start']}, not from {start}: {_HOST}")
    _raise(problem, answer)


def _find_refusal(where: str, answer) -> Exception | None:
    """What the status of an answer says is wrong."""
    if answer.status in (404, 410):
        return FileNotFoundError(errno.ENOENT, "not there", where)
    if answer.status in (401, 403):
        return PermissionError(errno.EACCES, f"status {answer.status}", where)
    if answer.status == 429 or answer.status >= 500:
        return _Again(f"status {answer.status} {answer.reason}")
    if answer.status >= 400:
        return RemoteError(f"{where}: the server refuses: status {answer.status} {answer.reason}; check the address")
    return None


def _raise(problem: Exception | None, answer) -> None:
    if problem:
        answer.close()  # its body is not wanted
        raise problem


def _brief(error: Exception) -> str:
    """An error's own words, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
