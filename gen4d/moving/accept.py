"""Whether a sequence has enough correspondences (4DContrast, section 3.3)."""

from collections.abc import Sequence

import numpy as np

from gen4d.moving import kernels


def mask_histogram(bits: np.ndarray, frames: int) -> np.ndarray:
    """Points by their bit pattern (2**t,) int64, from one byte a point (N,)."""
    out = np.zeros(1 << frames, np.int64)
    kernels.mask_histogram(bits, out)
    return out


def find_scan_reason(scan: np.ndarray, common_min: float) -> str | None:
    """Why a sequence is rejected for its scan's histogram (2**t,) alone, or None: a third to half of all attempts."""
    return "too few scan points common to all frames" if scan[-1] < common_min * scan.sum() else None


def find_reason(scan: np.ndarray, movers: Sequence[np.ndarray], common_min: float, frame_min: float) -> str | None:
    """Why a sequence is rejected, or None; from the histograms (2**t,) of its scan and of each shape that moves.

    At least `common_min` of the scan's points and of each shape's are kept by all frames together (the intersection,
    A), and every frame keeps at least `frame_min` of all points.
    """
    if reason := find_scan_reason(scan, common_min):
        return reason
    if any(shape[-1] < common_min * shape.sum() for shape in movers):
        return "too few shape points common to all frames"
    every = scan + sum(movers)
    pattern = np.arange(len(every))
    for frame in range(len(every).bit_length() - 1):
        if every[(pattern >> frame) & 1 == 1].sum() < frame_min * every.sum():
            return "a frame keeps too few points"
    return None
