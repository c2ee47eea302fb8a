"""Which sources go to which shard, whatever their kind: sources in, a data set out, spread over workers, resumable.

The plan says which scans go to which shard. It is cut from the sorted names, written before the work, and only ever
extended, so that neither the number of workers nor an interruption changes what a shard holds. A worker takes a whole
shard and is its only writer. A shard is done when its .json, written after it, is there and agrees with shard and plan.

A build may be cut into parts, each a process, or an array task, of its own: part I of N builds the shards whose number
leaves I - 1 when divided by N. What parts agree on, and how they are merged, is in parts.py.
"""

import contextlib
import pathlib
from typing import NamedTuple

from gen4d import __version__, files, sources
from gen4d.building.errors import BuildError
from gen4d.building.inputs import Inputs, Source
from gen4d.building.kinds import kind_of
from gen4d.building.shard import Job
from gen4d.config import GENERATOR, difference
from gen4d.shards import manifest
from gen4d.shards.format import FORMAT, VERSION, seal
from gen4d.shards.manifest import brief, find_sidecar, shard_path


class Part(NamedTuple):
    """A share of a build: part `number`, from 1, of `of`."""

    number: int
    of: int

    def owns(self, shard: int) -> bool:
        """Whether the part builds the shard of a number. Every shard has one owner."""
        return shard % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class Plan(NamedTuple):
    """What there is to do in a folder."""

    jobs: tuple[Job, ...]  # shards to be built
    sidecars: dict[int, dict]  # of the shards that are done
    shards: int  # in all
    changed: tuple[str, ...]  # messages: scans that differ from what was built


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
    plan = stored + _extend(stored, {} if part else sidecars, by_name, inputs)
    if inputs.plan and plan != [list(names) for names in inputs.plan]:
        raise BuildError(f"{out}: holds a build of other scans, or in other shards: use another --out")
    files.make_folder(out)
    if plan != stored or not stored:
        plan = _write_plan(out, inputs, plan, part)
    files.make_folder(out / "shards")  # after build.json, without which the folder would be somebody else's
    left = _left(plan, sidecars, part)
    _check_left(out, left, by_name)
    shared, folders = kind_of(inputs.kind).share(inputs), tuple(sorted({shape.root for shape in inputs.shapes}))
    job = Job(out, -1, (), inputs.kind, shared, inputs.config, strict, folders, sources.added_manifests())
    jobs = [job._replace(number=n, scans=tuple(by_name[name] for name in names)) for n, names in left.items()]
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
            f"{out}: scan {missing[0]} ({len(missing)} in all) was planned here and not built yet, but is "
            "not among the scans now: give the same --scans, --split and no smaller --limit, or another --out"
        )


def _write_plan(out: pathlib.Path, inputs: Inputs, plan: list[list[str]], part: Part | None) -> list[list[str]]:
    """Write the plan, and return it. Parts do it one after another, and each extends what the last one wrote."""
    with files.locked(out, "plan.lock", wait=True) if part else contextlib.nullcontext():
        if part:
            stored = read_build(out, inputs)
            plan = stored + _extend(stored, {}, {scan.name: scan for scan in inputs.scans}, inputs)
            if stored == plan:
                return plan
        files.write(out / "build.json", build_content(inputs.identity() | _origins(out, inputs), plan))
    return plan


def _origins(out: pathlib.Path, inputs: Inputs) -> dict:
    """What the data set was made from: those of the plan in the folder, and those that extend it. Where the folder does
    not say it, nobody knows all of them."""
    stored, new = manifest.read_build(out), inputs.origins()
    if stored is None:
        return {"sources": new}
    known = stored.get("sources")
    return {} if known is None else {"sources": known + [one for one in new if one not in known]}


def read_build(out: pathlib.Path, inputs: Inputs) -> list[list[str]]:
    """The plan in a folder: the names of each shard's scans, none where the folder is empty.

    Raises BuildError where the folder holds other files, or a build of other inputs.
    """
    stored = manifest.read_build(out)
    if stored is None:
        odd = files.others(out)
        if odd and (out / "build.json").exists():  # since we looked: another part has begun
            return read_build(out, inputs)
        if odd:
            raise BuildError(f"{out}: holds other files ({odd[0]}, {len(odd)} in all): use an empty folder as --out")
        return []
    here = inputs.identity()
    kind = stored.get("kind", "moving")
    if kind != inputs.kind:
        raise BuildError(f"{out}: holds a build of kind {kind}, not {inputs.kind}: use another --out, or --kind {kind}")
    lines = difference(stored.get("config", {}), here["config"])
    lines += [
        f"{name}: {stored.get(name)} there, {here[name]} here"
        for name in ("generator", "shapes")
        if stored.get(name) != here[name]
    ]
    if lines:
        raise BuildError(
            f"{out}: holds a build with another config ({'; '.join(lines)}): use another --out, or the same options"
        )
    return stored["plan"]


def read_plan(out: pathlib.Path) -> list[list[str]]:
    """The plan in a folder: names of the scans of each shard.

    Raises BuildError where the folder holds no build of this version of gen4d.
    """
    stored = manifest.read_build(out)
    if stored is None:
        raise BuildError(f"{out}: holds no build (no build.json): give the --out of gen4d build")
    if stored.get("generator") != GENERATOR:
        raise BuildError(
            f"{out}: built by generator {stored.get('generator')} of gen4d {stored.get('gen4d')}, this is generator "
            f"{GENERATOR} of gen4d {__version__}: use a release of gen4d with the same generator"
        )
    return stored["plan"]


def read_done(out: pathlib.Path, plan: list[list[str]], part: Part | None = None) -> dict[int, dict]:
    """What the .json of each planned shard, or of a part's, says that is done, by number."""
    owned = {number: names for number, names in enumerate(plan) if part is None or part.owns(number)}
    return {number: sidecar for number, names in owned.items() if (sidecar := _read_one(out, number, names))}


def _read_one(out: pathlib.Path, number: int, names: list[str]) -> dict | None:
    """What is kept of a shard's .json, and its hash; None where the shard is not done, or is of other scans than those
    planned for it."""
    found = find_sidecar(out, number)
    if found is None or found[0]["file"] != shard_path(out, number).name:
        return None
    held = sorted(scan["name"] for scan in (*found[0]["scans"], *found[0]["failed"]))
    return brief(found[0]) | {"sidecar_sha256": found[1]} if held == sorted(names) else None


def built_size(scan: dict, source: Source) -> int | None:
    """The size that a source had when it was built, None where it was read by other files than the one of its name."""
    return next((file[1] for file in scan["files"] if file[0] == source.path), None)


def _find_changed(sidecar: dict, by_name: dict) -> list[str]:
    messages = []
    for scan in sidecar["scans"]:
        source = by_name.get(scan["name"])
        size = None if source is None else built_size(scan, source)
        if size is not None and source.size != size:
            messages.append(
                f"{scan['name']}: {source.path} has {source.size} bytes, {size} when it was built; the old sequences "
                "stay: build into another --out to take the change"
            )
    return messages


def _extend(plan: list[list[str]], sidecars: dict[int, dict], by_name: dict, inputs: Inputs) -> list[list[str]]:
    """New shards for scans that no shard has, and for those that failed before and can be used now."""
    if inputs.plan and not plan:
        return [list(names) for names in inputs.plan]
    planned = {name for names in plan for name in names}
    failed = {scan["name"] for sidecar in sidecars.values() for scan in sidecar["failed"]}
    built = {scan["name"] for sidecar in sidecars.values() for scan in sidecar["scans"]}
    waiting = {name for number, names in enumerate(plan) if number not in sidecars for name in names}
    again = [name for name in sorted(failed - built - waiting) if name in by_name and _can_use(by_name[name], inputs)]
    new = sorted([name for name in by_name if name not in planned] + again)
    size = inputs.config.scans_per_shard
    return [new[i : i + size] for i in range(0, len(new), size)]


def _can_use(source: Source, inputs: Inputs) -> bool:
    kind = kind_of(inputs.kind)
    try:
        kind.probe(source, inputs.config)
    except kind.UNUSABLE:
        return False
    return True


def build_content(identity: dict, plan: list[list[str]]) -> bytes:
    """The content of build.json: what must be equal for a build to be continued, and its plan."""
    return seal({"format": FORMAT, "version": VERSION, "gen4d": __version__, **identity, "plan": plan})
