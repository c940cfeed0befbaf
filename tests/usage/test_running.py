"""Requests that still run: what they use is written while they do, unless they are short."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from gateway.core.threads import Threads
from gateway.usage.models import LedgerEntry, ReportQuery
from gateway.usage.running import SETTLED_AT_ONCE, RunningRequests
from gateway.usage.store import UsageStoreError
from gateway.usage.stores.memory import MemoryUsageStore
from tests.support.usage import ledger_entry


class FailingStore(MemoryUsageStore):
    """Fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        self.taken_over = 0
        self.written = 0

    def write_running(self, entries: Sequence[LedgerEntry]) -> None:
        if self.fails:
            raise UsageStoreError("no space left")
        self.written += len(entries)
        super().write_running(entries)

    def take_over(self) -> int:
        if self.fails:
            raise UsageStoreError("no space left")
        self.taken_over += 1
        return 2


class Stream:
    """A request that has used so much."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.cost = 0
        self.looks = 0
        self._known = -1

    def settle_so_far(self) -> LedgerEntry | None:
        self.looks += 1
        if self.cost == self._known:
            return None
        self._known = self.cost
        return ledger_entry(self.number, cost=self.cost)


class Setup:
    def __init__(self) -> None:
        self.store = FailingStore()
        self.failures = 0
        self.running = RunningRequests(self.store, Threads("ledger"), self._fail)

    def _fail(self) -> None:
        self.failures += 1

    @property
    def cost(self) -> int:
        return sum(row.totals.cost for row in self.store.report(ReportQuery(0, 10**12)))


async def test_what_a_long_stream_uses_is_written_again_and_again() -> None:
    setup, stream = Setup(), Stream()
    setup.running.add(stream)
    await setup.running.settle()
    for cost in (5, 9):
        stream.cost = cost
        await setup.running.settle()
        assert setup.cost == cost


async def test_a_stream_that_ends_soon_is_not_looked_at() -> None:
    setup, stream = Setup(), Stream()
    setup.running.add(stream)
    await setup.running.settle()
    setup.running.remove(stream)
    await setup.running.settle()
    assert (stream.looks, setup.store.written) == (0, 0)


async def test_a_stream_that_has_nothing_new_is_not_written() -> None:
    setup, stream = Setup(), Stream()
    setup.running.add(stream)
    for _ in range(5):
        await setup.running.settle()
    assert (stream.looks, setup.store.written) == (4, 1)


async def test_what_cannot_be_written_is_written_later(caplog: pytest.LogCaptureFixture) -> None:
    setup, one, other = Setup(), Stream(1), Stream(2)
    setup.running.add(one)
    setup.running.add(other)
    await setup.running.settle()
    setup.store.fails = True
    one.cost = other.cost = 3
    await setup.running.settle()
    assert (setup.failures, len(setup.running)) == (1, 2)
    assert "entries of running requests cannot be written" in caplog.text
    setup.running.remove(other)
    setup.store.fails = False
    await setup.running.settle()
    assert (setup.cost, setup.store.written) == (3, 1)


async def test_what_ends_while_a_write_fails_is_not_written_later() -> None:
    """Its final entry may be in the ledger by then."""
    setup, one, other = Setup(), Stream(1), Stream(2)
    setup.running.add(one)
    setup.running.add(other)
    await setup.running.settle()
    one.cost = other.cost = 3
    batch = {one: ledger_entry(1, cost=3), other: ledger_entry(2, cost=3)}
    setup.running.remove(other)
    setup.running.put_back(batch)
    assert setup.running.take() == {one: ledger_entry(1, cost=3)}


async def test_the_event_loop_goes_on_while_many_streams_are_settled() -> None:
    setup = Setup()
    streams = [Stream(number) for number in range(3 * SETTLED_AT_ONCE)]
    for stream in streams:
        setup.running.add(stream)
    await setup.running.settle()
    seen = []

    async def look() -> None:
        while len(seen) < 2:
            seen.append(sum(stream.looks for stream in streams))
            await asyncio.sleep(0)

    await asyncio.gather(setup.running.settle(), look())
    assert 0 < seen[0] < seen[1] < len(streams)


async def test_what_killed_processes_left_is_taken_over_once(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    setup.store.fails = True
    await setup.running.take_over()
    assert setup.store.taken_over == 0
    setup.store.fails = False
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        await setup.running.take_over()
        await setup.running.take_over()
    assert setup.store.taken_over == 1
    [record] = [one for one in caplog.records if one.name == "gateway.usage.running"]
    assert record.__dict__["count"] == 2
