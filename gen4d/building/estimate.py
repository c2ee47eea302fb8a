"""What a build will cost, from a trial of a few scans; and the compiling that comes before either."""

import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from gen4d.building.inputs import Inputs, Source
from gen4d.building.kinds import kind_of
from gen4d.building.shard import describe_error
from gen4d.config import to_plain
from gen4d.shards.zarr_writer import shard_bytes

_COPIES = 3  # of a shard's content that are in memory at once: its arrays, its entries, the zip


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes


def warm_up(inputs: Inputs, announce: Callable[[], object]) -> None:
    """Compile the kernels, or load them from the cache, before workers are forked, which inherit them."""
    kind = kind_of(inputs.kind)
    if kind.is_cold():
        announce()
    kind.warm_up(inputs.config)


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


def try_scans(inputs: Inputs, chosen: tuple[Source, ...]) -> Trial:
    """Generate and encode scans without writing anything, to estimate a build."""
    kind = kind_of(inputs.kind)
    shared = kind.share(inputs)
    recordings, failed, reason = [], [], ""
    started = time.perf_counter()
    for source in chosen:
        try:
            made = kind.make(source, shared, inputs.config)
            recordings.append(made.recording)
            if rejections := made.described.get("rejections"):
                reason = made.described["examples"][max(rejections, key=rejections.__getitem__)]
        except kind.UNUSABLE as error:
            failed.append(f"{source.root}/{describe_error(source, error)}")
    content = shard_bytes(tuple(recordings), inputs.config.frames, to_plain(inputs.config), inputs.config.pairs)
    seconds = time.perf_counter() - started
    sequences = [sequence for recording in recordings for sequence in recording]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    clouds = {id(recording.cloud): recording.cloud for recording in recordings if recording.cloud is not None}
    clouds |= {id(actor.cloud): actor.cloud for sequence in sequences for actor in sequence.actors}
    raw = sum(cloud.point.nbytes * 2 for cloud in clouds.values())
    raw += sum(actor.planes.nbytes for sequence in sequences for actor in sequence.actors)
    shard = _COPIES * inputs.config.scans_per_shard * (raw + len(content)) // max(len(recordings), 1)
    return Trial(len(recordings), len(sequences), len(content), seconds, peak + shard, tuple(failed), reason)
