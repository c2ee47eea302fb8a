"""Shards from recordings: a Zarr v3 group in a zip, whose bytes depend on the recordings alone.

The metadata and chunks are written here, not by zarr-python: its metadata change with its versions, so that equal data
would be unequal bytes, and its way takes about twice as long. The tests read them with it.
"""

import io
import json
import math
import zipfile
from typing import NamedTuple

import google_crc32c
import numpy as np
from numcodecs import Blosc, blosc

from gen4d.sequence import KINDS, ROLE_MOVING, Cloud, FloorPlan, Mover, Recording, Sequence, frame_pairs
from gen4d.shards.format import ARRAYS, FORMAT, LARGE, VERSION, row_shape

# Blosc's own threads, which it uses in a process's main thread alone, put the blocks of a chunk in the order in which
# they happen to be done: equal data would be unequal bytes. tests/test_sameness.py sees it.
blosc.use_threads = False
_NO_FLOOR = FloorPlan(np.zeros((0, 0), bool), np.zeros(2, np.int32), math.nan, 0.0)
_NO_MATRIX = np.full((4, 4), np.nan)
_SHUFFLE = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


def shard_bytes(recordings: tuple[Recording, ...], frames: int, config: dict, pairs: bool) -> bytes:
    """A shard of recordings and all their sequences, each of `frames` frames, as the bytes of a zip."""
    sequences = [sequence for recording in recordings for sequence in recording]
    shapes = sorted({(mover.class_name, mover.shape) for sequence in sequences for mover in sequence.movers})
    classes = sorted({name for name, _ in shapes})
    attributes = {
        "format": FORMAT,
        "version": VERSION,
        "must_understand": [],
        "frames": frames,
        "config": config,
        "scans": [recording.name for recording in recordings],
        "label_spaces": [recording.label_space for recording in recordings],
        "shapes": [shape for _, shape in shapes],
        "classes": classes,
    }
    clouds = _Clouds(recordings)
    names = _Names({name: i for i, name in enumerate(shapes)}, {name: i for i, name in enumerate(classes)})
    tables = _cloud_tables(clouds.all) | _actor_tables(sequences, clouds, frames)
    tables |= _sequence_tables(recordings, names) | _scan_tables(recordings, clouds)
    if not all(map(_has_one_mover, sequences)):
        tables |= _mover_tables(sequences, names)
    if not all(math.isnan(sequence.match_m) for sequence in sequences):
        tables["sequence/match_m"] = np.array([sequence.match_m for sequence in sequences], "<f8")
    if any(recording.views for recording in recordings):
        tables |= _view_tables(recordings, clouds)
    files = {"zarr.json": _group(attributes)}
    files |= {f"{group}/zarr.json": _group({}) for group in sorted({name.partition("/")[0] for name in tables})}
    for name, rows in tables.items():
        array = _ArrayWriter(files, name, frames, len(rows))
        array.append(rows)
        array.close()
    if pairs:
        files["pair/zarr.json"] = _group({})
        _write_pairs(files, sequences, frames)
    return _zip(files)


class _Clouds:
    """All clouds of a shard in the order in which they lie there: a scan's, those of its sequences, the next scan's."""

    def __init__(self, recordings: tuple[Recording, ...]):
        self.all: list[Cloud] = []
        self._number: dict[int, int] = {}
        for recording in recordings:
            views = recording.views.clouds if recording.views else ()
            actors = (actor.cloud for sequence in recording for actor in sequence.actors)
            for cloud in (recording.cloud, *views, *actors):
                if cloud is not None and id(cloud) not in self._number:
                    self._number[id(cloud)] = len(self.all)
                    self.all.append(cloud)

    def __getitem__(self, cloud: Cloud | None) -> int:
        return -1 if cloud is None else self._number[id(cloud)]


class _Names(NamedTuple):
    """Numbers of shapes and classes in the attributes of those names."""

    shapes: dict[tuple[str, str], int]
    classes: dict[str, int]

    def rows(self, group: str, movers: list[Mover | None]) -> dict[str, np.ndarray]:
        """The columns of movers in the group of arrays that holds them."""
        known = [mover or Mover("", "") for mover in movers]
        return {
            f"{group}/shape": np.array([self.shapes.get((m.class_name, m.shape), -1) for m in known], "<i4"),
            f"{group}/class": np.array([self.classes.get(m.class_name, -1) for m in known], "<i4"),
            f"{group}/height_m": np.array([m.height_m for m in known], "<f8"),
            f"{group}/shrink": np.array([m.shrink for m in known], "<f8"),
            f"{group}/radius_m": np.array([m.radius_m for m in known], "<f8"),
        }


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


def _cloud_tables(clouds: list[Cloud]) -> dict[str, np.ndarray]:
    columns = {name: [_column(cloud, name) for cloud in clouds] for name in Cloud.columns}
    return {
        "cloud/point": _join(columns["point"], "<f4", (3,)),
        "cloud/start": _starts([len(cloud) for cloud in clouds]),
        **{f"cloud/{name}": _join(columns[name], "<i4") for name in ("vertex", "label", "instance")},
    }


def _column(cloud: Cloud, name: str) -> np.ndarray:
    rows = getattr(cloud, name)
    return np.full(len(cloud), -1, np.int32) if rows is None else rows


def _actor_tables(sequences: list[Sequence], clouds: _Clouds, frames: int) -> dict[str, np.ndarray]:
    """A frame in which an actor keeps no point has no plane."""
    actors = [actor for sequence in sequences for actor in sequence.actors]
    planes = [plane for actor in actors for plane in actor.planes]
    present = np.array([plane.any() for plane in planes], bool)
    start = _starts([len(plane) if there else 0 for plane, there in zip(planes, present, strict=True)])[:-1]
    return {
        "actor/start": _starts([len(sequence.actors) for sequence in sequences]),
        "actor/cloud": np.array([clouds[actor.cloud] for actor in actors], "<i4"),
        "actor/role": np.array([actor.role for actor in actors], np.uint8),
        "actor/pose": np.array([actor.pose for actor in actors], "<f4").reshape(-1, frames, 4, 4),
        "actor/mask": _join([plane for plane, there in zip(planes, present, strict=True) if there], "|u1"),
        "actor/mask_start": np.where(present, start, -1).astype("<i8").reshape(-1, frames),
    }


def _sequence_tables(recordings: tuple[Recording, ...], names: _Names) -> dict[str, np.ndarray]:
    rows = [(i, sequence) for i, recording in enumerate(recordings) for sequence in recording]
    return {
        "sequence/scan": np.array([i for i, _ in rows], "<i4"),
        "sequence/k": np.array([s.k for _, s in rows], "<i4"),
        "sequence/attempt": np.array([s.attempt for _, s in rows], "<i4"),
        "sequence/kind": np.array([KINDS.index(s.kind) for _, s in rows], "|u1"),
        **names.rows("sequence", [s.movers[0] if s.movers else None for _, s in rows]),
    }


def _has_one_mover(sequence: Sequence) -> bool:
    """Whether sequence/* says all of its movers: one, whose parts are all actors that move, or none, and none moves."""
    parts = {actor.mover for actor in sequence.actors if actor.role == ROLE_MOVING}
    others = {actor.mover for actor in sequence.actors if actor.role != ROLE_MOVING}
    return others <= {-1} and parts <= ({0} if len(sequence.movers) == 1 else {-1}) and len(sequence.movers) <= 1


def _mover_tables(sequences: list[Sequence], names: _Names) -> dict[str, np.ndarray]:
    actors = [actor for sequence in sequences for actor in sequence.actors]
    return {
        "mover/start": _starts([len(sequence.movers) for sequence in sequences]),
        **names.rows("mover", [mover for sequence in sequences for mover in sequence.movers]),
        "actor/mover": np.array([actor.mover for actor in actors], "<i4"),
    }


def _scan_tables(recordings: tuple[Recording, ...], clouds: _Clouds) -> dict[str, np.ndarray]:
    floors = [recording.floor or _NO_FLOOR for recording in recordings]
    valid = [np.packbits(floor.valid.ravel()) for floor in floors]
    alignments = [_NO_MATRIX if r.axis_alignment is None else r.axis_alignment for r in recordings]
    return {
        "scan/cloud": np.array([clouds[recording.cloud] for recording in recordings], "<i4"),
        "scan/floor_m": np.array([floor.floor_m for floor in floors], "<f8"),
        "scan/origin": np.array([floor.origin for floor in floors], "<i4").reshape(-1, 2),
        "scan/cells": np.array([floor.valid.shape for floor in floors], "<i4").reshape(-1, 2),
        "scan/valid": _join(valid, "|u1"),
        "scan/valid_start": _starts([len(plan) for plan in valid]),
        "scan/free_m": np.array([recording.free_m for recording in recordings], "<f8"),
        "scan/unseen": np.array([floor.unseen for floor in floors], "<f8"),
        "scan/transform": np.array([recording.transform for recording in recordings], "<f8").reshape(-1, 4, 4),
        "scan/axis_alignment": np.array(alignments, "<f8").reshape(-1, 4, 4),
        "scan/source_points": np.array([recording.source_points for recording in recordings], "<i4"),
        "scan/dropped": np.array([recording.dropped for recording in recordings], "<i4"),
    }


def _view_tables(recordings: tuple[Recording, ...], clouds: _Clouds) -> dict[str, np.ndarray]:
    """Of recordings that are not made of views there are none."""
    each = [recording.views for recording in recordings]
    known = [views for views in each if views]
    overlaps = [views.overlap.ravel() if views and views.overlap is not None else np.zeros(0, "<f4") for views in each]
    return {
        "view/start": _starts([len(views.clouds) if views else 0 for views in each]),
        "view/cloud": np.array([clouds[cloud] for views in known for cloud in views.clouds], "<i4"),
        "view/number": _join([views.number for views in known], "<i4"),
        "view/time_s": _join([views.time_s for views in known], "<f8"),
        "view/pose": _join([views.pose for views in known], "<f8", (4, 4)),
        "view/overlap_start": _starts([len(overlap) for overlap in overlaps]),
        "view/overlap": _join(overlaps, "<f4"),
    }


def _write_pairs(files: dict[str, bytes], sequences: list[Sequence], frames: int) -> None:
    """Pair lists, a sequence at a time: those of a whole shard would take most of a gigabyte."""
    columns = [_ArrayWriter(files, name, frames, ARRAYS[name].chunk) for name in ("pair/first", "pair/second")]
    lengths: list[int] = []
    for sequence in sequences:
        lists = [sequence.correspondences(i, j) for i, j in frame_pairs(frames)]
        lengths += [len(first) for first, _ in lists]
        for side, column in enumerate(columns):
            column.append(np.concatenate([rows[side] for rows in lists]))
    start = _ArrayWriter(files, "pair/start", frames, len(lengths) + 1)
    start.append(_starts(lengths))
    for array in (*columns, start):
        array.close()


def _zip(files: dict[str, bytes]) -> bytes:
    """A zip of stored entries in a fixed order, dated the zip epoch, so that equal data are equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files, key=_order):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


def _order(entry: str) -> tuple[int, str, int]:
    """Large arrays, small tables, metadata; an array's chunks by their numbers, so that neighbours are one read."""
    array, _, chunk = entry.partition("/c/")
    if not chunk:
        return len(LARGE) + 1, entry, 0
    return LARGE.index(array) if array in LARGE else len(LARGE), array, int(chunk.partition("/")[0])
