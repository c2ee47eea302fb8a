"""Which scans, and which of their labels, are used: parts of a data set, rooms apart, shares of rooms, limited points.

A split is by room: several scans of one room never lie on both sides, nor does a subset cut a room in two.
"""

import hashlib
import pathlib
import pickle
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from gen4d import sources
from gen4d.sources.manifest import entry_of, recognise
from gen4d.sources.splits import find_listed, read_split
from train.errors import reason
from train.inputs.labels import NONE, SceneError
from train.inputs.prepared import PreparedSource, find_prepared, is_prepared
from train.inputs.scans import LabelledScan

PERCENT_LISTS = ("tasks/scenes/{percent}.txt", "scenes/{percent}.txt", "limited-reconstruction-scenes/{percent}.txt")

_RESCAN = re.compile(r"(scene\d{4,})_\d{2}")


class Part(NamedTuple):
    """Scans of one side of a split, and what the user should know."""

    scans: tuple[sources.ScanSource | PreparedSource, ...]
    entry: str
    warnings: tuple[str, ...]


def find_part(data: pathlib.Path, part: str, split: pathlib.Path | None = None, option: str = "--split") -> Part:
    """The scans of `data` that a list file names, or those of the data set's own part `train`, `val` or `test`. split:
    the list, or a part by the name that its folder has. option: by which the user gives it.

    Raises SceneError where there is no such part, SourceError for bad folders and lists, FormatError.
    """
    if is_prepared(data):
        found, entry = find_prepared(data, part)
        kept = found if split is None else _only(found, split)
        return Part(kept, entry, ())
    return _part(sources.find_scans(*place_of(data, part, split, option)))


def place_of(
    data: pathlib.Path, part: str, split: pathlib.Path | None = None, option: str = "--split"
) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Folder and list file of a part of a data set's own files, as for `find_part`."""
    entry, hits = recognise(data, "scans")
    if split is None and part in entry.splits:
        lists = [data / place / entry.splits[part].file for place in entry.places]
        split = next((path for path in lists if path.is_file()), None)
    if split is not None:
        return data, split
    if (data / part).is_dir():
        return data / part, None
    wanted = f"no {entry.splits[part].file}" if part in entry.splits else f"no list of the part {part!r}"
    parts = ", ".join(sorted({hit.groups["part"] for hit in hits if "part" in hit.groups}))
    or_part = f", or one of its parts ({parts})" if parts else ""
    raise SceneError(f"{data}: {wanted} beside the scans: give a file with one name per line by {option}{or_part}")


def _only(found: tuple[PreparedSource, ...], split: pathlib.Path) -> tuple[PreparedSource, ...]:
    names = set(_listed(split, [source.name for source in found]))
    return tuple(source for source in found if source.name in names)


def _part(found: sources.FoundScans) -> Part:
    if found.refused:
        raise SceneError(found.refused[0][1])
    return Part(found.sources, found.entry, found.warnings)


def room_of(name: str) -> str:
    """The room of a scan: ScanNet counts scans of one room after an underscore, elsewhere each scan is a room."""
    rescan = _RESCAN.fullmatch(name)
    return rescan[1] if rescan else name


def check_apart(train: Sequence[str], val: Sequence[str]) -> None:
    """Raises SceneError where a room has scans on both sides."""
    both = sorted({room_of(name) for name in train} & {room_of(name) for name in val})
    if both:
        raise SceneError(
            f"{len(both)} room{'s are' if len(both) > 1 else ' is'} in both the training and the validation list "
            f"(first: {both[0]}): the net would be validated on what it learned; take their scans out of one list"
        )


def warn_of_seen(validated: Sequence[str], seen: Sequence[str], how: str) -> None:
    """Warns in one line where scans that are validated on, or others of their rooms, were seen before.

    how: what was done with them, for the line.
    """
    scans, rooms = set(seen), {room_of(name) for name in seen}
    same = [name for name in validated if name in scans]
    room = [name for name in validated if name not in scans and room_of(name) in rooms]
    if same or room:
        counts = [f"{len(same)} themselves"] * bool(same) + [f"{len(room)} as another scan of the room"] * bool(room)
        warnings.warn(
            f"{len(same) + len(room)} of {len(validated)} validation scans were {how} ({', '.join(counts)}; first: "
            f"{(same or room)[0]}): the score will be too high; take their rooms out of one side",
            stacklevel=3,
        )


class Subset(NamedTuple):
    """Names of the scans whose labels are used, and where the choice comes from."""

    names: tuple[str, ...]
    origin: str


def choose_subset(data: pathlib.Path, entry: str, names: Sequence[str], percent: float, seed: int) -> Subset:
    """`percent` of the training scans: the benchmark's list where the user has it, else whole rooms drawn by a seed.

    Raises SceneError where a benchmark list names none of `names`.
    """
    if percent == 100:
        return Subset(tuple(names), "all training scans")
    for place in entry_of(entry).places:
        for template in PERCENT_LISTS:
            path = data / place / template.format(percent=f"{percent:g}")
            if path.is_file():
                return Subset(_listed(path, names), str(path))
    chosen = nested_rooms({room_of(name) for name in names}, percent, seed)
    kept = tuple(name for name in names if room_of(name) in chosen)
    return Subset(kept, f"{len(chosen)} rooms, {percent:g} % drawn with seed {seed}")


def _listed(path: pathlib.Path, names: Sequence[str]) -> tuple[str, ...]:
    wanted = set(find_listed(read_split(path), ((name, name) for name in names)).values())
    kept = tuple(name for name in names if name in wanted)
    if not kept:
        raise SceneError(f"{path}: names none of the {len(names)} scans (first: {names[0]}): replace the list")
    return kept


def nested_rooms(rooms: set[str], percent: float, seed: int) -> set[str]:
    """`percent` of the rooms, at least one. Smaller shares lie in larger ones; a room's place depends on the seed and
    its own name alone, so that further rooms leave the order of the others as it is."""
    ordered = sorted(rooms, key=lambda room: hashlib.sha256(f"{seed} {room}".encode()).digest())
    return set(ordered[: max(1, round(len(ordered) * percent / 100))])


# Limited annotation --------------------------------------------------------------------------------------------------


def read_limited_points(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Scan name -> rows of its points file that are labelled, as the data-efficient benchmark's files hold them.

    Nothing but numbers in lists, arrays and tensors is unpickled. Raises SceneError.
    """
    stored = _read_table(path, "points", "points20 to points200", "rows")
    return {name: _rows(path, name, rows) for name, rows in stored.items()}


class LimitedBoxes(NamedTuple):
    """Of a scan as VoteNet prepares it: rows of its file of boxes, and ids of the instances in them."""

    row: np.ndarray
    instance: np.ndarray


def read_limited_boxes(path: pathlib.Path) -> dict[str, LimitedBoxes]:
    """Scan name -> the boxes that are labelled, as the data-efficient benchmark's files hold them: two lists a scan.
    Raises SceneError."""
    stored = _read_table(path, "boxes", "bbox_list", "rows of boxes and ids of instances")
    if odd := next(
        (name for name, pair in stored.items() if not isinstance(pair, (list, tuple)) or len(pair) != 2), None
    ):
        raise SceneError(f"{path}: {odd} has no two lists, of boxes and of instances: take the benchmark's file")
    return {name: LimitedBoxes(*(_rows(path, name, rows) for rows in pair)) for name, pair in stored.items()}


def _read_table(path: pathlib.Path, what: str, files: str, values: str) -> dict:
    """A file of limited `what` by names of scans. Raises SceneError."""
    try:
        with torch.serialization.safe_globals(_numbers()):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        text = f"{path}: no file of limited {what} ({reason(error)}): take the benchmark's {files}"
        raise SceneError(text) from None
    if not isinstance(stored, dict) or not all(isinstance(name, str) for name in stored):
        raise SceneError(
            f"{path}: holds a {type(stored).__name__}, not scan names with {values}: take the benchmark's file"
        )
    return stored


def _numbers() -> list:
    """What an array of whole numbers is pickled as, by numpy 1 and by numpy 2."""
    multiarray = np._core.multiarray
    empty = [(bytes, f"{module}.bytes") for module in ("builtins", "__builtin__")]  # what no numbers are pickled as
    found = [
        *empty,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in (np.int64, np.int32, np.uint64, np.uint32)),
    ]
    for name in ("_reconstruct", "scalar"):
        found += [(getattr(multiarray, name), f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")]
    return found


def _rows(path: pathlib.Path, name: str, rows) -> np.ndarray:
    array = np.asarray(rows)
    if array.ndim != 1 or (len(array) and (array.dtype.kind not in "iu" or array.min() < 0)):
        raise SceneError(f"{path}: {name} has no list of rows from 0 on: take the benchmark's file")
    return array.astype(np.int64)


def limit(scans: Sequence[LabelledScan], kept: dict[str, np.ndarray], path: pathlib.Path) -> list[LabelledScan]:
    """The scans with labels and instances on the kept rows of their points files alone. Raises SceneError where a scan
    is missing."""
    limited = []
    for scan in scans:
        if scan.name not in kept:
            raise SceneError(f"{path}: says nothing of {scan.name}: take the file of these scans, or shorten the list")
        rows = kept[scan.name]
        if len(rows) and rows.max() >= scan.rows:
            raise SceneError(
                f"{path}: names row {rows.max()} of {scan.name}, which has {scan.rows}: take the file of these scans"
            )
        inside = np.isin(scan.row, rows)
        instance = None if scan.instance is None else np.where(inside, scan.instance, np.int32(-1))
        limited.append(scan._replace(label=np.where(inside, scan.label, np.int16(NONE)), instance=instance))
    return limited


def limit_boxes(scans: Sequence[LabelledScan], kept: dict[str, LimitedBoxes], path: pathlib.Path) -> list[LabelledScan]:
    """The scans with the kept boxes alone: points of other instances have no class and belong to none. Scans that the
    file does not name keep all of theirs, as in the benchmark's code, with a warning.

    Ids are those of VoteNet's preparation, which numbers ScanNet's objects from 1; where boxes are made from instances
    of raw files, which count from 0, these are moved by one. Raises SceneError for boxes that are not there."""
    limited = []
    for scan in scans:
        if scan.instance is None or scan.name not in kept:
            limited.append(scan)
            continue
        chosen, box = kept[scan.name], scan.box
        if box is not None:
            if len(chosen.row) and chosen.row.max() >= len(box):
                raise SceneError(
                    f"{path}: names box {chosen.row.max()} of {scan.name}, which has {len(box)}: take the file of "
                    "these scans"
                )
            box = box[chosen.row]
        inside = np.isin(scan.instance, chosen.instance if box is not None else chosen.instance - 1)
        if len(chosen.instance) and not inside.any():
            raise SceneError(f"{path}: no point of {scan.name} is of its instances: take the file of these scans")
        label = np.where(inside, scan.label, np.int16(NONE))
        limited.append(scan._replace(label=label, instance=np.where(inside, scan.instance, np.int32(-1)), box=box))
    whole = [scan.name for scan in scans if scan.name not in kept]
    if whole:
        warnings.warn(
            f"{path}: {len(whole)} of {len(scans)} training scans are not in it and keep all their boxes (first: "
            f"{whole[0]}): take the file of these scans if that is not meant",
            stacklevel=3,
        )
    return limited
