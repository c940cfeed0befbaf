"""Defines leases: units of a shared counter that one worker reserves in advance, to grant requests from its own memory.

A lease is a reservation in the shared counter, under an id of its own, so the sum over all workers never exceeds a limit. It
is small beside what remains, so that near the end of a limit nothing is leased. Pure.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.limits.algorithms import Charge, Limit, RequestsPerMinute, reservable_amount
from gateway.limits.models import Counter

PART_OF_REST = 8
"""A worker leases at most one part in so many of what remains."""
FORECAST = 4
"""A lease is for so many times what was asked for between two writes."""
WANTED_MS = 500
"""How long nothing is leased of a counter after a request did not fit beside leases."""


@dataclass(slots=True)
class CounterChange:
    """Adds to one counter what a worker has leased, reserved and used since its last write. ``leased`` and ``reserved`` may be
    negative, and so may the ``used`` of a request that was counted and not made."""

    limit: Limit
    worker: int
    leased: int = 0
    reserved: int = 0
    used: int = 0
    at: int = 0
    """When the last of it was used: a rate is paid back up to then, and not for what is added. 0: it does not matter."""


class LeaseRequest(NamedTuple):
    """Asks to keep, enlarge or reduce a lease. All amounts are in the unit of the limit's charges."""

    limit: Limit
    current: int
    """What the worker has leased and not granted yet."""
    wanted: int
    minimum: int
    """The most that one request has needed: a lease that is smaller is of no use."""


class RenewedLease(NamedTuple):
    """The size of a lease from now on, and a copy of its counter without it."""

    amount: int
    counter: Counter


@dataclass(slots=True, eq=False)
class Lease:
    """Holds what a worker has leased of one counter, and what it has granted from it since the last write."""

    limit: Limit
    counter: Counter = field(default_factory=Counter)
    """The counter without this lease, for the headers of responses."""
    free: int = 0
    """Leased, and not granted."""
    running: int = 0
    """Granted, and not settled yet."""
    ended: int = 0
    """Granted, and settled."""
    used: int = 0
    asked: int = 0
    """Asked for since the last renewal."""
    largest: int = 0
    """The most that one request has asked for."""
    requests: int = 0
    target: int = 0
    is_active: bool = False
    """Whether anything was asked for since the last renewal."""
    is_idle: bool = False
    """Whether nothing was asked for since it was looked for idle leases."""

    def take(self) -> LeaseRequest | None:
        """Returns what to ask for, by what was asked for here, and grants nothing until that is answered. A single request
        leases nothing."""
        self.is_active = False
        if self.requests < 2:
            return None
        self.target = max(FORECAST * self.asked, 2 * self.largest, self.target * 3 // 4)
        free, self.free, self.asked = self.free, 0, 0
        return LeaseRequest(self.limit, free, self.target, self.largest)

    def change(self, worker: int, at: int) -> CounterChange:
        """Returns what was granted and used since the last write, and begins to count anew."""
        granted, running, used = self.running + self.ended, self.running, self.used
        if isinstance(self.limit, RequestsPerMinute):
            running, used = 0, used + running  # a request counts as used when it is reserved
        self.running = self.ended = self.used = 0
        return CounterChange(self.limit, worker, -granted, running, used, at)


def new_worker_id() -> int:
    """Returns a random id for a worker. It is even: the number after it is the id of the worker's leases."""
    return random.getrandbits(61) * 2


def lease_id(worker: int) -> int:
    """Returns the id under which the leases of a worker are reserved."""
    return worker + 1


def leased_amount(counter: Counter) -> int:
    """Returns how much of what is reserved are leases: some of it will be given back within a moment."""
    return sum(amount for worker, amount in (counter.reserved_by_worker or {}).items() if worker & 1)


def counters_behind_leases(charges: Sequence[Charge], counters: Sequence[Counter]) -> list[Counter]:
    """Returns the counters whose charge does not fit while some of them is leased: it may fit when the leases are back."""
    pairs = zip(charges, counters, strict=True)
    return [one for charge, one in pairs if leased_amount(one) and reservable_amount(charge, one) is None]


def renewed_amount(request: LeaseRequest, counter: Counter, now: int) -> int:
    """Returns the size of a lease from ``now`` on (milliseconds), 0 for none. The counter is refilled and includes the lease."""
    if 0 <= now - counter.wanted_at < WANTED_MS:
        return 0
    most = (request.limit.remaining(counter) + request.current) // PART_OF_REST
    amount = min(request.wanted, most)
    return amount if amount >= 2 * max(1, request.minimum) else 0
