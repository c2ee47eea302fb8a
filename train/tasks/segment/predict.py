"""A trained segmenter on any scan that gen4d reads: one points file, or a folder of scans of any layout it knows."""

import contextlib
import json
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from gen4d import files, sources
from train.inputs.labels import NONE, SceneError
from train.inputs.scans import GEOMETRY, LabelledScan, read_scan
from train.inputs.subsets import find_part
from train.tasks.features import file_source
from train.tasks.segment.evaluate import Seeing, predict
from train.tasks.segment.predictions import Writer
from train.tasks.segment.trained import Trained

FORMATS = ("npy", "ply", "png")


class Predicted(NamedTuple):
    """One scan: its name, how many of its points got a class, and what share of them each class has, most first."""

    name: str
    points: int
    shares: dict[str, float]

    def line(self) -> str:
        """For eyes: the five largest."""
        parts = [f"{name} {share:.0%}" for name, share in list(self.shares.items())[:5]]
        return f"{self.name}: {self.points} points; {', '.join(parts)}"


class Source(NamedTuple):
    """A points file with its axis up and its units, or a folder of scans, of a data set a part of it or all."""

    path: pathlib.Path
    up: str = "z"
    units: str = "m"
    part: str | None = None  # None: every scan of the folder
    split: pathlib.Path | None = None


def read_any(source: Source, inputs: Sequence[str] = GEOMETRY) -> Iterator[LabelledScan]:
    """The scans of a source with what a net of `inputs` needs, one by one. Raises SourceError, SceneError."""
    if not source.path.is_dir():
        orientation = sources.Orientation(source.up, sources.parse_units(source.units))
        yield read_scan(file_source(source.path), None, inputs, orientation)
        return
    for scan in _in_folder(source):
        yield read_scan(scan, None, inputs)


def _in_folder(source: Source) -> list[sources.ScanSource]:
    """Scans of the part that is asked for, or of all parts that are there."""
    if source.part or source.split:
        return list(find_part(source.path, source.part or "val", source.split).scans)
    there = sources.find_scans(source.path)
    for _, message in there.refused:
        warnings.warn(f"refused: {message}", stacklevel=2)
    found = {scan.name: scan for scan in there.sources}
    for part in ("train", "val", "test"):
        with contextlib.suppress(SceneError, sources.SourceError):
            found |= {scan.name: scan for scan in find_part(source.path, part).scans}
    if not found:
        raise SceneError(f"{source.path}: all of its scans ({len(there.refused)}) are refused: {there.refused[0][1]}")
    return [found[name] for name in sorted(found)]


def predict_any(
    trained: Trained, source: Source, out: pathlib.Path, device: torch.device, seeing: Seeing
) -> Iterator[Predicted]:
    """Predict scans one by one and write, for each, its classes, a coloured PLY (metres, z up) and a picture.

    <out>/classes.json says which class a number is. Raises SourceError, SceneError, BatchError,
    SegmentError.
    """
    writer = Writer(out, range(len(trained.names)), FORMATS, trained.names)
    model = trained.model.to(device)
    files.make_folder(out)
    files.write(out / "classes.json", (json.dumps({**dict(enumerate(trained.names)), NONE: "none"}) + "\n").encode())
    for scan in read_any(source, seeing.inputs):
        found = predict(model, scan, seeing, device)
        writer.write(scan, found)
        count = np.bincount(found, minlength=len(trained.names))
        order = np.argsort(-count, kind="stable")
        shares = {trained.names[k]: float(count[k] / len(found)) for k in order if count[k]}
        yield Predicted(scan.name, len(found), shares)
