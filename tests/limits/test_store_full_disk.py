"""What was used is counted on a full disk, or refused; nothing is forgotten once there is space."""

from pathlib import Path

import pytest

from gateway.limits.store import CounterStore, CounterStoreUnavailable
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from tests.support.disk import full_disk
from tests.support.limits import NOW, charges_for, granted, refused
from tests.support.tokens import Clock

CHARGES = charges_for({"budget": "0.0001"}, cost=40)  # a hundred micro-dollars


async def spend(counters: CounterStore) -> None:
    counters.settle(granted(await counters.reserve(CHARGES, NOW)), [40])


async def used(counters: CounterStore) -> list[int]:
    return [counter.used for counter in await counters.read(CHARGES, NOW)]


async def test_one_worker_counts_in_memory_and_writes_when_there_is_space(tmp_path: Path) -> None:
    counters = MemoryCounterStore(tmp_path / COUNTERS_FILE)
    await spend(counters)
    await counters.flush()
    with full_disk():
        await spend(counters)
        refused(await counters.reserve(CHARGES, NOW))
        await counters.flush()
        assert (counters.is_up, counters.pending) == (False, 1)
    await counters.flush()
    assert (counters.is_up, counters.pending) == (True, 0)
    await counters.aclose()
    restarted = MemoryCounterStore(tmp_path / COUNTERS_FILE)
    assert await used(restarted) == [80]
    await restarted.aclose()


async def test_one_worker_that_starts_there_refuses_budgets_until_it_can_read(tmp_path: Path) -> None:
    before = MemoryCounterStore(tmp_path / COUNTERS_FILE)
    await spend(before)
    await before.aclose()
    with full_disk():
        counters = MemoryCounterStore(tmp_path / COUNTERS_FILE)
        await counters.flush()
        assert not counters.is_up
        with pytest.raises(CounterStoreUnavailable):
            await counters.reserve(CHARGES, NOW)
        granted(await counters.reserve(charges_for({"rpm": 1}), NOW))
    await counters.flush()
    assert counters.is_up
    assert await used(counters) == [40]
    await counters.aclose()


async def test_of_several_workers_none_counts_alone_and_what_was_running_is_counted(tmp_path: Path) -> None:
    counters = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock(NOW / 1000))
    await spend(counters)
    running = granted(await counters.reserve(CHARGES, NOW))
    with full_disk():
        counters.settle(running, [50])
        with pytest.raises(CounterStoreUnavailable):
            await counters.reserve(CHARGES, NOW)
        await counters.flush()
        await counters.heartbeat()
        assert (counters.is_up, counters.pending) == (False, 1)
    await counters.flush()
    await counters.heartbeat()
    assert (counters.is_up, counters.pending) == (True, 0)
    refused(await counters.reserve(CHARGES, NOW))
    await counters.aclose()
    other = SqliteCounterStore(tmp_path / COUNTERS_FILE, Clock(NOW / 1000))
    assert await used(other) == [90]
    await other.aclose()
