"""The order in which sequences are seen, and threads that make batches ahead of the training step.

The order is one global list, the same for any number of processes: epoch after epoch, each a permutation keyed by
(seed, epoch). Position p belongs to step p // batch and slot p % batch; a process takes its slots of every batch, in
`accumulate` parts. So any step can be made anywhere, and resuming needs the step's number alone.

Threads, not processes: the kernels release the GIL and write into buffers that are kept, so a batch is never copied or
pickled; and an error in a worker is an exception at the next batch, not a hang (README, design notes: measurements).
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from train.batch import (
    Allocate,
    Batch,
    BatchBuffer,
    Recipe,
    Scratch,
    keyed_generator,
    make_batch,
    new_scratch,
    new_tensor,
)


class LoaderError(ValueError):
    """The data set cannot be dealt out as asked."""


class Share(NamedTuple):
    """The part of every global batch that one process takes."""

    batch: int  # sequences of a step, over all processes
    rank: int = 0
    world: int = 1
    accumulate: int = 1  # parts in which a process takes its share, one after another

    def slots(self, part: int) -> range:
        """Slots of the global batch in one part of this process."""
        size = self.part_size
        first = (self.rank * self.accumulate + part) * size
        return range(first, first + size)

    @property
    def part_size(self) -> int:
        """Sequences in one forward pass. Raises LoaderError where the batch does not divide."""
        size, rest = divmod(self.batch, self.world * self.accumulate)
        if rest or not size:
            split = f"{self.world} processes x {self.accumulate} parts"
            raise LoaderError(f"a batch of {self.batch} does not divide into {split}: set batch or accumulate")
        return size


class Order:
    """The endless list of sequence numbers: every sequence once an epoch, epochs one after another.

    Scans are shuffled, then the sequences within each run of `block` scans: neighbours in the list share a few dozen
    scans, whose clouds the reader keeps, and a batch still mixes scans.
    """

    def __init__(self, scan_of: np.ndarray, seed: int, block: int = 32) -> None:
        """scan_of (n,) int: the scan of each sequence, sequences of one scan being neighbours."""
        if not len(scan_of):
            raise LoaderError("the data set has no sequence: build it with more scans, or look at its rejections")
        self.length = len(scan_of)
        starts = np.flatnonzero(np.diff(scan_of, prepend=scan_of[0] - 1))
        self._scans = np.split(np.arange(self.length), starts[1:])
        self._seed, self._block = seed, block
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def _epoch(self, number: int) -> np.ndarray:
        """(n,) int64 permutation of one epoch."""
        rng = np.random.Generator(np.random.Philox(key=[self._seed, 1], counter=[0, 0, 0, number]))
        scans = [self._scans[s] for s in rng.permutation(len(self._scans))]
        runs = [np.concatenate(scans[i : i + self._block]) for i in range(0, len(scans), self._block)]
        return np.concatenate([rng.permutation(run) for run in runs])

    def sequence_at(self, position: int) -> int:
        """Sequence number at a place of the endless list."""
        epoch, place = divmod(position, self.length)
        return int(self.epoch(epoch)[place])


class Job(NamedTuple):
    """All that one batch depends on."""

    sequence: tuple[int, ...]
    key: tuple[tuple[int, int, int], ...]  # (seed, step, slot) of each


def jobs(order: Order, share: Share, seed: int, first_step: int) -> Iterator[Job]:
    """The batches of one process from a step on, without end."""
    step = first_step
    while True:
        for part in range(share.accumulate):
            slots = share.slots(part)
            sequence = tuple(order.sequence_at(step * share.batch + slot) for slot in slots)
            yield Job(sequence, tuple((seed, step, slot) for slot in slots))
        step += 1


class Stream:
    """Makes batches of anything that has numbers; `batches` may be started at any step, again and again."""

    def __init__(self, order: Order, share: Share, seed: int, workers: int = 1) -> None:
        """workers: threads; 0 makes each batch when asked. What is dealt out, and how, is left to the two methods."""
        self.order, self.share, self.seed, self.workers = order, share, seed, workers
        self._allocate = _pinned_tensor if torch.cuda.is_available() else new_tensor
        share.slots(0)

    def memory(self, size: int, allocate: Allocate = new_tensor):
        """Buffers and scratch space for one batch of `size`."""
        raise NotImplementedError

    def make(self, job: Job, memory):
        """The batch of a job, which may lie in `memory`."""
        raise NotImplementedError

    def batches(self, first_step: int) -> Iterator:
        """Batches from a step on, `share.accumulate` a step. Each is valid until the next one is asked for.

        Raises what reading or making a batch raised, when its turn comes.
        """
        todo = self.jobs_from(first_step)
        if not self.workers:
            memory = self.memory(self.share.part_size, self._allocate)
            while True:
                yield self.make(next(todo), memory)
        yield from self._prefetched(todo)

    def jobs_from(self, first_step: int) -> Iterator[Job]:
        """What the batches from a step on are made of."""
        return jobs(self.order, self.share, self.seed, first_step)

    def sample(self, size: int):
        """The batch of the first `size` slots of step 0, in memory of its own."""
        job = next(jobs(self.order, self.share._replace(batch=size, rank=0, world=1, accumulate=1), self.seed, 0))
        return self.make(job, self.memory(size))

    def _prefetched(self, todo: Iterator[Job]) -> Iterator:
        """Threads fill a ring of buffers, one more than there are threads: that one is being trained on."""
        free = deque(self.memory(self.share.part_size, self._allocate) for _ in range(self.workers + 1))
        ahead: deque[tuple[Future, object]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        try:
            while True:
                while free:
                    memory = free.popleft()
                    ahead.append((pool.submit(self.make, next(todo), memory), memory))
                future, memory = ahead.popleft()
                yield future.result()
                free.append(memory)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class Loader(Stream):
    """Batches of a data set's sequences."""

    def __init__(self, dataset, order: Order, recipe: Recipe, share: Share, seed: int, workers: int = 1) -> None:
        """dataset: as `gen4d.shards.open_dataset` gives it."""
        super().__init__(order, share, seed, workers)
        self.dataset, self.recipe = dataset, recipe
        self.t = dataset[order.sequence_at(0)].t

    def memory(self, size: int, allocate: Allocate = new_tensor) -> tuple[BatchBuffer, Scratch]:
        """A batch's buffer and a worker's grids."""
        return BatchBuffer(size, self.t, self.recipe, allocate), new_scratch()

    def make(self, job: Job, memory: tuple[BatchBuffer, Scratch]) -> Batch:
        """Reads the sequences of a job and makes them a batch."""
        sequences = [self.dataset[number] for number in job.sequence]
        return make_batch(sequences, [keyed_generator(*key) for key in job.key], *memory)


def _pinned_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Page-locked memory, from which copies to a GPU run at full speed."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)
