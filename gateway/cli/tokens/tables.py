"""Aligned columns: plain text in a pipe, and on a terminal a table that fits into it."""

from collections.abc import Sequence
from typing import TextIO


def write(out: TextIO, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if out.isatty():
        _for_terminal(out, headings, rows)
    else:
        print(*plain(headings, rows), sep="\n", file=out)


def plain(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _for_terminal(out: TextIO, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as text: a name may look like markup
    Console(file=out).print(table)
