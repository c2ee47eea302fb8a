"""The laws of stored frames and sweeps, read with zarr and numpy alone and checked from the images themselves.

Nothing here is shared with the generator. Constants stand here once more. A law that does not hold raises `Broken`.
"""

import itertools
import json
import pathlib
from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from tests.laws import Shard, cloud_rows, demand, one_number, read_shard, voxel_of

VOXEL_M, OVERLAP_M, OVERLAP_MIN, MATCH_M = 0.02, 0.05, 0.30, 0.03
_SLACK = 2e-6  # metres: of float32 within ten metres

Truth = Callable[[str, int], tuple[np.ndarray, np.ndarray]]  # (scan, number) -> points by pixel (P, 3), NaN; pose


def check_views(folder: pathlib.Path, truth: Truth, choose: str) -> int:
    """Check every view and every sequence of a data set; returns how many correspondences were checked.

    truth: of a frame of a scan, the point of each pixel in the camera's frame, in float64 and NaN where it has none,
    and the camera's pose in a world with z up.
    """
    manifest, pairs = json.loads((folder / "dataset.json").read_bytes()), 0
    for entry in manifest["shards"]:
        shard = read_shard(folder / "shards" / entry["file"])
        for scan in range(len(shard.scans)):
            check_clouds(shard, scan, truth)
            check_overlaps(shard, scan)
            check_choice(shard, scan, choose)
        pairs += sum(check_sequence(shard, row) for row in range(len(shard.table["sequence/k"])))
    return pairs


def views_of(shard: Shard, scan: int) -> range:
    return range(*shard.table["view/start"][scan : scan + 2].tolist())


def point_of(shard: Shard, view: int) -> np.ndarray:
    return shard.table["cloud/point"][cloud_rows(shard, int(shard.table["view/cloud"][view]))]


def check_clouds(shard: Shard, scan: int, truth: Truth) -> None:
    """Eq. 1: each point is its pixel's; one a voxel, none missing, the first by row; poses are the source's."""
    table = shard.table
    for view in views_of(shard, scan):
        where = f"{shard.scans[scan]}, frame {table['view/number'][view]}"
        source, pose = truth(shard.scans[scan], int(table["view/number"][view]))
        rows = cloud_rows(shard, int(table["view/cloud"][view]))
        point, pixel = table["cloud/point"][rows], table["cloud/vertex"][rows]
        gap = np.abs(point - source[pixel])
        demand(gap.max() < _SLACK, where, "points are their pixels back-projected", gap.max())
        demand(np.abs(table["view/pose"][view] - pose).max() < 1e-5, where, "its pose is the source's")
        good = np.flatnonzero(np.isfinite(source).all(axis=1))
        number = one_number(voxel_of(source[good].astype(np.float32)))
        first = good[np.unique(number, return_index=True)[1]]
        demand(
            np.array_equal(np.sort(pixel), np.sort(first)), where, "keeps the first pixel of every voxel", len(first)
        )


def world_points(shard: Shard, view: int) -> np.ndarray:
    pose = shard.table["view/pose"][view]
    return point_of(shard, view) @ pose[:3, :3].T + pose[:3, 3]


def check_overlaps(shard: Shard, scan: int) -> None:
    """Shares within a percent and a half of what a KD-tree finds on points thinned on another grid."""
    views = views_of(shard, scan)
    start, end = shard.table["view/overlap_start"][scan : scan + 2]
    share = shard.table["view/overlap"][start:end].reshape(len(views), len(views))
    demand((share.diagonal() == 1).all(), shard.scans[scan], "every view overlaps itself")
    thin = []
    for view in views:
        point = world_points(shard, view)
        thin.append(point[np.unique(np.floor(point / OVERLAP_M).astype(int), axis=0, return_index=True)[1]])
    for i, j in itertools.permutations(range(len(views)), 2):
        near = np.isfinite(cKDTree(thin[j]).query(thin[i], distance_upper_bound=OVERLAP_M)[0]).mean()
        demand(abs(near - share[i, j]) < 0.015, shard.scans[scan], f"views {i} and {j} overlap", (near, share[i, j]))


def members_of(shard: Shard, row: int) -> list[int]:
    """The views of a sequence, by its actors' clouds."""
    clouds = shard.table["actor/cloud"][slice(*shard.table["actor/start"][row : row + 2].tolist())]
    return [int(np.flatnonzero(shard.table["view/cloud"] == cloud)[0]) for cloud in clouds]


def check_choice(shard: Shard, scan: int, choose: str) -> None:
    """Windows are of neighbours, one frame on each time; pairs are all that overlap enough, in either direction."""
    views = views_of(shard, scan)
    rows = np.flatnonzero(shard.table["sequence/scan"] == scan)
    members = [tuple(m - views[0] for m in members_of(shard, int(row))) for row in rows]
    if choose == "windows":
        wanted = [tuple(range(i, i + shard.frames)) for i in range(len(views) - shard.frames + 1)]
    else:
        start = shard.table["view/overlap_start"][scan]
        share = shard.table["view/overlap"][start : start + len(views) ** 2].reshape(len(views), -1)
        pairs = itertools.combinations(range(len(views)), 2)
        wanted = [(i, j) for i, j in pairs if max(share[i, j], share[j, i]) >= np.float32(OVERLAP_MIN)]
    demand(members == wanted, shard.scans[scan], f"its sequences are the {choose}", (members, wanted))


def check_sequence(shard: Shard, row: int) -> int:
    """One actor a frame, absent from the others; the first sensor's place is the origin, and its axes are the world's;
    stored pairs are each other's nearest in a KD-tree."""
    table, where = shard.table, f"sequence {row}"
    actors = range(*table["actor/start"][row : row + 2].tolist())
    members, frames = members_of(shard, row), []
    origin = table["view/pose"][members[0], :3, 3]
    demand(len(actors) == shard.frames and (table["actor/role"][actors] == 2).all(), where, "has one view a frame")
    for frame, (actor, view) in enumerate(zip(actors, members, strict=True)):
        present = table["actor/mask_start"][actor] >= 0
        demand(present.tolist() == [f == frame for f in range(shard.frames)], where, "is there in its frame alone")
        pose = table["view/pose"][view].copy()
        pose[:3, 3] -= origin
        demand(np.abs(table["actor/pose"][actor] - pose).max() < _SLACK, where, "is placed from the first camera")
        stored = table["actor/pose"][actor, frame].astype(np.float64)
        frames.append((point_of(shard, view) @ stored[:3, :3].T + stored[:3, 3]).astype(np.float32))
    return sum(check_pairs(shard, row, p, frames[i], frames[j]) for p, (i, j) in enumerate(all_pairs(shard.frames)))


def all_pairs(frames: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(frames), 2))


def check_pairs(shard: Shard, row: int, number: int, first: np.ndarray, second: np.ndarray) -> int:
    place = row * len(all_pairs(shard.frames)) + number
    a, b = shard.table["pair/start"][place : place + 2]
    stored = np.stack([shard.table["pair/first"][a:b], shard.table["pair/second"][a:b]], axis=1)
    wanted = mutual_pairs(first, second, MATCH_M)
    demand(stored.tolist() == wanted.tolist(), f"sequence {row}", "pairs are each other's nearest", len(wanted))
    return len(stored)


def mutual_pairs(first: np.ndarray, second: np.ndarray, radius: float) -> np.ndarray:
    """Rows (K, 2) of points that are each other's nearest within the radius, by KD-trees."""
    forth = cKDTree(second).query(first, distance_upper_bound=radius * (1 + 1e-9))[1]
    back = cKDTree(first).query(second, distance_upper_bound=radius * (1 + 1e-9))[1]
    rows = np.flatnonzero(forth < len(second))
    rows = rows[back[forth[rows]] == rows]
    return np.stack([rows, forth[rows]], axis=1)
