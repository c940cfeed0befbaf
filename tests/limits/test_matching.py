"""Which limits apply to a request, and what it is charged under each."""

import msgspec
import pytest

from gateway.limits.algorithms import Charge, actual_charges, charges
from gateway.limits.config import LimitSet, read_limits
from gateway.limits.matching import (
    NO_LIMITS,
    CapacityRequest,
    LimitChain,
    applicable_limits,
)
from gateway.limits.models import Amounts
from tests.support.limits import NOW

DAY_MS = 86_400_000
ALL_FOUR = {"rpm": 60, "tpm": 1000, "max_parallel": 2, "budget": "1.5/day"}


def chain(**limits: object) -> LimitChain:
    return LimitChain([(token_id, read_limits(value) or LimitSet()) for token_id, value in limits.items()])


def names(found: LimitChain, *models: str, now: int = NOW, is_free: bool = False) -> list[str]:
    return [f"{one.token_id}|{one.name}" for one in applicable_limits(found, models, now, is_free=is_free)]


def test_a_chain_without_limit_sets_is_false() -> None:
    assert (bool(NO_LIMITS), bool(chain(tok_a={"rpm": 1}))) == (False, True)
    assert names(NO_LIMITS, "gpt-4o") == []


def test_every_limit_of_the_token_and_of_its_parents_applies() -> None:
    found = chain(tok_a=ALL_FOUR, tok_p={"rpm": 9, "budget": "2"})
    assert names(found, "gpt-4o") == [
        "tok_a||requests",
        "tok_a||tokens",
        "tok_a||parallel",
        "tok_a||budget|day|2027-01-15",
        "tok_p||requests",
        "tok_p||budget||all",
    ]


def test_a_limit_knows_its_size_and_its_window() -> None:
    found = applicable_limits(chain(tok_a=ALL_FOUR), (), NOW)
    assert [(one.kind, one.size, one.per, one.ends_at) for one in found] == [
        ("requests", 60, None, None),
        ("tokens", 1000, None, None),
        ("parallel", 2, None, None),
        ("budget", 1_500_000, "day", (NOW // DAY_MS + 1) * DAY_MS),
    ]
    assert [one.model for one in found] == [None] * 4


@pytest.mark.parametrize("now", [NOW // DAY_MS * DAY_MS, NOW, (NOW // DAY_MS + 1) * DAY_MS - 1])
def test_the_window_is_the_one_of_the_day(now: int) -> None:
    assert names(chain(tok_a={"budget": "1/day"}), now=now) == ["tok_a||budget|day|2027-01-15"]
    assert names(chain(tok_a={"budget": "1/day"}), now=now + DAY_MS) == ["tok_a||budget|day|2027-01-16"]


@pytest.mark.parametrize(
    ("models", "patterns"),
    [
        (("gpt-4o",), ["gpt-4*"]),
        (("gpt-4o-mini",), ["gpt-4*", "*-mini"]),
        (("GPT-4O",), ["gpt-4*"]),
        (("fast", "gpt-4o"), ["gpt-4*"]),
        (("claude",), []),
        ((), []),
    ],
    ids=["one pattern", "two patterns", "capitals", "the provider's name", "no pattern", "no model"],
)
def test_limits_of_a_pattern_apply_to_the_models_that_match(models: tuple[str, ...], patterns: list[str]) -> None:
    found = chain(tok_a={"rpm": 9, "models": {"gpt-4*": {"rpm": 1}, "*-mini": {"rpm": 2}}})
    assert names(found, *models) == ["tok_a||requests", *[f"tok_a|{pattern}|requests" for pattern in patterns]]


def test_a_pattern_in_capitals_matches_too() -> None:
    assert names(chain(tok_a={"models": {"GPT*": {"rpm": 1}}}), "gpt-4o") == ["tok_a|gpt*|requests"]


def test_a_request_that_is_free_keeps_to_no_budget() -> None:
    found = chain(tok_a={**ALL_FOUR, "models": {"gpt*": {"budget": "1", "rpm": 1}}})
    assert names(found, "gpt-4o", is_free=True) == [
        "tok_a||requests",
        "tok_a||tokens",
        "tok_a||parallel",
        "tok_a|gpt*|requests",
    ]


def test_a_request_is_charged_under_each_limit() -> None:
    limits = applicable_limits(chain(tok_a=ALL_FOUR), (), NOW)
    found = charges(limits, Amounts(300, 20, 5000, 40))
    assert found == [
        Charge(limit, amount, minimum)
        for limit, (amount, minimum) in zip(limits, [(1, 1), (300, 20), (1, 1), (5000, 40)], strict=True)
    ]
    assert actual_charges(found, 120, 900) == [1, 120, 0, 900]


def test_a_request_for_capacity_is_charged_for_the_instant() -> None:
    found = chain(tok_a={"rpm": 9, "budget": "1/day"})
    request = CapacityRequest("tok_a", found, ("gpt-4o",), Amounts(1, 1, 7, 5))
    today, tomorrow = request.charges(NOW), request.charges(NOW + DAY_MS)
    assert [(one.limit.kind, one.amount, one.minimum) for one in today] == [("requests", 1, 1), ("budget", 7, 5)]
    assert [one[1].limit.name for one in (today, tomorrow)] == ["|budget|day|2027-01-15", "|budget|day|2027-01-16"]
    assert [one.limit.kind for one in msgspec.structs.replace(request, is_free=True).charges(NOW)] == ["requests"]
