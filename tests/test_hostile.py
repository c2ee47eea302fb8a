"""Shards and data sets that somebody made to do harm: refused before data are read, with little memory, nothing run."""

import json
import os
import pathlib
import pickle
import shutil
import stat
import struct
import zipfile

import numpy as np
import pytest

from gen4d.shards.zarr_reader import read_directory
from tests.damage import adopt, entries_of, packed, with_crc, write_zip
from tests.hostile import MIB, check_refused
from tests.makers import commands
from tests.makers.commands import gen4d


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    rooms = commands.write_rooms(tmp_path_factory.mktemp("rooms"), 1)
    commands.build(rooms, "--pairs", out="data")
    return rooms


@pytest.fixture
def copy(built, tmp_path):
    return pathlib.Path(shutil.copytree(built / "data", tmp_path / "copy"))


def metadata(name: str, change):
    """Change the metadata of a node."""

    def changed(entries):
        value = json.loads(entries[name])
        change(value)
        entries[name] = json.dumps(value).encode()

    return changed


def _codecs(*codecs):
    return metadata("cloud/point/zarr.json", lambda meta: meta.update(codecs=list(codecs)))


def _shape(name, *shape):
    return metadata(f"{name}/zarr.json", lambda meta: meta.update(shape=list(shape)))


def _chunks(name, *chunk):
    def change(meta):
        meta["chunk_grid"]["configuration"]["chunk_shape"] = list(chunk)

    return metadata(f"{name}/zarr.json", change)


def _entry(name, content):
    return lambda entries: entries.__setitem__(name, content)


def _group_text(text):
    """Put a text in front of the attributes of the group."""

    def change(entries):
        entries["zarr.json"] = entries["zarr.json"].replace(b'"attributes": {', b'"attributes": {' + text, 1)

    return change


class Payload:
    """What would leave a file behind if anybody unpickled it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


ENTRIES = {
    "pickle codec": (_codecs({"name": "numcodecs.pickle"}), "has codecs numcodecs.pickle"),
    "unknown codec": (
        _codecs({"name": "bytes"}, {"name": "evil", "configuration": {}}),
        "has codecs bytes, evil",
    ),
    "codec that is no object": (_codecs("bytes", 3), "lacks what a Zarr v3 array has"),
    "no codecs": (_codecs(), "has codecs none"),
    "a million codecs": (_codecs(*[{"name": "bytes"}] * 10**6), "has more than 65536 bytes"),
    "shape of 10^12 rows": (_shape("cloud/point", 10**12, 3), "cloud/point/c/1/0 is missing"),
    "shape of 10^12 tables": (_shape("actor/pose", 10**12, 4, 4, 4), "actor/pose/c/1/0/0/0 is missing"),
    "shape beyond 2^63": (_shape("cloud/point", 2**70, 3), "cloud/point has shape"),
    "negative shape": (_shape("cloud/point", -1, 3), "cloud/point has shape"),
    "shape of floats": (_shape("cloud/point", 1e3, 3), "cloud/point has shape"),
    "shape of booleans": (_shape("sequence/k", True), "differ in length"),
    "chunks of a gigabyte": (_chunks("cloud/point", 10**8, 3), "not as the format has it"),
    "chunks of nothing": (_chunks("cloud/point", 0, 3), "not as the format has it"),
    "chunks of other rows": (_chunks("cloud/point", 170, 4), "not as the format has it"),
    "other chunk keys": (
        metadata("cloud/point/zarr.json", lambda meta: meta["chunk_key_encoding"].update(name="v2")),
        "not as the format has it",
    ),
    "storage transformers": (
        metadata("cloud/point/zarr.json", lambda meta: meta.update(storage_transformers=[{"name": "evil"}])),
        "not as the format has it",
    ),
    "sharding": (_codecs({"name": "sharding_indexed"}), "has codecs sharding_indexed"),
    "duplicate keys": (_group_text(b'"frames": 2, '), "zarr.json is not JSON"),
    "duplicate keys below": (
        lambda entries: entries.__setitem__(
            "cloud/point/zarr.json", entries["cloud/point/zarr.json"].replace(b'"shape"', b'"shape": [9, 3], "shape"')
        ),
        "cloud/point/zarr.json is not JSON",
    ),
    "NaN in metadata": (_group_text(b'"weight": NaN, '), "zarr.json is not JSON"),
    "100 MB of attributes": (_group_text(b'"note": "' + b"x" * 100 * MIB + b'", '), "has more than 4194304 bytes"),
    "4 MB of brackets": (_group_text(b'"note": [' + b"[]," * MIB + b"0], "), "more than 10000 objects and lists"),
    "deep brackets": (_group_text(b'"note": ' + b"[" * 9000 + b"]" * 9000 + b", "), "is not JSON"),
    "must_understand of numbers": (
        metadata("zarr.json", lambda meta: meta["attributes"].update(must_understand=5)),
        "must_understand is 5, not a list",
    ),
    "attributes that are a list": (metadata("zarr.json", lambda meta: meta.update(attributes=[])), "zarr.json"),
    "scans that are numbers": (
        metadata("zarr.json", lambda meta: meta["attributes"].update(scans=[7])),
        "attribute scans is not a list of names",
    ),
    "nothing": (lambda entries: entries.clear(), "zarr.json is missing"),
    "chunk header of 4 GB": (
        _entry("cloud/point/c/0/0", with_crc(b"\2\1\x21\4" + b"\xff" * 12 + bytes(100))),
        "promises a different size",
    ),
    "chunk that promises to be longer than it is": (
        lambda entries: entries.__setitem__(
            "cloud/label/c/0",
            with_crc(entries["cloud/label/c/0"][:12] + b"\xff\xff\xff\x7f" + entries["cloud/label/c/0"][16:-4]),
        ),
        "its header promises another length",
    ),
    "chunk that is no chunk": (_entry("cloud/point/c/0/0", b"abc"), "fails its crc32c"),
    "empty chunk": (_entry("cloud/point/c/0/0", b""), "fails its crc32c"),
    "absolute name": (_entry("/etc/passwd", b""), "'/etc/passwd' is not a plain relative name"),
    "name of a parent": (_entry("../../evil", b""), "'../../evil' is not a plain relative name"),
    "name with a backslash": (_entry("..\\evil", b""), "is not a plain relative name"),
    "folder": (_entry("cloud/", b""), "'cloud/' is not a plain relative name"),
    "name with a line break": (_entry("a\nb", b""), "is not a plain relative name"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_a_hostile_shard_is_refused(copy, case):
    change, part = ENTRIES[case]
    path = copy / "shards/00000.zarr.zip"
    entries = entries_of(path)
    change(entries)
    write_zip(path, entries.items())
    adopt(path)
    check_refused(copy, part)


def test_the_rewriting_alone_is_not_refused(copy):
    path = copy / "shards/00000.zarr.zip"
    write_zip(path, entries_of(path).items())
    adopt(path)
    assert gen4d("verify", copy).code == 0


def test_a_pickle_in_the_place_of_a_chunk_is_not_run(copy, tmp_path):
    marker = tmp_path / "ran"
    body = pickle.dumps(Payload(str(marker)))
    for content in (body, with_crc(body)):
        path = copy / "shards/00000.zarr.zip"
        entries = entries_of(path)
        _codecs({"name": "bytes"}, {"name": "numcodecs.pickle"}, {"name": "crc32c"})(entries)
        entries["cloud/point/c/0/0"] = content
        write_zip(path, entries.items())
        adopt(path)
        check_refused(copy, "has codecs")
    assert not marker.exists()


def _link(path, entries):
    info = zipfile.ZipInfo("cloud/evil")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    write_zip(path, [*entries.items(), (info, b"/etc/hostname")])


def _twice(path, entries):
    with pytest.warns(UserWarning, match="Duplicate"):
        write_zip(path, [*entries.items(), ("zarr.json", entries["zarr.json"])])


def _deflated(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _bomb(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("cloud/point/c/0/0", bytes(256 * MIB))


def _commented(path, entries):
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"hello"


def _prefixed(path, entries):
    path.write_bytes(b"#!/bin/sh\nexit 0\n" + path.read_bytes())


def _suffixed(path, entries):
    path.write_bytes(path.read_bytes() + b"more")


def _overlapping(path, entries):
    """All entries of the directory lie at the place of one: a small file that seems to hold a thousand large ones."""
    content = path.read_bytes()
    end = struct.unpack("<4s4H2LH", content[-22:])
    records, body = b"", content[: end[6]]
    first = read_directory(path)["cloud/point/c/0/0"]
    for number in range(1000):
        name = f"cloud/point/c/{number + 1}/0".encode()
        record = struct.pack("<4s6H3L5H2L", b"PK\1\2", 788, 20, 0, 0, 0, 33, first.crc, first.size, first.size,
                             len(name), 0, 0, 0, 0, 0, first.offset)  # fmt: skip
        records += record + name
    directory = content[end[6] : -22] + records
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, end[3] + 1000, end[4] + 1000, len(directory), end[6], 0)
    path.write_bytes(body + directory + tail)


def _countless(path, entries):
    """The end of the directory promises more entries than there are bytes."""
    content = bytearray(path.read_bytes())
    content[-14:-10] = b"\xfe\xff\xfe\xff"
    path.write_bytes(content)


def _countless_64(path, entries):
    """The same, by the record for large zips."""
    content = path.read_bytes()
    end = struct.unpack("<4s4H2LH", content[-22:])
    at = len(content) - 22
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2**60, 2**60, end[5], end[6])
    place = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(content[:-22] + large + place + tail)


ZIPS = {
    "a link": (_link, "cloud/evil is a link or not a file"),
    "an entry twice": (_twice, "'zarr.json' is there twice"),
    "compressed entries": (_deflated, "is compressed or encrypted"),
    "a bomb of zeros": (_bomb, "is compressed or encrypted"),
    "a comment": (_commented, "no directory at its end"),
    "something in front": (_prefixed, "no directory at its end"),
    "something behind": (_suffixed, "no directory at its end"),
    "more entries than bytes": (_countless, "not a whole shard"),
    "2^60 entries": (_countless_64, "no directory at its end"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_a_hostile_zip_is_refused(copy, case):
    change, part = ZIPS[case]
    path = copy / "shards/00000.zarr.zip"
    change(path, entries_of(path))
    adopt(path)
    check_refused(copy, part)


def test_overlapping_entries_are_refused_when_they_are_read(copy):
    path = copy / "shards/00000.zarr.zip"
    entries = entries_of(path)
    rows = json.loads(entries["cloud/point/zarr.json"])["shape"][0]
    _shape("cloud/point", 1001 * rows, 3)(entries)
    for name in ("vertex", "label", "instance"):
        _shape(f"cloud/{name}", 1001 * rows)(entries)
        entries |= {f"cloud/{name}/c/{i}": entries[f"cloud/{name}/c/0"] for i in range(1, 1001)}
    start = np.array([0, *[1001 * rows] * 3], "<i8")
    entries["cloud/start/c/0"] = packed(start)
    write_zip(path, entries.items())
    _overlapping(path, entries)
    adopt(path)
    check_refused(copy, "cloud/point/c/1/0 is not where the directory says")


def test_a_cloud_beyond_the_limit_of_a_read_is_refused(copy):
    """A few megabytes of chunks of zeros that would decode to many gigabytes."""
    path = copy / "shards/00000.zarr.zip"
    entries = entries_of(path)
    rows, count = 4 * 16384, 1500
    zeros = packed(np.zeros((rows, 3), "<f4"))
    column = packed(np.zeros(rows, "<i4"))
    for name, row in (("point", (3,)), ("vertex", ()), ("label", ()), ("instance", ())):
        _shape(f"cloud/{name}", rows * count, *row)(entries)
        _chunks(f"cloud/{name}", rows, *row)(entries)
        content = zeros if row else column
        entries |= {f"cloud/{name}/c/{i}" + "/0" * len(row): content for i in range(count)}
    start = np.array([0, *[rows * count] * 3], "<i8")
    entries["cloud/start/c/0"] = packed(start)
    write_zip(path, entries.items())
    adopt(path)
    assert path.stat().st_size < 4 * MIB
    check_refused(copy, "more than 1073741824")


def test_a_floor_plan_larger_than_its_bits_is_refused(copy):
    path = copy / "shards/00000.zarr.zip"
    entries = entries_of(path)
    cells = np.array([[2**30, 2**30]], "<i4")
    entries["scan/cells/c/0/0"] = packed(cells)
    write_zip(path, entries.items())
    adopt(path)
    check_refused(copy, "cells has")


def test_a_zip_of_very_many_entries_is_read_as_its_standard_says(tmp_path):
    """More than 65,534 of them: rare in shards, but allowed."""
    path = tmp_path / "many.zarr.zip"
    write_zip(path, ((f"a/{i}", b"x") for i in range(70_000)))
    places = read_directory(path)
    assert len(places) == 70_000


@pytest.mark.parametrize("size", [(1 << 31) - 200, (1 << 31) + 100, (1 << 32) + 100])
def test_a_zip_of_gigabytes_is_read_as_its_standard_says(size, tmp_path):
    """From 2 GiB on Python writes large end records, and from 4 GiB on they are needed."""
    far = tmp_path / "far.zarr.zip"
    with open(far, "wb") as file:
        file.truncate(size)
    with zipfile.ZipFile(far, "a") as archive:
        archive.writestr(zipfile.ZipInfo("b/c"), b"found")
    if far.stat().st_blocks * 512 > 100 * MIB:
        pytest.skip("this file system stores holes")
    place = read_directory(far)["b/c"]
    assert place.offset >= size
    with open(far, "rb") as file:
        file.seek(place.offset)
        assert file.read(len(place.header) + place.size).endswith(b"b/cfound")
