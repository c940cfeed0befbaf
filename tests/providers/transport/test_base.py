"""The contract of a transport, which every implementation has to meet: add it to ``conftest.py``.

Every way in which the network may fail has an error of its own, and no exception or text of a library comes through.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.core.upstream_errors import UpstreamFailed, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.providers.transport.base import Timeouts, Transport, TransportRequest
from tests.providers.transport.conftest import Implementation
from tests.support.upstream import Behaviour, Connection, Received, Upstream, always, answer, running_upstream
from tests.support.wire import never

SHORT = Timeouts(connect=0.2, first_byte=0.2, chunk=0.2)
LONG = Timeouts(connect=30, first_byte=30, chunk=30)  # for what is not about time: a busy machine may be slow


class Network:
    """Opens transports of one implementation."""

    def __init__(self, implementation: Implementation) -> None:
        self._implementation = implementation

    @asynccontextmanager
    async def open(self, timeouts: Timeouts = LONG) -> AsyncIterator[Transport]:
        transport = self._implementation(timeouts)
        try:
            yield transport
        finally:
            await transport.aclose()

    @asynccontextmanager
    async def open_to(self, behave: Behaviour, timeouts: Timeouts = LONG) -> AsyncIterator[tuple[Transport, Upstream]]:
        async with running_upstream(behave) as upstream, self.open(timeouts) as transport:
            yield transport, upstream


@pytest.fixture
def network(create: Implementation) -> Network:
    return Network(create)


def get(url: str) -> TransportRequest:
    return TransportRequest("GET", url, {})


async def test_an_upstream_that_is_not_there_is_unreachable(network: Network) -> None:
    async with network.open() as transport:
        for url in ("http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1"):
            with pytest.raises(UpstreamUnreachable) as caught:
                await transport.send(get(url))
            assert caught.value.status == 502
            assert "no-such-host" not in caught.value.message


async def test_a_connection_that_is_never_accepted_is_a_timeout(network: Network) -> None:
    """A full backlog drops what comes, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        async with network.open(SHORT) as transport:
            with pytest.raises(UpstreamTimeout) as caught:
                await transport.send(get(f"http://127.0.0.1:{address[1]}/v1"))
        assert caught.value.status == 504
        for one in waiting:
            one.close()


async def test_a_first_byte_that_takes_too_long_is_a_timeout(network: Network) -> None:
    async with network.open_to(never, SHORT) as (transport, upstream):
        with pytest.raises(UpstreamTimeout):
            await transport.send(get(upstream.url))
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


async def test_a_chunk_that_takes_too_long_is_a_timeout(network: Network) -> None:
    async def stalls(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"one")
        await connection.wait_closed()

    async with network.open_to(stalls, Timeouts(connect=30, first_byte=30, chunk=0.2)) as (transport, upstream):
        response = await transport.send(get(upstream.url))
        pieces = response.chunks()
        assert await anext(pieces) == b"one"
        with pytest.raises(UpstreamTimeout):
            await anext(pieces)
        response.close()
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


async def test_a_long_response_is_not_a_slow_one(network: Network) -> None:
    """Longer in all than the limit for one piece; the moments between pieces are short."""

    async def drips(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        for _ in range(30):
            await connection.chunk(b"x")
            await asyncio.sleep(0.05)
        await connection.end_stream()

    async with network.open_to(drips, Timeouts(connect=30, first_byte=30, chunk=1)) as (transport, upstream):
        response = await transport.send(get(upstream.url))
        assert await response.read(100) == b"x" * 30
        response.close()


GARBAGE = [
    b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("said", GARBAGE)
async def test_invalid_http_is_invalid(network: Network, said: bytes) -> None:
    async with network.open_to(always(said)) as (transport, upstream):
        with pytest.raises(UpstreamInvalid) as caught:
            await transport.send(get(upstream.url))
        assert "OpenSSH" not in caught.value.message


BROKEN = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Encoding: gzip\r\n\r\nnot zipped",
]


@pytest.mark.parametrize("said", BROKEN)
@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_body_that_breaks_off_is_an_error(network: Network, said: bytes, how: str) -> None:
    await check_broken(network, said, how)


async def test_a_body_without_a_length_that_is_reset_is_an_error(network: Network) -> None:
    """Its end is the connection's end; a reset is not that end."""
    await check_broken(network, b"HTTP/1.1 200 OK\r\n\r\nabc", "reset")


async def check_broken(network: Network, said: bytes, how: str) -> None:
    head_is_there = asyncio.Event()

    async def breaks(_received: Received, connection: Connection) -> None:
        await connection.send(said)
        if b"zz" not in said and b"zipped" not in said:
            await head_is_there.wait()
        if how == "reset":
            connection.reset()
        else:
            connection.writer.close()

    async with network.open_to(breaks) as (transport, upstream):
        with pytest.raises(UpstreamFailed):
            response = await transport.send(get(upstream.url))
            head_is_there.set()
            try:
                await response.read(1000)
            finally:
                response.close()


async def test_a_body_above_the_limit_is_an_error(network: Network) -> None:
    async with network.open_to(always(answer(b"x" * 1000))) as (transport, upstream):
        response = await transport.send(get(upstream.url))
        with pytest.raises(UpstreamInvalid):
            await response.read(999)
        response.close()
        response = await transport.send(get(upstream.url))
        assert len(await response.read(1000)) == 1000
        response.close()


async def test_cancelling_closes_the_connection(network: Network) -> None:
    async with network.open_to(never) as (transport, upstream):
        waiting = asyncio.create_task(transport.send(get(upstream.url)))
        async with asyncio.timeout(5):  # the bound is one second; a busy machine may be late itself
            while not upstream.requests:
                await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


async def test_closing_early_closes_the_connection(network: Network) -> None:
    async def goes_on(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"one")
        await connection.wait_closed()

    async with network.open_to(goes_on) as (transport, upstream):
        response = await transport.send(get(upstream.url))
        response.close()
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


async def test_closing_at_the_end_keeps_the_connection(network: Network) -> None:
    async with network.open_to(always(answer(b"{}"))) as (transport, upstream):
        for _ in range(3):
            response = await transport.send(get(upstream.url))
            await response.read(10)
            response.close()
        assert len(upstream.connections) == 1


async def test_redirects_are_not_followed_and_cookies_not_kept(network: Network) -> None:
    extra = b"Location: http://127.0.0.1:1/evil\r\nSet-Cookie: a=b\r\n"
    async with network.open_to(always(answer(b"", "302 Found", extra=extra))) as (transport, upstream):
        for _ in range(2):
            response = await transport.send(get(upstream.url))
            assert response.status == 302
            response.close()
        assert all(received.header("Cookie") is None for received in upstream.requests)


async def test_urls_are_sent_as_they_are(network: Network) -> None:
    async with network.open_to(always(answer(b"{}"))) as (transport, upstream):
        for path in ("/a%2Fb?x=%20&y=+", "/a/b?%F0%9F=1", "/'quotes'?\"=1"):
            (await transport.send(get(upstream.url + path))).close()
            assert upstream.requests[-1].target == f"/v1{path}"


async def test_the_first_content_has_the_limit_of_the_first_byte(network: Network) -> None:
    """The head comes at once, the content after more than the limit for one piece."""

    async def thinks(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"\n")
        await asyncio.sleep(0.8)
        await connection.chunk(b"one")
        await connection.end_stream()

    async with network.open_to(thinks, Timeouts(connect=30, first_byte=30, chunk=0.1)) as (transport, upstream):
        response = await transport.send(get(upstream.url))
        assert await response.read(100) == b"\none"
        response.close()
    async with network.open_to(thinks, Timeouts(connect=30, first_byte=0.1, chunk=30)) as (transport, upstream):
        response = await transport.send(get(upstream.url))
        with pytest.raises(UpstreamTimeout):
            await response.read(100)
        response.close()
