"""Money that is settled while a request runs: in the end the counters are as if it had been settled once."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits.limiter import Limiter
from gateway.limits.models import Counter
from gateway.limits.store import CounterStore, Reservation
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from tests.support.limits import NOW, STORES, capacity_request, charges_for, granted, open_store
from tests.support.tokens import Clock

LIMITS = {"rpm": 1000, "tpm": 100_000, "max_parallel": 50, "budget": "1/day"}
MONTH = {"budget": "1/month"}


@pytest.fixture(params=STORES)
async def counters(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CounterStore]:
    store = open_store(request.param, tmp_path / COUNTERS_FILE)
    yield store
    await store.aclose()


async def amounts(counters: CounterStore, limits: dict[str, object]) -> list[tuple[int, int]]:
    """What is used and reserved."""
    return [(one.used, one.reserved) for one in await counters.read(charges_for(limits), NOW)]


async def money(counters: CounterStore) -> tuple[int, int]:
    return (await amounts(counters, LIMITS))[3]


async def test_what_is_used_so_far_counts_and_the_rest_stays_reserved(counters: CounterStore) -> None:
    limiter = Limiter(counters, Clock(), 0)
    reservation = await limiter.reserve(capacity_request(LIMITS, tokens=10, cost=100), 0)
    seen = []
    for cost in (0, 30, 30, 80):
        limiter.settle_so_far(reservation, cost)
        seen.append(await money(counters))
    assert seen == [(0, 100), (30, 70), (30, 70), (80, 20)]
    assert (await amounts(counters, LIMITS))[1:3] == [(0, 10), (0, 1)], "rates and requests at a time wait for the end"
    limiter.settle(reservation, [1, 7, 0, 90])
    assert await money(counters) == (90, 0)
    assert await amounts(counters, MONTH) == [(90, 0)], "and it counts in the other windows of the day"


async def test_more_than_was_reserved_counts_and_less_is_taken_back(counters: CounterStore) -> None:
    limiter = Limiter(counters, Clock(), 0)
    reservation = await limiter.reserve(capacity_request(LIMITS, tokens=10, cost=100), 0)
    seen = []
    for cost in (150, 40, 120):
        limiter.settle_so_far(reservation, cost)
        seen.append(await money(counters))
    assert seen == [(150, 0), (40, 110), (120, 30)]
    assert await limiter.extend(reservation, 3, 50)
    assert await money(counters) == (120, 80)
    limiter.settle(reservation, [1, 0, 0, 0])
    assert await money(counters) == (0, 0)
    assert await amounts(counters, MONTH) == [(0, 0)]


async def test_what_was_used_so_far_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    for kind in STORES:
        killed = open_store(kind, tmp_path / f"{kind}.sqlite")
        limiter = Limiter(killed, Clock(), 0)
        reservation = await limiter.reserve(capacity_request(LIMITS, cost=100), 0)
        limiter.settle_so_far(reservation, 30)
        await killed.flush()
        again = open_store(kind, tmp_path / f"{kind}.sqlite")
        assert (await money(again))[0] == 30
        await again.aclose()


def test_a_counter_never_counts_below_nothing() -> None:
    """Where its file was replaced in between, less is there than is taken back."""
    [charge] = charges_for({"budget": "1"})
    counter = Counter(used=5)
    charge.limit.settle(counter, 0, -7)
    assert counter.used == 0


EVENTS = st.lists(
    st.tuples(st.sampled_from(["begin", "tick", "extend", "end", "cancel"]), st.integers(0, 3), st.integers(0, 2000)),
    max_size=25,
)


async def play(counters: CounterStore, events: list[tuple[str, int, int]], *, ticks: bool) -> list[Counter]:
    """Does what happens to some requests, and ends those that still run. Returns the counters then."""
    limiter, running = Limiter(counters, Clock(), 0), dict[int, Reservation]()
    for what, number, amount in events:
        reservation = running.get(number)
        if reservation is None:
            if what == "begin":
                running[number] = granted(
                    await counters.reserve(charges_for(LIMITS, tokens=amount, cost=amount, minimums=(0, 0)), NOW)
                )
        elif what == "tick" and ticks:
            limiter.settle_so_far(reservation, amount)
        elif what == "extend":
            await limiter.extend(reservation, 3, amount)
        elif what in ("end", "cancel"):
            del running[number]
            limiter.settle(reservation, [1, amount, 0, amount] if what == "end" else [0, 0, 0, 0])
        used, reserved = await money(counters)
        assert reserved >= 0
        assert used + reserved >= sum(max(one.amounts[3], one.settled_money) for one in running.values())
    for reservation in running.values():
        limiter.settle(reservation, [1, 3, 0, 5])
    return [*await counters.read(charges_for(LIMITS), NOW), *await counters.read(charges_for(MONTH), NOW)]


@pytest.mark.parametrize("kind", STORES)
@given(events=EVENTS)
@settings(deadline=None)
def test_settling_on_the_way_never_changes_what_counts_in_the_end(
    kind: str, events: list[tuple[str, int, int]]
) -> None:
    async def both() -> None:
        found = []
        for ticks in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                counters = open_store(kind, Path(folder) / COUNTERS_FILE)
                found.append(await play(counters, events, ticks=ticks))
                await counters.aclose()
        assert found[0] == found[1]
        assert all(counter.reserved == 0 for counter in found[1])

    asyncio.run(both())
