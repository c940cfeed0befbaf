"""The arithmetic of one limit and its counter. No I/O: what is left, whether a demand fits, how long to wait.

Rates are kept as a debt that is paid back continuously (GCRA in its leaky-bucket form): a token of 60 requests a minute may
send 60 at once, and then one each second. The debt is held in sixty-thousandths, so that paying back ``size`` of them each
millisecond is exact for every limit. Money is kept in a counter for each window, so nothing ever needs a reset.
"""

from enum import StrEnum
from typing import ClassVar, NamedTuple

import msgspec

PER_MINUTE = 60_000
"""Milliseconds; and how many parts of debt one request or token makes."""
LONGEST_DEBT_MINUTES = 60
LARGEST = 2**61
"""No level is ever above it: what a hostile upstream reports must still fit into 64 bits."""


class Kind(StrEnum):
    """What is limited. Requests and tokens are rates a minute."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    PARALLEL = "parallel"
    BUDGET = "budget"


class Counter(msgspec.Struct, array_like=True):
    """A counter, changed in place. ``used`` is debt in sixty-thousandths for a rate, micro-dollars for a budget; ``at`` is
    when that held, in milliseconds since the epoch."""

    used: int = 0
    reserved: int = 0
    at: int = 0
    ends_at: int | None = None
    """When the budget's window ends."""
    shares: dict[int, int] | None = None
    """Where several workers reserve: what each of them has of ``reserved``."""


class Amounts(NamedTuple):
    """What one request may use. Each floor is the least that it can be expected to use; money in micro-dollars."""

    tokens: int = 0
    token_minimum: int = 0
    money: int = 0
    cost_minimum: int = 0


class Limit:
    """One limit of one token. ``size`` in requests or model tokens a minute, requests at a time, or micro-dollars."""

    __slots__ = ("ends_at", "holder", "model", "name", "per", "size")
    kind: ClassVar[Kind]
    headers: ClassVar[tuple[str, str, str] | None] = None
    """The names under which clients are told the limit, what is left, and when all of it is there again."""
    is_of_amounts: ClassVar[bool] = False
    """Whether it depends on what is in a request, and not only on there being one."""

    def __init__(self, holder: str, model: str | None, size: int) -> None:
        self.holder = holder
        """The token's id."""
        self.model = model
        """The pattern of models that it is for; None: all."""
        self.size = size
        self.per: str | None = None
        """A budget's window."""
        self.ends_at: int | None = None
        self.name = f"{model or ''}|{self.kind}"
        """Of the counter, among those of the token."""

    def charge(self, amounts: Amounts) -> "Charge":
        """Of one request."""
        return Charge(self, 1, 1)

    def actual(self, tokens: int, money: int) -> int:
        """What the demand of a request that used this has turned out to be."""
        return 0

    def refresh(self, level: Counter, now: int) -> None:
        """Bring the level to the present."""

    def left(self, level: Counter) -> int:
        """What is neither used nor reserved; below 0 where more was used than the limit allows."""
        return self.size - level.used - level.reserved

    def take(self, level: Counter, amount: int) -> None:
        """Reserve."""
        level.reserved += amount

    def settle(self, level: Counter, amount: int, actual: int) -> None:
        """What was reserved has turned out to be ``actual``. The level need not be of now."""
        level.reserved = max(0, level.reserved - amount)

    def is_waiting_for_others(self, level: Counter, minimum: int) -> bool:
        """Whether it would fit if others took nothing of what they have reserved: it is worth waiting for them."""
        return level.reserved > 0 and minimum <= self.left(level) + level.reserved

    def wait(self, level: Counter, minimum: int, now: int) -> int | None:
        """Milliseconds until what does not fit may fit, if nobody takes anything meanwhile. None: never."""
        return PER_MINUTE // 60

    def used(self, level: Counter) -> int:
        """What was used, without what is only reserved: in the unit of ``size``."""
        return level.used


class _Rate(Limit):
    __slots__ = ()

    def refresh(self, level: Counter, now: int) -> None:
        if now > level.at:
            paid = self.size * (now - level.at)
            level.used = level.used - paid if level.used > paid else 0
        level.at = now  # also back: after a restart the clock may be right again

    def left(self, level: Counter) -> int:
        return (self.size * PER_MINUTE - level.used) // PER_MINUTE - level.reserved

    def wait(self, level: Counter, minimum: int, now: int) -> int | None:
        if minimum > self.size:
            return None
        return max(1, -(-(level.used + (minimum - self.size) * PER_MINUTE) // self.size))

    def used(self, level: Counter) -> int:
        return -(-level.used // PER_MINUTE)

    def _owed(self, debt: int) -> int:
        """An hour's worth at the most: one absurd report must not lock a token for years."""
        return min(max(0, debt), self.size * PER_MINUTE * LONGEST_DEBT_MINUTES, LARGEST)


class RequestsPerMinute(_Rate):
    """Nothing of it is called reserved: a request that is made is made."""

    __slots__ = ()
    kind = Kind.REQUESTS
    headers = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")

    def actual(self, tokens: int, money: int) -> int:
        return 1

    def take(self, level: Counter, amount: int) -> None:
        level.used += amount * PER_MINUTE

    def settle(self, level: Counter, amount: int, actual: int) -> None:
        level.used = self._owed(level.used + (actual - amount) * PER_MINUTE)


class TokensPerMinute(_Rate):
    """What is reserved is no debt yet: nothing of it is paid back before it is known."""

    __slots__ = ()
    kind = Kind.TOKENS
    headers = ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")
    is_of_amounts = True

    def charge(self, amounts: Amounts) -> "Charge":
        tokens, minimum, _, _ = amounts
        # A guess never asks for more than there can be; what is known to be too much is not cut to fit.
        return Charge(self, tokens if minimum > self.size else min(tokens, self.size), minimum)

    def actual(self, tokens: int, money: int) -> int:
        return tokens

    def settle(self, level: Counter, amount: int, actual: int) -> None:
        level.used = self._owed(level.used + actual * PER_MINUTE)
        level.reserved = max(0, level.reserved - amount)


class Concurrency(Limit):
    __slots__ = ()
    kind = Kind.PARALLEL


class BudgetWindow(Limit):
    """For one window, which the name of the counter holds."""

    __slots__ = ()
    kind = Kind.BUDGET
    is_of_amounts = True

    def charge(self, amounts: Amounts) -> "Charge":
        _, _, money, minimum = amounts
        return Charge(self, money, minimum)

    def actual(self, tokens: int, money: int) -> int:
        return money

    def for_window(self, per: str | None, window: str, ends_at: int | None) -> "BudgetWindow":
        self.per, self.ends_at = per, ends_at
        self.name = f"{self.name}|{per or ''}|{window}"
        return self

    def settle(self, level: Counter, amount: int, actual: int) -> None:
        level.used = min(LARGEST, level.used + actual)
        level.reserved = max(0, level.reserved - amount)

    def wait(self, level: Counter, minimum: int, now: int) -> int | None:
        if self.ends_at is None or minimum > self.size:
            return None
        return max(1, self.ends_at - now)


class Charge(NamedTuple):
    """What one request wants under one limit."""

    limit: Limit
    amount: int
    """What to reserve: for tokens and money an estimate that the truth replaces later."""
    minimum: int
    """The least that will do where nothing else is reserved: an estimate must not refuse what may well fit."""


def reservable_amount(charge: Charge, level: Counter) -> int | None:
    """How much may be reserved, of a level that is of now. None: it does not fit.

    Where nothing is reserved by anybody, an estimate is cut to what is left.
    """
    left = charge.limit.left(level)
    if charge.amount <= left:
        return charge.amount
    return left if level.reserved == 0 and charge.minimum <= left else None
