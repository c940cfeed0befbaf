"""What clients read about limits: errors, headers, and what remains."""

from typing import Any

import msgspec
import pytest

from gateway.core.errors import GatewayError, QuotaExceeded, RateLimited, TokensLimited
from gateway.limits.algorithms import BudgetWindow, Charge, Concurrency, Limit, RequestsPerMinute, TokensPerMinute
from gateway.limits.calendar_windows import CalendarWindow
from gateway.limits.models import Counter
from gateway.limits.presentation import describe_limit, format_duration, limit_error, rate_limit_headers
from gateway.limits.store import LimitExceeded
from gateway.limits.stores.memory import MemoryCounterStore
from tests.support.limits import NOW, charges_for, granted, refused

NAMES = {"tok_a": "chat", "tok_p": "team"}
REQUESTS, TOKENS = RequestsPerMinute("tok_a", None, 60), TokensPerMinute("tok_a", None, 100)
TODAY = CalendarWindow("2027-01-15", 1_800_057_600_000)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (12, "12ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1010, "1.01s"),
        (33_023, "33.023s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (61_500, "1m1.5s"),
        (3_600_000, "1h0m0s"),
        (5_011_000, "1h23m31s"),
        (86_400_000, "24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text


async def exceeded_after(limits: dict[str, Any], count: int = 1, **more: Any) -> LimitExceeded:
    """Why the next request is refused after ``count`` requests that have used what they reserved."""
    counters = MemoryCounterStore()
    charges = charges_for(limits, **more)
    for _ in range(count):
        reservation = granted(await counters.reserve(charges, NOW))
        counters.settle(reservation, [charge.amount for charge in charges])
    return refused(await counters.reserve(charges, NOW))


def exceeded(limit: Limit, counter: Counter, wait: int | None, minimum: int = 1) -> LimitExceeded:
    charge = Charge(limit, minimum, minimum)
    return LimitExceeded(charge, counter, wait, False, [charge], [counter])


async def test_a_rate_tells_when_to_retry() -> None:
    error = limit_error(await exceeded_after({"rpm": 2}, 2), NAMES)
    assert error.message == (
        "Rate limit reached for token 'chat' (tok_a) on requests per min (RPM): Limit 2, Used 2, Requested 1. "
        "Please try again in 30s."
    )
    assert (error.status, error.kind, error.code) == (429, "requests", "rate_limit_exceeded")
    assert error.headers == {"Retry-After": "30", "retry-after-ms": "30000"}


@pytest.mark.parametrize(
    ("counter", "numbers"),
    [
        (Counter(used=60 * 60_000), "Limit 100, Used 60, Requested 50"),
        (Counter(used=60 * 60_000, reserved=30), "Limit 100, Used 60, Reserved 30, Requested 50"),
    ],
)
def test_tokens_that_are_reserved_are_told_apart(counter: Counter, numbers: str) -> None:
    error = limit_error(exceeded(TOKENS, counter, 1500, 50), NAMES)
    assert type(error) is TokensLimited
    assert error.message == (
        f"Rate limit reached for token 'chat' (tok_a) on tokens per min (TPM): {numbers}. Please try again in 1.5s."
    )


def test_requests_at_a_time_are_those_that_run() -> None:
    error = limit_error(exceeded(Concurrency("tok_a", None, 3), Counter(reserved=3), 1000), NAMES)
    assert type(error) is RateLimited
    assert error.message == (
        "Rate limit reached for token 'chat' (tok_a) on requests at a time: Limit 3, Used 3, Requested 1. "
        "Please try again in 1s."
    )


def test_a_full_queue_is_told() -> None:
    error = limit_error(exceeded(Concurrency("tok_a", None, 3), Counter(reserved=3), 1000), NAMES, True)
    assert error.message == (
        "Rate limit reached for token 'chat' (tok_a) on requests at a time: Limit 3, Used 3, Requested 1. "
        "Too many of its requests are waiting already."
    )
    assert error.headers == {"Retry-After": "1", "retry-after-ms": "1000"}


async def test_a_limit_of_a_parent_is_called_one() -> None:
    error = limit_error(await exceeded_after({"models": {"gpt-4*": {"rpm": 1}}}, limited="tok_p"), NAMES)
    assert error.message.startswith(
        "Rate limit reached for the parent token 'team' (tok_p) (model gpt-4*) on requests per min (RPM): "
    )


def test_a_token_without_a_name_is_told_by_its_id() -> None:
    error = limit_error(exceeded(REQUESTS, Counter(used=60 * 60_000), 1000), {})
    assert error.message.startswith("Rate limit reached for the parent token '' (tok_a) on")


async def test_a_request_that_never_fits_is_not_to_be_retried() -> None:
    error = limit_error(await exceeded_after({"tpm": 100}, 0, tokens=500), NAMES)
    assert type(error) is TokensLimited
    assert error.message == (
        "Rate limit reached for token 'chat' (tok_a) on tokens per min (TPM): Limit 100, Used 0, Requested 500. "
        "The request is larger than the limit: send a shorter prompt or a smaller max_tokens."
    )
    assert error.headers == {"x-should-retry": "false"}


async def test_a_wait_that_is_too_long_for_clients_is_not_to_be_retried() -> None:
    counters = MemoryCounterStore()
    charges = charges_for({"tpm": 100}, tokens=100)
    counters.settle(granted(await counters.reserve(charges, NOW)), [250])
    error = limit_error(refused(await counters.reserve(charges, NOW)), NAMES)
    assert error.headers == {"Retry-After": "60", "retry-after-ms": "60000", "x-should-retry": "false"}
    assert "Please try again in 2m30s." in error.message


async def test_a_budget_with_a_window_tells_when_the_next_begins() -> None:
    error = limit_error(await exceeded_after({"budget": "0.0001/day"}, cost=100), NAMES)
    assert type(error) is QuotaExceeded
    assert (error.kind, error.code) == ("insufficient_quota", "insufficient_quota")
    assert error.message == (
        "The budget of token 'chat' (tok_a) does not allow this request: Limit $0.0001 per day, Used $0.0001, "
        "Reserved $0, Requested $0.0001 at least. The next day begins at 2027-01-16T00:00:00Z."
    )
    assert error.headers == {
        "Retry-After": "60",
        "retry-after-ms": "60000",
        "x-should-retry": "false",
        "x-ratelimit-reset-budget": "16h0m0s",
    }


def test_a_budget_without_a_window_has_no_time() -> None:
    limit = BudgetWindow("tok_p", "gpt*", 2_000_000)
    error: GatewayError = limit_error(exceeded(limit, Counter(used=1_500_000, reserved=400_000), None, 250_000), NAMES)
    assert error.message == (
        "The budget of the parent token 'team' (tok_p) (model gpt*) does not allow this request: Limit $2, Used $1.5, "
        "Reserved $0.4, Requested $0.25 at least. It has no window, so somebody has to raise it."
    )
    assert error.headers == {"x-should-retry": "false"}


async def test_the_headers_tell_the_tightest_limits() -> None:
    counters = MemoryCounterStore()
    limits = {"rpm": 60, "tpm": 6000, "max_parallel": 1, "budget": "1", "models": {"gpt-4o": {"rpm": 5}}}
    reservation = granted(await counters.reserve(charges_for(limits, tokens=100), NOW))
    assert rate_limit_headers(reservation.charges, reservation.counters) == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "12s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5900",
        "x-ratelimit-reset-tokens": "1s",
    }
    counters.settle(reservation, [1, 10, 0, 0, 1])
    headers = rate_limit_headers(reservation.charges, reservation.counters)
    assert headers["x-ratelimit-remaining-tokens"] == "5990"
    assert headers["x-ratelimit-reset-tokens"] == "100ms"


@pytest.mark.parametrize(("used", "limit"), [(0, "10"), (50, "60"), (51, "60"), (49, "10")])
def test_of_equally_tight_limits_the_first_is_told(used: int, limit: str) -> None:
    """It is the caller's own."""
    charges = [Charge(RequestsPerMinute("tok_a", None, size), 1, 1) for size in (60, 10)]
    headers = rate_limit_headers(charges, [Counter(used=used * 60_000), Counter()])
    assert headers["x-ratelimit-limit-requests"] == limit


def test_the_last_one_that_remains_is_told() -> None:
    headers = rate_limit_headers([Charge(TOKENS, 1, 1)], [Counter(used=99 * 60_000)])
    assert headers["x-ratelimit-remaining-tokens"] == "1"


def test_no_header_tells_less_than_nothing() -> None:
    headers = rate_limit_headers([Charge(TOKENS, 1, 1)], [Counter(used=250 * 60_000)])
    assert headers == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "2m30s",
    }


def test_limits_without_headers_have_none() -> None:
    charges = [Charge(Concurrency("tok_a", None, 3), 1, 1), Charge(BudgetWindow("tok_a", None, 9), 1, 1)]
    assert rate_limit_headers(charges, [Counter(), Counter()]) == {}


@pytest.mark.parametrize(
    ("limit", "counter", "described"),
    [
        (
            TokensPerMinute("tok_a", "gpt*", 1000),
            Counter(used=50 * 60_000, reserved=100),
            {
                "token_id": "tok_a",
                "model": "gpt*",
                "kind": "tokens",
                "per": "minute",
                "limit": 1000,
                "used": 50,
                "reserved": 100,
                "remaining": 850,
                "resets_at": "2027-01-15T08:00:09Z",
            },
        ),
        (
            REQUESTS,
            Counter(used=61 * 60_000 + 1),
            {
                "token_id": "tok_a",
                "model": None,
                "kind": "requests",
                "per": "minute",
                "limit": 60,
                "used": 62,
                "reserved": 0,
                "remaining": 0,
                "resets_at": "2027-01-15T08:01:02Z",
            },
        ),
        (
            Concurrency("tok_a", None, 3),
            Counter(reserved=1),
            {
                "token_id": "tok_a",
                "model": None,
                "kind": "parallel",
                "per": None,
                "limit": 3,
                "used": 1,
                "reserved": 0,
                "remaining": 2,
                "resets_at": None,
            },
        ),
        (
            BudgetWindow("tok_a", None, 1_000_000, "day", {"day": TODAY}),
            Counter(used=100_000, reserved=250_000),
            {
                "token_id": "tok_a",
                "model": None,
                "kind": "budget",
                "per": "day",
                "limit": 1,
                "used": 0.1,
                "reserved": 0.25,
                "remaining": 0.65,
                "resets_at": "2027-01-16T00:00:00Z",
            },
        ),
        (
            BudgetWindow("tok_a", None, 1_000_000),
            Counter(used=3_000_000),
            {
                "token_id": "tok_a",
                "model": None,
                "kind": "budget",
                "per": None,
                "limit": 1,
                "used": 3,
                "reserved": 0,
                "remaining": 0,
                "resets_at": None,
            },
        ),
    ],
    ids=["tokens", "requests", "parallel", "budget with a window", "budget"],
)
def test_what_remains_of_a_limit(limit: Limit, counter: Counter, described: dict[str, object]) -> None:
    found = describe_limit(limit, counter, NOW)
    assert list(found) == list(described)
    assert msgspec.json.decode(msgspec.json.encode(found)) == described


def test_money_is_written_without_rounding() -> None:
    found = describe_limit(BudgetWindow("tok_a", None, 999_999_999_999_999), Counter(used=1), NOW)
    assert bytes(found["used"]) == b"0.000001"
    assert bytes(found["remaining"]) == b"999999999.999998"
