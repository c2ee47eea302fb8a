"""Which library computes sparse convolutions, in which numbers, and rulebooks that are made ahead."""

import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu import keep_few_configurations
from tests.test_nets import seeded, walls
from train.__main__ import main
from train.config import ConfigError, change
from train.methods.config import PRESETS
from train.nets import backends, sparse
from train.nets.heads import occupancy
from train.nets.unet import NETS, UNet
from train.run.precision import resolve_precision

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
needs_triton = pytest.mark.skipif(not backends.installed("spconv-triton"), reason="spconv-triton is not installed")


@pytest.fixture(autouse=True)
def chosen_again():
    """The backend and the kind of float32 as they were."""
    before, tf32 = list(backends._chosen), backends.tf32()
    yield
    backends._chosen[:] = before
    backends.set_tf32(tf32)


@pytest.mark.parametrize(
    ("here", "name", "message"),
    [
        (
            {"spconv"},
            "spconv-triton",
            "spconv-triton: it is not installed here: install the extra triton",
        ),
        ({"spconv-triton"}, "spconv", "spconv: it is not installed here: install the extra cpu, or with an NVIDIA GPU"),
    ],
)
def test_a_backend_that_is_not_installed_is_refused_with_the_extra(here, name, message, monkeypatch):
    monkeypatch.setattr(backends, "installed", here.__contains__)
    backends.load.cache_clear()
    with pytest.raises(backends.BackendError, match=message):
        backends.choose(name, CPU)
    backends.load.cache_clear()


def test_a_backend_of_gpus_is_refused_on_a_cpu(monkeypatch):
    monkeypatch.setattr(backends, "load", lambda name: backends.Backend(name, *[None] * 5))
    with pytest.raises(backends.BackendError, match="computes on GPUs alone, and this is cpu: set backend=spconv"):
        backends.choose("spconv-triton", CPU)


def test_a_backend_without_triton_says_so(monkeypatch):
    def without_triton(name):
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(backends, "installed", lambda name: True)
    monkeypatch.setattr(backends.importlib, "import_module", without_triton)
    with pytest.raises(backends.BackendError, match="spconv-triton: it needs triton, which comes with torch's CUDA"):
        backends.load("spconv-triton")


def test_auto_is_spconv_where_it_is_installed():
    backends.choose("auto", CPU)
    assert backends.chosen(CPU).name == "spconv"


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_numbers_of_matrix_units_need_a_gpu(precision):
    with pytest.raises(ConfigError, match=f"precision = {precision}: needs CUDA; set precision=float32"):
        resolve_precision(precision, CPU)


def test_tf32_is_switched_in_torch_and_in_the_backend():
    constants = backends.load("spconv").constants
    for precision, on in (("tf32", True), ("float32", False)):
        backends.use("auto", precision, CPU)
        assert backends.tf32() is on and constants.SPCONV_ALLOW_TF32 is on
    assert torch.get_float32_matmul_precision() == "highest"


def test_unknown_backends_are_refused_by_name():
    with pytest.raises(ConfigError, match="backend = torch: one of auto, spconv, spconv-triton"):
        change(PRESETS["small"], backend="torch")


def test_a_command_refuses_a_backend_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "installed", {"spconv"}.__contains__)
    backends.load.cache_clear()
    with pytest.raises(backends.BackendError) as refused:
        backends.use("spconv-triton", "float32", CPU)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 150
    assert CliRunner().invoke(main, ["pretrain", "--data", str(tmp_path)]).exit_code == 1
    backends.load.cache_clear()


# Rulebooks made ahead -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dims"), [("small", 3), ("small-4d", 4)])
def test_rulebooks_made_ahead_are_all_that_a_forward_needs(name, dims, monkeypatch):
    net, voxels = UNet(NETS[name], dims, seeded()), walls(dims)
    given = occupancy(voxels, net.stem.norm.weight)
    expected = net(voxels, given, 2)
    ready = net.with_rulebooks(voxels, 2)
    monkeypatch.setattr(sparse, "_make_rulebook", None)  # none may be missing
    monkeypatch.setattr(sparse, "check_coordinates", None)  # nor is anything checked again
    assert torch.equal(net(ready, given, 2), expected)


def test_coordinates_are_checked_when_rulebooks_are_made():
    net, voxels = UNet(NETS["small"], 3, seeded()), walls(3)
    twice = voxels._replace(coordinate=torch.cat([voxels.coordinate, voxels.coordinate[:1]]))
    with pytest.raises(sparse.SparseError, match="voxels are repeated"):
        net.with_rulebooks(twice, 2)


# On a GPU -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_configurations():
    """Triton tries two configurations a kernel: all of them take minutes."""
    keep_few_configurations()


@pytest.mark.gpu
@needs_cuda
@needs_triton
@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
def test_the_self_check_passes_with_triton(precision, few_configurations):
    backends.use("spconv-triton", precision, torch.device("cuda"))
    sparse.self_check("cuda", torch.float16 if precision == "float16" else torch.float32)


TF32_FIRST = """
import torch
from train.nets import backends, sparse
cuda = torch.device("cuda")
backends.use("spconv", "tf32", cuda)
sparse.self_check(cuda, torch.float32)
assert sparse._largest_error(3, cuda, torch.float32)[0] > 1e-5, "no TF32"
backends.use("spconv", "float32", cuda)
try:
    sparse.self_check(cuda, torch.float32)
except sparse.SparseError as error:
    assert "TF32 used before" in str(error)
else:
    raise AssertionError("spconv has forgotten its TF32 kernels: set_tf32 may say so")
"""


@pytest.mark.gpu
@needs_cuda
def test_tf32_passes_its_own_check_and_stays_for_the_life_of_a_process():
    """In a process of its own: spconv keeps tuned kernels."""
    done = subprocess.run([sys.executable, "-c", TF32_FIRST], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@needs_cuda
@needs_triton
@pytest.mark.parametrize(("name", "dims"), [("small", 3), ("small-4d", 4)])
def test_both_backends_give_the_numbers_of_the_cpu(name, dims, few_configurations):
    voxels, found = walls(dims), []
    for backend, device in (("spconv", "cpu"), ("spconv", "cuda"), ("spconv-triton", "cuda")):
        backends.use(backend, "float32", torch.device(device))
        net = UNet(NETS[name], dims, seeded()).to(device)
        moved = voxels._replace(coordinate=voxels.coordinate.to(device))
        out = net(moved, occupancy(moved, net.stem.norm.weight), 2)
        out.float().square().mean().backward()
        found.append([out.detach().double().cpu(), net.stem.conv.weight.grad.double().cpu()])
    for other in found[1:]:
        assert all(sparse.relative_error(one, cpu) < 2e-3 for one, cpu in zip(other, found[0], strict=True))


@pytest.mark.gpu
@needs_cuda
def test_rulebooks_on_a_side_stream_give_the_losses_of_none(tmp_path):
    from tests.test_loop import DATA, TINY
    from train.methods.pretrain import pretrain
    from train.run.world import World

    world, losses = World(0, 1, torch.device("cuda")), []
    for ahead in (False, True):
        config = change(TINY, precision="float32", samples=64, rulebooks_ahead=ahead)
        losses.append([record.loss for record in pretrain(config, DATA, tmp_path / str(ahead), world)])
    torch.testing.assert_close(torch.tensor(losses[0][:3]), torch.tensor(losses[1][:3]), atol=2e-3, rtol=0)
