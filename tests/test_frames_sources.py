"""Recordings in the layouts of data sets: what is read back lies on the walls of the room that was recorded."""

import struct
import zlib

import numpy as np
import pytest

from gen4d.sources import SourceError
from gen4d.sources.frames import read_frames
from gen4d.sources.posed import Reading, find_posed
from gen4d.sources.recorded import Recorded, poses_of
from gen4d.sources.sweeps import read_sweeps
from gen4d.views.frames import back_project
from tests.makers import recordings
from tests.makers.files import ply, write
from tests.makers.rooms import bare_floor

COUNT = 4
POSES = recordings.camera_poses(COUNT)


def frames_of(folder, every=1):
    found = find_posed(folder, "frames")
    assert len(found.sources) == 1 and not found.refused
    reading = Reading()
    return list(read_frames(found.sources[0], every, reading)), reading


@pytest.mark.parametrize("layout", recordings.FRAMES)
def test_frames_of_every_layout_lie_on_the_walls(tmp_path, layout):
    writer, lost = recordings.FRAMES[layout]
    writer(tmp_path, POSES)
    frames, reading = frames_of(tmp_path)
    assert {reason: len(keys) for reason, keys in reading.left_out.items()} == lost and not reading.broken
    assert len(frames) == COUNT and reading.frames == COUNT + sum(lost.values())
    for frame, truth in zip(frames, POSES, strict=True):
        assert np.abs(frame.pose - truth).max() < 1e-5
        point, pixel = back_project(frame, 0.0, 10.0)
        assert pixel.min() == 100 and len(point) == frame.depth.size - 100, "100 pixels have no depth"
        world = point @ frame.pose[:3, :3].T + frame.pose[:3, 3]
        assert recordings.off_walls(world).max() < 1.5e-3
    assert [frame.number for frame in frames] == sorted(frame.number for frame in frames)


NAMED = {  # layout -> the title and the first camera of its data set, for images of 640 x 480 or 1200 x 680
    "tum": ("TUM RGB-D", (517.3, 516.5, 318.6, 255.3), (640, 480)),
    "seven_scenes": ("7-Scenes", (585, 585, 320, 240), (640, 480)),
    "replica": ("Replica as rendered for NICE-SLAM", (600, 600, 599.5, 339.5), (1200, 680)),
}


@pytest.mark.parametrize("layout", NAMED)
def test_data_sets_with_one_camera_are_known_by_name(tmp_path, layout):
    recordings.FRAMES[layout][0](tmp_path, POSES)
    (tmp_path / "gen4d.yaml").unlink()
    title, camera, size = NAMED[layout]
    assert find_posed(tmp_path, "frames").entry.title == title
    frames, reading = frames_of(tmp_path)
    assert len(frames) == COUNT and not reading.broken
    for frame, truth in zip(frames, POSES, strict=True):
        assert np.abs(frame.pose - truth).max() < 1e-5
        share = np.array(frame.depth.shape[::-1]) / size
        given = np.array(camera).reshape(2, 2)
        assert np.allclose(frame.camera[:2], given[0] * share) and np.allclose(
            frame.camera[2:], (given[1] + 0.5) * share - 0.5
        )
        point, _ = back_project(frame._replace(camera=type(frame.camera)(*recordings.CAMERA)), 0.0, 10.0)
        world = point @ frame.pose[:3, :3].T + frame.pose[:3, 3]
        assert recordings.off_walls(world).max() < 1.5e-3, "the scale of depths, and what is no depth"


def test_unpadded_names_are_sorted_as_numbers_and_every_takes_from_all(tmp_path):
    recordings.write_exported(tmp_path, recordings.camera_poses(12))
    frames, reading = frames_of(tmp_path, every=3)
    assert [frame.number for frame in frames] == [0, 15, 30, 45, 60] and reading.frames == 13


@pytest.mark.parametrize("layout", recordings.SWEEPS)
def test_sweeps_of_every_layout_lie_on_the_walls(tmp_path, layout):
    poses = recordings.lidar_poses(COUNT)
    recordings.SWEEPS[layout](tmp_path, poses)
    found = find_posed(tmp_path, "sweeps")
    sweeps = list(read_sweeps(found.sources[0], 1, Reading()))
    assert [sweep.number for sweep in sweeps] == ([0, 1, 2, 3] if layout == "nuscenes" else [0, 2, 3, 4])
    home = np.eye(4) if layout == "nuscenes" else poses[0]  # KITTI's world is the first sweep's frame
    for sweep, truth in zip(sweeps, poses, strict=True):
        pose = home @ sweep.pose
        assert np.abs(pose - truth).max() < 1e-5
        assert recordings.off_walls(sweep.point @ pose[:3, :3].T + pose[:3, 3]).max() < 1e-4
        assert (sweep.label is not None) == (layout == "semantickitti")
    if layout == "semantickitti":
        number = np.arange(len(sweeps[0].point))
        assert np.array_equal(sweeps[0].label, number % 20) and np.array_equal(sweeps[0].instance, number % 7)


def test_kitti_raw_is_placed_by_its_gps(tmp_path):
    """Between two sweeps 30 m east, 40 m north and 0.4 to the left: told from latitudes, in the lidar's frame."""
    drive = tmp_path / "2011_09_26" / "2011_09_26_drive_0009_sync"
    earth_m, lat = 6378137.0, 49.0
    mount = recordings.rigid(recordings.turn("z", 0.01), (-0.8, 0.3, -0.8))  # IMU to lidar, as the file has it
    scale = np.cos(np.radians(lat))
    north = np.degrees(2 * np.arctan(np.exp(40 / (scale * earth_m) + np.log(np.tan(np.pi * (90 + lat) / 360))))) - 90
    rows = [(lat, 8.4, 100.0, 0, 0, 0.1), (north, 8.4 + np.degrees(30 / (scale * earth_m)), 101.0, 0, 0, 0.5)]
    for i, row in enumerate(rows):
        write(drive / "oxts" / "data" / f"{i:010d}.txt", (" ".join(map(repr, map(float, row))) + " 0 0 0").encode())
        write(drive / "velodyne_points" / "data" / f"{i:010d}.bin", b"\0" * 16)
    text = f"calib_time: 25-May-2012 16:47:16\nR: {' '.join(map(str, mount[:3, :3].ravel()))}\nT: -0.8 0.3 -0.8\n"
    write(tmp_path / "2011_09_26" / "calib_imu_to_velo.txt", text.encode())
    source = find_posed(tmp_path, "sweeps").sources[0]
    first, second = (sweep.pose @ mount for sweep in read_sweeps(source, 1, Reading()))  # of the IMU
    assert np.abs(second[:3, 3] - first[:3, 3] - [30, 40, 1]).max() < 1e-3
    assert np.abs(first[:3, :3].T @ second[:3, :3] - recordings.turn("z", 0.4)).max() < 1e-9
    (drive / "oxts" / "data" / f"{0:010d}.txt").unlink()
    assert [sweep.number for sweep in read_sweeps(source, 1, Reading())] == [1], "the rest is there"


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("version", [3, 4])
def test_a_sens_is_read_whatever_its_compression_and_version(tmp_path, compression, version):
    write(tmp_path / "a.sens", recordings.sens(POSES, compression, version))
    frames, _ = frames_of(tmp_path)
    for frame, pose in zip(frames, POSES, strict=True):
        assert np.array_equal(frame.depth, recordings.stored_depth(pose, 1000))
    assert [frame.time_s for frame in frames] == [0.0, 0.001, 0.002, 0.003]


WHOLE = recordings.sens(POSES)
BAD_SENS = {
    "wrong magic": (b"ply\n" + WHOLE[4:], "has version"),
    "empty header": (WHOLE[:20], "cut short in its header"),
    "a name of 4 GB": (WHOLE[:4] + struct.pack("<Q", 2**32) + WHOLE[12:], "name of 4294967296 bytes"),
    "occi": (recordings.sens(POSES, compression=2), "occi_ushort"),
    "unknown compression": (recordings.sens(POSES, compression=9), "number 9"),
    "10^12 frames": (recordings.sens(POSES, frames=10**12), "promises 1000000000000 frames"),
    "no frames": (recordings.sens([]), "has 0 frames"),
    "cut in a frame": (WHOLE[:-400], "cut short in frame 3 of 4"),
    "a depth bomb": (
        recordings.sens(POSES, depth=zlib.compress(b"\0" * 10**7)),
        "bytes of depth in frame 0",
    ),
    "not zlib": (recordings.sens(POSES, depth=b"\1" * 50), "damaged depth image in frame 0"),
    "too few pixels": (recordings.sens(POSES, compression=0, depth=b"\1" * 50), "has 50 bytes of depth in frame 0"),
}


@pytest.mark.parametrize("case", BAD_SENS)
def test_a_sens_that_is_damaged_or_lies_is_refused_in_one_line(tmp_path, case):
    content, part = BAD_SENS[case]
    write(tmp_path / "a.sens", content)
    with pytest.raises(SourceError, match=part) as error:
        frames, reading = frames_of(tmp_path)
        if not frames:
            raise SourceError("a.sens", f"has {reading.frames} frames")
    assert "\n" not in str(error.value)


def test_a_frame_that_says_4_gb_of_colour_is_refused_before_anything_is_read(tmp_path):
    content = bytearray(WHOLE)
    place = 4 + 8 + 5 + 256 + 36 + 64 + 16
    assert struct.unpack_from("<Q", content, place) == (4,)
    content[place : place + 8] = struct.pack("<Q", 2**32)
    write(tmp_path / "a.sens", bytes(content))
    with pytest.raises(SourceError, match="cut short in frame 0 of 4"):
        frames_of(tmp_path)


def slambook(folder):
    recordings.write_slambook(folder, POSES)
    return folder / "walk"


BAD_FRAMES = {  # what is changed in a folder -> what is said of the scan, or of the frame that is lost
    "an image cut short": ("depth/2.pgm", lambda content: content[:-90], "damaged image"),
    "an image of no pixels": ("depth/2.pgm", lambda _: b"P5\n0 0\n65535\n", "16-bit .png"),
    "an image of colour": ("depth/2.pgm", lambda _: b"P6\n1 1\n255\n\1\2\3", "mode RGB"),
    "an image that is text": ("depth/2.pgm", lambda _: b"hello", "not a 16-bit .png"),
    "a pose too few": ("pose.txt", lambda content: content.rpartition(b"\n")[0], "has 3 poses for 4 frames"),
    "poses of words": ("pose.txt", lambda _: b"all is lost\n", "line 1 is not numbers"),
    "poses of six numbers": ("pose.txt", lambda _: b"1 2 3 4 5 6\n" * 4, "rows of 6 numbers"),
    "uneven poses": ("pose.txt", lambda content: content + b" 7", "rows of"),
    "no focal length": ("intrinsics.txt", lambda _: b"0 61 31 24", "focal lengths 0 and 61"),
    "three intrinsics": ("intrinsics.txt", lambda _: b"1 61 31", "has 3 numbers"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_a_folder_that_is_damaged_is_named_with_the_rule(tmp_path, case):
    name, change, part = BAD_FRAMES[case]
    path = slambook(tmp_path) / name
    path.write_bytes(change(path.read_bytes()))
    if "image" in case:  # costs one frame
        frames, reading = frames_of(tmp_path)
        assert [frame.number for frame in frames] == [1, 3, 4]
        assert part in str(reading.broken[0]) and "2.pgm" in str(reading.broken[0])
    else:
        with pytest.raises(SourceError, match=part):
            frames_of(tmp_path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("nan 0 0 0 0 0 1", "no pose"),
        ("0 0 0 0 0 0 0", "no pose"),
        ("-inf -inf -inf 0 0 0 1", "no pose"),
    ],
)
def test_a_pose_that_is_none_costs_its_frame(tmp_path, row, reason):
    path = slambook(tmp_path) / "pose.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], row, *lines[2:]]))
    frames, reading = frames_of(tmp_path)
    assert [frame.number for frame in frames] == [1, 3, 4] and reading.left_out == {reason: ["2"]}


def test_a_pose_that_scales_or_mirrors_costs_its_frame(tmp_path):
    recordings.write_frames_25k(tmp_path, POSES)
    place = tmp_path / "scannet_frames_25k/scene0000_00/pose"
    write(place / "000100.txt", recordings.matrix(POSES[1] @ np.diag([1.1, 1.1, 1.1, 1])).encode())
    write(place / "000200.txt", recordings.matrix(POSES[2] @ np.diag([1, 1, -1, 1.0])).encode())
    frames, reading = frames_of(tmp_path)
    assert [frame.number for frame in frames] == [0, 300]
    assert reading.left_out == {"a pose that is not rigid": ["100", "200"]}


@pytest.mark.parametrize("direction", ["sensor-to-world", "world-to-sensor"])
def test_a_pose_of_zeros_costs_its_frame_alone_in_either_direction(tmp_path, direction):
    """Some write so that tracking was lost; a stack of poses cannot be inverted if one of them cannot."""
    slambook(tmp_path)
    for number, pose in enumerate(POSES, 1):
        given = np.zeros((4, 4)) if number == 2 else pose if direction == "sensor-to-world" else np.linalg.inv(pose)
        write(tmp_path / "walk" / "p" / f"{number}.txt", recordings.matrix(given).encode())
    body = f"depth: depth/*.pgm, pose: 'p/{{key}}.txt', pose_is: {direction}, intrinsics: intrinsics.txt"
    write(tmp_path / "gen4d.yaml", f"scans: walk\nframes: {{{body}}}\n".encode())
    frames, reading = frames_of(tmp_path)
    assert [frame.number for frame in frames] == [1, 3, 4] and list(reading.left_out.values()) == [["2"]]
    for frame, pose in zip(frames, (POSES[0], *POSES[2:]), strict=True):
        assert np.abs(frame.pose - pose).max() < 1e-5


BAD_YAML = {
    "not yaml": ("frames: [", "is not YAML"),
    "a list": ("- frames", "holds no keys"),
    "an unknown key": ("frame: {}", "has the key 'frame'"),
    "another kind": ("sweeps: {points: '*.bin', pose: p.txt}", "describes no frames"),
    "a misspelt key": ("frames: {depths: 'd/*.png'}", "did you mean depth"),
    "no star": ("frames: {depth: d/a.png, pose: p.txt, intrinsics: [1, 1, 1, 1]}", "needs one *"),
    "no pose": ("frames: {depth: 'd/*.png', intrinsics: [1, 1, 1, 1]}", "pose is missing"),
    "no intrinsics": ("frames: {depth: 'd/*.png', pose: p.txt}", "intrinsics is missing"),
    "both": ("frames: {depth: 'd/*.png', sens: true}", "one of depth, sens"),
    "a direction": ("frames: {depth: 'd/*.png', pose: p, intrinsics: k, pose_is: up}", "pose_is is 'up'"),
    "columns": ("frames: {depth: 'd/*.png', pose: p, intrinsics: k, pose_columns: tx ty q}", "has 'q'"),
    "no rotation": ("frames: {depth: 'd/*.png', pose: p, intrinsics: k, pose_columns: tx ty tz}", "lacks a rotation"),
    "a wrong type": ("frames: {depth: 'd/*.png', pose: p, intrinsics: k, match: 3}", "not of type str"),
    "no scans": ("scans: 'x*'\nframes: {depth: 'd/*.png', pose: p, intrinsics: k}", "names scans 'x*'"),
    "every at the top": ("every: 30\nframes: {depth: 'd/*.png', pose: p, intrinsics: k}", "has the key 'every'"),
    "scans elsewhere": ("scans: /a/*\nframes: {depth: 'd/*.png', pose: p, intrinsics: k}", "a glob of folders below"),
    "scans above": ("scans: ../a\nframes: {depth: 'd/*.png', pose: p, intrinsics: k}", "a glob of folders below"),
    "a name in braces": (
        "frames: {depth: 'd/*.png', pose: 'p/{frame}.txt', intrinsics: k}",
        "pose is 'p/{frame}.txt': a file's name, in which {base}, {name}, {key} may stand",
    ),
    "a key in a glob": ("frames: {depth: '{key}/*.png', pose: p, intrinsics: k}", "depth is '{key}/*.png'"),
    "a number for a file": ("frames: {depth: 'd/*.png', pose: 5, intrinsics: k}", "pose is 5: a file's name"),
    "an open brace": ("frames: {depth: 'd/*.png', pose: p, intrinsics: 'k{'}", "intrinsics is 'k{': a file's name"),
    "own intrinsics": ("frames: {depth: 'd/*.png', pose: p, intrinsics: k, intrinsics_of: {a: 5}}", "says 5 of 'a'"),
    "no list of own": ("frames: {depth: 'd/*.png', pose: p, intrinsics: k, intrinsics_of: 5}", "not of type dict"),
    "no images": ("frames: {depth: 'd/*.png', pose: p, intrinsics: k}", "has no d/*.png"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_description_that_is_wrong_says_where(tmp_path, case):
    text, part = BAD_YAML[case]
    write(tmp_path / "gen4d.yaml", text.encode())
    with pytest.raises(SourceError) as error:
        find_posed(tmp_path, "frames")
    assert part in str(error.value) and "\n" not in str(error.value)


def test_a_folder_of_scans_given_as_frames_and_the_reverse_say_what_it_looks_like(tmp_path):
    from gen4d.sources import find_scans

    slambook(tmp_path)
    with pytest.raises(SourceError, match=r"holds no scans, it looks like folders of depth.*--kind frames"):
        find_scans(tmp_path)
    with pytest.raises(SourceError, match=r"holds no sweeps, it looks like folders of depth.*--kind frames"):
        find_posed(tmp_path, "sweeps")
    write(tmp_path / "rooms" / "room.ply", ply(bare_floor(0)))
    with pytest.raises(SourceError, match=r"holds no frames, it looks like .*--scans of --kind moving"):
        find_posed(tmp_path / "rooms", "frames")
    with pytest.raises(SourceError, match=r"described in a gen4d\.yaml"):
        find_posed(tmp_path / "walk" / "depth", "frames")


def test_quaternions_need_not_be_of_length_one():
    pose = POSES[3]
    row = [*pose[:3, 3], *(3 * float(word) for word in recordings.quaternion(pose).split())]
    _, found = poses_of(None, np.array([row]), "auto")
    assert np.abs(found[0] - pose).max() < 1e-7


def test_defaults_of_a_description_are_those_of_the_field():
    assert (Recorded().depth_scale, Recorded().camera, Recorded().pose_is) == (1000.0, "opencv", "sensor-to-world")
