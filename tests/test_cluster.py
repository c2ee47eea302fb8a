"""Builds by a Dask cluster: a real scheduler and real workers, processes on this machine, some of which are killed."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from gen4d import files
from gen4d.building import cluster
from tests.equal import files_of
from tests.makers import commands
from tests.makers.commands import gen4d

ROOMS = 6
LONGER = ("--sequences", "40")
SOON_S = 30

pytest.importorskip("distributed", reason="the extra dask is not installed")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return commands.write_rooms(tmp_path_factory.mktemp("rooms"), ROOMS, points=2000)


@pytest.fixture(scope="module")
def whole(rooms):
    return files_of(commands.build(rooms, *LONGER, out="whole"))


class Cluster:
    """A scheduler and workers, each a process with a session and a folder of its own."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.processes = folder, []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", self.address.rpartition(":")[2])
        self.wait_for("Scheduler at")

    def start(self, kind: str, *options: str, **changes: str) -> subprocess.Popen:
        number = len(self.processes)
        command = [sys.executable, "-m", "dask", kind, *options, "--no-dashboard"]
        environment = os.environ | {"PYTHONPATH": str(commands.ROOT)} | changes
        with open(self.log(number), "w") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def worker(self, **changes: str) -> subprocess.Popen:
        options = ("--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder / str(len(self.processes))))
        return self.start("worker", self.address, *options, **changes)

    def log(self, number: int) -> pathlib.Path:
        return self.folder / f"{number}.log"

    def wait_for(self, text: str, count: int = 1, number: int = 0) -> None:
        end = time.monotonic() + SOON_S
        while self.log(number).read_text().count(text) < count:
            assert time.monotonic() < end, self.log(number).read_text()
            time.sleep(0.02)

    def end(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A cluster of two workers. No process of it is left afterwards."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for _ in range(2):
            running.worker()
        for number in (1, 2):
            running.wait_for("Registered to", number=number)
        yield running
    finally:
        running.end()
    for process in running.processes:
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def arguments(rooms, out, address, *more):
    return commands.build_arguments(rooms, "--out", str(out), *LONGER, "--scheduler", address, *more)


def wait_for_shards(out, count, running):
    while len(list(out.glob("shards/*.json"))) < count:
        assert running.poll() is None, running.communicate()
        time.sleep(0.001)


def test_a_cluster_builds_the_same_bytes_and_says_nothing_of_its_own(rooms, whole, two, tmp_path, monkeypatch):
    """Also with folders relative to this process, where the workers are not."""
    monkeypatch.chdir(rooms)
    places = ("--scans", "scans", "--shapes", "shapes", "--out", os.path.relpath(tmp_path / "out", rooms))
    outcome = commands.process("build", *places, *commands.LIGHT, *LONGER, "--scheduler", two.address)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("building 6 scans in 6 shards into ") and lines[-1].startswith("done in ")
    assert "distributed" not in outcome.out
    assert files_of(tmp_path / "out") == whole


def test_a_part_may_be_built_by_a_cluster(rooms, whole, two, tmp_path):
    out = tmp_path / "out"
    assert gen4d(*arguments(rooms, out, two.address, "--part", "2/2")).code == 0
    assert gen4d(*commands.build_arguments(rooms, "--out", str(out), *LONGER, "--part", "1/2")).code == 0
    assert gen4d("merge", out).code == 0
    assert files_of(out) == whole


def test_an_interrupt_ends_a_build_by_a_cluster_soon_and_it_continues(rooms, whole, two, tmp_path):
    out = tmp_path / "out"
    running = commands.start(*arguments(rooms, out, two.address))
    wait_for_shards(out, 1, running)
    start = time.monotonic()
    running.send_signal(signal.SIGINT)
    text, err = running.communicate(timeout=10)
    assert time.monotonic() - start < 10
    assert running.returncode == 130
    assert "the same command continues" in err.splitlines()[-1] and "Traceback" not in text + err
    with files.locked(out):
        pass
    outcome = gen4d(*arguments(rooms, out, two.address))
    assert outcome.code == 0, outcome.text
    wait_until_quiet(out)
    assert files_of(out) == whole


def wait_until_quiet(out):
    """What a worker had in hand when its build was stopped may end after the next build."""
    end = time.monotonic() + SOON_S
    while any(out.rglob("*.tmp")):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_other_versions_on_a_worker_are_refused_with_the_difference(rooms, two, tmp_path, monkeypatch):
    """It is this process that has another version: it comes to the same."""
    monkeypatch.setattr(cluster, "__version__", "9.9.9")
    monkeypatch.setattr(cluster, "versions", lambda: {"python": "3.99", "numpy": "1.0"})
    outcome = gen4d(*arguments(rooms, tmp_path / "out", two.address))
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 1
    for part in (
        "Error: worker tcp://127.0.0.1:",
        "gen4d 0.",
        ", not 9.9.9;",
        "not 3.99",
        "install gen4d with the same",
    ):
        assert part in outcome.err
    assert not (tmp_path / "out/dataset.json").exists()
    assert [thread.name for thread in threading.enumerate() if "loop" in thread.name.lower()] == []


def test_a_worker_that_comes_later_is_checked_too():
    with pytest.raises(
        cluster.ClusterError, match=r"^worker on .* has numpy .*, not 0\.1: install gen4d with the same"
    ):
        cluster._checked(print, cluster._here() | {"numpy": "0.1"}, None, None)


def test_a_worker_without_gen4d_is_refused(rooms, two, tmp_path):
    hiding = tmp_path / "gen4d.py"  # one that is installed
    hiding.write_text("raise ModuleNotFoundError(\"No module named 'gen4d'\")")
    stranger = two.worker(PYTHONPATH=str(tmp_path))
    try:
        two.wait_for("Registered to", number=len(two.processes) - 1)
        outcome = gen4d(*arguments(rooms, tmp_path / "out", two.address))
        assert outcome.code == 1 and len(outcome.err.splitlines()) == 1, outcome.err
        assert "No module named 'gen4d'" in outcome.err and "install gen4d with the same packages" in outcome.err
    finally:
        stranger.kill()
        two.wait_for("Remove worker")


def test_a_worker_killed_in_the_middle_does_not_show_in_the_result(rooms, whole, two, tmp_path):
    out = tmp_path / "out"
    running = commands.start(*arguments(rooms, out, two.address))
    wait_for_shards(out, 2, running)
    os.killpg(two.processes[1].pid, signal.SIGKILL)
    before = len(list(out.glob("shards/*.json")))
    text, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, ""), text
    assert before < ROOMS
    assert files_of(out) == whole
    assert gen4d("verify", out).code == 0


def test_a_scheduler_killed_in_the_middle_is_said_and_the_build_continues(rooms, whole, tmp_path):
    running = Cluster(tmp_path)
    try:
        running.worker()
        out = tmp_path / "out"
        build = commands.start(*arguments(rooms, out, running.address))
        wait_for_shards(out, 1, build)
        running.scheduler.kill()
        _, err = build.communicate(timeout=60)
        wait_until_quiet(out)
    finally:
        running.end()
    assert build.returncode == 1
    assert err.splitlines() == [
        f"Error: --scheduler {running.address}: the scheduler is gone; the same command continues with another one"
    ]
    assert gen4d(*commands.build_arguments(rooms, "--out", str(out), *LONGER)).code == 0
    assert files_of(out) == whole


def test_no_scheduler_no_address_and_no_dask_are_said_in_a_line_each(rooms, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_S", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        for given, wanted in [
            (address, "no answer within 1 s"),
            ("host", "not an address"),
            ("tcp://host", "not an address"),
        ]:
            outcome = gen4d(*arguments(rooms, tmp_path / "out", given))
            assert outcome.code == 1 and len(outcome.err.splitlines()) == 1, outcome.err
            assert f"Error: --scheduler {given}: {wanted}: give the address that `dask scheduler`" in outcome.err
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = gen4d(*arguments(rooms, tmp_path / "out", address))
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        f"Error: --scheduler {address}: dask.distributed is not installed: from a clone of gen4d, pip install '.[dask]'"
    ]


def test_workers_and_a_scheduler_are_one_too_many(rooms, tmp_path):
    outcome = gen4d(*arguments(rooms, tmp_path / "out", "tcp://127.0.0.1:1", "--workers", "2"))
    assert outcome.code == 2 and "--workers and --scheduler" in outcome.err
