"""Bodies as they are read: decompressed, in bounded steps, within the limits of time."""

import asyncio
import gzip
from collections.abc import Callable
from contextlib import aclosing

import brotli
import pytest

from gateway.core.upstream_errors import UpstreamInvalid, UpstreamTimeout
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.content_encoding import MAX_STEP_BYTES, zstd
from gateway.providers.transport.http1_client import Http1Transport
from tests.support.upstream import Connection, Received, always, answer, running_upstream

LONG = Timeouts(30, 30, 30)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


def encoded(encoding: str, body: bytes) -> bytes:
    return answer(body, extra=b"Content-Encoding: %s\r\n" % encoding.encode())


def get(url: str, method: str = "GET") -> TransportRequest:
    return TransportRequest(method, url, {})


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_encoded_bodies_are_read(encoding: str) -> None:
    said = encoded(encoding, COMPRESS[encoding](b"text " * 1000))
    async with running_upstream(always(said)) as upstream, aclosing(Http1Transport(LONG)) as transport:
        for _ in range(2):
            response = await transport.send(get(upstream.url))
            assert await response.read(5000) == b"text " * 1000
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_a_small_body_that_becomes_a_large_one_is_read_in_steps(encoding: str) -> None:
    """Between two steps others get their turn, and the reader may stop at any of them."""
    said = encoded(encoding, COMPRESS[encoding](bytes(30_000_000)))
    async with running_upstream(always(said)) as upstream, aclosing(Http1Transport(LONG)) as transport:
        response = await transport.send(get(upstream.url))
        with pytest.raises(UpstreamInvalid, match="larger than 1000000 bytes"):
            await response.read(1_000_000)
        response.close()
        response = await transport.send(get(upstream.url))
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        steps = [len(chunk) async for chunk in response.chunks()]
        task.cancel()
        assert sum(steps) == 30_000_000 and max(steps) <= MAX_STEP_BYTES
        assert turns >= len(steps) - 2


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_an_encoded_body_that_is_invalid_or_incomplete_is_an_error(encoding: str) -> None:
    packed = COMPRESS[encoding](b"text " * 1000)
    for body in (b"not packed", packed[:-3], packed + b"junk"):
        behave, limits = always(encoded(encoding, body)), LONG
        async with running_upstream(behave) as upstream, aclosing(Http1Transport(limits)) as transport:
            response = await transport.send(get(upstream.url))
            with pytest.raises(UpstreamInvalid, match="broke off"):
                await response.read(5000)
            response.close()


@pytest.mark.parametrize("encoding", ["x", "gzip, x", "compress"])
async def test_another_encoding_is_named_as_the_reason(encoding: str) -> None:
    async with (
        running_upstream(always(encoded(encoding, b"abc"))) as upstream,
        aclosing(Http1Transport(LONG)) as transport,
    ):
        with pytest.raises(UpstreamInvalid, match="content encoding that was not asked for"):
            await transport.send(get(upstream.url))


async def test_the_encoding_of_a_body_that_does_not_come_is_none() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n"
    async with running_upstream(always(said)) as upstream, aclosing(Http1Transport(LONG)) as transport:
        for _ in range(2):
            response = await transport.send(get(upstream.url, "HEAD"))
            assert await response.read(10) == b""
        assert len(upstream.connections) == 1
    async with running_upstream(always(encoded("gzip", b""))) as upstream, aclosing(Http1Transport(LONG)) as transport:
        assert await (await transport.send(get(upstream.url))).read(10) == b""


async def test_names_of_headers_are_in_small_letters_and_values_as_they_came() -> None:
    said = answer(b"{}", extra=b"X-Own: \xc3\xa4 \t\r\nRetry-After:1\r\nx-own: second\r\n")
    async with running_upstream(always(said)) as upstream, aclosing(Http1Transport(LONG)) as transport:
        response = await transport.send(get(upstream.url))
        assert (response.headers["x-own"], response.headers["retry-after"]) == ("ä", "1")


async def test_the_limit_of_a_pause_counts_while_somebody_waits_and_not_while_nobody_reads() -> None:
    goes_on = asyncio.Event()

    async def pauses(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"one")
        await goes_on.wait()
        await connection.chunk(b"two")
        await connection.wait_closed()

    behave, limits = pauses, Timeouts(30, 30, 0.3)
    async with running_upstream(behave) as upstream, aclosing(Http1Transport(limits)) as transport:
        response = await transport.send(get(upstream.url))
        pieces = response.chunks()
        assert await anext(pieces) == b"one"
        await asyncio.sleep(1)  # A client that is slow, several times the limit.
        goes_on.set()
        assert await anext(pieces) == b"two"
        with pytest.raises(UpstreamTimeout):
            await anext(pieces)


async def test_content_that_somebody_else_recognises_ends_the_first_limit() -> None:
    async def pauses(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"not yet")
        await asyncio.sleep(0.7)
        await connection.chunk(b"content")
        await asyncio.sleep(0.7)
        await connection.end_stream()

    async with running_upstream(pauses) as upstream, aclosing(Http1Transport(Timeouts(30, 30, 0.1))) as transport:
        response = await transport.send(get(upstream.url))
        response.expect_content()
        pieces = response.chunks()
        assert await anext(pieces) == b"not yet"
        assert await anext(pieces) == b"content"
        response.begin_content()
        response.limit_pause(0.05)
        with pytest.raises(UpstreamTimeout):
            await anext(pieces)


async def test_a_reader_that_was_cancelled_has_closed_the_connection() -> None:
    async def starts(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.wait_closed()

    async with running_upstream(starts) as upstream, aclosing(Http1Transport(LONG)) as transport:
        response = await transport.send(get(upstream.url))
        reading = asyncio.create_task(response.read(100))
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()
        with pytest.raises(UpstreamInvalid):
            await response.read(100)
