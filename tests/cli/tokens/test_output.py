"""What the command line prints: sentences or JSON, with colours and questions at a terminal."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import tokens
from gateway.cli.tokens.output import create_printer
from tests.cli.tokens.command_line import run, run_at_terminal, run_json
from tests.support.tokens import KEY, STRANGE_KEY, content, entry, names


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "api_tokens.json"
    path.write_bytes(content(entry()))
    return path


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y\n", 0, []), ("YES\n", 0, []), ("\n", 1, ["application"]), ("", 1, ["application"])]
)
def test_delete_asks_on_a_terminal(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
    left: list[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert tokens.main(["delete", "application"]) == code
    assert names(path) == (["application"] if code else [])
    assert "Delete 'application' (sk-first-secre...)? [y/N]" in capsys.readouterr().err


def test_delete_with_yes_does_not_ask(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(""))
    assert tokens.main(["delete", "application", "--yes"]) == 0
    assert names(path) == []


def test_a_stream_that_is_no_file_is_written_to_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    assert tokens.main(["list"]) == 0
    assert "✓ Active" in out.getvalue()


def test_a_printer_for_machines_writes_to_one_stream() -> None:
    out, err = io.StringIO(), io.StringIO()
    create_printer(out, err, as_json=True, in_colour=False, client_url="").print_error("no")
    assert out.getvalue().startswith("{")
    assert err.getvalue() == ""


FULL = entry(
    owner="ann@example.com",
    role="admin",
    expires_at="2026-01-01T00:00:00Z",
    revoked_at="2026-01-01T00:00:00Z",
    models=["a"],
    limits={"rpm": 1},
)
WORKS: list[tuple[list[str], str, int, str]] = [
    (["list"], "", 0, "Found 2 token(s):"),
    (["list", "--status", "revoked", "--owner", "ann@example.com"], "", 0, "Limits: "),
    (["list", "--status", "expired"], "", 0, "Found 0 token(s)."),
    (["list", "--tree"], "", 0, "...  application  ✓ Active"),
    (["rotate", entry(KEY)["id"]], "", 0, "The new secret of token 'application':"),
    (["rotate", entry(KEY)["id"], "--grace", "0"], "", 0, "has ended."),
    (["rotate", entry(KEY)["id"], "--grace", "soon"], "", 2, "is no time span"),
    (["usage"], "", 0, "OLD SECRETS"),
    (["usage", "--since", "soon"], "", 2, "is no time span"),
    (["audit"], "", 0, "CHANGES"),
    (["audit", "--verify"], "", 0, "Whole: 0 line(s)"),
    (["completion", "bash"], "", 0, "complete -o bashdefault"),
    (["create", "n", "--expires", "30d", "--models", "a"], "", 0, "Created token 'n':"),
    (["create", "n", "--expires", "soon"], "", 2, "is none of 30d"),
    (["show", FULL["id"]], "", 0, "Revoked: 2026"),
    (["show", "nobody"], "", 1, "no token fits nobody"),
    (["revoke", "application"], "", 1, "fits 2 tokens"),
    (["revoke", FULL["id"]], "", 0, "Revoked token"),
    (["delete", FULL["id"]], "", 0, "Deleted token"),
    (["verify"], KEY, 0, "Valid"),
    (["verify"], "sk-unknown", 1, "unknown"),
    (["verify"], STRANGE_KEY[:-1] + "x", 1, "unknown"),
    (["verify"], "", 2, "no secret on standard input"),
    (["import", "other.json"], "", 0, "Imported 1 token(s)."),
    (["import", "absent.json"], "", 1, "absent.json"),
    (["import", "broken.json"], "", 78, "line 1"),
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("arguments", "given", "code", "printed"), WORKS)
def test_every_command_as_text_and_as_json(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    given: str,
    code: int,
    printed: str,
    as_json: bool,
) -> None:
    path.write_bytes(content(entry(KEY), FULL))
    path.with_name("other.json").write_bytes(content(entry("sk-third-secret-of-many")))
    path.with_name("broken.json").write_bytes(b"{")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    assert tokens.main([*arguments, *(["--json"] if as_json else [])]) == code
    shown = capsys.readouterr()
    if as_json:
        assert isinstance(json.loads(shown.out), dict)
        assert shown.err == ""
    else:
        assert printed in (shown.err if code and arguments[0] != "verify" else shown.out + shown.err)
        assert code == 0 or arguments[0] == "verify" or shown.out == ""


def make(folder: Path, *arguments: str) -> Any:
    return run_json(folder, "create", *arguments)


def test_a_terminal_gets_colours_and_a_pipe_does_not(tmp_path: Path) -> None:
    make(tmp_path, "good")
    make(tmp_path, "bad")
    run(tmp_path, "revoke", "bad")
    code, shown = run_at_terminal(tmp_path, "list")
    assert code == 0
    assert "\x1b[32m✓ Active\x1b[0m" in shown
    assert "\x1b[31m✗ Revoked\x1b[0m" in shown
    assert "\x1b" not in run(tmp_path, "list") + run_at_terminal(tmp_path, "list", NO_COLOR="1")[1]
    assert "\x1b" not in run_at_terminal(tmp_path, "list", "--json")[1]


def test_a_terminal_gets_tables_that_take_a_name_for_what_it_is(tmp_path: Path) -> None:
    make(tmp_path, "[red]not markup[/red]")
    for command in ("usage", "audit"):
        assert "[red]not markup[/red]" in run_at_terminal(tmp_path, command, NO_COLOR="1")[1]


@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, ["b"]), ("\n", 1, ["a", "b"]), ("no\n", 1, ["a", "b"])])
def test_at_a_terminal_deleting_asks_first(tmp_path: Path, typed: str, code: int, left: list[str]) -> None:
    make(tmp_path, "a")
    make(tmp_path, "b", "--parent", "a")
    ended, shown = run_at_terminal(tmp_path, "delete", "a", typed=typed)
    assert ended == code
    assert "Delete 'a' (sk-" in shown
    assert "Its 1 child token(s) will be revoked. [y/N]" in shown
    assert names(tmp_path / "api_tokens.json") == left


def test_output_is_json_at_a_terminal_too(tmp_path: Path) -> None:
    make(tmp_path, "a")
    _, shown = run_at_terminal(tmp_path, "usage", "--json")
    assert json.loads(shown)["usage"][0]["name"] == "a"


def test_the_first_token_is_told_to_end_open_mode(tmp_path: Path) -> None:
    assert "every client needs one within a second" in run(tmp_path, "create", "a", GATEWAY_PORT="9000")
    second = run(tmp_path, "create", "b", GATEWAY_PORT="9000")
    assert "every client needs one" not in second
    assert "curl http://127.0.0.1:9000/v1/models" in second
