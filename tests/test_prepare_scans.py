"""Labelled scans in shards: read back bit by bit as their raw files, checked, grown, and what is wrong."""

import shutil

import numpy as np
import pytest

import gen4d
from gen4d.samples.write import write_samples
from tests.makers.files import write
from tests.makers.labelled import OBJECTS, room, write_rooms
from tests.test_train_cli import call, refusal
from train.inputs.labelled import LabelledData
from train.inputs.labels import label_table
from train.inputs.scans import read_scans
from train.inputs.subsets import find_part
from train.prepare.scans import PARTS, prepare
from train.tasks.config import DETECT
from train.tasks.finetune import stored_config

NYU40 = label_table("nyu40")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Three rooms to learn and two to validate on, in ScanNet's files; the first is turned by its alignment."""
    folder = tmp_path_factory.mktemp("scannet")
    write_rooms(folder, train=2, val=2, labels="segments")
    write(folder / "scene0000_00/scene0000_00.txt", "axisAlignment = 0 -1 0 5 1 0 0 -2 0 0 1 0.5 0 0 0 1\n")
    return folder


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    found = list(prepare(raw, out))
    assert [(one.part, one.scans, one.shards, one.refused) for one in found] == [("train", 3, 1, ()), ("val", 2, 1, ())]
    return out


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name, value in one._asdict().items():
            its = getattr(other, name)
            if isinstance(value, np.ndarray):
                assert value.dtype == its.dtype and value.tobytes() == its.tobytes(), (one.name, name)
            else:
                assert value == its, (one.name, name)


@pytest.mark.parametrize("part", ["train", "val"])
def test_scans_are_read_as_from_their_raw_files(raw, prepared, part):
    first, second = (read_scans(find_part(folder, part).scans, NYU40, 1) for folder in (raw, prepared))
    assert_same(first, second)
    assert first[0].alignment is not None and first[0].instance is not None
    assert find_part(prepared, part).entry == find_part(raw, part).entry
    assert list(gen4d.verify(gen4d.open_dataset(prepared / part))) == [None]


def test_a_list_chooses_among_prepared_scans(raw, prepared, tmp_path):
    names = write(tmp_path / "names.txt", "scene0001_00\n")
    assert [source.name for source in find_part(prepared, "train", names).scans] == ["scene0001_00"]
    with pytest.raises(ValueError, match="the part 'test' was not prepared"):
        find_part(prepared, "test")


def test_tilted_rooms_scans_without_instances_and_pointcepts_folders_are_the_same_too(tmp_path):
    write_samples(tmp_path / "samples", rooms=2, shapes=0)
    samples, pointcept = tmp_path / "samples/scans", tmp_path / "pointcept"
    for part, number in (("train", 1), ("val", 2)):
        point, kind = room(number)
        point = point @ np.array([[1, 0, 0], [0, 0.995, -0.0998], [0, 0.0998, 0.995]], np.float32)
        point[3] = np.nan
        place = pointcept / part / f"scene{number:04d}_00"
        place.mkdir(parents=True)
        np.save(place / "coord.npy", point)
        np.save(place / "segment20.npy", np.array([OBJECTS[k][2] for k in kind], np.int16))
        if number == 1:
            np.save(place / "instance.npy", np.full(len(point), -1))  # none, which is not the same as not known
    for folder, space in ((samples, "nyu40"), (pointcept, "scannet20")):
        found = list(prepare(folder, tmp_path / space))
        for one in found:
            both = (find_part(place, one.part).scans for place in (folder, tmp_path / space))
            assert_same(*(read_scans(scans, label_table(space), 1) for scans in both))
    assert found[0].part == "train"


def test_a_run_on_shards_is_the_run_on_raw_files(raw, prepared, tmp_path):
    """What a run stores says which data it is of: the same, so it may even go on with the other folder."""
    both = [
        LabelledData(NYU40, *(read_scans(find_part(f, p).scans, NYU40, 1) for p in PARTS[:2])) for f in (raw, prepared)
    ]
    first, second = (stored_config(DETECT["small"], data, None, "float32") for data in both)
    assert first == second
    dry = [
        "finetune",
        "--task",
        "detect",
        "--weights",
        "none",
        "--preset",
        "small",
        "--dry-run",
        "--json",
        "--run",
        tmp_path,
    ]
    result = call(*dry, "--data", prepared)
    assert result.exit_code == 0 and "data: 3 training scans" in result.output, result.output


def test_a_killed_run_goes_on_to_the_same_bytes_and_more_scans_extend_it(raw, prepared, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(prepared, out)
    for name in ("train/dataset.json", "train/shards/00000.json", "val/dataset.json"):
        (out / name).unlink()
    whole = (out / "train/shards/00000.zarr.zip").read_bytes()
    (out / "train/shards/00000.zarr.zip").write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="the build is not finished"):
        find_part(out, "train")
    result = call("prepare", "scans", raw, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"{out / 'train'}: 3 scans in 1 shard: gen4d verify {out / 'train'}" in result.output
    assert content(out) == content(prepared)
    more = tmp_path / "more"
    shutil.copytree(raw, more)
    shutil.copytree(more / "scene0100_00", more / "scene0002_00")
    for path in list((more / "scene0002_00").iterdir()):
        path.rename(path.with_name(path.name.replace("scene0100_00", "scene0002_00")))
    write(more / "scannetv2_train.txt", (raw / "scannetv2_train.txt").read_text() + "scene0002_00\n")
    assert next(iter(prepare(more, out))).scans == 4
    assert (out / "train/shards/00000.zarr.zip").read_bytes() == whole
    assert_same(*(read_scans(find_part(folder, "train").scans, NYU40, 1) for folder in (more, out)))


def test_what_cannot_be_used_is_one_line_and_the_others_go_on(raw, prepared, tmp_path):
    broken = tmp_path / "raw"
    shutil.copytree(raw, broken)
    write(broken / "scene0000_01/scene0000_01_vh_clean_2.ply", b"ply\nformat ascii 1.0\n")
    result = call("prepare", "scans", broken, "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("refused: ")]
    assert len(lines) == 1 and "scene0000_01_vh_clean_2.ply" in lines[0]
    assert len(find_part(tmp_path / "out", "train").scans) == 2
    text = refusal("finetune", "--data", prepared, "--weights", "none", "--preset", "small", "--run", tmp_path / "run",
                   "--set", "inputs=colour")  # fmt: skip
    assert "prepared scans have no colour: give the raw folder" in text
    write(tmp_path / "votenet/scene0000_00_vert.npy", b"x")
    write(tmp_path / "votenet/scene0000_00_bbox.npy", b"x")
    write(tmp_path / "votenet/scannetv2_train.txt", "scene0000_00\n")
    assert "was prepared already" in refusal("prepare", "scans", tmp_path / "votenet", "--out", tmp_path / "v")


def test_nothing_is_written_among_the_raw_files(raw):
    before = content(raw)
    assert "give another one" in refusal("prepare", "scans", raw, "--out", raw / ".")
    assert content(raw) == before


def test_damage_is_found_when_a_scan_is_read(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "out")
    path = tmp_path / "out/train/shards/00000.zarr.zip"
    whole = bytearray(path.read_bytes())
    whole[200] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="restore"):
        read_scans(find_part(tmp_path / "out", "train").scans, NYU40, 1)
    assert any(gen4d.verify(gen4d.open_dataset(tmp_path / "out/train")))


def test_sequences_are_no_scans(one_sequence, tmp_path):
    shutil.copytree(one_sequence, tmp_path / "train")
    with pytest.raises(ValueError, match="holds sequences, not scans"):
        find_part(tmp_path, "train")
    dataset = gen4d.open_dataset(one_sequence)
    scan = dataset.scan(dataset[0].scan)
    assert scan.cloud.point.tobytes() == dataset[0].actors[0].cloud.point.tobytes() and len(scan) == 0
    assert scan.floor.valid.tobytes() == dataset.floor_plan(0).valid.tobytes()
    assert (scan.label_space, scan.views) == (dataset.label_space(0), None)
    with pytest.raises(KeyError, match="no scan 'attic'"):
        dataset.scan("attic")
