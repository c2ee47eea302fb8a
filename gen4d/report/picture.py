"""A picture of one sequence: its frames, the ways of its shapes over the floor plan, and some correspondences."""

import io
import pathlib
from typing import NamedTuple

import numpy as np

from gen4d import files
from gen4d.sequence import ROLE_MOVING, FloorPlan, Frame, Sequence
from gen4d.shards import Dataset

_MOVERS = ("#e4572e", "#7b3fa0", "#c98a00", "#1f8a4c")  # one colour per mover, in turn
_STILL = "#2e6f95"
_BELOW_M = 0.4
_CEILING_M = 2.2  # above the floor; what is higher hides the room
_LINES = 25  # drawn between corresponding points, of what moves and of what is still
_DRAWN = 60_000
_OUTER = (0.002, 0.998)  # of the points: what lies farther out is not drawn
_MARGIN = 0.03
_TILT_RAD = np.radians(40)


def draw_png(dataset: Dataset, number: int, path: pathlib.Path) -> None:
    """Write a PNG of a sequence of any kind: every frame from above at a slant, some correspondences and, if it has
    one, the floor plan with the positions of what moves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sequence, plan = dataset[number], dataset.floor_plan(number)
    frames = sequence.frames
    columns = min(len(frames), 4)
    rows = -(-len(frames) // columns)
    figure = pyplot.figure(figsize=(4.2 * columns, 3.4 * rows + 4.2), dpi=110, layout="constrained")
    grid = figure.add_gridspec(rows + 1, 2 * columns, height_ratios=[1] * rows + [1.2])
    view = find_view(sequence, frames, plan)
    for i, frame in enumerate(frames):
        axes = figure.add_subplot(grid[i // columns, 2 * (i % columns) : 2 * (i % columns) + 2])
        _draw_frame(axes, frame, sequence, view)
        axes.set(xlim=view.right, ylim=view.up)
        axes.set_title(f"frame {i}: {len(frame.point):,} points", fontsize=9)
    if plan is not None:
        _draw_plan(figure.add_subplot(grid[rows, :columns]), sequence, plan)
    _draw_pairs(figure.add_subplot(grid[rows, columns if plan is not None else 0 :]), sequence, frames, view)
    figure.suptitle(title(sequence), fontsize=11)
    buffer = io.BytesIO()
    pyplot.savefig(buffer, format="png")
    pyplot.close(figure)
    files.make_folder(path.parent)
    files.write(path, buffer.getvalue())


def title(sequence: Sequence) -> str:
    """What a sequence shows, in a line."""
    shapes = " and ".join(mover.shape for mover in sequence.movers)
    if sequence.kind == "moving" and shapes:
        return f"{sequence.id}: {shapes} {'moves' if len(sequence.movers) == 1 else 'move'} through {sequence.scan}"
    return f"{sequence.id}: {sequence.kind}{' of ' + shapes if shapes else ''}"


class View(NamedTuple):
    """What all frames of a sequence are drawn by: one window, one range of heights, one share of points, one dot."""

    right: tuple[float, float]  # of the picture's plane, metres
    up: tuple[float, float]
    heights: tuple[float, float]
    step: int  # every how-manieth point is drawn
    dot: float


def find_view(sequence: Sequence, frames: list[Frame], plan: FloorPlan | None) -> View:
    """One view for all frames: the window holds all but the outermost of the points, and everything that moves."""
    heights = _heights(frames, plan)
    point = np.concatenate([frame.point[frame.point[:, 2] < heights[1]] for frame in frames])
    moving = np.concatenate(
        [frame.point[np.isin(frame.actor, [actor for actor, _ in _moving(sequence)])] for frame in frames]
    )
    most = max((int((frame.point[:, 2] < heights[1]).sum()) for frame in frames), default=0)
    step = max(1, most // _DRAWN)
    dot = 0.4 * float(np.clip(_DRAWN / 2 / max(most / step, 1), 1, 15))  # thin clouds get larger dots
    return View(*_window(point, moving), heights, step, dot)


def _window(point: np.ndarray, moving: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ends of the window to the right and up, with a margin."""
    ends = []
    for values, inner in zip(_project(point)[:2], _project(moving)[:2], strict=True):
        low, high = np.quantile(values, _OUTER) if len(values) else (0.0, 1.0)
        low, high = min([low, *inner]), max([high, *inner])
        margin = _MARGIN * max(high - low, 0.1)
        ends.append((float(low - margin), float(high + margin)))
    return ends[0], ends[1]


def _heights(frames: list[Frame], plan: FloorPlan | None) -> tuple[float, float]:
    """Lowest and highest height that is drawn: of a room from its floor to below its ceiling, or of all points."""
    if plan is not None:
        return plan.floor_m - _BELOW_M, plan.floor_m + _CEILING_M
    z = np.concatenate([frame.point[:, 2] for frame in frames])
    return (float(z.min()), float(z.max()) + 1e-3) if len(z) else (0.0, 1.0)


def _project(point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slanted view from the south: right, up in the picture, and nearness."""
    x, y, z = point.astype(np.float64).T
    return x, y * np.sin(_TILT_RAD) + z * np.cos(_TILT_RAD), -y * np.cos(_TILT_RAD) + z * np.sin(_TILT_RAD)


def _moving(sequence: Sequence) -> list[tuple[int, str]]:
    """Numbers of the actors that move, and the colours of their movers."""
    actors = enumerate(sequence.actors)
    return [(a, _MOVERS[max(x.mover, 0) % len(_MOVERS)]) for a, x in actors if x.role == ROLE_MOVING]


def _draw_frame(axes, frame: Frame, sequence: Sequence, view: View) -> None:
    low, top = view.heights
    shown = np.flatnonzero(frame.point[:, 2] < top)[:: view.step]
    right, up, near = _project(frame.point[shown])
    order = np.argsort(near)
    height = frame.point[shown, 2][order]
    pale = low + 1.25 * (top - low)  # what is highest is drawn in a colour that can still be seen
    axes.scatter(right[order], up[order], c=height, s=view.dot, cmap="GnBu_r", lw=0, vmin=low, vmax=pale)
    for actor, colour in _moving(sequence) if sequence.kind == "moving" else ():  # views: nothing else is there
        right, up, _ = _project(frame.point[frame.actor == actor])
        axes.scatter(right, up, c=colour, s=1.4, lw=0)
    axes.set_aspect("equal")
    axes.axis("off")


def _draw_plan(axes, sequence: Sequence, plan: FloorPlan) -> None:
    """Free floor, and of every mover its points, the disc kept free around it and its way, numbered by frame."""
    from matplotlib.patches import Circle

    extent = (np.array([plan.origin, plan.origin + plan.valid.shape]) * plan.cell_m).T.ravel()
    axes.imshow(plan.valid.T, origin="lower", extent=extent, cmap="Greys_r", vmin=-1.5, vmax=1, alpha=0.9)
    drawn = set()
    for a, colour in _moving(sequence):
        actor = sequence.actors[a]
        way = actor.pose[:, :2, 3]
        for i in np.flatnonzero(actor.present):
            pose = actor.pose[i]
            cloud = actor.cloud.point @ pose[:3, :3].T + pose[:3, 3]
            axes.scatter(cloud[:, 0], cloud[:, 1], s=0.5, lw=0, c=colour, alpha=1.0 if i == 0 else 0.5)
            if actor.mover >= 0 and actor.mover not in drawn:
                axes.add_patch(Circle(way[i], sequence.movers[actor.mover].radius_m, fill=False, color=colour, lw=0.8))
                axes.annotate(str(i), way[i], fontsize=8, ha="center", va="center")
        if actor.mover not in drawn:
            axes.plot(way[:, 0], way[:, 1], "-", c="k" if actor.mover <= 0 else colour, lw=0.8)
        drawn.add(actor.mover)
    axes.set_title("floor plan: free floor light, the disc kept free around each shape", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.set_aspect("equal")


def chosen_pairs(sequence: Sequence, frames: list[Frame], top: float) -> list[tuple[int, int, bool]]:
    """Rows of the first and of the last frame of some points that both hold, and whether each moves: an even choice
    among those that move and among those of the rest that lie below `top`."""
    first = frames[0]
    a, b = sequence.correspondences(0, sequence.t - 1)
    moving = np.isin(first.actor[a], [actor for actor, _ in _moving(sequence)])
    still = ~moving & (first.point[a, 2] < top)
    chosen = []
    for which, moves in ((np.flatnonzero(moving), True), (np.flatnonzero(still), False)):
        rows = which[:: max(1, len(which) // _LINES)][:_LINES]
        chosen += [(int(a[row]), int(b[row]), moves) for row in rows]
    return chosen


def _draw_pairs(axes, sequence: Sequence, frames: list[Frame], view: View) -> None:
    """The first and the last frame side by side, with lines between some corresponding points."""
    first, last = frames[0], frames[-1]
    gap = np.array([view.right[1] - view.right[0], 0, 0], np.float32)
    for frame, shift in ((first, 0 * gap), (last, gap)):
        _draw_frame(axes, frame._replace(point=frame.point + shift), sequence, view)
    axes.set(xlim=(view.right[0], view.right[1] + float(gap[0])), ylim=view.up)
    colours = dict(_moving(sequence))
    for i, j, moves in chosen_pairs(sequence, frames, view.heights[1]):
        right, up, _ = _project(np.stack([first.point[i], last.point[j] + gap]))
        axes.plot(right, up, c=colours[int(first.actor[i])] if moves else _STILL, lw=0.35, alpha=0.8)
    count = len(sequence.correspondences(0, sequence.t - 1)[0])
    axes.set_title(f"{count:,} correspondences between frames 0 and {sequence.t - 1}, some drawn", fontsize=9)
