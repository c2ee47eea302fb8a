"""What other projects call: gen4d.generate, open_dataset, build_dataset and write_dataset."""

import math
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gen4d
from gen4d import sources
from gen4d.building import BuildError
from gen4d.sequence import SequenceError
from gen4d.shards import FormatError
from gen4d.shards.tables import StoredCloud
from tests.equal import assert_same_sequence, files_of
from tests.makers import commands
from tests.makers.meshes import box, write_shapes
from tests.makers.rooms import write_furnished

SETTINGS = {"sequences": 3, "scans_per_shard": 2, "seed": 5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    return write_furnished(folder / "scans", 3, 5000), write_shapes(folder / "shapes")


@pytest.fixture(scope="module")
def built(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "data"
    gen4d.build_dataset(*folders, out, **SETTINGS)
    return out


def meshes_of(folder: pathlib.Path) -> dict:
    """The shapes of a folder as the arrays that `generate` takes."""
    meshes: dict = {}
    for source in sources.find_shapes(folder).sources:
        mesh = sources.load_shape(source)
        meshes.setdefault(source.class_name, {})[source.name] = (mesh.vertex, mesh.face)
    return meshes


# In memory


def test_generate_gives_the_sequences_of_a_build_of_the_same_name_and_seed(folders, built):
    dataset, meshes = gen4d.open_dataset(built), meshes_of(folders[1])
    for number, source in enumerate(sources.find_scans(folders[0]).sources):
        scan = sources.load_scan(source, sources.Orientation())
        recording = gen4d.generate(scan.point, meshes, name=scan.name, labels=scan.label, sequences=3, seed=5)
        assert len(recording) == 3
        for mine, read in zip(recording, dataset[3 * number : 3 * number + 3], strict=True):
            assert_same_sequence(mine, read)


def test_generate_takes_lists_of_meshes_other_axes_and_units(folders):
    point = sources.load_scan(sources.find_scans(folders[0]).sources[0], sources.Orientation()).point
    meshes = {"robot": [mesh for mesh in meshes_of(folders[1])["chair"].values()]}
    options = {"heights": {"robot": (0.5, 0.6)}, "sequences": 2}
    upright = gen4d.generate(point, meshes, **options)
    lying = gen4d.generate(
        point[:, [2, 0, 1]].astype(np.float64) * 100, meshes, up="x", metres_per_unit=0.01, **options
    )
    assert len(upright) == len(lying) == 2
    heights = [mover.height_m for sequence in upright for mover in sequence.movers]
    assert all(0.25 <= height <= 0.6 for height in heights) and upright[0].class_name == "robot"
    for one, other in zip(upright, lying, strict=True):
        assert one.actors[1].cloud.point.tobytes() == other.actors[1].cloud.point.tobytes()
        assert abs(len(one.actors[0].cloud) - len(other.actors[0].cloud)) < 0.01 * len(one.actors[0].cloud)


BOX = box((0, 0, 0), (1, 1, 2))
FLOOR = np.random.default_rng(0).uniform((0, 0, 0), (4, 4, 0.01), (4000, 3))


@pytest.mark.parametrize(
    ("points", "shapes", "options", "part"),
    [
        (FLOOR[:, :2], {"chair": [BOX]}, {}, "(4000, 2)"),
        ("hello", {"chair": [BOX]}, {}, "points"),
        (np.where(FLOOR > 3.9, np.nan, FLOOR), {"chair": [BOX]}, {}, "NaN"),
        (FLOOR[:50], {"chair": [BOX]}, {}, "at least 100"),
        (FLOOR * 1e9, {"chair": [BOX]}, {}, "infinity"),
        (FLOOR, {}, {}, "shapes"),
        (FLOOR, {"chair": [BOX], "table": []}, {}, "table"),
        (FLOOR, [BOX], {}, "list"),
        (FLOOR, {"chair": [BOX[0]]}, {}, "chair_0000"),
        (FLOOR, {"chair": [(BOX[0][:0], BOX[1])]}, {}, "(0, 3)"),
        (FLOOR, {"chair": [(BOX[0] + np.inf, BOX[1])]}, {}, "infinity"),
        (FLOOR, {"chair": [(BOX[0], BOX[1] + 9)]}, {}, "face indices"),
        (FLOOR, {"chair": [(BOX[0], BOX[1] * 1.0)]}, {}, "float64"),
        (FLOOR, {"chair": [(BOX[0], BOX[1][:0])]}, {}, "(0, 3)"),
        (FLOOR, {"chair": [(BOX[0] * [1, 1, 0], BOX[1])]}, {}, "height"),
        (FLOOR, {"chair": [(BOX[0] * [0, 0, 1], BOX[1])]}, {}, "area"),
        (FLOOR, {"gnome": [BOX]}, {}, "'gnome'"),
        (FLOOR, {"gnome": [BOX]}, {"heights": {"gnome": (2, 1)}}, "height_m"),
        (FLOOR, {"gnome": [BOX]}, {"heights": {"gnome": "tall"}}, "'tall'"),
        (FLOOR, {"chair": [BOX]}, {"frames": 1}, "frames = 1"),
        (FLOOR, {"chair": [BOX]}, {"sequences": 2.5}, "sequences = 2.5"),
        (FLOOR, {"chair": [BOX]}, {"keep": True}, "keep = True"),
        (FLOOR, {"chair": [BOX]}, {"sequnces": 3}, "did you mean sequences"),
        (FLOOR, {"chair": [BOX]}, {"up": "sideways"}, "sideways"),
        (FLOOR, {"chair": [BOX]}, {"labels": np.zeros(7, int)}, "labels"),
        (FLOOR, {"chair": [BOX]}, {"labels": np.zeros(4000)}, "float64"),
        (FLOOR, {"chair": [BOX]}, {"instances": np.full(4000, 2**40)}, "instances"),
        (FLOOR, {"chair": [BOX]}, {"keep": 0.5}, "keep = 0.5"),
    ],
)
def test_what_generate_cannot_use_is_a_value_error_of_ours_that_names_it(points, shapes, options, part):
    with pytest.raises(ValueError) as error:
        gen4d.generate(points, shapes, **options)
    assert part in str(error.value) and type(error.value) is not ValueError
    assert type(error.value).__module__.startswith("gen4d.")


# Built


def test_build_dataset_writes_what_the_command_writes(folders, built, tmp_path):
    options = ("--sequences", "3", "--seed", "5", "--set", "scans_per_shard=2")
    scans, shapes = folders
    outcome = commands.gen4d("build", "--scans", scans, "--shapes", shapes, "--out", tmp_path / "out", *options)
    assert outcome.code == 0, outcome.text
    assert files_of(tmp_path / "out") == files_of(built)


def test_progress_tells_the_stages_and_ends_with_all_scans(folders, tmp_path):
    seen, notes = [], []
    done = gen4d.build_dataset(*folders, tmp_path / "out", note=notes.append, progress=seen.append, **SETTINGS)
    assert seen[0] == gen4d.Progress("planned", 0, 3, 0, 2, 0) and seen[-1] == seen[0]._replace(
        stage="building", scans=3, sequences=9
    )
    assert done.shards == 2 and done.manifest["totals"]["sequences"] == 9 and not done.refused
    assert any("no shape of the class" in line for line in notes)
    again = []
    gen4d.build_dataset(*folders, tmp_path / "out", progress=again.append, **SETTINGS)
    assert again == [gen4d.Progress("planned", 0, 0, 0, 0, 2)]


def test_parts_and_their_merge_make_the_bytes_of_one_build(folders, built, tmp_path):
    for number in (2, 1):
        done = gen4d.build_dataset(*folders, tmp_path / "out", part=(number, 2), **SETTINGS)
        assert done.manifest is None and len(done.sidecars) == 1 and done.shards == 2
    gen4d.merge(tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(built)


def test_a_build_that_is_refused_leaves_no_file(folders, tmp_path):
    with pytest.raises(ValueError, match="'dance'"):
        gen4d.build_dataset(*folders, tmp_path / "out", dance=3)
    with pytest.raises(sources.SourceError):
        gen4d.build_dataset(folders[0], tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="part"):
        gen4d.build_dataset(*folders, tmp_path / "out", part=(3, 2))
    assert not (tmp_path / "out").exists()


# Read


def test_a_data_set_is_a_sequence_of_sequences(built):
    dataset = gen4d.open_dataset(str(built))
    assert len(dataset) == 9 and len(list(dataset)) == 9 and len(dataset[0]) == 4
    assert [one.id for one in dataset[2:8:3]] == ["room000/002", "room001/002"]
    assert dataset[-1].id == dataset["room002/002"].id == dataset[np.int64(8)].id
    assert "9" in repr(dataset) and str(built) in repr(dataset)
    for number in (9, -10):
        with pytest.raises(IndexError, match=f"{number} of a data set of 9"):
            dataset[number]
    for id, part in {"room002/007": "000, 001, 002", "room02/000": "room002", "x": "room0"}.items():
        with pytest.raises(KeyError) as error:
            dataset[id]
        assert part in str(error.value) and id in str(error.value)


def test_a_sequence_is_a_sequence_of_frames(built):
    sequence = gen4d.open_dataset(built)[4]
    assert len(sequence) == len(list(sequence)) == 4
    for i, frame in enumerate(sequence):
        assert_array_equal(frame.point, sequence[i].point)
        assert_array_equal(frame.point, sequence.frame(i - 4).point)
    for part in (sequence.id, sequence.shape, sequence.class_name, "4 frames"):
        assert part in repr(sequence)
    for number in (4, -5):
        with pytest.raises(IndexError, match=f"frame {number} of room001/001, which has the frames 0 to 3"):
            sequence[number]
        with pytest.raises(IndexError, match=f"frame {number}"):
            sequence.correspondences(0, number)


def test_plain_arrays_hold_everything_and_are_ready_for_numpy(built, tmp_path):
    sequence = gen4d.open_dataset(built)[0]
    np.savez(tmp_path / "sequence.npz", **sequence.arrays())
    with np.load(tmp_path / "sequence.npz", allow_pickle=False) as stored:
        assert len(stored.files) == 4 * 4 + 6  # point, actor, index and label of 4 frames; 6 lists of pairs
        for i, frame in enumerate(sequence):
            for name, column in (("point", frame.point), ("actor", frame.actor), ("index", frame.point_index)):
                assert_array_equal(stored[f"{name}_{i}"], column)
            assert_array_equal(stored[f"label_{i}"], frame.label)
        first, second = sequence.correspondences(1, 3)
        assert_array_equal(stored["pairs_1_3"], np.stack([first, second], axis=1))


def test_a_sequence_takes_only_what_was_read_to_another_process(built):
    sequence = gen4d.open_dataset(built)[0]
    scan = sequence.actors[0].cloud
    sent = pickle.dumps(sequence)
    sizes = sum(actor.cloud.point.nbytes + actor.planes.nbytes + actor.pose.nbytes for actor in sequence.actors)
    assert len(sent) < sizes + 4000, "columns that nobody asked for are sent"
    label = scan.label
    assert len(pickle.dumps(sequence)) > len(sent) + 0.9 * label.nbytes, "a column that was read is read again"
    received = pickle.loads(sent)
    assert isinstance(received.actors[0].cloud, StoredCloud)
    assert_array_equal(received.actors[0].cloud.label, label)
    assert_array_equal(received.actors[0].cloud.vertex, scan.vertex)
    assert_same_sequence(pickle.loads(pickle.dumps(received)), sequence)


def test_a_column_of_a_data_set_that_was_replaced_meanwhile_is_refused(folders, tmp_path):
    gen4d.build_dataset(*folders, tmp_path / "data", **SETTINGS)
    sent = pickle.dumps(gen4d.open_dataset(tmp_path / "data")[0])
    (tmp_path / "data").rename(tmp_path / "old")
    gen4d.build_dataset(*folders, tmp_path / "data", **SETTINGS | {"seed": 6})
    received = pickle.loads(sent)
    with pytest.raises(FormatError, match="another data set"):
        received.actors[0].cloud.label  # noqa: B018


# Written


def test_sequences_in_memory_are_written_and_read_back(folders, built, tmp_path):
    meshes = meshes_of(folders[1])
    scans = [sources.load_scan(one, sources.Orientation()) for one in sources.find_scans(folders[0]).sources]
    recordings = (gen4d.generate(s.point, meshes, name=s.name, labels=s.label, sequences=3, seed=5) for s in scans)
    dataset = gen4d.write_dataset(recordings, tmp_path / "data", config={"by": "me"}, scans_per_shard=2)
    for mine, theirs in zip(dataset, gen4d.open_dataset(built), strict=True):
        assert_same_sequence(mine, theirs)
    assert dataset.config == {"cell_m": 0.1, "by": "me"} and len(dataset.manifest["shards"]) == 2
    assert_array_equal(dataset.floor_plan(8).valid, gen4d.open_dataset(built).floor_plan(8).valid)
    assert commands.gen4d("verify", tmp_path / "data").code == 0
    assert commands.gen4d("inspect", tmp_path / "data").code == 0


def recording(name: str, **settings) -> gen4d.Recording:
    return gen4d.generate(FLOOR, {"chair": [BOX]}, name=name, sequences=1, **settings)


@pytest.mark.parametrize(
    ("recordings", "part"),
    [
        (lambda: [], "empty"),
        (lambda: [recording("a"), recording("a")], "'a'"),
        (lambda: [recording("a"), recording("b", frames=3)], "3 frames"),
        (lambda: [recording("a"), recording("b", cell_m=0.2)], "cells"),
        (lambda: [recording("a")[0]], "Sequence"),
        (lambda: [gen4d.Recording("", ())], "name"),
        (lambda: [gen4d.Recording("bare", ()), recording("a")], "hold no sequence"),
    ],
)
def test_recordings_that_cannot_be_one_data_set_leave_an_empty_folder(tmp_path, recordings, part):
    with pytest.raises(ValueError) as error:
        gen4d.write_dataset(recordings(), tmp_path / "data", scans_per_shard=1)
    assert part in str(error.value) and type(error.value).__module__.startswith("gen4d.")
    assert not list((tmp_path / "data").rglob("*"))


def test_a_generator_that_fails_half_way_leaves_an_empty_folder(tmp_path):
    def recordings():
        yield recording("a")
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        gen4d.write_dataset(recordings(), tmp_path / "data", scans_per_shard=1)
    assert not list((tmp_path / "data").rglob("*"))

    def reading():
        yield recording("a")
        open(tmp_path / "mine.ply")

    with pytest.raises(FileNotFoundError, match=r"mine\.ply"):
        gen4d.write_dataset(reading(), tmp_path / "data", scans_per_shard=1)
    assert not list((tmp_path / "data").rglob("*"))
    assert len(gen4d.write_dataset([recording("a")], tmp_path / "data")) == 1


@pytest.mark.parametrize(
    ("given", "part"),
    [({"scans_per_shard": 0}, "scans_per_shard = 0: at least 1"), ({"config": {"lr": math.nan}}, "config: "),
     ({"config": {"lr": np.float32(1)}}, "config: ")],
)  # fmt: skip
def test_arguments_that_cannot_be_are_named_before_anything_is_written(given, part, tmp_path):
    with pytest.raises(SequenceError, match=part):
        gen4d.write_dataset([recording("a")], tmp_path / "data", **given)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_holds_something_is_left_as_it_is(built, tmp_path):
    before = files_of(built)
    with pytest.raises(BuildError, match=r"build\.json"):
        gen4d.write_dataset([recording("a")], built)
    assert files_of(built) == before
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BuildError, match=r"thesis\.tex"):
        gen4d.write_dataset([recording("a")], tmp_path)


def test_what_a_killed_write_left_is_written_anew(tmp_path):
    gen4d.write_dataset([recording("a"), recording("b")], tmp_path / "data", scans_per_shard=1)
    (tmp_path / "data" / "dataset.json").unlink()
    dataset = gen4d.write_dataset([recording("c")], tmp_path / "data")
    assert dataset.scan_names == ["c"] and list(gen4d.verify(dataset)) == [None]


# Around it


def test_importing_gen4d_loads_nothing_heavy():
    code = "import sys, gen4d; assert not {'numpy', 'numba', 'click', 'scipy', 'zarr'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    heavy = "{'scipy.ndimage', 'zarr', 'h5py', 'trimesh'}"
    code = f"import sys, gen4d; gen4d.open_dataset; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "gen4d", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["gen4d,", "version", gen4d.__version__]


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="open_datset"):
        gen4d.open_datset  # noqa: B018
    assert {"open_dataset", "generate", "build_dataset", "write_dataset"} <= set(dir(gen4d))
