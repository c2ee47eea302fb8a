"""What a build works on: scans, shapes and the config, found, checked and sorted."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

from gen4d import sources
from gen4d.building.errors import BuildError
from gen4d.config import GENERATOR, Config, to_plain
from gen4d.moving.feasible import Heights, refuse_hopeless, with_heights


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a build works on."""

    scans: tuple[sources.ScanSource, ...]
    shapes: tuple[sources.ShapeSource, ...]
    config: Config

    def identity(self) -> dict:
        """What must be equal for a build to be continued. The list of scans is not part of it: more scans extend."""
        listing = "\n".join(f"{shape.class_name}\t{shape.path}\t{shape.size}" for shape in self.shapes)
        shapes = {"files": len(self.shapes), "listing_sha256": hashlib.sha256(listing.encode()).hexdigest()}
        return {"generator": GENERATOR, "config": to_plain(self.config), "shapes": shapes}


@dataclasses.dataclass(frozen=True)
class Found:
    """Inputs, and what was said of the folders: notes, and what is refused, one line each."""

    inputs: Inputs
    notes: tuple[str, ...]
    refused: tuple[str, ...]


def find_inputs(
    scans: pathlib.Path,
    shapes: pathlib.Path,
    config: Config,
    split: pathlib.Path | None = None,
    up: str | None = None,
    units: str | None = None,
    limit: int | None = None,
    heights: Mapping[str, Heights] | None = None,
    shape_units: str | None = None,
) -> Found:
    """The scans and shapes of two folders, for a config whose classes say which shapes are wanted.

    up, units: axis and unit of the scans, where not what datasets_manifest.yaml declares for the data set, shape_units
    the shapes'. limit: only the first scans by name. Raises SourceError, ConfigError, BuildError.
    """
    found, meshes = sources.find_scans(scans, split), sources.find_shapes(shapes, config.classes)
    _refuse_empty(scans, "scans", found)
    _refuse_empty(shapes, "shapes", meshes)
    orientation = find_orientation(found.entry, up, units)
    config = dataclasses.replace(config, up=orientation.up, metres_per_unit=orientation.metres_per_unit)
    unit = sources.entry_units(meshes.entry) if shape_units is None else shape_units
    if unit:
        config = dataclasses.replace(config, shape_metres=sources.parse_units(unit, "--shape-units"))
    inputs = make_inputs(found, meshes, config, heights)
    if limit:
        inputs = dataclasses.replace(inputs, scans=inputs.scans[:limit])
    refused = tuple(message for _, message in (*found.refused, *meshes.refused))
    return Found(inputs, (*found.warnings, *meshes.warnings), refused)


def _refuse_empty(folder: pathlib.Path, what: str, found: sources.FoundScans | sources.FoundShapes) -> None:
    if not found.sources:
        count, first = len(found.refused), found.refused[0][1]
        raise BuildError(f"{folder}: all of its {what} ({count}) are refused (first: {first}): gen4d doctor lists them")


def find_orientation(entry: str, up: str | None, units: str | None) -> sources.Orientation:
    """What the options say, and where they say nothing what the manifest declares for the data set."""
    declared = sources.default_orientation(entry)
    metres = sources.parse_units(units) if units is not None else declared.metres_per_unit
    return sources.Orientation(declared.up if up is None else up, metres)


def make_inputs(
    scans: sources.FoundScans,
    shapes: sources.FoundShapes,
    config: Config,
    heights: Mapping[str, Heights] | None = None,
) -> Inputs:
    """Inputs sorted by name, with the height ranges of the shapes' classes put into the config.

    Raises ConfigError, BuildError or SourceError where a class has no height range, an up axis is not one, or the
    config would reject nearly every sequence.
    """
    sources.up_rotation(sources.split_up(config.up)[0])
    if config.shape_up != "auto":
        try:
            sources.up_rotation(config.shape_up)
        except sources.SourceError as error:
            raise BuildError(f"--shape-up: {error.problem}, or auto") from None
    config = with_heights(config, (shape.class_name for shape in shapes.sources), heights or {})
    refuse_hopeless(config)
    ordered = tuple(sorted(shapes.sources, key=lambda shape: (shape.class_name, shape.path)))
    return Inputs(tuple(sorted(scans.sources, key=lambda scan: scan.name)), ordered, config)
