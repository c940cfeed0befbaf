"""Rows of running requests in the file of the ledger: they count once, whatever process ends when."""

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import tempfile
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import LATEST
from gateway.usage.models import ReportQuery
from gateway.usage.store import UsageStoreError
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore
from gateway.usage.stores.sqlite_running import INTERRUPTED
from tests.support.usage import count, expected_sums, hour_sums, ledger_entry, rows

CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LEDGER_FILE


def running_rows(path: Path) -> list[str]:
    return [row[0] for row in rows(path, "SELECT request_id FROM running ORDER BY 1")]


def run_and_be_killed(path: Path, numbers: tuple[int, ...]) -> None:
    """Another process writes what these requests have used so far, and is killed."""

    def serve(written: Event) -> None:
        SqliteUsageStore(path).write_running([ledger_entry(number, partial=True) for number in numbers])
        written.set()
        signal.pause()

    written = CONTEXT.Event()
    process = CONTEXT.Process(target=serve, args=(written,))
    process.start()
    assert written.wait(20)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)


def test_what_a_killed_process_left_becomes_entries_once(path: Path) -> None:
    run_and_be_killed(path, (1, 2))
    one, other = SqliteUsageStore(path), SqliteUsageStore(path)
    assert one.totals("tok_1").cost == 3000, "also before anybody has taken it over"
    assert [one.take_over(), other.take_over(), one.take_over()] == [2, 0, 0]
    assert running_rows(path) == []
    assert rows(path, "SELECT status, partial, cost FROM entries") == [(INTERRUPTED, 1, 1500)] * 2
    entries = [ledger_entry(number, partial=True, status=INTERRUPTED) for number in (1, 2)]
    assert hour_sums(path) == expected_sums(entries)
    one.close()
    other.close()
    assert sorted(found.name for found in path.parent.iterdir()) == [LEDGER_FILE, f"{LEDGER_FILE}.lock"]


def test_what_a_process_serves_that_still_runs_is_left_to_it(path: Path) -> None:
    one, other = SqliteUsageStore(path), SqliteUsageStore(path)
    one.write_running([ledger_entry(1, partial=True)])
    assert [other.take_over(), one.take_over()] == [0, 0]
    one.write([ledger_entry(1, cost=7)])
    assert (running_rows(path), one.totals("tok_1").cost) == ([], 7)
    one.close()


def test_what_an_ended_process_could_not_write_is_taken_over(path: Path) -> None:
    """Its final entries were lost with a full disk, say."""
    one, other = SqliteUsageStore(path), SqliteUsageStore(path)
    one.write_running([ledger_entry(1)])
    one.close()
    assert other.take_over() == 1


def test_a_ledger_that_does_not_exist_is_not_made(path: Path) -> None:
    assert SqliteUsageStore(path).take_over() == 0
    assert not path.exists()


def test_a_file_of_an_earlier_version_can_be_read_and_written(path: Path) -> None:
    SqliteUsageStore(path).write([ledger_entry(1)])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE running")
    assert SqliteUsageStore(path).totals("tok_1").requests == 1
    store = SqliteUsageStore(path)
    store.write_running([ledger_entry(2)])
    assert store.totals("tok_1").requests == 2
    assert rows(path, "PRAGMA user_version") == [(1,)], "an earlier version can go on with the file"


def test_a_damaged_row_is_named_and_stays(path: Path) -> None:
    run_and_be_killed(path, (1,))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE running SET entry = x'00'")
    with pytest.raises(UsageStoreError, match="a row of a running request is damaged"):
        SqliteUsageStore(path).take_over()
    assert (len(running_rows(path)), count(path)) == (1, 0)


def test_a_table_that_cannot_be_made_is_an_error_of_the_store(path: Path) -> None:
    SqliteUsageStore(path).write([])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE running")
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(UsageStoreError, match="locked"):
            SqliteUsageStore(path, busy_seconds=0.01).write([ledger_entry(1)])


def test_texts_that_utf_8_cannot_encode_are_written(path: Path) -> None:
    store = SqliteUsageStore(path)
    entry = ledger_entry(1, owner="\ud800", model="\udfff")
    store.write_running([entry])
    store.close()
    assert SqliteUsageStore(path).take_over() == 1
    assert rows(path, "SELECT owner, model FROM entries") == [("?", "?")]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("running"), st.integers(0, 3), st.integers(0, 100)),
        st.tuples(st.just("final"), st.integers(0, 3), st.integers(0, 100)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=20,
)


@given(steps)
def test_each_request_counts_once_whatever_is_written_in_which_order(done: list[tuple[str, int, int]]) -> None:
    """Reports have the final entry of a request, or else the last that is known of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LEDGER_FILE
        store = SqliteUsageStore(path)
        final: dict[int, int] = {}
        known: dict[int, int] = {}
        for what, number, cost in done:
            if what == "running":
                store.write_running([ledger_entry(number, cost=cost)])
                known[number] = cost
            elif what == "final":
                store.write([ledger_entry(number, cost=cost)])
                final.setdefault(number, cost)
            else:
                store.close()
                store = SqliteUsageStore(path)
                store.take_over()
                final = {**known, **final}
            now = {**known, **final}
            totals = [row.totals for row in store.report(ReportQuery(0, LATEST))]
            assert sum(one.requests for one in totals) == len(now)
            assert sum(one.cost for one in totals) == sum(now.values())
        store.close()
