"""Limits to test with."""

from collections.abc import Sequence
from typing import Any

from gateway.limits.algorithms import Amounts, Charge
from gateway.limits.config import read_limits
from gateway.limits.matching import LimitChain, applicable_limits, charges
from gateway.limits.store import Reservation

NOW = 1_800_000_000_000
"""In milliseconds: a Friday morning."""


def wanted(
    limits: dict[str, Any],
    tokens: int = 0,
    money: int = 0,
    floors: tuple[int, int] | None = None,
    **more: Any,
) -> Sequence[Charge]:
    """The demands of one request of the token ``tok_a`` that has these limits; ``floors`` of tokens and money."""
    found = read_limits(limits)
    assert found is not None
    token_minimum, cost_minimum = (tokens, money) if floors is None else floors
    line = LimitChain([(more.get("holder", "tok_a"), found)])
    amounts = Amounts(tokens, token_minimum, money, cost_minimum)
    return charges(applicable_limits(line, (more.get("model", "gpt-4o"),), more.get("now", NOW)), amounts)


def held(outcome: object) -> Reservation:
    """What was granted."""
    assert isinstance(outcome, Reservation), outcome
    return outcome
