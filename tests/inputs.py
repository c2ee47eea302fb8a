"""Small rooms and furniture on disk, for tests that need a folder of scans and a folder of shapes."""

import contextlib
import pathlib
import tempfile

import numpy as np

from gen4d import building, sources
from gen4d.config import Config
from tests.test_references import room

_LABEL_HEIGHT_M = 0.1  # what lies lower is labelled floor


def write_scan(path: pathlib.Path, point: np.ndarray) -> None:
    """A PLY file of points (N, 3) with a label for each: 2 near the lowest point, 0 elsewhere."""
    row = np.empty(len(point), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("label", "<i4")])
    for axis, name in enumerate("xyz"):
        row[name] = point[:, axis]
    row["label"] = np.where(point[:, 2] < np.nanmin(point[:, 2]) + _LABEL_HEIGHT_M, 2, 0)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(point)}\n"
    header += "property float x\nproperty float y\nproperty float z\nproperty int label\nend_header\n"
    path.write_bytes(header.encode() + row.tobytes())


def write_rooms(folder: pathlib.Path, count: int, points: int = 6000, first: int = 0) -> pathlib.Path:
    """Rooms of about 4.2 x 3.4 m, `room000.ply` and so on, each of its own points, the later ones turned and moved."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in range(first, first + count):
        cos, sin = np.cos(0.7 * key), np.sin(0.7 * key)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        point = room((50, key), points) @ turn + [1.7 * key, -0.9 * key, 0.31 * key]
        write_scan(folder / f"room{key:03d}.ply", point.astype(np.float32))
    return folder


def box(low, high):
    """Corners (8, 3) and triangles (12, 3) of a box."""
    corner = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    quad = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corner, np.array([tri for a, b, c, d in quad for tri in ((a, b, c), (a, c, d))])


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


def write_shapes(folder: pathlib.Path) -> pathlib.Path:
    """Five shapes of three classes in ModelNet's layout, off their origin and of odd units."""
    meshes = {
        "chair_0001": chair(0.25),
        "chair_0002": chair(0.32),
        "table_0001": table(64, 0.7),
        "table_0002": table(9, 0.5),
        "night_stand_0001": box((-0.4, -0.3, 0), (0.4, 0.3, 1)),
    }
    for number, (name, (vertex, face)) in enumerate(meshes.items()):
        path = folder / name.rsplit("_", 1)[0] / "train" / f"{name}.off"
        path.parent.mkdir(parents=True, exist_ok=True)
        vertex = (vertex + [0.3 * number, -2, 5]) * 10.0**number
        rows = [f"{x:.10g} {y:.10g} {z:.10g}" for x, y, z in vertex.tolist()]
        rows += [f"3 {a} {b} {c}" for a, b, c in face.tolist()]
        path.write_text("\n".join([f"OFF{len(vertex)} {len(face)} 0", *rows, ""]))
    return folder


def make_inputs(scans: pathlib.Path, shapes: pathlib.Path, **config) -> building.Inputs:
    """What `gen4d build` makes of two folders and some options."""
    return building.make_inputs(sources.find_scans(scans), sources.find_shapes(shapes), Config(**config))


def run_build(out: pathlib.Path, inputs: building.Inputs, workers: int = 1, strict: bool = False) -> dict:
    """Build all that is planned into `out`, and return the content of dataset.json."""
    return building.build_found(building.Found(inputs, (), ()), out, workers, strict=strict).manifest


def content_of(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file of a folder, by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextlib.contextmanager
def scratch(content: bytes):
    """A shard of some content on disk, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "00000.zarr.zip"
        path.write_bytes(content)
        yield path


def small_build(folder: pathlib.Path) -> pathlib.Path:
    """Three rooms in two shards, three sequences each, with pair lists."""
    scans, shapes = write_rooms(folder / "scans", 3, 3000), write_shapes(folder / "shapes")
    run_build(folder / "built", make_inputs(scans, shapes, sequences=3, scans_per_shard=2, pairs=True))
    return folder / "built"


def assert_same_cloud(one, other) -> None:
    """Clouds are equal bit for bit."""
    for name in one.columns:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        assert a is None or (a.tobytes() == b.tobytes() and a.dtype == b.dtype), name


def assert_same_sequence(one, other) -> None:
    """Sequences are equal in all that a reader gives, bit for bit."""
    assert (one.id, one.kind, one.attempt) == (other.id, other.kind, other.attempt)
    assert repr(one.movers) == repr(other.movers)  # in which NaN equals NaN
    for a, b in zip(one.actors, other.actors, strict=True):
        assert_same_cloud(a.cloud, b.cloud)
        assert (a.role, a.mover) == (b.role, b.mover) and a.pose.tobytes() == b.pose.tobytes()
        assert a.planes.tobytes() == b.planes.tobytes() and a.planes.shape == b.planes.shape
