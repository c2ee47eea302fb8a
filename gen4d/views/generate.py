"""The whole story of a scan's views: frames or sweeps read, made clouds, overlaps measured, sequences chosen.

The only draw is which sequences are taken where there are more than asked for; its key is (seed, name of the scan).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.config import FramesConfig
from gen4d.lanes import lane
from gen4d.sequence import ROLE_VIEW, Actor, Cloud, Recording, Sequence, Views
from gen4d.sources import SourceError, up_rotation
from gen4d.sources.frames import read_frames
from gen4d.sources.posed import PosedSource, Reading
from gen4d.sources.sweeps import read_sweeps
from gen4d.views.frames import frame_cloud
from gen4d.views.overlap import find_overlaps, sparse_points
from gen4d.views.sweeps import sweep_cloud


class View(NamedTuple):
    """One frame or sweep that is used: a cloud in its sensor's frame, and the sensor's pose in the source's world."""

    cloud: Cloud
    number: int
    time_s: float
    pose: np.ndarray


class Generated(NamedTuple):
    """A scan's sequences, what became of its frames, and how many sequences there were to choose from."""

    recording: Recording
    reading: Reading
    candidates: int
    too_little: int  # pairs that overlap by less than is asked for


def read_views(source: PosedSource, kind: str, config: FramesConfig, reading: Reading) -> Iterator[View]:
    """The frames or sweeps of a scan that are used, one after another. Raises SourceError."""
    limits = (config.near_m, config.far_m, config.voxel_m)
    match kind:
        case "frames":
            each = ((frame_cloud(one, *limits), one) for one in read_frames(source, config.every, reading))
        case "sweeps":
            each = ((sweep_cloud(one, *limits), one) for one in read_sweeps(source, config.every, reading))
    for cloud, one in each:
        if len(cloud) < config.least_points:
            reading.leave_out(f"fewer than {config.least_points} points", one.number)
        else:
            yield View(cloud, one.number, one.time_s, one.pose)


def generate_views(source: PosedSource, kind: str, config: FramesConfig) -> Generated:
    """All sequences of a scan: windows of neighbouring views (STRL, section 5.1.2) or pairs that overlap
    (PointContrast). Raises SourceError where it has too few views for one."""
    reading = Reading()
    seen = list(read_views(source, kind, config, reading))
    if len(seen) < config.frames:
        raise SourceError(source.root / source.path, _too_few(len(seen), config, reading))
    upright = np.eye(4)
    upright[:3, :3] = up_rotation(config.up)
    pose = np.stack([upright @ view.pose for view in seen])
    views = Views(
        tuple(view.cloud for view in seen),
        np.array([view.number for view in seen], np.int32),
        np.array([view.time_s for view in seen], np.float64),
        pose,
        _overlaps(seen, pose, config.overlap_m) if config.overlap_m else None,
    )
    candidates, too_little = find_candidates(len(seen), views.overlap, config)
    chosen = choose(candidates, source.name, config)
    sequences = tuple(make_sequence(source.name, k, kind, views, members, config) for k, members in enumerate(chosen))
    recording = Recording(
        name=source.name,
        sequences=sequences,
        label_space=source.label_space,
        transform=upright,
        source_points=sum(len(view.cloud) for view in seen),
        views=views,
    )
    return Generated(recording, reading, len(candidates), too_little)


def _too_few(count: int, config: FramesConfig, reading: Reading) -> str:
    why = "; ".join(f"{reason}: {reading.example(reason)}" for reason in reading.left_out)
    why += "".join(f"; {Path(error.path).name}: {error.problem}" for error in reading.broken[:1])
    every = f" taken every {config.every}" if config.every > 1 else ""
    what = f"has {reading.frames} frames{every}, of which {count} can be used: {config.frames} are needed"
    return f"{what} ({why.removeprefix('; ')})" if why else f"{what}; --set every=N takes more of them"


def _overlaps(seen: list[View], pose: np.ndarray, radius: float) -> np.ndarray:
    origin = np.eye(4)
    origin[:3, 3] = -pose[0, :3, 3]  # near the points, whose float32 then has a margin
    sparse = [sparse_points(view.cloud.point, origin @ one, radius) for view, one in zip(seen, pose, strict=True)]
    return find_overlaps(sparse, radius)


def find_candidates(count: int, overlap: np.ndarray | None, config: FramesConfig) -> tuple[list[tuple[int, ...]], int]:
    """The views of each possible sequence, and how many pairs overlap by too little."""
    if config.choose == "windows":
        return [tuple(range(i, i + config.frames)) for i in range(0, count - config.frames + 1, config.step)], 0
    either = np.maximum(overlap, overlap.T)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    enough = [pair for pair in pairs if either[pair] >= config.overlap_min]
    return enough, len(pairs) - len(enough)


def choose(candidates: list[tuple[int, ...]], name: str, config: FramesConfig) -> list[tuple[int, ...]]:
    """All candidates, or as many as are asked for, each as likely as another, in their order."""
    if not config.sequences or len(candidates) <= config.sequences:
        return candidates
    drawn = lane(config, name, 0, 0, "choose").permutation(len(candidates))[: config.sequences]
    return [candidates[i] for i in sorted(drawn.tolist())]


def make_sequence(
    name: str, k: int, kind: str, views: Views, members: tuple[int, ...], config: FramesConfig
) -> Sequence:
    """A sequence of views, each an actor that is there in its own frame alone. The first sensor's place is the origin,
    its axes the world's (STRL, section 5.1.2)."""
    origin = views.pose[members[0], :3, 3]
    actors = []
    for frame, member in enumerate(members):
        pose = views.pose[member].copy()
        pose[:3, 3] -= origin
        cloud = views.clouds[member]
        planes = np.zeros((len(members), -(-len(cloud) // 8)), np.uint8)
        planes[frame] = np.packbits(np.ones(len(cloud), np.bool_))
        actors.append(Actor(cloud, ROLE_VIEW, np.tile(pose.astype(np.float32), (len(members), 1, 1)), planes))
    return Sequence(name, k, tuple(actors), kind=kind, match_m=config.match_m)


def left_out(reading: Reading, too_little: int, config: FramesConfig) -> tuple[dict[str, int], dict[str, str]]:
    """Counts and an example of what was left out, by reason."""
    counts = {reason: len(keys) for reason, keys in reading.left_out.items()}
    examples = {reason: reading.example(reason) for reason in reading.left_out}
    if too_little:
        reason = f"pairs that overlap by less than {config.overlap_min:.0%}"
        counts[reason], examples[reason] = too_little, f"{too_little} pairs"
    return counts, examples
