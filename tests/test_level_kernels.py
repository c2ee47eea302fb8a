"""The kernels of levelling against their plain NumPy twins, jitted and as plain Python."""

import os
import pathlib
import subprocess
import sys

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gen4d.sources import level_kernels as kernels
from tests import naive

MANY = 20_000 if not numba.config.DISABLE_JIT else 500


def rng(key):
    return np.random.default_rng(key)


def tilted(key, count, size=(4.0, 3.0), slope=(0.05, -0.1)):
    """Points (count, 3) float32 of a tilted floor with 2 cm of noise, a third of them up to 2 m above it."""
    point = rng(key).random((count, 3)) * [*size, 2.0] - [1.7, 0.3, 0.0]
    point[: 2 * count // 3, 2] = rng(key).normal(0, 0.02, 2 * count // 3)
    point[:, 2] += point[:, :2] @ slope
    return point.astype(np.float32)


CLOUDS = {
    "one": np.array([[0.5, -0.2, 1.0]], np.float32),
    "equal": np.full((7, 3), 0.37, np.float32),
    "a line": np.outer(np.linspace(-2, 2, 301), [1, -1, 0.5]).astype(np.float32),
    "few": tilted(1, 60),
    "many": tilted(2, MANY),
    "far out": tilted(3, 200) + np.float32([4000, -900, 30]),
    "equal heights": (rng(4).integers(0, 6, (400, 3)) * 0.05).astype(np.float32),
}
EVERY_CLOUD = pytest.mark.parametrize("name", CLOUDS)


def grid_of(point):
    low, high = np.empty(2), np.empty(2)
    kernels.plan_bounds(point, low, high)
    return low, high, tuple((np.int64((high - low) / 0.1) + 2).tolist())


@EVERY_CLOUD
def test_bounds_are_those_of_the_plan(name):
    point = CLOUDS[name]
    low, high, _ = grid_of(point)
    assert_array_equal(low, point[:, :2].min(axis=0).astype(np.float64))
    assert_array_equal(high, point[:, :2].max(axis=0).astype(np.float64))


@EVERY_CLOUD
def test_the_lowest_point_of_each_column_is_found_the_first_of_equals(name):
    point = CLOUDS[name]
    low, _, shape = grid_of(point)
    out = np.full(shape, -1, np.int32)
    kernels.lowest_rows(point, low, 10.0, out)
    assert_array_equal(out, naive.lowest_rows(point, low, 10.0, shape))
    assert (out >= 0).sum() <= len(point) and out.max() < len(point)


@EVERY_CLOUD
@pytest.mark.parametrize("bins", [8, 400])
def test_slopes_get_the_votes_of_the_fullest_window(name, bins):
    lowest = CLOUDS[name][:300].astype(np.float64)
    lowest -= np.median(lowest, axis=0)
    slope = np.vstack([[0.0, 0.0], [0.05, -0.1], rng(5).uniform(-0.4, 0.4, (12, 2))])
    out = np.empty(len(slope), np.int64)
    kernels.slope_votes(lowest, slope, 0.05, bins, out)
    assert_array_equal(out, naive.slope_votes(lowest, slope, 0.05, bins))


def test_heights_beyond_the_bins_have_no_vote():
    lowest = np.array([[0, 0, 0.0], [0, 0, 0.01], [0, 0, 99.0], [0, 0, -99.0]])
    out = np.empty(1, np.int64)
    kernels.slope_votes(lowest, np.zeros((1, 2)), 0.05, 8, out)
    assert out[0] == 2
    kernels.slope_votes(lowest[2:], np.zeros((1, 2)), 0.05, 8, out)
    assert out[0] == 0


@EVERY_CLOUD
@pytest.mark.parametrize("width_m", [0.05, 0.3])
def test_points_near_a_plane_and_their_columns_sums(name, width_m):
    point = CLOUDS[name]
    low, _, shape = grid_of(point)
    height = float(np.median(point[:, 2] - (point[:, :2] - low) @ [0.05, -0.1]))
    plane = np.array([0.05, -0.1, height])
    number, near = np.full(shape, -1, np.int32), np.empty((len(point), 3))
    column = np.empty(len(point), np.int32)
    count, columns = kernels.near_plane(point, low, 10.0, plane, width_m, number, near, column)
    expected, expected_column = naive.near_plane(point, low, 10.0, plane, width_m)
    assert_array_equal(near[:count], expected)
    assert_array_equal(column[:count], expected_column)
    assert columns == len(np.unique(expected_column)) and count > 0
    sums = np.zeros((columns, 4))
    kernels.column_sums(near[:count], column[:count], plane, width_m / 2, sums)
    assert_allclose(sums, naive.column_sums(expected, expected_column, plane, width_m / 2, columns), rtol=1e-12)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="this is the run without the compiler")
def test_kernels_agree_with_their_twins_as_plain_python_too():
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__]
    options = {"env": os.environ | {"NUMBA_DISABLE_JIT": "1"}, "cwd": pathlib.Path(__file__).parents[1]}
    done = subprocess.run(command, **options, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
