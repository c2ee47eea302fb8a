"""Predictions of scans, written for others.

predictions/<scan>.npy   class of every row of the scan's points file, int16; -1: none
benchmark/<scan>.txt     the benchmark's id of every row, one a line; 0: none (ScanNet's format for submissions)
ply/<scan>.ply           the points, coloured by predicted class
pictures/<scan>.png      the same as a picture
"""

import io
import pathlib
from collections.abc import Sequence

import numpy as np

from gen4d import files
from train.inputs.labels import NONE
from train.inputs.scans import LabelledScan
from train.tasks.pictures import Panel, draw


class Writer:
    """Writes predictions of scans in the formats that are asked for."""

    def __init__(self, folder: pathlib.Path, ids: Sequence[int], formats: Sequence[str], names: Sequence[str] = ()):
        """ids: the benchmark's id of each class; names: of the classes, for pictures."""
        self._folder, self._ids, self._formats = folder, np.array([*ids, 0]), formats
        self._colours, self._names = class_colours(len(ids)), names

    def write(self, scan: LabelledScan, prediction: np.ndarray) -> None:
        """The files of one scan. prediction (N,): the class of each of its points."""
        full = np.full(scan.rows, NONE, np.int16)
        full[scan.row] = prediction
        if "npy" in self._formats:
            buffer = io.BytesIO()
            np.save(buffer, full)
            self._put("predictions", f"{scan.name}.npy", buffer.getvalue())
        if "txt" in self._formats:
            text = "\n".join(map(str, self._ids[full].tolist())) + "\n"
            self._put("benchmark", f"{scan.name}.txt", text.encode())
        if "ply" in self._formats:
            self._put("ply", f"{scan.name}.ply", coloured_ply(scan.point, prediction, self._colours[prediction]))
        if "png" in self._formats:
            draw_classes(scan, prediction, self._names, self._folder / "pictures" / f"{scan.name}.png")

    def _put(self, kind: str, name: str, content: bytes) -> None:
        files.make_folder(self._folder / kind)
        files.write(self._folder / kind / name, content)


def draw_classes(scan: LabelledScan, prediction: np.ndarray, names: Sequence[str], path: pathlib.Path) -> None:
    """A picture of predicted classes (N,), and of the scan's labels beside it where it has any."""
    colours = class_colours(len(names)) / 255
    panels = [Panel(colours[prediction])]
    used = prediction
    if scan.label is not None:
        panels = [Panel(colours[prediction], "predicted"), Panel(colours[scan.label], "labels")]
        used = np.concatenate([prediction, scan.label])
    draw(scan.point, panels, path, {names[k] if k != NONE else "none": colours[k] for k in np.unique(used)})


def class_colours(classes: int) -> np.ndarray:
    """A colour (K + 1, 3) uint8 for each class, hues far apart for neighbours; grey for none, at -1."""
    hue = np.arange(classes) * 0.618034 % 1
    light = np.array([0.95, 0.65, 0.8])[np.arange(classes) % 3]
    rgb = np.clip(np.abs((hue[:, None] * 6 + [0, 4, 2]) % 6 - 3) - 1, 0.3, 1) * light[:, None]
    return np.vstack([np.round(255 * rgb), [128, 128, 128]]).astype(np.uint8)


def coloured_ply(point: np.ndarray, label: np.ndarray, colour: np.ndarray) -> bytes:
    """A binary PLY of points (N, 3) metres with a class (N,) and a colour (N, 3) uint8 each."""
    fields = [(axis, "<f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertex = np.empty(len(point), [*fields, ("label", "<i2")])
    for column, axis in enumerate("xyz"):
        vertex[axis] = point[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertex[name] = colour[:, column]
    vertex["label"] = label
    kind = {"<f4": "float", "|u1": "uchar", "<i2": "short"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertex)}"]
    lines += [f"property {kind[vertex.dtype[name].str]} {name}" for name in vertex.dtype.names]
    return "\n".join([*lines, "end_header", ""]).encode() + vertex.tobytes()
