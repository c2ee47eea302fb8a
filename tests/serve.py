"""A web server on loopback: it serves a folder with ranges of bytes, counts, and misbehaves when it is told to."""

import contextlib
import http.server
import io
import pathlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

import gen4d
from tests.makers.meshes import CUBE_TRIANGLES, CUBE_VERTEX

_PIECE = 64 << 10
_POINTS = 90_000  # of which one per voxel of 2 cm stays


class Request(NamedTuple):
    """What was asked, and how many bytes of content were answered."""

    path: str
    start: int | None  # of a range
    size: int


class Web:
    """What a server serves and how, to be changed while it runs; and what it was asked."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.url = folder, ""
        self.requests: list[Request] = []
        self.headers: Mapping[str, str] = {}  # of the last one
        self.status: int | None = None  # of every answer
        self.ranges = True
        self.drop = 0  # connections to break in the middle of the next answers
        self.shift = 0  # bytes by which ranges start late
        self.delay_s = 0.0
        self.sent = 0  # bytes of content
        self.total = 0  # bytes that a file is said to have more than it has

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[Request]]:
        """The requests of a while."""
        asked: list[Request] = []
        first = len(self.requests)
        yield asked
        asked += self.requests[first:]


@contextlib.contextmanager
def serve(folder: pathlib.Path) -> Iterator[Web]:
    """A server of a folder, in threads of this process."""
    web = Web(folder)
    handler = type("Handler", (_Handler,), {"web": web})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a reader that hangs up
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        web, path = self.web, self.web.folder / self.path.partition("?")[0].lstrip("/")
        web.headers = self.headers
        time.sleep(web.delay_s)
        if web.status or not path.is_file():
            self._answer(web.status or 404, io.BytesIO(b"sorry"), 5)
            return
        size, wanted = path.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        with open(path, "rb") as file:
            if not (wanted and web.ranges):
                self._answer(200, file, size)
                return
            start = int(wanted[1]) + web.shift
            stop = min(int(wanted[2]) + 1 + web.shift, size)
            if start >= size:
                self._answer(416, file, 0)
                return
            file.seek(start)
            place = f"bytes {start}-{stop - 1}/{size + web.total}"
            self._answer(206, file, stop - start, ("Content-Range", place), start=start)

    def _answer(self, status: int, file: BinaryIO, size: int, *headers: tuple[str, str], start: int | None = None):
        self.web.requests.append(Request(self.path, start, size))
        self.send_response(status)
        for header in (("Content-Length", str(size)), *headers):
            self.send_header(*header)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.web.drop:
            self.web.drop -= 1
            self.wfile.write(file.read(size // 2))
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        while size:
            piece = file.read(min(size, _PIECE))
            self.wfile.write(piece)
            self.web.sent += len(piece)
            size -= len(piece)


def make_recordings() -> Iterator[gen4d.Recording]:
    """Three scans of 70,000 points, a floor of 6 x 5 m and four walls, of four sequences each."""
    for key in range(3):
        rng = np.random.default_rng((41, key))
        floor = rng.uniform((0, 0, 0), (6, 5, 0.02), (_POINTS // 2, 3))
        side = rng.integers(4, size=_POINTS - len(floor))
        wall = rng.uniform((0, 0, 0), (6, 5, 1.9), (len(side), 3))
        wall[side < 2, 0] = 6 * side[side < 2]
        wall[side > 1, 1] = 5 * (side[side > 1] - 2)
        point, label = np.concatenate([floor, wall]), np.arange(_POINTS) % 13
        shapes = {"chair": [(CUBE_VERTEX, CUBE_TRIANGLES)]}
        yield gen4d.generate(point, shapes, name=f"room{key}", labels=label, sequences=4)


def write_large(out: pathlib.Path) -> pathlib.Path:
    """A data set of them in two shards, the first of which takes many requests if each chunk is one."""
    gen4d.write_dataset(make_recordings(), out, scans_per_shard=2, pairs=True)
    return out
