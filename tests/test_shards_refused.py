"""Data sets and shards that gen4d did not write, or that are damaged, are refused in one line before they are used."""

import hashlib
import json
import pathlib
import re
import shutil
import tracemalloc
import zipfile

import google_crc32c
import numcodecs.blosc
import numpy as np
import pytest

from gen4d import shards
from gen4d.shards.format import ARRAYS, FormatError, seal, unseal
from gen4d.shards.tables import open_shard
from tests.equal import assert_same_sequence
from tests.makers.builds import small_build


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return small_build(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def copy(built, tmp_path):
    return pathlib.Path(shutil.copytree(built, tmp_path / "copy"))


# Refused: folders


def test_what_is_no_finished_data_set_is_refused(copy, tmp_path):
    with pytest.raises(FormatError, match="not a gen4d data set"):
        shards.open_dataset(tmp_path)
    with pytest.raises(FormatError, match="not there"):
        shards.open_dataset(tmp_path / "nowhere")
    (copy / "dataset.json").unlink()
    with pytest.raises(FormatError, match="the build is not finished"):
        shards.open_dataset(str(copy))


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"sha256": 1}', b"[" * 100_000, b'{"sha256": NaN, "a": 1e999}'],
)
def test_a_manifest_that_is_none_is_refused(copy, content):
    (copy / "dataset.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"dataset\.json"):
        shards.open_dataset(copy)


@pytest.mark.parametrize("value", [{}, {"a": 1}, {"z": [1, {"sha256": 2}]}, {"Z": "é", "sha255": 0.1, "sha257": None}])
def test_a_sealed_value_is_canonical_json_with_the_hash_of_the_rest(value):
    plain = lambda value: json.dumps(value, sort_keys=True, separators=(",", ":")).encode()  # noqa: E731
    content = seal(value)
    assert content == plain(value | {"sha256": hashlib.sha256(plain(value)).hexdigest()}) + b"\n"
    assert unseal(content, "") == value
    twice = content.replace(b'"sha256"', b'"sha256":"0","sha256"')
    for other in (content[:-1], content + b"\n", content.replace(b":", b": "), twice):
        with pytest.raises(FormatError):
            unseal(other, "")


def test_a_manifest_with_one_bit_changed_is_refused(copy):
    content = (copy / "dataset.json").read_bytes()
    for place in range(0, len(content), 37):
        flipped = bytearray(content)
        flipped[place] ^= 1
        (copy / "dataset.json").write_bytes(flipped)
        with pytest.raises(FormatError, match=r"dataset\.json"):
            shards.open_dataset(copy)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": "2.0"}, r"format version 2\.0, this gen4d reads 1\.x: update gen4d"),
        ({"format": "lance"}, "format is 'lance', not 'gen4d'"),
        ({"must_understand": ["actor/curve"]}, "needs actor/curve, unknown to this gen4d"),
    ],
)
def test_a_data_set_of_a_later_format_is_refused_before_a_shard_is_opened(copy, change, message):
    manifest = unseal((copy / "dataset.json").read_bytes(), "")
    shutil.rmtree(copy / "shards")
    (copy / "dataset.json").write_bytes(seal(manifest | change))
    with pytest.raises(FormatError, match=message):
        shards.open_dataset(copy)


def test_a_later_minor_version_with_unknown_optional_arrays_is_read(copy, built):
    manifest = unseal((copy / "dataset.json").read_bytes(), "")
    (copy / "dataset.json").write_bytes(seal(manifest | {"version": "1.7", "weather": "rain"}))
    path = copy / "shards" / "00000.zarr.zip"

    def later(files):
        group = json.loads(files["zarr.json"])
        group["attributes"] |= {"version": "1.7"}
        files["zarr.json"] = json.dumps(group).encode()
        files["cloud/colour/zarr.json"] = files["cloud/label/zarr.json"]

    rewrite(path, later)
    assert_same_sequence(shards.open_dataset(copy)[1], shards.open_dataset(built)[1])


def test_a_shard_of_another_build_is_refused(copy):
    shutil.copy(copy / "shards" / "00001.zarr.zip", copy / "shards" / "00000.zarr.zip")
    with pytest.raises(FormatError, match="a file of another build"):
        shards.open_dataset(copy)[0]


def test_a_missing_shard_is_an_error_for_its_sequences_alone(copy, built):
    (copy / "shards" / "00000.zarr.zip").unlink()
    dataset = shards.open_dataset(copy)
    assert_same_sequence(dataset[7], shards.open_dataset(built)[7])
    with pytest.raises(FormatError, match=r"00000\.zarr\.zip: the shard is missing; restore it .* gen4d build --like"):
        dataset[0]


# Refused: shards


def rewrite(path, change, compression=zipfile.ZIP_STORED):
    """Write a shard again with its entries changed: `change` edits the dict of names and contents."""
    with zipfile.ZipFile(path) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    change(files)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    manifest = unseal((path.parents[1] / "dataset.json").read_bytes(), "")
    next(entry for entry in manifest["shards"] if entry["file"] == path.name)["bytes"] = path.stat().st_size
    (path.parents[1] / "dataset.json").write_bytes(seal(manifest))


def of_metadata(name, change):
    """Edit the metadata of an array, or of the group."""

    def changes(files):
        metadata = json.loads(files[f"{name}/zarr.json".lstrip("/")])
        change(metadata)
        files[f"{name}/zarr.json".lstrip("/")] = json.dumps(metadata).encode()

    return changes


def of_chunk(name, change):
    """Replace the body of a chunk, with a checksum that fits it."""

    def changes(files):
        body = change(files[name][:-4])
        files[name] = body + google_crc32c.value(body).to_bytes(4, "little")

    return changes


def replaced(name, content):
    return lambda files: files.__setitem__(name, content)


def renamed(name, other):
    return lambda files: files.__setitem__(other, files[name])


def bomb(body):
    """A chunk whose header promises a gigabyte."""
    return body[:4] + (2**30).to_bytes(4, "little") + body[8:]


REFUSED = {
    "format version 2.0, this gen4d reads 1.x": of_metadata("", lambda m: m["attributes"].update(version="2.0")),
    "needs actor/curve, unknown to this": of_metadata(
        "", lambda m: m["attributes"].update(must_understand=["actor/curve"])
    ),
    "attribute frames is 0": of_metadata("", lambda m: m["attributes"].update(frames=0)),
    "attribute frames is 'x'": of_metadata("", lambda m: m["attributes"].update(frames="x")),
    "does not describe a Zarr v3 node": of_metadata("", lambda m: m.update(zarr_format=2)),
    "zarr.json is not JSON": replaced("zarr.json", b"{"),
    "cloud/point/zarr.json is not JSON": replaced("cloud/point/zarr.json", b"[" * 9_000),
    "cloud/start/zarr.json does not describe": replaced("cloud/start/zarr.json", b"[]"),
    "has codecs bytes, pickle, crc32c": of_metadata(
        "cloud/point", lambda m: m["codecs"].__setitem__(1, {"name": "pickle"})
    ),
    "has codecs bytes, blosc": of_metadata("actor/mask", lambda m: m["codecs"].pop()),
    "cloud/label has shape": of_metadata("cloud/label", lambda m: m.update(shape=[10**13])),
    "sequence/k/c/1 is missing": of_metadata("sequence/k", lambda m: m.update(shape=[10**12])),
    "cloud/vertex has shape": of_metadata("cloud/vertex", lambda m: m.update(data_type="int64")),
    "actor/pose has shape": of_metadata("actor/pose", lambda m: m.update(shape=[1, 5, 4, 4])),
    "cloud/point has shape": of_metadata(
        "cloud/point", lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[10**9, 3])
    ),
    "lacks what a Zarr v3 array has": of_metadata("cloud/label", lambda m: m.pop("chunk_grid")),
    "cloud/point/c/0/0 is missing": lambda files: files.pop("cloud/point/c/0/0"),
    "actor/role/zarr.json is missing": lambda files: files.pop("actor/role/zarr.json"),
    "fails its crc32c": replaced("actor/mask/c/0", b"12345678" * 9),
    "actor/cloud/c/0 promises a different size": of_chunk("actor/cloud/c/0", bomb),
    "cloud/start/c/0 promises a different size": of_chunk("cloud/start/c/0", lambda body: b""),
    "does not decompress": of_chunk("cloud/point/c/0/0", lambda body: body[: len(body) // 2]),
    "'../evil' is not a plain relative name": renamed("zarr.json", "../evil"),
    "'a/../../evil' is not a plain relative name": renamed("zarr.json", "a/../../evil"),
    "'/etc/evil' is not a plain relative name": renamed("zarr.json", "/etc/evil"),
    "'cloud//point' is not a plain relative name": renamed("zarr.json", "cloud//point"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_shard_that_gen4d_did_not_write_is_refused(copy, message):
    path = copy / "shards" / "00000.zarr.zip"
    rewrite(path, REFUSED[message])
    with pytest.raises(FormatError, match=re.escape(message)) as caught:
        list(shards.open_dataset(copy))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_compressed_entries_are_refused(copy, compression):
    path = copy / "shards" / "00000.zarr.zip"
    rewrite(path, lambda files: None, compression)
    with pytest.raises(FormatError, match="is compressed or encrypted: not written by gen4d"):
        open_shard(path)


def test_a_rewritten_shard_is_read_as_before(copy, built):
    """So that what the tests above see is their change, not the rewriting."""
    rewrite(copy / "shards" / "00000.zarr.zip", lambda files: None)
    for one, other in zip(shards.open_dataset(copy), shards.open_dataset(built), strict=True):
        assert_same_sequence(one, other)


def test_a_shard_cut_short_at_any_length_is_refused(copy):
    path = copy / "shards" / "00001.zarr.zip"
    content = path.read_bytes()
    for length in [
        *range(0, 60),
        *range(60, len(content), len(content) // 60),
        *range(len(content) - 60, len(content)),
    ]:
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match=r"00001\.zarr\.zip"):
            open_shard(path)


@pytest.mark.parametrize("content", [b"hello " * 1000, b"PK\x03\x04" + bytes(100), b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_a_file_of_another_kind_is_refused(copy, content):
    path = copy / "shards" / "00000.zarr.zip"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="not a whole shard"):
        open_shard(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(FormatError, match="not a whole shard"):
        open_shard(path)


def test_every_flipped_bit_of_a_chunk_is_seen(copy):
    path = copy / "shards" / "00001.zarr.zip"
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("cloud/point/c/0/0")
    start = entry.header_offset + 30 + len(entry.filename)
    for place in range(start, start + entry.file_size, entry.file_size // 40):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(FormatError, match="cloud/point/c/0/0 fails its crc32c"):
            open_shard(path).read("cloud/point", 0, 1)


def of_table(name, change):
    """Edit a table, encoded as gen4d does."""

    def changes(files):
        spec = ARRAYS[name]
        metadata = json.loads(files[f"{name}/zarr.json"])
        entry = f"{name}/c/0" + "/0" * len(spec.row)
        rows = np.frombuffer(numcodecs.blosc.decompress(files[entry][:-4]), spec.dtype).copy()
        rows = change(rows.reshape(metadata["shape"][0], *metadata["shape"][1:]))
        body = numcodecs.blosc.compress(rows.tobytes(), b"zstd", 1, 0, rows.itemsize)
        files[entry] = body + google_crc32c.value(body).to_bytes(4, "little")

    return changes


@pytest.mark.parametrize("name", ["cloud/start", "actor/start", "actor/cloud", "actor/mask_start", "sequence/scan"])
@pytest.mark.parametrize("number", [-1, -(2**31), 2**31 - 1, 12345])
def test_tables_that_point_outside_are_an_error_not_other_data(copy, name, number):
    path = copy / "shards" / "00000.zarr.zip"

    def outside(rows):
        rows[1] = number
        return rows

    rewrite(path, of_table(name, outside))
    if (name, number) == ("actor/mask_start", -1):
        return  # an actor may be absent from a frame
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=r"00000\.zarr\.zip"):
            list(shards.open_dataset(copy))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
