"""Folders of scans: recognised by the manifest, chosen by splits, loaded with all that belongs to a scan."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from gen4d.sources import Orientation, SourceError, find_scans, find_shapes, load_scan
from gen4d.sources.splits import find_listed
from tests.makers.files import pcd, ply, structured, write
from tests.makers.rooms import pointcept_scan, room_points, scannet_scan
from tests.shared import SHARED, needs_shared_data

Z_UP = Orientation()


def names(found):
    return [source.name for source in found.sources]


def test_scannet_folder_is_recognised_and_sorted(tmp_path):
    for name in ("scene0003_00", "scene0000_01", "scene0000_00"):
        scannet_scan(tmp_path, name)
    found = find_scans(tmp_path)
    assert names(found) == ["scene0000_00", "scene0000_01", "scene0003_00"]
    assert found.entry == "scannet" and not found.refused
    source = found.sources[0]
    assert source.root == tmp_path and source.entry == "scannet"
    assert source.files["points"] == "scene0000_00/scene0000_00_vh_clean_2.ply"
    assert set(source.files) == {"points", "labels", "alignment"}
    assert source.size == (tmp_path / source.files["points"]).stat().st_size
    assert pickle.loads(pickle.dumps(source)) == source


def test_scannet_scan_has_points_labels_alignment_and_the_hash_of_every_file(tmp_path):
    point = scannet_scan(tmp_path, "scene0000_00")
    scan = load_scan(find_scans(tmp_path).sources[0], Z_UP)
    assert np.array_equal(scan.point, point) and scan.point.dtype == np.float32 and scan.point.flags.c_contiguous
    assert np.array_equal(scan.row, np.arange(400)) and scan.row.dtype == np.int32
    assert scan.label_space == "nyu40" and set(scan.label) == {1, 2} and scan.label.dtype == np.int32
    assert scan.instance is None and scan.dropped == 0
    assert scan.axis_alignment.tolist()[0] == [0, 1, 0, 2] and np.array_equal(scan.transform, np.eye(4))
    assert len(scan.files) == 3
    for file in scan.files:
        content = (tmp_path / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("labels", ["segments", "both"])
def test_scannet_labels_and_instances_come_from_segments(tmp_path, labels):
    scannet_scan(tmp_path, "scene0000_00", labels=labels)
    scan = load_scan(find_scans(tmp_path).sources[0], Z_UP)
    assert scan.instance[:200].tolist() == [0] * 200 and scan.instance[200:390].tolist() == [1] * 190
    assert scan.instance[390:].tolist() == [-1] * 10
    assert scan.label[:390].tolist() == [2] * 200 + [1] * 190
    assert set(scan.label[390:]) == ({0} if labels == "segments" else {1})
    assert scan.label_space == "nyu40"


def test_of_two_objects_that_share_a_segment_the_later_one_has_it(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", labels="segments")
    path = tmp_path / "scene0000_00" / "scene0000_00.aggregation.json"
    tree = json.loads(path.read_text())
    tree["segGroups"].append({"id": 2, "objectId": 2, "segments": [9, 77], "label": "floor"})
    path.write_text(json.dumps(tree))
    scan = load_scan(find_scans(tmp_path).sources[0], Z_UP)
    assert scan.instance.tolist() == [0] * 200 + [2] * 200 and set(scan.label) == {2}


def test_scannet_scan_without_labels_or_alignment_is_loaded(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", labels="none")
    write(tmp_path / "scene0000_00" / "scene0000_00.txt", "colorHeight = 968\n")
    scan = load_scan(find_scans(tmp_path).sources[0], Z_UP)
    assert scan.label is None and scan.instance is None and scan.label_space == "" and scan.axis_alignment is None


def segs(tmp_path, **tree):
    write(tmp_path / "scene0000_00" / "scene0000_00_vh_clean_2.0.010000.segs.json", json.dumps(tree))


def groups(tmp_path, value):
    write(tmp_path / "scene0000_00" / "scene0000_00.aggregation.json", json.dumps({"segGroups": value}))


def labels(tmp_path, content):
    write(tmp_path / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply", content)


def label_ply(count):
    return ply(room_points(count), {"label": np.ones(count, np.uint16)})


COMPANION_DAMAGE = {
    "fewer labels": (lambda p: labels(p, label_ply(399)), "399 values for the 400 points"),
    "labels without labels": (lambda p: labels(p, ply(room_points(400))), "no property `label`"),
    "labels empty": (lambda p: labels(p, b""), "empty (0 bytes)"),
    "labels cut": (lambda p: labels(p, label_ply(400)[:-9]), "truncated"),
    "fewer segments": (lambda p: segs(p, segIndices=[5] * 399), "399 values for the 400 points"),
    "no segments": (lambda p: segs(p), "no list of whole numbers under 'segIndices'"),
    "segments of words": (lambda p: segs(p, segIndices=["a"] * 400), "no list of whole numbers"),
    "segments negative": (lambda p: segs(p, segIndices=[-1] * 400), "no list of whole numbers"),
    "segments ragged": (lambda p: segs(p, segIndices=[[1]] * 399 + [1]), "no list of whole numbers"),
    "segments huge": (lambda p: segs(p, segIndices=[2**40] * 400), "segment 1099511627776"),
    "segments beyond 64 bits": (lambda p: segs(p, segIndices=[2**70] * 400), "no list of whole numbers"),
    "segments cut": (
        lambda p: write(p / "scene0000_00" / "scene0000_00_vh_clean_2.0.010000.segs.json", '{"segInd'), "valid JSON"),
    "segments nested": (
        lambda p: write(p / "scene0000_00" / "scene0000_00_vh_clean_2.0.010000.segs.json", "[" * 99999), "valid JSON"),
    "groups missing": (lambda p: groups(p, None), "no list segGroups"),
    "groups of numbers": (lambda p: groups(p, [1]), "no list segGroups"),
    "groups without segments": (lambda p: groups(p, [{"objectId": 1, "label": "wall"}]), "under 'segments'"),
    "unknown category": (
        lambda p: groups(p, [{"objectId": 1, "label": "wal", "segments": [5]}]), "category 'wal'"),
    "table without ids": (
        lambda p: write(p / "scannetv2-labels.combined.tsv", "raw_category\tid\nwall\t1\n"), "raw_category"),
    "alignment of 15": (
        lambda p: write(p / "scene0000_00" / "scene0000_00.txt", "axisAlignment = " + "1 " * 15), "not 16 numbers"),
    "alignment infinite": (
        lambda p: write(p / "scene0000_00" / "scene0000_00.txt", "axisAlignment = " + "-inf " * 16), "not 16 numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMPANION_DAMAGE)
def test_damaged_file_beside_a_scan_is_named(tmp_path, case):
    scannet_scan(tmp_path, "scene0000_00", labels="segments")
    damage, words = COMPANION_DAMAGE[case]
    damage(tmp_path)
    with pytest.raises(SourceError) as error:
        load_scan(find_scans(tmp_path).sources[0], Z_UP)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_wrong_label_count_names_both_files(tmp_path):
    scannet_scan(tmp_path, "scene0000_00")
    labels(tmp_path, label_ply(399))
    with pytest.raises(SourceError, match=r"labels\.ply: .*scene0000_00_vh_clean_2\.ply"):
        load_scan(find_scans(tmp_path).sources[0], Z_UP)


@pytest.mark.parametrize("place", [".", "..", "scans", "Tasks/Benchmark"])
def test_training_list_chooses_the_scans_wherever_scannet_puts_it(tmp_path, place):
    folder = tmp_path / "scannet"
    for name in ("scene0000_00", "scene0001_00", "scene0011_00"):
        scannet_scan(folder, name)
    write(folder / place / "scannetv2_train.txt", "scene0000_00\nscene0001_00\n")
    found = find_scans(folder)
    assert names(found) == ["scene0000_00", "scene0001_00"] and not found.warnings
    assert found.split.endswith("scannetv2_train.txt")


def test_scans_and_scans_test_folders_are_understood(tmp_path):
    scannet_scan(tmp_path / "scans", "scene0000_00")
    scannet_scan(tmp_path / "scans_test", "scene0707_00")
    found = find_scans(tmp_path)
    assert names(found) == ["scene0000_00", "scene0707_00"]
    assert found.sources[0].files["points"] == "scans/scene0000_00/scene0000_00_vh_clean_2.ply"
    assert load_scan(found.sources[0], Z_UP).files[0].path == found.sources[0].files["points"]


def test_without_a_training_list_a_warning_says_that_validation_scans_are_in(tmp_path):
    scannet_scan(tmp_path, "scene0000_00")
    (warning,) = find_scans(tmp_path).warnings
    assert "scannetv2_train.txt" in warning and "--split" in warning


def test_split_file_goes_before_the_training_list_and_missing_names_are_one_warning(tmp_path):
    for name in ("scene0000_00", "scene0001_00"):
        scannet_scan(tmp_path, name)
    write(tmp_path / "scannetv2_train.txt", "scene0000_00\n")
    listed = [f"scene09{k:02d}_00" for k in range(30)]
    split = write(tmp_path / "mine.txt", "\r\n".join(["# mine", "", "scans/scene0001_00", *listed, "scene0001_00"]))
    found = find_scans(tmp_path, split)
    assert names(found) == ["scene0001_00"]
    (warning,) = found.warnings
    assert "30 of 32" in warning and "scene0900_00, " in warning and "scene0919_00, ..." in warning


def test_split_file_may_hold_the_names_of_files(tmp_path):
    for name in ("scene0000_00", "scene0001_00"):
        scannet_scan(tmp_path, name)
    split = write(tmp_path / "mine.txt", "scene0001_00.ply\nsomewhere/else/scene0000_00.pcd\n")
    assert names(find_scans(tmp_path, split)) == ["scene0000_00", "scene0001_00"]


LISTED = {  # the lines of a list, of folders office, office.2019 and room.v2 -> what is chosen, and what is missing
    "exact names": ("office.2019", ["office.2019"], []),
    "a name that another begins with": ("office", ["office"], []),
    "a dot that is no suffix": ("room", [], ["room"]),
    "another year": ("office.2020\noffice", ["office"], ["office.2020"]),
    "suffixes of files": ("office.ply\nroom.v2.npz", ["office", "room.v2"], []),
    "folders in front": ("a/b/office.2019\nx\\room.v2", ["office.2019", "room.v2"], []),
    "one thing twice": ("office\nscans/office/\noffice.PLY", ["office"], []),
}


@pytest.mark.parametrize("kind", LISTED)
def test_lists_mean_exact_names_first_and_every_name_is_accounted_for(kind):
    lines, chosen, missing = LISTED[kind]
    there = [(name, f"deep/{name}") for name in ("office", "office.2019", "room.v2")]
    listed = lines.splitlines()
    found = find_listed(listed, there)
    assert sorted(set(found.values())) == chosen and [name for name in listed if name not in found] == missing


def test_a_scan_that_is_listed_and_not_there_lets_no_other_in(tmp_path):
    for name in ("office", "kitchen"):
        write(tmp_path / f"{name}.ply", ply(room_points()))
    found = find_scans(tmp_path, write(tmp_path / "train.txt", "office.2019\nkitchen\n"))
    assert names(found) == ["kitchen"] and found.warnings[0].endswith(": office.2019")
    shapes = tmp_path / "shapes"
    for name in ("chair_1", "chair_1.old"):
        write(shapes / "chair" / f"{name}.off", b"OFF")
    chosen = find_shapes(shapes, None, write(tmp_path / "shapes.txt", "chair_1.old\nchair_7\n"))
    assert [source.name for source in chosen.sources] == ["chair_1.old"]
    assert chosen.warnings[0].endswith("1 of 2 names are not in " + str(shapes) + ": chair_7")


def test_split_that_chooses_nothing_is_refused(tmp_path):
    scannet_scan(tmp_path, "scene0000_00")
    for text, words in (("scene0009_00\n", "none of the 1 names"), ("\n#\n", "holds no names"), ("", "is empty")):
        with pytest.raises(SourceError, match=words):
            find_scans(tmp_path, write(tmp_path / "mine.txt", text))
    with pytest.raises(SourceError, match="not a list of names"):
        find_scans(tmp_path, write(tmp_path / "mine.txt", b"\xff\xfe\x00a"))
    with pytest.raises(SourceError, match="is not there"):
        find_scans(tmp_path, tmp_path / "absent.txt")


def test_scan_without_its_points_is_refused_by_name_and_the_others_go_on(tmp_path):
    scannet_scan(tmp_path, "scene0000_00")
    scannet_scan(tmp_path, "scene0001_00")
    (tmp_path / "scene0001_00" / "scene0001_00_vh_clean_2.ply").unlink()
    found = find_scans(tmp_path)
    assert names(found) == ["scene0000_00"]
    ((name, message),) = found.refused
    assert name == "scene0001_00" and "has no scene0001_00_vh_clean_2.ply" in message


def test_scannet_files_lying_flat_in_one_folder_are_found(tmp_path):
    point = scannet_scan(tmp_path / "deep", "scene0000_00")
    for path in (tmp_path / "deep" / "scene0000_00").iterdir():
        path.rename(tmp_path / path.name)
    (tmp_path / "deep" / "scene0000_00").rmdir()
    found = find_scans(tmp_path)
    assert names(found) == ["scene0000_00"] and found.entry == "scannet"
    scan = load_scan(found.sources[0], Z_UP)
    assert np.array_equal(scan.point, point) and scan.label_space == "nyu40" and scan.axis_alignment is not None


def test_built_in_samples_are_recognised_by_their_marker(tmp_path):
    scannet_scan(tmp_path / "scans", "scene0000_00")
    write(tmp_path / "gen4d_samples.json", '{"version": 1, "seed": 0}')
    for folder in (tmp_path, tmp_path / "scans"):
        assert find_scans(folder).entry == "gen4d-samples"


def test_pointcept_folder_gives_the_train_part_with_its_labels(tmp_path):
    point = pointcept_scan(tmp_path / "train", "scene0000_00")
    pointcept_scan(tmp_path / "val", "scene0011_00")
    found = find_scans(tmp_path)
    assert names(found) == ["scene0000_00"] and found.entry == "pointcept-scannet"
    assert "only train/ is used" in found.warnings[0]
    scan = load_scan(found.sources[0], Z_UP)
    assert np.array_equal(scan.point, point) and scan.label_space == "scannet20"
    assert set(scan.label) == {1, -1} and set(scan.instance) == {3, -1}
    split = write(tmp_path / "val.txt", "scene0011_00\n")
    assert names(find_scans(tmp_path, split)) == ["scene0011_00"]
    assert names(find_scans(tmp_path, Path("val"))) == ["scene0011_00"]
    for part, name in (("train", "scene0000_00"), ("val", "scene0011_00")):  # the folders are the split
        alone = find_scans(tmp_path / part)
        assert names(alone) == [name] and not alone.warnings


def test_pointcept_s3dis_rooms_are_named_after_area_and_room(tmp_path):
    pointcept_scan(tmp_path / "Area_1", "office_1")
    np.save(tmp_path / "Area_1" / "office_1" / "segment.npy", np.zeros(400, np.int64))
    found = find_scans(tmp_path)
    assert names(found) == ["Area_1_office_1"]
    assert load_scan(found.sources[0], Z_UP).label_space == "s3dis13"


def test_wrong_count_of_a_pointcept_array_is_refused(tmp_path):
    pointcept_scan(tmp_path, "scene0000_00")
    np.save(tmp_path / "scene0000_00" / "instance.npy", np.zeros(3, np.int16))
    with pytest.raises(SourceError, match="3 values for the 400 points"):
        load_scan(find_scans(tmp_path).sources[0], Z_UP)


def test_plain_folder_of_every_points_format_is_found(tmp_path):
    point = room_points()
    write(tmp_path / "a.ply", ply(point, {"label": np.ones(400, np.uint8), "instance": np.zeros(400, np.int32)}))
    write(tmp_path / "b.PCD", pcd(structured(point)))
    np.save(tmp_path / "c.npy", point)
    np.savez(tmp_path / "d.npz", points=point)
    write(tmp_path / "notes.txt", "hello")
    found = find_scans(tmp_path)
    assert names(found) == ["a", "b", "c", "d"] and found.entry == "scan-files" and not found.warnings
    scans = [load_scan(source, Z_UP) for source in found.sources]
    assert all(np.array_equal(scan.point, point) for scan in scans)
    assert scans[0].label_space == "unknown" and set(scans[0].label) == {1} and set(scans[0].instance) == {0}
    assert scans[1].label_space == "" and scans[1].label is None


def test_two_scans_of_one_name_are_refused_with_both_paths(tmp_path):
    write(tmp_path / "a.ply", ply(room_points()))
    write(tmp_path / "a.pcd", pcd(structured(room_points())))
    with pytest.raises(SourceError, match=r"two scans named 'a', a\.pcd and a\.ply"):
        find_scans(tmp_path)
    scannet_scan(tmp_path / "b" / "scans", "scene0000_00")
    scannet_scan(tmp_path / "b" / "scans_test", "scene0000_00")
    with pytest.raises(SourceError, match="two scans named"):
        find_scans(tmp_path / "b")


def test_folder_without_scans_says_what_was_looked_for(tmp_path):
    with pytest.raises(SourceError, match=r"holds no scans that gen4d knows.*ScanNet v2"):
        find_scans(tmp_path)
    with pytest.raises(SourceError, match="not a folder"):
        find_scans(tmp_path / "absent")
    with pytest.raises(SourceError, match="not a folder"):
        find_scans(write(tmp_path / "a.txt", "x"))


def test_folder_of_shapes_given_as_scans_is_named(tmp_path):
    write(tmp_path / "chair" / "train" / "chair_0001.off", "OFF\n")
    with pytest.raises(SourceError, match="looks like ModelNet40"):
        find_scans(tmp_path)


def test_points_two_folders_deeper_are_pointed_to(tmp_path):
    write(tmp_path / "house" / "rooms" / "a.ply", ply(room_points()))
    with pytest.raises(SourceError, match=r"there are \.ply files in house/rooms: give that folder, or --glob"):
        find_scans(tmp_path)


@pytest.mark.parametrize(
    "path, title",
    [
        ("training/velodyne/000000.bin", "KITTI"),
        ("velodyne/000000.bin", "KITTI"),
        ("SUNRGBDMeta3DBB_v2.mat", "SUN RGB-D"),
        ("sunrgbd_trainval/train_data_idx.txt", "SUN RGB-D"),
    ],
)
def test_known_data_sets_that_cannot_be_built_from_say_so(tmp_path, path, title):
    write(tmp_path / path, b"\0" * 16)
    with pytest.raises(
        SourceError, match=f"(is {title}.*cannot build from|holds no scans, it looks like {title}.*: its)"
    ):
        find_scans(tmp_path)


def test_rows_that_are_not_finite_are_dropped_and_counted_and_labels_follow(tmp_path):
    point = room_points()
    point[[0, 100, 399], [0, 1, 2]] = np.nan, np.inf, -np.inf
    write(tmp_path / "a.ply", ply(point, {"label": np.arange(400, dtype=np.uint16)}))
    scan = load_scan(find_scans(tmp_path).sources[0], Z_UP)
    kept = np.delete(np.arange(400), [0, 100, 399])
    assert scan.dropped == 3 and np.array_equal(scan.row, kept) and np.array_equal(scan.label, kept)
    assert np.array_equal(scan.point, point[kept])


POINT_DAMAGE = {
    "all nan": (ply(np.full((400, 3), np.nan, np.float32)), "0 finite points in 400 rows"),
    "99 points": (ply(room_points(99)), "99 finite points in 99 rows: a scan needs at least 100"),
    "no points": (ply(room_points(1)[:0]), "0 finite points in 0 rows"),
    "point at infinity": (ply(np.concatenate([room_points(), np.full((1, 3), 1e30, np.float32)])), "point at infinity"),
    "point far below": (ply(np.concatenate([room_points(), np.full((1, 3), -2e5, np.float32)])), "point at infinity"),
    "zero bytes": (b"", "empty (0 bytes)"),
    "garbage": (bytes(range(256)), "not a PLY file"),
}


@pytest.mark.parametrize("case", POINT_DAMAGE)
def test_scan_that_cannot_be_used_is_refused_by_its_file(tmp_path, case):
    content, words = POINT_DAMAGE[case]
    write(tmp_path / "a.ply", content)
    with pytest.raises(SourceError) as error:
        load_scan(find_scans(tmp_path).sources[0], Z_UP)
    assert words in str(error.value) and error.value.path == str(tmp_path / "a.ply")


def test_folder_named_like_a_scan_is_refused_by_its_name(tmp_path):
    (tmp_path / "a.ply").mkdir()
    write(tmp_path / "b.ply", ply(room_points()))
    found = find_scans(tmp_path)
    assert names(found) == ["b"]
    assert [name for name, _ in found.refused] == ["a"] and "is a folder" in found.refused[0][1]


def test_scan_removed_after_it_was_found_is_refused(tmp_path):
    path = write(tmp_path / "a.ply", ply(room_points()))
    source = find_scans(tmp_path).sources[0]
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        load_scan(source, Z_UP)


def test_errors_survive_the_way_between_processes():
    error = SourceError("a.ply", "is broken")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "a.ply: is broken" and again.path == "a.ply" and isinstance(again, ValueError)


def test_message_is_one_printable_line_whatever_the_file_holds():
    text = str(SourceError("a.ply", "has\nlines \x1b[31m and\0more" + "x" * 5000))
    assert text.isprintable() and len(text) < 1000


@needs_shared_data
def test_real_indoor_scans_are_found_and_loaded():
    found = find_scans(SHARED / "pcl_indoor")
    assert names(found) == ["office1", "room_scan1", "room_scan2"]
    scans = {source.name: load_scan(source, Z_UP) for source in found.sources}
    assert scans["office1"].dropped == 52_744 and len(scans["office1"].point) == 254_456
    assert scans["room_scan1"].dropped == 0
    assert -1.5 < scans["room_scan1"].point[:, 2].min() < 1.8 > scans["room_scan1"].point[:, 2].max()
