"""Background tasks with an owner: they have names, their failures are logged, and they are ended in order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

log = logging.getLogger(__name__)

RESTART_SECONDS = 1.0


class BackgroundTasks:
    """A group of tasks that run until ``aclose``."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[object, object, None], name: str) -> None:
        """Runs a coroutine once. Its failure is logged at once."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def keep(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Runs a function again and again until ``aclose``, also after a failure: a watcher that ended after one failure would
        never see the next revocation."""
        self.start(_run_forever(work, name), name)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", extra={"task": task.get_name()}, exc_info=error)

    async def aclose(self) -> None:
        """Cancels the tasks that still run and waits for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_forever(work: Callable[[], Awaitable[None]], name: str) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("a background task failed and is started again", extra={"task": name})
        await asyncio.sleep(RESTART_SECONDS)
