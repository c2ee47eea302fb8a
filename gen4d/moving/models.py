"""Shapes read once: their figures, which most attempts need, and their surfaces, which few do, kept on disk.

A mesh takes milliseconds to read and check. What comes of it is kept in a folder of its user's caches
(GEN4D_CACHE, or gen4d below XDG_CACHE_HOME or ~/.cache; GEN4D_CACHE=off keeps nothing), one file a shape, keyed by the
mesh's real path, size and time of change and by what was made of it. A file takes its name when it is whole and
carries its own checksum, so any number of workers may share the folder; one that is torn or cannot be written costs
time, nothing else. The folder may be deleted at any time.
"""

import functools
import hashlib
import json
import os
import pathlib
import struct
from typing import NamedTuple

import google_crc32c
import numpy as np

from gen4d import files, sources
from gen4d.moving import shape

_CACHED_MODELS = 128
_CACHED_FIGURES = 100_000
_VERSION = "2"  # changes with every change of a model or of the file
_HEAD = struct.Struct("<8sIIQ")  # magic, length of the JSON that follows, its CRC-32C, bytes of the arrays after it
_MAGIC = b"gen4dsh1"


class Figures(NamedTuple):
    """What is known of a shape without its surface: radii for a height of 1, its height in the file's units, and the
    file that it was read from, if from one."""

    disc: float
    sphere: float
    height: float
    file: sources.SourceFile | None
    others: tuple[sources.SourceFile, ...] = ()  # which an articulated shape was read from too


def find_figures(source: sources.AnyShape, up: str) -> Figures:
    """The figures of a shape. Raises SourceError and ShapeError where it cannot be used."""
    if isinstance(source, sources.MeshSource):
        return _load(source, up)[1]
    return _figures_of(source, up)


@functools.lru_cache(_CACHED_FIGURES)
def _figures_of(source: sources.ShapeSource, up: str) -> Figures:
    path = _place(source, up)
    head = None if path is None else _read_head(path)
    return _load(source, up)[1] if head is None else _figures(source, head)


def load_model(source: sources.AnyShape, up: str) -> shape.Model:
    """The model of a shape. Raises SourceError and ShapeError where it cannot be used."""
    return _load(source, up)[0]


@functools.lru_cache(_CACHED_MODELS)
def _load(source: sources.AnyShape, up: str) -> tuple[shape.Model, Figures]:
    path = _place(source, up) if isinstance(source, sources.ShapeSource) else None
    stored = None if path is None else _read(path, source)
    if stored is not None:
        return stored
    mesh = sources.load_shape(source, up)
    model = shape.make_model(mesh.vertex, mesh.face, mesh.part, mesh.joints)
    figures = Figures(model.disc, model.sphere, model.height, mesh.file, mesh.others)
    if path is not None:
        _keep(path, model, figures)
    return model, figures


def _folder() -> pathlib.Path | None:
    named = os.environ.get("GEN4D_CACHE", "")
    if named == "off":
        return None
    try:
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "gen4d"
    except RuntimeError:  # a user without a home
        return pathlib.Path(named) if named else None
    return (pathlib.Path(named) if named else base) / "shapes"


def _place(source: sources.ShapeSource, up: str) -> pathlib.Path | None:
    """Where a shape's file is kept, or None where nothing is: for articulated shapes, which are many files, or where
    the mesh is not there."""
    if sources.is_articulated(source):
        return None
    folder, path = _folder(), os.path.realpath(source.root / source.path)
    try:
        status = os.stat(path)
    except OSError:
        return None
    if folder is None:
        return None
    key = "\0".join((_VERSION, path, str(status.st_size), str(status.st_mtime_ns), up, source.up))
    name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return folder / name[:2] / f"{name}.shape"


def _keep(path: pathlib.Path, model: shape.Model, figures: Figures) -> None:
    """Write a shape's file; where that cannot be done, nothing is kept."""
    arrays = [np.ascontiguousarray(array) for array in (model.vertex, model.face, model.area)]
    about = {"vertices": len(model.vertex), "faces": len(model.face)}
    about |= {"disc": model.disc, "sphere": model.sphere, "height": model.height}
    about |= {"size": figures.file.size, "sha256": figures.file.sha256} if figures.file else {}
    body = b"".join(array.tobytes() for array in arrays)
    head = json.dumps(about | {"crc32c": google_crc32c.value(body)}).encode()
    files.write_unsynced(path, _HEAD.pack(_MAGIC, len(head), google_crc32c.value(head), len(body)) + head + body)


def _parse_head(content: bytes) -> dict | None:
    """What a shape's file says of it, or None where it is not whole."""
    if len(content) < _HEAD.size:
        return None
    magic, length, checksum, _ = _HEAD.unpack_from(content)
    head = content[_HEAD.size : _HEAD.size + length]
    if magic != _MAGIC or len(head) != length or google_crc32c.value(head) != checksum:
        return None
    return json.loads(head)


def _read_head(path: pathlib.Path) -> dict | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return _parse_head(file.read(4096))
    except OSError:
        return None


def _read(path: pathlib.Path, source: sources.ShapeSource) -> tuple[shape.Model, Figures] | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head = _parse_head(content)
    if head is None:
        return None
    start = _HEAD.size + _HEAD.unpack_from(content)[1]
    vertices, faces = head["vertices"], head["faces"]
    body = memoryview(content)[start:]
    if len(body) != 24 * vertices + 20 * faces or google_crc32c.value(bytes(body)) != head["crc32c"]:
        return None
    vertex = np.frombuffer(body, np.float64, 3 * vertices).reshape(-1, 3)
    face = np.frombuffer(body, np.int32, 3 * faces, 24 * vertices).reshape(-1, 3)
    area = np.frombuffer(body[24 * vertices + 12 * faces :].tobytes(), np.float64)
    model = shape.Model(vertex, face, area, head["disc"], head["sphere"], head["height"])
    return model, _figures(source, head)


def _figures(source: sources.ShapeSource, head: dict) -> Figures:
    file = sources.SourceFile(source.path, head["size"], head["sha256"])
    return Figures(head["disc"], head["sphere"], head["height"], file)
