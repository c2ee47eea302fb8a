"""Work spread over the workers of a running Dask cluster: the scheduler gives a job of a worker that dies to another.

Dask is an optional dependency, imported when a cluster is asked for.
"""

import concurrent.futures
import contextlib
import logging
import re
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence

from gen4d import __version__, workers
from gen4d.config import versions

_CONNECT_S = 5
_FIRST_WORKER_S = 30
_CLOSE_S = 3
_ADDRESS = re.compile(r"([a-z]+://)?[^\s/]+:\d+")
_SAME = "install gen4d with the same packages and Python on every worker's machine, and the scheduler's"
_INSTALL = "from a clone of gen4d, pip install '.[dask]'"


class ClusterError(ValueError):
    """The cluster cannot be used, or was lost; the message names the scheduler, what is wrong and the remedy."""


def run(work: Callable, common: object, jobs: Sequence, address: str) -> Iterator[tuple[int, object]]:
    """Yield (index of the job, work(common, job)) as they are done by the cluster whose scheduler is at the address.

    `common` is sent once. Raises what a job raises, and ClusterError. Jobs that run when this is left run on to their
    end; those that wait are dropped.
    """
    with _connected(address) as client:
        _check_workers(client, address)
        pool, shared = client.get_executor(pure=False), client.submit(_same, common, pure=False)
        try:
            yield from workers.done([pool.submit(_checked, work, _here(), shared, job) for job in jobs])
        except _failures() as error:
            raise ClusterError(f"--scheduler {address}: {_explain(error)}") from None
        finally:
            pool.shutdown(wait=False)


@contextlib.contextmanager
def _connected(address: str):
    """A client of the scheduler, which says nothing of its own."""
    try:
        import distributed
    except ImportError:
        raise ClusterError(f"--scheduler {address}: dask.distributed is not installed: {_INSTALL}") from None
    # An interrupt closes streams under tasks of its loop, which now and then say so, with tracebacks, by these loggers.
    loggers = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    for name in (*loggers, "asyncio", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    remedy = "give the address that `dask scheduler` printed, tcp://host:8786"
    if not _ADDRESS.fullmatch(address):
        raise ClusterError(f"--scheduler {address}: not an address: {remedy}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
        except OSError:
            raise ClusterError(f"--scheduler {address}: no answer within {_CONNECT_S} s: {remedy}") from None
        try:
            yield client
        finally:
            client.close(timeout=_CLOSE_S)


def _check_workers(client, address: str) -> None:
    """Wait for a first worker; refuse workers that might write other bytes. `_checked` sees those that come later."""
    try:
        client.wait_for_workers(1, timeout=_FIRST_WORKER_S)
    except TimeoutError:
        raise ClusterError(
            f"--scheduler {address}: no worker within {_FIRST_WORKER_S} s: start some with `dask worker {address}`"
        ) from None
    for name, found in sorted(client.run(_here, on_error="return").items()):
        if isinstance(found, BaseException):
            raise ClusterError(f"worker {name}: {found}: {_SAME}")
        _compare(name, found)


def _here() -> dict[str, str]:
    """Versions of what a shard's bytes depend on, in this process."""
    return {"gen4d": __version__} | versions()


def _compare(name: str, found: dict[str, str], wanted: dict[str, str] | None = None) -> None:
    wanted = wanted or _here()
    other = [f"{key} {found.get(key)}, not {wanted[key]}" for key in wanted if found.get(key) != wanted[key]]
    if other:
        raise ClusterError(f"worker {name} has {'; '.join(other)}: {_SAME}")


def _same(value: object) -> object:
    return value


def _checked(work: Callable, wanted: dict[str, str], common: object, job: object) -> object:
    """Runs on a worker."""
    _compare(f"on {socket.gethostname()}", _here(), wanted)
    return work(common, job)


def _failures() -> tuple[type[BaseException], ...]:
    """What futures raise when the cluster fails, not the work."""
    from distributed.scheduler import KilledWorker

    return (concurrent.futures.CancelledError, KilledWorker, RuntimeError, ImportError)


def _explain(error: BaseException) -> str:
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ImportError):
        return f"{cause}: {_SAME}"
    if isinstance(error, RuntimeError):
        raise error  # not of a cluster's making
    if isinstance(error, concurrent.futures.CancelledError):
        return "the scheduler is gone; the same command continues with another one"
    return "a shard's workers died repeatedly, probably out of memory; the same command continues"
