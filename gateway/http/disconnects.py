"""Clients that leave while nobody reads from them.

While a client's bytes are held back - an upload that the upstream does not take, too many pipelined requests - the event loop
does not read from its socket, and so does not see it leave. The kernel knows all the same.
"""

import asyncio
import select
from collections.abc import Iterable

from gateway.http.context import RequestContext

LOOK_SECONDS = 0.25
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
"""Where the system has no word for it, a reset is still reported, a mere end of sending is not."""


async def watch_disconnects(calls: Iterable[RequestContext]) -> None:
    """Look until cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        close_disconnected(calls)


def close_disconnected(calls: Iterable[RequestContext]) -> None:
    """Close the connections of clients that have left: that cancels their calls."""
    poll = select.poll()
    transports: dict[int, asyncio.Transport] = {}
    for ctx in calls:
        transport = ctx.request.transport
        if transport is not None and not transport.is_closing():
            number = transport.get_extra_info("socket").fileno()
            transports[number] = transport
            poll.register(number, _PEER_CLOSED)
    for number, _ in poll.poll(0):
        transports[number].abort()
