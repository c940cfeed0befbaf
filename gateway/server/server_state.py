"""Holds what all connections of one server share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from gateway.core.timeouts import CoarseTimeouts
from gateway.http.request import Request
from gateway.server.deadlines import ConnectionTimeouts

Handler: TypeAlias = Callable[[Request], Awaitable[None]]
"""Answers a request on its connection."""


class OpenConnection(Protocol):
    """What a server looks at when it closes connections."""

    must_close: bool
    idle_since: float

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has come yet."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that answers the current request, None where there is none."""

    def close(self) -> None:
        """Closes the connection once everything has been sent."""

    def abort(self) -> None:
        """Closes the connection at once."""

    def watch_unsent(self) -> None:
        """Begins to watch whether the client takes what was written."""


class ServerState:
    """Holds what all connections of a server share.

    ``handler`` may be replaced: requests that begin afterwards are answered by the new one.
    """

    __slots__ = ("_all_closed", "coarse_timeouts", "handler", "loop", "max_head_bytes", "open", "timeouts")

    def __init__(self, handler: Handler, timeouts: ConnectionTimeouts, max_head_bytes: int) -> None:
        self.handler = handler
        self.timeouts = timeouts
        self.max_head_bytes = max_head_bytes
        self.loop = asyncio.get_running_loop()
        self.coarse_timeouts = CoarseTimeouts()
        self.open: set[OpenConnection] = set()
        self._all_closed: asyncio.Event | None = None

    def remove(self, connection: OpenConnection) -> None:
        """Forgets a connection that is lost."""
        self.open.discard(connection)
        if self._all_closed is not None and not self.open:
            self._all_closed.set()

    async def wait_until_closed(self) -> None:
        """Waits until no connection is open."""
        if self.open:
            self._all_closed = asyncio.Event()
            await self._all_closed.wait()
