"""Several workers on one file: sums are exact, and the dead give back what they held."""

import asyncio
import multiprocessing
import time
from pathlib import Path

from gateway.limits.counters import Refusal
from gateway.limits.counters_file import COUNTERS_FILE
from gateway.limits.sqlite import DEAD_SECONDS, SqliteCounters
from tests.support.limits import NOW, held, wanted
from tests.support.tokens import Clock

PROCESSES = 8
INCREMENTS = 10_000


def _add(path: Path) -> None:
    async def work() -> None:
        counters = SqliteCounters(path, time.time)
        running = asyncio.create_task(counters.run())
        demands = wanted({"rpm": 10**9, "budget": "999999999"}, money=5)
        for _ in range(INCREMENTS):
            counters.settle(held(await counters.reserve(demands, NOW)), [1, 3])
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
    counters = SqliteCounters(path, Clock())
    rpm, budget = await counters.levels(wanted({"rpm": 10**9, "budget": "999999999"}), NOW)
    assert rpm.used == PROCESSES * INCREMENTS * 60_000
    assert (budget.used, budget.reserved, budget.shares) == (PROCESSES * INCREMENTS * 3, 0, None)
    await counters.aclose()


async def test_a_dead_worker_gives_back_what_it_held(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / COUNTERS_FILE
    dead, alive = SqliteCounters(path, clock), SqliteCounters(path, clock)
    demands = wanted({"tpm": 100, "max_parallel": 1, "budget": "1"}, tokens=80, money=900_000)
    kept = held(await dead.reserve(demands, NOW))
    outcome = await alive.reserve(demands, NOW)
    assert isinstance(outcome, Refusal)
    assert outcome.is_held
    clock.now += DEAD_SECONDS
    await _house(alive)
    assert isinstance(await alive.reserve(demands, NOW), Refusal)
    clock.now += 1
    await _house(alive)
    again = held(await alive.reserve(demands, NOW))
    dead.settle(kept, [50, 0, 400_000])  # it was only asleep: what it used counts, what it held is not given back twice
    await dead._settle_there()
    levels = await alive.levels(demands, NOW)
    assert [level.reserved for level in levels] == [80, 1, 900_000]
    assert [levels[0].used, levels[2].used] == [50 * 60_000, 400_000]
    await _house(dead)
    alive.settle(again, [80, 0, 1])
    await alive.aclose()
    held(await dead.reserve(wanted({"max_parallel": 1}), NOW))
    await dead.aclose()


async def _house(counters: SqliteCounters) -> None:
    assert await counters._kept(counters._keep_house)


async def test_a_cancelled_reservation_reserves_nothing(tmp_path: Path) -> None:
    """Cancelled while the thread waits for the file, while it works, and after."""
    path = tmp_path / COUNTERS_FILE
    counters = SqliteCounters(path, Clock())
    running = asyncio.create_task(counters.run())
    demands = wanted({"max_parallel": 1})
    counters.settle(held(await counters.reserve(demands, NOW)), [0])
    await counters._settle_there()
    for steps in range(40):
        other = SqliteCounters(path, Clock())._file.reader()
        other.execute("BEGIN IMMEDIATE")
        request = asyncio.create_task(counters.reserve(demands, NOW))
        await asyncio.sleep(0)
        other.execute("ROLLBACK")
        other.close()
        for _ in range(steps * 10):
            await asyncio.sleep(0)
        request.cancel()
        outcome = (await asyncio.gather(request, return_exceptions=True))[0]
        if not isinstance(outcome, asyncio.CancelledError):
            counters.settle(held(outcome), [0])
        await asyncio.to_thread(lambda: counters._file._thread.submit(int).result())
        await asyncio.sleep(0)
        await counters._settle_there()
        [level] = await counters.levels(demands, NOW)
        assert (level.reserved, level.shares) == (0, None)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await counters.aclose()
