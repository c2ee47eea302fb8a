"""How clouds are varied for STRL: the transforms of Eq. 2 and the spatial augmentations, both of section 4.

Ranges and chances are as printed there; (A) marks what it leaves open. Lengths are those of the clouds: of the unit
sphere for shapes, which are brought to it, metres for scenes, which are not. Boxes have the axes of the cloud's frame
of reference, and sides in shares of its extent along each.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from train.config import check, shares

_TRIES = 10
LEAST = 128  # points that a crop or cut-out leaves, unless the cloud has fewer (A)


@dataclass(frozen=True)
class Temporal:
    """Eq. 2: ranges of a rotation, a translation and a scale, each of which is made with `chance`."""

    angle_rad: float = math.radians(15)  # either way about each axis, through the mean of the points (A)
    shift: float = 0.1  # either way along each axis, of the extent along it
    scale_least: float = 0.8
    scale_most: float = 1.25
    chance: float = 0.5

    def __post_init__(self):
        rules = [
            ("angle_rad", 0 <= self.angle_rad <= math.pi, "from 0 to pi"),
            ("shift", 0 <= self.shift <= 10, "from 0 to 10"),
            ("scale_least", 0 < self.scale_least <= self.scale_most, "above 0 and not above scale_most"),
            *shares(self, "chance"),
        ]
        check(self, rules)


@dataclass(frozen=True)
class Spatial:
    """What becomes of a cloud's local geometry."""

    crop_chance: float = 0.5
    crop_low: float = 0.6  # volume of the crop, of the cloud's box
    crop_high: float = 1.0
    aspect_low: float = 0.75  # of any two sides of the crop
    aspect_high: float = 1.33
    cutout_chance: float = 0.5
    cutout_low: float = 0.1  # each side of what is cut out
    cutout_high: float = 0.4
    jitter: float = 0.05  # each coordinate is moved by up to this, never back
    dropout: float = 0.7  # largest share of points that is left out

    def __post_init__(self):
        rules = [
            *shares(self, "crop_chance", "cutout_chance"),
            ("crop_low", 0 < self.crop_low <= self.crop_high <= 1, "above 0, and not above crop_high, 1 at most"),
            ("aspect_low", 0 < self.aspect_low <= 1 <= self.aspect_high, "above 0, and 1 between it and aspect_high"),
            ("cutout_low", 0 <= self.cutout_low <= self.cutout_high < 1, "from 0 to cutout_high, which is below 1"),
            ("jitter", 0 <= self.jitter <= 10, "from 0 to 10"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
        ]
        check(self, rules)


# Eq. 2 ---------------------------------------------------------------------------------------------------------------


def draw_transform(point: np.ndarray, ranges: Temporal, rng: np.random.Generator) -> np.ndarray:
    """One step of Eq. 2 for points (N, 3): a similarity (4, 4) float64. Draws as much whatever is made of it."""
    turned, moved, scaled = rng.random(3) < ranges.chance
    angle = rng.uniform(-ranges.angle_rad, ranges.angle_rad, 3)
    shift = rng.uniform(-ranges.shift, ranges.shift, 3)
    scale = rng.uniform(ranges.scale_least, ranges.scale_most)
    low, high = point.min(axis=0).astype(np.float64), point.max(axis=0).astype(np.float64)
    linear = about_axes(angle) if turned else np.eye(3)
    linear = linear * (scale if scaled else 1.0)
    middle = point.mean(axis=0, dtype=np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = middle - linear @ middle + (shift * (high - low) if moved else 0)
    return matrix


def about_axes(angle_rad: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angle_rad), np.sin(angle_rad)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return z @ y @ x


def moved(point: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (N, 3) float32 under a matrix (4, 4)."""
    return (point @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)


# Spatial augmentation ------------------------------------------------------------------------------------------------


def draw_crop(recipe: Spatial, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corner (3,) of what a crop keeps, in shares of the extent. Its place is uniform within the cloud's
    box (A). The aspect is the ratio of two sides, the third is their geometric mean; axes change places at random (A).
    """
    volume = rng.uniform(recipe.crop_low, recipe.crop_high)
    for _ in range(_TRIES):
        half = math.sqrt(rng.uniform(recipe.aspect_low, recipe.aspect_high))
        side = volume ** (1 / 3) * rng.permutation([half, 1 / half, 1.0])
        if side.max() <= 1:
            return _placed(side, rng)
    return _placed(np.full(3, volume ** (1 / 3)), rng)


def draw_cutout(recipe: Spatial, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corner (3,) of what is cut out, in shares of the extent; it lies within the cloud's box (A)."""
    return _placed(rng.uniform(recipe.cutout_low, recipe.cutout_high, 3), rng)


def _placed(side: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    low = rng.random(3) * (1 - side)
    return low, low + side


def inside(point: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which points (N,) lie in a box in shares of their own extent."""
    first, last = point.min(axis=0), point.max(axis=0)
    share = (point - first) / np.maximum(last - first, 1e-12)
    return ((share >= low) & (share <= high)).all(axis=1)


def crop(point: np.ndarray, recipe: Spatial, rng: np.random.Generator) -> np.ndarray:
    """What a crop leaves of points (N, 3): at least LEAST; after ten tries, all."""
    return _tried(point, rng, lambda: inside(point, *draw_crop(recipe, rng)))


def cut_out(point: np.ndarray, recipe: Spatial, rng: np.random.Generator) -> np.ndarray:
    """What a cut-out leaves of points (N, 3), likewise."""
    return _tried(point, rng, lambda: ~inside(point, *draw_cutout(recipe, rng)))


def _tried(point: np.ndarray, rng: np.random.Generator, draw, least: int = LEAST) -> np.ndarray:
    for _ in range(_TRIES):
        kept = draw()
        if kept.sum() >= min(least, len(point)):
            return point[kept]
    return point


def drop_out(point: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """Points (N, 3) without a share of them that is uniform from 0 to `most`."""
    kept = rng.random(len(point)) >= rng.uniform(0, most)
    return point[kept] if kept.any() else point


def down_sample(point: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the points (N, 3) at random; where there are fewer, all of them and some of them again (A)."""
    if len(point) >= count:
        return point[rng.choice(len(point), count, replace=False, shuffle=False)]
    again = rng.integers(0, len(point), count - len(point))
    return np.concatenate([point, point[again]])


def vary(point: np.ndarray, count: int | None, recipe: Spatial, rng: np.random.Generator) -> np.ndarray:
    """A cloud (N, 3) float32 as an input of the net: section 4's augmentations in its order. count: how many points it
    takes; None leaves all that are left."""
    if rng.random() < recipe.crop_chance:
        point = crop(point, recipe, rng)
    if rng.random() < recipe.cutout_chance:
        point = cut_out(point, recipe, rng)
    point = point + rng.uniform(0, recipe.jitter, point.shape).astype(np.float32)
    point = drop_out(point, recipe.dropout, rng)
    return point if count is None else down_sample(point, count, rng)


def unit_sphere(point: np.ndarray) -> np.ndarray:
    """The matrix (4, 4) that brings points (N, 3) to a unit sphere around their mean."""
    middle = point.mean(axis=0, dtype=np.float64)
    radius = float(np.linalg.norm(point - middle, axis=1).max())
    matrix = np.eye(4) / (radius or 1.0)
    matrix[:3, 3] = -middle / (radius or 1.0)
    matrix[3, 3] = 1
    return matrix


# The public code's values --------------------------------------------------------------------------------------------


def vary_as_published(point: np.ndarray, count: int, shape: bool, rng: np.random.Generator) -> np.ndarray:
    """The same as the published code of STRL has it, whose values, order and chances are others than the paper's.

    shape: whether the cloud is one; of scenes, whose frames are large, nothing is made up between points, and they are
    brought to the unit sphere before anything else instead of after the crop. Every cloud is normalised by itself, so
    what moves it between two frames is lost.
    """
    point = between(point, 2 * count, rng) if shape else moved(point, unit_sphere(point))
    if not shape:
        point = _moved_as_published(point, rng)
    if rng.random() < 0.5:
        ratio = rng.uniform(0.75, 1.33)
        side = np.minimum(rng.uniform(0.6, 1.1) * np.array([1, ratio, 1 / ratio]), 1)
        point = _tried(point, rng, lambda: inside(point, *_placed(side, rng)), count)
    if shape:
        point = moved(point, unit_sphere(point))
    if rng.random() < 0.5:
        point = _tried(point, rng, lambda: ~inside(point, *_placed(rng.uniform(0.3, 0.6, 3), rng)))
    if shape:
        point = _moved_as_published(point, rng)
    point = np.where(rng.random((len(point), 1)) < rng.uniform(0, 0.875), point[:1], point)  # not dropped: overwritten
    return down_sample(point, count, rng)


def _moved_as_published(point: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale, rotation, translation and jitter, always."""
    point = point * np.float32(rng.uniform(0.8, 1.25))
    matrix = np.eye(4)
    matrix[:3, :3] = about_axes(np.clip(rng.normal(0, 0.06, 3), -0.18, 0.18))
    matrix[:3, 3] = rng.uniform(-0.1, 0.1, 3) * np.ptp(point, axis=0)
    noise = np.clip(rng.normal(0, 0.01, point.shape), -0.05, 0.05)
    return moved(point, matrix) + noise.astype(np.float32)


def between(point: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points (N, 3) with others between them, `count` in all: each the mean of five of the ten nearest of one."""
    missing = max(count - len(point), 0)
    near = min(10, len(point))
    of = point[rng.integers(0, len(point), missing)]
    row = cKDTree(point).query(of, near)[1].reshape(missing, near)
    chosen = np.argsort(rng.random((missing, near)), axis=1)[:, : min(5, near)]
    mean = point[np.take_along_axis(row, chosen, axis=1)].mean(axis=1, dtype=np.float64)
    return np.concatenate([point, mean.astype(np.float32)])
