"""SUN RGB-D from raw files that the test writes: against plain arithmetic pixel by pixel, and what is wrong."""

import json
import math
import shutil

import numpy as np
import pytest
import scipy.io

from gen4d import sources
from tests.makers import sunrgbd
from tests.makers.files import write
from tests.test_train_cli import call, refusal
from train.inputs.labels import NONE, label_table
from train.inputs.objects import boxes_of, with_instances
from train.inputs.scans import read_scan, read_scans
from train.inputs.subsets import find_part
from train.prepare.matlab import MatError, read_mat
from train.prepare.sunrgbd import PrepareError, frame_boxes, prepare
from train.tasks.detect.boxes import corners

SUN = label_table("sunrgbd10")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The folder, and the images of each frame."""
    root = tmp_path_factory.mktemp("sunrgbd")
    return root, sunrgbd.write(root)


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    return out, prepare(raw[0], out)


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def naive_cloud(depth, colour):
    """A row a pixel with depth, in the image's order."""
    rows = []
    for v in range(sunrgbd.HEIGHT):
        for u in range(sunrgbd.WIDTH):
            z = min(depth[v, u] / 1000, 8.0)
            if z > 0:
                x = ((u + 1) - sunrgbd.K[0, 2]) * z / sunrgbd.K[0, 0]
                y = ((v + 1) - sunrgbd.K[1, 2]) * z / sunrgbd.K[1, 1]
                rows.append([*(sunrgbd.TILT @ [x, z, -y]), *(colour[v, u] / 255)])
    return np.array(rows)


def test_clouds_are_those_of_the_pixels(raw, prepared):
    out, _ = prepared
    for number, (depth, colour) in enumerate(raw[1]):
        part = "val" if number < 2 else "train"
        with np.load(out / part / f"{number + 1:06d}_pc.npz") as stored:
            found, expected = stored["pc"], naive_cloud(depth, colour)
        assert (np.diff(found[:, 0]) >= 0).all()
        expected = expected[np.lexsort(np.float32(expected[:, 2::-1]).T)]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_boxes_are_v1s_as_votenet_stores_them(prepared):
    out, found = prepared
    box = np.load(out / "val/000001_bbox.npy")
    np.testing.assert_allclose(box[0], [0.4, 2.0, -0.3, 0.8, 0.5, 0.3, -math.atan2(0.8, 0.6), 0])
    np.testing.assert_allclose(box[1], [-0.5, 1.5, 0.1, 0.25, 0.3, 0.5, -math.pi, 3])
    assert np.load(out / "val/000002_bbox.npy").shape == (0, 8)
    assert np.load(out / "train/000003_bbox.npy")[:, 7].tolist() == [7]  # a lamp is none of the ten
    assert found.parts == {"train": 3, "val": 2} and found.frames == 5 and not found.left_out and found.odd == 1


def test_boxes_that_lack_something_are_left_out_and_counted():
    whole = dict(zip(("classname", "centroid", "coeffs", "orientation"), sunrgbd.BED, strict=True))
    lacking = [{name: value for name, value in whole.items() if name != left} for left in whole]
    broken = [whole | {"coeffs": (1, 2)}, whole | {"centroid": (0, 0, math.nan)}, whole | {"orientation": (0, 0, 1)}]
    box, odd = frame_boxes([whole, *lacking, *broken, whole | {"classname": np.zeros((0, 0))}])
    assert (len(box), odd) == (1, 6)


def test_what_is_read_of_a_frame_faces_where_its_bed_does(prepared):
    """A box's long side lies along its orientation: checked by its corners."""
    source = find_part(prepared[0], "val").scans[0]
    scan = read_scan(source, SUN)
    found = boxes_of(scan, frozenset(), 10)
    assert found.owner is None and found.kind.tolist() == [0, 3] and (scan.label == NONE).all()
    corner = corners(found.box)[0]
    ahead = np.array([0.6, 0.8, 0])
    along, across = (corner - found.box[0, :3]) @ ahead, (corner - found.box[0, :3]) @ [-0.8, 0.6, 0]
    np.testing.assert_allclose([np.abs(along), np.abs(across)], [[0.8] * 8, [0.5] * 8])
    assert find_part(prepared[0], "train").entry == "votenet-sunrgbd"


def test_frames_have_boxes_and_no_instances(prepared):
    scans = read_scans(find_part(prepared[0], "train").scans, SUN, 1)
    assert [scan.name for scan in with_instances(scans, "training", boxes=True)] == ["000003", "000004", "000005"]
    with pytest.raises(ValueError, match="none of 3 training scans"):
        with_instances(scans, "training")


def test_both_versions_of_mat_files_give_the_same(raw, prepared, tmp_path):
    root = tmp_path / "raw"
    sunrgbd.write(root, "7.3")
    fields = ("depthpath", "K", "groundtruth3DBB", "classname", "coeffs")
    for name in ("SUNRGBDMeta3DBB_v2.mat", "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"):
        first, second = (read_mat(folder / name, "SUNRGBDMeta", fields) for folder in (raw[0], root))
        assert len(first) == 5 and first[0].keys() == set(fields[:3])
        np.testing.assert_equal(first, second)
    prepare(root, tmp_path / "out")
    whole, again = content(prepared[0]), content(tmp_path / "out")
    assert whole.keys() == again.keys()
    assert [name for name in whole if whole[name] != again[name]] == [p for p in whole if p.suffix == ".json"]


def test_a_sample_is_drawn_by_the_number_of_its_frame(raw, prepared, tmp_path):
    prepare(raw[0], tmp_path / "a", points=100)
    prepare(raw[0], tmp_path / "b", points=100, workers=2)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    with np.load(tmp_path / "a/val/000001_pc.npz") as few, np.load(prepared[0] / "val/000001_pc.npz") as all_:
        assert len(few["pc"]) == 100
        assert {row.tobytes() for row in few["pc"]} < {row.tobytes() for row in all_["pc"]}
    with pytest.raises(PrepareError, match="was prepared from another points"):
        prepare(raw[0], tmp_path / "a", points=120)


def test_a_killed_run_goes_on_to_the_same_bytes_and_damage_is_mended(raw, prepared, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(prepared[0], out)
    (out / "prepared.json").unlink()
    (out / "train/000004_bbox.npy").unlink()  # a frame is two files: the second was not written yet
    write(out / "train/000005_pc.npz.host-7.9.tmp", b"half")
    prepare(raw[0], out)
    assert content(out) == content(prepared[0])
    whole = (out / "val/000002_pc.npz").read_bytes()
    (out / "val/000002_pc.npz").write_bytes(whole[:-5] + b"x" + whole[-4:])
    assert prepare(raw[0], out).again == ("val/000002_pc.npz",)
    assert content(out) == content(prepared[0]) and not prepare(raw[0], out).again


def test_the_command_counts_what_it_wrote_and_says_why_not_the_rest(raw, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(raw[0], root)
    (root / "SUNRGBD" / sunrgbd.FRAMES[2] / "depth/2.png").unlink()
    write(root / "SUNRGBD" / sunrgbd.FRAMES[4] / "image/4.png", b"no image")
    result = call("prepare", "sunrgbd", root, "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output
    lines = result.output.splitlines()
    assert f"{tmp_path / 'out'}: 3 of 5 frames (1 for train, 2 for val); the whole data set has 10335" in lines
    assert any(line.startswith("left out, images that cannot be read: 2 frames (first: 000003, ") for line in lines)
    assert "left out, boxes without a place, size or direction: 1" in lines
    stored = json.loads((tmp_path / "out/prepared.json").read_text())
    assert stored["left_out"] == {"images that cannot be read": [3, 5]} and len(stored["files"]) == 6
    for number in (2, 4):
        shutil.rmtree(root / "SUNRGBD" / sunrgbd.FRAMES[number])
        shutil.copytree(raw[0] / "SUNRGBD" / sunrgbd.FRAMES[number], root / "SUNRGBD" / sunrgbd.FRAMES[number])
    assert call("prepare", "sunrgbd", root, "--out", tmp_path / "out", "--json").exit_code == 0


def test_frames_of_no_part_and_without_labels_are_left_out_and_said(raw, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(raw[0], root)
    listed = {
        "alltest": sunrgbd.Cell([]),
        "alltrain": sunrgbd.Cell(f"{sunrgbd.ROOT}/SUNRGBD/{n}" for n in sunrgbd.FRAMES[1:]),
    }
    sunrgbd.save_5(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", listed)
    labels = [sunrgbd._frame(number, sunrgbd.ROOT, True) for number in (0, 1, 2, 4)]
    sunrgbd.save_5(root / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": labels})
    found = prepare(root, tmp_path / "out")
    assert {why: numbers for why, (numbers, _) in found.left_out.items()} == {
        "in neither part of the split": [1],
        "without V1 labels": [4],
    }


def test_folders_and_files_that_are_no_sun_rgbd_are_one_line(raw, tmp_path):
    text = refusal("prepare", "sunrgbd", tmp_path, "--out", tmp_path / "out")
    assert "has no SUNRGBDMeta3DBB_v2.mat: give the folder that holds it" in text
    write(tmp_path / "other/notes.txt", b"x")
    assert "holds other files (notes.txt" in refusal("prepare", "sunrgbd", raw[0], "--out", tmp_path / "other")
    root = tmp_path / "raw"
    shutil.copytree(raw[0], root)
    (root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat").unlink()
    with pytest.raises(MatError, match=r"allsplit\.mat: is not there: download it"):
        prepare(root, tmp_path / "out")
    write(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", b"MATLAB 5.0 MAT-file".ljust(200))
    with pytest.raises(MatError, match="cannot be read"):
        prepare(root, tmp_path / "out")
    sunrgbd.save_5(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"x": np.zeros(3)})
    with pytest.raises(MatError, match="has no variable alltrain"):
        prepare(root, tmp_path / "out")
    path = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    scipy.io.savemat(path, {"alltrain": np.random.default_rng(1).normal(size=500)}, do_compression=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(MatError, match=r"allsplit\.mat: cannot be read .*: download it again"):
        prepare(root, tmp_path / "out")
    sunrgbd.save_5(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"alltrain": np.eye(2), "alltest": np.eye(2)})
    with pytest.raises(PrepareError, match="lacks what frames have"):
        prepare(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_boxes_alone_are_refused_by_segmentation(prepared, tmp_path):
    text = refusal("finetune", "--data", prepared[0], "--weights", "none", "--preset", "small", "--run", tmp_path)
    assert "no point of 3 training scans (first: 000003) has a class, boxes alone: --task detect" in text


def test_votenets_own_folders_are_read_too(prepared, tmp_path):
    """Its clouds are float64 and lie in folders of its names, which are found one by one."""
    shutil.copytree(prepared[0] / "val", tmp_path / "sunrgbd_pc_bbox_votes_50k_v1_val")
    path = tmp_path / "sunrgbd_pc_bbox_votes_50k_v1_val/000001_pc.npz"
    with np.load(path) as stored:
        np.savez_compressed(path, pc=stored["pc"].astype(np.float64))
    np.savez_compressed(path.with_name("000001_votes.npz"), point_votes=np.zeros((5, 10)))
    found = sources.find_scans(tmp_path / "sunrgbd_pc_bbox_votes_50k_v1_val")
    assert (found.entry, len(found.sources)) == ("votenet-sunrgbd", 2)
    assert len(read_scan(found.sources[0], SUN).box) == 2
