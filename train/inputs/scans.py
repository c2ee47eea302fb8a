"""Labelled scans for downstream tasks, found and read by `gen4d.sources`."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from gen4d import sources
from gen4d.sources.formats.arrays import npy_array
from gen4d.sources.source import read_file
from train.inputs.labels import NONE, LabelTable, SceneError


class LabelledScan(NamedTuple):
    """A scan in metres, z up. point (N, 3) float32 finite; label (N,) int16 class or NONE, None where there are none;
    row (N,) int32 of the points file, which has `rows` rows; digest of all files that were read; instance (N,) int32 of
    any object, -1 for none, alignment (4, 4) float64 of its axes and box (B, 7) float64 of centre, size and class as
    they are stored for aligned points, where there are any."""

    name: str
    point: np.ndarray
    label: np.ndarray | None
    row: np.ndarray
    rows: int
    digest: str
    instance: np.ndarray | None = None
    alignment: np.ndarray | None = None
    box: np.ndarray | None = None


def read_scan(source: sources.ScanSource, table: LabelTable | None) -> LabelledScan:
    """Read a scan and its labels as classes of `table`; None leaves labels out. Raises SourceError, SceneError."""
    scan = sources.load_scan(source, sources.default_orientation(source.entry))
    label = None if table is None else _labels(source, scan, table)
    seen = "".join(f"{file.path} {file.sha256}\n" for file in scan.files)
    rows = len(scan.row) + scan.dropped
    made = LabelledScan(scan.name, scan.point, label, scan.row, rows, hashlib.sha256(seen.encode()).hexdigest())
    box, digest = (None, made.digest) if table is None else _boxes(source, table, made.digest)
    return made._replace(instance=scan.instance, alignment=_alignment(scan), box=box, digest=digest)


def _alignment(scan: sources.Scan) -> np.ndarray | None:
    """From the scan's points to its data set's aligned axes: the stored matrix is of the points before levelling."""
    if scan.axis_alignment is None:
        return None
    return scan.axis_alignment @ np.linalg.inv(scan.transform)


def _boxes(source: sources.ScanSource, table: LabelTable, digest: str) -> tuple[np.ndarray | None, str]:
    """Stored boxes (B, 7), their ids as classes, and the digest with that of their file. Raises SourceError,
    SceneError."""
    if "boxes" not in source.files:
        return None, digest
    path = source.root / source.files["boxes"]
    content, file = read_file(source.root, source.files["boxes"])
    box = npy_array(path, content).astype(np.float64)
    if box.ndim != 2 or box.shape[1] != 7 or not np.isfinite(box).all() or (len(box) and box[:, 3:6].min() <= 0):
        raise SceneError(
            f"{path}: holds an array {box.shape}: boxes are (B, 7) finite numbers of centre, size above 0 and nyu40 "
            "id; prepare it again"
        )
    try:
        box[:, 6] = table.classes_of(box[:, 6].astype(np.int64))
    except SceneError as error:
        raise SceneError(f"{path}: {error}") from None
    return box, hashlib.sha256(f"{digest} {file.sha256}".encode()).hexdigest()


def _labels(source: sources.ScanSource, scan: sources.Scan, table: LabelTable) -> np.ndarray:
    place = source.root / source.files.get("labels", source.files["points"])
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
    found: Sequence[sources.ScanSource],
    table: LabelTable | None,
    workers: int,
    seen: Callable[[int, int], None] | None = None,
) -> list[LabelledScan]:
    """All scans, in their order, read by threads; seen(n, all) is called whenever one more is there.

    Raises what `read_scan` raises, and SceneError where there is none, or none with a point that has a class.
    """
    if not found:
        raise SceneError("no scan is left in the list: give another list, or a larger share")
    scans = []
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        for scan in pool.map(lambda source: read_scan(source, table), found):
            scans.append(scan)
            if seen:
                seen(len(scans), len(found))
    finally:
        pool.shutdown(cancel_futures=True)
    if table is not None and not any((scan.label != NONE).any() for scan in scans):
        raise SceneError(f"no point of {len(scans)} scans (first: {scans[0].name}) has a class: give labelled scans")
    return scans
