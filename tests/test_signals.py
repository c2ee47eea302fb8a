"""Signals: a build that is asked to end does so soon, with the exit code that says why, and can be continued."""

import os
import pathlib
import signal
import time

import numpy as np
import pytest

from gen4d import files
from tests import faults
from tests.equal import files_of
from tests.faults import build, check_resumes, check_valid, scaled
from tests.makers import commands
from tests.makers.commands import gen4d

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
SOON_S = 10
ROOMS = 6
LONGER = ("--sequences", "30")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return commands.write_rooms(tmp_path_factory.mktemp("rooms"), ROOMS)


@pytest.fixture(scope="module")
def unbroken(rooms):
    return files_of(commands.build(rooms, out="unbroken"))


@pytest.fixture(scope="module")
def longer(rooms):
    return files_of(commands.build(rooms, *LONGER, out="longer"))


@pytest.fixture(autouse=True)
def signals_are_heard():
    """Whoever runs the tests, under nohup or in the background, may ignore signals, and processes inherit that."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in CODES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def check_stopped(out: pathlib.Path) -> None:
    """A stopped command leaves a valid folder without litter, and no process that holds its lock."""
    check_valid(out)
    assert [path for path in out.rglob("*") if path.suffix == ".tmp"] == []
    if out.exists():
        with files.locked(out):
            pass


@pytest.mark.parametrize("number", CODES)
def test_a_signal_at_any_moment_ends_a_build_with_workers(rooms, unbroken, tmp_path, number):
    """To the command alone, as `kill` sends it, or to its whole group, as a terminal and a batch system do."""
    whole = faults.seconds_of(build(rooms, tmp_path / "whole", "--workers", "2"))
    rng, slowest, codes = np.random.default_rng((6, number)), 0.0, []
    for trial in range(scaled(10, 100)):
        out = tmp_path / "out"
        pid = faults.child(build(rooms, out, "--workers", "2"), session=True)
        time.sleep(rng.uniform(0, whole))
        start = time.monotonic()
        (os.killpg if trial % 2 else os.kill)(pid, number)
        code = faults.wait(pid, SOON_S)
        assert code in (CODES[number], 0, -number)  # 0: it was done; -number: it had not yet begun
        slowest, codes = max(slowest, time.monotonic() - start), [*codes, code]
        check_stopped(out)
        check_resumes(rooms, out, unbroken, "--workers", "2")
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert slowest < SOON_S
    assert codes.count(CODES[number]) >= len(codes) // 5
    print(f"{len(codes)} signals {number}, {codes.count(0)} after the end; the slowest answer took {slowest:.2f} s")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_in_the_middle_has_its_exit_code(rooms, longer, tmp_path, number, workers):
    out = tmp_path / "out"
    arguments = ("--out", str(out), "--workers", workers, *LONGER)
    running = commands.start(*commands.build_arguments(rooms, *arguments))
    while not (out / "shards/00000.json").exists():
        assert running.poll() is None
        time.sleep(0.001)
    running.send_signal(number)
    text, err = running.communicate(timeout=SOON_S)
    assert running.returncode == CODES[number]
    assert "the same command continues" in err.splitlines()[-1]
    assert "Traceback" not in text + err
    check_stopped(out)
    check_resumes(rooms, out, longer, *LONGER)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_during_an_effect_leaves_no_litter(rooms, unbroken, tmp_path, number):
    """Between the write of a temporary file and its rename, in this process and in a worker."""
    for workers in ("1", "2"):
        out = tmp_path / workers
        pid = faults.child(build(rooms, out, "--workers", workers), _Wait("rename", ".zarr.zip"), session=True)
        while not any(out.glob("shards/*.tmp")):
            time.sleep(0.001)
        os.killpg(pid, number)
        assert faults.wait(pid, SOON_S) == CODES[number]
        check_stopped(out)
        check_resumes(rooms, out, unbroken)


class _Wait:
    """Waits a minute at an effect on a file of a suffix."""

    def __init__(self, name: str, suffix: str):
        self.name, self.suffix = name, suffix

    def __call__(self, name, path):
        if name == self.name and path.name.endswith(self.suffix):
            time.sleep(60)


def test_a_second_signal_does_not_disturb_the_first(rooms, unbroken, tmp_path):
    out = tmp_path / "out"
    pid = faults.child(build(rooms, out, "--workers", "2"), _Wait("rename", ".zarr.zip"), session=True)
    while not any(out.glob("shards/*.tmp")):
        time.sleep(0.001)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert faults.wait(pid, SOON_S) in CODES.values()
    check_stopped(out)
    check_resumes(rooms, out, unbroken)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_hanging_up_does_not_end_a_build_under_nohup(rooms, unbroken, tmp_path, workers):
    """Neither the command nor, when the whole group is told, its workers."""
    out = tmp_path / "out"

    def under_nohup():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return build(rooms, out, "--workers", workers)()

    pid = faults.child(under_nohup, _HangUp(), session=True)
    assert faults.wait(pid) == 0
    assert files_of(out) == unbroken


class _HangUp:
    def __call__(self, name, path):
        os.killpg(0, signal.SIGHUP)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_other_commands_with_the_same_code(rooms, unbroken, tmp_path, number):
    data, out = rooms / "unbroken", tmp_path / "out"
    pid = faults.child(lambda: gen4d("export", data, "--out", out).code, _Wait("rename", ".h5"), session=True)
    while not any(out.glob("shards/*.tmp")):
        time.sleep(0.001)
    os.kill(pid, number)
    assert faults.wait(pid, SOON_S) == CODES[number]
    assert gen4d("export", data, "--out", out).code == 0
    commands.check_untorn(out)
