"""Scans that are tilted: levelled unasked, they give the same floor and as many sequences as level ones."""

import dataclasses

import numpy as np
import pytest

import gen4d
from gen4d import sources
from gen4d.building.moving import make_inputs
from gen4d.config import Config
from gen4d.moving.generate import generate_scan, group_shapes, prepare_scan
from gen4d.moving.occupancy import TOP_HEAVY
from gen4d.report.doctor import examine_scans
from gen4d.report.summary import BELOW_SHARE
from gen4d.samples import write_samples
from gen4d.sources import Orientation, find_scans, load_scan, scan_from_arrays
from gen4d.sources.level import rotation_to_z
from tests.makers import builds, commands, meshes
from tests.makers.files import ply, write
from tests.makers.rooms import FLOOR_M, furnished_room, room_of_size, room_points
from tests.shared import SHARED, needs_shared_data

TILTS = pytest.mark.parametrize("tilt_deg", [3.0, 7.5, 15.0])
REAL = pytest.mark.parametrize("name, up", [("room_scan1", "z"), ("room_scan2", "z"), ("office1", "-y")])


def tilted(point, tilt_deg, towards_rad=0.7) -> np.ndarray:
    """Points (N, 3) float32 whose floor is tilted by an angle towards a direction."""
    slope = np.tan(np.radians(tilt_deg))
    up = np.array([slope * np.cos(towards_rad), slope * np.sin(towards_rad), 1.0])
    return (point.astype(np.float64) @ rotation_to_z(up)).astype(np.float32)


def real_points(name, up) -> np.ndarray:
    """A real scan's points, levelled by its floor."""
    found = find_scans(SHARED / "pcl_indoor").sources
    return load_scan(next(source for source in found if source.name == name), Orientation(f"floor:{up}")).point


def loaded(point, up="auto") -> sources.Scan:
    return scan_from_arrays("scan", point, None, None, Orientation(up))


def free_m2(scan) -> float:
    return prepare_scan(scan, Config()).floor.valid_m2


# What is levelled


@TILTS
def test_a_tilted_room_is_levelled_unasked_and_its_transform_says_so(tilt_deg):
    room = room_of_size(np.random.default_rng(1), (6, 5))
    scan = loaded(tilted(room, tilt_deg))
    assert scan.tilt_deg == pytest.approx(tilt_deg, abs=0.05)
    assert np.degrees(np.arccos(scan.transform[2, 2])) == pytest.approx(tilt_deg, abs=0.05)
    assert free_m2(scan) == pytest.approx(free_m2(loaded(room.astype(np.float32))), rel=0.02)


@pytest.mark.parametrize("up, tilt_deg", [("z", 7.5), ("auto", 0.8), ("auto", 0.0)])
def test_an_axis_and_a_floor_that_is_nearly_level_leave_the_points_alone(up, tilt_deg):
    point = tilted(room_of_size(np.random.default_rng(2), (6, 5)), tilt_deg)
    scan = loaded(point, up)
    assert scan.tilt_deg == 0 and scan.point.tobytes() == point.tobytes()
    assert (scan.transform == np.eye(4)).all()


def test_floor_levels_what_auto_would_leave():
    point = tilted(room_of_size(np.random.default_rng(2), (6, 5)), 0.8)
    assert loaded(point, "floor").tilt_deg == pytest.approx(0.8, abs=0.05)


def test_auto_starts_from_the_axis_that_is_given():
    point = tilted(room_of_size(np.random.default_rng(3), (6, 5)), 5.0)
    scan = loaded(point[:, [0, 2, 1]] * np.float32([1, -1, 1]), "auto:-y")
    assert scan.tilt_deg == pytest.approx(5.0, abs=0.05)
    assert np.linalg.det(scan.transform[:3, :3]) == pytest.approx(1)


def test_a_scan_without_a_floor_to_level_by_is_taken_as_it_is():
    angle = np.linspace(0, 60, 6000)
    spiral = np.column_stack([angle * np.cos(angle) / 10, angle * np.sin(angle) / 10, angle]).astype(np.float32)
    wide = np.concatenate([room_points(), [[2e4, 2e4, 0]]]).astype(np.float32)
    for point in (spiral, wide):
        scan = loaded(point)
        assert scan.tilt_deg == 0 and scan.point.tobytes() == point.tobytes()


def test_furniture_in_a_level_room_tilts_nothing():
    """Beds and cupboards cover most of a small room: a plane over their tops must not be taken for the floor."""
    rng = np.random.default_rng(4)
    for key in range(12):
        room = room_of_size(np.random.default_rng((5, key)), rng.uniform(2, 4, 2))
        low = [(room[:, 0] < 0.6, 0.45), (room[:, 1] < 0.5, 0.9), (room[:, 0] + room[:, 1] > 5, 0.6)]
        for where, height in low:
            room[where & (room[:, 2] < 0.3), 2] += height
        assert loaded(room.astype(np.float32)).tilt_deg == 0, key


def test_the_library_and_a_build_level_alike(tmp_path):
    point = tilted(room_of_size(np.random.default_rng(6), (5, 4)), 6.0)
    write(tmp_path / "scans/scan.ply", ply(point))
    shapes = meshes.write_shapes(tmp_path / "shapes")
    planned = builds.make_inputs(tmp_path / "scans", shapes, sequences=2)
    builds.run_build(tmp_path / "out", planned)
    built = gen4d.open_dataset(tmp_path / "out")
    scan = load_scan(planned.scans[0], Orientation())
    assert built[0].actors[0].cloud.point.tobytes() == prepare_scan(scan, planned.config).cloud.point.tobytes()
    outcome = commands.gen4d("inspect", tmp_path / "out")
    assert "levelled by 6.0 degrees" in outcome.out


def test_doctor_and_build_print_the_tilt(tmp_path):
    point = tilted(room_of_size(np.random.default_rng(6), (5, 4)), 6.0)
    write(tmp_path / "scans/scan.ply", ply(point))
    assert "levelled by 6.0 degrees" in "\n".join(found.message for found in examine_scans(tmp_path / "scans"))
    shapes = meshes.write_shapes(tmp_path / "shapes")
    places = ("--scans", tmp_path / "scans", "--shapes", shapes, "--classes", "chair", "--sequences", "1")
    levelled, left = (commands.gen4d("build", *places, "--out", tmp_path / up, "--up", up) for up in ("auto", "z"))
    assert "levelled by 6.0 degrees" in levelled.out and "levelled" not in left.out


# Real scans, and built-in ones


@needs_shared_data
@REAL
@TILTS
def test_a_real_scan_gives_the_same_free_floor_however_it_is_tilted(name, up, tilt_deg):
    point = real_points(name, up)
    scan = loaded(tilted(point, tilt_deg))
    assert abs(scan.tilt_deg - tilt_deg) < 0.5  # the depth camera bends its floor
    assert free_m2(scan) == pytest.approx(free_m2(loaded(point, "z")), rel=0.02)


@needs_shared_data
@REAL
def test_a_tilted_real_scan_gives_as_many_sequences_as_a_level_one(name, up):
    point = real_points(name, up)
    planned = make_inputs(find_scans(SHARED / "pcl_indoor"), sources.find_shapes(SHARED / "furniture8"), Config())
    shapes = group_shapes(planned.shapes, "auto")
    level, turned, left = (
        generate_scan(loaded(tilted(point, tilt_deg), axis), shapes, dataclasses.replace(planned.config, up=axis))
        for tilt_deg, axis in ((0.0, "z"), (15.0, "auto"), (15.0, "z"))
    )
    assert len(turned.recording) == len(level.recording) == 20
    assert turned.counts.attempts < 1.5 * level.counts.attempts
    assert left.counts.attempts > 2 * level.counts.attempts  # what levelling saves


@pytest.fixture(scope="module")
def tilted_samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tilted")
    write_samples(folder, rooms=5, shapes=1, tilted=True)
    names = folder / "all.txt"
    names.write_text("\n".join(path.name for path in (folder / "scans").glob("scene*")))
    return find_scans(folder / "scans", names).sources


def labelled_tilt(scan) -> float:
    """Tilt in degrees of the plane through the points that are labelled floor."""
    floor = scan.point[scan.label == 2].astype(np.float64)
    design = np.column_stack([floor[:, :2], np.ones(len(floor))])
    slope = np.linalg.lstsq(design, floor[:, 2], rcond=None)[0]
    return float(np.degrees(np.arctan(np.hypot(*slope[:2]))))


def test_built_in_scans_are_level_to_a_degree_after_loading_though_some_are_tilted(tilted_samples):
    before = [labelled_tilt(load_scan(source, Orientation("z"))) for source in tilted_samples]
    after = [labelled_tilt(load_scan(source, Orientation())) for source in tilted_samples]
    assert max(before) > 1.5 and min(before) < 0.5
    assert max(after) < 1.1
    assert all(b < 0.3 for a, b in zip(before, after, strict=True) if a > 1.5)


def test_samples_are_level_or_tilted_as_asked_and_never_mixed(tmp_path):
    write_samples(tmp_path / "level", rooms=1, shapes=1)
    write_samples(tmp_path / "tilted", rooms=1, shapes=1, tilted=True)
    sources_of = [find_scans(tmp_path / kind / "scans").sources[0] for kind in ("level", "tilted")]
    level, turned = (load_scan(source, Orientation("z")) for source in sources_of)
    assert labelled_tilt(level) < 0.1 < labelled_tilt(turned)
    for kind, other in (("level", True), ("tilted", False)):
        with pytest.raises(gen4d.samples.SamplesError, match="holds samples of tilted"):
            write_samples(tmp_path / kind, rooms=1, shapes=1, tilted=other)
        assert not write_samples(tmp_path / kind, rooms=1, shapes=1, tilted=not other).written


# Scans on their heads


def on_its_head(point) -> np.ndarray:
    return (point * np.float32([1, -1, -1])).astype(np.float32)


def doubted(point) -> bool:
    """Whether a build or the doctor would say that another axis may point up."""
    prepared = prepare_scan(loaded(point), Config())
    return prepared.below > BELOW_SHARE or prepared.top_heavy > TOP_HEAVY


@needs_shared_data
@REAL
def test_a_real_scan_on_its_head_is_doubted_and_none_on_its_feet_is(name, up):
    point = real_points(name, up)
    assert doubted(on_its_head(point)) and not doubted(point)


def test_rooms_with_a_ceiling_or_without_are_doubted_on_their_heads_alone():
    for key in range(4):
        room = furnished_room((8, key))
        for point in (room, room[room[:, 2] < FLOOR_M + 2.3]):
            assert doubted(on_its_head(point)) and not doubted(point), key
    for key in range(12):  # whose furniture is as high as people: nothing says which end is up
        rng = np.random.default_rng((8, key))
        assert not doubted(room_of_size(rng, rng.uniform(2.5, 7, 2)).astype(np.float32)), key


def test_an_empty_room_is_never_doubted():
    rng = np.random.default_rng(3)
    sheets = [((0, 0, 0), (6, 4, 0)), ((0, 0, 2.5), (6, 4, 2.5)), ((0, 0, 0), (6, 0, 2.5)), ((0, 0, 0), (0, 4, 2.5))]
    room = np.concatenate([rng.uniform(low, high, (12_000, 3)) for low, high in sheets]).astype(np.float32)
    assert not doubted(room) and not doubted(on_its_head(room))


def test_built_in_scans_are_not_doubted(tilted_samples):
    assert not any(doubted(load_scan(source, Orientation()).point) for source in tilted_samples)


def test_doctor_and_build_say_that_a_scan_stands_on_its_head(tmp_path):
    write(tmp_path / "scans/room.ply", ply(on_its_head(furnished_room(1))))
    (found,) = (found for found in examine_scans(tmp_path / "scans") if "on its head" in found.message)
    assert found.level == "warning" and found.path.endswith("room.ply") and "check --up" in found.message
    places = ("--scans", tmp_path / "scans", "--shapes", meshes.write_shapes(tmp_path / "shapes"))
    made = commands.gen4d("build", *places, "--out", tmp_path / "out", "--sequences", "1", "--classes", "chair")
    assert "above the floor in room: scans that stand on their heads, check --up" in made.out
    right = commands.gen4d("doctor", "--scans", tmp_path / "scans", "--up", "auto:-z")
    assert right.code == 0 and "head" not in right.out
