"""Lines and tables of text about tokens."""

import io

import pytest

from gateway.cli.tokens import text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    assert text.plain_table(("A", "BB"), [("1", ""), ("123", "4")]) == ["A    BB", "1", "123  4"]


def test_a_pipe_gets_a_plain_table_and_a_terminal_one_that_takes_a_cell_literally() -> None:
    pipe, terminal = io.StringIO(), Terminal()
    for out in (pipe, terminal):
        text.write_table(out, ("NAME", "USES"), [("[red]x[/red]", "7")])
    assert pipe.getvalue() == "NAME          USES\n[red]x[/red]  7\n"
    assert "[red]x[/red]" in terminal.getvalue()
    assert "─" in terminal.getvalue()


@pytest.mark.parametrize(
    ("count", "line"), [(0, "Found 0 token(s)."), (1, "Found 1 token(s):"), (12, "Found 12 token(s):")]
)
def test_a_list_begins_with_its_length(count: int, line: str) -> None:
    assert text.count_line(count) == line


def test_a_new_secret_is_shown_with_what_to_do_next() -> None:
    lines = text.secret_lines("sk-made-up", "http://gw.test:9000")
    assert lines[1] == "  sk-made-up"
    assert any(line.startswith("  OPENAI_API_KEY=sk-made-up") for line in lines)
    assert any(
        line.startswith("  curl http://gw.test:9000/v1/models") and "Bearer sk-made-up" in line for line in lines
    )


def test_an_audit_entry_shows_changes_and_leaves_out_what_has_a_column_of_its_own() -> None:
    entry = {
        "time": "2026-01-31T10:30:00Z", "action": "update", "token_id": "tok_1", "token": "ci",
        "actor": {"kind": "command line", "name": "ann", "address": None},
        "changes": {"role": ["member", "admin"], "models": [None, ["a"]], "name": [None, "ci"]},
    }  # fmt: skip
    assert text.audit_row(entry) == (
        "2026-01-31T10:30:00Z", "command line ann", "-", "update", "tok_1", "ci", 'role: member → admin; models: ["a"]'
    )  # fmt: skip


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["pipe", "terminal"])
def test_a_cell_is_one_line_without_escape_sequences(out: io.StringIO) -> None:
    text.write_table(out, ("NAME",), [("a\nfake\x1b]0;t\x07",)])
    assert "a\\nfake\\x1b]0;t\\x07" in out.getvalue()
    assert "\x1b]" not in out.getvalue()


def test_only_the_status_at_the_end_of_its_line_has_a_colour() -> None:
    assert text.colour_status("   Status: ✓ Active") == "   Status: \x1b[32m✓ Active\x1b[0m"
    assert text.colour_status("└── sk-a...  name  ✗ Revoked") == "└── sk-a...  name  \x1b[31m✗ Revoked\x1b[0m"
    for line in ("   Name: x  ✓ Active", "   Name: Status: ✓ Active", "✓ Active now"):
        assert text.colour_status(line) == line
