"""Rooms in S3DIS's raw layout: a text of each room, a text of each of its objects, and what else lies there."""

import pathlib

import numpy as np

from tests.makers.files import write

# Name of the file, and low and high corner of where its points lie.
OBJECTS = {
    "ceiling_1": ((0, 0, 2.4), (2.2, 1.6, 2.4)),
    "chair_1": ((0.3, 0.3, 0), (0.7, 0.7, 0.8)),
    "chair_2": ((1.2, 0.9, 0), (1.6, 1.3, 0.8)),
    "clutter_1": ((1.7, 0.2, 0), (2.0, 0.5, 0.3)),
    "floor_1": ((0, 0, 0), (2.2, 1.6, 0)),
    "stairs_1": ((0.1, 1.2, 0), (0.4, 1.5, 0.4)),
    "wall_1": ((0, 0, 0), (2.2, 0, 2.4)),
    "wall_2": ((0, 0, 0), (0, 1.6, 2.4)),
}
CLASS = {"ceiling": 0, "floor": 1, "wall": 2, "chair": 8, "clutter": 12, "stairs": 12}


def s3dis_objects(number: int, points: int = 150) -> dict[str, np.ndarray]:
    """Name -> rows x y z r g b of every object of a room, as they stand in its text."""
    rng = np.random.default_rng((13, number))
    shift = np.array([-15.0 + number, 30.0, 0.5])
    rows = {}
    for name, (low, high) in OBJECTS.items():
        count = points if name.startswith(("ceiling", "floor", "wall")) else points // 3
        point = np.round(rng.uniform(low, high, (count, 3)) + shift, 3)
        rows[name] = np.hstack([point, rng.integers(0, 256, (count, 3))])
    return rows


def text_of(rows: np.ndarray) -> str:
    """Lines as they stand in the texts of the aligned version."""
    return "".join(f"{x:.3f} {y:.3f} {z:.3f} {r:.0f} {g:.0f} {b:.0f}\n" for x, y, z, r, g, b in rows.tolist())


def write_s3dis_room(folder: pathlib.Path, area: str, room: str, number: int, points: int = 150) -> dict:
    """A room, its objects, and what systems leave beside them. Returns the rows of the objects."""
    rows = s3dis_objects(number, points)
    base = folder / area / room
    for name, values in rows.items():
        write(base / "Annotations" / f"{name}.txt", text_of(values))
    write(base / "Annotations" / ".DS_Store", b"\0\0\0\1Bud1")
    shuffled = np.random.default_rng(number).permutation(np.concatenate(list(rows.values())))
    write(base / f"{room}.txt", text_of(shuffled))
    write(folder / area / f"{area}_alignmentAngle.txt", "## Global alignment angle per disjoint space ##\n")
    return rows
