"""Shards: what is written is what is read, by this reader and by zarr, in any process and any number of threads."""

import concurrent.futures
import contextlib
import gc
import itertools
import multiprocessing
import pathlib
import pickle
import re
import shutil
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gen4d import shards, write_dataset
from gen4d.exports import hdf5
from gen4d.moving.shape import shape_pose
from gen4d.sequence import ROLE_MOVING, Cloud, FloorPlan, Mover, Recording, Sequence, frame_pairs, make_actor
from gen4d.shards import dataset as dataset_module
from gen4d.shards import verify, zarr_reader
from gen4d.shards.format import ARRAYS
from gen4d.shards.tables import StoredCloud, Tables
from gen4d.shards.zarr_writer import shard_bytes
from tests import laws
from tests.equal import assert_same_cloud, assert_same_sequence
from tests.makers.builds import small_build

_ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return small_build(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def copy(built, tmp_path):
    return pathlib.Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture(scope="module")
def exported(built, tmp_path_factory):
    out = tmp_path_factory.mktemp("hdf5") / "exported"
    assert list(hdf5.export_hdf5(shards.open_dataset(built), out)) == [0, 1]
    return out


# Read


def test_the_reader_gives_what_zarr_gives_bit_for_bit(built):
    dataset, number = shards.open_dataset(built), 0
    for path in sorted((built / "shards").glob("*.zip")):
        shard = laws.read_shard(path)
        table = shard.table
        for row in range(len(table["sequence/k"])):
            sequence, number = dataset[number], number + 1
            assert sequence.id == f"{shard.scans[table['sequence/scan'][row]]}/{table['sequence/k'][row]:03d}"
            assert sequence.shape == shard.shapes[table["sequence/shape"][row]]
            assert sequence.class_name == shard.classes[table["sequence/class"][row]]
            for actor, mine in zip(range(*table["actor/start"][row : row + 2]), sequence.actors, strict=True):
                rows = laws.cloud_rows(shard, int(table["actor/cloud"][actor]))
                columns = [table[f"cloud/{name}"][rows] for name in shards.Cloud.columns]
                columns = [None if name in (2, 3) and (c < 0).all() else c for name, c in enumerate(columns)]
                assert_same_cloud(mine.cloud, shards.Cloud(*columns))
                assert mine.pose.tobytes() == table["actor/pose"][actor].tobytes()
                assert mine.role == table["actor/role"][actor]
                mask = laws.mask_of(shard, actor, sequence.id)
                assert_array_equal([mine.mask(frame) for frame in range(sequence.t)], mask)
    assert number == len(dataset) == 9


def test_every_array_of_a_shard_is_the_formats(built):
    table = laws.read_shard(built / "shards" / "00000.zarr.zip").table
    other = ("mover/", "actor/mover", "view/", "sequence/match_m")  # of several movers, and of frames and sweeps
    assert table.keys() == {name for name in ARRAYS if not name.startswith(other)}
    for name in table:
        spec = ARRAYS[name]
        row = tuple(4 if size == "frames" else size for size in spec.row)
        assert table[name].dtype == np.dtype(spec.dtype) and table[name].shape[1:] == row, name


@pytest.mark.parametrize("kind", ["zarr", "h5py"])
def test_the_recipe_of_the_format_page_gives_the_readers_frames_and_pairs(built, exported, kind):
    page = (_ROOT / "docs" / "format.md").read_text()
    recipe = re.search(r"<!-- recipe -->\n```python\n(.*?)```", page, re.DOTALL)[1]
    assert len(recipe.strip().splitlines()) < 25 and "gen4d" not in re.sub(r"#.*", "", recipe)
    there = {"path": built / "shards" / "00000.zarr.zip"}
    if kind == "h5py":  # the same lines, with the file opened otherwise
        recipe = re.sub(r"^g = .*$", "import h5py; g = h5py.File(path)", recipe, flags=re.MULTILINE)
        there = {"path": exported / "shards" / "00000.h5"}
    dataset = shards.open_dataset(built)
    for row in (0, 5):
        there["s"] = row
        exec(recipe, there)
        for number, (point, identity) in enumerate(there["frames"]):
            frame = dataset[row].frame(number)
            assert_allclose(point, frame.point, atol=1e-5)
            assert_array_equal(identity, np.stack([frame.actor, frame.point_index], axis=1))
        for i, j in frame_pairs(4):
            assert_array_equal(np.array(there["pairs"](i, j)), np.array(dataset[row].correspondences(i, j)))


def test_frames_carry_labels_and_poses_and_stored_pairs_are_the_readers(built):
    dataset = shards.open_dataset(built)
    shard = laws.read_shard(built / "shards" / "00000.zarr.zip")
    for row in range(6):
        sequence = dataset[row]
        scan, shape = sequence.actors
        for number, frame in enumerate(sequence.frames):
            kept = [np.flatnonzero(actor.mask(number)) for actor in sequence.actors]
            assert_array_equal(frame.point_index, np.concatenate(kept))
            assert_array_equal(frame.label, np.r_[scan.cloud.label[kept[0]], np.full(len(kept[1]), -1)])
            assert frame.point[: len(kept[0])].tobytes() == scan.cloud.point[kept[0]].tobytes()
            pose = shape.pose[number].astype(np.float64)
            assert_allclose(
                frame.point[len(kept[0]) :], shape.cloud.point[kept[1]] @ pose[:3, :3].T + pose[:3, 3], atol=1e-6
            )
        for number, (i, j) in enumerate(frame_pairs(4)):
            stored = laws.stored_pairs(shard, 6 * row + number)
            assert_array_equal(np.array(stored), np.array(sequence.correspondences(i, j)))


def test_sequences_are_found_by_number_and_by_id(built):
    dataset = shards.open_dataset(built)
    assert dataset.ids == [f"room{scan:03d}/{k:03d}" for scan in range(3) for k in range(3)]
    assert dataset.scan_names == ["room000", "room001", "room002"]
    assert [dataset.scan_of(i) for i in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [sequence.id for sequence in dataset] == dataset.ids
    assert dataset[-1].id == dataset[8].id == "room002/002" and dataset.find("room002/001") == 7
    for number in (9, -10, 10**9):
        with pytest.raises(IndexError, match=f"sequence {number} of a data set of 9"):
            dataset[number]
    for id in ("room002/003", "room9/000", "room002", "", "room002/x"):
        with pytest.raises(KeyError):
            dataset.find(id)


def test_the_floor_plan_of_a_sequence_is_the_stored_one(built):
    dataset = shards.open_dataset(built)
    for i, (path, scan) in {2: ("00000", 0), 3: ("00000", 1), 8: ("00001", 0)}.items():
        shard = laws.read_shard(built / "shards" / f"{path}.zarr.zip")
        valid, origin = laws.plan_of(shard, scan)
        plan = dataset.floor_plan(i)
        assert_array_equal(plan.valid, valid)
        assert_array_equal(plan.origin, origin)
        assert plan.floor_m == shard.table["scan/floor_m"][scan] and plan.cell_m == 0.1
        assert dataset[i].movers[0].radius_m == shard.table["sequence/radius_m"][i % 6]


@contextlib.contextmanager
def scratch(content: bytes):
    """A shard of some content on disk, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "00000.zarr.zip"
        path.write_bytes(content)
        yield path


def test_clouds_cannot_be_changed_through_a_sequence():
    """A caller that moves points in place would change the scan for every later sequence."""
    with scratch(shard_bytes(drawn_recordings(0, 2, [(40_000, [9], True)]), 2, {}, False)) as path:
        for actor in Tables(path).sequence(0, Tables(path).cloud).actors:
            for array in (actor.cloud.point, actor.cloud.vertex, actor.cloud.label):
                assert array is None or not array.flags.writeable


def test_a_reader_of_many_scans_keeps_few_clouds_and_files(tmp_path):
    """Clouds of real scans take 3 MB each: 64 of them are kept for a loader that shuffles, and 128 shards open."""
    recordings = []
    for number in range(150):
        cloud, name = Cloud(np.full((64, 3), number, np.float32)), f"scan{number:03d}"
        actor = make_actor(cloud, np.ones((2, 64), bool))
        recordings.append(Recording(name, tuple(Sequence(name, k, (actor,)) for k in range(2)), cloud))
    dataset = write_dataset(recordings, tmp_path / "data", scans_per_shard=1)
    for turn in range(2):
        for number in range(turn, len(dataset), 2):
            assert dataset[number].actors[0].cloud.point[0, 0] == number // 2
    gc.collect()
    clouds = [thing for thing in gc.get_objects() if isinstance(thing, StoredCloud) and len(thing) == 64]
    assert 32 <= len(clouds) <= 64
    opened = [path.resolve() for path in pathlib.Path("/proc/self/fd").iterdir()]
    assert 0 < sum(path.is_relative_to(tmp_path) for path in opened) <= 128


def test_small_caches_give_the_same_sequences(built, monkeypatch):
    order = [8, 0, 3, 8, 1, 6, 0, 4]
    plenty = shards.open_dataset(built)
    expected = [plenty[i] for i in order]
    monkeypatch.setattr(zarr_reader, "_CACHED_BYTES", 1)
    for name in ("_OPEN_SHARDS", "_CACHED_CLOUDS"):
        monkeypatch.setattr(dataset_module, name, 1)
    poor = shards.open_dataset(built)
    read = [poor[i] for i in order]
    assert len(poor._tables) == len(poor._clouds) == 1
    for mine, sequence in zip(read, expected, strict=True):  # columns of clouds whose shard was closed meanwhile
        assert_same_sequence(mine, sequence)
        assert_same_sequence(pickle.loads(pickle.dumps(mine)), sequence)


def test_labels_and_vertices_are_read_when_they_are_asked_for_and_checked_then(copy):
    path = copy / "shards" / "00000.zarr.zip"
    content = bytearray(path.read_bytes())
    for name in ("label", "vertex"):
        place = zarr_reader.read_directory(path)[f"cloud/{name}/c/0"]
        content[place.offset + len(place.header) + place.size // 2] ^= 1
    path.write_bytes(content)
    cloud = shards.open_dataset(copy)[0].actors[0].cloud
    assert len(cloud.point) > 1000 and cloud.instance is None
    for name in ("label", "vertex"):
        with pytest.raises(shards.FormatError, match=rf"cloud/{name}/c/0 fails its crc32c"):
            getattr(cloud, name)


# Written, in all sizes


def drawn_recordings(key, frames, sizes):
    """Scans of some points and sequences, with everything there may be: no points, no labels, no sequences."""
    rng, recordings = np.random.default_rng(key), []
    for number, (points, shape_sizes, labelled) in enumerate(sizes):
        label = rng.integers(0, 40, points).astype(np.int32) if labelled and points else None
        instance = None if label is None else label[::-1].copy()
        cloud = Cloud(rng.random((points, 3)), rng.permutation(points), label, instance)
        sequences = []
        for k, count in enumerate(shape_sizes):
            masks = [rng.random((frames, n)) < 0.7 for n in (points, count)]
            pose = shape_pose(rng.random((frames, 2)), rng.random(frames), -1.0)
            mover = Mover(f"chair_{k % 2:04d}", ("chair", "table")[k % 2], 0.9, 1.0, 0.4)
            shape = make_actor(Cloud(rng.random((count, 3))), masks[1], pose, ROLE_MOVING, mover=0)
            actors = (make_actor(cloud, masks[0]), shape)
            sequences.append(Sequence(f"scan{number}", 3 * k, actors, (mover,), attempt=k % 2))
        valid = rng.random((number + 1, 3)) < 0.5
        recordings.append(
            Recording(
                name=f"scan{number}",
                cloud=cloud,
                label_space="nyu40" if labelled else "",
                floor=FloorPlan(valid, np.array([-number, 7], np.int32), -1.25, 0.1),
                free_m=0.15,
                transform=np.eye(4),
                axis_alignment=np.eye(4) * 2 if labelled else None,
                source_points=points + 3,
                dropped=number,
                sequences=tuple(sequences),
            )
        )
    return tuple(recordings)


SIZES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 7, 8, 9, 300]), st.lists(st.sampled_from([0, 1, 8, 17]), max_size=3), st.booleans()
    ),
    max_size=3,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(key=st.integers(0, 2**32), frames=st.integers(2, 8), sizes=SIZES, pairs=st.booleans())
def test_recordings_of_any_size_come_back_as_they_were_written(key, frames, sizes, pairs):
    recordings = drawn_recordings(key, frames, sizes)
    content = shard_bytes(recordings, frames, {"frames": frames}, pairs)
    assert content == shard_bytes(recordings, frames, {"frames": frames}, pairs)
    with scratch(content) as path:
        tables = Tables(path)
        scans = [[recording.name, len(recording)] for recording in recordings]
        verify.check_tables(tables, scans)
        read, table = itertools.count(), laws.read_shard(path).table
        for number, recording in enumerate(recordings):
            for written in recording:
                assert_same_sequence(tables.sequence(next(read)), written)
            plan = tables.floor_plan(number, 0.1)
            assert_array_equal(plan.valid, recording.floor.valid)
            assert (plan.floor_m, *plan.origin) == (-1.25, -number, 7)
        assert next(read) == len(table["sequence/k"])
        for name, array in tables.shard.arrays.items():
            mine = tables.shard.read(name, 0, array.shape[0])
            assert mine.tobytes() == table[name].tobytes() and mine.shape == table[name].shape
        assert ("pair/start" in table) == pairs


# Processes and threads


def fingerprint(dataset, i):
    return [actor.planes.tobytes() + actor.cloud.point.tobytes() for actor in dataset[i].actors]


_FORKED = {}


def read_in_child(i):
    return fingerprint(_FORKED["dataset"], i)


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_a_data_set_that_was_read_may_be_forked(built, exported, kind):
    """A child that shared its parent's file position would read garbage."""
    dataset = shards.open_dataset(built if kind == "zarr" else exported)
    expected = [fingerprint(dataset, i) for i in range(9)]
    _FORKED["dataset"] = dataset
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
        assert list(pool.map(read_in_child, [*range(9)] * 4)) == expected * 4
        assert [fingerprint(dataset, i) for i in range(9)] == expected


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_a_data_set_is_pickled_without_its_open_files_and_caches(built, exported, kind):
    dataset = shards.open_dataset(built if kind == "zarr" else exported)
    expected = fingerprint(dataset, 4)
    packed = pickle.dumps(dataset)
    assert len(packed) < 20_000
    again = pickle.loads(packed)
    assert (again.digest, again.ids, len(again)) == (dataset.digest, dataset.ids, 9)
    assert fingerprint(again, 4) == expected


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_threads_may_share_a_data_set(built, exported, kind, monkeypatch):
    monkeypatch.setattr(zarr_reader, "_CACHED_BYTES", 20_000)
    monkeypatch.setattr(dataset_module, "_CACHED_CLOUDS", 1)
    folder = built if kind == "zarr" else exported
    expected = [fingerprint(shards.open_dataset(folder), i) for i in range(9)]
    dataset = shards.open_dataset(folder)
    order = np.random.default_rng(70).integers(0, 9, 120).tolist()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda i: fingerprint(dataset, i), order)) == [expected[i] for i in order]


def test_files_are_closed_and_opened_again(built):
    dataset = shards.open_dataset(built)
    before = fingerprint(dataset, 0)
    dataset._tables(0).shard.close()
    dataset._clouds._values.clear()
    assert fingerprint(dataset, 0) == before
