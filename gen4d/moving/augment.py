"""Which points each frame keeps (4DContrast, section 3.3, "Scene Augmentation")."""

from typing import NamedTuple

import numpy as np

from gen4d.moving import kernels
from gen4d.moving.cloud import bounds

LEVELS = 65535  # chunks and lots have 16 bits


class Chunks(NamedTuple):
    """Boxes that frames lose, in 16-bit fractions of the scan's bounding box, both ends included."""

    box: np.ndarray  # (t, B, 6) uint16: low x y z, high x y z
    count: np.ndarray  # (t,) int64: the first `count` of a frame's boxes are used


def quantise(point: np.ndarray) -> np.ndarray:
    """Points (N, 3) as 16-bit fractions (3, N) of their own bounding box. Chunk removal is defined on these."""
    low, high = (end.astype(np.float64) for end in bounds(point))
    extent = high - low
    scale = np.divide(LEVELS, extent, out=np.zeros(3), where=extent > 0)
    out = np.empty((3, len(point)), np.uint16)
    kernels.quantise(point, low, scale, out)
    return out


def draw_chunks(frames: int, count: tuple[int, int], size: tuple[float, float], rng: np.random.Generator) -> Chunks:
    """Draw every frame's chunks: their number, one proportion of the extent for all axes each, a uniform centre (A)."""
    low, high = count
    number = low + np.floor(rng.random(frames) * (high - low + 1)).astype(np.int64)
    draw = rng.random((frames, high, 4))
    side = size[0] + (size[1] - size[0]) * draw[:, :, :1]
    centre = draw[:, :, 1:]
    box = np.concatenate([centre - side / 2, centre + side / 2], axis=2)
    return Chunks(np.floor(np.clip(box, 0, 1) * LEVELS + 0.5).astype(np.uint16), number)


def draw_bits(quantised: np.ndarray, chunks: Chunks, keep: float, rng: np.random.Generator) -> np.ndarray:
    """Which frames keep each point (3, N): one byte a point (N,), bit f for frame f.

    A point is kept with probability `keep`, to 1/65536, where no chunk of the frame holds it.
    """
    bits = np.empty(quantised.shape[1], np.uint8)
    key = np.uint64(rng.integers(0, 2**64, dtype=np.uint64))
    kernels.draw_masks(quantised, chunks.box, chunks.count, round(keep * (LEVELS + 1)), key, bits)
    return bits


def no_chunks(frames: int) -> Chunks:
    """Chunks for a cloud that loses none, as shapes do."""
    return Chunks(np.zeros((frames, 0, 6), np.uint16), np.zeros(frames, np.int64))


def pack_planes(bits: np.ndarray, frames: int) -> np.ndarray:
    """Bit planes (t, ceil(N/8)) uint8, in numpy.packbits order, from one byte a point (N,)."""
    size = (len(bits) + 7) // 8
    padded = np.zeros(8 * size, np.uint8)
    padded[: len(bits)] = bits
    out = np.empty((frames, size), np.uint8)
    kernels.pack_planes(padded.view("<u8"), out)
    return out
