"""Every stored sequence of builds over real scans and built-in rooms obeys the laws, and the laws see what breaks them.

Sources are read by `tests.raw`, so that nothing is compared with what has gone through the generator.
"""

import json
import pathlib

import numpy as np
import pytest
import trimesh

from gen4d import shards, sources
from gen4d.building import moving
from gen4d.config import Config
from gen4d.samples import write_samples
from tests import laws, naive, raw
from tests.makers.builds import make_inputs, run_build
from tests.makers.meshes import write_shapes
from tests.makers.rooms import write_furnished
from tests.shared import SHARED, needs_shared_data

_ROOMS, _SEQUENCES = 18, 60


# Data sets


def built(out: pathlib.Path, scans: pathlib.Path, names, **config) -> pathlib.Path:
    """A data set of the named scans of a folder, with shapes of the eight classes where the shared data are there."""
    shapes = SHARED / "furniture8" if SHARED else write_shapes(out.parent / "shapes")
    found = sources.find_scans(scans)
    found = found._replace(sources=tuple(source for source in found.sources if names is None or source.name in names))
    planned = moving.make_inputs(found, sources.find_shapes(shapes), Config(**config))
    run_build(out, planned, workers=2)
    return out


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    scans = write_furnished(folder / "scans", _ROOMS, 12_000)
    return built(folder / "built", scans, None, sequences=_SEQUENCES), raw.source_of(scans)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """All rescans of three built-in rooms, validation rooms too, with built-in shapes."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, rooms=3, shapes=2)
    names = folder / "all.txt"
    names.write_text("\n".join(path.name for path in (folder / "scans").glob("scene*")))
    found = sources.find_scans(folder / "scans", names), sources.find_shapes(folder / "shapes")
    run_build(folder / "built", moving.make_inputs(*found, Config(sequences=40)), workers=2)

    def read(name):
        path = folder / "scans" / name / f"{name}_vh_clean_2"
        label = raw.Ply(path.with_suffix(".labels.ply")).vertex["label"]
        return laws.Source(raw.Ply(path.with_suffix(".ply")).point, label.astype(np.int32))

    return folder / "built", read


@pytest.fixture(scope="module")
def laser_scans(tmp_path_factory):
    out = tmp_path_factory.mktemp("laser") / "built"
    scans = SHARED / "pcl_indoor"
    names = ("room_scan1", "room_scan2")
    return built(out, scans, names, sequences=20, pairs=True, scans_per_shard=1), raw.source_of(scans)


@pytest.fixture(scope="module")
def depth_view(tmp_path_factory):
    out = tmp_path_factory.mktemp("depth") / "built"
    scans = SHARED / "pcl_indoor"
    return built(out, scans, ("office1",), sequences=20, up="floor:-y"), raw.source_of(scans)


@pytest.fixture(scope="module")
def crowds(tmp_path_factory):
    """Rooms through which two or three shapes move at once."""
    folder = tmp_path_factory.mktemp("crowds")
    scans = write_furnished(folder / "scans", 6, 9_000)
    return built(folder / "built", scans, None, sequences=12, movers_min=2, movers_max=3), raw.source_of(scans)


def reader(folder: pathlib.Path):
    """The correspondences that gen4d's reader gives."""
    dataset = shards.open_dataset(folder)
    return lambda number, i, j: dataset[number].correspondences(i, j)


def classes_tried(folder: pathlib.Path) -> set[str]:
    described = [json.loads(path.read_bytes()) for path in (folder / "shards").glob("*.json")]
    return {name for sidecar in described for scan in sidecar["scans"] for name in scan["drawn"]}


# The laws


def test_a_thousand_stored_sequences_obey_every_law(rooms):
    folder, source = rooms
    report = laws.check_dataset(folder, source, reader(folder))
    assert report.scans == _ROOMS and report.sequences >= 1000, report
    assert report.pairs > 1000 * report.sequences


def test_shapes_that_move_at_once_obey_every_law_and_never_overlap(crowds):
    folder, source = crowds
    report = laws.check_dataset(folder, source, reader(folder))
    counts = np.diff(laws.read_shard(folder / "shards" / "00000.zarr.zip").table["mover/start"])
    assert report.sequences >= 60 and set(counts.tolist()) == {2, 3}, report


def test_the_sequences_of_built_in_rooms_obey_every_law(samples):
    folder, source = samples
    report = laws.check_dataset(folder, source, reader(folder))
    assert report.scans >= 3 and report.sequences >= 38 * report.scans, report


@needs_shared_data
def test_twenty_sequences_of_each_real_room_obey_every_law_with_all_classes_tried(laser_scans):
    folder, source = laser_scans
    report = laws.check_dataset(folder, source, reader(folder))
    assert report[:2] == (2, 40)
    assert len(classes_tried(folder)) == 8
    assert "pair/first" in laws.read_shard(folder / "shards" / "00000.zarr.zip").table


@needs_shared_data
def test_twenty_sequences_of_a_tilted_depth_view_obey_every_law_after_levelling(depth_view):
    folder, source = depth_view
    assert laws.check_dataset(folder, source, reader(folder))[:2] == (1, 20)
    transform = laws.read_shard(folder / "shards" / "00000.zarr.zip").table["scan/transform"][0]
    tilt = np.degrees(np.arccos(transform[2, :3] @ [0, -1, 0]))
    assert 3 < tilt < 7  # a plane fit by hand says 4.9 degrees


# The shapes


def mesh_of(folder: pathlib.Path, class_name: str, name: str, height_m: float) -> trimesh.Trimesh:
    """A shape in metres, standing on z = 0 around the axis of its smallest disc."""
    mesh = trimesh.load(folder / class_name / "train" / f"{name}.off", process=False, force="mesh")
    vertex = np.asarray(mesh.vertices)[np.unique(mesh.faces)]
    low, high = vertex.min(axis=0), vertex.max(axis=0)
    x, y, _ = naive.enclosing_circle(np.ascontiguousarray(vertex[:, :2]))
    return trimesh.Trimesh((mesh.vertices - [x, y, low[2]]) * height_m / (high[2] - low[2]), mesh.faces, process=False)


def check_surface(shard: laws.Shard, folder: pathlib.Path, row: int) -> str:
    """The points of a sequence's shape lie all over the surface of its mesh, whose disc is the sequence's."""
    table = shard.table
    class_name = shard.classes[table["sequence/class"][row]]
    name = shard.shapes[table["sequence/shape"][row]]
    mesh = mesh_of(folder, class_name, name, table["sequence/height_m"][row])
    used = np.asarray(mesh.vertices)[np.unique(mesh.faces)]
    laws.demand(abs(np.hypot(*used[:, :2].T).max() - table["sequence/radius_m"][row]) < 1e-6, name, "fills its disc")
    rows = laws.cloud_rows(shard, int(table["actor/cloud"][table["actor/start"][row] + 1]))
    point = table["cloud/point"][rows].astype(np.float64)
    some = point[:: max(10, len(mesh.faces) // 100)]  # every point is compared with every face
    _, gap, _ = trimesh.proximity.closest_point_naive(mesh, some)
    laws.demand(gap.max() < 1e-4, name, "its points lie on its surface", gap.max())
    corner = mesh.triangles
    middle = np.average(corner.mean(axis=1), axis=0, weights=mesh.area_faces)
    slack = 6 * point.std(axis=0) / np.sqrt(len(point)) + 1e-4
    laws.demand((np.abs(point.mean(axis=0) - middle) < slack).all(), name, "its points are spread by area")
    return class_name


def check_surfaces(folder: pathlib.Path, shapes: pathlib.Path, every: int) -> set[str]:
    """Check every n-th sequence of a data set, and each shard's first of every class; returns the classes met."""
    seen = set()
    for path in sorted((folder / "shards").glob("*.zarr.zip")):
        shard = laws.read_shard(path)
        _, first = np.unique(shard.table["sequence/class"], return_index=True)
        rows = {*range(0, len(shard.table["sequence/k"]), every), *first.tolist()}
        seen |= {check_surface(shard, shapes, row) for row in sorted(rows)}
    return seen


def test_the_points_of_shapes_lie_on_their_meshes_scaled_to_their_height(rooms):
    folder, _ = rooms
    shapes = SHARED / "furniture8" if SHARED else folder.parent / "shapes"
    assert len(check_surfaces(folder, shapes, 41)) >= 3


def test_the_points_of_built_in_shapes_lie_on_their_meshes(samples):
    folder, _ = samples
    assert len(check_surfaces(folder, folder.parent / "shapes", 11)) == 8


def test_the_points_of_small_shapes_lie_on_their_meshes(tmp_path):
    """Shapes whose files have fused headers, other units and far origins."""
    shapes = write_shapes(tmp_path / "shapes")
    scans = write_furnished(tmp_path / "scans", 1)
    run_build(tmp_path / "built", make_inputs(scans, shapes))
    assert check_surfaces(tmp_path / "built", shapes, 1) == {"chair", "night_stand", "table"}
