"""The arithmetic of limits, against exact models of it."""

from collections.abc import Callable
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.algorithms import (
    MAX_CLOCK_SKEW_MS,
    MAX_COUNTER_VALUE,
    BudgetWindow,
    Charge,
    Concurrency,
    Limit,
    RequestsPerMinute,
    TokensPerMinute,
    actual_charges,
    refill_counters,
    reservable_amount,
    reserve_charges,
    settle_charges,
)
from gateway.limits.calendar_windows import CalendarWindow
from gateway.limits.models import Amounts, Counter
from tests.support.limits import NOW

STEPS = st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 50), st.integers(0, 60)), max_size=60)


@given(st.integers(1, 40), STEPS)
def test_a_rate_admits_exactly_what_a_bucket_of_fractions_admits(size: int, steps: list[tuple[int, int, int]]) -> None:
    """Every request that fits is granted, and no other."""
    limit, counter, now = TokensPerMinute("t", None, size), Counter(at=NOW), NOW
    available = Fraction(size)
    for elapsed, amount, actual in steps:
        now += elapsed
        limit.refill(counter, now)
        available = min(Fraction(size), available + Fraction(size * elapsed, 60_000))
        fits = amount <= available
        assert (reservable_amount(Charge(limit, amount, amount), counter) is not None) == fits
        if fits:
            limit.reserve(counter, amount)
            limit.settle(counter, amount, actual)
            available = min(Fraction(size), available - actual)
        assert limit.remaining(counter) == available // 1
        assert counter.reserved == 0


@given(st.integers(1, 40), st.lists(st.integers(0, 30_000), min_size=1, max_size=200))
def test_no_minute_admits_more_than_a_full_bucket_and_what_is_refilled(size: int, gaps: list[int]) -> None:
    limit, counter, now = RequestsPerMinute("t", None, size), Counter(), NOW
    passed: list[int] = []
    for gap in gaps:
        now += gap
        limit.refill(counter, now)
        if reservable_amount(Charge(limit, 1, 1), counter):
            limit.reserve(counter, 1)
            passed.append(now)
    for start in passed:
        assert sum(start <= at < start + 60_000 for at in passed) <= 2 * size


@given(st.integers(1, 10**12), st.integers(0, 10**9), st.integers(1, 10**6))
def test_a_request_passes_after_the_wait_and_not_before(size: int, used: int, minimum: int) -> None:
    limit, counter = TokensPerMinute("t", None, size), Counter(used=used * 60_000, at=NOW)
    if minimum <= limit.remaining(counter):
        return
    wait = limit.retry_after_ms(counter, minimum, NOW)
    if wait is None:
        assert minimum > size
        return
    limit.refill(counter, NOW + wait)
    assert minimum <= limit.remaining(counter)
    early = Counter(used=used * 60_000, at=NOW)
    limit.refill(early, NOW + wait - 1)
    assert minimum > limit.remaining(early)


@given(st.sampled_from([TokensPerMinute, Concurrency, BudgetWindow]), st.integers(0, 10**6), st.integers(0, 10**30))
def test_no_reported_use_breaks_a_counter(kind: type[Limit], amount: int, actual: int) -> None:
    counter = Counter()
    limit = kind("t", None, 10**12)
    limit.reserve(counter, amount)
    limit.settle(counter, amount, actual)
    assert 0 <= counter.used <= MAX_COUNTER_VALUE < 2**63
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(counter), type=Counter) == counter
    assert counter.reserved == 0


def test_a_clock_that_stands_still_or_goes_back_refills_nothing() -> None:
    """From the earlier time it goes on: a restart with the right time locks nobody out."""
    limit, counter = RequestsPerMinute("t", None, 1), Counter(used=60_000, at=NOW)
    for now in (NOW, NOW - MAX_CLOCK_SKEW_MS):
        limit.refill(counter, now)
        assert counter.used == 60_000
    limit.refill(counter, NOW - MAX_CLOCK_SKEW_MS + 60_000)
    assert counter.used == 0


def test_a_debt_from_the_future_is_void() -> None:
    limit, counter = RequestsPerMinute("t", None, 1), Counter(used=60_000, at=NOW + MAX_CLOCK_SKEW_MS + 1)
    limit.refill(counter, NOW)
    assert (counter.used, counter.at) == (0, NOW)


def test_reserved_tokens_are_not_refilled_before_they_are_settled() -> None:
    """Slow requests that turn out small must not pile up into one large burst."""
    limit, counter, now = TokensPerMinute("t", None, 1000), Counter(at=NOW), NOW
    reserved = 0
    for _ in range(10):
        if reservable_amount(Charge(limit, 990, 990), counter) is not None:
            limit.reserve(counter, 990)
            reserved += 1
        now += 60_000
        limit.refill(counter, now)
    assert reserved == 1
    limit.settle(counter, 990, 1)
    assert limit.remaining(counter) == 999


def test_one_absurd_report_locks_nobody_out_for_longer_than_an_hour() -> None:
    limit, counter = TokensPerMinute("t", None, 1000), Counter(at=NOW)
    limit.settle(counter, 0, 10**8)
    wait = limit.retry_after_ms(counter, 1, NOW)
    assert wait is not None
    assert wait <= 3_600_000


def test_a_million_additions_of_money_are_exact() -> None:
    limit, counter = BudgetWindow("t", None, 10**15), Counter()
    for number in range(10**6):
        limit.settle(counter, 0, 100_001 + number % 7)
    assert counter.used == sum(100_001 + number % 7 for number in range(10**6))


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        (RequestsPerMinute("t", "m*", 3), "requests"),
        (TokensPerMinute("t", "m*", 3), "tokens"),
        (Concurrency("t", "m*", 3), "parallel"),
    ],
)
def test_a_limit_without_a_window_is_named_by_its_models_and_kind(limit: Limit, kind: str) -> None:
    """The name is written to files."""
    assert (limit.name, limit.token_id, limit.model, limit.size) == (f"m*|{kind}", "t", "m*", 3)
    assert (limit.kind, limit.per, limit.ends_at) == (kind, None, None)
    assert type(limit)("t", None, 3).name == f"|{kind}"


def test_a_budget_has_the_name_of_its_window() -> None:
    daily = BudgetWindow("t", "m*", 5, "day", {"day": CalendarWindow("2027-01-15", NOW)})
    assert (daily.name, daily.per, daily.ends_at) == ("m*|budget|day|2027-01-15", "day", NOW)
    assert (BudgetWindow("t", None, 5).name, BudgetWindow("t", None, 5).ends_at) == ("|budget||all", None)


def test_only_tokens_and_money_need_an_estimate() -> None:
    kinds = (RequestsPerMinute, TokensPerMinute, Concurrency, BudgetWindow)
    assert [kind.needs_estimate for kind in kinds] == [False, True, False, True]


@pytest.mark.parametrize(
    ("limit", "amount", "minimum"),
    [
        (RequestsPerMinute("t", None, 100), 1, 1),
        (Concurrency("t", None, 100), 1, 1),
        (TokensPerMinute("t", None, 100), 100, 20),
        (TokensPerMinute("t", None, 20), 20, 20),
        (TokensPerMinute("t", None, 19), 300, 20),
        (TokensPerMinute("t", None, 1000), 300, 20),
        (BudgetWindow("t", None, 100), 5000, 40),
    ],
)
def test_what_a_request_is_charged(limit: Limit, amount: int, minimum: int) -> None:
    """An estimate of tokens is cut to the limit, unless even the least is above it."""
    assert limit.charge(Amounts(300, 20, 5000, 40)) == Charge(limit, amount, minimum)


@pytest.mark.parametrize(
    "limit", [TokensPerMinute("t", None, 10), Concurrency("t", None, 10), BudgetWindow("t", None, 10)]
)
def test_what_fits_exactly_is_reserved_whole(limit: Limit) -> None:
    counter = Counter()
    limit.reserve(counter, 4)
    assert reservable_amount(Charge(limit, 6, 6), counter) == 6
    assert reservable_amount(Charge(limit, 7, 1), counter) is None
    limit.reserve(counter, 6)
    assert (limit.remaining(counter), counter.reserved) == (0, 10)


@pytest.mark.parametrize(("minimum", "amount"), [(3, 3), (2, 3), (4, None)])
def test_an_estimate_is_cut_to_what_remains_where_the_minimum_fits(minimum: int, amount: int | None) -> None:
    assert reservable_amount(Charge(BudgetWindow("t", None, 10), 9, minimum), Counter(used=7)) == amount


def test_an_estimate_is_not_cut_while_something_is_reserved() -> None:
    assert reservable_amount(Charge(BudgetWindow("t", None, 10), 9, 1), Counter(used=6, reserved=1)) is None


@pytest.mark.parametrize(
    ("used", "reserved", "is_waiting"),
    [(0, 10, True), (6, 4, True), (6, 1, True), (7, 3, False), (6, 0, False), (10, 1, False)],
)
def test_waiting_helps_where_the_minimum_fits_without_what_others_have_reserved(
    used: int, reserved: int, is_waiting: bool
) -> None:
    limit = BudgetWindow("t", None, 10)
    assert limit.is_waiting_for_others(Counter(used=used, reserved=reserved), 4) is is_waiting


@pytest.mark.parametrize(
    ("limit", "counter", "minimum", "wait"),
    [
        (RequestsPerMinute("t", None, 60), Counter(used=60 * 60_000), 1, 1000),
        (RequestsPerMinute("t", None, 60), Counter(used=59 * 60_000 + 1), 1, 1),
        (TokensPerMinute("t", None, 60), Counter(used=0), 1, 1),
        (TokensPerMinute("t", None, 60), Counter(used=60_000), 60, 1000),
        (TokensPerMinute("t", None, 60), Counter(used=60_000), 61, None),
        (Concurrency("t", None, 1), Counter(reserved=1), 1, 1000),
        (BudgetWindow("t", None, 10), Counter(used=10), 1, None),
        (BudgetWindow("t", None, 10, "day", {"day": CalendarWindow("d", NOW + 7)}), Counter(used=10), 1, 7),
        (BudgetWindow("t", None, 10, "day", {"day": CalendarWindow("d", NOW + 7)}), Counter(used=10), 10, 7),
        (BudgetWindow("t", None, 10, "day", {"day": CalendarWindow("d", NOW + 7)}), Counter(used=10), 11, None),
        (BudgetWindow("t", None, 10, "day", {"day": CalendarWindow("d", NOW)}), Counter(used=10), 1, 1),
    ],
)
def test_how_long_to_wait(limit: Limit, counter: Counter, minimum: int, wait: int | None) -> None:
    assert limit.retry_after_ms(counter, minimum, NOW) == wait


def test_a_request_counts_when_it_is_reserved_and_not_again_when_it_is_settled() -> None:
    limit, counter = RequestsPerMinute("t", None, 3), Counter(at=NOW)
    limit.reserve(counter, 1)
    assert (counter, limit.used(counter), limit.remaining(counter)) == (Counter(60_000, 0, NOW), 1, 2)
    limit.settle(counter, 1, actual_charges([limit.one_request], 500, 500)[0])
    assert counter.used == 60_000
    limit.settle(counter, 1, 0)  # it was never sent
    assert counter.used == 0
    limit.settle(counter, 1, 0)
    assert counter.used == 0


def test_what_a_new_counter_and_an_empty_estimate_have() -> None:
    assert Counter() == Counter(used=0, reserved=0, at=0, ends_at=None, reserved_by_worker=None)
    assert Amounts() == Amounts(tokens=0, minimum_tokens=0, cost=0, minimum_cost=0)


def test_only_rates_have_headers() -> None:
    kinds = (RequestsPerMinute, TokensPerMinute, Concurrency, BudgetWindow)
    assert [kind.headers is not None for kind in kinds] == [True, True, False, False]


def test_concurrency_counts_nothing_as_used() -> None:
    assert actual_charges([Concurrency("t", None, 3).one_request], 500, 500) == [0]
    limit, counter = Concurrency("t", None, 3), Counter()
    limit.reserve(counter, 1)
    limit.settle(counter, 1, actual_charges([limit.one_request], 500, 500)[0])
    assert (counter, limit.used(counter)) == (Counter(), 0)
    limit.refill(counter, NOW)
    assert counter == Counter()


def test_settling_more_than_is_reserved_leaves_nothing_reserved() -> None:
    """After the reservations of a dead worker were released."""
    for limit in (TokensPerMinute("t", None, 9), Concurrency("t", None, 9), BudgetWindow("t", None, 9)):
        counter = Counter(reserved=1)
        limit.settle(counter, 2, 0)
        assert counter.reserved == 0


def test_a_part_of_a_token_counts_as_one_used() -> None:
    limit = TokensPerMinute("t", None, 10)
    assert [limit.used(Counter(used=used)) for used in (0, 1, 60_000, 60_001)] == [0, 1, 1, 2]
    assert [limit.remaining(Counter(used=used)) for used in (0, 1, 60_000, 60_001)] == [10, 9, 9, 8]


CHARGES = [Charge(Concurrency("t", None, 9), 1, 1), Charge(BudgetWindow("t", None, 9), 1, 1)]


@pytest.mark.parametrize(
    "call",
    [
        lambda counters: refill_counters(CHARGES, counters, NOW),
        lambda counters: reserve_charges(CHARGES, counters, NOW),
        lambda counters: settle_charges(CHARGES, counters, [1, 1], [0, 0], {}),
    ],
    ids=["refill", "reserve", "settle"],
)
def test_a_charge_without_its_counter_is_an_error(call: Callable[[list[Counter]], object]) -> None:
    """It must not pass without being counted."""
    call([Counter(), Counter()])
    with pytest.raises(ValueError, match="is shorter"):
        call([Counter()])


def test_debt_is_never_above_an_hour_of_the_rate() -> None:
    for limit in (TokensPerMinute("t", None, 10), RequestsPerMinute("t", None, 10)):
        counter = Counter()
        limit.settle(counter, 0, 601)
        assert counter.used == 600 * 60_000
