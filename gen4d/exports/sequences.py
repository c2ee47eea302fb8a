"""Sequences in formats of others: what their files are called, what they will take, and how they get into a folder.

A sequence becomes a file, or a folder of files, that is there whole or not at all, so a killed export is continued by
the same call. How the content of a file comes from a sequence is told by a module per format, which knows no disk.
"""

import hashlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from gen4d import files
from gen4d.exports import glb, npz, ply, pointcept, webdataset
from gen4d.report.summary import format_bytes
from gen4d.sequence import Sequence
from gen4d.shards.dataset import Dataset
from gen4d.shards.format import canonical, seal, unseal

_SCRATCH = "export.tmp"
_TAR_BYTES = 256 << 20
_LONGEST = 120  # bytes of a scan's name in a file's: file systems take 255

Content = bytes | Mapping[str, bytes]  # of a file, or of each file of a folder
Encode = Callable[[str, Sequence, dict], Mapping[str, Content]]


class ExportError(ValueError):
    """An export that cannot be made; the message names what and the remedy."""


class Plan(NamedTuple):
    """What an export will write, and what it takes, by its first sequence."""

    kind: str
    files: tuple[tuple[str, range | tuple[int, ...]], ...]  # the last path of some sequences, and their numbers
    left: int  # sequences that are not there yet, and of these
    bytes: int
    seconds: float  # on one core, without the disk
    note: dict  # whose the folder is


def plan_export(dataset: Dataset, numbers: tuple[int, ...], kind: str, out: pathlib.Path) -> Plan:
    """Say what an export of some sequences, by their numbers, takes. Encodes the first one and writes nothing.

    kind: pointcept, ply, npz, glb or webdataset. Raises ExportError if there is no sequence, or if `out` holds anything
    but an export of the same data set.
    """
    if not numbers:
        raise ExportError(f"{dataset.home.where()}: holds no sequence: gen4d inspect says why")
    _encoded(dataset, numbers[0], kind)  # compiled loops are loaded here
    started = time.perf_counter()
    first = _encoded(dataset, numbers[0], kind)
    size = sum(map(len, webdataset.tar([first]))) if kind == "webdataset" else sum(map(_size, first.values()))
    seconds = time.perf_counter() - started
    names = _tars(numbers, size) if kind == "webdataset" else _last_paths(dataset, numbers, kind)
    note = {"format": kind, "source": dataset.digest}
    if kind == "webdataset":  # whose files hold many sequences each
        note["files"] = hashlib.sha256(canonical({"": names})).hexdigest()
    _check_folder(out, note)
    left = sum(len(some) for path, some in names if not (out / path).exists())
    return Plan(kind, names, left, left * size, left * seconds, note)


def export_sequences(dataset: Dataset, plan: Plan, out: pathlib.Path) -> Iterator[int]:
    """Write what was planned to the folder `out`; yields how many sequences are there after each file of them.

    What an interrupted export of the same data set left there is kept. Raises ExportError if the disk has not enough
    space by the plan, or if `out` holds anything else, and BusyError if another one writes there.
    """
    free = files.free_bytes(out)
    if plan.bytes > free:
        raise ExportError(
            f"{out}: {format_bytes(plan.bytes)} will be written and {format_bytes(free)} are free: free some space, "
            "give another --out, or choose with --sequences or --limit"
        )
    files.make_folder(out)
    with files.locked(out):
        if not _check_folder(out, plan.note):  # again: another one may have begun here
            for path in files.leftovers(out):
                files.remove(path)
            files.write(out / "export.json", seal(plan.note))
        scratch = out / _SCRATCH
        files.remove_folder(scratch)
        files.make_folder(scratch)
        try:
            yield from _export(dataset, plan, out, scratch)
        finally:
            files.remove_folder(scratch)


def check_note(out: pathlib.Path, note: dict) -> bool:
    """Whether a folder has the note that an export left. Raises ExportError if it is another one's."""
    path = out / "export.json"
    if path.exists() and unseal(path.read_bytes(), str(path)) != note:
        raise ExportError(f"{path}: belongs to another data set or was made with other options: give an empty folder")
    return path.exists()


def file_name(text: str) -> str:
    """A name that every file system, shell and archive takes as one plain name, for any text.

    Letters, digits, _ and - stay; anything else is written as %XX of its UTF-8 bytes. Equal only for equal texts.
    """
    name = "".join(c if c.isalnum() or c in "_-" else _quoted(c) for c in text)
    if name.startswith("-"):  # no option of a command
        name = _quoted("-") + name[1:]
    if len(name.encode()) <= _LONGEST:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{name.encode()[: _LONGEST - 17].decode(errors='ignore')}-{digest}"


def _quoted(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


def _named(dataset: Dataset, i: int) -> str:
    scan, _, k = dataset.id_of(i).rpartition("/")
    return f"{file_name(scan)}_{k}"


def _last_paths(dataset: Dataset, numbers: tuple[int, ...], kind: str) -> tuple[tuple[str, tuple[int]], ...]:
    """The path of each sequence that is written last: if it is there, the sequence is."""
    _, last = _format(kind)
    return tuple((last.format(_named(dataset, i)), (i,)) for i in numbers)


def _tars(numbers: tuple[int, ...], size: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names of tars, each with as many sequences as make a file that is neither small nor hard to copy."""
    step = max(1, _TAR_BYTES // size)
    cuts = [numbers[start : start + step] for start in range(0, len(numbers), step)]
    return tuple((f"sequences-{number:06d}.tar", some) for number, some in enumerate(cuts))


def _format(kind: str) -> tuple[Encode, str]:
    """What makes the files of one sequence, and which of their paths is written last, for a name."""
    match kind:
        case "pointcept":
            return pointcept.encode, "train/{}_00"
        case "ply":
            return ply.encode, "{}"
        case "npz":
            return npz.encode, "{}.npz"
        case "glb":
            return glb.encode, "{}.glb"
        case "webdataset":
            return webdataset.encode, ""  # many in a tar
    raise ExportError(f"{kind!r} is no format: take pointcept, ply, npz, glb or webdataset")


def _encoded(dataset: Dataset, i: int, kind: str) -> Mapping[str, Content]:
    sequence = dataset[i]
    return _format(kind)[0](_named(dataset, i), sequence, _about(dataset, i, sequence))


def _about(dataset: Dataset, i: int, sequence: Sequence) -> dict:
    """What a sequence is, as a JSON value."""
    movers = [
        {"shape": mover.shape, "class": mover.class_name, "height_m": _number(mover.height_m)}
        for mover in sequence.movers
    ]
    return {
        "id": sequence.id,
        "scan": sequence.scan,
        "k": sequence.k,
        "kind": sequence.kind,
        "frames": sequence.t,
        "label_space": dataset.label_space(i),
        "match_m": _number(sequence.match_m),
        "movers": movers,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else sum(map(len, content.values()))


def _export(dataset: Dataset, plan: Plan, out: pathlib.Path, scratch: pathlib.Path) -> Iterator[int]:
    done = 0
    for last, numbers in plan.files:
        if not (out / last).exists():
            made = (_encoded(dataset, i, plan.kind) for i in numbers)
            parts = {last: webdataset.tar(made)} if plan.kind == "webdataset" else next(made)
            for path, content in parts.items():
                if not (out / path).exists():
                    files.place(out / path, (content,) if isinstance(content, bytes) else content, scratch)
        done += len(numbers)
        yield done


def _check_folder(out: pathlib.Path, note: dict) -> bool:
    """Whether the folder is of this export already. Raises ExportError if it holds anything else."""
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} is a file: give a folder")
    begun = check_note(out, note)
    if not begun and (odd := files.others(out)):
        raise ExportError(f"{out}: holds other files ({odd[0]}, {len(odd)} in all): give an empty folder")
    return begun
