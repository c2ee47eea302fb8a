"""Tables in Markdown."""

from collections.abc import Mapping, Sequence


def percent(share: float | None) -> str:
    """A share as per cent with two digits after the point."""
    return "-" if share is None else f"{100 * share:.2f}"


def aligned(head: Sequence, rows: Sequence[Sequence]) -> list[str]:
    """A Markdown table with columns of one width, the first to the left and the others to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    width = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]  # a rule needs some
    lines = []
    for row in cells:
        padded = [cell.rjust(width[column]) if column else cell.ljust(width[0]) for column, cell in enumerate(row)]
        lines.append("| " + " | ".join(padded) + " |")
    rule = ["-" * width[0], *("-" * (w - 1) + ":" for w in width[1:])]
    return [lines[0], "| " + " | ".join(rule) + " |", *lines[1:]]


def figures_line(scored: Mapping, figures: Sequence[str]) -> str:
    """Named shares of a summary on one line."""
    return " ".join(f"{name.upper()} {percent(scored[name])}" for name in figures)


def class_table(summaries: Mapping[str, Mapping], counted: str, figures: Sequence[str]) -> list[str]:
    """A row per class and one of the means: its `count`, under the head `counted`, and the figures of every named
    summary. All summaries are of the same scans."""
    first = next(iter(summaries.values()))
    head = ["class", counted, *(f"{name} {figure.upper()}" for name in summaries for figure in figures)]
    rows = []
    for name, own in (*first["classes"].items(), ("mean", first)):
        scored = [one if name == "mean" else one["classes"][name] for one in summaries.values()]
        rows.append([name, own["count"], *(percent(one[figure]) for one in scored for figure in figures)])
    return aligned(head, rows)
