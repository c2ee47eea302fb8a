"""Labelled shapes: every layout in its exact format, what is wrong with a folder in one line, few labels and folds."""

import re

import h5py
import numpy as np
import pytest

from gen4d.sources import SourceError
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX, write_shape
from tests.makers.sequences import keyed
from tests.shared import SHARED, needs_shared_data
from train.inputs.shapes import LabelledShapesError, Shapes, few_rows, folds_of, read_shapes
from train.tasks.classify.run import read_data

NAMES = ("airplane", "night_stand", "bed")


def cloud(number: int, points: int = 20) -> np.ndarray:
    return keyed(number, 31).random((points, 3)).astype(np.float32)


def upright(point: np.ndarray) -> np.ndarray:
    """These data sets have y up."""
    return point[:, [0, 2, 1]] * np.array([1, -1, 1], np.float32)


def write_hdf5(folder, part="train", label=(0, 1, 2, 1), points=20, listed=None):
    """ModelNet40's HDF5 layout: two files a part, whose list names folders of its makers."""
    folder.mkdir(exist_ok=True)
    names = []
    for number, rows in enumerate(np.array_split(np.arange(len(label)), 2)):
        names.append(f"ply_data_{part}{number}.h5")
        with h5py.File(folder / names[-1], "w") as stored:
            stored["data"] = np.stack([cloud(row, points) for row in rows])
            stored["label"] = np.array(label, np.uint8)[rows][:, None]
    text = "".join(f"data/modelnet40_ply_hdf5_2048/{name}\n" for name in listed or names)
    (folder / f"{part}_files.txt").write_text(text)
    (folder / "shape_names.txt").write_text("\n".join(NAMES) + "\n")
    return folder


def write_resampled(folder, part="train", ids=("airplane_0001", "night_stand_0001", "bed_0003")):
    """ModelNet40 as points with normals, comma and six columns."""
    for number, name in enumerate(ids):
        place = folder / name.rpartition("_")[0]
        place.mkdir(parents=True, exist_ok=True)
        rows = np.hstack([cloud(number), cloud(number + 50)])
        (place / f"{name}.txt").write_text("".join(",".join(f"{x:.6f}" for x in row) + "\n" for row in rows))
    (folder / f"modelnet40_{part}.txt").write_text("\n".join(ids) + "\n")
    (folder / "modelnet40_shape_names.txt").write_text("\n".join(NAMES) + "\n")
    return folder


def write_scanobjectnn(folder, part="train", name="objectdataset"):
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / f"{ {'train': 'training', 'test': 'test'}[part] }_{name}.h5", "w") as stored:
        stored["data"] = np.stack([cloud(row) for row in range(3)])
        stored["label"], stored["mask"] = np.arange(3, dtype=np.int32), np.zeros((3, 20))
    return folder


def write_npz(folder, label=("chair", "chair", "table", "other"), **more):
    folder.mkdir(exist_ok=True)
    point = np.stack([1000 * cloud(row) for row in range(len(label))]).astype(np.int16)
    np.savez(folder / "points.npz", point=point, label=np.array(label), **more)
    return folder


def test_modelnet_s_hdf5_is_read_by_the_names_of_its_classes(tmp_path):
    found = read_shapes(write_hdf5(tmp_path / "h5"), "train")
    assert [found.classes[label] for label in found.label] == ["airplane", "bed", "night_stand", "night_stand"]
    of = dict(zip(found.name, found.point, strict=True))
    assert np.array_equal(of["ply_data_train1_00001"], upright(cloud(3))) and len(of) == 4


def test_resampled_shapes_are_of_the_class_before_their_last_number(tmp_path):
    found = read_shapes(write_resampled(tmp_path), "train")
    assert [found.classes[label] for label in found.label] == ["airplane", "bed", "night_stand"]
    np.testing.assert_allclose(found.point[2], upright(cloud(1)), atol=1e-6)


def test_scanobjectnn_npz_and_folders_of_classes_are_read(tmp_path):
    scanned = read_shapes(write_scanobjectnn(tmp_path / "sonn"), "train")
    assert scanned.classes == ("bag", "bin", "box") and scanned.point[2].shape == (20, 3)
    folder = write_npz(tmp_path / "npz", creator=np.array(list("abcd")))
    for path in (folder, folder / "points.npz"):
        stored = read_shapes(path, None)
        maker = dict(zip(stored.group, stored.label, strict=True))
        assert stored.classes == ("chair", "table") and maker == {"a": 0, "b": 0, "c": 1, "d": -1}
        assert stored.point[0].max() > 500
    for number, name in enumerate(("box", "crate")):
        write_shape(tmp_path / "mesh", name, 1, CUBE_VERTEX * [1, 2, 3 + number], CUBE_QUADS)
    drawn, again = (read_shapes(tmp_path / "mesh", "train") for _ in range(2))
    assert drawn.classes == ("box", "crate") and drawn.point[0].shape == (2048, 3) and drawn.digest == again.digest
    assert np.ptp(drawn.point[0], axis=0)[2] == pytest.approx(1, abs=0.02)


BAD = {
    "absent file of a list": (
        lambda f: write_hdf5(f, listed=["ply_data_train0.h5", "ply_data_train7.h5"]),
        "train_files.txt: names ply_data_train7.h5, which is not there: copy the folder again",
    ),
    "points of two coordinates": (
        lambda f: _rewrite(write_hdf5(f), data=np.zeros((2, 20, 2))),
        "ply_data_train0.h5: has data of shape (2, 20, 2)",
    ),
    "a label without a name": (
        lambda f: write_hdf5(f, label=(0, 1, 2, 9)),
        "ply_data_train1.h5: has the label 9, and names of the classes 0 to 2 alone: copy it and its list",
    ),
    "no HDF5 at all": (
        lambda f: (write_hdf5(f) / "ply_data_train1.h5").write_bytes(b"<html>"),
        "ply_data_train1.h5: is damaged, or not what its name says",
    ),
    "NaN": (
        lambda f: _rewrite(write_hdf5(f), data=np.full((2, 20, 3), np.nan)),
        "ply_data_train0.h5: ply_data_train0_00000 has no finite point: remove it",
    ),
    "text that is none": (
        lambda f: (write_resampled(f) / "bed" / "bed_0003.txt").write_text("1,2,3\n1,x,3\n"),
        "bed_0003.txt: has 'x' where a number belongs, on line 2",
    ),
    "a listed shape that is not there": (
        lambda f: (write_resampled(f) / "bed" / "bed_0003.txt").unlink(),
        "modelnet40_train.txt: names bed_0003, which is not there: restore it, or the list",
    ),
    "two variants": (
        lambda f: write_scanobjectnn(write_scanobjectnn(f), name="objectdataset_augmentedrot"),
        "several variants of one part (training_objectdataset.h5, training_objectdataset_augmentedrot.h5)",
    ),
    "an npz without labels": (
        lambda f: (f.mkdir(), np.savez(f / "a.npz", point=np.zeros((2, 5, 3)))),
        "none of 2 shapes has a class: give labels, or folders of classes",
    ),
    "an npz with more shapes than labels": (
        lambda f: (f.mkdir(), np.savez(f / "a.npz", point=np.zeros((3, 5, 3)), label=np.arange(2))),
        "a.npz: has 3 shapes and 2 labels: they must agree",
    ),
    "an npz of flat arrays": (
        lambda f: (f.mkdir(), np.savez(f / "a.npz", point=np.zeros((3, 5)), label=np.arange(3))),
        "a.npz: has `point` of shape (3, 5)",
    ),
    "an empty folder": (lambda f: f.mkdir(), "data"),
}


def _rewrite(folder, data):
    with h5py.File(folder / "ply_data_train0.h5", "a") as stored:
        del stored["data"]
        stored["data"] = data


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_folder_is_one_line(name, tmp_path):
    spoil, message = BAD[name]
    spoil(tmp_path / "data")
    part = None if "npz" in name else "train"
    with pytest.raises((LabelledShapesError, SourceError), match=re.escape(message)) as caught:
        read_shapes(tmp_path / "data", part)
    assert "\n" not in str(caught.value)


def test_parts_with_other_classes_are_refused_and_data_without_parts_are_cut_in_folds(tmp_path):
    write_npz(tmp_path / "npz", label=["chair", "table"] * 6)
    with pytest.raises(LabelledShapesError, match="has no part 'train': validate by folds instead, --folds 3"):
        read_shapes(tmp_path / "npz", "train")
    data = read_data(tmp_path / "npz", 3, 0)
    assert len(data.splits) == 3 and sorted(np.concatenate([test for _, test in data.splits])) == list(range(12))
    folder = write_resampled(write_resampled(tmp_path / "mn"), "test", ids=("airplane_0001", "bed_0003"))
    with pytest.raises(LabelledShapesError, match=r"mn: train has the class night_stand and test has not: .*1 in all"):
        read_data(folder, None, 0)


# Few labels, and folds -----------------------------------------------------------------------------------------------


def test_few_labels_have_one_of_each_class_first_and_smaller_shares_lie_in_larger_ones():
    label = keyed(1, 33).choice(6, 300, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
    for seed in range(20):
        rows = {percent: few_rows(label, percent, seed) for percent in (0.1, 1, 5, 20, 100)}
        assert {percent: len(found) for percent, found in rows.items()} == {0.1: 6, 1: 6, 5: 15, 20: 60, 100: 300}
        assert all(set(label[found]) == set(range(6)) for found in rows.values())
        assert all(set(rows[a]) <= set(rows[b]) for a, b in ((0.1, 1), (1, 5), (5, 20), (20, 100)))
        assert np.array_equal(rows[5], few_rows(label, 5, seed))
    assert len({tuple(few_rows(label, 5, seed)) for seed in range(20)}) == 20
    drawn = np.bincount(np.concatenate([few_rows(label, 20, seed) for seed in range(300)]), minlength=300)
    common = drawn[label == 0]
    assert common.min() > 25 and common.max() < 95  # every shape of a class has the same chance


def shapes_of(label, group) -> Shapes:
    names = tuple(map(str, range(len(label))))
    return Shapes(names, [cloud(0)] * len(label), np.array(label), tuple(group), tuple("ab"))


def test_folds_never_cut_a_maker_and_hold_every_labelled_shape_once():
    rng = keyed(2, 33)
    label, group = rng.integers(-1, 2, 90), [f"maker{g}" for g in rng.integers(0, 20, 90)]
    fold = folds_of(shapes_of(label, group), 3, 0)
    assert np.array_equal(fold >= 0, label >= 0)
    for name in set(group):
        assert len({f for f, own in zip(fold, group, strict=True) if own == name and f >= 0}) <= 1
    for f in range(3):
        assert set(label[(fold >= 0) & (fold != f)]) == {0, 1} and (fold == f).sum() > 10


def test_a_class_of_one_maker_cannot_be_learned_from_others():
    with pytest.raises(LabelledShapesError, match="class b: all its shapes are of one maker"):
        folds_of(shapes_of([0, 0, 0, 1, 1], "xyzww"), 2, 0)
    assert set(folds_of(shapes_of([0, 0, 0, 1, 1], "xyzwv"), 2, 0)[3:]) == {0, 1}


def test_shapes_of_one_class_are_refused(tmp_path):
    write_npz(tmp_path / "npz", label=("chair",) * 4)
    with pytest.raises(LabelledShapesError, match="all shapes are of the class chair: give two classes at least"):
        read_data(tmp_path / "npz", 2, 0)


def test_a_file_beside_shapes_of_another_data_set_is_refused(tmp_path):
    write_shape(tmp_path, "bed", 1, CUBE_VERTEX, CUBE_QUADS)
    np.savez(tmp_path / "points.npz", point=np.zeros((2, 5, 3)), label=np.arange(2))
    with pytest.raises(LabelledShapesError, match=r"points\.npz: its folder was recognised as"):
        read_shapes(tmp_path / "points.npz", None)


def test_an_empty_folder_of_a_class_is_refused(tmp_path):
    for name in ("bed", "chair"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / f"{name}_1.npy", cloud(1))
    assert read_shapes(tmp_path, None).classes == ("bed", "chair")
    (tmp_path / "lamp" / "train").mkdir(parents=True)
    with pytest.raises(LabelledShapesError, match="lamp: holds no file, so a class of this name would have no shape"):
        read_shapes(tmp_path, None)


@needs_shared_data
def test_the_furniture_is_read_with_its_makers_apart():
    data = read_data(SHARED / "furniture_points", 3, 0)
    assert len(data.shapes.point) == 387 and len(data.shapes.classes) == 14
    makers = [{data.shapes.group[row] for row in test} for _, test in data.splits]
    assert not makers[0] & makers[1] and not makers[1] & makers[2] and not makers[0] & makers[2]
    assert sum(len(test) for _, test in data.splits) == 387
