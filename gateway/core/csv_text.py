"""Writes tables as CSV that a spreadsheet only shows. Pure."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

from gateway.core.escaping import for_display

_FORMULA = re.compile(r'(^|;)(?=[\s"]*[=+\-@＝＋－＠])')
"""A place where a spreadsheet may begin to read a formula: a cell's beginning; behind a semicolon, because in countries with a
decimal comma semicolons separate the cells."""


def encode(rows: Iterable[Sequence[str | int]]) -> str:
    """Returns the rows as CSV: cells separated by commas and all quoted, lines ended by CR LF.

    Text that a spreadsheet would take for a formula gets an apostrophe before it; what is not shown is escaped. Numbers stay.
    """
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows([cell if isinstance(cell, int) else _cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _cell(text: str) -> str:
    return _FORMULA.sub(r"\1'", for_display(text))
