"""What `gen4d view` writes, by the ending of the file."""

import pathlib
from collections.abc import Sequence

from gen4d.report.scene import way_m
from gen4d.shards import Dataset
from gen4d.shards.format import FormatError

WRITERS = (".html", ".png", ".gif")
_LOOKED_AT = 200  # sequences, when the one with the longest way is looked for


def write(dataset: Dataset, numbers: Sequence[int], path: pathlib.Path) -> str:
    """Write a page, a picture or a moving picture of some sequences of one scan; returns what it shows.

    A page holds all sequences of the scan. The first that is shown, and the only one of a picture, is the one with the
    longest way. Raises FormatError if there are none.
    """
    if not len(numbers):
        what = "no sequence of this scan" if len(dataset) else "no sequence"
        raise FormatError(f"{dataset.home.where()}: holds {what}: gen4d inspect says why")
    first = max(numbers[:_LOOKED_AT], key=lambda number: way_m(dataset[number]))
    match path.suffix.lower():
        case ".html":
            from gen4d.report.page import write_page

            return write_page(dataset, first, path)
        case ".png":
            from gen4d.report.picture import draw_png as draw
        case _:
            from gen4d.report.picture import draw_gif as draw
    draw(dataset, first, path)
    return dataset[first].id
