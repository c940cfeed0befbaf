"""The SQLite usage store: many writers, killed writers, damaged files; and sums that are those of the entries."""

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
from gateway.usage.aggregation import MAX_AMOUNT
from gateway.usage.models import GroupBy, LedgerEntry, ReportQuery, Usage, UsageTotals
from gateway.usage.store import TooManyRows, UsageStoreError
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore, rows_of_report
from tests.support.tokens import NOW
from tests.support.usage import count, expected_sums, hour_sums, ledger_entry, rows

CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / LEDGER_FILE


@pytest.fixture
def file(path: Path) -> SqliteUsageStore:
    return SqliteUsageStore(path)


def test_an_entry_is_kept_with_all_its_fields(path: Path, file: SqliteUsageStore) -> None:
    usage = Usage(1, 2, 3, 4, 5, 6, 7)
    one = ledger_entry(1, usage, owner=None, model=None, first_byte_ms=None, status=499, partial=True, estimated=True)
    assert file.write([one]) == 1
    kept = rows(path, "SELECT * FROM entries")
    assert kept == [
        (one.request_id, NOW * 1000, "tok_1", None, None, "openai", "chat/completions", 499, 1, 2, 3, 4, 5, 6, 7, 1500, 900,
         None, 1, 1)
    ]  # fmt: skip
    assert hour_sums(path) == {(NOW // 3600 * 3600, "tok_1", "", ""): (1, 1, 2, 3, 5, 1500, 1, 1, 1)}


def test_the_file_is_for_its_owner_alone(path: Path, file: SqliteUsageStore) -> None:
    file.write([ledger_entry()])
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()} == {
        LEDGER_FILE: 0o600,
        f"{LEDGER_FILE}.lock": 0o600,
        f"{LEDGER_FILE}-wal": 0o600,
        f"{LEDGER_FILE}-shm": 0o600,
    }
    file.close()
    assert sorted(found.name for found in path.parent.iterdir()) == [LEDGER_FILE, f"{LEDGER_FILE}.lock"]


def test_entries_are_never_changed(path: Path, file: SqliteUsageStore) -> None:
    file.write([ledger_entry()])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for change in (
            "UPDATE entries SET cost = 0",
            "INSERT INTO entries SELECT * FROM entries ON CONFLICT DO UPDATE SET cost=0",
        ):
            with pytest.raises(sqlite3.Error):
                connection.execute(change)
    assert rows(path, "SELECT cost FROM entries") == [(1500,)]


def test_reading_an_absent_ledger_creates_nothing(path: Path, file: SqliteUsageStore) -> None:
    assert file.totals("tok_1") == UsageTotals()
    assert not path.parent.exists()


def test_a_ledger_that_another_process_is_creating_is_empty(path: Path, file: SqliteUsageStore) -> None:
    path.parent.mkdir()
    path.touch()
    assert file.totals("tok_1") == UsageTotals()
    assert file.report(ReportQuery(0, LATEST)) == []
    assert path.stat().st_size == 0


def test_an_error_of_the_file_system_is_one_of_the_store(path: Path, file: SqliteUsageStore) -> None:
    path.parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(UsageStoreError, match="exists"):
        file.write([ledger_entry()])
    with pytest.raises(UsageStoreError):
        file.prune(0, 1)


def test_a_newer_file_is_refused(path: Path, file: SqliteUsageStore) -> None:
    file.write([ledger_entry()])
    file.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(UsageStoreError, match="newer version"):
        file.write([ledger_entry(1)])
    with pytest.raises(UsageStoreError, match="newer version"):
        file.totals("tok_1")
    assert count(path) == 1


def test_damage_is_named_and_not_written_over(path: Path, file: SqliteUsageStore) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(UsageStoreError, match=r"usage\.sqlite"):
        file.write([ledger_entry()])
    with pytest.raises(UsageStoreError, match="not a database"):
        file.totals("tok_1")
    assert path.read_bytes() == b"no database" * 1000


def test_a_file_that_was_moved_away_is_begun_anew(path: Path, file: SqliteUsageStore) -> None:
    file.write([ledger_entry(1)])
    for found in list(path.parent.iterdir()):
        found.rename(found.with_name(f"old-{found.name}"))
    file.write([ledger_entry(2)])
    assert count(path) == 1
    assert count(path.with_name(f"old-{LEDGER_FILE}")) == 1


def test_a_failed_write_writes_nothing_and_the_next_one_does(path: Path, file: SqliteUsageStore) -> None:
    file.write([ledger_entry(1)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE hours RENAME TO aside")
    with pytest.raises(UsageStoreError, match="hours"):
        file.write([ledger_entry(2)])
    assert count(path) == 1
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE aside RENAME TO hours")
    file.write([ledger_entry(2)])
    assert hour_sums(path) == expected_sums([ledger_entry(1), ledger_entry(2)])


def test_a_file_that_is_held_for_too_long_is_said(path: Path) -> None:
    SqliteUsageStore(path).write([ledger_entry(1)])
    impatient = SqliteUsageStore(path, busy_seconds=0.01)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(UsageStoreError, match="locked"):
            impatient.write([ledger_entry(2)])
        assert impatient.totals("tok_1").requests == 1, "a writer does not stop readers"
    assert impatient.write([ledger_entry(2)]) == 1


@pytest.mark.parametrize("usage", [Usage(10**30, 10**30), Usage(-5, -5)])
def test_nothing_that_an_upstream_makes_up_holds_up_the_others(
    path: Path, file: SqliteUsageStore, usage: Usage
) -> None:
    strange = ledger_entry(1, usage, owner="half \ud800", model="\x00 ' \"", cost=usage.prompt_tokens)
    assert file.write([strange, ledger_entry(2)]) == 2
    bound = max(0, min(usage.prompt_tokens, MAX_AMOUNT))
    assert rows(path, "SELECT prompt_tokens, cost FROM entries ORDER BY request_id")[0] == (bound, bound)
    assert rows(path, "SELECT owner FROM hours ORDER BY model LIMIT 1") == [("half ?",)]


texts = st.text(st.characters(codec="utf-8"), max_size=3)
amounts = st.integers(0, MAX_AMOUNT)
entries = st.builds(
    LedgerEntry,
    request_id=st.sampled_from([f"req_{number}" for number in range(30)]),
    at=st.integers(0, 4 * 3_600_000),
    token_id=st.sampled_from(["tok_1", "tok_2", "environment"]),
    owner=st.none() | texts,
    model=st.none() | texts,
    deployment=texts,
    endpoint=texts,
    status=st.sampled_from([200, 399, 400, 429, 499, 500]),
    usage=st.builds(Usage, *[amounts] * 7),
    cost=amounts,
    duration_ms=amounts,
    first_byte_ms=st.none() | amounts,
    partial=st.booleans(),
    estimated=st.booleans(),
)


@given(st.lists(st.lists(entries, max_size=8), max_size=6))
def test_the_hours_are_the_sums_of_the_entries_however_they_were_cut(batches: list[list[LedgerEntry]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LEDGER_FILE
        file = SqliteUsageStore(path)
        file.write([])
        for batch in batches:
            file.write(batch)
        every = [one for batch in batches for one in batch]
        assert hour_sums(path) == expected_sums(every)
        assert count(path) == len({one.request_id for one in every})
        file.close()


WRITERS, EACH, BATCH = 8, 2000, 100


def _batch(writer: int, start: int) -> list[LedgerEntry]:
    return [
        ledger_entry(writer * EACH + number, at=NOW * 1000 + number * 10_000, token_id=f"tok_{number % 3}", cost=number)
        for number in range(start, start + BATCH)
    ]


def _write_all(path: Path, writer: int, go: Event) -> None:
    file = SqliteUsageStore(path)
    assert go.wait(30)
    for start in range(0, EACH, BATCH):
        file.write(_batch(writer, start))
    file.close()


def test_many_processes_lose_nothing(path: Path) -> None:
    go = CONTEXT.Event()
    writers = [CONTEXT.Process(target=_write_all, args=(path, number, go)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    go.set()
    for writer in writers:
        writer.join(100)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert count(path) == WRITERS * EACH
    every = [one for writer in range(WRITERS) for start in range(0, EACH, BATCH) for one in _batch(writer, start)]
    assert hour_sums(path) == expected_sums(every)


def _write_for_ever(path: Path, said: int) -> None:
    file = SqliteUsageStore(path)
    for start in range(0, 10**9, BATCH):
        file.write(_batch(0, start))
        os.write(said, b".")


@pytest.mark.parametrize("batches", [1, 3, 10])
def test_a_killed_writer_leaves_whole_batches(path: Path, batches: int) -> None:
    heard, said = os.pipe()
    writer = CONTEXT.Process(target=_write_for_ever, args=(path, said))
    writer.start()
    os.close(said)
    finished = 0
    while finished < batches:
        finished += len(os.read(heard, 1))
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(30)
    while more := os.read(heard, 4096):
        finished += len(more)
    os.close(heard)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        kept = connection.execute("SELECT count(*), count(DISTINCT request_id) FROM entries").fetchone()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert kept[0] == kept[1]
    assert kept[0] in (finished * BATCH, (finished + 1) * BATCH), (
        "what was said to be written is; of the rest all or none"
    )
    again = SqliteUsageStore(path)
    every = [one for number in range(kept[0] // BATCH) for one in _batch(0, number * BATCH)]
    assert again.write(every) == 0
    assert hour_sums(path) == expected_sums(every)
    again.close()


@pytest.mark.parametrize("group", ["token", "model", "owner"])
def test_a_report_with_too_many_rows_is_refused_before_anything_is_added_up(
    path: Path, file: SqliteUsageStore, group: GroupBy
) -> None:
    file.write(
        [
            ledger_entry(number, token_id=f"t{number}", model=f"m{number}", owner=f"o{number}@x")
            for number in range(3000)
        ]
    )
    query = ReportQuery(0, LATEST, "hour", group, max_rows=10)
    steps = {most: _steps(path, query._replace(max_rows=most)) for most in (10, 3000)}
    assert steps[10] * 20 < steps[3000], "10 rows of 3000 need a small part of the work"
    with pytest.raises(TooManyRows, match="more than 10 rows"):
        file.report(query)
    assert len(file.report(query._replace(max_rows=3000))) == 3000
    assert len(file.report(query._replace(group_by=None))) == 1


def _steps(path: Path, query: ReportQuery) -> int:
    """How many statements' rows SQLite's machine steps through for a report, in hundreds of steps."""
    hundreds = 0

    def count_step() -> int:
        nonlocal hundreds
        hundreds += 1
        return 0

    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(count_step, 100)
        rows_of_report(connection, query)
    return hundreds
