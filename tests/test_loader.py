"""Sample order and loader: every sequence once an epoch, the same for any split, identical batches for any workers."""

import multiprocessing
import threading
import time

import numpy as np
import pytest

from tests.makers.sequences import MemoryDataset, keyed, make_dataset
from tests.test_batch import SMALL, assert_equal
from train.config import change
from train.inputs.order import LoaderError, Order, Share, batch_keys
from train.inputs.voxels import BatchError
from train.methods.config import PRESETS
from train.methods.contrast4d.batch import SequenceStream
from train.methods.pretrain import with_blocks

DATA = make_dataset(12)


def order_of(sequences, scans, seed=0, block=32):
    return Order(np.sort(keyed(sequences, scans).integers(0, scans, sequences)), seed, block)


FOUR = Share(4)


def loader_of(workers, share=FOUR, data=DATA, seed=1):
    order = Order(np.array([data.scan_of(i) for i in range(len(data))]), seed)
    return SequenceStream(data, order, SMALL, share, seed, workers)


def copied(batches, count):
    """The first batches, in memory of their own."""
    return [type(b)(*_copy(tuple(b))) for b, _ in zip(batches, range(count), strict=False)]


def _copy(value):
    if hasattr(value, "clone"):
        return value.clone()
    if isinstance(value, tuple):
        parts = [_copy(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def workers_alive():
    """Loader threads of this process."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize(("sequences", "scans", "block"), [(1, 1, 32), (7, 3, 2), (100, 20, 1), (100, 20, 64)])
def test_every_sequence_comes_once_an_epoch(sequences, scans, block):
    order = order_of(sequences, scans, block=block)
    for epoch in range(3):
        seen = [order.item_at(epoch * sequences + place) for place in range(sequences)]
        assert sorted(seen) == list(range(sequences))


def test_epochs_and_seeds_differ_and_repeat():
    first, second = order_of(50, 10), order_of(50, 10, seed=1)
    assert not np.array_equal(first.epoch(0), first.epoch(1))
    assert not np.array_equal(first.epoch(0), second.epoch(0))
    assert np.array_equal(first.epoch(3), order_of(50, 10).epoch(3))


def test_neighbours_share_a_block_of_scans_and_batches_mix_scans():
    order = Order(np.repeat(np.arange(100), 20), seed=0, block=10)
    scan = order.epoch(0) // 20
    assert all(len(set(scan[i : i + 200])) == 10 for i in range(0, 2000, 200))
    assert np.mean([len(set(scan[i : i + 12])) for i in range(0, 1992, 12)]) > 6
    assert sorted(set(scan[:200])) != list(range(10))


def test_one_block_of_all_scans_is_a_plain_shuffle():
    """Fifty batches of twelve see about as many scans as there are draws of them, not the few dozen of a block."""
    scan_of = np.repeat(np.arange(484), 20)
    seen = [len(set(Order(scan_of, 0, block).epoch(0)[:600] // 20)) for block in (484, 32)]
    assert seen[0] > 330 and seen[1] <= 32


@pytest.mark.parametrize(("asked", "local", "scans"), [(None, True, 3), (None, False, 32), (2, True, 2), (2, False, 2)])
def test_scans_are_shuffled_in_blocks_where_they_are_far_away_or_where_that_is_asked_for(asked, local, scans):
    data = make_dataset(12)
    data.local = local
    config = with_blocks(change(PRESETS["small"], block_scans=asked), data)
    assert config.block_scans == scans == with_blocks(config, data).block_scans


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("first", [0, 1, 7, 30])
def test_processes_share_one_global_order_resumed_anywhere(world, accumulate, first):
    """Slot by slot the same sequences and random keys as one process that never stopped, epochs crossed."""
    order, batch, steps = order_of(50, 10), 12, 9
    whole = batch_keys(order, Share(batch), 5, 0)
    expected = [(key.item, key.key) for key, _ in zip(whole, range(first + steps), strict=False)][first:]
    found = [([], []) for _ in range(steps)]
    for rank in range(world):
        mine = batch_keys(order, Share(batch, rank, world, accumulate), 5, first)
        for step in range(steps):
            for _ in range(accumulate):
                key = next(mine)
                found[step][0].extend(key.item)
                found[step][1].extend(key.key)
    assert [(tuple(s), tuple(k)) for s, k in found] == expected
    assert found[0][1][0] == (5, first, 0)


def test_a_batch_that_does_not_divide_is_refused_with_the_remedy():
    with pytest.raises(LoaderError, match="12 does not divide into 8 processes x 1 parts: set batch=8 or batch=16"):
        Share(12, 0, 8).slots(0)
    with pytest.raises(LoaderError, match="does not divide"):
        loader_of(0, Share(2, 0, 4))


def test_a_data_set_without_sequences_is_refused():
    with pytest.raises(LoaderError, match="no sequence"):
        Order(np.zeros(0, np.int64), 0)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_identical_for_any_number_of_workers(workers):
    expected = copied(loader_of(0).batches(0), 7)
    for a, b in zip(expected, copied(loader_of(workers).batches(0), 7), strict=True):
        assert_equal(a, b)
    for a, b in zip(expected[4:], copied(loader_of(workers).batches(4), 3), strict=True):
        assert_equal(a, b)


def test_a_batch_stays_as_it_is_while_later_ones_are_made():
    batches = loader_of(2).batches(0)
    for _ in range(5):
        batch = next(batches)
        before = copied([batch], 1)[0]
        time.sleep(0.1)  # both threads have made a batch by now
        assert_equal(batch, before)
    batches.close()


def test_the_batches_of_two_processes_are_the_one_process_batch_cut_in_two():
    whole = copied(loader_of(0).batches(2), 1)[0]
    halves = [copied(loader_of(0, Share(4, rank, 2)).batches(2), 1)[0] for rank in (0, 1)]
    counts = [len(half.sequence.coordinate) for half in halves]
    assert sum(counts) == len(whole.sequence.coordinate)
    first = whole.pair_row[:, :, : 2 * SMALL.samples]
    assert np.array_equal(first, halves[0].pair_row)
    assert np.array_equal(whole.moving[:, 2 * SMALL.samples :], halves[1].moving)


class Failing(MemoryDataset):
    """Raises when sequence 5 is read."""

    def __getitem__(self, i):
        if i == 5:
            raise ValueError("shards/00000.zarr.zip: the shard is missing")
        return super().__getitem__(i)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_a_worker_is_raised_at_its_batch_and_nothing_hangs(workers):
    data = Failing(DATA)
    loader = loader_of(workers, data=data)
    place = next(p for p in range(12) if loader.order.item_at(p) == 5)
    batches, made = loader.batches(0), 0
    with pytest.raises(ValueError, match="the shard is missing"):
        while True:
            next(batches)
            made += 1
    assert made == place // 4
    assert not workers_alive()


def test_a_bad_sequence_is_named_through_the_loader():
    data = MemoryDataset(DATA)
    data[3] = make_dataset(4, t=3)[3]
    with pytest.raises(BatchError, match="sequence room0000/003: 3 frames in a data set of 4"):
        copied(loader_of(2, data=data).batches(0), 3)


def test_leaving_early_stops_the_workers():
    batches = loader_of(3).batches(0)
    next(batches)
    assert workers_alive()
    batches.close()
    assert not workers_alive()


def _in_child(queue, workers):
    batch = copied(loader_of(workers).batches(0), 2)[1]
    queue.put(batch.point_row_4d.numpy())


@pytest.mark.parametrize(("method", "workers"), [("fork", 0), ("fork", 1), ("fork", 4), ("spawn", 2)])
def test_a_child_process_loads_after_its_parent_did(method, workers):
    """Kernels and threads of the parent must not hang or spoil those of a child."""
    expected = copied(loader_of(2).batches(0), 2)[1]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, workers), daemon=True)
    child.start()
    assert np.array_equal(queue.get(timeout=60), expected.point_row_4d)
    child.join(timeout=30)
    assert child.exitcode == 0
