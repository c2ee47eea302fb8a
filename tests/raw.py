"""Points files read without gen4d, for tests that compare what it stored with what lay on the disk."""

import pathlib
import re

import numpy as np

from tests import laws

_PLY_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "ushort": "<u2", "int": "<i4", "uint": "<u4"}


class Ply:
    """A binary little-endian PLY: vertices with named properties, then perhaps triangles."""

    def __init__(self, path: pathlib.Path):
        head, body = path.read_bytes().split(b"end_header\n", 1)
        lines = [line.split() for line in head.decode("ascii").splitlines()]
        assert lines[:2] == [["ply"], ["format", "binary_little_endian", "1.0"]]
        count = {line[1]: int(line[2]) for line in lines if line[0] == "element"}
        self.properties = [(kind, name) for word, kind, name, *_ in lines[3:] if word == "property" and kind != "list"]
        dtype = [(name, _PLY_TYPES[kind]) for kind, name in self.properties]
        self.vertex = np.frombuffer(body, dtype, count["vertex"])
        self.point = np.stack([self.vertex[axis] for axis in "xyz"], axis=1)
        if "face" in count:
            assert ["property", "list", "uchar", "int", "vertex_indices"] in lines
            rows = np.frombuffer(body, [("n", "u1"), ("index", "<i4", 3)], count["face"], self.vertex.nbytes)
            assert len(body) == self.vertex.nbytes + rows.nbytes and (rows["n"] == 3).all()
            self.face = rows["index"]


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


def source_of(folder: pathlib.Path):
    """name -> laws.Source for a folder of points files."""

    def read(name):
        if (folder / f"{name}.pcd").exists():
            return laws.Source(read_pcd(folder / f"{name}.pcd"))
        ply = Ply(folder / f"{name}.ply")
        return laws.Source(ply.point, ply.vertex["label"])

    return read
