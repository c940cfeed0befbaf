"""Reports: exact money, tables that no spreadsheet runs, and a store that fails without a word of its own to the client."""

import csv
import io
import json
import logging
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bounded_threads import BoundedThreads
from gateway.core.clock import LATEST
from gateway.core.errors import ReportTimeout, StoreUnavailable
from gateway.usage import reports
from gateway.usage.models import NO_TOTALS, ReportQuery, ReportRow, UsageTotals
from gateway.usage.reports import UsageReports, as_csv
from gateway.usage.store import TooManyRows
from gateway.usage.stores.memory import MemoryUsageStore
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore
from tests.support.usage import ledger_entry

DAY = 1_799_971_200


async def test_a_report_is_read_from_the_store() -> None:
    store = MemoryUsageStore()
    store.write([ledger_entry(1), ledger_entry(2, token_id="tok_2")])
    usage_reports = UsageReports(store, BoundedThreads("reports"))
    query = ReportQuery(0, LATEST, group_by="token")
    assert await usage_reports.rows("tok_1", query, list) == store.report(query)
    assert await usage_reports.total("tok_1", "tok_2") == store.totals("tok_2")
    with pytest.raises(TooManyRows):
        await usage_reports.rows("tok_1", query._replace(max_rows=1), list)


async def test_a_store_that_fails_is_unavailable_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LEDGER_FILE).write_bytes(b"no database" * 1000)
    usage_reports = UsageReports(SqliteUsageStore(tmp_path / LEDGER_FILE), BoundedThreads("reports"))
    with pytest.raises(
        StoreUnavailable, match=r"^The ledger cannot be read at the moment\. Please try again\.$"
    ) as caught:
        await usage_reports.rows("tok_1", ReportQuery(0, LATEST), list)
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(StoreUnavailable):
        await usage_reports.total("tok_1", "tok_1")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "the ledger cannot be read")
    ] * 2
    assert "not a database" in vars(caplog.records[0])["problem"]


async def test_a_report_that_takes_too_long_is_given_up_and_says_how_to_ask_for_less(tmp_path: Path) -> None:
    SqliteUsageStore(tmp_path / LEDGER_FILE).write(
        [ledger_entry(number, model=f"m{number}") for number in range(20_000)]
    )
    usage_reports = UsageReports(SqliteUsageStore(tmp_path / LEDGER_FILE, report_seconds=0), BoundedThreads("reports"))
    with pytest.raises(ReportTimeout, match="a shorter time"):
        await usage_reports.rows("tok_1", ReportQuery(0, LATEST), list)
    with pytest.raises(ReportTimeout):
        await usage_reports.total("tok_1", "tok_1")


def test_rows_are_added_up() -> None:
    rows = [ReportRow(None, None, UsageTotals(1, 2, 3, 4, 5, 6, 7, 8, 9))] * 2
    assert reports.total(rows) == UsageTotals(2, 4, 6, 8, 10, 12, 14, 16, 18)
    assert reports.total([]) == NO_TOTALS == UsageTotals()


@pytest.mark.parametrize(
    ("seconds", "down", "up"), [(0, 0, 0), (1, 0, 3600), (3599, 0, 3600), (3600, 3600, 3600), (3601, 3600, 7200)]
)
def test_times_are_rounded_to_hours(seconds: int, down: int, up: int) -> None:
    assert (reports.round_down(seconds, 3600), reports.round_up(seconds, 3600)) == (down, up)


@given(st.integers(-(2**63), 2**63))
def test_money_survives_its_text(micro: int) -> None:
    shown = msgspec.json.encode(reports.as_json(UsageTotals(cost=micro)))
    assert json.loads(shown, parse_float=Decimal, parse_int=Decimal)["cost_usd"].scaleb(6) == micro


def test_json_has_every_sum_in_order() -> None:
    shown = json.loads(msgspec.json.encode(reports.as_json(UsageTotals(1, 2, 3, 4, 5, 1500, 7, 8, 9))))
    assert list(shown.items()) == [
        ("requests", 1), ("prompt_tokens", 2), ("completion_tokens", 3), ("cached_tokens", 4), ("reasoning_tokens", 5),
        ("cost_usd", 0.0015), ("errors", 7), ("partial", 8), ("estimated", 9),
    ]  # fmt: skip


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_has_a_line_of_headings_and_one_for_each_row() -> None:
    rows = [ReportRow(DAY, "tok_1", UsageTotals(1, 2, 3, 4, 5, 1500, 0, 0, 1)), ReportRow(DAY, None, NO_TOTALS)]
    assert as_csv(rows) == (
        '"start","group","requests","prompt_tokens","completion_tokens","cached_tokens","reasoning_tokens","cost_usd",'
        '"errors","partial","estimated"\r\n'
        '"2027-01-15T00:00:00Z","tok_1","1","2","3","4","5","0.0015","0","0","1"\r\n'
        '"2027-01-15T00:00:00Z","","0","0","0","0","0","0","0","0","0"\r\n'
    )
    headings, first, _ = read_csv(as_csv(rows, {"tok_1": 'a "b", c'}, has_start=False))
    assert (headings[:3], first[:3]) == (["group", "name", "requests"], ["tok_1", 'a "b", c', "1"])
    assert read_csv(as_csv(rows, {}))[2][:4] == ["2027-01-15T00:00:00Z", "", "", "0"]
    assert read_csv(as_csv([], {}))[0][:3] == ["start", "group", "name"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "=cmd|' /C calc'!A0"])
def test_no_name_is_a_formula(name: str) -> None:
    line = read_csv(as_csv([ReportRow(DAY, name, NO_TOTALS)], {name: name}))[1]
    assert line[1] == line[2] == f"'{name}"
