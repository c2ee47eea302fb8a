"""Rooms as points (N, 3) float32 in metres with z up, and as folders of scans."""

import json
import pathlib

import numpy as np

from tests.makers.files import ply, write

FLOOR_M = -1.27  # of `furnished_room`
_LABEL_HEIGHT_M = 0.1  # what lies lower is labelled floor


def bare_floor(key: int, points: int = 150, side_m: float = 3.0) -> np.ndarray:
    """A floor without anything on it."""
    rng = np.random.default_rng((77, key))
    return rng.uniform((0, 0, 0), (side_m, side_m, 0.01), (points, 3)).astype(np.float32)


def room_points(count: int = 400, seed: int = 0) -> np.ndarray:
    """Half on the floor of a 4 x 3 m room, half on its walls up to 2.4 m."""
    rng = np.random.default_rng(seed)
    point = rng.uniform((0, 0, 0), (4, 3, 2.4), (count, 3))
    point[: count // 2, 2] = 0
    point[count // 2 :, 0] = np.where(point[count // 2 :, 0] < 2, 0, 4)
    return point.astype(np.float32)


def _sheet(rng, count, corner, side, other):
    """Points (count, 3) spread over a parallelogram."""
    share = rng.random((count, 2))
    return np.array(corner) + share[:, :1] * np.array(side) + share[:, 1:] * np.array(other)


def furnished_room(key, count: int = 20_000) -> np.ndarray:
    """A scanned room (count, 3) float32: floor with a hole, two walls, ceiling, two boxes, a table; 4 mm noise;
    its floor lies at FLOOR_M."""
    rng = np.random.default_rng(key)
    parts = [
        (0.38, (0, 0, 0), (4.2, 0, 0), (0, 3.4, 0)),
        (0.12, (0, 0, 0), (4.2, 0, 0), (0, 0, 2.4)),
        (0.12, (0, 0, 0), (0, 3.4, 0), (0, 0, 2.4)),
        (0.12, (0, 0, 2.4), (4.2, 0, 0), (0, 3.4, 0)),
        (0.06, (0.2, 0.2, 0.4), (0.8, 0, 0), (0, 0.5, 0)),
        (0.06, (0.2, 0.7, 0), (0.8, 0, 0), (0, 0, 0.4)),
        (0.06, (3.6, 2.8, 0.7), (0.5, 0, 0), (0, 0.5, 0)),
        (0.08, (3.2, 0.3, 0.75), (0.9, 0, 0), (0, 0.9, 0)),
    ]
    point = np.concatenate([_sheet(rng, int(share * count), *rest) for share, *rest in parts])
    hole = np.hypot(point[:, 0] - 2.5, point[:, 1] - 2.0) < 0.35
    point = point[~(hole & (point[:, 2] < 0.1))] + [-1.7, -2.2, FLOOR_M]
    return (point + rng.normal(scale=0.004, size=point.shape)).astype(np.float32)


def room_of_size(rng, size, noise_m=0.01) -> np.ndarray:
    """Floor, walls, ceiling and boxes of a room of size (x, y) metres, (N, 3), scanned with noise."""
    count = int(min(40_000, size[0] * size[1] * 800))
    floor = rng.uniform((0, 0, 0), (*size, 0), (count, 3))
    for _ in range(max(3, int(size[0] * size[1] / 4))):
        inside = (np.abs(floor[:, :2] - rng.uniform((0, 0), size)) < rng.uniform(0.2, 0.6, 2)).all(axis=1)
        floor[inside, 2] = rng.uniform(0.4, 1.8)
    wall = rng.uniform((0, 0, 0), (*size, 2.5), (count // 2, 3))
    side = rng.integers(4, size=len(wall))
    wall[side < 2, 0] = size[0] * (side[side < 2] % 2)
    wall[side >= 2, 1] = size[1] * (side[side >= 2] % 2)
    ceiling = rng.uniform((0, 0, 2.5), (*size, 2.5), (count // 3, 3))
    point = np.concatenate([floor, wall, ceiling])
    return point + rng.normal(0, noise_m, point.shape)


def full_size_room(key: int = 0, vertices: int = 168_000) -> np.ndarray:
    """A furnished room of 6 x 5 m of as many points as a scan of ScanNet; about 115 k of them after thinning."""
    rng = np.random.Generator(np.random.Philox(key=key))
    sheets = [((0, 0, 0), (6, 0, 0), (0, 5, 0), 0.30)]
    sheets += [((0, 0, 0), (6, 0, 0), (0, 0, 2.4), 0.13), ((0, 5, 0), (6, 0, 0), (0, 0, 1.5), 0.08)]
    sheets += [((0, 0, 0), (0, 5, 0), (0, 0, 2.4), 0.12), ((6, 0, 0), (0, 5, 0), (0, 0, 1.2), 0.06)]
    for x, y, side in zip(rng.random(8) * 5, [0, 0.1, 0.2, 0.3, 4.1, 4.2, 4.3, 4.4], rng.random(8), strict=True):
        size = 0.3 + 0.5 * side
        sheets.append(((x, y, size), (size, 0, 0), (0, size, 0), 0.02))
        sheets.append(((x, y + size * (y < 2), 0), (size, 0, 0), (0, 0, size), 0.019))
    point = [
        np.array(corner) + rng.random((int(share * vertices), 1)) * u + rng.random((int(share * vertices), 1)) * v
        for corner, u, v, share in sheets
    ]
    joined = np.concatenate(point)
    return (joined + rng.normal(scale=0.004, size=joined.shape)).astype(np.float32)


def write_scan(path: pathlib.Path, point: np.ndarray) -> None:
    """A PLY file of points with a label for each: 2 near the lowest point, 0 elsewhere."""
    label = np.where(point[:, 2] < np.nanmin(point[:, 2]) + _LABEL_HEIGHT_M, 2, 0)
    write(path, ply(point, {"label": label.astype(np.int32)}))


def write_furnished(folder: pathlib.Path, count: int, points: int = 6000, first: int = 0) -> pathlib.Path:
    """Rooms of about 4.2 x 3.4 m, `room000.ply` and so on, each of its own points, the later ones turned and moved."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in range(first, first + count):
        cos, sin = np.cos(0.7 * key), np.sin(0.7 * key)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        point = furnished_room((50, key), points) @ turn + [1.7 * key, -0.9 * key, 0.31 * key]
        write_scan(folder / f"room{key:03d}.ply", point.astype(np.float32))
    return folder


def write_full_size(folder: pathlib.Path, count: int, same: bool = False) -> pathlib.Path:
    """`room0000.ply` and so on of full size; `same`: one room, each time a millimetre higher, which is made faster."""
    first = full_size_room() if same else None
    for key in range(count):
        point = full_size_room(key) if first is None else first + np.float32([0, 0, 0.001 * key])
        write(folder / f"room{key:04d}.ply", ply(point))
    return folder


def scannet_scan(folder: pathlib.Path, name: str, count: int = 400, labels: str = "ply") -> np.ndarray:
    """A scan in ScanNet's layout: half of its points are floor (segment 0), half wall (segment 1), one chair on top.

    labels: "ply", "segments" (segments and aggregation), "both" or "none". Returns the points.
    """
    point = room_points(count, seed=sum(name.encode()))
    colour = {key: np.zeros(count, np.uint8) for key in ("red", "green", "blue", "alpha")}
    faces = [(0, 1, 2), (3, 4, 5)]
    base = folder / name
    write(base / f"{name}_vh_clean_2.ply", ply(point, colour, faces=faces))
    write(base / f"{name}.txt", "axisAlignment = 0 1 0 2 -1 0 0 3 0 0 1 0 0 0 0 1\ncolorHeight = 968\n")
    segment = np.repeat([5, 9], [count // 2, count - count // 2])
    segment[-10:] = 77
    if labels in ("ply", "both"):
        label = np.where(segment == 5, 2, 1).astype(np.uint16)
        write(base / f"{name}_vh_clean_2.labels.ply", ply(point, {**colour, "label": label}, faces=faces))
    if labels in ("segments", "both"):
        groups = [
            {"id": 0, "objectId": 0, "segments": [5], "label": "floor"},
            {"id": 1, "objectId": 1, "segments": [9], "label": "wall"},
        ]
        tree = {"sceneId": f"scannet.{name}", "segIndices": segment.tolist()}
        write(base / f"{name}_vh_clean_2.0.010000.segs.json", json.dumps(tree))
        write(base / f"{name}.aggregation.json", json.dumps({"sceneId": f"scannet.{name}", "segGroups": groups}))
        table = "id\traw_category\tcategory\tcount\tnyu40id\n1\twall\twall\t8277\t1\n3\tfloor\tfloor\t1553\t2\n"
        write(folder / "scannetv2-labels.combined.tsv", table)
    return point


def pointcept_scan(folder: pathlib.Path, name: str, count: int = 400) -> np.ndarray:
    """A scan as Pointcept's processing leaves it. Returns the points."""
    point = room_points(count)
    base = folder / name
    base.mkdir(parents=True)
    np.save(base / "coord.npy", point)
    np.save(base / "color.npy", np.zeros((count, 3), np.uint8))
    np.save(base / "segment20.npy", np.repeat(np.array([1, -1], np.int16), [count // 2, count - count // 2]))
    np.save(base / "instance.npy", np.repeat(np.array([3, -1], np.int16), [count // 2, count - count // 2]))
    return point
