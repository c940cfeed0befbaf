"""Computes what one limit allows: what remains of it, whether a request fits, how long a client waits. Pure.

A rate per minute is a leaky bucket (GCRA): each use adds debt, and debt is paid back continuously. A token of 60 requests
per minute may send 60 at once and then one each second. One request or model token is 60,000 parts of debt, because a limit
of ``size`` per minute then pays back exactly ``size`` parts each millisecond: whole numbers, no rounding, for every size.

A budget has one counter for each calendar window (UTC), which is named after the window: no counter ever needs a reset.
Every ``now`` here is in milliseconds since the epoch.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

from gateway.core import wildcards
from gateway.limits.calendar_windows import ALL_TIME, CalendarWindow
from gateway.limits.models import Amounts, Counter, LimitKind, TokenCounters

MS_PER_MINUTE = 60_000
DEBT_PER_UNIT = MS_PER_MINUTE
"""Parts of debt that one request or one model token adds. With any other number paying back would have to be rounded."""
MAX_DEBT_MINUTES = 60
"""The most debt that a rate keeps, in minutes of its size."""
MAX_COUNTER_VALUE = 2**61
"""The most that a counter counts to: whatever a provider reports, the counter still fits into 64 bits."""
CONCURRENCY_RETRY_MS = 1000
MAX_CLOCK_SKEW_MS = 60_000
"""A rate whose time is further in the future was written by a clock that was wrong, and its debt is void."""


class Limit:
    """Describes one limit of one token and does the arithmetic on its counter. Subclasses are the four algorithms.

    The methods that take a counter expect one that is refilled up to now, except ``refill`` and ``settle``.
    """

    __slots__ = ("counter_key", "ends_at", "model", "name", "one_request", "per", "size", "token_id")
    kind: ClassVar[LimitKind]
    used_by_request: ClassVar[Literal["nothing", "request", "tokens", "cost"]] = "nothing"
    """What of a finished request counts as used."""
    headers: ClassVar[tuple[str, str, str] | None] = None
    """The response headers for the limit, what remains of it, and the time until all of it is available again."""
    needs_estimate: ClassVar[bool] = False
    """Whether the charge depends on the content of a request, so that an estimate has to be made."""

    def __init__(self, token_id: str, model: str | None, size: int) -> None:
        self.token_id = token_id
        self.model = model
        """The pattern of the models that share the limit; None: all models."""
        self.size = size
        """Requests or model tokens per minute, requests at a time, or micro-dollars."""
        self.per: str | None = None
        """``day``, ``week`` or ``month`` for a budget that is renewed."""
        self.ends_at: int | None = None
        self.name = f"{wildcards.canonical(model or '')}|{self.kind}"
        """The name of the counter, unique among the counters of the token. It is written to files."""
        self.counter_key = f"{token_id}|{self.name}"
        self.one_request = Charge(self, 1, 1)

    def charge(self, amounts: Amounts) -> "Charge":
        """Returns what one request has to reserve."""
        return self.one_request

    def available(self, counter: Counter, now: int) -> int:
        """Brings the counter up to ``now``, and returns what remains."""
        return self.size - counter.used - counter.reserved

    def refill(self, counter: Counter, now: int) -> None:
        """Pays back the debt of a rate up to ``now``."""

    def remaining(self, counter: Counter) -> int:
        """Returns what is neither used nor reserved; negative where more was used than the limit allows."""
        return self.size - counter.used - counter.reserved

    def reserve(self, counter: Counter, amount: int) -> None:
        """Adds a reservation."""
        counter.reserved += amount

    def settle(self, counter: Counter, amount: int, actual: int) -> None:
        """Replaces a reservation of ``amount`` by the ``actual`` use. The counter need not be refilled."""
        counter.reserved = max(0, counter.reserved - amount)

    def is_waiting_for_others(self, counter: Counter, minimum: int) -> bool:
        """Returns whether ``minimum`` would fit if the reservations of all other requests were given back unused."""
        return counter.reserved > 0 and minimum <= self.remaining(counter) + counter.reserved

    def retry_after_ms(self, counter: Counter, minimum: int, now: int) -> int | None:
        """Returns the time until ``minimum`` may fit if nothing else is reserved meanwhile; None: it never fits."""
        return CONCURRENCY_RETRY_MS

    def used(self, counter: Counter) -> int:
        """Returns what was used, in the unit of ``size``."""
        return counter.used


class _Rate(Limit):
    __slots__ = ("_max_debt",)

    def __init__(self, token_id: str, model: str | None, size: int) -> None:
        super().__init__(token_id, model, size)
        self._max_debt = min(size * DEBT_PER_UNIT * MAX_DEBT_MINUTES, MAX_COUNTER_VALUE)

    def available(self, counter: Counter, now: int) -> int:
        self.refill(counter, now)
        return self.size - -(-counter.used // DEBT_PER_UNIT) - counter.reserved

    def refill(self, counter: Counter, now: int) -> None:
        if now > counter.at:
            paid = self.size * (now - counter.at)
            counter.used = counter.used - paid if counter.used > paid else 0
        elif counter.at > now + MAX_CLOCK_SKEW_MS:
            counter.used = 0
        counter.at = now  # also backwards: after a restart the clock may be right again

    def remaining(self, counter: Counter) -> int:
        return (self.size * DEBT_PER_UNIT - counter.used) // DEBT_PER_UNIT - counter.reserved

    def retry_after_ms(self, counter: Counter, minimum: int, now: int) -> int | None:
        if minimum > self.size:
            return None
        return max(1, -(-(counter.used + (minimum - self.size) * DEBT_PER_UNIT) // self.size))

    def used(self, counter: Counter) -> int:
        return -(-counter.used // DEBT_PER_UNIT)

    def _bounded(self, debt: int) -> int:
        """Limits debt to one hour of the rate: one absurd report of a provider must not lock a token for years."""
        return 0 if debt < 0 else debt if debt < self._max_debt else self._max_debt


class RequestsPerMinute(_Rate):
    """Counts a request as used when it is reserved, because a request that was made stays made."""

    __slots__ = ()
    kind = LimitKind.REQUESTS
    headers = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
    used_by_request = "request"

    def reserve(self, counter: Counter, amount: int) -> None:
        counter.used += amount * DEBT_PER_UNIT

    def settle(self, counter: Counter, amount: int, actual: int) -> None:
        counter.used = self._bounded(counter.used + (actual - amount) * DEBT_PER_UNIT)


class TokensPerMinute(_Rate):
    """Counts model tokens. A reservation becomes debt when it is settled, so that it is not paid back before."""

    __slots__ = ()
    kind = LimitKind.TOKENS
    headers = ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")
    needs_estimate = True
    used_by_request = "tokens"

    def charge(self, amounts: Amounts) -> "Charge":
        tokens, minimum = amounts.tokens, amounts.minimum_tokens
        # An estimate is cut to the whole limit; a minimum that is above the limit is not, it has to be refused.
        most = tokens if minimum > self.size or tokens < self.size else self.size
        return tuple.__new__(Charge, (self, most, minimum))  # a third of the time that Charge() takes

    def settle(self, counter: Counter, amount: int, actual: int) -> None:
        counter.used = self._bounded(counter.used + actual * DEBT_PER_UNIT)
        counter.reserved = max(0, counter.reserved - amount)


class Concurrency(Limit):
    """Counts requests at a time: each reserves one and gives it back when it is settled."""

    __slots__ = ()
    kind = LimitKind.PARALLEL


class BudgetWindow(Limit):
    """Counts money within one calendar window.

    What is used is also added to the counters of the other windows of its day, so that a budget that gets another window
    begins with what was used in it.
    """

    __slots__ = ("other_windows",)
    kind = LimitKind.BUDGET
    needs_estimate = True
    used_by_request = "cost"

    def __init__(
        self,
        token_id: str,
        model: str | None,
        size: int,
        per: str | None = None,
        windows: Mapping[str | None, CalendarWindow] = MappingProxyType({None: ALL_TIME}),
    ) -> None:
        """``windows`` has the windows of one day by their lengths, that of ``per`` among them."""
        super().__init__(token_id, model, size)
        counters = {length: f"{self.name}|{length or ''}|{window.name}" for length, window in windows.items()}
        self.per = per
        self.ends_at = windows[per].ends_at
        self.name = counters[per]
        self.counter_key = f"{token_id}|{self.name}"
        self.other_windows = tuple(
            (counters[length], window.ends_at) for length, window in windows.items() if length != per
        )
        """The names of the counters of the other windows of the day, and when they end."""

    def charge(self, amounts: Amounts) -> "Charge":
        return tuple.__new__(Charge, (self, amounts.cost, amounts.minimum_cost))

    def settle(self, counter: Counter, amount: int, actual: int) -> None:
        counter.used = max(0, min(MAX_COUNTER_VALUE, counter.used + actual))
        counter.reserved = max(0, counter.reserved - amount)

    def retry_after_ms(self, counter: Counter, minimum: int, now: int) -> int | None:
        if self.ends_at is None or minimum > self.size:
            return None
        return max(1, self.ends_at - now)


class Charge(NamedTuple):
    """What one request has to reserve of one limit."""

    limit: Limit
    amount: int
    """An estimate for tokens and money; settling replaces it by what was used."""
    minimum: int
    """The least that the request can use. It is enough where nothing else is reserved, so that an estimate that is too
    high does not refuse a request that may fit."""


def reservable_amount(charge: Charge, counter: Counter) -> int | None:
    """Returns how much of a charge can be reserved of a counter that is refilled up to now; None: it does not fit.

    The amount is cut to what remains where no other request has anything reserved and the minimum fits.
    """
    remaining = charge.limit.remaining(counter)
    if charge.amount <= remaining:
        return charge.amount
    return remaining if counter.reserved == 0 and charge.minimum <= remaining else None


def charges(limits: Sequence[Limit], amounts: Amounts) -> list[Charge]:
    """Returns what one request has to reserve of each limit."""
    return [limit.charge(amounts) for limit in limits]


def actual_charges(charged: Sequence[Charge], tokens: int, cost: int) -> list[int]:
    """Returns what a finished request has used of each limit, in the order of its charges. Cost is in micro-dollars."""
    used = {"nothing": 0, "request": 1, "tokens": tokens, "cost": cost}
    return [used[charge.limit.used_by_request] for charge in charged]


def refill_counters(charged: Sequence[Charge], counters: Sequence[Counter], now: int) -> None:
    """Brings the counter of each charge up to ``now``."""
    for charge, counter in zip(charged, counters, strict=True):
        charge.limit.refill(counter, now)


def reserve_charges(charged: Sequence[Charge], counters: Sequence[Counter], now: int) -> list[int] | None:
    """Brings the counters up to ``now`` and reserves an amount for each charge; where one does not fit, nothing, and None.

    The amounts are those of ``reservable_amount``, found in one pass: every limited request takes this way.
    """
    amounts: list[int] = []
    fits = True
    for (limit, amount, minimum), counter in zip(charged, counters, strict=True):
        remaining = limit.available(counter, now)
        if amount > remaining:
            fits = fits and counter.reserved == 0 and minimum <= remaining
        amounts.append(amount if amount <= remaining else remaining)
    if not fits:
        return None
    for (limit, _, _), counter, amount in zip(charged, counters, amounts, strict=True):
        limit.reserve(counter, amount)
    return amounts


def settle_charges(
    charged: Sequence[Charge],
    counters: Sequence[Counter],
    amounts: Sequence[int],
    actual: Sequence[int],
    tokens: Mapping[str, TokenCounters],
) -> None:
    """Replaces the amount that was reserved for each charge by what was used.

    ``tokens`` has all counters by the ids of their tokens: money is counted in every window of its day.
    """
    for (limit, _, _), counter, amount, used in zip(charged, counters, amounts, actual, strict=True):
        limit.settle(counter, amount, used)
        if used and isinstance(limit, BudgetWindow):
            count_in_other_windows(tokens[limit.token_id], limit, used)


def count_in_other_windows(counters: TokenCounters, limit: BudgetWindow, used: int) -> None:
    """Adds what was used of a budget to the counters of the other windows that contain its day."""
    for name, ends_at in limit.other_windows:
        counter = counters.get(name)
        if counter is None:
            counter = counters[name] = Counter(ends_at=ends_at)
        total = counter.used + used
        counter.used = total if 0 <= total <= MAX_COUNTER_VALUE else max(0, min(MAX_COUNTER_VALUE, total))
