"""The documents: links, widths, pages made from the code, and every block of code and commands, run on small data."""

import contextlib
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from typing import NamedTuple

import pytest
import yaml

from gen4d.sources.recorded import parse_recorded
from tests import pages
from tests.makers import commands as cli
from tests.makers import labelled, recordings

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *DOCS]
WIDEST = 88
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


class Block(NamedTuple):
    """A fenced block. mark: the comment in the source above it, which says why it is not run here, or where it is."""

    line: int
    language: str
    text: str
    mark: str


def blocks(document: pathlib.Path) -> list[Block]:
    """The fenced blocks of a document."""
    found, lines = [], document.read_text().splitlines()
    opened = None
    for number, line in enumerate(lines):
        if opened is None and line.startswith("```"):
            opened = number
        elif line == "```":
            mark = re.fullmatch(r"<!-- (.*) -->", lines[opened - 1])
            text = "\n".join(lines[opened + 1 : number])
            found.append(Block(opened + 1, lines[opened][3:], text, mark[1] if mark else ""))
            opened = None
    assert opened is None, f"{document.name}: a block is not closed"
    return found


def prose(document: pathlib.Path) -> str:
    """A document without its blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)


# What stands there ---------------------------------------------------------------------------------------------------


def test_the_readme_is_short_and_answers_early_what_people_ask():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    first = "\n".join(lines[:60])
    for answer in ("make demo", "Not seen running", "extrapolated", "not shown to be ahead", "gen4d doctor"):
        assert answer in first, answer


@documents
def test_blocks_are_narrow_enough_for_every_page(document):
    for block in blocks(document):
        wide = [line for line in block.text.splitlines() if len(line) > WIDEST]
        assert not wide or block.language not in ("sh", "python"), f"{document.name}:{block.line}: {wide[0]}"


def anchors(document: pathlib.Path) -> set[str]:
    """The names by which forges and the site link to a document's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@documents
def test_links_lead_to_files_and_headings_that_are_there(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{document.name}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{document.name}: {target}: {sorted(anchors(path))}"
        if document in DOCS:
            assert path.is_relative_to(ROOT / "docs"), f"{document.name}: {target} is not on the site"


@documents
def test_a_document_loads_nothing_from_elsewhere(document):
    text = document.read_text()
    assert not re.findall(r"!\[[^\]]*\]\(https?:|<(?:img|script|link)\b", text)
    framed = set(re.findall(r'<iframe src="([^"]*)"', text))
    assert framed <= set(re.findall(r"--out site/(\S+)", (ROOT / "Makefile").read_text()))
    assert text.count("<iframe") == text.count("<iframe src=") == text.count('sandbox="allow-scripts"')


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("zensical")
    for name in ("docs", "mkdocs.yml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.stem: path.read_text() for path in (tmp_path / "site").glob("*.html")}
    assert built.keys() == {path.stem for path in DOCS} | {"404"}
    loads = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^\">]*")
    for name, page in built.items():
        assert not [tag for tag in loads.findall(page) if 'rel="canonical"' not in tag], name


def test_every_page_can_be_reached_from_the_index():
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)", (ROOT / "docs" / "index.md").read_text()))
    assert linked == {path.name for path in DOCS} - {"index.md"}


def test_pages_made_from_the_code_are_what_the_code_says():
    assert not pages.stale(), "run python -m tests.pages"


def test_extras_of_the_documents_exist():
    extras = set(PROJECT["optional-dependencies"])
    for document in DOCUMENTS:
        named = re.findall(r"'(?:\.|gen4d)\[([\w,]+)\]'", document.read_text())
        assert {extra for names in named for extra in names.split(",")} <= extras, document.name


def test_the_version_is_the_same_everywhere():
    import gen4d

    citation, changes = (ROOT / "CITATION.cff").read_text(), (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == gen4d.__version__
    assert re.search(r"^## (\S+)", changes, re.M)[1] == gen4d.__version__
    assert f"version = {{{gen4d.__version__}}}" in (ROOT / "README.md").read_text()


# What runs -----------------------------------------------------------------------------------------------------------

RUN_ELSEWHERE = re.compile(r"recipe|(sbatch|submit); run by (tests/\w+\.py)")


def runs_here(block: Block) -> bool:
    return block.language in ("sh", "python") and not block.mark.startswith("not run: ") and not _elsewhere(block)


def _elsewhere(block: Block) -> bool:
    return bool(RUN_ELSEWHERE.fullmatch(block.mark))


@documents
def test_blocks_are_run_or_say_why_not(document):
    for block in blocks(document):
        assert block.language in ("sh", "python", "text", "bibtex", "toml", "yaml"), f"{document.name}:{block.line}"
        if block.mark.startswith("not run"):
            assert len(block.mark) > len("not run: ..."), f"{document.name}:{block.line}"


@documents
def test_descriptions_of_recordings_are_ones(document):
    for block in blocks(document):
        if block.language == "yaml":
            item = yaml.safe_load(block.text)
            if "datasets" in item:
                continue
            assert parse_recorded(document, "frames", item["frames"], ("base", "name")).depth
            assert set(item) <= {"scans", "up", "frames"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with all that the documents' commands are run on: scans with labels, shapes, a data set, a run."""
    folder = tmp_path_factory.mktemp("desk")
    labelled.write_rooms(folder / "scannet")
    shutil.copytree(folder / "scannet", folder / "data/samples/scans")
    recordings.write_frames_25k(folder, recordings.camera_poses(6))
    floors = cli.write_rooms(folder / "floors")
    for name in ("ModelNet40", "data/samples/shapes"):
        shutil.copytree(floors / "shapes", folder / name)
    with contextlib.chdir(folder):
        outcome = cli.gen4d("build", "--scans", "floors/scans", "--shapes", "ModelNet40", *cli.LIGHT, "--pairs")
        assert outcome.code == 0, outcome.text
    return folder


@pytest.fixture(scope="module")
def run_folder(desk, tmp_path_factory):
    """A run of two steps of pre-training."""
    pytest.importorskip("spconv")
    with contextlib.chdir(desk):
        run_trainer(["pretrain", "--data", "data/sequences", "--preset", "small", "--run", "runs/pretrain"])
    return desk / "runs/pretrain"


def commands(text: str) -> list[list[str]]:
    """The commands of a block of shell, as words."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"&&", line)]
    return [words for words in (shlex.split(part, comments=True) for part in parts) if words]


def light(words: list[str]) -> list[str]:
    """A command of gen4d with options that make it small; the last of two equal options counts."""
    if words[0] == "build" and "--like" in words:
        return [*words, "--scans", "floors/scans"]  # those that the data set was built from
    if words[0] == "build" and "--kind" not in words:
        return [*words, *cli.LIGHT, "--workers", "1", "--out", "built"]
    if words[0] == "samples":
        return ["samples", "fresh", "--rooms", "1", "--shapes", "1"]
    return words


PRETRAIN = ("net_3d=small-4d", "width=8", "hidden=4", "samples=16", "voxel_m=0.2", "voxel_4d_m=0.4", "workers=1")
FINETUNE = ("net=small-4d", "voxel_m=0.2", "batch=2", "workers=1", "log_steps=1", "checkpoint_steps=1")
TRAIN_LIGHT = {
    "pretrain": (*PRETRAIN, "steps=2"),
    "finetune": (*FINETUNE, "validate_steps=1", "steps=2"),
    "probe": ("net=small-4d", "voxel_m=0.2", "samples=200", "queries=100", "workers=1"),
}


def run(words: list[str]) -> None:
    """Run one command by a fast path, or check what can be checked of it."""
    program, rest = words[0], words[1:]
    if program == "gen4d":
        outcome = cli.gen4d(*light(rest))
        expected = (0, 1) if rest[0] == "doctor" else (0,)  # which finds fault with rooms of 150 points
        assert outcome.code in expected, f"{words}: {outcome.text}"
    elif program == "gen4d-train":
        run_trainer(rest)
    elif program == "make":
        done = subprocess.run(["make", "-n", "-C", ROOT, *rest], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        given = {word.partition("=")[0] for word in rest if "=" in word}
        assert given <= set(re.findall(r"^(\w+) *\??=", (ROOT / "Makefile").read_text(), re.M))
    else:
        known = (["python3", "-m", "venv", ".venv"], [".", ".venv/bin/activate"])
        assert words in known or re.fullmatch(r"pip install (\S*torch|\.(\[\w+\])?)", " ".join(words)), words


def run_trainer(words: list[str]) -> None:
    from click.testing import CliRunner

    from train.__main__ import main

    sets = [part for setting in TRAIN_LIGHT.get(words[0], ()) for part in ("--set", setting)]
    result = CliRunner().invoke(main, [*words, *sets])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, f"{words}: {result.output}"


def _training(block: Block) -> bool:
    return block.mark == "needs torch" or "gen4d-train" in block.text


with_blocks = [path for path in DOCUMENTS if any(map(runs_here, blocks(path)))]


@pytest.mark.parametrize("document", with_blocks, ids=lambda path: path.name)
def test_blocks_of_a_document_run_in_their_order(document, desk, tmp_path, monkeypatch, request):
    here = [block for block in blocks(document) if runs_here(block)]
    if any(map(_training, here)):
        request.getfixturevalue("run_folder")
    place = tmp_path / "desk"
    shutil.copytree(desk, place)
    monkeypatch.chdir(place)
    names: dict = {}
    for block in here:
        if block.language == "python":
            exec(compile(block.text, f"{document.name}:{block.line}", "exec"), names)
        else:
            for words in commands(block.text):
                run(words)


def test_blocks_that_run_elsewhere_are_read_there():
    for document in DOCUMENTS:
        for block in blocks(document):
            if _elsewhere(block):
                name = block.mark.split(";")[0]
                tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
                assert f"<!-- {name}" in tests or f'"{name}"' in tests, name
