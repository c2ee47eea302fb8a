"""A shard of real size under a million damages: bits, swapped bytes, sectors of zeros. None is read as something else.

Checking 32 MB a million times would take weeks, and is not needed: the reader looks at an entry of the zip alone, so a
damage can matter only to the entries that it touches. Those are read from the damaged file by the reader itself; what
is not touched is not read. Two samples show that this is the whole truth: `verify` on all of the folder, and a fresh
reader that reads every sequence.
"""

import collections
import pathlib
import shutil

import numpy as np
import pytest

from gen4d import build_dataset
from gen4d.shards import open_dataset, zarr_reader
from gen4d.shards.format import ARRAYS, FormatError
from gen4d.shards.zarr_reader import ZipShard
from tests.damage import Patched, first_problem
from tests.faults import scaled
from tests.makers.meshes import write_box
from tests.makers.rooms import write_full_size

_LAYERS = {
    "crc32c of a chunk": "fails its crc32c",
    "CRC-32 of a zarr.json": "fails its CRC-32",
    "header of an entry": "is not where the directory says",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen scans of 115,000 points, twenty sequences each: one shard."""
    raw = tmp_path_factory.mktemp("large")
    write_full_size(raw / "scans", 16)
    classes = ("chair", "night_stand")
    for name in classes:
        write_box(raw / "shapes", name)
    build_dataset(raw / "scans", raw / "shapes", raw / "data", classes=classes)
    assert open_dataset(raw / "data").manifest["totals"]["sequences"] == 320
    return raw / "data"


class Shard:
    """A shard to be damaged, and a whole one; each byte belongs to an entry of the zip or to its directory."""

    def __init__(self, path: pathlib.Path, whole: pathlib.Path):
        self.path, self.reader, self.whole = path, ZipShard(path), ZipShard(whole)
        self.content = np.fromfile(path, np.uint8)
        self.names = sorted(self.whole._place, key=lambda name: self.whole._place[name].offset)
        places = [self.whole._place[name] for name in self.names]
        self.start = np.array([place.offset for place in places])
        self.end = int(self.start[-1]) + len(places[-1].header) + places[-1].size
        ends = [place.offset + len(place.header) + place.size for place in places]
        assert ends[:-1] == self.start[1:].tolist() and self.start[0] == 0

    def touched(self, patches: list[tuple[int, bytes]]) -> set[str]:
        """Entries that patches reach into, and "directory"."""
        found = set()
        for at, piece in patches:
            first, last = np.searchsorted(self.start, [at, min(at + len(piece), self.end) - 1], "right") - 1
            found |= set(self.names[first : last + 1]) if at < self.end else set()
            found |= {"directory"} if at + len(piece) > self.end else set()
        return found

    def draw(self, rng: np.random.Generator) -> list[tuple[int, bytes]]:
        """Places and new bytes of a damage: flipped bits in 1 to 8 places, two swapped bytes, or a sector of zeros."""
        kind = int(rng.integers(4))
        if kind == 0:
            spots = [self._draw_place(rng) for _ in range(int(rng.integers(1, 9)))]
            flips = dict.fromkeys(spots, 0) | {spot: 1 << int(rng.integers(8)) for spot in spots}
            return [(at, bytes([self.content[at] ^ bits])) for at, bits in flips.items()]
        if kind == 1:
            one, other = self._draw_place(rng), self._draw_place(rng)
            return [(one, self.content[other].tobytes()), (other, self.content[one].tobytes())]
        size = (512, 4096)[kind - 2]
        at = self._draw_place(rng) // size * size
        return [(at, bytes(min(size, len(self.content) - at)))]

    def _draw_place(self, rng: np.random.Generator) -> int:
        """Half of them anywhere, half in an entry or the directory, whatever its size: most bytes are points and masks,
        and most rules are about the rest."""
        if rng.random() < 0.5:
            return int(rng.integers(len(self.content)))
        i = int(rng.integers(len(self.names) + 50))
        if i >= len(self.names):
            return int(rng.integers(self.end, len(self.content)))
        place = self.whole._place[self.names[i]]
        head = rng.random() < 0.2
        return place.offset + int(rng.integers(len(place.header) + (0 if head else place.size)))

    def changes(self, patches: list[tuple[int, bytes]]) -> bool:
        """Whether a damage changes any byte: a sector of zeros may have been one."""
        return any(self.content[at : at + len(piece)].tobytes() != piece for at, piece in patches)

    def read_damaged(self, touched: set[str]) -> list[str]:
        """What the reader makes of the file as it is now: the layers that refuse what a damage touches, each entry by
        itself, so that one cannot hide another; none where all is read as it was.

        Raises AssertionError where anything is read that is not as it was.
        """
        shard, layers = self.reader, []  # opened before; a directory that the damage does not touch is the same
        if "directory" in touched:
            try:
                shard = ZipShard(self.path)
            except FormatError:
                return ["directory"]
            touched = touched | {name for name in self.names if shard._place.get(name) != self.whole._place[name]}
        for name in sorted(touched - {"directory"}):
            try:
                self._check_entry(shard, name)
            except FormatError as error:
                layers.append(next((layer for layer, part in _LAYERS.items() if part in str(error)), "other rules"))
        return layers

    def _check_entry(self, shard: ZipShard, entry: str) -> None:
        """Read one entry as opening or reading a shard does, and compare it with what it was."""
        name = entry.removesuffix("/zarr.json").split("/c/")[0]
        if entry == "zarr.json":
            assert shard._metadata(entry)["attributes"] == self.whole.attributes
        elif entry.endswith("zarr.json"):  # a group's is never read
            assert name not in ARRAYS or shard._describe(name, ARRAYS[name]) == self.whole.arrays[name]
        else:
            size, number = self.whole.arrays[name].chunk[0], int(entry.split("/c/")[1].split("/")[0])
            rows = shard.read(name, number * size, min((number + 1) * size, shard.length(name)))
            whole = self.whole.read(name, number * size, min((number + 1) * size, self.whole.length(name)))
            assert rows.tobytes() == whole.tobytes(), f"{entry} is read wrong"


@pytest.fixture(scope="module")
def whole(folder):
    """A copy that stays whole."""
    return pathlib.Path(shutil.copytree(folder, folder.parent / "whole"))


@pytest.fixture
def shard(folder, whole, monkeypatch):
    monkeypatch.setattr(zarr_reader, "_CACHED_BYTES", 0)  # every read reads
    return Shard(*(top / "shards" / "00000.zarr.zip" for top in (folder, whole)))


def damages(shard: Shard, rng: np.random.Generator, count: int):
    """Yield the patches of `count` damages, each while it is in the file, and put it right again."""
    drawn = collections.Counter()
    with Patched(shard.path) as file:
        while drawn["damages"] < count:
            patches = shard.draw(rng)
            if not shard.changes(patches):
                drawn["without effect"] += 1
                continue
            drawn["damages"] += 1
            for at, piece in patches:
                file.put(at, piece)
            yield patches
            for at, piece in patches:
                file.restore(at, len(piece))
    print(dict(drawn))


def test_no_damage_of_a_large_shard_is_read_as_something_else(shard):
    """By the reader, of the entries that a damage touches; and every layer of checks has its share."""
    layers, harmless = collections.Counter(), 0
    for patches in damages(shard, np.random.default_rng(27), scaled(1500, 1_000_000)):
        found = shard.read_damaged(shard.touched(patches))
        harmless += not found
        layers.update(found)
    assert shard.path.read_bytes() == shard.content.tobytes()
    print(f"of a shard of {len(shard.content)} bytes, entries refused by {dict(layers.most_common())}")
    print(f"{harmless} damages harmless, of bytes that no reader looks at; none read wrong")
    assert {*_LAYERS, "directory"} <= set(layers) and harmless < 0.02 * layers.total()


def test_verify_finds_damages_of_a_large_shard(folder, shard):
    """On all of the folder, of which it hashes every byte."""
    dataset, found = open_dataset(folder), 0
    for _ in damages(shard, np.random.default_rng(28), scaled(6, 2000)):
        assert str(shard.path) in first_problem(folder, dataset)
        found += 1
    assert first_problem(folder) == ""
    print(f"{found} damages of a large shard found by verify")


def test_a_fresh_reader_of_a_damaged_large_shard_reads_what_was_written_or_nothing(folder, whole, shard, monkeypatch):
    """Every sequence; and where the entries that a damage touches can be read, so can all sequences."""
    monkeypatch.undo()
    written, outcomes = list(open_dataset(whole)), collections.Counter()
    for patches in damages(shard, np.random.default_rng(29), scaled(2, 300)):
        harmless = not shard.read_damaged(shard.touched(patches))
        refused = _count_refused(folder, written)
        assert not (harmless and refused)
        outcomes["harmless" if harmless else "some sequences refused" if refused else "no sequence concerned"] += 1
    print(f"every sequence read: {dict(outcomes)}")


def _count_refused(folder: pathlib.Path, written: list) -> int:
    """Sequences that the reader refuses; raises AssertionError where one is not as it was written."""
    dataset, refused = open_dataset(folder), 0
    for number, sequence in enumerate(written):
        try:
            read = dataset[number]
            same = [(one.cloud, other.cloud) for one, other in zip(read.actors, sequence.actors, strict=True)]
            same += [(one[1:], other[1:]) for one, other in zip(read.actors, sequence.actors, strict=True)]
            assert read.id == sequence.id and all(
                np.array_equal(a, b) for pair in same for a, b in zip(*pair, strict=True)
            )
        except FormatError:
            refused += 1
    return refused
