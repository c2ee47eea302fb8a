"""Augmentation of labelled scans: that of the field's segmentation code (PointContrast, Contrastive Scene Contexts)
without colour, since nets see geometry only.

Elastic distortion moves points; what is left out is a mask, and all that is rigid is one matrix, so that points go to
voxels in a single pass.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d

from train import kernels
from train.batch import draw_views


class Augmentation(NamedTuple):
    """Ranges of what is drawn for a scan at every step. (A) marks what the field's code has otherwise or not at all."""

    elastic_share: float = 0.95  # of scans that are distorted, by fields of noise on two scales
    elastic_steps_m: tuple[float, float] = (0.2, 0.8)  # distance of a field's nodes
    elastic_sizes_m: tuple[float, float] = (0.4, 1.6)  # standard deviation of a node, before it is smoothed
    dropout_share: float = 0.2  # of scans that lose points
    dropout: float = 0.2  # share of points that they lose
    flip: float = 0.475  # chance of x, and of y, to be mirrored
    tilt_rad: float = np.pi / 64  # about x and y, besides any yaw
    scale_low: float = 0.9
    scale_high: float = 1.1
    shift_m: float = 1.0  # either way along each axis (A: the field moves by up to 100 whole voxels of 2 cm)


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
    return Augmented(point, np.packbits(kept), draw_views(1, recipe, rng)[0] @ mirror)


def distort(point: np.ndarray, step_m: float, size_m: float, rng: np.random.Generator) -> np.ndarray:
    """Points (N, 3) float32 moved by a smooth field: normal noise on nodes step_m apart, averaged twice over three
    nodes along each axis with zeros outside, interpolated linearly, times size_m."""
    low = point.min(axis=0).astype(np.float64)
    extent = np.floor((point.max(axis=0) - low) / step_m).astype(int) + 3
    noise = rng.standard_normal((*extent, 3), np.float32)
    for _ in range(2):
        for axis in range(3):
            noise = uniform_filter1d(noise, 3, axis, mode="constant")
    out = np.empty_like(point)
    kernels.displace(point, noise, low, step_m, size_m, out)
    return out
