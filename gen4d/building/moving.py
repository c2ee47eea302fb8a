"""Sequences of shapes that move through scans (4DContrast, section 3.3), as a build makes them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from gen4d import compiled, sources
from gen4d.building.errors import BuildError
from gen4d.building.inputs import Found, Given, Inputs, Made, refuse_empty
from gen4d.config import Config
from gen4d.lanes import lane
from gen4d.moving import accept, augment, candidates, kernels, shape, trajectory
from gen4d.moving.cloud import CloudError
from gen4d.moving.feasible import Heights, refuse_hopeless, with_heights
from gen4d.moving.generate import Counts, Shapes, generate_scan, group_shapes, prepare_scan
from gen4d.moving.occupancy import TOP_HEAVY, OccupancyError
from gen4d.sequence import ROLE_STATIC, Actor, Sequence

CONFIGS = {"moving": Config}
_SHOWN = 5
UNUSABLE = (sources.SourceError, CloudError, OccupancyError)


def find(kind: str, given: Given, config: Config) -> Found:
    """The scans and shapes of two folders, for a config whose classes say which shapes are wanted."""
    given.check(kind, ("scans", "shapes"), ("split", "up", "units", "shape_units", "limit", "heights"))
    found, meshes = sources.find_scans(given.scans, given.split), sources.find_shapes(given.shapes, config.classes)
    refuse_empty(given.scans, "scans", found)
    refuse_empty(given.shapes, "shapes", meshes)
    up, units = given.up, given.units  # else what --set, or a published config, says
    up = config.up if up is None and config.up != Config.up else up
    units = str(config.metres_per_unit) if units is None and config.metres_per_unit != Config.metres_per_unit else units
    orientation = find_orientation(found.entry, up, units)
    config = dataclasses.replace(config, up=orientation.up, metres_per_unit=orientation.metres_per_unit)
    unit = sources.entry_units(meshes.entry) if given.shape_units is None else given.shape_units
    if unit:
        config = dataclasses.replace(config, shape_metres=sources.parse_units(unit, "--shape-units"))
    inputs = make_inputs(found, meshes, config, given.heights)
    if given.limit:
        inputs = dataclasses.replace(inputs, scans=inputs.scans[: given.limit])
    refused = tuple(message for _, message in (*found.refused, *meshes.refused))
    return Found(inputs, (*found.warnings, *meshes.warnings, *_left_out(given, meshes, config)), refused)


def _left_out(given: Given, meshes: sources.FoundShapes, config: Config) -> tuple[str, ...]:
    """A note of the shapes that do not move, where nobody said which ones should."""
    if not meshes.others or config.classes != Config.classes:
        return ()
    listed = ", ".join(meshes.others[:_SHOWN]) + (", ..." if len(meshes.others) > _SHOWN else "")
    return (f"{given.shapes}: other classes do not move ({listed}): --classes names those that do",)


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
    entries = (sources.entry_of(scans.entry), sources.entry_of(shapes.entry))
    return Inputs(tuple(sorted(scans.sources, key=lambda scan: scan.name)), ordered, config, entries=entries)


def share(inputs: Inputs) -> Shapes:
    """The shapes by class."""
    return group_shapes(inputs.shapes, inputs.config.shape_up)


def load_scan(source: sources.ScanSource, config: Config) -> sources.Scan:
    """A scan as a build reads it. Raises SourceError."""
    return sources.load_scan(source, sources.Orientation(config.up, config.metres_per_unit), config.voxel_m)


def make(source: sources.ScanSource, shapes: Shapes, config: Config) -> Made:
    """A scan read, and its sequences."""
    scan = load_scan(source, config)
    made = generate_scan(scan, shapes, config)
    levelled = {"tilt_deg": round(scan.tilt_deg, 6), "below": round(made.below, 6)}
    if made.top_heavy > TOP_HEAVY:
        levelled["top_heavy"] = round(made.top_heavy, 2)
    described = levelled | _attempts(made.counts) | {"files": [list(file) for file in scan.files]}
    described |= {"doubts": list(scan.doubts)} if scan.doubts else {}
    return Made(made.recording, described, made.files, made.counts.unreadable)


def _attempts(counts: Counts) -> dict:
    """What became of a scan's attempts."""
    return {
        "gaps": list(counts.gaps),
        "attempts": counts.attempts,
        "rejections": counts.reasons,
        "examples": counts.example,
        "drawn": counts.drawn,
        "accepted": counts.accepted,
        "shrunk": counts.shrunk,
        **({"movers": counts.movers} if set(counts.movers) - {"1"} else {}),
        "least_shrink": round(counts.least_shrink, 6),
    }


def probe(source: sources.ScanSource, config: Config) -> None:
    """Read and prepare a scan."""
    prepare_scan(load_scan(source, config), config)


def warm_up(config: Config) -> None:
    """Compile the kernels by a scan of one square of floor."""
    rng = lane(config, "", 0, 0, "warm up")
    point = rng.random((4000, 3)).astype("float32") * [3, 3, 0]
    scan = sources.scan_from_arrays("warm up", point.astype("float32"), None, None, sources.Orientation())
    prepared = prepare_scan(scan, config)
    places = candidates.find_candidates(prepared.space, 0.1)
    trajectory.draw_trajectory(places, config.frames, (0.1, 2.0), 3.0, 50, rng)
    shape.enclosing_circle(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    bits = augment.draw_bits(prepared.quantised, augment.no_chunks(config.frames), config.keep, rng)
    planes = augment.pack_planes(bits, config.frames)
    accept.mask_histogram(bits, config.frames)
    sequence = Sequence("", 0, (Actor(prepared.cloud, ROLE_STATIC, prepared.still, planes),))
    sequence.correspondences(0, 1)
    sequence.frame(0)


def is_cold() -> bool:
    """Whether the kernels have to be compiled first."""
    return compiled.is_cold(kernels.walk)
