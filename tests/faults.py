"""Faults for tests: processes killed, disks that fail and power that goes, at every effect on the file system.

`gen4d.files` calls `effect` before each of its effects. Here that call kills, fails or records.
"""

import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

from gen4d import files
from gen4d.shards import open_dataset, verify
from gen4d.shards.home import LocalHome
from gen4d.shards.manifest import read_sidecar
from tests.equal import files_of
from tests.makers import commands
from tests.makers.commands import gen4d

SOAK = float(os.environ.get("GEN4D_SOAK", 0))  # 1: hours; 0.1: a tenth of that
TORN = b"torn" * 30


def scaled(quick: int, soak: int) -> int:
    """How often: in every run, or in a long one (`make soak`)."""
    return max(quick, round(SOAK * soak))


class Op(NamedTuple):
    """One effect on the file system: what, where, and for a write what is in the file after it."""

    name: str
    path: pathlib.Path
    content: bytes | None = None


class Recorder:
    """Keeps every effect; a write's content is read at the next effect, when it is done."""

    def __init__(self):
        self.ops: list[Op] = []

    def __call__(self, name: str, path: pathlib.Path) -> None:
        self._complete()
        self.ops.append(Op(name, path))

    def _complete(self) -> None:
        if self.ops and self.ops[-1].name == "write":
            self.ops[-1] = self.ops[-1]._replace(content=self.ops[-1].path.read_bytes())


class At:
    """Acts at the effect of a number, counted from 0; `again` acts at all later ones too."""

    def __init__(self, number: int, act: Callable[[str, pathlib.Path], None], again: bool = False):
        self.number, self.act, self.again, self.count = number, act, again, -1

    def __call__(self, name: str, path: pathlib.Path) -> None:
        self.count += 1
        if self.count == self.number or (self.again and self.count > self.number):
            self.act(name, path)


def kill(name: str, path: pathlib.Path) -> None:
    """Kill this process before the effect."""
    os.kill(os.getpid(), signal.SIGKILL)


def tear(name: str, path: pathlib.Path) -> None:
    """Kill this process in the middle of a write, or before any other effect."""
    if name == "write":
        path.write_bytes(TORN)
    kill(name, path)


def fail(code: int) -> Callable[[str, pathlib.Path], None]:
    """Let the effect fail with an error number."""

    def act(name: str, path: pathlib.Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    return act


def child(action: Callable[[], int], effect=None, session: bool = False) -> int:
    """Start `action` in a forked process, with another `effect`; returns its process id. Its output goes nowhere."""
    pid = os.fork()
    if pid:
        while session and os.getpgid(pid) != pid:
            time.sleep(0.001)
        return pid
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # not the test runner's
        if session:
            os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        with mock.patch.object(files, "effect", effect or files.effect):
            code = action()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def seconds_of(action: Callable[[], int]) -> float:
    """How long `action` takes in a process of its own when nothing disturbs it."""
    start = time.monotonic()
    assert wait(child(action)) == 0
    return time.monotonic() - start


def wait(pid: int, seconds: float = 60) -> int:
    """Wait for a process; its exit code, negative for a signal. Kills and fails after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"still there after {seconds} s")


def after_power_loss(ops: list[Op], root: pathlib.Path, keeps: Callable[[int], bool], blank: bool) -> dict:
    """What a disk holds below `root` when the power goes after `ops`: {relative path: content, None for a folder}.

    What was synced is there: a file's content after fsync of the file, names after fsync of their folder. Of the rest
    `keeps(number of the op)` decides; a content that is not kept reads as nothing, or as zeros if `blank`.
    """
    synced = {i for i, op in enumerate(ops) if _is_synced(op, ops[i + 1 :])}
    content: dict[int, bytes] = {}  # of an inode, named by the op that opened it
    truth: dict[pathlib.Path, int] = {}
    names: dict[pathlib.Path, int | None] = {}
    for i, op in enumerate(ops):
        stays = i in synced or keeps(i)
        if op.name in ("open", "lock"):
            truth[op.path] = i
            content[i] = b""
            _name(names, op.path, i, stays)
        elif op.name == "write":
            content[truth[op.path]] = op.content if stays else bytes(len(op.content)) if blank else b""
        elif op.name == "rename":
            temporary = max((path for path in truth if _is_temporary(path, op.path)), key=truth.__getitem__)
            truth[op.path] = truth.pop(temporary)
            if stays:
                names.pop(temporary, None)
                names[op.path] = truth[op.path]
        elif op.name == "mkdir":
            _name(names, op.path, None, stays)
        elif op.name == "unlink":
            truth.pop(op.path, None)
            if stays:
                names.pop(op.path, None)
    return {
        path.relative_to(root).as_posix(): None if inode is None else content[inode]
        for path, inode in sorted(names.items())
        if all(parent in names for parent in path.parents if root in parent.parents)
    }


def _is_temporary(path: pathlib.Path, final: pathlib.Path) -> bool:
    return path.parent == final.parent and path.name.startswith(f"{final.name}.") and path.suffix == ".tmp"


def _name(names: dict, path: pathlib.Path, inode: int | None, stays: bool) -> None:
    if stays:
        names[path] = inode


def _is_synced(op: Op, later: list[Op]) -> bool:
    """Whether a later op puts this one on the disk."""
    place = op.path if op.name == "write" else op.path.parent
    return any(other.name == "fsync" and other.path == place for other in later)


# What holds after a fault


def build(rooms: pathlib.Path, out: pathlib.Path, *more: str) -> Callable[[], int]:
    """An action that builds `rooms` into `out` and gives the exit code."""
    return lambda: gen4d(*commands.build_arguments(rooms, "--out", str(out), *more)).code


def check_valid(out: pathlib.Path) -> None:
    """Everything that a finished file promises is there, whatever happened."""
    shards = out / "shards"
    for path in sorted(shards.glob("*.json")) if shards.is_dir() else ():
        sidecar = read_sidecar(LocalHome(out), int(path.stem))
        assert files.sha256(shards / sidecar["file"]) == sidecar["content_sha256"]
    if (out / "dataset.json").exists():
        problems = [line for line in verify.verify(open_dataset(out)) if line]
        assert [line for line in problems if "finish the build that it belongs to" not in line] == []


def check_resumes(rooms, out: pathlib.Path, unbroken: dict, *more: str) -> None:
    """The same command continues it to the bytes of an undisturbed build, and leaves nothing else."""
    assert build(rooms, out, *more)() == 0
    assert files_of(out) == unbroken
    assert [path for path in out.rglob("*") if path.suffix in (".tmp", ".lock")] == []
