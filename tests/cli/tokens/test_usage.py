"""``token_manager.py usage``: the token file and the ledger together, as text, as JSON, as CSV and as bars."""

import csv
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.tokens import main
from gateway.core.clock import to_iso
from gateway.tokens import secret
from gateway.usage.models import Usage
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore
from tests.cli.tokens.command_line import run, run_at_terminal, run_failing, run_json
from tests.cli.tokens.test_output import Terminal
from tests.support.gateway import ROOT, environment
from tests.support.tokens import content, entry
from tests.support.usage import ledger_entry

HOUR = 3600

NOW = int(time.time()) // HOUR * HOUR
"""The beginning of this hour."""


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Two tokens, of which one was used, and use of today, of the day before yesterday and of 40 days ago."""
    (tmp_path / "api_tokens.json").write_bytes(
        content(
            entry("sk-made-up-secret-1", id="tok_1", name="quiet"),
            entry("sk-made-up-secret-2", id="tok_2", name="busy", usage_count=7, last_used="2026-01-01T00:00:00Z"),
            entry("sk-made-up-secret-3", id="tok_3", name="=idle"),
        )
    )
    path = tmp_path / "data" / LEDGER_FILE
    used = Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=40, reasoning_tokens=4)
    file = SqliteUsageStore(path)
    file.write(
        [
            ledger_entry(1, used, at=NOW * 1000, token_id="tok_2", cost=1500),
            ledger_entry(2, used, at=(NOW - 48 * HOUR) * 1000, token_id="tok_2", cost=2_000_000, model="o1"),
            ledger_entry(3, used, at=(NOW - 960 * HOUR) * 1000, token_id="tok_1", cost=1, status=500),
            ledger_entry(4, used, at=NOW * 1000, token_id="environment", owner=None, model=None, cost=0),
        ]
    )
    file.close()
    return path


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_tokens_have_their_sums_from_the_ledger(tmp_path: Path, ledger: Path) -> None:
    headings, busy, quiet, idle = table(run(tmp_path, "usage"))
    assert " ".join(headings) == (
        "TOKEN NAME STATUS USES LAST USED OLD SECRETS REQUESTS PROMPT COMPLETION COST USD ERRORS"
    )
    prefix = f"{secret.display_prefix('sk-made-up-secret-2')}..."
    assert busy == [prefix, "busy", "active", "7", "2026-01-01T00:00:00", "2", "200", "20", "2.0015", "0"]
    assert quiet[1:] == ["quiet", "active", "0", "Never", "1", "100", "10", "0.000001", "1"]
    assert idle[1:] == ["=idle", "active", "0", "Never", "0", "0", "0", "0", "0"]
    assert [line[1] for line in table(run(tmp_path, "usage", "busy"))] == ["NAME", "busy"]


def test_since_narrows_the_figures_and_the_tokens(tmp_path: Path, ledger: Path) -> None:
    assert [line[-5:] for line in table(run(tmp_path, "usage", "--since", "1d"))[1:]] == [
        ["1", "100", "10", "0.0015", "0"]
    ]
    assert [line[1] for line in table(run(tmp_path, "usage", "--since", "60d"))[1:]] == ["busy", "quiet"]
    assert run(tmp_path, "usage", "quiet", "--since", "1d").count("\n") == 1


def test_the_most_expensive_models_and_owners_come_first(tmp_path: Path, ledger: Path) -> None:
    assert table(run(tmp_path, "usage", "--by", "model")) == [
        ["GROUP", "REQUESTS", "PROMPT", "COMPLETION", "COST", "USD", "ERRORS"],
        ["o1", "1", "100", "10", "2", "0"],
        ["gpt-4o", "2", "200", "20", "0.001501", "1"],
        ["-", "1", "100", "10", "0", "0"],
    ]
    owners = run(tmp_path, "usage", "--by", "owner", "--since", "3d")
    assert [line[:2] for line in table(owners)[1:]] == [["ann@example.com", "2"], ["-", "1"]]
    assert [line[0] for line in table(run(tmp_path, "usage", "busy", "--by", "model"))[1:]] == ["o1", "gpt-4o"]


def test_json_has_all_that_it_had_and_the_sums(tmp_path: Path, ledger: Path) -> None:
    printed = run_json(tmp_path, "usage", "busy", "--since", "7d")
    assert {name: printed["usage"][0][name] for name in ("id", "name", "status", "usage_count", "previous_secrets")} == {
        "id": "tok_2", "name": "busy", "status": "active", "usage_count": 7, "previous_secrets": []
    }  # fmt: skip
    sums = {
        "requests": 2, "prompt_tokens": 200, "completion_tokens": 20, "cached_tokens": 80, "reasoning_tokens": 8,
        "cost_usd": 2.0015, "errors": 0,
    }  # fmt: skip
    assert {name: printed["usage"][0][name] for name in sums} == sums
    days = [to_iso(at // 86_400 * 86_400) for at in (NOW - 48 * HOUR, NOW)]
    assert [(row["start"], row["cost_usd"]) for row in printed["series"]] == list(zip(days, [2, 0.0015], strict=True))
    assert set(sums) < set(printed["series"][0])
    hours = run_json(tmp_path, "usage", "--since", "2d")["series"]
    assert hours[-1]["start"] == to_iso(NOW)
    assert hours[-1]["requests"] == 2, "with what was used without a token"
    by_model = run_json(tmp_path, "usage", "--by", "model")["usage"]
    assert [(one["group"], one["cost_usd"]) for one in by_model] == [("o1", 2), ("gpt-4o", 0.001501), (None, 0)]


def test_csv_is_for_spreadsheets(tmp_path: Path, ledger: Path) -> None:
    def lines(*arguments: str) -> list[list[str]]:
        return list(csv.reader(io.StringIO(run(tmp_path, "usage", "--csv", *arguments), newline="")))

    tokens = lines()
    assert tokens[0][:3] == ["group", "name", "requests"]
    assert [line[:3] for line in tokens[1:]] == [
        ["tok_2", "busy", "2"],
        ["tok_1", "quiet", "1"],
        ["tok_3", "'=idle", "0"],
    ]
    models = [dict(zip(line, one, strict=True)) for line, *rest in [lines("--by", "model")] for one in rest]
    assert [(one["group"], one["cost_usd"]) for one in models] == [("o1", "2"), ("gpt-4o", "0.001501"), ("", "0")]
    assert "one of them" in run_json(tmp_path, "usage", "--csv", code=2)["error"]["message"]


@pytest.mark.parametrize("is_there", [False, True])
def test_without_a_ledger_everything_is_zero(tmp_path: Path, ledger: Path, is_there: bool) -> None:
    ledger.unlink()
    if is_there:
        ledger.touch()
    before = sorted(ledger.parent.iterdir())
    assert {tuple(line[-5:]) for line in table(run(tmp_path, "usage"))[1:]} == {("0", "0", "0", "0", "0")}
    assert run_json(tmp_path, "usage", "--by", "model") == {"usage": [], "series": []}
    assert run(tmp_path, "usage", "--by", "owner") == "GROUP  REQUESTS  PROMPT  COMPLETION  COST USD  ERRORS\n"
    assert sorted(ledger.parent.iterdir()) == before


def test_a_damaged_ledger_is_an_error(tmp_path: Path, ledger: Path) -> None:
    good = ledger.read_bytes()
    for damage in (b"no database" * 1000, good[:4096] + b"\xff" * 4096 * 8):
        ledger.write_bytes(damage)
        assert str(ledger.name) in run_failing(tmp_path, "usage", code=1)
        assert "usage.sqlite" in run_json(tmp_path, "usage", code=1)["error"]["message"]
        assert ledger.read_bytes() == damage


def drawn(text: str) -> list[str]:
    """The lines with the bars and their title."""
    lines = text.splitlines()
    title = next((at for at, line in enumerate(lines) if "UTC" in line), len(lines))
    return [line.rstrip() for line in lines[title:]]


def test_a_terminal_gets_bars_and_a_pipe_does_not(tmp_path: Path, ledger: Path) -> None:
    _, shown = run_at_terminal(tmp_path, "usage", "--since", "7d", NO_COLOR="1")
    title, *bars = drawn(shown)
    assert title == "Cost in USD per day, UTC"
    assert [line.split()[0] for line in bars] == [
        (to_iso((NOW // 86_400 - back) * 86_400) or "")[:10] for back in (2, 1, 0)
    ]
    assert [line.split()[-1] for line in bars] == ["2", "0", "0.0015"]
    assert bars[0].count("█") > 20 > bars[1].count("█") == 0
    assert not drawn(run(tmp_path, "usage"))


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_bars_fit_the_width(tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    assert main(["usage", "--since", "60d"]) == 0
    lines = drawn(out.getvalue())
    assert len(lines) == 1 + 41
    assert columns // 2 < max(map(len, lines)) <= columns


def test_bars_by_the_hour_and_of_requests_where_nothing_cost(tmp_path: Path, ledger: Path) -> None:
    _, shown = run_at_terminal(tmp_path, "usage", "--since", "12h", NO_COLOR="1")
    assert drawn(shown)[0] == "Cost in USD per hour, UTC"
    assert drawn(shown)[1].startswith((to_iso(NOW) or "")[:16].replace("T", " "))
    ledger.unlink()
    SqliteUsageStore(ledger).write([ledger_entry(1, at=NOW * 1000, cost=0)])
    assert drawn(run_at_terminal(tmp_path, "usage", NO_COLOR="1")[1])[0] == "Requests per day, UTC"


def test_only_the_latest_bars_are_drawn(tmp_path: Path, ledger: Path) -> None:
    file = SqliteUsageStore(ledger)
    file.write([ledger_entry(9, at=1_000_000_000_000, token_id="tok_1")])
    _, shown = run_at_terminal(tmp_path, "usage", NO_COLOR="1")
    assert len(drawn(shown)) == 1 + 50


@pytest.mark.parametrize(("command", "allowed"), [("list", set()), ("usage", {"sqlite3"})])
def test_only_usage_loads_what_it_needs(tmp_path: Path, ledger: Path, command: str, allowed: set[str]) -> None:
    text = (
        "import sys; before = set(sys.modules); from gateway.cli.tokens import main; main(sys.argv[1:]);"
        "loaded = set(sys.modules) - before; print(*loaded & {'aiohttp', 'sqlite3', 'rich'}, file=sys.stderr)"
    )
    done: Any = subprocess.run(
        [sys.executable, "-c", text, command],
        cwd=tmp_path,
        env={**environment(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert set(done.stderr.decode().split()) <= allowed
