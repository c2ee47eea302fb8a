"""Sparse convolutions against dense torch convolutions, and the guards around spconv."""

import pathlib
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from train.nets import backends, sparse

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
SIZE = {3: (14, 12, 10), 4: (8, 7, 6, 3)}
STRIDE = {3: (2, 2, 2), 4: (2, 2, 2, 1)}


@pytest.fixture(params=[1, 2], ids=["one_thread", "two_threads"])
def caller_threads(request):
    """The number of torch threads that the caller set, given back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def cloud(dims: int, channels: int, dtype=torch.float64, size=None) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """Voxels of two clouds (n, 1 + d), features (n, channels) and the size."""
    size = size or SIZE[dims]
    generator = torch.Generator().manual_seed(dims)
    coordinate = torch.nonzero(torch.rand(2, *size, generator=generator) < 0.5).int()
    coordinate = coordinate[torch.randperm(len(coordinate), generator=generator)]
    return coordinate, torch.randn(len(coordinate), channels, generator=generator, dtype=dtype), size


def drawn(layer: nn.Module, dtype=torch.float64) -> nn.Module:
    """The layer with weights from a fixed generator."""
    generator = torch.Generator().manual_seed(7)
    for weight in layer.parameters():
        nn.init.normal_(weight, generator=generator)
    return layer.to(dtype)


def dense(coordinate: torch.Tensor, features: torch.Tensor, size: tuple) -> torch.Tensor:
    """(2, channels, *size)."""
    grid = features.new_zeros(2, *size, features.shape[1])
    grid = grid.index_put(tuple(coordinate.long().T), features)
    return grid.movedim(-1, 1)


def at(grid: torch.Tensor, coordinate: torch.Tensor) -> torch.Tensor:
    """Rows (n, channels) of a dense grid."""
    return grid.movedim(1, -1)[tuple(coordinate.long().T)]


def dense_submanifold(grid: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`same` convolution of (2, c, x, y, z (, t)): in 4D the sum over taps in time of one 3D convolution each."""
    weight = weight.movedim(-1, 1)  # (out, in, kernel...)
    pad = [taps // 2 for taps in weight.shape[2:]]
    if grid.ndim == 5:
        return F.conv3d(grid, weight, padding=pad)
    steps = F.pad(grid, (pad[3], pad[3])).unbind(-1)
    out = [
        sum(F.conv3d(steps[t + tap], weight[..., tap], padding=pad[:3]) for tap in range(weight.shape[-1]))
        for t in range(grid.shape[-1])
    ]
    return torch.stack(out, -1)


def dense_strided(grid: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Kernel 2 and stride 2 in space, each time step by itself."""
    weight = weight.movedim(-1, 1)
    if grid.ndim == 5:
        return F.conv3d(grid, weight, stride=2)
    return torch.stack([F.conv3d(step, weight[..., 0], stride=2) for step in grid.unbind(-1)], -1)


def dense_inverse(grid: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Transposed convolution with kernel 2 and stride 2 in space."""
    weight = weight.movedim(-1, 0)  # (in, out, kernel...)
    if grid.ndim == 5:
        return F.conv_transpose3d(grid, weight, stride=2)
    return torch.stack([F.conv_transpose3d(step, weight[..., 0], stride=2) for step in grid.unbind(-1)], -1)


def run(layers: list[nn.Module], coordinate, features, size, multiple=None) -> tuple[sparse.Tensor, torch.Tensor]:
    """What the layers make of the features, which become a leaf."""
    features = features.clone().requires_grad_()
    x = sparse.tensor(coordinate, features, size, 2, multiple)
    for layer in layers:
        x = layer(x)
    return x, features


def gradients(output: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of a fixed weighting of the output."""
    weighting = torch.randn(output.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return list(torch.autograd.grad((output * weighting.to(output)).sum(), leaves))


def assert_equal(ours: list, theirs: list, tolerance: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double().cpu(), other.double(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-4)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 3, 1), (3, 3, 3, 1), (1, 1, 1, 3), (3, 3, 3, 3)], ids=str)
def test_submanifold_equals_dense_convolution_on_its_voxels(kernel, dtype, tolerance, caller_threads):
    coordinate, features, size = cloud(len(kernel), 5, dtype)
    layer = drawn(sparse.submanifold(5, 6, kernel, 0), dtype)
    x, leaf = run([layer], coordinate, features, size)
    wide, weight = features.double().requires_grad_(), layer.weight.detach().double().requires_grad_()
    expected = at(dense_submanifold(dense(coordinate, wide, size), weight), coordinate)
    ours = [x.features, *gradients(x.features, leaf, layer.weight)]
    assert_equal(ours, [expected, *gradients(expected, wide, weight)], tolerance)


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 1, 1, 1), (2, 3, 3)])
def test_kernels_that_spconv_gets_wrong_are_refused(kernel):
    with pytest.raises(sparse.SparseError, match="odd extents, not all 1"):
        sparse.submanifold(5, 6, kernel, 0)


def test_hybrid_is_the_sum_of_its_two_kernels_and_shares_index_pairs(caller_threads):
    coordinate, features, size = cloud(4, 5)
    layer = drawn(sparse.Hybrid(5, 6, 3, 0))
    x, leaf = run([layer], coordinate, features, size)
    wide, weights = features.clone().requires_grad_(), [w.detach().clone().requires_grad_() for w in layer.parameters()]
    grid = dense(coordinate, wide, size)
    expected = at(sum(dense_submanifold(grid, weight) for weight in weights), coordinate)
    ours = [x.features, *gradients(x.features, leaf, *layer.parameters())]
    assert_equal(ours, [expected, *gradients(expected, wide, *weights)], 1e-10)
    assert set(x.books) == {"sub0:3x3x3x1", "sub0:1x1x1x3"}  # both found again by the next layer


@pytest.mark.parametrize("dims", [3, 4])
def test_strided_equals_dense_convolution_where_a_cell_has_voxels(dims, caller_threads):
    coordinate, features, size = cloud(dims, 5, size={3: (14, 12, 10), 4: (8, 6, 4, 3)}[dims])
    layer = drawn(sparse.strided(5, 6, STRIDE[dims], 0))
    x, leaf = run([layer], coordinate, features, size)
    wide, weight = features.clone().requires_grad_(), layer.weight.detach().clone().requires_grad_()
    grid = dense_strided(dense(coordinate, wide, size), weight)
    expected = at(grid, x.indices)
    ours = [x.features, *gradients(x.features, leaf, layer.weight)]
    assert_equal(ours, [expected, *gradients(expected, wide, weight)], 1e-10)
    cells = torch.cat([coordinate[:, :1], coordinate[:, 1:] // torch.tensor(STRIDE[dims])], 1).unique(dim=0)
    assert torch.equal(x.indices.unique(dim=0), cells)


@pytest.mark.parametrize("dims", [3, 4])
def test_inverse_returns_to_the_voxels_and_their_order(dims, caller_threads):
    coordinate, features, size = cloud(dims, 5, size={3: (14, 12, 10), 4: (8, 6, 4, 3)}[dims])
    down = drawn(sparse.strided(5, 6, STRIDE[dims], 0))
    up = drawn(sparse.inverse(6, 4, STRIDE[dims], 0))
    x, leaf = run([down, up], coordinate, features, size)
    wide = features.clone().requires_grad_()
    weights = [layer.weight.detach().clone().requires_grad_() for layer in (down, up)]
    grid = dense_inverse(dense_strided(dense(coordinate, wide, size), weights[0]), weights[1])
    expected = at(grid, coordinate)
    ours = [x.features, *gradients(x.features, leaf, down.weight, up.weight)]
    assert_equal(ours, [expected, *gradients(expected, wide, *weights)], 1e-10)
    assert torch.equal(x.indices, coordinate)


@pytest.mark.parametrize("dims", [3, 4])
def test_no_voxel_vanishes_at_the_edge_of_an_odd_size(dims):
    size = (7, 5, 3, 3)[:dims]
    coordinate = torch.tensor([[1, *(extent - 1 for extent in size)]], dtype=torch.int32)
    layers = [drawn(sparse.strided(2, 3, STRIDE[dims], 0)), drawn(sparse.inverse(3, 2, STRIDE[dims], 0))]
    x, _ = run(layers, coordinate, torch.ones(1, 2, dtype=torch.float64), size, multiple=STRIDE[dims])
    assert x.features.abs().sum() > 0


# The thread guard ---------------------------------------------------------------------------------------------------


def step(size=(24, 24, 24)) -> list[torch.Tensor]:
    """Output and gradients of layers large enough for the race in spconv to show, in float32."""
    coordinate, features, size = cloud(3, 8, torch.float32, size)
    layers = [sparse.submanifold(8, 8, (3, 3, 3), 0), sparse.strided(8, 8, (2, 2, 2), 0)]
    layers = [drawn(layer, torch.float32) for layer in [*layers, sparse.inverse(8, 8, (2, 2, 2), 0)]]
    x, leaf = run(layers, coordinate, features, size)
    return [x.features.detach(), *gradients(x.features, leaf, *(layer.weight for layer in layers))]


def test_two_threads_of_the_caller_give_the_bits_of_one():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = step()
    torch.set_num_threads(2)
    repeats = [step() for _ in range(5)]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    for results in repeats:
        assert_equal(results, expected, 1e-4)
        assert all(torch.equal(one, other) for one, other in zip(results[:2], expected, strict=False))


def test_backward_in_another_thread_is_exact():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    expected, results = step(), []

    def work():
        torch.set_num_threads(2)
        results.append(step())
        results.append(torch.get_num_threads())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    torch.set_num_threads(before)
    assert_equal(results[0], expected, 1e-4)
    assert results[1] == 2


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError), sparse.one_thread():
        assert torch.get_num_threads() == 1
        _ = 1 // 0
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


# The self-check -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_self_check_passes_here(dtype, caller_threads):
    sparse.self_check("cpu", dtype)


def test_self_check_refuses_a_wrong_forward(monkeypatch):
    ops = backends.load("spconv").ops
    right = ops.indice_conv
    monkeypatch.setattr(ops, "indice_conv", lambda *args, **kwargs: right(*args, **kwargs).mul_(1.01))
    with pytest.raises(sparse.SparseError, match="3D output on cpu is off by 0"):
        sparse.self_check()


@pytest.mark.parametrize("which, named", [(0, "input gradient"), (1, "gradient of ")])
def test_self_check_refuses_a_wrong_backward(which, named, monkeypatch):
    ops = backends.load("spconv").ops
    right = ops.indice_conv_backward

    def wrong(*args, **kwargs):
        result = right(*args, **kwargs)
        result[which].mul_(1.01)
        return result

    monkeypatch.setattr(ops, "indice_conv_backward", wrong)
    with pytest.raises(sparse.SparseError, match=named):
        sparse.self_check()


def test_self_check_refuses_what_is_not_finite():
    assert sparse.relative_error(torch.tensor([1.0, torch.nan]), torch.ones(2)) == torch.inf


# Coordinates and sizes ----------------------------------------------------------------------------------------------

GOOD = [[0, 0, 0, 0], [0, 3, 2, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([*GOOD, [1, 4, 0, 0]], "axis 0 spans 0 to 4: 0 to 3 allowed"),
        ([*GOOD, [0, 0, -1, 0]], "axis 1 spans -1 to 2: 0 to 2 allowed"),
        ([*GOOD, [2, 0, 0, 0]], "cloud number spans 0 to 2: 0 to 1 allowed"),
        ([*GOOD, [0, 3, 2, 1]], r"1 of 4 voxels are repeated, e.g. rows 1 and 3 are both \[0, 3, 2, 1\]"),
        ([], "0 voxels of 2 clouds: at least one"),
    ],
    ids=["outside", "negative", "cloud", "repeated", "none"],
)
def test_coordinates_that_spconv_would_take_silently_are_refused(rows, message):
    coordinate = torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)
    with pytest.raises(sparse.SparseError, match=message):
        sparse.tensor(coordinate, torch.ones(len(rows), 1), (4, 3, 2), 2)


def test_coordinates_of_another_type_or_shape_are_refused():
    with pytest.raises(sparse.SparseError, match="cast with"):
        sparse.check_coordinates(torch.tensor(GOOD), (4, 3, 2), 2)
    with pytest.raises(sparse.SparseError, match=r"needs \(n, 5\)"):
        sparse.check_coordinates(torch.tensor(GOOD).int(), (4, 3, 2, 1), 2)


def test_features_must_have_a_row_per_voxel():
    with pytest.raises(sparse.SparseError, match="2 rows of features for 3 voxels"):
        sparse.tensor(torch.tensor(GOOD).int(), torch.ones(2, 1), (4, 3, 2), 2)


@pytest.mark.parametrize("shuffle", [False, True])
def test_unique_coordinates_pass_in_any_order(shuffle):
    coordinate, features, size = cloud(4, 1)
    coordinate = coordinate if shuffle else coordinate.unique(dim=0)
    assert sparse.tensor(coordinate, features, size, 2).size == list(size)


def test_size_beyond_64_bits_is_refused():
    with pytest.raises(sparse.SparseError, match="outliers"):
        sparse.check_coordinates(torch.tensor(GOOD).int(), (2**21, 2**21, 2**21), 2)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_layer_whose_offsets_overflow_32_bits_is_refused(inverse):
    coordinate, features, size = cloud(3, 512, torch.float32)
    down = sparse.strided(512, 512, (2, 2, 2), 0)
    x = sparse.tensor(coordinate, features, size, 2)
    layer = down
    if inverse:
        x = down(x)
        found = x.books["down0 back"]
        x.books["down0 back"] = found._replace(indices=found.indices[:1].expand(2**20, 4))
        layer = sparse.inverse(512, 512, (2, 2, 2), 0)
    else:
        x = sparse.replace(x, torch.zeros(1).expand(2**20, 512))
    with pytest.raises(sparse.SparseError, match=r"1048576 voxels x 512 channels .*\(accumulate, a divisor"):
        layer(x)


def test_the_largest_layer_that_fits_is_accepted():
    sparse.check_bytes(2**20 - 1, 512, 4)


def test_the_limit_counts_bytes_of_the_type_in_use():
    """48 scans of 90,000 voxels at 128 channels: too many in float32, and not in half precision."""
    sparse.check_bytes(48 * 90_000, 128, 2)
    with pytest.raises(
        sparse.SparseError, match=r"128 channels x 4 bytes = 2211840000: below 2\^31 .*\(accumulate, a divisor"
    ):
        sparse.check_bytes(48 * 90_000, 128, 4)
    assert sparse.element_bytes(torch.zeros(1)) == 4
    assert sparse.element_bytes(torch.zeros(1, dtype=torch.float64)) == 8


# The rest -----------------------------------------------------------------------------------------------------------


def test_evaluation_mode_has_the_gradients_of_training_mode():
    layer = drawn(sparse.submanifold(3, 4, (3, 3, 3), 0))
    coordinate, features, size = cloud(3, 3)
    results = []
    for mode in (True, False):
        x, leaf = run([layer.train(mode)], coordinate, features, size)
        results.append([x.features, *gradients(x.features, leaf, layer.weight)])
    assert_equal(*results, 0)


def test_described_algorithms_name_every_layer():
    layers = nn.Sequential(sparse.Hybrid(2, 3, 3, 0), sparse.strided(3, 4, (2, 2, 2, 1), 0))
    described = sparse.describe_algorithms(layers)
    assert [(d.name, d.kernel, d.channels) for d in described] == [
        ("0.space", (3, 3, 3, 1), (2, 3)),
        ("0.time", (1, 1, 1, 3), (2, 3)),
        ("1", (2, 2, 2, 1), (3, 4)),
    ]
    assert {d.algorithm for d in described} == {"Native"}


def test_only_one_file_of_the_trainer_imports_spconv():
    """Besides it, only the file that is written for people elsewhere, which imports nothing of this project."""
    root = pathlib.Path(sparse.__file__).parents[1]
    words = ("import spconv", "from spconv", "import_module")
    found = [path.name for path in root.rglob("*.py") if any(word in path.read_text() for word in words)]
    assert sorted(found) == ["backends.py", "standalone.py"]


def test_more_cells_than_a_cpu_tells_apart_are_refused():
    """Voxels 2^32 cells apart would be neighbours."""
    voxel = torch.tensor([[0, 0, 5, 5], [0, 1024, 5, 6]], dtype=torch.int32)
    one = sparse.submanifold(1, 1, (3, 3, 3), 0)
    nn.init.ones_(one.weight)
    assert one(sparse.tensor(voxel, torch.ones(2, 1), (1100, 1625, 1625), 1)).features.flatten().tolist() == [1, 1]
    for size, clouds in (((2048, 2048, 2048), 1), ((1100, 1625, 1625), 2)):
        with pytest.raises(sparse.SparseError, match=r"below 2\^32 for spconv on a CPU; use fewer clouds"):
            one(sparse.tensor(voxel, torch.ones(2, 1), size, clouds))


# On a GPU -----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_self_check_passes_on_cuda(dtype):
    sparse.self_check("cuda", dtype)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("half, tolerance", [(False, 1e-4), (True, 3e-2)], ids=["fp32", "fp16"])
@pytest.mark.parametrize("dims", [3, 4])
@pytest.mark.parametrize("training", [True, False])
def test_cuda_gives_the_numbers_of_the_cpu(dims, half, tolerance, training):
    coordinate, features, size = cloud(dims, 16, torch.float32)
    layers = [sparse.block_convolution(dims, 16, 32, 0), sparse.strided(32, 32, STRIDE[dims], 0)]
    layers = nn.Sequential(*layers, sparse.inverse(32, 16, STRIDE[dims], 0)).train(training)
    for weight in drawn(layers, torch.float32).parameters():
        weight.data *= 0.1
    results = []
    for device in ("cpu", "cuda"):
        layers.to(device)
        with torch.autocast("cuda", dtype=torch.float16, enabled=half and device == "cuda"):
            x, leaf = run(list(layers), coordinate.to(device), features.to(device), size, STRIDE[dims])
        weighting = torch.randn(x.features.shape, generator=torch.Generator().manual_seed(3)).to(device)
        (x.features.float() * weighting).sum().backward()
        results.append(
            [x.features.detach().cpu().double(), *(w.grad.cpu().double() for w in (leaf, *layers.parameters()))]
        )
        layers.zero_grad()
    for ours, theirs in zip(*results[::-1], strict=True):
        assert sparse.relative_error(ours, theirs) < tolerance


@pytest.mark.gpu
@needs_cuda
def test_spconv_chooses_its_fast_algorithm_for_every_layer_on_cuda():
    layers = nn.Sequential(sparse.Hybrid(16, 16, 3, 0), sparse.submanifold(16, 16, (3, 3, 3), 0)).cuda()
    assert {layer.algorithm for layer in sparse.describe_algorithms(layers)} == {"MaskImplicitGemm"}
