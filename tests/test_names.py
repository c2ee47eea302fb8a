"""Names of files as people have them: any bytes, and letters that HTML, JSON, shells and zips read otherwise."""

import json
import os

import numpy as np
import pytest

import gen4d
from gen4d.sources import find_scans, find_shapes
from gen4d.sources.pointsets import find_any_shapes
from tests.makers import commands
from tests.makers.files import off, ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX
from tests.makers.rooms import bare_floor

ODD = {"latin-1": b"caf\xe9", "a line end": b"two\nlines", "a bell": b"ring\x07", "right to left": "a\u202eb".encode()}
SHOWN = {"latin-1": "caf\\xe9", "a line end": "two\\nlines", "a bell": "ring\\x07", "right to left": "a\\u202eb"}
PLAIN = ["<b>&amp;", "\"quoted\" 'name'", "$(rm) `x`; #", "-rf", "a..b", "空間 é", "a:b", "%41{name}", "back\\slash"]
BOX = off((CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_QUADS)


@pytest.mark.parametrize("kind", ODD)
def test_a_name_that_is_no_text_is_refused_by_name_and_the_others_go_on(tmp_path, kind):
    commands.write_rooms(tmp_path, 2)
    for folder, end in ((tmp_path / "scans", b".ply"), (tmp_path / "shapes" / "chair" / "train", b".off")):
        (old,) = [path for path in sorted(folder.iterdir()) if path.stem.endswith("1")]
        (folder / "copy").write_bytes(old.read_bytes())
        os.rename(folder / "copy", os.fsencode(folder) + b"/" + ODD[kind] + end)
    outcome = commands.gen4d(*commands.build_arguments(tmp_path))
    assert outcome.code == 1 and len(gen4d.open_dataset(tmp_path / "out")) == 4
    told = [line for line in outcome.err.splitlines() if SHOWN[kind] in line]
    assert len(told) == 2 and all("rename it" in line and line.isprintable() for line in told)
    assert commands.gen4d("verify", tmp_path / "out").code == 0
    doctor = commands.gen4d("doctor", "--scans", tmp_path / "scans", "--shapes", tmp_path / "shapes", "--json")
    found = [finding for finding in json.loads(doctor.out) if SHOWN[kind] in finding["path"]]
    assert doctor.code == 1 and [finding["level"] for finding in found] == ["error", "error"]


def test_sets_of_points_with_such_names_are_refused_too(tmp_path):
    for name in (b"a.npy", b"caf\xe9.npy"):
        path = os.fsencode(tmp_path / "chair") + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            np.save(file, bare_floor(1))
    found = find_any_shapes(tmp_path)
    assert [source.name for source in found.sources] == ["chair_a"]
    assert "caf\\xe9.npy: has a name" in found.refused[0][1]


def test_a_folder_of_any_bytes_is_read_and_written(tmp_path):
    folder = tmp_path / os.fsdecode(b"data \xff")
    commands.write_rooms(folder, 1)
    write(folder / "scans" / "broken.ply", b"ply\nbroken")
    outcome = commands.process(*commands.build_arguments(folder))
    assert outcome.code == 1 and "ff/scans/broken.ply: has no line" in outcome.err, outcome.text
    assert len(gen4d.open_dataset(folder / "out")) == 2


def test_names_that_others_read_otherwise_are_kept_letter_by_letter(tmp_path):
    for number, name in enumerate(PLAIN):
        write(tmp_path / "scans" / f"{name}.ply", ply(bare_floor(number)))
        write(tmp_path / "shapes" / "chair" / f"{name}.off", BOX)
    out = tmp_path / "out"
    places = ("--scans", tmp_path / "scans", "--shapes", tmp_path / "shapes", "--out", out)
    made = commands.gen4d("build", *places, "--sequences", "1", "--classes", "chair", "--set", "shape_points=20")
    assert made.code == 0, made.text
    data = gen4d.open_dataset(out)
    assert sorted(data.scan_names) == sorted(PLAIN) and {s.shape for s in data} <= {f"chair_{n}" for n in PLAIN}
    assert commands.gen4d("verify", out).code == 0
    for name in PLAIN:
        assert name in commands.gen4d("inspect", "--", out, f"{name}/000").out
    exported = commands.gen4d("export", out, "--out", tmp_path / "h5")
    assert exported.code == 0 and sorted(gen4d.open_dataset(tmp_path / "h5").scan_names) == sorted(PLAIN)


def test_a_list_chooses_names_with_odd_letters(tmp_path):
    for name in PLAIN:
        write(tmp_path / f"{name}.ply", ply(bare_floor(1)))
        write(tmp_path / "shapes" / f"{name}.off", BOX)
    listed = write(tmp_path / "list.txt", "\n".join(name for name in PLAIN if not name.startswith("#")))
    assert len(find_scans(tmp_path, listed).sources) == len(PLAIN)
    assert len(find_shapes(tmp_path / "shapes", None, listed).sources) == len(PLAIN)
