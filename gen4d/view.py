"""A picture of one sequence: its frames, and the way of its shape over the floor plan."""

import io
import pathlib

import numpy as np

from gen4d import files
from gen4d.shards import Dataset, Frame, Sequence

_MOVING = "#e4572e"
_GHOST = "#f3a78d"
_DRAWN = 60_000
_TILT_RAD = np.radians(40)


def draw_png(dataset: Dataset, number: int, path: pathlib.Path) -> None:
    """Write a PNG of a sequence: every frame from above at a slant, and the floor plan with the shape's positions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sequence = dataset[number]
    frames = sequence.frames
    plan = dataset.floor_plan(number)
    columns = min(len(frames), 4)
    rows = -(-len(frames) // columns)
    figure = pyplot.figure(figsize=(4.2 * columns, 3.4 * rows + 4.2), dpi=110, layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1] * rows + [1.2])
    top = plan.floor_m + 2.2
    for i, frame in enumerate(frames):
        axes = figure.add_subplot(grid[i // columns, i % columns])
        _draw_frame(axes, frame, top)
        axes.set_title(f"frame {i}: {len(frame.point):,} points", fontsize=9)
    _draw_plan(figure.add_subplot(grid[rows, : columns // 2]), sequence, plan)
    _draw_pairs(figure.add_subplot(grid[rows, columns // 2 :]), sequence, frames, top)
    figure.suptitle(f"{sequence.id}: {sequence.shape} moves through {sequence.scan}", fontsize=11)
    buffer = io.BytesIO()
    pyplot.savefig(buffer, format="png")
    pyplot.close(figure)
    files.make_folder(path.parent)
    files.write(path, buffer.getvalue())


def _project(point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slanted view from the south: right, up in the picture, and nearness."""
    x, y, z = point.astype(np.float64).T
    return x, y * np.sin(_TILT_RAD) + z * np.cos(_TILT_RAD), -y * np.cos(_TILT_RAD) + z * np.sin(_TILT_RAD)


def _draw_frame(axes, frame: Frame, top: float) -> None:
    shown = np.flatnonzero(frame.point[:, 2] < top)
    shown = shown[:: max(1, len(shown) // _DRAWN)]
    right, up, near = _project(frame.point[shown])
    order = np.argsort(near)
    height = frame.point[shown, 2]
    axes.scatter(right[order], up[order], c=height[order], s=0.4, cmap="GnBu_r", lw=0, vmin=top - 2.6, vmax=top + 0.6)
    moving = frame.actor > 0
    right, up, _ = _project(frame.point[moving])
    axes.scatter(right, up, c=_MOVING, s=1.4, lw=0)
    axes.set_aspect("equal")
    axes.axis("off")


def _draw_plan(axes, sequence: Sequence, plan) -> None:
    extent = (np.array([plan.origin, plan.origin + plan.valid.shape]) * plan.cell_m).T.ravel()
    axes.imshow(plan.valid.T, origin="lower", extent=extent, cmap="Greys_r", vmin=-1.5, vmax=1, alpha=0.9)
    shape = sequence.actors[1]
    way = shape.pose[:, :2, 3]
    for i, pose in enumerate(shape.pose):
        cloud = shape.cloud.point @ pose[:3, :3].T + pose[:3, 3]
        axes.scatter(cloud[:, 0], cloud[:, 1], s=0.5, lw=0, c=_MOVING if i == 0 else _GHOST)
        axes.add_patch(_circle(way[i], plan.radius_m))
        axes.annotate(str(i), way[i], fontsize=8, ha="center", va="center")
    axes.plot(way[:, 0], way[:, 1], "k-", lw=0.8)
    axes.set_title("floor plan: free floor light, the disc kept free around the shape", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.set_aspect("equal")


def _circle(centre, radius_m):
    from matplotlib.patches import Circle

    return Circle(centre, radius_m, fill=False, color=_MOVING, lw=0.8)


def _draw_pairs(axes, sequence: Sequence, frames: list[Frame], top: float) -> None:
    """The first and the last frame side by side, with lines between some corresponding points."""
    first, last = frames[0], frames[-1]
    low, high = first.point.min(axis=0), first.point.max(axis=0)
    gap = np.array([high[0] - low[0] + 0.6, 0, 0], np.float32)
    for frame, shift in ((first, 0 * gap), (last, gap)):
        _draw_frame(axes, frame._replace(point=frame.point + shift), top)
    a, b = sequence.correspondences(0, sequence.t - 1)
    moving = np.flatnonzero(first.actor[a] > 0)
    still = np.flatnonzero((first.actor[a] == 0) & (first.point[a, 2] < top))
    for rows, count, colour in ((moving, 25, _MOVING), (still, 25, "#2e6f95")):
        for row in rows[:: max(1, len(rows) // count)][:count]:
            right, up, _ = _project(np.stack([first.point[a[row]], last.point[b[row]] + gap]))
            axes.plot(right, up, c=colour, lw=0.35, alpha=0.8)
    axes.set_title(f"{len(a):,} correspondences between frames 0 and {sequence.t - 1}, some drawn", fontsize=9)
