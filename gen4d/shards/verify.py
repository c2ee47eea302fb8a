"""Whether a data set is intact and complete: every file named, of its size and hash, and every table consistent."""

import functools
import hashlib
import itertools
import math
import pathlib
from collections.abc import Iterator

import numpy as np

from gen4d.files import is_litter
from gen4d.sequence import Sequence, find_fault, frame_pairs, match_points, pose_fault
from gen4d.shards.dataset import Dataset
from gen4d.shards.format import FormatError, unseal
from gen4d.shards.home import LocalHome, RangedFile
from gen4d.shards.manifest import CARD, read_sidecar, sidecar_name, sidecar_path
from gen4d.shards.tables import Shard, Tables

_REMEDY = "restore it from a copy, or delete it and run the command that wrote it again"
_PIECE = 4 << 20  # bytes that are hashed at once
_EXPECTED = ("dataset.json", "shards", "build.lock", "parts.json", *CARD)


def verify(dataset: Dataset, quick: bool = False) -> Iterator[str | None]:
    """Check a data set. Yields once per shard: None, or a line that names the file, what is wrong and what to do.

    Quick compares names and sizes, and the hashes of all files except the shards. Otherwise every byte is hashed, every
    chunk decoded, and every table checked down to padding bits.
    """
    yield from _check_folder(dataset)
    for number, entry in enumerate(dataset.manifest["shards"]):
        try:
            _check_shard(dataset, number, entry, quick)
        except (FormatError, OSError) as error:
            names = [name for name, _ in entry["scans"]]
            span = f"{names[0]} to {names[-1]}" if names else "no scans"
            yield f"{error} ({span})"
        else:
            yield None


def _check_folder(dataset: Dataset) -> Iterator[str]:
    """Files that do not belong there, which only a disk can tell, and the file that was written first."""
    start = "export.json" if "exported" in dataset.manifest else "build.json"
    if isinstance(dataset.home, LocalHome):
        yield from _find_odd(dataset, dataset.home.folder, start)
    problem = _find_stranger(dataset, start)
    if problem:
        yield problem


def _find_odd(dataset: Dataset, folder: pathlib.Path, start: str) -> Iterator[str]:
    known = {entry["file"] for entry in dataset.manifest["shards"]}
    known |= {sidecar_path(folder, number).name for number in range(len(known))}
    odd = [path for path in folder.iterdir() if path.name not in (*_EXPECTED, start)]
    shards = folder / "shards"
    odd += [path for path in shards.iterdir() if path.name not in known] if shards.is_dir() else []
    for path in sorted(path for path in odd if not is_litter(path.name)):
        yield f"{path}: not part of the data set: remove it, or finish the build that it belongs to"


def _find_stranger(dataset: Dataset, name: str) -> str | None:
    """What is wrong with the file that was written first."""
    where = dataset.home.where(name)
    try:
        stored = unseal(dataset.home.read(name), where)
    except FormatError as error:
        return str(error)
    except OSError as error:
        return f"{where}: cannot be read ({error.strerror}); restore it from a copy or rebuild"
    if "exported" in dataset.manifest:
        same = stored == dataset.manifest["exported"]
    else:
        same = all(stored.get(name) == dataset.manifest[name] for name in ("gen4d", "config", "shapes"))
    return None if same else f"{where}: is of another build than dataset.json; restore it from a copy or rebuild"


def _check_shard(dataset: Dataset, number: int, entry: dict, quick: bool) -> None:
    _check_description(dataset, number, entry)
    file = dataset.home.file(f"shards/{entry['file']}")
    if file.size != entry["bytes"]:
        raise FormatError(f"{file.where}: has {file.size} bytes, dataset.json says {entry['bytes']}: {_REMEDY}")
    if quick:
        return
    if _sha256(file) != entry["content_sha256"]:
        raise FormatError(f"{file.where}: its content does not match its hash in dataset.json: {_REMEDY}")
    tables = Tables(file)
    try:
        check_tables(tables, entry["scans"])
    finally:
        tables.shard.close()


def _sha256(file: RangedFile) -> str:
    digest = hashlib.sha256()
    for start in range(0, file.size, _PIECE):
        digest.update(file.read(start, _PIECE))
    return digest.hexdigest()


def _check_description(dataset: Dataset, number: int, entry: dict) -> None:
    """By its hash; the content tells what is wrong with one that has another hash."""
    name = sidecar_name(number)
    try:
        content = dataset.home.read(name)
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != entry["sidecar_sha256"]:
        read_sidecar(dataset.home, number)
        raise FormatError(f"{dataset.home.where(name)}: is of another build than dataset.json; {_REMEDY}")


def check_tables(tables: Tables, scans: list) -> None:
    """Raise FormatError where the arrays of a shard contradict each other or the (name, sequences) of its scans."""
    table, shard = tables.table, tables.shard
    _demand(shard, [name for name, _ in scans] == tables.scans, "its scans are not those that dataset.json names")
    count = tables.sequence_counts()
    _demand(shard, count == [n for _, n in scans], "its sequences are not as many as dataset.json says")
    clouds = len(table["cloud/start"]) - 1
    for name, lowest in [("actor/cloud", 0), ("scan/cloud", -1)]:
        _demand(shard, bool(((table[name] >= lowest) & (table[name] < clouds)).all()), f"{name} points outside")
    _demand(shard, bool((table["actor/role"] <= 2).all()), "actor/role has an unknown role")
    cells, start = table["scan/cells"].astype(np.int64), table["scan/valid_start"]
    fits = bool((cells >= 0).all() and np.array_equal((cells.prod(axis=1) + 7) // 8, np.diff(start)))
    _demand(shard, fits, "scan/valid has not as many bytes as scan/cells says")
    _check_chunks(tables)
    _check_views(tables)
    cloud_of = functools.lru_cache(8)(tables.cloud)  # sequences of a scan are neighbours
    for row in range(shard.length("sequence/k")):
        sequence = tables.sequence(row, cloud_of)
        fault = find_fault(sequence)
        _demand(shard, fault is None, f"{sequence.id}: {fault}")
        if "pair/start" in shard.arrays:
            _check_pairs(tables, row, sequence)


def _demand(shard: Shard, holds: bool, message: str) -> None:
    if not holds:
        raise FormatError(f"{shard.where}: {message}: {_REMEDY}")


def _check_chunks(tables: Tables) -> None:
    """Decode every chunk of every array: crc32c and finite points."""
    for name, array in tables.shard.arrays.items():
        for start in range(0, array.shape[0], array.chunk[0]):
            rows = tables.shard.read(name, start, min(start + array.chunk[0], array.shape[0]))
            if name in ("cloud/point", "actor/pose"):
                _demand(tables.shard, bool(np.isfinite(rows).all()), f"{name} holds a value that is not finite")


def _check_views(tables: Tables) -> None:
    """Frames and sweeps: clouds that are there, rigid poses, and overlaps that are shares."""
    if "view/start" not in tables.shard.arrays:
        return
    table, shard = tables.table, tables.shard
    _demand(shard, len(table["view/start"]) == len(tables.scans) + 1, "view/start has not a row a scan")
    clouds = len(table["cloud/start"]) - 1
    inside = bool(((table["view/cloud"] >= 0) & (table["view/cloud"] < clouds)).all())
    _demand(shard, inside, "view/cloud points outside")
    fault = pose_fault(table["view/pose"], False, "a view") if len(table["view/pose"]) else None
    _demand(shard, fault is None, str(fault))
    for scan in range(len(tables.scans)):
        views = tables.views(scan)
        if views is not None and views.overlap is not None:
            shares = bool(((views.overlap >= 0) & (views.overlap <= 1)).all() and (views.overlap.diagonal() == 1).all())
            _demand(shard, shares, f"view/overlap of {tables.scans[scan]} are not shares")


def _check_pairs(tables: Tables, row: int, sequence: Sequence) -> None:
    """Stored pair lists against the masks, or against what is each other's nearest in frames and sweeps; where these
    say no radius, theirs are rows that exist."""
    whole_frames = [frame.point for frame in sequence] if not math.isnan(sequence.match_m) else []
    pairs = frame_pairs(sequence.t)
    stop = (row + 1) * len(pairs) + 1
    _demand(tables.shard, tables.shard.length("pair/start") >= stop, "pair/start is too short")
    start = tables.shard.read("pair/start", row * len(pairs), stop).tolist()
    for (i, j), (a, b) in zip(pairs, itertools.pairwise(start), strict=True):
        first, second = (tables.shard.read(name, a, b) for name in ("pair/first", "pair/second"))
        if whole_frames:
            found = match_points(whole_frames[i], whole_frames[j], sequence.match_m)
            equal = all(map(np.array_equal, (first, second), found))
            _demand(tables.shard, equal, f"pair lists of {sequence.id}, frames {i} and {j}, are not the nearest pairs")
        elif sequence.kind in ("frames", "sweeps"):
            whole = _are_rows(first, len(sequence[i].point)) and _are_rows(second, len(sequence[j].point))
            _demand(tables.shard, whole, f"pair lists of {sequence.id}, frames {i} and {j}, hold other rows")
        else:
            equal = all(map(np.array_equal, (first, second), sequence.correspondences(i, j)))
            _demand(tables.shard, equal, f"pair lists of {sequence.id}, frames {i} and {j}, differ from its masks")


def _are_rows(rows: np.ndarray, count: int) -> bool:
    return bool(((rows >= 0) & (rows < count)).all())
