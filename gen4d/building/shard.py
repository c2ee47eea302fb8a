"""One shard's work: its scans read, generated, written, and described."""

import hashlib
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from gen4d import files, sources
from gen4d.building.errors import BuildError
from gen4d.building.inputs import Source
from gen4d.building.kinds import kind_of
from gen4d.config import AnyConfig, to_plain
from gen4d.sequence import FloorPlan, Recording
from gen4d.shards.format import FORMAT, VERSION, seal
from gen4d.shards.manifest import brief, shard_path, sidecar_path
from gen4d.shards.zarr_writer import shard_bytes


class Job(NamedTuple):
    """One shard's work."""

    out: pathlib.Path
    number: int
    scans: tuple[Source, ...]
    kind: str
    shared: Any  # what the kind needs for every scan
    config: AnyConfig
    strict: bool
    folders: tuple[pathlib.Path, ...]  # that are read besides those of the scans
    manifests: dict  # that users added, which a process elsewhere does not know


def build_shard(job: Job) -> dict:
    """Generate, write and describe one shard; returns what is kept of its .json, and the hash of that. A scan that
    cannot be used is recorded; the others go on.

    Raises OSError where the shard cannot be written and, if the job is strict, BuildError at the first bad scan.
    """
    sources.know_manifests(job.manifests)
    kind = kind_of(job.kind)
    recordings, described, failed, shapes, unreadable = [], [], [], {}, set()
    for source in job.scans:
        try:
            made = kind.make(source, job.shared, job.config)
        except kind.UNUSABLE as error:
            message = describe_error(source, error)
            if job.strict:
                raise BuildError(f"{source.root}/{message}") from None
            failed.append({"name": source.name, "error": message})
            continue
        recordings.append(made.recording)
        described.append(describe(made.recording) | made.described)
        shapes |= {file.path: list(file) for file in made.shapes}
        unreadable.update(made.unreadable)
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


def describe_error(source: Source, error: ValueError) -> str:
    """File, below the folder that was given, and problem: the same wherever that folder lies."""
    if isinstance(error, sources.SourceError) and pathlib.Path(error.path).is_relative_to(source.root):
        return f"{pathlib.Path(error.path).relative_to(source.root)}: {error.problem}"
    return f"{source.path}: {error}"


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
