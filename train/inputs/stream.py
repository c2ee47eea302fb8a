"""Threads that make batches ahead of the training step.

Threads, not processes: the kernels release the GIL and write into buffers that are kept, so a batch is never copied or
pickled; and an error in a worker is an exception at the next batch, not a hang (README, design notes: measurements).
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from train.inputs.order import BatchKey, Order, Share, batch_keys
from train.inputs.voxels import Allocate, new_tensor


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

    def make(self, key: BatchKey, memory):
        """The batch of a key, which may lie in `memory`."""
        raise NotImplementedError

    def batches(self, first_step: int) -> Iterator:
        """Batches from a step on, `share.accumulate` a step. Each is valid until the next one is asked for.

        Raises what reading or making a batch raised, when its turn comes.
        """
        todo = self.keys_from(first_step)
        if not self.workers:
            memory = self.memory(self.share.part_size, self._allocate)
            while True:
                yield self.make(next(todo), memory)
        yield from self._prefetched(todo)

    def keys_from(self, first_step: int) -> Iterator[BatchKey]:
        """What the batches from a step on are made of."""
        return batch_keys(self.order, self.share, self.seed, first_step)

    def sample(self, size: int):
        """The batch of the first `size` slots of step 0, in memory of its own."""
        key = next(batch_keys(self.order, Share(size), self.seed, 0))
        return self.make(key, self.memory(size))

    def _prefetched(self, todo: Iterator[BatchKey]) -> Iterator:
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


def _pinned_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Page-locked memory, from which copies to a GPU run at full speed."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)
