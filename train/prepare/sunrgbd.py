"""SUN RGB-D's raw files to clouds with boxes, without MATLAB: what VoteNet's scripts write, and a count of what not.

    SUNRGBD/                                            depth and colour images
    SUNRGBDMeta3DBB_v2.mat                              intrinsics, tilt and paths of each frame (V2)
    SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat             boxes (V1), which the benchmark's numbers are of
    SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat        which frames are for training and for test

become, named after a frame's number from 1 in the .mat files,

    train/005051_pc.npz     `pc` (N, 6) float32, by x, y and z: metres, x right, y forward, z up; colour from 0 to 1
    train/005051_bbox.npy   (B, 8) float64: centre, half sizes (along the heading, across, up), heading, class from 0
    prepare.json            what it is made from, written first
    prepared.json           written last: frames of each part, those left out and why, the hash of every file

Headings in the files turn from +x to -y, as VoteNet has them; `train.inputs.scans` reads them counterclockwise.
"""

import functools
import hashlib
import io
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from gen4d import files
from gen4d.shards.format import FormatError, seal, unseal
from gen4d.sources.formats.depth import read_depth
from gen4d.sources.source import SourceError, read_file
from train.errors import Refused, reason
from train.inputs.labels import label_table
from train.inputs.order import keyed_generator
from train.prepare.matlab import read_mat

FRAMES = 10_335  # of the whole data set
PARTS = {"train": "alltrain", "val": "alltest"}
_GEOMETRY = "SUNRGBDMeta3DBB_v2.mat"
_LABELS = "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"
_SPLIT = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
_PLACES = (".", "OFFICIAL_SUNRGBD")
_BEFORE = re.compile(r"/n/fs/sun3d/data/+(SUNRGBD/+)?")  # the paths of V1 lack the second folder
_FAR_M = 8.0  # depths beyond are put there, as the toolbox does
_LEAST_POINTS = 100  # of a scan
_LEFTOVER = re.compile(r"(\d{6}_(pc\.npz|bbox\.npy)|prepared?\.json)" + files.TEMPORARY)


class PrepareError(Refused):
    """A folder that cannot be prepared, or one that holds something else."""


class Frame(NamedTuple):
    """A frame as the .mat files have it. number: from 1; part: empty where it is in none; depth, colour: paths below
    SUNRGBD/; intrinsics, tilt (3, 3); objects: V1's, None where V1 does not have the frame."""

    number: int
    part: str
    depth: str
    colour: str
    intrinsics: np.ndarray
    tilt: np.ndarray
    objects: list[dict] | None


class Prepared(NamedTuple):
    """parts: frames in each part; frames: of the .mat files; left_out: reason -> the frames' numbers and the first
    one's message; odd: boxes without a place, size or direction, which were left out; again: files that were damaged,
    and made again."""

    parts: dict[str, int]
    frames: int
    left_out: dict[str, tuple[list[int], str]]
    odd: int
    again: tuple[str, ...]


class _LeftOut(Refused):
    """A frame is not written: why, in words that many frames share, and what was found in this one."""


class _Made(NamedTuple):
    """What became of a frame: hash of each file, or why there are none."""

    frame: Frame
    hashes: dict[str, str]
    odd: int = 0
    again: tuple[str, ...] = ()
    why: tuple[str, str] | None = None


def prepare(
    folder: pathlib.Path,
    out: pathlib.Path,
    points: int = 50_000,
    workers: int = 1,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> Prepared:
    """Write the clouds and boxes of all frames to `out`, at most `points` points each, drawn by the frame's number.

    What is there is kept, unless it has another hash than prepared.json says: so the same call goes on after a kill,
    and ends in the same bytes. progress(frames done, of all). Raises MatError, PrepareError, BusyError, OSError.
    """
    root = _find_root(folder)
    frames = read_frames(root)
    origin = {path: files.sha256(root / path) for path in (_GEOMETRY, _LABELS, _SPLIT)} | {"points": points}
    files.make_folder(out)
    with files.locked(out, "prepare.lock"):
        stored = _open(out, origin)
        make = functools.partial(_make, root / "SUNRGBD", out, points, stored)
        made: list[_Made] = []
        pool = ThreadPoolExecutor(max(workers, 1))
        try:
            for one in pool.map(make, frames):
                made.append(one)
                progress(len(made), len(frames))
        finally:
            pool.shutdown(cancel_futures=True)
        return _close(out, origin, made)


def _find_root(folder: pathlib.Path) -> pathlib.Path:
    for place in _PLACES:
        if (folder / place / _GEOMETRY).is_file():
            return folder / place
    raise PrepareError(
        f"{folder}: has no {_GEOMETRY}: give the folder that holds it, SUNRGBD/ and SUNRGBDtoolbox/, unzipped"
    )


def read_frames(root: pathlib.Path) -> list[Frame]:
    """All frames of the .mat files below a folder, in their order. Raises MatError, PrepareError."""
    geometry = read_mat(root / _GEOMETRY, "SUNRGBDMeta", ("depthpath", "rgbpath", "K", "Rtilt"))
    names = ("depthpath", "groundtruth3DBB", "classname", "centroid", "coeffs", "orientation")
    labels = read_mat(root / _LABELS, "SUNRGBDMeta", names)
    lists = {part: read_mat(root / _SPLIT, name) for part, name in PARTS.items()}
    try:
        part_of = {_below(path): part for part, paths in lists.items() for path in paths}
        objects = {_place(item["depthpath"]): item["groundtruth3DBB"] for item in labels}
        frames = []
        for number, item in enumerate(geometry, start=1):
            place = _place(item["depthpath"])
            found = objects.get(place)
            found = [] if isinstance(found, np.ndarray) else found  # [] of no structs
            paths = _below(item["depthpath"]), _below(item["rgbpath"])
            matrices = (np.asarray(item[name], np.float64).reshape(3, 3) for name in ("K", "Rtilt"))
            frames.append(Frame(number, part_of.get(place, ""), *paths, *matrices, found))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrepareError(
            f"{root}: {_GEOMETRY}, {_LABELS} or {_SPLIT} lacks what frames have ({type(error).__name__}: "
            f"{reason(error)}): download them again"
        ) from None
    return frames


def _below(path: str) -> str:
    """A path of the .mat files below SUNRGBD/: of all three kinds of beginnings, with single slashes."""
    return "/".join(part for part in _BEFORE.sub("", path, count=1).split("/") if part)


def _place(depth: str) -> str:
    """The folder of a frame, which is what the split lists."""
    return _below(depth).rpartition("/")[0].rpartition("/")[0]


def _open(out: pathlib.Path, origin: Mapping) -> dict[str, str]:
    """Begin or go on in a folder; returns the hashes that prepared.json names, by file."""
    begun = _read(out / "prepare.json")
    odd = sorted(
        path.name for path in out.iterdir() if path.name != "prepare.lock" and not _LEFTOVER.fullmatch(path.name)
    )
    if begun is None and odd:
        raise PrepareError(f"{out}: holds other files ({odd[0]}, {len(odd)} in all): give an empty folder as --out")
    if begun not in (None, origin):
        other = next(name for name in origin if begun.get(name) != origin[name])
        raise PrepareError(f"{out}: was prepared from another {other}: give the same, or another --out")
    for place in (out, *(out / part for part in PARTS)):
        files.make_folder(place)
        for path in files.leftovers(place, _LEFTOVER):
            files.remove(path)
    if begun is None:
        files.write(out / "prepare.json", seal(dict(origin)))
    return (_read(out / "prepared.json") or {}).get("files", {})


def _read(path: pathlib.Path) -> dict | None:
    """A sealed file, None where it is not there or damaged: it is written again."""
    try:
        return unseal(path.read_bytes(), str(path))
    except (FileNotFoundError, FormatError):
        return None


def _close(out: pathlib.Path, origin: Mapping, made: Sequence[_Made]) -> Prepared:
    left_out: dict[str, tuple[list[int], str]] = {}
    for one in made:
        if one.why:
            left_out.setdefault(one.why[0], ([], one.why[1]))[0].append(one.frame.number)
    parts = {part: sum(one.frame.part == part and not one.why for one in made) for part in PARTS}
    odd = sum(one.odd for one in made)
    about = {
        "from": dict(origin),
        "parts": parts,
        "frames": len(made),
        "left_out": {why: numbers for why, (numbers, _) in left_out.items()},
        "boxes_left_out": odd,
        "files": {name: digest for one in made for name, digest in one.hashes.items()},
    }
    content, path = seal(about), out / "prepared.json"
    if not path.exists() or path.read_bytes() != content:
        files.write(path, content)
    return Prepared(parts, len(made), left_out, odd, tuple(name for one in made for name in one.again))


def _make(images: pathlib.Path, out: pathlib.Path, points: int, stored: Mapping[str, str], frame: Frame) -> _Made:
    """Write a frame's two files, or say why not; what is there and whole stays."""
    names = [f"{frame.part}/{frame.number:06d}_{ending}" for ending in ("pc.npz", "bbox.npy")]
    try:
        if not frame.part:
            raise _LeftOut("in neither part of the split", frame.depth)
        if frame.objects is None:
            raise _LeftOut("without V1 labels", frame.depth)
        box, odd = frame_boxes(frame.objects)
        there = {name: files.sha256(out / name) for name in names if (out / name).is_file()}
        again = tuple(name for name in there if stored.get(name, there[name]) != there[name])
        if len(there) == len(names) and not again:
            return _Made(frame, there, odd)
        cloud = frame_cloud(images, frame)
        if len(cloud) > points:
            rng = keyed_generator(frame.number, 0, 0)
            cloud = cloud[rng.choice(len(cloud), points, replace=False)]
        cloud = cloud[np.lexsort(cloud[:, 2::-1].T)]  # as detection wants them: it need not keep a sorted copy
    except _LeftOut as error:
        return _Made(frame, {}, why=error.args)
    except (SourceError, UnidentifiedImageError, OSError) as error:
        path, problem = (error.path, error.problem) if isinstance(error, SourceError) else (frame.colour, reason(error))
        return _Made(frame, {}, why=("images that cannot be read", f"{path}: {problem}"))
    hashes = {}
    for name, content in zip(names, (_packed(cloud), _array(box)), strict=True):
        hashes[name] = hashlib.sha256(content).hexdigest()
        if there.get(name) != hashes[name]:
            files.write(out / name, content)
    return _Made(frame, hashes, odd, again)


def _packed(cloud: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, pc=cloud)
    return content.getvalue()


def _array(box: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, box)
    return content.getvalue()


def frame_boxes(objects: Sequence[Mapping]) -> tuple[np.ndarray, int]:
    """Boxes (B, 8) of the benchmark's ten classes, as VoteNet stores them, and how many lacked a place, size or
    direction.

    V1's coefficients are half sizes across, along and up, with any sign; its orientation is the direction ahead.
    """
    classes, rows, odd = label_table("sunrgbd10").names, [], 0
    for item in objects:
        name = item.get("classname")
        if not isinstance(name, str) or name not in classes:  # no text is an empty array of numbers
            continue
        given = [np.ravel(item.get(field, ())) for field in ("centroid", "coeffs", "orientation")]
        centre, half, ahead = (values[:most].astype(np.float64) for values, most in zip(given, (3, 3, 2), strict=True))
        whole = (len(centre), len(half), len(ahead)) == (3, 3, 2) and np.isfinite([*centre, *half, *ahead]).all()
        if not (whole and half.all() and ahead.any()):
            odd += 1
            continue
        across, along, up = np.abs(half)
        rows.append([*centre, along, across, up, -math.atan2(ahead[1], ahead[0]), classes.index(name)])
    return np.array(rows, np.float64).reshape(-1, 8), odd


def frame_cloud(images: pathlib.Path, frame: Frame) -> np.ndarray:
    """Points with colour (N, 6) float32 of a frame, upright: x right, y forward, z up, metres.

    A depth is stored in millimetres with its lowest three bits at the top; 0 is none. Pixels count from 1, since the
    intrinsics are MATLAB's. Raises _LeftOut, SourceError, OSError.
    """
    content, _ = read_file(images, frame.depth)
    stored = read_depth(images / frame.depth, content)
    content, _ = read_file(images, frame.colour)
    colour = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float32) / 255
    if colour.shape[:2] != stored.shape:
        sizes = f"{stored.shape[::-1]} and {colour.shape[1::-1]}"
        raise _LeftOut("depth and colour of different sizes", f"{frame.depth}: {sizes}")
    depth = np.minimum(((stored >> 3) | (stored << 13)) / 1000, _FAR_M)
    row, column = np.nonzero(depth)
    if len(row) < _LEAST_POINTS:
        raise _LeftOut(f"fewer than {_LEAST_POINTS} pixels with depth", f"{frame.depth}: {len(row)}")
    ahead, k = depth[row, column], frame.intrinsics
    right = (column + 1 - k[0, 2]) * ahead / k[0, 0]
    down = (row + 1 - k[1, 2]) * ahead / k[1, 1]
    point = np.stack([right, ahead, -down], axis=1) @ frame.tilt.T
    return np.hstack([point, colour[row, column]]).astype(np.float32)
