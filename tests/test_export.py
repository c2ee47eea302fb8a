"""Exported data sets: the same sequences through the same reader and through h5py alone; foreign HDF5 is refused."""

import json
import pathlib
import shutil

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gen4d import shards
from gen4d.exports import hdf5
from gen4d.sequence import frame_pairs
from gen4d.shards import verify
from gen4d.shards.format import FormatError
from gen4d.shards.tables import open_shard
from tests import laws
from tests.equal import assert_same_sequence, files_of
from tests.makers.builds import make_inputs, run_build, small_build
from tests.makers.meshes import write_shapes
from tests.makers.rooms import write_furnished, write_scan


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


# HDF5


def test_an_export_holds_the_same_sequences_and_is_whole(built, exported):
    one, other = shards.open_dataset(built), shards.open_dataset(exported)
    assert one.ids == other.ids and one.config == other.config and one.digest != other.digest
    for a, b in zip(one, other, strict=True):
        assert_same_sequence(a, b)
    assert list(verify.verify(other)) == [None, None]
    assert other.floor_plan(3).valid.tobytes() == one.floor_plan(3).valid.tobytes()


def test_h5py_alone_reads_what_zarr_reads(built, exported):
    for number in range(2):
        table = laws.read_shard(built / "shards" / f"{number:05d}.zarr.zip").table
        with h5py.File(exported / "shards" / f"{number:05d}.h5", "r") as file:
            names = []
            file.visititems(lambda name, item, names=names: names.append(name) if hasattr(item, "dtype") else None)
            assert set(names) == table.keys() | {"attributes"}
            for name, array in table.items():
                assert file[name][:].tobytes() == array.tobytes() and file[name].fletcher32
            assert (
                json.loads(bytes(file["attributes"][()]))["scans"]
                == laws.read_shard(built / "shards" / f"{number:05d}.zarr.zip").scans
            )


def test_an_export_can_add_pairs_and_gives_the_same_bytes_each_time(tmp_path):
    scans, shapes = write_furnished(tmp_path / "scans", 1, 2500), write_shapes(tmp_path / "shapes")
    run_build(tmp_path / "built", make_inputs(scans, shapes, sequences=2))
    dataset = shards.open_dataset(tmp_path / "built")
    for name in ("one", "two"):
        list(hdf5.export_hdf5(dataset, tmp_path / name, pairs=True))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert list(verify.verify(shards.open_dataset(tmp_path / "one"))) == [None]
    with h5py.File(tmp_path / "one" / "shards" / "00000.h5", "r") as file:
        start = file["pair/start"][:].tolist()
        for row, sequence in enumerate(dataset):
            for number, (i, j) in enumerate(frame_pairs(4)):
                a, b = start[6 * row + number : 6 * row + number + 2]
                stored = np.array([file["pair/first"][a:b], file["pair/second"][a:b]])
                assert_array_equal(stored, np.array(sequence.correspondences(i, j)))


def test_an_export_of_no_sequences_is_read(tmp_path):
    scans, shapes = tmp_path / "scans", write_shapes(tmp_path / "shapes")
    scans.mkdir()
    write_scan(scans / "closet.ply", (np.random.default_rng(60).random((900, 3)) * [0.3, 0.3, 2]).astype("f4"))
    run_build(tmp_path / "built", make_inputs(scans, shapes, attempts=1, sequences=2))
    list(hdf5.export_hdf5(shards.open_dataset(tmp_path / "built"), tmp_path / "out", pairs=True))
    dataset = shards.open_dataset(tmp_path / "out")
    assert (len(dataset), dataset.scan_names) == (0, ["closet"]) and list(verify.verify(dataset)) == [None]
    shard = open_shard(tmp_path / "out" / "shards" / "00000.h5")
    assert shard.length("pair/first") == 0 and shard.read("pair/start", 0, 1).tolist() == [0]


def linked(kind):
    def change(file, folder):
        values = file["cloud/point"][:]
        del file["cloud/point"]
        if kind == "external link":
            with h5py.File(folder / "other.h5", "w") as other:
                other["point"] = values
            file["cloud/point"] = h5py.ExternalLink(str(folder / "other.h5"), "/point")
        elif kind == "soft link":
            file["elsewhere"] = values
            file["cloud/point"] = h5py.SoftLink("/elsewhere")
        elif kind == "external storage":
            (folder / "raw").write_bytes(values.tobytes())
            place = [(str(folder / "raw"), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset("cloud/point", values.shape, values.dtype, external=place)
        elif kind == "virtual":
            file["elsewhere"] = values
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[:] = h5py.VirtualSource(file["elsewhere"])
            file.create_virtual_dataset("cloud/point", layout)
        elif kind == "another type":
            file.create_dataset("cloud/point", data=values.astype(np.float64), chunks=True)

    return change


@pytest.mark.parametrize(
    "kind, message",
    [
        ("external link", "cloud/point is missing or a link"),
        ("soft link", "cloud/point is missing or a link"),
        ("external storage", "cloud/point stores its data elsewhere"),
        ("virtual", "cloud/point stores its data elsewhere"),
        ("another type", "cloud/point has type float64"),
        ("nothing", "cloud/point is missing or a link"),
    ],
)
def test_hdf5_that_gen4d_did_not_write_is_refused(exported, tmp_path, kind, message):
    path = pathlib.Path(shutil.copy(exported / "shards" / "00000.h5", tmp_path))
    with h5py.File(path, "r+") as file:
        linked(kind)(file, tmp_path)
    with pytest.raises(FormatError, match=message):
        open_shard(path)


def test_a_damaged_hdf5_chunk_is_an_error(exported, tmp_path):
    path = pathlib.Path(shutil.copy(exported / "shards" / "00001.h5", tmp_path))
    with h5py.File(path, "r") as file:
        chunk = file["cloud/point"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 8
    path.write_bytes(content)
    with pytest.raises(FormatError, match="cloud/point is damaged"):
        open_shard(path).read("cloud/point", 0, 1)


@pytest.mark.parametrize("length", [0, 8, 100, 3000, -1])
def test_hdf5_cut_short_is_refused(exported, tmp_path, length):
    path = tmp_path / "x.h5"
    path.write_bytes((exported / "shards" / "00000.h5").read_bytes()[:length])
    with pytest.raises(FormatError, match="not a whole HDF5 file"):
        open_shard(path)


def test_an_export_into_a_folder_of_other_files_is_refused(built, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(hdf5.ExportError, match=r"holds other files \(mine.txt, 1 in all\)"):
        list(hdf5.export_hdf5(shards.open_dataset(built), tmp_path))
    with pytest.raises(hdf5.ExportError, match="is a file"):
        list(hdf5.export_hdf5(shards.open_dataset(built), tmp_path / "mine.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
