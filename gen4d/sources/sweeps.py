"""Lidar sweeps of a scan with their poses, one after another, in constant memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gen4d.sources.formats import nuscenes
from gen4d.sources.formats.sweep import read_labels, read_sweep
from gen4d.sources.posed import Folder, PosedSource, Reading
from gen4d.sources.recorded import rigid


class Sweep(NamedTuple):
    """One sweep's points (N, 3) float32 in the sensor's frame, as they are in its file, label and instance (N,) int32
    or None, and the sensor's rigid pose in the source's world (4, 4) float64."""

    number: int
    time_s: float
    pose: np.ndarray
    point: np.ndarray
    label: np.ndarray | None
    instance: np.ndarray | None


def read_sweeps(source: PosedSource, every: int, reading: Reading) -> Iterator[Sweep]:
    """Every n-th sweep of a scan that has a pose. The others, and broken ones, are counted in `reading`.

    Raises SourceError where the scan as a whole cannot be used.
    """
    for sweep in _of_tables(source, every, reading) if source.recorded.tables else _of_folder(source, every, reading):
        pose = rigid(sweep.pose)
        if pose is None:
            reading.leave_out("a pose that is not rigid", sweep.number)
        else:
            yield sweep._replace(pose=pose)


def _of_folder(source: PosedSource, every: int, reading: Reading) -> Iterator[Sweep]:
    recorded, folder = source.recorded, Folder(source, reading)
    for one in folder.keyed(every):
        sweep = None
        with folder.collecting():
            point = read_sweep(folder.base / one.file, folder.read(one.file), recorded.columns)
            label = instance = None
            if recorded.labels and (name := folder.near(recorded.labels, one.key)):
                label, instance = read_labels(folder.base / name, folder.read(name), len(point))
            sweep = Sweep(one.number, one.time_s, one.pose, point * np.float32(source.metres), label, instance)
        if sweep is not None:
            yield sweep


def _of_tables(source: PosedSource, every: int, reading: Reading) -> Iterator[Sweep]:
    folder = Folder(source, reading)
    root = source.root / source.path
    listed = nuscenes.scene_sweeps(root.parent, source.groups["scene"])
    reading.frames = len(listed)
    for number, one in list(enumerate(listed))[::every]:
        sweep = None
        with folder.collecting():
            place = root.parents[1]
            content = reading.read(place, one.file)
            point = read_sweep(place / one.file, content, nuscenes.COLUMNS)
            sweep = Sweep(number, one.time_s, one.pose, point, None, None)
        if sweep is not None:
            yield sweep
