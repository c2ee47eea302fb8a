"""Shapes read once: what is kept is what was read, is never torn, and follows the file."""

import os
import subprocess
import sys

import numpy as np
import pytest

from gen4d import building, sources
from gen4d.moving import models, shape
from tests import equal
from tests.makers import builds, commands, meshes, rooms
from tests.makers.files import off
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder for what is kept, and nothing in memory."""
    monkeypatch.setenv("GEN4D_CACHE", str(tmp_path / "kept"))
    forget()
    yield tmp_path / "kept"
    forget()


def forget():
    models._load.cache_clear()
    models._figures_of.cache_clear()


def shapes_of(tmp_path) -> tuple[sources.ShapeSource, ...]:
    return sources.find_shapes(meshes.write_shapes(tmp_path / "shapes")).sources


def files_of(kept):
    return sorted(kept.rglob("*.shape"))


def assert_same_model(one: shape.Model, other: shape.Model) -> None:
    for mine, theirs in zip(one, other, strict=True):
        if isinstance(mine, np.ndarray):
            assert mine.tobytes() == theirs.tobytes() and mine.dtype == theirs.dtype and mine.shape == theirs.shape
        else:
            assert mine == theirs


def test_a_kept_shape_is_the_one_that_was_read_bit_for_bit(kept, tmp_path):
    for source in shapes_of(tmp_path):
        mesh = sources.load_shape(source)
        expected = shape.make_model(mesh.vertex, mesh.face)
        assert_same_model(models.load_model(source, "auto"), expected)
        forget()
        assert_same_model(models.load_model(source, "auto"), expected)
        forget()
        figures = models.find_figures(source, "auto")
        assert figures == (expected.disc, expected.sphere, expected.height, mesh.file, ())
    assert len(files_of(kept)) == 5


def test_a_kept_shape_is_read_without_its_mesh(kept, tmp_path, monkeypatch):
    found = shapes_of(tmp_path)
    figures = [models.find_figures(source, "auto") for source in found]
    forget()
    monkeypatch.setattr(sources, "load_shape", lambda *_: pytest.fail("the mesh was read again"))
    assert [models.find_figures(source, "auto") for source in found] == figures
    forget()
    assert all(len(models.load_model(source, "auto").face) for source in found)


def test_a_changed_mesh_and_another_axis_are_read_anew(kept, tmp_path):
    source = shapes_of(tmp_path)[0]
    before = models.find_figures(source, "auto")
    assert models.find_figures(source, "x").height != before.height
    (source.root / source.path).write_text(off((CUBE_VERTEX - 0.5) * [1, 1, 3], CUBE_QUADS))
    forget()
    after = models.find_figures(source, "auto")
    assert after.height == 3 and after.file.sha256 != before.file.sha256
    assert len(files_of(kept)) == 3


@pytest.mark.parametrize("length", [0, 5, 30, 200, -1])
def test_a_torn_file_is_written_again(kept, tmp_path, length):
    source = shapes_of(tmp_path)[3]
    expected = models.load_model(source, "auto")
    path = files_of(kept)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    forget()
    models.find_figures(source, "auto")  # of the head, if that is whole
    assert_same_model(models.load_model(source, "auto"), expected)
    assert path.read_bytes() == whole


def test_a_single_wrong_bit_is_seen(kept, tmp_path):
    source = shapes_of(tmp_path)[1]
    expected = models.load_model(source, "auto")
    path = files_of(kept)[0]
    whole = path.read_bytes()
    for place in {*range(0, len(whole), 97), len(whole) - 1}:
        broken = bytearray(whole)
        broken[place] ^= 4
        path.write_bytes(broken)
        forget()
        assert_same_model(models.load_model(source, "auto"), expected)


@pytest.mark.parametrize("value", ["off", "/dev/null/nowhere"])
def test_without_a_place_to_keep_them_shapes_are_read_each_time(kept, tmp_path, monkeypatch, value):
    monkeypatch.setenv("GEN4D_CACHE", value)
    source = shapes_of(tmp_path)[0]
    mesh = sources.load_shape(source)
    assert_same_model(models.load_model(source, "auto"), shape.make_model(mesh.vertex, mesh.face))
    assert not kept.exists()


def test_a_mesh_that_cannot_be_used_is_kept_by_no_file(kept, tmp_path):
    source = shapes_of(tmp_path)[0]
    (source.root / source.path).write_text("OFF\n3 1 0\n0 0 0\n")
    for _ in range(2):
        with pytest.raises(sources.SourceError, match="truncated"):
            models.find_figures(source, "auto")
    assert not files_of(kept)


def test_many_processes_share_the_folder(kept, tmp_path):
    folder = meshes.write_shapes(tmp_path / "shapes")
    code = (
        "import sys; from pathlib import Path; from gen4d import sources; from gen4d.moving import models\n"
        "for source in sources.find_shapes(Path(sys.argv[1])).sources:\n"
        "    print(models.load_model(source, 'auto').area[-1], models.find_figures(source, 'auto').disc)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder], stdout=subprocess.PIPE, cwd=commands.ROOT, env=os.environ
        )
        for _ in range(3)
    ]
    said = {process.communicate(timeout=120)[0] for process in running}
    assert len(said) == 1 and all(process.returncode == 0 for process in running)
    assert len(files_of(kept)) == 5 and not list(kept.rglob("*.tmp"))


def test_a_build_is_the_same_whether_shapes_are_kept_or_not(kept, tmp_path, monkeypatch):
    scans, shapes = rooms.write_furnished(tmp_path / "scans", 2, 3000), meshes.write_shapes(tmp_path / "shapes")
    planned = builds.make_inputs(scans, shapes, sequences=3)
    for name, value in (("first", str(kept)), ("again", str(kept)), ("none", "off")):
        monkeypatch.setenv("GEN4D_CACHE", value)
        forget()
        builds.run_build(tmp_path / name, planned)
    first, again, none = (equal.files_of(tmp_path / name) for name in ("first", "again", "none"))
    assert first == again == none and len(first) >= 3


def test_a_shape_whose_mesh_breaks_after_its_figures_were_found_is_unreadable_and_stops_nothing(kept, tmp_path):
    scans, shapes = rooms.write_furnished(tmp_path / "scans", 1, 3000), meshes.write_shapes(tmp_path / "shapes")
    planned = builds.make_inputs(scans, shapes, sequences=3)
    for source in planned.shapes:
        models.find_figures(source, "auto")
        (source.root / source.path).write_text("OFF\n")
    models._load.cache_clear()
    built = building.build_found(building.Found(planned, (), ()), tmp_path / "out")
    assert len(built.refused) == 5 and all("no OFF" in line or "counts" in line for line in built.refused), (
        built.refused
    )
