"""Views of shapes (STRL, Eq. 2): laws from the stored bytes, every layout that is read, and what is refused.

Ranges and probabilities stand here once more as the paper prints them; poses are taken apart with SciPy.
"""

import json
import math
import re

import h5py
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

import gen4d
from gen4d.config import ConfigError, ViewsConfig, make_config, override
from gen4d.sources import SourceError
from gen4d.sources.pointsets import find_any_shapes, load_points
from gen4d.views import kernels
from gen4d.views.shapes import chain
from tests import laws, naive
from tests.makers import commands, meshes
from tests.makers.files import ply, write
from tests.makers.urdfs import write_cupboard
from tests.shared import SHARED, needs_shared_data

TURN_DEG, SHIFT, SCALE, CHANCE = 15, 0.10, (0.8, 1.25), 0.5
LIKELY = 1e-3
SIGMAS = 5


def rng(*key):
    return np.random.default_rng(key)


def clouds(n, points=60, key=0):
    """(n, points, 3) float32: boxes of different proportions, somewhere."""
    size, place = rng(key, 1).uniform(0.2, 3, (n, 1, 3)), rng(key, 2).uniform(-9, 9, (n, 1, 3))
    return (rng(key, 3).uniform(-1, 1, (n, points, 3)) * size + place).astype(np.float32)


def write_npz(folder, n=6, points=60, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    label = np.array(["chair", "Night Stand", "sofa"])[np.arange(n) % 3]
    np.savez(folder / "some.npz", **({"point": clouds(n, points), "label": label} | arrays))
    return folder


def build(folder, shapes, **settings):
    return gen4d.build_dataset(shapes=shapes, out=folder, kind="views", **{"points": 60} | settings)


# Laws


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The shard of 500 shapes with 5 sequences of 5 frames each: ten thousand transforms."""
    folder = tmp_path_factory.mktemp("stored")
    build(folder / "built", write_npz(folder / "shapes", 500), sequences=5, frames=5, scans_per_shard=500)
    return laws.read_shard(folder / "built" / "shards" / "00000.zarr.zip")


@pytest.fixture(scope="module")
def steps(stored):
    """Of every step from frame to frame: factor, angles about x, y and z, shift as a share of the extent."""
    table = stored.table
    rows = []
    for actor, cloud in enumerate(table["actor/cloud"]):
        point = table["cloud/point"][laws.cloud_rows(stored, int(cloud))].astype(float)
        pose = table["actor/pose"][actor].astype(float)
        seen = point @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]
        step = pose[1:] @ np.linalg.inv(pose[:-1])
        factor = np.cbrt(np.linalg.det(step[:, :3, :3]))
        angle = Rotation.from_matrix(step[:, :3, :3] / factor[:, None, None]).as_euler("xyz", degrees=True)
        shift = np.diff(seen.mean(axis=1), axis=0) / np.ptp(seen[:-1], axis=1)
        rows.append(np.column_stack([factor, angle, shift]))
    return np.concatenate(rows)


def test_the_first_frame_is_the_shape_as_it_is_and_all_points_are_in_every_frame(stored):
    table = stored.table
    assert (table["actor/pose"][:, 0] == np.eye(4)).all()
    assert (table["sequence/kind"] == 3).all() and (table["actor/role"] == 1).all()
    for actor in range(0, len(table["actor/role"]), 100):
        assert laws.mask_of(stored, actor, "").all()


def test_a_shape_without_a_unit_is_in_the_unit_sphere_around_its_mean(stored):
    table = stored.table
    for scan in range(0, 500, 50):
        point = table["cloud/point"][laws.cloud_rows(stored, int(table["scan/cloud"][scan]))].astype(float)
        assert np.abs(point.mean(axis=0)).max() < 1e-5 and abs(np.linalg.norm(point, axis=1).max() - 1) < 1e-5
        source = clouds(500)[int(stored.scans[scan].rsplit("_", 1)[1])]
        put = source @ table["scan/transform"][scan][:3, :3].T + table["scan/transform"][scan][:3, 3]
        assert np.abs(put - point).max() < 1e-5
        rows = laws.cloud_rows(stored, int(table["scan/cloud"][scan]))
        assert np.array_equal(table["cloud/vertex"][rows], np.arange(60))


def applied(steps):
    return (
        ("turns", np.abs(steps[:, 1:4]).max(axis=1) > 0.01),
        ("shifts", np.abs(steps[:, 4:]).max(axis=1) > 1e-4),
        ("scales", np.abs(steps[:, 0] - 1) > 1e-4),
    )


def test_ten_thousand_steps_turn_shift_and_scale_half_of_the_time_each_and_independently(steps):
    assert len(steps) == 10_000
    which = dict(applied(steps))
    for name, is_applied in which.items():
        slack = SIGMAS * math.sqrt(CHANCE * (1 - CHANCE) / len(steps))
        assert abs(is_applied.mean() - CHANCE) < slack, (name, is_applied.mean())
    every = 4 * which["turns"] + 2 * which["shifts"] + which["scales"]
    assert stats.chisquare(np.bincount(every, minlength=8)).pvalue > LIKELY


@pytest.mark.parametrize("column", range(7))
def test_every_range_is_the_papers_and_filled_evenly(steps, column):
    which = [is_applied for _, is_applied in applied(steps)]
    used = steps[which[2] if column == 0 else which[0] if column < 4 else which[1], column]
    low, high = SCALE if column == 0 else (-TURN_DEG, TURN_DEG) if column < 4 else (-SHIFT, SHIFT)
    slack = 1e-3 * (high - low)
    assert low - slack <= used.min() < low + 0.01 * (high - low)
    assert high + slack >= used.max() > high - 0.01 * (high - low)
    if column == 0:  # what is nearer to 1 than 1e-4 counts as not applied
        slack = 2e-3
    assert stats.kstest((used - low) / (high - low), "uniform").statistic < 1.95 / math.sqrt(len(used)) + slack


def test_no_two_steps_are_alike(steps):
    which = dict(applied(steps))
    whole = steps[which["turns"] & which["shifts"] & which["scales"]]
    assert np.abs(np.corrcoef(whole.T) - np.eye(7)).max() < 0.15
    assert len(np.unique(whole.round(6), axis=0)) == len(whole)


def test_a_chain_is_the_twins_which_moves_the_points_themselves():
    for key in range(40):
        point = clouds(1, 50, key)[0]
        config = ViewsConfig(frames=6)
        pose = chain(point, config, rng(5, key))
        twin = naive.view_chain(point, rng(5, key).random((5, 10)), TURN_DEG, SHIFT, SCALE, CHANCE)
        assert np.abs(pose - twin).max() < 1e-8


@pytest.mark.parametrize("count", [1, 2, 2048])
def test_the_extent_of_turned_points_is_numpys(count):
    point, turn = rng(6, count).normal(size=(count, 3)), rng(7, count).normal(size=(4, 4))
    out = np.empty(3)
    kernels.turned_extent(point, turn, out)
    assert np.allclose(out, np.ptp(point @ turn[:3, :3].T, axis=0), rtol=1e-12, atol=1e-12)


def test_ranges_and_probabilities_are_settings(tmp_path):
    shapes = write_npz(tmp_path / "shapes", 20)
    settings = {"rotate_p": 0.0, "shift_p": 1.0, "shift": 0.5, "scale_min": 2.0, "scale_max": 2.0, "scale_p": 1.0}
    build(tmp_path / "built", shapes, frames=3, **settings)
    for sequence in gen4d.open_dataset(tmp_path / "built"):
        pose = sequence.actors[0].pose
        assert np.allclose(pose[1, :3, :3], 2 * np.eye(3)) and np.allclose(pose[2, :3, :3], 4 * np.eye(3))
        point = sequence.actors[0].cloud.point
        assert (np.abs(pose[1, :3, 3]) <= 0.5 * np.ptp(point, axis=0) + 1e-4).all()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("frames=1", "nothing to correspond"),
        ("rotate_p=1.1", "probability"),
        ("scale_min=2", "scale_max"),
        ("points=3", "10"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, rule):
    with pytest.raises(ConfigError, match=rule):
        override(make_config(ViewsConfig), (change,))


# Layouts


def write_modelnet_hdf5(folder, n=4, points=60):
    """ModelNet40 in HDF5: two files for training, one for testing, lists whose paths lead elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(("train0", "train1", "test0")):
        with h5py.File(folder / f"ply_data_{name}.h5", "w") as file:
            file.create_dataset("data", data=clouds(n, points, i), compression="gzip")
            file.create_dataset("label", data=(np.arange(n) % 3).astype(np.uint8)[:, None])
            file.create_dataset("normal", data=clouds(n, points))
    (folder / "shape_names.txt").write_text("airplane\nnight_stand\nchair\n")
    for part in ("train", "test"):
        lines = [f"data/modelnet40_ply_hdf5_2048/{path.name}\n" for path in sorted(folder.glob(f"*{part}*.h5"))]
        (folder / f"{part}_files.txt").write_text("".join(lines))
    return folder


def write_resampled(folder, points=80):
    """ModelNet40 in text: x,y,z,nx,ny,nz a line, classes from names with underscores, lists of names."""
    for name in ("chair_0001", "chair_0890", "night_stand_0001", "night_stand_0201"):
        rows = np.hstack([clouds(1, points, len(name))[0], rng(7).normal(size=(points, 3))])
        text = "\n".join(",".join(f"{value:.6f}" for value in row) for row in rows) + "\n"
        write(folder / name.rpartition("_")[0] / f"{name}.txt", text.encode())
    (folder / "modelnet40_train.txt").write_text("chair_0001\nnight_stand_0001\n")
    (folder / "modelnet40_test.txt").write_text("chair_0890\nnight_stand_0201\n")
    (folder / "modelnet40_shape_names.txt").write_text("chair\nnight_stand\n")
    return folder


def write_scanobjectnn(folder, n=5, points=60):
    for part in ("training", "test"):
        path = folder / "main_split" / f"{part}_objectdataset.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["data"], file["label"], file["mask"] = clouds(n, points), np.arange(n) + 4, np.zeros((n, points))
    return folder


def write_points_folder(folder):
    write(folder / "chair" / "a.ply", ply(clouds(1, 90)[0]))
    for name, save in (("b.npy", np.save), ("c.npz", np.savez)):
        (folder / "sofa").mkdir(parents=True, exist_ok=True)
        save(folder / "sofa" / name, clouds(1, 75, 4)[0])
    return folder


def write_mesh_folder(folder):
    meshes.write_shapes(folder)
    return folder


LAYOUTS = {
    "ModelNet40 in HDF5": (write_modelnet_hdf5, 8, {"airplane", "night_stand", "chair"}),
    "ModelNet40 in text": (write_resampled, 2, {"chair", "night_stand"}),
    "ScanObjectNN": (write_scanobjectnn, 5, {"chair", "desk", "display", "door", "shelf"}),
    "an archive of arrays": (write_npz, 6, {"chair", "night_stand", "sofa"}),
    "a folder of points": (write_points_folder, 3, {"chair", "sofa"}),
    "meshes in ModelNet's layout": (write_mesh_folder, 5, {"chair", "table", "night_stand"}),
    "a shape with joints": (lambda folder: write_cupboard(folder) and folder, 1, {"cabinet"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found_built_verified_and_its_classes_come_back(tmp_path, layout):
    writer, count, classes = LAYOUTS[layout]
    shapes = writer(tmp_path / "shapes")
    outcome = commands.gen4d(
        "build", "--kind", "views", "--shapes", str(shapes), "--set", "points=60", "--out", str(tmp_path / "built")
    )
    assert outcome.code == 0, outcome.text
    dataset = gen4d.open_dataset(tmp_path / "built")
    assert len(dataset) == count and list(gen4d.verify(dataset)) == [None]
    assert {sequence.class_name for sequence in dataset} == classes
    assert dataset.class_names == [sequence.class_name for sequence in dataset]
    assert f"{count} sequences" in outcome.out or count == 1
    told = commands.gen4d("inspect", str(tmp_path / "built")).out
    assert all(f"{name} " in told.split("classes: ")[1] for name in classes)
    described = json.loads((tmp_path / "built" / "shards" / "00000.json").read_bytes())["scans"][0]
    assert len(described["files"][0][2]) == 64 and described["class"] in classes


def test_points_are_those_of_the_file_upright(tmp_path):
    found = find_any_shapes(write_modelnet_hdf5(tmp_path / "a"))
    source = next(one for one in found.sources if one.name == "ply_data_train1_00002")
    point, file = load_points(source)
    assert np.allclose(point[:, [0, 2, 1]] * [1, 1, -1], clouds(4, 60, 1)[2]), "y is up there"
    assert (file.path, source.class_name) == ("ply_data_train1.h5", "chair")
    as_it_is, _ = load_points(source, "z")
    assert np.allclose(as_it_is, clouds(4, 60, 1)[2])
    text = next(one for one in find_any_shapes(write_resampled(tmp_path / "b")).sources)
    assert load_points(text)[0].shape == (80, 3)


def test_names_that_classes_share_are_told_apart(tmp_path):
    for class_name in ("chair", "sofa"):
        write(tmp_path / class_name / "0001.ply", ply(clouds(1, 90)[0]))
    assert [one.name for one in find_any_shapes(tmp_path).sources] == ["chair_0001", "sofa_0001"]


def test_parts_are_kept_apart(tmp_path):
    shapes = write_modelnet_hdf5(tmp_path / "shapes")
    assert {one.path for one in find_any_shapes(shapes, split="test").sources} == {"ply_data_test0.h5"}
    assert len(find_any_shapes(write_resampled(tmp_path / "text"), split="test").sources) == 2
    some = find_any_shapes(shapes, classes=("chair",))
    assert {one.class_name for one in some.sources} == {"chair"} and len(some.sources) == 2


def test_a_subset_of_a_larger_set_keeps_the_files_order_and_says_which(tmp_path):
    shapes = write_npz(tmp_path / "shapes", 3, 500)
    build(tmp_path / "built", shapes, points=100)
    for sequence in gen4d.open_dataset(tmp_path / "built"):
        vertex = sequence.actors[0].cloud.vertex
        assert len(vertex) == 100 and (np.diff(vertex) > 0).all() and vertex.max() > 300
    first, second = (s.actors[0].cloud.vertex for s in gen4d.open_dataset(tmp_path / "built")[:2])
    assert not np.array_equal(first, second)


def test_shapes_with_a_unit_keep_their_size(tmp_path):
    points = (clouds(2, 60) * 100).astype(np.int16)
    shapes = write_npz(tmp_path / "shapes", 2, point=points, label=np.array(["bed", "bed"]))
    build(tmp_path / "built", shapes, shape_units="mm")
    for sequence, source in zip(gen4d.open_dataset(tmp_path / "built"), points, strict=True):
        assert np.allclose(sequence.actors[0].cloud.point, source / 1000, atol=1e-6)
        assert sequence.movers[0].height_m == pytest.approx(np.ptp(source[:, 2]) / 1000)


def test_archives_are_read_alike_packed_or_not(tmp_path):
    one, other = write_npz(tmp_path / "a"), tmp_path / "b"
    other.mkdir()
    with np.load(one / "some.npz") as arrays:
        np.savez_compressed(other / "some.npz", **arrays)
    for first, second in zip(find_any_shapes(one).sources, find_any_shapes(other).sources, strict=True):
        assert np.array_equal(load_points(first)[0], load_points(second)[0])


def test_shapes_without_labels_have_a_class_that_says_so(tmp_path):
    (tmp_path / "shapes").mkdir()
    np.savez(tmp_path / "shapes" / "shapenet57448xyzonly.npz", data=clouds(3))
    build(tmp_path / "built", tmp_path / "shapes")
    assert gen4d.open_dataset(tmp_path / "built").class_names == ["unlabelled"] * 3


# Bad input


def damage_hdf5(folder):
    write_modelnet_hdf5(folder)
    path = folder / "ply_data_train1.h5"
    path.write_bytes(path.read_bytes()[:300])


def lose_a_file(folder):
    write_modelnet_hdf5(folder)
    (folder / "ply_data_train1.h5").unlink()


def other_array(folder):
    write_modelnet_hdf5(folder)
    with h5py.File(folder / "ply_data_train1.h5", "w") as file:
        file["cloud"] = clouds(3)


def flat_array(folder):
    write_modelnet_hdf5(folder)
    with h5py.File(folder / "ply_data_train1.h5", "w") as file:
        file["data"] = clouds(3)[0]


def linked_array(folder):
    write_modelnet_hdf5(folder)
    with h5py.File(folder / "ply_data_train1.h5", "w") as file:
        file["data"] = h5py.ExternalLink("/etc/passwd", "data")


def short_labels(folder):
    write_modelnet_hdf5(folder)
    with h5py.File(folder / "ply_data_train1.h5", "w") as file:
        file["data"], file["label"] = clouds(3), np.zeros(2, int)


def few_points(folder):
    write(folder / "chair" / "a.ply", ply(clouds(1, 90)[0]))
    write(folder / "chair" / "b.ply", ply(clouds(1, 20)[0]))


def no_numbers(folder):
    point = clouds(1, 90)[0]
    write(folder / "chair" / "a.ply", ply(point))
    point[5:50] = np.nan
    write(folder / "chair" / "b.ply", ply(point))


def one_place(folder):
    write(folder / "chair" / "a.ply", ply(clouds(1, 90)[0]))
    write(folder / "chair" / "b.ply", ply(np.ones((90, 3), np.float32)))


def broken_text(folder):
    write_resampled(folder)
    write(folder / "night_stand" / "night_stand_0001.txt", b"1,2,x\n")


BAD = {
    "ply_data_train1.h5: is damaged": damage_hdf5,
    "1 of 2 names are not in .*ply_data_train1": lose_a_file,
    "ply_data_train1.h5: has no array data, point, points": other_array,
    r"ply_data_train1.h5: has data of shape \(60, 3\)": flat_array,
    "ply_data_train1.h5: keeps data outside the file": linked_array,
    "ply_data_train1.h5: has 3 shapes and 2 labels": short_labels,
    "b.ply: has 20 finite points in it, 60 are asked for: --set points=20": few_points,
    "b.ply: has 45 finite points": no_numbers,
    "b.ply: has an extent of 0": one_place,
    "night_stand_0001.txt: ": broken_text,
}


@pytest.mark.parametrize("line", BAD)
def test_what_is_bad_costs_a_line_and_the_others_go_on(tmp_path, line):
    BAD[line](tmp_path / "shapes")
    outcome = commands.gen4d(
        "build",
        "--kind",
        "views",
        "--shapes",
        str(tmp_path / "shapes"),
        "--set",
        "points=60",
        "--out",
        str(tmp_path / "built"),
    )
    told = [text for text in outcome.err.splitlines() if text.startswith(("refused: ", "note: "))]
    assert any(re.search(line, text) for text in told), outcome.text
    assert outcome.code == (0 if "names are not in" in line else 1)
    dataset = gen4d.open_dataset(tmp_path / "built")
    assert len(dataset) >= 1 and list(gen4d.verify(dataset)) == [None]


@pytest.mark.parametrize(
    ("arrays", "rule"),
    [
        ({"point": clouds(2)[0]}, "n shapes of N points"),
        ({"point": clouds(2)[:, :, :2]}, "n shapes of N points"),
        ({"label": np.zeros(5, int)}, "6 shapes and 5 labels"),
        ({"point": np.array([["a"]] * 3)}, "n shapes of N points"),
    ],
)
def test_an_archive_that_holds_something_else_is_refused(tmp_path, arrays, rule):
    with pytest.raises(SourceError, match=rule):
        find_any_shapes(write_npz(tmp_path / "shapes", **arrays))


def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path):
    folder = write_npz(tmp_path / "shapes", 2)
    content = (folder / "some.npz").read_bytes()
    assert b"(2, 60, 3)" in content
    (folder / "some.npz").write_bytes(content.replace(b"(2, 60, 3)", b"(9, 60, 9)"))
    with pytest.raises(SourceError, match=r"save it again|damaged"):
        find_any_shapes(folder)
        build(tmp_path / "built", folder)


def test_a_class_that_is_not_there_is_named(tmp_path):
    shapes = write_npz(tmp_path / "shapes")
    with pytest.raises(SourceError, match="its classes are chair, night_stand, sofa"):
        find_any_shapes(shapes, ("piano",))
    assert "piano" in find_any_shapes(shapes, ("piano", "sofa")).warnings[0]


@pytest.mark.parametrize(("option", "value"), [("--scans", "."), ("--up", "z"), ("--units", "m"), ("--movers", "2")])
def test_options_of_other_kinds_are_refused(tmp_path, option, value):
    shapes = write_npz(tmp_path / "shapes")
    outcome = commands.gen4d(
        "build", "--kind", "views", "--shapes", str(shapes), option, value, "--out", str(tmp_path / "b")
    )
    assert outcome.code == 2 and option in outcome.err and not (tmp_path / "b").exists()


# However it is built


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "shards").iterdir())} | {
        "dataset.json": (folder / "dataset.json").read_bytes()
    }


def test_same_bytes_by_one_or_two_workers_in_parts_and_after_an_interruption(tmp_path):
    shapes = write_npz(tmp_path / "shapes", 12)
    settings = {"scans_per_shard": 4, "sequences": 2, "pairs": True}
    build(tmp_path / "one", shapes, **settings)
    build(tmp_path / "two", shapes, workers=2, **settings)
    for number in (2, 1):
        build(tmp_path / "parts", shapes, part=(number, 2), **settings)
    gen4d.merge(tmp_path / "parts")
    build(tmp_path / "resumed", shapes, **settings)
    for name in ("00001.json", "00002.zarr.zip"):
        (tmp_path / "resumed" / "shards" / name).unlink()
    (tmp_path / "resumed" / "dataset.json").unlink()
    build(tmp_path / "resumed", shapes, **settings)
    wanted = content_of(tmp_path / "one")
    assert [content_of(tmp_path / name) == wanted for name in ("two", "parts", "resumed")] == [True] * 3
    assert (
        content_of(tmp_path / "one")["00000.zarr.zip"]
        != content_of(build_other_seed(tmp_path, shapes, settings))["00000.zarr.zip"]
    )


def build_other_seed(tmp_path, shapes, settings):
    build(tmp_path / "seed", shapes, seed=1, **settings)
    return tmp_path / "seed"


def test_a_shapes_views_do_not_depend_on_the_others(tmp_path):
    shapes = write_npz(tmp_path / "shapes", 9)
    build(tmp_path / "all", shapes)
    build(tmp_path / "some", shapes, limit=2)
    every, some = gen4d.open_dataset(tmp_path / "all"), gen4d.open_dataset(tmp_path / "some")
    for sequence in some:
        assert np.array_equal(sequence.actors[0].pose, every[sequence.id].actors[0].pose)


def test_a_dry_run_says_what_it_would_take(tmp_path):
    shapes = write_npz(tmp_path / "shapes", 20)
    outcome = commands.gen4d(
        "build",
        "--kind",
        "views",
        "--shapes",
        str(shapes),
        "--set",
        "points=60",
        "--dry-run",
        "--out",
        str(tmp_path / "b"),
    )
    assert outcome.code == 0 and "sequences  20" in outcome.out and not (tmp_path / "b").exists()
    assert "of 20 shapes" in outcome.out and "scan" not in outcome.out


def test_the_doctor_reads_every_shape_and_says_all_at_once(tmp_path):
    shapes = tmp_path / "shapes"
    few_points(shapes)
    for name in ("c", "d"):
        write(shapes / "sofa" / f"{name}.ply", ply(clouds(1, 3000)[0]))
    outcome = commands.gen4d("doctor", "--kind", "views", "--shapes", str(shapes))
    assert outcome.code == 1
    assert "note: " in outcome.out and "classes: chair 2, sofa 2" in outcome.out
    assert "b.ply: has 20 finite points" in outcome.out and "a.ply: has 90 finite points" in outcome.out
    assert "sofa_c, sofa_d are the same: " in outcome.out
    assert "3000 to 3000 points each" in outcome.out and "2 shapes takes about" in outcome.out
    whole = commands.gen4d("doctor", "--kind", "views", "--shapes", str(write_npz(tmp_path / "npz", 5, 2048)))
    assert whole.code == 0 and "5 shapes" in whole.out, whole.out
    assert commands.gen4d("doctor", "--kind", "views", "--shapes", str(tmp_path / "none")).code == 1


@needs_shared_data
def test_eight_hundred_catalogue_models_are_built_in_metres(tmp_path):
    manifest = gen4d.build_dataset(
        shapes=SHARED / "furniture_points", out=tmp_path / "built", kind="views", shape_units="mm"
    ).manifest
    dataset = gen4d.open_dataset(tmp_path / "built")
    assert len(dataset) == 820 and len(set(dataset.class_names)) == 15
    assert manifest["totals"]["bytes"] < 24e6
    with np.load(SHARED / "furniture_points" / "points2048_mm.npz") as arrays:
        for row in (0, 400, 819):
            sequence = dataset[f"points2048_mm_{row:05d}/000"]
            assert np.allclose(sequence[0].point, arrays["point"][row] / 1000, atol=1e-6)
            assert sequence.class_name == str(arrays["label"][row])
