"""The contract of counters, which every implementation keeps."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.limits.store import CounterStore, CounterStoreUnavailable, LimitExceeded
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from tests.support.limits import NOW, charges_for, granted
from tests.support.tokens import Clock


def make(kind: str, folder: Path) -> CounterStore:
    path = folder / COUNTERS_FILE
    return MemoryCounterStore(path) if kind == "memory" else SqliteCounterStore(path, Clock())


@pytest.fixture(params=["memory", "sqlite"])
async def counters(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CounterStore]:
    made = make(request.param, tmp_path)
    yield made
    await made.aclose()


async def test_a_rate_lets_a_minutes_worth_through_and_then_one_at_a_time(counters: CounterStore) -> None:
    charges = charges_for({"rpm": 3})
    for _ in range(3):
        granted(await counters.reserve(charges, NOW))
    refusal = await counters.reserve(charges, NOW)
    assert isinstance(refusal, LimitExceeded)
    assert (refusal.retry_after_ms, refusal.is_waiting_for_others) == (20_000, False)
    assert isinstance(await counters.reserve(charges, NOW + 19_999), LimitExceeded)
    granted(await counters.reserve(charges, NOW + 20_000))
    assert isinstance(await counters.reserve(charges, NOW + 20_000), LimitExceeded)


async def test_all_demands_are_granted_or_none(counters: CounterStore) -> None:
    charges = charges_for({"rpm": 100, "tpm": 1000, "max_parallel": 1, "budget": "1"}, tokens=10, cost=10)
    first = granted(await counters.reserve(charges, NOW))
    for _ in range(200):
        refusal = await counters.reserve(charges, NOW)
        assert isinstance(refusal, LimitExceeded)
        assert refusal.charge.limit.kind == "parallel"
        assert refusal.is_waiting_for_others
    counters.settle(first, [1, 4, 0, 7])
    rpm, tpm, parallel, budget = await counters.read(charges, NOW)
    assert [rpm.used, tpm.used, budget.used] == [60_000, 240_000, 7]
    assert [tpm.reserved, parallel.reserved, budget.reserved] == [0, 0, 0]


async def test_an_estimate_gives_way_to_the_truth(counters: CounterStore) -> None:
    charges = charges_for({"tpm": 100, "budget": "0.0001"}, tokens=60, cost=60)
    first = granted(await counters.reserve(charges, NOW))
    refusal = await counters.reserve(charges, NOW)
    assert isinstance(refusal, LimitExceeded)
    assert refusal.is_waiting_for_others
    counters.settle(first, [10, 5])
    second = granted(await counters.reserve(charges, NOW))
    counters.settle(second, [500, 80])  # more than was ever asked for
    tpm, budget = await counters.read(charges, NOW)
    assert tpm.used == 510 * 60_000
    assert budget.used == 85
    refusal = await counters.reserve(charges_for({"tpm": 100}, tokens=1), NOW)
    assert isinstance(refusal, LimitExceeded)
    assert (refusal.retry_after_ms, refusal.is_waiting_for_others) == (411 * 600, False)


async def test_the_last_one_may_take_what_is_left(counters: CounterStore) -> None:
    charges = charges_for({"budget": "0.0001"}, cost=60, minimums=(0, 20))
    first = granted(await counters.reserve(charges, NOW))
    assert isinstance(
        await counters.reserve(charges, NOW), LimitExceeded
    )  # while somebody may still give back, it waits
    counters.settle(first, [60])
    second = granted(await counters.reserve(charges, NOW))
    assert second.amounts == [40]
    counters.settle(second, [30])
    refusal = await counters.reserve(charges, NOW)
    assert isinstance(refusal, LimitExceeded)
    assert (refusal.retry_after_ms, refusal.is_waiting_for_others) == (None, False)


async def test_a_reservation_grows_as_long_as_there_is_something_left(counters: CounterStore) -> None:
    charges = charges_for({"budget": "0.0001"}, cost=60)
    reservation = granted(await counters.reserve(charges, NOW))
    assert await counters.extend(reservation, 0, 40, NOW)
    assert not await counters.extend(reservation, 0, 1, NOW)
    assert reservation.amounts == [100]
    counters.settle(reservation, [90])
    [budget] = await counters.read(charges, NOW)
    assert (budget.used, budget.reserved) == (90, 0)


async def test_money_has_windows_that_need_no_reset(counters: CounterStore) -> None:
    for per, length in (("day", 86_400_000), ("week", 7 * 86_400_000), ("month", 31 * 86_400_000)):
        limits = {"budget": f"0.0001/{per}"}
        counters.settle(granted(await counters.reserve(charges_for(limits, cost=100), NOW)), [100])
        refusal = await counters.reserve(charges_for(limits, cost=1), NOW)
        assert isinstance(refusal, LimitExceeded)
        assert refusal.retry_after_ms is not None
        assert 0 < refusal.retry_after_ms <= length
        later = NOW + refusal.retry_after_ms
        assert isinstance(await counters.reserve(charges_for(limits, cost=1, now=later - 1), later - 1), LimitExceeded)
        granted(await counters.reserve(charges_for(limits, cost=100, now=later), later))


async def test_tokens_and_models_are_counted_apart(counters: CounterStore) -> None:
    limits = {"rpm": 2, "models": {"gpt-4*": {"rpm": 1}}}
    granted(await counters.reserve(charges_for(limits), NOW))
    assert isinstance(await counters.reserve(charges_for(limits, model="gpt-4o-mini"), NOW), LimitExceeded)
    granted(await counters.reserve(charges_for(limits, model="claude"), NOW))
    assert isinstance(await counters.reserve(charges_for(limits, model="claude"), NOW), LimitExceeded)
    granted(await counters.reserve(charges_for(limits, limited="tok_b"), NOW))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_was_spent_outlives_the_process_and_what_was_reserved_does_not(kind: str, tmp_path: Path) -> None:
    charges = charges_for({"budget": "0.0001", "max_parallel": 1}, cost=60)
    first = make(kind, tmp_path)
    first.settle(granted(await first.reserve(charges, NOW)), [0, 30])
    granted(await first.reserve(charges, NOW))
    await first.aclose()
    second = make(kind, tmp_path)
    reservation = granted(await second.reserve(charges, NOW))
    assert reservation.counters[1].used == 30
    await second.aclose()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_file_that_is_no_database_lets_nobody_with_a_budget_through(kind: str, tmp_path: Path) -> None:
    (tmp_path / COUNTERS_FILE).write_bytes(b"this is no database" * 100)
    counters = make(kind, tmp_path)
    with pytest.raises(CounterStoreUnavailable):
        await counters.reserve(charges_for({"budget": "1"}, cost=1), NOW)
    assert not counters.is_up
    await counters.aclose()


@pytest.mark.parametrize("kinds", [("memory", "sqlite"), ("sqlite", "memory")])
async def test_nobodys_budget_is_refilled_when_the_number_of_workers_changes(
    tmp_path: Path, kinds: tuple[str, str]
) -> None:
    charges = charges_for({"budget": "0.0001"}, cost=60)
    for kind in kinds:
        counters = make(kind, tmp_path)
        counters.settle(granted(await counters.reserve(charges, NOW)), [30])
        await counters.aclose()
    counters = make(kinds[0], tmp_path)
    [budget] = await counters.read(charges, NOW)
    assert budget.used == 60
    await counters.aclose()


async def test_settlements_are_never_lost_while_the_file_is_held(tmp_path: Path) -> None:
    path = tmp_path / COUNTERS_FILE
    counters = SqliteCounterStore(path, Clock())
    running = asyncio.create_task(counters.run())
    charges = charges_for({"budget": "1"}, cost=10)
    reservation = granted(await counters.reserve(charges, NOW))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    counters.settle(reservation, [7])
    late = asyncio.create_task(counters.reserve(charges, NOW))
    while not counters._thread_must_flush.is_set() and counters.pending:
        await asyncio.sleep(0)
    assert not late.done()
    other.execute("ROLLBACK")
    other.close()
    counters.settle(granted(await late), [5])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await counters.aclose()
    again = MemoryCounterStore(path)
    [budget] = await again.read(charges, NOW)
    assert (budget.used, budget.reserved) == (12, 0)
    await again.aclose()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_file_that_is_taken_away_is_made_anew(kind: str, tmp_path: Path) -> None:
    """In memory nothing is lost by it; in the file the counts are gone, but all workers go on with the same new one."""
    counters = make(kind, tmp_path)
    charges = charges_for({"budget": "0.0001"}, cost=60, minimums=(0, 30))
    running = asyncio.create_task(counters.run())
    counters.settle(granted(await counters.reserve(charges, NOW)), [60])
    while counters.pending:
        await asyncio.sleep(0.01)
    for path in tmp_path.iterdir():
        path.unlink()
    async with asyncio.timeout(10):
        while not (tmp_path / COUNTERS_FILE).exists():
            await asyncio.sleep(0.01)
    reservation = granted(await counters.reserve(charges, NOW))
    assert reservation.amounts == [40 if kind == "memory" else 60]
    counters.settle(reservation, [30])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await counters.aclose()
    again = make("memory", tmp_path)
    [budget] = await again.read(charges, NOW)
    assert budget.used == (90 if kind == "memory" else 30)
    await again.aclose()
