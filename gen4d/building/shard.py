"""One shard's work: its scans read, generated, written, and described."""

import hashlib
import math
import pathlib
from typing import NamedTuple

import numpy as np

from gen4d import files, sources
from gen4d.building.errors import BuildError
from gen4d.config import Config, to_plain
from gen4d.moving.cloud import CloudError
from gen4d.moving.generate import Counts, Shapes, generate_scan
from gen4d.moving.occupancy import TOP_HEAVY, OccupancyError
from gen4d.sequence import FloorPlan, Recording
from gen4d.shards.format import FORMAT, VERSION, seal
from gen4d.shards.manifest import brief, shard_path, sidecar_path
from gen4d.shards.zarr_writer import shard_bytes

UNUSABLE = (sources.SourceError, CloudError, OccupancyError)  # what makes a scan one that cannot be used


class Job(NamedTuple):
    """One shard's work."""

    out: pathlib.Path
    number: int
    scans: tuple[sources.ScanSource, ...]
    shapes: Shapes
    config: Config
    strict: bool


def load_scan(source: sources.ScanSource, config: Config) -> sources.Scan:
    """A scan as a build reads it. Raises SourceError."""
    return sources.load_scan(source, sources.Orientation(config.up, config.metres_per_unit))


def build_shard(job: Job) -> dict:
    """Generate, write and describe one shard; returns what is kept of its .json, and the hash of that. A scan that
    cannot be used is recorded; the others go on.

    Raises OSError where the shard cannot be written and, if the job is strict, BuildError at the first bad scan.
    """
    recordings, described, failed, shapes, unreadable = [], [], [], {}, set()
    for source in job.scans:
        try:
            scan = load_scan(source, job.config)
            made = generate_scan(scan, job.shapes, job.config)
        except UNUSABLE as error:
            message = describe_error(source, error)
            if job.strict:
                raise BuildError(f"{source.root}/{message}") from None
            failed.append({"name": source.name, "error": message})
            continue
        recordings.append(made.recording)
        levelled = {"tilt_deg": round(scan.tilt_deg, 3), "below": round(made.below, 4)}
        if made.top_heavy > TOP_HEAVY:
            levelled["top_heavy"] = round(made.top_heavy, 2)
        described.append(describe(made.recording) | levelled | _attempts(made.counts, scan.files))
        shapes |= {file.path: list(file) for file in made.files}
        unreadable.update(made.counts.unreadable)
    content = shard_bytes(tuple(recordings), job.config.frames, to_plain(job.config), job.config.pairs)
    about = {"failed": failed, "shapes": [shapes[path] for path in sorted(shapes)], "unreadable": sorted(unreadable)}
    return write_shard(job.out, job.number, content, described, **about)


def write_shard(
    out: pathlib.Path,
    number: int,
    content: bytes,
    scans: list[dict],
    failed: list[dict] = (),
    shapes: list[list] = (),
    unreadable: list[str] = (),
) -> dict:
    """Write a shard and then its .json; returns what is kept of the .json, and its hash. Raises OSError."""
    sidecar = {
        "format": FORMAT,
        "version": VERSION,
        "file": shard_path(out, number).name,
        "bytes": len(content),
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "scans": scans,
        "failed": list(failed),
        "shapes": list(shapes),
        "unreadable_shapes": list(unreadable),
    }
    files.write(shard_path(out, number), content)
    description = seal(sidecar)
    files.write(sidecar_path(out, number), description)
    return brief(sidecar) | {"sidecar_sha256": hashlib.sha256(description).hexdigest()}


def describe_error(source: sources.ScanSource, error: ValueError) -> str:
    """File, below the folder of scans, and problem: the same wherever that folder lies."""
    if isinstance(error, sources.SourceError) and pathlib.Path(error.path).is_relative_to(source.root):
        return f"{pathlib.Path(error.path).relative_to(source.root)}: {error.problem}"
    return f"{source.files['points']}: {error}"


def describe(recording: Recording) -> dict:
    """What a shard's .json says of a scan, whoever made its sequences; figures that it has none of are null."""
    floor = recording.floor or FloorPlan(np.zeros((0, 0), bool), np.zeros(2, np.int32), math.nan, math.nan)
    return {
        "name": recording.name,
        "points": 0 if recording.cloud is None else len(recording.cloud),
        "source_points": recording.source_points,
        "dropped": recording.dropped,
        "floor_m": _figure(floor.floor_m, 6),
        "free_m": _figure(recording.free_m, 6),
        "valid_m2": _figure(floor.valid_m2, 4),
        "unseen": _figure(floor.unseen, 4),
        "sequences": [sequence.k for sequence in recording],
    }


def _figure(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def _attempts(counts: Counts, read: tuple[sources.SourceFile, ...]) -> dict:
    """What a shard's .json says of a scan's attempts, and the files that it was read from."""
    return {
        "gaps": list(counts.gaps),
        "attempts": counts.attempts,
        "rejections": counts.reasons,
        "examples": counts.example,
        "drawn": counts.drawn,
        "accepted": counts.accepted,
        "shrunk": counts.shrunk,
        "least_shrink": round(counts.least_shrink, 4),
        "files": [list(file) for file in read],
    }
