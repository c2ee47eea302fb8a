"""Builds: the same bytes however the work is spread, interrupted or extended; refusals, failures, what is counted."""

import dataclasses
import errno
import json
import multiprocessing
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gen4d import building, files, shards, sources
from gen4d.building import moving
from gen4d.config import Config, ConfigError
from gen4d.moving.feasible import expected_acceptance
from gen4d.shards import verify
from gen4d.shards.format import FormatError, seal, unseal
from tests.equal import files_of
from tests.makers.builds import make_inputs, run_build
from tests.makers.meshes import write_shapes
from tests.makers.rooms import write_furnished, write_scan

_ROOMS = 5
SMALL = {"sequences": 2, "scans_per_shard": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return write_furnished(folder / "scans", _ROOMS, 2500), write_shapes(folder / "shapes")


@pytest.fixture(scope="module")
def planned(folders):
    return make_inputs(*folders, **SMALL)


@pytest.fixture(scope="module")
def complete(planned, tmp_path_factory):
    """A complete build: shards 0 (rooms 0, 1), 1 (2, 3) and 2 (4)."""
    out = tmp_path_factory.mktemp("complete") / "built"
    run_build(out, planned)
    return out


@pytest.fixture
def copy(complete, tmp_path):
    return pathlib.Path(shutil.copytree(complete, tmp_path / "copy"))


def first(planned, count):
    """The same inputs with the first scans only."""
    return dataclasses.replace(planned, scans=planned.scans[:count])


def shard(number, suffix=".zarr.zip"):
    return f"shards/{number:05d}{suffix}"


def assert_same_files(folder, other):
    one, two = files_of(folder), files_of(other)
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name]] == []


def assert_same_sequences(one, other, ids):
    """Sequences of two data sets are equal in all that the reader gives."""
    for id in ids:
        a, b = one[one.find(id)], other[other.find(id)]
        assert (a.id, a.scan, a.shape, a.class_name, a.t) == (b.id, b.scan, b.shape, b.class_name, b.t)
        for mine, theirs in zip(a.actors, b.actors, strict=True):
            for x, y in zip((*mine.cloud, *mine[1:]), (*theirs.cloud, *theirs[1:]), strict=True):
                assert_array_equal(x, y)


# The same bytes


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_writes_the_same_bytes(complete, planned, workers, tmp_path):
    run_build(tmp_path / "built", planned, workers)
    assert_same_files(tmp_path / "built", complete)
    assert sorted(files_of(complete)) == sorted(
        ["build.json", "dataset.json", *(shard(n, end) for n in range(3) for end in (".json", ".zarr.zip"))]
    )


@pytest.mark.parametrize("order", [slice(None, None, -1), [3, 0, 4, 2, 1]])
def test_any_order_of_the_inputs_writes_the_same_bytes(complete, folders, order, tmp_path):
    scans, shapes = sources.find_scans(folders[0]), sources.find_shapes(folders[1])
    shuffled = [
        found._replace(sources=tuple(np.array(found.sources, object)[order].tolist())) for found in (scans, shapes)
    ]
    assert shuffled[0].sources != scans.sources and shuffled[1].sources != shapes.sources
    run_build(tmp_path / "built", moving.make_inputs(*shuffled, Config(**SMALL)), 2)
    assert_same_files(tmp_path / "built", complete)


def test_another_process_with_other_hashes_and_threads_writes_the_same_bytes(complete, folders, tmp_path):
    options = ["--sequences", "2", "--set", "scans_per_shard=2", "--out", str(tmp_path / "built")]
    command = [sys.executable, "-c", "from gen4d.cli import main; main()", "build"]
    command += ["--scans", str(folders[0]), "--shapes", str(folders[1]), *options]
    changes = {"PYTHONHASHSEED": "77", "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "TZ": "Asia/Tokyo"}
    root = pathlib.Path(__file__).parents[1]
    done = subprocess.run(command, env=os.environ | changes, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same_files(tmp_path / "built", complete)


def test_a_rerun_writes_nothing(complete, planned, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in complete.rglob("*")}
    monkeypatch.setattr(files, "write", lambda path, content: pytest.fail(f"{path} was written again"))
    run_build(complete, planned)
    assert {path: path.stat().st_mtime_ns for path in complete.rglob("*")} == before


def test_a_rerun_by_other_packages_leaves_those_that_made_the_shards(complete, planned, monkeypatch):
    """Else a data set that did not change would have another hash."""
    before = files_of(complete)
    monkeypatch.setattr(platform, "python_version", lambda: "3.99")
    assert run_build(complete, planned)["versions"]["python"] != "3.99"
    assert files_of(complete) == before


# Extended


def test_more_scans_leave_the_first_shards_untouched_and_their_sequences_equal(complete, planned, tmp_path):
    out = tmp_path / "built"
    run_build(out, first(planned, 3))
    half = files_of(out / "shards")
    assert len(shards.open_dataset(out)) == 6
    run_build(out, planned)
    assert {name: content for name, content in files_of(out / "shards").items() if name in half} == half
    assert unseal((out / "build.json").read_bytes(), "")["plan"] == [
        ["room000", "room001"], ["room002"], ["room003", "room004"]
    ]  # fmt: skip
    extended, whole = shards.open_dataset(out), shards.open_dataset(complete)
    assert sorted(extended.ids) == sorted(whole.ids) and len(whole.ids) == 10
    assert_same_sequences(extended, whole, whole.ids)


def test_scans_of_earlier_names_that_come_later_go_to_new_shards(complete, planned, tmp_path):
    out = tmp_path / "built"
    run_build(out, dataclasses.replace(planned, scans=planned.scans[2:]))
    held = files_of(out / "shards")
    run_build(out, planned)
    assert {name: content for name, content in files_of(out / "shards").items() if name in held} == held
    extended, whole = shards.open_dataset(out), shards.open_dataset(complete)
    assert extended.scan_names == ["room002", "room003", "room004", "room000", "room001"]
    assert_same_sequences(extended, whole, whole.ids)


def test_fewer_scans_than_are_built_change_nothing_and_fewer_than_are_planned_are_refused(copy, complete, planned):
    run_build(copy, first(planned, 2))
    assert_same_files(copy, complete)
    (copy / shard(2, ".json")).unlink()
    with pytest.raises(building.BuildError, match=r"room004 .* planned here"):
        building.make_plan(copy, first(planned, 2))
    run_build(copy, planned)
    assert_same_files(copy, complete)


def test_a_build_that_lacks_planned_scans_is_refused_before_it_plans_others(planned, tmp_path):
    out, first = tmp_path / "out", dataclasses.replace(planned, scans=planned.scans[:2])
    building.make_plan(out, first)
    before = files_of(out)
    with pytest.raises(building.BuildError, match=planned.scans[0].name):
        run_build(out, dataclasses.replace(planned, scans=planned.scans[1:]))
    assert files_of(out) == before


def test_a_scan_that_changed_after_it_was_built_is_named_and_stays_as_it_was(copy, complete, planned):
    changed = dataclasses.replace(planned.scans[1], size=planned.scans[1].size + 12)
    other = dataclasses.replace(planned, scans=(planned.scans[0], changed, *planned.scans[2:]))
    plan = building.make_plan(copy, other)
    assert plan.jobs == () and len(plan.changed) == 1 and "room001: room001.ply has" in plan.changed[0]
    assert_same_files(copy, complete)


# Interrupted


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def litter(path):
    """What a kill leaves behind: temporary files beside the real ones."""
    for name in ("dataset.json.77.tmp", shard(1) + ".123.tmp", shard(7, ".json") + ".5.tmp"):
        (path / name).write_bytes(b"half of it")


DAMAGE = {
    "the last shard was not begun": lambda out: [(out / shard(2, end)).unlink() for end in (".json", ".zarr.zip")],
    "a shard without its description": lambda out: (out / shard(0, ".json")).unlink(),
    "a description without its shard": lambda out: (out / shard(1)).unlink(),
    "a shard cut short": lambda out: cut(out / shard(1)),
    "an empty shard": lambda out: (out / shard(1)).write_bytes(b""),
    "a damaged description": lambda out: flip(out / shard(2, ".json")),
    "an empty description": lambda out: (out / shard(2, ".json")).write_bytes(b""),
    "temporary files": litter,
    "nothing but the plan": lambda out: shutil.rmtree(out / "shards"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("finished", [False, True])
def test_an_interrupted_build_continues_to_the_same_bytes(copy, complete, planned, damage, finished):
    if not finished:
        (copy / "dataset.json").unlink()
        with pytest.raises(FormatError, match="the build is not finished: run the same gen4d build again"):
            shards.open_dataset(copy)
    DAMAGE[damage](copy)
    run_build(copy, planned, workers=2)
    assert_same_files(copy, complete)


def test_only_what_is_missing_is_built_again(copy, planned):
    (copy / shard(1, ".json")).unlink()
    plan = building.make_plan(copy, planned)
    assert [job.number for job in plan.jobs] == [1] and sorted(plan.sidecars) == [0, 2] and plan.shards == 3
    assert [scan.name for scan in plan.jobs[0].scans] == ["room002", "room003"]


def test_temporary_files_of_others_are_left_alone(copy):
    litter(copy)
    others = [copy / "thesis.tmp", copy / "shards" / "notes.zip.tmp", copy / "dataset.json.tmp"]
    for path in others:
        path.write_text("mine")
    building.clean(copy)
    assert sorted(copy.rglob("*.tmp")) == sorted(others)


def full():
    raise OSError(errno.ENOSPC, "No space left on device", "00001.zarr.zip")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("effect", ["open", "write", "fsync", "rename"])
def test_a_full_disk_stops_the_build_with_a_remedy_and_no_litter_and_it_continues(
    complete, planned, tmp_path, monkeypatch, effect, workers
):
    out = tmp_path / "built"
    with monkeypatch.context() as patch:
        patch.setattr(files, "effect", lambda name, path: "00001.zarr.zip" in path.name and name == effect and full())
        with pytest.raises(building.BuildError, match=r"No space left on device.*what is done"):
            run_build(out, planned, workers)
    assert not list(out.rglob("00001*")) and not (out / "dataset.json").exists()
    run_build(out, planned)
    assert_same_files(out, complete)


def test_a_worker_that_dies_stops_the_build_with_a_remedy_and_it_continues(complete, planned, tmp_path, monkeypatch):
    out = tmp_path / "built"
    with monkeypatch.context() as patch:
        patch.setattr(files, "effect", lambda name, path: name == "fsync" and "00001.zarr" in path.name and os._exit(9))
        with pytest.raises(building.BuildError, match="a worker process died"):
            run_build(out, planned, 2)
    assert not list(out.rglob("*.tmp")) and not (out / "dataset.json").exists()
    run_build(out, planned)
    assert_same_files(out, complete)


def test_a_build_that_stops_ends_its_own_workers_alone(planned, tmp_path, monkeypatch):
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        monkeypatch.setattr(files, "effect", lambda name, path: "00001.zarr.zip" in path.name and full())
        with pytest.raises(building.BuildError):
            run_build(tmp_path / "built", planned, 2)
        assert other.is_alive() and multiprocessing.active_children() == [other]
    finally:
        other.kill()
        other.join()


# Refused


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sequences": 3}, "sequences: 2 there, 3 here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"keep": 0.9, "pairs": True}, "pairs: False there, True here; keep: 0.95 there, 0.9 here"),
    ],
)
def test_another_config_is_refused_with_the_difference(copy, complete, folders, changes, message):
    with pytest.raises(building.BuildError, match=message):
        building.make_plan(copy, make_inputs(*folders, **SMALL | changes))
    assert_same_files(copy, complete)


def test_other_shapes_are_refused(copy, complete, folders, tmp_path):
    other = shutil.copytree(folders[1], tmp_path / "shapes")
    shutil.copy(other / "chair" / "train" / "chair_0001.off", other / "chair" / "train" / "chair_0009.off")
    with pytest.raises(building.BuildError, match=r"another config .*shapes: "):
        building.make_plan(copy, make_inputs(folders[0], other, **SMALL))
    with pytest.raises(building.BuildError, match=r"another config .*height_m: .*shapes: "):
        shutil.rmtree(other / "table")
        building.make_plan(copy, make_inputs(folders[0], other, **SMALL))
    assert_same_files(copy, complete)


def test_a_folder_of_other_files_is_refused_and_left_as_it_was(planned, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(building.BuildError, match=r"holds other files \(thesis.tex, 1 in all\)"):
        building.make_plan(tmp_path, planned)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_plan_is_refused(copy, planned):
    flip(copy / "build.json")
    with pytest.raises(FormatError, match=r"build\.json: .*restore it from a copy or rebuild"):
        building.make_plan(copy, planned)


def test_a_plan_of_a_later_format_is_refused(copy, planned):
    plan = unseal((copy / "build.json").read_bytes(), "")
    (copy / "build.json").write_bytes(seal(plan | {"version": "2.0"}))
    with pytest.raises(FormatError, match=r"format version 2\.0, this gen4d reads 1\.x: update gen4d"):
        building.make_plan(copy, planned)


def test_a_class_without_a_height_is_refused(folders, tmp_path):
    other = shutil.copytree(folders[1], tmp_path / "shapes")
    shutil.copytree(other / "chair", other / "spaceship")
    with pytest.raises(ConfigError, match="'spaceship' has no height range"):
        make_inputs(folders[0], other)


@pytest.mark.parametrize(
    ("given", "settings", "found"),
    [
        ({}, {"up": "y", "metres_per_unit": 0.01}, ("y", 0.01)),
        ({"up": "x", "units": "mm"}, {"up": "y", "metres_per_unit": 0.01}, ("x", 0.001)),
        ({}, {}, ("auto", 1.0)),
    ],
)
def test_axis_and_unit_are_those_of_the_options_else_of_the_config(folders, given, settings, found):
    inputs = building.find_inputs("moving", building.Given(*folders, **given), Config(**settings)).inputs
    assert (inputs.config.up, inputs.config.metres_per_unit) == found


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_a_config_that_rejects_nearly_everything_is_refused_with_the_reason(folders, keep):
    with pytest.raises(ConfigError, match=rf"keep = {keep}.*of the attempts would keep 30% of the points"):
        make_inputs(*folders, keep=keep)
    assert expected_acceptance(Config()) > 0.5 > expected_acceptance(Config(keep=0.85))


# Failed scans


@pytest.fixture
def broken(folders, tmp_path):
    """The rooms, of which room001 is cut short."""
    scans = shutil.copytree(folders[0], tmp_path / "scans")
    cut(scans / "room001.ply")
    return scans


def test_a_scan_that_cannot_be_read_is_recorded_and_the_others_go_on(broken, folders, complete, tmp_path):
    out = tmp_path / "built"
    planned = make_inputs(broken, folders[1], **SMALL)
    manifest = run_build(out, planned, 2)
    assert [scan["name"] for scan in manifest["failed"]] == ["room001"]
    assert manifest["failed"][0]["error"].startswith("room001.ply: ")
    assert manifest["totals"]["scans"] == 4
    built, whole = shards.open_dataset(out), shards.open_dataset(complete)
    assert built.scan_names == ["room000", "room002", "room003", "room004"]
    assert_same_sequences(built, whole, built.ids)
    assert list(verify.verify(built)) == [None] * 3
    before = files_of(out)
    run_build(out, planned)  # still broken: nothing new
    assert files_of(out) == before


def test_a_scan_that_failed_and_was_mended_goes_to_a_new_shard_once(broken, folders, complete, tmp_path):
    out = tmp_path / "built"
    run_build(out, make_inputs(broken, folders[1], **SMALL))
    before = files_of(out / "shards")
    shutil.copy(folders[0] / "room001.ply", broken / "room001.ply")
    mended = make_inputs(broken, folders[1], **SMALL)
    for _ in range(2):
        manifest = run_build(out, mended)
        after = files_of(out / "shards")
        assert {name: after[name] for name in before} == before and len(after) == len(before) + 2
        assert manifest["failed"] == [] and manifest["shards"][3]["scans"] == [["room001", 2]]
    built, whole = shards.open_dataset(out), shards.open_dataset(complete)
    assert sorted(built.ids) == sorted(whole.ids) and [built.id_of(i) for i in range(len(built))] == built.ids
    assert_same_sequences(built, whole, whole.ids)


@pytest.mark.parametrize("workers", [1, 2])
def test_strict_stops_at_the_first_scan_that_cannot_be_read(broken, folders, complete, tmp_path, workers):
    out = tmp_path / "built"
    with pytest.raises(building.BuildError, match=r"room001\.ply"):
        run_build(out, make_inputs(broken, folders[1], **SMALL), workers, strict=True)
    assert not (out / shard(0)).exists() and not (out / "dataset.json").exists()
    shutil.copy(folders[0] / "room001.ply", broken / "room001.ply")
    run_build(out, make_inputs(broken, folders[1], **SMALL), strict=True)
    assert_same_files(out, complete)


def test_a_shard_whose_scans_all_failed_is_empty_and_readable(folders, tmp_path):
    scans = tmp_path / "scans"
    for name in ("a", "b"):
        write_scan(tmp_path / f"{name}.ply", np.zeros((3, 3), np.float32))
    scans.mkdir()
    for path in tmp_path.glob("*.ply"):
        shutil.move(path, scans)
    out = tmp_path / "built"
    manifest = run_build(out, make_inputs(scans, folders[1], pairs=True))
    assert manifest["totals"] | {"bytes": 0} == {"scans": 0, "sequences": 0, "gaps": 0, "attempts": 0, "bytes": 0}
    dataset = shards.open_dataset(out)
    assert (len(dataset), dataset.ids, dataset.scan_names, list(dataset)) == (0, [], [], [])
    assert list(verify.verify(dataset)) == [None]


# What is counted


def described(out):
    return [scan for path in sorted((out / "shards").glob("*.json")) for scan in json.loads(path.read_bytes())["scans"]]


def test_gaps_attempts_and_reasons_add_up(folders, tmp_path):
    out = tmp_path / "built"
    planned = make_inputs(*folders, sequences=12, attempts=2, keep=0.88)
    manifest = run_build(out, planned)
    dataset = shards.open_dataset(out)
    stored = {name: [] for name in dataset.scan_names}
    for id in dataset.ids:
        stored[id.split("/")[0]].append(int(id.split("/")[1]))
    gaps = 0
    for scan in described(out):
        assert scan["sequences"] == stored[scan["name"]]
        assert sorted(scan["sequences"] + scan["gaps"]) == list(range(12))
        assert scan["attempts"] == len(scan["sequences"]) + sum(scan["rejections"].values())
        assert 2 * len(scan["gaps"]) + len(scan["sequences"]) <= scan["attempts"] <= 24
        assert sum(scan["drawn"].values()) == scan["attempts"]
        assert sum(scan["accepted"].values()) == len(scan["sequences"])
        assert scan["rejections"].keys() == scan["examples"].keys()
        gaps += len(scan["gaps"])
    totals = manifest["totals"]
    assert 0 < gaps == totals["gaps"] and totals["sequences"] == 12 * _ROOMS - gaps == len(dataset) > 0
    assert totals["attempts"] == sum(scan["attempts"] for scan in described(out))


def test_a_scan_without_room_has_gaps_alone_and_says_which_rule_failed(folders, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    rng = np.random.default_rng(60)
    write_scan(scans / "closet.ply", (rng.random((900, 3)) * [0.35, 0.3, 2]).astype(np.float32))
    manifest = run_build(tmp_path / "built", make_inputs(scans, folders[1], attempts=5, sequences=4))
    (scan,) = described(tmp_path / "built")
    assert scan["gaps"] == [0, 1, 2, 3] and scan["rejections"] == {"no cell is wide enough": 20}
    assert "no cell is wide enough for" in scan["examples"]["no cell is wide enough"]
    assert manifest["totals"] | {"bytes": 0} == {"scans": 1, "sequences": 0, "gaps": 4, "attempts": 20, "bytes": 0}
    dataset = shards.open_dataset(tmp_path / "built")
    assert (len(dataset), dataset.scan_names) == (0, ["closet"]) and list(verify.verify(dataset)) == [None]


def test_a_shape_that_cannot_be_read_is_a_counted_rejection(folders, tmp_path):
    shapes = shutil.copytree(folders[1], tmp_path / "shapes")
    broken = shapes / "night_stand" / "train" / "night_stand_0001.off"
    broken.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\nnan 1 0\n3 0 1 2\n")
    run_build(tmp_path / "built", make_inputs(folders[0], shapes, **SMALL))
    seen = [scan for scan in described(tmp_path / "built") if "unreadable shape" in scan["rejections"]]
    assert seen and all("night_stand_0001.off" in scan["examples"]["unreadable shape"] for scan in seen)
    assert all("night_stand" not in scan["accepted"] and len(scan["sequences"]) == 2 for scan in seen)


def test_a_folder_that_another_process_makes_at_the_same_moment_is_no_obstacle(tmp_path, monkeypatch):
    out, looks, look = tmp_path / "out", [], pathlib.Path.is_dir

    def is_dir(path):
        looks.append(path)
        if looks == [out]:  # not there when it is looked for, there right after it
            out.mkdir()
            return False
        return look(path)

    monkeypatch.setattr(pathlib.Path, "is_dir", is_dir)
    files.make_folder(out)
    assert looks[0] == out and look(out)
