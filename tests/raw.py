"""Points files read without gen4d, for tests that compare what it stored with what lay on the disk."""

import pathlib
import re

import numpy as np

from tests import laws

_PLY_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "ushort": "<u2", "int": "<i4", "uint": "<u4"}


def read_ply(path: pathlib.Path) -> np.ndarray:
    """The vertices of a binary little-endian PLY as a structured array."""
    content = path.read_bytes()
    header, _, body = content.partition(b"end_header\n")
    assert b"binary_little_endian" in header
    vertex = re.search(rb"element vertex (\d+)\n((?:property .*\n)+)", header)
    fields = [line.split() for line in vertex[2].decode().splitlines()]
    dtype = np.dtype([(name, _PLY_TYPES[kind]) for _, kind, name in fields])
    return np.frombuffer(body, dtype, int(vertex[1]))


def read_pcd(path: pathlib.Path) -> np.ndarray:
    """The points (N, 3) float32 of a binary_compressed PCD of 4-byte fields."""
    content = path.read_bytes()
    header, _, body = content.partition(b"DATA binary_compressed\n")
    count = int(re.search(rb"POINTS (\d+)", header)[1])
    packed, size = np.frombuffer(body, "<u4", 2).tolist()
    column = np.frombuffer(unpack_lzf(body[8 : 8 + packed]), "<f4").reshape(-1, count)
    assert column.nbytes == size
    return np.ascontiguousarray(column[:3].T)


def unpack_lzf(packed: bytes) -> bytes:
    """LZF: runs of up to 32 bytes as they are, and copies of what came up to 8 KiB before."""
    out, i = bytearray(), 0
    while i < len(packed):
        control, i = packed[i], i + 1
        if control < 32:
            out += packed[i : i + control + 1]
            i += control + 1
            continue
        length = control >> 5
        if length == 7:
            length, i = length + packed[i], i + 1
        start, i = len(out) - ((control & 31) << 8) - packed[i] - 1, i + 1
        run = bytes(out[start : start + length + 2])
        out += (run * (length // len(run) + 2))[: length + 2]
    return bytes(out)


def points_of(row: np.ndarray) -> np.ndarray:
    return np.stack([row["x"], row["y"], row["z"]], axis=1)


def source_of(folder: pathlib.Path):
    """name -> laws.Source for a folder of points files."""

    def read(name):
        if (folder / f"{name}.pcd").exists():
            return laws.Source(read_pcd(folder / f"{name}.pcd"))
        row = read_ply(folder / f"{name}.ply")
        return laws.Source(points_of(row), row["label"])

    return read
