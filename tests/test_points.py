"""Operations on points against plain sorts, on a CPU and, where there is one, a GPU."""

import numpy as np
import pytest
import torch

from tests import naive_points as naive
from tests.makers.labelled import keyed
from train.nets import point_kernels as kernels
from train.nets import points

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")],
)
DEVICES = pytest.mark.parametrize("device", ["cpu", GPU])
RANDOM = keyed(1).uniform(-1, 1, (70, 3)).astype(np.float32)
LATTICE = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3).astype(np.float32) / 4
CLOUDS = {
    "random": RANDOM,
    "lattice, full of ties": LATTICE,
    "one place": np.zeros((5, 3), np.float32),
    "at the origin": RANDOM * np.float32(0.01),
    "one point": RANDOM[:1],
}


@DEVICES
@pytest.mark.parametrize("name", CLOUDS)
def test_points_chosen_and_found_equal_plain_sorts(name, device):
    point = CLOUDS[name]
    given = torch.from_numpy(point).to(device)
    centre = np.vstack([point[:9], point[:2] + np.float32(5)])
    asked = torch.from_numpy(centre).to(device)
    for count in (1, 4, 90):
        assert points.farthest_points(given, count).tolist() == naive.farthest(point, count)
    for radius, count in ((0.25, 4), (0.5, 16), (0.003, 3)):
        assert points.points_in_balls(asked, given, radius, count).tolist() == naive.in_balls(
            centre, point, radius, count
        )
    if len(point) >= 3:
        distance, index = points.three_nearest(asked, given)
        expected = naive.three(centre, point)
        assert index.tolist() == expected[1]
        np.testing.assert_allclose(distance.cpu().numpy(), expected[0], rtol=1e-6)


def test_the_compiled_loops_equal_their_twins_without_the_compiler_too():
    point, out = RANDOM[:20], np.empty(6, np.int64)
    kernels.farthest.py_func(point, np.empty(20, np.float32), out)
    assert out.tolist() == naive.farthest(point, 6)
    balls = np.empty((20, 3), np.int64)
    kernels.in_balls.py_func(point, point, np.float32(0.5) ** 2, balls)
    assert balls.tolist() == naive.in_balls(point, point, 0.5, 3)
    squared, index = np.empty((20, 3), np.float32), np.empty((20, 3), np.int64)
    kernels.three.py_func(point, point, squared, index)
    assert index.tolist() == naive.three(point, point)[1]


def test_a_ball_ends_before_its_radius():
    point = torch.tensor([[0.5, 0, 0], [0.25, 0, 0]])
    assert points.points_in_balls(torch.zeros(1, 3), point, 0.5, 2).tolist() == [[1, 1]]


def test_no_points_are_refused():
    none = torch.zeros(0, 3)
    with pytest.raises(ValueError, match="no points"):
        points.farthest_points(none, 3)
    with pytest.raises(ValueError, match="no points"):
        points.points_in_balls(none, none, 0.1, 3)
    with pytest.raises(ValueError, match="2 points: three"):
        points.three_nearest(none, torch.zeros(2, 3))
    assert points.points_in_balls(none, torch.zeros(2, 3), 0.1, 3).shape == (0, 3)
