"""What a command writes is one line for each string, whatever the string contains."""

import io

import pytest

from gateway.cli.console import ArgumentParser, print_lines


def test_a_string_is_one_line_without_escape_sequences() -> None:
    out = io.StringIO()
    print_lines(out, "a\nfake row", "\x1b]0;title\x07")
    assert out.getvalue() == "a\\nfake row\n\\x1b]0;title\\x07\n"


def test_a_style_colours_lines_that_are_escaped_already() -> None:
    out = io.StringIO()
    print_lines(out, "\x1b[31m", end="", style=lambda line: f"<{line}>")
    assert out.getvalue() == "<\\x1b[31m>"


def test_arguments_are_escaped_in_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ArgumentParser(prog="p").parse_args(["\x1b[31mred\n"])
    assert caught.value.code == 2
    assert "p: error: unrecognized arguments: \\x1b[31mred\\n\n" in capsys.readouterr().err
