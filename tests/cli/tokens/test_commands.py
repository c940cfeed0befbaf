"""``token_manager.py`` as its users run it: a process of its own, in a folder of its own."""

import json
from pathlib import Path

import pytest

from gateway.tokens import secret
from tests.cli.tokens.command_line import TWO, run, run_failing, run_json
from tests.support.gateway import token_manager
from tests.support.tokens import content, entry, freegpt, names

LISTED = """\
Found 2 token(s):

1. sk-a1b2c3d4e5f...
   Name: my-application
   Status: ✓ Active
   Created: 2025-11-26T10:30:00
   Last used: 2025-11-26T11:45:23

2. sk-x9y8z7w6v5u...
   Name: mobile-app
   Status: ✗ Revoked
   Created: 2025-11-25T15:20:00
   Last used: Never
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_tokens.json"


@pytest.fixture
def two(path: Path) -> Path:
    path.write_bytes(TWO)
    return path


def test_list_prints_exactly_this(tmp_path: Path, two: Path) -> None:
    assert run(tmp_path, "list") == LISTED
    assert run(tmp_path, "list", LANG="C", LC_ALL="C", PYTHONUTF8="0") == LISTED
    assert two.read_bytes() == TWO


def test_list_has_further_lines_only_for_what_is_set(tmp_path: Path, path: Path) -> None:
    full = {"owner": "ann@example.com", "role": "admin", "expires_at": "2026-01-01T00:00:00Z", "models": ["a", "b*"]}
    path.write_bytes(content(entry(**full, limits={"rpm": 60})))
    assert run(tmp_path, "list").splitlines()[3:] == [
        "   Name: application",
        "   Status: ✗ Expired",
        "   Created: 2025-11-26T10:30:00",
        "   Last used: Never",
        "   Owner: ann@example.com",
        "   Role: admin",
        "   Expires: 2026-01-01T00:00:00",
        "   Models: a, b*",
        "   Limits: rpm 60",
    ]


def test_list_can_be_narrowed(tmp_path: Path, two: Path) -> None:
    assert run(tmp_path, "list", "--status", "revoked").startswith("Found 1 token(s):\n\n1. sk-x9y8z7w6v5u...")
    assert run(tmp_path, "list", "--owner", "ann@example.com") == "Found 0 token(s).\n"
    found = run_json(tmp_path, "list", "--status", "active")
    assert [token["name"] for token in found["tokens"]] == ["my-application"]
    assert found["pagination"] == {
        "page": 1,
        "per_page": 1,
        "total": 1,
        "total_pages": 1,
        "has_next": False,
        "has_prev": False,
    }
    assert "hash" not in found["tokens"][0]


def test_without_a_file_the_list_is_empty(tmp_path: Path, path: Path) -> None:
    assert run(tmp_path, "list") == "Found 0 token(s).\n"
    assert run_json(tmp_path, "list")["tokens"] == []
    assert not path.exists()


def test_create_shows_the_secret_once(tmp_path: Path, path: Path) -> None:
    shown = run(tmp_path, "create", "my app")
    made = next(word for word in shown.split() if word.startswith("sk-"))
    assert not secret.has_bad_checksum(made)
    assert shown.startswith("Created token 'my app':\n")
    assert "cannot be shown again" in shown
    assert made not in path.read_text() + run(tmp_path, "list") + run(tmp_path, "show", "my app")
    assert path.stat().st_mode & 0o777 == 0o600


def test_create_takes_every_option(tmp_path: Path) -> None:
    options = ["--owner", "ann@example.com", "--role", "service", "--expires", "2090-01-31", "--models", "a, b*"]
    made = run_json(tmp_path, "create", "ci", *options, "--prefix", "sk_test_")
    assert made["token"].startswith("sk_test_")
    assert made["token"].startswith(made["prefix"])
    assert made["id"].startswith("tok_")
    shown = run_json(tmp_path, "show", made["id"])
    assert shown == {key: value for key, value in made.items() if key != "token"}
    assert (shown["owner"], shown["role"], shown["models"]) == ("ann@example.com", "service", ["a", "b*"])
    assert (shown["expires_at"], shown["status"]) == ("2090-01-31T00:00:00Z", "active")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["create"],
        ["create", " "],
        ["create", "a\x1bb"],
        ["create", "n", "--owner", "nobody"],
        ["create", "n", "--role", "root"],
        ["create", "n", "--expires", "soon"],
        ["create", "n", "--expires", "2001-01-01"],
        ["create", "n", "--models", "a,,b"],
        ["create", "n", "--prefix", "pk-"],
        ["list", "--status", "dead"],
        ["show"],
        ["verify"],
    ],
)
def test_wrong_usage_is_2_and_changes_nothing(tmp_path: Path, path: Path, arguments: list[str]) -> None:
    assert run_failing(tmp_path, *arguments, code=2)
    assert not path.exists()


def test_show_tells_all_but_the_hash(tmp_path: Path, two: Path) -> None:
    lines = run(tmp_path, "show", "sk-x9y8z7w6v5u...").splitlines()
    assert lines[0] == "sk-x9y8z7w6v5u..."
    assert lines[-2:] == ["   Uses: 0", "   Revoked: 2025-12-01T00:00:00"]
    assert lines[-3].startswith("   Id: tok_")
    assert entry("sk-x9y8z7w6v5uabcdefghij")["hash"] not in "".join(lines)


def test_revoke_is_for_ever_and_can_be_said_again(tmp_path: Path, two: Path) -> None:
    assert run(tmp_path, "revoke", "sk-a1b2c3d4e5f") == "Revoked token 'my-application' (sk-a1b2c3d4e5f...).\n"
    after = two.read_bytes()
    assert run_json(tmp_path, "revoke", "my-application")["status"] == "revoked"
    assert two.read_bytes() == after
    assert run(tmp_path, "list").count("✗ Revoked") == 2


def test_delete_removes_the_record(tmp_path: Path, two: Path) -> None:
    assert run(tmp_path, "delete", "mobile-app") == "Deleted token 'mobile-app' (sk-x9y8z7w6v5u...).\n"
    assert run_json(tmp_path, "delete", "sk-a1b2c3d4e5fghijk", "--yes")["name"] == "my-application"
    assert names(two) == []


@pytest.mark.parametrize("command", ["show", "revoke", "delete"])
def test_no_such_token_is_1(tmp_path: Path, two: Path, command: str) -> None:
    assert run_failing(tmp_path, command, "nobody", code=1) == "token_manager.py: no token fits nobody\n"
    assert run_json(tmp_path, command, "nobody", code=1) == {"error": {"message": "no token fits nobody"}}
    assert two.read_bytes() == TWO


@pytest.mark.parametrize("command", ["show", "revoke", "delete"])
def test_more_than_one_match_changes_nothing_and_lists_them(tmp_path: Path, path: Path, command: str) -> None:
    same = content(entry("sk-one-of-two-secrets"), entry("sk-two-of-two-secrets"))
    path.write_bytes(same)
    printed = run_failing(tmp_path, command, "application", code=1)
    ids = [entry(text)["id"] for text in ("sk-one-of-two-secrets", "sk-two-of-two-secrets")]
    assert "fits 2 tokens; nothing was changed" in printed
    assert all(one in printed for one in ids)
    assert [match["id"] for match in run_json(tmp_path, command, "application", code=1)["matches"]] == ids
    assert path.read_bytes() == same


def test_verify_reads_a_secret_and_says_whether_it_is_good(tmp_path: Path, two: Path) -> None:
    assert (
        run(tmp_path, "verify", stdin=b"sk-a1b2c3d4e5fghijklmnop\n")
        == "✓ Valid: 'my-application' (sk-a1b2c3d4e5f...)\n"
    )
    assert run_json(tmp_path, "verify", "-", stdin=b"sk-a1b2c3d4e5fghijklmnop")["valid"] is True
    assert run(tmp_path, "verify", stdin=b"sk-x9y8z7w6v5uabcdefghij", code=1) == "✗ Not valid: revoked\n"
    unknown = {"valid": False, "status": "unknown"}
    assert run_json(tmp_path, "verify", stdin=b"sk-" + b"a" * 49, code=1) == unknown
    assert run_json(tmp_path, "verify", stdin=b"sk-unknown", code=1) == unknown
    assert two.read_bytes() == TWO, "verifying is not using"


def test_verify_takes_bytes_that_are_no_text_for_an_unknown_secret(tmp_path: Path, two: Path) -> None:
    assert run(tmp_path, "verify", stdin=b"sk-\xff\xfe\n", code=1) == "✗ Not valid: unknown\n"


@pytest.mark.parametrize(
    "arguments", [["show", "caf\udce9"], ["revoke", "caf\udce9"], ["create", "n", "--models", "\udce9"]]
)
def test_arguments_that_are_not_utf_8_are_refused_with_a_message(
    tmp_path: Path, two: Path, arguments: list[str]
) -> None:
    ended = token_manager(tmp_path, *arguments)
    assert ended.returncode in (1, 2)
    assert b"Traceback" not in ended.stderr
    assert two.read_bytes() == TWO


def test_import_takes_both_forms(tmp_path: Path, two: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(freegpt()))
    assert run(tmp_path, "import", "old.json") == "Imported 1 token(s).\n   sk-old-secret-...  old\n"
    assert run(tmp_path, "import", "old.json") == "Imported 0 token(s).\n"
    given = content(entry("sk-from-standard-input", name="given"))
    assert [token["name"] for token in run_json(tmp_path, "import", "-", stdin=given)["imported"]] == ["given"]
    assert names(two) == ["my-application", "mobile-app", "old", "given"]
    assert run_json(tmp_path, "verify", stdin=b"sk-old-secret-that-freegpt-made")["name"] == "old"


def test_an_import_that_is_not_there_is_1(tmp_path: Path) -> None:
    assert "absent.json" in run_failing(tmp_path, "import", "absent.json", code=1)
