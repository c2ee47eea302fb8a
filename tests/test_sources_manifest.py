"""`datasets_manifest.yaml`: whole, consistent, and what recognition goes by."""

import pytest

from gen4d.sources import SourceError, class_name_of, default_orientation, find_scans, height_ranges
from gen4d.sources import manifest as manifest_module
from gen4d.sources.entries import load_manifest
from gen4d.sources.manifest import manifest
from tests.makers.files import write

PAPER_CLASSES = ("chair", "desk", "dresser", "night_stand", "sofa", "table", "bathtub", "toilet")
BENCHMARK = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)


def test_every_known_data_set_is_declared_with_home_and_terms():
    entries = {entry.name: entry for entry in manifest().entries}
    assert {"scannet", "pointcept-scannet", "modelnet40", "shapenet", "sun-rgbd", "s3dis", "kitti"} <= set(entries)
    assert {"gen4d-samples", "gen4d-sample-shapes", "scan-files", "shape-files"} <= set(entries)
    for entry in entries.values():
        assert entry.home and entry.terms and entry.layouts and (entry.built or entry.note), entry.name
        assert entry.label_space in ("", "unknown", *manifest().label_spaces), entry.name
        if entry.role == "scans" and entry.built:
            assert default_orientation(entry.name).metres_per_unit == 1


def test_splits_carry_the_published_counts():
    entries = {entry.name: entry for entry in manifest().entries}
    assert {name: split.count for name, split in entries["scannet"].splits.items()} == {
        "train": 1201,
        "val": 312,
        "test": 100,
    }
    assert [entries["modelnet40"].splits[name].count for name in ("train", "test")] == [9843, 2468]
    assert [entries["sun-rgbd"].splits[name].count for name in ("train", "val")] == [5285, 5050]


def test_label_spaces_agree_on_the_twenty_classes_of_the_benchmark():
    nyu40, scannet20 = manifest().label_spaces["nyu40"], manifest().label_spaces["scannet20"]
    assert nyu40.benchmark == BENCHMARK and nyu40.ignore == (0, 50, 149)
    assert sorted(nyu40.names) == list(range(41))
    assert [nyu40.names[label] for label in nyu40.benchmark] == [scannet20.names[label] for label in range(20)]


def test_heights_exist_for_the_classes_of_the_paper_and_rise():
    for class_name in PAPER_CLASSES:
        (low, high, share), *_ = height_ranges(class_name)
        assert 0 < share <= 1
        assert 0.3 < low < high < 1.5
    assert height_ranges("nightstand") == height_ranges("night_stand")
    assert height_ranges("airplane") == ()


@pytest.mark.parametrize(
    "text, name",
    [("Chair", "chair"), ("chairs", "chair"), ("NightStand", "night_stand"), ("night stand", "night_stand")]
    + [("Night-Stands", "night_stand"), ("nightstand", "night_stand"), ("couch", "sofa"), ("Couches", "sofa")]
    + [("benches", "bench"), ("bookcase", "bookshelf"), ("TV stand", "tv_stand"), (" desk ", "desk")]
    + [
        ("Bedside Table", "night_stand"),
        ("chest of drawers", "dresser"),
        ("bath tub", "bathtub"),
        ("fridge", "refrigerator"),
    ]
    + [("Gnome", "Gnome"), ("glass", "glass"), ("", "")],
)
def test_classes_are_known_by_the_names_that_people_give_them(text, name):
    assert class_name_of(text) == name


GOOD = """
version: 1
label_spaces: {}
heights: {chair: {low: 0.5, high: 1}}
datasets:
  - {name: a, title: A, role: scans, built: true, units: m, up: z, home: h, terms: t,
     layouts: [{find: ["*"], path: "(?P<name>.+)"}]}
"""


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("version: 1", "version: 2", "version 2"),
        ("role: scans", "role: sacns", "role is 'sacns': did you mean scans"),
        ("title: A", "titel: A", "data set 'a' has the key 'titel': did you mean title"),
        ("name: a, ", "", "data set 1 has no name"),
        ("find: ", "fnid: ", "has the key 'fnid': did you mean find"),
        ("role: scans, ", "", "data set 'a' has no role"),
        ('path: "(?P<name>.+)"', 'path: "(?P<name>.+"', "is not a regular expression"),
        ('path: "(?P<name>.+)"', 'path: "(?P<name>.+)", name: "{nme}"', "names 'nme', which path has no group for"),
        ('path: "(?P<name>.+)"', 'path: "(?P<name>.+)", files: {label: [a]}', "'label': did you mean labels"),
        ('path: "(?P<name>.+)"', 'path: "(?P<name>.+)", files: {points: 3}', "points is 3, not a list of texts"),
        ("layouts: [{", "layouts: [7, {", "data set 'a', layout 1 is a int"),
        ("label_spaces: {}", "label_spaces: {x: {nmaes: {}}}", "'nmaes': did you mean names"),
        ("label_spaces: {}", "label_spaces: {x: {names: {0: a}, benchmark: [7]}}", "benchmark lists 7, which has no"),
        ("heights: {chair: {low: 0.5, high: 1}}", "heights: {chair: {lo: 0.5}}", "'lo': did you mean low"),
        ("heights: {chair: {low: 0.5, high: 1}}", "heights: {chair: 3}", "heights of 'chair' is a int"),
        ("role: scans", "role: shapes", "has no group"),
        ("low: 0.5", "low: 5", "heights from 5 to 1"),
        ("datasets:", "dataset:", "the file has the key 'dataset': did you mean datasets"),
        ("  - {", "  - {{", "not YAML"),
    ],
)
def test_manifest_with_a_mistake_is_refused(tmp_path, old, new, words):
    assert load_manifest(write(tmp_path / "good.yaml", GOOD)).heights == {"chair": ((0.5, 1.0, 1.0),)}
    with pytest.raises(SourceError, match=words):
        load_manifest(write(tmp_path / "bad.yaml", GOOD.replace(old, new)))


def test_data_set_declared_twice_is_refused(tmp_path):
    twice = GOOD + "\n".join(GOOD.splitlines()[5:]) + "\n"
    with pytest.raises(SourceError, match="declares 'a' twice"):
        load_manifest(write(tmp_path / "bad.yaml", twice))


def test_recognition_goes_by_the_manifest_alone(tmp_path, monkeypatch):
    write(tmp_path / "mine" / "room.dat", b"")
    with pytest.raises(SourceError, match="holds no scans"):
        find_scans(tmp_path / "mine")
    changed = GOOD.replace('"(?P<name>.+)"', r"'(?P<name>.+)\.dat'")
    monkeypatch.setattr(manifest_module, "_PLACES", (write(tmp_path / "m.yaml", changed),))
    manifest_module._own.cache_clear()
    manifest_module._merged.cache_clear()
    try:
        assert find_scans(tmp_path / "mine").sources[0].name == "room"
    finally:
        manifest_module._own.cache_clear()
        manifest_module._merged.cache_clear()
