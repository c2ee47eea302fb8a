"""Changing files in place, and what verify and the reader make of them."""

import hashlib
import os
import pathlib
import zipfile

import google_crc32c
import numcodecs
import numpy as np

from gen4d.shards import open_dataset, verify
from gen4d.shards.format import FormatError, seal, unseal


class Patched:
    """A file that can be changed in place and put right again."""

    def __init__(self, path: pathlib.Path):
        self.path, self.content = path, path.read_bytes()
        self.descriptor = os.open(path, os.O_WRONLY)

    def flip(self, byte: int, bits: int) -> None:
        os.pwrite(self.descriptor, bytes([self.content[byte] ^ bits]), byte)

    def put(self, byte: int, piece: bytes) -> None:
        os.pwrite(self.descriptor, piece, byte)

    def restore(self, byte: int, length: int = 1) -> None:
        os.pwrite(self.descriptor, self.content[byte : byte + length], byte)

    def cut(self, length: int) -> None:
        os.truncate(self.path, length)

    def mend(self) -> None:
        os.truncate(self.path, len(self.content))
        os.pwrite(self.descriptor, self.content, 0)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.mend()
        os.close(self.descriptor)


def problems(folder: pathlib.Path, dataset=None) -> list[str]:
    """What verify says, opening the folder unless it is open already."""
    try:
        return [line for line in verify.verify(dataset or open_dataset(folder)) if line]
    except FormatError as error:
        return [str(error)]


def first_problem(folder: pathlib.Path, dataset=None) -> str:
    """The first thing that verify says, or nothing; it need not look at the rest then."""
    try:
        return next((line for line in verify.verify(dataset or open_dataset(folder)) if line), "")
    except FormatError as error:
        return str(error)


def digest(sequence) -> str:
    """One hash of all that a sequence gives."""
    total = hashlib.sha256(repr((sequence.id, sequence.scan, sequence.shape, sequence.class_name)).encode())
    for frame in sequence.frames:
        for column in frame:
            total.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    for actor in sequence.actors:
        total.update(actor.pose.tobytes() + actor.cloud.vertex.tobytes() + bytes([actor.role]))
    return total.hexdigest()


def read(folder: pathlib.Path) -> list[str | None]:
    """The hash of every sequence, None where the reader refuses it."""
    try:
        dataset = open_dataset(folder)
    except FormatError:
        return []
    result = []
    for i in range(len(dataset)):
        try:
            result.append(digest(dataset[i]))
        except FormatError:
            result.append(None)
    return result


def adopt(path: pathlib.Path) -> None:
    """Make dataset.json and the shard's description agree with whatever a shard is now, as an attacker does."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    described = {"bytes": path.stat().st_size, "content_sha256": digest}
    sidecar = path.with_name(f"{path.name[:5]}.json")
    sidecar.write_bytes(seal(unseal(sidecar.read_bytes(), "") | described))
    described["sidecar_sha256"] = hashlib.sha256(sidecar.read_bytes()).hexdigest()
    manifest = path.parents[1] / "dataset.json"
    value = unseal(manifest.read_bytes(), "")
    value["shards"][int(path.name[:5])] |= described
    manifest.write_bytes(seal(value))


def entries_of(path: pathlib.Path) -> dict[str, bytes]:
    """Names and contents of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: pathlib.Path, entries) -> None:
    """A zip of (name, content), dated as gen4d dates them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), content)


def with_crc(body: bytes) -> bytes:
    """A chunk's body with the checksum that belongs behind it."""
    return body + google_crc32c.value(body).to_bytes(4, "little")


def packed(values: np.ndarray) -> bytes:
    """Values as a chunk."""
    return with_crc(numcodecs.Blosc("zstd", 9).encode(np.ascontiguousarray(values)))
