"""Limits to test with."""

from collections.abc import Sequence
from typing import Any

from gateway.limits.algorithms import Amounts, Demand
from gateway.limits.config import read_limits
from gateway.limits.matching import Line, demands, limits_on
from gateway.limits.store import Reservation

NOW = 1_800_000_000_000
"""In milliseconds: a Friday morning."""


def wanted(
    limits: dict[str, Any],
    tokens: int = 0,
    money: int = 0,
    floors: tuple[int, int] | None = None,
    **more: Any,
) -> Sequence[Demand]:
    """The demands of one request of the token ``tok_a`` that has these limits; ``floors`` of tokens and money."""
    found = read_limits(limits)
    assert found is not None
    token_floor, money_floor = (tokens, money) if floors is None else floors
    line = Line([(more.get("holder", "tok_a"), found)])
    amounts = Amounts(tokens, token_floor, money, money_floor)
    return demands(limits_on(line, (more.get("model", "gpt-4o"),), more.get("now", NOW)), amounts)


def held(outcome: object) -> Reservation:
    """What was granted."""
    assert isinstance(outcome, Reservation), outcome
    return outcome
