"""The smallest build there is: empty rooms of 150 points and a box, and the commands as a user runs them."""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
from typing import NamedTuple
from unittest import mock

import numpy as np

from gen4d import cli
from tests.make_files import CUBE_QUADS, CUBE_VERTEX, off, ply

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIGHT = ("--sequences", "2", "--classes", "chair", "--set", "shape_points=20", "--set", "scans_per_shard=1")
_ENTRY = "from gen4d.cli import main; main()"


class Outcome(NamedTuple):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def floor_points(key: int, points: int = 150, side_m: float = 3.0) -> np.ndarray:
    """Points (points, 3) float32 of a floor without anything on it."""
    rng = np.random.default_rng((77, key))
    return rng.uniform((0, 0, 0), (side_m, side_m, 0.01), (points, 3)).astype(np.float32)


def write_rooms(folder: pathlib.Path, rooms: int = 2, **size) -> pathlib.Path:
    """`room0.ply` and so on in `folder / "scans"`, and one chair in `folder / "shapes"`. Returns `folder`."""
    scans, chairs = folder / "scans", folder / "shapes/chair/train"
    scans.mkdir(parents=True)
    chairs.mkdir(parents=True)
    for key in range(rooms):
        (scans / f"room{key}.ply").write_bytes(ply(floor_points(key, **size)))
    (chairs / "chair_0001.off").write_text(off((CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_QUADS))
    return folder


def build_arguments(folder: pathlib.Path, *more: str, out: str = "out") -> tuple[str, ...]:
    """Arguments of `gen4d` for a build of `write_rooms`' folders into `folder / out`."""
    places = ("--scans", str(folder / "scans"), "--shapes", str(folder / "shapes"), "--out", str(folder / out))
    return ("build", *places, *LIGHT, *more)


def build(folder: pathlib.Path, *more: str, out: str = "out") -> pathlib.Path:
    """A finished data set of `write_rooms`' folders; returns its folder."""
    outcome = gen4d(*build_arguments(folder, *more, out=out))
    assert outcome.code == 0, outcome.text
    return folder / out


def gen4d(*arguments: str | pathlib.Path) -> Outcome:
    """Run a command through its entry point, in this process."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with (
        mock.patch.object(sys, "argv", ["gen4d", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Outcome(code, out.getvalue(), err.getvalue())


def start(*arguments: str | pathlib.Path, **options) -> subprocess.Popen:
    """Start a command as a process of its own, in a session of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-c", _ENTRY, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)


def process(*arguments: str | pathlib.Path, timeout: float = 120) -> Outcome:
    """Run a command in a process of its own."""
    running = start(*arguments)
    out, err = running.communicate(timeout=timeout)
    return Outcome(running.returncode, out, err)


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name, but for the lock's."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "build.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def check_untorn(out: pathlib.Path) -> None:
    """Assert that a folder holds nothing half-written: no temporary file, no dataset.json that lacks a shard."""
    if not out.exists():
        return
    assert not [path.name for path in out.rglob("*") if path.suffix in (".tmp", ".partial", ".lock")]
    if (out / "dataset.json").exists():
        outcome = gen4d("verify", out)
        assert outcome.code == 0, outcome.text
