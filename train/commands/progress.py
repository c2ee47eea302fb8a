"""What is said while a run goes on."""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable

EVERY_S = 30  # between two lines of a run, where they go to a file
PATIENCE = 100  # steps of a comparison below what a constant reaches, before that is said


def record_line(record, steps: int, items: str = "sequences") -> str:
    """A record of the log for eyes. items: what a batch is made of."""
    terms = "  ".join(f"{name} {value:.4f}" for name, value in record.terms.items())
    spread = " ".join(f"{name} {value:.2f}" for name, value in record.spread.items())
    timing = record.timing
    speed = f"{timing['sequences_per_s']:.2f} {items}/s, waits {timing['wait_share']:.0%}"
    parts = [f"step {record.step}/{steps}", f"loss {record.loss:.4f}", terms, f"spread {spread}" if spread else ""]
    return "  ".join(part for part in (*parts, f"lr {record.lr:.4g}", speed) if part)


def clock(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Progress:
    """One line that is refreshed on a terminal; elsewhere the first record, one every half minute, and the last.

    Both end in the time since the start of this command and the time that is left at the pace of the last records.
    """

    def __init__(self, run, items: str, out=None, now: Callable[[], float] = time.monotonic):
        """run: the settings of the run; items: what its batches are made of."""
        self._steps, self._batch, self._items = run.steps, run.batch, items
        self._out, self._now = out or sys.stdout, now
        self._start, self._said, self._pace, self._refreshed = now(), None, 0.0, False

    def see(self, record) -> None:
        """Look at a record of the log."""
        pace = self._batch / record.timing["sequences_per_s"]
        self._pace = 0.8 * self._pace + 0.2 * pace if self._pace else pace
        now, last = self._now(), record.step >= self._steps
        left = clock(self._pace * (self._steps - record.step))
        line = f"{record_line(record, self._steps, self._items)}  {clock(now - self._start)}, {left} left"
        if self._out.isatty():
            width = shutil.get_terminal_size().columns - 1
            self._put(f"\r{line[:width].ljust(width)}", end="\n" if last else "")
            self._refreshed = not last
        elif last or self._said is None or now - self._said >= EVERY_S:
            self._said = now
            self._put(line)

    def say(self, text: str) -> None:
        """A line of its own."""
        self._put(f"\n{text}" if self._refreshed else text)
        self._refreshed = False

    def _put(self, text: str, end: str = "\n") -> None:
        with contextlib.suppress(OSError):  # a terminal that hung up must not cost the step that is being made
            self._out.write(text + end)
            self._out.flush()


def draw_curves(run, step: int, running) -> None:
    """<run>/curves.png, of all that was logged so far, at every checkpoint and at the end."""
    if step % running.checkpoint_steps == 0 or step == running.steps:
        from train.study import compare

        compare.draw([compare.read_run(run)], run / "curves.png")


class CollapseWatch:
    """Warns of features that become one, at most once in 100 steps."""

    def __init__(self, remedy: str):
        """remedy: what the method can do about it."""
        self._remedy, self._quiet_until = remedy, 0

    def see(self, record, say) -> None:
        """Look at a record of the log; `say` prints a line."""
        low = [f"{name} {value:.2f}" for name, value in record.spread.items() if value < 0.6]
        if low and record.step >= self._quiet_until:
            self._quiet_until = record.step + 100
            say(
                f"warning: step {record.step}: the spread of features is {', '.join(low)} (1 = even, 0 = collapsed); "
                f"below 0.6 they transfer badly: {self._remedy}"
            )


class ConstantWatch:
    """Warns of a comparison that has stayed below what a constant prediction would reach, then stays silent for as
    long again as it has been so."""

    def __init__(self, remedy: str):
        """remedy: what the method can do about it."""
        self._remedy = remedy
        self._since: dict[str, int] = {}
        self._quiet_until: dict[str, int] = {}

    def see(self, record, say) -> None:
        """Look at a record of the log; `say` prints a line."""
        for name in sorted({key.partition("/")[0] for key in record.fit}):
            reached, constant = record.fit[f"{name}/cos"], record.fit[f"{name}/constant"]
            if reached >= constant:
                self._since.pop(name, None)
                continue
            since = self._since.setdefault(name, record.step)
            if record.step - since >= PATIENCE and record.step >= self._quiet_until.get(name, 0):
                self._quiet_until[name] = 2 * record.step - since
                say(
                    f"warning: step {record.step}: {name} has a cosine of {reached:.2f}, a constant vector would have "
                    f"{constant:.2f}, and this has been so since step {since}: the term is not being learned; "
                    f"{self._remedy}"
                )
