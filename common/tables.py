"""Rows of cells as a table: for the terminal, and as Markdown.  Pure."""

from collections.abc import Sequence

Rows = Sequence[Sequence[object]]  # of one length; the first is the head


def aligned(rows: Rows, right: bool = False) -> list[str]:
    """Lines with columns of equal width, their cells to the left, or all to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    place = str.rjust if right else str.ljust
    return ["  ".join(map(place, row, widths)).rstrip() for row in texts]


def markdown(rows: Rows) -> list[str]:
    """Lines of a Markdown table: the first column to the left, the others, which are mostly numbers, to the right."""
    head, *others = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [head, "| :--- |" + " ---: |" * (len(rows[0]) - 1), *others]
