"""Several workers on one file: sums are exact, and the dead give back what they held."""

import asyncio
import multiprocessing
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.limits.store import CounterStoreUnavailable, LimitExceeded
from gateway.limits.stores import sqlite_transactions
from gateway.limits.stores.sqlite import DEAD_AFTER_SECONDS, SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from tests.support.limits import NOW, charges_for, granted
from tests.support.tokens import Clock

PROCESSES = 8
INCREMENTS = 10_000


def _add(path: Path) -> None:
    async def work() -> None:
        counters = SqliteCounterStore(path, time.time)
        running = asyncio.create_task(counters.run())
        charges = charges_for({"rpm": 10**9, "budget": "999999999"}, cost=5)
        for _ in range(INCREMENTS):
            counters.settle(granted(await counters.reserve(charges, NOW)), [1, 3])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await counters.aclose()

    asyncio.run(work())


async def test_eight_processes_add_up(tmp_path: Path) -> None:
    path = tmp_path / COUNTERS_FILE
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(path,)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 110)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    counters = SqliteCounterStore(path, Clock())
    rpm, budget = await counters.read(charges_for({"rpm": 10**9, "budget": "999999999"}), NOW)
    assert rpm.used == PROCESSES * INCREMENTS * 60_000
    assert (budget.used, budget.reserved, budget.reserved_by_worker) == (PROCESSES * INCREMENTS * 3, 0, None)
    await counters.aclose()


async def test_a_dead_worker_gives_back_what_it_held(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / COUNTERS_FILE
    dead, alive = SqliteCounterStore(path, clock), SqliteCounterStore(path, clock)
    charges = charges_for({"tpm": 100, "max_parallel": 1, "budget": "1"}, tokens=80, cost=900_000)
    kept = granted(await dead.reserve(charges, NOW))
    outcome = await alive.reserve(charges, NOW)
    assert isinstance(outcome, LimitExceeded)
    assert outcome.is_waiting_for_others
    clock.now += DEAD_AFTER_SECONDS
    await _house(alive)
    assert isinstance(await alive.reserve(charges, NOW), LimitExceeded)
    clock.now += 1
    await _house(alive)
    again = granted(await alive.reserve(charges, NOW))
    dead.settle(kept, [50, 0, 400_000])  # it was only asleep: what it used counts, what it held is not given back twice
    await dead._flush_in_thread()
    levels = await alive.read(charges, NOW)
    assert [level.reserved for level in levels] == [80, 1, 900_000]
    assert [levels[0].used, levels[2].used] == [50 * 60_000, 400_000]
    await _house(dead)
    alive.settle(again, [80, 0, 1])
    await alive.aclose()
    granted(await dead.reserve(charges_for({"max_parallel": 1}), NOW))
    await dead.aclose()


async def _house(counters: SqliteCounterStore) -> None:
    await counters.heartbeat()
    assert counters.is_up


@contextmanager
def somebody_looking(path: Path) -> Iterator[None]:
    """Holds the file, by hand."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_cancelled_reservation_reserves_nothing(tmp_path: Path) -> None:
    """Cancelled while the thread waits for the file, while it works, and after."""
    path = tmp_path / COUNTERS_FILE
    counters = SqliteCounterStore(path, Clock())
    running = asyncio.create_task(counters.run())
    charges = charges_for({"max_parallel": 1})
    counters.settle(granted(await counters.reserve(charges, NOW)), [0])
    await counters._flush_in_thread()
    for steps in range(40):
        with somebody_looking(path):
            request = asyncio.create_task(counters.reserve(charges, NOW))
            await asyncio.sleep(0)
        for _ in range(steps * 10):
            await asyncio.sleep(0)
        request.cancel()
        outcome = (await asyncio.gather(request, return_exceptions=True))[0]
        if not isinstance(outcome, asyncio.CancelledError):
            counters.settle(granted(outcome), [0])
        await asyncio.to_thread(lambda: counters._transactions._thread.submit(int).result())
        await asyncio.sleep(0)
        await counters._flush_in_thread()
        [level] = await counters.read(charges, NOW)
        assert (level.reserved, level.reserved_by_worker) == (0, None)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await counters.aclose()


MONEY = {"budget": "0.0001"}


async def test_a_connection_that_breaks_lets_nobody_pass_and_loses_nothing(tmp_path: Path) -> None:
    counters = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock())
    charges = charges_for(MONEY, cost=30)
    reservation = granted(await counters.reserve(charges, NOW))
    counters._transactions.loop_connection().close()
    for attempt in (
        counters.reserve(charges, NOW),
        counters.extend(reservation, 0, 10, NOW),
        counters.read(charges, NOW),
    ):
        with pytest.raises(CounterStoreUnavailable):
            await attempt
    assert not counters.is_up
    counters.settle(reservation, [20])
    counters._flush_on_loop()
    assert counters.pending == 1
    counters._transactions._loop_conn = None
    await counters._flush_in_thread()
    [budget] = await counters.read(charges, NOW)
    assert (budget.used, budget.reserved, counters.is_up) == (20, 0, True)
    await counters.aclose()


async def test_a_row_that_is_not_ours_lets_nobody_pass(tmp_path: Path) -> None:
    counters = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock())
    granted(await counters.reserve(charges_for(MONEY, cost=1), NOW))
    counters._transactions.loop_connection().execute("UPDATE counters SET levels = x'ff00'")
    with pytest.raises(CounterStoreUnavailable):
        await counters.reserve(charges_for(MONEY, cost=1), NOW)
    granted(await counters.reserve(charges_for(MONEY, cost=1, limited="tok_b"), NOW))
    await counters.aclose()


async def test_more_is_reserved_as_soon_as_the_file_is_free(tmp_path: Path) -> None:
    counters = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock())
    reservation = granted(await counters.reserve(charges_for(MONEY, cost=30), NOW))
    with somebody_looking(tmp_path / COUNTERS_FILE):
        more = asyncio.create_task(counters.extend(reservation, 0, 50, NOW))
        await asyncio.sleep(0)
    assert await more
    assert reservation.amounts == [80]
    with somebody_looking(tmp_path / COUNTERS_FILE):
        too_much = asyncio.create_task(counters.extend(reservation, 0, 50, NOW))
        await asyncio.sleep(0)
    assert not await too_much
    with somebody_looking(tmp_path / COUNTERS_FILE):
        given_up = asyncio.create_task(counters.extend(reservation, 0, 20, NOW))
        await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    await asyncio.to_thread(lambda: counters._transactions._thread.submit(int).result())
    await asyncio.sleep(0)
    counters.settle(reservation, [70])
    await counters._flush_in_thread()
    [budget] = await counters.read(charges_for(MONEY), NOW)
    assert (budget.used, budget.reserved) == (70, 0)
    await counters.aclose()


async def test_a_file_that_is_never_free_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_transactions, "MAX_WAIT_SECONDS", 0.02)
    counters = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock())
    reservation = granted(await counters.reserve(charges_for(MONEY, cost=30), NOW))
    counters.settle(reservation, [10])
    with somebody_looking(tmp_path / COUNTERS_FILE):
        with pytest.raises(CounterStoreUnavailable, match="held by another process for too long"):
            await counters.reserve(charges_for(MONEY, cost=30), NOW)
        counters._flush_on_loop()
        running = asyncio.create_task(counters.run())
        async with asyncio.timeout(10):
            while counters.is_up:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert counters.pending == 1
    await counters.aclose()
    again = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock())
    [budget] = await again.read(charges_for(MONEY), NOW)
    assert (budget.used, budget.reserved) == (10, 0)
    await again.aclose()


async def test_the_loop_does_not_go_on_with_a_file_that_only_it_had_open(tmp_path: Path) -> None:
    counters = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock())
    counters.settle(granted(await counters.reserve(charges_for(MONEY, cost=60), NOW)), [60])
    counters._flush_on_loop()
    for path in tmp_path.iterdir():
        path.unlink()
    await _house(counters)  # the thread's first look
    other = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock())
    other.settle(granted(await other.reserve(charges_for(MONEY, cost=70), NOW)), [70])
    other._flush_on_loop()
    [budget] = await counters.read(charges_for(MONEY), NOW)
    assert budget.used == 70
    await counters.aclose()
    await other.aclose()
