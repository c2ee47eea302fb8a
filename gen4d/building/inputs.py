"""What goes into a build, whatever the kind of its sequences, and what comes out of each source."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from gen4d import sources
from gen4d.building.errors import BuildError, GivenError
from gen4d.config import GENERATOR, AnyConfig, to_plain
from gen4d.moving.feasible import Heights
from gen4d.sequence import Recording
from gen4d.shards.manifest import ORIGIN
from gen4d.sources.entries import Entry


class Source(Protocol):
    """What becomes one recording: a scan, the frames or sweeps of a scan, or a shape. Its name is its key: of its
    place in the plan, and of its draws."""

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> pathlib.Path:
        """The folder given by the user."""

    @property
    def path(self) -> str:
        """Its file, or folder, below `root`."""

    @property
    def size(self) -> int:
        """Bytes of its first file: another number means that it has changed since it was built."""


@dataclasses.dataclass(frozen=True)
class Given:
    """The folders of a build and what its options say of them; None where they say nothing."""

    scans: pathlib.Path | None = None
    shapes: pathlib.Path | None = None
    split: pathlib.Path | None = None
    up: str | None = None
    units: str | None = None
    shape_units: str | None = None
    limit: int | None = None
    heights: Mapping[str, Heights] | None = None

    def check(self, kind: str, needs: tuple[str, ...], takes: tuple[str, ...]) -> None:
        """Raise GivenError where a folder that sequences of a kind are made from is missing, or something is given that
        they are not made with."""
        for name, value in vars(self).items():
            option = f"--{name.replace('_', '-')}"
            if name in needs and value is None:
                folders = " and ".join(f"--{one}" for one in needs)
                raise GivenError(f"missing {option}: sequences of kind {kind} are made from {folders}")
            if value is not None and name not in (*needs, *takes):
                raise GivenError(f"{option} {value}: sequences of kind {kind} take none: leave it out")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a build works on: sources sorted by name (`scans`, in words, counts and tables), and the shapes that move
    through them, none for other kinds than `moving`. entries: the data sets that the folders were recognised as. plan:
    names of the scans of each shard, where they are not to be cut from the sorted names."""

    scans: tuple[Source, ...]
    shapes: tuple[sources.ShapeSource, ...]
    config: AnyConfig
    kind: str = "moving"
    entries: tuple[Entry, ...] = ()
    plan: tuple[tuple[str, ...], ...] = ()

    def identity(self) -> dict:
        """What must be equal for a build to be continued. The list of scans is not part of it: more scans extend.

        A build without `kind` is of moving sequences, as all were once.
        """
        listing = "\n".join(f"{shape.class_name}\t{shape.path}\t{shape.size}" for shape in self.shapes)
        shapes = {"files": len(self.shapes), "listing_sha256": hashlib.sha256(listing.encode()).hexdigest()}
        same = {"generator": GENERATOR, "config": to_plain(self.config), "shapes": shapes}
        return same if self.kind == "moving" else same | {"kind": self.kind}

    def origins(self) -> list[dict[str, str]]:
        """What the data set says of those it was made from."""
        return [{name: getattr(entry, name) for name in ORIGIN} for entry in self.entries]


@dataclasses.dataclass(frozen=True)
class Found:
    """Inputs, and what was said of the folders: notes, and what is refused, one line each."""

    inputs: Inputs
    notes: tuple[str, ...]
    refused: tuple[str, ...]


def refuse_empty(folder: pathlib.Path, what: str, found: sources.FoundScans | sources.FoundShapes) -> None:
    """Raise BuildError where all scans, or shapes, of a folder were refused."""
    if not found.sources:
        count, first = len(found.refused), found.refused[0][1]
        raise BuildError(f"{folder}: all of its {what} ({count}) are refused (first: {first}): gen4d doctor lists them")


class Made(NamedTuple):
    """What a source gave: its recording, and what the shard's .json says besides. `described` holds at least `files`,
    the (name, size, SHA-256) of what was read, and, where attempts or frames were rejected, `attempts`, `rejections`,
    `examples` and `gaps`."""

    recording: Recording
    described: dict[str, Any]
    shapes: tuple[sources.SourceFile, ...] = ()  # files that were drawn from
    unreadable: tuple[str, ...] = ()  # those that could not be used
