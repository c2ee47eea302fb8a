"""Tables in Markdown."""

from collections.abc import Sequence


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
