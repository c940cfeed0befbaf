"""Several workers on one file: sums are exact, and what dead workers have reserved is released."""

import asyncio
import multiprocessing
import time
from pathlib import Path

import pytest

from gateway.limits.algorithms import MAX_CLOCK_SKEW_MS
from gateway.limits.stores import sqlite as sqlite_store
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE, DEAD_AFTER_SECONDS
from tests.support.limits import BUDGET, NOW, charges_for, granted, refused, running, used_and_reserved
from tests.support.tokens import Clock

PROCESSES = 8
INCREMENTS = 10_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / COUNTERS_FILE


def _add(path: Path) -> None:
    async def work() -> None:
        counters = SqliteCounterStore(path, time.time)
        charges = charges_for({"rpm": 10**9, "budget": "999999999"}, cost=5)
        async with running(counters):
            for _ in range(INCREMENTS):
                counters.settle(granted(await counters.reserve(charges, NOW)), [1, 3])
        await counters.aclose()

    asyncio.run(work())


async def test_eight_processes_add_up(path: Path) -> None:
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


async def test_what_a_dead_worker_has_reserved_is_released(path: Path) -> None:
    clock = Clock()
    dead, alive = SqliteCounterStore(path, clock), SqliteCounterStore(path, clock)
    charges = charges_for({"tpm": 100, "max_parallel": 1, "budget": "1"}, tokens=80, cost=900_000)
    reservation = granted(await dead.reserve(charges, NOW))
    assert refused(await alive.reserve(charges, NOW)).is_waiting_for_others
    clock.now += DEAD_AFTER_SECONDS
    await alive.heartbeat()
    refused(await alive.reserve(charges, NOW))
    clock.now += 0.002
    await alive.heartbeat()
    again = granted(await alive.reserve(charges, NOW))
    dead.settle(
        reservation, [50, 0, 400_000]
    )  # it was only stopped: what it used counts, and nothing is released twice
    await dead.flush()
    found = await alive.read(charges, NOW)
    assert [counter.reserved for counter in found] == [80, 1, 900_000]
    assert [found[0].used, found[2].used] == [50 * 60_000, 400_000]
    await dead.heartbeat()
    alive.settle(again, [80, 0, 1])
    await alive.aclose()
    granted(await dead.reserve(charges_for({"max_parallel": 1}), NOW))
    await dead.aclose()


async def test_a_worker_that_was_stopped_goes_on_as_another(path: Path) -> None:
    """What it reserves from then on is not released."""
    clock = Clock()
    store = SqliteCounterStore(path, clock)
    granted(await store.reserve(charges_for(BUDGET, cost=10), NOW))
    clock.now += DEAD_AFTER_SECONDS + 1
    await store.heartbeat()
    assert await used_and_reserved(store) == (0, 0)
    granted(await store.reserve(charges_for(BUDGET, cost=20), NOW))
    other = SqliteCounterStore(path, clock)
    await other.heartbeat()
    assert await used_and_reserved(store) == (0, 20)
    await other.aclose()
    await store.aclose()


async def test_a_worker_that_runs_is_not_taken_for_dead(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "HEARTBEAT_SECONDS", 0.001)
    clock = Clock()
    store, other = SqliteCounterStore(path, clock), SqliteCounterStore(path, clock)
    granted(await store.reserve(charges_for(BUDGET, cost=10), NOW))
    connection = sqlite_file.connect(path, 1.0)
    async with running(store), asyncio.timeout(30):
        for _ in range(3):
            clock.now += DEAD_AFTER_SECONDS / 2
            while connection.execute("SELECT seen_at FROM workers").fetchall() != [(int(clock.now * 1000),)]:
                await asyncio.sleep(0)
    connection.close()
    await other.heartbeat()
    assert await used_and_reserved(other) == (0, 10)
    await other.aclose()
    await store.aclose()


@pytest.mark.parametrize(("skew_ms", "is_alive"), [(MAX_CLOCK_SKEW_MS, True), (MAX_CLOCK_SKEW_MS + 1, False)])
async def test_a_heartbeat_from_the_future_counts_for_a_minute(path: Path, skew_ms: int, is_alive: bool) -> None:
    clock = Clock()
    ahead = SqliteCounterStore(path, Clock(clock.now + skew_ms / 1000))
    granted(await ahead.reserve(charges_for(BUDGET, cost=10), NOW))
    store = SqliteCounterStore(path, clock)
    await store.heartbeat()
    assert await used_and_reserved(store) == (0, 10 if is_alive else 0)
    await ahead.aclose()
    await store.aclose()


async def test_a_new_worker_releases_what_was_reserved_before_the_last_start(path: Path) -> None:
    before = SqliteCounterStore(path, Clock())
    granted(await before.reserve(charges_for(BUDGET, cost=10), NOW))
    await before.aclose()
    store = SqliteCounterStore(path, Clock())
    assert refused(await store.reserve(charges_for(BUDGET, cost=101), NOW)).counter.reserved == 0
    assert await used_and_reserved(store) == (0, 0)
    await store.aclose()


async def test_workers_go_on_with_the_same_new_file(path: Path) -> None:
    """Its counts are gone with the old one."""
    counters, other = SqliteCounterStore(path, Clock()), SqliteCounterStore(path, Clock())
    counters.settle(granted(await counters.reserve(charges_for(BUDGET, cost=60), NOW)), [60])
    await counters.flush()
    for each in path.parent.iterdir():
        each.unlink()
    await counters.heartbeat()  # the thread notices it
    other.settle(granted(await other.reserve(charges_for(BUDGET, cost=70), NOW)), [70])
    await other.flush()
    assert await used_and_reserved(counters) == (70, 0)
    await counters.aclose()
    await other.aclose()
