"""Counters in the shared file: written soon, never lost, and refused while the file cannot be used."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.limits.store import CounterStoreUnavailable, Reservation
from gateway.limits.stores import sqlite as sqlite_store
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from gateway.limits.stores.sqlite_transactions import SqliteTransactions, Work
from tests.support.limits import BUDGET, NOW, charges_for, granted, locked_database, refused, running, used_and_reserved
from tests.support.tokens import Clock

T = TypeVar("T")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / COUNTERS_FILE


@pytest.fixture
async def counters(path: Path) -> AsyncIterator[SqliteCounterStore]:
    store = SqliteCounterStore(path, Clock())
    yield store
    await store.aclose()


@contextmanager
def unreachable(path: Path) -> Iterator[None]:
    """A file is in the way of the folder."""
    away = path.parent.with_name("away")
    path.parent.rename(away)
    path.parent.write_text("in the way")
    try:
        yield
    finally:
        path.parent.unlink()
        away.rename(path.parent)


async def test_settlements_are_written_with_the_next_reservation(path: Path, counters: SqliteCounterStore) -> None:
    """Also with one that is refused."""
    other = SqliteCounterStore(path, Clock())
    for number, cost in enumerate((20, 101), 1):
        counters.settle(granted(await counters.reserve(charges_for(BUDGET, cost=10), NOW)), [10])
        assert counters.pending == 1
        outcome = await counters.reserve(charges_for(BUDGET, cost=cost), NOW)
        assert counters.pending == 0
        if cost == 20:
            counters.settle(granted(outcome), [0])
        assert (await used_and_reserved(other))[0] == 10 * number
    await other.aclose()


async def test_a_settlement_is_written_soon_without_another_request(
    path: Path, counters: SqliteCounterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "FLUSH_SECONDS", 0)
    other = SqliteCounterStore(path, Clock())
    for number in (1, 2):
        for _ in range(2):
            counters.settle(granted(await counters.reserve(charges_for(BUDGET, cost=10), NOW)), [10])
        async with asyncio.timeout(30):
            while counters.pending:
                await asyncio.sleep(0)
        assert await used_and_reserved(other) == (20 * number, 0)
    await other.aclose()


async def test_what_is_settled_but_not_written_yet_is_read(counters: SqliteCounterStore) -> None:
    counters.settle(granted(await counters.reserve(charges_for(BUDGET, cost=30), NOW)), [7])
    assert (counters.pending, await used_and_reserved(counters)) == (1, (7, 0))


async def test_requests_are_counted_once_for_all_when_they_are_reserved(counters: SqliteCounterStore) -> None:
    reservation = granted(await counters.reserve(charges_for({"rpm": 2}), NOW))
    counters.settle(reservation, [1])
    assert counters.pending == 0
    both = granted(await counters.reserve(charges_for({"rpm": 2, "max_parallel": 1}), NOW))
    counters.settle(both, [1, 0])
    assert counters.pending == 1


async def test_a_reservation_waits_in_the_thread_while_the_database_is_locked(
    path: Path, counters: SqliteCounterStore
) -> None:
    reservation = granted(await counters.reserve(charges_for(BUDGET, cost=10), NOW))
    async with running(counters):
        with locked_database(path):
            counters.settle(reservation, [7])
            waiting = asyncio.create_task(counters.reserve(charges_for(BUDGET, cost=10), NOW))
            await asyncio.sleep(0)
            assert (waiting.done(), counters.pending) == (False, 1)
        counters.settle(granted(await waiting), [5])
    await counters.flush()
    assert (counters.pending, await used_and_reserved(counters)) == (0, (12, 0))


async def test_a_settlement_waits_in_the_thread_while_the_database_is_locked(
    path: Path, counters: SqliteCounterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "FLUSH_SECONDS", 0)
    async with running(counters):
        reservation = granted(await counters.reserve(charges_for(BUDGET, cost=10), NOW))
        with locked_database(path):
            counters.settle(reservation, [7])
            for _ in range(100):
                await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while counters.pending or (await used_and_reserved(counters)) != (7, 0):
                await asyncio.sleep(0)


async def test_a_reservation_that_is_cancelled_reserves_nothing(path: Path, counters: SqliteCounterStore) -> None:
    """Cancelled while the thread waits for the database, while it works, and after."""
    charges = charges_for({"max_parallel": 1, "budget": "1"}, cost=10)
    await counters.heartbeat()
    for steps in range(40):
        with locked_database(path):
            request = asyncio.create_task(counters.reserve(charges, NOW))
            await asyncio.sleep(0)
        for _ in range(steps * 10):
            await asyncio.sleep(0)
        request.cancel()
        [outcome] = await asyncio.gather(request, return_exceptions=True)
        if not isinstance(outcome, asyncio.CancelledError):
            assert not isinstance(outcome, BaseException)
            counters.settle(granted(outcome), [0, 0])
        await counters.heartbeat()  # the thread works in turn: it is done with the request
        await asyncio.sleep(0)
        await counters.flush()
        for counter in await counters.read(charges, NOW):
            assert (counter.used, counter.reserved, counter.reserved_by_worker) == (0, 0, None)


async def test_a_rate_is_refilled_also_where_the_thread_reserves(path: Path, counters: SqliteCounterStore) -> None:
    charges = charges_for({"rpm": 1})
    counters.settle(granted(await counters.reserve(charges, NOW)), [1])
    outcomes = []
    for now in (NOW + 59_999, NOW + 60_000):
        with locked_database(path):
            waiting = asyncio.create_task(counters.reserve(charges, now))
            await asyncio.sleep(0)
        outcomes.append(isinstance(await waiting, Reservation))
    assert outcomes == [False, True]


async def test_a_refused_reservation_that_is_cancelled_releases_nothing(
    path: Path, counters: SqliteCounterStore
) -> None:
    granted(await counters.reserve(charges_for(BUDGET, cost=100), NOW))
    with locked_database(path):
        request = asyncio.create_task(counters.reserve(charges_for(BUDGET, cost=1), NOW))
        await asyncio.sleep(0)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await counters.heartbeat()
    await asyncio.sleep(0)
    assert (counters.pending, await used_and_reserved(counters)) == (0, (0, 100))


async def test_a_reservation_is_extended_as_soon_as_the_database_is_free(
    path: Path, counters: SqliteCounterStore
) -> None:
    reservation = granted(await counters.reserve(charges_for(BUDGET, cost=30), NOW))
    outcomes = []
    for amount in (50, 50):
        with locked_database(path):
            task = asyncio.create_task(counters.extend(reservation, 0, amount, NOW))
            await asyncio.sleep(0)
        outcomes.append(await task)
    assert (outcomes, reservation.amounts) == ([True, False], [80])
    counters.settle(reservation, [70])
    await counters.flush()
    assert await used_and_reserved(counters) == (70, 0)


class NotingTransactions(SqliteTransactions):
    """Tells when the thread has done its work."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.worked = threading.Event()

    async def run_in_thread(self, work: Work[T], undo: Callable[[Future[T]], None]) -> T:
        def noting(connection: sqlite3.Connection) -> T:
            result = work(connection)
            self.worked.set()
            return result

        return await super().run_in_thread(noting, undo)


@pytest.mark.parametrize("amount", [70, 71])
async def test_an_extension_that_is_cancelled_after_the_thread_has_worked_changes_nothing(
    path: Path, amount: int
) -> None:
    """Whether it fits or not."""
    transactions = NotingTransactions(path)
    counters = SqliteCounterStore(path, Clock(), transactions)
    reservation = granted(await counters.reserve(charges_for(BUDGET, cost=30), NOW))
    with locked_database(path):
        task = asyncio.create_task(counters.extend(reservation, 0, amount, NOW))
        await asyncio.sleep(0)
    assert transactions.worked.wait(30)  # blocks the loop, so that it cannot have seen the outcome
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    await counters.heartbeat()  # the thread works in turn: it is done with the extension
    await asyncio.sleep(0)
    await counters.flush()
    assert await used_and_reserved(counters) == (0, 30)
    counters.settle(reservation, [7])
    await counters.aclose()
    again = SqliteCounterStore(path, Clock())
    assert await used_and_reserved(again) == (7, 0)
    await again.aclose()


async def test_without_the_file_no_request_passes_and_nothing_is_lost(
    path: Path, counters: SqliteCounterStore, caplog: pytest.LogCaptureFixture
) -> None:
    charges = charges_for(BUDGET, cost=30)
    reservation = granted(await counters.reserve(charges, NOW))
    new = SqliteCounterStore(path, Clock())
    with unreachable(path):
        with pytest.raises(CounterStoreUnavailable):
            await new.reserve(charges, NOW)
        with pytest.raises(CounterStoreUnavailable):
            await new.read(charges, NOW)
        assert not new.is_up
        caplog.clear()
        await counters.heartbeat()
        assert not counters.is_up
        counters.settle(reservation, [20])
        await counters.flush()
        assert (counters.pending, counters.is_up) == (1, False)
        [record] = caplog.records  # said once
        assert record.message == "the counters cannot be reached"
        assert (vars(record)["file"], "File exists" in vars(record)["problem"]) == (path, True)
    refused(await new.reserve(charges_for(BUDGET, cost=101), NOW))
    assert new.is_up
    await new.aclose()
    await counters.flush()
    await counters.heartbeat()
    assert (await used_and_reserved(counters), counters.pending, counters.is_up) == ((20, 0), 0, True)


async def test_a_row_that_is_damaged_refuses_its_token_only(path: Path, counters: SqliteCounterStore) -> None:
    charges = charges_for(BUDGET, cost=1)
    reservation = granted(await counters.reserve(charges, NOW))
    other = granted(await counters.reserve(charges_for(BUDGET, cost=1, limited="tok_b"), NOW))
    connection = sqlite_file.connect(path, 1.0)
    connection.execute("UPDATE counters SET levels = x'ff00' WHERE holder = 'tok_a'")
    for attempt in (
        counters.reserve(charges, NOW),
        counters.extend(reservation, 0, 1, NOW),
        counters.read(charges, NOW),
    ):
        with pytest.raises(CounterStoreUnavailable, match="a counter is damaged"):
            await attempt
    assert not counters.is_up
    assert await counters.extend(other, 0, 1, NOW)
    granted(await counters.reserve(charges_for(BUDGET, cost=1, limited="tok_b"), NOW))
    assert counters.is_up
    connection.execute("DELETE FROM counters WHERE holder = 'tok_a'")
    connection.close()


async def test_settlements_that_the_loop_cannot_write_are_left_to_the_thread(
    path: Path, counters: SqliteCounterStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_store, "FLUSH_SECONDS", 0)
    monkeypatch.setattr(sqlite_store, "HEARTBEAT_SECONDS", 0.001)
    reservation = granted(await counters.reserve(charges_for(BUDGET, cost=10), NOW))
    connection = sqlite_file.connect(path, 1.0)
    [(row,)] = connection.execute("SELECT levels FROM counters").fetchall()
    connection.execute("UPDATE counters SET levels = x'ff00'")
    counters.settle(reservation, [7])
    async with asyncio.timeout(30):
        while counters.is_up:  # no thread is at work yet, so it is the loop that fails
            await asyncio.sleep(0)
        assert "a counter is damaged" in vars(caplog.records[-1])["problem"]
        async with running(counters):
            await counters.heartbeat()
            while counters.is_up:  # until the thread has failed, too
                await asyncio.sleep(0)
            connection.execute("UPDATE counters SET levels = ?", (row,))
            connection.close()
            while counters.pending or not counters.is_up:
                await asyncio.sleep(0)
    assert await used_and_reserved(counters) == (7, 0)


async def test_a_database_that_stays_locked_makes_the_store_unavailable(path: Path) -> None:
    counters = SqliteCounterStore(path, Clock(), SqliteTransactions(path, max_wait=0.02))
    reservation = granted(await counters.reserve(charges_for(BUDGET, cost=30), NOW))
    with locked_database(path):
        with pytest.raises(CounterStoreUnavailable, match="locked by another process for too long"):
            await counters.reserve(charges_for(BUDGET, cost=30), NOW)
        counters.settle(reservation, [10])
        await counters.flush()
        assert (counters.pending, counters.is_up) == (1, False)
    await counters.aclose()
    again = MemoryCounterStore(path)
    [budget] = await again.read(charges_for(BUDGET), NOW)
    assert (budget.used, budget.reserved) == (10, 0)
    await again.aclose()


async def test_settlements_that_are_lost_at_the_end_are_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counters = SqliteCounterStore(path, Clock(), SqliteTransactions(path, max_wait=0.02))
    counters.settle(granted(await counters.reserve(charges_for(BUDGET, cost=30), NOW)), [10])
    with locked_database(path):
        await counters.aclose()
    [lost] = [record for record in caplog.records if record.message == "settlements lost at shutdown"]
    assert vars(lost)["count"] == 1
