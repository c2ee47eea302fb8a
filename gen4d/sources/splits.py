"""Which of the scans or shapes found are used: a list file, the data set's own list, or its default part."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gen4d.sources.entries import Entry
from gen4d.sources.manifest import Hit
from gen4d.sources.source import SourceError, read_file

EVERY = Path("*")  # in the place of a list: all that is there, whatever lists and parts say
_SHOWN = 20
_SUFFIXES = frozenset(".ply .pcd .npz .npy .off .obj .glb .gltf .stl .txt .xyz .csv .las .laz .e57 .pth .zip".split())


class Chosen(NamedTuple):
    """hits that are used, what the user should know, and the list file that chose them (empty: none)."""

    hits: list[Hit]
    warnings: tuple[str, ...]
    split: str = ""


def read_split(path: Path) -> tuple[str, ...]:
    """The names that a list file holds, one a line, in its order and each once, as they stand there.

    Blank lines and lines that start with # are skipped. Raises SourceError.
    """
    content, _ = read_file(path.parent, path.name)
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise SourceError(
            path, "is not a list of names, one per line, in UTF-8: give another file to --split"
        ) from None
    names = [line for line in lines if line and not line.startswith("#")]
    if not names or any("\0" in name for name in names):
        raise SourceError(path, "holds no names: give --split a file with one name per line")
    return tuple(dict.fromkeys(names))


def find_listed(listed: Iterable[str], paths: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Which of some things each listed name means, for (name, path) of each: listed -> name, absent where none is.

    A listed name is a thing's name, its path or its file's name. One that is none of these may have folders in front,
    and then the suffix of a file behind: `scene0000_00.ply` means the folder `scene0000_00`, but `office.2019` never
    means `office`, since `.2019` is no suffix of files.
    """
    paths = [(name, path, path.rsplit("/", 1)[-1]) for name, path in paths]
    files = Counter(file for _, _, file in paths)
    known = {file: name for name, _, file in paths if files[file] == 1}
    known |= {path: name for name, path, _ in paths} | {name: name for name, _, _ in paths}
    found = {}
    for text in listed:
        last = text.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
        stem, dot, suffix = last.rpartition(".")
        whole = [text, last] + ([stem] if dot + suffix.lower() in _SUFFIXES else [])
        if meant := next((known[one] for one in whole if one in known), None):
            found[text] = meant
    return found


def choose_split(folder: Path, entry: Entry, hits: list[Hit], split: Path | None) -> Chosen:
    """The hits that are used for scans: those that `split` lists, or the data set's own training list where there is
    one, or its default part, or all. Raises SourceError where a list chooses none of them."""
    if split == EVERY:
        return Chosen(hits, ())
    if split is not None:
        part = [hit for hit in hits if hit.groups.get("part") == str(split)]
        if part and not Path(split).is_file():
            return Chosen(part, ())
        return _by_list(folder, hits, _list_of(folder, entry, Path(split)))
    if default := next((item for item in entry.splits.values() if item.default), None):
        for place in entry.places:
            if (folder / place / default.file).is_file():
                return _by_list(folder, hits, folder / place / default.file)
    chosen = default_part(folder, entry, hits)
    apart = any("part" in hit.groups for hit in hits) or folder.absolute().name in entry.splits
    if default and len(chosen.hits) == len(hits) and not apart:
        included = "so validation scans are included: give --split to leave them out"
        note = f"{folder}: no {default.file} beside the scans, {included}"
        return Chosen(hits, (note,))
    return chosen


def _list_of(folder: Path, entry: Entry, split: Path) -> Path:
    """The file that `split` names: a path, or one of the data set's own splits, "val". Raises SourceError."""
    if split.is_file() or (split.exists() and str(split) not in entry.splits):
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


def default_part(folder: Path, entry: Entry, hits: list[Hit]) -> Chosen:
    """Only the hits of the entry's default part, where there are such parts."""
    part = entry.default_part
    kept = [hit for hit in hits if hit.groups.get("part") == part]
    if not part or not kept or len(kept) == len(hits):
        return Chosen(hits, ())
    others = sorted({hit.groups.get("part", "") for hit in hits} - {part})
    note = f"{folder}: only {part}/ is used ({len(kept)}); {', '.join(others)} ({len(hits) - len(kept)}) is left out"
    return Chosen(kept, (note,))


def _by_list(folder: Path, hits: list[Hit], path: Path) -> Chosen:
    names = read_split(path)
    found = find_listed(names, ((hit.name, hit.path) for hit in hits))
    if not found:
        raise SourceError(
            folder,
            f"holds none of the {len(names)} names of {path} (first: {names[0]}; here: {hits[0].name}): "
            "give another folder or --split",
        )
    wanted = set(found.values())
    kept = [hit for hit in hits if hit.name in wanted]
    return Chosen(kept, missing_names(folder, path, names, found), str(path))


def missing_names(folder: Path, path: Path, names: tuple[str, ...], found: dict[str, str]) -> tuple[str, ...]:
    """A warning that counts and names what a list has and a folder has not, or none."""
    missing = [name for name in names if name not in found]
    if not missing:
        return ()
    first = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    return (f"{path}: {len(missing)} of {len(names)} names are not in {folder}: {first}",)
