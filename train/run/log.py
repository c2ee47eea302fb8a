"""What a run writes down about every step: log.jsonl for programs, TensorBoard for eyes.

A line of log.jsonl holds what the step computed, and under `timing` what the machine took for it: without `timing`, the
logs of two runs that computed the same are equal, however often either was stopped and resumed.
"""

import json
import pathlib
import resource
import time
from typing import NamedTuple

import torch
from torch.utils.tensorboard import SummaryWriter

from gen4d import files


class Record(NamedTuple):
    """One step. `step` counts updates made, this one included."""

    step: int
    loss: float
    terms: dict[str, float]
    spread: dict[str, float]
    fit: dict[str, float]  # "<comparison>/<figure>": how well predictions meet their targets
    lr: float
    gradient: float | None  # norm over all parameters; None where half precision overflowed
    skipped: int  # updates left out so far because half-precision gradients overflowed
    timing: dict[str, float]


class Log:
    """The log of a run that goes on after `step`. Later lines, of steps that will be made again, are dropped."""

    def __init__(self, run: pathlib.Path, step: int, leads: bool = True):
        """leads: whether this process writes at all."""
        self._file = self._board = None
        if not leads:
            return
        files.make_folder(run)
        self.path = run / "log.jsonl"
        kept = [line for line in read_lines(self.path) if line["step"] <= step]
        files.write(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)  # first: it writes at once
        self._file = open(self.path, "a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Append a record; it is in the file when this returns."""
        if not self._file:
            return
        self._file.write(json.dumps(record._asdict()) + "\n")
        self._file.flush()
        for name, value in _flat(record._asdict()):
            self._board.add_scalar(name, value, record.step)

    def close(self) -> None:
        """Close both files."""
        if self._file:
            try:
                self._file.close()
            finally:
                self._board.close()


def read_lines(path: pathlib.Path) -> list[dict]:
    """The whole lines of a log; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n"):
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _flat(values: dict, prefix: str = "") -> list[tuple[str, float]]:
    """(path, number) of every number in nested dicts."""
    flat = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        flat += _flat(value, f"{path}/") if isinstance(value, dict) else [(path, value)]
    return [(path, value) for path, value in flat if path != "step" and value is not None]


class Meter:
    """Time since the last record: all of it, and the part spent waiting for data."""

    def __init__(self, device: torch.device):
        self._device = device
        self._start, self._waited, self._sequences = time.perf_counter(), 0.0, 0

    def begin(self) -> None:
        """Time counts from here on."""
        self._start = time.perf_counter()

    def next_of(self, batches):
        """The next batch; the wait for it counts."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def count(self, sequences: int) -> None:
        """Sequences that a step used, over all processes."""
        self._sequences += sequences

    def take(self) -> dict[str, float]:
        """Figures since the last call, and a new start."""
        spent = time.perf_counter() - self._start
        figures = {
            "seconds": round(spent, 4),
            "wait_share": round(self._waited / spent, 4),
            "sequences_per_s": round(self._sequences / spent, 4),
            "memory_gb": round(peak_bytes(self._device) / 1e9, 3),
        }
        self._start, self._waited, self._sequences = time.perf_counter(), 0.0, 0
        return figures


def peak_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU by torch, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
