"""The fields of a token that `create` and `update` set."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.tokens.command_line import run, run_failing, run_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    limits = ["--rpm", "60", "--budget", "10/day", "--owner", "ann@example.com"]
    run(tmp_path, "create", "one", *limits, "--models", "a,b*", "--expires", "2099-01-01")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "two"], {"name": "two", "limits": {"rpm": 60, "budget": "10/day"}}),
        (["--budget", "none"], {"limits": {"rpm": 60}}),
        (["--budget", "none", "--rpm", "none"], {"limits": None}),
        (
            ["--tpm", "5", "--max-parallel", "2"],
            {"limits": {"rpm": 60, "budget": "10/day", "tpm": 5, "max_parallel": 2}},
        ),
        (["--budget", "2.50/week"], {"limits": {"rpm": 60, "budget": "2.5/week"}}),
        (["--owner", "none", "--role", "service"], {"owner": None, "role": "service"}),
        (["--owner", "bob@example.com"], {"owner": "bob@example.com"}),
        (["--models", "all"], {"models": None}),
        (["--models", "c, d"], {"models": ["c", "d"]}),
        (["--expires", "never"], {"expires_at": None}),
        (["--expires", "2098-01-01"], {"expires_at": "2098-01-01T00:00:00Z"}),
    ],
)
def test_update_changes_what_is_named_and_nothing_else(
    folder: Path, arguments: list[str], expected: dict[str, Any]
) -> None:
    before = run_json(folder, "show", "one")
    updated = run_json(folder, "update", "one", *arguments)
    assert updated == {**before, **expected}
    assert run_json(folder, "show", before["id"]) == updated
    assert run_json(folder, "audit")["entries"][-1]["action"] == "token.update"


def test_update_says_what_the_token_is_now(folder: Path) -> None:
    assert run(folder, "update", "one", "--rpm", "5").startswith("Updated token 'one' (sk-")
    assert "Limits: rpm 5, budget 10/day" in run(folder, "show", "one")
    assert run(folder, "update", "one", "--rpm", "5").startswith("Nothing to change in token 'one'")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "nothing to change"),
        (["--rpm", "1e3"], 2, "--rpm must be a whole number such as 60, not '1e3'"),
        (["--max-parallel", "many"], 2, "--max-parallel must be a whole number"),
        (["--rpm", "0"], 2, "`limits.rpm` must be a whole number, 1 to"),
        (["--budget", "ten"], 2, "in USD"),
        (["--expires", "2020-01-01"], 2, "does not lie in the future"),
        (["--owner", "ann"], 2, "must be an e-mail address"),
    ],
)
def test_a_wrong_field_changes_nothing(folder: Path, arguments: list[str], code: int, text: str) -> None:
    before = (folder / "api_tokens.json").read_bytes()
    assert text in run_failing(folder, "update", "one", *arguments, code=code)
    assert (folder / "api_tokens.json").read_bytes() == before


def test_a_child_gets_no_more_than_its_parent(folder: Path) -> None:
    run(folder, "create", "child", "--parent", "one")
    assert "may not have more" in run_failing(folder, "update", "child", "--budget", "none", code=1)
    assert "no token fits" in run_failing(folder, "update", "absent", "--rpm", "1", code=1)
