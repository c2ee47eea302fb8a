"""Lidar sweeps as raw float32 rows (KITTI's velodyne, nuScenes' .pcd.bin), and SemanticKITTI's labels."""

from pathlib import Path

import numpy as np

from gen4d.sources.source import SourceError


def read_sweep(path: Path, content: bytes, columns: str) -> np.ndarray:
    """Points (N, 3) float32 of rows with the named columns, NaN and infinity as they are there. Raises SourceError."""
    names = columns.split()
    row = 4 * len(names)
    if len(content) % row:
        raise SourceError(path, f"has {len(content)} bytes, no multiple of {row} (rows of {columns}): cut short")
    table = np.frombuffer(content, "<f4").reshape(-1, len(names))
    return np.ascontiguousarray(table[:, [names.index(axis) for axis in "xyz"]], np.float32)


def read_labels(path: Path, content: bytes, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Label and instance (N,) int32 of a sweep's points, from the low and high 16 bits of each number."""
    if len(content) != 4 * points:
        raise SourceError(path, f"has {len(content) // 4} labels, its sweep has {points} points: copy both again")
    both = np.frombuffer(content, "<u4")
    return (both & 0xFFFF).astype(np.int32), (both >> 16).astype(np.int32)
