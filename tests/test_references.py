"""The generator, the research-style reference and careful NumPy make the same frames and pairs of the same draws.

The draws are the generator's own: the plan that the references take is drawn again from the generators that
`generate.lane` keys by (seed, scan, sequence, attempt, step), so that this also fixes what is drawn, in which order.
The references are those that `make bench` measures against.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks import careful, compiled, research
from gen4d import sources
from gen4d.config import Config
from gen4d.moving import augment, generate
from gen4d.moving.models import load_model
from gen4d.moving.shape import sample_surface
from tests import naive
from tests.makers.builds import make_inputs
from tests.makers.meshes import write_shapes
from tests.makers.rooms import FLOOR_M, furnished_room, write_furnished

PIPELINES = pytest.mark.parametrize("pipeline", [research, careful, compiled])
SEQUENCES = [{}, {"keep": 0.88}, {"frames": 2}, {"frames": 8, "keep": 0.99, "chunks_min": 0, "chunks_max": 3}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return write_furnished(folder / "scans", 2, 5000), write_shapes(folder / "shapes")


@pytest.fixture(scope="module", params=[0, 1])
def scan(folders, request):
    return sources.load_scan(sources.find_scans(folders[0]).sources[request.param], sources.Orientation())


def config_of(folders, **changes):
    return make_inputs(*folders, **changes).config


def test_the_three_prepare_the_same_scan(scan):
    prepared = generate.prepare_scan(scan, Config())
    point = prepared.cloud.point
    assert_array_equal(scan.point[np.searchsorted(scan.row, prepared.cloud.vertex)], point)
    for reference in (research, careful):
        twin = reference.prepare(scan.point, floor_m=prepared.floor.floor_m)
        assert_array_equal(point, twin.cloud)
        assert_array_equal(prepared.quantised, twin.quantised)
        assert_array_equal(prepared.floor.valid, twin.valid)
        assert_array_equal(prepared.floor.origin, twin.origin)
        assert_allclose(prepared.space.distance_m, twin.distance, rtol=1e-12)


def plan_of(config, scan, k):
    """The draws of attempt 0 at sequence k, for a shape that has a way through the scan at its full size."""
    rng = generate.lane(config, scan, k, 0, "trajectory")
    start, yaw = rng.random(2)
    walk = rng.random((config.frames - 1, config.step_tries, 2))
    rng = generate.lane(config, scan, k, 0, "augment")
    chunks = augment.draw_chunks(
        config.frames, (config.chunks_min, config.chunks_max), (config.chunk_min, config.chunk_max), rng
    )
    keys = [int(rng.integers(0, 2**64, dtype=np.uint64)) for _ in range(2)]
    return naive.Plan(start, walk, 2 * math.pi * yaw, chunks.box, chunks.count, round(config.keep * 65536), *keys)


def assert_same_sequence(sequence, frames, pairs):
    for mine, reference in zip(sequence.frames, frames, strict=True):
        assert_array_equal(mine.actor, reference.actor)
        assert_array_equal(mine.point_index, reference.point_index)
        scan = mine.actor == 0
        assert_array_equal(mine.point[scan], reference.point[scan])
        assert_allclose(mine.point[~scan], reference.point[~scan], rtol=2e-7, atol=3e-7)  # a pose may round otherwise
    numbers = [(i, j) for i in range(sequence.t) for j in range(i + 1, sequence.t)]
    for (i, j), reference in zip(numbers, pairs, strict=True):
        for mine, other in zip(sequence.correspondences(i, j), reference, strict=True):
            assert_array_equal(mine, other)
            assert mine.dtype == other.dtype == np.int32


def shape_of(prepared, shapes, config, k):
    """The shape of attempt 0 at sequence k, as the references take it: cloud and radius; None if it had to shrink."""
    rng = generate.lane(config, prepared.name, k, 0, "shape")
    drawn = generate.draw_shape(shapes, config, rng, prepared.space.widest_m)
    fit = generate.find_fit(prepared.space, drawn, config, generate.lane(config, prepared.name, k, 0, "trajectory"))
    if isinstance(fit, generate.Rejection) or fit.shrink < 1:
        return None
    rng = generate.lane(config, prepared.name, k, 0, "surface")
    point, _ = sample_surface(load_model(drawn.source, shapes.up), drawn.height_m, config.shape_points, rng)
    return point, fit.radius_m


@pytest.mark.parametrize("changes", SEQUENCES)
def test_the_three_make_the_same_sequences_and_reject_the_same_attempts(folders, scan, changes):
    config = config_of(folders, **changes)
    shapes = generate.group_shapes(sources.find_shapes(folders[1]).sources, config.shape_up)
    prepared = generate.prepare_scan(scan, config)
    twin = careful.prepare(scan.point, floor_m=prepared.floor.floor_m)
    outcomes = []
    for k in range(12):
        shape, plan = shape_of(prepared, shapes, config, k), plan_of(config, scan.name, k)
        if shape is None:
            continue
        result = generate.draw_sequence(prepared, shapes, config, k, 0)
        outcomes.append(not isinstance(result, generate.Rejection))
        for reference in (research, careful):
            frames, pairs, accepted = reference.sequence(twin, *shape, plan)
            assert accepted is outcomes[-1]
            if accepted:
                assert_same_sequence(result.sequence, frames, pairs)
    assert outcomes.count(True) >= 3 and (outcomes.count(False) >= 1 or config.keep > 0.9)


@pytest.mark.parametrize("cell_m, close_m", [(0.10, 0.0), (0.10, 0.25), (0.07, 0.4), (0.25, 1.0)])
def test_the_three_find_the_same_free_space_at_other_sizes(cell_m, close_m):
    sizes = {"floor_m": FLOOR_M, "voxel_m": 0.05, "cell_m": cell_m, "close_m": close_m, "near_floor_m": 0.05}
    room = furnished_room(3, 1500)
    slow, fast, mine = (pipeline.prepare(room, **sizes) for pipeline in (research, careful, compiled))
    assert slow.valid.any() and not slow.valid.all()
    for other in (fast, mine):
        for name in ("cloud", "valid", "origin", "quantised"):
            assert_array_equal(getattr(slow, name), getattr(other, name), err_msg=name)
        assert_allclose(slow.distance, other.distance, rtol=1e-12)


# Free space by hand


def tiles(cells, z=0.0):
    """One point in the middle of each 10 cm cell (ix, iy)."""
    return np.array([[0.1 * x + 0.05, 0.1 * y + 0.05, z] for x, y in cells], np.float32).reshape(-1, 3)


def valid_cells(pipeline, *points, **sizes):
    return pipeline.prepare(np.concatenate(points), floor_m=0.0, **sizes).valid


@PIPELINES
def test_a_column_is_valid_with_nothing_but_floor_under_the_ceiling(pipeline):
    floor = tiles((x, 0) for x in range(6))
    table, ceiling = tiles([(1, 0)], 0.7), tiles([(2, 0)], 2.3)
    step, low_wall = tiles([(6, 0)], 0.19), tiles([(7, 0)], 0.31)
    noise = [tiles([(3, 0)], 0.045), tiles([(3, 0)], -0.045), tiles([(4, 0)], 0.055)]  # layers are cut at +-0.05
    valid = valid_cells(pipeline, floor, table, ceiling, step, low_wall, *noise, close_m=0.0)
    assert_array_equal(valid[:, 0], [True, False, True, True, False, True, True, False])


@PIPELINES
def test_unseen_columns_are_valid_where_the_closing_holds_them(pipeline):
    ring = [(x, y) for x in range(21) for y in range(21) if max(abs(x - 10), abs(y - 10)) == 10]
    valid = valid_cells(pipeline, tiles(ring))  # around a hole of 1.9 m, of which the corners alone are rounded
    assert valid[1, 1] and not valid[6:15, 1:20].any() and not valid[1:20, 6:15].any()
    assert valid_cells(pipeline, tiles(ring), close_m=1.0).all()
    strips = [(x, y) for x in (0, 8, 22) for y in range(30)]
    valid = valid_cells(pipeline, tiles(strips))
    assert valid[1:8, 12:18].all() and not valid[9:22, 15].any()  # 0.7 m between strips closes, 1.3 m does not


@PIPELINES
def test_without_closing_the_seen_columns_alone_are_valid(pipeline):
    ring = [(x, y) for x in range(9) for y in range(9) if max(abs(x - 4), abs(y - 4)) == 4]
    valid = valid_cells(pipeline, tiles([*ring, (2, 2)]), close_m=0.0)
    assert_array_equal(np.argwhere(valid), sorted([*ring, (2, 2)]))


# Refused


SHAPE = (np.random.default_rng(20).random((300, 3)) * [0.5, 0.4, 0.9] - [0.25, 0.2, 0]).astype(np.float32)


def free_plan(t=4):
    """A plan that removes nothing."""
    rng = np.random.default_rng(26)
    box = np.tile(np.array([0, 0, 0, 65535, 65535, 65535], np.uint16), (t, 1, 1))
    return naive.Plan(rng.random(), rng.random((t - 1, 32, 2)), 1.0, box, np.zeros(t, int), 65536, 1, 2)


@PIPELINES
def test_a_sequence_that_keeps_too_little_is_refused(pipeline):
    prepared, plan = pipeline.prepare(furnished_room(1), floor_m=FLOOR_M), free_plan()
    assert pipeline.sequence(prepared, SHAPE, 0.33, plan)[2]
    one_frame_empty = plan._replace(box_count=np.array([0, 0, 1, 0]))
    for poor in (one_frame_empty, plan._replace(threshold=0)):
        assert pipeline.sequence(prepared, SHAPE, 0.33, poor) == ([], [], False)


@PIPELINES
def test_no_cell_is_free_to_a_radius_larger_than_the_room(pipeline):
    prepared = pipeline.prepare(furnished_room(1), floor_m=FLOOR_M)
    assert pipeline.sequence(prepared, SHAPE, 9.0, free_plan()) == ([], [], False)


def test_acceptance_counts_what_is_common_per_actor_and_kept_per_frame():
    assert naive.accepted((30, 3), (100, 10), [55, 110])
    assert not naive.accepted((29, 10), (100, 10), [110, 110])
    assert not naive.accepted((100, 2), (100, 10), [110, 110])
    assert not naive.accepted((100, 10), (100, 10), [54, 110])
