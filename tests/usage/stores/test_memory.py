"""The usage store in memory: it answers as the one in a file does."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.usage.models import LedgerEntry, ReportQuery, Usage, UsageTotals
from gateway.usage.stores.memory import MemoryUsageStore
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore
from tests.support.tokens import NOW
from tests.support.usage import ledger_entry

TOKENS = ("tok_1", "tok_2", "environment")
HOURS = (-25, -24, -2, -1, 0, 1, 2, 24)

ENTRIES = st.builds(
    lambda number, hour, prompt, **fields: ledger_entry(number, Usage(prompt), at=(NOW + hour * 3600) * 1000, **fields),
    number=st.integers(0, 9),
    hour=st.sampled_from(HOURS),
    prompt=st.integers(0, 9),
    token_id=st.sampled_from(TOKENS),
    owner=st.sampled_from([None, "ann@example.com", "bob@example.com"]),
    model=st.sampled_from([None, "gpt-4o", "o1"]),
    status=st.sampled_from([200, 404]),
)
QUERIES = st.builds(
    lambda first, hours, bucket, group_by, ids: ReportQuery(
        NOW + first * 3600, NOW + (first + hours) * 3600, bucket, group_by, ids
    ),
    first=st.sampled_from(HOURS),
    hours=st.sampled_from([1, 2, 3, 24, 49]),
    bucket=st.sampled_from([None, "hour", "day"]),
    group_by=st.sampled_from([None, "token", "owner", "model"]),
    ids=st.none() | st.frozensets(st.sampled_from(TOKENS)),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(ENTRIES, max_size=20), st.integers(0, 20), st.lists(QUERIES, min_size=1, max_size=5))
def test_it_answers_as_the_store_in_a_file_does(
    entries: list[LedgerEntry], first: int, queries: list[ReportQuery]
) -> None:
    memory = MemoryUsageStore()
    with tempfile.TemporaryDirectory() as folder:
        file = SqliteUsageStore(Path(folder) / LEDGER_FILE)
        for batch in (entries[:first], entries[first:]):
            assert memory.write(batch) == file.write(batch)
        for query in queries:
            assert memory.report(query) == file.report(query)
        assert memory.prune(NOW * 1000, 3) == file.prune(NOW * 1000, 3)
        for token_id in TOKENS:
            assert memory.totals(token_id) == file.totals(token_id)
        file.close()


def test_two_stores_share_nothing() -> None:
    one, other = MemoryUsageStore(), MemoryUsageStore()
    one.write([ledger_entry()])
    assert (one.totals("tok_1").requests, other.totals("tok_1")) == (1, UsageTotals())


def test_closing_it_loses_nothing() -> None:
    store = MemoryUsageStore()
    store.write([ledger_entry()])
    store.close()
    assert store.totals("tok_1").requests == 1
    assert store.write([ledger_entry()]) == 0, "the request is still known"


def test_the_end_of_a_range_and_of_a_pruning_are_excluded() -> None:
    store = MemoryUsageStore()
    store.write([ledger_entry()])
    assert store.report(ReportQuery(NOW - 3600, NOW)) == []
    assert [row.totals.requests for row in store.report(ReportQuery(NOW, NOW + 3600))] == [1]
    assert [store.prune(NOW * 1000, 9), store.prune(NOW * 1000 + 1, 9)] == [0, 1]
