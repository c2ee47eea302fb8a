"""Reading what somebody made to do harm, in a process with little memory."""

import os
import pathlib
import resource
import time

from gen4d.shards import open_dataset
from gen4d.shards.format import FormatError
from tests import faults
from tests.makers.commands import gen4d

MIB = 1 << 20
MEMORY = 64 * MIB  # beyond what the process has when it starts to read
SECONDS = 2  # for all of it; a refusal takes milliseconds on an idle machine


def check_refused(folder: pathlib.Path, part: str) -> None:
    """Read everything in a process with little memory: one FormatError that names the file and says what is wrong."""
    message = folder.parent / "message"
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    def use():
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        start = time.monotonic()
        try:
            for sequence in (dataset := open_dataset(folder)):
                for i in range(sequence.t):
                    sequence.frame(i)
            for i in range(len(dataset)):
                dataset.floor_plan(i)
        except FormatError as error:
            message.write_text(str(error))
        return 0 if time.monotonic() - start < SECONDS else 2

    assert faults.wait(faults.child(use)) == 0
    assert message.exists(), "it was read"
    assert part in message.read_text()
    assert str(folder) in message.read_text()
    outcome = gen4d("verify", folder)
    assert outcome.code == 1
    assert "Traceback" not in outcome.text
    assert "memory" not in outcome.text
    assert all(len(line) < 1000 for line in outcome.err.splitlines())
