"""Whether a data set is intact and complete: every file named, of its size and hash, and every table consistent."""

import functools
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from gen4d import files
from gen4d.build import read_sidecar_content, sidecar_path
from gen4d.format import FormatError, frame_pairs, unseal
from gen4d.shards import Dataset, Tables

_REMEDY = "restore it from a copy, or delete it and run the command that wrote it again"
_EXPECTED = ("dataset.json", "shards", "build.lock", "parts.json")


def verify(dataset: Dataset, quick: bool = False) -> Iterator[str | None]:
    """Check a data set; yields once a shard: None, or a line that names the file, what is wrong and what to do.

    Quick compares names and sizes, and the hashes of all files but the shards. Otherwise every byte is hashed, every
    chunk decoded, and every table checked down to padding bits.
    """
    yield from _check_folder(dataset)
    for number, entry in enumerate(dataset.manifest["shards"]):
        path = dataset.folder / "shards" / entry["file"]
        try:
            _check_shard(dataset, number, path, entry, quick)
        except (FormatError, OSError) as error:
            names = [name for name, _ in entry["scans"]]
            span = f"{names[0]} to {names[-1]}" if names else "no scans"
            yield f"{error} ({span})"
        else:
            yield None


def _check_folder(dataset: Dataset) -> Iterator[str]:
    """Files that do not belong there, and the file that was written first."""
    known = {entry["file"] for entry in dataset.manifest["shards"]}
    known |= {sidecar_path(dataset.folder, number).name for number in range(len(known))}
    start = "export.json" if "exported" in dataset.manifest else "build.json"
    odd = [path for path in dataset.folder.iterdir() if path.name not in (*_EXPECTED, start)]
    shards = dataset.folder / "shards"
    odd += [path for path in shards.iterdir() if path.name not in known] if shards.is_dir() else []
    for path in sorted(odd):
        yield f"{path}: not part of the data set: remove it, or finish the build that it belongs to"
    problem = _find_stranger(dataset, dataset.folder / start)
    if problem:
        yield problem


def _find_stranger(dataset: Dataset, path: pathlib.Path) -> str | None:
    """What is wrong with the file that was written first."""
    try:
        stored = unseal(path.read_bytes(), str(path))
    except FormatError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror}); restore it from a copy or rebuild"
    if "exported" in dataset.manifest:
        same = stored == dataset.manifest["exported"]
    else:
        same = all(stored.get(name) == dataset.manifest[name] for name in ("gen4d", "config", "shapes"))
    return None if same else f"{path}: is of another build than dataset.json; restore it from a copy or rebuild"


def _check_shard(dataset: Dataset, number: int, path: pathlib.Path, entry: dict, quick: bool) -> None:
    _check_description(dataset, number, entry)
    if not path.is_file():
        raise FormatError(f"{path}: the shard is missing; {_REMEDY}")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise FormatError(f"{path}: has {size} bytes, dataset.json says {entry['bytes']}: {_REMEDY}")
    if quick:
        return
    if files.sha256(path) != entry["content_sha256"]:
        raise FormatError(f"{path}: its content does not match its hash in dataset.json: {_REMEDY}")
    tables = Tables(path)
    try:
        check_tables(tables, entry["scans"])
    finally:
        tables.shard.close()


def _check_description(dataset: Dataset, number: int, entry: dict) -> None:
    """By its hash; the content tells what is wrong with one that has another hash."""
    path = sidecar_path(dataset.folder, number)
    if not path.is_file() or files.sha256(path) != entry["sidecar_sha256"]:
        read_sidecar_content(dataset.folder, number)
        raise FormatError(f"{path}: is of another build than dataset.json; {_REMEDY}")


def check_tables(tables: Tables, scans: list) -> None:
    """Raise FormatError where the arrays of a shard contradict each other or the (name, sequences) of its scans."""
    table, shard = tables.table, tables.shard
    _demand(shard, [name for name, _ in scans] == tables.scans, "its scans are not those that dataset.json names")
    count = tables.sequence_counts()
    _demand(shard, count == [n for _, n in scans], "its sequences are not as many as dataset.json says")
    clouds = len(table["cloud/start"]) - 1
    for name, limit in [("actor/cloud", clouds), ("scan/cloud", clouds)]:
        _demand(shard, bool(((table[name] >= 0) & (table[name] < limit)).all()), f"{name} points outside")
    _demand(shard, bool((table["actor/role"] <= 2).all()), "actor/role has an unknown role")
    cells, start = table["scan/cells"].astype(np.int64), table["scan/valid_start"]
    fits = bool((cells >= 0).all() and np.array_equal((cells.prod(axis=1) + 7) // 8, np.diff(start)))
    _demand(shard, fits, "scan/valid has not as many bytes as scan/cells says")
    _check_poses(shard, table["actor/pose"])
    _check_clouds(tables)
    scan_cloud = functools.lru_cache(1)(tables.cloud)  # sequences of a scan are neighbours
    for row in range(shard.length("sequence/k")):
        _check_sequence(tables, row, scan_cloud)


def _demand(shard, holds: bool, message: str) -> None:
    if not holds:
        raise FormatError(f"{shard.path}: {message}: {_REMEDY}")


def _check_poses(shard, pose: np.ndarray) -> None:
    turn = pose[:, :, :3, :3].astype(np.float64)
    product = turn @ turn.transpose(0, 1, 3, 2)
    rigid = np.abs(product - np.eye(3)).max(initial=0) < 1e-5 and bool((np.linalg.det(turn) > 0).all())
    _demand(
        shard, rigid and bool((pose[:, :, 3] == [0, 0, 0, 1]).all()), "actor/pose holds a transform that is not rigid"
    )


def _check_clouds(tables: Tables) -> None:
    """Decode every chunk of every array: crc32c and finite points."""
    for name, array in tables.shard.arrays.items():
        for start in range(0, array.shape[0], array.chunk[0]):
            rows = tables.shard.read(name, start, min(start + array.chunk[0], array.shape[0]))
            if name in ("cloud/point", "actor/pose"):
                _demand(tables.shard, bool(np.isfinite(rows).all()), f"{name} holds a value that is not finite")


def _check_sequence(tables: Tables, row: int, scan_cloud) -> None:
    sequence = tables.sequence(row, scan_cloud)
    for number, actor in enumerate(sequence.actors):
        padding = -len(actor.cloud.point) % 8
        clear = not padding or bool((actor.planes[:, -1] & ((1 << padding) - 1) == 0).all())
        _demand(tables.shard, clear, f"actor {number} of {sequence.id} has padding bits set in its masks")
    if "pair/start" in tables.shard.arrays:
        _check_pairs(tables, row, sequence)


def _check_pairs(tables: Tables, row: int, sequence) -> None:
    pairs = frame_pairs(sequence.t)
    stop = (row + 1) * len(pairs) + 1
    _demand(tables.shard, tables.shard.length("pair/start") >= stop, "pair/start is too short")
    start = tables.shard.read("pair/start", row * len(pairs), stop).tolist()
    for (i, j), (a, b) in zip(pairs, itertools.pairwise(start), strict=True):
        stored = [tables.shard.read(name, a, b) for name in ("pair/first", "pair/second")]
        equal = all(map(np.array_equal, stored, sequence.correspondences(i, j)))
        _demand(tables.shard, equal, f"pair lists of {sequence.id}, frames {i} and {j}, differ from its masks")
