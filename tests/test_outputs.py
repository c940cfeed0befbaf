"""Every place that shows text from outside, and what it shows of text that acts on a terminal, a table or a spreadsheet."""

import ast
import csv
import io
import json
import re
from pathlib import Path

import pytest

from gateway.core.escaping import is_shown
from gateway.usage.models import LedgerEntry
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore
from tests.cli.tokens.command_line import run, run_at_terminal
from tests.support.gateway import ROOT, token_manager
from tests.support.tokens import content, entry
from tests.support.usage import ledger_entry

WRITERS = {
    "audit/log.py": {"file.write": "JSON lines of audit/hash_chain.py, escaped there"},
    "cli/console.py": {"out.write": "escapes"},
    "cli/tokens/output.py": {
        "report.write": "tables of cli/tokens/usage.py",
        "self._out.write": "JSON, escaped; CSV of core/csv_text.py; scripts for shells, without text from outside",
    },
    "cli/tokens/text.py": {"Console": "cells escaped by write_table", "Console(file=out).print": "the same"},
    "cli/tokens/usage.py": {"Console": "bars: times and numbers alone", "console.print": "the same"},
    "core/csv_text.py": {"csv.writer": "escapes", "writer.writerows": "escapes"},
    "http/context.py": {"connection.write": "HTTP"},
    "http/form_reader.py": {"spool.write": "the client's own bytes, for the upstream"},
    "limits/stores/sqlite.py": {"rows.write": "a database"},
    "limits/stores/sqlite_file.py": {"rows.write": "a database"},
    "observability/logging.py": {
        "os.write": "lines that LogWriter.write_bytes has escaped",
        "self._stream.write": "the same",
        "self._writer.write": "the same",
    },
    "providers/transport/connecting.py": {"cast(asyncio.Transport, transport).write": "CONNECT, for a proxy"},
    "providers/transport/http1_client.py": {"connection.write": "HTTP, for the upstream"},
    "providers/transport/http1_connection.py": {"self._transport.write": "the same"},
    "storage/files.py": {"file.write": "files of the gateway's own", "in_place.write": "the same"},
    "storage/spool.py": {"self._file.write": "the client's own bytes, for the upstream"},
    "storage/write_check.py": {"os.write": "one blank"},
    "tokens/stores/use_journal.py": {"os.write": "JSON lines of ids, hashes, times and addresses"},
}
"""By module, each call that writes, and why what it writes is safe to look at. A new one has to use ``core/escaping.py`` or
``core/csv_text.py`` before it is added here."""
WRITING = {"print", "write", "writelines", "writer", "writerow", "writerows", "Console", "print_exc", "print_exception"}

ACTING = "\x1b]0;title\x07\x1b]52;c;aGk=\x07\x9b31m\u202eb\u2028c\x7f\u200b\nfake-row  999"
OWN_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MODELS = (f"{ACTING}m1", "x;=1+1", "＝1+1", "=cmd|' /C calc'!A0", "[red]x[/red]")


def calls_that_write(path: Path) -> set[str]:
    functions = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {
        ast.unparse(function)
        for function in functions
        if (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) in WRITING
    }


def test_every_call_that_writes_is_known() -> None:
    package = ROOT / "gateway"
    found = {str(path.relative_to(package)): calls_that_write(path) for path in package.rglob("*.py")}
    found = {module: calls for module, calls in found.items() if not module.startswith("server/")}  # HTTP
    assert {module: calls for module, calls in found.items() if calls} == {
        module: set(calls) for module, calls in WRITERS.items()
    }, "what is written may hold text from outside: escape it with gateway/core/escaping.py, then add the call here"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token with metadata that acts, its audit log, and a ledger with such models and owners."""
    folder = tmp_path_factory.mktemp("acting")
    parent = entry(name="parent", metadata={"note": ACTING, ACTING: [ACTING]})
    child = entry("sk-second-secret-of-many-made-up", name="child", parent_id=parent["id"])
    (folder / "given.json").write_bytes(content(parent, child))
    run(folder, "import", "given.json")
    store = SqliteUsageStore(folder / "data" / LEDGER_FILE)
    store.write([used(number, model) for number, model in enumerate(MODELS)])
    store.close()
    return folder


def used(number: int, model: str) -> LedgerEntry:
    return ledger_entry(number, model=model, owner=f"{ACTING}@example.com", token_id=entry()["id"])


def check_shown(text: str) -> None:
    assert not [char for char in OWN_COLOURS.sub("", text) if char != "\n" and not is_shown(char)]
    assert not [line for line in text.split("\n") if line.startswith("fake-row")]


COMMANDS = [
    ("list",), ("list", "--tree"), ("show", "parent"), ("usage",), ("usage", "--by", "model"), ("usage", "--by", "owner"),
    ("audit",), ("audit", "--verify"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_show_nothing_that_acts(folder: Path, command: tuple[str, ...]) -> None:
    check_shown(run(folder, *command))
    code, shown = run_at_terminal(folder, *command)
    assert code == 0
    check_shown(shown)


@pytest.mark.parametrize("command", COMMANDS[:-1], ids=" ".join)
def test_json_has_everything_and_nothing_that_acts(folder: Path, command: tuple[str, ...]) -> None:
    shown = run(folder, *command, "--json")
    check_shown(shown)
    if command in (("show", "parent"), ("audit",), ("usage", "--by", "model")):
        assert any(ACTING in text for text in _strings(json.loads(shown)))


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_has_no_formula_whatever_separates_its_cells(folder: Path, delimiter: str) -> None:
    shown = run(folder, "usage", "--by", "model", "--csv")
    check_shown(shown.replace("\r\n", "\n"))
    rows = list(csv.reader(io.StringIO(shown, newline=""), delimiter=delimiter))
    assert len(rows) == len(MODELS) + 1
    assert not [cell for row in rows for cell in row if cell.lstrip(' "').startswith(tuple("=+-@＝＋－＠"))]


def test_arguments_are_quoted_without_what_acts(folder: Path) -> None:
    for arguments in (
        ["show", ACTING],
        ["revoke", ACTING],
        ["list", "--status", ACTING],
        [ACTING],
        ["usage", "--since", ACTING],
    ):
        ended = token_manager(folder, *arguments)
        assert ended.returncode in (1, 2)
        check_shown(ended.stderr.decode())
