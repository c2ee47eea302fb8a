"""Pages for people: one HTML file with its style, its pictures and its script in it, which asks for nothing.

What is put into a page is escaped unless it is `Html`, so a name cannot become markup.
"""

import base64
import html
import importlib.resources
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_WIDE, _HIGH = 280, 64  # of a histogram, in pixels; below it are the numbers of its axis
_APART = 52  # pixels between two numbers of an axis at least
_ROOM = 0.04  # of a range is left free on either side
_LETTER_PX = 7  # of a figure beside an axis
_COLOURS = 6  # of lines, in sheet.css


class Html(str):
    """Markup. Any other text is escaped where it is put into a page."""


def markup(value: object) -> Html:
    """A value as it may stand in a page, in an attribute too."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def tag(name: str, *inside: object, **attributes: object) -> Html:
    """An element; the name of an attribute may end in an underscore, and one that is None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{markup(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{joined(inside)}</{name}>")


def joined(parts: Iterable[object]) -> Html:
    """Markup of several values, one after another."""
    return Html("".join(map(markup, parts)))


def as_json(value: object) -> Html:
    """JSON that may stand in a <script>: no value can end it."""
    return Html(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def fill(template: str, **parts: object) -> str:
    """The text of a template beside this file with each @NAME@ replaced."""
    pieces = read(template).split("@")
    known = {name: markup(value) for name, value in parts.items()}
    return "".join(known[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def read(name: str) -> Html:
    """The text of a file beside this one."""
    return Html(importlib.resources.files("gen4d.report").joinpath(name).read_text("utf-8"))


def page(title: str, *body: object, css: str = "") -> str:
    """A whole page. css: further rules of style."""
    style = Html(read("sheet.css") + css)
    return fill("sheet.html", TITLE=title, CSS=style, BODY=Html("\n".join(map(markup, body))), SCRIPT=read("sheet.js"))


def section(title: str, *inside: object) -> Html:
    """A part of a page under a heading, or nothing where nothing is in it."""
    return tag("section", tag("h2", title), *inside) if any(inside) else Html("")


def note(*inside: object) -> Html:
    """A paragraph in a pale colour."""
    return tag("p", *inside, class_="pale")


def verdict(text: str, good: bool) -> Html:
    """A few words that say whether something is as it should be."""
    return tag("b", text, class_="good" if good else "bad")


def tiles(figures: Iterable[tuple[object, object]]) -> Html:
    """Figures in large letters, each with what it counts."""
    return tag("div", *(tag("div", tag("b", value), tag("span", what)) for value, what in figures), class_="tiles")


def details(summary: str, *inside: object) -> Html:
    """What is folded until somebody asks for it."""
    return tag("details", tag("summary", summary), *inside)


def picture(content: bytes, kind: str, alt: str, width: int, height: int) -> Html:
    """An image in the page itself; kind: webp, png and so on."""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Html(f'<img src="{source}" alt="{markup(alt)}" width="{width}" height="{height}">')


# Tables --------------------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A number of a table: how it is shown, and what it is sorted by."""

    shown: object
    key: float = -math.inf


def number(value: float | None, digits: int = 0) -> Cell:
    """A cell of a number, empty where there is none."""
    if value is None or math.isnan(value):
        return Cell("")
    return Cell(f"{value:,.{digits}f}", float(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], sortable: bool = True) -> Html:
    """A table of rows of cells, texts or markup. By a column whose name is Html it cannot be sorted."""
    rows = list(rows)
    right = [bool(rows) and isinstance(rows[0][i], Cell) for i in range(len(columns))]
    head = [
        tag(
            "th",
            tag("button", name) if sortable and not isinstance(name, Html) else name,
            class_="n" if numeric else None,
        )
        for name, numeric in zip(columns, right, strict=True)
    ]
    body = (tag("tr", *map(_cell, row)) for row in rows)
    whole = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return tag("div", whole, class_="wide")


def _cell(value: object) -> Html:
    if not isinstance(value, Cell):
        return tag("td", value)
    return tag("td", value.shown, class_="n", data_key=f"{value.key:.9g}")


def share_bar(share: float) -> Html:
    """A bar as long as a share is large."""
    return Html(f'<i class="share" style="width:{max(0.0, min(1.0, share)) * 160:.0f}px"></i>')


# Charts --------------------------------------------------------------------------------------------------------------


def figure(value: float) -> str:
    """A number in as few digits as tell it: three that count, or all of a whole number."""
    if not math.isfinite(value):
        return "none" if math.isnan(value) else str(value)
    if value and abs(value) < 5e-4:
        return f"{value:.0e}"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


def histogram(
    values: np.ndarray,
    allowed: Sequence[tuple[float, float]] = (),
    unit: str = "",
    bins: int = 32,
    span: tuple[float, float] | None = None,
    size: tuple[int, int] = (_WIDE, _HIGH),
    broken: np.ndarray | None = None,
) -> Html:
    """How often values (N,) occur, as SVG. allowed: ranges of a rule, whose finite ends are drawn as lines. span: ends
    of the axis, as wide as values and limits are by default. broken (N,) bool: values that are drawn red."""
    values = np.asarray(values, np.float64)
    limits = sorted({end for pair in allowed for end in pair if math.isfinite(end)})
    start, stop = span or _span([*limits, *((values.min(), values.max()) if len(values) else ())])
    wide, tall = size
    inside = np.clip(values, start, stop)
    count, edge = np.histogram(inside, bins, (start, stop))
    bad, _ = np.histogram(inside if broken is None else inside[broken], bins, (start, stop))
    most, step = max(int(count.max(initial=0)), 1), wide / bins
    place = lambda value: (value - start) / (stop - start) * wide  # noqa: E731
    parts = []
    for low, high in allowed if limits else ():
        a, b = place(max(low, start)), place(min(high, stop))
        parts.append(f'<rect class="allowed" x="{a:.1f}" width="{max(b - a, 0):.1f}" height="{tall}"/>')
    for i in np.flatnonzero(count).tolist():
        up = max(1.5, count[i] / most * (tall - 4))
        red = max(1.5, bad[i] / count[i] * up) if bad[i] and broken is not None else 0.0
        across = f'x="{i * step + 0.5:.1f}" width="{step - 1:.1f}" y="{tall - up:.1f}"'
        text = markup(f"{figure(edge[i])} to {figure(edge[i + 1])}{unit}: {count[i]:,}")
        bar = f'<rect class="bar" {across} height="{up:.1f}"/>'
        bar += f'<rect class="out" {across} height="{red:.1f}"/>' if red else ""
        parts.append(f"<g><title>{text}</title>{bar}</g>")
    parts.append(f'<path class="axis" d="M0 {tall}.5H{wide}"/>')
    parts += [f'<path class="rule" d="M{place(limit):.1f} 0V{tall + 3}"/>' for limit in limits]
    parts += _numbers([*limits, start, stop], place, wide, tall + 15, unit)
    return Html(f'<svg viewBox="0 0 {wide} {tall + 19}" width="{wide}" role="img">{"".join(parts)}</svg>')


def _span(ends: Sequence[float]) -> tuple[float, float]:
    low, high = (min(ends), max(ends)) if len(ends) else (0.0, 1.0)
    room = (high - low) * _ROOM or abs(high) * _ROOM or 0.5
    return low - room if low else -room / 2, high + room


def _numbers(values: Sequence[float], place, wide: int, down: float, unit: str) -> list[str]:
    """Numbers below an axis, the first ones first, those left out that would lie on another."""
    written: list[float] = []
    parts = []
    for value in values:
        at = place(value)
        if not -1 <= at <= wide + 1 or any(abs(at - other) < _APART for other in written):
            continue
        written.append(at)
        anchor = "start" if at < 24 else "end" if at > wide - 24 else "middle"
        parts.append(f'<text x="{at:.1f}" y="{down}" text-anchor="{anchor}">{markup(figure(value) + unit)}</text>')
    return parts


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    across: str = "",
    span: tuple[float, float] | None = None,
    size: tuple[int, int] = (560, 180),
) -> Html:
    """Lines of values over something that rises, as SVG with a legend: name -> (x, y), y may have gaps of NaN. across:
    what x is; span: ends of the y axis."""
    finite = [value for _, y in series.values() for value in y if math.isfinite(value)]
    x_all = [value for x, _ in series.values() for value in x]
    (left, right), (low, high) = (min(x_all, default=0.0), max(x_all, default=1.0)), span or _span(finite)
    wide, tall = size
    marks = {value: figure(float(f"{value:.3g}")) for value in np.linspace(low, high, 4).tolist()}
    edge = 8 + _LETTER_PX * max(5, *map(len, marks.values()))
    across_px = lambda value: edge + (value - left) / ((right - left) or 1) * (wide - edge - 8)  # noqa: E731
    down_px = lambda value: tall - 24 - (value - low) / ((high - low) or 1) * (tall - 32)  # noqa: E731
    parts = []
    for value, mark in marks.items():
        parts.append(f'<path class="axis" d="M{edge} {down_px(value):.1f}H{wide - 8}"/>')
        parts.append(f'<text x="{edge - 4}" y="{down_px(value) + 4:.1f}" text-anchor="end">{mark}</text>')
    for value, anchor in ((left, "start"), (right, "end")):
        parts.append(f'<text x="{across_px(value):.1f}" y="{tall - 6}" text-anchor="{anchor}">{figure(value)}</text>')
    middle = f'<text x="{wide / 2}" y="{tall - 6}" text-anchor="middle">{markup(across)}</text>'
    for i, (name, (x, y)) in enumerate(series.items()):
        way, up = [], True
        for a, b in zip(x, y, strict=True):
            if math.isfinite(b):
                way.append(f"{'M' if up else 'L'}{across_px(a):.1f} {down_px(min(max(b, low), high)):.1f}")
            up = not math.isfinite(b)
        stroke = f"var(--s{i % _COLOURS})"
        parts.append(
            f'<path class="line" style="stroke:{stroke}" d="{"".join(way)}"><title>{markup(name)}</title></path>'
        )
    drawn = Html(f'<svg viewBox="0 0 {wide} {tall}" width="{wide}" role="img">{"".join(parts)}{middle}</svg>')
    return joined([drawn, legend(list(series)) if len(series) > 1 else ""])


def legend(names: Sequence[str]) -> Html:
    """Names beside the colours of their lines."""
    keys = (Html(f'<i class="key" style="background:var(--s{i % _COLOURS})"></i>') for i in range(len(names)))
    return tag("div", *(tag("span", key, name) for key, name in zip(keys, names, strict=True)), class_="legend")
