"""The generator, the research-style reference and careful NumPy make the same frames and pairs of the same draws.

The draws are the generator's own: the plan that the references take is drawn again from the generators that
`generate.lane` keys by (seed, scan, sequence, attempt, step), so that this also fixes what is drawn, in which order.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gen4d import sources
from gen4d.config import Config
from gen4d.moving import augment, generate
from gen4d.moving.models import load_model
from gen4d.moving.shape import sample_surface
from tests import careful, inputs, naive, research

SIZES = [{}, {"keep": 0.88}, {"frames": 2}, {"frames": 8, "keep": 0.99, "chunks_min": 0, "chunks_max": 3}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return inputs.write_rooms(folder / "scans", 2, 5000), inputs.write_shapes(folder / "shapes")


@pytest.fixture(scope="module", params=[0, 1])
def scan(folders, request):
    return sources.load_scan(sources.find_scans(folders[0]).sources[request.param], sources.Orientation())


def config_of(folders, **changes):
    return inputs.make_inputs(*folders, **changes).config


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
    drawn = generate.draw_shape(shapes, config, generate.lane(config, prepared.name, k, 0, "shape"))
    fit = generate.find_fit(prepared.space, drawn, config, generate.lane(config, prepared.name, k, 0, "trajectory"))
    if isinstance(fit, generate.Rejection) or fit.shrink < 1:
        return None
    rng = generate.lane(config, prepared.name, k, 0, "surface")
    return sample_surface(load_model(drawn.source, shapes.up), drawn.height_m, config.shape_points, rng), fit.radius_m


@pytest.mark.parametrize("changes", SIZES)
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
