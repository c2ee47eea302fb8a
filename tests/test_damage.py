"""Damaged data sets: `verify` finds every changed bit and names the file; the reader yields nothing damaged."""

import pathlib
import shutil

import numpy as np
import pytest
import zarr

from gen4d.shards import open_dataset
from gen4d.shards.zarr_reader import read_directory
from tests import faults
from tests.damage import Patched, entries_of, first_problem, problems, read
from tests.faults import SOAK, scaled
from tests.makers.commands import gen4d


@pytest.fixture(scope="module")
def exported(three_shards, three_rooms):
    assert gen4d("export", three_shards, "--out", three_rooms / "exported").code == 0
    return three_rooms / "exported"


# Single bits


@pytest.mark.parametrize("name", ["dataset.json", "build.json", "shards/00000.json"])
def test_every_bit_of_every_json_file_is_found_by_verify(copy_of_one, name):
    dataset = open_dataset(copy_of_one)
    with Patched(copy_of_one / name) as file:
        for byte in range(len(file.content)):
            for bit in range(8):
                file.flip(byte, 1 << bit)
                found = first_problem(copy_of_one, None if name == "dataset.json" else dataset)
                assert str(copy_of_one / name) in found, (byte, bit)
            file.restore(byte)
    assert problems(copy_of_one) == []


def _check_bits(folder, bits) -> None:
    dataset, path, count = open_dataset(folder), folder / "shards/00000.zarr.zip", 0
    with Patched(path) as file:
        for byte in range(len(file.content)):
            for bit in bits(byte):
                count += 1
                file.flip(byte, 1 << bit)
                assert str(path) in first_problem(folder, dataset), (byte, bit)
            file.restore(byte)
    assert problems(folder) == []
    print(f"{count} bits of a shard of {len(file.content)} bytes found by verify")


def test_one_bit_of_every_byte_of_a_shard_is_found_by_verify(copy_of_one):
    """Every bit of it in a long run: that takes minutes."""
    _check_bits(copy_of_one, lambda byte: range(8) if SOAK else (byte * 5 % 8,))


def test_sampled_bits_of_three_shards_and_an_export_are_found_by_verify(copy_of_three, exported, tmp_path):
    rng = np.random.default_rng(21)
    export = pathlib.Path(shutil.copytree(exported, tmp_path / "export"))
    for folder in (copy_of_three, export):
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        assert len(paths) == 8
        for path in paths:
            with Patched(path) as file:
                for byte in rng.integers(len(file.content), size=scaled(12, 2000)).tolist():
                    file.flip(byte, 1 << int(rng.integers(8)))
                    assert str(path) in first_problem(folder), (path, byte)
                    file.restore(byte)


def _check_reader(folder: pathlib.Path, path: pathlib.Path, flips) -> tuple[int, int]:
    """Flip bits; a sequence is read as it was, or refused. Returns how many flips were refused, and how many not."""
    whole, refused, harmless = read(folder), 0, 0
    assert None not in whole
    with Patched(path) as file:
        for byte, bit in flips:
            file.flip(byte, 1 << bit)
            after = read(folder)
            assert all(one in (None, other) for one, other in zip(after, whole, strict=bool(after))), (byte, bit)
            refused, harmless = refused + (after != whole), harmless + (after == whole)
            file.restore(byte)
    assert read(folder) == whole
    print(f"{len(flips)} flipped bits: {refused} refused, {harmless} harmless, none read wrong")
    return refused, harmless


def _parts(path: pathlib.Path) -> dict[str, list[int]]:
    """Bytes of a shard by what they are."""
    content = path.read_bytes()
    places = read_directory(path)
    parts = {"header": [], "metadata": [], "chunk": []}
    for name, place in places.items():
        body = place.offset + len(place.header)
        parts["header"] += range(place.offset, body)
        parts["metadata" if name.endswith("zarr.json") else "chunk"] += range(body, body + place.size)
    end = max(part[-1] for part in parts.values()) + 1
    parts["directory"] = list(range(end, len(content)))
    assert sum(map(len, parts.values())) == len(content)
    return parts


@pytest.mark.parametrize("part", ["header", "metadata", "chunk", "directory"])
def test_the_reader_never_yields_a_sequence_of_a_shard_with_a_flipped_bit(copy_of_one, part):
    """Of every kind of byte some, in a long run all: what is read equals what was written, or nothing is read."""
    path = copy_of_one / "shards/00000.zarr.zip"
    rng = np.random.default_rng(22)
    places = _parts(path)[part]
    chosen = places if SOAK else rng.choice(places, 500, replace=False).tolist()
    refused, harmless = _check_reader(copy_of_one, path, [(byte, int(rng.integers(8))) for byte in chosen])
    if part == "directory":  # dates, versions and rights of the entries stand there too, and are not data
        assert refused > harmless
    else:
        assert refused > 0.8 * len(chosen)  # the rest belongs to groups and arrays that sequences do not need


def test_the_reader_never_yields_a_sequence_of_an_hdf5_shard_with_a_flipped_bit(one_sequence, tmp_path):
    """In a process of its own, because the library under it could crash."""
    folder = tmp_path / "export"
    assert gen4d("export", one_sequence, "--out", folder).code == 0
    path = folder / "shards/00000.h5"
    rng = np.random.default_rng(23)
    places = rng.integers(path.stat().st_size, size=scaled(250, 20_000)).tolist()
    flips = [(byte, int(rng.integers(8))) for byte in places]

    def check():
        _check_reader(folder, path, flips)
        return 0

    assert faults.wait(faults.child(check), scaled(60, 6000)) == 0


def test_five_thousand_flipped_bits_of_chunks_are_all_errors_for_plain_zarr(three_shards):
    """Without the zip's CRC-32: by the crc32c that is each array's last codec."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    entries = entries_of(three_shards / "shards/00000.zarr.zip")
    buffer = default_buffer_prototype().buffer
    chunks = [name for name in entries if "/c/" in name]
    rng = np.random.default_rng(24)
    store = MemoryStore({name: buffer.from_bytes(content) for name, content in entries.items()})
    arrays = {name: zarr.open_array(store, path=name.split("/c/")[0], mode="r") for name in chunks}
    for trial in range(5000):
        name = chunks[trial % len(chunks)]
        content = bytearray(entries[name])
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        store._store_dict[name] = buffer.from_bytes(bytes(content))
        with pytest.raises(Exception, match=r"(?i)checksum|crc32c"):
            arrays[name][:]
        store._store_dict[name] = buffer.from_bytes(entries[name])


# Larger damage


def _damage(rng: np.random.Generator, length: int) -> tuple[int, bytes]:
    """A place in a file and bytes for it: random ones, zeros or ones over a sector, or two flipped bits."""
    kind = int(rng.integers(4))
    size = min((2, 512, 4096, 64)[kind], length)
    start = int(rng.integers(max(1, length - size + 1)))
    start -= start % 512 if kind in (1, 2) and start >= 512 else 0
    return start, (bytes(size), b"\xff" * size, rng.bytes(size), rng.bytes(size))[kind]


def test_random_damage_is_found_by_verify_and_never_read(copy_of_three):
    rng = np.random.default_rng(25)
    paths = sorted(path for path in copy_of_three.rglob("*") if path.is_file())
    whole = read(copy_of_three)
    for trial in range(scaled(150, 10_000)):
        path = paths[trial % len(paths)]
        with Patched(path) as file:
            start, piece = _damage(rng, len(file.content))
            if file.content[start : start + len(piece)] == piece:
                continue
            file.put(start, piece)
            assert any(str(path) in line for line in problems(copy_of_three)), (path, start)
            after = read(copy_of_three)
            assert all(one in (None, other) for one, other in zip(after, whole, strict=bool(after))), (path, start)


# Lengths


@pytest.mark.parametrize("name", ["dataset.json", "build.json", "shards/00000.json", "shards/00000.zarr.zip"])
def test_every_truncation_of_every_file_is_found_by_verify(copy_of_one, name):
    dataset = open_dataset(copy_of_one)
    with Patched(copy_of_one / name) as file:
        for length in range(len(file.content) - 1, -1, -1):
            file.cut(length)
            found = first_problem(copy_of_one, None if name == "dataset.json" else dataset)
            assert str(copy_of_one / name) in found, length
        if name.endswith(".zip"):
            assert read(copy_of_one) == [None]
    assert problems(copy_of_one) == []


def test_a_file_that_grew_is_found_by_verify(copy_of_one):
    for name in ("dataset.json", "build.json", "shards/00000.json", "shards/00000.zarr.zip"):
        with Patched(copy_of_one / name) as file:
            file.put(len(file.content), b"\n")
            assert any(str(copy_of_one / name) in line for line in problems(copy_of_one))
