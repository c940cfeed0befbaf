"""What a limit has counted stays counted, however the limit is written later, and whatever the clock has shown meanwhile."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.limits.store import CounterStore
from gateway.limits.stores import open_counter_store
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from tests.support.limits import NOW, STORES, charges_for, granted, open_store, refused
from tests.support.tokens import Clock

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
WINDOWS = ("", "/day", "/week", "/month")


@pytest.fixture(params=STORES)
async def counters(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CounterStore]:
    store = open_store(request.param, tmp_path / COUNTERS_FILE)
    yield store
    await store.aclose()


async def spend(counters: CounterStore, limits: dict[str, object], cost: int, now: int = NOW) -> None:
    counters.settle(granted(await counters.reserve(charges_for(limits, cost=cost, now=now), now)), [cost])


@pytest.mark.parametrize("per", WINDOWS)
@pytest.mark.parametrize("other", WINDOWS)
async def test_a_budget_of_another_window_begins_with_what_was_used_in_it(
    counters: CounterStore, per: str, other: str
) -> None:
    await spend(counters, {"budget": f"0.0001{per}"}, 60)
    [changed] = await counters.read(charges_for({"budget": f"0.0001{other}"}), NOW)
    assert changed.used == 60
    refused(await counters.reserve(charges_for({"budget": f"0.0001{other}"}, cost=41), NOW))
    await spend(counters, {"budget": f"0.0001{other}"}, 40)
    refused(await counters.reserve(charges_for({"budget": f"0.0001{per}"}, cost=1), NOW))


async def test_what_was_used_the_day_before_counts_for_the_week_and_not_for_the_day(counters: CounterStore) -> None:
    await spend(counters, {"budget": "0.0001/day"}, 60, NOW - DAY_MS)
    await spend(counters, {"budget": "0.0001/day"}, 5)
    used = {}
    for per in WINDOWS:
        [counter] = await counters.read(charges_for({"budget": f"1{per}"}), NOW)
        used[per] = counter.used
    assert used == {"": 65, "/day": 5, "/week": 65, "/month": 65}


async def test_a_request_that_used_nothing_leaves_no_counter_behind(counters: CounterStore) -> None:
    await spend(counters, {"budget": "0.0001/day"}, 0)
    [week] = await counters.read(charges_for({"budget": "0.0001/week"}), NOW)
    assert (week.used, week.reserved) == (0, 0)


@pytest.mark.parametrize("spelling", ["gpt-4**", "GPT-4*", "gpt-4***"])
async def test_another_spelling_of_a_pattern_has_the_same_counters(counters: CounterStore, spelling: str) -> None:
    limits = {"rpm": 1, "budget": "0.0001"}
    charges = charges_for({"models": {"gpt-4*": limits}}, cost=60)
    counters.settle(granted(await counters.reserve(charges, NOW)), [1, 60])
    rpm, budget = await counters.read(charges_for({"models": {spelling: limits}}), NOW)
    assert (rpm.used, budget.used) == (60_000, 60)


async def test_a_rate_from_the_future_is_forgotten(counters: CounterStore) -> None:
    """A clock that was an hour ahead when a request was counted does not keep the token waiting for an hour."""
    ahead = NOW + HOUR_MS
    counters.settle(granted(await counters.reserve(charges_for({"rpm": 1}, now=ahead), ahead)), [1])
    counters.settle(granted(await counters.reserve(charges_for({"rpm": 1}), NOW)), [1])
    assert refused(await counters.reserve(charges_for({"rpm": 1}), NOW + 1000)).retry_after_ms == 59_000


async def test_a_clock_that_was_a_little_ahead_gives_no_request_more(counters: CounterStore) -> None:
    ahead = NOW + 60_000
    counters.settle(granted(await counters.reserve(charges_for({"rpm": 1}, now=ahead), ahead)), [1])
    refused(await counters.reserve(charges_for({"rpm": 1}), NOW))
    assert refused(await counters.reserve(charges_for({"rpm": 1}), NOW + 20_000)).retry_after_ms == 40_000


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_refused_request_sets_a_time_in_the_future_right_for_the_next_process(
    kind: str, tmp_path: Path
) -> None:
    """With a debt that is not forgotten the request is refused: the corrected time has to be written all the same."""
    ahead = NOW + 60_000
    first = open_store(kind, tmp_path / COUNTERS_FILE)
    first.settle(granted(await first.reserve(charges_for({"rpm": 1}, now=ahead), ahead)), [1])
    refused(await first.reserve(charges_for({"rpm": 1}), NOW))
    second = first if kind == "memory" else open_store(kind, tmp_path / COUNTERS_FILE)
    granted(await second.reserve(charges_for({"rpm": 1}), NOW + 60_000))
    await second.aclose()
    if second is not first:
        await first.aclose()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_jump_of_the_wall_clock_pays_no_rate_back_and_deletes_no_budget(kind: str, tmp_path: Path) -> None:
    """Rates have a clock of their own; the wall clock is set three days ahead, and right again."""
    rates = Clock(NOW / 1000)
    store = open_counter_store(kind, tmp_path, Clock(NOW / 1000), rates)
    limits = {"rpm": 2, "budget": "0.0001/day"}
    for now in (NOW, NOW + 3 * DAY_MS):
        charges = charges_for(limits, cost=60, now=now)
        store.settle(granted(await store.reserve(charges, now)), [1, 60])
    charges = charges_for(limits, cost=10)
    exceeded = refused(await store.reserve(charges, NOW))
    assert (exceeded.charge.limit.kind, exceeded.retry_after_ms) == ("requests", 30_000)
    rates.now += 30
    reservation = granted(await store.reserve(charges, NOW))
    assert not await store.extend(reservation, 0, 1, NOW + DAY_MS)
    rpm, budget = await store.read(charges, NOW)
    assert (rpm.used, budget.used) == (120_000, 60)
    await store.aclose()
