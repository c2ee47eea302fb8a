"""gen4d card: the four files, what they say of terms, what foreign readers read in them, and what is left alone."""

import contextlib
import hashlib
import io
import json
import logging
import re
import shutil

import numpy as np
import pytest
import yaml

import gen4d
from gen4d.shards.format import seal
from gen4d.shards.manifest import CARD
from tests import serve
from tests.equal import files_of
from tests.makers import commands, recordings, sequences
from tests.makers.files import write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX, off

ROWS = "sequences.jsonl"
CHANGES = {  # by hand, as the documents ask for
    "README.md": ("pretty_name:", "license: mit\npretty_name:"),
    "croissant.json": ("{", '{"datePublished": "2026-11-26",'),
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A data set whose shapes look like ModelNet40, which may not be passed on."""
    return commands.build(commands.write_rooms(tmp_path_factory.mktemp("closed"), 2))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A data set of scans and shapes of the user's own."""
    folder = commands.write_rooms(tmp_path_factory.mktemp("own"), 2)
    shutil.rmtree(folder / "shapes")
    write(folder / "shapes/chair/one.off", off((CUBE_VERTEX - 0.5) * [0.4, 0.4, 0.8], CUBE_QUADS))
    return commands.build(folder)


def card(dataset, *more):
    outcome = commands.gen4d("card", dataset, *more)
    assert outcome.code == 0, outcome.text
    return outcome


def copied(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "copy")


def rows_of(folder):
    return [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]


def front(folder):
    """The front matter of a README.md, and the rest of it."""
    _, matter, rest = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter), rest


def relicensed(dataset, tmp_path, **changes):
    """A copy of a data set that says other things of its sources."""
    folder = copied(dataset, tmp_path)
    for name in ("dataset.json", "build.json"):
        value = json.loads((folder / name).read_text())
        del value["sha256"]
        for one in value["sources"]:
            one |= changes
        (folder / name).write_bytes(seal(value))
    return folder


# What is written


def test_a_card_is_four_files_that_verify_accepts_and_the_same_bytes_again(own, tmp_path):
    folder = copied(own, tmp_path)
    before = files_of(folder)
    outcome = card(folder)
    after = files_of(folder)
    assert set(after) - set(before) == set(CARD) and all(after[name] == before[name] for name in before)
    assert "card of 4 sequences written" in outcome.out
    card(folder)
    card(shutil.copytree(own, tmp_path / "elsewhere" / "other"))
    assert files_of(folder) == after == files_of(tmp_path / "elsewhere" / "other")
    verified = commands.gen4d("verify", folder)
    assert verified.code == 0, verified.text


def test_rows_say_what_each_sequence_holds(own, tmp_path):
    folder = copied(own, tmp_path)
    card(folder)
    rows = rows_of(folder)
    dataset = gen4d.open_dataset(folder)
    assert [row["id"] for row in rows] == dataset.ids and [row["row"] for row in rows] == [0, 1, 0, 1]
    for row, sequence in zip(rows, dataset, strict=True):
        assert row["points"] == [len(frame.point) for frame in sequence] and row["frames"] == sequence.t
        assert (row["scan"], row["kind"], row["class_names"]) == (sequence.scan, "moving", ["chair"])
        assert row["shapes"] == [mover.shape for mover in sequence.movers] and (folder / row["shard"]).is_file()


def test_front_matter_is_what_hugging_face_reads(own, closed, tmp_path):
    card(copied(own, tmp_path))
    matter, _ = front(tmp_path / "copy")
    assert matter.keys() == {"pretty_name", "tags", "size_categories", "configs"}, "an own licence is not guessed"
    assert matter["size_categories"] == ["n<1K"]
    assert matter["configs"] == [{"config_name": "sequences", "data_files": ROWS}]
    card(closed, "--out", tmp_path / "recipe")
    matter, _ = front(tmp_path / "recipe")
    assert matter["license"] == "other" and matter["pretty_name"] == "4D sequences from ModelNet40 (or ModelNet10)"


def python_blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.S)


def run_blocks(folder, monkeypatch):
    """What the blocks of a README.md print, in its folder."""
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    blocks = python_blocks((folder / "README.md").read_text())
    assert len(blocks) == 2 and all(len(block.splitlines()) <= 12 for block in blocks)
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), {})
    return printed.getvalue()


def test_its_code_runs_and_reads_the_points(own, tmp_path, monkeypatch):
    card(copied(own, tmp_path))
    said = run_blocks(tmp_path / "copy", monkeypatch)
    assert said.splitlines()[0].startswith("room0/000 (")
    last = [float(value) for value in re.findall(r"-?\d\.?\d*(?:e-?\d+)?", said.splitlines()[-1])]
    frame = gen4d.open_dataset(".")[0].frame(0)
    assert last == pytest.approx(frame.point[-1], abs=1e-5)


@pytest.mark.parametrize("kind", ["frames", "views", "hdf5"])
def test_cards_of_other_kinds_and_exports_run_too(kind, own, tmp_path, monkeypatch):
    match kind:
        case "frames":
            recordings.write_frames_25k(tmp_path, recordings.camera_poses(4))
            gen4d.build_dataset(tmp_path, out=tmp_path / "made", kind="frames", least_points=50, frames=3)
        case "views":
            gen4d.build_dataset(shapes=own.parent / "shapes", out=tmp_path / "made", kind="views", points=60)
        case "hdf5":
            assert commands.gen4d("export", own, "--out", tmp_path / "made").code == 0
    card(tmp_path / "made", *(("--out", tmp_path / "recipe") if kind == "frames" else ()))
    folder = tmp_path / ("recipe" if kind == "frames" else "made")
    _, text = front(folder)
    assert ("nearest" in text) == (kind == "frames") and ("in HDF5 shards" in text) == (kind == "hdf5")
    if kind == "frames":
        assert "ScanNet terms of use" in text and "**Do not upload the shards.**" in text
        shutil.copytree(tmp_path / "made", folder / "data/again")
    assert run_blocks(folder, monkeypatch)


# Terms


def test_a_closed_source_is_named_and_its_recipe_gives_the_same_hash(closed, tmp_path, monkeypatch):
    outcome = card(closed, "--out", tmp_path / "recipe")
    assert "do not publish the shards: the terms of ModelNet40 (or ModelNet10) do not allow it" in outcome.out
    files = files_of(tmp_path / "recipe")
    assert {name for name in files if "zarr" in name} == set() and "sequence.png" not in files
    assert {"dataset.json", "build.json", "shards/00000.json", "shards/00001.json"} < set(files)
    _, text = front(tmp_path / "recipe")
    assert "**Do not upload the shards.**" in text and "not to be passed on" in text and ".zarr.zip`" not in text
    command = re.search(r"```sh\ngen4d (.*?)```", text, re.S)[1].replace("\\\n", "").split()
    shutil.copytree(closed.parent / "scans", tmp_path / "recipe/my-scans")
    shutil.copytree(closed.parent / "shapes", tmp_path / "recipe/my-shapes")
    monkeypatch.chdir(tmp_path / "recipe")
    again = commands.gen4d(*command)
    assert again.code == 0 and again.out.splitlines()[-1] in text, again.text
    assert "room0/000" in run_blocks(tmp_path / "recipe", monkeypatch)


def test_beside_a_closed_data_set_the_shards_are_not_among_what_is_published(closed, tmp_path):
    card(copied(closed, tmp_path))
    _, text = front(tmp_path / "copy")
    listed = json.loads((tmp_path / "copy/croissant.json").read_text())["distribution"]
    assert "**Do not upload the shards.**" in text and not any("zarr" in one["name"] for one in listed)
    assert not (tmp_path / "copy/sequence.png").exists()


def test_an_export_of_a_closed_data_set_is_not_to_be_uploaded_either_and_can_be_written_again(closed, tmp_path):
    for _ in range(2):  # the card, and what systems leave, are no other files
        assert commands.gen4d("export", closed, "--out", tmp_path / "h5").code == 0
        outcome = card(tmp_path / "h5")
        write(tmp_path / "h5/.DS_Store", b"\0")
    assert "gen4d card --out writes what they need, of the data set that was exported" in outcome.out
    _, text = front(tmp_path / "h5")
    listed = json.loads((tmp_path / "h5/croissant.json").read_text())["distribution"]
    assert "**Do not upload the shards.**" in text and "| `shards/*` else |" not in text
    assert not any(".h5" in one["name"] for one in listed)


def test_an_open_licence_goes_with_the_data(closed, tmp_path):
    folder = relicensed(closed, tmp_path, terms="CC BY-NC 4.0", licence="CC-BY-NC-4.0", home="https://data.set")
    outcome = card(folder)
    assert "shards may be published under the conditions of CC-BY-NC-4.0" in outcome.out
    matter, text = front(folder)
    assert matter["license"] == "cc-by-nc-4.0" and "under the conditions of `CC-BY-NC-4.0`" in text
    croissant = json.loads((folder / "croissant.json").read_text())
    assert croissant["license"] == ["https://spdx.org/licenses/CC-BY-NC-4.0"] and (folder / "sequence.png").exists()


def test_a_data_set_that_does_not_say_what_it_was_made_from_is_no_licence(tmp_path):
    recording = gen4d.Recording("room0000", [sequences.make_sequence(0)])
    gen4d.write_dataset([recording], tmp_path / "made")
    outcome = card(tmp_path / "made")
    assert "do not publish the shards: the data set does not say what it was made from" in outcome.out
    _, text = front(tmp_path / "made")
    assert "find out whether the terms" in text and "gen4d build --like" not in text
    refused = commands.gen4d("card", tmp_path / "made", "--out", tmp_path / "recipe")
    assert refused.code == 1 and "there is no recipe" in refused.err


def test_licences_of_the_manifest_are_those_of_its_terms():
    from gen4d.sources.manifest import manifest

    entries = {entry.name: entry for entry in manifest().entries}
    for entry in entries.values():
        if entry.licence:
            assert entry.terms.partition(",")[0].replace(" ", "-") == entry.licence, entry.name
            assert "not to be passed on" not in entry.terms and "additions" not in entry.terms, entry.name
    assert {name for name in entries if entries[name].licence} >= {"tum-rgbd", "multiscan", "semantickitti"}
    assert not any(entries[name].licence for name in ("scannet", "arkitscenes-meshes", "hm3d", "modelnet40", "replica"))


# Croissant


def test_croissant_is_valid_and_its_records_are_the_rows(own, tmp_path, caplog):
    mlcroissant = pytest.importorskip("mlcroissant")
    folder = copied(own, tmp_path)
    card(folder)
    with caplog.at_level(logging.WARNING):
        read = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not read.metadata.ctx.issues.errors
    told = sorted(re.findall(r'Property "https://schema.org/(\w+)"', " ".join(read.metadata.ctx.issues.warnings)))
    assert told == ["datePublished", "license", "version"], "which only those who publish know"
    records = [
        {name.removeprefix("sequences/"): _plain(value) for name, value in record.items()}
        for record in read.records("sequences")
    ]
    assert records == rows_of(folder)


def _plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | np.ndarray):
        return [_plain(one) for one in value]
    return value if isinstance(value, str) else int(value)


def test_croissant_has_every_file_with_its_hash(own, tmp_path):
    folder = copied(own, tmp_path)
    card(folder)
    listed = json.loads((folder / "croissant.json").read_text())["distribution"]
    assert {one["contentUrl"] for one in listed} == set(files_of(folder)) - {"README.md", "croissant.json"}
    for one in listed:
        content = (folder / one["contentUrl"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(content).hexdigest() and one["contentSize"] == f"{len(content)} B"


# What is left alone


@pytest.mark.parametrize("name", CARD)
def test_files_of_somebody_else_are_not_overwritten(name, own, tmp_path):
    folder = copied(own, tmp_path)
    (folder / name).write_text("mine")
    outcome = commands.gen4d("card", folder)
    assert outcome.code == 1 and f"{folder / name}: is there already and not of gen4d card" in outcome.err
    assert len(outcome.err.splitlines()) == 1 and (folder / name).read_text() == "mine"
    assert sum((folder / one).exists() for one in CARD) == 1


def test_a_recipe_goes_to_an_empty_folder_or_over_its_own(own, closed, tmp_path):
    write(tmp_path / "full/letter.txt", b"mine")
    full = commands.gen4d("card", closed, "--out", tmp_path / "full")
    assert full.code == 1 and "holds other files (letter.txt, 1 in all)" in full.err
    other = copied(own, tmp_path)
    card(other)
    taken = commands.gen4d("card", closed, "--out", other)
    assert taken.code == 1 and "holds a data set" in taken.err and commands.gen4d("verify", other).code == 0
    for _ in range(2):
        card(own, "--out", tmp_path / "recipe")
    before = files_of(tmp_path / "recipe")
    another = commands.gen4d("card", closed, "--out", tmp_path / "recipe")
    assert another.code == 1 and f"{tmp_path / 'recipe'}: holds the recipe of another data set" in another.err
    assert files_of(tmp_path / "recipe") == before


def test_shards_of_an_earlier_recipe_do_not_stay(own, tmp_path):
    card(own, "--out", tmp_path / "new")
    card(own, "--out", tmp_path / "old")
    (tmp_path / "old" / "shards" / "00007.json").write_bytes(b"{}")  # of a data set with more shards
    card(own, "--out", tmp_path / "old")
    assert files_of(tmp_path / "old") == files_of(tmp_path / "new")


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_by_hand_is_not_overwritten(name, own, tmp_path):
    folder, (old, new) = copied(own, tmp_path), CHANGES[name]
    card(folder)
    written = files_of(folder)
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    changed = files_of(folder)
    outcome = commands.gen4d("card", folder)
    assert outcome.code == 1 and f"{folder / name}: was changed since gen4d card wrote it: " in outcome.err
    assert files_of(folder) == changed
    for one in re.search(r"move (.*) away", outcome.err)[1].split(", "):
        (folder / one).rename(tmp_path / one)
    card(folder)
    assert files_of(folder) == written


def test_a_card_that_was_cut_off_is_written_anew(own, tmp_path, monkeypatch):
    folder = copied(own, tmp_path)
    card(folder)
    whole = files_of(folder)
    (folder / "croissant.json").write_bytes(b"{}")  # of an earlier data set
    stamp = hashlib.sha256((folder / "croissant.json").read_bytes()).hexdigest()
    text = (folder / "README.md").read_text()
    at = text.index("croissant.json ") + len("croissant.json ")
    (folder / "README.md").write_text(text[:at] + "0" * len(stamp) + text[at + len(stamp) :])
    card(folder)
    assert files_of(folder) == whole


def test_a_data_set_behind_a_url_needs_a_folder(closed, tmp_path):
    pytest.importorskip("aiohttp")
    with serve.serve(closed) as web:
        outcome = commands.gen4d("card", web.url)
        assert outcome.code == 1 and "is behind a URL: give the folder of its card, --out" in outcome.err
        card(web.url, "--out", tmp_path / "far")
    card(closed, "--out", tmp_path / "near")
    assert files_of(tmp_path / "far") == files_of(tmp_path / "near")


def test_what_a_kill_left_is_removed(own, tmp_path):
    folder = copied(own, tmp_path)
    (folder / "README.md.host-7.12.tmp").write_text("half")
    card(folder)
    assert commands.gen4d("verify", folder).code == 0


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", ".gitattributes", "shards/.DS_Store", "shards/._00000.json"]
)
def test_what_systems_leave_is_no_damage(name, own, tmp_path):
    folder = copied(own, tmp_path)
    (folder / name).write_bytes(b"\0")
    verified = commands.gen4d("verify", folder)
    assert verified.code == 0, verified.text


def test_what_systems_leave_does_not_stop_a_build(own, tmp_path):
    shutil.copytree(own.parent / "scans", tmp_path / "scans")
    shutil.copytree(own.parent / "shapes", tmp_path / "shapes")
    write(tmp_path / "out/.DS_Store", b"\0")
    commands.build(tmp_path)
    write(tmp_path / "made/.DS_Store", b"\0")
    gen4d.write_dataset([gen4d.Recording("room0000", [sequences.make_sequence(0)])], tmp_path / "made")
