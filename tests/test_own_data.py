"""Users' own data sets, classes and label spaces: a manifest beside the data or named, heights and globs."""

import numpy as np
import pytest
from click.testing import CliRunner

import gen4d
from gen4d import sources
from gen4d.sources import Orientation, SourceError, find_scans, find_shapes, load_scan
from gen4d.sources import manifest as manifest_module
from tests.makers import commands
from tests.makers.files import off, ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX
from tests.makers.rooms import bare_floor, pointcept_scan, room_points

BOX = off((CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_QUADS)
OWN = """
label_spaces:
  house: {names: [floor, wall, cupboard], ignore: [-1]}
heights:
  robot: {low: 0.5, high: 0.6, also: [droid]}
datasets:
  - name: house
    role: scans
    label_space: house
    layouts:
      - find: ["*/mesh.ply"]
        path: '(?P<name>[^/]+)/mesh\\.ply'
        files: {points: [mesh.ply], labels: ["labels.npy"]}
    splits:
      train: {file: mine.txt, default: true}
  - name: robots
    role: shapes
    layouts:
      - find: ["*.off"]
        path: '(?P<name>(?P<class>droid)_\\d+)\\.off'
"""


@pytest.fixture(autouse=True)
def forget():
    yield
    sources.forget_manifests()


def house(folder, points=4000):
    for number, name in enumerate(("kitchen", "hall")):
        point = bare_floor(number, points)
        write(folder / name / "mesh.ply", ply(point))
        np.save(folder / name / "labels.npy", np.where(point[:, 0] < 1, 0, 2))
    write(folder / "mine.txt", "kitchen\nhall\n")
    return folder


def test_a_manifest_beside_the_data_is_taken_unasked(tmp_path):
    write(house(tmp_path / "data") / "datasets_manifest.yaml", OWN)
    found = find_scans(tmp_path / "data")
    assert [source.name for source in found.sources] == ["hall", "kitchen"] and found.entry == "house"
    assert found.split.endswith("mine.txt")
    scan = load_scan(found.sources[0], Orientation())
    assert set(scan.label.tolist()) == {0, 2} and scan.label_space == "house"


def build(tmp_path, *options):
    places = ("--scans", house(tmp_path / "data"), "--shapes", tmp_path / "shapes", "--out", tmp_path / "out")
    return commands.gen4d("build", *places, "--sequences", "1", "--set", "shape_points=20", *options)


def test_a_manifest_that_is_named_says_what_scans_shapes_classes_and_heights_are(tmp_path):
    manifest = write(tmp_path / "own.yaml", OWN)
    write(tmp_path / "shapes" / "droid_1.off", BOX)
    outcome = build(tmp_path, "--classes", "droid", "--manifest", manifest)
    assert outcome.code == 0, outcome.text
    data = gen4d.open_dataset(tmp_path / "out")
    assert {s.class_name for s in data} == {"robot"} and all(0.5 <= s.movers[0].height_m <= 0.6 for s in data)
    doctor = commands.gen4d("doctor", "--scans", tmp_path / "data", "--shapes", tmp_path / "shapes", "--classes",
                            "robot", "--manifest", manifest)  # fmt: skip
    assert doctor.code == 0 and "house: 2 scans" in doctor.out and "labels (house)" in doctor.out
    assert "class robot: 1 shape" in doctor.out and "no metric height" not in doctor.out
    assert "house: " not in commands.gen4d("doctor", "--scans", tmp_path / "data").out  # nobody remembers it


def test_heights_of_a_class_are_given_by_an_option(tmp_path):
    write(tmp_path / "shapes" / "gnome" / "a.off", BOX)
    glob = ("--glob", "*/mesh.ply")
    outcome = build(tmp_path, "--classes", "gnome", "--height", "gnome=0.45:0.5", *glob)
    assert outcome.code == 0, outcome.text
    assert all(0.45 <= s.movers[0].height_m <= 0.5 for s in gen4d.open_dataset(tmp_path / "out"))
    without = build(tmp_path, "--classes", "gnome", *glob)
    assert without.code == 1 and "no height range" in without.err


@pytest.mark.parametrize("text", ["gnome", "gnome=", "=1:2", "gnome=2:1", "gnome=a:b", "gnome=0:1", "gnome=5:50"])
def test_heights_that_are_none_are_refused_with_an_example(text):
    with pytest.raises(SourceError, match=r"write robot=0\.5:0\.6"):
        sources.add_height(text)


def test_a_glob_names_the_scans_of_a_tree_after_their_paths(tmp_path):
    for place in ("a/1/cloud.ply", "a/2/cloud.ply", "b/cloud.ply"):
        write(tmp_path / place, ply(room_points()))
    write(tmp_path / "other.ply", b"ply")
    sources.add_glob("**/cloud.ply")
    found = find_scans(tmp_path)
    assert [source.name for source in found.sources] == ["a_1_cloud", "a_2_cloud", "b_cloud"]
    listed = write(tmp_path / "list.txt", "a/2/cloud.ply\nb_cloud\n")
    assert [source.name for source in find_scans(tmp_path, listed).sources] == ["a_2_cloud", "b_cloud"]
    for pattern in ("", "/etc/*", "../*.ply"):
        with pytest.raises(SourceError, match="a pattern below the folder"):
            sources.add_glob(pattern)


def test_a_mistake_in_a_manifest_is_one_line_that_names_it_in_every_command(tmp_path):
    manifest = write(tmp_path / "own.yaml", OWN.replace("label_space: house", "labelspace: house"))
    for command in ("build", "doctor"):
        outcome = commands.gen4d(command, "--scans", house(tmp_path / "data"), "--manifest", manifest)
        assert outcome.code == 1
        assert (
            outcome.err == f"Error: {manifest}: data set 'house' has the key 'labelspace': did you mean label_space?\n"
        )
    lost = write(tmp_path / "lost.yaml", OWN.replace("label_space: house", "label_space: hosue"))
    with pytest.raises(SourceError, match="label_space 'hosue' is none of house, nyu40"):
        sources.add_manifest(lost)
    assert "house" not in [entry.name for entry in manifest_module.manifest().entries]
    with pytest.raises(SourceError, match="cannot be read"):
        sources.add_manifest(tmp_path / "absent.yaml")


def test_a_user_may_put_right_what_gen4d_says_and_two_files_may_not_differ(tmp_path):
    write(tmp_path / "a.yaml", "heights: {chair: {low: 3, high: 4}}")
    sources.add_manifest(tmp_path / "a.yaml")
    assert sources.height_ranges("chair") == ((3, 4, 1),) and sources.height_ranges("sofa")
    sources.add_height("chair=1:2")
    assert sources.height_ranges("chair") == ((1, 2, 1),)
    sources.add_manifest(write(tmp_path / "b.yaml", OWN))
    sources.add_manifest(write(tmp_path / "same.yaml", OWN))
    with pytest.raises(SourceError, match=r"declares 'house', which .*b\.yaml declares otherwise"):
        sources.add_manifest(write(tmp_path / "c.yaml", OWN.replace("mine.txt", "yours.txt")))


def test_shapes_of_a_users_data_set_are_read_as_it_says(tmp_path):
    up = OWN.replace("role: shapes", "role: shapes\n    up: x")
    write(tmp_path / "datasets_manifest.yaml", up)
    write(tmp_path / "droid_1.off", off(CUBE_VERTEX * [3, 1, 1], CUBE_QUADS))
    found = find_shapes(tmp_path)
    sources.forget_manifests()  # as a worker that never read it
    assert np.ptp(sources.load_shape(found.sources[0]).vertex[:, 2]) == 3


@pytest.mark.parametrize("command", ["finetune", "evaluate", "predict"])
def test_the_trainers_commands_take_a_manifest_and_name_its_mistakes(tmp_path, command):
    main = pytest.importorskip("train.__main__").main
    manifest = write(tmp_path / "own.yaml", OWN.replace("datasets:", "dataset:"))
    result = CliRunner().invoke(main, [command, "--manifest", str(manifest)])
    assert (
        result.exit_code == 1 and f"{manifest}: the file has the key 'dataset': did you mean datasets?" in result.output
    )


def test_labels_of_a_users_space_are_classes_to_the_trainer(tmp_path):
    labels = pytest.importorskip("train.inputs.labels")
    sources.add_manifest(write(tmp_path / "own.yaml", OWN))
    table = labels.table_of("house", "auto")
    assert table.names == ("floor", "wall", "cupboard") and table.classes_of(np.array([2, -1, 0])).tolist() == [
        2,
        -1,
        0,
    ]


def test_predicting_a_folder_names_every_scan_that_is_refused(tmp_path):
    predict = pytest.importorskip("train.tasks.segment.predict")
    write(tmp_path / "a.ply", ply(room_points()))
    (tmp_path / "b.ply").mkdir()
    with pytest.warns(UserWarning, match=r"refused: .*b\.ply: is a folder"):
        assert [scan.name for scan in predict.read_any(predict.Source(tmp_path))] == ["a"]
    (tmp_path / "a.ply").unlink()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"all of its scans \(1\) are refused: .*b\.ply"):
        list(predict.read_any(predict.Source(tmp_path)))


def test_the_manifests_in_the_documents_are_whole_and_say_what_is_said_of_them(tmp_path):
    text = (commands.ROOT / "docs" / "your-data.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    house_text, scannet200 = (block for block in blocks if "datasets:" in block)
    write(house(tmp_path / "house") / "datasets_manifest.yaml", house_text)
    assert [source.label_space for source in find_scans(tmp_path / "house").sources] == ["house", "house"]
    point = pointcept_scan(tmp_path / "200" / "train", "scene0000_00")
    np.save(tmp_path / "200" / "train" / "scene0000_00" / "segment200.npy", np.full(len(point), 199, np.int16))
    write(tmp_path / "200" / "datasets_manifest.yaml", scannet200)
    (source,) = find_scans(tmp_path / "200").sources
    scan = load_scan(source, Orientation())
    assert scan.label_space == "scannet200" and set(scan.label) == {199}
    assert manifest_module.manifest().label_spaces["scannet200"].names[199] == "mattress"
