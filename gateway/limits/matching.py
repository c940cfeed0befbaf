"""Finds the limits that apply to a request, and what the request is charged under each of them. Pure.

Every ``now`` here is in milliseconds since the epoch.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import msgspec

from gateway.core import wildcards
from gateway.limits.algorithms import (
    BudgetWindow,
    Charge,
    Concurrency,
    Limit,
    RequestsPerMinute,
    TokensPerMinute,
    charges,
)
from gateway.limits.calendar_windows import MS_PER_DAY, calendar_windows
from gateway.limits.config import LimitSet
from gateway.limits.models import Amounts


class LimitChain:
    """Holds the limit sets of a token and of its parents, from the token upwards, each with the id of its token.

    Two chains are equal only if they are the same object: chains are keys of a cache that is asked on every request, and
    comparing all limit sets there would cost more than computing the answer anew.
    """

    __slots__ = ("sets",)

    def __init__(self, sets: Iterable[tuple[str, LimitSet]]) -> None:
        self.sets = tuple(sets)

    def __bool__(self) -> bool:
        return bool(self.sets)


NO_LIMITS = LimitChain(())

ModelNames = tuple[str, ...]
"""The names of one model: the client's, and the provider's where it is another one. Empty where a request names no model."""


def applicable_limits(chain: LimitChain, models: ModelNames, now: int, *, is_free: bool = False) -> tuple[Limit, ...]:
    """Returns every limit that a request for a model has to keep to, those of the token first.

    A request that is free of charge has to keep to no budget.
    """
    return _limits_of_day(chain, models, now // MS_PER_DAY, is_free)


@lru_cache(maxsize=4096)
def _limits_of_day(chain: LimitChain, models: ModelNames, day: int, is_free: bool) -> tuple[Limit, ...]:
    limits = (limit for token_id, limit_set in chain.sets for limit in _of_token(token_id, limit_set, models, day))
    return tuple(limit for limit in limits if not (is_free and isinstance(limit, BudgetWindow)))


def _of_token(token_id: str, limit_set: LimitSet, models: ModelNames, day: int) -> Iterator[Limit]:
    yield from _of_set(token_id, None, limit_set, day)
    for pattern, model_set in limit_set.models:
        # Some providers ignore the case of a model's name, so a name in capitals must not escape the limit.
        if any(wildcards.matches(pattern.lower(), model.lower()) for model in models):
            yield from _of_set(token_id, pattern, model_set, day)


def _of_set(token_id: str, pattern: str | None, limit_set: LimitSet, day: int) -> Iterator[Limit]:
    if limit_set.rpm is not None:
        yield RequestsPerMinute(token_id, pattern, limit_set.rpm)
    if limit_set.tpm is not None:
        yield TokensPerMinute(token_id, pattern, limit_set.tpm)
    if limit_set.max_parallel is not None:
        yield Concurrency(token_id, pattern, limit_set.max_parallel)
    if (budget := limit_set.budget) is not None:
        yield BudgetWindow(token_id, pattern, budget.micro_usd, budget.per, calendar_windows(day * MS_PER_DAY))


class CapacityRequest(msgspec.Struct, frozen=True):
    """Asks for capacity under all limits of a token and its parents.

    It holds the chain instead of charges because a request may wait while a budget's window ends: the charges are
    computed for the instant at which they are reserved.
    """

    token_id: str
    """The token whose request it is: requests of one token wait in one queue."""
    chain: LimitChain
    models: ModelNames
    amounts: Amounts
    is_free: bool = False
    known_charges: Sequence[Charge] | None = None
    """What has to be reserved when the request is tried first, where that was computed already."""

    def charges(self, now: int) -> list[Charge]:
        """Returns what has to be reserved at ``now``."""
        limits = applicable_limits(self.chain, self.models, now, is_free=self.is_free)
        return charges(limits, self.amounts)
