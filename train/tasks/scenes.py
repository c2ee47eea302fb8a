"""Labelled scans for downstream tasks: found and read by `gen4d.sources`, their labels as classes of a benchmark.

Which ids are classes, which mean nothing and what they are called is data: `label_spaces` in datasets_manifest.yaml.
A split is by room: several scans of one room never lie on both sides, nor does a subset cut a room in two.
"""

import hashlib
import pathlib
import pickle
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from gen4d import sources
from gen4d.sources.manifest import entry_of, manifest, recognise
from gen4d.sources.splits import read_split
from train.metrics import NONE

PERCENT_LISTS = ("tasks/scenes/{percent}.txt", "scenes/{percent}.txt", "limited-reconstruction-scenes/{percent}.txt")

_RESCAN = re.compile(r"(scene\d{4,})_\d{2}")


class SceneError(ValueError):
    """Labelled scans that cannot be used; the message names the scan, what is wrong and what to do."""


# Labels --------------------------------------------------------------------------------------------------------------


class LabelTable(NamedTuple):
    """The classes of a label space's benchmark. names, ids (K,): of class 0, 1, ..; known: every id that may occur."""

    space: str
    names: tuple[str, ...]
    ids: tuple[int, ...]
    known: frozenset[int]

    def classes_of(self, label: np.ndarray) -> np.ndarray:
        """Ids (N,) as classes (N,) int16; NONE for ids outside the benchmark. Raises SceneError for unknown ids."""
        ids, inverse = np.unique(label, return_inverse=True)
        odd = [int(i) for i in ids if int(i) not in self.known]
        if odd:
            number = int((label == odd[0]).sum())
            raise SceneError(
                f"has the label {odd[0]} on {number} of {len(label)} points, which {self.space} does not know: repair "
                f"the labels, name the right table by --set label_space=..., or list {odd[0]} under `ignore` of "
                f"{self.space} in datasets_manifest.yaml"
            )
        number_of = {source: number for number, source in enumerate(self.ids)}
        return np.array([number_of.get(int(i), NONE) for i in ids], np.int16)[inverse]


def label_table(space: str) -> LabelTable:
    """The table of a label space of the manifest. Raises SceneError."""
    spaces = manifest().label_spaces
    if space not in spaces:
        known = ", ".join(spaces)
        raise SceneError(f"label space {space or 'of these scans'!r} is unknown: --set label_space= one of {known}")
    found = spaces[space]
    names = tuple(found.names[i] for i in found.benchmark)
    return LabelTable(space, names, found.benchmark, frozenset(found.names) | frozenset(found.ignore))


def benchmark_ids(names: Sequence[str], table: LabelTable) -> tuple[int, ...]:
    """The id that a benchmark's result files hold for each class: ScanNet's are nyu40's, whatever the scans hold."""
    nyu40 = {name: number for number, name in manifest().label_spaces["nyu40"].names.items()}
    return tuple(nyu40[name] for name in names) if all(name in nyu40 for name in names) else table.ids


# Which scans ---------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """Scans of one side of a split, and what the user should know."""

    scans: tuple[sources.ScanSource, ...]
    entry: str
    warnings: tuple[str, ...]


def find_part(data: pathlib.Path, part: str, split: pathlib.Path | None = None) -> Part:
    """The scans of `data` that a list file names, or those of the data set's own part `train`, `val` or `test`.

    Raises SceneError where there is no such part, SourceError for bad folders and lists.
    """
    entry, _ = recognise(data, shapes=False)
    if split is None and part in entry.splits:
        lists = [data / place / entry.splits[part].file for place in entry.places]
        split = next((path for path in lists if path.is_file()), None)
    if split is not None:
        return _part(sources.find_scans(data, split))
    if (data / part).is_dir():
        return _part(sources.find_scans(data / part))
    option = "--split" if part == "train" else "--val-split (evaluate: --split)"
    wanted = f"no {entry.splits[part].file}" if part in entry.splits else f"no list of the part {part!r}"
    raise SceneError(f"{data}: {wanted} beside the scans: give a file with one name a line to {option}")


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
            f"{len(both)} rooms are in the training and in the validation list (first: {both[0]}): a result would "
            "be of rooms that were learned; take their scans out of one list"
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
    wanted = set(read_split(path))
    kept = tuple(name for name in names if name in wanted)
    if not kept:
        raise SceneError(f"{path}: names none of the {len(names)} training scans (first: {names[0]}): replace the list")
    return kept


def nested_rooms(rooms: set[str], percent: float, seed: int) -> set[str]:
    """`percent` of the rooms, at least one. Smaller shares lie in larger ones; a room's place depends on the seed and
    its own name alone, so that further rooms leave the order of the others as it is."""
    ordered = sorted(rooms, key=lambda room: hashlib.sha256(f"{seed} {room}".encode()).digest())
    return set(ordered[: max(1, round(len(ordered) * percent / 100))])


# Reading -------------------------------------------------------------------------------------------------------------


class LabelledScan(NamedTuple):
    """A scan in metres, z up. point (N, 3) float32 finite; label (N,) int16 class or NONE, None where there are none;
    row (N,) int32 of the points file, which has `rows` rows; digest of all files that were read."""

    name: str
    point: np.ndarray
    label: np.ndarray | None
    row: np.ndarray
    rows: int
    digest: str


def read_scan(source: sources.ScanSource, table: LabelTable | None) -> LabelledScan:
    """Read a scan and its labels as classes of `table`; None leaves labels out. Raises SourceError, SceneError."""
    scan = sources.load_scan(source, sources.default_orientation(source.entry))
    label = None if table is None else _labels(source, scan, table)
    seen = "".join(f"{file.path} {file.sha256}\n" for file in scan.files)
    rows = len(scan.row) + scan.dropped
    return LabelledScan(scan.name, scan.point, label, scan.row, rows, hashlib.sha256(seen.encode()).hexdigest())


def _labels(source: sources.ScanSource, scan: sources.Scan, table: LabelTable) -> np.ndarray:
    place = source.root / source.files.get("labels", source.files["points"])
    if scan.label is None:
        raise SceneError(
            f"{place}: scan {scan.name} has no labels (files: {', '.join(sorted(source.files))}): download its labels, "
            "or take it out of the list"
        )
    try:
        return table.classes_of(scan.label)
    except SceneError as error:
        raise SceneError(f"{place}: {error}") from None


def read_scans(
    found: Sequence[sources.ScanSource],
    table: LabelTable | None,
    workers: int,
    seen: Callable[[int, int], None] | None = None,
) -> list[LabelledScan]:
    """All scans, in their order, read by threads; seen(n, all) is called whenever one more is there.

    Raises what `read_scan` raises, and SceneError where there is none, or none with a point that has a class.
    """
    if not found:
        raise SceneError("no scan is left in the list: give another list, or a larger share")
    scans = []
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        for scan in pool.map(lambda source: read_scan(source, table), found):
            scans.append(scan)
            if seen:
                seen(len(scans), len(found))
    finally:
        pool.shutdown(cancel_futures=True)
    if table is not None and not any((scan.label != NONE).any() for scan in scans):
        raise SceneError(f"no point of {len(scans)} scans (first: {scans[0].name}) has a class: give labelled scans")
    return scans


def table_of(entry: str, label_space: str) -> LabelTable:
    """The label table of a data set: its own, or the one that the user names instead of `auto`."""
    return label_table(entry_of(entry).label_space if label_space == "auto" else label_space)


# Limited annotation --------------------------------------------------------------------------------------------------


def read_limited_points(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Scan name -> rows of its points file that are labelled, as the data-efficient benchmark's files hold them.

    Nothing but numbers in lists, arrays and tensors is unpickled. Raises SceneError.
    """
    try:
        with torch.serialization.safe_globals(_numbers()):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        text = f"{path}: no file of limited points ({first}): take the benchmark's points20 to points200"
        raise SceneError(text) from None
    if not isinstance(stored, dict) or not all(isinstance(name, str) for name in stored):
        raise SceneError(
            f"{path}: holds a {type(stored).__name__}, not scan names with rows: take the benchmark's file"
        )
    return {name: _rows(path, name, rows) for name, rows in stored.items()}


def _numbers() -> list:
    """What an array of whole numbers is pickled as, by numpy 1 and by numpy 2."""
    multiarray = np._core.multiarray
    found = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in (np.int64, np.int32, np.uint64, np.uint32))]
    for name in ("_reconstruct", "scalar"):
        found += [(getattr(multiarray, name), f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")]
    return found


def _rows(path: pathlib.Path, name: str, rows) -> np.ndarray:
    array = np.asarray(rows)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (len(array) and array.min() < 0):
        raise SceneError(f"{path}: {name} has no list of rows from 0 on: take the benchmark's file")
    return array.astype(np.int64)


def limit(scans: Sequence[LabelledScan], kept: dict[str, np.ndarray], path: pathlib.Path) -> list[LabelledScan]:
    """The scans with labels on the kept rows of their points files alone. Raises SceneError where a scan is missing."""
    limited = []
    for scan in scans:
        if scan.name not in kept:
            raise SceneError(f"{path}: says nothing of {scan.name}: take the file of these scans, or shorten the list")
        rows = kept[scan.name]
        if len(rows) and rows.max() >= scan.rows:
            raise SceneError(
                f"{path}: names row {rows.max()} of {scan.name}, which has {scan.rows}: take the file of these scans"
            )
        limited.append(scan._replace(label=np.where(np.isin(scan.row, rows), scan.label, np.int16(NONE))))
    return limited
