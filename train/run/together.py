"""Several processes of the trainer on one machine's CPU.

spconv takes one core. N processes that share every batch take N. What is said is what the first one says; an error is
told once. Ctrl-C and SIGTERM end all of them after the step that is being made, which is saved. On GPUs, and on several
machines, `torchrun` starts them.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, NamedTuple

from train.errors import LEFT_ALONE

_AGREE_S = 5.0  # for the first process to say itself why all of them end
_END_S = 30.0  # then to end


class Process(NamedTuple):
    """One of them. errors: what it writes to standard error; None: shown as it comes."""

    rank: int
    running: subprocess.Popen
    errors: IO[bytes] | None


class Outcome(NamedTuple):
    """Exit code of the first process that failed, or 0, and what it said, where it was not shown as it came."""

    code: int
    said: str = ""


def run_together(size: int, arguments: list[str]) -> Outcome:
    """`python -m train` with the arguments, in `size` processes."""
    port = _free_port()
    processes = [_start(rank, size, port, arguments) for rank in range(size)]
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),  # a terminal sends it to all of them
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: processes[0].running.terminate()),
    }
    try:
        return _wait(processes)
    finally:
        for process in processes:
            if process.running.poll() is None:
                process.running.kill()
            process.running.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(rank: int, size: int, port: int, arguments: list[str]) -> Process:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    errors = tempfile.TemporaryFile() if rank else None
    output = subprocess.DEVNULL if rank else None
    environment = os.environ | {name: str(value) for name, value in place.items()}
    command = [sys.executable, "-m", "train", *arguments]
    return Process(rank, subprocess.Popen(command, env=environment, stdout=output, stderr=errors), errors)


def _wait(processes: list[Process]) -> Outcome:
    """Until all have ended, or one has failed and the rest has had time to."""
    failed = None
    while failed is None and any(process.running.poll() is None for process in processes):
        time.sleep(0.1)
        failed = next((process for process in processes if process.running.poll()), None)
    if failed is None:
        return Outcome(next((process.running.returncode for process in processes if process.running.returncode), 0))
    said = ""
    if not _ended(processes[:1], _AGREE_S) or processes[0].running.returncode == LEFT_ALONE:
        _ended(processes, 1.0)  # those that failed with it
        others = [one for one in processes[1:] if one.running.poll() not in (None, 0, LEFT_ALONE)]
        failed = others[0] if others else failed
        if failed.errors:
            failed.errors.seek(0)
            text = failed.errors.read().decode(errors="replace")
            said = f"process {failed.rank} of {len(processes)} failed:\n{text}"
    for process in processes:
        if process.running.poll() is None:
            process.running.terminate()
    _ended(processes, _END_S)
    code = failed.running.returncode
    return Outcome(code if code > 0 else 128 - code, said)


def _ended(processes: list[Process], seconds: float) -> bool:
    """Whether all end within a time."""
    end = time.monotonic() + seconds
    while any(process.running.poll() is None for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
