"""What a transport does beyond the contract: it sends unread requests once more."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from gateway.core.upstream_errors import UpstreamUnreachable
from gateway.providers.transport import http1_limits
from gateway.providers.transport.base import Timeouts, Transport, TransportRequest
from tests.providers.transport.conftest import Implementation
from tests.support.upstream import Connection, Received, answer, running_upstream

TIMEOUTS = Timeouts(connect=30, first_byte=30, chunk=30)


class ClosesIdleConnections:
    """Answers the first request of each connection, and resets the connection when the second one arrives."""

    def __init__(self) -> None:
        self.served: set[int] = set()

    async def __call__(self, _received: Received, connection: Connection) -> None:
        if id(connection) in self.served:
            connection.reset()
            return
        self.served.add(id(connection))
        await connection.send(answer(b"{}"))


async def read(transport: Transport, request: TransportRequest) -> bytes:
    response = await transport.send(request)
    try:
        return await response.read(100)
    finally:
        response.close()


async def test_a_request_on_a_kept_connection_that_was_dead_is_sent_again(create: Implementation) -> None:
    async with running_upstream(ClosesIdleConnections()) as upstream, aclosing(create(TIMEOUTS)) as transport:
        for _ in range(2):
            assert await read(transport, TransportRequest("POST", upstream.url, {}, b"body")) == b"{}"
        assert [received.body for received in upstream.requests] == [b"body"] * 3
        assert len(upstream.connections) == 2


async def test_a_body_that_is_a_stream_is_not_sent_again(create: Implementation) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async with running_upstream(ClosesIdleConnections()) as upstream, aclosing(create(TIMEOUTS)) as transport:
        await read(transport, TransportRequest("POST", upstream.url, {}, b"x"))
        with pytest.raises(UpstreamUnreachable):
            await read(transport, TransportRequest("POST", upstream.url, {}, body()))
        assert len(upstream.requests) == 2


async def test_a_new_connection_that_dies_is_not_tried_again(create: Implementation) -> None:
    async def dies(_received: Received, connection: Connection) -> None:
        connection.reset()

    async with running_upstream(dies) as upstream, aclosing(create(TIMEOUTS)) as transport:
        with pytest.raises(UpstreamUnreachable):
            await read(transport, TransportRequest("POST", upstream.url, {}, b"body"))
        assert len(upstream.requests) == 1


async def test_a_request_that_the_upstream_had_for_long_is_not_sent_again(
    create: Implementation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1_limits, "MAX_RESEND_SECONDS", 0.0)
    async with running_upstream(ClosesIdleConnections()) as upstream, aclosing(create(TIMEOUTS)) as transport:
        await read(transport, TransportRequest("POST", upstream.url, {}, b"body"))
        with pytest.raises(UpstreamUnreachable):
            await read(transport, TransportRequest("POST", upstream.url, {}, b"body"))
        assert len(upstream.requests) == 2
