"""Runs reads on behalf of callers in few threads: with a short queue, and a bound on what one caller may have at once.

A read is a report or a list that may take long. Whoever asks for many at once must neither slow the others down nor fill the
memory with what waits.
"""

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from gateway.core.errors import RateLimited, TooManyReads
from gateway.core.threads import Threads

T = TypeVar("T")

RETRY_SECONDS = 1.0


class BoundedThreads:
    """``count`` threads, and at most ``max_waiting`` calls that wait for one. Used from one event loop."""

    def __init__(self, name: str, count: int = 2, max_waiting: int = 16, max_per_caller: int = 4) -> None:
        """``max_per_caller`` is how many calls of one caller may run and wait at once."""
        self._threads = Threads(name, count)
        self._most = count + max_waiting
        self._max_per_caller = max_per_caller
        self._calls: Counter[str] = Counter()

    async def run(self, caller: str, function: Callable[[], T]) -> T:
        """Calls a function in a thread on behalf of a caller. Raises RateLimited, TooManyReads, and what the function raises.

        The call of a caller that has gone still counts until it has ended.
        """
        if self._calls[caller] >= self._max_per_caller:
            raise RateLimited(
                f"Rate limit reached: {self._max_per_caller} reports or lists of this token are being made already. "
                "Please wait for their end.",
                RETRY_SECONDS,
            )
        if self._calls.total() >= self._most:
            raise TooManyReads(RETRY_SECONDS)
        self._calls[caller] += 1
        try:
            return await self._threads.run_to_end(function)
        finally:
            self._calls[caller] -= 1
            if self._calls[caller] == 0:
                del self._calls[caller]
