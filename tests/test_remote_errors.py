"""What a server does wrong, and what goes wrong on the way: one clear error that names the URL, and soon."""

import os
import pathlib
import pickle
import shutil
import socket
import sys
import time

import pytest

from gen4d.exports.hdf5 import export_hdf5
from gen4d.shards import FormatError, open_dataset
from gen4d.shards.verify import verify
from tests.makers import commands
from tests.serve import Web, serve, write_large

pytest.importorskip("aiohttp", reason="the extra `remote` is not installed")
pytest.importorskip("fsspec", reason="the extra `remote` is not installed")

from gen4d.shards import remote

SHARD = "shards/00000.zarr.zip"
SOON_S = 10


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_large(tmp_path_factory.mktemp("remote") / "data")


@pytest.fixture
def folder(original, tmp_path):
    """A copy that may be changed."""
    return pathlib.Path(shutil.copytree(original, tmp_path / "data"))


@pytest.fixture
def web(folder, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSE_S", 0.01)
    with serve(folder) as web:
        yield web


def failure(action) -> str:
    """The message of the FormatError that an action raises, which is one line and comes soon."""
    began = time.monotonic()
    with pytest.raises(FormatError) as caught:
        action()
    assert time.monotonic() - began < SOON_S
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_first(web: Web):
    """Open the data set and read a sequence."""
    return open_dataset(web.url)[0].frame(0)


def test_a_url_without_a_data_set(web, folder):
    assert failure(lambda: open_dataset(web.url + "/nowhere")) == (
        f"{web.url}/nowhere/dataset.json: not there; not a gen4d data set"
    )
    (folder / "dataset.json").unlink()
    assert "dataset.json: not there; the build is not finished" in failure(lambda: read_first(web))
    (folder / "dataset.json").write_text("<html>welcome</html>")
    assert f"{web.url}/dataset.json: not a sealed JSON file" in failure(lambda: read_first(web))


def test_a_shard_that_is_missing(web, folder):
    dataset = open_dataset(web.url)
    (folder / SHARD).unlink()
    assert failure(lambda: dataset[0]).startswith(f"{web.url}/{SHARD}: the shard is missing; ")
    assert dataset[8].id == "room2/000"  # another shard is not concerned


@pytest.mark.parametrize(
    ("status", "part"),
    [
        (401, "access is refused (", ),
        (403, "give credentials as storage_options"),
        (418, "the server refuses: status 418"),
        (500, "tried 3 times (status 500 Internal Server Error): try again later"),
        (429, "tried 3 times (status 429"),
    ],
)  # fmt: skip
def test_a_server_that_refuses(web, status, part):
    dataset = open_dataset(web.url)
    web.status = status
    for action, name in ((lambda: dataset[0], SHARD), (lambda: open_dataset(web.url), "dataset.json")):
        with web.counted() as asked:
            message = failure(action)
        assert message.startswith(f"{web.url}/{name}: ") and part in message
        assert len(asked) == (3 if "tried 3 times" in part else 1)
    web.status = None
    assert dataset[0].id == "room0/000"  # it is not remembered


def test_a_server_without_ranges_is_not_made_to_send_whole_files(web, folder):
    os.truncate(folder / SHARD, 1 << 30)
    web.ranges = False
    dataset = open_dataset(web.url)
    with web.counted() as asked:
        message = failure(lambda: dataset[0])
    assert message.startswith(f"{web.url}/{SHARD}: the server answers a request for a part with the whole file: ")
    assert "copy the data set to a disk, or host it where ranges of bytes are served" in message
    assert len(asked) == 1 and asked[0].size == 1 << 30
    assert web.sent < 64 << 20  # what fitted into the line before the reader hung up


def test_a_server_that_sends_another_range(web):
    web.shift = 7
    assert f"{web.url}/{SHARD}: the server sends bytes from " in failure(lambda: read_first(web))


def test_a_connection_that_drops_is_tried_again(web):
    dataset = open_dataset(web.url)
    for drops in (1, 2):
        web.drop = drops
        assert dataset[4 * (drops - 1)].frame(0).point.size
        assert web.drop == 0


def test_a_connection_that_always_drops_is_an_error(web):
    dataset = open_dataset(web.url)
    web.drop = 100
    with web.counted() as asked:
        message = failure(lambda: dataset[0])
    assert message.startswith(f"{web.url}/{SHARD}: cannot be read, tried 3 times (")
    assert len(asked) == 3
    assert "dataset.json: cannot be read, tried 3 times" in failure(lambda: read_first(web))


def test_a_server_that_is_silent_is_not_waited_for(web, monkeypatch):
    monkeypatch.setattr(remote, "SILENCE_S", 0.3)
    dataset = open_dataset(web.url)
    web.delay_s = 1.5
    began = time.monotonic()
    message = failure(lambda: dataset[0])
    assert message.startswith(f"{web.url}/{SHARD}: no answer in time (0.3 s of silence end it)")
    assert time.monotonic() - began < 1.4


def test_an_address_where_nobody_listens(web):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data"
    message = failure(lambda: open_dataset(url))
    assert message.startswith(f"{url}/dataset.json: cannot be read, tried 3 times (")
    assert failure(lambda: open_dataset("http://nowhere.invalid/data")).startswith("http://nowhere.invalid/data/")


@pytest.mark.parametrize("change", [-1000, -3_000_000, 1000])
def test_a_shard_of_another_size(web, folder, change):
    """From the first read on, or after its shard was opened."""
    with open(folder / SHARD, "ab") as file:
        size = file.tell()
        opened = open_dataset(web.url)
        opened._tables(0)
        file.truncate(max(1, size + change))
    for dataset in (open_dataset(web.url), opened):
        message = failure(lambda dataset=dataset: dataset[0])
        assert message.startswith(f"{web.url}/{SHARD}: ") and f"dataset.json says {size}" in message
        assert "it changed, or is of another build: open the data set again" in message


def test_a_shard_that_changed_its_content_after_it_was_opened(web, folder):
    """Of the same size, so that headers and checksums alone can tell."""
    dataset = open_dataset(web.url)
    dataset._tables(0)
    content = bytearray((folder / SHARD).read_bytes())
    for place in range(100, len(content) // 2, 5000):
        content[place] ^= 1
    (folder / SHARD).write_bytes(content)
    assert failure(lambda: dataset[0]).startswith(f"{web.url}/{SHARD}: cloud/point/c/0/0 fails its crc32c: ")
    (folder / SHARD).write_bytes(bytes(len(content)))
    assert "is not where the directory says" in failure(lambda: dataset[4])
    assert "not a whole shard (no directory at its end)" in failure(lambda: read_first(web))


def test_a_shard_of_another_build(web, folder):
    """Whole, and of the size that is expected: its tables tell."""
    other = folder / "shards/00001.zarr.zip"
    manifest_size = (folder / SHARD).stat().st_size
    (folder / SHARD).write_bytes(other.read_bytes())
    web.total = manifest_size - other.stat().st_size
    assert f"{web.url}/{SHARD}: " in failure(lambda: read_first(web))


def test_verify_finds_damage_from_afar(web, folder):
    assert list(verify(open_dataset(web.url))) == [None, None]
    content = bytearray((folder / SHARD).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / SHARD).write_bytes(content)
    (folder / "shards/00001.json").unlink()
    (folder / "build.json").unlink()
    found = list(verify(open_dataset(web.url)))
    assert len(found) == 3 and all(line.startswith(web.url) for line in found)
    assert "build.json: cannot be read" in found[0]
    assert "its content does not match its hash in dataset.json" in found[1]
    assert "the shard's description is missing" in found[2]
    assert commands.gen4d("verify", web.url).code == 1
    (folder / SHARD).write_bytes(content[:-5])
    assert f"has {len(content) - 5} bytes, dataset.json says {len(content)}" in list(verify(open_dataset(web.url)))[1]


def test_a_cloud_whose_data_set_became_another_one(web, folder):
    cloud = pickle.loads(pickle.dumps(open_dataset(web.url)[0].actors[0].cloud))
    shutil.rmtree(folder)
    commands.build(commands.write_rooms(folder.parent / "raw"), out=str(folder))
    assert "another data set lies here" in failure(lambda: cloud.label)


def test_hdf5_shards_are_read_from_a_disk_only(tmp_path):
    list(export_hdf5(open_dataset(commands.build(commands.write_rooms(tmp_path))), tmp_path / "hdf5"))
    with serve(tmp_path / "hdf5") as web:
        message = failure(lambda: read_first(web))
    assert message.startswith(f"{web.url}/shards/00000.h5: HDF5 is read from a disk only: ")


@pytest.mark.parametrize("missing", ["fsspec", "aiohttp"])
def test_a_missing_extra_is_named(web, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    message = failure(lambda: open_dataset(web.url))
    assert message.startswith(f"{web.url}: reading a URL needs packages that are not installed")
    assert missing in message and "pip install '.[remote]'" in message
    outcome = commands.gen4d("inspect", web.url)
    assert outcome.code == 1 and outcome.err == f"Error: {message}\n"


def test_a_url_of_a_kind_that_nothing_reads():
    assert "abacus://host/data: " in failure(lambda: open_dataset("abacus://host/data"))


def test_options_of_a_folder_on_a_disk_are_refused(original):
    message = failure(lambda: open_dataset(original, {"anon": True}))
    assert message == f"{original}: storage_options are for data sets that are opened by a URL: leave them out"
