"""Labelled scans as they are, without sequences: read once, then kept in shards for those who learn from labels."""

import dataclasses

from gen4d import sources
from gen4d.building.errors import BuildError
from gen4d.building.inputs import Found, Given, Inputs, Made, refuse_empty
from gen4d.config import ScansConfig
from gen4d.sequence import Cloud, Recording

CONFIGS = {"scans": ScansConfig}
UNUSABLE = (sources.SourceError,)


def find(kind: str, given: Given, config: ScansConfig) -> Found:
    """The scans of a folder."""
    given.check(kind, ("scans",), ("split", "limit"))
    found = sources.find_scans(given.scans, given.split)
    refuse_empty(given.scans, "scans", found)
    if "boxes" in found.sources[0].files:
        raise BuildError(f"{given.scans}: was prepared already, boxes lie beside its points: learn from it as it is")
    orientation = sources.default_orientation(found.entry)
    config = dataclasses.replace(
        config, entry=found.entry, up=orientation.up, metres_per_unit=orientation.metres_per_unit
    )
    inputs = Inputs(found.sources[: given.limit], (), config, kind)
    return Found(inputs, found.warnings, tuple(message for _, message in found.refused))


def share(inputs: Inputs) -> None:
    """Nothing: a scan is what its files say."""


def make(source: sources.ScanSource, shared: None, config: ScansConfig) -> Made:
    """A scan with all points that are finite, in the order of its file. `labels` and `instances` in what is described:
    whether it has any, even if all say that there is none."""
    scan = sources.load_scan(source, sources.Orientation(config.up, config.metres_per_unit))
    recording = Recording(
        name=scan.name,
        sequences=(),
        cloud=Cloud(scan.point, scan.row, scan.label, scan.instance),
        label_space=scan.label_space,
        transform=scan.transform,
        axis_alignment=scan.axis_alignment,
        source_points=len(scan.point),
        dropped=scan.dropped,
    )
    has = {"labels": scan.label is not None, "instances": scan.instance is not None}
    return Made(recording, {"files": [list(file) for file in scan.files]} | has)


def probe(source: sources.ScanSource, config: ScansConfig) -> None:
    """Make it: to know takes as long."""
    make(source, None, config)


def warm_up(config: ScansConfig) -> None:
    """No kernel is needed."""


def is_cold() -> bool:
    """Whether the kernels have to be compiled first: there are none."""
    return False
