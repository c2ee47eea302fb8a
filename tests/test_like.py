"""gen4d build --like: a published data set built again from one's own inputs: the same hash, or a named difference."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

import gen4d
from gen4d.shards.format import canonical, seal
from tests import serve
from tests.makers import commands, labelled, recordings
from tests.makers.files import ply, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX, off, write_shape
from tests.makers.rooms import bare_floor

RECIPE = ("dataset.json", "build.json")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Three rooms and nine chairs, some of which are never drawn, and a data set of them."""
    folder = commands.write_rooms(tmp_path_factory.mktemp("desk"), 3)
    for number in range(2, 10):
        write_shape(folder / "shapes", "chair", number, (CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.7 + number / 50], CUBE_QUADS)
    commands.build(folder, "--seed", "7", "--limit", "3", "--set", "keep=0.97", out="published")
    return folder


@pytest.fixture(scope="module")
def recipe(desk, tmp_path_factory):
    """What is published where shards may not be: the .json files."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "shards").mkdir()
    for path in [desk / "published" / name for name in RECIPE] + sorted((desk / "published/shards").glob("*.json")):
        shutil.copy(path, folder / path.relative_to(desk / "published"))
    return folder


@pytest.fixture
def mine(desk, tmp_path):
    """Copies of the scans and shapes, written in another order and at other times."""
    for path in sorted((desk / "scans").iterdir(), reverse=True) + sorted(
        (desk / "shapes").rglob("*.off"), reverse=True
    ):
        copy = tmp_path / path.relative_to(desk)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        os.utime(copy, (1, 1))
    return tmp_path


def like(place, mine, *more, out="again"):
    folders = ("--scans", mine / "scans", "--shapes", mine / "shapes", "--out", mine / out)
    return commands.gen4d("build", "--like", place, *folders, *more)


def manifest_of(folder):
    return json.loads((folder / "dataset.json").read_text())


def publish(folder, change, name="dataset.json"):
    """Change a sealed file of a recipe."""
    value = json.loads((folder / name).read_text())
    value.pop("sha256")
    change(value)
    (folder / name).write_bytes(seal(value))


@pytest.fixture
def altered(recipe, tmp_path):
    return shutil.copytree(recipe, tmp_path / "altered")


# The same hash


@pytest.mark.parametrize("name", ["", "dataset.json", "build.json"])
def test_a_recipe_gives_the_same_hash(recipe, mine, name):
    outcome = like(recipe / name, mine)
    assert outcome.code == 0, outcome.text
    digest = manifest_of(recipe)["sha256"]
    assert outcome.out.splitlines()[-1] == f"same hash as published: {digest}"
    assert (mine / "again/dataset.json").read_bytes() == (recipe / "dataset.json").read_bytes()
    assert commands.gen4d("verify", mine / "again").code == 0


def test_other_workers_give_the_same_hash_and_a_second_run_says_it_again(recipe, mine):
    for _ in range(2):
        outcome = like(recipe, mine, "--workers", "2")
        assert outcome.code == 0 and "same hash as published" in outcome.out, outcome.text
    assert "3 of 3 shards are there already" in outcome.out


def test_parts_give_the_same_hash(recipe, mine):
    for part in ("2/2", "1/2"):
        outcome = like(recipe, mine, "--part", part)
        assert outcome.code == 0 and "same hash" not in outcome.out, outcome.text
    assert "the same command without --part" in outcome.out
    merged = commands.gen4d("merge", mine / "again")
    assert merged.code == 0 and (mine / "again/dataset.json").read_bytes() == (recipe / "dataset.json").read_bytes()
    assert "same hash as published" in like(recipe, mine).out


def test_more_scans_beside_those_that_were_published_do_not_matter(recipe, mine):
    write(mine / "scans/aaa.ply", ply(bare_floor(9)))
    write(mine / "scans/more.ply", ply(bare_floor(8)))
    assert "same hash as published" in like(recipe, mine).out


@pytest.mark.parametrize(
    "options",
    [
        ("--up", "0,0.02,1", "--units", "1.01", "--height", "chair=0.5:0.6", "--pairs"),
        ("--shape-units", "m", "--shape-up", "-z", "--movers", "1-2", "--frames", "3", "--seed", "12345678901"),
    ],
)
def test_orientation_units_heights_and_all_settings_come_from_the_recipe(mine, options):
    commands.build(mine, *options, out="published")
    outcome = like(mine / "published", mine)
    assert outcome.code == 0 and "same hash as published" in outcome.out, outcome.text


def test_a_dry_run_estimates_and_writes_nothing(recipe, mine):
    outcome = like(recipe, mine, "--dry-run")
    assert outcome.code == 0 and "sequences  6" in outcome.out and "with 1 worker," in outcome.out
    assert not (mine / "again").exists()


def test_a_recipe_without_the_descriptions_of_shards_is_enough(recipe, mine, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(recipe / "dataset.json", bare)
    assert "same hash as published" in like(bare, mine).out


def test_a_recipe_behind_a_url(recipe, mine):
    pytest.importorskip("aiohttp")
    with serve.serve(recipe) as web:
        outcome = like(f"{web.url}/dataset.json", mine)
    assert outcome.code == 0 and "same hash as published" in outcome.out, outcome.text


def test_a_data_set_that_was_extended_keeps_its_shards(desk, mine, tmp_path):
    grown = tmp_path / "grown"
    limits = (("--limit", "1"), ("--limit", "3"))
    for limit in limits:  # with two scans in a shard, [room0], [room1, room2] instead of [room0, room1], [room2]
        commands.build(mine, "--set", "scans_per_shard=2", *limit, out=grown.name)
    assert [len(shard["scans"]) for shard in manifest_of(grown)["shards"]] == [1, 2]
    assert "same hash as published" in like(grown, mine).out


def test_a_scan_that_failed_fails_again(mine):
    write(mine / "scans/room1.ply", b"ply\nnot a scan")
    outcome = commands.gen4d(*commands.build_arguments(mine, "--set", "scans_per_shard=2", out="published"))
    assert outcome.code == 1 and manifest_of(mine / "published")["failed"][0]["name"] == "room1"
    again = like(mine / "published", mine)
    assert again.code == 0 and "same hash as published" in again.out and "refused: " in again.err, again.text
    (mine / "published/build.json").unlink()
    alone = like(mine / "published", mine, out="alone")
    assert alone.code == 1 and "which shards the scans that failed belong to" in alone.err


@pytest.mark.parametrize("kind", ["frames", "sweeps", "views"])
def test_every_kind_gives_the_same_hash(kind, tmp_path):
    more = ("--set", "least_points=50", "--frames", "3")
    match kind:
        case "frames":
            recordings.write_frames_25k(tmp_path / "mine", recordings.camera_poses(4))
        case "sweeps":
            recordings.write_kitti(tmp_path / "mine", recordings.lidar_poses(5))
            more += ("--set", "every=1")
        case "views":
            write_shape(tmp_path / "mine", "chair", 1, CUBE_VERTEX, CUBE_QUADS)
            write(tmp_path / "mine/chair/test/chair_0002.off", off(CUBE_VERTEX * [1, 2, 3], CUBE_QUADS))
            more = ("--set", "points=60", "--split", "test")
    folder = ("--shapes" if kind == "views" else "--scans", tmp_path / "mine")
    made = commands.gen4d("build", "--kind", kind, *folder, *more, "--out", tmp_path / "published")
    assert made.code == 0, made.text
    outcome = commands.gen4d("build", "--like", tmp_path / "published", *folder, "--out", tmp_path / "again")
    assert outcome.code == 0 and "same hash as published" in outcome.out, outcome.text


def test_other_versions_and_an_older_dataset_json_are_named_and_do_no_harm(altered, mine):
    def older(manifest):
        del manifest["sources"]
        manifest["versions"]["numpy"] = "1.0"

    publish(altered, older)
    outcome = like(altered, mine)
    assert outcome.code == 0, outcome.text
    assert f"numpy 1.0 there, {np.__version__} here" in outcome.err
    assert "same hash as published: every shard's; dataset.json itself differs in" in outcome.out


# What differs is named


def test_a_changed_point_in_one_scan_is_named_and_nothing_is_built(recipe, mine):
    point = bare_floor(1)
    point[17, 0] += 0.01
    write(mine / "scans/room1.ply", ply(point))
    outcome = like(recipe, mine)
    assert outcome.code == 1 and not (mine / "again").exists()
    first, last = outcome.err.splitlines()
    assert first.startswith(f"differs: scan room1: {mine}/scans/room1.ply has another content")
    assert last.startswith("Error: 1 difference") and last.endswith("nothing was built")


def test_a_part_compares_the_files_of_its_own_shards(recipe, mine):
    write(mine / "scans/room1.ply", ply(bare_floor(1)[:-1]))
    assert like(recipe, mine, "--part", "1/2").code == 0
    outcome = like(recipe, mine, "--part", "2/2")
    assert outcome.code == 1 and "bytes, " in outcome.err and "scan room1" in outcome.err


def test_without_published_hashes_a_changed_point_is_found_in_the_result(recipe, mine, altered):
    shutil.rmtree(altered / "shards")
    point = bare_floor(1)
    point[17, 0] += 0.01
    write(mine / "scans/room1.ply", ply(point))
    outcome = like(altered, mine)
    assert outcome.code == 1 and "Error: not as published: shard 00001: content_sha256: " in outcome.err, outcome.text


def test_a_missing_scan_is_named(recipe, mine):
    (mine / "scans/room2.ply").unlink()
    outcome = like(recipe, mine)
    assert outcome.code == 1 and "lacks room2, 1 of the 3 that" in outcome.err


def drawn(recipe):
    """Shape files that sequences of the data set have."""
    files = [json.loads(path.read_text())["shapes"] for path in sorted((recipe / "shards").glob("*.json"))]
    return {row[0] for rows in files for row in rows}


def test_a_missing_shape_is_named(recipe, mine):
    name = sorted(drawn(recipe))[0]
    (mine / "shapes" / name).unlink()
    outcome = like(recipe, mine)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 2, outcome.text
    assert outcome.err.startswith(f"differs: shape {name} is not there in {mine}/shapes")


def test_a_changed_shape_is_named(recipe, mine):
    name = sorted(drawn(recipe))[-1]
    text = (mine / "shapes" / name).read_bytes()
    (mine / "shapes" / name).write_bytes(text.replace(b"0.2", b"0.3"))
    outcome = like(recipe, mine)
    assert outcome.code == 1 and f"differs: shape {mine}/shapes/{name} has another content" in outcome.err


def test_a_shape_that_is_missing_and_was_never_drawn_is_counted(recipe, mine):
    never = {f"chair/train/chair_000{k}.off" for k in range(1, 10)} - drawn(recipe)
    (mine / "shapes" / min(never)).unlink()
    outcome = like(recipe, mine)
    assert outcome.code == 1 and "shapes: 8 of other names or sizes than the 9 that were published" in outcome.err


def test_a_shape_more_is_noticed(recipe, mine):
    write_shape(mine / "shapes", "chair", 10, CUBE_VERTEX - 0.5, CUBE_QUADS)
    outcome = like(recipe, mine)
    assert outcome.code == 1 and "shapes: 10 of other names or sizes than the 9 that were published" in outcome.err


def test_another_generator_is_named(altered, mine):
    publish(altered, lambda manifest: manifest.update(generator=1))
    outcome = like(altered, mine)
    assert outcome.code == 1 and "made by generator 1 of gen4d" in outcome.err and not (mine / "again").exists()


def test_the_first_difference_of_a_result_is_a_figure_of_a_scan(recipe, mine, altered):
    path = altered / "shards/00001.json"
    publish(altered, lambda sidecar: sidecar["scans"][0].update(points=99), "shards/00001.json")

    def follow(manifest):
        manifest["shards"][1]["sidecar_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    publish(altered, follow)
    outcome = like(altered, mine)
    assert outcome.code == 1
    assert "Error: not as published: shard 00001: scan room1: points: 99 there, 150 here" in outcome.err, outcome.text


def test_labels_that_were_not_there_are_named_after_the_build(tmp_path):
    commands.write_rooms(tmp_path, 0)
    labelled.write_rooms(tmp_path / "scans", train=1, val=0)
    shutil.copytree(tmp_path / "scans", tmp_path / "with")
    for path in (tmp_path / "scans").rglob("*.labels.ply"):
        path.unlink()
    commands.build(tmp_path, out="published")
    shutil.move(tmp_path / "with", tmp_path / "mine/scans")
    shutil.copytree(tmp_path / "shapes", tmp_path / "mine/shapes")
    outcome = like(tmp_path / "published", tmp_path / "mine")
    assert outcome.code == 1, outcome.text
    there, here = outcome.err.strip().splitlines()[-1].split(", read here alone ")
    assert there == "Error: not as published: shard 00000: scan scene0000_00: read there alone nothing"
    assert here == "scene0000_00/scene0000_00_vh_clean_2.labels.ply"


@pytest.mark.parametrize("option", [("--seed", "7"), ("--set", "keep=0.97"), ("--limit", "3"), ("--pairs",)])
def test_options_that_the_published_data_set_decides_are_refused(recipe, mine, option):
    outcome = like(recipe, mine, *option)
    assert outcome.code == 2 and f"{option[0]}: --like takes it from the published data set" in outcome.err


def test_missing_folders_are_a_usage_error(recipe, tmp_path):
    outcome = commands.gen4d("build", "--like", recipe, "--scans", tmp_path)
    assert outcome.code == 2 and "missing --shapes" in outcome.err


def test_an_empty_name_is_no_data_set(mine):
    outcome = commands.gen4d("build", "--like", "", "--scans", mine / "scans", "--shapes", mine / "shapes")
    assert outcome.code == 1 and "dataset.json: not there" in outcome.err


def test_a_folder_with_another_build_is_left_alone(recipe, mine):
    commands.build(mine, out="again")
    outcome = like(recipe, mine)
    assert outcome.code == 1 and "holds a build with another config" in outcome.err


# Recipes that are none


def bad_recipes():
    def scan_twice(build):
        build["plan"][1] = [*build["plan"][1], "room0"]

    return {
        "no dataset.json": (None, None, "not a gen4d data set"),
        "an export": ("dataset.json", {"exported": {}}, "is of an export"),
        "no generator": ("dataset.json", {"generator": None}, "other code than gen4d build"),
        "a kind to come": ("dataset.json", {"kind": "spheres"}, "kind = 'spheres'"),
        "a setting to come": ("dataset.json", {"config": {"tilt": 3}}, "unknown setting 'tilt'"),
        "a setting less": ("dataset.json", {"config": {}}, "its config differs"),
        "a broken setting": ("dataset.json", {"config": {"height_m": [[1]]}}, "its config is none"),
        "another plan": ("build.json", {"plan": [["room0"]]}, "is of another build than dataset.json"),
        "no plan": ("build.json", {"plan": 3}, "is of another build than dataset.json"),
        "a scan twice": ("build.json", scan_twice, "scan room0 failed at first and was built later"),
        "a foreign description": ("shards/00000.json", {"scans": [{}]}, "is of another build than dataset.json"),
    }


@pytest.mark.parametrize("name", bad_recipes())
def test_what_is_no_recipe_is_refused_in_one_line(name, altered, mine):
    file, change, message = bad_recipes()[name]
    if file is None:
        (altered / "dataset.json").unlink()
        (altered / "build.json").unlink()
    else:
        publish(altered, change if callable(change) else lambda value: value.update(change), file)
    outcome = like(altered, mine)
    assert outcome.code == 1 and message in outcome.err, outcome.text
    assert len(outcome.err.splitlines()) == 1 and not (mine / "again").exists()


def test_the_data_set_says_what_it_was_made_from(desk):
    told = gen4d.open_dataset(desk / "published").manifest["sources"]
    assert [(one["role"], one["name"], one["terms"]) for one in told] == [
        ("scans", "scan-files", "yours"),
        ("shapes", "modelnet40", told[1]["terms"]),
    ]
    assert canonical({"sources": told})
