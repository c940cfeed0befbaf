"""The server: the factory of connections for ``loop.create_server``, with aiohttp's parser and a protocol of our own.

``aiohttp_server.py`` does the same with aiohttp's protocol. Tests give both the same bytes and compare the responses.
"""

import asyncio
import contextlib

from gateway.server.deadlines import ConnectionTimeouts
from gateway.server.head_limits import MAX_HEAD_BYTES
from gateway.server.http1_connection import Http1Connection
from gateway.server.server_state import Handler, ServerState

KEEP_ALIVE_SECONDS = 75.0
SWEEP_SECONDS = 1.0
"""How often connections are looked at that have been idle for too long, or take nothing of what was written."""
_TIMEOUTS = ConnectionTimeouts()


class Http1Server:
    """Creates connections, and closes those that are idle for too long. Construct it inside the running loop."""

    def __init__(
        self,
        handler: Handler,
        timeouts: ConnectionTimeouts = _TIMEOUTS,
        max_head_bytes: int = MAX_HEAD_BYTES,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self._state = ServerState(handler, timeouts, max_head_bytes)
        self._keep_alive_seconds = keep_alive_seconds
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> Http1Connection:
        """Returns a new connection."""
        if self._timer is None:
            self._timer = self._state.loop.call_later(SWEEP_SECONDS, self._sweep)
        return Http1Connection(self._state)

    @property
    def handler(self) -> Handler:
        """The function that answers requests. It may be replaced, for requests that begin afterwards."""
        return self._state.handler

    @handler.setter
    def handler(self, handler: Handler) -> None:
        self._state.handler = handler

    def pre_shutdown(self) -> None:
        """Closes connections that are idle, and the others after the response that they are sending."""
        for connection in list(self._state.open):
            connection.must_close = True
            if connection.is_idle:
                connection.close()

    async def shutdown(self, seconds: float | None = None) -> None:
        """Waits ``seconds`` for requests, and for clients to take their responses, then cancels and closes what is left."""
        self.pre_shutdown()
        tasks = [task for connection in self._state.open if (task := connection.task) is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._state.wait_until_closed()
        for connection in list(self._state.open):
            connection.abort()
        if running := [task for task in tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        idle_before = self._state.loop.time() - self._keep_alive_seconds
        for connection in list(self._state.open):
            if connection.is_idle and connection.idle_since < idle_before:
                connection.close()
            connection.watch_unsent()
        self._timer = self._state.loop.call_later(SWEEP_SECONDS, self._sweep) if self._state.open else None
