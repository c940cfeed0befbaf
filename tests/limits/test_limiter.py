"""Waiting in turn: nothing is granted beyond the limits, nothing is lost when somebody gives up, nobody starves."""

import asyncio
import collections
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits.algorithms import Charge, Counter
from gateway.limits.limiter import Limiter, ReservationRefused
from gateway.limits.store import CounterStoreUnavailable, LimitExceeded, Reservation
from gateway.limits.stores.memory import MemoryCounterStore
from tests.support.limits import capacity_request
from tests.support.tokens import Clock

PARENT = "tok_parent"


class SlowCounters(MemoryCounterStore):
    """Memory that lets others run before and after each reservation, as a file or a server does."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 1
        self.is_broken = False

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        for _ in range(self.pauses):
            await asyncio.sleep(0)
        if self.is_broken:
            raise CounterStoreUnavailable("broken for a test")
        outcome = await super().reserve(charges, now)
        try:
            for _ in range(self.pauses):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            if isinstance(outcome, Reservation):
                self.settle(outcome, [0] * len(charges))
            raise
        return outcome


@asynccontextmanager
async def limiting(counters: MemoryCounterStore, queue_size: int = 1000) -> AsyncIterator[Limiter]:
    limiter = Limiter(counters, Clock(), queue_size)
    running = asyncio.create_task(limiter.run())
    try:
        yield limiter
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def settle_all(turns: int = 50) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "finish", "cancel", "run"]), st.integers(0, 9)), min_size=1, max_size=80
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 3), st.integers(0, 2), st.booleans())
async def test_whatever_the_order_no_limit_is_passed_and_nothing_leaks(
    steps: list[tuple[str, int]], most: int, pauses: int, is_money: bool
) -> None:
    """Requests that begin, end and are given up at any moment: each step of the loop may come between."""
    counters = SlowCounters()
    counters.pauses = pauses
    limits = {"budget": "0.000030", "max_parallel": most} if is_money else {"max_parallel": most, "tpm": 1000}
    amounts = {"cost": 10, "tokens": 300}
    async with limiting(counters) as limiter:
        tasks: list[asyncio.Task[Reservation]] = []
        running: list[Reservation] = []
        spent = 0
        for verb, number in steps:
            if verb == "start":
                request = limiter.reserve(
                    capacity_request(limits, limited=PARENT, queue=f"tok_{number % 3}", **amounts), 60
                )
                tasks.append(asyncio.create_task(request))
            elif verb == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif verb == "finish" and running:
                done = running.pop(number % len(running))
                limiter.settle(done, [0 if d.limit.kind == "parallel" else 10 for d in done.charges])
                spent += 10
            for _ in range(number if verb == "run" else 1):
                await asyncio.sleep(0)
            ready = [task for task in tasks if task.done()]
            tasks = [task for task in tasks if not task.done()]
            outcomes = await asyncio.gather(*ready, return_exceptions=True)
            running += [outcome for outcome in outcomes if isinstance(outcome, Reservation)]
            assert len(running) <= most
            assert not is_money or spent + 10 * len(running) <= 30
            unexpected = (Reservation, ReservationRefused, asyncio.CancelledError)
            assert all(isinstance(outcome, unexpected) for outcome in outcomes), outcomes
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Reservation):
                running.append(outcome)
        for done in running:
            limiter.settle(done, [0] * len(done.charges))
        await settle_all()
        assert all(level.reserved == 0 for levels in counters._tokens.values() for level in levels.values())
        assert not limiter._queues
        assert not +limiter._awaited


@pytest.mark.parametrize("turns", range(12))
async def test_giving_up_at_any_await_leaves_nothing_behind(turns: int) -> None:
    counters = SlowCounters()
    async with limiting(counters) as limiter:
        first = await limiter.reserve(capacity_request({"max_parallel": 1}), 60)
        waiting = asyncio.create_task(limiter.reserve(capacity_request({"max_parallel": 1}), 60))
        await settle_all(5)
        limiter.settle(first, [0])
        await settle_all(turns)
        waiting.cancel()
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(outcome, Reservation):
            limiter.settle(outcome, [0])
        await settle_all()
        counters.pauses = 0
        await limiter.reserve(capacity_request({"max_parallel": 1}), 0)


async def test_one_token_with_many_waiting_does_not_starve_another() -> None:
    async with limiting(SlowCounters()) as limiter:
        shared = {"max_parallel": 1}
        running = await limiter.reserve(capacity_request(shared, limited=PARENT, queue="tok_noisy"), 60)
        served: list[str] = []

        async def request(token_id: str) -> None:
            reservation = await limiter.reserve(capacity_request(shared, limited=PARENT, queue=token_id), 60)
            served.append(token_id)
            await settle_all(3)
            limiter.settle(reservation, [0])

        noisy = [asyncio.create_task(request("tok_noisy")) for _ in range(100)]
        await settle_all()
        quiet = [asyncio.create_task(request(f"tok_{number}")) for number in range(5)]
        await settle_all()
        limiter.settle(running, [0])
        await asyncio.gather(*noisy, *quiet)
        assert all(served.index(f"tok_{number}") <= 6 for number in range(5))
        assert collections.Counter(served)["tok_noisy"] == 100


async def test_newcomers_do_not_pass_those_who_wait() -> None:
    counters = MemoryCounterStore()
    async with limiting(counters) as limiter:
        first = await limiter.reserve(capacity_request({"max_parallel": 1}), 60)
        waiting = asyncio.create_task(limiter.reserve(capacity_request({"max_parallel": 1}), 60))
        await settle_all(3)
        limiter.settle(first, [0])
        with pytest.raises(ReservationRefused):
            await limiter.reserve(capacity_request({"max_parallel": 1}), 0)
        assert isinstance(await waiting, Reservation)


async def test_who_waits_for_too_long_is_told_why() -> None:
    async with limiting(MemoryCounterStore()) as limiter:
        await limiter.reserve(capacity_request({"max_parallel": 1}), 60)
        with pytest.raises(ReservationRefused) as caught:
            await limiter.reserve(capacity_request({"max_parallel": 1}), 0.001)
        assert caught.value.limit_exceeded.charge.limit.kind == "parallel"
        assert not limiter._queues


async def test_what_no_waiting_can_mend_is_refused_at_once() -> None:
    async with limiting(MemoryCounterStore()) as limiter:
        await limiter.reserve(capacity_request({"rpm": 1, "max_parallel": 1}), 60)
        with pytest.raises(ReservationRefused) as caught:
            await limiter.reserve(capacity_request({"rpm": 1, "max_parallel": 1}), 60)
        assert caught.value.limit_exceeded.charge.limit.kind == "requests"


async def test_a_full_queue_refuses_at_once() -> None:
    async with limiting(MemoryCounterStore(), queue_size=2) as limiter:
        first = await limiter.reserve(capacity_request({"max_parallel": 1}), 60)
        waiting = [asyncio.create_task(limiter.reserve(capacity_request({"max_parallel": 1}), 60)) for _ in range(2)]
        await settle_all(3)
        with pytest.raises(ReservationRefused) as caught:
            await limiter.reserve(capacity_request({"max_parallel": 1}), 60)
        assert caught.value.is_queue_full
        limiter.settle(first, [0])
        limiter.settle(await waiting[0], [0])
        limiter.settle(await waiting[1], [0])


async def test_those_who_wait_learn_that_the_counters_are_down() -> None:
    counters = SlowCounters()
    async with limiting(counters) as limiter:
        first = await limiter.reserve(capacity_request({"max_parallel": 1}), 60)
        waiting = asyncio.create_task(limiter.reserve(capacity_request({"max_parallel": 1}), 60))
        await settle_all(5)
        counters.is_broken = True
        limiter.settle(first, [0])
        with pytest.raises(CounterStoreUnavailable):
            await waiting


async def test_others_are_looked_at_even_if_nobody_here_gives_anything_back() -> None:
    counters = MemoryCounterStore()
    async with limiting(counters) as limiter:
        await limiter.reserve(capacity_request({"max_parallel": 1}), 60)
        waiting = asyncio.create_task(limiter.reserve(capacity_request({"max_parallel": 1}), 60))
        await settle_all(5)
        counters._tokens["tok_a"]["|parallel"] = Counter()  # as another worker would do it
        assert isinstance(await waiting, Reservation)


async def test_who_waits_for_one_model_keeps_nobody_from_another() -> None:
    limits = {"rpm": 1000, "models": {"slow": {"max_parallel": 1}}}
    async with limiting(MemoryCounterStore()) as limiter:
        first = await limiter.reserve(capacity_request(limits, model="slow"), 60)
        waiting = asyncio.create_task(limiter.reserve(capacity_request(limits, model="slow"), 60))
        await settle_all(5)
        await limiter.reserve(capacity_request(limits, model="fast"), 0)
        with pytest.raises(ReservationRefused) as caught:
            await limiter.reserve(capacity_request(limits, model="slow"), 0)
        assert caught.value.limit_exceeded.charge.limit.kind == "parallel"
        limiter.settle(first, [1, 0])
        assert isinstance(await waiting, Reservation)
