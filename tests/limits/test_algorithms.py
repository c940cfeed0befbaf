"""The arithmetic of limits, against exact models of it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.algorithms import (
    MAX_COUNTER_VALUE,
    BudgetWindow,
    Charge,
    Concurrency,
    Counter,
    Limit,
    RequestsPerMinute,
    TokensPerMinute,
    calendar_window,
    reservable_amount,
)
from tests.support.limits import NOW

STEPS = st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 50), st.integers(0, 60)), max_size=60)


@given(st.integers(1, 40), STEPS)
def test_a_rate_is_what_the_exact_bucket_allows(size: int, steps: list[tuple[int, int, int]]) -> None:
    """A bucket of fractions that fills continuously: every request that fits is granted, and no other."""
    limit, level, now = TokensPerMinute("t", None, size), Counter(at=NOW), NOW
    there = Fraction(size)
    for elapsed, amount, actual in steps:
        now += elapsed
        limit.refill(level, now)
        there = min(Fraction(size), there + Fraction(size * elapsed, 60_000))
        fits = amount <= there
        assert (reservable_amount(Charge(limit, amount, amount), level) is not None) == fits
        if fits:
            limit.reserve(level, amount)
            limit.settle(level, amount, actual)
            there = min(Fraction(size), there - actual)
        assert limit.remaining(level) == there // 1
        assert level.reserved == 0


@given(st.integers(1, 40), st.lists(st.integers(0, 30_000), min_size=1, max_size=200))
def test_no_minute_sees_more_than_a_full_bucket_and_what_flows_in(size: int, gaps: list[int]) -> None:
    limit, level, now = RequestsPerMinute("t", None, size), Counter(), NOW
    passed: list[int] = []
    for gap in gaps:
        now += gap
        limit.refill(level, now)
        if reservable_amount(Charge(limit, 1, 1), level):
            limit.reserve(level, 1)
            passed.append(now)
    for start in passed:
        assert sum(start <= at < start + 60_000 for at in passed) <= 2 * size


@given(st.integers(1, 10**12), st.integers(0, 10**9), st.integers(1, 10**6))
def test_whoever_waits_as_told_may_pass(size: int, used: int, minimum: int) -> None:
    limit, level = TokensPerMinute("t", None, size), Counter(used=used * 60_000, at=NOW)
    if minimum <= limit.remaining(level):
        return
    wait = limit.retry_after_ms(level, minimum, NOW)
    if wait is None:
        assert minimum > size
        return
    limit.refill(level, NOW + wait)
    assert minimum <= limit.remaining(level)
    early = Counter(used=used * 60_000, at=NOW)
    limit.refill(early, NOW + wait - 1)
    assert minimum > limit.remaining(early)


@given(st.sampled_from([TokensPerMinute, Concurrency, BudgetWindow]), st.integers(0, 10**6), st.integers(0, 10**30))
def test_no_report_breaks_a_counter(kind: type[Limit], amount: int, actual: int) -> None:
    level = Counter()
    limit = kind("t", None, 10**12)
    limit.reserve(level, amount)
    limit.settle(level, amount, actual)
    assert 0 <= level.used <= MAX_COUNTER_VALUE
    assert level.reserved == 0


def test_a_clock_that_stands_still_or_falls_back_pays_nothing() -> None:
    """And from where it has fallen back to, it goes on: a restart with the right time does not lock anybody out."""
    limit, level = RequestsPerMinute("t", None, 1), Counter(used=60_000, at=NOW)
    for now in (NOW, NOW - 10**9):
        limit.refill(level, now)
        assert level.used == 60_000
    limit.refill(level, NOW - 10**9 + 60_000)
    assert level.used == 0


def test_what_is_reserved_is_not_paid_back_before_it_is_known() -> None:
    """Slow requests that turn out small must not pile up into one large burst."""
    limit, level, now = TokensPerMinute("t", None, 1000), Counter(at=NOW), NOW
    held = 0
    for _ in range(10):
        if reservable_amount(Charge(limit, 990, 990), level) is not None:
            limit.reserve(level, 990)
            held += 1
        now += 60_000
        limit.refill(level, now)
    assert held == 1
    limit.settle(level, 990, 1)
    assert limit.remaining(level) == 999


def test_one_absurd_report_locks_nobody_out_for_longer_than_an_hour() -> None:
    limit, level = TokensPerMinute("t", None, 1000), Counter(at=NOW)
    limit.settle(level, 0, 10**8)
    wait = limit.retry_after_ms(level, 1, NOW)
    assert wait is not None
    assert wait <= 3_600_000


def test_a_million_additions_of_money_are_exact() -> None:
    limit, level = BudgetWindow("t", None, 10**15), Counter()
    for number in range(10**6):
        limit.settle(level, 0, 100_001 + number % 7)
    assert level.used == sum(100_001 + number % 7 for number in range(10**6))


@pytest.mark.parametrize(
    ("per", "now", "name", "ends"),
    [
        ("day", "2026-12-31", "2026-12-31", "2027-01-01"),
        ("week", "2026-12-31", "2026-W53", "2027-01-04"),
        ("week", "2027-01-04", "2027-W01", "2027-01-11"),
        ("month", "2024-02-29", "2024-02", "2024-03-01"),
        ("month", "2026-12-01", "2026-12", "2027-01-01"),
        (None, "2026-12-01", "all", None),
    ],
)
def test_windows_follow_the_calendar(per: str | None, now: str, name: str, ends: str | None) -> None:
    at = _milliseconds(now) + 3_600_000
    assert calendar_window(per, at) == (name, ends and _milliseconds(ends))


def _milliseconds(day: str) -> int:
    from datetime import UTC, datetime

    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000
