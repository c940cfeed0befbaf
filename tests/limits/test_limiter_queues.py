"""How the queues go on without polling: after a request was granted, was cancelled, or failed while it was tried."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.limits.algorithms import Charge
from gateway.limits.limiter import Limiter, ReservationRefused
from gateway.limits.store import CounterStoreUnavailable, LimitExceeded, Reservation
from gateway.limits.stores.memory import MemoryCounterStore
from tests.support.limits import capacity_request
from tests.support.tokens import Clock


@asynccontextmanager
async def running(limiter: Limiter) -> AsyncIterator[None]:
    serving = asyncio.create_task(limiter.run())
    async with asyncio.timeout(30):
        yield
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


class CancellingStore(MemoryCounterStore):
    """Cancels a waiting request before it reserves."""

    def __init__(self) -> None:
        super().__init__()
        self.to_cancel: asyncio.Task[Reservation] | None = None

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        if self.to_cancel is not None:
            self.to_cancel.cancel()
            await asyncio.gather(self.to_cancel, return_exceptions=True)
        return await super().reserve(charges, now)


async def test_requests_are_served_after_a_queue_has_ended_while_another_was_tried() -> None:
    counters = CancellingStore()
    limiter = Limiter(counters, Clock(), queue_size=9, poll_seconds=None)
    ours, theirs = (capacity_request({"max_parallel": 1}, limited=token) for token in ("tok_a", "tok_b"))
    active, _ = [await limiter.reserve(request, 0) for request in (ours, theirs)]
    first, cancelled, last = (asyncio.create_task(limiter.reserve(request, 60)) for request in (ours, theirs, ours))
    async with running(limiter):
        while limiter.queued < 3:
            await asyncio.sleep(0)
        counters.to_cancel = cancelled
        limiter.settle(active, [0])
        limiter.settle(await first, [0])
        await last
    assert (cancelled.cancelled(), limiter.queued) == (True, 0)


async def test_the_next_request_is_tried_where_one_is_cancelled_while_it_is_tried() -> None:
    """It needs less, so it passes although the first one would not."""
    counters = CancellingStore()
    limiter = Limiter(counters, Clock(), queue_size=9, poll_seconds=None)
    large, small = (capacity_request({"budget": "0.0001"}, cost=cost) for cost in (100, 30))
    other = await limiter.reserve(capacity_request({"max_parallel": 1}, limited="tok_b"), 0)
    await limiter.reserve(small, 0)
    cancelled, last = (asyncio.create_task(limiter.reserve(request, 60)) for request in (large, small))
    async with running(limiter):
        while limiter.queued < 2:
            await asyncio.sleep(0)
        for _ in range(9):
            await asyncio.sleep(0)
        assert not last.done(), "it does not overtake"
        counters.to_cancel = cancelled
        limiter.settle(other, [0])
        assert (await last).amounts == [30]
    assert cancelled.cancelled()


async def test_all_that_fit_are_served_at_once_while_the_request_of_another_queue_does_not_fit() -> None:
    """Without polling."""
    limiter = Limiter(MemoryCounterStore(), Clock(), queue_size=9, poll_seconds=None)
    ours = capacity_request({"max_parallel": 2})
    theirs = capacity_request({"max_parallel": 1}, limited="tok_b")
    active = [await limiter.reserve(request, 0) for request in (ours, ours, theirs)]
    waiting = [asyncio.create_task(limiter.reserve(request, 60)) for request in (ours, ours, theirs)]
    async with running(limiter):
        while limiter.queued < 3:
            await asyncio.sleep(0)
        for reservation in active[:2]:
            limiter.settle(reservation, [0])
        await asyncio.gather(*waiting[:2])
        assert not waiting[2].done()
        limiter.settle(active[2], [0])
        await waiting[2]


class BrokenStore(MemoryCounterStore):
    is_broken = False

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        if self.is_broken:
            raise CounterStoreUnavailable("broken for a test")
        return await super().reserve(charges, now)


async def test_all_waiting_requests_learn_at_once_that_the_store_is_unavailable() -> None:
    """Without polling."""
    counters = BrokenStore()
    limiter = Limiter(counters, Clock(), queue_size=9, poll_seconds=None)
    request = capacity_request({"max_parallel": 1})
    active = await limiter.reserve(request, 0)
    waiting = [asyncio.create_task(limiter.reserve(request, 60)) for _ in range(2)]
    async with running(limiter):
        while limiter.queued < 2:
            await asyncio.sleep(0)
        counters.is_broken = True
        limiter.settle(active, [0])
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CounterStoreUnavailable] * 2


async def test_a_request_that_was_never_tried_again_is_refused_with_the_first_reason() -> None:
    """Nothing serves the queues."""
    limiter = Limiter(MemoryCounterStore(), Clock(), queue_size=9)
    request = capacity_request({"max_parallel": 1})
    await limiter.reserve(request, 0)
    with pytest.raises(ReservationRefused) as refused:
        await limiter.reserve(request, 0.001)
    assert refused.value.limit_exceeded.charge.limit.kind == "parallel"
