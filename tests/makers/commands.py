"""The commands as a user runs them, and the smallest build there is for them: rooms of 150 points and a box."""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
from typing import NamedTuple
from unittest import mock

from gen4d import cli
from tests.makers.files import ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX, write_shape
from tests.makers.rooms import bare_floor

ROOT = pathlib.Path(__file__).resolve().parents[2]
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


def write_rooms(folder: pathlib.Path, rooms: int = 2, **size) -> pathlib.Path:
    """`room0.ply` and so on in `folder / "scans"`, and one chair in `folder / "shapes"`. Returns `folder`."""
    for key in range(rooms):
        write(folder / "scans" / f"room{key}.ply", ply(bare_floor(key, **size)))
    write_shape(folder / "shapes", "chair", 1, (CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_QUADS)
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


def check_untorn(out: pathlib.Path) -> None:
    """Assert that a folder holds nothing half-written: no temporary file, no dataset.json that lacks a shard."""
    if not out.exists():
        return
    assert not [path.name for path in out.rglob("*") if path.suffix in (".tmp", ".partial", ".lock")]
    if (out / "dataset.json").exists():
        outcome = gen4d("verify", out)
        assert outcome.code == 0, outcome.text
