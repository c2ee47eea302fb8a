"""Values that contradict others in the same data are noticed: by readers where they can, by the doctor all at once."""

import json

import numpy as np
import pytest

import gen4d
from gen4d.report.contradictions import neighbours_agree
from gen4d.report.doctor import examine_scans, examine_shapes
from gen4d.samples import write_samples
from gen4d.sources import Orientation, SourceError, find_scans, find_shapes, load_scan, scan_from_arrays
from tests.makers.files import obj, off, ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX, chair, write_box
from tests.makers.rooms import furnished_room, pointcept_scan, room_points, scannet_scan
from tests.shared import SHARED, needs_shared_data

Z_UP = Orientation("z")
NAME = "scene0000_00"


def load(folder, orientation=Z_UP):
    return load_scan(find_scans(folder).sources[0], orientation)


def file_of(folder, end, name=NAME):
    return folder / name / f"{name}{end}"


def change_json(path, **values):
    write(path, json.dumps(json.loads(path.read_text()) | values))


# Annotations of another mesh


def foreign_file(folder, name=NAME):
    """Only the aggregation of the full mesh, whose segments 5 and 9 are other ones, beside the decimated one's."""
    file_of(folder, ".aggregation.json", name).rename(file_of(folder, "_vh_clean.aggregation.json", name))
    change_json(file_of(folder, "_vh_clean.aggregation.json", name), segmentsFile=f"scannet.{name}_vh_clean.segs.json")


def foreign_scan(folder):
    change_json(file_of(folder, ".aggregation.json"), sceneId="scannet.scene0707_00")


def foreign_segments(folder):
    groups = [{"objectId": k, "label": "wall", "segments": [5, 100 + 3 * k]} for k in range(4)]
    change_json(file_of(folder, ".aggregation.json"), segGroups=groups)


@pytest.mark.parametrize(
    "damage, words",
    [
        (foreign_file, "is of the segments 'scannet.scene0000_00_vh_clean.segs.json', other ones"),
        (foreign_scan, "is of the scan 'scannet.scene0707_00', another one"),
        (foreign_segments, "has 4 of 5 segments of no point, so others"),
    ],
)
def test_an_aggregation_of_another_mesh_gives_no_labels_but_a_doubt(tmp_path, damage, words):
    scannet_scan(tmp_path, NAME, labels="segments")
    damage(tmp_path)
    scan = load(tmp_path)
    assert scan.label is None and scan.instance is None and scan.label_space == ""
    (doubt,) = scan.doubts
    assert words in doubt and "aggregation.json: " in doubt and f"than {NAME}/{NAME}_vh_clean_2.0.010000" in doubt


@pytest.mark.parametrize("prefix", ["scannet.", ""])
def test_an_aggregation_that_names_its_segments_is_taken(tmp_path, prefix):
    scannet_scan(tmp_path, NAME, labels="segments")
    named = f"{prefix}{NAME}_vh_clean_2.0.010000.segs.json"
    change_json(file_of(tmp_path, ".aggregation.json"), segmentsFile=named, sceneId=f"{prefix}{NAME}")
    scan = load(tmp_path)
    assert not scan.doubts and scan.label is not None and set(scan.instance) == {0, 1, -1}


def shuffled(folder, name=NAME, key=3):
    """Labels of the same points in another order. Returns the right labels."""
    point = load_points(folder, name)
    label = np.where(np.arange(len(point)) < len(point) // 2, 2, 1).astype(np.uint16)
    order = np.random.default_rng(key).permutation(len(point))
    write(file_of(folder, "_vh_clean_2.labels.ply", name), ply(point[order], {"label": label[order]}))
    return label


def load_points(folder, name):
    (source,) = (source for source in find_scans(folder).sources if source.name == name)
    return load_scan(source, Z_UP).point


def test_labels_in_another_order_give_no_labels_but_a_doubt(tmp_path):
    scannet_scan(tmp_path, NAME)
    shuffled(tmp_path)
    scan = load(tmp_path)
    assert scan.label is None
    (doubt,) = scan.doubts
    assert "labels.ply: of " in doubt and "lie elsewhere than" in doubt


MOVES = {
    "as they are": lambda point: point,
    "rounded to a millimetre": lambda point: np.round(point.astype(float), 3),
    "turned and moved": lambda point: point.astype(float) @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + [5, -3, 1],
    "with NaN in one row": lambda point: np.where(np.arange(len(point))[:, None] == 7, np.nan, point),
}


@pytest.mark.parametrize("move", MOVES)
def test_labels_of_the_same_points_are_taken_wherever_those_lie(tmp_path, move):
    point = scannet_scan(tmp_path, NAME)
    label = np.where(np.arange(400) < 200, 2, 1).astype(np.uint16)
    write(file_of(tmp_path, "_vh_clean_2.labels.ply"), ply(MOVES[move](point), {"label": label}))
    scan = load(tmp_path)
    assert np.array_equal(scan.label, label) and not scan.doubts


def test_labels_of_another_scan_with_as_many_points_are_not_taken(tmp_path):
    scannet_scan(tmp_path, NAME)
    write(file_of(tmp_path, "_vh_clean_2.labels.ply"), ply(room_points(400, 9), {"label": np.ones(400, np.uint16)}))
    assert load(tmp_path).label is None


@pytest.mark.parametrize("name", ["segment20.npy", "instance.npy"])
def test_ids_of_another_order_without_coordinates_are_a_warning(tmp_path, name):
    point = furnished_room(1, 6000)
    pointcept_scan(tmp_path, NAME, count=len(point))
    np.save(tmp_path / NAME / "coord.npy", point)
    for other in ("segment20.npy", "instance.npy"):
        np.save(tmp_path / NAME / other, (np.floor(point[:, 0]) + 5).astype(np.int16))
    assert not [text for text in warnings(examine_scans(tmp_path)) if "order of its points" in text]
    ids = np.load(tmp_path / NAME / name)
    np.save(tmp_path / NAME / name, np.random.default_rng(0).permutation(ids))
    (warning,) = (text for text in warnings(examine_scans(tmp_path)) if "order of its points" in text)
    assert ("labels" if name == "segment20.npy" else "instances") in warning


def test_neighbours_agree_always_by_chance_or_cannot_tell():
    point = furnished_room(2, 6000)
    ids = (np.floor(point[:, 0]) + 10 * np.floor(point[:, 1])).astype(np.int32)
    assert neighbours_agree(point, ids) > 0.9
    assert abs(neighbours_agree(point, np.random.default_rng(0).permutation(ids))) < 0.1
    assert neighbours_agree(point, np.ones(len(point), np.int32)) is None
    assert neighbours_agree(point[:50], ids[:50]) is None


# Where points lie, and how finely


FAR = np.array([445_012.3, 5_030_077.7, 118.0])


@pytest.mark.parametrize("up", ["z", "auto", "y"])
@pytest.mark.parametrize("metres", [1.0, 0.001])
def test_a_scan_far_from_the_origin_is_moved_there_and_keeps_the_offset(tmp_path, up, metres):
    near = furnished_room(1, 3000).astype(float)
    write(tmp_path / "a.ply", ply((near + FAR) / metres))
    scan = load(tmp_path, Orientation(up, metres))
    assert np.abs(scan.point).max() < 200 and not scan.doubts
    source = (near + FAR) / metres
    back = (scan.point.astype(float) - scan.transform[:3, 3]) @ np.linalg.inv(scan.transform[:3, :3]).T
    assert np.abs(back - source).max() * metres < 2e-5
    offset = np.linalg.inv(scan.transform[:3, :3]) @ -scan.transform[:3, 3] * metres
    assert np.allclose(offset, np.round(FAR / 100) * 100, atol=1e-6)
    assert any(
        "georeferenced?" in finding.message for finding in examine_scans(tmp_path, None, Orientation(up, metres))
    )


@pytest.mark.parametrize("reach", [0.0, 300.0, 20_000.0])
def test_a_scan_that_had_a_voxel_before_stays_where_it_is(reach):
    point = (furnished_room(1, 3000) + [reach, 0, 0]).astype(np.float32)
    scan = scan_from_arrays("a", point, None, None, Z_UP)
    assert np.array_equal(scan.point, point) and np.array_equal(scan.transform, np.eye(4))


@pytest.mark.parametrize("shift", [np.zeros(3), FAR])
def test_a_point_at_infinity_is_refused_near_and_far(shift):
    point = np.concatenate([furnished_room(1, 3000) + shift, [[1e30, 0, 0]]])
    with pytest.raises(SourceError, match="point at infinity"):
        scan_from_arrays("a", point, None, None, Z_UP)


COARSE = {
    "half precision 300 m out": (furnished_room(1, 3000) + [300, 0, 0]).astype(np.float16),
    "single precision in UTM": (furnished_room(1, 3000) + FAR).astype(np.float32),
    "rounded to 5 cm": np.round(furnished_room(1, 3000) / 0.05) * 0.05,
}
FINE = {
    "single precision 300 m out": (furnished_room(1, 3000) + [300, 0, 0]).astype(np.float32),
    "half precision in a room": np.abs(furnished_room(1, 3000)).astype(np.float16),
    "millimetres": np.round(furnished_room(1, 3000), 3),
    "a flat floor": furnished_room(1, 3000) * [1, 1, 0],
    "UTM in double precision": furnished_room(1, 3000) + FAR,
}


@pytest.mark.parametrize("case", [*COARSE, *FINE])
def test_coordinates_in_steps_coarser_than_a_voxel_are_a_doubt(tmp_path, case):
    np.save(tmp_path / "a.npy", (COARSE | FINE)[case])
    doubts = load(tmp_path).doubts
    assert len(doubts) == (case in COARSE), doubts
    assert not doubts or (doubts[0].startswith("a.npy: has ") and "coarser than the voxels of 0.02 m" in doubts[0])


def test_a_build_keeps_and_says_what_its_scans_contradict(tmp_path):
    (tmp_path / "scans").mkdir()
    np.save(tmp_path / "scans" / "a.npy", COARSE["rounded to 5 cm"])
    write_box(tmp_path / "shapes", size=(0.3, 0.3, 0.5))
    gen4d.build_dataset(tmp_path / "scans", tmp_path / "shapes", tmp_path / "out", sequences=1, classes=("chair",))
    (scan,) = json.loads((tmp_path / "out" / "shards" / "00000.json").read_bytes())["scans"]
    assert scan["doubts"][0].startswith("a.npy: has ")


# One folder that holds them all


def litter(name):
    """What systems and editors leave beside a file of that name."""
    beside = [f"._{name}", f".{name}.swp", f"{name}~", f"#{name}#", f"~${name}", f".{name}"]
    return [*beside, ".DS_Store", "Thumbs.db", "desktop.ini", f"__MACOSX/{name}", f"@eaDir/{name}"]


def everything(folder):
    """Scans in ScanNet's layout and shapes in ModelNet's, each with another thing that contradicts itself."""
    scannet_scan(folder, NAME, labels="segments")
    foreign_file(folder)
    scannet_scan(folder, "scene0001_00")
    shuffled(folder, "scene0001_00")
    points = {f"scene{k:04d}_00": furnished_room(k, 6000) for k in range(2, 7)}
    for name, point in points.items():
        scannet_scan(folder, name, count=len(point), labels="none")
    ids = {name: (np.floor(point[:, 0]) + 9).astype(np.float32) for name, point in points.items()}
    wrong = np.random.default_rng(0).permutation(ids["scene0002_00"])
    columns = {"scene0002_00": {"label": wrong}, "scene0003_00": {"scalar_roomtype": ids["scene0003_00"]}}
    points["scene0004_00"] = np.round((points["scene0004_00"] + 300) / 0.25) / 4
    points["scene0005_00"] = points["scene0005_00"] + FAR
    for name, point in points.items():
        write(file_of(folder, "_vh_clean_2.ply", name), ply(point, columns.get(name)))
    text = ply(points["scene0006_00"], {"scalar_Label": ids["scene0006_00"]}, "ascii")
    write(file_of(folder, "_vh_clean_2.ply", "scene0006_00"), b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n", 40))
    vertex, face = chair(0.25)
    sliver = np.concatenate([vertex, [[0, 0, 30], [0.01, 0, 30], [0, 0.01, 30]]])
    plate = np.concatenate([vertex, (CUBE_VERTEX - [0.5, 0.5, 1]) * [4, 4, 0.01]])
    bow = np.concatenate([vertex, [[0, 0, 0.2], [0.1, 0.1, 0.2], [0.1, 0, 0.2], [0, 0.1, 0.2]]])
    at = len(vertex)
    shapes = {"sliver": (sliver, [*face, (at, at + 1, at + 2)]), "bow": (bow, [*face, range(at, at + 4)])}
    shapes["plate"] = (plate, [*face, *(tuple(at + corner for corner in quad) for quad in CUBE_QUADS)])
    for number, name in enumerate(shapes):
        write(folder / "chair" / "train" / f"chair_{number:04d}.off", off(*shapes[name], digits=12))
    write(folder / "chair" / "train" / "chair_0008.off", ("\ufeff" + off(vertex, face)).encode("utf-16"))
    for scan, shape in zip(litter(NAME), litter("chair_0000.off"), strict=True):
        write(folder / scan, b"not a scan")
        write(folder / "chair" / "train" / shape, b"not a shape")


def warnings(findings):
    return [f"{finding.path}: {finding.message}" for finding in findings if finding.level == "warning"]


EXPECTED = {
    "scene0000_00_vh_clean.aggregation.json": "is of the segments",
    "scene0001_00_vh_clean_2.labels.ply": "lie elsewhere",
    "scene0002_00_vh_clean_2.ply": "in the order of its points?",
    "scene0003_00_vh_clean_2.ply": "has columns that are not used: scalar_roomtype",
    "scene0004_00_vh_clean_2.ply": "in steps of 0.25 m",
    "scene0005_00_vh_clean_2.ply": "georeferenced?: 445000, 5030100, 100 taken off",
    "chair_0000.off": "left out 1 triangles",
    "chair_0001.off": "1 faces of",
    "chair_0002.off": "stands on a plate",
    "chair_0008.off": "UTF-16",
}


def test_the_doctor_finds_all_that_contradicts_itself_in_one_run(tmp_path):
    everything(tmp_path)
    write(tmp_path / "listed.txt", "\n".join([*(f"scene000{i}_00" for i in range(7)), "scene0003_00.2019"]))
    listed = tmp_path / "listed.txt"
    findings = [*examine_scans(tmp_path, listed, orientation=Z_UP), *examine_shapes(tmp_path)]
    assert any(one.level != "note" and "scene0003_00.2019" in one.message for one in findings), "a name nobody has"
    for name, words in EXPECTED.items():
        assert any(one.path.endswith(name) and words in one.message for one in findings), (name, words)
    assert "ScanNet v2: 7 scans" in findings[0].message
    assert any(one.message == "class chair: 4 shapes, the data set has 889: compare" for one in findings)
    assert not any(
        part in one.path + one.message for one in findings for part in ("._", "~", "#", ".DS_Store", "MACOSX")
    )
    sound = [one for one in findings if one.path.endswith("scene0006_00_vh_clean_2.ply")]
    assert [one.level for one in sound] == ["note"]
    (source,) = (source for source in find_scans(tmp_path).sources if source.name == "scene0006_00")
    scan = load_scan(source, Z_UP)
    assert scan.label is not None and not scan.doubts and len(scan.point) == len(furnished_room(6, 6000))


SIGNS = ("order of its points", "columns that are not used", "in steps of", "georeferenced?", "left out", "faces of")
SIGNS += ("stands on a plate", "lie elsewhere", "is of the segments", "is of the scan", "segments of no point")


def false_alarms(findings):
    return [finding for finding in findings if any(sign in finding.message for sign in SIGNS)]


def test_the_doctor_has_no_such_doubts_about_built_in_samples(tmp_path):
    write_samples(tmp_path, rooms=1, shapes=1, seed=3)
    assert not false_alarms([*examine_scans(tmp_path / "scans"), *examine_shapes(tmp_path / "shapes")])


@needs_shared_data
@pytest.mark.parametrize("name", ["pcl_indoor", "indoor_fragment_open3d_ml"])
def test_the_doctor_has_no_such_doubts_about_real_scans(name):
    assert not false_alarms(examine_scans(SHARED / name))


REAL = [("furniture8", "train"), ("furniture8", "test"), ("furniture_blueprint3d_mit", None)]


@needs_shared_data
@pytest.mark.parametrize("name, split", REAL)
def test_the_doctor_has_no_such_doubts_about_real_shapes(name, split):
    assert not false_alarms(examine_shapes(SHARED / name, split=split))


# Litter


def test_what_systems_and_editors_leave_is_neither_scan_nor_shape(tmp_path):
    for suffix in (".ply", ".pcd", ".npy", ".xyz", ".off"):
        for name in litter(f"room{suffix}"):
            write(tmp_path / "scans" / name, b"\0" * 100)
    write(tmp_path / "scans" / "room.ply", ply(room_points()))
    assert [source.name for source in find_scans(tmp_path / "scans").sources] == ["room"]
    shapes = tmp_path / "shapes"
    for name in [*litter("chair_1.obj"), *litter("chair_1.off")]:
        write(shapes / "chair" / name, b"\0" * 100)
        write(shapes / name, b"\0" * 100)
    write(shapes / "chair" / "chair_1.obj", obj(CUBE_VERTEX, CUBE_QUADS))
    assert [source.path for source in find_shapes(shapes).sources] == ["chair/chair_1.obj"]


def test_scans_of_other_suffixes_are_found_and_lists_and_notes_are_not(tmp_path):
    for name in ("a.xyz", "b.las", "c.laz", "d.e57", "e.pts", "f.txt", "g.csv"):
        write(tmp_path / "mixed" / name, "0 0 0\n")
    assert [source.name for source in find_scans(tmp_path / "mixed").sources] == list("abcde")
    for name in ("a.txt", "b.CSV", "README.txt", "train.txt", "my_val.txt", "LICENSE.txt", "labels.csv", "notes.txt"):
        write(tmp_path / "text" / name, "0 0 0\n")
    assert [source.name for source in find_scans(tmp_path / "text").sources] == ["a", "b"]
