"""A hand-held depth camera in a furnished room: what it sees, with its noise, fused to vertices about 2 cm apart.

Room coordinates have the floor at z = 0 and walls along x and y; the scan's own frame is turned and shifted, as in
ScanNet.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gen4d.samples.camera import render
from gen4d.samples.draws import chance
from gen4d.samples.objects.pieces import CATEGORY_CLASS, CATEGORY_ID
from gen4d.samples.objects.solids import Solid, join, place
from gen4d.samples.rooms.placing import CELL_M, RoomPlan

SPACING_M = 0.024  # cells of the fused surface: half of the vertices have a neighbour within 1.6 to 2.4 cm
_IMAGE = (150, 200)  # rows, columns: a pixel is one vertex spacing wide at 3.9 m
LENS = (173.0, 100.0, 75.0)  # focal length and centre in pixels: 60 degrees across
_NEAR_M, _FAR_M = 0.4, 3.8
_LEAST_READINGS = 2
_LEAST_PATCH = 12
_LEAST_VERTICES = 25  # an object of which less is seen gets no annotation
_MOST_TILT_DEG = 16.0  # 15.5 is the most of 23 scans of ScanNet
_DRIFT = (
    4e-4,
    4e-4,
    4e-4,
    1e-3,
    1e-3,
    1e-3,
)  # of each image, radians and metres: after 100 images 0.2 degrees and 1 cm
_OFTEN_LEFT_OUT = ("otherprop", "paper", "books", "clothes")


class Scene(NamedTuple):
    """A room's triangles in one mesh, and the object that each belongs to: `owner` (F,) int32 indexes `names`."""

    mesh: Solid
    owner: np.ndarray
    names: list[str]


class Capture(NamedTuple):
    """A simulated scan, in the scan's frame, metres.

    point: (N, 3) float32. color: (N, 4) uint8. face: (M, 3) int32. segment: (N,) int32, the over-segmentation.
    instance: (N,) int32, index in `names` of the annotated object or -1. label: (N,) int32, nyu40 id, 0 = unlabelled.
    align: (4, 4) float64, takes the scan's frame to the room's, but for a tilt, as ScanNet's does. frames: how many
    depth images were fused.
    """

    point: np.ndarray
    color: np.ndarray
    face: np.ndarray
    segment: np.ndarray
    instance: np.ndarray
    label: np.ndarray
    names: list[str]
    align: np.ndarray
    frames: int


class _Fused(NamedTuple):
    point: np.ndarray  # (N, 3) float64
    face: np.ndarray  # (M, 3) int32
    source: np.ndarray  # (N,) int32, the triangle of the scene that a vertex stands for


# Called with each depth image (H, W) float64 in metres, 0 = no reading, and the believed pose of its camera (4, 4), x
# right, y down, z forward, in the scan's frame.
Watcher = Callable[[np.ndarray, np.ndarray], None]


def scan_room(
    plan: RoomPlan,
    rng: np.random.Generator,
    unsteady: np.random.Generator | None = None,
    watcher: Watcher | None = None,
) -> Capture:
    """Walks a camera through the room, fuses what it sees, and annotates it.

    unsteady: draws a tilt of the scan's frame and a drift of the camera's believed pose; without it the floor is level.
    """
    scene = _scene_of(plan)
    turned = _frame(rng, plan)
    poses = camera_poses(plan, rng)
    to_scan = turned if unsteady is None else _tilt(unsteady) @ turned
    steps = np.zeros((len(poses), 6)) if unsteady is None else unsteady.normal(0, _DRIFT, (len(poses), 6))
    fused = surface(*observe(scene, poses, to_scan, steps, rng, watcher))
    segment, instance = _annotate(fused, scene, rng)
    label = np.zeros(len(instance), np.int32)
    ids = np.array([CATEGORY_ID[name] for name in scene.names], np.int32)
    label[instance >= 0] = ids[instance[instance >= 0]]
    color = _colour(fused, scene.mesh.tint, rng)
    return Capture(
        fused.point.astype(np.float32),
        color,
        fused.face,
        segment,
        instance,
        label,
        scene.names,
        np.linalg.inv(turned),
        len(poses),
    )


def _scene_of(plan: RoomPlan) -> Scene:
    meshes, names = [], []
    for item in plan.items:
        for piece in item.piece.all():
            meshes.append(place(piece.mesh, (item.x, item.y, item.z), item.yaw_rad))
            names.append(piece.name)
    owner = np.repeat(np.arange(len(meshes), dtype=np.int32), [len(mesh.face) for mesh in meshes])
    return Scene(join(meshes), owner, names)


def _frame(rng: np.random.Generator, plan: RoomPlan) -> np.ndarray:
    """A random yaw and origin, the floor a little off zero: (4, 4), room to scan."""
    yaw, cos_sin = rng.uniform(-np.pi, np.pi), np.zeros((4, 4))
    cos, sin = np.cos(yaw), np.sin(yaw)
    cos_sin[:2, :2], cos_sin[2, 2], cos_sin[3, 3] = [[cos, -sin], [sin, cos]], 1.0, 1.0
    cos_sin[:3, 3] = [*rng.uniform(-3.0, 6.0, 2), rng.uniform(-0.08, 0.12)]
    return cos_sin


def _tilt(rng: np.random.Generator) -> np.ndarray:
    """A tilt about a horizontal axis: (4, 4). Half are below 0.6 degrees, a third above 1, one in fifty above 7."""
    angle = np.radians(min(0.6 * np.exp(1.2 * rng.standard_normal()), _MOST_TILT_DEG))
    x, y, _ = axis = np.array([np.cos(turn := rng.uniform(-np.pi, np.pi)), np.sin(turn), 0.0])
    cross = np.array([[0, 0, y], [0, 0, -x], [-y, x, 0]])
    tilt = np.eye(4)
    tilt[:3, :3] = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
    return tilt


def viewpoints(plan: RoomPlan, rng: np.random.Generator) -> np.ndarray:
    """Places (K, 2) where a person can stand, far from each other, in the order of a walk."""
    free = (plan.cells == 0) & (distance_transform_edt(plan.cells == 0) * CELL_M > 0.28)
    place_of = np.argwhere(free)
    count = int(np.clip(3 + free.sum() * CELL_M**2 / 1.9 + rng.integers(-1, 2), 4, 11))
    if len(place_of) == 0:
        place_of = np.argwhere(plan.cells == 0)
    chosen = [int(rng.integers(len(place_of)))]
    distance = np.full(len(place_of), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.hypot(*(place_of - place_of[chosen[-1]]).T))
        chosen.append(int((distance * rng.uniform(0.6, 1.0, len(distance))).argmax()))
    spots = plan.origin + (place_of[chosen] + 0.5) * CELL_M
    return spots[np.argsort(np.arctan2(*(spots - spots.mean(axis=0)).T), kind="stable")]


def camera_poses(plan: RoomPlan, rng: np.random.Generator) -> np.ndarray:
    """Camera to room, (T, 3, 4): at every viewpoint a turn on the spot, looking more down than up."""
    poses: list[np.ndarray] = []
    upward, care = (
        rng.uniform(-0.4, 0.1),
        rng.uniform(0.35, 0.75),
    )  # whether upper walls are scanned, and how thoroughly all is
    for x, y in viewpoints(plan, rng):
        height, start, turns = rng.uniform(1.3, 1.7), rng.uniform(0, 2 * np.pi), int(rng.integers(8, 11))
        for step in range(turns):
            if chance(rng, 0.12):
                continue
            yaw, eye = start + step * 2 * np.pi / turns, np.array([x, y, height]) + rng.normal(0, 0.06, 3)
            poses.append(_look(eye, yaw + rng.normal(0, 0.15), rng.normal(-0.46, 0.12), rng.normal(0, 0.06)))
            if chance(rng, care):
                pitch = rng.normal(-0.85, 0.15) if chance(rng, 0.7) else rng.normal(upward, 0.1)
                poses.append(_look(eye, yaw + rng.normal(0, 0.2), pitch, rng.normal(0, 0.06)))
    return np.array(poses)


def _look(eye: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Camera to room, (3, 4): x right, y down, z forward."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    return np.column_stack([right, down, forward, eye])


def _shake(rng: np.random.Generator) -> np.ndarray:
    """The sensor's error about its own pose, a few millimetres and a tenth of a degree: (4, 4), camera to camera."""
    return _moved(rng.normal(0, 0.0018, 3), rng.normal(0, 0.003, 3))


def _moved(turn_rad: np.ndarray, shift_m: np.ndarray) -> np.ndarray:
    """A small turn about x, y and z, and a shift: (4, 4)."""
    a, b, c = turn_rad
    moved = np.eye(4)
    moved[:3, :3] = [[1, -c, b], [c, 1, -a], [-b, a, 1]]
    moved[:3, 3] = shift_m
    return moved


def _grid(low: np.ndarray, high: np.ndarray) -> tuple[render.Grid, np.ndarray]:
    """An empty grid over a box, and its origin. Its arrays are as large as they may ever need to be.

    Memory that is never touched costs nothing; 8 million corners are twice what all depth images have pixels.
    """
    origin = np.floor(low / SPACING_M - 6.0) * SPACING_M
    table = np.zeros(np.ceil((high - origin) / SPACING_M + 6.0).astype(int) // render.BLOCK + 1, np.int32)
    slot, most = np.zeros((table.size + 1, render.BLOCK**3), np.int32), 8_000_000
    corner, plane = np.zeros((most, 3), np.int32), np.zeros((most, 4), np.float32)
    vote = np.zeros((most, 2), np.int32)
    return render.Grid(table, slot, np.zeros(2, np.int64), corner, plane, np.zeros(most, np.int32), vote), origin


def observe(
    scene: Scene,
    poses: np.ndarray,
    to_scan: np.ndarray,
    steps: np.ndarray,
    rng: np.random.Generator,
    watcher: Watcher | None = None,
) -> tuple[render.Grid, np.ndarray]:
    """All depth images of the walk, gathered on a grid of the scan's frame: the grid and its origin.

    steps: (T, 6), by how much the believed pose drifts before each image, three turns in radians and three metres.
    """
    mesh = scene.mesh
    a, b, c = (mesh.point[mesh.face[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    seen, turned, in_scan = np.empty_like(mesh.point), np.empty_like(normal), np.empty_like(normal)
    render.transform(to_scan[:3], mesh.point, seen)
    grid, origin = _grid(seen.min(axis=0), seen.max(axis=0))
    render.transform(to_scan[:3] * [1, 1, 1, 0], normal, in_scan)
    loss, nearness, hit, cosine = (
        mesh.tint[:, 3] / 255.0,
        np.empty(_IMAGE),
        np.empty(_IMAGE, np.int32),
        np.empty(_IMAGE),
    )
    for pose, drift in zip(poses, np.cumsum(steps, axis=0), strict=True):
        back = np.column_stack([pose[:, :3].T, -pose[:, :3].T @ pose[:, 3]])
        render.transform(back, mesh.point, seen)
        render.transform(back * [1, 1, 1, 0], normal, turned)
        nearness[:], hit[:] = 0.0, -1
        render.draw(seen, mesh.face, 0.05, LENS, nearness, hit)
        render.incidence(hit, turned, LENS, cosine)
        depth = measure(nearness, hit, cosine, loss, rng)
        placed = to_scan @ _moved(drift[:3], drift[3:]) @ np.vstack([pose, [0, 0, 0, 1]]) @ _shake(rng)
        if watcher is not None:
            watcher(depth, placed)
        believed = placed[:3]
        believed = np.column_stack([believed[:, :3], believed[:, 3] - origin]) / SPACING_M
        render.gather(depth, hit, believed, in_scan, scene.owner, LENS, grid)
    return grid, origin


def measure(
    nearness: np.ndarray, hit: np.ndarray, cosine: np.ndarray, loss: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What a structured-light sensor returns where the true depth is 1 / nearness: (H, W) float64, 0 = no reading.

    Axial noise after Nguyen, Izadi and Lovell (3DIMPVT 2012); disparity in steps of 1/8 pixel at 580 pixels and 7.5 cm
    base. Readings are lost with distance, at grazing angles, at depth edges and on surfaces that swallow light.
    """
    z = 1.0 / np.maximum(nearness, 0.1)
    angle = np.arccos(np.clip(cosine, 0.02, 1.0))
    sigma = 0.0012 + 0.0019 * (z - 0.4) ** 2 + 0.0001 / np.sqrt(z) * angle**2 / (np.pi / 2 - angle + 1e-3) ** 2
    noisy = z + np.minimum(sigma, 0.1) * rng.standard_normal(z.shape, np.float32)
    step = 1.0 / (580.0 * 0.075 * 8.0)
    noisy = 1.0 / (np.maximum(np.round(1.0 / np.maximum(noisy, 0.2) / step), 1.0) * step)
    lost = 0.01 + np.clip((z - 2.8) / 1.5, 0, 1) + np.clip((0.3 - cosine) / 0.22, 0, 1)
    jump = np.abs(np.diff(z, axis=1)) > 0.06 * z[:, 1:]
    lost[:, 1:] += 0.35 * jump
    lost[:, :-1] += 0.35 * jump
    lost += loss[hit]
    valid = (hit >= 0) & (z > _NEAR_M) & (z < _FAR_M) & (rng.random(z.shape, np.float32) > lost)
    return np.where(valid, noisy, 0.0)


def surface(grid: render.Grid, origin: np.ndarray) -> _Fused:
    """One surface from all readings: signed distances averaged on the grid, then surface nets; no loose vertices."""
    most = 8 * int(grid.count[0]) + 2
    value, weight = np.zeros(most, np.float32), np.zeros(most, np.float32)
    render.spread(grid, value, weight)
    corners = int(grid.count[0])
    vertex, cell = np.full(corners + 1, -1, np.int32), np.empty(corners, np.int32)
    where = np.empty((corners, 3), np.float64)
    vertices = render.net_vertices(grid, value, _LEAST_READINGS, where, cell, vertex)
    face = np.empty((6 * vertices, 3), np.int32)
    face = face[: render.net_faces(grid, value, vertex, face)]
    return _compact(_Fused(where[:vertices] * SPACING_M + origin, face, grid.vote[cell[:vertices], 0]))


def _compact(fused: _Fused) -> _Fused:
    """Without specks: connected patches of fewer than a dozen vertices, and vertices that no triangle uses."""
    count = len(fused.point)
    ends = (fused.face[:, [0, 1]].ravel(), fused.face[:, [1, 2]].ravel())
    links = coo_array((np.ones(len(ends[0]), bool), ends), (count, count))
    _, patch = connected_components(links, directed=False)
    used = (np.bincount(patch) >= _LEAST_PATCH)[patch]
    row = np.cumsum(used, dtype=np.int32) - 1
    return _Fused(fused.point[used], row[fused.face[used[fused.face[:, 0]]]], fused.source[used])


def _segments(fused: _Fused, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An over-segmentation into patches of some 0.4 m with wavy borders, none across objects.

    Returns per vertex the patch's first vertex (N,) int32, which names it as in ScanNet, and its number (N,) int64.
    """
    p = fused.point - fused.point.min(axis=0)
    wave = 0.12 * np.sin(5.0 * p[:, [1, 2, 0]]) + 0.06 * np.sin(13.0 * p[:, [2, 0, 1]])
    patch = np.floor((p + wave + 1.0) / 0.4).astype(np.int64)
    key = ((owner * 128 + patch[:, 0]) * 128 + patch[:, 1]) * 32 + patch[:, 2]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return first.astype(np.int32)[inverse], inverse


def _annotate(fused: _Fused, scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Segments, and the annotated object of every vertex or -1.

    Annotators often leave out small things, others now and then, and miss some segments.
    """
    owner = scene.owner[fused.source].astype(np.int64)
    segment, patch = _segments(fused, owner)
    small = np.array([CATEGORY_CLASS[name] in _OFTEN_LEFT_OUT for name in scene.names])
    left_out = rng.random(len(small)) < np.where(small, 0.3, 0.015)
    left_out &= ~np.isin(scene.names, ["wall", "floor"])
    left_out |= np.bincount(owner, minlength=len(small)) < _LEAST_VERTICES
    missed = (rng.random(int(patch.max()) + 1) < 0.012)[patch]
    return segment, np.where(left_out[owner] | missed, -1, owner).astype(np.int32)


def _colour(fused: _Fused, tint: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The surfaces' colours under uneven light and with grain, (N, 4) uint8."""
    shade = (
        0.85 + 0.1 * np.sin(fused.point @ [0.9, 0.7, 0.4] + rng.uniform(0, 6)) + rng.normal(0, 0.03, len(fused.point))
    )
    color = np.full((len(fused.point), 4), 255, np.uint8)
    color[:, :3] = np.clip(tint[fused.source, :3] * shade[:, None], 0, 255)
    return color
