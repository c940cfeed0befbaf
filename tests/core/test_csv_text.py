"""CSV is data for every reader, and never a formula."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.csv_text import encode

FORMULA = re.compile(r'[\s"]*[=+\-@＝＋－＠]')


def read(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def test_all_cells_are_quoted_and_numbers_stay() -> None:
    assert encode([("name", "n"), ("a", -3)]) == '"name","n"\r\n"a","-3"\r\n'


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        (" =1", "' =1"),
        ('"=1', "'\"=1"),
        ("＝1", "'＝1"),
        ("x;=1+1", "x;'=1+1"),
        ('x;"=1', "x;'\"=1"),
        ("x; ＋1;y", "x;' ＋1;y"),
        ("\t=1", "\\t=1"),
        ("a\r\n=1", "a\\r\\n=1"),
        ("a\x1b[31m\u202e", "a\\x1b[31m\\u202e"),
        ('a,b"c', 'a,b"c'),
        ("gpt-4o; b=c", "gpt-4o; b=c"),
    ],
)
def test_a_cell_begins_no_formula(text: str, cell: str) -> None:
    assert read(encode([(text,)])) == [[cell]]


@given(st.lists(st.text(st.sampled_from("=+-@＝;,\"' \t\nab"), max_size=12), min_size=1, max_size=3))
def test_however_a_spreadsheet_separates_the_cells_none_is_a_formula(row: list[str]) -> None:
    for delimiter in ",;\t":
        for cells in read(encode([row]), delimiter):
            assert not any(FORMULA.match(cell) for cell in cells), (delimiter, cells)
