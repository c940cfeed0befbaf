"""Background tasks that somebody owns: named, kept alive, never failing in silence, ended in order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

log = logging.getLogger(__name__)

RESTART_SECONDS = 1.0

T = TypeVar("T")
R = TypeVar("R")


class BackgroundTasks:
    """Tasks that run until ``aclose``."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run once. A failure is logged at once."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def keep(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Run for as long as the group lives: a watcher that died of one bad moment would never see the next revocation."""
        self.start(_kept(work, name), name)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", extra={"task": task.get_name()}, exc_info=error)

    async def aclose(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def await_uncancelled(work: "asyncio.Future[T]", settle: "Callable[[asyncio.Future[T]], R]") -> R:
    """Wait for work that does not stop when nobody waits any more, such as a thread's, and settle its outcome.

    Who is cancelled meanwhile is so afterwards: only the end of the work tells whether it is done.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    settled = settle(work)
    if cancelled is not None:
        raise cancelled
    return settled


async def _kept(work: Callable[[], Awaitable[None]], name: str) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("a background task failed and is started again", extra={"task": name})
        await asyncio.sleep(RESTART_SECONDS)
