"""Writes the pages that are made from the code: cli.md, api.md, and the table of arrays in format.md.

python -m tests.pages           write them
python -m tests.pages --check   say which are stale; exit code 1 if one is
"""

import ast
import importlib
import inspect
import pathlib
import re
import sys
import textwrap

import click

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WIDTH = 88
_WRITTEN = "<!-- written by tests/pages.py -->"

# Command lines -------------------------------------------------------------------------------------------------------


def help_of(command: click.Command, name: str, parent: click.Context | None = None) -> list[tuple[str, str]]:
    """Full name and `--help` of a command and, after it, of those below it."""
    command._help_option = None  # click keeps what the first context made of it, whoever its parent was
    width = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, parent, name, **command.context_settings, **width)
    found = [(context.command_path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines()))]
    for below in command.list_commands(context) if isinstance(command, click.Group) else ():
        found += help_of(command.get_command(context, below), below, context)
    return found


def cli_page() -> str:
    """Every `--help` of both programs."""
    from gen4d.cli import cli
    from train.__main__ import main

    lines = ["# Command line", "", _WRITTEN, "", "Every command with its `--help`. Exit codes: see"]
    lines += ["[guarantees](guarantees.md#exit-codes).", ""]
    for path, text in help_of(cli, "gen4d") + help_of(main, "gen4d-train"):
        lines += [f"## {path}", "", "```text", text, "```", ""]
    return "\n".join(lines[:-1]) + "\n"


# Python API ----------------------------------------------------------------------------------------------------------


def parameters(node: ast.FunctionDef, skip: int) -> list[str]:
    """The parameters of a function as they stand in its source, `self` left out."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    found = [_parameter(arg, value) for arg, value in zip(positional, defaults, strict=True)][skip:]
    if given.vararg:
        found.append("*" + _parameter(given.vararg, None))
    elif given.kwonlyargs:
        found.append("*")
    found += [_parameter(arg, value) for arg, value in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return found + (["**" + _parameter(given.kwarg, None)] if given.kwarg else [])


def _parameter(arg: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
    equals = " = " if kind else "="
    return arg.arg + kind + (f"{equals}{ast.unparse(default)}" if default is not None else "")


def signature(name: str, node: ast.FunctionDef, skip: int = 0) -> str:
    """A call as a block of Python, a parameter in each line where it would be too wide."""
    given = parameters(node, skip)
    gives = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    line = f"{name}({', '.join(given)}){gives}"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in given) + f"){gives}"
    return f"```text\n{line}\n```"


def text_of(node: ast.AST) -> str:
    """A docstring as Markdown; indented lines are code, and what is said of each parameter is a list."""
    blocks = (ast.get_docstring(node) or "").split("\n\n")
    if isinstance(node, ast.FunctionDef):
        names = [re.match(r"\W*(\w+)", one)[1] for one in parameters(node, 0) if one != "*"]
        blocks = [_listed(block, names) for block in blocks]
    return "\n\n".join(f"```text\n{textwrap.dedent(b)}\n```" if b.startswith("    ") else b for b in blocks)


def _listed(block: str, names: list[str]) -> str:
    """A block with `name: what it is.` sentences as a list."""
    name = "|".join(map(re.escape, names))
    text = " ".join(block.split())
    parts = re.split(rf"(?:^|(?<=\. ))((?:{name})(?:, (?:{name}))*): ", text)
    if len(parts) < 3 or block.startswith("    "):
        return block
    items = [
        textwrap.fill(f"- **{one}**: {said.strip()}", 118, subsequent_indent="  ")
        for one, said in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return "\n".join(([parts[0].strip(), ""] if parts[0].strip() else []) + items)


def fields(node: ast.ClassDef, source: list[str], defaults: bool) -> list[str]:
    """A table of a record's fields; what they mean stands behind them or, for a run of them, before them."""
    rows = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and not item.target.id.startswith("_"):
            line = source[item.end_lineno - 1]
            comment = line[item.end_col_offset :].partition("#")[2].strip()
            default = _plain(item.value) if item.value else ""
            kind = ast.unparse(item.annotation)
            cells = [f"`{item.target.id}`", f"`{kind}`", *([default] if defaults else []), comment]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = ["field", "type", *(["default"] if defaults else []), "meaning"]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows, ""] if rows else []


def _plain(value: ast.expr) -> str:
    text = ast.unparse(value)
    return f"`{text}`" if len(text) < 30 else ""


def class_lines(name: str, node: ast.ClassDef, source: list[str]) -> list[str]:
    """A class: what it is, how it is made, its fields, what it can do."""
    lines = [text_of(node), ""]
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    for item in methods:
        if item.name == "__init__" and ast.get_docstring(item):
            lines += [signature(name, item, skip=1), "", text_of(item), ""]
    record = fields(node, source, any(isinstance(i, ast.AnnAssign) and i.value for i in node.body))
    lines += record
    for item in methods:
        decorators = {ast.unparse(one).rpartition(".")[2] for one in item.decorator_list}
        if item.name.startswith("_") or "overload" in decorators or not ast.get_docstring(item):
            continue
        prefix = f"{name.rpartition('.')[2].lower()}.{item.name}"
        if decorators & {"property", "cached_property"}:
            kind = f": {ast.unparse(item.returns)}" if item.returns else ""
            lines += [f"```text\n{prefix}{kind}\n```", "", text_of(item), ""]
        else:
            lines += [signature(prefix, item, skip=1), "", text_of(item), ""]
    return lines


GROUPS = {
    "Read": ("open_dataset", "Dataset", "verify"),
    "Generate": ("generate", "build_dataset", "merge", "write_dataset", "Built", "Progress"),
    "Values": (
        "Sequence",
        "Frame",
        "Actor",
        "make_actor",
        "Cloud",
        "Mover",
        "FloorPlan",
        "Recording",
        "Views",
        "match_points",
    ),
    "Settings": ("Config", "FramesConfig", "SweepsConfig", "ViewsConfig"),
}


def api_page() -> str:
    """Every public name of gen4d from its docstring."""
    import gen4d

    grouped = [name for names in GROUPS.values() for name in names]
    if set(grouped) != set(gen4d.__all__) - {"__version__"}:
        raise SystemExit(f"GROUPS and gen4d.__all__ differ: {set(grouped) ^ (set(gen4d.__all__) - {'__version__'})}")
    lines = ["# Python API", "", _WRITTEN, "", _INTRODUCTION, ""]
    for group, names in GROUPS.items():
        lines += [f"## {group}", ""]
        for name in names:
            module = importlib.import_module(gen4d._MODULE[name])
            node, source = _definition(inspect.unwrap(getattr(gen4d, name)), module)
            lines += [f"### {name}", ""]
            if isinstance(node, ast.ClassDef):
                lines += class_lines(f"gen4d.{name}", node, source)
            else:
                lines += [signature(f"gen4d.{name}", node), "", text_of(node), ""]
    return "\n".join(lines).rstrip() + "\n"


_INTRODUCTION = """\
```python
import gen4d

dataset = gen4d.open_dataset("data/sequences")
print(dataset, len(dataset), dataset[0].id)
print(dataset[-2:], dataset[dataset[0].id])  # slices and ids
for frame in dataset[0]:
    print(frame.point.shape, frame.point_index[:3])
assert not any(gen4d.verify(dataset))  # one line per damaged file
```

Everything is loaded when it is first used, so `import gen4d` takes no time. Annotations are complete (`py.typed`).
Every error that you can mend is a `ValueError` of gen4d whose message names the value, the rule and the remedy; a wrong
index is an `IndexError` or a `KeyError` that says what there is. Axes are right-handed with z up, lengths in metres."""


def _definition(value, module) -> tuple[ast.FunctionDef | ast.ClassDef, list[str]]:
    source = inspect.getsource(sys.modules[getattr(value, "__module__", module.__name__)])
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == value.__name__:
            return node, source.splitlines()
    raise SystemExit(f"{value}: not defined at the top level of its module")


# Arrays --------------------------------------------------------------------------------------------------------------

_ROWS = {"cloud": "P", "actor": "A", "sequence": "S", "mover": "M", "scan": "N", "view": "V", "pair": "pairs"}
_COUNTS = {
    "cloud/start": "C + 1",
    "actor/start": "S + 1",
    "mover/start": "S + 1",
    "actor/mask": "bytes",
    "scan/valid": "bytes",
    "scan/valid_start": "N + 1",
    "view/start": "N + 1",
    "view/overlap_start": "N + 1",
    "view/overlap": "V squared of each scan",
    "pair/start": "S t (t - 1) / 2 + 1",
}
_NAMES = {"<f4": "float32", "<f8": "float64", "<i4": "int32", "<i8": "int64", "|u1": "uint8"}


def format_page() -> str:
    """format.md with the table of arrays as the code has it."""
    from gen4d.shards.format import ARRAYS

    rows = ["| array | type | shape | meaning |", "|---|---|---|---|"]
    for name, spec in ARRAYS.items():
        first = _COUNTS.get(name, _ROWS[name.partition("/")[0]])
        shape = ", ".join([first, *("t" if size == "frames" else str(size) for size in spec.row)])
        optional = " *Optional.*" if spec.optional else ""
        rows.append(f"| `{name}` | {_NAMES[spec.dtype]} | ({shape}) | {spec.meaning}{optional} |")
    text = (DOCS / "format.md").read_text()
    table = "<!-- arrays -->\n" + "\n".join(rows) + "\n<!-- end arrays -->"
    return re.sub(r"<!-- arrays -->\n.*?<!-- end arrays -->", lambda _: table, text, flags=re.S)


PAGES = {"cli.md": cli_page, "api.md": api_page, "format.md": format_page}


def stale() -> list[str]:
    """Names of the pages that are not what the code says."""
    return [name for name, page in PAGES.items() if _read(DOCS / name) != page()]


def _read(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


def main() -> None:
    """Write the pages, or check them."""
    if sys.argv[1:] == ["--check"]:
        names = stale()
        sys.exit(f"stale: {', '.join(names)}; run python -m tests.pages" if names else 0)
    for name in stale():
        (DOCS / name).write_text(PAGES[name]())
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
