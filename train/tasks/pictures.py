"""Pictures of point clouds, in the look of `gen4d view`: seen from the side and above, what hides a room cut away."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gen4d import files
from gen4d.report.picture import BACK, INK, draw_points, view_points

_PANEL = (720, 540)  # pixels
_TITLE, _ROW, _TEXT = 30, 24, 15

Line = tuple[np.ndarray, tuple[int, int, int]]  # (K, 3) metres, and its colour


class Panel(NamedTuple):
    """One of the pictures of a cloud: colours (N, 3) from 0 to 1 of its points, and lines over them."""

    colours: np.ndarray
    title: str = ""
    lines: Sequence[Line] = ()


def draw(
    point: np.ndarray, panels: Sequence[Panel], out: pathlib.Path, legend: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a picture of points (N, 3) float32 metres, z up, by one or more panels beside each other. legend: names and
    their colours from 0 to 1."""
    point = np.ascontiguousarray(point, np.float32)
    view = view_points(point)
    width, top = len(panels) * _PANEL[0], _TITLE if any(panel.title for panel in panels) else 0
    places = _places(legend or {}, width)
    rows = max((row for _, row in places), default=-1) + 1
    sheet = Image.new("RGB", (width, top + _PANEL[1] + rows * _ROW + (12 if rows else 0)), BACK)
    pen = ImageDraw.Draw(sheet)
    for number, panel in enumerate(panels):
        left = number * _PANEL[0]
        image = draw_points(point, _bytes(panel.colours), view, _PANEL, panel.lines)
        sheet.paste(image, (left, top))
        pen.text((left + _PANEL[0] / 2, top / 2), panel.title, INK, ImageFont.load_default(_TEXT + 1), anchor="mm")
    for (name, colour), (x, row) in zip((legend or {}).items(), places, strict=True):
        y = top + _PANEL[1] + (row + 0.5) * _ROW
        pen.ellipse((x, y - 5, x + 10, y + 5), tuple(_bytes(colour).tolist()))
        pen.text((x + 16, y), name, INK, ImageFont.load_default(_TEXT), anchor="lm")
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    files.make_folder(out.parent)
    files.write(out, buffer.getvalue())


def _bytes(colours: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.asarray(colours)).astype(np.uint8)


def _places(names: Mapping, width: int) -> list[tuple[int, int]]:
    """Where the names of a legend begin, in pixels from the left, and in which row."""
    x, row, places = 16, 0, []
    for name in names:
        wide = 16 + round(ImageFont.load_default(_TEXT).getlength(name)) + 22
        if x + wide > width and x > 16:
            x, row = 16, row + 1
        places.append((x, row))
        x += wide
    return places
