"""How long counting in a file holds up the event loops of four processes that hammer one row, and that of one process just
after the write-ahead log has been emptied. It prints figures: how long a disk takes cannot be promised.

Full length: GATEWAY_TEST_CAMPAIGN=full, 30 seconds instead of 2.

``python -m tests.campaigns.test_blocking_campaign FILE SECONDS`` is one of the processes. It times each step that
SqliteCounterStore takes on the loop, and tells why a step took long: the kernel counts apart how often a thread gave the
processor
up of its own accord, because it waited for a lock, the disk or another thread, and how often it was made to by the scheduler.
Without a busy timeout SQLite would still nap, ever longer, where others write between its two looks at the head of the log: so
whose turn it is, a lock beside it says.
"""

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from gateway.limits.store import Reservation
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from gateway.limits.stores.sqlite_transactions import TRANSACTIONS_PER_CHECKPOINT, DatabaseBusy, SqliteTransactions
from tests.support.gateway import ROOT, environment
from tests.support.limits import charges_for

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
SECONDS = 30.0 if FULL else 2.0
CHECKPOINTS = 500 if FULL else 20
PROCESSES = 4
HANDS = 4
"""Tasks of each process that reserve and settle."""
AIM_MS = 5.0
LIMITS = {"rpm": 10**9, "tpm": 10**12, "max_parallel": 10**6, "budget": "999999999"}
PROBE_SECONDS = 0.001

T = TypeVar("T")

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(300)]


class Step(NamedTuple):
    """One synchronous step on the loop. Times in milliseconds; ``waits`` are the times it gave the processor up itself."""

    wall: float
    cpu: float
    waits: int
    preempted: int
    is_refused: bool
    """Others had locked the file: a thread does it instead."""


class Measured(SqliteTransactions):
    """Takes the time of each step."""

    def __init__(self, path: Path, checkpoint_every: int = TRANSACTIONS_PER_CHECKPOINT) -> None:
        super().__init__(path, checkpoint_every=checkpoint_every)
        self.steps: list[Step] = []

    def run_on_loop(self, work: Callable[..., T]) -> T:
        before, cpu, began = resource.getrusage(resource.RUSAGE_THREAD), time.thread_time(), time.perf_counter()
        is_refused = False
        try:
            return super().run_on_loop(work)
        except DatabaseBusy:
            is_refused = True
            raise
        finally:
            wall, spent = time.perf_counter() - began, time.thread_time() - cpu
            after = resource.getrusage(resource.RUSAGE_THREAD)
            self.steps.append(
                Step(
                    wall * 1000,
                    spent * 1000,
                    after.ru_nvcsw - before.ru_nvcsw,
                    after.ru_nivcsw - before.ru_nivcsw,
                    is_refused,
                )
            )


async def hammer(path: Path, seconds: float) -> dict[str, Any]:
    """What one process has measured."""
    file = Measured(path)
    counters = SqliteCounterStore(path, time.time, file)
    background = asyncio.create_task(counters.run())
    deadline, done = time.monotonic() + seconds, [0] * HANDS
    lags: list[float] = []

    async def reserve_and_settle(number: int) -> None:
        while time.monotonic() < deadline:
            now = int(time.time() * 1000)
            reservation = await counters.reserve(charges_for(LIMITS, 10, 10, now=now), now)
            assert isinstance(reservation, Reservation)
            done[number] += 1
            await asyncio.sleep(0)
            counters.settle(reservation, [1, 5, 0, 5])
            await asyncio.sleep(0)

    async def probe() -> None:
        loop = asyncio.get_running_loop()
        while time.monotonic() < deadline:
            began = time.perf_counter()
            rung = loop.create_future()
            loop.call_later(PROBE_SECONDS, rung.set_result, None)
            await rung
            lags.append((time.perf_counter() - began - PROBE_SECONDS) * 1000)

    async with asyncio.TaskGroup() as group:
        group.create_task(probe())
        for number in range(HANDS):
            group.create_task(reserve_and_settle(number))
    background.cancel()
    await asyncio.wait([background])
    await counters.aclose()
    return {"done": sum(done), "steps": file.steps, "lags": lags}


def spread(values: list[float]) -> str:
    """In milliseconds."""
    if not values:
        return "none"
    ordered = sorted(values)
    median, p99 = ordered[len(ordered) // 2], ordered[(len(ordered) - 1) * 99 // 100]
    return f"{len(values)}: median {median:.3f}, p99 {p99:.3f}, max {ordered[-1]:.3f} ms"


def test_a_step_on_the_loop_does_not_wait_for_the_file(tmp_path: Path) -> None:
    path = tmp_path / COUNTERS_FILE
    command = [sys.executable, "-m", "tests.campaigns.test_blocking_campaign", str(path), str(SECONDS)]
    hammers = [
        subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE) for _ in range(PROCESSES)
    ]
    told = [json.loads(process.communicate(timeout=SECONDS + 60)[0]) for process in hammers]
    assert {process.returncode for process in hammers} == {0}
    steps = [Step(*step) for one in told for step in one["steps"]]
    waiting = [step for step in steps if step.waits]
    unhindered = [step.wall for step in steps if not step.waits and not step.preempted]
    print(f"\ncampaign blocking: {PROCESSES} processes on one row, {SECONDS:.0f} s, {os.cpu_count()} processors")
    print(f"  {sum(one['done'] for one in told)} reservations, {sum(step.is_refused for step in steps)} of "
          f"{len(steps)} steps left to the thread")  # fmt: skip
    print(f"  every step, whatever delayed it:  {spread([step.wall for step in steps])}")
    print(f"  steps that nothing interrupted:   {spread(unhindered)}")
    print(f"  processor time of every step:     {spread([step.cpu for step in steps])}")
    print(f"  steps that waited for something:  {spread([step.wall for step in waiting])}")
    print(f"    without being preempted, too:   {spread([step.wall for step in waiting if not step.preempted])}")
    print(f"    that were refused:              {spread([step.wall for step in waiting if step.is_refused])}")
    print(
        f"  lag of a timer of 1 ms, with the scheduler's part: {spread([lag for one in told for lag in one['lags']])}"
    )
    over = [step for step in waiting if not step.preempted and step.wall - step.cpu > AIM_MS]
    print(f"  over {AIM_MS:.0f} ms of waiting, not preempted: {len(over)}")
    used, reserved = counted(path)
    assert (used, set(reserved)) == (5 * sum(one["done"] for one in told), {0})


def counted(path: Path) -> tuple[int, list[int]]:
    """The money of the one token, and what is reserved of each of its limits."""
    connection = sqlite_file.connect(path, 1.0)
    try:
        (counters,) = sqlite_file.read_all(connection).values()
    finally:
        connection.close()
    (budget,) = (counter for name, counter in counters.items() if name.endswith("|all"))
    return budget.used, [counter.reserved for counter in counters.values()]


async def test_a_step_after_a_checkpoint(tmp_path: Path) -> None:
    """The first writer after a complete checkpoint begins the log anew, and SQLite syncs the log's new head: the thread is
    that writer, within the same turn."""
    file = Measured(tmp_path / COUNTERS_FILE, checkpoint_every=2)
    try:
        await file.run_to_completion(seen)
        for _ in range(CHECKPOINTS):
            file.run_on_loop(seen)
            file.run_on_loop(seen)
            assert await file.run_and_checkpoint(seen) is None
    finally:
        file.close()
    after = [step.wall - step.cpu for step in file.steps[2::2]]
    others = [step.wall - step.cpu for step in file.steps[3::2]]
    print("\ncampaign blocking, one process, time of a step on the loop that is not processor time:")
    print(f"  after a checkpoint: {spread(after)}")
    print(f"  after another step: {spread(others)}")
    print(f"  over {AIM_MS:.0f} ms: {sum(ms > AIM_MS for ms in after)} and {sum(ms > AIM_MS for ms in others)}")


def seen(connection: sqlite3.Connection) -> None:
    """A small change."""
    connection.execute("INSERT OR REPLACE INTO workers VALUES (1, 1)")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hammer(Path(sys.argv[1]), float(sys.argv[2])))))
