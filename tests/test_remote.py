"""Data sets far away: few requests, and the same sequences as on a disk, in threads, forks and workers of a loader.

The server is a real one, on loopback, and counts. tests/test_remote_errors.py has what a server does wrong.
"""

import gc
import itertools
import multiprocessing
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest

from gen4d.shards import home, open_dataset, zarr_reader
from gen4d.shards.format import LARGE, is_small
from tests import equal
from tests.faults import child, wait
from tests.makers import commands
from tests.serve import make_recordings, serve, write_large

pytest.importorskip("aiohttp", reason="the extra `remote` is not installed")
fsspec = pytest.importorskip("fsspec", reason="the extra `remote` is not installed")

SHARD = "shards/00000.zarr.zip"
STORED = [name for name in LARGE if not name.startswith("view/")]  # of sequences that move


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_large(tmp_path_factory.mktemp("remote") / "data")


@pytest.fixture(scope="module")
def expected(folder):
    return [contents(sequence) for sequence in open_dataset(folder)]


@pytest.fixture
def web(folder):
    with serve(folder) as web:
        yield web


def contents(sequence) -> list[bytes]:
    """Everything that a sequence gives."""
    found = [sequence.id.encode()]
    for actor in sequence.actors:
        columns = [getattr(actor.cloud, name) for name in actor.cloud.columns]
        found += [b"" if column is None else column.tobytes() for column in columns]
        found += [actor.pose.tobytes(), actor.planes.tobytes()]
    return [*found, *(frame.point.tobytes() for frame in sequence.frames)]


@pytest.fixture
def reads(monkeypatch):
    """Places and lengths of the reads of files on the disk."""
    read, places = home.LocalFile.read, []

    def counted(self, start, length):
        places.append((start, length))
        return read(self, start, length)

    monkeypatch.setattr(home.LocalFile, "read", counted)
    return places


def test_entries_lie_in_the_order_in_which_they_are_read(folder):
    with zipfile.ZipFile(folder / SHARD) as archive:
        names = [entry.filename for entry in archive.infolist()]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    large = [name for name in names if not is_small(name)]
    tables = [name for name in names if is_small(name) and "/c/" in name]
    assert names == large + tables + sorted(name for name in names if name.endswith("zarr.json"))
    arrays = [name.split("/c/")[0] for name in large]
    assert [array for array, _ in itertools.groupby(arrays)] == STORED
    for array in STORED:
        numbers = [int(name.split("/c/")[1].split("/")[0]) for name in large if name.startswith(f"{array}/c/")]
        assert numbers == list(range(len(numbers)))
    assert arrays.count("cloud/point") > 9 and arrays.count("pair/first") > 9  # where letters have another order


def test_equal_sequences_are_equal_bytes_and_zarr_reads_every_array(folder, tmp_path):
    zarr = pytest.importorskip("zarr")
    assert (write_large(tmp_path / "again") / SHARD).read_bytes() == (folder / SHARD).read_bytes()
    shard = zarr_reader.ZipShard(folder / SHARD)
    with zarr.storage.ZipStore(folder / SHARD, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        assert sorted(shard.arrays) == sorted(name for name, node in group.members(max_depth=None) if "/" in name)
        for name in shard.arrays:
            assert np.array_equal(group[name][:], shard.read(name, 0, shard.length(name)), equal_nan=True), name


def test_what_is_written_is_read(folder):
    sequences = [sequence for recording in make_recordings() for sequence in recording]
    for written, read in zip(sequences, open_dataset(folder), strict=True):
        assert contents(read) == contents(written)


def test_a_shard_on_a_disk_opens_with_one_read_and_neighbours_are_one_read(folder, reads, monkeypatch):
    monkeypatch.setattr(home.LocalFile, "at_once", 8 << 20)
    dataset = open_dataset(folder)
    dataset._tables(0)
    assert len(reads) == 1
    dataset[0].frame(0)
    assert len(reads) <= 1 + 4  # points, masks, labels, instances
    reads.clear()
    shard = zarr_reader.ZipShard(folder / SHARD)
    for name in STORED:
        shard.read(name, 0, shard.length(name))
    assert len(reads) == 1 + len(STORED)
    assert sum(length for _, length in reads) <= (folder / SHARD).stat().st_size + zarr_reader._TAIL


def test_what_lies_side_by_side_is_read_in_pieces_of_bounded_size(folder, reads):
    shard = zarr_reader.ZipShard(folder / SHARD)
    whole = shard.read("cloud/point", 0, shard.length("cloud/point"))
    reads.clear()
    assert np.array_equal(shard.read("cloud/point", 0, len(whole)), whole)
    assert len(reads) > 2 and max(length for _, length in reads) <= home.LocalFile.at_once


@pytest.mark.parametrize("tail", [100, 4000, 20_000])
def test_a_directory_longer_than_the_first_read_takes_a_second_or_third(folder, expected, reads, monkeypatch, tail):
    monkeypatch.setattr(zarr_reader, "_TAIL", tail)
    dataset = open_dataset(folder)
    dataset._tables(0)
    assert 2 <= len(reads) <= 3
    assert contents(dataset[0]) == expected[0]


def test_a_shard_whose_entries_are_in_another_order_is_read(folder, expected, reads, tmp_path):
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))
    with zipfile.ZipFile(folder / SHARD) as before, zipfile.ZipFile(copy / SHARD, "w") as after:
        for entry in sorted(before.infolist(), key=lambda entry: entry.filename):
            after.writestr(zipfile.ZipInfo(entry.filename, entry.date_time), before.read(entry))
    assert [contents(open_dataset(copy)[i]) for i in (0, 5)] == [expected[0], expected[5]]
    assert all(length < 2 << 20 for _, length in reads)  # none that reaches from the first table to the last


def test_few_requests_open_a_data_set_and_read_its_sequences(web, expected):
    with web.counted() as opening:
        dataset = open_dataset(web.url)
    assert [request.path for request in opening] == ["/dataset.json"]
    with web.counted() as opening:
        dataset._tables(0)
    assert len(opening) == 1 and opening[0].size < zarr_reader._TAIL + (256 << 10)
    with web.counted() as first:
        dataset[0].frame(0)
    assert len(first) <= 3  # points, masks, labels
    with web.counted() as others:
        for i in range(1, 4):
            dataset[i].frame(0)
    assert len(others) <= 2  # of three sequences
    with web.counted() as all_others:
        assert [contents(sequence) for sequence in dataset] == expected
    assert len(all_others) <= 12
    assert all(request.start is not None for request in web.requests[1:])
    shards = sum(entry["bytes"] for entry in dataset.manifest["shards"])
    assert sum(request.size for request in web.requests) < 1.5 * shards


def test_a_far_data_set_gives_everything_that_a_near_one_gives(web, folder, expected):
    near, far = open_dataset(folder), open_dataset(web.url + "/")
    assert (far.digest, far.config, far.ids, len(far)) == (near.digest, near.config, near.ids, len(near))
    assert repr(far) == repr(near).replace(str(folder), web.url)
    assert contents(far["room2/003"]) == contents(far[-1]) == expected[-1]
    assert np.array_equal(far.floor_plan(3).valid, near.floor_plan(3).valid)
    tables = far._tables(1)
    assert np.array_equal(tables.shard.read("pair/first", 5, 900), near._tables(1).shard.read("pair/first", 5, 900))


def test_blocks_that_are_kept_are_bounded(web, monkeypatch):
    dataset = open_dataset(web.url)
    monkeypatch.setattr(dataset.home.blocks, "most", 3)
    for sequence in dataset:
        contents(sequence)
        assert len(dataset.home.blocks._block) <= 3


def test_a_file_system_without_http_reads_the_same(folder, expected):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/far/data", recursive=True)
    try:
        assert contents(open_dataset("memory://far/data")[7]) == expected[7]
    finally:
        memory.rm("/far", recursive=True)


def test_a_url_of_a_file_is_a_folder_on_the_disk(folder, expected):
    dataset = open_dataset(folder.as_uri())
    assert dataset.home == home.LocalHome(folder)
    assert contents(dataset[2]) == expected[2]


def test_options_reach_the_file_system_and_secrets_stay_out_of_messages(web):
    address = web.url.replace("http://", "http://me:secret@") + "/?key=secret"
    dataset = open_dataset(address, {"headers": {"X-Asked-By": "tests"}})
    assert web.requests[-1].path == "/dataset.json?key=secret"
    assert web.headers["X-Asked-By"] == "tests" and web.headers["Authorization"].startswith("Basic ")
    assert repr(dataset).startswith(f"<Dataset {web.url}, ")
    assert pickle.loads(pickle.dumps(dataset)).home == dataset.home != open_dataset(address).home


def test_threads_share_a_far_data_set(web, expected):
    dataset, found = open_dataset(web.url), {}

    def read(first: int) -> None:
        for i in range(first, 12, 4):
            found[i] = contents(dataset[i])

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [found[i] for i in range(12)] == expected


def _column(pipe, sent) -> None:
    """In another process: the labels of a cloud, or all of a sequence."""
    pipe.send(sent[0][1].label.tobytes() if isinstance(sent, list) else contents(sent[4]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("what", ["data set", "cloud"])
def test_another_process_reads_what_it_was_sent(web, expected, method, what):
    dataset = open_dataset(web.url)
    cloud = dataset[4].actors[0].cloud
    assert pickle.loads(pickle.dumps(cloud)).point.tobytes() == cloud.point.tobytes()
    sent = dataset if what == "data set" else [("cloud", pickle.loads(pickle.dumps(cloud)))]
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_column, args=(there, sent))
    process.start()
    assert here.poll(30), "no answer"
    assert here.recv() == (expected[4] if what == "data set" else cloud.label.tobytes())
    process.join(30)
    assert process.exitcode == 0


def test_a_forked_child_that_drops_a_data_set_leaves_its_parent_connected(web, expected):
    """Both share the kernel's list of connections to watch: a child that closed its copy would have its parent wait."""
    kept = [open_dataset(web.url)]
    assert contents(kept[0][0]) == expected[0]

    def drop() -> int:
        mine = kept.pop()
        same = contents(mine[8]) == expected[8]
        del mine
        gc.collect()
        return 0 if same else 1

    began = time.monotonic()
    assert wait(child(drop)) == 0
    assert [contents(sequence) for sequence in kept[0]] == expected
    assert time.monotonic() - began < 10


def test_a_loader_of_two_workers_streams_sequences(web, folder):
    data = pytest.importorskip("torch.utils.data", reason="the loader is torch's")
    loader = data.DataLoader(open_dataset(web.url), batch_size=None, num_workers=2, timeout=60)
    near = open_dataset(folder)
    for streamed, stored in zip(loader, near, strict=True):
        assert streamed.id == stored.id
        assert streamed.frame(1).point.tobytes() == stored.frame(1).point.tobytes()
        assert np.array_equal(streamed.actors[0].cloud.vertex, stored.actors[0].cloud.vertex)


def test_commands_take_a_url(tmp_path):
    folder = commands.build(commands.write_rooms(tmp_path, rooms=3))
    with serve(folder) as web:
        for arguments in (["inspect"], ["inspect", "room1/001"], ["verify", "--quick"], ["verify"]):
            command, *more = arguments
            far, near = commands.gen4d(command, web.url, *more), commands.gen4d(command, folder, *more)
            assert far == near._replace(out=near.out.replace(str(folder), web.url))
            assert far.code == 0 and far.out
        for source, name in ((web.url, "far"), (folder, "near")):
            assert commands.gen4d("view", source, "--out", tmp_path / f"{name}.png").code == 0
            assert commands.gen4d("export", source, "--out", tmp_path / name).code == 0
    assert (tmp_path / "far.png").read_bytes() == (tmp_path / "near.png").read_bytes()
    assert equal.files_of(tmp_path / "far") == equal.files_of(tmp_path / "near")


def test_a_data_set_on_a_disk_needs_no_fsspec(folder):
    code = f"import gen4d, sys; gen4d.open_dataset({str(folder)!r})[0].frame(0); print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(commands.ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "gen4d.shards.home" in done.stdout.split()
    assert not {"gen4d.shards.remote", "fsspec", "aiohttp"} & set(done.stdout.split())
