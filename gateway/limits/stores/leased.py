"""Grants requests from units that this worker has leased from a store of shared counters, without asking it for each of them.

What is granted, reserved and used is added up in memory and written to the shared store within some milliseconds, together with
the renewal of the leases. A lease is reserved in the shared store before anything is granted from it. A request that does not
fit into the leases is reserved in the shared store itself; where it does not fit there because of leases, it waits for a moment
until all workers have given theirs back.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

from gateway.limits.algorithms import Charge, Limit, RequestsPerMinute
from gateway.limits.leases import CounterChange, Lease, LeaseRequest, RenewedLease, counters_behind_leases, lease_id
from gateway.limits.models import Counter
from gateway.limits.store import CounterStore, CounterStoreUnavailable, LimitExceeded, RateClock, Reservation

WRITE_SECONDS = 0.005
IDLE_SECONDS = 0.05
"""A lease of which nothing was granted for so long, or twice as long, is given back."""
VALID_SECONDS = 1.0
"""Nothing is granted from leases that were not renewed for so long: this process may have been stopped, and count as dead."""
MAX_WAIT_SECONDS = 1.0
"""How long a request waits for leases of other workers. They are back after a tenth of that, unless a worker is stopped."""
POLL_SECONDS = 0.01


class SharedCounterStore(CounterStore, Protocol):
    """Keeps counters that several workers share, and lets them lease units."""

    @property
    def worker(self) -> int:
        """The id under which this worker reserves now."""

    def apply(self, changes: Sequence[CounterChange]) -> None:
        """Makes changes with the next access, or on its own within some milliseconds. It never fails, like ``settle``."""

    async def renew(self, requests: Sequence[LeaseRequest], now: int) -> list[RenewedLease]:
        """Makes all changes that are pending, and gives each lease its new size.

        It is not given up when it is cancelled. Raises CounterStoreUnavailable; then no lease has changed.
        """


class LeasedCounterStore:
    """Counts for one worker of several, in front of a store that they share. Its methods are called on the event loop."""

    def __init__(self, shared: SharedCounterStore, rate_clock: RateClock | None = None) -> None:
        """``rate_clock`` also tells how long ago leases were renewed; without it the monotonic clock does."""
        self._shared = shared
        self._rate_clock = rate_clock
        self._clock = rate_clock or time.monotonic
        self._leases: dict[str, Lease] = {}
        """Leases by the keys of their counters."""
        self._active: list[Lease] = []
        self._changes: dict[str, CounterChange] = {}
        """What was settled of reservations in the shared store, by the keys of the counters."""
        self._interval = 1
        """The number of the interval between two writes: what was granted in it is a part of the leases still."""
        self._worker = shared.worker
        """The id under which the leases are reserved."""
        self._valid_until = 0.0
        self._now = 0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Locks by the ids of tokens: of the requests of one token that wait for leases, one asks at a time."""
        self._writing = asyncio.Lock()
        self._timers: dict[float, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def reserve(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        """Reserves all charges from leases, or all of them in the shared store. Raises CounterStoreUnavailable."""
        self._now = now
        granted = self._grant(charges, now)
        if granted is not None:
            return granted
        if self._changes:
            self._apply_changes()
        outcome = await self._shared.reserve(charges, now)
        if isinstance(outcome, LimitExceeded) and counters_behind_leases(charges, outcome.counters):
            outcome = await self._reserve_without_leases(charges, now)
        if isinstance(outcome, Reservation):
            self._note_missed(charges)
        return outcome

    async def extend(self, reservation: Reservation, index: int, amount: int, now: int) -> bool:
        """Adds to one charge, in the shared store. Raises CounterStoreUnavailable."""
        charge = Charge(reservation.charges[index].limit, amount, amount)
        deadline = self._clock() + MAX_WAIT_SECONDS
        self._apply_changes()
        is_last = False
        while not (is_extended := await self._shared.extend(reservation, index, amount, now)) and not is_last:
            self._give_back([charge])
            await self._shared.renew((), now)
            is_last = self._clock() >= deadline or not await self._is_behind_leases(charge, now)
            await asyncio.sleep(0 if is_last else POLL_SECONDS)
        return is_extended

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        """See ``CounterStore.settle``."""
        is_leased = reservation.interval == self._interval
        known = zip(reservation.charges, reservation.counters, reservation.amounts, actual, strict=True)
        for (limit, _, _), counter, amount, used in known:
            limit.settle(counter, amount, used)  # for the headers of the response
            if is_leased:
                lease = self._leases[limit.counter_key]
                lease.running -= amount
                lease.ended += amount
                lease.used += used
            else:
                self._settle_shared(limit, reservation.worker, amount, used)
        self._schedule(WRITE_SECONDS)

    async def read(self, charges: Sequence[Charge], now: int) -> list[Counter]:
        """Reads the counters of these charges, without the leases of this worker. Raises CounterStoreUnavailable."""
        self._apply_changes()
        counters = await self._shared.read(charges, now)
        for counter in counters:
            counter.reserved -= (counter.reserved_by_worker or {}).pop(lease_id(self._worker), 0)
        return counters

    @property
    def is_up(self) -> bool:
        """Whether the last access to the shared store succeeded."""
        return self._shared.is_up

    @property
    def problem(self) -> str | None:
        """What does not work while the shared store is down; else None."""
        return self._shared.problem

    @property
    def pending(self) -> int:
        """The number of counters whose changes are not written yet."""
        granted = sum(1 for lease in self._active if lease.running or lease.ended)
        return granted + len(self._changes) + self._shared.pending

    async def flush(self) -> None:
        """Writes what is pending, and renews the leases."""
        await self._write()
        await self._shared.flush()

    async def run(self) -> None:
        """Keeps the shared store until cancelled."""
        await self._shared.run()

    async def aclose(self) -> None:
        """Gives all leases back, writes what is pending and closes the shared store."""
        self._is_closed = True
        for timer in self._timers.values():
            timer.cancel()
        await asyncio.gather(*self._tasks)
        self._return_leases(list(self._leases.values()))
        self._leases.clear()
        await self._shared.aclose()

    def _grant(self, charges: Sequence[Charge], now: int) -> Reservation | None:
        """Returns a reservation that is made of leases, None where one of them has not enough."""
        known = self._leases
        if not known or self._clock() > self._valid_until:
            return None
        leases = []
        for limit, amount, _ in charges:
            lease = known.get(limit.counter_key)
            if lease is None or lease.free < amount or lease.limit.size != limit.size:
                return None
            leases.append(lease)
        amounts, counters = [], []
        for lease, (limit, amount, _) in zip(leases, charges, strict=True):
            lease.free -= amount
            lease.running += amount
            limit.reserve(lease.counter, amount)
            self._note(lease, amount)
            amounts.append(amount)
            counters.append(lease.counter)
        self._schedule(WRITE_SECONDS)
        return Reservation(self._worker, charges, amounts, counters, now, interval=self._interval)

    def _note(self, lease: Lease, amount: int) -> None:
        lease.asked += amount
        lease.requests += 1
        lease.is_idle = False
        lease.largest = max(lease.largest, amount)
        if not lease.is_active:
            lease.is_active = True
            self._active.append(lease)

    def _note_missed(self, charges: Sequence[Charge]) -> None:
        """Counts a request that was reserved in the shared store, so that the next ones may find leases."""
        for limit, amount, _ in charges:
            lease = self._leases.get(limit.counter_key)
            if lease is None:
                lease = self._leases[limit.counter_key] = Lease(limit)
            lease.limit = limit
            self._note(lease, amount)
        self._schedule(WRITE_SECONDS)

    async def _reserve_without_leases(self, charges: Sequence[Charge], now: int) -> Reservation | LimitExceeded:
        """Reserves in the shared store, and where leases are in the way waits until they are back."""
        deadline = self._clock() + MAX_WAIT_SECONDS
        turn = self._turns.setdefault(charges[0].limit.token_id, asyncio.Lock())
        async with turn:
            while True:
                self._give_back(charges)
                outcome = await self._shared.reserve(charges, now)
                if isinstance(outcome, Reservation) or self._clock() >= deadline:
                    return outcome
                if not counters_behind_leases(charges, outcome.counters):
                    return outcome
                await asyncio.sleep(POLL_SECONDS)

    async def _is_behind_leases(self, charge: Charge, now: int) -> bool:
        return bool(counters_behind_leases([charge], await self._shared.read([charge], now)))

    def _settle_shared(self, limit: Limit, worker: int, amount: int, used: int) -> None:
        """Notes what to write of a reservation that is in the shared store."""
        if isinstance(limit, RequestsPerMinute):
            amount, used = 0, used - amount
            if not used:
                return
        change = self._changes.get(limit.counter_key)
        if change is None or change.worker != worker or change.limit.size != limit.size:
            if change is not None:
                self._shared.apply([change])
            change = self._changes[limit.counter_key] = CounterChange(limit, worker)
        change.reserved -= amount
        change.used += used

    def _apply_changes(self) -> None:
        """Hands the shared store what was granted and settled here since the last time."""
        changes, self._changes = list(self._changes.values()), {}
        at = self._now if self._rate_clock is None else int(self._rate_clock() * 1000)
        changes += [lease.change(self._worker, at) for lease in self._active if lease.running or lease.ended]
        self._interval += 1
        self._shared.apply(changes)

    def _give_back(self, charges: Sequence[Charge]) -> None:
        """Gives back what is free of the leases for these charges."""
        keys = [charge.limit.counter_key for charge in charges]
        self._return_leases([self._leases[key] for key in keys if key in self._leases])

    def _return_leases(self, leases: Sequence[Lease]) -> None:
        self._apply_changes()
        self._shared.apply([CounterChange(lease.limit, self._worker, -lease.free) for lease in leases if lease.free])
        for lease in leases:
            lease.free = 0

    async def _write(self) -> None:
        """Writes what is pending and renews the leases of which something was asked for."""
        async with self._writing:
            self._apply_changes()
            active, self._active = self._active, []
            asked = [(lease, request) for lease in active if (request := lease.take()) is not None]
            try:
                renewed = await self._shared.renew([request for _, request in asked], self._now)
            except CounterStoreUnavailable:
                for lease, request in asked:
                    lease.free += request.current
                return
            for (lease, _), one in zip(asked, renewed, strict=True):
                lease.free, lease.counter = lease.free + one.amount, one.counter
            self._worker = self._shared.worker
            self._valid_until = self._clock() + VALID_SECONDS
        if self._leases:
            self._schedule(IDLE_SECONDS)

    async def _end_idle_leases(self) -> None:
        """Gives back leases of which nothing was granted since the last call, or since the one before it."""
        async with self._writing:
            idle = [key for key, lease in self._leases.items() if lease.is_idle]
            self._return_leases([self._leases.pop(key) for key in idle])
            for lease in self._leases.values():
                lease.is_idle = not lease.is_active
        if self._leases:
            self._schedule(IDLE_SECONDS)

    def _schedule(self, seconds: float) -> None:
        if seconds not in self._timers and not self._is_closed:
            self._timers[seconds] = asyncio.get_running_loop().call_later(seconds, self._begin, seconds)

    def _begin(self, seconds: float) -> None:
        del self._timers[seconds]
        task = asyncio.ensure_future(self._write() if seconds == WRITE_SECONDS else self._end_idle_leases())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
