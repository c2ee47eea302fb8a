"""The built-in samples: same bytes for the same seed, ScanNet's and ModelNet's layouts, plausible rooms and shapes."""

import csv
import errno
import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import trimesh
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from gen4d import files
from gen4d.samples import SamplesError, samples_digest, write_samples
from gen4d.samples.camera import render, scanner
from gen4d.samples.draws import keyed
from gen4d.samples.frames import FrameWriter
from gen4d.samples.modelnet import SHAPE_STYLES, shape_path, shape_text
from gen4d.samples.objects.pieces import CATEGORY_ID, NYU40, Piece
from gen4d.samples.objects.solids import block, join
from gen4d.samples.rooms.placing import Item, RoomPlan
from gen4d.samples.rooms.room import KINDS, make_room, rearranged, room_kind
from gen4d.samples.rooms.shell import Zone, walls_of
from gen4d.samples.write import MANIFEST
from tests.raw import Ply

ROOMS, SHAPES = 3, 5
needs_jit = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="scanning a room takes hours without compiled kernels"
)
BENCHMARK = [*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39]  # the twenty classes of ScanNet's benchmark
EIGHT = ["bathtub", "chair", "desk", "dresser", "night_stand", "sofa", "table", "toilet"]


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    if numba.config.DISABLE_JIT:
        pytest.skip("scanning rooms takes hours without compiled kernels")
    folder = tmp_path_factory.mktemp("samples") / "some"
    written = write_samples(folder, ROOMS, SHAPES, seed=0, workers=2)
    assert written.written and written.shapes == 8 * SHAPES
    return folder


def scan_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "scans").iterdir() if path.is_dir())


def read_scan(folder: Path, name: str) -> tuple[Ply, np.ndarray]:
    """Solid and nyu40 labels of a scan."""
    place = folder / "scans" / name
    labels = Ply(place / f"{name}_vh_clean_2.labels.ply")
    return Ply(place / f"{name}_vh_clean_2.ply"), labels.vertex["label"].astype(int)


def alignment(folder: Path, name: str) -> np.ndarray | None:
    text = (folder / "scans" / name / f"{name}.txt").read_text()
    rows = dict(line.split(" = ") for line in text.splitlines())
    return np.array(rows["axisAlignment"].split(), float).reshape(4, 4) if "axisAlignment" in rows else None


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every sample file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Determinism


def test_same_seed_gives_same_bytes_in_another_process_and_whatever_the_number_of_rooms(samples, tmp_path):
    program = (
        "import sys, pathlib; from gen4d.samples import write_samples; write_samples(pathlib.Path(sys.argv[1]), 2, 1)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", program, tmp_path / "few"], check=True, env=environment)
    many, few = content(samples), content(tmp_path / "few")
    shared = [name for name in few if name.startswith(("scans/scene", "shapes/"))]
    assert len(shared) >= 2 * 5 + 8
    assert {name: few[name] for name in shared} == {name: many[name] for name in shared}


def test_any_number_of_processes_writes_the_same_files(tmp_path):
    said: dict[int, list[str]] = {}
    for workers in (1, 2):
        said[workers] = []
        note = functools.partial(lambda told, done, of, what: told.append((done, of, what)), said[workers])
        write_samples(tmp_path / str(workers), 2, 1, 5, note, frames=True, workers=workers)
    assert content(tmp_path / "1") == content(tmp_path / "2")
    assert sorted(what for *_, what in said[1]) == sorted(what for *_, what in said[2])
    assert [done for done, *_ in said[2]] == [1, 2]


def test_another_seed_gives_another_shape():
    assert shape_text(0, "chair", 0) != shape_text(1, "chair", 0)


# ScanNet's layout


def test_every_scan_has_scannets_files_and_properties(samples):
    names = scan_names(samples)
    assert len(names) == 6 and all(len(name) == 12 for name in names)
    for name in names:
        place = samples / "scans" / name
        suffixes = {path.name.removeprefix(name) for path in place.iterdir()}
        expected = {
            "_vh_clean_2.ply",
            "_vh_clean_2.labels.ply",
            "_vh_clean_2.0.010000.segs.json",
            ".aggregation.json",
            ".txt",
        }
        assert suffixes == expected
        mesh, labels = Ply(place / f"{name}_vh_clean_2.ply"), Ply(place / f"{name}_vh_clean_2.labels.ply")
        assert [field for _, field in mesh.properties] == ["x", "y", "z", "red", "green", "blue", "alpha"]
        assert labels.properties[-1] == ("ushort", "label") and (mesh.point == labels.point).all()
        assert (mesh.face == labels.face).all() and (mesh.vertex["alpha"] == 255).all()


def test_faces_refer_to_vertices_and_every_vertex_has_a_face(samples):
    for name in scan_names(samples):
        mesh, _ = read_scan(samples, name)
        assert mesh.face.min() == 0 and mesh.face.max() == len(mesh.point) - 1
        assert len(np.unique(mesh.face)) == len(mesh.point)
        assert (np.sort(mesh.face, axis=1)[:, :-1] < np.sort(mesh.face, axis=1)[:, 1:]).all()


def test_labels_follow_from_segments_aggregation_and_the_label_table(samples):
    with open(samples / "scans" / "scannetv2-labels.combined.tsv", newline="") as file:
        table = {row["raw_category"]: int(row["nyu40id"]) for row in csv.DictReader(file, delimiter="\t")}
    for name in scan_names(samples):
        place = samples / "scans" / name
        segments = json.loads((place / f"{name}_vh_clean_2.0.010000.segs.json").read_text())
        groups = json.loads((place / f"{name}.aggregation.json").read_text())
        segment = np.array(segments["segIndices"])
        label, taken = np.zeros(len(segment), int), np.zeros(len(segment), bool)
        for group in groups["segGroups"]:
            rows = np.isin(segment, group["segments"])
            assert rows.any() and not (taken & rows).any()
            label[rows], taken = table[group["label"]], taken | rows
        assert [group["objectId"] for group in groups["segGroups"]] == list(range(len(groups["segGroups"])))
        assert segments["sceneId"] == name and (label == read_scan(samples, name)[1]).all()


def test_label_ids_are_nyu40_and_few_vertices_are_unlabelled(samples):
    for name in scan_names(samples):
        label = read_scan(samples, name)[1]
        assert {1, 2} <= set(label) and label.max() <= 40
        assert 0 < (label == 0).mean() < 0.15


def test_split_is_by_room_and_complete(samples):
    split = {part: (samples / "scans" / f"scannetv2_{part}.txt").read_text().split() for part in ("train", "val")}
    rooms = {part: {name[:9] for name in names} for part, names in split.items()}
    assert sorted(split["train"] + split["val"]) == scan_names(samples)
    assert rooms["train"] and rooms["val"] and not rooms["train"] & rooms["val"]


def test_axis_alignment_is_missing_from_some_scans_and_turns_walls_to_the_axes_elsewhere(samples):
    found = {name: alignment(samples, name) for name in scan_names(samples)}
    assert {matrix is None for matrix in found.values()} == {True, False}
    for name, matrix in found.items():
        mesh, label = read_scan(samples, name)
        corner = mesh.point[mesh.face[(label[mesh.face] == 1).all(axis=1)]]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        if matrix is not None:
            assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-5)
            normal = normal @ matrix[:3, :3].T
            area = np.linalg.norm(normal, axis=1)
            assert area[np.abs(normal).max(axis=1) > 0.9 * area].sum() > 0.7 * area.sum()


# What a scan looks like


def test_floor_is_level_near_zero_and_below_everything(samples):
    for name in scan_names(samples):
        mesh, label = read_scan(samples, name)
        floor = mesh.point[label == 2, 2]
        assert abs(np.median(floor)) < 0.15 and np.ptp(np.percentile(floor, [1, 99])) < 0.04
        assert mesh.point[:, 2].min() > np.median(floor) - 0.1


def test_vertices_are_about_2_cm_apart_and_scans_of_usual_size(samples):
    for name in scan_names(samples):
        mesh, _ = read_scan(samples, name)
        nearest = cKDTree(mesh.point).query(mesh.point[::20], 2)[0][:, 1]
        assert 0.013 < np.median(nearest) < 0.026 and np.percentile(nearest, 99) < 0.03
        assert 30_000 < len(mesh.point) < 260_000


def test_points_stay_inside_the_room(samples):
    for name in scan_names(samples):
        matrix = alignment(samples, name)
        if matrix is None:
            continue
        mesh, label = read_scan(samples, name)
        point = (mesh.point @ matrix[:3, :3].T + matrix[:3, 3])[label != NYU40.index("door")]
        plan = make_room(0, int(name[5:9])).plan
        corners = np.concatenate([zone.outline for zone in plan.zones])
        assert (point[:, :2] > corners.min(axis=0) - 0.3).all() and (point[:, :2] < corners.max(axis=0) + 0.3).all()
        assert point[:, 2].min() > -0.1 and point[:, 2].max() < plan.ceiling_m + 0.15


def test_rescans_show_the_same_room_in_another_frame_with_other_noise(samples):
    first, second = (read_scan(samples, f"scene0001_0{k}") for k in (0, 1))
    assert len(first[0].point) != len(second[0].point)
    spans = [np.ptp(mesh.point[:, 2]) for mesh, _ in (first, second)]
    assert abs(spans[0] - spans[1]) < 1.5 and not np.allclose(first[0].point[0], second[0].point[0])
    common = set(np.unique(first[1])) & set(np.unique(second[1]))
    assert len(common) >= 0.6 * len(set(np.unique(first[1])))


def test_scans_have_walkable_floor(samples):
    """Columns of 10 cm with nothing but floor hold a disc of at least 40 cm, in every scan."""
    for name in scan_names(samples):
        mesh, label = read_scan(samples, name)
        low = mesh.point[mesh.point[:, 2] < np.median(mesh.point[label == 2, 2]) + 2.0]
        cell = np.floor(low[:, :2] / 0.1).astype(int)
        cell -= cell.min(axis=0) - 1
        top = np.full(cell.max(axis=0) + 2, -np.inf)
        np.maximum.at(top, tuple(cell.T), low[:, 2])
        free = (top > -np.inf) & (top < np.median(mesh.point[label == 2, 2]) + 0.1)
        assert distance_transform_edt(free).max() * 0.1 >= 0.4


# The scanner


def _box_room() -> RoomPlan:
    """A room of 4 x 4 m with a closed chest that hides a smaller one."""
    square = np.array([(0, 0), (4, 0), (4, 4), (0, 4)], float)
    zone = Zone("office", square, ((0.0, 0.0, 4.0, 4.0),))
    plan = RoomPlan([zone], walls_of(zone, 0), [], 2.5)
    floor = Piece("floor", block((4.0, 4.0, 0.1), (2, 2, -0.1), (90, 90, 90, 0)))
    chest, hidden = (block((side, side, side), (0, 0, 0.02), (200, 0, 0, 0)) for side in (0.8, 0.5))
    plan.add(Item(floor, 0.0, 0.0), solid=False)
    plan.add(Item(Piece("box", chest), 1.2, 1.2))
    plan.add(Item(Piece("lamp", hidden), 1.2, 1.2), solid=False)
    return plan


@needs_jit
def test_only_visible_surfaces_are_scanned():
    scan = scanner.scan_room(_box_room(), keyed(0, "test"))
    point = scan.point @ scan.align[:3, :3].T + scan.align[:3, 3]
    chest = (np.abs(point[:, :2] - 1.2) < 0.45).all(axis=1)
    assert (scan.label == CATEGORY_ID["box"]).sum() > 2000 and not (scan.label == CATEGORY_ID["lamp"]).any()
    assert not (chest & (point[:, 2] < -0.05)).any()
    inside = (np.abs(point[:, :2] - 1.2) < 0.33).all(axis=1) & (point[:, 2] < 0.72)
    assert not inside.any()


@needs_jit
def test_fused_surface_lies_on_the_true_one_and_faces_the_camera():
    scan = scanner.scan_room(_box_room(), keyed(1, "test"))
    point = scan.point @ scan.align[:3, :3].T + scan.align[:3, 3]
    floor = (scan.label == CATEGORY_ID["floor"]) & (np.abs(point[:, :2] - 2.7).max(axis=1) < 1.0)
    assert np.abs(point[floor, 2]).mean() < 0.006 and np.abs(point[floor, 2]).max() < 0.03
    corner = point[scan.face[floor[scan.face].all(axis=1)]]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert (normal[:, 2] > 0).mean() > 0.99
    edge = np.sort(scan.face[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edge, axis=0, return_counts=True)[1] <= 2).mean() > 0.99


def test_depth_noise_grows_with_distance_and_readings_are_lost_where_a_sensor_loses_them():
    rng, hit, straight = keyed(0, "noise"), np.zeros((200, 200), np.int32), np.ones((200, 200))
    spread = []
    for z in (1.0, 2.0, 2.7):
        depth = scanner.measure(np.full((200, 200), 1 / z), hit, straight, np.zeros(1), rng)
        assert (depth > 0).mean() > 0.95 and abs(depth[depth > 0].mean() - z) < 0.003
        spread.append(depth[depth > 0].std())
    assert 0.001 < spread[0] < 0.004 < spread[1] < spread[2] < 0.025
    half = np.full((200, 200), 0.5)
    nothing = [
        (half, hit, straight, np.ones(1)),
        (half, hit, straight * 0.05, np.zeros(1)),
        (half, hit - 1, straight, np.zeros(1)),
    ]
    nothing += [(half / 3, hit, straight, np.zeros(1)), (half * 8, hit, straight, np.zeros(1))]
    assert all((scanner.measure(*case, rng) == 0).all() for case in nothing)


def _naive_nearness(point: np.ndarray, face: np.ndarray, lens: tuple, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Ray by ray: the nearest triangle in front of the camera, by solving for barycentric coordinates."""
    nearness, hit = np.zeros(shape), np.full(shape, -1)
    for row, column in np.ndindex(shape):
        ray = np.array([(column + 0.5 - lens[1]) / lens[0], (row + 0.5 - lens[2]) / lens[0], 1.0])
        for f, (a, b, c) in enumerate(point[face]):
            u, v, z = np.linalg.solve(np.column_stack([b - a, c - a, -ray]), -a)
            if u >= 0 and v >= 0 and u + v <= 1 and z > 0.05 and 1 / z > nearness[row, column]:
                nearness[row, column], hit[row, column] = 1 / z, f
    return nearness, hit


def test_rasteriser_sees_what_rays_see_also_where_triangles_reach_behind_the_camera():
    rng = keyed(0, "rasteriser")
    point, face = rng.uniform([-2, -2, -1], [2, 2, 4], (24, 3)), np.arange(24, dtype=np.int32).reshape(8, 3)
    lens, shape = (20.0, 12.0, 9.0), (18, 24)
    nearness, hit = np.zeros(shape), np.full(shape, -1, np.int32)
    render.draw(point, face, 0.05, lens, nearness, hit)
    naive, naive_hit = _naive_nearness(point, face, lens, shape)
    assert (hit >= 0).mean() > 0.3 and (hit == naive_hit).mean() > 0.99
    same = hit == naive_hit
    assert np.abs(nearness - naive)[same].max() < 1e-9


# Rooms


@pytest.fixture(scope="module")
def plans():
    return [make_room(5, index) for index in range(40)]


def test_eight_rooms_in_a_row_have_one_of_each_kind():
    assert all(sorted(room_kind(3, 8 * k + i) for i in range(8)) == sorted(KINDS) for k in range(5))


def test_every_class_of_the_benchmark_and_the_eight_shapes_occur_in_forty_rooms(plans):
    names = {piece.name for room in plans for item in room.plan.items for piece in item.piece.all()}
    ids = {CATEGORY_ID[name] for name in names}
    assert ids >= set(BENCHMARK) and ids >= {NYU40.index(name) for name in EIGHT}
    assert {room.scans for room in plans} == {1, 2, 3}


def test_most_rooms_keep_a_disc_of_floor_free(plans):
    widest = np.array([room.plan.widest(0)[2] for room in plans])
    assert np.median(widest) > 0.7 and (widest > 0.5).mean() > 0.8


def test_chairs_and_things_on_the_floor_stand_inside_and_not_in_each_other(plans):
    count = 0
    for room in plans:
        items = room.plan.items
        for index, item in enumerate(items):
            if item.movable and item.host < 0:
                low, high = item.piece.bounds()
                window, mask = room.plan.under(low, high, (item.x, item.y, item.yaw_rad))
                owners = np.unique(room.plan.cells[window][mask]) - 1
                assert owners.min() >= -1, "outside"
                assert not any(items[owner].movable for owner in owners if owner not in (-1, index))
                count += 1
    assert count > 100


def test_rearranging_moves_chairs_and_leaves_walls_and_beds():
    moved = 0
    for index in range(8):
        plan = make_room(2, index).plan
        twin = rearranged(plan, keyed(2, "rearranged", index, 1))
        places = {(item.piece.name, item.x, item.y, item.yaw_rad) for item in twin.items}
        for item in plan.items:
            there = (item.piece.name, item.x, item.y, item.yaw_rad) in places
            assert there or item.movable
            moved += item.host < 0 and not there
    assert moved >= 8


# Shapes


@pytest.mark.parametrize("class_name", EIGHT)
def test_every_shape_loads_and_is_as_odd_as_modelnet(samples, class_name):
    files = sorted((samples / "shapes" / class_name).rglob("*.off"))
    assert [path.name for path in files] == [f"{class_name}_{k:04d}.off" for k in (5, 1, 2, 3, 4)]
    assert [path.parent.name for path in files] == ["test", "train", "train", "train", "train"]
    texts = [path.read_bytes() for path in files]
    fused = [text.startswith(b"OFF") and text[3:4].isdigit() for text in texts]
    assert any(fused) and not all(fused)
    assert any(b"\r\n" in text for text in texts) and any(b"#" in text for text in texts)
    closed = []
    for path in files:
        counts = path.read_text().replace("OFF", " ").replace("# parametric furniture", "").split()[:3]
        mesh = trimesh.load(path, process=False)
        assert [len(mesh.vertices), len(mesh.faces)] == [int(counts[0]), int(counts[1])]
        assert np.isfinite(mesh.vertices).all() and mesh.faces.max() < len(mesh.vertices)
        closed.append(mesh.is_watertight)
    assert sum(closed) <= 2


def test_shapes_have_arbitrary_units_and_origins(samples):
    low, high = [], []
    for path in (samples / "shapes").rglob("*.off"):
        mesh = trimesh.load(path, process=False)
        low.append(mesh.bounds[0]), high.append(mesh.bounds[1])
    height = (np.array(high) - low)[:, 2]
    assert height.min() < 2 and height.max() > 100
    assert (np.abs(np.array(low)[:, 2] / height) > 0.2).mean() > 0.3


RANGES_M = [(0.4, 0.95), (0.7, 1.45), (0.65, 1.65), (0.65, 1.5), (0.38, 0.75), (0.6, 1.1), (0.3, 0.85), (0.3, 1.0)]
HEIGHT_M = dict(zip(EIGHT, RANGES_M, strict=True))


@pytest.mark.parametrize("class_name", EIGHT)
def test_furniture_has_real_sizes_and_many_forms(class_name):
    forms = set()
    for style in dict.fromkeys(SHAPE_STYLES[class_name]):
        for k in range(6):
            piece = style(keyed(k, "size", class_name))
            mesh = join(part.mesh for part in piece.all())
            low, high = mesh.bounds()
            assert HEIGHT_M[class_name][0] <= high[2] - low[2] <= HEIGHT_M[class_name][1]
            assert abs(low[2]) < 0.13 and (high - low)[:2].max() < 4.0 and (high - low)[:2].min() > 0.3
            assert np.isfinite(mesh.point).all() and mesh.face.min() >= 0 and mesh.face.max() < len(mesh.point)
            forms.add((len(mesh.face), round(float(high[2]), 2)))
    assert len(forms) >= 6


# Writing again


def test_same_samples_again_change_nothing(samples):
    before = {path: path.stat().st_mtime_ns for path in samples.rglob("*")}
    again = write_samples(samples, ROOMS, SHAPES, seed=0)
    assert not again.written and again.scans == 6
    assert again.digest == samples_digest(samples) == json.loads((samples / MANIFEST).read_text())["digest"]
    assert before == {path: path.stat().st_mtime_ns for path in samples.rglob("*")}


def test_samples_of_other_parameters_are_refused_by_name(samples):
    with pytest.raises(
        SamplesError, match=r"some: holds samples of rooms 3, not 4, seed 0, not 9|seed 0, not 9, rooms 3, not 4"
    ):
        write_samples(samples, 4, SHAPES, seed=9)


def test_foreign_folders_and_files_are_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all my work")
    with pytest.raises(SamplesError, match="is not empty"):
        write_samples(tmp_path, 1, 1)
    with pytest.raises(SamplesError, match="is a file"):
        write_samples(tmp_path / "thesis.tex", 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_run_is_done_again_to_the_same_bytes(samples, tmp_path):
    def stop(done: int, of: int, what: str) -> None:
        assert (done, of) == (1, 1) and "living room" in what
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path / "cut", 1, 1, progress=stop)
    assert not (tmp_path / "cut" / MANIFEST).exists()
    with pytest.raises(SamplesError, match="rooms 1, not 3"):
        write_samples(tmp_path / "cut", 3, 1)
    half = tmp_path / "cut" / "scans" / "scene0000_00" / "scene0000_00_vh_clean_2.ply"
    half.write_bytes(half.read_bytes()[:1000])
    assert write_samples(tmp_path / "cut", 1, 1).written
    found, whole = content(tmp_path / "cut"), content(samples)
    assert all(found[name] == whole[name] for name in found if name.startswith(("scans/scene", "shapes/")))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["articulated", MANIFEST, "scans", "shapes"]
    half.unlink()
    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path / "cut", 1, 1, progress=stop)
    assert not (tmp_path / "cut" / MANIFEST).exists(), "a manifest stands for whole samples"


def test_two_runs_in_one_folder_are_kept_apart(tmp_path):
    with files.locked(tmp_path), pytest.raises(files.BusyError, match="is building here"):
        write_samples(tmp_path, 0, 1)
    assert not list(tmp_path.iterdir())


def test_depth_images_that_cannot_be_written_are_no_success(tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    writer = FrameWriter(tmp_path / "scene")
    with pytest.raises(OSError, match="No space left"):
        writer(np.ones((4, 4)), np.eye(4))


def test_a_lost_or_truncated_file_is_written_again(tmp_path):
    first = write_samples(tmp_path / "s", 0, 2)
    path = tmp_path / "s" / "shapes" / shape_path("sofa", 1)
    for damage in (path.unlink, lambda: path.write_bytes(b"")):
        damage()
        assert write_samples(tmp_path / "s", 0, 2) == first
        assert path.stat().st_size > 1000


def test_a_broken_manifest_is_named(tmp_path):
    write_samples(tmp_path / "s", 0, 1)
    (tmp_path / "s" / MANIFEST).write_text("{")
    with pytest.raises(SamplesError, match=MANIFEST):
        write_samples(tmp_path / "s", 0, 1)


@pytest.mark.parametrize("wrong", [{"rooms": -1}, {"rooms": 10_001}, {"shapes": 1.5}, {"shapes": True}, {"seed": -1}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(SamplesError, match=next(iter(wrong))):
        write_samples(tmp_path / "s", **wrong)
    assert not (tmp_path / "s").exists()


# Depth images --------------------------------------------------------------------------------------------------------


@needs_jit
def test_depth_images_lie_on_the_scan_that_was_made_from_them_and_can_be_added_later(tmp_path):
    from gen4d.sources.frames import read_frames
    from gen4d.sources.posed import Reading, find_posed

    folder = tmp_path / "late"
    first = write_samples(folder, 1, 0, seed=0)
    assert write_samples(folder, 1, 0, seed=0, frames=True) == first._replace(written=False)
    name = scan_names(folder)[0]
    (source,) = find_posed(folder / "frames", "frames").sources
    surface = cKDTree(read_scan(folder, name)[0].point)
    frames = list(read_frames(source, 7, Reading()))
    for frame in frames:
        v, u = np.nonzero(frame.depth)
        z = frame.depth[v, u] / frame.scale
        fx, fy, cx, cy = frame.camera
        ray = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(len(u))], axis=1)
        point = (ray * z[:, None]) @ frame.pose[:3, :3].T + frame.pose[:3, 3]
        assert np.median(surface.query(point[::20])[0]) < 0.02, frame.number
    assert source.name == name and len(frames) >= 3
    images = {path: path.read_bytes() for path in sorted((folder / "frames").rglob("*.png"))}
    (folder / "frames" / name).rename(folder / "frames" / f"{name}.tmp")  # as an interrupted run leaves it
    write_samples(folder, 1, 0, seed=0, frames=True)
    assert len(images) > 40 and {path: path.read_bytes() for path in images} == images
