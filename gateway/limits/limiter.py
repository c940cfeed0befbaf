"""Grants reservations, and lets requests wait for capacity that other requests may give back.

Requests wait in queues, one for each token and each limit that refused them. The queues are served in turn, so a token with
a hundred waiting requests delays another token by one request at most. A request that waits for one limit does not delay
requests that the limit does not apply to.
"""

import asyncio
from collections import Counter as Multiset
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.limits.algorithms import Charge
from gateway.limits.matching import CapacityRequest
from gateway.limits.store import CounterStore, CounterStoreUnavailable, LimitExceeded, Reservation

POLL_SECONDS = 0.02
"""How often waiting requests are tried again although no request of this worker was settled: other workers settle, too."""
BEHIND_QUEUE_RETRY_MS = 1000
"""The wait that is told to a request that is refused because others wait already. How long they take is unknown."""

_QueueKey = tuple[str, str]
"""The id of the waiting token, and the counter that it waits for."""


class ReservationRefused(Exception):
    """Says that a request was not granted. ``is_queue_full``: it would have waited, but its queue is full."""

    def __init__(self, limit_exceeded: LimitExceeded, is_queue_full: bool = False) -> None:
        super().__init__(limit_exceeded.charge.limit.name)
        self.limit_exceeded = limit_exceeded
        self.is_queue_full = is_queue_full


@dataclass(slots=True, eq=False)
class _Waiter:
    request: CapacityRequest
    limit_exceeded: LimitExceeded
    """What did not fit when the request was tried last."""
    outcome: "asyncio.Future[Reservation | LimitExceeded]"


class Limiter:
    """Reserves capacity in a store of counters, with queues in front of it.

    ``clock`` returns seconds since the epoch. ``note_queued`` is called with the number of waiting requests whenever it
    changes. ``poll_seconds`` None: waiting requests are tried again only when something is settled here.
    """

    def __init__(
        self,
        counters: CounterStore,
        clock: Callable[[], float],
        queue_size: int,
        note_queued: Callable[[int], None] = lambda count: None,
        poll_seconds: float | None = POLL_SECONDS,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._queue_size = queue_size
        self._note_queued = note_queued
        self._poll_seconds = poll_seconds
        self._queues: OrderedDict[_QueueKey, deque[_Waiter]] = OrderedDict()
        self._awaited: Multiset[str] = Multiset()
        """How many requests wait for each counter."""
        self._wake = asyncio.Event()

    @property
    def queued(self) -> int:
        """The number of waiting requests."""
        return sum(len(queue) for queue in self._queues.values())

    def now(self) -> int:
        """Returns milliseconds since the epoch."""
        return int(self._clock() * 1000)

    async def reserve(self, request: CapacityRequest, max_wait: float, now: int | None = None) -> Reservation:
        """Reserves what the request asks for, waiting up to ``max_wait`` seconds for what other requests give back.

        A request does not overtake one that waits for the same limit. ``now`` is in milliseconds since the epoch, for callers
        that have just asked the clock. Raises ReservationRefused, CounterStoreUnavailable.
        """
        if now is None:
            now = self.now()
        charges = request.known_charges or request.charges(now)
        exceeded = await self._behind_queue(charges, now) if self._awaited else None
        if exceeded is None:
            outcome = await self._counters.reserve(charges, now)
            if isinstance(outcome, Reservation):
                return outcome
            exceeded = outcome
        if not exceeded.is_waiting_for_others or max_wait <= 0:
            raise ReservationRefused(exceeded)
        key = (request.token_id, exceeded.charge.limit.counter_key)
        if len(self._queues.get(key, ())) >= self._queue_size:
            raise ReservationRefused(exceeded, is_queue_full=True)
        return await self._wait(key, _Waiter(request, exceeded, asyncio.get_running_loop().create_future()), max_wait)

    async def extend(self, reservation: Reservation, index: int, amount: int) -> bool:
        """Reserves ``amount`` more for the charge at ``index``, or returns False. Raises CounterStoreUnavailable."""
        return await self._counters.extend(reservation, index, amount, self.now())

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        """Replaces what was reserved by what was used in all. To be called once for each reservation."""
        if reservation.settled_money:
            actual = reservation.unsettled(actual)
        self._counters.settle(reservation, actual)
        if self._queues:
            self._wake.set()

    def settle_so_far(self, reservation: Reservation, cost: int) -> None:
        """Moves what was used of a budget so far, ``cost`` micro-dollars in all, from reserved to used.

        Rates and requests at a time are settled at the end alone: a restart forgets them anyway.
        """
        if cost != reservation.settled_money:
            self._counters.settle(*reservation.settle_money(cost))

    async def run(self) -> None:
        """Serves the queues until cancelled."""
        while True:
            self._wake.clear()
            await self._serve_queues()
            try:
                async with asyncio.timeout(self._poll_seconds if self._queues else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _behind_queue(self, charges: Sequence[Charge], now: int) -> LimitExceeded | None:
        """Returns the first limit that other requests wait for already: what becomes free is theirs."""
        for index, charge in enumerate(charges):
            if charge.limit.counter_key in self._awaited:
                counters = await self._counters.read(charges, now)
                return LimitExceeded(charge, counters[index], BEHIND_QUEUE_RETRY_MS, True, charges, counters)
        return None

    async def _wait(self, key: _QueueKey, waiter: _Waiter, max_wait: float) -> Reservation:
        self._enqueue(key, waiter)
        try:
            async with asyncio.timeout(max_wait):
                outcome = await waiter.outcome
        except TimeoutError:
            if waiter.outcome.cancelled():
                raise ReservationRefused(waiter.limit_exceeded) from None
            outcome = waiter.outcome.result()  # granted in the same turn of the loop
        except asyncio.CancelledError:
            self._release_if_granted(waiter)
            raise
        finally:
            self._dequeue(key, waiter)
        if isinstance(outcome, LimitExceeded):
            raise ReservationRefused(outcome)
        return outcome

    def _enqueue(self, key: _QueueKey, waiter: _Waiter) -> None:
        self._queues.setdefault(key, deque()).append(waiter)
        self._awaited[key[1]] += 1
        self._note_queued(self.queued)
        self._wake.set()

    def _dequeue(self, key: _QueueKey, waiter: _Waiter) -> None:
        queue = self._queues[key]
        queue.remove(waiter)
        if not queue:
            del self._queues[key]
        self._awaited[key[1]] -= 1
        if self._awaited[key[1]] == 0:
            del self._awaited[key[1]]
        self._note_queued(self.queued)

    def _release_if_granted(self, waiter: _Waiter) -> None:
        """Gives back what was granted in the turn of the loop in which the request was cancelled."""
        outcome = waiter.outcome  # done in any case: cancelling a task cancels the future that it waits for
        if not outcome.cancelled() and outcome.exception() is None:
            self._release(outcome.result())

    def _release(self, outcome: Reservation | LimitExceeded) -> None:
        """Gives back a reservation whose request is gone: it was not made, so not even the request counts."""
        if isinstance(outcome, Reservation):
            self.settle(outcome, [0] * len(outcome.charges))

    async def _serve_queues(self) -> None:
        is_progressing = True
        while is_progressing:
            is_progressing = False
            for key in list(self._queues):
                is_progressing |= await self._serve_next(key)

    async def _serve_next(self, key: _QueueKey) -> bool:
        """Tries the first request of a queue and returns whether its wait has ended."""
        waiter = next((one for one in self._queues.get(key, ()) if not one.outcome.done()), None)
        if waiter is None:
            return False
        now = self.now()
        try:
            outcome = await self._counters.reserve(waiter.request.charges(now), now)
        except CounterStoreUnavailable as error:
            if not waiter.outcome.done():
                waiter.outcome.set_exception(error)
            return True
        if waiter.outcome.done():  # the request was cancelled meanwhile
            self._release(outcome)
            return True
        if isinstance(outcome, LimitExceeded) and outcome.is_waiting_for_others:
            waiter.limit_exceeded = outcome
            return False
        waiter.outcome.set_result(outcome)
        self._queues.move_to_end(key)
        return True
