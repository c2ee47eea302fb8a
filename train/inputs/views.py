"""How clouds are varied: rigid views of frames, and the augmentation of labelled scans, which is that of the field's
segmentation code (PointContrast, Contrastive Scene Contexts).

Elastic distortion moves points; what is left out is a mask, and all that is rigid is one matrix, so that points go to
voxels in a single pass.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d

from train.config import check, shares
from train.inputs import kernels
from train.inputs.voxels import BatchError

_MOST_NODES = 30_000_000  # of the noise of elastic distortion: 360 MB


@dataclass(frozen=True)
class Rigid:
    """Ranges of a similarity transform, besides any yaw."""

    tilt_rad: float = math.pi / 64  # about x and y
    shift_m: float = 0.5  # either way along each axis
    scale_low: float = 0.9
    scale_high: float = 1.1

    def __post_init__(self):
        rules = [
            ("tilt_rad", 0 <= self.tilt_rad <= math.pi, "from 0 to pi"),
            ("shift_m", 0 <= self.shift_m <= 100, "from 0 to 100 m"),
            ("scale_low", 0 < self.scale_low <= self.scale_high, "above 0 and not above scale_high"),
        ]
        check(self, rules)


def draw_views(t: int, ranges: Rigid, rng: np.random.Generator) -> np.ndarray:
    """One similarity transform per frame: any yaw, small tilt about x and y, translation, scale.

    Returns (t, 4, 4) float64, sequence frame -> augmented frame, metres (section 3.3, "Scene Augmentation").
    """
    yaw = rng.uniform(0, 2 * math.pi, t)
    tilt = rng.uniform(-ranges.tilt_rad, ranges.tilt_rad, (t, 2))
    scale = rng.uniform(ranges.scale_low, ranges.scale_high, t)
    view = np.zeros((t, 4, 4))
    view[:, :3, 3] = rng.uniform(-ranges.shift_m, ranges.shift_m, (t, 3))
    view[:, 3, 3] = 1
    for i in range(t):
        rotation = _about(0, tilt[i, 0]) @ _about(1, tilt[i, 1]) @ _about(2, yaw[i])
        view[i, :3, :3] = scale[i] * rotation
    return view


def _about(axis: int, angle_rad: float) -> np.ndarray:
    """Right-handed rotation about a coordinate axis, (3, 3)."""
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    u, v = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[u, u], matrix[u, v], matrix[v, u], matrix[v, v] = cos, -sin, sin, cos
    return matrix


# Labelled scans ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """Ranges of what is drawn for a scan at every step, as the field's code has it; (A) marks our own choices."""

    elastic_share: float = 0.95  # of scans that are distorted, by fields of noise on two scales
    elastic_steps_m: tuple[float, ...] = (0.2, 0.8)  # distance of a field's nodes
    elastic_sizes_m: tuple[float, ...] = (0.4, 1.6)  # standard deviation of a node, before it is smoothed
    dropout_share: float = 0.2  # of scans that lose points
    dropout: float = 0.2  # share of points that they lose
    flip: float = 0.475  # chance of x, and of y, to be mirrored
    views: Rigid = Rigid(shift_m=1.0)  # (A: the field moves by up to 100 whole voxels of 2 cm)
    # Of scans whose colour is used, as parts of its range.
    contrast_share: float = 0.2  # of scans whose colour is stretched, half way to its full range
    colour_share: float = 0.95  # of scans whose colour is shifted and gets noise
    colour_shift: float = 0.1  # at most, of each channel
    colour_noise: float = 0.05  # standard deviation, of each point and channel

    def __post_init__(self):
        rules = [
            *shares(self, "elastic_share", "dropout_share", "flip", "contrast_share", "colour_share", "colour_shift"),
            *shares(self, "colour_noise"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            ("elastic_steps_m", all(step > 0 for step in self.elastic_steps_m), "all above 0"),
            ("elastic_sizes_m", len(self.elastic_sizes_m) == len(self.elastic_steps_m), "one for each of the steps"),
        ]
        check(self, rules)


class Augmented(NamedTuple):
    """What a scan's points become: point (N, 3) float32, plane (ceil(N / 8),) uint8 of those that are kept, in
    `numpy.packbits` order, view (4, 4) float64 still to be applied to them."""

    point: np.ndarray
    plane: np.ndarray
    view: np.ndarray


def augment(point: np.ndarray, recipe: Augmentation, rng: np.random.Generator) -> Augmented:
    """A scan's points (N, 3) float32, metres, z up, under one draw."""
    if rng.random() < recipe.elastic_share:
        for step_m, size_m in zip(recipe.elastic_steps_m, recipe.elastic_sizes_m, strict=True):
            point = distort(point, step_m, size_m, rng)
    lost = rng.random() < recipe.dropout_share
    kept = rng.random(len(point)) >= recipe.dropout if lost else np.ones(len(point), bool)
    mirror = np.diag([*np.where(rng.random(2) < recipe.flip, -1.0, 1.0), 1.0, 1.0])
    return Augmented(point, np.packbits(kept), draw_views(1, recipe.views, rng)[0] @ mirror)


def vary_colour(colour: np.ndarray, recipe: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Colours (N, 3) float32 from 0 to 1 under one draw, as the field's code has it."""
    stretched, varied = rng.random(2) < (recipe.contrast_share, recipe.colour_share)
    if stretched:
        low, high = colour.min(axis=0), colour.max(axis=0)
        colour = 0.5 * colour + 0.5 * (colour - low) / np.maximum(high - low, np.float32(1e-3))
    if varied:
        shift = rng.uniform(-recipe.colour_shift, recipe.colour_shift, 3).astype(np.float32)
        noise = rng.standard_normal(colour.shape, np.float32) * np.float32(recipe.colour_noise)
        colour = colour + shift + noise
    return np.clip(colour, 0, 1)


def distort(point: np.ndarray, step_m: float, size_m: float, rng: np.random.Generator) -> np.ndarray:
    """Points (N, 3) float32 moved by a smooth field: normal noise on nodes step_m apart, averaged twice over three
    nodes along each axis with zeros outside, interpolated linearly, times size_m. Raises BatchError where its nodes are
    too many."""
    least, most = np.empty((2, 3), point.dtype)
    kernels.bounds(point, least, most)  # point.min(axis=0) and .max(axis=0) take forty times as long
    low = least.astype(np.float64)
    extent = np.floor((most - low) / step_m).astype(int) + 3
    if math.prod(extent.tolist()) > _MOST_NODES:
        size = " x ".join(f"{side:.0f}" for side in most - low)
        raise BatchError(f"{size} m are too much for elastic distortion: remove points far off, or set elastic_share=0")
    noise = rng.standard_normal((*extent, 3), np.float32)
    for _ in range(2):
        for axis in range(3):
            noise = uniform_filter1d(noise, 3, axis, mode="constant")
    out = np.empty_like(point)
    kernels.displace(point, noise, low, step_m, size_m, out)
    return out
