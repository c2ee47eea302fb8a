"""Posed depth images of a scan, one after another, in constant memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.formats import sens
from gen4d.sources.formats.depth import read_depth
from gen4d.sources.posed import Folder, PosedSource, Reading
from gen4d.sources.recorded import flat_row, read_numbers, rigid
from gen4d.sources.source import SourceError, file_size, unreadable


class Camera(NamedTuple):
    """A pinhole: focal lengths and centre in pixels; pixel (0, 0) is the centre of the first."""

    fx: float
    fy: float
    cx: float
    cy: float


class DepthFrame(NamedTuple):
    """One depth image (H, W) uint16 with `scale` units a metre and 0 for none, its camera, which looks along z with x
    to the right and y down, and the camera's rigid pose in the source's world (4, 4) float64."""

    number: int
    time_s: float
    pose: np.ndarray
    depth: np.ndarray
    camera: Camera
    scale: float


def read_frames(source: PosedSource, every: int, reading: Reading) -> Iterator[DepthFrame]:
    """Every n-th frame of a scan that has a pose. The others, and broken ones, are counted in `reading`.

    Raises SourceError where the scan as a whole cannot be used.
    """
    frames = _of_sens(source, every, reading) if source.recorded.sens else _of_folder(source, every, reading)
    for frame in frames:
        pose = rigid(frame.pose)
        if pose is None:
            lost = not np.isfinite(frame.pose).all()
            reading.leave_out("no pose" if lost else "a pose that is not rigid", frame.number)
            continue
        yield frame._replace(pose=pose, depth=_without(frame.depth, source.recorded.invalid))


def _without(depth: np.ndarray, invalid: tuple[int, ...]) -> np.ndarray:
    """A depth image with 0 in place of other values that mean none."""
    for value in invalid:
        depth = np.where(depth == value, np.uint16(0), depth)
    return depth


def _of_sens(source: PosedSource, every: int, reading: Reading) -> Iterator[DepthFrame]:
    path = source.root / source.path
    size = file_size(source.root, source.path)
    try:
        with open(path, "rb") as file:
            header = sens.read_header(path, file, size)
            reading.frames = header.frames
            k = header.intrinsic
            camera = _camera(path, [k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
            for frame in sens.read_frames(path, file, header, every, size):
                reading.saw(frame.raw)
                time_s = frame.time_us / 1e6
                yield DepthFrame(frame.number, time_s, frame.pose, frame.depth, camera, header.depth_scale)
    except OSError as error:
        raise unreadable(path, error) from None


def _of_folder(source: PosedSource, every: int, reading: Reading) -> Iterator[DepthFrame]:
    folder = Folder(source, reading)
    cameras = _Cameras(folder)
    for one in folder.keyed(every):
        frame = None
        with folder.collecting():
            depth = read_depth(folder.base / one.file, folder.read(one.file))
            camera = cameras.of(one.key, depth.shape)
            if camera is None:
                reading.leave_out("no intrinsics", one.key)
            else:
                frame = DepthFrame(one.number, one.time_s, one.pose, depth, camera, source.recorded.depth_scale)
        if frame is not None:
            yield frame


class _Cameras:
    """The camera of each frame of a folder: one for all, or a file each."""

    def __init__(self, folder: Folder):
        self.folder, given = folder, folder.recorded.intrinsics
        for part, own in folder.recorded.intrinsics_of.items():
            given = tuple(own) if part in folder.source.name else given
        self.template, self.common = "", None
        if all(isinstance(value, int | float) for value in given):
            if len(given) != 4:
                raise SourceError(folder.base, f"has intrinsics of {len(given)} numbers: fx, fy, cx, cy in pixels")
            self.common = _camera(folder.base, list(given)), folder.recorded.size
        else:
            self.template = folder.first(given)
            if "{key}" not in self.template:
                self.common = self._read(folder.name(self.template))

    def of(self, key: str, shape: tuple[int, int]) -> Camera | None:
        """The camera of a frame whose image is (height, width), None where its file is missing. Raises SourceError."""
        if self.common:
            return _scaled(*self.common, shape)
        name = self.folder.near(self.template, key)
        return None if name is None else _scaled(*self._read(name), shape)

    def _read(self, name: str) -> tuple[Camera, tuple[int, ...]]:
        """A camera from a file, and the (width, height) that it is of, () if that is the image's."""
        path, recorded = self.folder.base / name, self.folder.recorded
        numbers = flat_row(read_numbers(path, self.folder.read(name)))
        if recorded.intrinsics_columns == "matrix":
            if len(numbers) == 4:
                return _camera(path, numbers), recorded.size
            if len(numbers) not in (9, 12, 16):
                raise SourceError(path, f"has {len(numbers)} numbers: a matrix of 9, 12 or 16, or fx fy cx cy")
            row = len(numbers) // (3 if len(numbers) < 16 else 4)
            return _camera(path, [numbers[0], numbers[row + 1], numbers[2], numbers[row + 2]]), recorded.size
        names = recorded.intrinsics_columns.split()
        column = dict(zip(names, numbers, strict=False))
        missing = [name for name in ("fx", "fy", "cx", "cy") if name not in column]
        if missing:
            raise SourceError(path, f"has {len(numbers)} numbers, {missing[0]} of {' '.join(names)} is not among them")
        size = (int(column["w"]), int(column["h"])) if {"w", "h"} <= set(column) else recorded.size
        return _camera(path, [column[name] for name in ("fx", "fy", "cx", "cy")]), size


def _camera(path: Path, numbers: list) -> Camera:
    camera = Camera(*(float(number) for number in numbers))
    if not np.isfinite(camera).all() or min(camera.fx, camera.fy) <= 0:
        raise SourceError(path, f"has focal lengths {camera.fx:g} and {camera.fy:g} pixels: above 0 are needed")
    return camera


def _scaled(camera: Camera, size: tuple[int, ...], shape: tuple[int, int]) -> Camera:
    """A camera of images of `size` (width, height) for one of (height, width) pixels."""
    if not size or size == shape[::-1]:
        return camera
    x, y = shape[1] / size[0], shape[0] / size[1]
    return Camera(camera.fx * x, camera.fy * y, (camera.cx + 0.5) * x - 0.5, (camera.cy + 0.5) * y - 0.5)
