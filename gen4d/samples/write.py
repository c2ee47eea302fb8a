"""Writes the built-in samples: simulated scans in ScanNet's layout and parametric furniture in ModelNet's.

DIR/scans/sceneXXXX_YY/...               see `scannet`
DIR/scans/scannetv2_{train,val}.txt      a split by room: rescans of one room are on the same side
DIR/scans/scannetv2-labels.combined.tsv  categories and their nyu40 ids
DIR/shapes/<class>/{train,test}/*.off    see `modelnet`
DIR/frames/<scan>/{depth,pose}/...       if asked for, the depth images that the scans were made from, see `frames`
DIR/articulated/<class>/<name>/*.urdf    furniture with doors, drawers and seats that move, see `urdf`
DIR/gen4d_samples.json                   written last: what was asked for, every file's size, a digest of it all
"""

import functools
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen4d import files, workers
from gen4d.samples.camera.scanner import Capture, Watcher, scan_room
from gen4d.samples.draws import chance, keyed
from gen4d.samples.frames import DESCRIPTION, FrameWriter
from gen4d.samples.modelnet import SHAPE_STYLES, shape_path, shape_text
from gen4d.samples.objects.jointed import JOINTED
from gen4d.samples.rooms.room import Room, make_room, rearranged
from gen4d.samples.scannet import label_table, write_scan
from gen4d.samples.urdf import articulated_files

GENERATOR_VERSION = 1  # a change of any byte of the samples for a given seed needs a new version
MANIFEST = "gen4d_samples.json"
_STARTED = "gen4d_samples.started.json"  # there while the samples are being written
_VAL_EVERY, _VAL_FIRST = 5, 1  # rooms 1, 6, 11, ... are for validation
_MOST_ROOMS, _MOST_SHAPES = 10_000, 9_999  # scene0000 to scene9999, chair_0001 to chair_9999

Progress = Callable[[int, int, str], None]  # done, of, what


class SamplesError(ValueError):
    """The samples cannot be written as asked; the message says why and what to do."""


class SamplesWritten(NamedTuple):
    """What a folder holds: scans, shapes, the digest of all content; `written` is False where it was there already."""

    scans: int
    shapes: int
    digest: str
    written: bool


def write_samples(
    folder: Path,
    rooms: int = 12,
    shapes: int = 6,
    seed: int = 0,
    progress: Progress | None = None,
    tilted: bool = False,
    frames: bool = False,
    workers: int = 1,
) -> SamplesWritten:
    """Writes `rooms` rooms with one to three scans each, and `shapes` shapes of each of the eight classes.

    tilted: scans are tilted and drift a little, as real ones do; without, they are level, as they always were.
    frames: the scans' posed depth images are written too.
    workers: so many processes make the rooms; the files are the same.

    A room or a shape depends on the seed and its own number alone. A folder that holds samples of the same parameters
    is left as it is; an interrupted run is done again. Raises SamplesError where the folder holds anything else or a
    number is out of range, and OSError where it cannot be written.
    """
    folder = Path(folder)
    asked = {
        "version": GENERATOR_VERSION,
        "seed": _whole(seed, "seed", 0, 2**63 - 1),
        "rooms": _whole(rooms, "rooms", 0, _MOST_ROOMS),
        "shapes": _whole(shapes, "shapes", 0, _MOST_SHAPES),
    }
    asked |= {"tilted": True} if tilted else {}  # older samples, which are level, do not say so
    if not frames and (there := _what_is_there(folder, asked)):
        _write_articulated(folder / "articulated", shapes, seed)  # which older samples lack
        return there
    if folder.exists() and not folder.is_dir():
        raise SamplesError(f"{folder}: is a file; the samples need a folder of their own, name another one")
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder, what="samples, "):
        written = _what_is_there(folder, asked) or _write(folder, asked, workers, progress)
        _write_articulated(folder / "articulated", shapes, seed)
        if frames:
            _write_frames(folder / "frames", rooms, seed, tilted, workers)
        return written


def _write(folder: Path, asked: dict, workers: int, progress: Progress | None) -> SamplesWritten:
    """Scans, shapes and, last, the manifest."""
    rooms, shapes, seed = (asked[name] for name in ("rooms", "shapes", "seed"))
    files.write(folder / _STARTED, (json.dumps(asked) + "\n").encode())
    (folder / MANIFEST).unlink(missing_ok=True)
    scans = _write_scans(folder / "scans", rooms, seed, "tilted" in asked, workers, progress)
    _write_shapes(folder / "shapes", shapes, seed)
    size, digest = _contents(folder)
    totals = {"scan_count": scans, "shape_count": shapes * len(SHAPE_STYLES), "digest": digest, "files": size}
    files.write(folder / MANIFEST, (json.dumps(asked | totals, indent=1) + "\n").encode())
    (folder / _STARTED).unlink()
    return SamplesWritten(scans, shapes * len(SHAPE_STYLES), digest, True)


def _whole(value: int, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise SamplesError(f"{name} {value}: a whole number from {least} to {most} is needed")
    return int(value)


def _what_is_there(folder: Path, asked: dict) -> SamplesWritten | None:
    """The samples that are there already, None where they are still to be written."""
    if all(name.endswith(".tmp") for name in files.others(folder)):
        return None  # a lock, or a file that never got its name, does not count
    started = _load(folder / _STARTED)
    found = _load(folder / MANIFEST) if started is None else started
    if found is None:
        raise SamplesError(f"{folder}: is not empty and holds no {MANIFEST}; name a new or empty folder")
    wanted, held = ({"tilted": False} | value for value in (asked, found))
    other = [f"{name} {held.get(name)}, not {value}" for name, value in wanted.items() if held.get(name) != value]
    if other:
        raise SamplesError(f"{folder}: holds samples of {', '.join(other)}; name another folder or delete this one")
    if not _is_whole(folder, found):
        return None  # what `_STARTED` holds is never whole
    return SamplesWritten(found["scan_count"], found["shape_count"], found["digest"], False)


def _load(path: Path) -> dict | None:
    """A manifest's content, None where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SamplesError(f"{path}: is not JSON ({error}); delete the folder and write the samples again") from error
    if not isinstance(content, dict):
        raise SamplesError(f"{path}: holds no JSON object; delete the folder and write the samples again")
    return content


def _is_whole(folder: Path, found: dict) -> bool:
    """True where the manifest is complete and every file that it lists has its size."""
    if not {"files", "scan_count", "shape_count", "digest"} <= found.keys():
        return False
    paths = {name: folder / name for name in found["files"]}
    return all(path.is_file() and path.stat().st_size == found["files"][name] for name, path in paths.items())


class _RoomWritten(NamedTuple):
    """A room's scans, and in how many of them each category is."""

    names: list[str]
    categories: Counter[str]
    kind: str


def _write_scans(folder: Path, rooms: int, seed: int, tilted: bool, processes: int, progress: Progress | None) -> int:
    """All scans of all rooms, the split and the label table; returns the number of scans."""
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[int, _RoomWritten] = {}
    for index, room in _each(functools.partial(_write_room, folder, seed, tilted), rooms, processes):
        written[index] = room
        if progress is not None:
            scans = len(room.names)
            progress(len(written), rooms, f"room {index:04d}: {room.kind}, {scans} scan{'s' * (scans > 1)}")
    names: dict[str, list[str]] = {"train": [], "val": []}
    count: Counter[str] = Counter()
    for index in range(rooms):
        names["val" if index % _VAL_EVERY == _VAL_FIRST else "train"] += written[index].names
        count.update(written[index].categories)
    for part, members in names.items():
        (folder / f"scannetv2_{part}.txt").write_text("".join(f"{name}\n" for name in members))
    (folder / "scannetv2-labels.combined.tsv").write_text(label_table(count))
    return sum(map(len, names.values()))


def _each(write: Callable, rooms: int, processes: int) -> Iterable[tuple[int, Any]]:
    """(number of the room, what `write` returns for it), in the order in which rooms are done."""
    if min(rooms, processes) > 1:
        return workers.run(write, range(rooms), min(rooms, processes))
    return enumerate(map(write, range(rooms)))


def _write_room(folder: Path, seed: int, tilted: bool, index: int) -> _RoomWritten:
    room, written = make_room(seed, index), _RoomWritten([], Counter(), "")
    for rescan in range(room.scans):
        name = _scan_name(index, rescan)
        scan = _scan(room, index, rescan, seed, tilted)
        write_scan(folder / name, scan, room.kind, chance(keyed(seed, "aligned", index, rescan), 0.7))
        written.categories.update(scan.names[instance] for instance in np.unique(scan.instance) if instance >= 0)
        written.names.append(name)
    return written._replace(kind=room.kind)


def _scan_name(index: int, rescan: int) -> str:
    return f"scene{index:04d}_{rescan:02d}"


def _scan(room: Room, index: int, rescan: int, seed: int, tilted: bool, watcher: Watcher | None = None) -> Capture:
    """A scan of a room: the first as it is, others after things were moved."""
    plan = room.plan if rescan == 0 else rearranged(room.plan, keyed(seed, "rearranged", index, rescan))
    unsteady = keyed(seed, "tilt", index, rescan) if tilted else None
    return scan_room(plan, keyed(seed, "scan", index, rescan), unsteady, watcher)


def _write_frames(folder: Path, rooms: int, seed: int, tilted: bool, processes: int) -> None:
    """The depth images of scans that have none yet, by the same walk again; the digest does not depend on them."""
    folder.mkdir(parents=True, exist_ok=True)
    for _ in _each(functools.partial(_write_frames_of, folder, seed, tilted), rooms, processes):
        pass
    files.write(folder / "gen4d.yaml", DESCRIPTION.encode())


def _write_frames_of(folder: Path, seed: int, tilted: bool, index: int) -> None:
    room = make_room(seed, index)
    for rescan in range(room.scans):
        place, begun = folder / _scan_name(index, rescan), folder / f"{_scan_name(index, rescan)}.tmp"
        if not place.exists():
            shutil.rmtree(begun, ignore_errors=True)
            _scan(room, index, rescan, seed, tilted, FrameWriter(begun))
            begun.rename(place)


def _write_shapes(folder: Path, shapes: int, seed: int) -> None:
    for class_name in SHAPE_STYLES:
        for index in range(shapes):
            path = folder / shape_path(class_name, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(shape_text(seed, class_name, index))


def _write_articulated(folder: Path, shapes: int, seed: int) -> None:
    """What is not there yet; the digest of the samples does not depend on it."""
    for class_name in JOINTED:
        for index in range(shapes):
            for name, content in articulated_files(seed, class_name, index).items():
                path = folder / name
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    files.write(path, content)


def samples_digest(folder: Path) -> str:
    """The SHA-256 over paths and contents of all samples in a folder, to compare with the manifest's."""
    return _contents(Path(folder))[1]


def _contents(folder: Path) -> tuple[dict[str, int], str]:
    """Every sample file's size by its path, and a SHA-256 over paths and contents."""
    size, digest = {}, hashlib.sha256()
    for path in sorted([*folder.glob("scans/**/*"), *folder.glob("shapes/**/*")]):
        if path.is_file():
            name, content = path.relative_to(folder).as_posix(), path.read_bytes()
            size[name] = len(content)
            digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return size, digest.hexdigest()
