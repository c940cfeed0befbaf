"""The calls that are being answered now: counted for the drain, and ended early when their token dies."""

import asyncio
from collections.abc import Callable, Iterator

from gateway.core.errors import GatewayError
from gateway.http.context import RequestContext


class InFlightRequests:
    """Each call with the task that answers it."""

    def __init__(self, count: Callable[[int], None] | None = None) -> None:
        """``count`` is told how many there are whenever that changes."""
        self._count = count or _nobody
        self._tasks: dict[RequestContext, asyncio.Task[object]] = {}
        self._idle: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[RequestContext]:
        return iter(list(self._tasks))

    def enter(self, ctx: RequestContext) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks[ctx] = task
            self._count(len(self._tasks))

    def leave(self, ctx: RequestContext) -> None:
        self._tasks.pop(ctx, None)
        self._count(len(self._tasks))
        if self._idle is not None and not self._tasks:
            self._idle.set()

    def cut(self, error: GatewayError, concerns: Callable[[RequestContext], bool]) -> int:
        """End every call that it concerns with ``error``. Answers how many."""
        concerned = [ctx for ctx in self._tasks if ctx.cut is None and concerns(ctx)]
        for ctx in concerned:
            ctx.cut = error
            self._tasks[ctx].cancel()
        return len(concerned)

    async def wait_idle(self, seconds: float) -> bool:
        """Whether everything ended within that many seconds."""
        self._idle = asyncio.Event()
        if not self._tasks:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def _nobody(count: int) -> None:
    """For those who do not count."""
