"""Which of the scans or shapes found are used: a list file, the data set's own list, or its default part."""

from pathlib import Path
from typing import NamedTuple

from gen4d.sources.manifest import Entry, Hit
from gen4d.sources.source import SourceError, read_file

_SHOWN = 5


class Chosen(NamedTuple):
    """hits that are used, what the user should know, and the list file that chose them (empty: none)."""

    hits: list[Hit]
    warnings: tuple[str, ...]
    split: str = ""


def read_split(path: Path) -> tuple[str, ...]:
    """The names that a list file holds, one a line, in its order and each once.

    Folders and suffixes are cut off, blank lines and lines that start with # skipped. Raises SourceError.
    """
    content, _ = read_file(path.parent, path.name)
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise SourceError(
            path, "is not a list of names, one per line, in UTF-8: give another file to --split"
        ) from None
    names = [line.rsplit("/", 1)[-1].rsplit(".", 1)[0] for line in lines if line and not line.startswith("#")]
    if not names or any("\0" in name for name in names):
        raise SourceError(path, "holds no names: give --split a file with one name per line")
    return tuple(dict.fromkeys(names))


def choose_split(folder: Path, entry: Entry, hits: list[Hit], split: Path | None) -> Chosen:
    """The hits that are used for scans: those that `split` lists, or the data set's own training list where there is
    one, or its default part, or all. Raises SourceError where a list chooses none of them."""
    if split is not None:
        return _by_list(folder, hits, _list_of(folder, entry, Path(split)))
    if default := next((item for item in entry.splits.values() if item.default), None):
        for place in entry.places:
            if (folder / place / default.file).is_file():
                return _by_list(folder, hits, folder / place / default.file)
    chosen = default_part(entry, hits)
    if default and len(chosen.hits) == len(hits) and not any("part" in hit.groups for hit in hits):
        included = "so validation scans are included: give --split to leave them out"
        note = f"{folder}: no {default.file} beside the scans, {included}"
        return Chosen(hits, (note,))
    return chosen


def _list_of(folder: Path, entry: Entry, split: Path) -> Path:
    """The file that `split` names: a path, or one of the data set's own splits, "val". Raises SourceError."""
    if split.exists():
        return split
    if own := entry.splits.get(str(split)):
        for place in entry.places:
            if (folder / place / own.file).is_file():
                return folder / place / own.file
        raise SourceError(
            split, f"is a split of {entry.title} whose list {own.file} is not beside the scans: put it there"
        )
    known = f", or {' or '.join(entry.splits)}" if entry.splits else ""
    raise SourceError(split, f"is not there: give --split the path of a list of names, one a line{known}")


def default_part(entry: Entry, hits: list[Hit]) -> Chosen:
    """Only the hits of the entry's default part, where there are such parts."""
    part = entry.default_part
    kept = [hit for hit in hits if hit.groups.get("part") == part]
    if not part or not kept or len(kept) == len(hits):
        return Chosen(hits, ())
    others = sorted({hit.groups.get("part", "") for hit in hits} - {part})
    note = f"only {part}/ is used ({len(kept)}); {', '.join(others)} ({len(hits) - len(kept)}) is left out"
    return Chosen(kept, (note,))


def _by_list(folder: Path, hits: list[Hit], path: Path) -> Chosen:
    names = read_split(path)
    wanted = set(names)
    kept = [hit for hit in hits if hit.name in wanted]
    if not kept:
        raise SourceError(
            folder,
            f"holds none of the {len(names)} names of {path} (first: {names[0]}; here: {hits[0].name}): "
            "give another folder or --split",
        )
    present = {hit.name for hit in kept}
    missing = [name for name in names if name not in present]
    if not missing:
        return Chosen(kept, (), str(path))
    first = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    return Chosen(kept, (f"{path}: {len(missing)} of {len(names)} names are not in {folder}: {first}",), str(path))
