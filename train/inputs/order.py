"""The order in which things are seen: one global list, the same for any number of processes.

Epoch after epoch, each a permutation keyed by (seed, epoch). Position p belongs to step p // batch and slot p % batch;
a process takes its slots of every batch, in `accumulate` parts. So any step can be made anywhere, and resuming needs
the step's number alone. Randomness of a batch is a function of (seed, step, slot in the global batch) alone.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from train.errors import Refused


class LoaderError(Refused):
    """The data cannot be dealt out as asked."""


def keyed_generator(seed: int, step: int, slot: int) -> np.random.Generator:
    """The random stream of one slot of the global batch at one step, independent of all others."""
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, slot, step]))


class Share(NamedTuple):
    """The part of every global batch that one process takes."""

    batch: int  # sequences of a step, over all processes
    rank: int = 0
    world: int = 1
    accumulate: int = 1  # parts in which a process takes its share, one after another
    least: int = 1  # sequences that one forward pass needs: two where norms are over whole clouds

    def slots(self, part: int) -> range:
        """Slots of the global batch in one part of this process."""
        size = self.part_size
        first = (self.rank * self.accumulate + part) * size
        return range(first, first + size)

    @property
    def part_size(self) -> int:
        """Sequences in one forward pass. Raises LoaderError where the batch does not divide, or leaves too
        few."""
        size, rest = divmod(self.batch, self.world * self.accumulate)
        if rest or not size:
            parts = self.world * self.accumulate
            split = f"{self.world} processes x {self.accumulate} parts"
            below, above = self.batch // parts * parts, -(-self.batch // parts) * parts
            near = f"batch={above}" if not below else f"batch={below} or batch={above}"
            raise LoaderError(f"a batch of {self.batch} does not divide into {split}: set {near}, or accumulate")
        if size < self.least:
            raise LoaderError(
                f"a batch of {self.batch} leaves {size} to a forward pass, whose norms need {self.least}: set a larger "
                "batch, or a smaller accumulate"
            )
        return size


class Order:
    """The endless list of sequence numbers: every sequence once an epoch, epochs one after another.

    Scans are shuffled, then the sequences within each run of `block` scans. A block of all scans is a plain shuffle. Of
    smaller ones neighbours in the list share scans, whose clouds a reader keeps, and a batch still mixes scans: for
    data that are far away.
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

    def item_at(self, position: int) -> int:
        """Number of the sequence at a place of the endless list."""
        epoch, place = divmod(position, self.length)
        return int(self.epoch(epoch)[place])


class BatchKey(NamedTuple):
    """All that one batch depends on: numbers of its items, and (seed, step, slot) of each."""

    item: tuple[int, ...]
    key: tuple[tuple[int, int, int], ...]


def batch_keys(order: Order, share: Share, seed: int, first_step: int) -> Iterator[BatchKey]:
    """The batches of one process from a step on, without end."""
    step = first_step
    while True:
        for part in range(share.accumulate):
            slots = share.slots(part)
            item = tuple(order.item_at(step * share.batch + slot) for slot in slots)
            yield BatchKey(item, tuple((seed, step, slot) for slot in slots))
        step += 1
