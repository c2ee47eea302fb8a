"""Each law sees what breaks it: sequences of a sound data set, changed in memory in one place at a time."""

import numpy as np
import pytest

from tests import laws, raw
from tests.makers.builds import make_inputs, run_build
from tests.makers.meshes import write_shapes
from tests.makers.rooms import write_furnished


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A shard of one room with pair lists, and the room's source."""
    folder = tmp_path_factory.mktemp("sound")
    scans, shapes = write_furnished(folder / "scans", 1, 9000), write_shapes(folder / "shapes")
    run_build(folder / "built", make_inputs(scans, shapes, sequences=3, pairs=True))
    return laws.read_shard(folder / "built" / "shards" / "00000.zarr.zip"), raw.source_of(scans)("room000")


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A shard of one room through which two shapes move at once."""
    folder = tmp_path_factory.mktemp("crowd")
    scans, shapes = write_furnished(folder / "scans", 1, 9000), write_shapes(folder / "shapes")
    run_build(folder / "built", make_inputs(scans, shapes, sequences=3, movers_min=2, movers_max=2))
    return laws.read_shard(folder / "built" / "shards" / "00000.zarr.zip")


def check(shard, source, pairs_of=None):
    laws.check_scan(shard, 0, source)
    laws.check_sequence(shard, 0, pairs_of)


FIRST = 0  # row of the scan, of its first sequence, and of the actor of that which stays
MOVER = 1  # row of the actor that moves
SECOND = 2  # row of the actor of the second shape that moves, where there are two
TILTED = [(1, 0, 0, 0), (0, 0.96, -0.28, 0), (0, 0.28, 0.96, 0), (0, 0, 0, 1)]
POINT = 20  # any point of the scan, and not the last
END_OF_LAST_LIST = 6  # row of pair/start: where the list of frames 2 and 3, the sixth, ends
ALL = slice(None)


def points_of_the_shape(shard):
    """Rows of the points of the shape that moves in the first sequence."""
    return laws.cloud_rows(shard, int(shard.table["actor/cloud"][MOVER]))


def byte_of_free_cells(shard):
    """The first byte of the floor plan whose eight cells are all free."""
    return int(np.flatnonzero(shard.table["scan/valid"] == 255)[0])


def two_pairs_of_the_first_list(shard):
    """Rows of two pairs of frames 0 and 1."""
    start = int(shard.table["pair/start"][FIRST])
    return slice(start, start + 2)


def changed(shard, name, rows, change):
    """A copy of a shard with some rows of one array changed; rows: numbers, or a function of the shard."""
    rows = rows(shard) if callable(rows) else rows
    array = shard.table[name].copy()
    array[rows] = change(array[rows])
    return shard._replace(table=shard.table | {name: array})


def row(name, change, rows=FIRST):
    """Change rows of an array."""
    return lambda shard: changed(shard, name, rows, change)


def pose(change):
    """Change the poses (t, 4, 4) of the shape of sequence 0, in place."""

    def changes(rows):
        rows = rows.copy()
        change(rows)
        return rows

    return row("actor/pose", changes, MOVER)


def shift(frames, *by):
    """Move some frames by (x, y, z)."""

    def change(poses):
        poses[frames, :3, 3] += np.float32(by)

    return pose(change)


def put(frame, other, *by):
    """Put the shape in one frame where it is in another, and move it by (x, y, z)."""

    def change(poses):
        poses[frame, :3, 3] = poses[other, :3, 3] + np.float32(by)

    return pose(change)


def turn(frames, *matrix):
    """Turn the shape by a matrix in some frames."""

    def change(poses):
        poses[frames, :3, :3] = np.float32(matrix).reshape(3, 3) @ poses[frames, :3, :3]

    return pose(change)


def mask(actor, change):
    """Change the masks (t, bytes) of an actor of sequence 0, in place."""

    def breaks(shard):
        start = shard.table["actor/mask_start"][actor]
        size = int(start[1] - start[0])
        planes = shard.table["actor/mask"][start[0] : start[0] + size * len(start)].reshape(len(start), size).copy()
        change(planes)
        rows = slice(int(start[0]), int(start[0]) + planes.size)
        return changed(shard, "actor/mask", rows, lambda _: planes.ravel())

    return breaks


def swap_points(shard):
    """Swap two neighbours of the scan's cloud in every per-point array."""
    for name in ("cloud/point", "cloud/vertex", "cloud/label"):
        shard = changed(shard, name, [POINT, POINT + 1], lambda rows: rows[::-1])
    return shard


def move_points(shard):
    """Replace a point by a vertex that lies in a voxel of another, with its own index and label."""
    for name in ("cloud/point", "cloud/vertex", "cloud/label"):
        shard = changed(shard, name, [POINT, POINT + 1], lambda rows: rows[[1, 1]])
    return shard


def thin_out(planes):
    planes[:, :-1] = 255
    planes[1, :-1] = 0b01010100


def share_nothing(planes):
    planes[0] &= 0b11110000
    planes[1] &= 0b00001111


def pad(planes):
    planes[2, -1] |= 1


def fill(planes):
    planes[:, :-1] = 255


def repeat(planes):
    planes[:] = planes[0]


BREAKS = {
    "points are unmoved, bit for bit": row("cloud/point", lambda p: np.nextafter(p, np.float32(9)), POINT),
    "takes each vertex once": move_points,
    "labels are those of the vertices": row("cloud/label", lambda label: label + 1, POINT),
    "is in Morton order": swap_points,
    "counts the finite points": row("scan/source_points", lambda n: n - 1),
    "counts the points that are not finite": row("scan/dropped", lambda n: n + 1),
    "the floor's height is right to 2 cm": row("scan/floor_m", lambda z: z + 0.03),
    "its plan is the points' own": row("scan/valid", lambda byte: byte ^ 4, byte_of_free_cells),
    "its plan starts at the first column": row("scan/origin", lambda cell: cell + 1),
    "its widest free disc is the plan's": row("scan/free_m", lambda r: r * 1.001),
    "its unseen share is the plan's": row("scan/unseen", lambda share: share + 0.01),
    "is a scan and a moving shape": row("actor/role", lambda role: role + 1),
    "its static actor is its scan": row("actor/cloud", lambda cloud: cloud + 1),
    "the scan does not move, exactly": row("actor/pose", lambda p: p + np.float32(1e-7)),
    "its transforms are rigid to 1e-6": turn([2], 1.00001, 0, 0, 0, 1, 0, 0, 0, 1),
    "its transforms mirror nothing": turn([2], -1, 0, 0, 0, 1, 0, 0, 0, 1),
    "it turns about z alone": turn([2], 1, 0, 0, 0, 0.96, -0.28, 0, 0.28, 0.96),
    "its yaw turns with its heading": turn([2], 0.96, -0.28, 0, 0.28, 0.96, 0, 0, 0, 1),
    "its shape stands at the floor's height": shift([3], 0, 0, 1e-5),
    "its steps are between 0.30 and 0.90 m": put(1, 0, 0.2, 0, 0),
    "its turns are below 150 degrees": put(2, 0, 0, 0, 0),
    "it stands in the middle of cells": shift(ALL, 0.03, 0, 0),
    "its disc lies in valid cells": shift(ALL, 2, 0, 0),
    "its disc holds its shape": row("sequence/radius_m", lambda r: r * 0.8),
    "its shape stands on the floor": row("cloud/point", lambda p: p - np.float32([0, 0, 0.01]), points_of_the_shape),
    "its shape is as high as it says": row("sequence/height_m", lambda h: h * 1.5),
    "1000 points are sampled": row("cloud/vertex", lambda v: v + 1, points_of_the_shape),
    "every frame keeps half of the points": mask(FIRST, thin_out),
    "all frames share 30 % of the scan": mask(FIRST, share_nothing),
    "all frames share 30 % of the shape": mask(MOVER, share_nothing),
    "the padding bits of actor 0 are 0": mask(FIRST, pad),
    "the shape is sampled anew by each frame": mask(MOVER, repeat),
    "every frame samples the scan": mask(FIRST, fill),
    "the stored pairs of frames 0 and 1": row("pair/second", lambda rows: rows[::-1], two_pairs_of_the_first_list),
    "the stored pairs of frames 2 and 3": row("pair/start", lambda start: start - 1, END_OF_LAST_LIST),
}


def test_a_sound_shard_breaks_no_law(sound):
    check(*sound)


@pytest.mark.parametrize("law", BREAKS)
def test_the_laws_see(law, sound):
    shard, source = sound
    broken = BREAKS[law](shard)
    assert any(not np.array_equal(broken.table[name], shard.table[name], equal_nan=True) for name in shard.table)
    with pytest.raises(laws.Broken, match=law):
        check(broken, source)


def test_a_larger_radius_than_the_plan_allows_is_seen(sound):
    shard, _ = sound
    with pytest.raises(laws.Broken, match="its disc lies in valid cells"):
        laws.check_sequence(row("sequence/radius_m", lambda r: r + 1.0)(shard), 0)


CROWD_BREAKS = {
    "every shape has its actors": row("actor/mover", lambda n: n * 0, SECOND),
    "its scan is no shape that moves": row("actor/mover", lambda n: n + 1),
    "its first shape is in the tables": row("sequence/radius_m", lambda r: r + 1e-3),
    "it turns about z alone": row("actor/pose", lambda p: p @ np.float32(TILTED), SECOND),
}


@pytest.mark.parametrize("law", CROWD_BREAKS)
def test_the_laws_of_several_shapes_see(law, crowd):
    laws.check_sequence(crowd, 0)
    with pytest.raises(laws.Broken, match=law):
        laws.check_sequence(CROWD_BREAKS[law](crowd), 0)


def test_discs_that_overlap_between_two_frames_alone_are_seen(crowd):
    one, other = laws.movers_of(crowd, 0, "")
    crossing = one.pose.copy()
    crossing[1] = other.pose[0]
    crossing[0] = other.pose[1]
    with pytest.raises(laws.Broken, match="discs of its shapes never overlap"):
        laws.check_apart("", [one._replace(pose=crossing, radius_m=0.1), other._replace(radius_m=0.1)])


def test_pairs_of_a_reader_are_compared_too(sound):
    shard, source = sound
    stored = {ij: laws.stored_pairs(shard, n) for n, ij in enumerate([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])}
    check(shard, source, lambda i, j: stored[i, j])
    with pytest.raises(laws.Broken, match="the read pairs of frames 0 and 1"):
        check(shard, source, lambda i, j: stored[i, j][::-1])


def test_a_kept_vertex_that_is_not_the_first_of_its_voxel_is_seen(sound):
    shard, source = sound
    again = laws.Source(np.concatenate([source.point[:50] + np.float32(1e-4), source.point]))
    late = shard.table["cloud/vertex"] + 50
    other = shard._replace(table=shard.table | {"cloud/vertex": late})
    other = row("scan/source_points", lambda n: n + 50)(other)
    with pytest.raises(laws.Broken, match="keeps the first vertex of every voxel"):
        laws.check_scan(other, 0, again)
