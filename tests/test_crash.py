"""A build that is killed, fails or loses power at any effect on the file system: nothing is lost, nothing is wrong.

Whatever happened, the folder is valid (what dataset.json and the shards' .json name is there, whole), and the same
command continues to the same bytes as a build that nothing disturbed.
"""

import errno
import itertools
import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest

from gen4d import files
from gen4d.shards import open_dataset
from tests import faults
from tests.equal import files_of
from tests.faults import SOAK, At, build, check_resumes, check_valid, scaled
from tests.makers import commands
from tests.makers.commands import gen4d

ROOMS = 10 if SOAK else 2
POINTS = 1000 if SOAK else 150
MANY = 80  # rooms, a shard each: a thousand effects


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return commands.write_rooms(tmp_path_factory.mktemp("rooms"), ROOMS, points=POINTS)


@pytest.fixture(scope="module")
def unbroken(rooms):
    return files_of(commands.build(rooms, out="unbroken"))


@pytest.fixture(autouse=True)
def no_disk(monkeypatch):
    """Killed processes do not take the kernel's cache along, so nothing has to reach the disk: three times as fast."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def effects(rooms, unbroken):
    """The effects of an undisturbed build."""
    return record(rooms)


def record(rooms) -> list[faults.Op]:
    recorder = faults.Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "effect", recorder)
        commands.build(rooms, out="recorded")
    return recorder.ops


def test_every_effect_of_a_build_is_seen(effects, unbroken):
    """Nothing is written behind the module's back: what the effects name is what there is."""
    renamed = {op.path.name for op in effects if op.name == "rename"}
    assert renamed == {pathlib.Path(name).name for name in unbroken}
    counts = {name: sum(op.name == name for op in effects) for name in ("open", "write", "rename", "mkdir", "lock")}
    assert counts == {"open": len(unbroken), "write": len(unbroken), "rename": len(unbroken), "mkdir": 2, "lock": 1}


def _kill_points(effects):
    """Every effect, and the middle of every write."""
    torn = [(i, faults.tear) for i, op in enumerate(effects) if op.name == "write"]
    return sorted([(i, faults.kill) for i in range(len(effects))] + torn, key=lambda point: point[0])


def test_a_kill_at_every_effect_loses_nothing_and_repeats_nothing(rooms, effects, unbroken, tmp_path):
    _kill_everywhere(rooms, effects, unbroken, tmp_path / "out")


@pytest.mark.skipif(not SOAK, reason="a thousand kill points are for make soak")
def test_a_kill_at_every_effect_of_a_build_of_many_shards(tmp_path):
    rooms = commands.write_rooms(tmp_path / "rooms", MANY, points=150)
    unbroken = files_of(commands.build(rooms, out="unbroken"))
    _kill_everywhere(rooms, record(rooms), unbroken, tmp_path / "out")


def _kill_everywhere(rooms, effects, unbroken, out: pathlib.Path) -> None:
    points = _kill_points(effects)
    for number, act in points:
        pid = faults.child(build(rooms, out), At(number, act))
        assert faults.wait(pid) == -signal.SIGKILL
        check_valid(out)
        check_resumes(rooms, out, unbroken)
        shutil.rmtree(out)
    print(f"killed at {len(points)} points of a build of {len(list(rooms.glob('scans/*')))} scans")


def test_a_kill_while_a_data_set_is_extended_leaves_the_old_one_readable(rooms, unbroken, tmp_path):
    first = tmp_path / "first"
    assert build(rooms, first, "--limit", "1")() == 0
    ids = open_dataset(first).ids
    recorder = faults.Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "effect", recorder)
        assert build(rooms, shutil.copytree(first, tmp_path / "recorded"))() == 0
    for number, act in _kill_points(recorder.ops):
        out = shutil.copytree(first, tmp_path / "out")
        pid = faults.child(build(rooms, out), At(number, act))
        assert faults.wait(pid) == -signal.SIGKILL
        check_valid(out)
        assert open_dataset(out).ids[: len(ids)] == ids
        check_resumes(rooms, out, unbroken)
        shutil.rmtree(out)


def test_a_kill_at_every_effect_of_a_worker(rooms, unbroken, tmp_path):
    """With two workers it is a worker that dies: the command says so, and continues when it is run again."""
    for number in range(0, 10 * ROOMS // 2, scaled(3, 1)):
        out = tmp_path / "out"
        pid = faults.child(build(rooms, out, "--workers", "2"), _InWorker(number, faults.kill))
        assert faults.wait(pid) in (0, 1)
        check_valid(out)
        check_resumes(rooms, out, unbroken, "--workers", "2")
        shutil.rmtree(out)


def test_a_worker_that_dies_is_said_with_a_remedy(rooms, unbroken, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(files, "effect", _InWorker(3, faults.kill, os.getpid()))
        outcome = gen4d(*commands.build_arguments(rooms, "--out", str(out), "--workers", "2"))
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "Error: a worker process died, out of memory or stopped from outside: use fewer --workers; the same command "
        "continues"
    ]
    check_valid(out)
    check_resumes(rooms, out, unbroken)


class _InWorker(At):
    """Counts only in forked workers: each has its own count."""

    def __init__(self, number, act, parent=None):
        super().__init__(number, act)
        self.parent = parent

    def __call__(self, name, path):
        self.parent = self.parent or os.getpid()
        if os.getpid() != self.parent:
            super().__call__(name, path)


def test_a_kill_while_a_killed_build_is_resumed(rooms, effects, unbroken, tmp_path):
    rng = np.random.default_rng(3)
    points = _kill_points(effects)
    for _ in range(scaled(20, 500)):
        out = tmp_path / "out"
        for number, act in (points[i] for i in rng.integers(len(points), size=2)):
            pid = faults.child(build(rooms, out), At(number, act))
            assert faults.wait(pid) in (0, -signal.SIGKILL)  # a resumed build may end before its effect comes
            check_valid(out)
        check_resumes(rooms, out, unbroken)
        shutil.rmtree(out)
    print(f"killed {2 * scaled(20, 500)} times, each time again while resuming")


def test_power_lost_after_every_effect_with_unsynced_data_dropped(rooms, effects, unbroken, tmp_path):
    """What no fsync confirmed may be gone, whole or in part, or hold zeros. Equal states are tried once."""
    root = effects[0].path.parent
    rng = np.random.default_rng(4)
    states = {}
    for end in range(len(effects) + 1):
        lost = [lambda i: False, lambda i: True, lambda i, end=end: effects[i].name != "write"]
        lost += [(rng.random(len(effects)) < 0.5).__getitem__ for _ in range(scaled(1, 20))]
        for keeps, blank in itertools.product(lost, (False, True)):
            state = faults.after_power_loss(effects[:end], root, keeps, blank)
            states[tuple(state.items())] = state
    assert len(states) > 4 * len(unbroken)  # of each file: a name, zeros, all, and its final name
    for number, state in enumerate(states.values()):
        disk = tmp_path / str(number)
        for name, content in state.items():
            path = disk / name
            path.mkdir(parents=True) if content is None else path.write_bytes(content)
        out = disk / effects[0].path.name
        check_valid(out)
        check_resumes(rooms, out, unbroken)
    print(f"power lost after each of {len(effects)} effects: {len(states)} different states of the disk")


def test_the_power_loss_test_sees_a_missing_fsync(rooms, effects, unbroken, tmp_path):
    """Without the fsync of files, some state has a shard's .json beside a shard that is empty."""
    careless = [op for op in effects if not (op.name == "fsync" and op.path.suffix == ".tmp")]
    root, broken = effects[0].path.parent, 0
    for end in range(len(careless) + 1):
        disk = tmp_path / str(end)
        state = faults.after_power_loss(careless[:end], root, lambda i: False, False)
        for name, content in state.items():
            path = disk / name
            path.mkdir(parents=True) if content is None else path.write_bytes(content)
        try:
            check_valid(disk / effects[0].path.name)
        except (AssertionError, ValueError):
            broken += 1
    assert broken


ERRORS = {"no space": (errno.ENOSPC, False), "input/output": (errno.EIO, False), "read only": (errno.EROFS, True)}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_at_every_effect_stops_the_build_with_a_clear_line(rooms, effects, unbroken, tmp_path, case):
    """Once, or, as when the kernel makes a disk read-only, from then on."""
    code, again = ERRORS[case]
    for number in range(len(effects)):
        out = tmp_path / "out"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "effect", At(number, faults.fail(code), again))
            outcome = gen4d(*commands.build_arguments(rooms, "--out", str(out)))
        assert outcome.code == 1
        assert len(outcome.err.splitlines()) == 1, outcome.err
        assert os.strerror(code) in outcome.err
        assert "the same command continues" in outcome.err
        assert "Traceback" not in outcome.text
        assert [path for path in out.rglob("*.tmp")] == []
        check_valid(out)
        check_resumes(rooms, out, unbroken)
        shutil.rmtree(out)
    print(f"{len(effects)} effects failed")


def test_processes_killed_at_random_moments(rooms, unbroken, tmp_path):
    """Real kills of a build with two workers: of the command alone, or of its whole group."""
    whole = faults.seconds_of(build(rooms, tmp_path / "whole", "--workers", "2"))
    rng = np.random.default_rng(5)
    for trial in range(scaled(10, 300)):
        out = tmp_path / "out"
        for _ in range(2):
            pid = faults.child(build(rooms, out, "--workers", "2"), session=True)
            time.sleep(rng.uniform(0, whole))
            (os.killpg if trial % 2 else os.kill)(pid, signal.SIGKILL)
            assert faults.wait(pid) in (0, -signal.SIGKILL)
            wait_until_free(out)
            check_valid(out)
        check_resumes(rooms, out, unbroken, "--workers", "2")
        shutil.rmtree(out)
    print(f"killed {2 * scaled(10, 300)} times")


def wait_until_free(out: pathlib.Path, seconds: float = 5) -> None:
    """Wait until the last process of a killed build is gone: workers end when they see that their parent is."""
    end = time.monotonic() + seconds
    while (out / "build.lock").exists():
        try:
            with files.locked(out):
                return
        except files.BusyError:
            assert time.monotonic() < end, "workers outlive their parent"
            time.sleep(0.005)


def test_a_process_of_its_own_killed_and_resumed(rooms, unbroken, tmp_path):
    out = tmp_path / "out"
    running = commands.start(*commands.build_arguments(rooms, "--out", str(out), "--workers", "2"))
    while not (out / "build.json").exists():
        time.sleep(0.01)
    running.kill()
    running.communicate()
    wait_until_free(out)
    outcome = commands.process(*commands.build_arguments(rooms, "--out", str(out), "--workers", "2"))
    assert outcome.code == 0, outcome.text
    assert files_of(out) == unbroken


def _export_points(dataset, out, rooms):
    recorder = faults.Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "effect", recorder)
        assert gen4d("export", dataset, "--out", out).code == 0
    return recorder.ops


def test_an_export_killed_at_every_effect_continues(rooms, unbroken, tmp_path):
    dataset, whole = rooms / "unbroken", tmp_path / "whole"
    ops = _export_points(dataset, whole, rooms)
    wanted = files_of(whole)
    for number, act in _kill_points(ops):
        out = tmp_path / "out"
        pid = faults.child(lambda out=out: gen4d("export", dataset, "--out", out).code, At(number, act))
        assert faults.wait(pid) == -signal.SIGKILL
        check_valid(out)
        assert gen4d("export", dataset, "--out", out).code == 0
        assert files_of(out) == wanted
        assert [path for path in out.rglob("*") if path.suffix in (".tmp", ".lock")] == []
        shutil.rmtree(out)


def test_a_second_build_in_the_same_folder_is_refused_at_once(rooms, unbroken, tmp_path):
    out = tmp_path / "out"
    reached, go = os.pipe(), os.pipe()

    def hold(name, path):
        os.write(reached[1], b"!")
        os.read(go[0], 1)

    pid = faults.child(build(rooms, out), At(12, hold))
    assert os.read(reached[0], 1) == b"!"
    before = files_of(out)
    start = time.monotonic()
    outcome = gen4d(*commands.build_arguments(rooms, "--out", str(out)))
    assert time.monotonic() - start < 2
    assert outcome.code == 1
    assert f"{out}: process {pid} on " in outcome.err
    assert "is building here; wait, or use another --out" in outcome.err
    assert files_of(out) == before
    os.write(go[1], b"!")
    assert faults.wait(pid) == 0
    assert files_of(out) == unbroken
    for end in (*reached, *go):
        os.close(end)


def test_a_lock_whose_holder_died_is_taken_over(rooms, unbroken, tmp_path):
    out = tmp_path / "out"
    pid = faults.child(build(rooms, out), At(12, faults.kill))
    assert faults.wait(pid) == -signal.SIGKILL
    assert f"process {pid} on" in (out / "build.lock").read_text()
    check_resumes(rooms, out, unbroken)


def test_a_lock_removed_between_opening_and_locking_is_not_held_by_two(tmp_path, monkeypatch):
    real, raced = files.fcntl.flock, []

    def flock(file, how):
        if not raced:
            raced.append((tmp_path / "build.lock").unlink())  # the holder ends just now
        real(file, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.locked(tmp_path):
        assert raced
        with pytest.raises(files.BusyError), files.locked(tmp_path):
            pass
