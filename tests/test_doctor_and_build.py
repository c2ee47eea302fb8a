"""What the doctor accepts builds, and what a build needs the doctor asks for; builds say why sequences are missing."""

import os

import numpy as np
import pytest

from gen4d.config import Config, ConfigError
from gen4d.moving.feasible import expected_acceptance, refuse_hopeless
from tests.makers import commands, meshes, rooms
from tests.makers.files import off, ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX

BOX = off((CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_QUADS)


def scans_of(folder, points=9000):
    write(folder / "scans" / "room.ply", ply(rooms.bare_floor(1, points)))
    return folder / "scans"


def both(folder, shapes, *options):
    """Exit codes and words of the doctor and of a build, of the same folders and options."""
    scans = scans_of(folder)
    doctor = commands.gen4d("doctor", "--scans", scans, "--shapes", shapes, *options)
    build = commands.gen4d("build", "--scans", scans, "--shapes", shapes, "--out", folder / "out", *options,
                           "--sequences", "1", "--set", "shape_points=20")  # fmt: skip
    return doctor, build


LAYOUTS = {
    "classes as ModelNet has them": ["chair/train/chair_0001.off"],
    "plurals": ["Chairs/a.off"],
    "two words": ["Night Stand/a.off"],
    "camel case": ["NightStand/NightStand_1.off"],
    "an alias": ["couch/a.off"],
    "flat, class in front": ["chair_0001.off", "Chair_0002.off"],
}
REFUSED = {
    "flat, of no known class": ["thing1.off", "thing2.off"],
    "folders of no known class": ["gnomes/a.off", "dwarfs/b.off"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_that_the_doctor_accepts_build(tmp_path, layout):
    for name in LAYOUTS[layout]:
        write(tmp_path / "shapes" / name, BOX)
    doctor, build = both(tmp_path, tmp_path / "shapes")
    assert (doctor.code, build.code) == (0, 0), doctor.text + build.text
    assert "class " in doctor.out and "no metric height" not in doctor.out


@pytest.mark.parametrize("layout", REFUSED)
def test_shapes_that_a_build_refuses_are_an_error_for_the_doctor_in_the_same_words(tmp_path, layout):
    for name in REFUSED[layout]:
        write(tmp_path / "shapes" / name, BOX)
    doctor, build = both(tmp_path, tmp_path / "shapes")
    assert (doctor.code, build.code) == (1, 1)
    words = "has no shape of the class chair"
    assert words in doctor.out and words in build.err and "its classes are" in build.err


def test_a_class_without_heights_is_refused_by_both_unless_shapes_have_a_unit(tmp_path):
    write(tmp_path / "shapes" / "gnome" / "a.off", BOX)
    doctor, build = both(tmp_path, tmp_path / "shapes", "--classes", "gnome")
    assert (doctor.code, build.code) == (1, 1)
    assert "--shape-units" in doctor.out and "--shape-units" in build.err
    doctor, build = both(tmp_path, tmp_path / "shapes", "--classes", "gnome", "--shape-units", "m")
    assert (doctor.code, build.code) == (0, 0), doctor.text + build.text


def test_the_doctor_reads_the_classes_in_use_alone(tmp_path):
    write(tmp_path / "shapes" / "chair" / "a.off", BOX)
    write(tmp_path / "shapes" / "airplane" / "b.off", "OFF\nbroken")
    doctor, _ = both(tmp_path, tmp_path / "shapes")
    assert doctor.code == 0 and "b.off" not in doctor.out
    named, _ = both(tmp_path, tmp_path / "shapes", "--classes", "chair,airplane")
    assert named.code == 1 and "b.off" in named.out


def test_a_wrong_unit_of_shapes_is_seen_before_the_build(tmp_path):
    write(tmp_path / "shapes" / "chair" / "a.off", BOX)
    doctor, _ = both(tmp_path, tmp_path / "shapes", "--shape-units", "mm")
    assert "no size of furniture: check --shape-units" in doctor.out


# Gaps


def crowded(folder):
    """A floor on which chairs of all heights fit and bathtubs do not, and one that is too narrow for anything."""
    wide = rooms.bare_floor(1, 9000, 1.3)
    narrow = np.concatenate([rooms.bare_floor(2, 900, 0.3), rooms.bare_floor(3, 90, 0.3) + np.float32([9, 9, 0])])
    write(folder / "scans" / "wide.ply", ply(wide))
    write(folder / "scans" / "narrow.ply", ply(narrow))
    return ("--scans", folder / "scans", "--shapes", meshes.write_shapes(folder / "shapes"), "--out", folder / "out")


def test_a_scan_that_gave_nothing_is_named_and_says_so_in_the_exit_code(tmp_path):
    outcome = commands.gen4d("build", *crowded(tmp_path), "--classes", "chair", "--sequences", "2")
    assert outcome.code == 1 and "no sequence from narrow: no cell is wide enough" in outcome.out


def test_gaps_name_their_scans_and_inspect_explains_one(tmp_path):
    options = ("--classes", "chair", "--sequences", "12", "--set", "attempts=1")
    outcome = commands.gen4d("build", *crowded(tmp_path), *options)
    assert "gaps:\n  wide: " in outcome.out and "sequences given up, mostly because of: " in outcome.out
    missing = next(k for k in range(12) if f"wide/{k:03d}" not in listed(tmp_path / "out"))
    found = commands.gen4d("inspect", tmp_path / "out", f"wide/{missing:03d}")
    assert found.code == 2 and "a gap: " in found.err and "mostly because of" in found.err


def listed(folder) -> list[str]:
    import gen4d

    return [sequence.id for sequence in gen4d.open_dataset(folder)]


# Configs that cannot work


@pytest.mark.parametrize("frames", [2, 3, 4, 5, 6])
def test_configs_that_give_sequences_in_real_rooms_are_not_refused(frames):
    refuse_hopeless(Config(frames=frames))


@pytest.mark.parametrize("changes", [{"frames": 8}, {"keep": 0.7}, {"common_min": 0.95}])
def test_a_hopeless_config_is_told_which_number_to_change_to_what(changes):
    with pytest.raises(ConfigError, match="with one number changed: ") as refused:
        refuse_hopeless(Config(**changes))
    _, _, told = str(refused.value).partition("changed: ")
    assert told.startswith(f"{next(iter(changes))} = ") or "frames = " in told
    for remedy in told.split("), "):
        field, _, value = remedy.partition(" (")[0].partition(" = ")
        kind = type(getattr(Config(), field))
        assert expected_acceptance(Config(**changes | {field: kind(value)})) > 0.02, remedy


def test_a_config_that_no_number_alone_can_save_says_so():
    with pytest.raises(ConfigError, match="no number alone helps, the defaults with 4 frames pass"):
        refuse_hopeless(Config(frames=8, keep=0.3, common_min=0.9))


# Splits


def test_a_split_may_be_named_as_the_data_set_names_it(tmp_path):
    for number in range(3):
        rooms.scannet_scan(tmp_path / "scans", f"scene000{number}_00", count=4000)
    write(tmp_path / "scans" / "scannetv2_val.txt", "scene0001_00\n")
    outcome = commands.gen4d("doctor", "--scans", tmp_path / "scans", "--split", "val")
    assert "ScanNet v2: 1 scan" in outcome.out
    missing = commands.gen4d("doctor", "--scans", tmp_path / "scans", "--split", "test")
    assert missing.code == 1 and "scannetv2_test.txt is not beside the scans" in missing.out


def test_a_split_that_is_not_there_says_what_there_may_be(tmp_path):
    words = "nowhere.txt: is not there: give --split the path of a list"
    for outcome in both(tmp_path, meshes.write_shapes(tmp_path / "shapes"), "--split", "nowhere.txt"):
        assert outcome.code == 1 and words in outcome.text


# Nothing that can be used

NO_SCANS = {
    "folders without points": lambda folder: [(folder / f"scene000{i}_00").mkdir(parents=True) for i in range(2)],
    "folders named as files": lambda folder: [(folder / f"{i}.ply").mkdir(parents=True) for i in range(2)],
    "pipes": lambda folder: (folder.mkdir(), os.mkfifo(folder / "a.ply")),
    "links to nowhere": lambda folder: (folder.mkdir(), (folder / "a.ply").symlink_to("nowhere")),
}
NO_SHAPES = {
    "pipes": lambda folder: (folder.mkdir(parents=True), os.mkfifo(folder / "a.off")),
    "links to nowhere": lambda folder: (folder.mkdir(parents=True), (folder / "a.off").symlink_to("nowhere")),
}
WAYS = [(), ("--dry-run",), ("--part", "1/2"), ("--workers", "2")]


@pytest.mark.parametrize("kind", NO_SCANS)
def test_a_folder_whose_scans_are_all_refused_is_one_line_in_every_way_to_build(tmp_path, kind):
    NO_SCANS[kind](tmp_path / "scans")
    places = ("--scans", tmp_path / "scans", "--shapes", meshes.write_shapes(tmp_path / "shapes"))
    for way in WAYS:
        outcome = commands.gen4d("build", *places, "--out", tmp_path / "out", *way)
        assert outcome.code == 1 and len(outcome.text.splitlines()) == 1, outcome.text
        assert "all of its scans (" in outcome.err and "(first: " in outcome.err
        assert not (tmp_path / "out").exists()
    doctor = commands.gen4d("doctor", "--scans", tmp_path / "scans", "--workers", "2")
    assert doctor.code == 1 and "error: " in doctor.out


@pytest.mark.parametrize("kind", NO_SHAPES)
def test_a_folder_whose_shapes_are_all_refused_is_one_line_in_every_way_to_build(tmp_path, kind):
    NO_SHAPES[kind](tmp_path / "shapes" / "chair")
    for way in WAYS:
        outcome = commands.gen4d("build", "--scans", scans_of(tmp_path), "--shapes", tmp_path / "shapes",
                                 "--out", tmp_path / "out", "--classes", "chair", *way)  # fmt: skip
        assert outcome.code == 1 and "all of its shapes (1) are refused (first: " in outcome.err
        assert len(outcome.text.splitlines()) == 1
    doctor = commands.gen4d("doctor", "--shapes", tmp_path / "shapes", "--classes", "chair")
    assert doctor.code == 1 and "error: " in doctor.out


def test_a_data_set_without_a_sequence_says_so_in_every_command_that_needs_one(tmp_path):
    write(tmp_path / "scans" / "a.ply", b"ply\nbroken")
    shapes, out = meshes.write_shapes(tmp_path / "shapes"), tmp_path / "out"
    made = commands.gen4d("build", "--scans", tmp_path / "scans", "--shapes", shapes, "--out", out)
    assert made.code == 1 and "no sequence could be made" in made.err
    for command in (("view", out), ("inspect", out, "0"), ("inspect", out, "a/000")):
        outcome = commands.gen4d(*command)
        assert (outcome.code, outcome.err) == (1, f"Error: {out}: holds no sequence: gen4d inspect says why\n")
    assert "refused: scans/a.ply: " in commands.gen4d("inspect", out).out


def test_a_trial_of_which_nothing_comes_says_why(tmp_path):
    write(tmp_path / "shapes" / "chair" / "a.off", b"")
    outcome = commands.gen4d("build", "--scans", scans_of(tmp_path), "--shapes", tmp_path / "shapes", "--classes",
                             "chair", "--dry-run", "--set", "attempts=1", "--sequences", "1")  # fmt: skip
    assert outcome.code == 1 and "no sequence could be made in a trial of 1 scan: " in outcome.err
    assert "a.off: is empty (0 bytes)" in outcome.err
