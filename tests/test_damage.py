"""Damaged data sets: `verify` finds every changed bit and names the file; the reader yields nothing damaged."""

import hashlib
import os
import pathlib
import shutil
import signal
import zipfile

import google_crc32c
import numpy as np
import pytest
import zarr

from gen4d import verify
from gen4d.format import ARRAYS, FormatError, row_shape
from gen4d.shards import open_dataset
from gen4d.zipshard import read_directory
from tests import faults, tiny
from tests.faults import SOAK, scaled
from tests.tiny import gen4d


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return tiny.write_rooms(tmp_path_factory.mktemp("rooms"), 3)


@pytest.fixture(scope="module")
def built(rooms):
    """One shard of one sequence: the smallest data set there is."""
    return tiny.build(rooms, "--limit", "1", "--sequences", "1", out="small")


@pytest.fixture(scope="module")
def three(rooms):
    """Three shards of two sequences, with pair lists."""
    return tiny.build(rooms, "--pairs", out="three")


@pytest.fixture(scope="module")
def exported(three, rooms):
    assert gen4d("export", three, "--out", rooms / "exported").code == 0
    return rooms / "exported"


@pytest.fixture
def copy(built, tmp_path):
    return pathlib.Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def copy_of_three(three, tmp_path):
    return pathlib.Path(shutil.copytree(three, tmp_path / "copy"))


class Patched:
    """A file that can be changed in place and put right again."""

    def __init__(self, path: pathlib.Path):
        self.path, self.content = path, path.read_bytes()
        self.descriptor = os.open(path, os.O_WRONLY)

    def flip(self, byte: int, bits: int) -> None:
        os.pwrite(self.descriptor, bytes([self.content[byte] ^ bits]), byte)

    def put(self, byte: int, piece: bytes) -> None:
        os.pwrite(self.descriptor, piece, byte)

    def restore(self, byte: int, length: int = 1) -> None:
        os.pwrite(self.descriptor, self.content[byte : byte + length], byte)

    def cut(self, length: int) -> None:
        os.truncate(self.path, length)

    def mend(self) -> None:
        os.truncate(self.path, len(self.content))
        os.pwrite(self.descriptor, self.content, 0)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.mend()
        os.close(self.descriptor)


def problems(folder: pathlib.Path, dataset=None) -> list[str]:
    """What verify says, opening the folder unless it is open already."""
    try:
        return [line for line in verify.verify(dataset or open_dataset(folder)) if line]
    except FormatError as error:
        return [str(error)]


def first_problem(folder: pathlib.Path, dataset=None) -> str:
    """The first thing that verify says, or nothing; it need not look at the rest then."""
    try:
        return next((line for line in verify.verify(dataset or open_dataset(folder)) if line), "")
    except FormatError as error:
        return str(error)


def digest(sequence) -> str:
    """One hash of all that a sequence gives."""
    total = hashlib.sha256(repr((sequence.id, sequence.scan, sequence.shape, sequence.class_name)).encode())
    for frame in sequence.frames:
        for column in frame:
            total.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    for actor in sequence.actors:
        total.update(actor.pose.tobytes() + actor.cloud.vertex.tobytes() + bytes([actor.role]))
    return total.hexdigest()


def read(folder: pathlib.Path) -> list[str | None]:
    """The hash of every sequence, None where the reader refuses it."""
    try:
        dataset = open_dataset(folder)
    except FormatError:
        return []
    result = []
    for i in range(len(dataset)):
        try:
            result.append(digest(dataset[i]))
        except FormatError:
            result.append(None)
    return result


# B1: single bits


@pytest.mark.parametrize("name", ["dataset.json", "build.json", "shards/00000.json"])
def test_every_bit_of_every_json_file_is_found_by_verify(copy, name):
    dataset = open_dataset(copy)
    with Patched(copy / name) as file:
        for byte in range(len(file.content)):
            for bit in range(8):
                file.flip(byte, 1 << bit)
                found = first_problem(copy, None if name == "dataset.json" else dataset)
                assert str(copy / name) in found, (byte, bit)
            file.restore(byte)
    assert problems(copy) == []


def _check_bits(copy, bits) -> None:
    dataset, path = open_dataset(copy), copy / "shards/00000.zarr.zip"
    with Patched(path) as file:
        for byte in range(len(file.content)):
            for bit in bits(byte):
                file.flip(byte, 1 << bit)
                assert str(path) in first_problem(copy, dataset), (byte, bit)
            file.restore(byte)
    assert problems(copy) == []


def test_one_bit_of_every_byte_of_a_shard_is_found_by_verify(copy):
    """Every bit of it in a long run: that takes minutes."""
    _check_bits(copy, lambda byte: range(8) if SOAK else (byte * 5 % 8,))


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
def test_the_reader_never_yields_a_sequence_of_a_shard_with_a_flipped_bit(copy, part):
    """Of every kind of byte some, in a long run all: what is read equals what was written, or nothing is read."""
    path = copy / "shards/00000.zarr.zip"
    rng = np.random.default_rng(22)
    places = _parts(path)[part]
    chosen = places if SOAK else rng.choice(places, 500, replace=False).tolist()
    refused, harmless = _check_reader(copy, path, [(byte, int(rng.integers(8))) for byte in chosen])
    if part == "directory":  # dates, versions and rights of the entries stand there too, and are not data
        assert refused > harmless
    else:
        assert refused > 0.9 * len(chosen)  # the rest belongs to arrays that sequences do not show


def test_the_reader_never_yields_a_sequence_of_an_hdf5_shard_with_a_flipped_bit(built, tmp_path):
    """In a process of its own, because the library under it could crash."""
    folder = tmp_path / "export"
    assert gen4d("export", built, "--out", folder).code == 0
    path = folder / "shards/00000.h5"
    rng = np.random.default_rng(23)
    places = rng.integers(path.stat().st_size, size=scaled(250, 20_000)).tolist()
    flips = [(byte, int(rng.integers(8))) for byte in places]

    def check():
        _check_reader(folder, path, flips)
        return 0

    assert faults.wait(faults.child(check), scaled(60, 6000)) == 0


def test_five_thousand_flipped_bits_of_chunks_are_all_errors_for_plain_zarr(three):
    """Without the zip's CRC-32: by the crc32c that is each array's last codec."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    with zipfile.ZipFile(three / "shards/00000.zarr.zip") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
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


# B2: larger damage


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


# B3: lengths, and files that are not where or what they should be


@pytest.mark.parametrize("name", ["dataset.json", "build.json", "shards/00000.json", "shards/00000.zarr.zip"])
def test_every_truncation_of_every_file_is_found_by_verify(copy, name):
    dataset = open_dataset(copy)
    with Patched(copy / name) as file:
        for length in range(len(file.content) - 1, -1, -1):
            file.cut(length)
            assert str(copy / name) in first_problem(copy, None if name == "dataset.json" else dataset), length
        if name.endswith(".zip"):
            assert read(copy) == [None]
    assert problems(copy) == []


def test_a_file_that_grew_is_found_by_verify(copy):
    for name in ("dataset.json", "build.json", "shards/00000.json", "shards/00000.zarr.zip"):
        with Patched(copy / name) as file:
            file.put(len(file.content), b"\n")
            assert any(str(copy / name) in line for line in problems(copy))


def _delete(folder, name):
    (folder / name).unlink()


def _empty(folder, name):
    (folder / name).write_bytes(b"")


def _folder_instead(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()


def _swap(folder, name):
    other = folder / name.replace("00000", "00001")
    one, two = (folder / name).read_bytes(), other.read_bytes()
    (folder / name).write_bytes(two)
    other.write_bytes(one)


def _stale(rooms):
    """The same file of a build with another seed."""

    def change(folder, name):
        older = rooms / "older"
        if not older.exists():
            tiny.build(rooms, "--pairs", "--seed", "9", out="older")
        shutil.copy(older / name, folder / name)

    return change


CHANGES = {
    "deleted shard": (_delete, "shards/00000.zarr.zip", "the shard is missing; restore it"),
    "deleted description": (_delete, "shards/00000.json", "description is missing; restore it"),
    "deleted build.json": (_delete, "build.json", "No such file"),
    "deleted dataset.json": (_delete, "dataset.json", "not there; the build is not finished"),
    "empty shard": (_empty, "shards/00000.zarr.zip", "has 0 bytes, dataset.json says"),
    "empty description": (_empty, "shards/00000.json", "not a sealed JSON file"),
    "empty build.json": (_empty, "build.json", "not a sealed JSON file"),
    "empty dataset.json": (_empty, "dataset.json", "not a sealed JSON file"),
    "a folder as shard": (_folder_instead, "shards/00000.zarr.zip", "00000.zarr.zip"),
    "a folder as description": (_folder_instead, "shards/00000.json", "Is a directory"),
    "swapped shards": (_swap, "shards/00000.zarr.zip", "bytes, dataset.json says"),
    "swapped descriptions": (_swap, "shards/00000.json", "is of another build than dataset.json"),
    "stale shard": ("stale", "shards/00000.zarr.zip", "dataset.json"),
    "stale description": ("stale", "shards/00000.json", "is of another build than dataset.json"),
    "stale build.json": ("stale", "build.json", "is of another build than dataset.json"),
    "stale dataset.json": ("stale", "dataset.json", "build.json"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_file_that_is_not_what_it_should_be_is_named(copy_of_three, rooms, case):
    change, name, part = CHANGES[case]
    whole = read(copy_of_three)
    (_stale(rooms) if change == "stale" else change)(copy_of_three, name)
    outcome = gen4d("verify", copy_of_three)
    assert outcome.code == 1
    assert "Traceback" not in outcome.text
    about = [line for line in outcome.err.splitlines() if name in line]
    assert about, outcome.err
    assert part in "\n".join(about)
    if "shards" in name:
        assert "room0" in "\n".join(about)  # what it costs
    after = read(copy_of_three)
    if case != "stale dataset.json":  # which then is the data set
        assert all(one in (None, other) for one, other in zip(after, whole, strict=bool(after)))


def _put_stranger(folder: pathlib.Path, other: pathlib.Path, size: bool) -> None:
    """A shard of another build under its name; `size`: dataset.json is made to agree with its size."""
    from gen4d.format import seal, unseal

    path = folder / "shards/00000.zarr.zip"
    shutil.copy(other / "shards/00000.zarr.zip", path)
    if size:
        manifest = unseal((folder / "dataset.json").read_bytes(), "")
        manifest["shards"][0]["bytes"] = path.stat().st_size
        (folder / "dataset.json").write_bytes(seal(manifest))


def test_a_shard_of_the_same_scan_before_it_changed_is_not_read(copy, rooms, tmp_path):
    """Same names, counts and config: another size gives it away."""
    tiny.write_rooms(tmp_path / "older", 1, points=149)
    other = tiny.build(tmp_path / "older", "--sequences", "1")
    _put_stranger(copy, other, size=False)
    with pytest.raises(FormatError, match=r"00000\.zarr\.zip: has \d+ bytes, dataset\.json says"):
        open_dataset(copy)[0]


def test_a_shard_of_another_seed_is_not_read_whatever_its_size(copy, rooms, tmp_path):
    tiny.build(rooms, "--limit", "1", "--sequences", "1", "--seed", "8", "--out", str(tmp_path / "other"))
    _put_stranger(copy, tmp_path / "other", size=True)
    with pytest.raises(FormatError, match=r"00000\.zarr\.zip: is of another config than dataset\.json"):
        open_dataset(copy)[0]


@pytest.mark.parametrize("name", ["notes.txt", "shards/00003.zarr.zip", "shards/00000.json.17.tmp", "shards/more/x"])
def test_an_extra_file_is_named_and_harms_nobody(copy_of_three, name):
    whole = read(copy_of_three)
    (copy_of_three / name).parent.mkdir(exist_ok=True)
    (copy_of_three / name).write_bytes(b"mine")
    outcome = gen4d("verify", copy_of_three)
    assert outcome.code == 1
    stranger = copy_of_three / ("shards/more" if "more" in name else name)
    assert outcome.err.splitlines() == [
        f"{stranger}: not part of the data set: remove it, or finish the build that it belongs to"
    ]
    assert read(copy_of_three) == whole


def test_quick_verification_finds_names_and_sizes(copy_of_three):
    (copy_of_three / "notes.txt").write_text("mine")
    os.truncate(copy_of_three / "shards/00001.zarr.zip", 5000)
    (copy_of_three / "shards/00002.zarr.zip").unlink()
    outcome = gen4d("verify", copy_of_three, "--quick")
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 3


def test_every_damaged_shard_is_named_not_only_the_first(copy_of_three):
    for number in range(3):
        with open(copy_of_three / f"shards/0000{number}.zarr.zip", "r+b") as file:
            file.seek(3000)
            file.write(b"damage")
    outcome = gen4d("verify", copy_of_three)
    assert len(outcome.err.splitlines()) == 3
    for number in range(3):
        assert f"0000{number}.zarr.zip" in outcome.err
        assert f"(room{number} to room{number})" in outcome.err


def _rewrite(path: pathlib.Path, name: str, content: bytes) -> None:
    """Replace one entry of a shard, and make dataset.json and the description agree with the new file."""
    from gen4d.format import seal, unseal

    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    entries[name] = content
    with zipfile.ZipFile(path, "w") as archive:
        for entry, body in entries.items():
            archive.writestr(zipfile.ZipInfo(entry), body)
    shard = path.read_bytes()
    described = {"bytes": len(shard), "content_sha256": hashlib.sha256(shard).hexdigest()}
    sidecar = path.with_name(path.name[:5] + ".json")
    sidecar.write_bytes(seal(unseal(sidecar.read_bytes(), "") | described))
    manifest = unseal((path.parents[1] / "dataset.json").read_bytes(), "")
    manifest["shards"][int(path.name[:5])] |= described | {
        "sidecar_sha256": hashlib.sha256(sidecar.read_bytes()).hexdigest()
    }
    (path.parents[1] / "dataset.json").write_bytes(seal(manifest))


def _chunk(name: str, values: np.ndarray) -> bytes:
    import numcodecs

    body = numcodecs.Blosc("zstd", 1).encode(np.ascontiguousarray(values, ARRAYS[name].dtype))
    return body + google_crc32c.value(body).to_bytes(4, "little")


def test_a_chunk_under_the_name_of_another_is_refused(copy):
    """The directory of the zip says where labels lie, and instances lie there; every checksum is right."""
    path = copy / "shards/00000.zarr.zip"
    content = bytearray(path.read_bytes())
    one, other = (content.rindex(f"cloud/{name}/c/0".encode()) - 46 for name in ("label", "instance"))
    for field in (slice(16, 28), slice(42, 46)):  # checksum and sizes, and the place
        for at in (one, other):
            assert content[at : at + 4] == b"PK\1\2"
        a, b = (slice(at + field.start, at + field.stop) for at in (one, other))
        content[a], content[b] = content[b], content[a]
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"cloud/label/c/0 is not where the directory says"):
        open_dataset(copy)[0]


@pytest.mark.parametrize("bit", range(8))
def test_verify_checks_down_to_padding_bits(copy, bit):
    """With every hash made to fit: a mask has bits where the cloud has no points."""
    path = copy / "shards/00000.zarr.zip"
    group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    mask, points = group["actor/mask"][:], int(np.diff(group["cloud/start"][:])[0])
    group.store.close()
    last, padding = (points + 7) // 8 - 1, -points % 8
    mask[last] |= 1 << bit
    _rewrite(path, "actor/mask/c/0", _chunk("actor/mask", mask))
    if bit < padding:
        assert "padding bits" in problems(copy)[0]
        assert read(copy) == [None]
    else:
        assert problems(copy) == []


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("cloud/point", lambda rows: np.where(rows == rows.max(), np.nan, rows), "not finite"),
        ("actor/pose", lambda rows: rows * 1.01, "not rigid"),
        ("actor/role", lambda rows: rows + 7, "unknown role"),
        ("actor/cloud", lambda rows: rows + 5, "actor/cloud"),
        ("sequence/scan", lambda rows: rows + 1, "other scans or sequences"),
    ],
)
def test_verify_checks_the_tables_themselves(copy, name, change, part):
    """With every hash made to fit."""
    path = copy / "shards/00000.zarr.zip"
    group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    rows = group[name][:]
    group.store.close()
    entry = f"{name}/c/0" + "/0" * len(row_shape(ARRAYS[name], 4))
    _rewrite(path, entry, _chunk(name, change(rows)))
    found = problems(copy)
    assert found
    assert part.replace("other scans or sequences", "its sequences") in found[0] or part in found[0]


def test_blosc_bodies_with_damage_behind_a_right_checksum_never_crash(copy):
    """What only an attacker writes: the decompressor is given garbage, in a process of its own."""
    path = copy / "shards/00000.zarr.zip"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    rng = np.random.default_rng(26)
    names = [name for name in entries if "/c/" in name]

    def check():
        for trial in range(scaled(200, 20_000)):
            name = names[trial % len(names)]
            body = bytearray(entries[name][:-4])
            for place in rng.integers(len(body), size=int(rng.integers(1, 4))).tolist():
                body[place] = int(rng.integers(256))
            _rewrite(path, name, bytes(body) + google_crc32c.value(bytes(body)).to_bytes(4, "little"))
            read(copy)
        return 0

    code = faults.wait(faults.child(check), scaled(60, 6000))
    assert code == 0, signal.Signals(-code) if code < 0 else code
