"""Shards from records: a Zarr v3 group in a zip, whose bytes depend on the records alone.

The metadata and chunks are written here, not by zarr-python: its way takes ten times longer for chunks of this size,
and its metadata change with its versions, so that equal data would be unequal bytes. The tests read them with it.
"""

import io
import json
import zipfile
from typing import NamedTuple

import google_crc32c
import numpy as np
from numcodecs import Blosc, blosc

from gen4d import kernels
from gen4d.format import ARRAYS, FORMAT, KIND_MOVING, ROLE_MOVING, ROLE_STATIC, VERSION, frame_pairs, row_shape

# Blosc's own threads, which it uses in a process's main thread alone, put the blocks of a chunk in the order in which
# they happen to be done: equal data would be unequal bytes. tests/test_sameness.py sees it.
blosc.use_threads = False
_SHUFFLE = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


class SequenceRecord(NamedTuple):
    """One accepted sequence: a shape that moves through a scan."""

    k: int
    attempt: int
    shape: str
    class_name: str
    height_m: float
    shrink: float
    radius_m: float
    cloud: np.ndarray  # (M, 3) float32: the shape's points
    pose: np.ndarray  # (t, 4, 4) float32: the shape's
    scan_planes: np.ndarray  # (t, ceil(N/8)) uint8
    shape_planes: np.ndarray  # (t, ceil(M/8)) uint8


class ScanRecord(NamedTuple):
    """One scan and its sequences."""

    name: str
    point: np.ndarray  # (N, 3) float32
    vertex: np.ndarray  # (N,) int32
    label: np.ndarray  # (N,) int32, -1 = none
    instance: np.ndarray  # (N,) int32, -1 = none
    label_space: str
    floor_m: float
    origin: np.ndarray  # (2,) int32
    valid: np.ndarray  # (nx, ny) bool
    free_m: float
    transform: np.ndarray  # (4, 4) float64
    axis_alignment: np.ndarray | None  # (4, 4) float64
    source_points: int
    dropped: int
    sequences: tuple[SequenceRecord, ...]


def shard_bytes(scans: tuple[ScanRecord, ...], frames: int, config: dict, pairs: bool) -> bytes:
    """A shard of the scans and all their sequences, as the bytes of a zip."""
    shapes = sorted({(s.class_name, s.shape) for scan in scans for s in scan.sequences})
    classes = sorted({name for name, _ in shapes})
    attributes = {
        "format": FORMAT,
        "version": VERSION,
        "must_understand": [],
        "frames": frames,
        "config": config,
        "scans": [scan.name for scan in scans],
        "label_spaces": [scan.label_space for scan in scans],
        "shapes": [shape for _, shape in shapes],
        "classes": classes,
    }
    files = {"zarr.json": _group(attributes)}
    files |= {f"{group}/zarr.json": _group({}) for group in ("cloud", "actor", "sequence", "scan")}
    tables = _cloud_tables(scans) | _actor_tables(scans, frames) | _sequence_tables(scans, shapes, classes)
    for name, rows in (tables | _scan_tables(scans)).items():
        array = _ArrayWriter(files, name, frames, len(rows))
        array.append(rows)
        array.close()
    if pairs:
        files["pair/zarr.json"] = _group({})
        _write_pairs(files, scans, frames)
    return _zip(files)


def _group(attributes: dict) -> bytes:
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}).encode()


class _ArrayWriter:
    """Encodes an array's rows as they come: a chunk when it is full, the last one padded, then the metadata."""

    def __init__(self, files: dict[str, bytes], name: str, frames: int, most: int):
        self.files, self.name, self.spec = files, name, ARRAYS[name]
        self.dtype, self.row = np.dtype(self.spec.dtype), row_shape(self.spec, frames)
        self.chunk = max(1, min(most, self.spec.chunk))
        cname, level, shuffle = self.spec.blosc
        self.blosc = Blosc(cname, level, _SHUFFLE[shuffle])
        self.rows, self.waiting = 0, np.empty((0, *self.row), self.dtype)

    def append(self, rows: np.ndarray) -> None:
        """Add rows (n, *row)."""
        rows = rows if not len(self.waiting) else np.concatenate([self.waiting, rows])
        whole = len(rows) // self.chunk * self.chunk
        for start in range(0, whole, self.chunk):
            self._put(rows[start : start + self.chunk])
        self.waiting = rows[whole:]

    def _put(self, chunk: np.ndarray) -> None:
        body = self.blosc.encode(np.ascontiguousarray(chunk, self.dtype))
        entry = f"{self.name}/c/{self.rows // self.chunk}" + "/0" * len(self.row)
        self.files[entry] = body + google_crc32c.value(body).to_bytes(4, "little")
        self.rows += self.chunk

    def close(self) -> None:
        """Write what is left, padded with zeros as Zarr has it, and the array's metadata."""
        rows = self.rows + len(self.waiting)
        if len(self.waiting):
            padded = np.zeros((self.chunk, *self.row), self.dtype)
            padded[: len(self.waiting)] = self.waiting
            self._put(padded)
        self.files[f"{self.name}/zarr.json"] = self._metadata(rows)

    def _metadata(self, rows: int) -> bytes:
        cname, level, shuffle = self.spec.blosc
        blosc = {"typesize": self.dtype.itemsize, "cname": cname, "clevel": level, "shuffle": shuffle, "blocksize": 0}
        order = {"configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {}
        metadata = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *self.row],
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.chunk, *self.row]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes"} | order, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}],
            "attributes": {"meaning": self.spec.meaning},
        }
        return json.dumps(metadata).encode()


def _starts(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _join(parts: list[np.ndarray], dtype: str, row: tuple[int, ...] = ()) -> np.ndarray:
    return np.concatenate([np.zeros((0, *row), dtype), *parts]).astype(dtype, copy=False)


def _cloud_tables(scans):
    """A scan's cloud, then the clouds of its shapes, then the next scan's."""
    point, vertex, label, instance = [], [], [], []
    for scan in scans:
        point.append(scan.point)
        vertex.append(scan.vertex)
        label.append(scan.label)
        instance.append(scan.instance)
        for sequence in scan.sequences:
            none = np.full(len(sequence.cloud), -1, np.int32)
            point.append(sequence.cloud)
            for column in (vertex, label, instance):
                column.append(none)
    return {
        "cloud/point": _join(point, "<f4", (3,)),
        "cloud/start": _starts([len(cloud) for cloud in point]),
        "cloud/vertex": _join(vertex, "<i4"),
        "cloud/label": _join(label, "<i4"),
        "cloud/instance": _join(instance, "<i4"),
    }


def _actor_tables(scans, frames):
    cloud, pose, planes = [], [], []
    still = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    first = 0
    for scan in scans:
        for i, sequence in enumerate(scan.sequences):
            cloud += [first, first + 1 + i]
            pose += [still, sequence.pose]
            planes += [sequence.scan_planes, sequence.shape_planes]
        first += 1 + len(scan.sequences)
    size = [plane.shape[1] for plane in planes for _ in range(frames)]
    return {
        "actor/start": np.arange(0, len(cloud) + 1, 2, dtype=np.int64),
        "actor/cloud": np.array(cloud, "<i4"),
        "actor/role": np.tile(np.array([ROLE_STATIC, ROLE_MOVING], np.uint8), len(cloud) // 2),
        "actor/pose": np.array(pose, "<f4").reshape(-1, frames, 4, 4),
        "actor/mask": _join([plane.ravel() for plane in planes], "|u1"),
        "actor/mask_start": _starts(size)[:-1].reshape(-1, frames),
    }


def _sequence_tables(scans, shapes, classes):
    rows = [(i, sequence) for i, scan in enumerate(scans) for sequence in scan.sequences]
    return {
        "sequence/scan": np.array([i for i, _ in rows], "<i4"),
        "sequence/k": np.array([s.k for _, s in rows], "<i4"),
        "sequence/attempt": np.array([s.attempt for _, s in rows], "<i4"),
        "sequence/shape": np.array([shapes.index((s.class_name, s.shape)) for _, s in rows], "<i4"),
        "sequence/class": np.array([classes.index(s.class_name) for _, s in rows], "<i4"),
        "sequence/kind": np.full(len(rows), KIND_MOVING, "|u1"),
        "sequence/height_m": np.array([s.height_m for _, s in rows], "<f8"),
        "sequence/shrink": np.array([s.shrink for _, s in rows], "<f8"),
        "sequence/radius_m": np.array([s.radius_m for _, s in rows], "<f8"),
    }


def _scan_tables(scans):
    valid = [np.packbits(scan.valid.ravel()) for scan in scans]
    none = np.full((4, 4), np.nan)
    return {
        "scan/cloud": _starts([1 + len(scan.sequences) for scan in scans])[:-1].astype("<i4"),
        "scan/floor_m": np.array([scan.floor_m for scan in scans], "<f8"),
        "scan/origin": np.array([scan.origin for scan in scans], "<i4").reshape(-1, 2),
        "scan/cells": np.array([scan.valid.shape for scan in scans], "<i4").reshape(-1, 2),
        "scan/valid": _join(valid, "|u1"),
        "scan/valid_start": _starts([len(plan) for plan in valid]),
        "scan/free_m": np.array([scan.free_m for scan in scans], "<f8"),
        "scan/transform": np.array([scan.transform for scan in scans], "<f8").reshape(-1, 4, 4),
        "scan/axis_alignment": np.array(
            [none if scan.axis_alignment is None else scan.axis_alignment for scan in scans], "<f8"
        ).reshape(-1, 4, 4),
        "scan/source_points": np.array([scan.source_points for scan in scans], "<i4"),
        "scan/dropped": np.array([scan.dropped for scan in scans], "<i4"),
    }


def sequence_pairs(scan_planes: np.ndarray, shape_planes: np.ndarray, sizes: tuple[int, int]):
    """Pair lists of a sequence of two actors: for all frames i < j, rows (K,) int32 of frame i and of frame j."""
    frames = len(scan_planes)
    kept = [kernels.count_bits(plane) for plane in scan_planes]
    lists = []
    for i, j in frame_pairs(frames):
        first, second = np.empty(sum(sizes) + 16, np.int32), np.empty(sum(sizes) + 16, np.int32)
        n = kernels.pair_list(scan_planes[i], scan_planes[j], 0, 0, first, second)
        n += kernels.pair_list(shape_planes[i], shape_planes[j], kept[i], kept[j], first[n:], second[n:])
        lists.append((first[:n], second[:n]))
    return lists


def _write_pairs(files, scans, frames):
    """Pair lists, a sequence at a time: those of a whole shard would take most of a gigabyte."""
    sequences = [(scan, sequence) for scan in scans for sequence in scan.sequences]
    columns = [_ArrayWriter(files, name, frames, ARRAYS[name].chunk) for name in ("pair/first", "pair/second")]
    lengths = []
    for scan, sequence in sequences:
        sizes = len(scan.point), len(sequence.cloud)
        lists = sequence_pairs(sequence.scan_planes, sequence.shape_planes, sizes)
        lengths += [len(first) for first, _ in lists]
        for side, column in enumerate(columns):
            column.append(np.concatenate([rows[side] for rows in lists]))
    start = _ArrayWriter(files, "pair/start", frames, len(lengths) + 1)
    start.append(_starts(lengths))
    for array in (*columns, start):
        array.close()


def _zip(files: dict[str, bytes]) -> bytes:
    """A zip of stored entries, sorted, with the zip epoch as their date, so that equal data are equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, files[name])
    return out.getvalue()
