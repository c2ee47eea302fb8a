"""Scans: which there are in a folder, without opening any, and loading one."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.config import Config
from gen4d.sources.annotations import read_alignment, read_annotations
from gen4d.sources.entries import Entry, Layout
from gen4d.sources.formats.columns import PointColumns
from gen4d.sources.formats.points import read_points
from gen4d.sources.level import (
    Floor,
    Orientation,
    find_floor,
    parse_units,
    rotation_to_z,
    split_up,
    up_rotation,
)
from gen4d.sources.manifest import Hit, entry_of, files_of, recognise
from gen4d.sources.objects import read_objects
from gen4d.sources.source import SourceError, SourceFile, check_name, escaped, file_size, read_file
from gen4d.sources.splits import choose_split
from gen4d.sources.surface import MESHES, is_coarse, read_surface, sample

_LEAST_POINTS = 100
_FAR_M = 2**20 * 0.02  # beyond it no voxel of 2 cm has a number
_ROUND_M = 100.0  # offsets are whole hundreds, so that people recognise them
_SAMPLED = 1024  # coordinates an axis that are looked at for the steps between them
_LEAST_VALUES = 4  # an axis with fewer is flat
_VOXEL_M = Config().voxel_m
_COARSE_REACH_M = 100.0


@dataclass(frozen=True)
class ScanSource:
    """One scan in a folder of scans.

    files: role -> path relative to `root`, the folder given by the user: points, and where there are any labels,
    instance, segments, aggregation, label_table, alignment; objects: a folder that is read in place of the points
    file. entry: the data set's name in the manifest. size: bytes of
    the points file. label_space: of its labels. surface:
    whether it may be covered where it is a coarse mesh.
    """

    name: str
    root: Path
    files: Mapping[str, str]
    entry: str
    size: int
    label_space: str = ""
    surface: bool = True

    @property
    def path(self) -> str:
        """The points file, relative to `root`."""
        return self.files["points"]


class FoundScans(NamedTuple):
    """sources sorted by name; entry: the data set that the folder was recognised as; warnings for the user; refused:
    (name, message) of the scans that cannot be loaded; split: the list file that chose the scans, or empty."""

    sources: tuple[ScanSource, ...]
    entry: str
    warnings: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    split: str = ""


@dataclass(frozen=True)
class Scan:
    """A static reconstruction in metres, z up, right-handed.

    point (N, 3) float32, finite; row (N,) int32, each point's index in the points file, -1 if
    it was put on a surface; label, instance (N,) int32 or
    None, -1 = no instance, in `label_space` of the manifest ("" without labels); transform (4, 4) float64 from the
    source's frame to this one; axis_alignment (4, 4) float64 or None, stored and not applied; dropped: rows with NaN or
    infinity; files: everything that was read; tilt_deg: what levelling took out, part of the transform; doubts: what in
    its files contradicts something else, or was not used, one line each with the file in front.
    """

    name: str
    point: np.ndarray
    row: np.ndarray
    label: np.ndarray | None
    instance: np.ndarray | None
    label_space: str
    transform: np.ndarray
    axis_alignment: np.ndarray | None
    dropped: int
    files: tuple[SourceFile, ...]
    tilt_deg: float = 0.0
    doubts: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()  # columns of the points file that may be ids and were not taken


def find_scans(folder: Path, split: Path | None = None) -> FoundScans:
    """The scans in `folder`. Nothing but split lists is opened.

    Raises SourceError where there are none, two have one name, the data set cannot be built from, or a list is broken.
    """
    folder = Path(folder)
    entry, hits = recognise(folder, "scans")
    if not entry.built:
        raise SourceError(folder, f"is {entry.title}, which gen4d cannot build from: {entry.note}")
    _refuse_twins(folder, hits)
    chosen = choose_split(folder, entry, hits, split)
    shared = _shared_files(folder, entry, hits[0].layout)  # all hits are of one layout
    sources, refused, listed = [], [], {}
    for hit in sorted(chosen.hits, key=lambda hit: hit.name):
        try:
            sources.append(_source(folder, entry, hit, shared, listed))
        except SourceError as error:
            refused.append((escaped(hit.name), str(error)))
    return FoundScans(tuple(sources), entry.name, chosen.warnings, tuple(refused), chosen.split)


def _refuse_twins(folder: Path, hits: list[Hit]) -> None:
    seen: dict[str, str] = {}
    for hit in hits:
        if hit.name in seen:
            raise SourceError(
                folder, f"has two scans named {hit.name!r}, {seen[hit.name]} and {hit.path}: rename or remove one"
            )
        seen[hit.name] = hit.path


def _shared_files(folder: Path, entry: Entry, layout: Layout) -> dict[str, str]:
    """Role -> path relative to `folder`, of those files of all scans that are there."""
    files = {}
    for role, name in layout.shared.items():
        if place := next((place for place in entry.places if (folder / place / name).is_file()), None):
            files[role] = name if place == "." else f"{place}/{name}"
    return files


def _source(folder: Path, entry: Entry, hit: Hit, shared: dict[str, str], listed: dict[str, set[str]]) -> ScanSource:
    check_name(folder, hit.path)
    files = files_of(folder, hit, listed)
    if "points" not in files:
        wanted = hit.layout.files["points"][0].format_map({"name": hit.name})
        raise SourceError(folder / hit.path, f"has no {wanted}: without points there is no scan, download it again")
    size = file_size(folder, files["points"])
    return ScanSource(hit.name, folder, files | shared, entry.name, size, entry.label_space, entry.surface)


def default_orientation(entry: str) -> Orientation:
    """Axis and unit that the manifest declares for a data set of scans, which are levelled from there if tilted."""
    known = entry_of(entry)
    return Orientation("auto" if known.up == "z" else f"auto:{known.up}", parse_units(known.units))


def load_scan(source: ScanSource, orientation: Orientation, spacing_m: float = 0.0) -> Scan:
    """Read a scan, bring it to metres with z up, and drop rows that are not finite. Each file is read once.

    spacing_m: where the scan is a mesh whose vertices are too far apart, its surface is covered by points at this
    distance instead, each with the label and the instance of the nearest vertex of its triangle; 0: never.
    Raises SourceError for every way in which its files can be wrong.
    """
    path = source.root / source.files.get("objects", source.files["points"])
    files: list[SourceFile] = []
    spacing = spacing_m / orientation.metres_per_unit if source.surface else 0.0
    table, cover, repaired = _read_table(source, files, spacing, orientation.metres_per_unit)
    label, instance, doubts = read_annotations(source.root, source.files, table, files)
    doubts = repaired + doubts
    if cover is not None:
        return _covered(source, cover, label, instance, orientation, files, doubts)
    row = _finite_rows(path, table.point)
    whole = len(row) == len(table.point)
    oriented = _orient(path, table.point if whole else table.point[row], orientation)
    return Scan(
        name=source.name,
        point=oriented.point,
        row=row,
        label=label if whole or label is None else label[row],
        instance=instance if whole or instance is None else instance[row],
        label_space="" if label is None else source.label_space,
        transform=oriented.transform,
        axis_alignment=read_alignment(source.root, source.files, files),
        dropped=len(table.point) - len(row),
        files=tuple(files),
        tilt_deg=oriented.tilt_deg,
        doubts=doubts + tuple(f"{source.files['points']}: {doubt}" for doubt in oriented.doubts),
        unused=table.unused,
    )


def scan_from_arrays(
    name: str, point: np.ndarray, label: np.ndarray | None, instance: np.ndarray | None, orientation: Orientation
) -> Scan:
    """A scan of points (N, 3), finite, and whole numbers (N,) for each, in memory, as if it had been read from a file.

    Raises SourceError where there are too few points, or they are too far out.
    """
    path = Path(name)
    row = _finite_rows(path, point)
    turned, transform, tilt_deg, doubts = _orient(path, point, orientation)
    doubts = tuple(f"{name}: {doubt}" for doubt in doubts)
    return Scan(name, turned, row, label, instance, "", transform, None, 0, (), tilt_deg, doubts)


def _read_table(
    source: ScanSource, files: list[SourceFile], spacing: float, metres_per_unit: float
) -> tuple[PointColumns, tuple[np.ndarray, np.ndarray] | None, tuple[str, ...]]:
    """The rows of the points file or of the objects in its place; where it is a mesh that they do not stand for, points
    on its surface with the row nearest to each; and what was repaired."""
    if "objects" in source.files:
        found = read_objects(source.root, source.files["objects"], entry_of(source.entry), files)
        return PointColumns(found.point, found.label, found.instance), None, found.doubts
    path = source.root / source.files["points"]
    content, file = read_file(source.root, source.files["points"])  # freed on return: the next file takes its pages
    files.append(file)
    mesh = read_surface(path, content) if spacing or path.suffix.lower() in MESHES else None
    table = PointColumns(mesh[0]) if mesh and path.suffix.lower() in MESHES else read_points(path, content)
    if not spacing or mesh is None or not is_coarse(*mesh, metres_per_unit):
        return table, None, ()
    point, nearest = sample(path, *mesh, spacing)
    if _reach_m(point, metres_per_unit) <= _FAR_M:  # else they are exact until they are moved to the origin
        point = point.astype(np.float32)
    return table, (point, nearest), ()


def _covered(
    source: ScanSource,
    cover: tuple[np.ndarray, np.ndarray],
    label: np.ndarray | None,
    instance: np.ndarray | None,
    orientation: Orientation,
    files: list[SourceFile],
    doubts: tuple[str, ...],
) -> Scan:
    """A scan of points on a surface, which are no rows of its file."""
    point, nearest = cover
    label, instance = (None if values is None else values[nearest] for values in (label, instance))
    scan = scan_from_arrays(source.name, point, label, instance, orientation)
    return dataclasses.replace(
        scan,
        row=np.full(len(point), -1, np.int32),
        label_space="" if label is None else source.label_space,
        axis_alignment=read_alignment(source.root, source.files, files),
        files=tuple(files),
        doubts=doubts + scan.doubts,
    )


def _finite_rows(path: Path, point: np.ndarray) -> np.ndarray:
    finite = np.isfinite(point)
    if finite.all():
        row = np.arange(len(point), dtype=np.int32)
    else:
        row = np.flatnonzero(finite.all(axis=1)).astype(np.int32)
    if len(row) < _LEAST_POINTS:
        raise SourceError(
            path, f"has {len(row)} finite points in {len(point)} rows: a scan needs at least {_LEAST_POINTS}"
        )
    return row


class _Oriented(NamedTuple):
    """point (N, 3) float32 in metres, z up; the (4, 4) float64 transform that brought it there; the tilt in degrees
    that levelling took out, 0 where it did nothing; doubts about its coordinates."""

    point: np.ndarray
    transform: np.ndarray
    tilt_deg: float
    doubts: tuple[str, ...]


def _orient(path: Path, point: np.ndarray, orientation: Orientation) -> _Oriented:
    start, when = split_up(orientation.up)
    turn = up_rotation(start) * orientation.metres_per_unit
    doubts = _coarse(point, orientation.metres_per_unit)
    offset = _offset(path, point, orientation.metres_per_unit)
    if offset.any():
        point = point.astype(np.float64) - offset
    upright = _turned(point, turn)
    floor = None if when == "never" else _find_floor(path, upright, needed=when == "always")
    if floor is None or not (when == "always" or floor.is_tilted):
        return _Oriented(upright, _transform(turn, offset), 0.0, doubts)
    turn = rotation_to_z(floor.normal) @ turn
    return _Oriented(_turned(point, turn), _transform(turn, offset), floor.tilt_deg, doubts)


def _transform(turn: np.ndarray, offset: np.ndarray) -> np.ndarray:
    transform = np.eye(4)
    transform[:3, :3] = turn
    if offset.any():
        transform[:3, 3] = -(turn @ offset)
    return transform


def _offset(path: Path, point: np.ndarray, metres_per_unit: float) -> np.ndarray:
    """What is taken off the coordinates (3,), in the file's units: 0 but for scans that lie far from the origin as a
    whole, as georeferenced ones do. Raises SourceError where some of the points are far from the others."""
    if _reach_m(point, metres_per_unit) <= _FAR_M:
        return np.zeros(3)
    step = _ROUND_M / metres_per_unit
    offset = np.round(np.median(point.astype(np.float64), axis=0) / step) * step
    reach = _reach_m(point - offset, metres_per_unit)
    if reach > _FAR_M:
        raise SourceError(
            path,
            f"has a point at infinity ({reach:.6g} m from the middle of the scan, at most {_FAR_M:.0f} m): "
            "remove it, or check --units",
        )
    return offset


def _reach_m(point: np.ndarray, metres_per_unit: float) -> float:
    return max(float(point.max()), -float(point.min())) * metres_per_unit


def _coarse(point: np.ndarray, metres_per_unit: float) -> tuple[str, ...]:
    """A doubt about coordinates that come in steps larger than a voxel: numbers of too few digits, far out."""
    sample = point[:: max(1, len(point) // _SAMPLED)]
    for axis, name in enumerate("xyz"):
        values = np.unique(sample[:, axis])
        if len(values) < _LEAST_VALUES:
            continue
        step_m = float(np.diff(values.astype(np.float64)).min()) * metres_per_unit
        if step_m > _VOXEL_M:
            reach = float(np.abs(values).max()) * metres_per_unit
            why = f"it reaches {reach:.6g} m in numbers of few digits" if reach > _COARSE_REACH_M else "it is rounded"
            steps = f"has {name} in steps of {step_m:.3g} m, coarser than the voxels of {_VOXEL_M} m"
            return (f"{steps}: {why}, export it as float64 or nearer to the origin",)
    return ()


def _turned(point: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Points (N, 3) float32 under a matrix (3, 3), bit for bit where it is the identity."""
    if np.array_equal(turn, np.eye(3)):
        return np.ascontiguousarray(point, np.float32)
    return (point.astype(np.float64) @ turn.T).astype(np.float32)


def _find_floor(path: Path, point: np.ndarray, needed: bool) -> Floor | None:
    try:
        return find_floor(point)
    except ValueError as error:
        if not needed:
            return None
        raise SourceError(path, f"cannot be levelled: {error}; give --up as an axis or a vector") from error
