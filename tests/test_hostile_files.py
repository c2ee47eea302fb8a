"""Manifests, descriptions and HDF5 shards that somebody made to do harm, and files that are none."""

import os
import pathlib
import shutil

import h5py
import numpy as np
import pytest

from gen4d.shards import open_dataset
from gen4d.shards.format import FormatError, seal, unseal
from gen4d.shards.tables import open_shard
from tests.damage import adopt
from tests.hostile import MIB, check_refused
from tests.makers import commands
from tests.makers.commands import gen4d


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    rooms = commands.write_rooms(tmp_path_factory.mktemp("rooms"), 1)
    commands.build(rooms, "--pairs", out="data")
    assert gen4d("export", rooms / "data", "--out", rooms / "h5").code == 0
    return rooms


@pytest.fixture
def copy(built, tmp_path):
    return pathlib.Path(shutil.copytree(built / "data", tmp_path / "copy"))


@pytest.fixture
def exported(built, tmp_path):
    return pathlib.Path(shutil.copytree(built / "h5", tmp_path / "exported"))


# dataset.json


def _value(*path, value):
    def change(manifest):
        at = manifest
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


MANIFESTS = {
    "path out of the folder": _value("shards", 0, "file", value="../../secret.zarr.zip"),
    "absolute path": _value("shards", 0, "file", value="/etc/passwd.zarr.zip"),
    "another suffix": _value("shards", 0, "file", value="00000.pkl"),
    "name that is a number": _value("shards", 0, "file", value=5),
    "size that is a text": _value("shards", 0, "bytes", value="many"),
    "negative count": _value("shards", 0, "scans", 0, 1, value=-1),
    "count of 10^12": _value("shards", 0, "scans", 0, 1, value=10**12),
    "scans that are no pairs": _value("shards", 0, "scans", value=[1, 2]),
    "shards that are a text": _value("shards", value="abc"),
    "shards that are numbers": _value("shards", value=[1]),
    "no config": _value("config", value=None),
    "no totals": _value("totals", value=[]),
    "no versions": _value("versions", value=None),
    "must_understand of objects": _value("must_understand", value=[{}]),
    "version that is an object": _value("version", value={}),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_hostile_manifest_is_refused_by_every_command(copy, tmp_path, case):
    (tmp_path / "secret.zarr.zip").write_bytes((copy / "shards/00000.zarr.zip").read_bytes())
    manifest = unseal((copy / "dataset.json").read_bytes(), "")
    MANIFESTS[case](manifest)
    (copy / "dataset.json").write_bytes(seal(manifest))
    for command in (
        ("inspect",),
        ("verify",),
        ("view", "--out", tmp_path / "x.png"),
        ("export", "--out", tmp_path / "x"),
    ):
        outcome = gen4d(*command, copy)
        assert outcome.code == 1
        assert len(outcome.err.splitlines()) == 1
        assert str(copy / "dataset.json") in outcome.err
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("change", [{"scans": 5}, {"scans": [{}]}, {"failed": None}, {"unreadable_shapes": [{}]}])
def test_a_hostile_description_is_refused(copy, change):
    path = copy / "shards/00000.json"
    path.write_bytes(seal(unseal(path.read_bytes(), "") | change))
    adopt(copy / "shards/00000.zarr.zip")
    outcome = gen4d("inspect", copy)
    assert outcome.code == 1
    assert outcome.err.startswith("Error: ")


# HDF5


def _replace(file, name, make):
    values = file[name][:]
    del file[name]
    make(values)


def _huge(file, folder):
    _replace(
        file,
        "cloud/point",
        lambda values: file.create_dataset(
            "cloud/point", (10**12, 3), "<f4", chunks=(16384, 3), fletcher32=True, maxshape=(None, 3)
        ),
    )


def _huge_chunk(file, folder):
    _replace(
        file,
        "cloud/point",
        lambda values: file.create_dataset(
            "cloud/point", (10**8, 3), "<f4", chunks=(10**8, 3), fletcher32=True, maxshape=(None, 3)
        ),
    )


def _no_checksum(file, folder):
    _replace(file, "cloud/point", lambda v: file.create_dataset("cloud/point", data=v, chunks=v.shape))


def _other_filter(file, folder):
    _replace(
        file,
        "cloud/point",
        lambda v: file.create_dataset("cloud/point", data=v, chunks=v.shape, compression="lzf", fletcher32=True),
    )


def _missing_chunk(file, folder):
    _replace(
        file,
        "cloud/point",
        lambda v: file.create_dataset("cloud/point", v.shape, v.dtype, chunks=(16, 3), fletcher32=True),
    )


def _long_attributes(file, folder):
    del file["attributes"]
    file.create_dataset("attributes", data=np.bytes_(b"[" * 5 * MIB))


def _object_attributes(file, folder):
    del file["attributes"]
    file.create_dataset("attributes", data="text", dtype=h5py.string_dtype())


def _array_attributes(file, folder):
    del file["attributes"]
    file.create_dataset("attributes", data=np.array([b"{}"] * 9))


def _unsealed_attributes(file, folder):
    text = bytes(file["attributes"][()]).replace(b'"frames":4', b'"frames":3')
    del file["attributes"]
    file.create_dataset("attributes", data=np.bytes_(text))


def _link_of_the_group(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        file.copy("cloud", other)
    del file["cloud"]
    file["cloud"] = h5py.ExternalLink(str(folder / "other.h5"), "/cloud")


HDF5 = {
    "10^12 rows": (_huge, "not all it should have"),
    "a chunk of a gigabyte": (_huge_chunk, "not all it should have"),
    "no checksums": (_no_checksum, "has filters none"),
    "another filter": (_other_filter, "has filters"),
    "chunks that were never written": (_missing_chunk, "not all it should have"),
    "5 MB of attributes": (_long_attributes, "is not a text of at most"),
    "attributes of variable length": (_object_attributes, "is not a text of at most"),
    "attributes that are many": (_array_attributes, "is not a text of at most"),
    "attributes that were changed": (_unsealed_attributes, "does not match its own hash"),
    "a group that is a link": (_link_of_the_group, "cloud is missing or a link"),
}


@pytest.mark.parametrize("case", HDF5)
def test_a_hostile_hdf5_shard_is_refused(exported, tmp_path, case):
    change, part = HDF5[case]
    path = exported / "shards/00000.h5"
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    adopt(path)
    check_refused(exported, part)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(5000), b"PK\3\4" * 99])
def test_a_file_that_is_no_shard_is_refused(copy, exported, content):
    for folder, name in ((copy, "00000.zarr.zip"), (exported, "00000.h5")):
        (folder / "shards" / name).write_bytes(content)
        adopt(folder / "shards" / name)
        check_refused(folder, "not a whole")


def test_a_shard_that_is_a_pipe_or_a_device_is_refused_without_waiting(copy):
    path = copy / "shards/00000.zarr.zip"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FormatError):
        open_dataset(copy)[0]
    assert gen4d("verify", copy).code == 1
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(FormatError):
        open_dataset(copy)[0]
    with pytest.raises(FormatError):
        open_shard(path)
    assert gen4d("verify", copy).code == 1
