"""Requests wait for each other here: what others hold may be given back. Who waits is served in turn, token by token, so a
token with a hundred waiting requests keeps another with one waiting no longer than one request. And who waits for one thing keeps
nobody from another."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.limits.algorithms import Charge
from gateway.limits.store import CounterStore, CounterStoreUnavailable, LimitExceeded, Reservation

LOOK_SECONDS = 0.02
"""Between two looks at what other workers may have given back."""

TURN_MS = 1000
"""When to come back is anybody's guess where others go first."""

_Place = tuple[str, str]
"""Where one waits: whose request it is, and what it waits for."""

Plan = Callable[[int], Sequence[Charge]]
"""The demands of a request at an instant in milliseconds: windows end while somebody waits."""


class ReservationRefused(Exception):
    """A request may not pass. ``is_queue_full``: it may not even wait."""

    def __init__(self, refusal: LimitExceeded, is_queue_full: bool = False) -> None:
        super().__init__(refusal.charge.limit.name)
        self.refusal = refusal
        self.is_queue_full = is_queue_full


@dataclass(slots=True, eq=False)
class _Waiter:
    plan: Plan
    refusal: LimitExceeded
    """What stood in its way last."""
    answer: "asyncio.Future[Reservation | LimitExceeded]"


class Limiter:
    """Reservations in turn. ``clock`` in seconds; ``note_waiting`` is told how many wait whenever that changes."""

    def __init__(
        self,
        counters: CounterStore,
        clock: Callable[[], float],
        queue_size: int,
        note_waiting: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._queue_size = queue_size
        self._note_waiting = note_waiting
        self._queues: OrderedDict[_Place, deque[_Waiter]] = OrderedDict()
        self._wanted: Counter[str] = Counter()
        self._given_back = asyncio.Event()

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._clock() * 1000)

    async def reserve(self, token_id: str, plan: Plan, max_wait: float) -> Reservation:
        """Wait for at most ``max_wait`` seconds for what others hold. Raises ReservationRefused, CounterStoreUnavailable."""
        now = self.now()
        charges = plan(now)
        refusal = await self._behind_others(charges, now) if self._wanted else None
        if refusal is None:
            outcome = await self._counters.reserve(charges, now)
            if isinstance(outcome, Reservation):
                return outcome
            refusal = outcome
        if not refusal.is_waiting_for_others or max_wait <= 0:
            raise ReservationRefused(refusal)
        place = (token_id, _key(refusal.charge))
        if len(self._queues.get(place, ())) >= self._queue_size:
            raise ReservationRefused(refusal, is_queue_full=True)
        return await self._queued(place, _Waiter(plan, refusal, asyncio.get_running_loop().create_future()), max_wait)

    async def extend(self, reservation: Reservation, place: int, amount: int) -> bool:
        """Raises CounterStoreUnavailable."""
        return await self._counters.extend(reservation, place, amount, self.now())

    def settle(self, reservation: Reservation, actual: Sequence[int]) -> None:
        """Once for each reservation."""
        self._counters.settle(reservation, actual)
        if self._queues:
            self._given_back.set()

    async def run(self) -> None:
        """Serve those who wait, until cancelled."""
        while True:
            self._given_back.clear()
            await self._serve_all()
            try:
                async with asyncio.timeout(LOOK_SECONDS if self._queues else None):
                    await self._given_back.wait()
            except TimeoutError:
                continue

    async def _behind_others(self, charges: Sequence[Charge], now: int) -> LimitExceeded | None:
        """Who waits under one of these limits goes first: what is there is theirs."""
        for place, charge in enumerate(charges):
            if _key(charge) in self._wanted:
                found = await self._counters.counters(charges, now)
                return LimitExceeded(charge, found[place], TURN_MS, True, charges, found)
        return None

    async def _queued(self, place: _Place, waiter: _Waiter, max_wait: float) -> Reservation:
        self._queues.setdefault(place, deque()).append(waiter)
        self._wanted[place[1]] += 1
        self._changed()
        self._given_back.set()
        try:
            async with asyncio.timeout(max_wait):
                outcome = await waiter.answer
        except TimeoutError:
            if not waiter.answer.done() or waiter.answer.cancelled():
                raise ReservationRefused(waiter.refusal) from None
            outcome = waiter.answer.result()  # granted in the last moment
        except asyncio.CancelledError:
            self._undo_if_granted(waiter)
            raise
        finally:
            self._leave(place, waiter)
        if isinstance(outcome, LimitExceeded):
            raise ReservationRefused(outcome)
        return outcome

    def _undo_if_granted(self, waiter: _Waiter) -> None:
        answer = waiter.answer
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            self._undo(answer.result())
        answer.cancel()

    def _undo(self, outcome: Reservation | LimitExceeded) -> None:
        """Nobody is there any more to take it: not even a request was made."""
        if isinstance(outcome, Reservation):
            self.settle(outcome, [0] * len(outcome.charges))

    def _leave(self, place: _Place, waiter: _Waiter) -> None:
        queue = self._queues.get(place)
        if queue is not None:
            if waiter in queue:
                queue.remove(waiter)
            if not queue:
                del self._queues[place]
        self._wanted[place[1]] -= 1
        if self._wanted[place[1]] == 0:
            del self._wanted[place[1]]
        self._changed()

    def _changed(self) -> None:
        self._note_waiting(sum(len(queue) for queue in self._queues.values()))

    async def _serve_all(self) -> None:
        is_moving = True
        while is_moving:
            is_moving = False
            for place in list(self._queues):
                is_moving |= await self._serve_next(place)

    async def _serve_next(self, place: _Place) -> bool:
        """Whether somebody's wait has ended."""
        queue = self._queues.get(place)
        waiter = next((one for one in queue if not one.answer.done()), None) if queue else None
        if waiter is None:
            return False
        now = self.now()
        try:
            outcome = await self._counters.reserve(waiter.plan(now), now)
        except CounterStoreUnavailable as error:
            if not waiter.answer.done():
                waiter.answer.set_exception(error)
            return True
        if waiter.answer.done():  # gone meanwhile
            self._undo(outcome)
            return True
        if isinstance(outcome, LimitExceeded) and outcome.is_waiting_for_others:
            waiter.refusal = outcome
            return False
        waiter.answer.set_result(outcome)
        if place in self._queues:
            self._queues.move_to_end(place)
        return True


def _key(charge: Charge) -> str:
    return f"{charge.limit.holder}|{charge.limit.name}"
