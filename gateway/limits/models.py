"""What limits count, the state of a counter, and the estimate of a request. Values only."""

from enum import StrEnum

import msgspec


class LimitKind(StrEnum):
    """What a limit counts. ``requests`` and ``tokens`` are rates per minute."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    PARALLEL = "parallel"
    BUDGET = "budget"


class Counter(msgspec.Struct, array_like=True):
    """Holds the state of one limit and is changed in place. Stores write it as an array, so the order of fields is a format.

    ``used`` is debt in parts for a rate, micro-dollars for a budget, always 0 for concurrency. ``reserved`` is in the unit
    of the limit: model tokens, requests at a time, micro-dollars.
    """

    used: int = 0
    reserved: int = 0
    at: int = 0
    """The time that ``used`` is correct for, in milliseconds since the epoch."""
    ends_at: int | None = None
    """The end of the budget's window, in milliseconds since the epoch."""
    reserved_by_worker: dict[int, int] | None = None
    """How much of ``reserved`` each worker has reserved. None where one process counts alone."""
    wanted_at: int = 0
    """When a request did not fit because workers had leased something, in milliseconds since the epoch."""


class Amounts(msgspec.Struct, frozen=True):
    """Estimates what one request uses: the most, and the least. Cost is in micro-dollars."""

    tokens: int = 0
    minimum_tokens: int = 0
    cost: int = 0
    minimum_cost: int = 0


TokenCounters = dict[str, Counter]
"""All counters of one token by the names of their limits."""
