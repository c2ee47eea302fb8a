"""What a downstream task learns from and is validated on: labelled scans of two sides of a split, rooms apart."""

import functools
import hashlib
import pathlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gen4d import files
from train.config import check
from train.inputs.labels import LabelTable, table_of
from train.inputs.scans import GEOMETRY, LabelledScan, read_scans
from train.inputs.subsets import (
    check_apart,
    choose_subset,
    find_part,
    limit,
    limit_boxes,
    read_limited_boxes,
    read_limited_points,
)


@dataclass(frozen=True)
class LabelUse:
    """Which labels are learned from."""

    label_space: str = "auto"  # of the scans; auto: what datasets_manifest.yaml says of their data set
    percent: float = 100.0  # of the training scans whose labels are used, by room
    subset_seed: int = 0  # of the rooms, where the benchmark's own list is not there

    def __post_init__(self):
        rules = [
            ("percent", 0 < self.percent <= 100, "above 0, and 100 at most"),
            ("subset_seed", self.subset_seed >= 0, "a whole number from 0 on"),
        ]
        check(self, rules)


class Places(NamedTuple):
    """What the user gives: the folder of scans, list files or None, and files of limited points or boxes or None."""

    data: pathlib.Path
    split: pathlib.Path | None = None
    val_split: pathlib.Path | None = None
    points: pathlib.Path | None = None
    boxes: pathlib.Path | None = None


class LabelledData(NamedTuple):
    """Scans to learn from and to validate on. origin: of the choice of training scans; points: digest of a file of
    limited points or boxes, or empty."""

    table: LabelTable
    train: Sequence[LabelledScan]
    val: Sequence[LabelledScan]
    origin: str = ""
    points: str = ""


def read_labelled(
    places: Places,
    use: LabelUse,
    workers: int,
    say: Callable[[str], None],
    inputs: Sequence[str] = GEOMETRY,
    first: tuple[int | None, int | None] = (None, None),
) -> LabelledData:
    """Read the scans of both sides, with what a net of `inputs` needs; of each side only the first so many, if said.

    Raises SourceError, SceneError."""
    train, val = (
        find_part(places.data, "train", places.split),
        find_part(places.data, "val", places.val_split, "--val-split"),
    )
    for warning in (*train.warnings, *val.warnings):
        warnings.warn(warning, stacklevel=2)
    table = table_of(train.entry, use.label_space)
    names = [source.name for source in train.scans]
    subset = choose_subset(places.data, train.entry, names, use.percent, use.subset_seed)
    check_apart(subset.names, [source.name for source in val.scans])
    kept, asked = [source for source in train.scans if source.name in set(subset.names)], val.scans
    kept, asked = kept[: first[0]], asked[: first[1]]
    say(f"labels of {len(kept)} of {len(names)} training scans: {subset.origin}; {len(asked)} scans to validate on")
    seen = functools.partial(_say_progress, say)
    scans = read_scans(kept, table, workers, seen, inputs)
    digest = ""
    if places.points:
        scans = limit(scans, read_limited_points(places.points), places.points)
        digest = files.sha256(places.points)
    if places.boxes:
        scans = limit_boxes(scans, read_limited_boxes(places.boxes), places.boxes)
        digest += files.sha256(places.boxes)
    validated = read_scans(asked, table, workers, seen, inputs)
    return LabelledData(table, scans, validated, subset.origin, digest)


def _say_progress(say: Callable[[str], None], done: int, total: int) -> None:
    """A line every hundred scans: reading ScanNet takes minutes."""
    if done % 100 == 0:
        say(f"read {done} of {total} scans")


def scans_digest(scans: Sequence[LabelledScan]) -> str:
    """SHA-256 over the names of scans and what was read of them."""
    text = "".join(f"{scan.name} {scan.digest}\n" for scan in scans)
    return hashlib.sha256(text.encode()).hexdigest()
