"""Folders of shapes: recognised, chosen by class and split, loaded with z up."""

import numpy as np
import pytest

from gen4d.sources import SourceError, find_shapes, load_shape
from tests.makers.files import glb, glb_mesh, obj, off, write
from tests.makers.meshes import CUBE_TRIANGLES, CUBE_VERTEX
from tests.shared import SHARED, needs_shared_data

CUBE = off(CUBE_VERTEX, CUBE_TRIANGLES, "OFF")


def modelnet(folder, **counts):
    for class_name, (train, test) in counts.items():
        for number in range(1, train + test + 1):
            part = "train" if number <= train else "test"
            write(folder / class_name / part / f"{class_name}_{number:04d}.off", CUBE)


def names(found):
    return [source.name for source in found.sources]


def test_modelnet_gives_its_train_part_sorted_by_class_and_path(tmp_path):
    modelnet(tmp_path, sofa=(2, 1), chair=(2, 2))
    found = find_shapes(tmp_path)
    assert names(found) == ["chair_0001", "chair_0002", "sofa_0001", "sofa_0002"]
    assert found.entry == "modelnet40"
    (warning,) = found.warnings
    assert "only train/ is used (4); test (3) is left out" in warning
    assert found.sources[0].path == "chair/train/chair_0001.off" and found.sources[0].size == len(CUBE)


def test_modelnet_test_part_and_lists_are_chosen_by_split(tmp_path):
    modelnet(tmp_path, chair=(2, 2))
    assert names(find_shapes(tmp_path, split="test")) == ["chair_0003", "chair_0004"]
    assert names(find_shapes(tmp_path, split="train")) == ["chair_0001", "chair_0002"]
    listed = write(tmp_path / "list.txt", "chair_0002\nchair_0004\n")
    assert names(find_shapes(tmp_path, split=listed)) == ["chair_0004", "chair_0002"]  # by path: test/ first
    with pytest.raises(SourceError, match="no shape of the split"):
        find_shapes(tmp_path, split=write(tmp_path / "other.txt", "sofa_0001\n"))


def test_modelnet_without_test_part_warns_of_nothing(tmp_path):
    modelnet(tmp_path, chair=(2, 0))
    assert not find_shapes(tmp_path).warnings


def test_only_the_classes_asked_for_are_found_and_missing_ones_named(tmp_path):
    modelnet(tmp_path, chair=(1, 0), sofa=(1, 0), table=(1, 0))
    found = find_shapes(tmp_path, ("sofa", "bathtub", "chair"))
    assert names(found) == ["chair_0001", "sofa_0001"]
    assert "no shape of the class bathtub" in found.warnings[0] and found.others == ("table",)
    with pytest.raises(SourceError, match=r"no shape of the class bathtub, bed: its classes are chair, sofa, table"):
        find_shapes(tmp_path, ("bathtub", "bed"))


def test_built_in_sample_shapes_are_recognised_by_their_marker(tmp_path):
    modelnet(tmp_path / "shapes", chair=(1, 1))
    write(tmp_path / "gen4d_samples.json", '{"version": 1, "seed": 0}')
    assert find_shapes(tmp_path / "shapes").entry == "gen4d-sample-shapes"


def test_folder_of_classes_with_any_mesh_format_is_found(tmp_path):
    write(tmp_path / "chair" / "1.obj", obj(CUBE_VERTEX, CUBE_TRIANGLES))
    write(tmp_path / "chair" / "chair_2.off", CUBE)
    write(tmp_path / "table" / "1.GLB", glb(*glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES)))
    write(tmp_path / "table" / "licence.txt", "mine")
    found = find_shapes(tmp_path)
    assert names(found) == ["chair_1", "chair_2", "table_1"] and found.entry == "shape-folders"
    assert [len(load_shape(source).face) for source in found.sources] == [12, 12, 12]


def test_flat_folder_takes_the_class_from_the_name_without_its_number(tmp_path):
    for name in ("chair_0001", "chair-2", "night_stand_03", "chair", "DWR_MATERA_DRESSER2", "cb-block-60x96"):
        write(tmp_path / f"{name}.off", CUBE)
    classes = {source.name: source.class_name for source in find_shapes(tmp_path).sources}
    assert classes == {
        "chair_0001": "chair",
        "chair-2": "chair",
        "night_stand_03": "night_stand",
        "chair": "chair",
        "DWR_MATERA_DRESSER2": "DWR_MATERA_DRESSER",
        "cb-block-60x96": "cb-block-60x",
    }


def test_shapenet_categories_are_named_by_the_manifest(tmp_path):
    cube = obj(CUBE_VERTEX * [1, 1, 3], CUBE_TRIANGLES)
    write(tmp_path / "03001627" / "1a2b" / "models" / "model_normalized.obj", cube)
    write(tmp_path / "04379243" / "3c4d" / "models" / "model_normalized.obj", cube)
    found = find_shapes(tmp_path, ("chair", "table"))
    assert names(found) == ["chair_1a2b", "table_3c4d"] and found.entry == "shapenet"
    assert np.ptp(load_shape(found.sources[0]).vertex, axis=0).tolist() == [1, 3, 1]  # y is up


def test_two_shapes_of_one_name_are_refused_with_both_paths(tmp_path):
    write(tmp_path / "chair" / "chair_1.obj", obj(CUBE_VERTEX, CUBE_TRIANGLES))
    write(tmp_path / "chair" / "chair_1.off", CUBE)
    with pytest.raises(SourceError, match=r"two shapes named 'chair_1', chair/chair_1\.obj and chair/"):
        find_shapes(tmp_path)


def test_folder_without_shapes_is_refused_and_scans_are_named(tmp_path):
    with pytest.raises(SourceError, match="holds no shapes"):
        find_shapes(tmp_path)
    write(tmp_path / "velodyne" / "000000.bin", b"1")
    with pytest.raises(SourceError, match="looks like KITTI"):
        find_shapes(tmp_path)


def test_loaded_shape_carries_its_file_and_up_can_be_overridden(tmp_path):
    tall = CUBE_VERTEX * [1, 2, 3]
    write(tmp_path / "chair_1.off", off(tall, CUBE_TRIANGLES))
    (source,) = find_shapes(tmp_path).sources
    mesh = load_shape(source)
    assert np.array_equal(mesh.vertex, tall) and mesh.face.dtype == np.int32
    assert mesh.file.path == "chair_1.off" and mesh.file.size == source.size and len(mesh.file.sha256) == 64
    assert np.ptp(load_shape(source, "y").vertex, axis=0).tolist() == [1, 3, 2]
    with pytest.raises(SourceError, match="--up"):
        load_shape(source, "sideways")


@pytest.mark.parametrize("content, words", [(b"", "empty (0 bytes)"), (b"\0\1\2", "not an OFF file")])
def test_shape_that_cannot_be_read_is_refused_by_its_file(tmp_path, content, words):
    write(tmp_path / "chair_1.off", content)
    with pytest.raises(SourceError) as error:
        load_shape(find_shapes(tmp_path).sources[0])
    assert words in str(error.value) and error.value.path == str(tmp_path / "chair_1.off")


def test_folder_named_like_a_shape_is_refused_and_the_others_go_on(tmp_path):
    (tmp_path / "chair_1.off").mkdir()
    write(tmp_path / "chair_2.off", CUBE)
    found = find_shapes(tmp_path)
    assert names(found) == ["chair_2"] and "is a folder" in found.refused[0][1]


@needs_shared_data
def test_real_furniture_is_found_and_every_model_has_a_surface_and_a_footprint():
    found = find_shapes(SHARED / "furniture8", split="train")
    assert len(found.sources) == 36 and len({source.class_name for source in found.sources}) == 8
    assert len(find_shapes(SHARED / "furniture8", split="test").sources) == 9
    for source in found.sources:
        if source.size < 300_000:
            mesh = load_shape(source)
            assert (np.ptp(mesh.vertex, axis=0) > 0.1).all() and abs(mesh.vertex[:, 2].min()) < 1e-3


@needs_shared_data
def test_real_obj_furniture_stands_upright():
    found = find_shapes(SHARED / "furniture_blueprint3d_mit")
    assert len(found.sources) == 24 and not found.refused
    (chair,) = (source for source in found.sources if "churchchair" in source.name)
    extent = np.ptp(load_shape(chair).vertex, axis=0)
    assert extent[2] > 1.2 * extent[0]
