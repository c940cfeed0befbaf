"""What counts. All demands of a request are granted together, or none is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.limits.algorithms import Charge, Counter, reservable_amount


@dataclass(slots=True)
class Reservation:
    """What a request holds until it is settled. ``counters`` are those after what happened to it last.

    ``worker`` is who has reserved, where several do.
    """

    worker: int
    charges: Sequence[Charge]
    amounts: list[int]
    counters: Sequence[Counter]


class LimitExceeded(NamedTuple):
    """The demand that stands in the way. ``wait`` in milliseconds, None where no waiting helps.

    ``is_waiting_for_others``: everything that stands in the way is reserved by other requests, which may give it back.
    """

    charge: Charge
    level: Counter
    wait: int | None
    is_waiting_for_others: bool
    charges: Sequence[Charge]
    counters: Sequence[Counter]


class CounterStoreUnavailable(Exception):
    """The counters cannot be reached: nobody knows what is left."""


class CounterStore(Protocol):
    """Levels by token and name. ``now`` is in milliseconds since the epoch, and never runs backwards."""

    name: str

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        """Atomic. Cancelled, it has reserved nothing. Raises CounterStoreUnavailable."""

    async def extend(self, reservation: Reservation, place: int, amount: int, now: int) -> bool:
        """Reserve more for one of the demands; False where it does not fit. Raises CounterStoreUnavailable."""

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        """Replace what was reserved by what was used, for each demand. Once; nothing keeps it from counting."""

    async def counters(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        """As they are. Raises CounterStoreUnavailable."""

    @property
    def is_up(self) -> bool: ...

    @property
    def waiting(self) -> int:
        """Settlements and levels that are not yet where they outlive this process."""

    async def run(self) -> None:
        """Keep house until cancelled."""

    async def aclose(self) -> None:
        """Write what waits."""


def decide(charges: Sequence[Charge], found: Sequence[Counter], now: int) -> list[int] | LimitExceeded:
    """The amounts to reserve, for levels that are of now; or the refusal that lasts longest."""
    amounts: list[int] = []
    for charge, level in zip(charges, found, strict=True):
        amount = reservable_amount(charge, level)
        if amount is None:
            return _refusal(charges, found, now)
        amounts.append(amount)
    return amounts


def _refusal(charges: Sequence[Charge], found: Sequence[Counter], now: int) -> LimitExceeded:
    refusals = [
        LimitExceeded(
            charge,
            level,
            charge.limit.wait(level, charge.minimum, now),
            charge.limit.is_waiting_for_others(level, charge.minimum),
            charges,
            found,
        )
        for charge, level in zip(charges, found, strict=True)
        if reservable_amount(charge, level) is None
    ]
    return max(refusals, key=lambda one: (not one.is_waiting_for_others, one.wait is None, one.wait or 0))
