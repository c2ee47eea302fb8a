"""Exports of sequences, read back by programs of others: the numbers of `Sequence.frame` and `correspondences`."""

import json
import pathlib
import signal
import string
import struct
import tarfile

import numpy as np
import pytest
import trimesh
import webdataset
from numpy.testing import assert_allclose, assert_array_equal

import gen4d
from gen4d import Cloud, Recording, Sequence, files, make_actor, sources
from gen4d.exports import pointcept, sequences
from gen4d.exports.sequences import ExportError, export_sequences, file_name, plan_export
from gen4d.sequence import frame_pairs
from tests import faults
from tests.equal import files_of
from tests.makers import commands, kinds

KINDS = ("pointcept", "ply", "npz", "glb", "webdataset")
HOSTILE = [
    "a/b",
    "..",
    "../up",
    "with space",
    "room<script>",
    "-rf",
    "a:b",
    ".hidden",
    "空間",
    "v1.2",
    "x" * 400,
    "%2E",
]


@pytest.fixture(scope="module", params=kinds.MAKERS)
def data(request, tmp_path_factory):
    """A data set of each kind: several movers, moving parts, frames, views."""
    return gen4d.write_dataset([kinds.MAKERS[request.param]()], tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """Three scans with two sequences each."""
    made = [kinds.three_movers() for _ in range(3)]
    for number, recording in enumerate(made):
        object.__setattr__(recording, "name", f"room.{number}")
        for sequence in recording:
            sequence.scan = recording.name
    return gen4d.write_dataset(made, tmp_path_factory.mktemp("walks") / "data", scans_per_shard=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two scans of 50 points with a sequence of two frames each."""
    return gen4d.write_dataset(map(bare, "ab"), tmp_path_factory.mktemp("tiny") / "data")


def bare(name: str) -> Recording:
    """A scan of that name, and one sequence in which nothing moves."""
    room = kinds.room(1, 50)
    return Recording(name, (Sequence(name, 0, (make_actor(room, np.ones((2, 50), bool)),)),), room)


def export(dataset, kind: str, out: pathlib.Path, numbers=None) -> pathlib.Path:
    """The folder of a whole export."""
    plan = plan_export(dataset, tuple(range(len(dataset))) if numbers is None else tuple(numbers), kind, out)
    assert list(export_sequences(dataset, plan, out))[-1] == sum(len(some) for _, some in plan.files)
    return out


def assert_columns(frame, read: dict) -> None:
    """A frame's columns are the ones that were read, and those that it has not are not there."""
    wanted = {"point": frame.point, "actor": frame.actor, "index": frame.point_index}
    wanted |= {"label": frame.label, "instance": frame.instance}
    assert read.keys() == {key for key, value in wanted.items() if value is not None}
    for key, value in read.items():
        assert_array_equal(value, wanted[key], strict=True)


# Their readers -------------------------------------------------------------------------------------------------------


def test_numpy_reads_frames_and_pairs(data, tmp_path):
    export(data, "npz", tmp_path)
    for sequence in data:
        with np.load(tmp_path / f"{sequence.scan}_{sequence.k:03d}.npz") as read:
            for i, frame in enumerate(sequence):
                mine = {key.removesuffix(f"_{i}"): read[key] for key in read if key.endswith(f"_{i}")}
                assert_columns(frame, {key: value for key, value in mine.items() if "pairs" not in key})
            for i, j in frame_pairs(sequence.t):
                assert_array_equal(read[f"pairs_{i}_{j}"].T, np.array(sequence.correspondences(i, j)))


def test_trimesh_reads_every_property_of_ply(data, tmp_path):
    export(data, "ply", tmp_path)
    for sequence in data:
        folder = tmp_path / f"{sequence.scan}_{sequence.k:03d}"
        assert len(list(folder.iterdir())) == sequence.t
        for i, frame in enumerate(sequence):
            cloud = trimesh.load(folder / f"frame_{i:02d}.ply")
            assert_array_equal(cloud.vertices.astype("f4"), frame.point)
            rows = cloud.metadata["_ply_raw"]["vertex"]["data"]
            point = np.stack([rows[axis] for axis in "xyz"], axis=1)
            assert_columns(frame, {"point": point, **{key: rows[key] for key in rows.dtype.names[3:]}})


def test_webdataset_decodes_samples_one_after_another(data, tmp_path):
    export(data, "webdataset", tmp_path)
    samples = list(webdataset.WebDataset(str(tmp_path / "sequences-000000.tar"), shardshuffle=False).decode())
    for sequence, sample in zip(data, samples, strict=True):
        assert sample["__key__"] == f"{sequence.scan}_{sequence.k:03d}" and sample["json"]["id"] == sequence.id
        assert sample["json"]["kind"] == sequence.kind and sample["json"]["frames"] == sequence.t
        assert [mover["class"] for mover in sample["json"]["movers"]] == [m.class_name for m in sequence.movers]
        arrays = sequence.arrays()
        assert {key.removesuffix(".npy") for key in sample if key.endswith(".npy")} == arrays.keys()
        for key, value in arrays.items():
            assert_array_equal(sample[f"{key}.npy"], value, strict=True)


def read_as_pointcept(root: pathlib.Path, split: str = "train") -> dict[str, dict[str, np.ndarray]]:
    """What Pointcept's DefaultDataset takes from a folder: every folder of a split, the arrays whose names it knows."""
    known = ("coord", "color", "normal", "strength", "segment", "instance", "pose")
    found = {}
    for folder in root.glob(f"{split}/*"):
        read = {path.stem: np.load(path) for path in folder.glob("*.npy") if path.stem in known}
        none = np.full(len(read["coord"]), -1, np.int32)
        found[folder.name] = {key: read.get(key, none).reshape(-1).astype(np.int32) for key in ("segment", "instance")}
        found[folder.name]["coord"] = read["coord"].astype(np.float32)
    return found


def test_pointcept_finds_every_frame_with_its_columns_and_so_do_we(data, tmp_path):
    export(data, "pointcept", tmp_path)
    found = read_as_pointcept(tmp_path)
    assert len(found) == sum(sequence.t for sequence in data)
    for number, sequence in enumerate(data):
        for i, frame in enumerate(sequence):
            name = f"{sequence.scan}_{sequence.k:03d}_{i:02d}"
            assert_array_equal(found[name]["coord"], frame.point, strict=True)
            none = np.full(len(frame.point), -1, np.int32)
            label = none if frame.label is None else pointcept.segments(frame.label, data.label_space(number))
            assert_array_equal(found[name]["segment"], label)
            assert_array_equal(found[name]["instance"], none if frame.instance is None else frame.instance)
            for key, value in (("actor", frame.actor), ("index", frame.point_index)):
                assert_array_equal(np.load(tmp_path / "train" / name / f"{key}.npy"), value, strict=True)
    mine = {source.name.rpartition("/")[2] for source in sources.find_scans(tmp_path).sources}
    assert mine == set(found)


def test_segments_count_the_benchmarks_classes_from_zero_and_nothing_else():
    nyu40 = np.array([1, 2, 16, 39, 0, 13, 40, 149, -1, 999], np.int32)
    assert pointcept.segments(nyu40, "nyu40").tolist() == [0, 1, 13, 19, -1, -1, -1, -1, -1, -1]
    mine = np.array([-1, 0, 7, 199], np.int32)
    assert pointcept.segments(mine, "scannet20").tolist() == [-1, 0, 7, -1]
    assert pointcept.segments(mine, "scannet200").tolist() == mine.tolist()
    assert pointcept.segments(mine, "unknown").tolist() == mine.tolist()


def glb_of(path: pathlib.Path) -> tuple[dict, list[np.ndarray]]:
    """The scene of a GLB and its accessors, by the words of the specification."""
    content = path.read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON") and size % 4 == 0
    scene, start = json.loads(content[20 : 20 + size]), 20 + size
    assert struct.unpack_from("<I4s", content, start) == (scene["buffers"][0]["byteLength"], b"BIN\0")
    arrays = []
    for accessor in scene["accessors"]:
        view = scene["bufferViews"][accessor["bufferView"]]
        wide = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        array = np.frombuffer(content, "<f4", accessor["count"] * wide, start + 8 + view["byteOffset"])
        arrays.append(array.reshape(-1, wide))
        assert (arrays[-1].min(axis=0).tolist(), arrays[-1].max(axis=0).tolist()) == (accessor["min"], accessor["max"])
    return scene, arrays


def matrix_of(part: dict) -> np.ndarray:
    """Translation, rotation by a quaternion and scale as one matrix, by the formula of any textbook."""
    x, y, z, w = np.asarray(part.get("rotation", [0, 0, 0, 1]), float)
    turn = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    out = np.eye(4)
    out[:3, :3] = np.array(turn) * np.asarray(part.get("scale", [1, 1, 1]), float)
    out[:3, 3] = part.get("translation", [0, 0, 0])
    return out


def test_nodes_of_a_glb_move_as_the_frames_do(data, tmp_path):
    export(data, "glb", tmp_path)
    for sequence in data:
        scene, arrays = glb_of(tmp_path / f"{sequence.scan}_{sequence.k:03d}.glb")
        motion = scene.get("animations", [{"channels": [], "samplers": []}])[0]
        root, *nodes = scene["nodes"]
        assert_allclose(matrix_of(root) @ [1, 2, 3, 1], [1, 3, -2, 1], atol=1e-6)  # z up there, y up in glTF
        assert root["extras"]["id"] == sequence.id and len(nodes) == len(sequence.actors)
        for i, frame in enumerate(sequence):
            for number, (node, actor) in enumerate(zip(nodes, sequence.actors, strict=True)):
                part = dict(node)
                for channel in motion["channels"]:
                    if channel["target"]["node"] == number + 1:
                        sampler = motion["samplers"][channel["sampler"]]
                        assert arrays[sampler["input"]][:, 0].tolist() == list(range(sequence.t + 1))
                        part[channel["target"]["path"]] = arrays[sampler["output"]][i]
                kept = frame.point_index[frame.actor == number]
                if len(actor.cloud):
                    points = scene["meshes"][node["mesh"]]["primitives"][0]["attributes"]["POSITION"]
                    assert_array_equal(arrays[points], actor.cloud.point)
                    here = arrays[points] @ matrix_of(part)[:3, :3].T + matrix_of(part)[:3, 3]
                    assert_allclose(here[kept], frame.point[frame.actor == number], atol=2e-6)
                    assert len(kept) or not np.ptp(here, axis=0).any()  # absent: of size 0


def test_trimesh_reads_a_glb_with_a_cloud_once(data, tmp_path):
    export(data, "glb", tmp_path)
    for sequence in data:
        scene = trimesh.load(tmp_path / f"{sequence.scan}_{sequence.k:03d}.glb")
        clouds = {id(actor.cloud): actor.cloud for actor in sequence.actors if len(actor.cloud)}
        assert sorted(len(one.vertices) for one in scene.geometry.values()) == sorted(map(len, clouds.values()))


def test_an_actor_of_no_points_is_a_node_without_a_mesh(tmp_path):
    room = kinds.room(1)
    none = make_actor(Cloud(np.empty((0, 3))), np.zeros((4, 0), bool))
    data = gen4d.write_dataset(
        [Recording("r", (Sequence("r", 0, (make_actor(room, kinds.masks(1, room)), none)),), room)], tmp_path / "data"
    )
    for kind in KINDS:
        export(data, kind, tmp_path / kind)
    assert len(trimesh.load(tmp_path / "glb" / "r_000.glb").geometry) == 1


# The folder ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_the_same_each_time_and_nothing_else_is_left(kind, walks, tmp_path):
    one, two = export(walks, kind, tmp_path / "one"), export(walks, kind, tmp_path / "two")
    assert files_of(one) == files_of(two)
    assert not [path.name for path in one.rglob("*") if path.suffix in (".tmp", ".lock")]


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_killed_at_any_effect_continues_to_the_same_bytes(kind, tiny, tmp_path):
    recorder = faults.Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "effect", recorder)
        whole = files_of(export(tiny, kind, tmp_path / "whole"))
    for number in range(0, len(recorder.ops), 1 + len(recorder.ops) // 8):  # how files get there is one code for all
        out = tmp_path / f"{number}"
        pid = faults.child(lambda out=out: bool(export(tiny, kind, out)) - 1, faults.At(number, faults.tear))
        assert faults.wait(pid) == -signal.SIGKILL
        there = {name: content for name, content in files_of(out).items() if ".tmp" not in name} if out.exists() else {}
        assert there.items() <= whole.items()  # what has its name is whole
        assert files_of(export(tiny, kind, out)) == whole


def test_what_is_there_is_not_made_again_and_more_may_be_added(walks, tmp_path):
    out = export(walks, "ply", tmp_path / "out", [0, 3])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.ply")}
    plan = plan_export(walks, tuple(range(6)), "ply", out)
    assert plan.left == 4 and list(export_sequences(walks, plan, out)) == [1, 2, 3, 4, 5, 6]
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(list(out.rglob("*.ply"))) == 24
    assert plan_export(walks, tuple(range(6)), "ply", out)[2:4] == (0, 0)


def test_tars_hold_as_many_sequences_as_fit_and_those_of_another_choice_are_refused(walks, tmp_path, monkeypatch):
    size = plan_export(walks, (0,), "webdataset", tmp_path).bytes
    monkeypatch.setattr(sequences, "_TAR_BYTES", 2 * size + 10)
    out = export(walks, "webdataset", tmp_path / "out", range(5))
    counts = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            counts.append(sum(name.endswith(".json") for name in tar.getnames()))
    assert counts == [2, 2, 1]
    before = files_of(out)
    with pytest.raises(ExportError, match="made with other options"):
        export(walks, "webdataset", out)
    assert files_of(out) == before


def test_an_export_of_another_data_set_or_format_or_among_other_files_is_refused(walks, data, tmp_path):
    out = export(walks, "npz", tmp_path / "out", [0])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    before = files_of(tmp_path)
    for dataset, kind, where, why in (
        (data, "npz", out, "another data set"),
        (walks, "glb", out, "other options"),
        (walks, "npz", tmp_path / "mine", r"other files \(notes.txt, 1 in all\)"),
        (walks, "npz", tmp_path / "mine" / "notes.txt", "is a file: give a folder"),
    ):
        with pytest.raises(ExportError, match=why):
            plan_export(dataset, tuple(range(len(dataset))), kind, where)  # so --dry-run promises nothing wrong
    assert files_of(tmp_path) == before


def test_a_folder_that_fills_while_an_export_is_planned_is_refused(walks, tmp_path):
    plan = plan_export(walks, (0,), "npz", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="other files"):
        list(export_sequences(walks, plan, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(walks, full_disk):
    disk = full_disk(200_000)
    outcome = commands.gen4d("export", walks.folder, "--to", "npz", "--out", disk / "out")
    assert outcome.code == 1 and outcome.err.splitlines() == [outcome.err.strip()]
    assert "B are free: free some space, give another --out" in outcome.err and "--limit" in outcome.err
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_leaves_whole_files_and_the_export_goes_on_with_space(walks, full_disk):
    disk = full_disk(450_000)
    plan = plan_export(walks, tuple(range(6)), "ply", disk / "out")._replace(bytes=0)
    with pytest.raises(OSError, match="No space left"):
        list(export_sequences(walks, plan, disk / "out"))
    left = [path for path in (disk / "out").iterdir() if path.is_dir()]
    assert left and all(len(list(path.iterdir())) == 4 for path in left)


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_scans_never_leave_the_folder_and_stay_apart(kind, tmp_path):
    data = gen4d.write_dataset(map(bare, HOSTILE), tmp_path / "data")
    out = export(data, kind, tmp_path / "deep" / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "deep"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    plain = set(string.ascii_letters + string.digits + "_-%.空間")
    made = [path for path in out.rglob("*") if path.name != "export.json"]
    assert all(set(path.name) <= plain and not path.name.startswith(("-", ".")) for path in made)
    if kind == "webdataset":
        samples = webdataset.WebDataset(str(out / "sequences-000000.tar"), shardshuffle=False).decode()
        assert [sample["json"]["scan"] for sample in samples] == list(data.scan_names)
    elif kind == "pointcept":
        assert len(read_as_pointcept(out)) == 2 * len(HOSTILE)
    else:
        assert len([path for path in out.iterdir() if path.name != "export.json"]) == len(HOSTILE)


def test_names_are_plain_short_and_different_for_different_texts():
    assert [file_name(name) for name in ("scene0000_00", "..", "a/b", "-rf")] == [
        "scene0000_00", "%2E%2E", "a%2Fb", "%2Drf"
    ]  # fmt: skip
    long = ["é" * 200, "é" * 201, "\ud800" * 90]
    names = [file_name(name) for name in [*HOSTILE, *long]]
    assert len(set(names)) == len(names) and max(len(name.encode()) for name in names) <= 120


# The command ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), ["0_000", "0_002", "1_000", "1_002", "2_000", "2_002"]),
        (("--limit", "1"), ["0_000"]),
        (("--sequences", "room.1"), ["1_000", "1_002"]),
        (("--sequences", "room.2/002", "--sequences", "0"), ["0_000", "2_002"]),
        (("--sequences", "1-3", "--limit", "2"), ["0_002", "1_000"]),
    ],
)
def test_sequences_are_chosen_by_scan_id_number_and_range(walks, tmp_path, options, wanted):
    outcome = commands.gen4d("export", walks.folder, "--to", "npz", "--out", tmp_path / "out", *options)
    assert outcome.code == 0, outcome.text
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.npz")) == [f"room%2E{name}" for name in wanted]
    count = "1 sequence" if len(wanted) == 1 else f"{len(wanted)} sequences"
    assert f"{count} to write: about " in outcome.out and f"{count} in npz" in outcome.out


@pytest.mark.parametrize(
    ("options", "code", "wanted"),
    [
        (("--to", "ply", "--sequences", "room.9"), 2, "nearest"),
        (("--to", "ply", "--sequences", "3-1"), 2, "write 1-3"),
        (("--to", "ply", "--sequences", "2-99"), 2, "for --sequences: '99' is neither a number below 6"),
        (("--to", "ply", "--sequences", "99"), 2, "for --sequences: '99' is neither a number below 6"),
        (("--to", "ply", "--pairs"), 2, "hdf5"),
        (("--to", "hdf5", "--limit", "1"), 2, "leave them out"),
    ],
)
def test_wrong_choices_are_refused_and_nothing_is_written(walks, tmp_path, options, code, wanted):
    outcome = commands.gen4d("export", walks.folder, "--out", tmp_path / "out", *options)
    assert outcome.code == code and wanted in outcome.err and not (tmp_path / "out").exists()


def test_a_dry_run_says_what_it_takes_and_writes_nothing(walks, tmp_path):
    outcome = commands.gen4d("export", walks.folder, "--to", "glb", "--out", tmp_path / "out", "--dry-run")
    assert outcome.code == 0 and "6 sequences to write: about " in outcome.out and "glTF cannot say" in outcome.err
    assert not (tmp_path / "out").exists()


def test_estimates_are_of_the_bytes_that_are_written(data, tmp_path):
    for kind in KINDS:
        plan = plan_export(data, tuple(range(len(data))), kind, tmp_path / kind)
        made = files_of(export(data, kind, tmp_path / kind))
        del made["export.json"]
        assert sum(map(len, made.values())) == pytest.approx(plan.bytes, rel=0.15)


def test_an_export_of_no_sequence_is_refused(walks, tmp_path):
    with pytest.raises(ExportError, match="holds no sequence: gen4d inspect says why"):
        plan_export(walks, (), "ply", tmp_path)


def test_the_note_of_an_export_names_the_data_set(walks, tmp_path):
    note = json.loads((export(walks, "glb", tmp_path, [0]) / "export.json").read_text())
    assert note["source"] == walks.digest and note["format"] == "glb" and len(note["sha256"]) == 64
