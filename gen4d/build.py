"""A folder of scans and a folder of shapes in, a data set out: planned, spread over workers, resumable.

The plan says which scans go to which shard. It is cut from the sorted names, written before the work, and only ever
extended, so that neither the number of workers nor an interruption changes what a shard holds. A worker takes a whole
shard and is its only writer. A shard is done when its .json, written after it, is there and agrees with shard and plan.

A build may be cut into parts, each a process, or an array task, of its own: part I of N builds the shards whose number
leaves I - 1 when divided by N. What parts agree on, and how they are merged, is in parts.py.
"""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

from gen4d import __version__, accept, augment, cluster, files, sources, workers
from gen4d.cloud import CloudError
from gen4d.config import Config, difference, to_plain, versions
from gen4d.format import FORMAT, SHARD_SUFFIX, VERSION, FormatError, check_version, seal, unseal
from gen4d.generate import Shapes, generate_scan, group_shapes, lane, prepare_scan
from gen4d.occupancy import OccupancyError
from gen4d.writer import shard_bytes

_HOPELESS = 0.01


class BuildError(ValueError):
    """The build cannot go on; the message names what, why and the remedy."""


class Part(NamedTuple):
    """A share of a build: part `number`, from 1, of `of`."""

    number: int
    of: int

    def owns(self, shard: int) -> bool:
        """Whether the part builds the shard of a number. Every shard has one owner."""
        return shard % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class Job(NamedTuple):
    """One shard's work."""

    out: pathlib.Path
    number: int
    scans: tuple[sources.ScanSource, ...]
    shapes: Shapes
    config: Config
    strict: bool


class Plan(NamedTuple):
    """What there is to do in a folder."""

    jobs: tuple[Job, ...]  # shards to be built
    sidecars: dict[int, dict]  # of the shards that are done
    shards: int  # in all
    changed: tuple[str, ...]  # messages: scans that differ from what was built


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
        return {"gen4d": __version__, "config": to_plain(self.config), "shapes": shapes}


def make_inputs(scans: sources.FoundScans, shapes: sources.FoundShapes, config: Config) -> Inputs:
    """Inputs sorted by name, with the height ranges of the shapes' classes put into the config.

    Raises BuildError or SourceError where a class has no height range, an up axis is none, or the config would reject
    nearly every sequence.
    """
    sources.up_rotation(sources.split_up(config.up)[0])
    if config.shape_up != "auto":
        try:
            sources.up_rotation(config.shape_up)
        except sources.SourceError as error:
            raise BuildError(f"--shape-up: {error.problem}, or auto") from None
    heights = []
    for name in sorted({shape.class_name for shape in shapes.sources}):
        height_m = sources.height_range(name)
        if height_m is None:
            raise BuildError(
                f"class {name!r} has no height range in datasets_manifest.yaml, and shapes have no units: "
                "add one, or leave the class out with --classes"
            )
        heights.append((name, *height_m))
    config = dataclasses.replace(config, height_m=tuple(heights))
    rate = expected_acceptance(config)
    if rate < _HOPELESS:
        raise BuildError(
            f"keep = {config.keep}, chunks of {config.chunk_min}-{config.chunk_max}: about {rate:.1%} of the attempts "
            f"would keep {config.common_min:.0%} of the points in all {config.frames} frames together, because each "
            f"frame drops points of its own; keep = 0.95 with the default chunks accepts about 90 %"
        )
    key = lambda source: source.name  # noqa: E731
    ordered = tuple(sorted(shapes.sources, key=lambda s: (s.class_name, s.path)))
    return Inputs(tuple(sorted(scans.sources, key=key)), ordered, config)


@functools.lru_cache(8)
def expected_acceptance(config: Config, draws: int = 400) -> float:
    """Share of attempts that the acceptance rule passes, by simulation on points spread evenly over a box."""
    rng = lane(config, "", 0, 0, "expected acceptance")
    point = augment.quantise(rng.random((2000, 3)).astype("float32"))
    none = augment.no_chunks(config.frames)
    passed = 0
    for _ in range(draws):
        size = (config.chunk_min, config.chunk_max)
        chunks = augment.draw_chunks(config.frames, (config.chunks_min, config.chunks_max), size, rng)
        scan = accept.mask_histogram(augment.draw_bits(point, chunks, config.keep, rng), config.frames)
        shape = accept.mask_histogram(augment.draw_bits(point[:, :1000], none, config.keep, rng), config.frames)
        passed += accept.find_reason(scan, shape, config.common_min, config.frame_min) is None
    return passed / draws


def make_plan(out: pathlib.Path, inputs: Inputs, strict: bool = False, part: Part | None = None) -> Plan:
    """Compare the inputs with what the folder holds, extend its plan, and say what is left to do: all of it, or a part.

    A part plans scans that no shard has, which depends on the inputs alone; scans that failed before are left to a
    build of the whole, since they depend on what the other parts have done by now. Raises BuildError where the folder
    holds another build or other files, or plans scans that are not there now.
    """
    by_name = {scan.name: scan for scan in inputs.scans}
    stored = read_build(out, inputs)
    sidecars = read_done(out, stored, part)
    _check_left(out, _left(stored, sidecars, part), by_name)
    plan = stored + _extend(stored, {} if part else sidecars, by_name, inputs.config)
    files.make_folder(out)
    if plan != stored or not stored:
        plan = _write_plan(out, inputs, plan, part)
    files.make_folder(out / "shards")  # after build.json, without which the folder would be somebody else's
    left = _left(plan, sidecars, part)
    _check_left(out, left, by_name)
    shapes = group_shapes(inputs.shapes, inputs.config.shape_up)
    jobs = [
        Job(out, number, tuple(by_name[name] for name in names), shapes, inputs.config, strict)
        for number, names in left.items()
    ]
    changed = [message for sidecar in sidecars.values() for message in _find_changed(sidecar, by_name)]
    return Plan(tuple(jobs), sidecars, len(plan), tuple(changed))


def _left(plan: list[list[str]], sidecars: dict[int, dict], part: Part | None) -> dict[int, list[str]]:
    """Shards to be built, and their scans' names."""
    numbers = (number for number in range(len(plan)) if part is None or part.owns(number))
    return {number: plan[number] for number in numbers if number not in sidecars}


def _check_left(out: pathlib.Path, left: dict[int, list[str]], by_name: dict) -> None:
    missing = [name for names in left.values() for name in names if name not in by_name]
    if missing:
        raise BuildError(
            f"{out}: scan {missing[0]} ({len(missing)} in all) was planned here and is not built yet, but is "
            "not among the scans now: give the same --scans, --split and no smaller --limit, or another --out"
        )


def _write_plan(out: pathlib.Path, inputs: Inputs, plan: list[list[str]], part: Part | None) -> list[list[str]]:
    """Write the plan, and return it. Parts do it one after another, and each extends what the last one wrote."""
    with files.locked(out, "plan.lock", wait=True) if part else contextlib.nullcontext():
        if part:
            stored = read_build(out, inputs)
            plan = stored + _extend(stored, {}, {scan.name: scan for scan in inputs.scans}, inputs.config)
            if stored == plan:
                return plan
        content = seal({"format": FORMAT, "version": VERSION, **inputs.identity(), "plan": plan})
        files.write(out / "build.json", content)
    return plan


def read_build(out: pathlib.Path, inputs: Inputs) -> list[list[str]]:
    """The plan in a folder: the names of each shard's scans, none where the folder is empty.

    Raises BuildError where the folder holds other files, or a build of other inputs.
    """
    stored = _read_stored(out)
    if stored is None:
        odd = sorted(item.name for item in out.iterdir() if not files.is_ours(item)) if out.is_dir() else []
        if odd and (out / "build.json").exists():  # since we looked: another part has begun
            return read_build(out, inputs)
        if odd:
            raise BuildError(f"{out}: holds other files ({odd[0]}, {len(odd)} in all): use an empty folder as --out")
        return []
    here = inputs.identity()
    lines = difference(stored.get("config", {}), here["config"])
    lines += [
        f"{name}: {stored.get(name)} there, {here[name]} here"
        for name in ("gen4d", "shapes")
        if stored.get(name) != here[name]
    ]
    if lines:
        raise BuildError(
            f"{out}: holds a build of another config ({'; '.join(lines)}): use another --out, or the same options"
        )
    return stored["plan"]


def _read_stored(out: pathlib.Path) -> dict | None:
    """The content of build.json, if there is one."""
    path = out / "build.json"
    if not path.exists():
        return None
    stored = unseal(path.read_bytes(), str(path))
    check_version(stored, str(path))
    return stored


def read_plan(out: pathlib.Path) -> list[list[str]]:
    """The plan in a folder: names of the scans of each shard.

    Raises BuildError where the folder holds no build of this version of gen4d.
    """
    stored = _read_stored(out)
    if stored is None:
        raise BuildError(f"{out}: holds no build (no build.json): give the --out of gen4d build")
    if stored.get("gen4d") != __version__:
        raise BuildError(f"{out}: built by gen4d {stored.get('gen4d')}, this is {__version__}: use the same version")
    return stored["plan"]


def read_done(out: pathlib.Path, plan: list[list[str]], part: Part | None = None) -> dict[int, dict]:
    """What the .json of each planned shard, or of a part's, says that is done, by number."""
    owned = {number: names for number, names in enumerate(plan) if part is None or part.owns(number)}
    return {number: sidecar for number, names in owned.items() if (sidecar := read_sidecar(out, number, names))}


def _find_changed(sidecar: dict, by_name: dict) -> list[str]:
    messages = []
    for scan in sidecar["scans"]:
        source = by_name.get(scan["name"])
        size = scan["files"][0][1]
        if source is not None and source.size != size:
            messages.append(
                f"{scan['name']}: its points file has {source.size} bytes, {size} when it was built; the old sequences "
                "stay: build into another --out to take the change"
            )
    return messages


def _extend(plan: list[list[str]], sidecars: dict[int, dict], by_name: dict, config: Config) -> list[list[str]]:
    """New shards for scans that no shard has, and for those that failed before and can be prepared now."""
    planned = {name for names in plan for name in names}
    failed = {scan["name"] for sidecar in sidecars.values() for scan in sidecar["failed"]}
    built = {scan["name"] for sidecar in sidecars.values() for scan in sidecar["scans"]}
    waiting = {name for number, names in enumerate(plan) if number not in sidecars for name in names}
    again = [
        name for name in sorted(failed - built - waiting) if name in by_name and _can_prepare(by_name[name], config)
    ]
    new = sorted([name for name in by_name if name not in planned] + again)
    size = config.scans_per_shard
    return [new[i : i + size] for i in range(0, len(new), size)]


def _can_prepare(source: sources.ScanSource, config: Config) -> bool:
    try:
        prepare_scan(load_scan(source, config), config)
    except (sources.SourceError, CloudError, OccupancyError):
        return False
    return True


def load_scan(source: sources.ScanSource, config: Config) -> sources.Scan:
    return sources.load_scan(source, sources.Orientation(config.up, config.metres_per_unit))


def shard_path(out: pathlib.Path, number: int) -> pathlib.Path:
    """File of a shard."""
    return out / "shards" / f"{number:05d}{SHARD_SUFFIX}"


def sidecar_path(out: pathlib.Path, number: int) -> pathlib.Path:
    """File that says what a shard holds, and its hash."""
    return out / "shards" / f"{number:05d}.json"


def read_sidecar(out: pathlib.Path, number: int, names: list[str]) -> dict | None:
    """What a shard's .json says, or None where the shard is not done: no .json, or one that disagrees with the shard or
    with the names of the scans that are planned for it."""
    path = sidecar_path(out, number)
    try:
        content = path.read_bytes()
        sidecar = unseal(content, str(path))
        size = shard_path(out, number).stat().st_size
    except (FormatError, FileNotFoundError):
        return None
    own = sidecar["file"] == shard_path(out, number).name and sidecar["bytes"] == size
    held = sorted(scan["name"] for scan in (*sidecar["scans"], *sidecar["failed"]))
    return _hashed(sidecar, content) if own and held == sorted(names) else None


def _hashed(sidecar: dict, content: bytes) -> dict:
    return brief(sidecar) | {"sidecar_sha256": hashlib.sha256(content).hexdigest()}


def brief(sidecar: dict) -> dict:
    """What is kept in memory of a shard's .json: all but the list of shapes, most of it and of a gigabyte for 100,000
    scans."""
    return {name: value for name, value in sidecar.items() if name != "shapes"}


def build_shard(job: Job) -> dict:
    """Generate, write and describe one shard; returns what is kept of its .json, and the hash of that. A scan that
    cannot be used is recorded; the others go on.

    Raises OSError where the shard cannot be written and, if the job is strict, BuildError at the first bad scan.
    """
    records, described, failed, shapes, unreadable = [], [], [], {}, set()
    for source in job.scans:
        try:
            scan = load_scan(source, job.config)
            record, counts, used = generate_scan(scan, job.shapes, job.config)
        except (sources.SourceError, CloudError, OccupancyError) as error:
            message = describe_error(source, error)
            if job.strict:
                raise BuildError(f"{source.root}/{message}") from None
            failed.append({"name": source.name, "error": message})
            continue
        records.append(record)
        described.append(_describe(record, scan, counts, job.config))
        shapes |= {file.path: list(file) for file in used}
        unreadable.update(counts.unreadable)
    content = shard_bytes(tuple(records), job.config.frames, to_plain(job.config), job.config.pairs)
    sidecar = {
        "format": FORMAT,
        "version": VERSION,
        "file": shard_path(job.out, job.number).name,
        "bytes": len(content),
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "scans": described,
        "failed": failed,
        "shapes": [shapes[path] for path in sorted(shapes)],
        "unreadable_shapes": sorted(unreadable),
    }
    files.write(shard_path(job.out, job.number), content)
    description = seal(sidecar)
    files.write(sidecar_path(job.out, job.number), description)
    return _hashed(sidecar, description)


def describe_error(source: sources.ScanSource, error: ValueError) -> str:
    """File, below the folder of scans, and problem: the same wherever that folder lies."""
    if isinstance(error, sources.SourceError) and pathlib.Path(error.path).is_relative_to(source.root):
        return f"{pathlib.Path(error.path).relative_to(source.root)}: {error.problem}"
    return f"{source.files['points']}: {error}"


def _describe(record, scan, counts, config) -> dict:
    return {
        "name": record.name,
        "points": len(record.point),
        "source_points": record.source_points,
        "dropped": record.dropped,
        "floor_m": round(record.floor_m, 6),
        "free_m": round(record.free_m, 6),
        "valid_m2": round(float(record.valid.sum()) * config.cell_m**2, 4),
        "sequences": [sequence.k for sequence in record.sequences],
        "gaps": list(counts.gaps),
        "attempts": counts.attempts,
        "rejections": counts.reasons,
        "examples": counts.example,
        "drawn": counts.drawn,
        "accepted": counts.accepted,
        "shrunk": counts.shrunk,
        "files": [list(file) for file in scan.files],
    }


def read_sidecar_content(out: pathlib.Path, number: int) -> dict:
    """What a shard's .json says. Raises FormatError where it is missing or damaged."""
    path = sidecar_path(out, number)
    try:
        return unseal(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise FormatError(f"{path}: the shard's description is missing; restore it from a copy or rebuild") from None


def run(jobs: tuple[Job, ...], processes: int, start: str = "", scheduler: str = "") -> Iterator[tuple[int, dict]]:
    """Build the shards and yield (number, sidecar) of each as it is done.

    By a number of processes, in this one if one is enough; `start` says how others are started. Or by the workers of
    the Dask cluster at the address `scheduler`. Raises BuildError where a shard cannot be written or a worker dies,
    ClusterError where the cluster cannot be used; what is done stays valid.
    """
    try:
        if scheduler and jobs:
            for i, sidecar in cluster.run(_build_place, _common(jobs[0]), list(map(_place, jobs)), scheduler):
                yield jobs[i].number, sidecar
        elif processes == 1 or len(jobs) <= 1:
            for job in jobs:
                yield job.number, build_shard(job)
        else:
            for i, sidecar in workers.run(build_shard, jobs, min(processes, len(jobs)), start):
                yield jobs[i].number, sidecar
    except workers.WorkerError as error:
        raise BuildError(f"{error}: use fewer --workers; the same command continues") from None
    except OSError as error:
        raise unwritable(error, jobs[0].out) from None


def _common(job: Job) -> Job:
    """What all jobs share, thousands of shapes among it, which a cluster is sent once."""
    return job._replace(number=-1, scans=())


def _place(job: Job) -> tuple[int, tuple[sources.ScanSource, ...]]:
    return job.number, job.scans


def _build_place(common: Job, place: tuple[int, tuple[sources.ScanSource, ...]]) -> dict:
    """Runs on a machine of a cluster, where a folder that is not there must not look like scans that are broken."""
    job = common._replace(number=place[0], scans=place[1])
    roots = {scan.root for scan in job.scans} | {shapes[0].root for shapes in job.shapes.by_class.values()}
    for path in (job.out / "build.json", *sorted(roots)):
        if not path.exists():
            raise BuildError(f"{path}: not seen by the worker on {socket.gethostname()}: mount it there too")
    return build_shard(job)


def unwritable(error: OSError, out: pathlib.Path) -> BuildError:
    """The error of a build that cannot write."""
    return BuildError(
        f"{error.filename or out}: cannot be written ({error.strerror or error}): free space, or give another folder; "
        "what is done stays valid, and the same command continues it"
    )


def finish(out: pathlib.Path, sidecars: dict[int, dict]) -> dict:
    """Write dataset.json over all shards, the last file of a build, and return its content."""
    stored = _read_stored(out)
    shards = [_entry(out, number, sidecars[number]) for number in sorted(sidecars)]
    scans = [scan for number in sorted(sidecars) for scan in sidecars[number]["scans"]]
    built = {scan["name"] for scan in scans}
    failed = [scan for number in sorted(sidecars) for scan in sidecars[number]["failed"] if scan["name"] not in built]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "must_understand": [],
        **{name: stored[name] for name in ("gen4d", "config", "shapes")},
        "seed": stored["config"]["seed"],
        "versions": versions(),
        "shards": shards,
        "failed": failed,
        "totals": {
            "scans": len(scans),
            "sequences": sum(len(scan["sequences"]) for scan in scans),
            "gaps": sum(len(scan["gaps"]) for scan in scans),
            "attempts": sum(scan["attempts"] for scan in scans),
            "bytes": sum(shard["bytes"] for shard in shards),
        },
    }
    content = seal(manifest)
    path = out / "dataset.json"
    if not path.exists() or path.read_bytes() != content:
        files.write(path, content)
    return manifest


def _entry(out: pathlib.Path, number: int, sidecar: dict) -> dict:
    return {
        "file": sidecar["file"],
        "bytes": sidecar["bytes"],
        "content_sha256": sidecar["content_sha256"],
        "sidecar_sha256": sidecar["sidecar_sha256"],
        "scans": [[scan["name"], len(scan["sequences"])] for scan in sidecar["scans"]],
    }


def clean(out: pathlib.Path) -> None:
    """Remove what killed builds and parts left behind. The caller holds the folder's lock alone."""
    scaffold = [path for path in files.scaffold(out) if path.name != "build.lock"]
    for path in [*scaffold, *files.leftovers(out), *files.leftovers(out / "shards")]:
        files.remove(path)
