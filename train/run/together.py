"""Several processes of the trainer on one machine's CPU: `python -m train.run.together N COMMAND ...`.

spconv takes one core. N processes that share every batch take N. What is said is what the first one says; an error is
one line of one of them. Ctrl-C and SIGTERM end all of them after the step that is being made, which is saved. On GPUs,
and on several machines, `torchrun` starts them.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, NamedTuple

_AGREE_S = 5.0  # for the first process to say itself why all of them end
_END_S = 30.0  # then to end


class Process(NamedTuple):
    """One of them. errors: what it writes to standard error; None: shown as it comes."""

    rank: int
    running: subprocess.Popen
    errors: IO[bytes] | None


def run_together(size: int, arguments: list[str]) -> int:
    """`python -m train` with the arguments, in `size` processes. Returns the exit code of the first that failed, or
    0."""
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


def _wait(processes: list[Process]) -> int:
    """Until all have ended, or one has failed and the rest has had time to."""
    failed = None
    while failed is None and any(process.running.poll() is None for process in processes):
        time.sleep(0.1)
        failed = next((process for process in processes if process.running.poll()), None)
    if failed is None:
        return next((process.running.returncode for process in processes if process.running.returncode), 0)
    first = processes[0]
    if not _ended([first], _AGREE_S):
        print(f"process {failed.rank} of {len(processes)} failed:", file=sys.stderr)
        failed.errors.seek(0)
        sys.stderr.write(failed.errors.read().decode(errors="replace"))
    for process in processes:
        if process.running.poll() is None:
            process.running.terminate()
    _ended(processes, _END_S)
    return failed.running.returncode if failed.running.returncode > 0 else 128 - failed.running.returncode


def _ended(processes: list[Process], seconds: float) -> bool:
    """Whether all end within a time."""
    end = time.monotonic() + seconds
    while any(process.running.poll() is None for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal() or int(sys.argv[1]) < 1:
        raise SystemExit("usage: python -m train.run.together N COMMAND ...: N processes, at least 1")
    raise SystemExit(run_together(int(sys.argv[1]), sys.argv[2:]))
