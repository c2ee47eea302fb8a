"""Frozen features of shapes: by a pre-trained encoder, by a random one, and simple ones by hand.

Shapes. M shapes, N points of each.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from train.errors import Refused
from train.inputs.order import keyed_generator
from train.inputs.shapes import Shapes, take_points
from train.inputs.spatial import moved, unit_sphere
from train.inputs.voxels import Grid, Rows, new_tensor
from train.nets.pooled import Clouds, Pooled, Trained
from train.run.world import to_device

_CHUNK = 16  # shapes of a forward pass
_PAIRS = 2048  # of points whose distances are counted


class ClassifyError(Refused):
    """Shapes, weights and settings that do not fit each other."""


class Look(NamedTuple):
    """How a shape is looked at: number of its points, which of them, and voxels of sparse nets in radii."""

    points: int
    rows: str
    voxel: float
    seed: int


def normalised(shapes: Shapes, look: Look) -> np.ndarray:
    """All shapes in the unit sphere, (M, N, 3) float32. Raises ClassifyError where one has fewer points."""
    out = np.empty((len(shapes.point), look.points, 3), np.float32)
    for i, point in enumerate(shapes.point):
        chosen = take_points(point, look.points, look.rows, keyed_generator(look.seed, 0, i))
        if chosen is None:
            most = min(map(len, shapes.point))
            rule = f"set points={most} (and tuning.points) or fewer, or leave the shape out"
            raise ClassifyError(f"shape {shapes.name[i]} has {len(point)} points, {look.points} are asked for: {rule}")
        out[i] = moved(chosen, unit_sphere(chosen))
    return out


def clouds_of(points: np.ndarray, voxel: float | None) -> Clouds:
    """Shapes (B, N, 3) as what a net takes: points, or voxels of an extent."""
    if voxel is None:
        return Clouds(torch.from_numpy(points), None, len(points))
    rows, grid = Rows(4, new_tensor), Grid()
    planes = np.packbits(np.ones((1, points.shape[1]), bool), axis=1)
    for number, point in enumerate(points):
        grid.clear(len(point), 1)
        grid.mark(np.ascontiguousarray(point), planes, 0, np.eye(3, 4) / voxel)
        grid.write(number, rows)
    return Clouds(None, rows.voxels(), len(points))


def features_of(encoder: Pooled, points: np.ndarray, voxel: float, device: torch.device) -> np.ndarray:
    """Features after pooling (M, channels) float32 of shapes (M, N, 3), the encoder in evaluation mode."""
    encoder.to(device).eval()
    with torch.no_grad():
        found = [encoder(clouds).float().cpu().numpy() for clouds in chunks(encoder, points, voxel, device)]
    return np.concatenate(found)


def chunks(encoder: Pooled, points: np.ndarray, voxel: float, device: torch.device) -> Iterator[Clouds]:
    """Shapes (M, N, 3) as inputs of an encoder on a device, a few at a time."""
    for start in range(0, len(points), _CHUNK):
        size = None if encoder.on_points else voxel
        yield to_device(clouds_of(points[start : start + _CHUNK], size), device)


def random_encoder(trained: Trained, points: np.ndarray, voxel: float, seed: int, device: torch.device) -> Pooled:
    """An encoder of the same shape with weights drawn from a seed. A random net's norms have no statistics of their
    own: they get those of the training shapes (M, N, 3), as they lie."""
    encoder = Pooled(trained.net, trained.k, torch.Generator().manual_seed(seed)).to(device)
    norms = [part for part in encoder.modules() if isinstance(part, nn.BatchNorm1d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all forwards
    encoder.train()
    with torch.no_grad():
        for clouds in chunks(encoder, points[:: max(1, len(points) // 256)], voxel, device):
            encoder(clouds)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    return encoder.eval()


def simple_features(points: np.ndarray, seed: int) -> np.ndarray:
    """Features (M, 74) that need no learning, of shapes (M, N, 3) in the unit sphere: how far random pairs of points
    are apart (64 bins, after Osada et al.'s D2), extents along the axes and principal axes, and heights (A)."""
    rng = keyed_generator(seed, 1, 0)
    first, second = rng.integers(0, points.shape[1], (2, _PAIRS))
    found = []
    for point in points.astype(np.float64):
        distance = np.linalg.norm(point[first] - point[second], axis=1)
        count, _ = np.histogram(distance, 64, (0, 2))
        spread = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(point.T)), 0))
        height = np.quantile(point[:, 2], [0.1, 0.3, 0.7, 0.9])
        found.append(np.concatenate([count / _PAIRS * 10, np.ptp(point, axis=0), spread, height]))
    return np.array(found, np.float32)
