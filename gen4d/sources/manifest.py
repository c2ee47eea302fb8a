"""Which data sets there are, and which of them a folder is: `datasets_manifest.yaml` of gen4d and users' own."""

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gen4d.files import is_litter
from gen4d.sources.entries import UNKNOWN, Entry, HeightRange, Layout, Manifest, load_manifest
from gen4d.sources.source import SourceError

_PACKAGE = Path(__file__).resolve().parents[1]
_NAME = "datasets_manifest.yaml"
_PLACES = (_PACKAGE / _NAME, _PACKAGE.parent / _NAME)
_added: dict[Path, Manifest] = {}  # of users, by file, in the order in which they were added


class Hit(NamedTuple):
    """A path below the folder that a layout matched; `parent`: where its files lie, relative to the folder."""

    path: str
    parent: str
    name: str
    groups: Mapping[str, str]
    layout: Layout


@functools.lru_cache(maxsize=1)
def _own() -> Manifest:
    """The manifest in the package (installed) or at the repository's root."""
    for place in _PLACES:
        if place.is_file():
            return load_manifest(place)
    raise SourceError(_PLACES[0], "is missing: install gen4d again")


def manifest() -> Manifest:
    """All that is known: users' own data sets, label spaces and heights first, then gen4d's; of two of one name the
    user's counts, and of two of the user's the later one. Raises SourceError if gen4d's own is not whole."""
    return _merged(tuple(_added.values()))


@functools.lru_cache(maxsize=4)
def _merged(added: tuple[Manifest, ...]) -> Manifest:
    spaces, heights, names, entries = {}, {}, {}, {}
    for one in (*reversed(added), _own()):
        entries = entries | {entry.name: entry for entry in one.entries if entry.name not in entries}
        spaces = spaces | {name: space for name, space in one.label_spaces.items() if name not in spaces}
        heights = dict(one.heights) | heights
        names = dict(one.names) | names
    for entry in entries.values():
        if entry.label_space not in ("", UNKNOWN, *spaces):
            where = next((path for path, one in _added.items() if entry in one.entries), _PLACES[0])
            text = f"data set {entry.name!r}: label_space {entry.label_space!r} is none of {', '.join(spaces)}: add it"
            raise SourceError(where, text)
    return Manifest(spaces, heights, names, tuple(entries.values()))


def add_manifest(path: Path) -> None:
    """From now on this process knows what a user's own manifest declares, in the form of gen4d's. Raises SourceError
    where it is wrong, or where another file that was added declares a data set of one name otherwise."""
    path = Path(path).absolute()
    found = load_manifest(path)
    for other, one in _added.items():
        both = {entry.name: entry for entry in one.entries}
        for entry in found.entries:
            if other != path and both.get(entry.name, entry) != entry:
                raise SourceError(path, f"declares {entry.name!r}, which {other} declares otherwise: rename one")
    before = dict(_added)
    _added[path] = found
    try:
        manifest()
    except SourceError:
        _added.clear()
        _added.update(before)
        raise


def add_glob(pattern: str) -> None:
    """From now on this process takes what a pattern finds below a folder for its scans, `**/*.ply` for example, each
    named after its path. Raises SourceError."""
    if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
        raise SourceError("--glob", f"{pattern!r} is not a pattern below the folder of scans, like **/*.ply")
    layout = Layout((pattern,), re.compile(r"(?P<name>.+)\.[^./]+"))
    general = {"built": True, "units": "m", "up": "z", "home": "yours", "terms": "yours", "label_space": UNKNOWN}
    entry = Entry(name="glob", title=f"files found by {pattern}", role="scans", layouts=(layout,), **general)
    _added[Path("--glob")] = Manifest({}, {}, {}, (entry,))


def add_height(text: str) -> None:
    """From now on this process scales shapes of a class to a range of heights in metres: "robot=0.5:0.6", over what
    manifests say. Raises SourceError."""
    name, _, numbers = text.partition("=")
    low, _, high = numbers.partition(":")
    try:
        found = HeightRange(float(low), float(high or low))
        fits = 0 < found.low <= found.high < 10
    except ValueError:
        fits = False
    if not name.strip() or not fits:
        wanted = "NAME=LOW:HIGH in metres, rising and below 10: write robot=0.5:0.6 for example"
        raise SourceError("--height", f"{text!r} is not {wanted}")
    name = class_name_of(name)
    _added[Path(f"--height {name}")] = Manifest({}, {name: (found,)}, {name: name}, ())


def added_manifests() -> dict[Path, Manifest]:
    """What this process knows besides gen4d's own data sets: for one that works for it."""
    return dict(_added)


def know_manifests(added: Mapping[Path, Manifest]) -> None:
    """Know what another process knows, and nothing else."""
    if _added != added:
        _added.clear()
        _added.update(added)


def forget_manifests() -> None:
    """Know gen4d's own data sets alone again."""
    _added.clear()


def entry_of(name: str) -> Entry:
    """The entry of that name. Raises SourceError."""
    for entry in manifest().entries:
        if entry.name == name:
            return entry
    raise SourceError("datasets_manifest.yaml", f"has no data set {name!r}")


def class_name_of(text: str) -> str:
    """The class of the manifest that people mean by a name: `Chairs` is chair, `NightStand` and `night stand` are
    night_stand, `couch` is sofa. A name that means none of them stays as it is."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]+", "_", text.strip()).lower()
    known = manifest().names
    return next(
        (known[name] for name in (words, words.removesuffix("s"), words.removesuffix("es")) if name in known), text
    )


def entry_units(name: str) -> str:
    """The unit that the manifest declares for a data set, "" where it has none."""
    return entry_of(name).units


def height_ranges(class_name: str) -> tuple[HeightRange, ...]:
    """The metric heights that shapes of a class are scaled to, none for a class that is not known."""
    return manifest().heights.get(class_name_of(class_name), ())


def recognise(folder: Path, role: str) -> tuple[Entry, list[Hit]]:
    """The first data set of a role whose layout `folder` has, and its hits sorted by path.

    One whose scans have their points goes before one whose scans lack them. No file is opened, except for a manifest
    of the user's in the folder, `datasets_manifest.yaml`, which is added. Raises SourceError where the folder is none,
    cannot be listed, or nothing in it matches.
    """
    if not folder.is_dir():
        raise SourceError(folder, "is not a folder, or does not exist: give the folder that holds the data")
    if (folder / _NAME).is_file() and not any(os.path.samefile(folder / _NAME, one) for one in _PLACES if one.exists()):
        add_manifest(folder / _NAME)
    partial = None
    for entry in manifest().entries:
        if entry.role != role:
            continue
        hits = match(folder, entry)
        if any(has_points(folder, hit) for hit in hits):
            return entry, hits
        if hits and partial is None:
            partial = entry, hits
    if partial is None:
        raise SourceError(folder, _nothing_found(folder, role))
    return partial


def match(folder: Path, entry: Entry) -> list[Hit]:
    """What `entry`'s layouts find in `folder`: the hits of the first layout that finds any."""
    if entry.marker and not any((folder / place / entry.marker).is_file() for place in (".", "..")):
        return []
    for layout in entry.layouts:
        found = {}
        for pattern in layout.find:
            for path in _glob(folder, pattern):
                relative = path.relative_to(folder).as_posix()
                matched = layout.path.fullmatch(relative)
                if matched and not is_litter(relative):
                    found[relative] = _hit(path, relative, matched, layout)
        hits = [found[relative] for relative in sorted(found)]
        if layout.files:  # which say what counts where several files of one scan match
            hits = list({(hit.parent, hit.name): hit for hit in reversed(hits)}.values())[::-1]
        if hits:
            return hits
    return []


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise SourceError(folder, f"{pattern!r} is not a pattern of files ({error}): use *, ? and **/ alone") from error
    except OSError as error:
        raise SourceError(folder, f"cannot be listed ({error.strerror or error}): check its permissions") from error


def _hit(path: Path, relative: str, matched: re.Match, layout: Layout) -> Hit:
    groups = {name: value for name, value in matched.groupdict().items() if value is not None}
    if "name" not in groups and layout.recorded:
        groups["name"] = path.resolve().parents[relative.count("/")].name
    parent = relative if layout.files and path.is_dir() else str(Path(relative).parent.as_posix())
    return Hit(relative, parent, layout.name.format_map(groups).replace("/", "_"), groups, layout)


def has_points(folder: Path, hit: Hit) -> bool:
    """Whether the points (or the mesh) of a hit are there."""
    return not hit.layout.files or "points" in files_of(folder, hit)


def files_of(folder: Path, hit: Hit, listed: dict[str, set[str]] | None = None) -> dict[str, str]:
    """Role -> path relative to `folder`, of those files of a hit that are there. listed: what lies in the folder of the
    last hit, kept between calls: where thousands of scans lie in one folder it is not listed for each."""
    if not hit.layout.files:
        return {"points": hit.path}
    listed = {} if listed is None else listed
    if hit.parent not in listed:
        listed.clear()
        try:  # pathlib is half of the time of 100,000 scans
            listed[hit.parent] = set(os.listdir(os.path.join(folder, hit.parent)))
        except OSError:
            listed[hit.parent] = set()
    present = listed[hit.parent]
    files = {}
    for role, templates in hit.layout.files.items():
        names = (template.format_map({"name": hit.name, **hit.groups}) for template in templates)
        if name := next((name for name in names if name in present), None):
            files[role] = name if hit.parent == "." else f"{hit.parent}/{name}"
    return files


def _nothing_found(folder: Path, role: str) -> str:
    for entry in manifest().entries:
        if entry.role != role and match(folder, entry):
            options = {
                "shapes": "--shapes",
                "pointsets": "--shapes of --kind views",
                "scans": "--scans of --kind moving",
            }
            option = options.get(entry.role, f"--scans of --kind {entry.role}")
            how = f"give it as {option}, or another folder" if entry.built else entry.note
            return f"holds no {role}, it looks like {entry.title}: {how}"
    known = ", ".join(dict.fromkeys(entry.title for entry in manifest().entries if entry.built and entry.role == role))
    below = [path.relative_to(folder).as_posix() for path in _glob(folder, "*/*/*.pl[y]")]
    deeper = sorted({path.rpartition("/")[0] for path in below if not is_litter(path)})[:3]
    give = f"; there are .ply files in {', '.join(deeper)}: give that folder, or --glob '**/*.ply'"
    hint = give if deeper and role == "scans" else ""
    hint = "; any other folder can be described in a gen4d.yaml in it" if role in ("frames", "sweeps") else hint
    return f"holds no {role} that gen4d knows (it looked for: {known}){hint}"
