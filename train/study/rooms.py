"""The rooms of a study: scans to pre-train on, and labelled ones to learn from and to be judged on.

    tuning    of the first three stages; judged on validation rooms
    final     of the comparison; judged on test rooms

Built-in rooms are of two seeds, so that nothing is shared. Of your own, both learn from the same rooms; test rooms are
the data set's validation part, or else a quarter of the rooms, and validation rooms a quarter of the others. Neither is
pre-trained on. Which rooms are drawn depends on their names alone.

<out>/tuning, final/samples, sequences    built-in rooms, as `gen4d samples` and `gen4d build` make them
<out>/tuning, final/moving                shapes that move through judged rooms, for probes alone
<out>/sequences, lists/*.txt              your own
"""

import hashlib
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from gen4d import building, files, sources
from gen4d.samples import SamplesWritten, write_samples
from train.errors import Refused
from train.inputs.labels import SceneError, table_of
from train.inputs.prepared import is_prepared
from train.inputs.subsets import find_part, nested_rooms, place_of, room_of
from train.study.plan import Study

SIDES = ("tuning", "final")
_EACH = (SIDES, SIDES[::-1])  # a side and the other one
_SHARE = 25.0  # of rooms: for testing, and of the others for validation
_MOVING = 4  # sequences a judged scan
_FEW, _FEW_ROOMS = 4, 10  # scans, and built-in rooms, to measure what steps cost


class StudyError(Refused):
    """A study that cannot go on; the message says why and what to do."""


class Given(NamedTuple):
    """Folders of the user's own: scans to pre-train on, labelled scans, shapes to move (by default built-in ones), and
    a manifest of them. Without scans: built-in rooms."""

    scans: pathlib.Path | None = None
    labels: pathlib.Path | None = None
    shapes: pathlib.Path | None = None
    manifest: pathlib.Path | None = None


class Rooms(NamedTuple):
    """Of one side: the data set to pre-train on, the folder of labelled scans, files with the names of those to learn
    from and to be judged on, a digest of all that is labelled, and shapes that move through built-in rooms that are
    judged on."""

    sequences: pathlib.Path
    labelled: pathlib.Path
    learned: pathlib.Path
    judged: pathlib.Path
    digest: str
    moving: pathlib.Path | None = None


class Few(NamedTuple):
    """Rooms to measure steps on; what share of a study's sequences they have, and how many scans it judges a net on."""

    rooms: dict[str, Rooms]
    share: float
    judged: float


def make_rooms(
    study: Study, given: Given, out: pathlib.Path, processes: int, say: Callable[[str], None]
) -> dict[str, Rooms]:
    """Rooms of both sides, made where they are not there yet.

    Raises StudyError, and what reading and building raise."""
    if given.scans is not None:
        return _own(study, given, out, processes, say)
    written = {}
    for side in SIDES:
        say(f"{out / side}: {study.rooms} built-in rooms")
        written[side] = _write(study, out, side, processes).digest
    return {side: _built_in(study, out, side, other, written[side], processes, say) for side, other in _EACH}


def make_few(study: Study, given: Given, out: pathlib.Path, processes: int, say: Callable[[str], None]) -> Few:
    """What it takes to measure steps: sequences of a few scans, or a few built-in rooms of one side, for both.

    Raises what `make_rooms` raises."""
    if given.scans is not None:
        rooms = _own(study, given, out, processes, say, few=True)
        every = len(_listed(out / "lists" / "pretrain.txt"))
        return Few(rooms, min(1.0, _FEW / every), max(len(_listed(side.judged)) for side in rooms.values()))
    some = replace(study, rooms=min(study.rooms, _FEW_ROOMS))
    written, share = _write(some, out, SIDES[0], processes), some.rooms / study.rooms
    made = _built_in(some, out, SIDES[0], SIDES[0], written.digest, processes, say)
    return Few(dict.fromkeys(SIDES, made), share / len(SIDES), len(_listed(made.judged)) / share)


def _listed(path: pathlib.Path) -> list[str]:
    return path.read_text().split()


def _write(study: Study, out: pathlib.Path, side: str, processes: int) -> SamplesWritten:
    seed = study.samples_seed + SIDES.index(side)
    return write_samples(out / side / "samples", study.rooms, seed=seed, workers=max(processes, 1))


def _built_in(study: Study, out: pathlib.Path, side: str, other: str, digest: str, processes: int, say) -> Rooms:
    """Rooms of a side, whose samples are there, as the other side's are: shapes that probes ask for are those, which
    nothing was pre-trained on."""
    samples, sequences, moving = (out / side / name for name in ("samples", "sequences", "moving"))
    learned, judged = (samples / "scans" / f"scannetv2_{part}.txt" for part in ("train", "val"))
    shapes, others = (out / one / "samples" / "shapes" for one in (side, other))
    _build(samples / "scans", shapes, sequences, processes, say, sequences=study.sequences, split=learned)
    _build(samples / "scans", others, moving, processes, say, sequences=_MOVING, split=judged)
    return Rooms(sequences, samples / "scans", learned, judged, digest, moving)


def _build(scans, shapes, out: pathlib.Path, processes: int, say, **given) -> None:
    def progress(state: building.Progress) -> None:
        if state.stage == "compiling":
            say("compiling kernels (once)")

    made = building.build_dataset(scans, shapes, out, workers=max(processes, 1), note=say, progress=progress, **given)
    if made.refused:
        say(f"{len(made.refused)} files cannot be used, and all arms do without them (first: {made.refused[0]})")


# The user's own ------------------------------------------------------------------------------------------------------


def _own(study: Study, given: Given, out: pathlib.Path, processes: int, say, few: bool = False) -> dict[str, Rooms]:
    if is_prepared(given.labels):
        raise StudyError(f"{given.labels}: holds prepared scans, whose parts are fixed: give the folder of raw ones")
    train, test = _labelled(given.labels)
    table_of(train[0].entry, study.label_space)  # refused now, not after hours of building
    names = [scan.name for scan in train]
    if not test:
        names, tested = _drawn(given.labels, names)
    else:
        tested = [scan.name for scan in test]
    learned, validated = _drawn(given.labels, names)
    unlabelled = [scan.name for scan in sources.find_scans(given.scans).sources]
    judged = {room_of(name) for name in (*tested, *validated)}
    seen = [name for name in unlabelled if room_of(name) not in judged]
    if not seen:
        raise StudyError(f"{given.scans}: all {len(unlabelled)} scans are judged on: give scans of other rooms as well")
    lists = {"pretrain": seen, "learned": learned, "validation": validated, "test": tested}
    place = out / "lists"
    files.make_folder(place)
    for name, members in lists.items():
        files.write(place / f"{name}.txt", "".join(f"{member}\n" for member in members).encode())
    say(", ".join(f"{len(members)} scans {name}" for name, members in lists.items()))
    shapes = given.shapes
    if shapes is None:
        write_samples(out / "furniture", rooms=0)
        shapes = out / "furniture" / "shapes"
    if few:
        files.write(place / "few.txt", "".join(f"{name}\n" for name in seen[:_FEW]).encode())
    chosen = {"sequences": study.sequences, "split": place / ("few.txt" if few else "pretrain.txt")}
    _build(given.scans, shapes, out / "sequences", processes, say, **chosen)
    by_name = {scan.name: scan for scan in (*train, *test)}
    digest = _digest(by_name[name] for name in (*learned, *validated, *tested))
    judged_by = {"tuning": "validation", "final": "test"}
    return {
        side: Rooms(out / "sequences", given.labels, place / "learned.txt", place / f"{judge}.txt", digest)
        for side, judge in judged_by.items()
    }


def _labelled(folder: pathlib.Path) -> tuple[Sequence[sources.ScanSource], Sequence[sources.ScanSource]]:
    """The data set's own training and validation part; all scans and none where it has no such parts."""
    try:
        for part in ("train", "val"):
            place_of(folder, part)
    except SceneError:
        found = sources.find_scans(folder)
        if found.refused:
            raise StudyError(found.refused[0][1]) from None
        return found.sources, ()
    train, test = (find_part(folder, part).scans for part in ("train", "val"))
    return train, test


def _drawn(folder: pathlib.Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Scans of most rooms, and those of a quarter of the rooms. Raises StudyError."""
    rooms = {room_of(name) for name in names}
    if len(rooms) < 2:
        raise StudyError(
            f"{folder}: {len(rooms)} labelled rooms left to learn from: rooms to learn from, for validation and for "
            "testing are needed, of each one at least: label more"
        )
    apart = nested_rooms(rooms, _SHARE, 0)
    return [n for n in names if room_of(n) not in apart], [n for n in names if room_of(n) in apart]


def _digest(scans: Iterable[sources.ScanSource]) -> str:
    """SHA-256 over the names and files of labelled scans."""
    digest = hashlib.sha256()
    for scan in scans:
        for role, path in sorted(scan.files.items()):
            digest.update(f"{scan.name} {role} {files.sha256(scan.root / path)}\n".encode())
    return digest.hexdigest()
