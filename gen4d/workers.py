"""Work spread over processes that never outlive the one that started them, and end at once when it is told to stop."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WorkerError(ValueError):
    """A worker process died."""


def run(work: Callable, jobs: Sequence, processes: int, start: str = "") -> Iterator[tuple[int, object]]:
    """Yield (index of the job, work(job)) as they are done. start: fork, forkserver or spawn, by default the fastest
    that is safe for gen4d's own work; torch needs spawn once it has run backward, or CUDA, in this process.

    Raises what a job raises, when the other workers have finished what they have in hand, and WorkerError.
    """
    context = multiprocessing.get_context(start or ("fork" if sys.platform == "linux" else "spawn"))
    others = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    hurry = True  # after a signal nobody waits for the jobs in hand
    try:
        with _deaf():  # until they have their own, workers have our handlers, which are not meant for them
            futures = [pool.submit(work, job) for job in jobs]
        yield from done(futures)
        hurry = False
    except (OSError, ValueError):
        hurry = False
        raise
    except BrokenProcessPool:
        raise WorkerError("a worker process died, out of memory or stopped from outside: use fewer --workers") from None
    finally:
        if hurry:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def done(futures: Sequence[concurrent.futures.Future]) -> Iterator[tuple[int, object]]:
    """Yield (index, result) of futures as they are done. Raises what they raise."""
    index = {future: i for i, future in enumerate(futures)}
    for future in concurrent.futures.as_completed(index):
        yield index[future], future.result()


@contextlib.contextmanager
def _deaf():
    """Signals that arrive meanwhile are handled afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """A worker ends with its parent, however that ends; Ctrl-C, which reaches the whole group, is the parent's."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup has one ignored
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
