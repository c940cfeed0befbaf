"""``token_manager.py``: children, rotation, use, the audit log, completion, and what a person on a terminal sees."""

from pathlib import Path
from typing import Any

import pytest

from gateway.tokens import secret
from tests.cli.tokens.command_line import run, run_failing, run_json
from tests.support.tokens import content, entry, names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_tokens.json"


def make(folder: Path, *arguments: str) -> Any:
    return run_json(folder, "create", *arguments)


def test_limits_are_taken_from_the_arguments(tmp_path: Path) -> None:
    limits = ["--rpm", "60", "--tpm", "1000", "--max-parallel", "3", "--budget", "2.50/day"]
    made = make(tmp_path, "ci", *limits)
    assert made["limits"] == {"rpm": 60, "tpm": 1000, "max_parallel": 3, "budget": "2.5/day"}
    assert "   Limits: rpm 60, tpm 1000, max_parallel 3, budget 2.5/day" in run(tmp_path, "list").splitlines()


@pytest.mark.parametrize(
    "arguments", [["--rpm", "0"], ["--rpm", "x"], ["--budget", "10/year"], ["--budget", "0"], ["--max-parallel", "-1"]]
)
def test_invalid_limits_are_wrong_usage(tmp_path: Path, path: Path, arguments: list[str]) -> None:
    assert run_failing(tmp_path, "create", "n", *arguments, code=2)
    assert not path.exists()


def test_a_child_inherits_from_its_parent_and_gets_no_more(tmp_path: Path, path: Path) -> None:
    parent = make(tmp_path, "parent", "--owner", "ann@example.com", "--models", "gpt-4o*", "--expires", "2090-01-31")
    child = make(tmp_path, "child", "--parent", "parent", "--models", "gpt-4o-mini")
    assert (child["parent_id"], child["owner"], child["expires_at"]) == (
        parent["id"], "ann@example.com", "2090-01-31T00:00:00Z"
    )  # fmt: skip
    before = path.read_bytes()
    for more in (["--models", "o1"], ["--expires", "never"], ["--role", "admin"], ["--owner", "bob@example.com"]):
        assert "parent" in run_failing(tmp_path, "create", "n", "--parent", parent["id"], *more, code=1)
    assert "no token fits" in run_failing(tmp_path, "create", "n", "--parent", "nobody", code=1)
    assert path.read_bytes() == before


def test_the_tree_shows_children_below_their_parents(tmp_path: Path) -> None:
    for name, parent in (("a", None), ("b", "a"), ("c", "b"), ("d", "a"), ("e", None)):
        make(tmp_path, name, *(["--parent", parent] if parent else []))
    run(tmp_path, "revoke", "d")
    shown = [line.split("sk-")[0] + line.split("...  ")[1] for line in run(tmp_path, "list", "--tree").splitlines()[2:]]
    assert shown == ["a  ✓ Active", "├── b  ✓ Active", "│   └── c  ✓ Active", "└── d  ✗ Revoked", "e  ✓ Active"]
    nested = run_json(tmp_path, "list", "--tree")["tokens"]
    assert [one["name"] for one in nested] == ["a", "e"]
    assert nested[0]["children"][0]["children"][0]["name"] == "c"
    assert run(tmp_path, "list", "--tree", "--owner", "nobody@example.com") == "Found 0 token(s).\n"


def test_revoking_and_deleting_take_the_children_along(tmp_path: Path, path: Path) -> None:
    make(tmp_path, "a")
    make(tmp_path, "b", "--parent", "a")
    assert run(tmp_path, "revoke", "a").endswith("and 1 below it.\n")
    assert run(tmp_path, "list").count("✗ Revoked") == 2
    make(tmp_path, "p")
    make(tmp_path, "q", "--parent", "p")
    run(tmp_path, "delete", "p")
    assert names(path) == ["a", "b", "q"]
    assert run_json(tmp_path, "show", "q")["status"] == "revoked"


def test_rotating_shows_a_new_secret_once_and_both_work(tmp_path: Path) -> None:
    made = make(tmp_path, "app", "--prefix", "sk_test_")
    shown = run(tmp_path, "rotate", "app")
    new = next(word for word in shown.split() if word.startswith("sk_test_") and len(word) > 40)
    assert not secret.has_bad_checksum(new)
    assert f"The old one ({made['prefix']}...) works until" in shown
    for one in (made["token"], new):
        assert run(tmp_path, "verify", stdin=one.encode()).startswith("✓ Valid: 'app'")
    printed = run(tmp_path, "show", "app")
    assert f"Old secret: {made['prefix']}...  works until" in printed
    assert "0 use(s) since it was replaced" in printed
    assert new not in printed


def test_two_replaced_secrets_are_distinguished(tmp_path: Path) -> None:
    first = make(tmp_path, "app")
    second = run_json(tmp_path, "rotate", "app")
    run_json(tmp_path, "rotate", "app")
    for one in (second, first):
        assert run(tmp_path, "revoke", one["token"]).startswith(f"Ended the replaced secret {one['prefix']}...")
    assert "had ended already" in run(tmp_path, "revoke", first["token"])


def test_a_leaked_secret_ends_at_once(tmp_path: Path) -> None:
    made = make(tmp_path, "app")
    rotated = run_json(tmp_path, "rotate", made["id"], "--grace", "0")
    assert rotated["id"] == made["id"]
    assert run(tmp_path, "verify", stdin=made["token"].encode(), code=1) == "✗ Not valid: revoked\n"
    assert run_json(tmp_path, "verify", stdin=rotated["token"].encode())["valid"] is True


def test_revoking_a_replaced_secret_ends_that_one_alone(tmp_path: Path) -> None:
    made = make(tmp_path, "app")
    new = run_json(tmp_path, "rotate", "app", "--grace", "7d")
    printed = run(tmp_path, "revoke", made["prefix"])
    assert printed == (
        f"Ended the replaced secret {made['prefix']}... of token 'app'; its newer secret ({new['prefix']}...) works on.\n"
    )
    assert run_json(tmp_path, "verify", stdin=made["token"].encode(), code=1) == {"valid": False, "status": "revoked"}
    assert run_json(tmp_path, "show", "app")["status"] == "active"


@pytest.mark.parametrize("grace", ["soon", "-1h", "1", "never"])
def test_a_grace_is_a_span(tmp_path: Path, path: Path, grace: str) -> None:
    make(tmp_path, "app")
    before = path.read_bytes()
    assert run_failing(tmp_path, "rotate", "app", f"--grace={grace}", code=2)
    assert path.read_bytes() == before


def test_what_has_ended_is_not_rotated(tmp_path: Path) -> None:
    make(tmp_path, "app")
    run(tmp_path, "revoke", "app")
    assert "revoked" in run_failing(tmp_path, "rotate", "app", code=1)


def test_usage_has_the_busiest_first(tmp_path: Path, path: Path) -> None:
    path.write_bytes(
        content(
            entry("sk-made-up-secret-1", name="quiet"),
            entry("sk-made-up-secret-2", name="busy", usage_count=7, last_used="2026-01-01T00:00:00Z"),
        )
    )
    lines = run(tmp_path, "usage").splitlines()
    assert lines[0].split()[:4] == ["TOKEN", "NAME", "STATUS", "USES"]
    assert [line.split()[1] for line in lines[1:]] == ["busy", "quiet"]
    assert lines[1].index("busy") == lines[2].index("quiet"), "columns are aligned"
    assert run(tmp_path, "usage", "--since", "1h").splitlines()[1:] == []
    assert [one["usage_count"] for one in run_json(tmp_path, "usage", "busy")["usage"]] == [7]
    assert run_failing(tmp_path, "usage", "--since", "yesterday", code=2)


def test_the_audit_log_shows_who_changed_what(tmp_path: Path) -> None:
    made = make(tmp_path, "app", "--models", "a")
    run(tmp_path, "revoke", "app")
    entries = run_json(tmp_path, "audit")["entries"]
    assert [entry["action"] for entry in entries] == ["token.create", "token.revoke"]
    assert entries[0]["actor"]["kind"] == "command line"
    assert entries[0]["changes"]["models"] == [None, ["a"]]
    text = run(tmp_path, "audit")
    assert text.splitlines()[1].split()[1:3] == ["command", "line"]
    assert made["token"] not in (tmp_path / "data" / "audit.jsonl").read_text() + text
    assert run(tmp_path, "audit", "--verify").startswith("✓ Whole: 2 line(s)")


def test_a_broken_audit_log_is_named_by_line(tmp_path: Path) -> None:
    for name in "abc":
        make(tmp_path, name)
    log = tmp_path / "data" / "audit.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[1].replace(b'"b"', b'"x"') + lines[2])
    assert run(tmp_path, "audit", "--verify", code=1).startswith("✗ Line 2 was changed")
    assert run_json(tmp_path, "audit", "--verify", code=1)["broken"]["line"] == 2
    assert len(run_json(tmp_path, "audit")["entries"]) == 3
    log.write_bytes(lines[0] + b"rubbish\n")
    assert "line 2 is not JSON" in run_failing(tmp_path, "audit", code=1)
    assert "move the file away" in run_failing(tmp_path, "revoke", "a", code=1)


def test_without_changes_the_log_is_empty_and_whole(tmp_path: Path) -> None:
    assert run_json(tmp_path, "audit") == {"entries": []}
    assert run(tmp_path, "audit", "--verify").startswith("✓ Whole: 0 line(s)")
