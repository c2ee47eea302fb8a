"""U-Nets and heads: sizes against the field's, laws of their outputs, and the same numbers on a GPU."""

import math

import numpy as np
import pytest
import torch

from tests.make_batch import make_batch
from train.inputs.voxels import Voxels
from train.nets import sparse
from train.nets.heads import Encoder, Predictor, gather, occupancy
from train.nets.unet import DEFAULT_NORM, NETS, NetShape, Norm, UNet

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
TINY = NetShape((1, 2, 1, 1), (8, 12, 12, 10), 6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def voxels_of(dims: int, seed: int = 0) -> Voxels:
    batch = make_batch(np.random.default_rng([seed]))
    return batch.frame[0] if dims == 3 else batch.sequence


def walls(dims: int) -> Voxels:
    """Two clouds of some thousand voxels on three walls, enough of them at a stride of 16 for norms to be steady."""
    size = (80, 80, 80, 2)[:dims]
    cells = torch.rand(2, *size, generator=seeded()) < 0.5
    wall = torch.zeros(2, *size, dtype=torch.bool)
    wall[:, 5] = wall[:, :, 40] = wall[:, :, :, 70] = True
    return Voxels(torch.nonzero(cells & wall).int(), size)


def net(dims: int, shape: NetShape = TINY, dtype=torch.float64) -> UNet:
    return UNet(shape, dims, seeded()).to(dtype)


def parameters(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("name, dims, expected", [("34", 3, 37_847_808), ("14a", 4, 8_808_832)])
def test_parameter_counts_are_those_of_the_field(name, dims, expected):
    """Counted: stem 3 -> 32, all norms and blocks, and a pointwise head 96 -> 32 with bias, which we leave to the
    heads. In 4D the stem has 27 taps in space and none in time, every block convolution 27 + 3."""
    head = 96 * 32 + 32
    assert parameters(net(dims, NETS[name], torch.float32)) + head == expected


@pytest.mark.parametrize("name, dims, planes", [("small", 3, 16), ("small-4d", 4, 8)])
def test_small_nets_start_narrow_and_stay_below_a_million_parameters(name, dims, planes):
    assert NETS[name].planes[0] == planes
    assert parameters(net(dims, NETS[name])) < 1_000_000


@pytest.mark.parametrize("dims", [3, 4])
def test_every_voxel_has_features_of_the_last_plane(dims):
    voxels = voxels_of(dims)
    out = net(dims)(voxels, occupancy(voxels, torch.zeros(1, dtype=torch.float64)))
    assert out.shape == (len(voxels.coordinate), TINY.planes[-1])
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("dims", [3, 4])
def test_features_follow_their_voxels_through_a_permutation(dims):
    voxels, model = voxels_of(dims), net(dims)
    features = torch.randn(len(voxels.coordinate), 3, generator=seeded(), dtype=torch.float64)
    order = torch.randperm(len(features), generator=seeded())
    expected = model(voxels, features)[order]
    permuted = model(Voxels(voxels.coordinate[order], voxels.size), features[order])
    torch.testing.assert_close(permuted, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dims", [3, 4])
def test_clouds_of_a_batch_do_not_see_each_other_but_through_norms(dims):
    voxels, model = voxels_of(dims), net(dims).eval()
    ones = occupancy(voxels, model.stem.norm.weight)
    second = voxels.coordinate[:, 0] == 1
    alone = voxels.coordinate[second].clone()
    alone[:, 0] = 0
    together = model(voxels, ones)[second]
    torch.testing.assert_close(model(Voxels(alone, voxels.size), ones[second]), together, atol=1e-10, rtol=1e-10)


def test_features_reach_voxels_across_the_whole_receptive_field():
    """A voxel 10 away in space, in the same cell of the coarsest level's neighbourhood, changes the features."""
    model = net(3).eval()
    line = torch.tensor([[0, x, 0, 0] for x in (0, 4, 8)], dtype=torch.int32)
    with_all = model(Voxels(line, (9, 1, 1)), torch.ones(3, 3, dtype=torch.float64))[0]
    without = model(Voxels(line[:1], (9, 1, 1)), torch.ones(1, 3, dtype=torch.float64))[0]
    assert (with_all - without).abs().max() > 1e-6


def test_time_is_never_strided():
    model = net(4)
    strides = {m.stride for m in model.modules() if isinstance(m, sparse.Conv) and m.kind == "down"}
    assert strides == {(2, 2, 2, 1)}
    assert model.multiple == (4, 4, 4, 1)


@pytest.mark.parametrize("dims", [3, 4])
def test_one_voxel_at_an_odd_corner_has_features(dims):
    corner = torch.tensor([[0, 4, 2, 6, 2]], dtype=torch.int32)[:, : dims + 1]
    out = net(dims).eval()(Voxels(corner, (5, 3, 7, 3)[:dims]), torch.ones(1, 3, dtype=torch.float64))
    assert out.abs().max() > 0


def test_no_voxels_are_refused():
    with pytest.raises(sparse.SparseError, match="0 voxels"):
        net(3)(Voxels(torch.zeros(0, 4, dtype=torch.int32), (1, 1, 1)), torch.zeros(0, 3, dtype=torch.float64))


def test_bad_shapes_and_dimensions_are_refused():
    with pytest.raises(ValueError, match="one pair per level"):
        NetShape((1, 1, 1), (8, 8, 8), 8)
    with pytest.raises(ValueError, match="dims 2: 3 or 4"):
        UNet(TINY, 2, seeded())


@pytest.mark.parametrize("dims", [3, 4])
def test_equal_generators_give_equal_weights_whatever_torch_drew_before(dims):
    first = net(dims).state_dict()
    torch.rand(5)
    second = net(dims).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = UNet(TINY, dims, seeded(1)).double().state_dict()
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])


def test_convolutions_start_by_the_rule_over_the_fan_out():
    model = UNet(NETS["14a"], 4, seeded())
    block = model.encoder[3][0].second
    for conv, taps in ((block.space, 30), (block.time, 30), (model.down[2].conv, 8), (model.stem.conv, 27)):
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (conv.channels[1] * taps)), rel=0.05)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dims", [3, 4])
def test_forward_and_backward_repeat_bit_by_bit(dims, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    voxels = voxels_of(dims)
    row = torch.randint(0, 50, (4, 4096), generator=seeded())  # many samples share a voxel
    runs = []
    for _ in range(3):
        model = Encoder(TINY, dims, 16, DEFAULT_NORM, seeded())
        model(voxels, row, 2).square().mean().backward()
        runs.append([weight.grad for weight in model.parameters()])
    torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(run, runs[0], strict=True))


def test_norm_fields_reach_every_norm():
    model = UNet(TINY, 3, seeded(), norm=Norm(momentum=0.02, eps=1e-3))
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm1d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.02, 1e-3)}


# Heads --------------------------------------------------------------------------------------------------------------


def test_projector_is_one_layer_on_the_sampled_rows():
    voxels = voxels_of(3)
    encoder = Encoder(TINY, 3, 16, DEFAULT_NORM, seeded()).double()
    row = torch.tensor([[3, 5], [5, 0]])
    z = encoder(voxels, row, 2)
    backbone = encoder.backbone(voxels, occupancy(voxels, encoder.projector.weight), 2)
    expected = backbone[row] @ encoder.projector.weight.T + encoder.projector.bias
    torch.testing.assert_close(z, expected, atol=1e-10, rtol=1e-10)


def test_predictor_is_two_layers_with_norm_and_relu_between():
    predictor = Predictor(6, 4, Norm(eps=1e-3), seeded()).double()
    x = torch.randn(20, 6, generator=seeded(), dtype=torch.float64)
    hidden = x @ predictor[0].weight.T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-3).sqrt()
    expected = hidden.clamp(min=0) @ predictor[3].weight.T + predictor[3].bias
    torch.testing.assert_close(predictor(x), expected, atol=1e-10, rtol=1e-10)
    assert parameters(predictor) == 6 * 4 + 2 * 4 + 4 * 6 + 6


def test_gather_is_indexing_with_its_gradient():
    features = torch.randn(7, 3, generator=seeded(), dtype=torch.float64, requires_grad=True)
    row = torch.tensor([[0, 6, 6], [2, 2, 2]])
    assert torch.equal(gather(features, row), features[row])
    (gradient,) = torch.autograd.grad(gather(features, row).sum(), features)
    assert gradient[:, 0].tolist() == [1, 0, 3, 0, 0, 0, 2]


# On a GPU -----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("name, dims", [("small", 3), ("small-4d", 4), ("34", 3), ("14a", 4)])
@pytest.mark.parametrize("half, tolerance", [(False, 2e-3), (True, 0.1)], ids=["fp32", "fp16"])
def test_cuda_gives_the_numbers_of_the_cpu(name, dims, half, tolerance):
    voxels, features, gradients = walls(dims), [], []
    for device in ("cpu", "cuda"):
        model = UNet(NETS[name], dims, seeded()).to(device)
        moved = Voxels(voxels.coordinate.to(device), voxels.size)
        with torch.autocast("cuda", dtype=torch.float16, enabled=half and device == "cuda"):
            out = model(moved, occupancy(moved, model.stem.norm.weight), 2)
        weighting = torch.randn(out.shape, generator=seeded(4)).to(device)
        scale = 2**10  # as a scaler does: gradients of a mean would vanish in half precision
        ((out.float() * weighting).mean() * scale).backward()
        features.append(out.detach().double().cpu())
        gradients.append(torch.cat([weight.grad.flatten().double().cpu() for weight in model.parameters()]))
    assert sparse.relative_error(features[1], features[0]) < tolerance
    # 34 layers at random weights turn the gradient: on an H100 0.9485 in half precision, 0.9999 in single
    assert torch.cosine_similarity(*gradients, dim=0) > (0.9 if half else 0.999)


@pytest.mark.gpu
@needs_cuda
def test_every_layer_of_the_4d_net_runs_on_the_fast_algorithm():
    layers = sparse.describe_algorithms(UNet(NETS["14a"], 4, seeded()).cuda())
    assert {layer.algorithm for layer in layers} == {"MaskImplicitGemm"}
