"""What counts. All demands of a request are granted together, or none is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.limits.algorithms import Demand, Level, granted


@dataclass(slots=True)
class Reservation:
    """What a request holds until it is settled. ``levels`` are those after what happened to it last.

    ``worker`` is who has reserved, where several do.
    """

    worker: int
    demands: Sequence[Demand]
    amounts: list[int]
    levels: Sequence[Level]


class Refusal(NamedTuple):
    """The demand that stands in the way. ``wait`` in milliseconds, None where no waiting helps.

    ``is_held``: everything that stands in the way is reserved by other requests, which may give it back.
    """

    demand: Demand
    level: Level
    wait: int | None
    is_held: bool
    demands: Sequence[Demand]
    levels: Sequence[Level]


class CountersDown(Exception):
    """The counters cannot be reached: nobody knows what is left."""


class Counters(Protocol):
    """Levels by token and name. ``now`` is in milliseconds since the epoch, and never runs backwards."""

    name: str

    async def reserve(self, demands: Sequence[Demand], now: int) -> Reservation | Refusal:
        """Atomic. Cancelled, it has reserved nothing. Raises CountersDown."""

    async def extend(self, reservation: Reservation, place: int, amount: int, now: int) -> bool:
        """Reserve more for one of the demands; False where it does not fit. Raises CountersDown."""

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        """Replace what was reserved by what was used, for each demand. Once; nothing keeps it from counting."""

    async def levels(self, demands: Sequence[Demand], now: int) -> list[Level]:
        """As they are. Raises CountersDown."""

    @property
    def is_up(self) -> bool: ...

    @property
    def waiting(self) -> int:
        """Settlements and levels that are not yet where they outlive this process."""

    async def run(self) -> None:
        """Keep house until cancelled."""

    async def aclose(self) -> None:
        """Write what waits."""


def decide(demands: Sequence[Demand], found: Sequence[Level], now: int) -> list[int] | Refusal:
    """The amounts to reserve, for levels that are of now; or the refusal that lasts longest."""
    amounts: list[int] = []
    for demand, level in zip(demands, found, strict=True):
        amount = granted(demand, level)
        if amount is None:
            return _refusal(demands, found, now)
        amounts.append(amount)
    return amounts


def _refusal(demands: Sequence[Demand], found: Sequence[Level], now: int) -> Refusal:
    refusals = [
        Refusal(
            demand,
            level,
            demand.limit.wait(level, demand.floor, now),
            demand.limit.is_held(level, demand.floor),
            demands,
            found,
        )
        for demand, level in zip(demands, found, strict=True)
        if granted(demand, level) is None
    ]
    return max(refusals, key=lambda one: (not one.is_held, one.wait is None, one.wait or 0))
