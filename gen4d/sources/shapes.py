"""Shapes: which there are in a folder, without opening any, and loading one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.articulated import Joint, load_parts
from gen4d.sources.entries import Entry
from gen4d.sources.formats.meshes import read_mesh, sound_mesh
from gen4d.sources.level import up_rotation
from gen4d.sources.manifest import Hit, class_name_of, recognise
from gen4d.sources.source import SourceError, SourceFile, check_name, escaped, file_size, read_file
from gen4d.sources.splits import EVERY, default_part, find_listed, missing_names, read_split

_SHOWN = 20


@dataclass(frozen=True)
class ShapeSource:
    """One mesh: name ("chair_0001", unique in its folder), class_name ("chair"), path relative to `root`, bytes."""

    name: str
    class_name: str
    root: Path
    path: str
    size: int
    entry: str = ""
    up: str = "auto"  # as the manifest declares it for the data set


@dataclass(frozen=True, eq=False)
class MeshSource:
    """One mesh in memory, in the place of a file: vertex (V, 3) in any unit, face (F, 3) rows of it."""

    name: str
    class_name: str
    vertex: np.ndarray
    face: np.ndarray

    @property
    def path(self) -> str:
        """What stands for a file in messages and in the order of shapes."""
        return self.name


AnyShape = ShapeSource | MeshSource


class FoundShapes(NamedTuple):
    """sources sorted by class and path; entry: the data set that the folder was recognised as; warnings for the user;
    refused: (name, message); others: classes that are there and were not asked for."""

    sources: tuple[ShapeSource, ...]
    entry: str
    warnings: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    others: tuple[str, ...] = ()


class Mesh(NamedTuple):
    """vertex (V, 3) float64, z up, in the file's own units; face (F, 3) int32, each with an area and listed once.

    Of an articulated shape also the part (F,) of each face, the joints of its parts, and the files beside its own."""

    vertex: np.ndarray
    face: np.ndarray
    file: SourceFile | None  # None: it was in memory
    doubts: tuple[str, ...] = ()  # about what was left out or guessed, without the file's name
    part: np.ndarray | None = None  # None: it is one part
    joints: tuple[Joint, ...] = ()
    others: tuple[SourceFile, ...] = ()


def find_shapes(folder: Path, classes: tuple[str, ...] | None = None, split: str | Path | None = None) -> FoundShapes:
    """The shapes of `classes` (None: all) in `folder`; no mesh is opened.

    split: "train" or "test" where the folder has such parts (train by default), or the path of a list of names.
    Raises SourceError where there are none, or two have one name.
    """
    folder = Path(folder)
    entry, hits = recognise(folder, "shapes")
    if not entry.built:
        raise SourceError(folder, f"is {entry.title}, which gen4d cannot build from: {entry.note}")
    hits = _by_class_file(folder, entry, hits)
    hits, warnings = _choose(folder, entry, hits, split)
    sources, refused = [], []
    if any("class" not in hit.groups for hit in hits):
        hits, refused = _with_classes(folder, hits)
    hits, unknown, others = _of_classes(folder, entry, hits, classes)
    for hit in hits:
        try:
            sources.append(_source(folder, entry, hit))
        except SourceError as error:
            refused.append((escaped(hit.name), str(error)))
    _refuse_twins(folder, sources)
    sources.sort(key=lambda source: (source.class_name, source.path))
    return FoundShapes(tuple(sources), entry.name, warnings + unknown, tuple(refused), others)


def _choose(folder: Path, entry: Entry, hits: list[Hit], split: str | Path | None) -> tuple[list[Hit], tuple[str, ...]]:
    if split is None:
        chosen = default_part(folder, entry, hits)
        return chosen.hits, chosen.warnings
    if split == EVERY:
        return hits, ()
    warnings: tuple[str, ...] = ()
    if str(split) in ("train", "test"):
        kept = [hit for hit in hits if hit.groups.get("part") == str(split)]
    else:
        names = read_split(Path(split))
        found = find_listed(names, ((hit.name, hit.path) for hit in hits))
        wanted = set(found.values())
        kept = [hit for hit in hits if hit.name in wanted]
        warnings = missing_names(folder, Path(split), names, found)
    if not kept:
        raise SourceError(
            folder, f"has no shape of the split {split}: of {len(hits)} shapes the first is {hits[0].path}"
        )
    return kept, warnings


def _by_class_file(folder: Path, entry: Entry, hits: list[Hit]) -> list[Hit]:
    """Hits with the class that the data set's file gives each, `object` where it gives none. Raises SourceError."""
    if entry.class_file is None:
        return hits
    place = next((place for place in entry.places if (folder / place / entry.class_file.file).is_file()), None)
    if place is None:
        wanted = f"has no {entry.class_file.file}, which says the class of each shape of {entry.title}: put it there"
        raise SourceError(folder, wanted)
    path = folder / place / entry.class_file.file
    content, _ = read_file(path.parent, path.name)
    try:
        tree = json.loads(content)
        if isinstance(tree, dict):
            classes = {str(name): str(key) for key, names in tree.items() for name in names}
        else:
            classes = {str(item[entry.class_file.id]): str(item[entry.class_file.cls]) for item in tree}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        text = f"is not a table of classes of {entry.title} ({type(error).__name__}: {error}): copy it again"
        raise SourceError(path, text) from error
    return [hit._replace(groups={**hit.groups, "class": classes.get(hit.name, "object")}) for hit in hits]


def _with_classes(folder: Path, hits: list[Hit]) -> tuple[list[Hit], list[tuple[str, str]]]:
    """Hits with the class that a meta.json beside each declares, and what is refused because none does."""
    known, refused = [], []
    for hit in hits:
        try:
            content, _ = read_file(folder, f"{hit.parent}/meta.json")
            name = json.loads(content)["model_cat"]
            if not isinstance(name, str) or not name:
                raise KeyError(name)
            known.append(hit._replace(groups={**hit.groups, "class": name}))
        except SourceError as error:
            refused.append((hit.name, str(error)))
        except (ValueError, LookupError, TypeError, RecursionError):
            refused.append(
                (hit.name, f"{folder / hit.parent / 'meta.json'}: has no model_cat, the class: copy it again")
            )
    if not known:
        raise SourceError(folder, f"has no shape whose meta.json names its class: {refused[0][1]}")
    return known, refused


def _class_of(entry: Entry, hit: Hit) -> str:
    name = hit.groups["class"]
    return entry.classes.get(name) or class_name_of(name)


def _of_classes(
    folder: Path, entry: Entry, hits: list[Hit], classes: tuple[str, ...] | None
) -> tuple[list[Hit], tuple[str, ...], tuple[str, ...]]:
    """Hits of the classes that are asked for, warnings of those that are not there, and the other ones that are."""
    if classes is None:
        return hits, (), ()
    classes = tuple(dict.fromkeys(map(class_name_of, classes)))
    present = sorted({_class_of(entry, hit) for hit in hits})
    listed = ", ".join(present[:_SHOWN]) + (", ..." if len(present) > _SHOWN else "")
    missing = [name for name in classes if name not in present]
    if len(missing) == len(classes):
        wanted = ", ".join(missing)
        raise SourceError(folder, f"has no shape of the class {wanted}: its classes are {listed}: name some of those")
    warnings = (f"{folder}: no shape of the class {', '.join(missing)}: its classes are {listed}",) if missing else ()
    others = tuple(name for name in present if name not in classes)
    return [hit for hit in hits if _class_of(entry, hit) in classes], warnings, others


def _source(folder: Path, entry: Entry, hit: Hit) -> ShapeSource:
    check_name(folder, hit.path)
    size = file_size(folder, hit.path)
    class_name = _class_of(entry, hit)
    given = hit.groups["class"].lower()
    starts = hit.name.lower().startswith((class_name.lower(), given))
    name = hit.name if starts else f"{class_name}_{hit.name}"
    return ShapeSource(name, class_name, folder, hit.path, size, entry.name, entry.up)


def _refuse_twins(folder: Path, sources: list[ShapeSource]) -> None:
    seen: dict[str, str] = {}
    for source in sources:
        if source.name in seen:
            raise SourceError(
                folder,
                f"has two shapes named {source.name!r}, {seen[source.name]} and {source.path}: rename or remove one",
            )
        seen[source.name] = source.path


def load_shape(source: AnyShape, up: str = "auto") -> Mesh:
    """Read a mesh and bring z up. up: "auto" (what the manifest declares for the data set, or by file type, or z for a
    mesh in memory), an axis or a vector. Raises SourceError for every way in which the mesh can be wrong."""
    if isinstance(source, MeshSource):
        vertex, face, doubts = sound_mesh(Path(source.name), source.vertex, source.face, "z" if up == "auto" else up)
        return Mesh(vertex, face, None, doubts)
    up = source.up if up == "auto" else up
    if is_articulated(source):
        return _load_articulated(source, "z" if up == "auto" else up)
    content, file = read_file(source.root, source.path)
    vertex, face, doubts = read_mesh(source.root / source.path, content, up)
    return Mesh(vertex, face, file, doubts)


def is_articulated(source: AnyShape) -> bool:
    """Whether a shape has parts that move on one another."""
    return isinstance(source, ShapeSource) and source.path.lower().endswith(".urdf")


def _load_articulated(source: ShapeSource, up: str) -> Mesh:
    parts = load_parts(source.root, source.path)
    turn = up_rotation(up)
    joints = tuple(one._replace(point=turn @ one.point, axis=turn @ one.axis) for one in parts.joints)
    vertex = np.ascontiguousarray(parts.vertex @ turn.T)
    return Mesh(vertex, parts.face, parts.files[0], parts.doubts, parts.part, joints, parts.files[1:])
