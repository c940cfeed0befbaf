"""The command line: every command, what it refuses, for people and as JSON."""

import json
from typing import Any

from scripts.transcript import artefacts, fixtures
from scripts.transcript.session import Section

COMMANDS = (
    "create", "list", "show", "revoke", "delete", "rotate", "usage", "verify", "import", "audit", "completion",
)  # fmt: skip
_BAD_OPTIONS = (
    ("--owner", "nobody"), ("--role", "owner"), ("--expires", "soon"), ("--expires", "2020-01-01"), ("--expires", "0"),
    ("--models", ""), ("--rpm", "0"), ("--rpm", "x"), ("--tpm", "-1"), ("--max-parallel", "0"), ("--budget", "5/year"),
    ("--budget", "0"), ("--prefix", "pk-"), ("--parent", "nobody"), ("--unknown", "x"),
)  # fmt: skip

_OLD_FORM = {"name": "old", "created_at": "2020-01-31T10:30:00", "last_used": None, "active": True}


def record(section: Section) -> None:
    """Tokens from their creation to their end."""
    _empty(section)
    _create(section)
    _read(section)
    _change(section)
    _end(section)
    artefacts.record(section)


def record_files(section: Section) -> None:
    """Help, imported files, damaged files, settings."""
    _help(section)
    _imports(section)
    _settings(section)
    _damaged(section)


def _empty(section: Section) -> None:
    for name in ("list", "usage", "audit"):
        section.command(f"{name} without a file", name)
        section.command(f"{name} without a file, JSON", name, "--json")
    section.command("verified audit log without a file", "audit", "--verify")
    section.command("show without a file", "show", "nobody")
    section.command("verify without a file", "verify", stdin="unknown")


def _create(section: Section) -> None:
    section.command("create", "create", "first")
    section.command("create with everything", "create", "second", "--owner", "ann@example.com", "--role", "service",
        "--expires", "2099-01-31", "--models", "gpt-4o*, echo", "--rpm", "60", "--tpm", "1000", "--max-parallel", "3",
        "--budget", "2.50/day", "--prefix", "sk_live_")  # fmt: skip
    section.command("create, JSON", "create", "third", "--expires", "30d", "--budget", "10", "--json")
    section.command("create a child", "create", "child", "--parent", "third", "--expires", "12h", "--role", "member")
    section.command(
        "create a test token", "create", "try-out", "--prefix", "sk_test_", "--role", "admin", "--expires", "never"
    )
    section.command("create the same name", "create", "first", "--json")
    for option, value in _BAD_OPTIONS:
        section.command(f"create {option} {value!r}", "create", "x", option, value)
    section.command("create, wrong, JSON", "create", "x", "--owner", "nobody", "--json")
    section.command("create without a name", "create", "")
    section.command("create with a line end", "create", "a\nb")
    section.command("create with more than its parent", "create", "x", "--parent", "third", "--expires", "1y")
    section.command("create with more, JSON", "create", "x", "--parent", "third", "--budget", "20", "--json")


def _read(section: Section) -> None:
    for arguments in (
        (), ("--json",), ("--tree",), ("--tree", "--json"), ("--status", "active"), ("--status", "revoked"),
        ("--status", "dead"), ("--owner", "ann@example.com"), ("--owner", "nobody@example.com", "--tree"),
    ):  # fmt: skip
        section.command(f"list {' '.join(arguments)}".strip(), "list", *arguments)
    section.command("show by name", "show", "second")
    section.command("show by name, JSON", "show", "second", "--json")
    section.command("show a parent", "show", "third")
    section.command("show a child", "show", "child")
    section.command("show an ambiguous name", "show", "first")
    section.command("show an ambiguous name, JSON", "show", "first", "--json")
    section.command("show an ambiguous beginning", "show", "sk-")
    section.command("show nobody", "show", "nobody")
    section.command("show nobody, JSON", "show", "nobody", "--json")


def _change(section: Section) -> None:
    made: dict[str, Any] = json.loads(section.command("a token to work with", "create", "worker", "--json").stdout)
    section.command("show by id", "show", made["id"])
    section.command("show by prefix", "show", made["prefix"])
    section.command("show by secret", "show", made["token"])
    section.command("verify", "verify", stdin=made["token"] + "\n")
    section.command("verify, JSON", "verify", "-", "--json", stdin=made["token"])
    section.command("verify, mistyped", "verify", stdin="sk-" + "a" * 49)
    section.command("verify, unknown", "verify", "--json", stdin="unknown")
    section.command("verify nothing", "verify", stdin="\n")
    section.command("rotate", "rotate", "worker")
    section.command("verify the replaced secret", "verify", stdin=made["token"])
    section.command("show with a replaced secret", "show", "worker")
    section.command("rotate, JSON", "rotate", "worker", "--grace", "7d", "--json")
    section.command("rotate at once", "rotate", "worker", "--grace", "0")
    section.command("rotate, wrong span", "rotate", "worker", "--grace", "soon")
    section.command("rotate nobody", "rotate", "nobody", "--json")
    section.command("revoke the replaced secret", "revoke", made["token"])
    section.command("revoke it again", "revoke", made["token"])
    section.command("usage", "usage")
    section.command("usage, JSON", "usage", "--json")
    section.command("usage of one", "usage", "worker")
    for arguments in (
        ("nobody",), ("--since", "7d"), ("--since", "soon"), ("--by", "model"), ("--by", "owner", "--csv"), ("--by", "role"),
        ("--csv",), ("--csv", "--json"),
    ):  # fmt: skip
        section.command(f"usage {' '.join(arguments)}", "usage", *arguments)


def _end(section: Section) -> None:
    section.command("revoke with a child", "revoke", "third")
    section.command("revoke again, JSON", "revoke", "third", "--json")
    section.command("revoke nobody", "revoke", "nobody")
    section.command("revoke an ambiguous name", "revoke", "first")
    section.command("verify a revoked one", "list", "--status", "revoked", "--json")
    section.command("rotate a revoked one", "rotate", "third")
    section.command("create below a revoked one", "create", "x", "--parent", "third")
    section.command("delete", "delete", "third")
    section.command("delete, JSON", "delete", "worker", "--yes", "--json")
    section.command("delete again", "delete", "worker", "--yes")
    section.command("delete nobody, JSON", "delete", "nobody", "--json")
    section.command("tree afterwards", "list", "--tree")
    section.command("audit", "audit")
    section.command("audit, JSON", "audit", "--json")
    section.command("audit, verified", "audit", "--verify")
    section.command("audit, verified, JSON", "audit", "--verify", "--json")
    log = section.folder / "data" / "audit.jsonl"
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"first"', b'"fi7st"', 1))
    section.command("audit, changed", "audit", "--verify")
    section.command("audit, changed, JSON", "audit", "--verify", "--json")
    log.write_bytes(content + b"nonsense\n")
    section.command("audit with nonsense", "audit")
    section.command("audit with nonsense, verified", "audit", "--verify")
    section.command("create with nonsense in the audit log", "create", "x")
    log.write_bytes(content + b'{"number"')
    section.command("audit, cut off", "audit", "--verify")
    log.write_bytes(content)


def _help(section: Section) -> None:
    section.command("help", "--help")
    for name in COMMANDS:
        section.command(f"help of {name}", name, "--help")
    section.command("unknown command", "make")
    section.command("show without a token", "show")
    section.command("an unknown option", "list", "--all")
    for shell in ("bash", "zsh", "tcsh"):
        section.command(f"completion for {shell}", "completion", shell)
    section.command("completion, JSON", "completion", "bash", "--json")
    section.command("completion for another shell", "completion", "fish")


def _imports(section: Section) -> None:
    dead = {**_OLD_FORM, "name": "dead", "last_used": "2020-02-01T00:00:00", "active": False}
    old = {"sk-from-elsewhere-000000000001": _OLD_FORM, "sk-from-elsewhere-000000000002": dead}
    (section.folder / "old.json").write_text(json.dumps(old), encoding="utf-8")
    (section.folder / "new.json").write_bytes(fixtures.token_file())
    section.command("import FreeGPT's form", "import", "old.json")
    section.command("import it again", "import", "old.json")
    section.command("import, JSON", "import", "new.json", "--json")
    section.command("import from standard input", "import", "-", stdin="{}")
    section.command("import nonsense", "import", "-", stdin="nonsense")
    section.command("import nonsense, JSON", "import", "-", "--json", stdin="[]")
    section.command("import a file that is not there", "import", "nowhere.json")
    section.command("list of all states", "list")
    section.command("tree of all states", "list", "--tree")
    section.command("revoke a parent", "revoke", "member", "--json")
    artefacts.record(section)


def _settings(section: Section) -> None:
    section.command("another file", "list", settings={"GATEWAY_TOKENS_FILE": "other.json"})
    section.command("a folder for the file", "list", settings={"GATEWAY_TOKENS_FILE": "."})
    section.command("a place that cannot be", "create", "x", settings={"GATEWAY_TOKENS_FILE": "old.json/x"})
    section.command("a data folder that is a file", "create", "x", settings={"GATEWAY_DATA_DIR": "old.json"})
    section.command("another setting is wrong", "list", "--status", "revoked", settings={"GATEWAY_PORT": "x"})
    section.command("a configuration that is not there", "list", settings={"GATEWAY_CONFIG": "nowhere.toml"})
    section.command("the same, JSON", "list", "--json", settings={"GATEWAY_CONFIG": "nowhere.toml"})


def _damaged(section: Section) -> None:
    for name, data in damaged_files().items():
        (section.folder / "api_tokens.json").write_bytes(data)
        section.command(f"list: {name}", "list")
    section.command("create: damaged, JSON", "create", "x", "--json")


def damaged_files() -> dict[str, bytes]:
    """Token files that cannot be used, by what is wrong with them."""
    good = fixtures.token("one", fixtures.MEMBER)

    def with_fields(**fields: Any) -> bytes:
        return json.dumps({"version": 1, "tokens": [{**good, **fields}]}).encode()

    return {
        "empty": b"",
        "no JSON": b"nonsense",
        "a list": b"[]",
        "cut short": with_fields()[:-20],
        "not UTF-8": b'{"version": 1,\n "tokens": ["\xff"]}',
        "another version": b'{"version": 2, "tokens": []}',
        "no version": b'{"tokens": []}',
        "no list": b'{"version": 1, "tokens": {}}',
        "no object": b'{"version": 1, "tokens": [5]}',
        "a key twice": b'{"version": 1, "version": 1, "tokens": []}',
        "a constant": b'{"version": 1, "tokens": [], "x": NaN}',
        "a large number": b'{"version": 1, "tokens": [], "x": 1e999}',
        "half a surrogate": b'{"version": 1, "tokens": [], "x": "\\ud800"}',
        "the same id twice": json.dumps({"version": 1, "tokens": [good, good]}).encode(),
        "the same hash twice": json.dumps({"version": 1, "tokens": [good, {**good, "id": "tok_other"}]}).encode(),
        "a short hash": with_fields(hash="abc"),
        "no name": with_fields(name=None),
        "a wrong name": with_fields(name=""),
        "a wrong id": with_fields(id=5),
        "a wrong owner": with_fields(owner="nobody"),
        "a wrong role": with_fields(role="owner"),
        "a wrong time": with_fields(expires_at="soon"),
        "a wrong count": with_fields(usage_count=-1),
        "wrong models": with_fields(models="echo"),
        "wrong limits": with_fields(limits={"rpm": "5"}),
        "an unknown limit": with_fields(limits={"rps": 5}),
        "wrong metadata": with_fields(metadata=[]),
        "wrong old secrets": with_fields(previous_secrets=5),
        "an unknown field of an old secret": with_fields(previous_secrets=[{"expires": 5}]),
        "a foreign state": with_fields(active=False),
        "a misspelt end": with_fields(expire_at="2020-01-01"),
        "a misspelt limit": with_fields(model=["echo"]),
        "FreeGPT's form, wrong": b'{"sk-from-elsewhere-000000000001": {"name": "x"}}',
        "both forms": json.dumps({"sk-from-elsewhere-000000000001": {**_OLD_FORM, "role": "admin"}}).encode(),
    }
