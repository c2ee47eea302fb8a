"""A build in parts: processes, or array tasks, that share a folder and have no coordinator; and the merge that ends it.

Parts read the same inputs and so compute the same plan. While they run, these keep them apart:

    build.lock     shared by all parts; held alone by a build of the whole, a merge or an export
    part-I.lock    held by part I
    plan.lock      held for a moment: by a part that begins, or extends build.json
    parts.json     N, the number of parts, until the merge
"""

import contextlib
import pathlib
from typing import NamedTuple

from gen4d import files
from gen4d.building import plan
from gen4d.building.inputs import Inputs
from gen4d.building.plan import Part
from gen4d.building.run import clean as clean_all
from gen4d.building.run import finish
from gen4d.shards.format import FormatError, seal, unseal

_LISTED = 20


class PartError(ValueError):
    """A part that cannot be built, or a merge that lacks shards; the message names what and the remedy."""


class Merged(NamedTuple):
    """What a merge found: the content of dataset.json, and of every shard's .json by number."""

    manifest: dict
    sidecars: dict[int, dict]


@contextlib.contextmanager
def joined(out: pathlib.Path, inputs: Inputs, part: Part):
    """The folder, made, while this process alone builds the part.

    Raises PartError where parts of another number of parts run, BusyError where the same part or a build of the whole
    does, BuildError where the folder holds something else; the folder is left as it is then.
    """
    plan.read_build(out, inputs)
    files.make_folder(out)
    with files.shared(out, f"one of {part.of} parts"), contextlib.ExitStack() as held:
        with files.locked(out, "plan.lock", wait=True):
            _agree(out, part)
            held.enter_context(files.locked(out, _lock_name(part.number), f"part {part}, "))
        yield


def _lock_name(number: int) -> str:
    return f"part-{number}.lock"


def _agree(out: pathlib.Path, part: Part) -> None:
    """Make N the number of parts, unless parts of another number run: then two would own one shard."""
    count = read_count(out)
    if count == part.of:
        return
    for number in range(1, (count or 0) + 1):
        if files.is_held(out / _lock_name(number)):
            raise PartError(f"--part {part}: {out} is being built in {count} parts now: give --part I/{count}, or wait")
    files.write(out / "parts.json", seal({"parts": part.of}))


def read_count(out: pathlib.Path) -> int | None:
    """Into how many parts the build in a folder was cut last, if that is known."""
    try:
        return int(unseal((out / "parts.json").read_bytes(), "parts.json")["parts"])
    except (FileNotFoundError, FormatError, KeyError, TypeError, ValueError):
        return None


def clean(out: pathlib.Path, part: Part) -> None:
    """Remove what a killed run of this part left behind, and nothing of the other parts, which may be alive."""
    shards = [path for path in files.leftovers(out / "shards") if part.owns(int(path.name.partition(".")[0]))]
    for path in [*files.own_leftovers(out), *shards]:
        files.remove(path)


def merge(out: pathlib.Path) -> Merged:
    """Write dataset.json over the shards of all parts, exactly as one build of the whole would.

    Raises PartError if shards are missing, and writes nothing; BusyError if parts still run; BuildError if the folder
    holds no build.
    """
    plan.read_plan(out)  # a folder that holds no build is left as it is
    with files.locked(out):
        planned = plan.read_plan(out)
        sidecars = plan.read_done(out, planned)
        missing = [number for number in range(len(planned)) if number not in sidecars]
        if missing:
            raise PartError(_describe_missing(out, missing, len(planned)))
        try:
            clean_all(out)
            return Merged(finish(out, sidecars), sidecars)
        finally:
            with contextlib.suppress(OSError):
                clean_all(out)


def _describe_missing(out: pathlib.Path, missing: list[int], shards: int) -> str:
    count = read_count(out)
    owners = sorted({number % count + 1 for number in missing}) if count else []
    which = _listed([f"{number:05d}" for number in missing])
    again = f" and --part {_listed([f'{owner}/{count}' for owner in owners])}" if owners else ""
    return (
        f"{out}: {len(missing)} of {shards} shards are missing or incomplete: {which}: run gen4d build again with the "
        f"same options{again}, then merge"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
