"""Pictures of point clouds."""

import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from gen4d import files


def draw_above(
    point: np.ndarray,
    colours: np.ndarray,
    out: pathlib.Path,
    legend: Mapping[str, np.ndarray] | None = None,
    lines: Sequence[tuple[np.ndarray, str]] = (),
) -> None:
    """Points (n, 3) in colours (n, 3) from 0 to 1, seen from above, without what lies over 2 m above the lowest
    percentile and without points far aside. legend: names and their colours; lines: drawn over the points, each (k, 2)
    metres in a colour."""
    import matplotlib  # slow to import, and needed for pictures alone

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seen = point[:, 2] < np.percentile(point[:, 2], 1) + 2
    order = np.flatnonzero(seen)[np.argsort(point[seen, 2], kind="stable")]
    figure, axes = pyplot.subplots(figsize=(8, 8), dpi=150)
    axes.scatter(point[order, 0], point[order, 1], c=colours[order], s=1, linewidths=0)
    for line, colour in lines:
        axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=1.2)
    for name, colour in (legend or {}).items():
        axes.scatter([], [], color=colour, label=name)
    if legend:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    low, high = np.percentile(point[order, :2], [0.5, 99.5], axis=0)
    edge = 0.1 * (high - low).max()
    least, most = point[order, :2].min(axis=0), point[order, :2].max(axis=0)
    far = (least < low - edge) | (most > high + edge)
    if far.any():
        axes.set_xlim(max(least[0], low[0] - edge), min(most[0], high[0] + edge))
        axes.set_ylim(max(least[1], low[1] - edge), min(most[1], high[1] + edge))
    axes.set_aspect("equal")
    axes.set_xlabel("x, m")
    axes.set_ylabel("y, m")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    files.write(out, buffer.getvalue())
