"""What every usage store keeps to: each request once, sums that are exact, reports that are ordered."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import LATEST
from gateway.usage.aggregation import MAX_AMOUNT
from gateway.usage.models import ReportQuery, ReportRow, Usage, UsageTotals
from gateway.usage.store import TooManyRows, UsageStore
from gateway.usage.stores.memory import MemoryUsageStore
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore
from tests.support.tokens import NOW
from tests.support.usage import ledger_entry

DAY = 1_799_971_200
"""The first second of the day that NOW is in."""

USED = Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=40, reasoning_tokens=4)


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UsageStore]:
    made: UsageStore = SqliteUsageStore(tmp_path / LEDGER_FILE) if request.param == "sqlite" else MemoryUsageStore()
    yield made
    made.close()


@pytest.fixture
def week(store: UsageStore) -> UsageStore:
    """Two tokens, two models and a request without a token, on three days."""
    store.write(
        [
            ledger_entry(1, USED, at=DAY * 1000, cost=1500),
            ledger_entry(2, USED, at=(DAY + 3599) * 1000, cost=1, status=500, partial=True),
            ledger_entry(3, USED, at=(DAY + 3600) * 1000, token_id="tok_2", model="o1", owner=None, estimated=True),
            ledger_entry(4, USED, at=(DAY - 1) * 1000, token_id="environment", model=None, owner=None, cost=0),
            ledger_entry(5, USED, at=(DAY + 86_400) * 1000, cost=2_000_000),
        ]
    )
    return store


def report(store: UsageStore, **fields: Any) -> list[tuple[int | None, str | None, int, int]]:
    """Start, group, requests and cost of each row."""
    query = ReportQuery(**{"since": 0, "until": LATEST, **fields})
    return [(row.start, row.group, row.totals.requests, row.totals.cost) for row in store.report(query)]


def test_an_empty_store_has_nothing_to_report(store: UsageStore) -> None:
    assert report(store) == report(store, bucket="day", group_by="model") == []
    assert store.totals("tok_1") == UsageTotals()
    assert store.write([]) == 0
    assert report(store) == []


def test_a_batch_that_is_written_twice_counts_once(store: UsageStore) -> None:
    batch = [ledger_entry(number) for number in range(3)]
    fourth = ledger_entry(3)
    assert [store.write(batch), store.write(batch), store.write([*batch, fourth, fourth])] == [3, 0, 1]
    assert store.totals("tok_1") == UsageTotals(4, 40, 20, 0, 0, 6000, 0, 0, 0)


def test_the_first_entry_of_a_request_counts(store: UsageStore) -> None:
    store.write([ledger_entry(1, cost=5)])
    assert store.write([ledger_entry(1, cost=7), ledger_entry(2, cost=1), ledger_entry(2, cost=9)]) == 1
    assert store.totals("tok_1").cost == 6


def test_what_a_running_request_has_used_counts_until_its_entry_does(store: UsageStore) -> None:
    store.write([ledger_entry(1, cost=5)])
    for cost in (10, 30):
        store.write_running([ledger_entry(2, USED, cost=cost, model="o1", partial=True)])
        assert store.totals("tok_1").cost == 5 + cost
    assert report(store, group_by="model") == [(None, "gpt-4o", 1, 5), (None, "o1", 1, 30)]
    assert report(store, bucket="hour", token_ids=frozenset({"tok_1"})) == [(NOW // 3600 * 3600, None, 2, 35)]
    assert store.write([ledger_entry(2, cost=20)]) == 1
    assert (store.totals("tok_1").cost, store.totals("tok_1").partial) == (25, 0)


def test_a_request_that_has_its_entry_does_not_run_again(store: UsageStore) -> None:
    store.write([ledger_entry(1, cost=5)])
    store.write_running([ledger_entry(1, cost=3), ledger_entry(2, cost=1)])
    assert store.totals("tok_1").cost == 6
    assert store.take_over() == 0, "this process still runs"


def test_sums_are_those_of_hours(week: UsageStore) -> None:
    assert week.report(ReportQuery(DAY, DAY + 1, "hour", "token")) == [
        ReportRow(DAY, "tok_1", UsageTotals(2, 200, 20, 80, 8, 1501, 1, 1, 0))
    ]


@pytest.mark.parametrize(("status", "errors"), [(200, 0), (399, 0), (400, 1), (499, 1), (500, 1)])
def test_a_status_of_400_and_above_is_an_error(store: UsageStore, status: int, errors: int) -> None:
    store.write([ledger_entry(status=status)])
    assert store.totals("tok_1").errors == errors


def test_buckets(week: UsageStore) -> None:
    assert report(week) == [(None, None, 5, 2_003_001)]
    assert report(week, bucket="day") == [
        (DAY - 86_400, None, 1, 0),
        (DAY, None, 3, 3001),
        (DAY + 86_400, None, 1, 2_000_000),
    ]
    assert report(week, bucket="hour", until=DAY + 7200) == [
        (DAY - 3600, None, 1, 0),
        (DAY, None, 2, 1501),
        (DAY + 3600, None, 1, 1500),
    ]


def test_groups(week: UsageStore) -> None:
    by_model = [(None, None, 1, 0), (None, "gpt-4o", 3, 2_001_501), (None, "o1", 1, 1500)]
    assert report(week, group_by="model") == by_model
    assert report(week, group_by="owner") == [(None, None, 2, 1500), (None, "ann@example.com", 3, 2_001_501)]
    assert [group for _, group, _, _ in report(week, group_by="token")] == ["environment", "tok_1", "tok_2"]
    assert report(week, bucket="day", group_by="token")[1:3] == [(DAY, "tok_1", 2, 1501), (DAY, "tok_2", 1, 1500)]


def test_a_range_is_widened_to_whole_hours(week: UsageStore) -> None:
    assert report(week, since=DAY + 3599, until=DAY + 3600) == [(None, None, 2, 1501)]
    assert report(week, since=DAY + 3599, until=DAY + 3601) == [(None, None, 3, 3001)]
    assert report(week, since=DAY + 3600, until=DAY + 3601) == [(None, None, 1, 1500)]
    assert report(week, since=DAY, until=DAY) == []
    assert report(week, since=DAY + 7200, until=DAY + 86_400) == []


@pytest.mark.parametrize("others", [0, 100_000])
def test_any_number_of_tokens_can_be_asked_for(week: UsageStore, others: int) -> None:
    ids = frozenset({"tok_2", "environment", "tok_\"'", *(f"tok_other_{number}" for number in range(others))})
    assert report(week, group_by="token", token_ids=ids) == [(None, "environment", 1, 0), (None, "tok_2", 1, 1500)]
    assert report(week, token_ids=frozenset()) == []


def test_a_report_with_too_many_rows_is_refused(week: UsageStore) -> None:
    assert len(report(week, bucket="day", max_rows=3)) == 3
    with pytest.raises(TooManyRows, match="more than 2 rows"):
        report(week, bucket="day", max_rows=2)


def test_the_totals_of_one_token(week: UsageStore) -> None:
    assert week.totals("tok_1") == UsageTotals(3, 300, 30, 120, 12, 2_001_501, 1, 1, 0)
    assert week.totals("tok_9") == UsageTotals()


def test_pruning_removes_a_limited_number_and_keeps_the_sums(store: UsageStore) -> None:
    store.write([ledger_entry(number, at=NOW * 1000 + number) for number in range(10)])
    before = store.totals("tok_1")
    assert [store.prune(NOW * 1000 + 8, 3) for _ in range(4)] == [3, 3, 2, 0]
    assert store.totals("tok_1") == before
    kept = [ledger_entry(number, at=NOW * 1000 + number) for number in (8, 9)]
    assert store.write(kept) == 0, "what is not older than the time stays"


@pytest.mark.parametrize("usage", [Usage(10**30, 10**30), Usage(-5, -5)])
def test_amounts_that_a_provider_makes_up_are_bounded(store: UsageStore, usage: Usage) -> None:
    strange = ledger_entry(1, usage, owner="half \ud800", model="\x00 ' \"", cost=usage.prompt_tokens)
    assert store.write([strange, ledger_entry(2, token_id="tok_2")]) == 2
    bound = max(0, min(usage.prompt_tokens, MAX_AMOUNT))
    found = store.totals("tok_1")
    assert (found.prompt_tokens, found.completion_tokens, found.cost) == (bound, bound, bound)
    assert [row[1] for row in report(store, group_by="owner")] == ["ann@example.com", "half ?"]


def test_the_largest_amount_is_stored_as_it_is(store: UsageStore) -> None:
    store.write([ledger_entry(1, Usage(MAX_AMOUNT, 0), cost=MAX_AMOUNT)])
    assert store.totals("tok_1")[1:6] == (MAX_AMOUNT, 0, 0, 0, MAX_AMOUNT)


def test_threads_may_write_at_the_same_time(store: UsageStore) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 50):
            store.write([ledger_entry(number)])

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 25, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.totals("tok_1").requests == 100


def test_a_closed_store_can_be_used_again(week: UsageStore) -> None:
    week.close()
    assert week.totals("tok_2").requests == 1
    week.close()
    assert week.write([ledger_entry(9)]) == 1
