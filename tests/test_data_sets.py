"""Data sets in their own layouts, as far as they are known: recognised, named, their points and classes taken."""

import json

import numpy as np
import pytest

import gen4d
from gen4d.sources import Orientation, SourceError, find_scans, find_shapes, load_scan, load_shape
from gen4d.sources.surface import is_coarse, sample
from tests.makers import commands
from tests.makers.files import off, ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX
from tests.makers.rooms import pointcept_scan, room_points

UUID = "754e884c-ea24-2175-8b34-cead19d4198d"
CLOUD, BOX = ply(room_points()), off((CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_QUADS)
OBJ = "v 0 0 0\nv 1 0 0\nv 0 2 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"

SCANS = {  # files -> data set, names of the scans
    "scannetpp": (["data/0a5c013435/scans/mesh_aligned_0.05.ply"], ["0a5c013435"]),
    "arkitscenes-meshes": (["3dod/Training/40753679/40753679_3dod_mesh.ply",
                     "3dod/Validation/41048190/41048190_3dod_mesh.ply"], ["40753679"]),
    "3rscan": ([f"{UUID}/labels.instances.annotated.v2.ply"], [UUID]),
    "matterport3d": (["v1/scans/1pXnuDYAj8r/1pXnuDYAj8r/region_segmentations/region0.ply",
                      "v1/scans/1pXnuDYAj8r/1pXnuDYAj8r/region_segmentations/region12.ply"],
                     ["1pXnuDYAj8r_region0", "1pXnuDYAj8r_region12"]),
    "replica": (["room_0/mesh.ply", "room_0/habitat/mesh_semantic.ply", "frl_apartment_1/mesh.ply"],
                ["frl_apartment_1", "room_0"]),
    "multiscan": (["scene_00000_00/scene_00000_00.ply", "scene_00000_01/scene_00000_01.ply"],
                  ["scene_00000_00", "scene_00000_01"]),
    "scenenn": (["005/005.ply", "011/011.ply"], ["005", "011"]),
    "scan-trees": (["flat1/kitchen.ply", "flat1/bath.pcd", "flat2/kitchen.ply", "flat2/kitchen.labels.ply"],
                   ["flat1_bath", "flat1_kitchen", "flat2_kitchen"]),
    "scan-files": (["kitchen.ply", "deeper/bath.ply"], ["kitchen"]),
}  # fmt: skip


@pytest.mark.parametrize("entry", SCANS)
def test_a_data_set_is_recognised_by_its_layout_and_its_points_are_read(tmp_path, entry):
    files, names = SCANS[entry]
    for name in files:
        write(tmp_path / name, CLOUD)
    found = find_scans(tmp_path)
    assert (found.entry, [source.name for source in found.sources]) == (entry, names)
    assert len(load_scan(next(s for s in found.sources if s.files["points"].endswith(".ply")), Orientation()).point)


def test_instances_of_scannetpp_are_taken_from_its_segments(tmp_path):
    base = tmp_path / "0a5c013435" / "scans"
    write(base / "mesh_aligned_0.05.ply", CLOUD)
    write(base / "segments.json", json.dumps({"segIndices": [0] * 300 + [4] * 100}))
    groups = [{"objectId": 7, "id": 7, "segments": [4], "label": "office chair"}]
    write(base / "segments_anno.json", json.dumps({"segGroups": groups}))
    scan = load_scan(find_scans(tmp_path).sources[0], Orientation())
    assert scan.instance.tolist() == [-1] * 300 + [7] * 100


@pytest.mark.parametrize("deep", ["", "train/", "some area/"])
def test_what_pointcept_wrote_of_any_data_set_is_read(tmp_path, deep):
    point = pointcept_scan(tmp_path / deep, "office 1")
    np.save(tmp_path / deep / "office 1" / "segment.npy", np.full(len(point), 5, np.int16))
    (source,) = find_scans(tmp_path).sources
    assert source.name == ("some area_office 1" if "area" in deep else "office 1") and source.entry == "pointcept"
    scan = load_scan(source, Orientation())
    assert np.array_equal(scan.point, point) and set(scan.label) == {5} and scan.instance is not None


@pytest.mark.parametrize(
    ("name", "title"),
    [("scene_00000/2D_rendering/485142/x.png", "Structured3D"), ("ai_001_001/images/x.hdf5", "Hypersim")],
)
def test_a_data_set_that_cannot_be_built_from_is_named_with_the_reason(tmp_path, name, title):
    write(tmp_path / name, b"x")
    with pytest.raises(SourceError, match=f"it looks like {title}: its rooms are rendered images"):
        find_scans(tmp_path)


def test_the_rooms_of_s3dis_are_read_as_text_and_their_objects_are_no_scans(tmp_path):
    point = room_points()
    text = "\n".join(f"{x:.3f} {y:.3f} {z:.3f} 120 130 140" for x, y, z in point.tolist())
    write(tmp_path / "Area_1" / "office_1" / "office_1.txt", text)
    write(tmp_path / "Area_1" / "office_1" / "Annotations" / "chair_1.txt", text)
    (source,) = find_scans(tmp_path).sources
    assert source.name == "Area_1_office_1" and source.entry == "s3dis"
    assert np.abs(load_scan(source, Orientation("z")).point - point).max() < 0.001


# Shapes whose classes are in a file


def test_classes_of_3d_future_come_from_its_table_and_sizes_are_metres(tmp_path):
    write(tmp_path / "3D-FUTURE-model" / UUID / "raw_model.obj", OBJ)
    with pytest.raises(SourceError, match=r"has no model_info\.json"):
        find_shapes(tmp_path)
    table = [{"model_id": UUID, "category": "Dining Chair", "super-category": "Chair"}]
    write(tmp_path / "3D-FUTURE-model" / "model_info.json", json.dumps(table))
    (source,) = find_shapes(tmp_path, ("chair",)).sources
    assert source.class_name == "chair" and np.ptp(load_shape(source).vertex[:, 2]) == 2  # y is up
    write(tmp_path / "3D-FUTURE-model" / "model_info.json", "[3]")
    with pytest.raises(SourceError, match="a table of classes of 3D-FUTURE"):
        find_shapes(tmp_path)


def test_classes_of_objaverse_are_those_of_lvis(tmp_path):
    for number in range(2):
        write(tmp_path / "glbs" / "000-000" / f"{number:032x}.glb", b"glTF")
    write(tmp_path / "lvis-annotations.json", json.dumps({"armchair": [f"{1:032x}"]}))
    assert [source.class_name for source in find_shapes(tmp_path).sources] == ["armchair", "object"]


# Rooms whose vertices do not stand for them


def square(side, height=0.0):
    return [(0, 0, height), (side, 0, height), (side, side, height), (0, side, height)]


def test_a_large_triangle_is_covered_at_the_spacing_with_its_corners(tmp_path):
    vertex, face = np.array(square(3.0)), np.array([(0, 1, 2), (0, 2, 3)])
    point, nearest = sample(tmp_path, vertex, face, 0.02)
    for at in np.random.default_rng(1).uniform(0, 3, (200, 2)):
        assert np.hypot(*(point[:, :2] - at).T).min() < 0.02
    assert (np.linalg.norm(point[:, None] - vertex, axis=2).argmin(axis=1) == nearest).mean() > 0.7
    assert {tuple(corner) for corner in square(3.0)} <= set(map(tuple, point.tolist()))
    again, _ = sample(tmp_path, vertex, face, 0.02)
    assert again.tobytes() == point.tobytes()
    with pytest.raises(SourceError, match="too large to be covered"):
        sample(tmp_path, vertex * 1e5, face, 0.02)


def test_a_coarse_mesh_far_from_the_origin_keeps_its_shape(tmp_path):
    """Georeferenced: float32 would put its points half a metre apart."""
    vertex = np.array(square(4.0) + square(4.0, 2.5)) + [5e5, 5.3e6, 100.0]
    text = "ply\nformat ascii 1.0\nelement vertex 8\n" + "".join(f"property double {axis}\n" for axis in "xyz")
    text += "element face 4\nproperty list uchar int vertex_indices\nend_header\n"
    text += "".join(" ".join(map(repr, map(float, row))) + "\n" for row in vertex)
    text += "3 0 1 2\n3 0 2 3\n3 4 5 6\n3 4 6 7\n"
    write(tmp_path / "room.ply", text.encode())
    scan = load_scan(find_scans(tmp_path).sources[0], Orientation("z"), 0.02)
    assert not scan.doubts and np.ptp(scan.point, axis=0).tolist() == pytest.approx([4, 4, 2.5], abs=1e-3)
    assert np.diff(np.unique(np.round(scan.point[:, 1], 3))).max() < 0.021


def test_where_two_versions_of_a_scan_lie_the_manifest_says_which_counts(tmp_path):
    for version in ("", ".v2"):
        write(tmp_path / UUID / f"labels.instances.annotated{version}.ply", b"ply")
    (source,) = find_scans(tmp_path).sources
    assert source.path == f"{UUID}/labels.instances.annotated.v2.ply"


def test_a_mesh_is_coarse_by_area_and_not_by_number_of_triangles():
    fine = np.random.default_rng(1).uniform(0, 0.05, (300, 3))
    vertex, face = np.concatenate([square(3.0), fine]), np.arange(4, 304).reshape(-1, 3)
    floor = np.array([(0, 1, 2), (0, 2, 3)])
    assert is_coarse(vertex, np.concatenate([floor, face]), 1.0) and not is_coarse(vertex, face, 1.0)
    assert not is_coarse(vertex, floor, 0.01)  # in centimetres


def coarse_room(labels=True):
    """A floor and a ceiling of two triangles each."""
    vertex = np.array(square(4.0) + square(4.0, 2.5), np.float32)
    faces = [(0, 1, 2), (0, 2, 3), (4, 5, 6), (4, 6, 7)]
    return ply(vertex, {"label": np.repeat(np.int32([2, 22]), 4)} if labels else {}, faces=faces)


def test_a_room_of_large_triangles_is_built_from_its_surface(tmp_path):
    write(tmp_path / "room.ply", coarse_room())
    (source,) = find_scans(tmp_path).sources
    with pytest.raises(SourceError, match="has 8 finite points"):
        load_scan(source, Orientation())
    scan = load_scan(source, Orientation(), 0.02)
    assert len(scan.point) > 80_000 and (scan.row == -1).all()
    assert (scan.label == np.where(scan.point[:, 2] < 1, 2, 22)).all()


def test_a_data_set_of_covered_rooms_is_whole_and_says_that_its_points_are_no_rows(tmp_path):
    write(tmp_path / "scans" / "room.ply", coarse_room())
    write(tmp_path / "shapes" / "chair" / "a.off", BOX)
    out, places = tmp_path / "out", ("--scans", tmp_path / "scans", "--shapes", tmp_path / "shapes")
    made = commands.gen4d("build", *places, "--out", out, "--sequences", "1", "--classes", "chair")
    assert made.code == 0 and commands.gen4d("verify", out).code == 0, made.text
    scan = gen4d.open_dataset(out)[0].actors[0].cloud
    assert (np.asarray(scan.vertex) == -1).all() and set(np.asarray(scan.label)) == {2, 22}
    doctor = commands.gen4d("doctor", "--scans", tmp_path / "scans")
    assert "points put on its coarse surface" in doctor.out and doctor.code == 0


def test_scannets_own_meshes_stay_their_vertices_whatever_their_triangles(tmp_path):
    name = "scene0000_00"
    point = np.float32(np.random.default_rng(1).uniform(0, 4, (200, 3)))
    faces = np.random.default_rng(2).integers(0, 200, (100, 3)).tolist()
    write(tmp_path / name / f"{name}_vh_clean_2.ply", ply(point, faces=faces))
    (source,) = find_scans(tmp_path).sources
    assert np.array_equal(load_scan(source, Orientation("z"), 0.02).point, point)
    write(tmp_path / "other" / "scan.ply", ply(point, faces=faces))
    (source,) = find_scans(tmp_path / "other").sources
    assert len(load_scan(source, Orientation("z"), 0.02).point) > 10_000
