"""A picture of one sequence, still or moving: points as discs shaded by depth, over them ways and pairs. Any
other points in the same look."""

import io
import math
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import cKDTree

from gen4d import files
from gen4d.report import kernels
from gen4d.report.scene import HEADROOM_M, INNER, chosen_pairs, framed, moving, outward, title
from gen4d.sequence import Actor, Cloud, FloorPlan, Frame, Sequence
from gen4d.shards import Dataset

BACK, INK, PALE = (247, 246, 242), (34, 38, 43), (107, 113, 120)
GREEN, STILL = (158, 209, 153), (46, 127, 165)
MOVERS = ((228, 87, 46), (141, 79, 184), (201, 138, 0), (31, 138, 76))  # one colour per mover, in turn
_RAMP = np.array([(33, 66, 107), (64, 140, 153), (222, 213, 178)], np.float64)  # from low to high
_YAW, _PITCH, _FIELD = -0.9, 0.75, 0.6  # of the camera, radians
_FINER = 2  # pixels are drawn so many times smaller, and averaged
_THIN = 1.6  # what moves has fewer points than a scan, drawn so much larger
_CUT_M = 0.3  # above the floor: what is higher at a wall that faces the camera is cut away
_PANEL, _WIDE = (480, 380), 460  # of a frame, and height of the pairs, in pixels
_COLUMNS = 4
_MARGIN = 1.1  # around points that are framed without a floor plan
_CELL_M = 0.1  # in which the outline of points without a floor plan is sought
_FEW, _COARSE = 20_000, 2.3  # points of a thumbnail, and how much larger they are
_WIDER, _WIDER_SHAPE = 1.1, 1.35  # than a picture a thumbnail sees, so that no corner is cut off
_GIF, _BETWEEN, _TICK_MS = (640, 420), 5, 140


class View(NamedTuple):
    """What all frames of a sequence are drawn by: where the camera looks, how far around, and which heights count."""

    centre: tuple[float, ...]
    radius: float
    low: float  # of the colours, metres
    high: float
    cut: float  # what is higher is not drawn
    plan: FloorPlan | None
    outward: np.ndarray | None  # of the points of actor 0: see scene.outward


def draw_png(dataset: Dataset, number: int, path: pathlib.Path) -> None:
    """Write a PNG of a sequence of any kind: every frame, and some correspondences of the first with the last."""
    sequence, plan = dataset[number], dataset.floor_plan(number)
    frames = sequence.frames
    view = find_view(sequence, frames, plan)
    columns = min(len(frames), _COLUMNS)
    rows = -(-len(frames) // columns)
    width, height = _PANEL
    sheet = Image.new("RGB", (columns * width, 44 + rows * (height + 22) + _WIDE + 26), BACK)
    pen = ImageDraw.Draw(sheet)
    pen.text((sheet.width / 2, 22), title(sequence), INK, _font(20), anchor="mm")
    for i, frame in enumerate(frames):
        left, top = i % columns * width, 44 + i // columns * (height + 22)
        sheet.paste(_drawn(sequence, frame, i, view, _PANEL), (left, top + 22))
        pen.text((left + width / 2, top + 11), f"frame {i}: {len(frame.point):,} points", PALE, _font(15), anchor="mm")
    count = len(sequence.correspondences(0, sequence.t - 1)[0])
    text = f"{count:,} correspondences between frames 0 and {sequence.t - 1}, some drawn"
    pen.text((sheet.width / 2, sheet.height - _WIDE - 13), text, PALE, _font(15), anchor="mm")
    sheet.paste(_pairs(sequence, frames, view, (sheet.width, _WIDE)), (0, sheet.height - _WIDE))
    _save(path, sheet, format="PNG")


def draw_gif(dataset: Dataset, number: int, path: pathlib.Path) -> None:
    """Write a GIF of a sequence of any kind, which goes on for ever; between two frames what moves goes straight."""
    sequence, plan = dataset[number], dataset.floor_plan(number)
    frames = sequence.frames
    view = find_view(sequence, frames, plan)
    shown = [_drawn(sequence, frame, float(i), view, _GIF) for i, frame in enumerate(frames)]
    if moving(sequence):
        between = [i + k / _BETWEEN for i in range(len(frames) - 1) for k in range(_BETWEEN)]
        shown = [_drawn(sequence, _moved(sequence, frames, time), time, view, _GIF) for time in between] + shown[-1:]
    first, *rest = [image.quantize(128) for image in shown]
    ticks = [_TICK_MS * (1 if moving(sequence) else _BETWEEN)] * (len(shown) - 1) + [6 * _TICK_MS]
    _save(path, first, format="GIF", save_all=True, append_images=rest, duration=ticks, loop=0)


def thumbnail(sequence: Sequence, plan: FloorPlan | None, size: tuple[int, int]) -> bytes:
    """A small WebP of a whole scan, of some of its points, and of the first frame of what moves; its background is
    clear."""
    actors = tuple(map(_thinned, sequence.actors))
    sequence = Sequence(sequence.scan, sequence.k, actors, sequence.movers, sequence.kind)
    frame, buffer = sequence[0], io.BytesIO()
    view = find_view(sequence, [frame], plan)
    wider = _WIDER_SHAPE if sequence.kind == "views" else _WIDER
    view = view._replace(radius=wider * view.radius)
    _drawn(sequence, frame, 0.0, view, size, small=True).save(buffer, "webp", quality=60, method=4)
    return buffer.getvalue()


def _thinned(actor: Actor) -> Actor:
    """An actor with few of its points, which lie in Morton order or in that of a sensor: every so-manieth; a static one
    with all that its frames lack."""
    point = actor.cloud.point[:: max(1, len(actor.cloud) // _FEW)]
    shown = actor.present[:, None] & np.ones(len(point), np.bool_)
    return actor._replace(cloud=Cloud(point), planes=np.packbits(shown, axis=1))


def _save(path: pathlib.Path, image: Image.Image, **how) -> None:
    buffer = io.BytesIO()
    image.save(buffer, **how)
    files.make_folder(path.parent)
    files.write(path, buffer.getvalue())


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def find_view(sequence: Sequence, frames: list[Frame], plan: FloorPlan | None) -> View:
    """One view for all frames: it holds all but the outermost of the points near free floor, and all that moves."""
    point = np.concatenate([frame.point for frame in frames])
    centre, radius = framed(point, plan)
    moved = np.concatenate([frame.point[np.isin(frame.actor, moving(sequence))] for frame in frames])
    if len(moved):
        radius = max(radius, float(np.linalg.norm(moved - np.float32(centre), axis=1).max()))
    low, high = np.quantile(point[:, 2], INNER) if len(point) else (0.0, 1.0)
    if plan is None:
        return View(tuple(centre), radius, float(low), float(high), math.inf, None, None)
    out = outward(sequence.actors[0].cloud.point, plan)
    return View(
        tuple(centre), radius, plan.floor_m, plan.floor_m + HEADROOM_M * 1.15, plan.floor_m + HEADROOM_M, plan, out
    )


def _camera(view: View, size: tuple[int, int]) -> tuple[np.ndarray, float, np.ndarray]:
    """Camera (3, 4) as the kernel takes it, pixels per unit at distance 1, and the way to the camera (2,)."""
    width, height = size
    to = np.array([math.cos(_PITCH) * math.cos(_YAW), math.cos(_PITCH) * math.sin(_YAW), math.sin(_PITCH)])
    right = np.array([-math.sin(_YAW), math.cos(_YAW), 0.0])
    away = 0.78 * view.radius / math.sin(_FIELD / 2) / min(1.0, width / height)
    turn = np.stack([right, np.cross(to, right), -to])
    eye = np.array(view.centre) + away * to
    camera = np.concatenate([turn, -(turn @ eye)[:, None]], axis=1)
    return camera, height / 2 / math.tan(_FIELD / 2), to[:2] / np.linalg.norm(to[:2])


def ramp(share: np.ndarray) -> np.ndarray:
    """Colours (N, 3) uint8 of shares (N,): blue, teal, sand."""
    at = np.clip(share, 0, 1) * (len(_RAMP) - 1)
    return np.stack([np.interp(at, range(len(_RAMP)), _RAMP[:, k]) for k in range(3)], axis=1).astype(np.uint8)


def _colours(sequence: Sequence, frame: Frame, view: View) -> np.ndarray:
    """Colours (N, 3) uint8: of height, free floor green, and what moves in its mover's."""
    colour = ramp((frame.point[:, 2] - view.low) / max(view.high - view.low, 1e-6))
    if view.plan is not None:
        at = np.floor(frame.point[:, :2] / view.plan.cell_m).astype(np.int64) - view.plan.origin
        held = ((at >= 0) & (at < view.plan.valid.shape)).all(axis=1) & (
            np.abs(frame.point[:, 2] - view.plan.floor_m) < 0.1
        )
        held[held] = view.plan.valid[tuple(at[held].T)]
        colour[held] = (0.45 * colour[held] + 0.55 * np.array(GREEN)).astype(np.uint8)
    for number in moving(sequence):
        colour[frame.actor == number] = _mover_colour(sequence, number)
    return colour


def _mover_colour(sequence: Sequence, number: int) -> tuple[int, int, int]:
    return MOVERS[max(sequence.actors[number].mover, 0) % len(MOVERS)]


def _floor(plan: FloorPlan) -> np.ndarray:
    """Points (N, 3) float32 all over the free floor, a little below it, so that the scan covers them."""
    spread = (np.stack(np.meshgrid(*[np.arange(4)] * 2), axis=-1).reshape(-1, 2) + 0.5) / 4
    flat = ((np.argwhere(plan.valid) + plan.origin)[:, None] + spread).reshape(-1, 2) * plan.cell_m
    return np.concatenate([flat, np.full((len(flat), 1), plan.floor_m - 0.04)], axis=1).astype(np.float32)


def _drawn(
    sequence: Sequence, frame: Frame, time: float, view: View, size: tuple[int, int], small: bool = False
) -> Image.Image:
    """A frame's points, and the ways of what moves, the position at `time` marked. small: no background."""
    fine = (size[0] * _FINER, size[1] * _FINER)
    camera, scale, facing = _camera(view, fine)
    image, depth = _blank(fine)
    out = None
    if view.outward is not None:
        out = np.where(frame.actor == 0, view.outward[np.where(frame.actor == 0, frame.point_index, 0)], 0)
    shown = _shown(frame.point, out, view, facing)
    size_m = (_COARSE if small else 1.0) * (
        view.radius / 45 if sequence.kind == "views" else max(view.radius / 150, 0.022)
    )
    if view.plan is not None:
        floor = _floor(view.plan)
        green = np.tile(np.array(GREEN, np.uint8), (len(floor), 1))
        kernels.splat(floor, green, camera, scale, 0.4 * view.plan.cell_m, image, depth)
    colour, moves = _colours(sequence, frame, view), np.isin(frame.actor, moving(sequence))
    for which, larger in ((shown & ~moves, 1.0), (shown & moves, _THIN)):
        kernels.splat(frame.point[which], colour[which], camera, scale, larger * size_m, image, depth)
    kernels.shade(image, depth, _FINER, 4.0)
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    _draw_ways(pen, sequence, time, view, lambda point: _pixels(point, camera, scale, fine), not small)
    if small:
        held = np.isfinite(depth) | (np.asarray(picture) != image).any(axis=2)
        picture.putalpha(Image.fromarray(held.view(np.uint8) * 255))
    return picture.resize(size, Image.Resampling.BOX)


def _blank(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image and its depths, with nothing in them."""
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[:] = BACK
    return image, np.full(size[::-1], np.inf)


def _shown(point: np.ndarray, out: np.ndarray | None, view: View, facing: np.ndarray) -> np.ndarray:
    """Which points (N, 3) neither hide the room from above nor, by the way `out` (N,) that they face, from the side."""
    shown = point[:, 2] <= view.cut
    if out is not None:
        angle = (out.astype(np.float64) - 1) / 254 * 2 * math.pi
        near = (out > 0) & (np.cos(angle) * facing[0] + np.sin(angle) * facing[1] > 0.25)
        shown &= ~(near & (point[:, 2] > view.plan.floor_m + _CUT_M))
    return shown


def _pixels(point: np.ndarray, camera: np.ndarray, scale: float, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Where points (N, 3) are in the picture."""
    right, up, away = camera[:, :3] @ np.asarray(point, np.float64).T + camera[:, 3:]
    return list(zip(size[0] / 2 + right * scale / away, size[1] / 2 - up * scale / away, strict=True))


def _draw_ways(pen: ImageDraw.ImageDraw, sequence: Sequence, time: float, view: View, place, numbered: bool) -> None:
    """Of every mover its way over the floor, the disc kept free around it in each frame, and the frames' numbers."""
    turns = np.linspace(0, 2 * math.pi, 49)
    circle = np.stack([np.cos(turns), np.sin(turns), np.zeros(49)], axis=1)
    done = set()
    for number in moving(sequence):
        actor = sequence.actors[number]
        if actor.mover in done:
            continue
        done.add(actor.mover)
        way = actor.pose[:, :3, 3].astype(np.float64)
        radius = sequence.movers[actor.mover].radius_m if actor.mover >= 0 else math.nan
        if view.plan is not None:
            way[:, 2] = view.plan.floor_m + 0.02
        colour = _mover_colour(sequence, number)
        pen.line(place(way), colour, 2 * _FINER, joint="curve")
        for i, at in enumerate(way):
            if not math.isnan(radius) and view.plan is not None:
                pen.line(place(at + radius * circle), colour, _FINER * (2 if i == round(time) else 1))
        for i, (x, y) in enumerate(place(way) if numbered else ()):
            r = 6 * _FINER
            pen.ellipse((x - r, y - r, x + r, y + r), colour)
            pen.text((x, y), str(i), (255, 255, 255), _font(9 * _FINER), anchor="mm")


def _pairs(sequence: Sequence, frames: list[Frame], view: View, size: tuple[int, int]) -> Image.Image:
    """The first and the last frame side by side, with lines between some corresponding points."""
    half = (size[0] // 2, size[1])
    sheet = Image.new("RGB", size, BACK)
    ends = ((0, frames[0]), (len(frames) - 1, frames[-1]))
    for side, (i, frame) in enumerate(ends):
        sheet.paste(_drawn(sequence, frame, i, view, half), (side * half[0], 0))
    camera, scale, _ = _camera(view, half)
    pen = ImageDraw.Draw(sheet)
    for i, j, moves in chosen_pairs(sequence, frames, view.cut):
        colour = _mover_colour(sequence, int(frames[0].actor[i])) if moves else STILL
        here, there = _pixels(np.stack([frames[0].point[i], frames[-1].point[j]]), camera, scale, half)
        pen.line([here, (there[0] + half[0], there[1])], colour, 1)
    return sheet


def _moved(sequence: Sequence, frames: list[Frame], time: float) -> Frame:
    """The frame nearest in time, with what moves on its straight way to the next."""
    from scipy.spatial.transform import Rotation, Slerp

    i, nearest = int(time), round(time)
    frame = frames[nearest]
    if time == i:
        return frame
    point = frame.point.copy()
    for number in moving(sequence):
        pose = sequence.actors[number].pose[i : i + 2].astype(np.float64)
        here = frame.actor == number
        turn = Slerp([i, i + 1], Rotation.from_matrix(pose[:, :3, :3]))(time).as_matrix()
        shift = pose[0, :3, 3] + (time - i) * (pose[1, :3, 3] - pose[0, :3, 3])
        point[here] = sequence.actors[number].cloud.point[frame.point_index[here]] @ turn.T + shift
    return frame._replace(point=point)


def view_points(point: np.ndarray) -> View:
    """How points (N, 3) float32 in metres, z up, are looked at where no floor is known: it is taken to lie at their
    lowest percentile. What is smaller than a room is shown whole."""
    floor = float(np.percentile(point[:, 2], 1))
    within = point[point[:, 2] < floor + HEADROOM_M]
    centre, radius = framed(within, None)
    radius *= _MARGIN
    wide = np.ptp(np.quantile(within[:, :2], INNER, axis=0), axis=0).min() > HEADROOM_M
    origin = np.floor(within[:, :2].min(axis=0) / _CELL_M).astype(np.int32)
    plan = FloorPlan(np.zeros((1, 1), bool), origin, floor, _CELL_M)  # of which nothing is known to be free
    out = outward(point, plan) if wide else None
    return View(tuple(centre), radius, floor, floor + HEADROOM_M, floor + HEADROOM_M, plan, out)


def draw_points(
    point: np.ndarray,
    colour: np.ndarray,
    view: View,
    size: tuple[int, int] = (720, 540),
    lines: Iterable[tuple[np.ndarray, tuple[int, int, int]]] = (),
) -> Image.Image:
    """Points (N, 3) float32 in colours (N, 3) uint8, in the look of sequences. view: of these points; lines: drawn over
    them, each (K, 3) metres in a colour."""
    fine = (size[0] * _FINER, size[1] * _FINER)
    camera, scale, facing = _camera(view, fine)
    image, depth = _blank(fine)
    shown = _shown(point, view.outward, view, facing)
    kernels.splat(point[shown], colour[shown], camera, scale, _spacing(point[shown], view), image, depth)
    kernels.shade(image, depth, _FINER, 4.0)
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    for line, ink in lines:
        pen.line(_pixels(line, camera, scale, fine), ink, 2 * _FINER, joint="curve")
    return picture.resize(size, Image.Resampling.BOX)


def _spacing(point: np.ndarray, view: View) -> float:
    """Extent of a point that closes surfaces: how far some points lie from their sixth neighbour, in bounds."""
    some = point[:: max(1, len(point) // 2000)]
    apart = float(np.median(cKDTree(point).query(some, 7)[0][:, 6])) if len(point) > 6 else math.inf
    return min(max(apart, view.radius / 150), view.radius / 50)
