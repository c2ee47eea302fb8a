"""What lies beside a scan's points: labels, instances, the alignment of its axes."""

import csv
import json
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.formats import text_kernels
from gen4d.sources.formats.columns import PointColumns
from gen4d.sources.formats.points import read_column
from gen4d.sources.formats.text import as_text
from gen4d.sources.source import SourceError, SourceFile, read_file

_SEGMENT_LIMIT = 2**22  # ids of segments are indices of vertices; scans with more vertices raise it
_FOREIGN_SHARE = 0.1  # of an aggregation's segments: more that no point has are another mesh's
_ELSEWHERE_SHARE = 0.001  # of a scan's points: more that lie elsewhere in the file of labels are in another order
_ELSEWHERE = 1e-3  # of the scan's size, for coordinates that were written with few digits


class Group(NamedTuple):
    """One object of ScanNet's aggregation file."""

    object_id: int
    category: str
    segments: np.ndarray  # (S,) int64


class Annotations(NamedTuple):
    """Labels and instances of a scan's points, each (N,) int32 or None, and why some that are there were not taken."""

    label: np.ndarray | None
    instance: np.ndarray | None
    doubts: tuple[str, ...] = ()


def read_annotations(root: Path, names: Mapping[str, str], table: PointColumns, files: list[SourceFile]) -> Annotations:
    """Labels and instances of a scan's points; what is read is added to `files`.

    names: role -> path below `root`. Labels come from the file `labels`, else from segments, aggregation and label
    table, else from the points file; instances from the file `instance`, else from segments and aggregation, else from
    the points file. Points of no instance have -1. Files that belong to another mesh are not taken, which is a doubt;
    files that are broken or of another length raise SourceError.
    """
    label, instance = table.label, table.instance
    doubts = []
    if "segments" in names and "aggregation" in names:
        segment, groups, doubt = _read_objects(root, names, len(table.point), files)
        if doubt:
            doubts.append(doubt)
        else:
            instance = _spread(segment, groups, [group.object_id for group in groups], -1)
            if "labels" not in names and "label_table" in names:
                categories = _read_label_table(root, names, files)
                label = _spread(segment, groups, _ids(root / names["aggregation"], groups, categories), 0)
    for role in ("labels", "instance"):
        if role in names:
            values, doubt = _read_matching(root, names, role, table.point, files)
            doubts += [doubt] if doubt else []
            label, instance = (values, instance) if role == "labels" else (label, values)
    return Annotations(label, instance, tuple(doubts))


def read_alignment(root: Path, names: Mapping[str, str], files: list[SourceFile]) -> np.ndarray | None:
    """The (4, 4) float64 matrix of the line axisAlignment, or None where there is no such file or line.

    Raises SourceError where the line is broken.
    """
    if "alignment" not in names:
        return None
    path = root / names["alignment"]
    content, file = read_file(root, names["alignment"])
    files.append(file)
    for line in as_text(path, content).decode("latin-1").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            return _matrix(path, value)
    return None


def _matrix(path: Path, text: str) -> np.ndarray:
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.empty(0)
    if values.shape != (16,) or not np.isfinite(values).all():
        raise SourceError(path, f"has an axisAlignment that is not 16 numbers ({text.strip()[:40]!r}): copy it again")
    return values.reshape(4, 4)


def _read_matching(
    root: Path, names: Mapping[str, str], role: str, point: np.ndarray, files: list[SourceFile]
) -> tuple[np.ndarray | None, str]:
    """The values (N,) int32 of a file with one for each point; or None and a doubt, where its points are others."""
    content, file = read_file(root, names[role])
    files.append(file)
    values, where = read_column(root / names[role], content)
    _check_length(root, names, role, len(values), len(point))
    elsewhere = 0 if where is None else _count_elsewhere(point, where)
    if elsewhere <= _ELSEWHERE_SHARE * len(point):
        return values, ""
    of = f"of {elsewhere} of its {len(point)} points it says that they lie elsewhere than {names['points']} does"
    return None, f"{names[role]}: {of}, so it is of another mesh or order: read without its {role}, copy both again"


def _count_elsewhere(point: np.ndarray, where: np.ndarray) -> int:
    """How many points (N, 3) are not where they should be, by their coordinates, or by their distances to the point
    before them, which turning and moving a scan leaves as they are."""
    if np.array_equal(point, where):
        return 0
    with np.errstate(all="ignore"):
        limit = _ELSEWHERE * float(np.nanmax(np.abs(point - np.nanmean(point, axis=0)), initial=0))
        apart = ~(np.abs(point - where).max(axis=1) <= limit) & ~np.isnan(point).any(axis=1)
        if not apart.any():
            return 0
        steps = [np.linalg.norm(np.diff(rows.astype(np.float64), axis=0), axis=1) for rows in (point, where)]
        return min(int(apart.sum()), int((np.abs(steps[0] - steps[1]) > limit).sum()))


def _check_length(root: Path, names: Mapping[str, str], role: str, found: int, points: int) -> None:
    if found != points:
        raise SourceError(
            root / names[role],
            f"holds {found} values for the {points} points of {names['points']}: they must agree, copy both again",
        )


def _read_json(root: Path, name: str, files: list[SourceFile], long_list: str = "") -> dict:
    """The object of a JSON file; the key `long_list` holds an array (S,) int64 where it is plainly a list of those."""
    content, file = read_file(root, name)
    files.append(file)
    numbers = None
    if long_list:
        content, numbers = _without_list(content, long_list)
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SourceError(root / name, f"is not valid JSON ({error}): probably truncated, copy it again") from error
    if not isinstance(tree, dict):
        raise SourceError(root / name, f"holds a {type(tree).__name__} where an object belongs: copy it again")
    if numbers is not None and tree.get(long_list) == []:
        tree[long_list] = numbers
    return tree


def _without_list(content: bytes, key: str) -> tuple[bytes, np.ndarray | None]:
    """A JSON text with its one list of whole numbers under a key left empty, and those (S,) int64; else the text and
    None. As a list of Python's numbers a segment per vertex takes longer to read than the points."""
    found = re.findall(rb'"%b"' % key.encode(), content)
    head = re.search(rb'"%b"[ \t\r\n]*:[ \t\r\n]*\[' % key.encode(), content)
    if len(found) != 1 or head is None:
        return content, None
    numbers = np.empty(content.count(b",", head.end()) + 1, np.int64)
    count, end = text_kernels.read_json_list(np.frombuffer(content, np.uint8), head.end(), numbers)
    return (content, None) if end < 0 else (content[: head.end()] + content[end:], numbers[:count])


def _ids_array(path: Path, key: str, values) -> np.ndarray:
    """A JSON list, or an array of its numbers, as (S,) int64, each at least 0. Raises SourceError."""
    try:
        array = np.array(values) if isinstance(values, list | np.ndarray) else None
    except (ValueError, OverflowError):
        array = None
    if array is None or array.ndim != 1 or (len(array) and (array.dtype.kind != "i" or array.min() < 0)):
        raise SourceError(path, f"has no list of whole numbers under {key!r}: copy it again")
    return array.astype(np.int64)


def _read_objects(
    root: Path, names: Mapping[str, str], points: int, files: list[SourceFile]
) -> tuple[np.ndarray, list[Group], str]:
    """The segment of every point (N,) int64, the objects that hold segments, and a doubt where the two do not belong
    together: the one names another file or scan, or most of its segments are of no point."""
    segments = _read_json(root, names["segments"], files, long_list="segIndices")
    aggregation = _read_json(root, names["aggregation"], files)
    segment = _segment_ids(root, names, segments, points)
    groups = _groups(root / names["aggregation"], aggregation)
    reason = _other_mesh(names["segments"], segments, aggregation) or _foreign_segments(segment, groups)
    if not reason:
        return segment, groups, ""
    remedy = "read without what it says, put the one of this mesh there"
    return segment, groups, f"{names['aggregation']}: {reason} than {names['segments']}: {remedy}"


def _other_mesh(name: str, segments: dict, aggregation: dict) -> str:
    """What an aggregation says of itself that its segments do not."""
    named, mine = aggregation.get("segmentsFile"), name.rsplit("/", 1)[-1]
    if isinstance(named, str) and named.removeprefix("scannet.") != mine:
        return f"is of the segments {named!r}, other ones"
    scans = [tree.get("sceneId") for tree in (segments, aggregation)]
    if all(isinstance(scan, str) for scan in scans) and len({scan.removeprefix("scannet.") for scan in scans}) > 1:
        return f"is of the scan {scans[1]!r}, another one"
    return ""


def _foreign_segments(segment: np.ndarray, groups: list[Group]) -> str:
    held = np.unique(np.concatenate([group.segments for group in groups])) if groups else np.empty(0, np.int64)
    foreign = int((~np.isin(held, segment)).sum())
    return (
        f"has {foreign} of {len(held)} segments of no point, so others" if foreign > _FOREIGN_SHARE * len(held) else ""
    )


def _segment_ids(root: Path, names: Mapping[str, str], tree: dict, points: int) -> np.ndarray:
    """The segment of every point, (N,) int64."""
    path = root / names["segments"]
    segment = _ids_array(path, "segIndices", tree.get("segIndices"))
    _check_length(root, names, "segments", len(segment), points)
    if (largest := int(segment.max(initial=0))) >= max(_SEGMENT_LIMIT, points):
        raise SourceError(path, f"has a segment {largest}: ids of segments are indices of vertices, copy it again")
    return segment


def _groups(path: Path, tree: dict) -> list[Group]:
    items = tree.get("segGroups")
    groups = []
    for item in items if isinstance(items, list) else [None]:
        fields = item if isinstance(item, dict) else {}
        number, category = fields.get("objectId"), fields.get("label")
        if not isinstance(number, int) or not 0 <= number < 2**31 or not isinstance(category, str):
            raise SourceError(path, "has no list segGroups of objects with objectId, label and segments: copy it again")
        groups.append(Group(number, category, _ids_array(path, "segments", fields.get("segments"))))
    return groups


def _spread(segment: np.ndarray, groups: list[Group], values: list[int], none: int) -> np.ndarray:
    """A value per object as a value per point, (N,) int32; of two objects that share a segment the later one has it."""
    value_of = np.full(int(segment.max(initial=0)) + 1, none, np.int32)
    for group, value in zip(groups, values, strict=True):
        value_of[group.segments[group.segments < len(value_of)]] = value
    return value_of[segment]


def _read_label_table(root: Path, names: Mapping[str, str], files: list[SourceFile]) -> dict[str, int]:
    """Raw category -> nyu40 id."""
    path = root / names["label_table"]
    content, file = read_file(root, names["label_table"])
    files.append(file)
    rows = csv.DictReader(StringIO(content.decode("utf-8-sig", "replace")), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        ids = {row["raw_category"]: int(row["nyu40id"]) for row in rows}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise SourceError(
            path, f"is not a table with the columns raw_category and nyu40id ({error}): copy it again"
        ) from error
    if bad := [number for number in ids.values() if not 0 <= number < 2**31]:
        raise SourceError(path, f"has the nyu40id {bad[0]}: ids are small numbers, copy it again")
    return ids


def _ids(path: Path, groups: list[Group], categories: Mapping[str, int]) -> list[int]:
    if unknown := sorted({group.category for group in groups} - categories.keys()):
        raise SourceError(path, f"has the category {unknown[0]!r}, which the label table lacks: take the full one")
    return [categories[group.category] for group in groups]
