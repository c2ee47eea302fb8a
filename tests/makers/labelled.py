"""Labelled rooms for tests of the downstream tasks, in memory and in ScanNet's exact files."""

import json
from pathlib import Path

import numpy as np

from tests.makers.files import ply, write
from train.inputs.labels import NONE
from train.inputs.scans import LabelledScan

# Object -> (raw category, nyu40 id, class of the benchmark or NONE).
OBJECTS = {
    "floor": ("floor", 2, 1),
    "wall": ("wall", 1, 0),
    "table": ("dining table", 7, 6),
    "lamp": ("desk lamp", 35, NONE),
    "nothing": (None, 0, NONE),
}


def keyed(*key: int) -> np.random.Generator:
    """A generator for a test, keyed by numbers."""
    return np.random.Generator(np.random.Philox(key=[7, 0], counter=[*key, 0, 0, 0, 0][:4]))


def room(number: int, points: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) float32 of a 3 x 2.5 m room with a table and a lamp, and the object (N,) of each."""
    rng = keyed(number)
    point = rng.uniform((0, 0, 0), (3, 2.5, 2.2), (points, 3))
    kind = rng.choice(list(OBJECTS), points, p=[0.35, 0.35, 0.2, 0.05, 0.05])
    corner = rng.uniform((0.5, 0.5), (1.5, 1.2))
    point[kind == "floor", 2] = 0
    point[kind == "wall", 0] = 0
    table = kind == "table"
    point[table] = np.hstack([corner + rng.uniform(0, 0.8, (table.sum(), 2)), np.full((table.sum(), 1), 0.75)])
    lamp = kind == "lamp"
    point[lamp] = [*corner, 0.8] + rng.uniform(0, 0.3, (lamp.sum(), 3))
    return (point + rng.normal(0, 0.005, point.shape)).astype(np.float32), kind


def labelled(number: int, points: int = 1500) -> LabelledScan:
    """A room as a labelled scan."""
    point, kind = room(number, points)
    label = np.array([OBJECTS[name][2] for name in kind], np.int16)
    return LabelledScan(f"scene{number:04d}_00", point, label, np.arange(points, dtype=np.int32), points, str(number))


def write_room(folder: Path, name: str, number: int, labels: str = "ply", points: int = 1500) -> np.ndarray:
    """A room in ScanNet's files, with labels in a mesh ("ply"), by segments and aggregation ("segments"), or none.
    Returns the nyu40 id (N,) of each vertex."""
    point, kind = room(number, points)
    base = folder / name
    rgba = {colour: np.full(points, 90, np.uint8) for colour in ("red", "green", "blue", "alpha")}
    faces = [(0, 1, 2), (2, 3, 4)]
    nyu40 = np.array([OBJECTS[k][1] for k in kind], np.uint16)
    write(base / f"{name}_vh_clean_2.ply", ply(point, rgba, faces=faces))
    write(base / f"{name}.txt", "axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n")
    if labels == "ply":
        write(base / f"{name}_vh_clean_2.labels.ply", ply(point, {**rgba, "label": nyu40}, faces=faces))
    if labels == "segments":
        _write_segments(folder, base, name, kind)
    return nyu40.astype(np.int64)


def _write_segments(folder: Path, base: Path, name: str, kind: np.ndarray) -> None:
    """Two segments an object, as the over-segmentation has them; what is nothing belongs to no object."""
    segment = {k: 10 * (i + 1) for i, k in enumerate(OBJECTS)}
    index = [segment[k] + i % 2 for i, k in enumerate(kind)]
    groups = [
        {"id": i, "objectId": i, "segments": [segment[k], segment[k] + 1], "label": OBJECTS[k][0]}
        for i, k in enumerate(k for k in OBJECTS if OBJECTS[k][0])
    ]
    write(base / f"{name}_vh_clean_2.0.010000.segs.json", json.dumps({"sceneId": name, "segIndices": index}))
    write(base / f"{name}.aggregation.json", json.dumps({"sceneId": f"scannet.{name}", "segGroups": groups}))
    rows = [f"{i}\t{raw}\tx\t9\t{nyu40}\n" for i, (raw, nyu40, _) in enumerate(OBJECTS.values()) if raw]
    write(folder / "scannetv2-labels.combined.tsv", "id\traw_category\tcategory\tcount\tnyu40id\n" + "".join(rows))


def write_rooms(folder: Path, train: int = 4, val: int = 2, labels: str = "ply") -> dict[str, np.ndarray]:
    """A data set of rooms with its lists; the first training room has two scans. Returns name -> nyu40 ids."""
    names = {"train": ["scene0000_00", "scene0000_01"], "val": []}
    names["train"] += [f"scene{number:04d}_00" for number in range(1, train)]
    names["val"] += [f"scene{100 + number:04d}_00" for number in range(val)]
    for part, members in names.items():
        write(folder / f"scannetv2_{part}.txt", "".join(f"{name}\n" for name in members))
    every = [*names["train"], *names["val"]]
    return {name: write_room(folder, name, number, labels) for number, name in enumerate(every)}


def with_objects(number: int, points: int = 1500) -> LabelledScan:
    """A room with instances: its table twice, a metre apart; the floor, a wall, and a lamp that is of no class."""
    point, kind = room(number, points)
    scan = labelled(number, points)
    ids = np.array([list(OBJECTS).index(name) if OBJECTS[name][0] else -1 for name in kind], np.int32)
    table = kind == "table"
    point = np.vstack([point, point[table] + np.float32([0, 1.2, 0])])
    label, ids = np.append(scan.label, scan.label[table]), np.append(ids, ids[table] + 50).astype(np.int32)
    row = np.arange(len(point), dtype=np.int32)
    return scan._replace(point=point, label=label, instance=ids, row=row, rows=len(point))


def with_solids(number: int, points: int = 1500) -> LabelledScan:
    """A floor with a table, a bed and a bed, boxes whose surfaces were scanned; as labelled scan with instances."""
    rng = keyed(number, 5)
    solids = [((0.8, 0.8, 0.4), (0.9, 0.6, 0.8), 6), ((2.2, 0.7, 0.25), (0.8, 1.0, 0.5), 3)]
    solids.append(((1.4, 2.2, 0.25), (1.0, 0.8, 0.5), 3))
    floor = rng.uniform((0, 0, 0), (3, 3, 0), (points // 2, 3))
    parts, label, ids = [floor], [np.full(len(floor), 1)], [np.zeros(len(floor), int)]
    for k, (centre, size, kind) in enumerate(solids):
        surface = rng.uniform(-0.5, 0.5, (points // 6, 3))
        side = rng.integers(0, 3, len(surface))
        surface[np.arange(len(surface)), side] = rng.choice([-0.5, 0.5], len(surface))
        parts.append(np.array(centre) + surface * size)
        label.append(np.full(len(surface), kind))
        ids.append(np.full(len(surface), k + 1))
    point = np.concatenate(parts).astype(np.float32)
    row = np.arange(len(point), dtype=np.int32)
    named = (np.concatenate(label).astype(np.int16), np.concatenate(ids).astype(np.int32))
    return LabelledScan(f"scene{number:04d}_00", point, named[0], row, len(point), str(number), instance=named[1])


def with_turned(number: int, points: int = 1500) -> LabelledScan:
    """A floor with a bed, a table and a sofa of SUN RGB-D's ten classes, turned, whose surfaces were scanned; boxes lie
    beside the points, which have no labels."""
    rng = keyed(number, 9)
    box = np.array(
        [
            [0.8, 0.8, 0.25, 1.0, 0.6, 0.5, 0.5, 0],
            [2.3, 0.8, 0.4, 0.6, 0.9, 0.8, -2.2, 1],
            [1.5, 2.2, 0.3, 0.7, 1.2, 0.6, 2.6, 2],
        ]
    )
    parts = [rng.uniform((0, 0, 0), (3, 3, 0), (points // 2, 3))]
    for one in box:
        surface = rng.uniform(-0.5, 0.5, (points // 6, 3))
        surface[np.arange(len(surface)), rng.integers(0, 3, len(surface))] = rng.choice([-0.5, 0.5], len(surface))
        x, y, z = (surface * one[3:6]).T
        cos, sin = np.cos(one[6]), np.sin(one[6])
        front = x > 0.4 * one[3]  # a back rest: which way it faces can be seen
        parts.append(
            one[:3] + np.stack([cos * x - sin * y, sin * x + cos * y, np.where(front, 0.5 * one[5], z)], axis=1)
        )
    point = np.concatenate(parts).astype(np.float32)
    row = np.arange(len(point), dtype=np.int32)
    none = np.full(len(point), NONE, np.int16)
    return LabelledScan(f"{number:06d}", point, none, row, len(point), str(number), box=box)
