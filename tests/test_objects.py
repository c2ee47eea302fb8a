"""Objects of labelled scans, from ScanNet's files, Pointcept's, VoteNet's and built-in rooms; and what is wrong."""

import json

import numpy as np
import pytest
import torch

from gen4d import sources
from gen4d.samples.write import write_samples
from tests.makers.files import write
from tests.makers.labelled import OBJECTS, labelled, room, write_room
from train.inputs.labels import NONE, SceneError, label_table
from train.inputs.objects import (
    STUFF,
    boxes_of,
    instances_of,
    stuff_classes,
    warn_of_alignment,
    with_instances,
)
from train.inputs.scans import read_scan
from train.inputs.subsets import limit_boxes, read_limited_boxes

NYU40, SCANNET20 = label_table("nyu40"), label_table("scannet20")
STUFF_CLASSES = stuff_classes(NYU40, STUFF)
ALIGN = np.array([[0, -1, 0, 5], [1, 0, 0, -2], [0, 0, 1, 0.5], [0, 0, 0, 1.0]])


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def first_of(folder, table=NYU40):
    return read_scan(sources.find_scans(folder).sources[0], table)


def scannet(folder, alignment=ALIGN):
    """A room of ScanNet's raw files, with an alignment or without."""
    write_room(folder, "scene0000_00", 3, "segments")
    line = "" if alignment is None else "axisAlignment = " + " ".join(map(str, alignment.ravel())) + "\n"
    write(folder / "scene0000_00/scene0000_00.txt", line + "sceneType = Office\n")
    return first_of(folder)


def pointcept(folder):
    point, kind = room(3)
    names = list(OBJECTS)
    save(folder / "train/scene0000_00/coord.npy", point)
    save(folder / "train/scene0000_00/segment20.npy", np.array([OBJECTS[k][2] for k in kind], np.int16))
    save(folder / "train/scene0000_00/instance.npy", np.array([names.index(k) if OBJECTS[k][0] else -1 for k in kind]))
    return first_of(folder / "train", SCANNET20)


def votenet(folder, box=None):
    """Half of a room's points as VoteNet keeps them, and boxes of all of them."""
    point, kind = room(3)
    names = [name for name in OBJECTS if OBJECTS[name][0]]
    kept = np.arange(0, len(point), 2)
    save(folder / "scene0000_00_vert.npy", np.hstack([point, point])[kept])
    save(folder / "scene0000_00_sem_label.npy", np.array([OBJECTS[k][1] for k in kind], np.uint32)[kept])
    ids = [names.index(k) + 1 if k in names else 0 for k in kind]
    save(folder / "scene0000_00_ins_label.npy", np.array(ids, np.uint32)[kept])
    if box is None:
        mine = point[kind == "table"]
        low, high = mine.min(axis=0), mine.max(axis=0)
        box = np.array([[*(low + high) / 2, *(high - low), 7]])
    save(folder / "scene0000_00_bbox.npy", box)
    return first_of(folder)


def test_instances_of_scannets_files_are_those_of_its_objects(tmp_path):
    scan, kind = scannet(tmp_path), room(3)[1]
    found = instances_of(scan, STUFF_CLASSES, 20)
    tables = np.flatnonzero(found.kind >= 0)
    assert found.kind[tables].tolist() == [6]  # wall and floor are stuff, a lamp has no class of the benchmark
    assert np.array_equal(found.number == tables[0], kind == "table")
    assert len(found.kind) == 4 and np.array_equal(found.number == NONE, kind == "nothing")


@pytest.mark.parametrize("make", [scannet, pointcept, votenet])
def test_a_layouts_box_is_that_of_all_points_of_its_table(make, tmp_path):
    scan = make(tmp_path)
    point, kind = room(3)
    turn = ALIGN if make is scannet else np.eye(4)
    mine = point[kind == "table"] @ turn[:3, :3].T + turn[:3, 3]
    low, high = mine.min(axis=0), mine.max(axis=0)
    found = boxes_of(scan, STUFF_CLASSES, 20)
    assert found.kind.tolist() == [6]
    np.testing.assert_allclose(found.box[0], [*(low + high) / 2, *(high - low), 0], atol=1e-5)
    inside = kind == "table"
    assert np.array_equal(found.owner == 0, inside[::2] if make is votenet else inside)


def test_without_an_alignment_boxes_lie_along_the_axes_of_the_file(tmp_path):
    point, kind = room(3)
    scan = scannet(tmp_path, None)
    found = boxes_of(scan, STUFF_CLASSES, 20)
    np.testing.assert_allclose(found.box[0, 3:6], np.ptp(point[kind == "table"], axis=0), atol=1e-5)
    with pytest.warns(UserWarning, match=r"1 of 2 training scans have no axisAlignment \(first: scene0000_00\)"):
        warn_of_alignment([scan, scan._replace(alignment=ALIGN)], "training")


def test_built_in_rooms_have_objects_with_boxes(tmp_path):
    write_samples(tmp_path, rooms=1, shapes=0)
    scan = first_of(tmp_path / "scans")
    found = boxes_of(scan, STUFF_CLASSES, 20)
    groups = json.loads(next((tmp_path / "scans").rglob("*.aggregation.json")).read_text())["segGroups"]
    assert 3 < len(found.box) <= len(groups)
    assert (found.box[:, 3:6] > 0).all() and set(found.kind) & STUFF_CLASSES == set()
    for number in range(len(found.box)):
        mine = found.point[found.owner == number]
        assert (np.abs(mine - found.box[number, :3]) <= found.box[number, 3:6] / 2 + 1e-5).all()


def test_objects_that_are_listed_twice_are_one(tmp_path):
    """As in scene0217_00 of ScanNet's validation scans."""
    expected = instances_of(scannet(tmp_path), STUFF_CLASSES, 20)
    path = tmp_path / "scene0000_00/scene0000_00.aggregation.json"
    groups = json.loads(path.read_text())["segGroups"]
    again = [group | {"id": group["id"] + 9, "objectId": group["objectId"] + 9} for group in groups]
    path.write_text(json.dumps({"segGroups": groups + again}))
    found = instances_of(first_of(tmp_path), STUFF_CLASSES, 20)
    assert np.array_equal(found.number, expected.number) and np.array_equal(found.kind, expected.kind)


def test_scans_without_instances_are_left_out_and_said():
    scans = [labelled(0), labelled(1)._replace(instance=np.zeros(1500, np.int32))]
    with pytest.warns(UserWarning, match=r"1 of 2 training scans have no instances and are left out"):
        assert with_instances(scans, "training") == scans[1:]
    with pytest.raises(SceneError, match=r"none of 1 validation scans \(first: scene0000_00\) has instances: download"):
        with_instances(scans[:1], "validation")


# Name -> boxes beside a scan's points, what the refusal says.
BAD_BOXES = {
    "of another shape": (np.zeros((2, 8)), r"holds an array \(2, 8\): boxes are \(B, 7\)"),
    "not finite": (np.full((1, 7), np.nan), "finite numbers"),
    "without size": (np.array([[0, 0, 0, 1, 0, 1, 7.0]]), "size above 0"),
    "of an unknown class": (np.array([[0, 0, 0, 1, 1, 1, 77.0]]), "has the label 77 on 1 of 1 points"),
}


@pytest.mark.parametrize("name", BAD_BOXES)
def test_bad_boxes_are_refused_with_their_file(name, tmp_path):
    box, text = BAD_BOXES[name]
    with pytest.raises(SceneError, match=text) as caught:
        votenet(tmp_path, box)
    assert "scene0000_00_bbox.npy" in str(caught.value)


def test_a_box_without_points_stays_a_box_and_one_far_from_its_object_gets_no_points(tmp_path):
    far = np.array([[50, 50, 50, 1, 1, 1, 7], [9, 9, 9, 1, 1, 1, 1.0]])
    found = boxes_of(votenet(tmp_path, far), STUFF_CLASSES, 20)
    assert found.kind.tolist() == [6] and (found.owner == NONE).all()


# Limited boxes -------------------------------------------------------------------------------------------------------


def limited(path, stored):
    torch.save(stored, path)
    return read_limited_boxes(path)


def two_tables(make, folder):
    """A scan whose lamp counts as a second object, so that there is something to leave out."""
    scan = make(folder)
    lamp = room(3)[1] == "lamp"
    lamp = lamp[::2] if make is votenet else lamp
    scan = scan._replace(label=np.where(lamp, np.int16(2), scan.label))
    if make is votenet:
        mine = scan.point[lamp]
        low, high = mine.min(axis=0), mine.max(axis=0)
        scan = scan._replace(box=np.vstack([scan.box, [*(low + high) / 2, *(high - low), 0, 2]]))
    return scan


@pytest.mark.parametrize("make", [scannet, votenet])
def test_a_list_of_boxes_leaves_them_alone_by_the_ids_of_votenets_files(make, tmp_path):
    """The table is instance 3 of VoteNet's, which counts from 1, and 2 of ScanNet's own files."""
    scan = two_tables(make, tmp_path)
    assert len(boxes_of(scan, STUFF_CLASSES, 20).box) == 2
    for rows, ids, kind in (([0], [3], [6]), ([1], [4], [2]), ([0, 1], [3, 4], [6, 2]), ([], [], [])):
        kept = limited(tmp_path / "list", {"scene0000_00": (np.array(rows, np.int64), ids)})
        (found,) = limit_boxes([scan], kept, tmp_path / "list")
        boxes = boxes_of(found, STUFF_CLASSES, 20)
        assert sorted(boxes.kind.tolist()) == sorted(kind)
        assert set(boxes.owner[boxes.owner >= 0].tolist()) == set(range(len(kind)))


def test_scans_that_a_list_of_boxes_lacks_keep_all_and_wrong_lists_are_one_line(tmp_path):
    scan, path = scannet(tmp_path), tmp_path / "list"
    with pytest.warns(UserWarning, match="1 of 1 training scans are not in it and keep all their boxes"):
        assert limit_boxes([scan], limited(path, {"scene0001_00": ([0], [1])}), path) == [scan]
    bad = {
        "holds a list, not scan names": [1],
        "scene0000_00 has no two lists": {"scene0000_00": [1, 2, 3]},
        "no list of rows from 0 on": {"scene0000_00": ([-1], [1])},
    }
    for text, stored in bad.items():
        with pytest.raises(SceneError, match=text):
            limited(path, stored)
    with pytest.raises(SceneError, match="no point of scene0000_00 is of its instances"):
        limit_boxes([scan], limited(path, {"scene0000_00": ([0], [77])}), path)
    with pytest.raises(SceneError, match="names box 5 of scene0000_00, which has 1"):
        limit_boxes([votenet(tmp_path / "v")], limited(path, {"scene0000_00": ([5], [3])}), path)
    write(path, b"no such file")
    with pytest.raises(SceneError, match="no file of limited boxes"):
        read_limited_boxes(path)


def test_a_benchmark_of_stuff_alone_is_refused():
    with pytest.raises(SceneError, match="those are all classes of nyu40"):
        stuff_classes(NYU40, NYU40.names)


def test_a_scan_without_any_instance_has_no_object():
    scan = labelled(0)._replace(instance=np.full(1500, -1, np.int32))
    assert len(instances_of(scan, STUFF_CLASSES, 20).kind) == 0
    assert boxes_of(scan, STUFF_CLASSES, 20).box.shape == (0, 7)
