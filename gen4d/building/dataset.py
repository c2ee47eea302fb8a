"""A data set's whole story: from two folders, or from sequences that somebody else made, to a folder of shards."""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from gen4d import files, sources
from gen4d.building import estimate, parts
from gen4d.building.errors import BuildError, unwritable
from gen4d.building.inputs import Found, Given, Inputs
from gen4d.building.kinds import find_inputs, kind_of
from gen4d.building.plan import Part, Plan, build_content, make_plan
from gen4d.building.run import clean, finish, refused, run
from gen4d.building.shard import describe, write_shard
from gen4d.config import Config, make_config
from gen4d.moving.feasible import Heights
from gen4d.sequence import Recording, SequenceError, find_fault
from gen4d.shards import Dataset, open_dataset
from gen4d.shards.manifest import read_build
from gen4d.shards.verify import verify
from gen4d.shards.zarr_writer import shard_bytes

_SCANS_PER_SHARD = 16
_CELL_M = Config.cell_m
_NUMBERED = re.compile(r"\d{5,}\.(json|zarr\.zip)")


class Progress(NamedTuple):
    """How far a build is. stage: "planned" once, "compiling" if kernels have to be, "building" for each shard."""

    stage: str
    scans: int  # done in this run
    of: int  # to do in this run
    sequences: int  # made in this run
    shards: int  # to do in this run
    there: int  # shards that were there already


class Built(NamedTuple):
    """What a build left: the content of dataset.json, None from a part; what is kept of each shard's .json by number;
    how many shards the whole build has; and one line for every file, scan or shape that was refused, cannot be used, or
    has changed since it was built."""

    manifest: dict | None
    sidecars: dict[int, dict]
    shards: int
    refused: tuple[str, ...]


def build_dataset(
    scans: str | os.PathLike | None = None,
    shapes: str | os.PathLike | None = None,
    out: str | os.PathLike = "data/sequences",
    *,
    kind: str = "moving",
    workers: int = 1,
    scheduler: str = "",
    part: tuple[int, int] | None = None,
    split: str | os.PathLike | None = None,
    up: str | None = None,
    units: str | None = None,
    shape_units: str | None = None,
    limit: int | None = None,
    manifest: str | os.PathLike | None = None,
    glob: str | None = None,
    heights: Mapping[str, Heights] | None = None,
    strict: bool = False,
    note: Callable[[str], object] = lambda line: None,
    progress: Callable[[Progress], object] = lambda state: None,
    **settings: Any,
) -> Built:
    """Build a data set of sequences from folders, as `gen4d build` does: by default from scans and shapes.

    The same call continues where an earlier one stopped. kind: "moving" takes scans and shapes, "frames" and "sweeps"
    take scans alone, that are posed depth images or lidar sweeps, "views" takes shapes alone. workers: number of
    processes. scheduler: address of a Dask cluster that does the work instead. part: (I, N), only a fixed share of the
    shards; then `merge`. split: file with the names of the scans to use. up, units: axis and unit of the scans, if they
    differ from those of the known data set. shape_units: unit of shapes that have one; their sizes are then kept.
    limit: use only the first scans by name. manifest: file of the user's own data sets, label spaces and heights; this
    process knows them from then on. glob: pattern of the scans' files below their folder. heights: class -> (lowest,
    highest) height in metres, or several of (lowest, highest, share), for classes that are not known. strict: stop at
    the first scan that cannot be used. note: called with each line that a user should see before the work starts.
    progress: called with how far the build is. settings: fields of the kind's config: `gen4d.Config`,
    `gen4d.FramesConfig`, `gen4d.SweepsConfig` or `gen4d.ViewsConfig`.

    Raises ValueError (SourceError, ConfigError, BuildError, BusyError and so on) with value, rule and remedy. What is
    done stays valid.
    """
    share = None if part is None else _part_of(*part)
    if manifest is not None:
        sources.add_manifest(pathlib.Path(manifest))
    if glob is not None:
        sources.add_glob(glob)
    folders = {"scans": scans, "shapes": shapes, "split": split}
    given = Given(
        **{name: _path(path, absolute=bool(scheduler)) for name, path in folders.items()},
        up=up,
        units=units,
        shape_units=shape_units,
        limit=limit,
        heights=heights,
    )
    found = find_inputs(kind, given, make_config(kind_of(kind).CONFIGS[kind], **settings))
    for line in (*found.notes, *(f"refused: {message}" for message in found.refused)):
        note(line)
    return build_found(found, pathlib.Path(out), workers, scheduler, share, strict, progress)


def _path(path: str | os.PathLike | None, absolute: bool) -> pathlib.Path | None:
    """A folder that was given; absolute for the workers of a cluster, whose working folders are others."""
    found = None if path is None else pathlib.Path(path)
    return found.absolute() if found and absolute else found


def _part_of(number: int, of: int) -> Part:
    if not 1 <= number <= of:
        raise BuildError(f"part = ({number}, {of}): must be (I, N) with I from 1 to N")
    return Part(number, of)


def build_found(
    found: Found,
    out: pathlib.Path,
    workers: int = 1,
    scheduler: str = "",
    part: Part | None = None,
    strict: bool = False,
    progress: Callable[[Progress], object] = lambda state: None,
) -> Built:
    """Lock the folder, clean it, plan, build, and finish: what `build_dataset` does with inputs that were found."""
    if strict and found.refused:
        raise BuildError(found.refused[0])
    if scheduler:  # whose workers have other working folders
        out = out.absolute()
    inputs = found.inputs
    try:
        with _held(out, inputs, part):
            plan = make_plan(out, inputs, strict, part)
            sidecars = plan.sidecars | _build_shards(inputs, plan, workers, scheduler, progress)
            manifest = None if part else finish(out, sidecars)
    except OSError as error:
        raise unwritable(error, out) from None
    ordered = [sidecars[number] for number in sorted(sidecars)]
    failed = refused(ordered, str(inputs.scans[0].root), str((inputs.shapes or inputs.scans)[0].root))
    return Built(manifest, sidecars, plan.shards, (*found.refused, *plan.changed, *failed))


@contextlib.contextmanager
def _held(out: pathlib.Path, inputs: Inputs, part: Part | None) -> Iterator[None]:
    """The folder, made and locked; whatever happens in it, no temporary file stays."""
    if part is None:
        files.make_folder(out)
        lock, tidy = files.locked(out), functools.partial(clean, out)
    else:
        lock, tidy = parts.joined(out, inputs, part), functools.partial(parts.clean, out, part)
    with lock:
        tidy()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                tidy()


def _build_shards(
    inputs: Inputs, plan: Plan, workers: int, scheduler: str, progress: Callable[[Progress], object]
) -> dict[int, dict]:
    state = Progress("planned", 0, sum(len(job.scans) for job in plan.jobs), 0, len(plan.jobs), len(plan.sidecars))
    progress(state)
    if plan.jobs:
        estimate.warm_up(inputs, lambda: progress(state._replace(stage="compiling")))
    sidecars = {}
    with contextlib.closing(run(plan.jobs, workers, scheduler=scheduler)) as done:
        for number, sidecar in done:
            sidecars[number] = sidecar
            scans = state.scans + len(sidecar["scans"]) + len(sidecar["failed"])
            sequences = state.sequences + sum(len(scan["sequences"]) for scan in sidecar["scans"])
            state = state._replace(stage="building", scans=scans, sequences=sequences)
            progress(state)
    return sidecars


def write_dataset(
    recordings: Iterable[Recording],
    out: str | os.PathLike,
    *,
    config: Mapping[str, object] | None = None,
    pairs: bool = False,
    scans_per_shard: int = _SCANS_PER_SHARD,
) -> Dataset:
    """Write sequences from anywhere to a new data set, verify every bit of it, and open it.

    recordings: each with its own name; all sequences have the same number of frames and are checked by the rules of
    their kind. They are taken one after another, so a generator needs the memory of one shard only. out: a folder that
    is empty or does not exist. config: JSON values to keep with the data, for example how they were made. pairs: also
    store explicit pair lists.

    Raises SequenceError if a sequence or an argument breaks a rule and BuildError if `out` is not empty or cannot be
    written; then nothing of it stays. What a generator of recordings raises comes out as it is.
    """
    out = pathlib.Path(out)
    if scans_per_shard < 1:
        raise SequenceError(f"scans_per_shard = {scans_per_shard}: at least 1")
    try:
        json.dumps(dict(config or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SequenceError(f"config: {error}: plain numbers, texts, lists and dicts of them") from None
    _refuse_full(out)
    try:
        files.make_folder(out)
        with files.locked(out):
            try:
                _write_shards(_given(recordings), out, dict(config or {}), pairs, scans_per_shard)
                problem = next((line for line in verify(open_dataset(out)) if line), None)
                if problem:
                    raise BuildError(f"{problem}: the written data cannot be read back: check the disk")
            except BaseException:
                _undo(out)
                raise
    except _GivenFailed as failed:
        raise failed.error from None
    except OSError as error:
        raise unwritable(error, out, "nothing of it is kept") from None
    return open_dataset(out)


class _GivenFailed(Exception):
    """What the caller's own generator raised, which is no failure to write."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _given(recordings: Iterable[Recording]) -> Iterable[Recording]:
    try:
        yield from recordings
    except OSError as error:
        raise _GivenFailed(error) from None


def _refuse_full(out: pathlib.Path) -> None:
    odd = files.others(out)
    unfinished = "build.json" in odd and "dataset.json" not in odd and not (read_build(out) or {}).get("generator")
    if odd and not unfinished:
        raise BuildError(f"{out}: holds other files ({odd[0]}, {len(odd)} in all): give an empty folder")


def _undo(out: pathlib.Path) -> None:
    """Remove what this call wrote; the folder stays, as it was found or made."""
    clean(out)
    shards = out / "shards"
    numbered = [path for path in shards.iterdir() if _NUMBERED.fullmatch(path.name)] if shards.is_dir() else []
    for path in [out / "dataset.json", *numbered, out / "build.json"]:
        files.remove(path)
    with contextlib.suppress(OSError):  # it is not there, or holds files of others
        shards.rmdir()


def _write_shards(recordings: Iterable[Recording], out: pathlib.Path, config: dict, pairs: bool, size: int) -> None:
    _undo(out)  # of a call that was killed
    waiting = iter(recordings)
    sidecars: dict[int, dict] = {}
    seen: dict[str, None] = {}
    frames = 0
    while batch := tuple(itertools.islice(waiting, size)):
        for recording in batch:
            frames = _check(recording, frames, seen)
        if not frames:
            raise SequenceError(f"the first {len(batch)} recordings hold no sequence: leave them out, or put them last")
        if not sidecars:
            config = {"cell_m": _cell_m(batch)} | config
            identity = {"generator": None, "config": config, "shapes": {}}
            files.write(out / "build.json", build_content(identity, []))
            files.make_folder(out / "shards")
        if any(recording.floor and recording.floor.cell_m != config["cell_m"] for recording in batch):
            raise SequenceError(
                f"floor plans have cells of another size than {config['cell_m']} m: use one size per data set, and "
                f"where the first {size} recordings have no floor plan, say it: config={{'cell_m': ...}}"
            )
        content = shard_bytes(batch, frames, config, pairs)
        sidecars[len(sidecars)] = write_shard(out, len(sidecars), content, [describe(one) for one in batch])
    if not seen:
        raise SequenceError("recordings is empty: give at least one")
    finish(out, sidecars)


def _cell_m(batch: tuple[Recording, ...]) -> float:
    return next((recording.floor.cell_m for recording in batch if recording.floor), _CELL_M)


def _check(recording: Recording, frames: int, seen: dict[str, None]) -> int:
    """Frames per sequence. Raises SequenceError where a recording breaks a rule by itself or beside those before."""
    if not isinstance(recording, Recording):
        raise SequenceError(f"recordings holds a {type(recording).__name__}: gen4d.Recording(name, sequences)")
    if not recording.name or not recording.name.isprintable() or recording.name in seen:
        raise SequenceError(f"name = {recording.name!r}: every recording needs its own printable name")
    seen[recording.name] = None
    numbers = set()
    for sequence in recording:
        fault = find_fault(sequence)
        if fault is None and (sequence.scan != recording.name or not 0 <= sequence.k < 2**31 or sequence.k in numbers):
            wanted = f"the scan must be {recording.name!r}, and each k different"
            fault = f"its scan is {sequence.scan!r} and its k {sequence.k}: {wanted}"
        if fault is None and frames and sequence.t != frames:
            fault = f"it has {sequence.t} frames, those before it have {frames}: use one number per data set"
        if fault:
            raise SequenceError(f"sequence {sequence.id}: {fault}")
        numbers.add(sequence.k)
        frames = sequence.t
    return frames
