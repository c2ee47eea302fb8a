"""Bad input, one line of a table each: one clear line for the user, the right exit code, and the rest is built."""

import errno
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from gen4d.moving import models
from gen4d.shards import open_dataset
from tests.equal import files_of
from tests.makers import commands, recordings
from tests.makers.commands import gen4d
from tests.makers.files import off, ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX, write_box
from tests.makers.rooms import bare_floor

GOOD_SCANS = ["room0", "room1"]


def _header(vertices: int, tail: bytes = b"") -> bytes:
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {vertices}\n"
    return (head + "property float x\nproperty float y\nproperty float z\nend_header\n").encode() + tail


def _with_point(*point: float) -> bytes:
    points = bare_floor(5)
    points[7] = point
    return ply(points)


def _all(value: float) -> bytes:
    return ply(np.full((150, 3), value, np.float32))


GARBAGE = np.random.default_rng(11).bytes(5000)
ROWS = bare_floor(5).tobytes()

# What lies in scans/bad.ply: its bytes, and what the one line about it must say: the rule and the remedy.
SCANS = {
    "zero bytes": (b"", "is empty (0 bytes): copy or download it again"),
    "binary garbage": (GARBAGE, "not a PLY file", "convert or remove it"),
    "header only": (_header(150), "truncated or its counts are wrong", "copy or download it again"),
    "truncated": (_header(150, ROWS)[:-100], "truncated or its counts are wrong", "copy or download it again"),
    "cut in the header": (_header(150)[:60], "end_header", "copy it again"),
    "more rows than declared": (_header(149, ROWS), "12 bytes after its last declared row", "write the file again"),
    "two thousand million rows": (_header(2_000_000_000, ROWS), "2000000000 vertex", "copy or download it again"),
    "no rows": (_header(0), "0 finite points in 0 rows: a scan needs at least 100"),
    "too few rows": (ply(bare_floor(5, points=99)), "99 finite points in 99 rows: a scan needs at least 100"),
    "NaN everywhere": (_all(np.nan), "0 finite points in 150 rows: a scan needs at least 100"),
    "infinity everywhere": (_all(np.inf), "0 finite points in 150 rows: a scan needs at least 100"),
    "point at infinity": (_with_point(1e30, 0, 0), "point at infinity", "remove it"),
    "point far out": (_with_point(0, 6e4, 0), "60000 m", "check --units"),
    "ascii words": (ply(bare_floor(5), order="ascii").replace(b"0.", b"o.", 1), "number", "write"),
}

# What lies in shapes/chair/train/chair_0002.off.
SHAPES = {
    "zero bytes": ("", "is empty (0 bytes): copy or download it again"),
    "binary garbage": (GARBAGE, "not an OFF file", "convert or remove it"),
    "truncated": (off(CUBE_VERTEX, CUBE_QUADS)[:-12], "truncated", "copy it again"),
    "wrong counts": (
        off(CUBE_VERTEX, CUBE_QUADS).replace("8 6 0", "8 5 0"),
        "declares 8 vertices + 5 faces",
        "copy it",
    ),
    "negative counts": (off(CUBE_VERTEX, CUBE_QUADS).replace("8 6 0", "-8 6 0"), "-8 6 0", "repair it"),
    "two thousand million vertices": (
        "OFF\n2000000000 6 0\n0 0 0\n",
        "declares 2000000000 vertices",
        "copy or download",
    ),
    "NaN": (off(CUBE_VERTEX, CUBE_QUADS).replace("\n1 ", "\nnan ", 1), "NaN", "repair or remove it"),
    "infinity": ("OFF\n3 1 0\n0 0 0\n0 1 0\ninf 0 0\n3 0 1 2\n", "NaN or infinity", "repair or remove it"),
    "point at infinity": ("OFF\n3 1 0\n0 0 0\n0 1 0\n1e30 0 0\n3 0 1 2\n", "point at infinity", "repair it"),
    "index of no vertex": ("OFF\n3 1 0\n0 0 0\n0 1 0\n1 0 0\n3 0 1 77\n", "77", "repair"),
    "zero-area faces": ("OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n", "all of zero area", "a shape needs a surface"),
    "no faces": ("OFF\n3 0 0\n0 0 0\n1 1 1\n2 2 2\n", "a shape needs a surface"),
}


@pytest.fixture
def rooms(tmp_path):
    return commands.write_rooms(tmp_path)


def _lines_about(outcome, path) -> list[str]:
    return [line for line in outcome.err.splitlines() if str(path) in line]


def _check_refused(outcome, path, parts) -> None:
    """One line about the file, with every part; no trace, no other complaint."""
    lines = _lines_about(outcome, path)
    assert len(lines) == 1, outcome.err
    for part in parts:
        assert part in lines[0]
    assert lines[0].isprintable()
    assert len(lines[0]) < 700
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize("case", SCANS)
def test_a_bad_scan_is_refused_in_one_line_and_the_others_go_on(rooms, case):
    content, *parts = SCANS[case]
    bad = rooms / "scans/bad.ply"
    bad.write_bytes(content)
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 1
    _check_refused(outcome, bad, ["refused: ", *parts])
    assert open_dataset(rooms / "out").scan_names == GOOD_SCANS
    commands.check_untorn(rooms / "out")


def test_what_is_refused_changes_nothing_about_the_rest(rooms):
    good = {name: content for name, content in files_of(commands.build(rooms, out="good")).items() if "0000" in name}
    (rooms / "scans/zzz.ply").write_bytes(GARBAGE)
    assert gen4d(*commands.build_arguments(rooms)).code == 1
    built = files_of(rooms / "out")
    assert good
    assert {name: built[name] for name in good} == good


def test_rows_that_are_not_finite_are_dropped_counted_and_said(rooms):
    points = bare_floor(5, points=160)
    points[3], points[4] = np.nan, np.inf
    (rooms / "scans/some.ply").write_bytes(ply(points))
    assert gen4d(*commands.build_arguments(rooms)).code == 0
    assert '"dropped":2' in (rooms / "out/shards/00002.json").read_text()
    commands.check_untorn(rooms / "out")


def test_a_refused_scan_is_built_once_it_is_repaired(rooms):
    bad = rooms / "scans/bad.ply"
    bad.write_bytes(b"")
    assert gen4d(*commands.build_arguments(rooms)).code == 1
    bad.write_bytes(ply(bare_floor(9)))
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 0, outcome.text
    assert sorted(open_dataset(rooms / "out").scan_names) == ["bad", *GOOD_SCANS]
    commands.check_untorn(rooms / "out")


def test_strict_stops_at_the_first_bad_scan(rooms):
    (rooms / "scans/aaa.ply").write_bytes(b"")
    outcome = gen4d(*commands.build_arguments(rooms, "--strict"))
    assert outcome.code == 1
    _check_refused(outcome, rooms / "scans/aaa.ply", ["Error: ", "is empty"])
    assert not (rooms / "out/dataset.json").exists()
    commands.check_untorn(rooms / "out")


@pytest.mark.parametrize("workers", ["1", "3"])
def test_bad_scans_in_the_middle_of_workers_are_each_named(rooms, workers):
    for name in ("a", "b", "c"):
        (rooms / f"scans/{name}.ply").write_bytes(GARBAGE)
    outcome = gen4d(*commands.build_arguments(rooms, "--workers", workers))
    assert outcome.code == 1
    for name in ("a", "b", "c"):
        _check_refused(outcome, rooms / f"scans/{name}.ply", ["refused: "])
    assert open_dataset(rooms / "out").scan_names == GOOD_SCANS
    commands.check_untorn(rooms / "out")


@pytest.mark.parametrize("case", SHAPES)
def test_a_bad_shape_is_refused_in_one_line_and_the_others_go_on(rooms, case):
    content, *parts = SHAPES[case]
    bad = rooms / "shapes/chair/train/chair_0002.off"
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 1
    _check_refused(outcome, bad, ["refused: ", *parts])
    dataset = open_dataset(rooms / "out")
    assert {sequence.shape for sequence in dataset} == {"chair_0001"}
    assert len(dataset) == 4
    commands.check_untorn(rooms / "out")


POSES = recordings.camera_poses(5)


def _write_sens(folder):
    for name in "abc":
        write(folder / f"{name}.sens", recordings.sens(POSES))


def _write_walks(folder):
    recordings.write_slambook(folder, POSES)
    for name in "abc":
        shutil.copytree(folder / "walk", folder / name)
    shutil.rmtree(folder / "walk")


def _write_kitti(folder):
    for name, poses in (("05", 5), ("06", 5), ("04", 5)):
        recordings.write_kitti(folder, recordings.lidar_poses(poses))
        if name != "04":
            (folder / "sequences/04").rename(folder / f"sequences/{name}")
            (folder / "poses/04.txt").rename(folder / f"poses/{name}.txt")


# kind, what is there, what is changed: from which bytes to which; which sequences are lost; what the one line says.
RECORDINGS = {
    "sens: another file": ("frames", _write_sens, "b.sens", lambda old: GARBAGE, "b", "has version", "remove it"),
    "sens: empty": ("frames", _write_sens, "b.sens", lambda old: b"", "b", "cut short in its header", "copy or"),
    "sens: cut in its header": ("frames", _write_sens, "b.sens", lambda old: old[:20], "b", "cut short in its header"),
    "sens: cut in a frame": ("frames", _write_sens, "b.sens", lambda old: old[:-300], "b", "cut short in frame 4 of 5"),
    "sens: no frames": ("frames", _write_sens, "b.sens", lambda old: recordings.sens([]), "b", "has 0 frames"),
    "image: cut short": ("frames", _write_walks, "b/depth/2.pgm", lambda old: old[:-90], "", "damaged image", "copy"),
    "image: of text": ("frames", _write_walks, "b/depth/2.pgm", lambda old: b"hello", "", "not a 16-bit .png"),
    "poses: too few": ("frames", _write_walks, "b/pose.txt", lambda old: old.rpartition(b"\n")[0], "b", "has 4 poses"),
    "poses: words": ("frames", _write_walks, "b/pose.txt", lambda old: b"all is lost\n", "b", "line 1 is not numbers"),
    "intrinsics: zero": ("frames", _write_walks, "b/intrinsics.txt", lambda old: b"0 61 31 24", "b", "focal lengths 0"),
    "sweep: cut short": ("sweeps", _write_kitti, "sequences/05/velodyne/000003.bin", lambda old: old[:-5], "", "bytes"),
    "sweep: empty": ("sweeps", _write_kitti, "sequences/05/velodyne/000003.bin", lambda old: b"", "", "is empty (0"),
    "sweeps: no poses": ("sweeps", _write_kitti, "poses/05.txt", lambda old: b"", "05", "is empty (0 bytes)"),
    "sweeps: calibration": ("sweeps", _write_kitti, "sequences/05/calib.txt", lambda old: b"P0: 1\n", "05", "Tr"),
}


@pytest.mark.parametrize("case", RECORDINGS)
def test_a_bad_recording_costs_a_line_and_the_others_go_on(tmp_path, case):
    kind, make, name, change, lost, *parts = RECORDINGS[case]
    make(tmp_path / "in")
    arguments = ["build", "--kind", kind, "--scans", tmp_path / "in", "--set", "least_points=50", "--set", "every=1"]
    assert gen4d(*arguments, "--out", tmp_path / "good").code == 0
    bad = tmp_path / "in" / name
    bad.write_bytes(change(bad.read_bytes()))
    outcome = gen4d(*arguments, "--out", tmp_path / "out")
    assert outcome.code == 1
    _check_refused(outcome, bad, ["refused: ", *parts])
    wanted = [scan for scan in open_dataset(tmp_path / "good").scan_names if not lost or lost not in scan.split("/")]
    assert len(wanted) >= 2
    assert open_dataset(tmp_path / "out").scan_names == wanted
    commands.check_untorn(tmp_path / "out")


def test_a_folder_in_the_place_of_a_file_is_refused(rooms):
    bad = rooms / "scans/bad.ply"
    bad.mkdir()
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 1
    _check_refused(outcome, bad, ["is a folder where a file is needed"])
    assert open_dataset(rooms / "out").scan_names == GOOD_SCANS


def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting(rooms):
    os.mkfifo(rooms / "scans/bad.ply")
    outcome = commands.process(*commands.build_arguments(rooms), timeout=60)
    assert outcome.code == 1
    _check_refused(outcome, rooms / "scans/bad.ply", ["is a pipe or a device where a file is needed"])


def test_a_dangling_link_is_refused(rooms):
    (rooms / "scans/bad.ply").symlink_to(rooms / "nowhere")
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 1
    _check_refused(outcome, rooms / "scans/bad.ply", ["cannot be read"])
    assert open_dataset(rooms / "out").scan_names == GOOD_SCANS


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads every file")
def test_a_file_without_read_permission_is_refused(rooms):
    (rooms / "scans/bad.ply").write_bytes(ply(bare_floor(5)))
    (rooms / "scans/bad.ply").chmod(0)
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 1
    _check_refused(outcome, rooms / "scans/bad.ply", ["cannot be read", "permissions"])


@pytest.mark.parametrize("name", ["room1.ply", "chair_0001.off"])
def test_a_disk_that_fails_for_a_while_stops_a_build_which_goes_on_as_if_nothing_had_been(rooms, monkeypatch, name):
    """What a failing network left out would stay out: a shard counts as done."""
    monkeypatch.setenv("GEN4D_CACHE", "off")
    gen4d(*commands.build_arguments(rooms, "--workers=1", out="whole"))
    models._figures_of.cache_clear()
    models._load.cache_clear()
    with monkeypatch.context() as patched:
        read = pathlib.Path.read_bytes

        def failing(path):
            if path.name == name:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
            return read(path)

        patched.setattr(pathlib.Path, "read_bytes", failing)
        outcome = gen4d(*commands.build_arguments(rooms, "--workers=1"))
    assert outcome.code == 1
    assert f"{name}: cannot be used now (Stale file handle): " in outcome.err
    assert "the same command continues" in outcome.err
    assert not (rooms / "out" / "dataset.json").exists()
    assert gen4d(*commands.build_arguments(rooms, "--workers=1")).code == 0
    assert files_of(rooms / "out") == files_of(rooms / "whole")


def test_shapes_of_other_classes_are_said_not_to_move_unless_classes_are_named(rooms):
    write_box(rooms / "shapes", "robot")
    given = ("build", "--scans", rooms / "scans", "--shapes", rooms / "shapes", "--out", rooms / "out", "--dry-run")
    said = gen4d(*given).text
    assert f"{rooms / 'shapes'}: other classes do not move (robot): --classes names those that do" in said
    assert "other classes" not in gen4d(*given, "--classes", "chair").text


def _empty_scans(rooms):
    shutil.rmtree(rooms / "scans")
    (rooms / "scans").mkdir()


def _no_scans(rooms):
    shutil.rmtree(rooms / "scans")


def _shapes_as_scans(rooms):
    shutil.rmtree(rooms / "scans")
    (rooms / "shapes").rename(rooms / "scans")
    shutil.copytree(rooms / "scans", rooms / "shapes")


def _other_class(rooms):
    (rooms / "shapes/chair").rename(rooms / "shapes/airplane")
    (rooms / "shapes/airplane/train/chair_0001.off").rename(rooms / "shapes/airplane/train/airplane_0001.off")


def _no_shapes(rooms):
    shutil.rmtree(rooms / "shapes")


def _scans_are_a_file(rooms):
    shutil.rmtree(rooms / "scans")
    (rooms / "scans").write_text("here")


def _foreign_out(rooms):
    (rooms / "out").mkdir()
    (rooms / "out/thesis.tex").write_text("mine")


def _out_is_a_file(rooms):
    (rooms / "out").write_text("mine")


def _damaged_plan(rooms):
    commands.build(rooms)
    path = rooms / "out/build.json"
    path.write_bytes(path.read_bytes().replace(b"room0", b"room7"))


def _newer_plan(rooms):
    from gen4d.shards.format import seal, unseal

    commands.build(rooms)
    path = rooms / "out/build.json"
    path.write_bytes(seal(unseal(path.read_bytes(), "") | {"version": "2.0"}))


FOLDERS = {
    "empty folder of scans": (_empty_scans, "scans", "holds no scans that gen4d knows (it looked for: "),
    "no folder of scans": (_no_scans, "scans", "not a folder"),
    "a file as folder of scans": (_scans_are_a_file, "scans", "not a folder"),
    "shapes as scans": (_shapes_as_scans, "scans", "holds no scans"),
    "no shape of the class": (_other_class, "shapes", "has no shape of the class chair: its classes are airplane"),
    "no folder of shapes": (_no_shapes, "shapes", "not a folder"),
    "foreign files in --out": (_foreign_out, "out", "thesis.tex", "empty folder as --out"),
    "a file as --out": (_out_is_a_file, "out", "cannot be written", "another folder"),
    "damaged build.json": (_damaged_plan, "out/build.json", "does not match its own hash", "restore"),
    "build.json of a newer version": (_newer_plan, "out/build.json", "2.0", "update gen4d"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_wrong_folder_is_refused_and_stays_as_it_is(rooms, case):
    change, path, *parts = FOLDERS[case]
    change(rooms)
    before = files_of(rooms)
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 1
    _check_refused(outcome, rooms / path, ["Error: ", *parts])
    assert files_of(rooms) == before


def test_a_planned_scan_that_disappeared_is_named(rooms):
    commands.build(rooms)
    (rooms / "scans/room1.ply").unlink()
    (rooms / "out/shards/00001.json").unlink()
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 1
    assert "scan room1 (1 in all) was planned here" in outcome.err
    assert "another --out" in outcome.err


def test_a_scan_that_changed_since_it_was_built_is_said(rooms):
    commands.build(rooms)
    before = files_of(rooms / "out")
    (rooms / "scans/room1.ply").write_bytes(ply(bare_floor(8, points=200)))
    outcome = gen4d(*commands.build_arguments(rooms))
    assert outcome.code == 1
    assert "refused: room1: room1.ply has" in outcome.err
    assert "build into another --out" in outcome.err
    assert files_of(rooms / "out") == before


@pytest.mark.parametrize(
    "place", ["file/out", "file/deep/out", "/proc/gen4d", "/dev/null/out"], ids=["file", "deep", "proc", "null"]
)
def test_an_output_that_cannot_be_written_is_refused_at_once(rooms, place):
    (rooms / "file").write_text("mine")
    for command in (
        commands.build_arguments(rooms, "--out", str(rooms / place)),
        ("samples", rooms / place, "--rooms", "1", "--shapes", "1"),
    ):
        outcome = gen4d(*command)
        assert outcome.code == 1
        assert len(outcome.err.splitlines()) == 1
        assert "Error: " in outcome.err
        assert place.split("/out")[0].split("/deep")[0] in outcome.err


@pytest.mark.parametrize("place", ["file/out", "/dev/null/out"], ids=["file", "null"])
def test_views_and_exports_that_cannot_be_written_are_refused(rooms, place):
    data = commands.build(rooms)
    (rooms / "file").write_text("mine")
    for command in (("export", data, "--out", rooms / place), ("view", data, "--out", f"{rooms / place}.png")):
        outcome = gen4d(*command)
        assert outcome.code == 1
        assert len(outcome.err.splitlines()) == 1
        assert "Error: " in outcome.err
        assert "Not a directory" in outcome.err


@pytest.mark.parametrize("kilobytes", [4, 8, 16, 32, 48, 64, 80])
def test_a_full_disk_stops_the_build_cleanly_and_it_goes_on_with_space(rooms, full_disk, kilobytes):
    unbroken = files_of(commands.build(rooms, out="unbroken"))
    disk = full_disk(kilobytes * 1024)
    outcome = gen4d(*commands.build_arguments(rooms, "--out", str(disk / "out")))
    assert outcome.code == 1
    assert os.strerror(errno.ENOSPC) in outcome.err
    assert str(disk) in outcome.err
    assert "the same command continues" in outcome.err
    commands.check_untorn(disk / "out")
    subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
    assert gen4d(*commands.build_arguments(rooms, "--out", str(disk / "out"))).code == 0
    assert files_of(disk / "out") == unbroken


def test_doctor_names_everything_that_is_wrong_at_once(rooms):
    for number, case in enumerate(("zero bytes", "binary garbage", "truncated")):
        (rooms / f"scans/bad{number}.ply").write_bytes(SCANS[case][0])
    (rooms / "shapes/chair/train/chair_0002.off").write_text(SHAPES["zero-area faces"][0])
    outcome = gen4d("doctor", "--scans", rooms / "scans", "--shapes", rooms / "shapes")
    assert outcome.code == 1
    errors = [line for line in outcome.out.splitlines() if line.startswith("error: ")]
    for name in ("bad0.ply", "bad1.ply", "bad2.ply", "chair_0002.off"):
        assert len([line for line in errors if name in line]) == 1


def test_doctor_finds_nothing_wrong_with_good_folders(rooms):
    outcome = gen4d("doctor", "--scans", rooms / "scans", "--shapes", rooms / "shapes", "--up", "z", "--units", "m")
    assert outcome.code == 0, outcome.text
    assert "error" not in outcome.out


@pytest.mark.parametrize("place", ["nowhere", "empty", "file"])
def test_doctor_refuses_folders_without_data(tmp_path, place):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for options in ((), ("--up", "y")):
        outcome = gen4d("doctor", "--scans", tmp_path / place, "--shapes", tmp_path / place, *options)
        assert outcome.code == 1
        assert str(tmp_path / place) in outcome.text
        assert "Traceback" not in outcome.text
