"""The calls that are being answered now: counted for the drain, and ended early when their token dies."""

import asyncio
import select
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.http.call import Call

LOOK_SECONDS = 0.25
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
"""Where the system has no word for it, a reset is still reported, a mere end of sending is not."""


class ActiveCalls:
    """Each call with the task that answers it."""

    def __init__(self) -> None:
        self._tasks: dict[Call, asyncio.Task[object]] = {}
        self._idle: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(self, call: Call) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks[call] = task

    def leave(self, call: Call) -> None:
        self._tasks.pop(call, None)
        if self._idle is not None and not self._tasks:
            self._idle.set()

    def cut(self, error: GatewayError, concerns: Callable[[Call], bool]) -> int:
        """End every call that it concerns with ``error``. Answers how many."""
        concerned = [call for call in self._tasks if call.cut is None and concerns(call)]
        for call in concerned:
            call.cut = error
            self._tasks[call].cancel()
        return len(concerned)

    async def watch_clients(self) -> None:
        """Look until cancelled.

        While a client's bytes are held back - an upload that the upstream does not take, too many pipelined requests - the
        event loop does not read from its socket, and so does not see it leave. The kernel knows all the same.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.drop_gone()

    def drop_gone(self) -> None:
        """Close the connections of clients that have left."""
        poll = select.poll()
        transports: dict[int, asyncio.Transport] = {}
        for call in self._tasks:
            transport = call.request.transport
            if transport is not None and not transport.is_closing():
                number = transport.get_extra_info("socket").fileno()
                transports[number] = transport
                poll.register(number, _PEER_CLOSED)
        for number, _ in poll.poll(0):
            transports[number].abort()

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
