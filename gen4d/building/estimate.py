"""What a build will cost, from a trial of a few scans; and the compiling that comes before either."""

import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gen4d import sources
from gen4d.building.inputs import Inputs
from gen4d.building.shard import UNUSABLE, describe_error, load_scan
from gen4d.config import Config, to_plain
from gen4d.moving import accept, augment, candidates, kernels, shape, trajectory
from gen4d.moving.generate import generate_scan, group_shapes, lane, prepare_scan
from gen4d.sequence import ROLE_STATIC, Actor, Sequence
from gen4d.shards.zarr_writer import shard_bytes

_COPIES = 3  # of a shard's content that are in memory at once: its arrays, its entries, the zip


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes


def warm_up(config: Config, announce: Callable[[], object]) -> None:
    """Compile the kernels, or load them from the cache, before workers are forked, which inherit them."""
    if _is_cold():
        announce()
    rng = lane(config, "", 0, 0, "warm up")
    point = rng.random((4000, 3)).astype("float32") * [3, 3, 0]
    scan = sources.scan_from_arrays("warm up", point.astype("float32"), None, None, sources.Orientation())
    prepared = prepare_scan(scan, config)
    places = candidates.find_candidates(prepared.space, 0.1)
    trajectory.draw_trajectory(places, config.frames, (0.1, 2.0), 3.0, 50, rng)
    shape.enclosing_circle(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    bits = augment.draw_bits(prepared.quantised, augment.no_chunks(config.frames), config.keep, rng)
    planes = augment.pack_planes(bits, config.frames)
    accept.mask_histogram(bits, config.frames)
    sequence = Sequence("", 0, (Actor(prepared.cloud, ROLE_STATIC, prepared.still, planes),))
    sequence.correspondences(0, 1)
    sequence.frame(0)


def _is_cold() -> bool:
    """Whether a kernel would have to be compiled: Numba has no signature of it in memory nor in its cache."""
    dispatcher = kernels.walk
    if not hasattr(dispatcher, "signatures"):
        return False  # jit is disabled
    path = pathlib.Path(dispatcher.stats.cache_path or ".")
    return not dispatcher.signatures and not any(path.glob("kernels.walk*.nbc"))


class Trial(NamedTuple):
    """What some scans cost, built in memory."""

    scans: int
    sequences: int
    bytes: int
    seconds: float
    memory: int
    failed: tuple[str, ...]
    reason: str  # an example of what most attempts of the last scan failed by

    def scaled(self, scans: int, workers: int) -> "Estimate":
        """What a build of a number of scans like these will take."""
        share = scans / self.scans
        size, seconds = round(self.bytes * share), self.seconds * share / workers
        return Estimate(round(self.sequences * share), size, seconds, self.memory * workers)


class Estimate(NamedTuple):
    """What a build will give and take: sequences, bytes of disk, seconds, and bytes of memory of all workers."""

    sequences: int
    bytes: int
    seconds: float
    memory: int


def try_scans(inputs: Inputs, chosen: tuple[sources.ScanSource, ...]) -> Trial:
    """Generate and encode scans without writing anything, to estimate a build."""
    shapes = group_shapes(inputs.shapes, inputs.config.shape_up)
    recordings, failed, reason = [], [], ""
    started = time.perf_counter()
    for source in chosen:
        try:
            made = generate_scan(load_scan(source, inputs.config), shapes, inputs.config)
            recordings.append(made.recording)
            if made.counts.reasons:
                reason = made.counts.example[max(made.counts.reasons, key=made.counts.reasons.__getitem__)]
        except UNUSABLE as error:
            failed.append(f"{source.root}/{describe_error(source, error)}")
    content = shard_bytes(tuple(recordings), inputs.config.frames, to_plain(inputs.config), inputs.config.pairs)
    seconds = time.perf_counter() - started
    sequences = [sequence for recording in recordings for sequence in recording]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    raw = sum(recording.cloud.point.nbytes * 2 for recording in recordings)
    raw += sum(actor.planes.nbytes for sequence in sequences for actor in sequence.actors)
    shard = _COPIES * inputs.config.scans_per_shard * (raw + len(content)) // max(len(recordings), 1)
    return Trial(len(recordings), len(sequences), len(content), seconds, peak + shard, tuple(failed), reason)
