"""What the repository says of itself: its map, its rules of import, its commands."""

import ast
import pathlib
import re

from tests.conftest import SLOW_FILES, SLOW_TESTS

ROOT = pathlib.Path(__file__).resolve().parents[1]
ARCHITECTURE, GUARANTEES = ((ROOT / "docs" / name).read_text() for name in ("architecture.md", "guarantees.md"))
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
SOURCES = [path for package in ("gen4d", "train") for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: pathlib.Path) -> set[str]:
    """First parts of the names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def test_the_architecture_page_maps_every_source_file_and_no_other():
    listing = ARCHITECTURE[ARCHITECTURE.index("## Where things are") :]
    gen4d, train = listing.split("| **train/** | |")
    for name, text in (("gen4d", gen4d), ("train", train)):
        mentioned = set(re.findall(r"`([\w]+\.py)`", text))
        there = {path.name for path in (ROOT / name).rglob("*.py") if path.name != "__init__.py"}
        assert mentioned == there, name


def test_the_generator_imports_neither_torch_nor_the_trainer():
    for path in SOURCES:
        if path.is_relative_to(ROOT / "gen4d"):
            assert not imports(path) & {"torch", "spconv", "train"}, path


ROOMS = ["compiled", "", *"config lanes files workers sequence sources moving views".split()]
ROOMS += "shards building report exports commands cli".split()
LEAF, ITS = "samples", ("files", "workers")  # takes nothing but these; the commands alone may call it


def room_of(module: str) -> str:
    """The first level below gen4d that a module lies in."""
    name = module.split(".")[1] if "." in module else ""
    return {"sequence_kernels": "sequence", "__main__": "cli", "__init__": "", "": ""}.get(name, name)


def modules_of(path: pathlib.Path) -> set[str]:
    """The gen4d modules that a file imports at run time, wherever in it: type checkers see more."""
    tree = ast.parse(path.read_text())
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    hidden = {id(inner) for node in typing for inner in ast.walk(node)}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in hidden]
    found = {node.module for node in nodes if node.module and node.module.startswith("gen4d.")}
    return found | {f"gen4d.{alias.name}" for node in nodes if node.module == "gen4d" for alias in node.names}


def test_imports_go_one_way():
    for path in SOURCES:
        if not path.is_relative_to(ROOT / "gen4d"):
            continue
        mine = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for other in {room_of(module) for module in modules_of(path)} - {mine, "__version__", ""}:
            if LEAF in (mine, other):
                allowed = (mine == LEAF and other in ITS) or (mine, other) == ("commands", LEAF)
            else:
                allowed = ROOMS.index(other) < ROOMS.index(mine)
            assert allowed, f"{path}: {mine} takes from {other}"


def test_the_public_names_are_the_same_for_type_checkers_and_at_run_time():
    import gen4d

    tree = ast.parse((ROOT / "gen4d" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname: node.module for node in block.body for alias in node.names}
    assert typed == {name: module for module, names in gen4d._HOME.items() for name in names}
    assert all(getattr(gen4d, name) is not None for name in typed)


def test_steps_do_not_call_one_another():
    steps = {"occupancy", "candidates", "trajectory", "shape", "augment", "accept"}
    for step in steps:
        taken = {module.rpartition(".")[2] for module in modules_of(ROOT / "gen4d" / "moving" / f"{step}.py")}
        assert not taken & steps, (step, taken)


def test_compiled_functions_live_in_kernel_files_only():
    kernels = {
        "gen4d/sequence_kernels.py",
        "gen4d/moving/kernels.py",
        "gen4d/report/kernels.py",
        "gen4d/views/kernels.py",
        "gen4d/samples/camera/render.py",
        "gen4d/sources/formats/lzf.py",
        "gen4d/sources/formats/mesh_kernels.py",
        "gen4d/sources/formats/text_kernels.py",
        "gen4d/sources/level_kernels.py",
        "train/inputs/kernels.py",
        "train/nets/point_kernels.py",
        "train/tasks/detect/kernels.py",
        "train/tasks/instances/kernels.py",
    }
    for path in SOURCES:
        if "numba" in imports(path):
            assert str(path.relative_to(ROOT)) in kernels


def test_only_the_command_lines_print_and_exit():
    for path in SOURCES:
        if path.name not in ("cli.py", "__main__.py") and "commands" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    assert called not in ("print", "sys.exit", "exit", "click.echo"), f"{path}:{node.lineno}"


def test_chance_comes_from_keyed_generators_only():
    banned = re.compile(
        r"default_rng\(\)|np\.random\.(rand|seed|normal|uniform|choice)\(|\buuid\b|^import random", re.M
    )
    for path in SOURCES:
        assert not banned.search(path.read_text()), path


def test_every_test_that_a_document_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", GUARANTEES)
    assert len(named) > 40
    assert len(named) == len(re.findall(r"\btest_\w+`", GUARANTEES)), "a test is named without its file"
    for path, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), f"{path} has no {name}"
    for document in DOCUMENTS:
        for path in re.findall(r"\btests/[\w/]+\.py\b", document.read_text()):
            assert (ROOT / path).exists(), f"{document.name}: {path}"


def test_every_make_target_of_the_documents_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        assert set(re.findall(r"(?:^|`)make ([a-z]+)\b", document.read_text(), re.M)) <= targets, document.name


def test_make_quotes_every_path_that_a_user_may_give():
    recipes = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t")]
    path = r"\$\((SAMPLES|SCANS|SHAPES|DATA|RUN|TUNED|FOUND|BOXES|STRL)\)"
    assert sum(bool(re.search(path, line)) for line in recipes) > 8
    assert not [line for line in recipes if re.search(r'(?<!["\w/])' + path, line)]


TESTS = sorted((ROOT / "tests").glob("test_*.py"))


def test_the_tests_that_are_called_slow_exist():
    defined = {name for path in TESTS for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M)}
    assert set(SLOW_TESTS) <= defined
    assert {f"test_{name}.py" for name in SLOW_FILES} <= {path.name for path in TESTS}


def test_no_file_of_tests_of_gen4d_takes_from_another():
    for path in TESTS:
        taken = re.findall(r"^(?:from|import) tests\.(test_\w+)", path.read_text(), re.M)
        assert not taken or "train" in imports(path), (path.name, taken)
