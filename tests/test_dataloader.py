"""PyTorch's own DataLoader over a data set: no hang and the right sequences, whatever the start method of its workers.

Each run is watched: a worker that does not answer, or a loader that does not end, fails it. What is read goes through
the compiled kernels, in workers forked from a process that ran them, or not, or started afresh.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import signal
import warnings

import pytest

from gen4d.exports.hdf5 import export_hdf5
from gen4d.shards import open_dataset
from tests.faults import SOAK, scaled
from tests.makers.builds import small_build

torch = pytest.importorskip("torch", reason="the loader is torch's")
from torch.utils.data import DataLoader  # noqa: E402

METHODS, TOUCHED, KINDS = ("fork", "forkserver", "spawn"), (False, True), ("zarr", "hdf5")
ANSWER_S, END_S = 30, 60


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataloader")
    built = small_build(folder)
    list(export_hdf5(open_dataset(built), folder / "hdf5"))
    return {"zarr": built, "hdf5": folder / "hdf5"}


@pytest.fixture(scope="module")
def expected(folders):
    dataset = open_dataset(folders["zarr"])
    return [fingerprint(dataset[i]) for i in range(len(dataset))]


def fingerprint(sequence) -> str:
    """Hash of all frames and of a pair list: what kernels make of a sequence."""
    digest = hashlib.sha256()
    for frame in sequence.frames:
        digest.update(frame.point.tobytes() + frame.point_index.tobytes())
    for rows in sequence.correspondences(0, sequence.t - 1):
        digest.update(rows.tobytes())
    return digest.hexdigest()


class Fingerprints(torch.utils.data.Dataset):
    """A data set as torch wants it."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        return fingerprint(self.dataset[i])


@contextlib.contextmanager
def watchdog(seconds: float):
    """Raise where the block takes longer."""

    def bark(number, frame):
        raise AssertionError(f"still not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def load(dataset, method: str, workers: int) -> list[str]:
    """One epoch, in order."""
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    more = {"multiprocessing_context": context, "timeout": ANSWER_S} if workers else {}
    with watchdog(END_S), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores
        loader = DataLoader(Fingerprints(dataset), batch_size=2, num_workers=workers, collate_fn=list, **more)
        return [item for batch in loader for item in batch]


def runs() -> list[tuple]:
    """24 runs, few of them with workers that import everything anew; in the long version 200 and more."""
    if SOAK:
        product = list(itertools.product(METHODS, TOUCHED, KINDS, (0, 1, 4)))
        return product * -(-scaled(0, 200) // len(product))
    served = [("forkserver", touched, kind, 1 if kind == "hdf5" else 4) for touched in TOUCHED for kind in KINDS]
    served += [("forkserver", touched, "zarr", 1) for touched in TOUCHED]
    spawned = itertools.product(["spawn"], TOUCHED, ["zarr"], [1])
    return [*itertools.product(["fork"], TOUCHED, KINDS, (0, 1, 2, 4)), *served, *spawned]


def test_no_loader_hangs_and_every_one_gives_the_sequences(folders, expected):
    done = runs()
    for method, touched, kind, workers in done:
        dataset = open_dataset(folders[kind])
        if touched:
            assert [fingerprint(dataset[i]) for i in range(len(dataset))] == expected
        assert load(dataset, method, workers) == expected, (method, touched, kind, workers)
        assert multiprocessing.active_children() == []
    assert len(done) >= 24
    print(f"{len(done)} loaders, none hung")


@pytest.mark.parametrize("touched", TOUCHED)
def test_a_loader_that_is_left_early_and_one_whose_workers_stay(folders, expected, touched):
    dataset = open_dataset(folders["zarr"])
    if touched:
        fingerprint(dataset[0])
    context = multiprocessing.get_context("fork")
    with watchdog(END_S):
        loader = DataLoader(Fingerprints(dataset), num_workers=2, multiprocessing_context=context, timeout=ANSWER_S)
        assert next(iter(loader)) == expected[:1]
        del loader
        stay = DataLoader(
            Fingerprints(dataset),
            num_workers=2,
            multiprocessing_context=context,
            timeout=ANSWER_S,
            persistent_workers=True,
            collate_fn=list,
        )
        for _ in range(2):
            assert [item for batch in stay for item in batch] == expected
        del stay
    assert multiprocessing.active_children() == []


def test_the_watchdog_sees_a_hang(monkeypatch):
    with pytest.raises(AssertionError, match=r"still not done after 0\.05 s"), watchdog(0.05):
        signal.pause()
