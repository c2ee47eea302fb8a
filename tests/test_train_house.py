"""How the trainer's rooms lie: imports go one way, errors have one base, and every option of a command is told."""

import ast
import importlib
import inspect
import pathlib

import pytest

import train
from train.errors import Refused

ROOT = pathlib.Path(train.__file__).parent
FLOORS = [  # of the trainer, lowest first: a file imports its own floor and those before it
    {"errors"},
    {"config"},
    {"run"},
    {"inputs"},
    {"prepare"},
    {"nets"},
    {"methods"},
    {"tasks"},
    {"study"},
    {"doctor"},
    {"commands"},
    {"__main__"},
]
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def floor_of(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


def imported(path: pathlib.Path) -> set[str]:
    """Rooms of the trainer that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "train":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("train.")}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_from_commands_down_to_errors_only(path):
    own = floor_of(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    assert all(floor_of(name) <= own for name in imported(path)), imported(path)


def test_methods_do_not_know_tasks_and_the_loop_knows_neither():
    for path in FILES:
        room = path.relative_to(ROOT).parts[0]
        if room in ("run", "inputs", "nets"):
            assert not imported(path) & {"methods", "tasks"}, path
    assert "contrast4d" not in "".join(
        path.read_text() for path in FILES if path.parts[-2] in ("run", "nets", "inputs")
    )


def test_every_error_that_a_user_can_mend_is_a_refusal():
    """An error that is none of these would be a traceback."""
    signals = {"Stopped"}  # an end that was asked for
    for path in FILES:
        if path.name == "__main__.py":
            continue
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(name)
        own = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == name]
        for kind in own:
            if issubclass(kind, Exception) and kind.__name__ not in signals:
                assert issubclass(kind, Refused), kind


def test_files_are_of_a_length_that_can_be_read():
    assert {str(path.relative_to(ROOT)) for path in FILES if len(path.read_text().splitlines()) > 420} == set()
