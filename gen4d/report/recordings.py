"""What is wrong with folders of frames or sweeps: files, losses, and conventions, which geometry decides.

Where two frames see the same walls, their points lie on each other if poses, axes and scales are read as they are
meant; else they lie decimetres apart. So pairs are placed by the poses as given and by every usual mistake about them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from gen4d.config import FramesConfig
from gen4d.moving.cloud import CloudError
from gen4d.report.doctor import Finding
from gen4d.report.summary import counted
from gen4d.sources import SourceError
from gen4d.sources.posed import PosedSource, Reading, find_posed
from gen4d.sources.recorded import quaternion_rotation
from gen4d.views.generate import View, read_views

_LOOKED_AT = 12  # neighbouring frames of a scan
_PAIRS = 4
_FAR_M, _FAR_RAD = 1.5, 0.8  # between two frames that are compared: farther ones may not overlap
_STILL_M, _STILL_RAD = 0.10, 0.10  # frames that moved less fit whatever their poses are
_QUERIES = 3000
_GOOD_M = {"frames": 0.05, "sweeps": 0.30}
_BETTER = 0.5  # of the gap as given: another reading of the poses that leaves less is the right one
_SCALES = (0.001, 0.1, 0.2, 1000 / 6553.5, 6.5535, 5.0, 10.0, 1000.0)

Move = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  # points and pose -> the same, read otherwise


class Otherwise(NamedTuple):
    """One way to read poses or depths: what the manifest or gen4d.yaml would say of it."""

    says: str
    move: Move
    factor: float = 1.0  # by which points are larger


def examine_recordings(
    folder: Path,
    kind: str,
    split: Path | None,
    config: FramesConfig,
    progress: Callable[[str, int, int], object] = lambda what, done, of: None,
) -> list[Finding]:
    """What is wrong with a folder of frames or sweeps, and what is in it; every frame that a build uses is read.

    config: with `every` 0 for the data set's own. Never raises SourceError: such errors are findings.
    """
    try:
        found = find_posed(folder, kind, split)
    except SourceError as error:
        return [Finding("error", error.path, error.problem)]
    config = dataclasses.replace(config, every=config.every or found.recorded.every)
    what = f"{found.entry.title}: {counted(len(found.sources), 'scan')} of {kind}, every {config.every} is used"
    findings = [Finding("note", str(folder), what)]
    findings += [Finding("warning", *_split(line)) for line in found.warnings]
    findings += [Finding("error", *_split(line)) for line in found.refused]
    for number, source in enumerate(found.sources):
        progress("scans", number, len(found.sources))
        try:
            findings += _examine(source, kind, config)
        except (SourceError, CloudError) as error:
            path = getattr(error, "path", str(source.root / source.path))
            findings.append(Finding("error", path, getattr(error, "problem", str(error))))
    return findings


def _split(line: str) -> tuple[str, str]:
    path, _, message = line.partition(": ")
    return path, message


def _examine(source: PosedSource, kind: str, config: FramesConfig) -> Iterator[Finding]:
    path = str(source.root / source.path)
    reading, used, points = Reading(), 0, 0
    for view in read_views(source, kind, config, reading):
        used, points = used + 1, points + len(view.cloud)
    for reason in reading.left_out:
        yield Finding("warning", path, f"left out, {reason}: {reading.example(reason)}")
    for error in reading.broken:
        yield Finding("error", error.path, error.problem)
    what = f"{counted(reading.frames, 'frame')}, {used} used"
    if used < config.frames:
        yield Finding("error", path, f"{what}: sequences need {config.frames}, --set every=N takes more")
    else:
        yield Finding("note", path, f"{what}, {points // used} points each at {config.voxel_m:g} m")
    finer = dataclasses.replace(config, every=max(1, config.every // 5), voxel_m=config.voxel_m / 2)
    finer = dataclasses.replace(finer, near_m=0.0, far_m=1e4, least_points=1)  # whatever the scale
    views = list(itertools.islice(read_views(source, kind, finer, Reading()), _LOOKED_AT))
    yield check_conventions(path, source, kind, views)


def check_conventions(path: str, source: PosedSource, kind: str, views: list[View]) -> Finding:
    """Whether neighbouring views agree under the poses as given and, if not, under which other reading of them."""
    pairs = choose_pairs(views)
    if not pairs:
        return Finding("note", path, "its first frames hardly move: conventions of poses cannot be told from them")
    given = median_gap(pairs, lambda point, pose: (point, pose))
    if given <= _GOOD_M[kind] / 2:
        return Finding("note", path, f"neighbouring {kind} agree to {1e3 * given:.0f} mm")
    tried = [(median_gap(pairs, other.move), other) for other in other_readings(source, kind)]
    gap, best = min(tried, key=lambda row: row[0] / min(row[1].factor, 1.0))  # all is near where all is small
    if gap / min(best.factor, 1.0) < _BETTER * given and gap < 2 * _GOOD_M[kind]:
        what = f"neighbouring {kind} lie {given:.2g} m apart as the poses are read, {gap:.2g} m with {best.says}"
        return Finding("error", path, f"{what}: say so in gen4d.yaml")
    if given <= _GOOD_M[kind]:
        return Finding("note", path, f"neighbouring {kind} agree to {1e3 * given:.0f} mm")
    what = f"neighbouring {kind} lie {given:.2g} m apart, and no usual mistake explains it"
    return Finding("warning", path, f"{what}: check intrinsics, scales and which pose belongs to which frame")


def choose_pairs(views: list[View]) -> list[tuple[View, View]]:
    """Some pairs of views that moved enough to tell: those that moved least, as they see most in common."""
    moved = []
    for first, second in itertools.combinations(views, 2):
        between = np.linalg.inv(first.pose) @ second.pose
        way = float(np.linalg.norm(between[:3, 3]))
        angle = float(np.arccos(np.clip((np.trace(between[:3, :3]) - 1) / 2, -1, 1)))
        if (way > _STILL_M or angle > _STILL_RAD) and way < _FAR_M and angle < _FAR_RAD:
            moved.append((way + angle, len(moved), first, second))
    return [(first, second) for *_, first, second in sorted(moved, key=lambda row: row[:2])[:_PAIRS]]


def median_gap(pairs: list[tuple[View, View]], move: Move) -> float:
    """Median over pairs of how far points of one view lie from the other view, metres: of each pair the direction that
    fits better, since the nearer view sees a part of what the other one does."""
    gaps = []
    for pair in pairs:
        placed = []
        for view in pair:
            point, pose = move(view.cloud.point.astype(np.float64), view.pose)
            placed.append(point @ pose[:3, :3].T + pose[:3, 3])
        trees = [cKDTree(point) for point in placed]
        step = [max(1, len(point) // _QUERIES) for point in placed]
        forth = np.median(trees[1].query(placed[0][:: step[0]])[0])
        gaps.append(min(forth, np.median(trees[0].query(placed[1][:: step[1]])[0])))
    return float(np.median(gaps))


def other_readings(source: PosedSource, kind: str) -> list[Otherwise]:
    """The usual mistakes about poses, axes and scales, each as the key that would mend it."""
    recorded = source.recorded
    directions = {"sensor-to-world": "world-to-sensor", "world-to-sensor": "sensor-to-world"}
    inverse = f"pose_is: {directions[recorded.pose_is]}"
    found = [Otherwise(inverse, lambda point, pose: (point, np.linalg.inv(pose)))]
    if kind == "frames":
        camera = f"camera: {'opencv' if recorded.camera == 'opengl' else 'opengl'}"
        found.append(Otherwise(camera, lambda point, pose: (point, pose @ _FLIP)))
        found.append(Otherwise(f"{inverse} and {camera}", lambda point, pose: (point, np.linalg.inv(pose) @ _FLIP)))
        for factor in _SCALES:
            says = f"depth_scale: {recorded.depth_scale / factor:g}"
            found.append(Otherwise(says, lambda point, pose, factor=factor: (point * factor, pose), factor))
    if recorded.pose_columns == "auto" or "qw" in recorded.pose_columns:
        names = recorded.pose_columns.split()
        w_first = "qw" in names and names.index("qw") < names.index("qx")
        says = f"pose_columns: {'... qx qy qz qw' if w_first else '... qw qx qy qz'}"
        shift = 1 if w_first else -1
        found.append(Otherwise(says, lambda point, pose: (point, _turned_quaternion(pose, shift))))
    return found


_FLIP = np.diag([1.0, -1, -1, 1])


def _turned_quaternion(pose: np.ndarray, shift: int) -> np.ndarray:
    """A pose whose quaternion was read as x y z w if its numbers were w x y z (shift -1), or the reverse (1)."""
    m = pose[:3, :3]
    form = np.zeros((4, 4))
    form[:3, :3] = m + m.T - np.trace(m) * np.eye(3)
    form[3, :3] = form[:3, 3] = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    form[3, 3] = np.trace(m)
    x, y, z, w = np.roll(np.linalg.eigh(form)[1][:, -1:], shift, axis=0)
    out = pose.copy()
    out[:3, :3] = quaternion_rotation(x, y, z, w)[0]
    return out
