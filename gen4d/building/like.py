"""A published data set built again: its recipe read, one's own inputs compared with it, and the result.

What may not be passed on can be reproduced: dataset.json and build.json hold the config and the plan, the .json of each
shard the hash of every file that was read. Equal inputs give equal shards, and so the same hash.
"""

import collections
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from gen4d import __version__, files
from gen4d.building.errors import BuildError
from gen4d.building.inputs import Found, Given, Inputs
from gen4d.building.kinds import find_inputs, kind_of
from gen4d.building.plan import Part, built_size
from gen4d.config import BUILT, GENERATOR, AnyConfig, ConfigError, difference, make_config, to_plain, versions
from gen4d.shards.format import FormatError, unseal
from gen4d.shards.home import Home, LocalHome, find_home
from gen4d.shards.manifest import read_manifest, read_sidecar, sidecar_name
from gen4d.sources import SourceError
from gen4d.sources.source import file_size
from gen4d.sources.splits import EVERY

_NAMES = ("dataset.json", "build.json")
_SHOWN = 5
_WIDE = 300


class LikeError(BuildError):
    """A data set that cannot be built again, or not from these inputs; the message names what and the remedy."""


class Published(NamedTuple):
    """The recipe of a data set: where it lies, what its dataset.json says, that file's hash, its kind and config, and
    the names of the scans of each shard."""

    home: Home
    manifest: dict
    digest: str
    kind: str
    config: AnyConfig
    plan: tuple[tuple[str, ...], ...]

    @property
    def where(self) -> str:
        """Path or URL of its dataset.json."""
        return self.home.where("dataset.json")


def read_published(place: str) -> Published:
    """The recipe of a data set, given by its folder, its dataset.json or its build.json, a path or a URL.

    Raises FormatError where there is none, LikeError where this gen4d cannot build it.
    """
    folder, _, name = place.rpartition("/")
    home = find_home((folder or ("/" if place.startswith("/") else ".")) if name in _NAMES else place)
    manifest, digest = read_manifest(home)
    where = home.where("dataset.json")
    if "exported" in manifest:
        raise LikeError(f"{where}: is of an export: give the data set that it was exported from")
    if manifest.get("generator") is None:
        raise LikeError(f"{where}: other code than gen4d build made these sequences: there is nothing to repeat")
    if manifest["generator"] != GENERATOR:
        raise LikeError(
            f"{where}: made by generator {manifest['generator']} of gen4d {manifest['gen4d']}, this is generator "
            f"{GENERATOR} of gen4d {__version__}: use a release of gen4d with the same generator"
        )
    kind = manifest.get("kind", "moving")
    if kind not in BUILT:
        raise LikeError(f"{where}: kind = {kind!r}: one of {', '.join(BUILT)}: update gen4d")
    return Published(home, manifest, digest, kind, _config(where, kind, manifest["config"]), _plan(home, manifest))


def _config(where: str, kind: str, plain: dict) -> AnyConfig:
    try:
        config = make_config(kind_of(kind).CONFIGS[kind], **{name: _tuples(value) for name, value in plain.items()})
    except (ConfigError, TypeError, IndexError) as error:
        raise LikeError(f"{where}: its config is none of this gen4d ({error}): use the release that wrote it") from None
    if odd := difference(plain, to_plain(config)):
        raise LikeError(f"{where}: its config differs from this gen4d's ({odd[0]}): use the release that wrote it")
    return config


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _plan(home: Home, manifest: dict) -> tuple[tuple[str, ...], ...]:
    """Names of the scans of each shard: of build.json or, where no scan failed, of dataset.json alone."""
    where = home.where("build.json")
    built = [[name for name, _ in shard["scans"]] for shard in manifest["shards"]]
    try:
        stored = unseal(home.read("build.json"), where)
    except FileNotFoundError:
        if manifest.get("failed") or not all(built):
            raise LikeError(
                f"{where}: not there, and only it says which shards the scans that failed belong to: publish it too"
            ) from None
        plan = built
    else:
        plan = stored.get("plan")
        same = all(stored.get(name) == manifest[name] for name in ("gen4d", "config", "shapes"))
        if not same or not _is_plan(plan, built):
            raise LikeError(f"{where}: is of another build than dataset.json: publish both of one data set")
    counts = collections.Counter(name for shard in plan for name in shard)
    if twice := sorted(name for name in counts if counts[name] > 1):
        raise LikeError(
            f"{where}: scan {twice[0]} failed at first and was built later, which no fresh build repeats: build the "
            "data set anew in another folder, and publish that"
        )
    return tuple(map(tuple, plan))


def _is_plan(plan: object, built: list[list[str]]) -> bool:
    """Whether a plan is one, and has each shard's scans, in their order, beside those that failed."""
    if not isinstance(plan, list) or len(plan) != len(built):
        return False
    whole = all(isinstance(shard, list) and all(isinstance(name, str) for name in shard) for shard in plan)
    return whole and all(
        [name for name in shard if name in names] == names for shard, names in zip(plan, built, strict=True)
    )


# One's own inputs -----------------------------------------------------------------------------------------------------


def find_like(published: Published, scans: pathlib.Path | None, shapes: pathlib.Path | None) -> Found:
    """The inputs of a build that repeats the published one: its scans alone, its config, its plan.

    Raises SourceError, ConfigError, GivenError as any build does, and LikeError where scans are missing.
    """
    config = published.config
    heights: dict[str, list] = {}
    for name, *row in getattr(config, "height_m", ()):
        heights.setdefault(name, []).append(row)
    given = Given(scans, shapes, EVERY, heights=heights if published.kind == "moving" else None)
    found = find_inputs(published.kind, given, config)
    wanted = {name for names in published.plan for name in names}
    there = tuple(source for source in found.inputs.scans if source.name in wanted)
    missing = sorted(wanted - {source.name for source in there})
    if missing:
        folder = shapes if published.kind == "views" else scans
        why = f"; refused here: {found.refused[0]}" if found.refused else ""
        raise LikeError(
            f"{folder}: lacks {_listed(missing)}, {len(missing)} of the {len(wanted)} that {published.where} was built "
            f"from{why}"
        )
    inputs = dataclasses.replace(found.inputs, scans=there, config=config, plan=published.plan)
    return Found(inputs, tuple(_notes(published, found.inputs)), ())


def _notes(published: Published, inputs: Inputs) -> Iterator[str]:
    """What may give other bytes than those published: other versions, and folders of other data sets."""
    there = {"gen4d": published.manifest["gen4d"]} | published.manifest["versions"]
    here = {"gen4d": __version__} | versions()
    if other := [
        f"{name} {there.get(name)} there, {here[name]} here" for name in here if there.get(name) != here[name]
    ]:
        yield f"published with other versions, which may give other bytes: {', '.join(other)}"
    told = published.manifest.get("sources", [])
    for one in inputs.origins():
        theirs = [other for other in told if other["role"] == one["role"]]
        if theirs and one["name"] not in [other["name"] for other in theirs]:
            titles = " and ".join(other["title"] for other in theirs)
            yield f"{one['role']} look like {one['title']} here, and like {titles} when they were published"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def find_differences(published: Published, found: Found, part: Part | None = None) -> Iterator[str]:
    """What of the inputs differs from what was published, one line each, of a part what its shards are built from.

    Files are compared by their hashes, where the shards' .json are published too, of frames and sweeps their number
    alone. Of shapes that no sequence has, only their number and total are known.
    """
    inputs = found.inputs
    here = inputs.identity()["shapes"]
    by_name, roots = {source.name: source for source in inputs.scans}, sorted({shape.root for shape in inputs.shapes})
    lines_of = functools.cache(_file_lines)  # scans share tables, and shapes files
    odd: set[str] = set()  # shapes
    for number in range(len(published.plan)):
        sidecar = _sidecar(published, number) if part is None or part.owns(number) else None
        for scan in sidecar["scans"] if sidecar else ():
            source = by_name[scan["name"]]
            if published.kind not in ("frames", "sweeps"):
                lines = [line for file in scan["files"] for line in lines_of(source.root, *file)]
            elif source.size != (size := built_size(scan, source)):
                lines = [f"{source.path} has {source.size} frames or bytes here, {size} when it was published"]
            else:
                lines = []
            yield from (f"scan {source.name}: {line}" for line in lines)
        for file in sidecar["shapes"] if sidecar and roots else ():
            new = set(lines_of(roots[0], *file)) - odd
            odd |= new
            yield from (f"shape {line}" for line in new)
    if not odd and (there := published.manifest["shapes"]) != here:
        yield (
            f"shapes: {here['files']} of other names or sizes than the {there.get('files')} that were published; draws "
            "depend on all of them, also on those that no sequence has"
        )


def _file_lines(root: pathlib.Path, path: str, size: int, digest: str) -> tuple[str, ...]:
    """What is wrong with one's own copy of a file, in a line, or nothing."""
    try:
        mine = file_size(root, path)
    except SourceError:
        return (f"{path} is not there in {root}",)
    if mine != size:
        return (f"{root / path} has {mine} bytes, {size} when it was published",)
    found = files.sha256(root / path)
    if found != digest:
        return (
            f"{root / path} has another content than when it was published: SHA-256 {found[:12]}, not {digest[:12]}",
        )
    return ()


def _sidecar(published: Published, number: int) -> dict | None:
    """What a published shard's .json says, None where it was not published. Raises FormatError."""
    where = published.home.where(sidecar_name(number))
    try:
        content = published.home.read(sidecar_name(number))
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != published.manifest["shards"][number]["sidecar_sha256"]:
        raise FormatError(f"{where}: is of another build than dataset.json: publish both of one data set")
    sidecar = unseal(content, where)
    try:
        rows = [row for scan in sidecar["scans"] for row in scan["files"]] + sidecar["shapes"]
        kinds = all(list(map(type, row)) == [str, int, str] for row in rows)
        names = [scan["name"] for scan in sidecar["scans"] if scan["files"]]
    except (KeyError, TypeError):
        kinds, names = False, []
    if not kinds or names != [name for name, _ in published.manifest["shards"][number]["scans"]]:
        raise FormatError(f"{where}: does not say what its scans were read from: not written by gen4d build")
    return sidecar


# The result -----------------------------------------------------------------------------------------------------------


def compare(published: Published, out: pathlib.Path) -> tuple[bool, str]:
    """Whether all shards of the data set in a folder are those that were published, and in words the hash that both
    have, or the first difference."""
    manifest, digest = read_manifest(LocalHome(out))
    for number, (there, here) in enumerate(zip(published.manifest["shards"], manifest["shards"], strict=True)):
        if there != here:
            return False, f"shard {number:05d}: {_first_difference(published, out, number)}"
    if digest == published.digest:
        return True, digest
    odd = [name for name in manifest if manifest[name] != published.manifest.get(name)]
    return True, f"every shard's; dataset.json itself differs in {' and '.join(odd) or 'its form'}"


def _first_difference(published: Published, out: pathlib.Path, number: int) -> str:
    """What one shard has that the other has not: a figure of a scan, if possible, or else their hashes."""
    theirs, mine = _sidecar(published, number), read_sidecar(LocalHome(out), number)
    scans = {scan["name"]: scan for scan in mine["scans"]}
    for scan in theirs["scans"] if theirs else ():
        if scan["name"] not in scans:
            error = next((one["error"] for one in mine["failed"] if one["name"] == scan["name"]), "not there")
            return f"scan {scan['name']}: built there, not here: {error}"
        paths = [{file[0] for file in one["files"]} for one in (scan, scans[scan["name"]])]
        if paths[0] != paths[1]:
            there, here = (_listed(sorted(one)) or "nothing" for one in (paths[0] - paths[1], paths[1] - paths[0]))
            return f"scan {scan['name']}: read there alone {there}, read here alone {here}"
        if lines := difference(scan, scans[scan["name"]]):
            return f"scan {scan['name']}: {lines[0][:_WIDE]}"
    figures = ("failed", "unreadable_shapes", "shapes", "content_sha256")
    there, here = ({name: one.get(name) for name in figures} for one in (theirs or {}, mine))
    if not theirs:
        there = {"content_sha256": published.manifest["shards"][number]["content_sha256"]}
        here = {"content_sha256": here["content_sha256"]}
    return next(iter(difference(there, here)), "its .json differs: publish that too to see in what")[:_WIDE]
