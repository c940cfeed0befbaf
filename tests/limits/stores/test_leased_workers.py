"""Four processes that lease units of the same limits: together they grant exactly what the limits allow."""

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, TypeAlias, cast

import pytest

from gateway.limits.algorithms import Charge
from gateway.limits.leases import leased_amount
from gateway.limits.store import LimitExceeded, Reservation
from gateway.limits.stores.leased import LeasedCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE, DEAD_AFTER_SECONDS
from tests.support.limits import NOW, charges_for, running
from tests.support.tokens import Clock

PROCESSES = 4
CLIENTS = 8
"""Requests at a time in each process."""
COST = 7
ALLOWED = 5_000
MOST_AT_ONCE = 100
FORK = multiprocessing.get_context("fork")
Count: TypeAlias = "Synchronized[int]"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / COUNTERS_FILE


@asynccontextmanager
async def worker(path: Path) -> AsyncIterator[LeasedCounterStore]:
    counters = LeasedCounterStore(SqliteCounterStore(path, time.time))
    async with running(counters):
        yield counters
    await counters.aclose()


def run_processes(target: Callable[..., None], *arguments: Any) -> None:
    processes = [FORK.Process(target=target, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(110)
    assert [process.exitcode for process in processes] == [0] * PROCESSES


async def ask_until_refused(counters: LeasedCounterStore, charges: list[Charge], actual: list[int]) -> int:
    """Returns how many requests were granted. Some are settled at once, others after a while."""
    count = 0
    while True:
        reservation = await counters.reserve(charges, NOW)
        if isinstance(reservation, LimitExceeded):
            if leased_amount(reservation.counter):
                continue  # the machine is so busy that another process did not run for a second
            break
        count += 1
        await asyncio.sleep(random.choice((0, 0, 0.001, 0.012)))
        counters.settle(reservation, actual)
        if count % 50 == 0:
            await asyncio.sleep(random.random() * 0.2)  # its leases are idle meanwhile
    return count


def grant_all(path: Path, limits: dict[str, Any], actual: list[int], granted: Count) -> None:
    async def work() -> None:
        charges = charges_for(limits, tokens=COST, cost=COST)
        async with worker(path) as counters:
            counts = await asyncio.gather(*[ask_until_refused(counters, charges, actual) for _ in range(CLIENTS)])
        with granted.get_lock():
            granted.value += sum(counts)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("limits", "actual", "parts"),
    [
        ({"rpm": ALLOWED}, [1], 60_000),
        ({"tpm": ALLOWED * COST + COST - 1}, [COST], 60_000 * COST),
        ({"budget": str(ALLOWED * COST / 1_000_000)}, [COST], COST),
    ],
    ids=["rpm", "tpm", "budget"],
)
def test_exactly_as_many_requests_are_granted_as_a_limit_allows(
    path: Path, limits: dict[str, Any], actual: list[int], parts: int
) -> None:
    granted = cast("Count", FORK.Value("q", 0))
    run_processes(grant_all, path, limits, actual, granted)

    async def found() -> tuple[int, int]:
        counters = SqliteCounterStore(path, Clock())
        [counter] = await counters.read(charges_for(limits), NOW)
        await counters.aclose()
        return counter.used, counter.reserved

    used, reserved = asyncio.run(found())
    assert (granted.value, used, reserved) == (ALLOWED, ALLOWED * parts, 0)


def run_at_once(path: Path, now: Count, most: Count) -> None:
    charges = charges_for({"max_parallel": MOST_AT_ONCE})

    async def request(counters: LeasedCounterStore) -> None:
        for _ in range(60):
            reservation = await counters.reserve(charges, NOW)
            if isinstance(reservation, Reservation):
                with now.get_lock():
                    now.value += 1
                    most.value = max(most.value, now.value)
                await asyncio.sleep(random.choice((0, 0.001, 0.02)))
                with now.get_lock():
                    now.value -= 1
                counters.settle(reservation, [0])
            await asyncio.sleep(0)

    async def work() -> None:
        async with worker(path) as counters:
            await asyncio.gather(*[request(counters) for _ in range(MOST_AT_ONCE // 2)])

    asyncio.run(work())


def test_never_more_run_at_once_than_a_limit_allows(path: Path) -> None:
    now, most = cast("Count", FORK.Value("q", 0)), cast("Count", FORK.Value("q", 0))
    run_processes(run_at_once, path, now, most)
    assert MOST_AT_ONCE // 2 < most.value <= MOST_AT_ONCE


def spend_and_tell(path: Path, told: Count) -> None:
    async def work() -> None:
        charges = charges_for({"budget": "1000"}, cost=COST)
        async with worker(path) as counters:
            while isinstance(reservation := await counters.reserve(charges, NOW), Reservation):
                counters.settle(reservation, [COST])
                with told.get_lock():
                    told.value += 1
                await asyncio.sleep(0)

    asyncio.run(work())


async def test_a_killed_worker_loses_its_last_milliseconds_and_keeps_nothing_reserved(path: Path) -> None:
    told = cast("Count", FORK.Value("q", 0))
    process = FORK.Process(target=spend_and_tell, args=(path, told))
    process.start()
    counters = SqliteCounterStore(path, Clock(time.time() + DEAD_AFTER_SECONDS + 1))
    async with asyncio.timeout(60):
        while told.value < 2000:
            await asyncio.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.join, 60)
    charges = charges_for({"budget": "1000"})
    [before] = await counters.read(charges, NOW)
    assert leased_amount(before) > 0
    await counters.heartbeat()
    [after] = await counters.read(charges, NOW)
    assert after.reserved == 0
    assert before.used <= told.value * COST <= before.used + leased_amount(before)
    await counters.aclose()
