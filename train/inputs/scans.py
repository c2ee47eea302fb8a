"""Labelled scans for downstream tasks, found and read by `gen4d.sources`."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from gen4d import sources
from gen4d.sources.formats.arrays import npy_array
from gen4d.sources.source import read_file
from train.inputs.labels import NONE, LabelTable, SceneError
from train.inputs.prepared import PreparedSource

# What a net is given at a voxel, three channels each: ones, colour, normals.
INPUTS = ("occupancy", "colour", "normal")
GEOMETRY = ("occupancy",)


class LabelledScan(NamedTuple):
    """A scan in metres, z up. point (N, 3) float32 finite; label (N,) int16 class or NONE, None where there are none;
    row (N,) int32 of the points file, which has `rows` rows; digest of all files that were read; instance (N,) int32 of
    any object, -1 for none, alignment (4, 4) float64 of its axes and box (B, 8) float64 of centre, size, heading and
    class as they are stored for aligned points, where there are any; colour (N, 3) float32 from 0 to 1 and normal
    (N, 3) float32 of length 1 where they were asked for."""

    name: str
    point: np.ndarray
    label: np.ndarray | None
    row: np.ndarray
    rows: int
    digest: str
    instance: np.ndarray | None = None
    alignment: np.ndarray | None = None
    box: np.ndarray | None = None
    colour: np.ndarray | None = None
    normal: np.ndarray | None = None


def read_scan(
    source: sources.ScanSource | PreparedSource,
    table: LabelTable | None,
    inputs: Sequence[str] = GEOMETRY,
    orientation: sources.Orientation | None = None,
) -> LabelledScan:
    """Read a scan with what a net of `inputs` needs, and its labels as classes of `table`; None leaves labels out.
    orientation: by default the data set's, but where boxes lie beside the points these stay where they are. Warns of
    what in its files is in doubt. Raises SourceError, SceneError, FormatError."""
    if isinstance(source, PreparedSource):
        return _prepared(source, table, inputs)
    usual = sources.default_orientation(source.entry)
    if "boxes" in source.files:
        usual = usual._replace(up=sources.split_up(usual.up)[0])
    scan = sources.load_scan(source, orientation or usual)
    for doubt in scan.doubts:
        warnings.warn(doubt, stacklevel=2)
    seen = sources.read_appearance(source, scan, tuple(inputs))
    made = _labelled(source, scan, table, (*scan.files, *seen.files))
    box, digest = (None, made.digest) if table is None else _boxes(source, table, made.digest)
    return made._replace(colour=seen.colour, normal=seen.normal, box=box, digest=digest)


def _prepared(source: PreparedSource, table: LabelTable | None, inputs: Sequence[str]) -> LabelledScan:
    if tuple(inputs) != GEOMETRY:
        raise SceneError(
            f"{source.root}: prepared scans have no {', '.join(set(inputs) - set(GEOMETRY))}: give the raw folder"
        )
    scan = source.load()
    return _labelled(source, scan, table, scan.files)


def _labelled(
    source: sources.ScanSource | PreparedSource,
    scan: sources.Scan,
    table: LabelTable | None,
    files: Sequence[sources.SourceFile],
) -> LabelledScan:
    label = None if table is None else _labels(source, scan, table)
    digest = hashlib.sha256("".join(f"{file.path} {file.sha256}\n" for file in files).encode()).hexdigest()
    rows = len(scan.row) + scan.dropped
    return LabelledScan(
        scan.name, scan.point, label, scan.row, rows, digest, instance=scan.instance, alignment=_alignment(scan)
    )


def _alignment(scan: sources.Scan) -> np.ndarray | None:
    """From the scan's points to its data set's aligned axes: the stored matrix is of the points before levelling."""
    if scan.axis_alignment is None:
        return None
    return scan.axis_alignment @ np.linalg.inv(scan.transform)


def _boxes(source: sources.ScanSource, table: LabelTable, digest: str) -> tuple[np.ndarray | None, str]:
    """Stored boxes (B, 8), their ids as classes, and the digest with that of their file. VoteNet stores ScanNet's in 7
    columns: centre, size, nyu40 id; SUN RGB-D's in 8: centre, half size, heading from x to -y, number of the class.

    Raises SourceError, SceneError."""
    if "boxes" not in source.files:
        return None, digest
    path = source.root / source.files["boxes"]
    content, file = read_file(source.root, source.files["boxes"])
    box = npy_array(path, content).astype(np.float64)
    whole = box.ndim == 2 and box.shape[1] in (7, 8) and np.isfinite(box).all()
    if not whole or (len(box) and box[:, 3:6].min() <= 0):
        raise SceneError(
            f"{path}: holds an array {box.shape}: boxes are (B, 7) finite numbers of centre, size above 0 and nyu40 "
            "id, or (B, 8) of centre, half size above 0, heading and class; prepare it again"
        )
    if box.shape[1] == 7:
        box = np.insert(box, 6, 0.0, axis=1)
    else:
        box *= (1, 1, 1, 2, 2, 2, -1, 1)
    try:
        box[:, 7] = table.classes_of(box[:, 7].astype(np.int64))
    except SceneError as error:
        raise SceneError(f"{path}: {error}") from None
    return box, hashlib.sha256(f"{digest} {file.sha256}".encode()).hexdigest()


def point_inputs(scan: LabelledScan, inputs: Sequence[str], view: np.ndarray) -> np.ndarray:
    """What a net of `inputs` is given of each point, (N, 3 x inputs) float32, of a scan under a similarity transform
    `view` (3 or more, 3 or more): ones, colour from -0.5 to 0.5, normals turned by it."""
    columns = {"occupancy": np.ones((len(scan.point), 3), np.float32)}
    if scan.colour is not None:
        columns["colour"] = scan.colour - np.float32(0.5)
    if scan.normal is not None:
        linear = view[:3, :3] / np.cbrt(abs(np.linalg.det(view[:3, :3])))
        columns["normal"] = (scan.normal @ linear.T).astype(np.float32)
    return np.concatenate([columns[name] for name in inputs], axis=1)


def _labels(source: sources.ScanSource | PreparedSource, scan: sources.Scan, table: LabelTable) -> np.ndarray:
    place = source.root / source.files.get("labels", source.files["points"])
    if scan.label is None and "boxes" in source.files:
        return np.full(len(scan.point), NONE, np.int16)
    if scan.label is None:
        raise SceneError(
            f"{place}: scan {scan.name} has no labels (files: {', '.join(sorted(source.files))}): download its labels, "
            "or take it out of the list"
        )
    try:
        return table.classes_of(scan.label)
    except SceneError as error:
        raise SceneError(f"{place}: {error}") from None


def read_scans(
    found: Sequence[sources.ScanSource | PreparedSource],
    table: LabelTable | None,
    workers: int,
    seen: Callable[[int, int], None] | None = None,
    inputs: Sequence[str] = GEOMETRY,
) -> list[LabelledScan]:
    """All scans, in their order, read by threads; seen(n, all) is called whenever one more is there.

    Raises what `read_scan` raises, and SceneError where there is none, or none with a point or a box that has a class.
    """
    if not found:
        raise SceneError("no scan is left in the list: give another list, or a larger share")
    scans = []
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        for scan in pool.map(lambda source: read_scan(source, table, inputs), found):
            scans.append(scan)
            if seen:
                seen(len(scans), len(found))
    finally:
        pool.shutdown(cancel_futures=True)
    if table is not None and not any((scan.label != NONE).any() or scan.box is not None for scan in scans):
        raise SceneError(f"no point of {len(scans)} scans (first: {scans[0].name}) has a class: give labelled scans")
    return scans
