"""The contract of counter stores, which every implementation keeps, and the decision that they share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.limits.algorithms import BudgetWindow, Charge, Concurrency, RequestsPerMinute
from gateway.limits.calendar_windows import CalendarWindow
from gateway.limits.models import Counter, TokenCounters
from gateway.limits.store import (
    CounterStore,
    CounterStoreUnavailable,
    LimitExceeded,
    decide,
    find_counter,
    find_counters,
)
from gateway.limits.stores import open_counter_store
from gateway.limits.stores.leased import LeasedCounterStore
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from tests.support.limits import NOW, STORES, charges_for, granted, open_store, refused
from tests.support.tokens import Clock

DAY_MS = 86_400_000


@pytest.fixture(params=STORES)
async def counters(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CounterStore]:
    store = open_store(request.param, tmp_path / COUNTERS_FILE)
    yield store
    await store.aclose()


async def test_a_rate_admits_the_whole_limit_at_once_and_then_one_at_a_time(counters: CounterStore) -> None:
    charges = charges_for({"rpm": 3})
    for _ in range(3):
        granted(await counters.reserve(charges, NOW))
    exceeded = refused(await counters.reserve(charges, NOW))
    assert (exceeded.retry_after_ms, exceeded.is_waiting_for_others) == (20_000, False)
    refused(await counters.reserve(charges, NOW + 19_999))
    granted(await counters.reserve(charges, NOW + 20_000))
    refused(await counters.reserve(charges, NOW + 20_000))


async def test_all_charges_are_reserved_or_none(counters: CounterStore) -> None:
    charges = charges_for({"rpm": 100, "tpm": 1000, "max_parallel": 1, "budget": "1"}, tokens=10, cost=10)
    first = granted(await counters.reserve(charges, NOW))
    for _ in range(200):
        exceeded = refused(await counters.reserve(charges, NOW))
        assert exceeded.charge.limit.kind == "parallel"
        assert exceeded.is_waiting_for_others
    counters.settle(first, [1, 4, 0, 7])
    rpm, tpm, parallel, budget = await counters.read(charges, NOW)
    assert [rpm.used, tpm.used, budget.used] == [60_000, 240_000, 7]
    assert [tpm.reserved, parallel.reserved, budget.reserved] == [0, 0, 0]


async def test_settling_replaces_the_estimate(counters: CounterStore) -> None:
    charges = charges_for({"tpm": 100, "budget": "0.0001"}, tokens=60, cost=60)
    first = granted(await counters.reserve(charges, NOW))
    assert refused(await counters.reserve(charges, NOW)).is_waiting_for_others
    counters.settle(first, [10, 5])
    second = granted(await counters.reserve(charges, NOW))
    counters.settle(second, [500, 80])  # more than was reserved
    tpm, budget = await counters.read(charges, NOW)
    assert tpm.used == 510 * 60_000
    assert budget.used == 85
    exceeded = refused(await counters.reserve(charges_for({"tpm": 100}, tokens=1), NOW))
    assert (exceeded.retry_after_ms, exceeded.is_waiting_for_others) == (411 * 600, False)


async def test_settling_updates_the_counters_of_the_reservation(counters: CounterStore) -> None:
    """The headers of the response are made of them."""
    reservation = granted(await counters.reserve(charges_for({"rpm": 9, "tpm": 100}, tokens=60), NOW))
    assert reservation.at == NOW
    assert [counter.reserved for counter in reservation.counters] == [0, 60]
    counters.settle(reservation, [1, 10])
    assert [(counter.used, counter.reserved) for counter in reservation.counters] == [(60_000, 0), (600_000, 0)]


async def test_what_was_used_is_to_be_told_of_each_charge(counters: CounterStore) -> None:
    reservation = granted(await counters.reserve(charges_for({"rpm": 9, "tpm": 100}, tokens=60), NOW))
    with pytest.raises(ValueError, match="is shorter"):
        counters.settle(reservation, [1])


async def test_a_request_that_was_never_sent_gives_everything_back(counters: CounterStore) -> None:
    charges = charges_for({"rpm": 1, "tpm": 9}, tokens=9)
    counters.settle(granted(await counters.reserve(charges, NOW)), [0, 0])
    await counters.flush()
    granted(await counters.reserve(charges, NOW))


async def test_an_estimate_is_cut_to_the_rest_where_nothing_else_is_reserved(counters: CounterStore) -> None:
    charges = charges_for({"budget": "0.0001"}, cost=60, minimums=(0, 20))
    first = granted(await counters.reserve(charges, NOW))
    refused(await counters.reserve(charges, NOW))  # the first request may still give something back
    counters.settle(first, [60])
    second = granted(await counters.reserve(charges, NOW))
    assert second.amounts == [40]
    counters.settle(second, [30])
    exceeded = refused(await counters.reserve(charges, NOW))
    assert (exceeded.retry_after_ms, exceeded.is_waiting_for_others) == (None, False)


async def test_a_reservation_is_extended_up_to_the_limit(counters: CounterStore) -> None:
    charges = charges_for({"budget": "0.0001"}, cost=60)
    reservation = granted(await counters.reserve(charges, NOW))
    assert await counters.extend(reservation, 0, 40, NOW)
    assert not await counters.extend(reservation, 0, 1, NOW)
    assert reservation.amounts == [100]
    counters.settle(reservation, [90])
    [budget] = await counters.read(charges, NOW)
    assert (budget.used, budget.reserved) == (90, 0)


async def test_what_flows_back_meanwhile_can_extend_a_reservation(counters: CounterStore) -> None:
    charges = charges_for({"rpm": 5, "tpm": 60}, tokens=60)
    counters.settle(granted(await counters.reserve(charges, NOW)), [1, 60])
    reservation = granted(await counters.reserve(charges_for({"rpm": 5, "tpm": 60}, tokens=30), NOW + 30_000))
    assert not await counters.extend(reservation, 1, 1, NOW + 30_999)
    assert await counters.extend(reservation, 1, 1, NOW + 31_000)
    assert reservation.amounts == [1, 31]


async def test_reading_changes_nothing(counters: CounterStore) -> None:
    charges = charges_for({"budget": "1"}, cost=10)
    counters.settle(granted(await counters.reserve(charges, NOW)), [7])
    [copy] = await counters.read(charges, NOW)
    copy.used = 999
    assert [counter.used for counter in await counters.read(charges, NOW)] == [7]


async def test_a_budget_begins_anew_with_each_window(counters: CounterStore) -> None:
    for per, length in (("day", DAY_MS), ("week", 7 * DAY_MS), ("month", 31 * DAY_MS)):
        limits, limited = {"budget": f"0.0001/{per}"}, f"tok_{per}"
        counters.settle(granted(await counters.reserve(charges_for(limits, cost=100, limited=limited), NOW)), [100])
        exceeded = refused(await counters.reserve(charges_for(limits, cost=1, limited=limited), NOW))
        assert exceeded.retry_after_ms is not None
        assert 0 < exceeded.retry_after_ms <= length
        later = NOW + exceeded.retry_after_ms
        refused(await counters.reserve(charges_for(limits, cost=1, limited=limited, now=later - 1), later - 1))
        granted(await counters.reserve(charges_for(limits, cost=100, limited=limited, now=later), later))


async def test_tokens_and_models_are_counted_apart(counters: CounterStore) -> None:
    limits = {"rpm": 2, "models": {"gpt-4*": {"rpm": 1}}}
    granted(await counters.reserve(charges_for(limits), NOW))
    refused(await counters.reserve(charges_for(limits, model="gpt-4o-mini"), NOW))
    granted(await counters.reserve(charges_for(limits, model="claude"), NOW))
    refused(await counters.reserve(charges_for(limits, model="claude"), NOW))
    granted(await counters.reserve(charges_for(limits, limited="tok_b"), NOW))


async def test_nothing_is_pending_after_a_flush(counters: CounterStore) -> None:
    assert counters.pending == 0
    counters.settle(granted(await counters.reserve(charges_for({"budget": "1"}, cost=10), NOW)), [7])
    assert counters.pending == 1
    await counters.flush()
    assert (counters.pending, counters.is_up) == (0, True)


async def test_a_reservation_knows_whether_it_has_a_budget(counters: CounterStore) -> None:
    with_budget = granted(await counters.reserve(charges_for({"rpm": 9, "budget": "1"}), NOW))
    without = granted(await counters.reserve(charges_for({"rpm": 9}), NOW))
    assert (with_budget.has_budget, without.has_budget) == (True, False)


@pytest.mark.parametrize("kind", STORES)
async def test_what_was_spent_outlives_the_process_and_what_was_reserved_does_not(kind: str, tmp_path: Path) -> None:
    charges = charges_for({"budget": "0.0001", "max_parallel": 1}, cost=60)
    first = open_store(kind, tmp_path / COUNTERS_FILE)
    first.settle(granted(await first.reserve(charges, NOW)), [0, 30])
    granted(await first.reserve(charges, NOW))
    await first.aclose()
    second = open_store(kind, tmp_path / COUNTERS_FILE)
    reservation = granted(await second.reserve(charges, NOW))
    assert reservation.counters[1].used == 30
    await second.aclose()


@pytest.mark.parametrize("kind", STORES)
async def test_with_a_file_that_is_no_database_no_request_with_a_budget_passes(kind: str, tmp_path: Path) -> None:
    (tmp_path / COUNTERS_FILE).write_bytes(b"this is no database" * 100)
    counters = open_store(kind, tmp_path / COUNTERS_FILE)
    with pytest.raises(CounterStoreUnavailable):
        await counters.reserve(charges_for({"budget": "1"}, cost=1), NOW)
    assert not counters.is_up
    await counters.aclose()


@pytest.mark.parametrize("kinds", [("memory", "leased"), ("leased", "memory"), ("sqlite", "leased")])
async def test_no_budget_is_refilled_when_the_number_of_workers_changes(tmp_path: Path, kinds: tuple[str, str]) -> None:
    charges = charges_for({"budget": "0.0001"}, cost=60)
    for kind in kinds:
        counters = open_store(kind, tmp_path / COUNTERS_FILE)
        counters.settle(granted(await counters.reserve(charges, NOW)), [30])
        await counters.aclose()
    counters = open_store(kinds[0], tmp_path / COUNTERS_FILE)
    [budget] = await counters.read(charges, NOW)
    assert budget.used == 60
    await counters.aclose()


def test_a_counter_is_added_once_with_the_end_of_its_window() -> None:
    counters: TokenCounters = {}
    limit = BudgetWindow("tok_a", None, 100, "day", {"day": CalendarWindow("2027-01-15", NOW + 5)})
    found = find_counter(counters, limit, NOW)
    assert (found, find_counter(counters, limit, None) is found) == (Counter(ends_at=NOW + 5), True)
    assert list(counters) == ["|budget|day|2027-01-15"]


def test_a_counter_is_refilled_only_up_to_a_given_time() -> None:
    limit = RequestsPerMinute("tok_a", None, 60)
    counters = {limit.name: Counter(used=60_000, at=NOW)}
    assert find_counter(counters, limit, None).used == 60_000
    assert find_counter(counters, limit, NOW + 1000).used == 0


@pytest.mark.parametrize(
    ("counter", "is_deleted"),
    [
        (Counter(ends_at=NOW - DAY_MS - 1), True),
        (Counter(ends_at=NOW - DAY_MS), False),
        (Counter(ends_at=NOW - DAY_MS - 1, reserved=1), False),
        (Counter(), False),
    ],
    ids=["ended a day ago", "ended lately", "reserved", "has no end"],
)
def test_a_window_is_deleted_a_day_after_its_end(counter: Counter, is_deleted: bool) -> None:
    counters = {"|budget|day|old": counter}
    limit = RequestsPerMinute("tok_a", None, 60)
    find_counter(counters, limit, None)
    assert list(counters) == ["|budget|day|old", limit.name]
    del counters[limit.name]
    find_counter(counters, limit, NOW)
    assert list(counters) == ([] if is_deleted else ["|budget|day|old"]) + [limit.name]


def test_a_window_is_deleted_only_when_another_counter_is_added() -> None:
    limit = RequestsPerMinute("tok_a", None, 60)
    counters = {"|budget|day|old": Counter(ends_at=1), limit.name: Counter()}
    find_counter(counters, limit, NOW)
    assert list(counters) == ["|budget|day|old", limit.name]


RPM = Charge(RequestsPerMinute("tok_a", None, 60), 1, 1)
PARALLEL = Charge(Concurrency("tok_a", None, 1), 1, 1)
DAY = Charge(BudgetWindow("tok_a", None, 100, "day", {"day": CalendarWindow("today", NOW + 5000)}), 50, 50)
ALWAYS = Charge(BudgetWindow("tok_b", None, 100), 50, 50)
FULL_RPM, FULL_PARALLEL, SPENT, RESERVED = Counter(60 * 60_000), Counter(0, 1), Counter(100), Counter(0, 100)


@pytest.mark.parametrize(
    ("charges", "counters", "index"),
    [
        ([RPM, DAY], [FULL_RPM, SPENT], 1),
        ([DAY, RPM], [SPENT, FULL_RPM], 0),
        ([DAY, ALWAYS], [SPENT, SPENT], 1),
        ([ALWAYS, DAY], [SPENT, SPENT], 0),
        ([PARALLEL, RPM], [FULL_PARALLEL, FULL_RPM], 1),
        ([RPM, PARALLEL], [FULL_RPM, FULL_PARALLEL], 0),
        ([PARALLEL, DAY], [FULL_PARALLEL, RESERVED], 1),
        ([PARALLEL, ALWAYS, DAY], [FULL_PARALLEL, RESERVED, RESERVED], 1),
        ([RPM, PARALLEL, DAY], [Counter(), FULL_PARALLEL, Counter()], 1),
    ],
)
def test_of_several_charges_that_do_not_fit_the_longest_wait_is_told(
    charges: list[Charge], counters: list[Counter], index: int
) -> None:
    """A charge that other requests cannot free goes first, then one that never fits, then the longest time."""
    exceeded = decide(charges, counters, NOW)
    assert isinstance(exceeded, LimitExceeded)
    assert (exceeded.charge, exceeded.counter) == (charges[index], counters[index])
    assert (exceeded.charges, exceeded.counters) == (charges, counters)


def test_a_store_in_memory_deletes_a_window_a_day_after_its_end() -> None:
    tokens = {"tok_a": {"ended": Counter(ends_at=NOW - DAY_MS - 1)}}
    find_counters(tokens, charges_for({"rpm": 1}), NOW)
    assert list(tokens["tok_a"]) == ["|requests"]


def test_a_charge_without_its_counter_is_an_error_although_another_one_does_not_fit() -> None:
    charges = charges_for({"rpm": 1, "max_parallel": 1})
    with pytest.raises(ValueError, match="is shorter"):
        decide(charges, [Counter(used=60_000)], NOW)


def test_what_fits_is_granted_with_its_amounts() -> None:
    assert decide([RPM, DAY], [Counter(), Counter(60)], NOW) == LimitExceeded(
        DAY, Counter(60), 5000, False, [RPM, DAY], [Counter(), Counter(60)]
    )
    assert decide([RPM, DAY], [Counter(), Counter(50)], NOW) == [1, 50]


@pytest.mark.parametrize(("name", "kind"), [("memory", MemoryCounterStore), ("sqlite", LeasedCounterStore)])
async def test_a_store_is_opened_by_its_name(tmp_path: Path, name: str, kind: type[CounterStore]) -> None:
    store = open_counter_store(name, tmp_path, Clock(), Clock())
    assert type(store) is kind
    store.settle(granted(await store.reserve(charges_for({"budget": "1"}, cost=5), NOW)), [5])
    await store.aclose()
    assert (tmp_path / COUNTERS_FILE).is_file()
