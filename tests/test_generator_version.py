"""A number of the generator stands for draws and bytes: neither changes without a new number.

generator_version.json holds the digests that belong to the numbers. Where a test here fails because draws or bytes are
meant to change, give GENERATOR (gen4d/config.py) or GENERATOR_VERSION (gen4d/samples/write.py) a new number, and run
`python -m tests.test_generator_version`, which writes the digests of the new number. Data sets of different numbers
are not continued or merged, and results on built-in rooms are comparable within a number only.

What depends on how a processor rounds is compared to a millionth, or as bytes with the packages of the recorded
versions only.
"""

import hashlib
import json
import pathlib
import platform

import numba
import numpy as np
import pytest

import gen4d
from gen4d.config import GENERATOR, versions
from gen4d.samples import GENERATOR_VERSION
from gen4d.samples.camera.scanner import scan_room
from gen4d.samples.draws import keyed
from gen4d.samples.modelnet import SHAPE_STYLES, shape_text
from gen4d.samples.rooms.room import make_room, rearranged
from gen4d.shards.zarr_writer import shard_bytes
from tests.makers import meshes
from tests.makers.rooms import furnished_room
from tests.makers.sequences import make_sequence

RECORD = pathlib.Path(__file__).with_name("generator_version.json")
ADVICE = "is not what {name} {number} gave: if that is meant, {name} needs a new number, see the head of {file}"


def sha256(parts) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else str(part).encode())
        total.update(b"\0")
    return total.hexdigest()


# What the numbers stand for


def draws() -> dict:
    """A small build in memory: all that is drawn as whole numbers, and sums of what is drawn as lengths."""
    shapes = {"chair": {"a": meshes.chair(0.25), "b": meshes.chair(0.32)}, "table": {"c": meshes.table(64, 0.7)}}
    point = furnished_room(5, 6000)
    label = (np.arange(len(point)) % 7).astype(np.int32)
    made = gen4d.generate(point, shapes, name="fixed", labels=label, sequences=12, seed=3, shape_points=200)
    parts, lengths = [made.floor.valid.tobytes(), made.floor.origin.tolist()], [made.floor.floor_m, made.free_m]
    for sequence in made:
        mover, (scan, shape) = sequence.movers[0], sequence.actors
        parts += [sequence.id, sequence.attempt, mover.shape, scan.cloud.vertex.tobytes(), scan.cloud.label.tobytes()]
        parts += [scan.planes.tobytes(), shape.planes.tobytes()]
        lengths += [mover.height_m, mover.shrink, mover.radius_m]
        lengths += [np.abs(shape.cloud.point).sum(dtype=float), np.abs(shape.pose).sum(dtype=float)]
    return {"draws": sha256(parts), "lengths_m": [round(float(value), 6) for value in lengths]}


def shards() -> dict:
    """Shards of sequences that no generator made, with labels and pairs, and without."""
    sequences = [make_sequence(k, points=300, shape_points=70) for k in range(5)]
    bare = [make_sequence(k, points=90, shape_points=0, t=3) for k in range(2)]
    of = [gen4d.Recording(f"room{i:04d}", [s for s in sequences if s.scan == f"room{i:04d}"]) for i in range(2)]
    contents = [
        shard_bytes(tuple(of), 4, {"seed": 1}, pairs=True),
        shard_bytes((gen4d.Recording("room0000", tuple(bare)),), 3, {}, pairs=False),
    ]
    return {"bytes": sha256(contents)}


def furniture() -> dict:
    """Every shape of every class in its file, and all that stands in the first rooms and in a rescan of each."""
    texts = [shape_text(0, name, index) for name in SHAPE_STYLES for index in range(12)]
    rooms = [make_room(0, index).plan for index in range(8)]
    rows = []
    for index, plan in enumerate(rooms):
        for item in (*plan.items, *rearranged(plan, keyed(0, "rearranged", index, 1)).items):
            rows.append(f"{item.piece.name} {item.x:.2f} {item.y:.2f} {item.z:.2f}")
            for piece in item.piece.all():
                rows += [piece.name, piece.mesh.face.tobytes(), (np.round(piece.mesh.point, 4) + 0.0).tobytes()]
    return {"shapes": sha256(texts), "rooms": sha256(rows)}


def scan() -> dict:
    """The first scan of the first room, level and tilted, as it is before it is written."""
    seen = scan_room(make_room(0, 0).plan, keyed(0, "scan", 0, 0))
    tilted = scan_room(make_room(0, 0).plan, keyed(0, "scan", 0, 0), keyed(0, "tilt", 0, 0))
    columns = [(one.point, one.color, one.face, one.segment, one.instance, one.label) for one in (seen, tilted)]
    return {name: sha256(c.tobytes() for c in of) for name, of in zip(("scan", "tilted"), columns, strict=True)}


def surroundings() -> dict:
    """What bytes may depend on beside the code."""
    names = ("numpy", "numba", "numcodecs", "zarr")
    return {name: versions()[name] for name in names} | {"machine": platform.machine()}


# Compared with what was recorded


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text())


def needs_same_surroundings(record):
    if surroundings() != record["with"]:
        pytest.skip(f"bytes were recorded with {record['with']}")


def advice(name, number):
    return ADVICE.format(name=name, number=number, file=pathlib.Path(__file__).name)


def test_the_record_is_of_these_numbers(record):
    assert (record["generator"], record["samples"]) == (GENERATOR, GENERATOR_VERSION), "record the new number's digests"


def test_draws_change_with_the_number_of_the_generator_only(record):
    found = draws()
    assert found["draws"] == record["draws"], advice("GENERATOR", GENERATOR)
    assert found["lengths_m"] == pytest.approx(record["lengths_m"], rel=1e-6, abs=1e-5), advice("GENERATOR", GENERATOR)


def test_bytes_change_with_the_number_of_the_generator_only(record):
    needs_same_surroundings(record)
    assert shards()["bytes"] == record["bytes"], advice("GENERATOR", GENERATOR)


def test_built_in_furniture_changes_with_the_number_of_the_samples_only(record):
    found = furniture()
    for name in ("shapes", "rooms"):
        assert found[name] == record[name], f"{name}: {advice('GENERATOR_VERSION', GENERATOR_VERSION)}"


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="scanning a room takes hours without compiled kernels")
def test_built_in_scans_change_with_the_number_of_the_samples_only(record):
    needs_same_surroundings(record)
    found = scan()
    for name in ("scan", "tilted"):
        assert found[name] == record[name], advice("GENERATOR_VERSION", GENERATOR_VERSION)


if __name__ == "__main__":
    numbers = {"generator": GENERATOR, "samples": GENERATOR_VERSION}
    content = numbers | draws() | shards() | furniture() | scan() | {"with": surroundings()}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
