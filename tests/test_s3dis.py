"""S3DIS's raw texts: labels from the objects, damaged lines reported to the byte, and repaired by named rules alone."""

import pickle
import re

import numpy as np
import pytest

from gen4d import building, sources
from gen4d.config import ScansConfig
from gen4d.report.doctor import examine_scans
from gen4d.sources import Orientation, SourceError, find_scans, load_scan
from gen4d.sources.appearance import read_appearance
from tests.makers.files import write
from tests.makers.s3dis import CLASS, OBJECTS, text_of, write_s3dis_room

UP = Orientation("z")


def damaged(tmp_path, area: str, room: str, name: str, whole: bytes, found: bytes):
    """A room one of whose objects has something else in its tenth line. Returns the path and the byte of it."""
    write_s3dis_room(tmp_path, area, room, 1)
    path = tmp_path / area / room / "Annotations" / f"{name}.txt"
    lines = path.read_bytes().splitlines(keepends=True)
    at = len(b"".join(lines[:9]))
    lines[9] = whole.replace(b"?", found) + b"\n"
    path.write_bytes(b"".join(lines))
    return path, at + whole.index(b"?")


def load(tmp_path):
    (source,) = find_scans(tmp_path).sources
    return load_scan(source, UP)


def test_points_labels_and_instances_come_from_the_objects_of_a_room(tmp_path):
    rows = write_s3dis_room(tmp_path, "Area_1", "office_1", 1)
    (source,) = find_scans(tmp_path).sources
    assert (source.name, source.entry) == ("Area_1_office_1", "s3dis")
    scan = load_scan(source, UP)
    expected = np.concatenate(list(rows.values()))
    assert np.array_equal(scan.point, expected[:, :3].astype(np.float32)) and scan.label_space == "s3dis13"
    counts = [len(values) for values in rows.values()]
    assert np.array_equal(scan.label, np.repeat([CLASS[name.split("_")[0]] for name in rows], counts))
    assert np.array_equal(scan.instance, np.repeat(range(len(rows)), counts))
    assert [file.path.rsplit("/", 1)[-1] for file in scan.files] == [f"{name}.txt" for name in OBJECTS]
    assert not scan.doubts
    colour = read_appearance(source, scan, ("colour",)).colour
    assert np.allclose(colour, expected[:, 3:] / 255)


def test_a_room_without_annotations_has_points_alone(tmp_path):
    write_s3dis_room(tmp_path, "Area_2", "WC_1", 1)
    for path in (tmp_path / "Area_2/WC_1/Annotations").iterdir():
        path.unlink()
    with pytest.raises(SourceError, match="WC_1/Annotations: holds no texts of objects"):
        load(tmp_path)
    (tmp_path / "Area_2/WC_1/Annotations").rmdir()
    scan = load(tmp_path)
    assert scan.label is None and len(scan.point) == 800


def test_an_area_is_a_part_of_the_data_set(tmp_path):
    for area in ("Area_1", "Area_6"):
        write_s3dis_room(tmp_path, area, "hallway_1", 1, 60)
    found = find_scans(tmp_path, "Area_6")
    assert [source.name for source in found.sources] == ["Area_6_hallway_1"]
    assert len(find_scans(tmp_path).sources) == 2


# Damaged lines -------------------------------------------------------------------------------------------------------

KNOWN = {
    "aligned": ("Area_5", "hallway_6", "ceiling_1", b"-15.1 30.2 2.5 185?187 190", b"\x00", "185 187"),
    "colour": ("Area_5", "office_19", "ceiling_1", b"-15.1 30.2 2.5 103.0?0000 98.0 97.0", b"\x10", "103.000000"),
    "coordinate": ("Area_3", "hallway_2", "wall_2", b"-9.1?0 30.2 2.5 103 98 97", b"\x16", "nan"),
}


@pytest.mark.parametrize("case", KNOWN)
def test_a_damaged_line_of_the_released_archives_is_read_by_its_rule_which_is_said(tmp_path, case):
    *where, whole, found, put = KNOWN[case]
    path, byte = damaged(tmp_path, *where, whole, found)
    scan = load(tmp_path)
    (doubt,) = scan.doubts
    assert doubt.startswith(path.relative_to(tmp_path).as_posix()) and doubt.endswith("as the manifest says")
    word = whole.replace(b"?", found).decode().split(" ")[{"aligned": 3, "colour": 3, "coordinate": 0}[case]]
    assert f"has {word!r} at byte {byte - word.index(found.decode())}: read as {put!r}" in doubt
    assert scan.dropped == (case == "coordinate") and len(scan.point) + scan.dropped == 800
    (source,) = find_scans(tmp_path).sources
    colour = read_appearance(source, scan, ("colour",)).colour * 255
    if case == "aligned":
        assert np.allclose(colour[9], (185, 187, 190))


@pytest.mark.parametrize("found", [b"\x00", b"\x10", b"x", b"\xff"])
def test_any_other_damaged_line_is_refused_by_file_line_and_byte(tmp_path, found):
    path, byte = damaged(tmp_path, "Area_4", "office_2", "chair_1", b"-15.1 30.2 2.5 185?187 190", found)
    with pytest.raises(SourceError) as refused:
        load(tmp_path)
    text = str(refused.value)
    assert text.startswith(f"{path}: has ") and f"on line 10 of its data, byte {byte} of the file: write" in text
    assert text.endswith("under `repairs` of s3dis in a manifest of yours")
    assert path.read_bytes()[byte : byte + 1] == found


@pytest.mark.parametrize("line", [b"-15.1 30.2 2.5 185187 190?", b"-15.1 30.2 2.5 185 187 190 4?"])
def test_a_line_of_another_number_of_numbers_is_refused_by_its_byte(tmp_path, line):
    path, _ = damaged(tmp_path, "Area_4", "office_2", "chair_1", line, b"")
    byte = path.read_bytes().index(line.rstrip(b"?"))
    with pytest.raises(SourceError, match=f"has [57] numbers in point 9, at byte {byte} of the file, and 6 before"):
        load(tmp_path)


def test_the_doctor_says_what_is_repaired_and_what_is_not(tmp_path):
    *where, whole, found, _ = KNOWN["aligned"]
    damaged(tmp_path, *where, whole, found)
    path, byte = damaged(tmp_path, "Area_6", "office_1", "chair_1", whole, b"x")
    write_s3dis_room(tmp_path, "Area_1", "WC_1", 2)
    for text in (tmp_path / "Area_1/WC_1/Annotations").iterdir():
        text.unlink()
    (tmp_path / "Area_1/WC_1/Annotations").rmdir()
    said = [" ".join(finding) for finding in examine_scans(tmp_path)]
    assert f"on line 10 of its data, byte {byte} of the file" in next(one for one in said if str(path) in one)
    assert any(re.match(r"warning .*ceiling_1\.txt.*: read as '185 187', as the manifest says", one) for one in said)
    assert any("1 of 3 scans have no objects (Area_1_WC_1): those are built without labels" in one for one in said)
    assert not any("is a folder where a file is needed" in one for one in said)


def test_a_rule_counts_for_its_own_file_and_where_it_fits_once(tmp_path):
    *_, whole, found, _ = KNOWN["aligned"]
    path, byte = damaged(tmp_path, "Area_5", "hallway_5", "ceiling_1", whole, found)
    with pytest.raises(SourceError, match=f"byte {byte} of the file"):
        load(tmp_path)
    path.parents[1].rename(tmp_path / "Area_5" / "hallway_6")
    (tmp_path / "Area_5/hallway_6/hallway_5.txt").rename(tmp_path / "Area_5/hallway_6/hallway_6.txt")
    assert load(tmp_path).doubts
    path = tmp_path / "Area_5/hallway_6/Annotations/ceiling_1.txt"
    path.write_bytes(path.read_bytes() * 2)  # nobody knows which of two is meant
    with pytest.raises(SourceError, match=f"byte {byte} of the file"):
        load(tmp_path)


def test_users_name_further_repairs_and_classes_in_a_manifest_of_theirs(tmp_path):
    data = tmp_path / "data"
    damaged(data, "Area_4", "office_2", "chair_1", b"-15.1 30.2 2.5 185?187 190", b"x")
    write(data / "Area_4/office_2/Annotations/lamp_1.txt", text_of(np.ones((5, 6))))
    with pytest.raises(SourceError, match=r"lamp_1\.txt: is of the class 'lamp', which s3dis13 does not know"):
        (data / "Area_4/office_2/Annotations/chair_1.txt").unlink()
        load(data)
    damaged(data, "Area_4", "office_2", "chair_1", b"-15.1 30.2 2.5 185?187 190", b"x")
    entry = """
datasets:
  - name: my-s3dis
    role: scans
    label_space: s3dis13
    classes: {stairs: clutter, lamp: clutter}
    repairs: [{file: "*/chair_1.txt", found: 185x187, put: 185 187}]
    layouts:
      - find: ["Area_*/*/*.txt"]
        path: '(?P<part>Area_[1-6])/(?P<room>[^/]+)/(?P=room)\\.txt'
        name: '{part}_{room}'
        files: {points: ["{room}.txt"], objects: [Annotations]}
"""
    write(data / "datasets_manifest.yaml", entry)
    try:
        scan = load(data)
        assert len(scan.doubts) == 1 and (scan.label == 12).sum() == 50 + 50 + 5
        inputs = building.find_inputs("scans", building.Given(scans=data), ScansConfig()).inputs
        sent = [pickle.dumps(job) for job in building.make_plan(tmp_path / "out", inputs).jobs]
        sources.forget_manifests()  # as a worker elsewhere, which gets nothing but its job
        assert [building.build_shard(pickle.loads(job))["failed"] for job in sent] == [[]]
        plan = building.make_plan(tmp_path / "out", inputs)
        assert not plan.jobs and not plan.changed  # though its points are read from the objects' texts
        write(data / "datasets_manifest.yaml", entry.replace("found", "fond"))
        with pytest.raises(SourceError, match="repairs has the key 'fond'"):
            load(data)
    finally:
        sources.forget_manifests()
