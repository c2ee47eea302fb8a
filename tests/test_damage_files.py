"""Files of a data set that are not what or where they should be, and tables that lie behind right hashes."""

import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
import zarr

from gen4d.shards import open_dataset
from gen4d.shards.format import ARRAYS, FormatError, row_shape, seal, unseal
from tests import faults
from tests.damage import adopt, entries_of, packed, problems, read, with_crc, write_zip
from tests.equal import files_of
from tests.faults import scaled
from tests.makers import commands
from tests.makers.commands import gen4d


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


def _stale(three_rooms):
    """The same file of a build with another seed."""

    def change(folder, name):
        older = three_rooms / "older"
        if not older.exists():
            commands.build(three_rooms, "--pairs", "--seed", "9", out="older")
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
def test_a_file_that_is_not_what_it_should_be_is_named(copy_of_three, three_rooms, case):
    change, name, part = CHANGES[case]
    whole = read(copy_of_three)
    (_stale(three_rooms) if change == "stale" else change)(copy_of_three, name)
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


REPAIRED = ["deleted shard", "deleted description", "deleted dataset.json", "empty shard", "empty description"]
REPAIRED += ["empty dataset.json", "swapped descriptions", "stale dataset.json"]


@pytest.mark.parametrize("case", REPAIRED)
def test_the_same_build_run_again_repairs_what_it_can_see(three_rooms, three_shards, case):
    change, name, _ = CHANGES[case]
    whole = files_of(three_shards)
    repaired = pathlib.Path(shutil.copytree(three_shards, three_rooms / f"repaired {case}"))
    (_stale(three_rooms) if change == "stale" else change)(repaired, name)
    outcome = gen4d(*commands.build_arguments(three_rooms, "--pairs", out=repaired.name))
    assert outcome.code == 0, outcome.text
    assert files_of(repaired) == whole


def test_a_damaged_shard_is_repaired_when_it_is_deleted(three_rooms, three_shards):
    whole = files_of(three_shards)
    repaired = pathlib.Path(shutil.copytree(three_shards, three_rooms / "deleted"))
    assert gen4d("export", repaired, "--out", three_rooms / "deleted h5").code == 0
    exported = files_of(three_rooms / "deleted h5")
    for path in (repaired / "shards/00001.zarr.zip", three_rooms / "deleted h5/shards/00001.h5"):
        with open(path, "r+b") as file:
            file.seek(3000)
            file.write(b"damage")
        outcome = gen4d("verify", path.parents[1])
        assert f"{path}: " in outcome.err
        assert "delete it and run the command that wrote it again" in outcome.err
        path.unlink()
    assert gen4d(*commands.build_arguments(three_rooms, "--pairs", out=repaired.name)).code == 0
    assert files_of(repaired) == whole
    assert gen4d("export", repaired, "--out", three_rooms / "deleted h5").code == 0
    assert files_of(three_rooms / "deleted h5") == exported


def _put_stranger(folder: pathlib.Path, other: pathlib.Path, size: bool) -> None:
    """A shard of another build under its name; `size`: dataset.json is made to agree with its size."""
    path = folder / "shards/00000.zarr.zip"
    shutil.copy(other / "shards/00000.zarr.zip", path)
    if size:
        manifest = unseal((folder / "dataset.json").read_bytes(), "")
        manifest["shards"][0]["bytes"] = path.stat().st_size
        (folder / "dataset.json").write_bytes(seal(manifest))


def test_a_shard_of_the_same_scan_before_it_changed_is_not_read(copy_of_one, three_rooms, tmp_path):
    """Same names, counts and config: another size gives it away."""
    commands.write_rooms(tmp_path / "older", 1, points=149)
    other = commands.build(tmp_path / "older", "--sequences", "1")
    _put_stranger(copy_of_one, other, size=False)
    with pytest.raises(FormatError, match=r"00000\.zarr\.zip: has \d+ bytes, dataset\.json says"):
        open_dataset(copy_of_one)[0]


def test_a_shard_of_another_seed_is_not_read_whatever_its_size(copy_of_one, three_rooms, tmp_path):
    commands.build(three_rooms, "--limit", "1", "--sequences", "1", "--seed", "8", "--out", str(tmp_path / "other"))
    _put_stranger(copy_of_one, tmp_path / "other", size=True)
    with pytest.raises(FormatError, match=r"00000\.zarr\.zip: is of another config than dataset\.json"):
        open_dataset(copy_of_one)[0]


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


def test_quick_verification_finds_names_sizes_and_descriptions(copy_of_three, three_rooms):
    (copy_of_three / "notes.txt").write_text("mine")
    _stale(three_rooms)(copy_of_three, "shards/00000.json")
    os.truncate(copy_of_three / "shards/00001.zarr.zip", 5000)
    (copy_of_three / "shards/00002.zarr.zip").unlink()
    outcome = gen4d("verify", copy_of_three, "--quick")
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 4
    assert "00000.json: is of another build than dataset.json" in outcome.err


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
    """Replace one entry of a shard, with every hash made to fit."""
    write_zip(path, (entries_of(path) | {name: content}).items())
    adopt(path)


def test_a_chunk_under_the_name_of_another_is_refused(copy_of_one):
    """The directory of the zip says where labels lie, and instances lie there; every checksum is right."""
    path = copy_of_one / "shards/00000.zarr.zip"
    content = bytearray(path.read_bytes())
    one, other = (content.rindex(f"cloud/{name}/c/0".encode()) - 46 for name in ("label", "instance"))
    for field in (slice(16, 28), slice(42, 46)):  # checksum and sizes, and the place
        for at in (one, other):
            assert content[at : at + 4] == b"PK\1\2"
        a, b = (slice(at + field.start, at + field.stop) for at in (one, other))
        content[a], content[b] = content[b], content[a]
    path.write_bytes(content)
    cloud = open_dataset(copy_of_one)[0].actors[0].cloud
    with pytest.raises(FormatError, match=r"cloud/label/c/0 is not where the directory says"):
        _ = cloud.label


@pytest.mark.parametrize("bit", range(8))
def test_verify_checks_down_to_padding_bits(copy_of_one, bit):
    """With every hash made to fit: a mask has bits where the cloud has no points."""
    path = copy_of_one / "shards/00000.zarr.zip"
    group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    mask, points = group["actor/mask"][:], int(np.diff(group["cloud/start"][:])[0])
    group.store.close()
    last, padding = (points + 7) // 8 - 1, -points % 8
    mask[last] |= 1 << bit
    _rewrite(path, "actor/mask/c/0", packed(mask))
    if bit < padding:
        assert "padding bits" in problems(copy_of_one)[0]
        assert read(copy_of_one) == [None]
    else:
        assert problems(copy_of_one) == []


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("cloud/point", lambda rows: np.where(rows == rows.max(), np.nan, rows), "not finite"),
        ("actor/pose", lambda rows: rows @ np.diag([1.01, 1.01, 1.01, 1]).astype("f4"), "not rigid"),
        ("actor/pose", lambda rows: rows + np.float32(0.1), "last row"),
        ("actor/role", lambda rows: rows + 7, "unknown role"),
        ("actor/cloud", lambda rows: rows + 5, "actor/cloud"),
        ("sequence/scan", lambda rows: rows + 1, "sequence/scan points outside"),
    ],
)
def test_verify_checks_the_tables_themselves(copy_of_one, name, change, part):
    """With every hash made to fit."""
    path = copy_of_one / "shards/00000.zarr.zip"
    group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    rows = group[name][:]
    group.store.close()
    entry = f"{name}/c/0" + "/0" * len(row_shape(ARRAYS[name], 4))
    _rewrite(path, entry, packed(change(rows).astype(ARRAYS[name].dtype)))
    found = problems(copy_of_one)
    assert found
    assert part in found[0]


def _one_pair_elsewhere(rows):
    """The second frame's rows of the first two pairs change places: all rows exist, and none is there twice."""
    rows[:2] = rows[1::-1]
    return rows


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pair/first", _one_pair_elsewhere),
        ("pair/second", _one_pair_elsewhere),
        ("pair/second", lambda rows: np.append(rows[1:], rows[-1])),
        ("pair/start", lambda rows: np.where(np.arange(len(rows)) == 3, rows - 1, rows)),
    ],
)
def test_verify_compares_stored_pairs_with_the_masks(copy_of_three, name, change):
    """With every hash made to fit."""
    path = copy_of_three / "shards/00001.zarr.zip"
    group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    rows, chunk = group[name][:], group[name].chunks[0]
    group.store.close()
    changed = np.zeros(chunk, ARRAYS[name].dtype)
    assert len(rows) <= chunk
    changed[: len(rows)] = change(rows.copy())
    assert (changed[: len(rows)] != rows).any()
    _rewrite(path, f"{name}/c/0", packed(changed))
    found = problems(copy_of_three)
    assert len(found) == 1 and str(path) in found[0] and "room1/000" in found[0]


def test_blosc_bodies_with_damage_behind_a_right_checksum_never_crash(copy_of_one):
    """What only an attacker writes: the decompressor is given garbage, in a process of its own."""
    path = copy_of_one / "shards/00000.zarr.zip"
    entries = entries_of(path)
    rng = np.random.default_rng(26)
    names = [name for name in entries if "/c/" in name]

    def check():
        for trial in range(scaled(200, 20_000)):
            name = names[trial % len(names)]
            body = bytearray(entries[name][:-4])
            for place in rng.integers(len(body), size=int(rng.integers(1, 4))).tolist():
                body[place] = int(rng.integers(256))
            _rewrite(path, name, with_crc(bytes(body)))
            read(copy_of_one)
        return 0

    code = faults.wait(faults.child(check), scaled(60, 6000))
    assert code == 0, signal.Signals(-code) if code < 0 else code
