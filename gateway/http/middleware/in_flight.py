"""The requests that are being answered now: counted for the drain, aborted when their token is revoked, and closed when
their client has disconnected without the event loop noticing."""

import asyncio
import select
from collections.abc import Callable

from gateway.core.errors import GatewayError
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware

DISCONNECT_CHECK_SECONDS = 0.25
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
"""On systems without this flag a reset is still reported, a mere end of sending is not."""


class InFlightRequests(Middleware):
    """Each request with the task that answers it."""

    def __init__(self) -> None:
        self._tasks: dict[RequestContext, asyncio.Task[object]] = {}
        self._idle: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    async def before(self, ctx: RequestContext) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks[ctx] = task

    def after(self, ctx: RequestContext, status: int) -> None:
        self._tasks.pop(ctx, None)
        if self._idle is not None and not self._tasks:
            self._idle.set()

    def abort_where(self, error: GatewayError, is_concerned: Callable[[RequestContext], bool]) -> int:
        """Ends every request that is concerned with ``error``. Returns how many."""
        concerned = [ctx for ctx in self._tasks if ctx.abort_error is None and is_concerned(ctx)]
        for ctx in concerned:
            ctx.abort_error = error
            self._tasks[ctx].cancel()
        return len(concerned)

    async def wait_idle(self, seconds: float) -> bool:
        """Waits until no request is left, ``seconds`` at most. Returns whether none is left."""
        self._idle = asyncio.Event()
        if not self._tasks:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def watch_disconnects(self) -> None:
        """Closes the connections of clients that have disconnected, until cancelled."""
        while True:
            await asyncio.sleep(DISCONNECT_CHECK_SECONDS)
            self.close_disconnected()

    def close_disconnected(self) -> None:
        """Closes the connections of clients that have disconnected, which cancels their requests.

        While a client's bytes are held back - an upload that the upstream does not take, too many pipelined requests - the
        event loop does not read from its socket, and so does not see it disconnect. The kernel knows all the same.
        """
        poll = select.poll()
        connections = {}
        for ctx in self._tasks:
            connection = ctx.request.connection
            if (descriptor := connection.file_descriptor) is not None:
                connections[descriptor] = connection
                poll.register(descriptor, _PEER_CLOSED)
        for descriptor, _ in poll.poll(0):
            connections[descriptor].abort()
