"""What a build will cost, from a trial of a few scans; and the compiling that comes before either."""

import pathlib
import resource
import time
from typing import NamedTuple

import numpy as np

from gen4d import accept, augment, candidates, compose, kernels, sources, trajectory
from gen4d.build import Inputs, describe_error, load_scan
from gen4d.cloud import CloudError
from gen4d.config import Config, to_plain
from gen4d.generate import generate_scan, group_shapes, lane, prepare_scan
from gen4d.occupancy import OccupancyError
from gen4d.writer import sequence_pairs, shard_bytes


def warm_up(config: Config, announce) -> None:
    """Compile the kernels, or load them from the cache, before workers are forked, which inherit them."""
    if _is_cold():
        announce()
    rng = lane(config, "", 0, 0, "warm up")
    point = rng.random((4000, 3)).astype("float32") * [3, 3, 0]
    scan = sources.Scan(
        name="", point=point.astype("float32"), row=np.arange(4000, dtype=np.int32), label=None, instance=None,
        label_space="", transform=np.eye(4), axis_alignment=None, dropped=0, files=(),
    )  # fmt: skip
    prepared, _ = prepare_scan(scan, config)
    places = candidates.find_candidates(prepared.space, 0.1)
    trajectory.draw_trajectory(places, config.frames, (0.1, 2.0), 3.0, 50, rng)
    compose.enclosing_circle(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    bits = augment.draw_bits(prepared.quantised, augment.no_chunks(config.frames), config.keep, rng)
    planes = augment.pack_planes(bits, config.frames)
    accept.mask_histogram(bits, config.frames)
    sequence_pairs(planes, planes, (len(bits), len(bits)))


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


def try_scans(inputs: Inputs, chosen: tuple[sources.ScanSource, ...]) -> Trial:
    """Generate and encode scans without writing anything, to estimate a build."""
    shapes = group_shapes(inputs.shapes, inputs.config.shape_up)
    records, failed = [], []
    started = time.perf_counter()
    for source in chosen:
        try:
            records.append(generate_scan(load_scan(source, inputs.config), shapes, inputs.config)[0])
        except (sources.SourceError, CloudError, OccupancyError) as error:
            failed.append(f"{source.root}/{describe_error(source, error)}")
    content = shard_bytes(tuple(records), inputs.config.frames, to_plain(inputs.config), inputs.config.pairs)
    seconds = time.perf_counter() - started
    sequences = sum(len(record.sequences) for record in records)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    raw = sum(record.point.nbytes * 2 + sum(s.scan_planes.nbytes for s in record.sequences) for record in records)
    shard = 3 * inputs.config.scans_per_shard * (raw + len(content)) // max(len(records), 1)
    return Trial(len(records), sequences, len(content), seconds, peak + shard, tuple(failed))
