"""Operations on points against plain sorts, on a CPU and, where there is one, a GPU."""

import numpy as np
import pytest
import torch

from tests import naive_points as naive
from tests.makers.labelled import keyed
from train.nets import point_kernels as kernels
from train.nets import points
from train.nets.pointnet2 import Level, PointNet2
from train.nets.unet import Norm

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


@pytest.mark.parametrize("name", CLOUDS)
def test_the_loop_of_the_gpu_chooses_the_same_points(name):
    point = CLOUDS[name]
    index = torch.empty(min(len(point), 12), dtype=torch.int64)
    points._farthest_on_gpu(torch.from_numpy(point), index)
    assert index.tolist() == naive.farthest(point, len(index))


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


TINY = (
    Level(24, 0.4, 4, (4, 8)),
    Level(12, 0.6, 4, (8, 8)),
    Level(6, 0.9, 3, (8, 8)),
    Level(4, 2.0, 3, (8, 8)),
)


def one_level(place, features, level, net):
    """Set abstraction of one cloud, point by point."""
    chosen = naive.farthest(place.numpy(), level.points)
    near = naive.in_balls(place.numpy()[chosen], place.numpy(), level.radius_m, level.neighbours)
    made = []
    for centre, rows in zip(chosen, near, strict=True):
        seen = [torch.cat([(place[r] - place[centre]) / level.radius_m, features[r]]) for r in rows]
        made.append(net(torch.stack(seen)).amax(dim=0))
    return place[chosen], torch.stack(made), chosen


@DEVICES
def test_pointnet2_equals_its_levels_gone_through_point_by_point(device):
    net = PointNet2(torch.Generator().manual_seed(1), Norm(), TINY).eval()
    clouds = [torch.from_numpy(RANDOM), torch.from_numpy(RANDOM[:20] * 2)]  # fewer points than the first level keeps
    with torch.no_grad():
        rows, found = net.to(device)([cloud.to(device) for cloud in clouds])
        net.cpu()
        for cloud, row, features in zip(clouds, rows, found, strict=True):
            height = cloud[:, 2:] - cloud[:, 2].quantile(0.0099)
            levels, chosen = [(cloud, height)], []
            for level, part in zip(TINY, net.down, strict=True):
                place, made, index = one_level(*levels[-1], level, part)
                levels.append((place, made))
                chosen.append(index)
            assert row.tolist() == [chosen[0][second] for second in chosen[1]]
            given = levels[4][1]
            for below, part in ((3, net.up[0]), (2, net.up[1])):
                distance, index = naive.three(levels[below][0].numpy(), levels[below + 1][0].numpy())
                weight = torch.from_numpy(1 / (distance + 1e-8))
                weight = weight / weight.sum(dim=1, keepdim=True)
                mixed = (given[torch.tensor(index)] * weight[..., None]).sum(dim=1)
                given = part(torch.cat([mixed, levels[below][1]], dim=1))
            torch.testing.assert_close(features.cpu(), given, rtol=1e-4, atol=1e-5)


def test_no_points_are_refused():
    none = torch.zeros(0, 3)
    with pytest.raises(ValueError, match="no points"):
        points.farthest_points(none, 3)
    with pytest.raises(ValueError, match="no points"):
        points.points_in_balls(none, none, 0.1, 3)
    with pytest.raises(ValueError, match="2 points: three"):
        points.three_nearest(none, torch.zeros(2, 3))
    assert points.points_in_balls(none, torch.zeros(2, 3), 0.1, 3).shape == (0, 3)
