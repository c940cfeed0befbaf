"""Runs blocking calls in threads that belong to one purpose.

The event loop's own pool is small and serves whoever comes first. What security depends on must not wait there behind reports,
or behind names that a DNS server does not resolve, so every part that blocks has threads of its own.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Threads:
    """A pool of ``count`` threads with a name, which are started when they are first needed."""

    def __init__(self, name: str, count: int = 1) -> None:
        self.executor = ThreadPoolExecutor(count, name)

    async def run(self, function: "Callable[P, T]", *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function in a thread. Raises what the function raises.

        A call that has begun goes on when the caller is cancelled; one that waits for a thread is given up.
        """
        return await self._submit(function, *args, **kwargs)

    async def run_to_end(self, function: "Callable[P, T]", *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function in a thread and waits for its end, also when the caller, or every task of the loop, is cancelled.

        Raises what the function raises; CancelledError, after the function has ended, if the caller was cancelled meanwhile.
        """
        # No task, which the end of the loop would cancel while the thread goes on.
        return await await_uncancelled(self._submit(function, *args, **kwargs), asyncio.Future.result)

    def close(self) -> None:
        """Waits for the calls that go on, and ends the threads."""
        self.executor.shutdown()

    def _submit(self, function: "Callable[P, T]", *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self.executor, functools.partial(function, *args, **kwargs))


async def await_uncancelled(work: "asyncio.Future[T]", settle: "Callable[[asyncio.Future[T]], R]") -> R:
    """Waits for the end of ``work``, and returns what ``settle`` makes of it. Cancelling the caller does not shorten the wait.

    For work that does not stop when its caller does, such as that of a thread: only its end tells whether it is done. Raises what
    ``settle`` raises; CancelledError, after ``settle`` and whatever that raises, if the caller was cancelled meanwhile.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    try:
        return settle(work)
    finally:
        if cancelled is not None:
            raise cancelled
