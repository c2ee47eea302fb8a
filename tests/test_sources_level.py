"""Up and units: axes are exact, vectors smallest turns, and `floor` finds the tilt of a room."""

import numpy as np
import pytest

from gen4d.sources import Orientation, SourceError, find_scans, load_scan, parse_units
from gen4d.sources.level import floor_normal, rotation_to_z, up_rotation
from tests.makers.files import ply, write
from tests.makers.rooms import room_of_size, room_points
from tests.shared import SHARED, needs_shared_data


def scan_of(tmp_path, point, **orientation):
    write(tmp_path / "a.ply", ply(point))
    return load_scan(find_scans(tmp_path).sources[0], Orientation(**orientation))


@pytest.mark.parametrize(
    "text, metres",
    [("m", 1), ("cm", 0.01), ("MM", 0.001), ("in", 0.0254), ("ft", 0.3048), (" 0.5 ", 0.5), ("1e-3", 1e-3)],
)
def test_units_are_names_or_numbers(text, metres):
    assert parse_units(text) == pytest.approx(metres)


@pytest.mark.parametrize("text", ["", "parsec", "-1", "0", "nan", "inf", "1e30"])
def test_units_that_are_none_are_refused(text):
    with pytest.raises(SourceError, match="--units"):
        parse_units(text)


@pytest.mark.parametrize("up", ["x", "-x", "y", "-y", "z", "-z", "+y", "0.1,0,1", "1,-2,0.5", "0,0,-1"])
def test_every_up_turns_to_z_by_a_rotation(up):
    turn = up_rotation(up)
    axes = dict(zip("xyz", np.eye(3), strict=True))
    vector = axes[up[-1]] * (-1 if up[0] == "-" else 1) if up[-1] in axes else np.array(up.split(","), float)
    assert np.allclose(turn @ vector, [0, 0, np.linalg.norm(vector)], atol=1e-12)
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-12) and np.linalg.det(turn) == pytest.approx(1)


@pytest.mark.parametrize("up", ["", "w", "1,2", "1,2,3,4", "0,0,0", "nan,0,1", "1,,2", "floor:q", "inf,0,0"])
def test_up_that_is_no_direction_is_refused(tmp_path, up):
    with pytest.raises(SourceError, match="--up"):
        scan_of(tmp_path, room_points(), up=up)


def test_axes_and_units_are_applied_exactly_and_kept_as_the_transform(tmp_path):
    point = room_points()
    scan = scan_of(tmp_path, point[:, [0, 2, 1]] * [1, -1, 1] * np.float32(100), up="-y", metres_per_unit=0.01)
    assert np.allclose(scan.point, point * [1, 1, 1], atol=1e-6)
    source = np.column_stack([point[:, [0, 2, 1]] * [1, -1, 1] * 100, np.ones(len(point))])
    assert np.allclose((source @ scan.transform.T)[:, :3], scan.point, atol=1e-5)
    assert np.linalg.det(scan.transform[:3, :3]) == pytest.approx(1e-6)


def test_points_that_need_no_turn_keep_their_bits(tmp_path):
    point = room_points()
    assert scan_of(tmp_path, point).point.tobytes() == point.tobytes()


def test_millimetres_taken_for_metres_are_refused_with_a_hint(tmp_path):
    with pytest.raises(SourceError, match="check --units"):
        scan_of(tmp_path, room_points() * np.float32(1e5))


@pytest.mark.parametrize("size", [(4, 3), (8, 6), (30, 20)])
@pytest.mark.parametrize("tilt_deg", [(0, 0), (4.9, 0), (-3.5, 8.5), (12, -12)])
def test_floor_is_levelled_to_a_twentieth_of_a_degree(size, tilt_deg):
    rng = np.random.default_rng([size[0], int(10 * tilt_deg[0]) + 200])
    up = np.array([*np.tan(np.radians(tilt_deg)), 1])
    up /= np.linalg.norm(up)
    tilted = room_of_size(rng, size) @ rotation_to_z(up)
    assert np.degrees(np.arccos(min(1.0, floor_normal(tilted) @ up))) < 0.05


def test_levelling_takes_the_floor_and_not_the_ceiling_or_a_wall():
    rng = np.random.default_rng(5)
    room = room_of_size(rng, (5, 4))
    sloped = np.where(room[:, 2:] > 2.4, room + room[:, :1] * [0, 0, 0.3], room)  # an attic
    assert np.degrees(np.arccos(min(1.0, floor_normal(sloped)[2]))) < 0.1


def test_levelling_is_the_same_for_any_order_of_the_points():
    rng = np.random.default_rng(7)
    room = room_of_size(rng, (4, 3)) @ rotation_to_z(np.array([0.05, 0.02, 1]))
    assert np.allclose(floor_normal(room), floor_normal(room[rng.permutation(len(room))]), atol=1e-9)


def test_scan_without_a_floor_cannot_be_levelled(tmp_path):
    angle = np.linspace(0, 60, 6000)
    spiral = np.column_stack([angle * np.cos(angle) / 10, angle * np.sin(angle) / 10, angle]).astype(np.float32)
    with pytest.raises(SourceError, match=r"cannot be levelled.*give --up"):
        scan_of(tmp_path, spiral, up="floor")


def test_floor_levels_from_the_axis_that_is_given(tmp_path):
    rng = np.random.default_rng(3)
    turn = rotation_to_z(np.array([0.08, 0, 1]))
    room = (room_of_size(rng, (4, 3)) @ turn)[:, [0, 2, 1]] * [1, -1, 1]  # y down, tilted
    scan = scan_of(tmp_path, room.astype(np.float32), up="floor:-y")
    low = scan.point[scan.point[:, 2] < np.percentile(scan.point[:, 2], 20)]
    assert np.std(low[:, 2]) < 0.015 and np.linalg.det(scan.transform[:3, :3]) == pytest.approx(1)


@needs_shared_data
def test_office_seen_by_a_tilted_camera_is_levelled():
    source = next(source for source in find_scans(SHARED / "pcl_indoor").sources if source.name == "office1")
    plain = load_scan(source, Orientation("-y")).transform
    scan = load_scan(source, Orientation("floor:-y"))
    tilt_deg = np.degrees(np.arccos((scan.transform @ np.linalg.inv(plain))[2, 2]))
    assert 4.2 < tilt_deg < 5.2
    height = scan.point[:, 2]
    near = np.abs(height - np.median(height[height < height.min() + 0.15])) < 0.03
    assert near.sum() > 8000 and np.ptp(scan.point[near, 0]) > 1.5  # one height all over the floor


@needs_shared_data
@pytest.mark.parametrize("name", ["room_scan1", "room_scan2"])
def test_scans_that_are_nearly_level_are_turned_by_under_two_degrees(name):
    source = next(source for source in find_scans(SHARED / "pcl_indoor").sources if source.name == name)
    scan = load_scan(source, Orientation("floor"))
    assert np.degrees(np.arccos(scan.transform[2, 2])) < 2
