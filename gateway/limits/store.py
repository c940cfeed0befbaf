"""Defines the store of counters: what a reservation is, and the protocol that every implementation keeps.

All charges of a request are reserved together, or none of them. Every ``now`` here is in milliseconds since the epoch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from gateway.limits.algorithms import (
    BudgetWindow,
    Charge,
    Limit,
    refill_counters,
    reservable_amount,
    reserve_charges,
)
from gateway.limits.calendar_windows import MS_PER_DAY
from gateway.limits.models import Counter, TokenCounters


@dataclass(slots=True)
class Reservation:
    """Holds what a request has reserved until it is settled."""

    worker: int
    """The worker that has reserved it, where several workers share a store; 0 in a store of one process."""
    charges: Sequence[Charge]
    amounts: list[int]
    """What is reserved for each charge."""
    counters: Sequence[Counter]
    """The counter of each charge, as it was after the last change that this request made."""
    at: int
    """When it was reserved."""
    settled_money: int = 0
    """Of each budget's amount, the micro-dollars that count as used already."""
    interval: int = 0
    """The interval between two writes in which it was granted from leases; 0 where it was reserved in the store itself."""

    def settle_money(self, used: int) -> tuple["Reservation", list[int]]:
        """Notes that ``used`` micro-dollars are used so far, and returns the part of this that is to be settled now.

        With it goes what was used under each of its charges since the last such call: below 0 where it was less than it seemed.
        The rest of the reservation, and all that it has of other limits, stays reserved.
        """
        added, indexes = used - self.settled_money, self._budgets()
        released = []
        for index in indexes:
            left = self.amounts[index] - self.settled_money
            released.append(min(left, added))
            self.amounts[index] = max(self.amounts[index], used)
        self.settled_money = used
        charges, counters = [self.charges[index] for index in indexes], [self.counters[index] for index in indexes]
        part = Reservation(self.worker, charges, released, counters, self.at, interval=self.interval)
        return part, [added] * len(indexes)

    def unsettled(self, actual: Sequence[int]) -> list[int]:
        """Returns ``actual``, what was used of each charge in all, without what is settled. The amounts become what is left."""
        left = list(actual)
        for index in self._budgets():
            left[index] -= self.settled_money
            self.amounts[index] -= self.settled_money
        self.settled_money = 0
        return left

    def _budgets(self) -> list[int]:
        return [index for index, charge in enumerate(self.charges) if isinstance(charge.limit, BudgetWindow)]

    @property
    def has_budget(self) -> bool:
        """Whether money is reserved, too."""
        return any(isinstance(charge.limit, BudgetWindow) for charge in self.charges)

    @property
    def reserved_money(self) -> int:
        """The most micro-dollars that are reserved under one budget; 0 without any."""
        pairs = zip(self.charges, self.amounts, strict=True)
        return max((amount for charge, amount in pairs if isinstance(charge.limit, BudgetWindow)), default=0)


class LimitExceeded(NamedTuple):
    """Tells why a request was not granted: the charge that does not fit, and the state of all limits of the request."""

    charge: Charge
    counter: Counter
    """The counter of that charge."""
    retry_after_ms: int | None
    """The time until it may fit; None where it never fits."""
    is_waiting_for_others: bool
    """Whether it would fit if other requests gave back what they have reserved."""
    charges: Sequence[Charge]
    counters: Sequence[Counter]
    """The counter of each of ``charges``."""


class CounterStoreUnavailable(Exception):
    """The counters cannot be read or written, so it is unknown what remains of any limit."""


RateClock: TypeAlias = Callable[[], float]
"""Returns seconds since the epoch by a clock that no jump of the wall clock changes."""


class CounterStore(Protocol):
    """Keeps the counters of all tokens, each under the id of its token and the name of its limit.

    The ``now`` of successive calls never decreases. It is the time of reservations and of budgets; rates may be paid back by
    a ``RateClock``, and counters of ended windows are deleted by it.
    """

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        """Reserves all charges, or none; when cancelled, none. Raises CounterStoreUnavailable."""

    async def extend(self, reservation: Reservation, index: int, amount: int, now: int) -> bool:
        """Reserves ``amount`` more for the charge at ``index``, or returns False. Raises CounterStoreUnavailable."""

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        """Replaces what was reserved by what was used, for each charge. To be called once for each reservation.

        Money that was settled before may be taken back: then what was used is below 0.

        It never fails: what cannot be written at once is pending.
        """

    async def read(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        """Returns a copy of each charge's counter, refilled up to ``now``. Raises CounterStoreUnavailable."""

    @property
    def is_up(self) -> bool:
        """Whether the last access to the file succeeded."""

    @property
    def problem(self) -> str | None:
        """What does not work while ``is_up`` is False, and who is refused meanwhile; else None."""

    @property
    def pending(self) -> int:
        """The number of changes that are not written yet and would be lost if the process were killed."""

    async def flush(self) -> None:
        """Writes what is pending. What cannot be written stays pending, and ``is_up`` turns False."""

    async def run(self) -> None:
        """Writes what is pending again and again, until cancelled."""

    async def aclose(self) -> None:
        """Writes what is pending and closes the file."""


def find_counters(tokens: dict[str, TokenCounters], charges: Sequence[Charge], now: int) -> list[Counter]:
    """Returns the counter of each charge, refilled up to ``now``. ``tokens`` has all counters by the ids of their tokens."""
    found = _get_or_add_all(tokens, charges, now)
    refill_counters(charges, found, now)
    return found


def reserve(
    tokens: dict[str, TokenCounters], charges: Sequence[Charge], now: int, rate_now: int
) -> Reservation | LimitExceeded:
    """Reserves all charges, or none, in counters that nobody else changes meanwhile.

    ``tokens`` as in ``find_counters``; rates are paid back up to ``rate_now``.
    """
    counters = _get_or_add_all(tokens, charges, rate_now)
    amounts = reserve_charges(charges, counters, rate_now)
    if amounts is None:
        return _longest_wait(charges, counters, now)
    return Reservation(0, charges, amounts, counters, now)


def _get_or_add_all(tokens: dict[str, TokenCounters], charges: Sequence[Charge], now: int) -> list[Counter]:
    try:
        return [tokens[limit.token_id][limit.name] for limit, _, _ in charges]
    except KeyError:
        pass  # one of them is new
    found = []
    for limit, _, _ in charges:
        counters = tokens.get(limit.token_id)
        if counters is None:
            counters = tokens[limit.token_id] = {}
        counter = counters.get(limit.name)
        found.append(_get_or_add(counters, limit, now) if counter is None else counter)
    return found


def find_counter(counters: TokenCounters, limit: Limit, now: int | None) -> Counter:
    """Returns the counter of a limit, and adds it if the token has none yet.

    With ``now`` it is refilled up to then; and whenever one is added, counters of budgets whose window ended more than a
    day before are deleted.
    """
    counter = _get_or_add(counters, limit, now)
    if now is not None:
        limit.refill(counter, now)
    return counter


def _get_or_add(counters: TokenCounters, limit: Limit, now: int | None) -> Counter:
    counter = counters.get(limit.name)
    if counter is None:
        if now is not None:
            _delete_ended(counters, now)
        counter = counters[limit.name] = Counter(ends_at=limit.ends_at)
    return counter


def _delete_ended(counters: TokenCounters, now: int) -> None:
    ended = [
        name
        for name, counter in counters.items()
        if counter.ends_at is not None and counter.ends_at + MS_PER_DAY < now and counter.reserved == 0
    ]
    for name in ended:
        del counters[name]


def decide(charges: Sequence[Charge], counters: Sequence[Counter], now: int) -> list[int] | LimitExceeded:
    """Returns the amount to reserve for each charge, or the charge that does not fit. The counters are refilled up to ``now``.

    Where several charges do not fit, the result is the one that keeps the request waiting longest.
    """
    amounts = [reservable_amount(charge, counter) for charge, counter in zip(charges, counters, strict=True)]
    fitting = [amount for amount in amounts if amount is not None]
    return fitting if len(fitting) == len(amounts) else _longest_wait(charges, counters, now)


def _longest_wait(charges: Sequence[Charge], counters: Sequence[Counter], now: int) -> LimitExceeded:
    exceeded = [
        LimitExceeded(
            charge,
            counter,
            charge.limit.retry_after_ms(counter, charge.minimum, now),
            charge.limit.is_waiting_for_others(counter, charge.minimum),
            charges,
            counters,
        )
        for charge, counter in zip(charges, counters, strict=True)
        if reservable_amount(charge, counter) is None
    ]
    return max(
        exceeded, key=lambda one: (not one.is_waiting_for_others, one.retry_after_ms is None, one.retry_after_ms or 0)
    )
