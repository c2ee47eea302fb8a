"""Weights of PointContrast and CSC: a checkpoint in their exact format, against their net, written out by voxels."""

import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.test_train_cli import call, refusal
from train.inputs.voxels import Voxels
from train.nets.foreign import read_foreign
from train.nets.weights import load_backbone
from train.run.checkpoint import CheckpointError

PLANES, LAYERS = (32, 64, 128, 256, 256, 128, 96, 96), (2, 3, 4, 6, 2, 2, 2, 2)
DOWN = ("conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2")
UP = ("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2")


class Config(dict):
    """What their trainer pickles beside the weights: a class of a package that need not be here."""


def their_weights(seed=0):
    """Names and shapes of Res16UNet34C, for 3 channels in and 32 out."""
    rng, state = np.random.default_rng(seed), {}

    def conv(name, taps, c_in, c_out):
        shape = (taps, c_in, c_out) if taps > 1 else (c_in, c_out)
        state[f"{name}.kernel"] = torch.from_numpy(rng.normal(0, (2 / (taps * c_in)) ** 0.5, shape))

    def norm(name, channels):
        for field, low, high in (("weight", 0.5, 1.5), ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3)):
            state[f"{name}.bn.{field}"] = torch.from_numpy(rng.uniform(low, high, channels))
        state[f"{name}.bn.running_var"] = torch.from_numpy(rng.uniform(0.5, 2, channels))
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    def blocks(number, c_in, c_out):
        for k in range(LAYERS[number - 1]):
            name, first = f"block{number}.{k}", c_in if k == 0 else c_out
            conv(f"{name}.conv1", 27, first, c_out)
            norm(f"{name}.norm1", c_out)
            conv(f"{name}.conv2", 27, c_out, c_out)
            norm(f"{name}.norm2", c_out)
            if first != c_out:
                conv(f"{name}.downsample.0", 1, first, c_out)
                norm(f"{name}.downsample.1", c_out)

    conv("conv0p1s1", 27, 3, 32)
    norm("bn0", 32)
    width = 32
    for level, name in enumerate(DOWN):
        conv(name, 8, width, width)
        norm(f"bn{level + 1}", width)
        blocks(level + 1, width, PLANES[level])
        width = PLANES[level]
    for stage, (name, skip) in enumerate(zip(UP, (128, 64, 32, 32), strict=True), start=4):
        conv(name, 8, width, PLANES[stage])
        norm(f"bntr{stage}", PLANES[stage])
        blocks(stage + 1, PLANES[stage] + skip, PLANES[stage])
        width = PLANES[stage]
    conv("final", 1, 96, 32)
    state["final.bias"] = torch.zeros(1, 32)
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


class Theirs:
    """Their forward in evaluation mode, voxel by voxel: dictionaries from a coordinate to its features."""

    def __init__(self, state):
        self.state = {name: value.double().numpy() for name, value in state.items()}

    def offsets(self, side):
        """Taps in the order of the engine: the first axis runs fastest."""
        return [np.array(tap[::-1]) - side // 2 * (side % 2) for tap in itertools.product(range(side), repeat=3)]

    def norm(self, x, name):
        get = {field: self.state[f"{name}.bn.{field}"] for field in ("weight", "bias", "running_mean", "running_var")}
        scale = get["weight"] / np.sqrt(get["running_var"] + 1e-5)
        return {c: (v - get["running_mean"]) * scale + get["bias"] for c, v in x.items()}

    def conv(self, x, name, step):
        """3 x 3 x 3 on the same voxels, whose neighbours are `step` apart."""
        kernel, out = self.state[f"{name}.kernel"], {}
        for c in x:
            near = [(tuple(np.array(c) + step * o), w) for o, w in zip(self.offsets(3), kernel, strict=True)]
            out[c] = sum(x[n] @ w for n, w in near if n in x)
        return out

    def down(self, x, name, step):
        kernel, out = self.state[f"{name}.kernel"], {}
        for c in x:
            coarse = tuple(np.array(c) // (2 * step) * (2 * step))
            for offset, weight in zip(self.offsets(2), kernel, strict=True):
                if tuple(np.array(coarse) + step * offset) == c:
                    out[coarse] = out.get(coarse, 0) + x[c] @ weight
        return out

    def up(self, x, name, step, fine):
        """From voxels 2 x step apart to those of `fine`."""
        kernel, out = self.state[f"{name}.kernel"], {}
        for c in fine:
            coarse = np.array(c) // (2 * step) * (2 * step)
            for offset, weight in zip(self.offsets(2), kernel, strict=True):
                if tuple(coarse + step * offset) == c:
                    out[c] = x[tuple(coarse)] @ weight
        return out

    def blocks(self, x, number, step):
        for k in range(LAYERS[number - 1]):
            name = f"block{number}.{k}"
            y = relu(self.norm(self.conv(x, f"{name}.conv1", step), f"{name}.norm1"))
            y = self.norm(self.conv(y, f"{name}.conv2", step), f"{name}.norm2")
            if f"{name}.downsample.0.kernel" in self.state:
                kernel = self.state[f"{name}.downsample.0.kernel"]
                x = self.norm({c: v @ kernel for c, v in x.items()}, f"{name}.downsample.1")
            x = relu({c: y[c] + x[c] for c in x})
        return x

    def forward(self, x):
        x = relu(self.norm(self.conv(x, "conv0p1s1", 1), "bn0"))
        skips = [x]
        for level, name in enumerate(DOWN):
            x = relu(self.norm(self.down(x, name, 2**level), f"bn{level + 1}"))
            x = self.blocks(x, level + 1, 2 ** (level + 1))
            skips.append(x)
        skips.pop()
        for stage, name in enumerate(UP, start=4):
            skip, step = skips.pop(), 2 ** (7 - stage)
            x = relu(self.norm(self.up(x, name, step, skip), f"bntr{stage}"))
            x = self.blocks({c: np.concatenate([x[c], skip[c]]) for c in x}, stage + 1, step)
        return x


def relu(x):
    return {c: np.maximum(v, 0) for c, v in x.items()}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A checkpoint as their trainer writes it, with their optimiser and configuration in it."""
    path = tmp_path_factory.mktemp("released") / "pointcontrast.pth"
    extras = {"curr_iter": 60_000, "optimizer": {"state": {}, "param_groups": []}, "config": Config(opt={"lr": 0.1})}
    torch.save(extras | {"state_dict": their_weights()}, path)
    return path


@pytest.fixture(scope="module")
def computed():
    """Cells (n, 3), features (n, 3) and what their net makes of them (n, 96): an uneven cloud, so that no axis may be
    mistaken for another nor a kernel be turned round."""
    rng = np.random.default_rng(1)
    cells = np.unique(rng.integers(0, (9, 7, 5), (70, 3)) * [1, 2, 3], axis=0).astype(np.int32)
    features = rng.normal(0, 1, (len(cells), 3))
    theirs = Theirs(their_weights()).forward(dict(zip(map(tuple, cells.tolist()), features, strict=True)))
    return cells, features, np.array([theirs[tuple(c)] for c in cells.tolist()])


def test_a_checkpoint_in_their_format_computes_here_what_their_net_computes(released, computed):
    cells, features, expected = computed
    coordinate = torch.from_numpy(np.insert(cells, 0, 0, axis=1).astype(np.int32))
    net = load_backbone(released).net.double()
    with torch.no_grad():
        size = tuple(int(n) for n in cells.max(axis=0) + 1)
        ours = net(Voxels(coordinate, size), torch.from_numpy(features), 1).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert expected.std() > 0.1


def test_released_weights_are_exported_and_say_their_voxels(released, tmp_path):
    result = call("export-weights", released, "--out", tmp_path / "own.safetensors")
    assert result.exit_code == 0 and "backbone 34, weights of pointcontrast.pth" in result.output
    own = load_backbone(tmp_path / "own.safetensors")
    assert own.voxel_m == 0.025 and own.scans == ()
    same = load_backbone(released).net.state_dict()
    assert all(torch.equal(value, same[name]) for name, value in own.net.state_dict().items())


ELSEWHERE = """
import sys, types
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
known = {}
register = types.SimpleNamespace(register_module=lambda name: lambda kind: known.setdefault(name, kind))
sys.modules["pointcept"] = sys.modules["pointcept.models"] = types.ModuleType("pointcept")
sys.modules["pointcept.models.builder"] = types.SimpleNamespace(MODELS=register)
import own
given = np.load(sys.argv[1] + "/given.npz")
cells, features = torch.from_numpy(given["cells"]), torch.from_numpy(given["features"])
net = own.load(sys.argv[1] + "/own.safetensors", "cpu").double()
coordinate = torch.cat([torch.zeros(len(cells), 1), cells], dim=1).int()
with torch.no_grad():
    plain = net(coordinate, features, 1)
    backbone = known["gen4d"](sys.argv[1] + "/own.safetensors", "cpu").double()
    backbone.net.about["inputs"] = ["colour"]
    offset = torch.tensor([len(cells), 2 * len(cells)])
    twice = {"grid_coord": cells.repeat(2, 1), "feat": features.repeat(2, 1), "offset": offset}
    both = backbone(twice)
    backbone.net.about["inputs"] = ["occupancy"]
    ones = backbone(twice)
assert not {name.partition(".")[0] for name in sys.modules} & {"train", "gen4d"}
np.savez(sys.argv[1] + "/found.npz", plain=plain, both=both, ones=ones, expected_ones=net(coordinate, torch.ones_like(
    features), 1).detach())
"""


def test_weights_and_their_module_compute_elsewhere_what_the_net_computes(released, computed, tmp_path):
    """In a process with torch and spconv alone, and as Pointcept calls a backbone: with a stand-in for its registry."""
    cells, features, expected = computed
    result = call("export-weights", released, "--out", tmp_path / "own.safetensors", "--module")
    assert result.exit_code == 0 and "own.py: the net" in result.output
    np.savez(tmp_path / "given.npz", cells=cells, features=features)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    for name, wanted in (("plain", expected), ("both", np.concatenate([expected, expected]))):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(found["ones"], np.tile(found["expected_ones"], (2, 1)), rtol=1e-9, atol=1e-12)


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_of_a_file_is_run(tmp_path, legacy):
    stored = {"state_dict": their_weights(), "config": Harmful()}
    torch.save(stored, tmp_path / "harmful.pth", _use_new_zipfile_serialization=not legacy)
    assert "stem.conv.weight" in read_foreign(tmp_path / "harmful.pth")


def test_what_is_not_their_net_is_one_line(tmp_path):
    for content, message in (
        (b"", "not a checkpoint of torch"),
        (b"PK\x03\x04 something", "not a checkpoint of torch"),
        (pickle.dumps({"a": 1}), "not a checkpoint of torch"),
    ):
        (tmp_path / "bad.pth").write_bytes(content)
        assert message in refusal("export-weights", tmp_path / "bad.pth", "--out", tmp_path / "o")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    assert "has no conv0p1s1.kernel" in refusal("export-weights", tmp_path / "other.pth", "--out", tmp_path / "o")
    torch.save([1], tmp_path / "list.pth")
    assert "holds a list without a state_dict" in refusal("export-weights", tmp_path / "list.pth", "--out", "o")
    stem = their_weights()
    stem["conv0p1s1.kernel"] = torch.zeros(125, 3, 32)
    torch.save(stem, tmp_path / "stem.pth")
    with pytest.raises(CheckpointError, match=r"stem.conv.weight is \(32, 5, 5, 5, 3\) there, \(32, 3, 3, 3, 3\)"):
        load_backbone(tmp_path / "stem.pth")
