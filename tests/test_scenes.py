"""Labelled scans: ids to classes as the benchmark does, splits and subsets by room, and what is wrong in one line."""

import json
import pickle

import numpy as np
import pytest
import torch

from gen4d import sources
from tests.makers.files import ply, write
from tests.makers.rooms import pointcept_scan, room_points, scannet_scan
from train.inputs import labels, scans, subsets
from train.inputs.labels import NONE, SceneError

# ScanNet's benchmark: name and nyu40 id of its 20 classes.
BENCHMARK = {
    "wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7, "door": 8, "window": 9,
    "bookshelf": 10, "picture": 11, "counter": 12, "desk": 14, "curtain": 16, "refrigerator": 24, "shower curtain": 28,
    "toilet": 33, "sink": 34, "bathtub": 36, "otherfurniture": 39,
}  # fmt: skip


def names_of(part):
    return [source.name for source in part.scans]


def lists(folder, **parts):
    for part, names in parts.items():
        write(folder / f"scannetv2_{part}.txt", "".join(f"{name}\n" for name in names))


def read_one(folder, name="scene0000_00", space="auto"):
    found = sources.find_scans(folder)
    source = next(source for source in found.sources if source.name == name)
    return scans.read_scan(source, labels.table_of(source.entry, space))


def test_nyu40_ids_become_the_benchmarks_20_classes_and_the_rest_no_label():
    table = labels.label_table("nyu40")
    assert dict(zip(table.names, table.ids, strict=True)) == BENCHMARK
    found = table.classes_of(np.arange(41))
    expected = {number: place for place, number in enumerate(BENCHMARK.values())}
    assert found.tolist() == [expected.get(number, NONE) for number in range(41)]


def test_both_label_spaces_of_scannet_have_the_same_classes_and_the_same_ids_in_result_files():
    raw, processed = labels.label_table("nyu40"), labels.label_table("scannet20")
    assert raw.names == processed.names
    assert processed.classes_of(np.arange(-1, 20)).tolist() == list(range(-1, 20))
    for table in (raw, processed):
        assert labels.benchmark_ids(table.names, table) == tuple(BENCHMARK.values())
    s3dis = labels.label_table("s3dis13")
    assert labels.benchmark_ids(s3dis.names, s3dis) == tuple(range(13))


def test_slips_in_the_released_labels_mean_no_label():
    assert labels.label_table("nyu40").classes_of(np.array([50, 149, 1])).tolist() == [NONE, NONE, 0]


def test_labels_of_a_mesh_with_labels_are_read_as_classes(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", 400)
    scan = read_one(tmp_path)
    assert scan.label.tolist() == [1] * 200 + [0] * 200
    assert (scan.rows, scan.row.tolist()) == (400, list(range(400)))


def test_labels_of_segments_and_aggregation_are_read_through_the_table_of_categories(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", 400, labels="segments")
    assert read_one(tmp_path).label.tolist() == [1] * 200 + [0] * 190 + [NONE] * 10


def test_categories_become_nyu40_ids_and_those_outside_the_benchmark_no_label(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", 400, labels="segments")
    base = tmp_path / "scene0000_00"
    groups = [
        {"id": 0, "objectId": 0, "segments": [5], "label": "armchair"},
        {"id": 1, "objectId": 1, "segments": [9], "label": "whiteboard eraser"},
    ]
    write(base / "scene0000_00.aggregation.json", json.dumps({"segGroups": groups}))
    table = "id\traw_category\tcategory\tcount\tnyu40id\n1\tarmchair\tchair\t7\t5\n3\twhiteboard eraser\tx\t1\t40\n"
    write(tmp_path / "scannetv2-labels.combined.tsv", table)
    assert read_one(tmp_path).label.tolist() == [4] * 200 + [NONE] * 200


def test_pointcepts_layout_is_read_with_its_own_ids(tmp_path):
    pointcept_scan(tmp_path / "train", "scene0000_00")
    assert read_one(tmp_path).label.tolist() == [1] * 200 + [NONE] * 200


def test_rows_lead_back_to_the_points_file_where_points_are_dropped(tmp_path):
    point = room_points(300)
    point[[3, 70]] = np.nan
    label = np.arange(300, dtype=np.int32) % 3
    np.savez(tmp_path / "room.npz", point=point, label=label)
    (tmp_path / "room.npz").unlink()
    write(tmp_path / "room.ply", ply(point, {"label": label.astype(np.uint16)}))
    scan = read_one(tmp_path, "room", "nyu40")
    assert scan.rows == 300 and len(scan.row) == 298
    assert np.array_equal(scan.label, labels.label_table("nyu40").classes_of(label)[scan.row])


def test_a_scan_without_labels_is_refused_in_one_line(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", labels="none")
    with pytest.raises(
        SceneError, match=r"scene0000_00_vh_clean_2.ply: scan scene0000_00 has no labels \(files: .*\):"
    ):
        read_one(tmp_path)


def test_an_unknown_label_is_refused_with_file_number_and_remedy(tmp_path):
    point = scannet_scan(tmp_path, "scene0000_00")
    label = np.full(len(point), 2, np.uint16)
    label[:7] = 57
    write(tmp_path / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply", ply(point, {"label": label}))
    message = r"labels.ply: has the label 57 on 7 of 400 points, which nyu40 does not know: .*--manifest"
    with pytest.raises(SceneError, match=message):
        read_one(tmp_path)


def test_a_label_space_that_nobody_declared_is_refused():
    with pytest.raises(SceneError, match=r"label space 'nyu41' is not known: .* nyu40, scannet20, .*s3dis13"):
        labels.label_table("nyu41")
    with pytest.raises(SceneError, match=r"label space of these scans is not known: --set label_space= one of nyu40"):
        labels.table_of("scan-trees", "auto")


def test_scans_without_any_class_are_refused(tmp_path):
    point = scannet_scan(tmp_path, "scene0000_00")
    label = np.zeros(len(point), np.uint16)
    write(tmp_path / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply", ply(point, {"label": label}))
    found = sources.find_scans(tmp_path).sources
    with pytest.raises(SceneError, match=r"no point of 1 scans \(first: scene0000_00\) has a class"):
        scans.read_scans(found, labels.label_table("nyu40"), 1)


# Splits --------------------------------------------------------------------------------------------------------------


def test_train_and_val_follow_the_lists_beside_the_scans(tmp_path):
    for name in ("scene0000_00", "scene0000_01", "scene0001_00"):
        scannet_scan(tmp_path, name)
    lists(tmp_path, train=["scene0000_00", "scene0000_01"], val=["scene0001_00"])
    assert names_of(subsets.find_part(tmp_path, "train")) == ["scene0000_00", "scene0000_01"]
    assert names_of(subsets.find_part(tmp_path, "val")) == ["scene0001_00"]
    write(tmp_path / "mine.txt", "scene0000_01\n")
    assert names_of(subsets.find_part(tmp_path, "val", tmp_path / "mine.txt")) == ["scene0000_01"]


def test_pointcepts_parts_are_folders(tmp_path):
    pointcept_scan(tmp_path / "train", "scene0000_00")
    pointcept_scan(tmp_path / "val", "scene0001_00")
    assert names_of(subsets.find_part(tmp_path, "train")) == ["scene0000_00"]
    assert names_of(subsets.find_part(tmp_path, "val")) == ["scene0001_00"]


def test_a_part_without_a_list_is_refused_with_the_option_that_helps(tmp_path):
    scannet_scan(tmp_path, "scene0000_00")
    with pytest.raises(SceneError, match=r"no scannetv2_val.txt beside the scans: give a file .* by --val-split"):
        subsets.find_part(tmp_path, "val", option="--val-split")
    write(tmp_path / "plain" / "room.ply", ply(room_points()))
    with pytest.raises(SceneError, match=r"no list of the part 'train' .* by --split"):
        subsets.find_part(tmp_path / "plain", "train")


def test_an_empty_split_is_refused(tmp_path):
    scannet_scan(tmp_path, "scene0000_00")
    for content, message in (("\n", "holds no names"), ("scene0707_00\n", "holds none of the 1 names")):
        with pytest.raises(sources.SourceError, match=message):
            subsets.find_part(tmp_path, "val", write(tmp_path / "list.txt", content))
    with pytest.raises(SceneError, match="no scan is left in the list"):
        scans.read_scans([], labels.label_table("nyu40"), 1)


def test_a_listed_scan_that_cannot_be_loaded_is_refused_and_not_left_out(tmp_path):
    for name in ("scene0000_00", "scene0001_00"):
        scannet_scan(tmp_path, name)
    (tmp_path / "scene0001_00" / "scene0001_00_vh_clean_2.ply").unlink()
    lists(tmp_path, train=["scene0000_00", "scene0001_00"])
    with pytest.raises(SceneError, match=r"scene0001_00: has no scene0001_00_vh_clean_2.ply"):
        subsets.find_part(tmp_path, "train")


def test_a_room_on_both_sides_is_refused():
    subsets.check_apart(["scene0000_00", "scene0002_01"], ["scene0001_00"])
    with pytest.raises(SceneError, match=r"1 room is in both the training and .* \(first: scene0002\)"):
        subsets.check_apart(["scene0000_00", "scene0002_01"], ["scene0001_00", "scene0002_00"])


# Subsets -------------------------------------------------------------------------------------------------------------

SCANS = [f"scene{room:04d}_{scan:02d}" for room in range(60) for scan in range(1 + room % 3)]


def subset(tmp_path, percent, seed=0, names=SCANS):
    return subsets.choose_subset(tmp_path, "scannet", names, percent, seed)


@pytest.mark.parametrize("seed", range(4))
def test_subsets_are_nested_and_never_cut_a_room(tmp_path, seed):
    smaller = set()
    for percent, rooms in ((1, 1), (5, 3), (10, 6), (20, 12), (50, 30), (100, 60)):
        chosen = set(subset(tmp_path, percent, seed).names)
        assert smaller <= chosen
        assert len({subsets.room_of(name) for name in chosen}) == rooms
        for name in SCANS:
            mates = [other for other in SCANS if subsets.room_of(other) == subsets.room_of(name)]
            assert (name in chosen) == all(mate in chosen for mate in mates)
        smaller = chosen


def test_the_smallest_share_is_one_room():
    assert len(subsets.nested_rooms({"a", "b", "c"}, 1, 0)) == 1


def test_seeds_draw_other_rooms_and_repeat(tmp_path):
    drawn = {subset(tmp_path, 10, seed).names for seed in range(6)}
    assert len(drawn) == 6
    assert subset(tmp_path, 10, 3).names in drawn


def test_further_rooms_leave_the_order_of_the_others_as_it_is():
    rooms = {f"scene{k:04d}" for k in range(40)}
    more = rooms | {f"scene{k:04d}" for k in range(40, 80)}
    first, second = subsets.nested_rooms(rooms, 25, 7), subsets.nested_rooms(more, 100 * 30 / 80, 7)
    assert len(second) == 30
    taken = second & rooms
    assert taken <= first or first <= taken


def test_a_scan_that_is_no_rescan_is_a_room_of_its_own():
    assert [subsets.room_of(n) for n in ("scene0012_03", "Area_1_office_2", "b_01")] == [
        "scene0012", "Area_1_office_2", "b_01"
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["tasks/scenes", "scenes", "limited-reconstruction-scenes"])
def test_the_benchmarks_list_goes_before_a_draw(tmp_path, place):
    path = write(tmp_path / place / "10.txt", "scene0007_00\nscene0003_00\n")
    found = subset(tmp_path, 10)
    assert found.names == ("scene0003_00", "scene0007_00")
    assert found.origin == str(tmp_path / "." / path.relative_to(tmp_path))
    assert "drawn with seed 0" in subset(tmp_path, 5).origin
    write(path, "scene9999_00\n")
    with pytest.raises(SceneError, match=r"10.txt: names none of the 120 scans \(first: scene0000_00\)"):
        subset(tmp_path, 10)


# Limited points ------------------------------------------------------------------------------------------------------


def labelled(name="scene0000_00", points=20, rows=25):
    row = np.delete(np.arange(rows, dtype=np.int32), [0, 5, 6, 7, 8])[:points]
    return scans.LabelledScan(name, np.zeros((points, 3), np.float32), np.arange(points, dtype=np.int16), row, rows, "")


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_only_the_listed_rows_of_the_points_file_keep_their_labels(tmp_path, kind):
    torch.save({"scene0000_00": kind([1, 6, 10])}, tmp_path / "points3")
    kept = subsets.read_limited_points(tmp_path / "points3")
    (scan,) = subsets.limit([labelled()], kept, tmp_path / "points3")
    assert scan.row[scan.label != NONE].tolist() == [1, 10]
    assert scan.label[scan.label != NONE].tolist() == labelled().label[np.isin(labelled().row, [1, 10])].tolist()


class _Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_a_file_of_limited_points_runs_no_code(tmp_path):
    torch.save({"scene0000_00": _Bomb(tmp_path / "exploded")}, tmp_path / "points", pickle_module=pickle)
    with pytest.raises(SceneError, match="points: no file of limited points"):
        subsets.read_limited_points(tmp_path / "points")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"scene0000_00": [25]}, "names row 25 of scene0000_00, which has 25"),
        ({"scene0001_00": [1]}, "says nothing of scene0000_00"),
        ({"scene0000_00": [-1]}, "no list of rows from 0 on"),
        ({"scene0000_00": [0.5]}, "no list of rows from 0 on"),
        ([1, 2], "holds a list"),
    ],
)
def test_limited_points_that_do_not_fit_are_refused(tmp_path, content, message):
    path = tmp_path / "points20"
    torch.save(content, path)
    with pytest.raises(SceneError, match=f"points20: .*{message}"):
        subsets.limit([labelled()], subsets.read_limited_points(path), path)
