"""What in a scan or a shape that could be read contradicts something else in it, for `doctor`."""

from collections.abc import Iterator

import numpy as np

from gen4d.moving import cloud
from gen4d.sources import Mesh, Scan, ScanSource, ShapeSource

Said = tuple[str, str, str]  # level, path and message of a finding
_NEAR_M = (0.05, 0.1, 0.2, 0.4)  # sides of the voxels in which points are compared, the first with enough pairs
_LEAST_PAIRS = 200
_LEAST_AGREEMENT = 0.5  # of neighbours beyond chance: 0.9 and more in real labels, 0 in those of another order
_ONE_LABEL = 0.9  # where nearly all neighbours agree by chance, nothing can be said
_PLATE_HEIGHT, _PLATE_SIDES = 0.1, 1.5  # of a shape's height; of the sides of the rest of it


def scan_contradictions(source: ScanSource, scan: Scan) -> Iterator[Said]:
    """What a scan's reader doubted, columns that it did not use, an offset, and ids that cannot be its points'."""
    path = str(source.root / source.files["points"])
    for doubt in scan.doubts:
        file, _, message = doubt.partition(": ")
        yield "warning", str(source.root / file), message
    if scan.unused:
        listed = ", ".join(scan.unused[:10]) + (", ..." if len(scan.unused) > 10 else "")
        rule = "name a column label or instance to have it used"
        yield "note" if scan.label is not None else "warning", path, f"has columns that are not used: {listed}; {rule}"
    if scan.transform[:3, 3].any():
        turn = scan.transform[:3, :3]
        offset = np.linalg.solve(turn, -scan.transform[:3, 3])
        shown = ", ".join(f"{value:.10g}" for value in np.round(offset, 6) + 0.0)
        yield "note", path, f"lies far from the origin, georeferenced?: {shown} taken off, kept as scan/transform"
    for name, ids in (("labels", scan.label), ("instances", scan.instance)):
        agreement = None if ids is None else neighbours_agree(scan.point, ids)
        if agreement is not None and agreement < _LEAST_AGREEMENT:
            text = (
                f"has {name} that neighbours share no more often than by chance ({agreement:.0%} of the way to always)"
            )
            yield "warning", path, f"{text}: are they in the order of its points?"


def neighbours_agree(point: np.ndarray, ids: np.ndarray) -> float | None:
    """How often points (N, 3) in one small voxel have the same id (N,): 0 as often as by chance, 1 always (Cohen's
    kappa). None where too few points are that near, or nearly all have one id."""
    for side_m in _NEAR_M:
        key = cloud.morton_key(cloud.voxel_index(point, side_m))
        order = np.argsort(key, kind="stable")
        near = np.flatnonzero(key[order][1:] == key[order][:-1])
        if len(near) < _LEAST_PAIRS:
            continue
        first, second = ids[order[near]], ids[order[near + 1]]
        _, counts = np.unique(np.concatenate([first, second]), return_counts=True)
        chance = float(((counts / counts.sum()) ** 2).sum())
        return None if chance > _ONE_LABEL else (float((first == second).mean()) - chance) / (1 - chance)
    return None


def mesh_contradictions(source: ShapeSource, mesh: Mesh) -> Iterator[Said]:
    """What a mesh's reader left out or guessed, and a plate under it that would be moved with it."""
    path = str(source.root / source.path)
    for doubt in mesh.doubts:
        yield "warning", path, doubt
    if sides := _plate_sides(mesh):
        text = f"stands on a plate {sides:.1f} times as wide as the rest of it"
        yield "warning", path, f"{text}: a floor that belongs to no furniture? remove it, or the shape is made small"


def _plate_sides(mesh: Mesh) -> float:
    """How much wider than all that stands above it what lies at a shape's foot is, 0 where it is not much wider."""
    corner = mesh.vertex[mesh.face]
    low, high = corner[..., 2].min(), corner[..., 2].max()
    foot = (corner[..., 2] <= low + _PLATE_HEIGHT * (high - low)).all(axis=1)
    if not foot.any() or foot.all():
        return 0.0
    wide, rest = (np.ptp(corner[rows][..., :2].reshape(-1, 2), axis=0) for rows in (foot, ~foot))
    sides = float((wide / np.maximum(rest, 1e-300)).min())
    return sides if sides > _PLATE_SIDES else 0.0
