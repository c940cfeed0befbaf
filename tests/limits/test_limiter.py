"""Waiting requests: no limit is ever exceeded, nothing stays reserved for a cancelled one, no token starves."""

import asyncio
import collections
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits.algorithms import Charge
from gateway.limits.limiter import Limiter, ReservationRefused
from gateway.limits.store import CounterStoreUnavailable, LimitExceeded, Reservation
from gateway.limits.stores.memory import MemoryCounterStore
from tests.support.limits import NOW, capacity_request, charges_for
from tests.support.tokens import Clock

PARENT = "tok_parent"
ONE_AT_A_TIME = {"max_parallel": 1}


class SlowStore(MemoryCounterStore):
    """A store that lets other tasks run before and after each reservation, as a file or a server does."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 1
        self.is_broken = False

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        await loop_turns(self.pauses)
        if self.is_broken:
            raise CounterStoreUnavailable("broken for a test")
        outcome = await super().reserve(charges, now)
        try:
            await loop_turns(self.pauses)
        except asyncio.CancelledError:
            if isinstance(outcome, Reservation):
                self.settle(outcome, [0] * len(charges))
            raise
        return outcome


@asynccontextmanager
async def running_limiter(
    counters: MemoryCounterStore | None = None,
    *,
    queue_size: int = 1000,
    poll_seconds: float | None = 0.001,
    clock: Clock | None = None,
    queued: list[int] | None = None,
) -> AsyncIterator[Limiter]:
    limiter = Limiter(
        counters or MemoryCounterStore(),
        clock or Clock(),
        queue_size,
        (lambda count: None) if queued is None else queued.append,
        poll_seconds,
    )
    running = asyncio.create_task(limiter.run())
    try:
        yield limiter
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def loop_turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def start(limiter: Limiter, limits: dict[str, Any], max_wait: float = 60, **more: Any) -> asyncio.Task[Reservation]:
    return asyncio.create_task(limiter.reserve(capacity_request(limits, **more), max_wait))


STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "finish", "cancel", "run"]), st.integers(0, 9)), min_size=1, max_size=80
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 3), st.integers(0, 2), st.booleans())
async def test_in_any_order_of_events_no_limit_is_exceeded_and_nothing_stays_reserved(
    steps: list[tuple[str, int]], size: int, pauses: int, has_budget: bool
) -> None:
    """Requests begin, end and are cancelled at any moment, with each turn of the event loop between them."""
    counters = SlowStore()
    counters.pauses = pauses
    limits = {"budget": "0.000030", "max_parallel": size} if has_budget else {"max_parallel": size, "tpm": 1000}
    more = {"cost": 10, "tokens": 300, "limited": PARENT}
    async with running_limiter(counters) as limiter:
        tasks: list[asyncio.Task[Reservation]] = []
        running: list[Reservation] = []
        spent = 0
        for verb, number in steps:
            if verb == "start":
                tasks.append(start(limiter, limits, queue=f"tok_{number % 3}", **more))
            elif verb == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif verb == "finish" and running:
                done = running.pop(number % len(running))
                limiter.settle(done, [0 if charge.limit.kind == "parallel" else 10 for charge in done.charges])
                spent += 10
            await loop_turns(number if verb == "run" else 1)
            ready = [task for task in tasks if task.done()]
            tasks = [task for task in tasks if not task.done()]
            outcomes = await asyncio.gather(*ready, return_exceptions=True)
            running += [outcome for outcome in outcomes if isinstance(outcome, Reservation)]
            assert len(running) <= size
            assert not has_budget or spent + 10 * len(running) <= 30
            expected = (Reservation, ReservationRefused, asyncio.CancelledError)
            assert all(isinstance(outcome, expected) for outcome in outcomes), outcomes
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        running += [outcome for outcome in outcomes if isinstance(outcome, Reservation)]
        for done in running:
            limiter.settle(done, [0] * len(done.charges))
        await loop_turns()
        left = await counters.read(charges_for(limits, **more), NOW)
        assert [counter.reserved for counter in left] == [0, 0]
        assert limiter.queued == 0
        counters.pauses = 0
        fresh = {"max_parallel": size}
        await limiter.reserve(
            capacity_request(fresh, limited=PARENT), 0
        )  # no queue is left that it would have to wait behind


@pytest.mark.parametrize("turns", range(12))
async def test_a_request_that_is_cancelled_at_any_await_leaves_nothing_reserved_or_used(turns: int) -> None:
    counters, limits = SlowStore(), {"rpm": 10, "max_parallel": 1}
    async with running_limiter(counters) as limiter:
        first = await limiter.reserve(capacity_request(limits), 60)
        waiting = start(limiter, limits)
        await loop_turns(5)
        limiter.settle(first, [0, 0])
        await loop_turns(turns)
        waiting.cancel()
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(outcome, Reservation):
            limiter.settle(outcome, [0, 0])
        await loop_turns()
        assert [(one.used, one.reserved) for one in await counters.read(charges_for(limits), NOW)] == [(0, 0)] * 2
        counters.pauses = 0
        await limiter.reserve(capacity_request(limits), 0)


async def test_a_settlement_wakes_the_waiting_request() -> None:
    """Without polling nothing else does."""
    async with running_limiter(poll_seconds=None) as limiter:
        first = await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        waiting = start(limiter, ONE_AT_A_TIME)
        await loop_turns()
        assert not waiting.done()
        limiter.settle(first, [0])
        await loop_turns()
        assert waiting.done()
        assert (await waiting).amounts == [1]


async def test_what_another_worker_gives_back_is_found_by_polling() -> None:
    counters = MemoryCounterStore()
    async with running_limiter(counters) as limiter:
        await loop_turns()
        first = await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        waiting = start(limiter, ONE_AT_A_TIME)
        await loop_turns()
        counters.settle(first, [0])  # behind the limiter's back, as another worker does it
        assert (await waiting).amounts == [1]


async def test_one_settlement_lets_all_pass_that_fit() -> None:
    limits = {"tpm": 100}
    async with running_limiter(poll_seconds=None) as limiter:
        first = await limiter.reserve(capacity_request(limits, tokens=100), 60)
        waiting = [start(limiter, limits, tokens=50, limited="tok_a", queue=f"tok_{n}") for n in range(2)]
        waiting += [start(limiter, limits, tokens=50) for _ in range(2)]
        await loop_turns()
        limiter.settle(first, [0])
        await loop_turns()
        assert sum(task.done() for task in waiting) == 2
        for task in waiting:
            task.cancel()


async def test_a_token_with_many_waiting_requests_does_not_starve_another() -> None:
    async with running_limiter(SlowStore()) as limiter:
        first = await limiter.reserve(capacity_request(ONE_AT_A_TIME, limited=PARENT, queue="tok_noisy"), 60)
        served: list[str] = []

        async def request(token_id: str) -> None:
            reservation = await limiter.reserve(capacity_request(ONE_AT_A_TIME, limited=PARENT, queue=token_id), 60)
            served.append(token_id)
            await loop_turns(3)
            limiter.settle(reservation, [0])

        noisy = [asyncio.create_task(request("tok_noisy")) for _ in range(100)]
        await loop_turns()
        quiet = [asyncio.create_task(request(f"tok_{number}")) for number in range(5)]
        await loop_turns()
        limiter.settle(first, [0])
        await asyncio.gather(*noisy, *quiet)
        assert all(served.index(f"tok_{number}") <= 6 for number in range(5))
        assert collections.Counter(served)["tok_noisy"] == 100


async def test_a_new_request_does_not_overtake_a_waiting_one() -> None:
    """The limit on requests, which nobody waits for, is told as it is now."""
    limits = {"max_parallel": 1, "rpm": 10}
    async with running_limiter() as limiter:
        first = await limiter.reserve(capacity_request(limits), 60)
        waiting = start(limiter, limits)
        await loop_turns(3)
        limiter.settle(first, [0, 0])
        with pytest.raises(ReservationRefused) as caught:
            await limiter.reserve(capacity_request(limits), 0)
        exceeded = caught.value.limit_exceeded
        assert (exceeded.charge.limit.kind, exceeded.counter.reserved) == ("parallel", 0)
        assert (exceeded.retry_after_ms, exceeded.is_waiting_for_others) == (1000, True)
        assert (len(exceeded.charges), [counter.used for counter in exceeded.counters]) == (2, [0, 0])
        assert (await waiting).amounts == [1, 1]


async def test_a_new_request_waits_behind_the_waiting_one() -> None:
    """For the limit that the other waits for, although that is not its first."""
    limits = {"rpm": 100, "max_parallel": 1}
    async with running_limiter(poll_seconds=None) as limiter:
        first = await limiter.reserve(capacity_request(limits), 60)
        waiting = start(limiter, limits)
        await loop_turns()
        limiter.settle(first, [1, 0])
        behind = start(limiter, limits)
        await loop_turns()
        assert (waiting.done(), behind.done(), limiter.queued) == (True, False, 1)
        limiter.settle(await waiting, [1, 0])
        assert (await behind).amounts == [1, 1]


async def test_waiting_for_one_model_delays_nobody_with_another() -> None:
    limits = {"rpm": 1000, "models": {"slow": {"max_parallel": 1}}}
    async with running_limiter() as limiter:
        first = await limiter.reserve(capacity_request(limits, model="slow"), 60)
        waiting = start(limiter, limits, model="slow")
        await loop_turns()
        await limiter.reserve(capacity_request(limits, model="fast"), 0)
        with pytest.raises(ReservationRefused) as caught:
            await limiter.reserve(capacity_request(limits, model="slow"), 0)
        assert caught.value.limit_exceeded.charge.limit.kind == "parallel"
        limiter.settle(first, [1, 0])
        assert (await waiting).amounts == [1, 1]


async def test_a_request_that_waits_too_long_is_refused_with_the_reason() -> None:
    async with running_limiter() as limiter:
        await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        with pytest.raises(ReservationRefused, match="parallel") as caught:
            await limiter.reserve(capacity_request(ONE_AT_A_TIME), 0.001)
        assert caught.value.limit_exceeded.charge.limit.kind == "parallel"
        assert caught.value.limit_exceeded.counter.reserved == 1
        assert not caught.value.is_queue_full
        assert limiter.queued == 0


async def test_the_reason_is_the_one_of_the_last_try() -> None:
    """A waiting request first met the limit on requests at a time, then the limit on tokens."""
    limits = {"tpm": 100, "max_parallel": 2}
    async with running_limiter(poll_seconds=None) as limiter:
        first = await limiter.reserve(capacity_request(limits, tokens=50), 60)
        second = await limiter.reserve(capacity_request(limits, tokens=20), 60)
        waiting = start(limiter, limits, 0.5, tokens=40)
        await loop_turns()
        limiter.settle(second, [20, 0])
        assert first.amounts == [50, 1]
        with pytest.raises(ReservationRefused) as caught:
            await waiting
        assert caught.value.limit_exceeded.charge.limit.kind == "tokens"
        assert caught.value.limit_exceeded.counter.used == 20 * 60_000


async def test_what_is_granted_in_the_moment_of_the_timeout_is_not_lost() -> None:
    counters = MemoryCounterStore()
    async with running_limiter(counters) as limiter:
        await loop_turns()
        first = await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        waiting = start(limiter, ONE_AT_A_TIME, sys.float_info.min)
        await asyncio.sleep(0)
        counters.settle(first, [0])
        assert (await waiting).amounts == [1]
        assert limiter.queued == 0


async def test_a_limit_that_no_other_request_frees_refuses_at_once() -> None:
    limits = {"rpm": 1, "max_parallel": 1}
    async with running_limiter() as limiter:
        await limiter.reserve(capacity_request(limits), 60)
        with pytest.raises(ReservationRefused) as caught:
            await limiter.reserve(capacity_request(limits), 60)
        assert caught.value.limit_exceeded.charge.limit.kind == "requests"


async def test_a_waiting_request_that_no_waiting_can_help_any_more_is_refused() -> None:
    limits = {"budget": "0.0001"}
    async with running_limiter() as limiter:
        first = await limiter.reserve(capacity_request(limits, cost=100), 60)
        waiting = start(limiter, limits, cost=50)
        await loop_turns()
        limiter.settle(first, [100])
        with pytest.raises(ReservationRefused) as caught:
            await waiting
        assert caught.value.limit_exceeded.retry_after_ms is None


async def test_a_full_queue_refuses_at_once() -> None:
    async with running_limiter(queue_size=2) as limiter:
        first = await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        waiting = [start(limiter, ONE_AT_A_TIME) for _ in range(2)]
        await loop_turns(3)
        with pytest.raises(ReservationRefused) as caught:
            await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        assert caught.value.is_queue_full
        limiter.settle(first, [0])
        limiter.settle(await waiting[0], [0])
        limiter.settle(await waiting[1], [0])


async def test_the_number_of_waiting_requests_is_reported_whenever_it_changes() -> None:
    queued: list[int] = []
    async with running_limiter(queued=queued) as limiter:
        first = await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        waiting = [start(limiter, ONE_AT_A_TIME, queue=name) for name in ("tok_a", "tok_a", "tok_b")]
        await loop_turns()
        assert (queued, limiter.queued) == ([1, 2, 3], 3)
        waiting[1].cancel()
        await loop_turns()
        limiter.settle(first, [0])
        limiter.settle(await waiting[0], [0])
        await waiting[2]
        assert (queued, limiter.queued) == ([1, 2, 3, 2, 1, 0], 0)


async def test_a_window_that_ends_while_a_request_waits_is_not_charged() -> None:
    clock = Clock()
    limits = {"budget": "0.0001/day"}
    async with running_limiter(clock=clock) as limiter:
        first = await limiter.reserve(capacity_request(limits, cost=100), 60)
        waiting = start(limiter, limits, cost=100)
        await loop_turns()
        clock.now += 86_400
        later = await waiting  # of the new day, although the old one is still reserved
        ends = [reservation.charges[0].limit.ends_at for reservation in (first, later)]
        assert ends[1] == (ends[0] or 0) + 86_400_000


async def test_waiting_requests_learn_that_the_store_is_unavailable() -> None:
    counters = SlowStore()
    async with running_limiter(counters) as limiter:
        first = await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        waiting = start(limiter, ONE_AT_A_TIME)
        await loop_turns(5)
        counters.is_broken = True
        limiter.settle(first, [0])
        with pytest.raises(CounterStoreUnavailable):
            await waiting


@pytest.mark.parametrize("turns", range(6))
async def test_a_request_may_be_cancelled_while_the_store_becomes_unavailable(turns: int) -> None:
    counters = SlowStore()
    async with running_limiter(counters) as limiter:
        first = await limiter.reserve(capacity_request(ONE_AT_A_TIME), 60)
        waiting = start(limiter, ONE_AT_A_TIME)
        await loop_turns()
        counters.is_broken = True
        limiter.settle(first, [0])
        await loop_turns(turns)
        is_cancelled = waiting.cancel()
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError if is_cancelled else CounterStoreUnavailable)
        counters.is_broken, counters.pauses = False, 0
        assert limiter.queued == 0
        await limiter.reserve(capacity_request(ONE_AT_A_TIME), 0)


async def test_a_reservation_is_extended_at_the_time_of_the_clock() -> None:
    clock = Clock()
    async with running_limiter(clock=clock) as limiter:
        assert limiter.now() == NOW
        first = await limiter.reserve(capacity_request({"tpm": 60}, tokens=60), 0)
        limiter.settle(first, [60])
        clock.now += 30
        second = await limiter.reserve(capacity_request({"tpm": 60}, tokens=30), 0)
        assert not await limiter.extend(second, 0, 1)
        clock.now += 1
        assert await limiter.extend(second, 0, 1)
        assert second.amounts == [31]
