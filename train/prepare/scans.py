"""Labelled scans read once and kept in shards, a data set for each part: what `gen4d build` does, without sequences."""

import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import gen4d
from train.inputs.labels import SceneError
from train.inputs.subsets import place_of

PARTS = ("train", "val", "test")


class PreparedPart(NamedTuple):
    """A part that was prepared: its folder, how many scans and shards it has, and a line for each that was refused."""

    part: str
    folder: pathlib.Path
    scans: int
    shards: int
    refused: tuple[str, ...]


def prepare(
    folder: pathlib.Path,
    out: pathlib.Path,
    workers: int = 1,
    note: Callable[[str], object] = lambda line: None,
    progress: Callable[[str, gen4d.Progress], object] = lambda part, state: None,
) -> Iterator[PreparedPart]:
    """Prepare the parts of a data set that are there: `out`/train and so on. The same call goes on where it stopped.

    Raises SceneError where there is none, or where `out` is the folder itself, SourceError, BuildError, BusyError.
    """
    if out.resolve() == folder.resolve():
        raise SceneError(f"{out}: --out is the folder of the scans themselves: give another one")
    places, missing = {}, None
    for part in PARTS:
        try:
            places[part] = place_of(folder, part)
        except SceneError as error:
            missing = missing or error
    if not places:
        raise missing
    for part, (place, split) in places.items():
        built = gen4d.build_dataset(
            place,
            out=out / part,
            kind="scans",
            split=split,
            workers=workers,
            note=note,
            progress=lambda state, part=part: progress(part, state),
        )
        yield PreparedPart(part, out / part, built.manifest["totals"]["scans"], built.shards, built.refused)
