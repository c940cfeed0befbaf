"""Who is asked before a token is ended for good, and what counts as an answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tokens.command_line import TWO, run, run_at_terminal, run_failing
from tests.support.gateway import ROOT, environment
from tests.support.tokens import names

ENDING = ["delete", "revoke"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "api_tokens.json"
    path.write_bytes(TWO)
    return path


@pytest.mark.parametrize("answer", [b"n\n", b"N\n", b"no\n", b"\n", b" n"])
@pytest.mark.parametrize("command", ENDING)
def test_a_piped_no_ends_nothing(tmp_path: Path, path: Path, command: str, answer: bytes) -> None:
    assert "nothing was " in run_failing(tmp_path, command, "my-application", code=1, stdin=answer)
    assert path.read_bytes() == TWO


@pytest.mark.parametrize("answer", [b"", b"y\n", b"yes\n"])
@pytest.mark.parametrize("command", ENDING)
def test_a_piped_yes_and_an_empty_input_do_not_object(tmp_path: Path, path: Path, command: str, answer: bytes) -> None:
    run(tmp_path, command, "my-application", stdin=answer)
    assert path.read_bytes() != TWO


@pytest.mark.parametrize("command", ENDING)
def test_an_input_that_is_no_answer_is_wrong_usage(tmp_path: Path, path: Path, command: str) -> None:
    """Such as the list that a loop reads from: its next line is not for this command."""
    assert "must be y or n" in run_failing(tmp_path, command, "my-application", code=2, stdin=b"mobile-app\n")
    assert path.read_bytes() == TWO
    run(tmp_path, command, "my-application", "--yes", stdin=b"mobile-app\n")
    assert path.read_bytes() != TWO


def test_a_pipe_that_stays_silent_holds_nothing_up(tmp_path: Path, path: Path) -> None:
    command = [sys.executable, str(ROOT / "token_manager.py"), "delete", "my-application"]
    reading, writing = os.pipe()
    try:
        ended = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(tmp_path),
            stdin=reading,
            capture_output=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert ended.returncode == 0
    assert names(path) == ["mobile-app"]


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("\n", 1), ("n\n", 1)])
def test_at_a_terminal_revoking_asks_first(tmp_path: Path, path: Path, typed: str, code: int) -> None:
    ended, shown = run_at_terminal(tmp_path, "revoke", "my-application", typed=typed)
    assert (ended, "Revoke 'my-application' (sk-a1b2c3d4e5f...) for ever? [y/N]" in shown) == (code, True)
    assert run(tmp_path, "list").count("✗ Revoked") == (2 if code == 0 else 1)
