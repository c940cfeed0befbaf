"""Requests that are granted from leases: without the shared store, written to it soon, and never more than it has reserved."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.limits.leases import leased_amount
from gateway.limits.store import CounterStoreUnavailable, Reservation
from gateway.limits.stores import leased as leased_store
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.leased import VALID_SECONDS, LeasedCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE, DEAD_AFTER_SECONDS
from tests.support.disk import full_disk
from tests.support.limits import NOW, charges_for, granted, locked_database, refused, running
from tests.support.tokens import Clock

LIMITS: dict[str, Any] = {"rpm": 1000, "tpm": 10_000, "max_parallel": 1000, "budget": "0.01"}  # 10,000 micro-dollars
CHARGES = charges_for(LIMITS, tokens=10, cost=10)
BUDGET = {"budget": "0.01"}


@pytest.fixture(autouse=True)
def manual_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written but by ``flush``."""
    monkeypatch.setattr(leased_store, "WRITE_SECONDS", 600.0)
    monkeypatch.setattr(leased_store, "IDLE_SECONDS", 601.0)


@pytest.fixture
def own_writes(manual_writes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores write on their own, and give idle leases back."""
    monkeypatch.setattr(leased_store, "WRITE_SECONDS", 0.001)
    monkeypatch.setattr(leased_store, "IDLE_SECONDS", 0.002)


class CountingStore(SqliteCounterStore):
    """Counts the requests that were reserved in the file itself."""

    reserved = 0

    async def reserve(self, *args: Any) -> Any:
        self.reserved += 1
        return await super().reserve(*args)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / COUNTERS_FILE


@pytest.fixture
async def shared(path: Path) -> CountingStore:
    return CountingStore(path, Clock(NOW / 1000))


@pytest.fixture
async def counters(shared: CountingStore) -> AsyncIterator[LeasedCounterStore]:
    store = LeasedCounterStore(shared, Clock(NOW / 1000))
    yield store
    await store.aclose()


@pytest.fixture
async def other(path: Path) -> AsyncIterator[SqliteCounterStore]:
    """Another worker."""
    store = SqliteCounterStore(path, Clock(NOW / 1000))
    yield store
    await store.aclose()


async def lease(
    counters: LeasedCounterStore, charges: Any = CHARGES, actual: Any = (1, 4, 0, 4), count: int = 2
) -> None:
    """So many requests, after which the next ones find leases."""
    for _ in range(count):
        counters.settle(granted(await counters.reserve(charges, NOW)), actual)
    await counters.flush()


async def seen(store: SqliteCounterStore, charges: Any = CHARGES) -> list[tuple[int, int, int]]:
    """Of each counter what is used, reserved by requests, and leased."""
    counters = await store.read(charges, NOW)
    return [(each.used, each.reserved - leased_amount(each), leased_amount(each)) for each in counters]


async def test_after_two_requests_the_next_ones_need_no_transaction(
    shared: CountingStore, counters: LeasedCounterStore, other: SqliteCounterStore
) -> None:
    await lease(counters)
    assert shared.reserved == 2
    assert await seen(other) == [(120_000, 0, 8), (480_000, 0, 80), (0, 0, 8), (8, 0, 80)]
    first, second = [granted(await counters.reserve(CHARGES, NOW)) for _ in range(2)]
    assert shared.reserved == 2
    assert await seen(other) == [(120_000, 0, 8), (480_000, 0, 80), (0, 0, 8), (8, 0, 80)]
    assert [counter.reserved for counter in second.counters] == [0, 20, 2, 20]
    counters.settle(first, [1, 5, 0, 5])
    assert [(counter.used, counter.reserved) for counter in second.counters] == [
        (240_000, 0), (780_000, 10), (0, 1), (13, 10),
    ]  # fmt: skip
    assert counters.pending == 4
    await counters.flush()
    # What has ended is used, what is running is reserved, and the leases are full again.
    assert await seen(other) == [(240_000, 0, 8), (780_000, 10, 80), (0, 1, 8), (13, 10, 80)]
    counters.settle(second, [1, 6, 0, 6])
    assert counters.pending == 3
    await counters.flush()
    assert counters.pending == 0
    assert [used for used, _, _ in await seen(other)] == [240_000, 1_140_000, 0, 19]


async def test_what_the_leases_do_not_cover_is_reserved_in_the_shared_store(
    shared: CountingStore, counters: LeasedCounterStore
) -> None:
    await lease(counters)
    for _ in range(8):
        granted(await counters.reserve(CHARGES, NOW))
    assert shared.reserved == 2
    granted(await counters.reserve(CHARGES, NOW))
    assert shared.reserved == 3
    larger = {**LIMITS, "rpm": 1001}
    granted(await counters.reserve(charges_for(larger, tokens=1, cost=1), NOW))
    assert shared.reserved == 4  # the leases are of another limit


async def test_a_request_that_was_never_sent_is_taken_back(
    counters: LeasedCounterStore, other: SqliteCounterStore
) -> None:
    await lease(counters)
    early, late = [granted(await counters.reserve(CHARGES, NOW)) for _ in range(2)]
    counters.settle(early, [0, 0, 0, 0])
    await counters.flush()
    counters.settle(late, [0, 0, 0, 0])
    await counters.flush()
    assert [(used, reserved) for used, reserved, _ in await seen(other)] == [(120_000, 0), (480_000, 0), (0, 0), (8, 0)]


async def test_settling_with_other_limits_of_the_same_counter_adds_up(
    counters: LeasedCounterStore, other: SqliteCounterStore
) -> None:
    reservations = [
        granted(await counters.reserve(charges_for({"budget": budget}, cost=10), NOW)) for budget in ("1", "2", "2")
    ]
    for reservation in reservations:
        counters.settle(reservation, [3])
    await counters.flush()
    assert await seen(other, charges_for({"budget": "1"})) == [(9, 0, 120)]


async def test_everything_is_given_back_at_the_end(path: Path, other: SqliteCounterStore) -> None:
    counters = LeasedCounterStore(SqliteCounterStore(path, Clock(NOW / 1000)))
    await lease(counters)
    counters.settle(granted(await counters.reserve(CHARGES, NOW)), [1, 4, 0, 4])
    await counters.aclose()
    assert await seen(other) == [(180_000, 0, 0), (720_000, 0, 0), (0, 0, 0), (12, 0, 0)]


async def test_leases_are_written_and_given_back_on_their_own(
    counters: LeasedCounterStore, other: SqliteCounterStore, own_writes: None
) -> None:
    for _ in range(2):
        counters.settle(granted(await counters.reserve(CHARGES, NOW)), [1, 4, 0, 4])
    async with asyncio.timeout(30):
        while not any(leased for _, _, leased in await seen(other)):
            await asyncio.sleep(0)
        while any(leased for _, _, leased in await seen(other)):
            await asyncio.sleep(0)
    assert await seen(other) == [(120_000, 0, 0), (480_000, 0, 0), (0, 0, 0), (8, 0, 0)]


async def test_reading_shows_no_lease_of_this_worker(counters: LeasedCounterStore) -> None:
    await lease(counters)
    granted(await counters.reserve(CHARGES, NOW))
    found = await counters.read(CHARGES, NOW)
    assert [(counter.used, counter.reserved) for counter in found] == [(180_000, 0), (480_000, 10), (0, 1), (8, 10)]


async def test_a_request_that_does_not_fit_takes_the_leases_of_its_own_worker(
    counters: LeasedCounterStore, other: SqliteCounterStore
) -> None:
    await lease(counters)
    reservation = granted(await counters.reserve(charges_for(BUDGET, cost=9_992), NOW))
    assert reservation.amounts == [9_992]
    assert refused(await counters.reserve(CHARGES, NOW)).charge.limit.kind == "budget"
    await counters.flush()
    assert (await seen(other))[3] == (8, 9_992, 0)


async def test_a_reservation_is_extended_by_what_was_leased(
    counters: LeasedCounterStore, other: SqliteCounterStore
) -> None:
    await lease(counters)
    reservation = granted(await counters.reserve(CHARGES, NOW))
    assert not await counters.extend(reservation, 3, 9_983, NOW)
    assert await counters.extend(reservation, 3, 9_982, NOW)
    assert reservation.amounts[3] == 9_992
    counters.settle(reservation, [1, 4, 0, 9_000])
    await counters.flush()
    assert (await seen(other))[3][:2] == (9_008, 0)


@pytest.fixture
async def second(path: Path) -> AsyncIterator[LeasedCounterStore]:
    store = LeasedCounterStore(SqliteCounterStore(path, Clock(NOW / 1000)), Clock(NOW / 1000))
    yield store
    await store.aclose()


async def test_a_request_waits_until_another_worker_has_given_its_leases_back(
    counters: LeasedCounterStore, second: LeasedCounterStore, own_writes: None
) -> None:
    await lease(counters)
    waiting = [asyncio.create_task(second.reserve(charges_for(BUDGET, cost=4_996), NOW)) for _ in range(3)]
    outcomes = await asyncio.gather(*waiting)
    assert sorted(isinstance(outcome, Reservation) for outcome in outcomes) == [False, True, True]


async def test_a_stream_waits_for_the_leases_of_another_worker(
    counters: LeasedCounterStore, second: LeasedCounterStore, own_writes: None
) -> None:
    await lease(counters)
    reservation = granted(await second.reserve(charges_for(BUDGET, cost=2), NOW))
    assert await second.extend(reservation, 0, 9_990, NOW)
    assert not await second.extend(reservation, 0, 1, NOW)


async def test_nothing_is_leased_while_somebody_waits(counters: LeasedCounterStore, other: SqliteCounterStore) -> None:
    await lease(counters)
    refused(await other.reserve(charges_for(BUDGET, cost=9_990), NOW))
    granted(await counters.reserve(CHARGES, NOW))
    await counters.flush()
    assert [leased for _, _, leased in await seen(other)] == [6, 60, 6, 0]


async def test_a_request_waits_for_a_moment_only(
    counters: LeasedCounterStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker is stopped, or dead."""
    monkeypatch.setattr(leased_store, "MAX_WAIT_SECONDS", 0.0)
    await lease(counters)
    second = LeasedCounterStore(SqliteCounterStore(path, Clock(NOW / 1000)))
    assert refused(await second.reserve(charges_for(BUDGET, cost=9_990), NOW)).is_waiting_for_others
    reservation = granted(await second.reserve(charges_for(BUDGET, cost=2), NOW))
    assert not await second.extend(reservation, 0, 9_990, NOW)
    await second.aclose()


async def test_what_a_dead_worker_has_leased_is_released(path: Path, other: SqliteCounterStore) -> None:
    clock = Clock(NOW / 1000)
    dead = LeasedCounterStore(SqliteCounterStore(path, Clock(NOW / 1000)), clock)
    await lease(dead)
    heir = SqliteCounterStore(path, Clock(NOW / 1000 + DEAD_AFTER_SECONDS - 1))
    await heir.heartbeat()
    assert (await seen(other))[3] == (8, 0, 80)
    later = SqliteCounterStore(path, Clock(NOW / 1000 + 2 * DEAD_AFTER_SECONDS))
    await later.heartbeat()
    assert (await seen(other))[3] == (8, 0, 0)
    for each in (heir, later, dead):
        await each.aclose()


async def test_a_worker_that_was_stopped_grants_nothing_from_its_leases(path: Path, other: SqliteCounterStore) -> None:
    wall, clock = Clock(NOW / 1000), Clock(NOW / 1000)
    shared = CountingStore(path, wall)
    stopped = LeasedCounterStore(shared, clock)
    await lease(stopped)
    unknown = granted(await stopped.reserve(CHARGES, NOW))  # not written yet
    clock.now += VALID_SECONDS + 0.001
    wall.now += 2 * DEAD_AFTER_SECONDS
    await shared.heartbeat()  # it counts as dead, and goes on as another one
    assert (await seen(other))[3] == (8, 0, 0)
    running = granted(await stopped.reserve(CHARGES, NOW))
    assert shared.reserved == 3
    await stopped.flush()
    assert (await seen(other))[3] == (8, 10, 80)  # nothing is reserved for the id that it had
    stopped.settle(unknown, [1, 4, 0, 4])
    stopped.settle(running, [1, 4, 0, 4])
    await stopped.aclose()
    assert (await seen(other))[3] == (16, 0, 0)


async def test_leases_stay_as_they_are_while_the_file_cannot_be_written(
    shared: CountingStore, counters: LeasedCounterStore, other: SqliteCounterStore
) -> None:
    await lease(counters)
    reservation = granted(await counters.reserve(CHARGES, NOW))
    with full_disk():
        await counters.flush()
        assert (counters.is_up, counters.problem is None) == (False, False)
        granted(await counters.reserve(CHARGES, NOW))  # it was reserved before
        with pytest.raises(CounterStoreUnavailable):
            await counters.reserve(charges_for(BUDGET, cost=100), NOW)
    counters.settle(reservation, [1, 4, 0, 4])
    await counters.flush()
    assert (counters.is_up, counters.problem) == (True, None)
    assert (await seen(other))[3] == (12, 10, 45)


async def test_leases_are_renewed_as_soon_as_the_file_is_free(
    path: Path, counters: LeasedCounterStore, other: SqliteCounterStore
) -> None:
    await lease(counters)
    granted(await counters.reserve(CHARGES, NOW))
    with locked_database(path):
        writing = asyncio.create_task(counters.flush())
        await asyncio.sleep(0)
    await writing
    assert (await seen(other))[3] == (8, 10, 60)


async def test_the_shared_store_is_kept(counters: LeasedCounterStore, path: Path) -> None:
    """Its heartbeats go on."""
    await counters.flush()
    connection = sqlite_file.connect(path, 1.0)
    async with running(counters), asyncio.timeout(30):
        while not connection.execute("SELECT id FROM workers").fetchall():
            await asyncio.sleep(0)
    connection.close()
