"""Labelled scans from shards that `gen4d-train prepare scans` wrote, as if they were read from their raw files."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gen4d import Dataset, open_dataset, sources
from gen4d.shards.manifest import read_sidecar
from train.inputs.labels import SceneError


@dataclass(frozen=True, eq=False)
class PreparedSource:
    """One scan in a data set of scans. about: what its shard's .json says of it. It has what messages say of any
    source: `root` and `files`, the shard in place of the files that it is made from."""

    name: str
    dataset: Dataset
    shard: str
    about: Mapping

    @property
    def root(self) -> pathlib.Path:
        return self.dataset.folder

    @property
    def files(self) -> dict[str, str]:
        return {"points": f"shards/{self.shard}"}

    def load(self) -> sources.Scan:
        """The scan as `gen4d.sources.load_scan` gave it. Raises FormatError where the shard is damaged."""
        stored = self.dataset.scan(self.name)
        cloud, none = stored.cloud, np.full(len(stored.cloud), -1, np.int32)
        columns = {"label": cloud.label, "instance": cloud.instance}
        has = {"label": self.about["labels"], "instance": self.about["instances"]}
        columns = {name: (none if rows is None else rows) if has[name] else None for name, rows in columns.items()}
        return sources.Scan(
            name=self.name,
            point=cloud.point,
            row=cloud.vertex,
            label_space=stored.label_space,
            transform=stored.transform,
            axis_alignment=stored.axis_alignment,
            dropped=stored.dropped,
            files=tuple(sources.SourceFile(*file) for file in self.about["files"]),
            **columns,
        )


def is_prepared(folder: pathlib.Path) -> bool:
    """Whether a folder holds what `prepare scans` wrote, finished or not."""
    return any((place / "build.json").is_file() for place in (folder, *(folder / p for p in ("train", "val", "test"))))


def find_prepared(folder: pathlib.Path, part: str) -> tuple[tuple[PreparedSource, ...], str]:
    """The scans of a part, sorted by name, and the data set that they are of. Raises FormatError, SceneError."""
    place = folder if (folder / "build.json").is_file() else folder / part
    if not (place / "build.json").is_file():
        raise SceneError(f"{folder}: the part {part!r} was not prepared: run gen4d-train prepare scans where it is")
    dataset = open_dataset(place)
    if dataset.manifest.get("kind") != "scans":
        raise SceneError(f"{place}: holds sequences, not scans: give the folder of gen4d-train prepare scans")
    found = []
    for number, shard in enumerate(dataset.manifest["shards"]):
        of = {scan["name"]: scan for scan in read_sidecar(dataset.home, number)["scans"]}
        found += [PreparedSource(name, dataset, shard["file"], of[name]) for name, _ in shard["scans"]]
    return tuple(sorted(found, key=lambda source: source.name)), dataset.config["entry"]
