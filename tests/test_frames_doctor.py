"""`gen4d doctor` on recordings: files, losses, and conventions that geometry contradicts, with the one that fits."""

import pytest

from tests.makers import commands, recordings
from tests.makers.files import write

POSES = recordings.camera_poses(6)
TRUTH = {
    "depth": "depth/*.pgm",
    "pose": "pose.txt",
    "match": "row",
    "intrinsics": list(recordings.CAMERA),
    "pose_columns": "tx ty tz qx qy qz qw",
}


def described(folder, **changes):
    """A recording beside a description, some of whose values are wrong."""
    recordings.write_slambook(folder, POSES)
    values = ", ".join(f"{key}: {value!r}" for key, value in (TRUTH | changes).items())
    write(folder / "gen4d.yaml", f"scans: walk\nframes: {{{values}}}\n".encode())
    return folder


def doctor(folder, kind="frames", *more):
    return commands.gen4d("doctor", "--kind", kind, "--scans", folder, *more)


def test_the_right_conventions_are_said_to_fit(tmp_path):
    outcome = doctor(described(tmp_path))
    assert outcome.code == 0 and "6 frames, 6 used" in outcome.out
    assert "neighbouring frames agree to" in outcome.out


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"pose_is": "world-to-sensor"}, "pose_is: sensor-to-world"),
        ({"camera": "opengl"}, "camera: opencv"),
        ({"pose_columns": "tx ty tz qw qx qy qz"}, "pose_columns: ... qx qy qz qw"),
        ({"depth_scale": 200.0}, "depth_scale: 1000"),
    ],
)
def test_a_wrong_convention_is_an_error_that_names_the_one_that_fits(tmp_path, wrong, remedy):
    outcome = doctor(described(tmp_path, **wrong))
    assert outcome.code == 1
    line = next(line for line in outcome.out.splitlines() if "m apart as the poses are read" in line)
    assert line.startswith("error") and remedy in line


def test_intrinsics_that_fit_nothing_are_a_warning(tmp_path):
    outcome = doctor(described(tmp_path, intrinsics=[150, 150, 10, 40]))
    assert outcome.code == 0 and "no usual mistake explains it: check intrinsics" in outcome.out


def test_frames_that_do_not_move_tell_nothing(tmp_path):
    described(tmp_path)
    rows = (tmp_path / "walk" / "pose.txt").read_text().splitlines()
    (tmp_path / "walk" / "pose.txt").write_text("\n".join(rows[:1] * 6))
    assert "hardly move" in doctor(tmp_path).out


def test_losses_and_broken_files_are_all_named(tmp_path):
    described(tmp_path)
    place = tmp_path / "walk"
    rows = (place / "pose.txt").read_text().splitlines()
    (place / "pose.txt").write_text("\n".join(["nan " * 7, *rows[1:]]))
    (place / "depth" / "3.pgm").write_bytes(b"P5\n64 48\n65535\n\0")
    outcome = doctor(tmp_path)
    assert outcome.code == 1 and "left out, no pose: frames 1" in outcome.out
    assert "depth/3.pgm: is a damaged image" in outcome.out and "6 frames, 4 used" in outcome.out


def test_a_folder_without_frames_and_options_of_other_kinds_are_refused(tmp_path):
    outcome = doctor(tmp_path)
    assert outcome.code == 1 and "holds no frames that gen4d knows" in outcome.out
    assert doctor(tmp_path, "frames", "--shapes", tmp_path).code == 2


def test_sweeps_are_checked_too(tmp_path):
    recordings.write_kitti(tmp_path, recordings.lidar_poses(8))
    body = "points: velodyne/*.bin, pose: ../../poses/04.txt, match: number, mount: {file: calib.txt, key: Tr}"
    write(tmp_path / "gen4d.yaml", f"scans: sequences/04\nsweeps: {{{body}, world: sensor}}\n".encode())
    outcome = doctor(tmp_path, "sweeps")
    assert outcome.code == 0 and "neighbouring sweeps agree to" in outcome.out
