"""Instances and boxes: clustering against lists of pairs, both APs against their rules gone through one by one, and
training steps against one of segmentation on the same rooms: `python -m benchmarks objects`.

Clusters and APs have the size of ScanNet's benchmark, 312 scans; steps are those of the study's small rooms. References
of both APs do two scans and are scaled up; results are compared.
"""

import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from tests import naive_boxes, naive_instances
from train.study.cells import measure_costs
from train.study.plan import Study
from train.study.rooms import Given, make_rooms
from train.tasks.detect import ap as boxes_ap
from train.tasks.instances import ap as masks_ap
from train.tasks.instances.group import clusters

SCANS, CLASSES = 312, 18
_VOXELS, _RADIUS = 58_575, 0.03  # of a scan at 2 cm, in 25 dense balls
_STUDY = Study(rooms=10, measures=("segmentation", "instances", "detection"), sequences=1)


def main() -> None:
    """Three tables."""
    rng = np.random.default_rng(0)
    print(f"instances and boxes, {SCANS} scans, seconds of the processor")
    _clustering(rng)
    _instances(rng)
    _boxes(rng)
    _steps()


def _timed(call: Callable):
    """What a call gives, and its seconds of the processor."""
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


def _line(name: str, seconds: float, reference: float, what: str) -> None:
    print(f"  {name:<28} {seconds:8.2f} s, {reference / seconds:8.1f} times as fast as {what}")


def _clustering(rng: np.random.Generator) -> None:
    middle = rng.uniform(0, 5, (25, 3))[rng.integers(0, 25, _VOXELS)]
    point = middle + rng.normal(0, 0.02, (_VOXELS, 3))
    group = np.zeros(_VOXELS, np.int64)
    clusters(point[:10], group[:10], _RADIUS)  # compiles
    ours, seconds = _timed(lambda: clusters(point, group, _RADIUS))

    def by_pairs() -> np.ndarray:
        pairs = cKDTree(point).query_pairs(_RADIUS, output_type="ndarray")
        edges = sparse.coo_matrix((np.ones(len(pairs), bool), pairs.T), (_VOXELS, _VOXELS))
        return sparse.csgraph.connected_components(edges, directed=False)[1]

    theirs, reference = _timed(by_pairs)
    both = np.unique(np.stack([ours, theirs], axis=1), axis=0)
    assert len(both) == len(np.unique(ours)) == len(np.unique(theirs))
    _line("clusters of a scan", seconds, reference, "k-d tree, list of pairs and SciPy's components")


def _instances(rng: np.random.Generator, few: int = 2) -> None:
    """40 instances of 2,000 points and 100 predictions a scan."""
    scans = []
    for _ in range(few):
        number = np.repeat(np.arange(40), 2000)
        true = masks_ap.Truth(number, rng.integers(0, CLASSES, 40))
        masks = [np.flatnonzero((number == k % 40) & (rng.random(len(number)) < 0.8)) for k in range(100)]
        scans.append((true, masks_ap.Found(masks, true.kind[np.arange(100) % 40], rng.random(100))))

    def score(times: int) -> masks_ap.Precision:
        return masks_ap.average_precision([masks_ap.compare(*scan) for scan in scans * times], CLASSES)

    _, seconds = _timed(lambda: score(SCANS // few))
    sets = [_as_sets(*scan) for scan in scans]
    levels = (*masks_ap.THRESHOLDS, masks_ap.LOOSE)
    theirs, reference = _timed(lambda: [naive_instances.ap_of_scans(sets, CLASSES, level) for level in levels])
    ours = score(1)
    _same(ours.classes[:, 1], theirs[0])
    _same(ours.classes[:, 2], theirs[-1])
    _line("AP of instances", seconds, reference * SCANS / few, "the rules over sets of points")


def _as_sets(true: masks_ap.Truth, found: masks_ap.Found) -> tuple[list, list]:
    instances = [(int(kind), set(np.flatnonzero(true.number == g).tolist())) for g, kind in enumerate(true.kind)]
    guesses = [
        (int(kind), set(point.tolist()), float(score))
        for point, kind, score in zip(found.point, found.kind, found.score, strict=True)
    ]
    return instances, guesses


def _boxes(rng: np.random.Generator, few: int = 2) -> None:
    """20 true boxes a scene and 256 proposals, each of which counts for every class."""
    scenes = [
        boxes_ap.Scene(_some(rng, 20), rng.integers(0, CLASSES, 20), _some(rng, 256), rng.random((256, CLASSES)))
        for _ in range(SCANS)
    ]
    _, seconds = _timed(lambda: boxes_ap.average_precision(scenes, CLASSES))
    some = scenes[:few]

    def one_by_one() -> list:
        return [[naive_boxes.ap(some, c, level) for level in boxes_ap.THRESHOLDS] for c in range(CLASSES)]

    theirs, reference = _timed(one_by_one)
    _same(boxes_ap.average_precision(some, CLASSES).ap, theirs)
    _line("AP of boxes", seconds, reference * SCANS / few, "the rules box by box")


def _some(rng: np.random.Generator, count: int) -> np.ndarray:
    place, size = rng.uniform(0, 6, (count, 3)), rng.uniform(0.3, 1.5, (count, 3))
    return np.concatenate([place, size, np.zeros((count, 1))], axis=1)


def _same(ours: np.ndarray, theirs: list) -> None:
    np.testing.assert_allclose(ours, np.array(theirs, float), atol=1e-9)


def _steps() -> None:
    """Processor's time of steps of the preset small at the study's size, and of looking at a scan."""
    with tempfile.TemporaryDirectory() as folder:
        rooms = make_rooms(_STUDY, Given(), pathlib.Path(folder), 0, lambda _: None, few=True)
        costs = measure_costs(_STUDY, rooms, "cpu", [], steps=12)
    floor = costs.step["segmentation"]
    for name, seconds in costs.step.items():
        ratio, look = seconds / floor, costs.look[name]
        print(f"  a step of {name:<18} {seconds:8.3f} s, {ratio:8.2f} times one of segmentation; a scan {look:.3f} s")
