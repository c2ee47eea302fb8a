"""PointNet and DGCNN against twins that write every edge out, and what does not depend on the order of points."""

import copy
import json

import pytest
import safetensors
import torch
from torch import nn

from tests import naive_nets
from tests.test_strl import CPU, Shapes, small, views_of
from train.config import change
from train.methods.pretrain import pretrain
from train.nets import weights
from train.nets.dgcnn import DGCNN, EdgeConv, SegmentingDGCNN, nearest
from train.nets.pointnet import PointNet
from train.nets.pooled import Clouds

B, N, K = 3, 40, 8


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def clouds(size: int = B, points: int = N, width: int = 3) -> torch.Tensor:
    return torch.randn(size, points, width, generator=generator())


def unsettle(net: nn.Module) -> None:
    """Scales, some of them negative, and shifts of norms as after training."""
    draw = torch.Generator().manual_seed(1)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.weight.data = torch.randn(norm.weight.shape, generator=draw)
            norm.bias.data = torch.randn(norm.bias.shape, generator=draw)
            norm.running_mean.copy_(torch.randn(norm.bias.shape, generator=draw))
            norm.running_var.copy_(torch.rand(norm.bias.shape, generator=draw) + 0.5)


def compare(net, made, twin) -> None:
    """Values and gradients of all parameters, to 1e-5 of the largest."""
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(2)).to(made.dtype)
    found = torch.autograd.grad((made * weight).sum(), list(net.parameters()))
    expected = torch.autograd.grad((twin * weight).sum(), list(net.parameters()))
    for one, other in [(made, twin), *zip(found, expected, strict=True)]:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.detach().abs().max()))


@pytest.mark.parametrize("widths", [(16,), (16, 12)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_an_edge_convolution_made_per_point_equals_every_edge_written_out(widths, training, offset):
    layer = EdgeConv(6, widths, K, generator()).train(training)
    unsettle(layer)
    x, copied = clouds(width=6) + offset, copy.deepcopy(layer)
    row = nearest(x, K)
    own_rows = row.view(B, N, K) - torch.arange(B)[:, None, None] * N
    twin, edge = naive_nets.edge_conv(x, copied, own_rows)
    made = layer(x)
    scale = max(1.0, offset)  # single precision: the twin itself loses digits far from the origin
    torch.testing.assert_close(made, twin, rtol=1e-5 * scale, atol=1e-5 * scale * float(twin.detach().abs().max()))
    if not training:
        return
    norm = nn.BatchNorm1d(widths[0]).train()
    norm.load_state_dict(copied.norm.state_dict())
    norm(edge.detach().flatten(0, 2))
    torch.testing.assert_close(layer.norm.running_mean, norm.running_mean, rtol=1e-5, atol=1e-5 * scale)
    torch.testing.assert_close(layer.norm.running_var, norm.running_var, rtol=1e-4, atol=1e-5 * scale)
    assert layer.norm.num_batches_tracked == norm.num_batches_tracked


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [DGCNN, SegmentingDGCNN])
def test_dgcnn_equals_its_twin_with_gradients(kind, training):
    net = kind(K, generator()).train(training).double()
    unsettle(net)
    twin, local = naive_nets.dgcnn(clouds().double(), net.double())
    made = net.layered(clouds().double())
    torch.testing.assert_close(made[0], local)
    compare(net, made[1], twin)


def test_pointnet_equals_its_twin_with_gradients():
    for training in (True, False):
        net = PointNet(generator()).train(training)
        unsettle(net)
        compare(net, net(clouds()), naive_nets.pointnet(clouds(), net))


def test_the_nets_have_the_sizes_of_the_papers():
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in NETS.items()}
    assert sizes == {"pointnet": 150_336, "dgcnn": 617_856, "segmenting": 224_256}


NETS = {
    "pointnet": PointNet(generator()),
    "dgcnn": DGCNN(K, generator()),
    "segmenting": SegmentingDGCNN(K, generator()),
}


@pytest.mark.parametrize("name", NETS)
def test_features_of_a_point_do_not_depend_on_the_order_of_points(name):
    net, point = NETS[name].eval(), clouds()
    order = torch.randperm(N, generator=generator())
    torch.testing.assert_close(net(point)[:, order], net(point[:, order]), rtol=1e-4, atol=1e-5)


def test_neighbours_are_the_nearest_of_the_same_cloud_the_point_itself_first_of_all():
    x = clouds(points=70, width=5) + 100
    row = nearest(x, K).view(B, 70, K)
    for number, cloud in enumerate(x):
        own = row[number] - 70 * number
        assert torch.equal(own.sort(1).values, naive_nets.nearest(cloud, K).sort(1).values)
        assert all(i in rows for i, rows in enumerate(own.tolist()))


def test_a_cloud_of_fewer_points_than_neighbours_is_refused():
    with pytest.raises(ValueError, match="k = 8: a cloud of 7 points"):
        nearest(clouds(points=7), K)


def test_a_head_on_points_gets_what_its_cloud_has_and_what_it_has_itself():
    net, point = NETS["segmenting"].eval(), clouds()
    features = net.features(point)
    local, last = net.layered(point)
    assert features.shape == (B, N, net.channels + net.local) == (B, N, 1216)
    assert torch.equal(features[:, 7, :1024], last.amax(1)) and torch.equal(features[..., 1024:], local)


def test_half_precision_does_not_reach_the_sums_over_edges():
    """They overflowed on a GPU: 8 x 8,192 edges of a mean of 4 are beyond what 16 bits hold."""
    layer, x = EdgeConv(3, (4,), 8, generator()), clouds(8, 1024) * 0.1 + 4
    layer.first.weight.data[:, :3], layer.first.weight.data[:, 3:] = 1.0, 2.0
    exact = layer(x)
    with torch.autocast("cpu", torch.float16):
        half = layer(x)
    assert torch.isfinite(half).all() and torch.isfinite(layer.norm.running_var).all()
    assert (half - exact).abs().mean() < 0.2


# Exported weights, in modules that know nothing of this project -------------------------------------------------------


class PlainEdgeConv(nn.Module):
    def __init__(self, c_in: int, widths: tuple[int, ...], k: int):
        super().__init__()
        self.k, self.first, self.norm = k, nn.Linear(2 * c_in, widths[0], bias=False), nn.BatchNorm1d(widths[0])
        more = [nn.Linear(*widths, bias=False), nn.BatchNorm1d(widths[1]), nn.LeakyReLU(0.2)] if len(widths) > 1 else []
        self.rest = nn.Sequential(*more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One cloud (N, c)."""
        other = x[torch.cdist(x, x).topk(self.k, largest=False).indices]
        own = x[:, None].expand_as(other)
        edge = self.first(torch.cat([other - own, own], -1)).flatten(0, 1)
        made = self.rest(nn.functional.leaky_relu(self.norm(edge), 0.2))
        return made.unflatten(0, (len(x), self.k)).amax(1)


class PlainDGCNN(nn.Module):
    def __init__(self, edges: tuple[tuple[int, ...], ...], k: int, mean: bool):
        super().__init__()
        ends = [3, *(widths[-1] for widths in edges)]
        self.layers = nn.ModuleList(PlainEdgeConv(c, widths, k) for c, widths in zip(ends[:-1], edges, strict=True))
        self.last = nn.Sequential(nn.Linear(sum(ends[1:]), 1024, bias=False), nn.BatchNorm1d(1024), nn.LeakyReLU(0.2))
        self.mean = mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        last = self.last(torch.cat(found, -1))
        return torch.cat([last.amax(0), last.mean(0)]) if self.mean else last.amax(0)


class PlainPointNet(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [3, 64, 64, 64, 128, 1024]
        parts = [
            (nn.Linear(widths[i], widths[i + 1], bias=False), nn.BatchNorm1d(widths[i + 1]), nn.ReLU())
            for i in range(5)
        ]
        self.layers = nn.Sequential(*(part for layer in parts for part in layer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).amax(0)


PLAIN = {
    "pointnet": PlainPointNet,
    "dgcnn": lambda: PlainDGCNN(((64,), (64,), (128,), (256,)), 5, mean=True),
    "dgcnn-seg": lambda: PlainDGCNN(((64, 64), (64, 64), (64,)), 5, mean=False),
}


@pytest.mark.parametrize("name", PLAIN)
def test_exported_weights_are_a_plain_module_s_by_what_their_header_says(name, tmp_path):
    config = change(small(net=name, k=5, points=N), steps=2)
    list(pretrain(config, Shapes(map(views_of, range(4))), tmp_path / "run", CPU))
    about = weights.export_weights(tmp_path / "run", tmp_path / "net.safetensors")
    assert (about["net"], about["k"], about["points"], about["step"], about["method"]) == (name, 5, N, 2, "strl")
    with safetensors.safe_open(tmp_path / "net.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["gen4d"]) == about and "layers.N.first takes" in about["layout"]
        plain = PLAIN[name]()
        plain.load_state_dict({key: opened.get_tensor(key) for key in opened.keys()})
    for place in ("run", "net.safetensors"):
        trained = weights.load_trained(tmp_path / place, 40)
        assert (trained.net, trained.k, trained.seen) == (name, 5, tuple(f"shape{i}" for i in range(4)))
        pooled = trained.encoder().eval()(Clouds(clouds(), None, B))
        twin = torch.stack([plain.eval()(cloud) for cloud in clouds()])
        torch.testing.assert_close(pooled, twin, rtol=1e-4, atol=1e-5)
