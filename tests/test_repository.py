"""What the repository says of itself: its map, its rules of import, its commands."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
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


def test_the_readme_maps_every_source_file_and_no_other():
    listing = README[README.index("## Where things are") :]
    listing = listing[: listing.index("\n## ", 5)] if "\n## " in listing[5:] else listing
    gen4d, train = listing.split("| **train/** | |")
    for name, text in (("gen4d", gen4d), ("train", train)):
        mentioned = set(re.findall(r"`([\w]+\.py)`", text))
        there = {path.name for path in (ROOT / name).rglob("*.py") if path.name != "__init__.py"}
        assert mentioned == there, name


def test_the_generator_imports_neither_torch_nor_the_trainer():
    for path in SOURCES:
        if path.is_relative_to(ROOT / "gen4d"):
            assert not imports(path) & {"torch", "spconv", "train"}, path


def test_steps_do_not_call_one_another():
    steps = {"occupancy", "candidates", "trajectory", "compose", "augment", "accept"}
    shared = {("candidates", "occupancy")}  # whose value it takes
    for step in steps:
        for node in ast.walk(ast.parse((ROOT / "gen4d" / f"{step}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gen4d"):
                used = {alias.name for alias in node.names} | {node.module.rpartition(".")[2]}
                assert all((step, other) in shared for other in used & steps - {step}), (step, used)


def test_compiled_functions_live_in_kernel_files_only():
    kernels = {"gen4d/kernels.py", "gen4d/samples/render.py", "gen4d/sources/lzf.py", "train/inputs/kernels.py"}
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


def test_every_test_that_the_readme_names_exists():
    links = re.findall(r"\[`(test_\w+)`\]\(([\w/.]+)\)", README)
    assert len(links) > 40
    assert len(links) == len(re.findall(r"`test_\w+`", README)), "a test is named without a link to its file"
    for name, path in links:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), f"{path} has no {name}"


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)\b", README, re.M)) <= targets
