"""What people and programs are told of limits."""

import pytest

from gateway.core.errors import QuotaExceeded, TokensLimited
from gateway.limits import presentation
from gateway.limits.store import LimitExceeded
from gateway.limits.stores.memory import MemoryCounterStore
from tests.support.limits import NOW, charges_for, granted

NAMES = {"tok_a": "chat", "tok_p": "team"}


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (12, "12ms"),
        (999, "999ms"),
        (1000, "1s"),
        (33_023, "33.023s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (61_500, "1m1.5s"),
        (5_011_000, "1h23m31s"),
        (86_400_000, "24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(milliseconds: int, text: str) -> None:
    assert presentation.format_duration(milliseconds) == text


async def refused(limits: dict[str, object], count: int = 1, **more: object) -> LimitExceeded:
    counters = MemoryCounterStore()
    charges = charges_for(limits, **more)  # type: ignore[arg-type]
    for _ in range(count):
        counters.settle(granted(await counters.reserve(charges, NOW)), [charge.amount for charge in charges])
    refusal = await counters.reserve(charges, NOW)
    assert isinstance(refusal, LimitExceeded)
    return refusal


async def test_a_rate_tells_when_to_come_back() -> None:
    error = presentation.limit_error(await refused({"rpm": 2}, 2), NAMES)
    assert error.message == (
        "Rate limit reached for token 'chat' (tok_a) on requests per min (RPM): Limit 2, Used 2, Requested 1. "
        "Please try again in 30s."
    )
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert error.headers == {"Retry-After": "30", "retry-after-ms": "30000"}


async def test_a_parents_limit_is_called_one() -> None:
    error = presentation.limit_error(await refused({"models": {"gpt-4*": {"rpm": 1}}}, 1, limited="tok_p"), NAMES)
    assert error.message.startswith("Rate limit reached for the parent token 'team' (tok_p) (model gpt-4*) on requests")


async def test_what_can_never_fit_is_not_asked_to_come_back() -> None:
    error = presentation.limit_error(await refused({"tpm": 100}, 0, tokens=500), NAMES)
    assert isinstance(error, TokensLimited)
    assert "larger than the limit" in error.message
    assert error.headers == {"x-should-retry": "false"}


async def test_a_wait_that_clients_do_not_keep_to_is_not_retried() -> None:
    counters = MemoryCounterStore()
    charges = charges_for({"tpm": 100}, tokens=100)
    counters.settle(granted(await counters.reserve(charges, NOW)), [250])
    refusal = await counters.reserve(charges, NOW)
    assert isinstance(refusal, LimitExceeded)
    headers = presentation.limit_error(refusal, NAMES).headers
    assert headers == {"Retry-After": "150", "retry-after-ms": "150000", "x-should-retry": "false"}


async def test_money_that_comes_back_tells_when() -> None:
    error = presentation.limit_error(await refused({"budget": "0.0001/day"}, 1, cost=100), NAMES)
    assert isinstance(error, QuotaExceeded)
    assert (error.type, error.code) == ("insufficient_quota", "insufficient_quota")
    assert "Limit $0.0001 per day, Used $0.0001, Reserved $0, Requested $0.0001 at least" in error.message
    assert "The next day begins at 2027-01-16T00:00:00Z." in error.message
    assert error.headers["x-should-retry"] == "false"
    assert error.headers["Retry-After"]


async def test_money_that_does_not_come_back_has_no_time() -> None:
    error = presentation.limit_error(await refused({"budget": "0.0001"}, 1, cost=100), NAMES)
    assert error.headers == {"x-should-retry": "false"}
    assert "somebody has to raise it" in error.message


async def test_the_headers_are_of_the_tightest_limits() -> None:
    counters = MemoryCounterStore()
    limits = {"rpm": 60, "tpm": 6000, "models": {"gpt-4o": {"rpm": 5}}}
    reservation = granted(await counters.reserve(charges_for(limits, tokens=100), NOW))
    assert presentation.rate_limit_headers(reservation.charges, reservation.counters) == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "12s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5900",
        "x-ratelimit-reset-tokens": "1s",
    }
    counters.settle(reservation, [1, 10, 1])
    assert (
        presentation.rate_limit_headers(reservation.charges, reservation.counters)["x-ratelimit-remaining-tokens"]
        == "5990"
    )


async def test_what_is_left_keeps_spent_and_reserved_apart() -> None:
    counters = MemoryCounterStore()
    charges = charges_for({"tpm": 1000, "max_parallel": 3, "budget": "1/week"}, tokens=100, cost=250_000)
    counters.settle(granted(await counters.reserve(charges, NOW)), [50, 0, 100_000])
    granted(await counters.reserve(charges, NOW))
    levels = await counters.read(charges, NOW)
    shown = [
        presentation.describe_limit(charge.limit, level, NOW) for charge, level in zip(charges, levels, strict=True)
    ]
    numbers = [(one["kind"], one["used"], one["reserved"], one["remaining"]) for one in shown[:2]]
    assert numbers == [("tokens", 50, 100, 850), ("parallel", 1, 0, 2)]
    names = ("limit", "used", "reserved", "remaining")
    budget = {name: bytes(shown[2][name]).decode() for name in names}
    assert budget == {"limit": "1", "used": "0.1", "reserved": "0.25", "remaining": "0.65"}
    assert shown[2]["resets_at"] == "2027-01-18T00:00:00Z"
