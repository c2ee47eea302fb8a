"""ScanNet's .sens: posed depth images in one file of gigabytes, read with seeks; colour is skipped."""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from gen4d.sources.source import SourceError

_VERSIONS = (3, 4)
_COMPRESSIONS = {0: "raw_ushort", 1: "zlib_ushort", 2: "occi_ushort"}
_FRAME = struct.Struct("<16f4Q")  # camera to world, times of colour and depth, bytes of both
_LONGEST_NAME = 4096
_MOST_PIXELS = 1 << 26


class SensHeader(NamedTuple):
    """What a .sens says of all its frames; `start` is where the first lies."""

    width: int
    height: int
    intrinsic: np.ndarray  # (4, 4) float64, of the depth image
    depth_scale: float  # units a metre
    frames: int
    compression: str
    start: int


class SensFrame(NamedTuple):
    """One frame: its number, its pose camera to world (4, 4) float64, time in microseconds, and its depth image (H, W)
    uint16; `raw` is what was read of it."""

    number: int
    pose: np.ndarray
    time_us: int
    depth: np.ndarray
    raw: bytes


def read_header(path: Path, file: BinaryIO, size: int) -> SensHeader:
    """The header of a .sens of `size` bytes. Raises SourceError where it is none, or promises what cannot be there."""
    version = struct.unpack("<I", _read(path, file, 4, "its header"))[0]
    if version not in _VERSIONS:
        raise SourceError(
            path, f"has version {version}, where a .sens has 4: not a .sens, or of another kind, remove it"
        )
    name = struct.unpack("<Q", _read(path, file, 8, "its header"))[0]
    if name > _LONGEST_NAME:
        raise SourceError(path, f"has a name of {name} bytes in its header: damaged, download it again")
    _read(path, file, name, "its header")
    matrices = np.frombuffer(_read(path, file, 256, "its header"), "<f4").reshape(4, 4, 4).astype(np.float64)
    _, depth, _, _, width, height, scale, frames = struct.unpack("<2i4IfQ", _read(path, file, 36, "its header"))
    if depth not in (0, 1):
        known = _COMPRESSIONS.get(depth, f"number {depth}")
        raise SourceError(path, f"has depth compression {known}: only zlib_ushort and raw_ushort are read")
    if not 0 < width * height <= _MOST_PIXELS:
        raise SourceError(
            path, f"has depth images of {width} x {height} pixels in its header: damaged, download it again"
        )
    if not 0 < scale < 1e6 or not np.isfinite(matrices[2]).all():
        raise SourceError(
            path, f"has a depth shift of {scale:g} or intrinsics that are not finite: damaged, get it again"
        )
    start = file.tell()
    if frames * _FRAME.size > size - start:
        raise SourceError(path, f"promises {frames} frames, but has {size} bytes: cut short or damaged, get it again")
    return SensHeader(width, height, matrices[2], float(scale), frames, _COMPRESSIONS[depth], start)


def read_frames(path: Path, file: BinaryIO, header: SensHeader, every: int, size: int) -> Iterator[SensFrame]:
    """Every n-th frame, in order; of the others, and of colour, only sizes are read. Raises SourceError."""
    file.seek(header.start)
    for number in range(header.frames):
        head = _read(path, file, _FRAME.size, f"frame {number} of {header.frames}")
        *pose, _, time_us, colour, depth = _FRAME.unpack(head)
        if colour + depth > size - file.tell():
            raise SourceError(path, f"is cut short in frame {number} of {header.frames}: copy or download it again")
        file.seek(colour, os.SEEK_CUR)
        if number % every:
            file.seek(depth, os.SEEK_CUR)
            continue
        raw = _read(path, file, depth, f"frame {number} of {header.frames}")
        image = _image(path, header, raw, number)
        yield SensFrame(number, np.array(pose, np.float64).reshape(4, 4), time_us, image, head + raw)


def _read(path: Path, file: BinaryIO, count: int, what: str) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise SourceError(path, f"is cut short in {what}: copy or download it again")
    return content


def _image(path: Path, header: SensHeader, raw: bytes, number: int) -> np.ndarray:
    wanted = 2 * header.width * header.height
    if header.compression == "zlib_ushort":
        try:
            raw = zlib.decompressobj().decompress(raw, wanted + 1)  # never more, whatever it would become
        except zlib.error as error:
            raise SourceError(path, f"has a damaged depth image in frame {number} ({error}): get it again") from None
    if len(raw) != wanted:
        size = f"{header.width} x {header.height} pixels"
        raise SourceError(path, f"has {len(raw)} bytes of depth in frame {number}, {wanted} for {size} are needed")
    return np.frombuffer(raw, "<u2").reshape(header.height, header.width)
