"""The doctor reports everything that is wrong with a folder in one pass."""

import numpy as np
import pytest

from gen4d.report.doctor import examine_scans, examine_shapes
from gen4d.sources import Orientation
from tests.makers.files import off, ply, write
from tests.makers.meshes import CUBE_TRIANGLES, CUBE_VERTEX
from tests.makers.rooms import pointcept_scan, room_points, scannet_scan
from tests.shared import SHARED, needs_shared_data

NAMES = ("scene0000_00", "scene0001_00", "scene0002_00")
CUBE = off(CUBE_VERTEX, CUBE_TRIANGLES)


def scannet(folder, labels="both"):
    for name in NAMES:
        scannet_scan(folder, name, labels=labels)
    write(folder / "scannetv2_train.txt", "\n".join(NAMES))
    return folder


def said(findings, level):
    return [f"{finding.path}: {finding.message}" for finding in findings if finding.level == level]


def test_sound_folder_gives_no_error_and_no_warning_but_the_counts(tmp_path):
    folder = scannet(tmp_path)
    findings = examine_scans(folder)
    assert not said(findings, "error"), findings
    notes = "\n".join(said(findings, "note"))
    assert "ScanNet v2: 3 scans" in notes and "3 scans read, 400 to 400 points" in notes
    assert "labels (nyu40): wall 50.0%, floor 50.0%" in notes


def broken(folder):
    """A folder with every kind of damage that does not stop the others. Returns it."""
    scannet_scan(folder, "scene0003_00", labels="both")
    scannet_scan(folder, "scene0004_00", labels="both")
    scannet_scan(folder, "scene0005_00", labels="none")
    (folder / "scene0000_00" / "scene0000_00_vh_clean_2.ply").unlink()
    path = folder / "scene0001_00" / "scene0001_00_vh_clean_2.ply"
    path.write_bytes(path.read_bytes()[:-20])
    write(folder / "scene0002_00" / "scene0002_00_vh_clean_2.labels.ply", b"")
    write(folder / "scene0002_00" / "scene0002_00.txt", "axisAlignment = 1 2\n")
    (folder / "scene0003_00" / "scene0003_00.aggregation.json").unlink()
    wrong = ply(room_points(399), {"label": np.full(399, 77, np.uint16)})
    write(folder / "scene0004_00" / "scene0004_00_vh_clean_2.labels.ply", wrong)
    listed = [*NAMES, "scene0003_00", "scene0004_00", "scene0005_00", "scene0900_00"]
    write(folder / "scannetv2_train.txt", "\n".join(listed))
    return folder


def test_everything_that_is_wrong_is_reported_in_one_pass(tmp_path):
    findings = examine_scans(broken(scannet(tmp_path)))
    errors, warnings = "\n".join(said(findings, "error")), "\n".join(said(findings, "warning"))
    assert "scene0000_00: has no scene0000_00_vh_clean_2.ply" in errors
    assert "scene0001_00_vh_clean_2.ply: is truncated" in errors
    assert "scene0002_00_vh_clean_2.labels.ply: is empty" in errors
    assert "scene0002_00.txt: has an axisAlignment" in errors
    assert "scene0004_00_vh_clean_2.labels.ply: holds 399 values for the 400 points" in errors
    assert len(said(findings, "error")) == 5
    assert "1 of 7 names are not in" in warnings and "scene0900_00" in warnings
    assert "lists 7 scans, the train split has 1201" in warnings
    assert "1 of 5 scans have no labels (scene0005_00)" in warnings
    assert "instances need segments and aggregation, scene0003_00 have one" in warnings


def test_workers_say_the_same_in_the_same_order_and_count_as_they_go(tmp_path):
    folder, seen = broken(scannet(tmp_path)), []
    alone = examine_scans(folder)
    assert examine_scans(folder, workers=3, progress=lambda *state: seen.append(state)) == alone
    assert [what for what, _, _ in seen] == ["scans"] * len(seen) and seen[-1] == ("scans", 5, 5)
    for number in range(4):
        write(tmp_path / "shapes" / "chair" / f"{number}.off", CUBE if number % 2 else CUBE[:-9])
    assert examine_shapes(tmp_path / "shapes", workers=2) == examine_shapes(tmp_path / "shapes")


def test_quick_examination_opens_no_points_but_finds_what_is_missing_or_empty(tmp_path):
    findings = examine_scans(broken(scannet(tmp_path)), quick=True)
    errors = "\n".join(said(findings, "error"))
    assert "has no scene0000_00_vh_clean_2.ply" in errors and "labels.ply: is empty" in errors
    assert "truncated" not in errors and "399 values" not in errors


@pytest.mark.parametrize("role", ["points", "labels", "segments", "aggregation", "alignment", "label_table"])
def test_each_file_that_a_scan_lacks_is_named(tmp_path, role):
    folder = scannet(tmp_path)
    base = folder / "scene0001_00" / "scene0001_00"
    ends = {"points": "_vh_clean_2.ply", "labels": "_vh_clean_2.labels.ply", "aggregation": ".aggregation.json"}
    ends |= {"segments": "_vh_clean_2.0.010000.segs.json", "alignment": ".txt"}
    path = folder / "scannetv2-labels.combined.tsv" if role == "label_table" else f"{base}{ends[role]}"
    (folder / path).unlink()
    findings = examine_scans(folder, quick=True)
    if role == "points":
        assert any("has no scene0001_00_vh_clean_2.ply" in text for text in said(findings, "error"))
    else:
        whole = [finding.message for finding in findings if f"have no {role} (scene000" in finding.message]
        assert len(whole) == 1 and whole[0].startswith("3 of 3" if role == "label_table" else "1 of 3")


def test_labels_outside_their_space_and_classes_never_seen_are_warned_about(tmp_path):
    folder = scannet(tmp_path, "ply")
    strange = ply(room_points(400, seed=sum(b"scene0000_00")), {"label": np.full(400, 77, np.uint16)})
    write(folder / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply", strange)
    warnings = "\n".join(said(examine_scans(folder), "warning"))
    assert "labels 77 are not in nyu40: 400 points have 77" in warnings
    (note,) = (text for text in said(examine_scans(folder), "note") if "no point is labelled" in text)
    assert "cabinet, bed, chair" in note
    for number in range(50):
        scannet_scan(tmp_path / "another" / "many", f"scene{number:04d}_00", count=100)
    warnings = "\n".join(said(examine_scans(tmp_path / "another" / "many"), "warning"))
    assert "no point is labelled cabinet, bed, chair" in warnings


def test_points_copied_from_another_scan_are_warned_about(tmp_path):
    folder = scannet(tmp_path)
    content = (folder / "scene0000_00" / "scene0000_00_vh_clean_2.ply").read_bytes()
    write(folder / "scene0002_00" / "scene0002_00_vh_clean_2.ply", content)
    warnings = "\n".join(said(examine_scans(folder), "warning"))
    assert "scene0000_00, scene0002_00 are the same file" in warnings


def test_wrong_units_and_wrong_up_are_guessed(tmp_path):
    write(tmp_path / "a.ply", ply(room_points(9000) * np.float32(1000)))
    assert any("check --units" in text for text in said(examine_scans(tmp_path), "warning"))
    assert not said(examine_scans(tmp_path, orientation=Orientation("z", 0.001)), "warning")
    write(tmp_path / "a.ply", ply(room_points(9000)[:, [1, 2, 0]] * np.float32([1, 1, 2.5])))
    assert any("check --up" in text for text in said(examine_scans(tmp_path), "warning"))


def test_no_finding_is_empty_behind_its_colon(tmp_path):
    odd = tmp_path / "my: scans"
    pointcept_scan(odd / "train", "scene0000_00")
    pointcept_scan(odd / "val", "scene0011_00")
    findings = [*examine_scans(odd), *examine_scans(scannet(tmp_path / "lists: " / "a"))]
    assert all(finding.message.strip() and str(tmp_path) in finding.path for finding in findings)
    (told,) = (finding for finding in findings if "only train/ is used" in finding.message)
    assert told.path == str(odd)


def test_folder_that_is_none_is_one_error(tmp_path):
    for examine in (examine_scans, examine_shapes):
        (finding,) = examine(tmp_path / "absent")
        assert finding.level == "error" and "not a folder" in finding.message


def test_shapes_are_counted_against_the_data_set_and_every_broken_one_is_named(tmp_path):
    for name, count in (("chair", 3), ("airplane", 2)):
        for number in range(count):
            write(tmp_path / name / "train" / f"{name}_{number:04d}.off", CUBE.replace("1 1 1", f"1 1 1.{number}"))
    write(tmp_path / "chair" / "train" / "chair_0001.off", CUBE[:-9])
    write(tmp_path / "chair" / "train" / "chair_0002.off", b"")
    write(tmp_path / "chair" / "train" / "chair_0009.off", off(CUBE_VERTEX * [1, 1, 0.001], CUBE_TRIANGLES))
    findings = examine_shapes(tmp_path)
    errors, warnings = "\n".join(said(findings, "error")), "\n".join(said(findings, "warning"))
    assert "chair_0001.off: has" in errors and "chair_0002.off: is empty" in errors
    assert "class chair: 4 shapes, the data set has 889" in warnings
    assert "class airplane: 2 shapes, but no metric height" in warnings
    assert "chair_0009.off: is a plate" in warnings
    assert not said(examine_shapes(tmp_path, quick=True), "error")


@needs_shared_data
def test_real_folders_are_sound():
    for findings in (examine_scans(SHARED / "pcl_indoor"), examine_shapes(SHARED / "furniture8", ("chair", "table"))):
        assert not said(findings, "error")
    notes = "\n".join(said(examine_scans(SHARED / "pcl_indoor"), "note"))
    assert "52744 rows with NaN or infinity are dropped from 1 scan (office1)" in notes
