"""Checkpoints of a run, which are there whole or not at all, and the run folder that they lie in.

    <run>/config.json                     what the run computes; a rerun must ask for the same
    <run>/train.lock                      there while a training goes on, which no other may join
    <run>/log.jsonl, <run>/tensorboard/   train/run/log.py
    <run>/machine.jsonl                   train/run/machine.py
    <run>/checkpoint-00000500/model.safetensors   weights and norm statistics, names as in `state_dict()`
                             /state.safetensors   optimiser and random states
                             /checkpoint.json     step, configuration, hashes of both: written last

Nothing is pickled. A folder without checkpoint.json is what a killed writer left. A file is never changed once it has
its name; the last two checkpoints are kept, so one is good at any moment, and
milestones stay.
"""

import contextlib
import errno
import hashlib
import json
import pathlib
import re
import shutil
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import nn

from gen4d import files
from gen4d.config import difference
from gen4d.shards.format import FormatError, seal, unseal
from train.config import flatten
from train.errors import Refused
from train.run.world import World

FORMAT = "gen4d-checkpoint"
VERSION = 2  # 1: settings were one flat record
KEPT = 2
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

_NAME = re.compile(r"checkpoint-(\d{8,})")
_LEFTOVER = re.compile(r"[a-z_]+\.(json|jsonl|md|png|txt)" + files.TEMPORARY)
_MODEL, _STATE, _INDEX = "model.safetensors", "state.safetensors", "checkpoint.json"


class CheckpointError(Refused):
    """A checkpoint or run folder that cannot be used; the message names the file, what is wrong and what to do."""


class Checkpoint(NamedTuple):
    """A checkpoint that was read and found whole."""

    path: pathlib.Path
    step: int  # updates made
    config: dict
    model: dict[str, torch.Tensor]
    tensors: dict[str, torch.Tensor]
    plain: dict


# Run folder ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def claimed(run: pathlib.Path, config: dict, free: frozenset[str], world: World) -> Iterator[None]:
    """Hold a folder as the run of a configuration, for this training alone.

    Raises CheckpointError, in all processes, where another training goes on in it or `claim` does, and for a disk that
    fills while it is held.
    """
    with contextlib.ExitStack() as held:
        world.led(lambda: _hold(held, run, config, free))
        try:
            yield
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            raise CheckpointError(
                f"{error.filename or run}: cannot be written ({error.strerror}): free some space; what {run} holds is "
                "whole, and the same command goes on from its last checkpoint"
            ) from None


def _hold(held: contextlib.ExitStack, run: pathlib.Path, config: dict, free: frozenset[str]) -> None:
    files.make_folder(run)
    try:
        held.enter_context(files.locked(run, "train.lock"))
    except files.BusyError as error:
        raise CheckpointError(f"{run}: {error.holder} trains here: wait for its end, or use another --run") from None
    claim(run, config, free)


def claim(run: pathlib.Path, config: dict, free: frozenset[str]) -> None:
    """Make a folder the run of a configuration, or check that it is. Settings whose paths are in `free` may differ.

    Raises CheckpointError where it was started with another configuration.
    """
    path = run / "config.json"
    if path.exists():
        lines = difference(_flat(_read_config(path)), _flat(config))
        changed = "; ".join(line for line in lines if line.split(":")[0] not in free)
        if changed:
            remedy = "use another --run, or those settings"
            raise CheckpointError(f"{run}: started with another configuration ({changed}): {remedy}")
    files.make_folder(run)
    files.write(path, json.dumps(config, indent=1).encode() + b"\n")


def _flat(config: dict) -> dict:
    """Path -> value, as JSON has it; settings by their own paths. Names of scans are left to the data's digests."""
    plain = json.loads(json.dumps({name: value for name, value in config.items() if not name.endswith("scans")}))
    return flatten(plain | plain.pop("settings", {}))


def _read_config(path: pathlib.Path) -> dict:
    try:
        config = json.loads(path.read_bytes())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a configuration; restore it, or use another --run")
    return config


# Writing -------------------------------------------------------------------------------------------------------------


def save(
    run: pathlib.Path, step: int, config: dict, model: nn.Module, optimiser, plain: dict, milestone_steps: int = 0
) -> pathlib.Path:
    """Write the checkpoint of a step, then remove all but the last two and those of multiples of `milestone_steps`.

    plain: further JSON values to keep.

    Raises OSError; whatever happens, an earlier checkpoint stays whole.
    """
    clean(run)
    folder = run / f"checkpoint-{step:08d}"
    files.make_folder(folder)
    tensors, groups = _flatten(optimiser.state_dict())
    tensors |= {f"random/{name}": value for name, value in _random_states(model).items()}
    content = {_MODEL: safetensors.torch.save(_plain_tensors(model.state_dict()), {"format": "pt"})}
    content[_STATE] = safetensors.torch.save(tensors, {"format": "pt"})
    index = {"format": FORMAT, "version": VERSION, "step": step, "config": config, "optimiser": groups, "plain": plain}
    index["files"] = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in content.items()}
    for name, data in content.items():
        files.write(folder / name, data)
    files.write(folder / _INDEX, seal(index))
    for old in _folders(run)[:-KEPT]:
        if not milestone_steps or int(_NAME.fullmatch(old.name)[1]) % milestone_steps:
            _remove(old)
    return folder


def clean(run: pathlib.Path) -> None:
    """Remove what killed writers left: checkpoints without an index, and temporary files."""
    for folder in run.glob("checkpoint-*"):
        if not (folder / _INDEX).exists():
            _remove(folder)
    for path in files.leftovers(run, _LEFTOVER):
        files.remove(path)


def _remove(folder: pathlib.Path) -> None:
    """The index goes first: without it the folder is no checkpoint."""
    files.remove(folder / _INDEX)
    files.effect("rmtree", folder)
    shutil.rmtree(folder, ignore_errors=True)


def _folders(run: pathlib.Path) -> list[pathlib.Path]:
    """Finished checkpoints of a run, by step."""
    found = [(int(match[1]), path) for path in run.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / _INDEX).exists()]


def _plain_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _flatten(state: dict) -> tuple[dict[str, torch.Tensor], dict]:
    """An optimiser's state as tensors named "<parameter>/<field>" and JSON for the rest."""
    entries = {f"{p}/{field}": value for p, fields in state["state"].items() for field, value in fields.items()}
    tensors = {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}
    rest = {name: value for name, value in entries.items() if name not in tensors}
    return _plain_tensors(tensors), {"groups": state["param_groups"], "rest": rest}


def _unflatten(tensors: dict[str, torch.Tensor], plain: dict) -> dict:
    state: dict[int, dict] = {}
    for name, value in (tensors | plain["rest"]).items():
        parameter, field = name.split("/")
        if parameter != "random":
            state.setdefault(int(parameter), {})[field] = value
    return {"state": state, "param_groups": plain["groups"]}


def _random_states(model: nn.Module) -> dict[str, torch.Tensor]:
    """States of torch's own generators, for methods that draw while they train."""
    states = {"cpu": torch.get_rng_state()}
    device = next(model.parameters()).device
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


# Reading -------------------------------------------------------------------------------------------------------------


def newest(run: pathlib.Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run, None where there is none yet, with a warning of each damaged one that is
    passed over.

    Raises CheckpointError where there are checkpoints and all are damaged.
    """
    damaged: list[str] = []
    for folder in reversed(_folders(run)):
        try:
            found = read(folder)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        for line in damaged:
            warnings.warn(line, stacklevel=2)
        return found
    if damaged:
        raise CheckpointError(f"{damaged[0]}; no other checkpoint is left in {run}: start in another --run")
    return None


def read(folder: pathlib.Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError where it is not whole, or of another version."""
    path = folder / _INDEX
    if not path.exists():
        raise CheckpointError(f"{folder}: no {_INDEX}: its writing was interrupted; use an earlier checkpoint")
    try:
        index = unseal(path.read_bytes(), str(path))
    except FormatError:
        raise CheckpointError(f"{path}: damaged; use an earlier checkpoint") from None
    if (index.get("format"), index.get("version")) != (FORMAT, VERSION):
        found = f"{index.get('format')} {index.get('version')}"
        raise CheckpointError(f"{path}: {found}, this version reads {FORMAT} {VERSION}: use the version that wrote it")
    model, tensors = (_read_tensors(folder / name, *index["files"][name]) for name in (_MODEL, _STATE))
    plain = index["plain"] | {"optimiser": index["optimiser"]}
    return Checkpoint(folder, index["step"], index["config"], model, tensors, plain)


def _read_tensors(path: pathlib.Path, size: int, digest: str) -> dict[str, torch.Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; use an earlier checkpoint") from None
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path}: {len(data)} bytes of {size}, or damaged; use an earlier checkpoint")
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: {error}; use an earlier checkpoint") from None


def restore(checkpoint: Checkpoint, model: nn.Module, optimiser) -> None:
    """Put a checkpoint's state into a model, its optimiser and torch's random generators.

    Raises CheckpointError where the model is another architecture.
    """
    load_weights(checkpoint.model, model, str(checkpoint.path))
    optimiser.load_state_dict(_unflatten(checkpoint.tensors, checkpoint.plain["optimiser"]))
    torch.set_rng_state(checkpoint.tensors["random/cpu"])
    device = next(model.parameters()).device
    if device.type == "cuda" and "random/cuda" in checkpoint.tensors:
        torch.cuda.set_rng_state(checkpoint.tensors["random/cuda"], device)


def load_weights(weights: dict[str, torch.Tensor], model: nn.Module, name: str) -> None:
    """Copy weights into a model. Raises CheckpointError, naming the first difference, unless names and shapes agree."""
    expected = model.state_dict()
    for key in [*expected, *weights]:
        there = tuple(weights[key].shape) if key in weights else "nothing"
        here = tuple(expected[key].shape) if key in expected else "nothing"
        if there != here:
            raise CheckpointError(f"{name}: another architecture: {key} is {there} there, {here} in this model")
    model.load_state_dict(weights)
