"""Meshes of boxes and furniture, and folders of shapes in ModelNet's layout."""

import pathlib

import numpy as np

from tests.makers.files import off, write

CUBE_VERTEX = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
CUBE_QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
CUBE_TRIANGLES = np.array([(q[0], q[i], q[i + 1]) for q in CUBE_QUADS for i in (1, 2)], np.int64)


def box(low, high):
    """Corners (8, 3) and triangles (12, 3) of a box."""
    return np.where(CUBE_VERTEX == 0, low, high), CUBE_TRIANGLES


def table(sides: int, width: float):
    """A round table: a top of `sides` corners on four legs."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    rim = np.stack([np.cos(angle), np.sin(angle)], axis=1) * width
    vertex = [np.c_[rim, np.full(sides, z)] for z in (1.0, 0.95)]
    face = [(s * sides, s * sides + i, s * sides + i + 1) for s in (0, 1) for i in range(1, sides - 1)]
    face += [(i, (i + 1) % sides, sides + i) for i in range(sides)]
    face += [(sides + i, (i + 1) % sides, sides + (i + 1) % sides) for i in range(sides)]
    parts = [(np.concatenate(vertex), np.array(face))]
    leg, spot = 0.06, 0.6 * width
    parts += [box((x - leg, y - leg, 0), (x + leg, y + leg, 0.96)) for x in (-spot, spot) for y in (-spot, spot)]
    return _joined(parts)


def chair(width: float):
    """A seat on four legs, with a back."""
    leg, spot = 0.04, width - 0.04
    parts = [box((-width, -width, 0.45), (width, width, 0.5)), box((-width, width - 0.05, 0.5), (width, width, 1))]
    parts += [box((x - leg, y - leg, 0), (x + leg, y + leg, 0.46)) for x in (-spot, spot) for y in (-spot, spot)]
    return _joined(parts)


def _joined(parts):
    start = np.cumsum([0, *(len(vertex) for vertex, _ in parts)])
    face = [face + first for (_, face), first in zip(parts, start, strict=False)]
    return np.concatenate([vertex for vertex, _ in parts]), np.concatenate(face)


def write_shape(folder: pathlib.Path, class_name: str, number: int, vertex: np.ndarray, face, **form) -> None:
    """A shape in ModelNet's layout, `chair/train/chair_0001.off`; form: arguments of `off`."""
    write(folder / class_name / "train" / f"{class_name}_{number:04d}.off", off(vertex, face, **form))


def write_box(folder: pathlib.Path, class_name: str = "chair", number: int = 1, size=(1.0, 0.8, 1.2)) -> None:
    """A box as a shape of some class."""
    write_shape(folder, class_name, number, CUBE_VERTEX * size, CUBE_QUADS)


def write_shapes(folder: pathlib.Path) -> pathlib.Path:
    """Five shapes of three classes, off their origin and of odd units, with headers that run into their counts."""
    meshes = {
        "chair_0001": chair(0.25),
        "chair_0002": chair(0.32),
        "table_0001": table(64, 0.7),
        "table_0002": table(9, 0.5),
        "night_stand_0001": box((-0.4, -0.3, 0), (0.4, 0.3, 1)),
    }
    for i, (name, (vertex, face)) in enumerate(meshes.items()):
        class_name, _, number = name.rpartition("_")
        vertex = (vertex + [0.3 * i, -2, 5]) * 10.0**i
        write_shape(folder, class_name, int(number), vertex, face, header="OFF", digits=10)
    return folder
