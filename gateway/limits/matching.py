"""What a request wants of each limit that it falls under. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from gateway.core import wildcards
from gateway.limits.algorithms import (
    Amounts,
    BudgetWindow,
    Charge,
    Concurrency,
    Limit,
    RequestsPerMinute,
    TokensPerMinute,
)
from gateway.limits.config import LimitSet
from gateway.limits.windows import DAY_MS, window


class LimitChain:
    """Ids of tokens and their limits, from the caller upwards. Known by itself, not by what it holds: it is asked for its
    limits again and again."""

    __slots__ = ("sets",)

    def __init__(self, sets: Iterable[tuple[str, LimitSet]]) -> None:
        self.sets = tuple(sets)

    def __bool__(self) -> bool:
        return bool(self.sets)


NO_LIMITS = LimitChain(())

Models = tuple[str, ...]
"""The names of one model: the client's, and the upstream's where that is another one. Empty where none is named."""


def applicable_limits(line: LimitChain, models: Models, now: int) -> tuple[Limit, ...]:
    """Every limit that a request for a model falls under; ``now`` in milliseconds since the epoch."""
    return _applicable_limits(line, models, now // DAY_MS)


@lru_cache(maxsize=4096)
def _applicable_limits(line: LimitChain, models: Models, day: int) -> tuple[Limit, ...]:
    return tuple(limit for holder, limits in line.sets for limit in _of_token(holder, limits, models, day))


def _of_token(holder: str, limits: LimitSet, models: Models, day: int) -> Iterator[Limit]:
    yield from _of_set(holder, None, limits, day)
    for pattern, special in limits.models:
        # Upstreams differ in whether case matters: a limit must not be left by shouting.
        if any(wildcards.matches(pattern.lower(), model.lower()) for model in models):
            yield from _of_set(holder, pattern, special, day)


def _of_set(holder: str, pattern: str | None, limits: LimitSet, day: int) -> Iterator[Limit]:
    if limits.rpm is not None:
        yield RequestsPerMinute(holder, pattern, limits.rpm)
    if limits.tpm is not None:
        yield TokensPerMinute(holder, pattern, limits.tpm)
    if limits.max_parallel is not None:
        yield Concurrency(holder, pattern, limits.max_parallel)
    if limits.budget is not None:
        budget = limits.budget
        yield BudgetWindow(holder, pattern, budget.micro_usd).for_window(budget.per, *window(budget.per, day * DAY_MS))


def charges(limits: Sequence[Limit], amounts: Amounts) -> list[Charge]:
    """For one request."""
    return [limit.charge(amounts) for limit in limits]


def actual_charges(wanted: Sequence[Charge], tokens: int, money: int) -> list[int]:
    """What each demand has turned out to be."""
    return [limit.actual(tokens, money) for limit, _, _ in wanted]
