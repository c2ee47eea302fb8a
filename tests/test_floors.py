"""Floors with holes: no frame stands where the scan saw nothing, whatever the shape of the floor."""

import math

import numpy as np
import pytest

import gen4d
from gen4d.building.shard import describe
from gen4d.report.doctor import examine_scans
from gen4d.report.summary import summary
from tests import laws
from tests.makers.files import ply, write
from tests.makers.meshes import CUBE_TRIANGLES, CUBE_VERTEX

STOOL = {"chair": {"stool": ((CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_TRIANGLES)}}
SIDE_M = 12.0


def floor_of(inside, density: float, key: int = 1) -> np.ndarray:
    """Points (N, 3) float32 of a floor of 12 x 12 m where `inside(x, y)` holds, so many a square metre."""
    point = np.random.default_rng(key).uniform((0, 0, -0.01), (SIDE_M, SIDE_M, 0.01), (int(density * SIDE_M**2), 3))
    return point[inside(point[:, 0], point[:, 1])].astype(np.float32)


def ring(x, y):
    """A corridor of 2 m around a core of 8 x 8 m."""
    return np.maximum(abs(x - 6), abs(y - 6)) > 4


def bent(x, y):
    """An L of two arms of 3 m."""
    return (x < 3) | (y < 3)


def building(x, y):
    """A floor with nine cores of 1.5 x 1.5 m that nobody scanned."""
    return (abs((x % 4) - 2) > 0.75) | (abs((y % 4) - 2) > 0.75)


FLOORS = {"ring": ring, "L": bent, "building": building}
EVERY_FLOOR = pytest.mark.parametrize("name", FLOORS)


def made(point, **settings) -> gen4d.Recording:
    return gen4d.generate(point, STOOL, sequences=20, up="z", **settings)


def seen_of(recording) -> np.ndarray:
    """The cells (nx, ny) of a recording's plan that hold a point."""
    point, plan = recording.cloud.point, recording.floor
    return laws.seen_columns(point, laws.columns_of(point) - plan.origin, plan.valid.shape, plan.floor_m)


def cells_under(recording) -> list[np.ndarray]:
    """Of every frame of every sequence, the cells (K, 2) that the shape's disc touches."""
    plan, found = recording.floor, []
    corner = (np.argwhere(np.ones(plan.valid.shape, bool)) + plan.origin) * plan.cell_m
    for sequence in recording:
        for x, y in sequence.actors[1].pose[:, :2, 3].tolist():
            gap = np.maximum(np.maximum(corner - [x, y], [x, y] - corner - plan.cell_m), 0)
            touched = np.hypot(*gap.T) < sequence.movers[0].radius_m - 1e-6
            found.append(np.argwhere(touched.reshape(plan.valid.shape)))
    return found


@EVERY_FLOOR
def test_no_frame_stands_in_an_unseen_cell_without_closing(name):
    recording = made(floor_of(FLOORS[name], 1500), close_m=0.0)
    seen = seen_of(recording)
    assert len(recording) == 20 and recording.floor.unseen == 0.0
    assert all(seen[tuple(cells.T)].all() for cells in cells_under(recording))


@EVERY_FLOOR
def test_no_frame_stands_far_from_a_seen_cell_by_default(name):
    recording = made(floor_of(FLOORS[name], 300))
    near = laws.near(seen_of(recording), 5)
    assert len(recording) == 20 and 0 < recording.floor.unseen < 0.2
    assert all(near[tuple(cells.T)].all() for cells in cells_under(recording))


@EVERY_FLOOR
def test_cores_that_nobody_scanned_are_not_free(name):
    recording = made(floor_of(FLOORS[name], 300))
    plan = recording.floor
    x, y = np.moveaxis((np.argwhere(plan.valid) + plan.origin + 0.5) * plan.cell_m, 1, 0)
    rounded = laws.near(seen_of(recording), 3)
    assert (~FLOORS[name](x, y) & ~rounded[plan.valid]).sum() == 0  # corners are rounded by 0.2 m, no more is closed
    area = FLOORS[name](*np.random.default_rng(2).uniform(0, SIDE_M, (2, 100_000))).mean() * SIDE_M**2
    assert plan.valid_m2 == pytest.approx(area, rel=0.05)  # cells at the edges count whole


def test_a_sequence_walks_on_both_sides_of_a_core_but_not_through_it():
    recording = made(floor_of(ring, 600), frames=6)
    place = np.concatenate([sequence.actors[1].pose[:, :2, 3] for sequence in recording])
    assert {tuple(side) for side in (place > 6).tolist()} == {(a, b) for a in (False, True) for b in (False, True)}
    assert (np.abs(place - 6).max(axis=1) > 4).all()


def test_the_share_of_unseen_floor_is_stored_and_read(tmp_path):
    recording = made(floor_of(bent, 300))
    valid, seen = recording.floor.valid, seen_of(recording)
    assert recording.floor.unseen == (valid & ~seen).sum() / valid.sum() > 0
    dataset = gen4d.write_dataset([recording], tmp_path / "out")
    assert dataset.floor_plan(0).unseen == recording.floor.unseen
    assert describe(recording)["unseen"] == round(recording.floor.unseen, 4)


def test_a_plan_that_says_nothing_of_unseen_floor_is_read_as_not_known(tmp_path):
    recording = made(floor_of(bent, 300))
    plan = recording.floor._replace(unseen=math.nan)
    silent = gen4d.Recording("scan", recording.sequences, recording.cloud, plan)
    dataset = gen4d.write_dataset([silent], tmp_path / "out")
    assert math.isnan(dataset.floor_plan(0).unseen) and describe(silent)["unseen"] is None


def scan(name, unseen=0.1, below=0.0, tilt_deg=0.0):
    figures = {"points": 100, "free_m": 1.0, "valid_m2": 9.0, "sequences": [0], "attempts": 3}
    return figures | {"name": name, "unseen": unseen, "below": below, "tilt_deg": tilt_deg}


def lines_of(*scans) -> str:
    return "\n".join(summary([{"scans": list(scans), "bytes": 10}]))


def test_a_build_says_what_is_unseen_tilted_and_doubtful():
    text = lines_of(scan("good"), scan("thin", unseen=0.87), scan("turned", below=0.42, tilt_deg=3.14))
    assert "(10% unseen)" in text and "levelled by 3.1 degrees" in text
    assert "up to 87% of the free floor is unseen in thin: " in text and "close_m=0" in text
    assert "up to 42% of the points lie more than 20 cm below the floor in turned: " in text and "check --up" in text
    assert "warning" not in lines_of(scan("good"), scan("also", below=0.04, unseen=0.4))


def test_many_scans_are_summed_up_with_their_tilts():
    text = lines_of(*(scan(f"s{i}", tilt_deg=float(i % 3)) for i in range(30)))
    assert "levelled: 20 scans by 1.0 to 2.0 degrees" in text


def findings_of(tmp_path, point, name="scan.ply") -> str:
    write(tmp_path / name, ply(point))
    return "\n".join(f"{finding.level}: {finding.message}" for finding in examine_scans(tmp_path))


def test_the_doctor_warns_of_thin_clouds(tmp_path):
    assert "warning: " in (text := findings_of(tmp_path, floor_of(bent, 20))) and "most of the floor is unseen" in text


def test_the_doctor_says_the_unseen_share_of_a_good_floor_without_a_warning(tmp_path):
    text = findings_of(tmp_path, floor_of(bent, 300))
    assert "% unseen)" in text and "warning" not in text


def test_the_doctor_doubts_an_axis_under_which_much_lies_below_the_floor(tmp_path):
    point = floor_of(bent, 300)
    pit = np.random.default_rng(3).uniform((0.2, 0.2, -2), (1.2, 1.2, -0.1), (20_000, 3)).astype(np.float32)
    text = findings_of(tmp_path, np.concatenate([point, pit]))
    assert "of the points lie more than 20 cm below the floor: check --up" in text
