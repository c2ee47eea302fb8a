"""What a run is computed with: versions and hardware."""

import json
import pathlib
import platform
from importlib import metadata

import torch

from gen4d import __version__, files
from train.run.log import read_lines
from train.run.world import World


def installed_sparse() -> dict[str, str]:
    """Name -> version of every installed distribution of spconv and cumm."""
    found = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.split("-")[0] in ("spconv", "cumm"):
            found[name] = distribution.version
    return dict(sorted(found.items()))


def machine(device: torch.device) -> str:
    """Versions and hardware that a number was measured with."""
    sparse = [f"{name} {version}" for name, version in installed_sparse().items() if name.startswith("spconv")]
    spconv = ", ".join(sparse) or "no spconv"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return f"gen4d {__version__}, torch {torch.__version__}, {spconv}, {name}"


def note_start(run: pathlib.Path, step: int, world: World) -> None:
    """<run>/machine.jsonl: a line for every start, with the steps that were made before it."""
    path = run / "machine.jsonl"
    line = {"step": step, "machine": machine(world.device), "processes": world.size}
    lines = [*read_lines(path), line | {"python": platform.python_version()}]
    files.write(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
