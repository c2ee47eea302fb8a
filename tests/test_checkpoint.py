"""Checkpoints: whole or not at all, exact, readable without running code; run folders of one configuration."""

import json
import os
import pickle
import signal
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from gen4d import files
from train.run import checkpoint
from train.run.checkpoint import CheckpointError

FREE = frozenset({"steps"})


def make(seed=0, width=3, optimiser=torch.optim.SGD, **options):
    """A model with a norm and an optimiser that has a state."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    made = optimiser(model.parameters(), lr=0.1, **options)
    step(model, made, generator)
    return model, made


def step(model, optimiser, generator):
    """One update on random data."""
    optimiser.zero_grad()
    model(torch.randn(8, 4, generator=generator)).square().mean().backward()
    optimiser.step()


def save(run, at, model, optimiser, plain=None):
    return checkpoint.save(run, at, {"lr": 0.1}, model, optimiser, plain or {})


def names(run):
    return sorted(path.name for path in run.iterdir())


@pytest.mark.parametrize(
    ("kind", "options"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {}), (torch.optim.SGD, {})]
)
def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path, kind, options):
    model, optimiser = make(optimiser=kind, **options)
    save(tmp_path, 5, model, optimiser, {"scaler": {"scale": 1.5}})
    torch.rand(3)
    again, its_optimiser = make(seed=9, optimiser=kind, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = checkpoint.newest(tmp_path)
    checkpoint.restore(found, again, its_optimiser)
    assert (found.step, found.config, found.plain["scaler"]) == (5, {"lr": 0.1}, {"scale": 1.5})
    for k in range(3):
        step(model, optimiser, torch.Generator().manual_seed(k))
        step(again, its_optimiser, torch.Generator().manual_seed(k))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_torchs_random_state_is_restored(tmp_path):
    model, optimiser = make()
    before = torch.get_rng_state()
    save(tmp_path, 1, model, optimiser)
    drawn = torch.rand(4)
    checkpoint.restore(checkpoint.newest(tmp_path), model, optimiser)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(4), drawn)


def test_the_last_two_are_kept(tmp_path):
    model, optimiser = make()
    for at in (1, 2, 10, 9):
        save(tmp_path, at, model, optimiser)
    assert names(tmp_path) == ["checkpoint-00000009", "checkpoint-00000010"]


def test_temporary_files_of_killed_writers_go_with_the_next_checkpoint_and_those_of_others_stay(tmp_path):
    model, optimiser = make()
    ours = ("config.json", "log.jsonl", "curves.png", "results.md", "train_scans.txt")
    for name in (*(f"{name}.host-a-12.345.tmp" for name in ours), "notes.tmp", "My.json.12.tmp"):
        (tmp_path / name).write_text("half")
    save(tmp_path, 1, model, optimiser)
    assert names(tmp_path) == ["My.json.12.tmp", "checkpoint-00000001", "notes.tmp"]


def test_a_run_without_checkpoints_starts_anew(tmp_path):
    assert checkpoint.newest(tmp_path) is None


def _kill_at(effect: int, run) -> bool:
    """Save in a forked child that dies by SIGKILL at its `effect`-th effect on the disk; whether it got that far."""
    model, optimiser = make(seed=3, momentum=0.9)
    child = os.fork()
    if not child:
        count = [0]

        def strike(name, path):
            count[0] += 1
            if count[0] == effect:
                os.kill(os.getpid(), signal.SIGKILL)

        files.effect = strike
        save(run, 3, model, optimiser)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_every_effect_the_previous_or_the_new_checkpoint_loads(tmp_path):
    seen = set()
    for effect in range(1, 100):
        run = tmp_path / str(effect)
        run.mkdir()
        model, optimiser = make(seed=1, momentum=0.9)
        for at in (1, 2):
            save(run, at, model, optimiser)
        struck = _kill_at(effect, run)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of damage
            found = checkpoint.newest(run)
        expected = make(seed=1 if found.step == 2 else 3, momentum=0.9)[0].state_dict()
        assert all(torch.equal(expected[name], value) for name, value in found.model.items())
        seen.add(found.step)
        save(run, 4, model, optimiser)
        assert names(run) == [f"checkpoint-0000000{found.step}", "checkpoint-00000004"]
        assert not files.leftovers(run)
        if not struck:
            break
    assert not struck and effect > 15
    assert seen == {2, 3}


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, name, damage):
    model, optimiser = make(momentum=0.9)
    for at in (1, 2):
        save(tmp_path, at, model, optimiser)
    path = tmp_path / "checkpoint-00000002" / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    path.write_bytes(b"" if damage == "empty" else content[:-1] if damage == "cut" else content)
    if damage == "gone":
        path.unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = checkpoint.newest(tmp_path)
    assert found.step == 1
    interrupted = (name, damage) == ("checkpoint.json", "gone")  # as a killed writer leaves it: nothing to report
    assert [f"checkpoint-00000002/{name}" in str(one.message) for one in caught] == ([] if interrupted else [True])
    with pytest.raises(CheckpointError, match="use an earlier checkpoint"):
        checkpoint.read(path.parent)
    checkpoint.restore(found, model, optimiser)
    save(tmp_path, 2, model, optimiser)
    assert checkpoint.newest(tmp_path).step == 2


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(tmp_path):
    model, optimiser = make()
    folder = save(tmp_path, 7, model, optimiser)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model.safetensors: 5 bytes of \d+, or damaged.*no other checkpoint"):
        checkpoint.newest(tmp_path)


def test_another_architecture_is_refused_by_its_first_difference(tmp_path):
    model, optimiser = make()
    save(tmp_path, 1, model, optimiser)
    wider, its_optimiser = make(width=5)
    with pytest.raises(CheckpointError, match=r"another architecture: 0.weight is \(3, 4\) there, \(5, 4\) in this"):
        checkpoint.restore(checkpoint.newest(tmp_path), wider, its_optimiser)
    with pytest.raises(CheckpointError, match=r"extra is \(1,\) there, nothing in this model"):
        checkpoint.load_weights(model.state_dict() | {"extra": torch.zeros(1)}, model, "file")


def test_every_file_loads_without_pickle(tmp_path):
    model, optimiser = make(momentum=0.9)
    folder = save(tmp_path, 1, model, optimiser)
    assert names(folder) == ["checkpoint.json", "model.safetensors", "state.safetensors"]
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    assert safetensors.torch.load_file(folder / "state.safetensors")
    assert json.loads((folder / "checkpoint.json").read_bytes())["step"] == 1


class _Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_a_pickle_in_disguise_runs_no_code(tmp_path):
    model, optimiser = make()
    folder = save(tmp_path, 1, model, optimiser)
    content = pickle.dumps(_Bomb(tmp_path / "exploded"))
    (folder / "model.safetensors").write_bytes(content)
    index = json.loads((folder / "checkpoint.json").read_bytes())
    index.pop("sha256")
    index["files"]["model.safetensors"] = [len(content), checkpoint.hashlib.sha256(content).hexdigest()]
    (folder / "checkpoint.json").write_bytes(checkpoint.seal(index))
    with pytest.raises(CheckpointError, match="use an earlier checkpoint"):
        checkpoint.read(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path):
    model, optimiser = make()
    folder = save(tmp_path, 1, model, optimiser)
    index = json.loads((folder / "checkpoint.json").read_bytes()) | {"version": 9}
    index.pop("sha256")
    (folder / "checkpoint.json").write_bytes(checkpoint.seal(index))
    with pytest.raises(CheckpointError, match="gen4d-checkpoint 9, this version reads gen4d-checkpoint 2"):
        checkpoint.read(folder)


def test_a_run_folder_of_another_configuration_is_refused_with_the_difference(tmp_path):
    run = tmp_path / "new" / "run"
    checkpoint.claim(run, {"lr": 0.1, "steps": 5, "batch": 2}, FREE)
    checkpoint.claim(run, {"lr": 0.1, "steps": 9, "batch": 2}, FREE)
    assert json.loads((run / "config.json").read_text())["steps"] == 9
    with pytest.raises(CheckpointError, match=r"\(lr: 0.1 there, 0.2 here; width: None there, 4 here\)"):
        checkpoint.claim(run, {"lr": 0.2, "steps": 9, "batch": 2, "width": 4}, FREE)
    (run / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json: not a configuration"):
        checkpoint.claim(run, {}, FREE)


def test_numbers_survive_exactly(tmp_path):
    """A learning rate or loss scale that is rounded on its way would end bit-identity."""
    value = float(np.nextafter(0.1, 1))
    model, optimiser = make()
    optimiser.param_groups[0]["lr"] = value
    save(tmp_path, 1, model, optimiser, {"scale": value})
    found = checkpoint.newest(tmp_path)
    checkpoint.restore(found, model, optimiser)
    assert (optimiser.param_groups[0]["lr"], found.plain["scale"]) == (value, value)
