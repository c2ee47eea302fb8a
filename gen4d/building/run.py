"""The shards of a plan built by processes or a cluster, and the files that begin and end a build."""

import pathlib
import socket
from collections.abc import Generator, Iterable

from gen4d import files, workers
from gen4d.building import cluster
from gen4d.building.errors import BuildError, unwritable
from gen4d.building.inputs import Source
from gen4d.building.shard import Job, build_shard
from gen4d.config import versions
from gen4d.shards import manifest
from gen4d.shards.format import FORMAT, VERSION, FormatError, seal
from gen4d.shards.home import LocalHome

_IDENTITY = ("gen4d", "generator", "config", "shapes", "kind", "sources")  # of build.json, in dataset.json too


def run(
    jobs: tuple[Job, ...], processes: int, start: str = "", scheduler: str = ""
) -> Generator[tuple[int, dict], None, None]:
    """Build the shards and yield (number, sidecar) of each as it is done.

    By a number of processes, in this one if one is enough; `start` says how others are started. Or by the workers of
    the Dask cluster at the address `scheduler`. Raises BuildError where a shard cannot be written or a worker dies,
    ClusterError where the cluster cannot be used; what is done stays valid.
    """
    try:
        if scheduler and jobs:
            for i, sidecar in cluster.run(_build_task, _common(jobs[0]), list(map(_task, jobs)), scheduler):
                yield jobs[i].number, sidecar
        elif processes == 1 or len(jobs) <= 1:
            for job in jobs:
                yield job.number, build_shard(job)
        else:
            for i, sidecar in workers.run(build_shard, jobs, min(processes, len(jobs)), start):
                yield jobs[i].number, sidecar
    except workers.WorkerError as error:
        raise BuildError(f"{error}; the same command continues") from None
    except OSError as error:
        raise unwritable(error, jobs[0].out) from None


def _common(job: Job) -> Job:
    """What all jobs share, thousands of shapes among it, which a cluster is sent once."""
    return job._replace(number=-1, scans=())


def _task(job: Job) -> tuple[int, tuple[Source, ...]]:
    return job.number, job.scans


def _build_task(common: Job, task: tuple[int, tuple[Source, ...]]) -> dict:
    """Runs on a machine of a cluster, where a folder that is not there must not look like scans that are broken."""
    job = common._replace(number=task[0], scans=task[1])
    for path in (job.out / "build.json", *sorted({scan.root for scan in job.scans}), *job.folders):
        if not path.exists():
            raise BuildError(f"{path}: not seen by the worker on {socket.gethostname()}: mount it there too")
    return build_shard(job)


def finish(out: pathlib.Path, sidecars: dict[int, dict]) -> dict:
    """Write dataset.json over all shards, the last file of a build, and return what it says."""
    stored = manifest.read_build(out)
    shards = [_entry(sidecars[number]) for number in sorted(sidecars)]
    scans = [scan for number in sorted(sidecars) for scan in sidecars[number]["scans"]]
    built = {scan["name"] for scan in scans}
    failed = [scan for number in sorted(sidecars) for scan in sidecars[number]["failed"] if scan["name"] not in built]
    whole = {
        "format": FORMAT,
        "version": VERSION,
        "must_understand": [],
        **{name: stored[name] for name in _IDENTITY if name in stored},
        "seed": stored["config"].get("seed"),
        "versions": versions(),
        "shards": shards,
        "failed": failed,
        "totals": {
            "scans": len(scans),
            "sequences": sum(len(scan["sequences"]) for scan in scans),
            "gaps": sum(len(scan.get("gaps", ())) for scan in scans),
            "attempts": sum(scan.get("attempts", 0) for scan in scans),
            "bytes": sum(shard["bytes"] for shard in shards),
        },
    }
    before = _read_manifest(out)
    if before is not None and before | {"versions": whole["versions"]} == whole:
        return before  # by the packages that made it, whatever is installed since
    files.write(out / "dataset.json", seal(whole))
    return whole


def _read_manifest(out: pathlib.Path) -> dict | None:
    """What dataset.json says, None where it is not there or damaged."""
    try:
        return manifest.read_manifest(LocalHome(out))[0]
    except FormatError:
        return None


def refused(sidecars: Iterable[dict], scans: str, shapes: str) -> list[str]:
    """File, problem and remedy of every scan and every drawn shape that cannot be used; `scans` and `shapes` are the
    folders' names, to be put before the files'."""
    sidecars = list(sidecars)
    built = {scan["name"] for sidecar in sidecars for scan in sidecar["scans"]}
    failed = [item for sidecar in sidecars for item in sidecar["failed"] if item["name"] not in built]
    unreadable = sorted({line for sidecar in sidecars for line in sidecar["unreadable_shapes"]})
    return [f"{scans}/{item['error']}" for item in failed] + [f"{shapes}/{line}" for line in unreadable]


def refused_in(manifest: dict, sidecars: Iterable[dict]) -> list[str]:
    """The same of a data set whose raw folders are not at hand, as if they were named by what lies in them."""
    match manifest.get("kind"):
        case "frames" | "sweeps":
            return refused(sidecars, "scans", "scans")
        case "views":
            return refused(sidecars, "shapes", "shapes")
    return refused(sidecars, "scans", "shapes")


def _entry(sidecar: dict) -> dict:
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
