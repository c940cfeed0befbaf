"""Kept-alive connections to an upstream: whatever no request has asked for is never taken for the response to the next one."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from gateway.core.upstream_errors import UpstreamFailed, UpstreamUnreachable
from gateway.providers.transport import http1_limits
from gateway.providers.transport.base import Timeouts, Transport, TransportRequest
from gateway.providers.transport.http1_limits import (
    ASK_SYSTEM_AFTER_SECONDS,
    MAX_HEAD_BYTES,
    MAX_INTERIM_RESPONSES,
    READ_BUFFER_BYTES,
)
from tests.providers.transport.conftest import Implementation
from tests.support.upstream import Connection, Received, always, answer, running_upstream

TIMEOUTS = Timeouts(connect=30, first_byte=30, chunk=30)
OWN, FOREIGN = answer(b"own"), answer(b"foreign")
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
READ_BYTES = 256 * 1024  # what an event loop reads from a socket at once


class SendsMore:
    """Answers the first request with ``first``, and with ``then`` once ``may_go_on``; later requests with their own answer."""

    def __init__(self, first: bytes, then: bytes) -> None:
        self.first, self.then = first, then
        self.may_go_on = asyncio.Event()
        self.seen = 0

    async def __call__(self, _received: Received, upstream: Connection) -> None:
        self.seen += 1
        if self.seen > 1:
            await upstream.send(OWN)
            return
        await upstream.send(self.first)
        await self.may_go_on.wait()
        await upstream.send(self.then)


EXCESS = {
    "a second response": ("GET", answer(b"first"), FOREIGN),
    "a 408 of a proxy": ("GET", answer(b"first"), b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
    "an interim response": ("GET", answer(b"first"), EARLY_HINTS),
    "a single byte": ("GET", answer(b"first"), b"H"),
    "an empty line": ("GET", answer(b"first"), b"\r\n"),
    "a second response behind the first one's head": ("GET", answer(b"first") + FOREIGN, b""),
    "a second response behind the first one's end": ("GET", answer(b"first")[:-1], b"t" + FOREIGN),
    "the beginning of a second response": ("GET", answer(b"first")[:-1], b"t" + FOREIGN[:12]),
    "an interim response behind the end": ("GET", answer(b"first")[:-1], b"t" + EARLY_HINTS),
    "a body longer than its length": ("GET", answer(b"first")[:-1], b"tail" + FOREIGN),
    "a second response behind the last chunk": ("GET", CHUNKED + b"5\r\nfirst\r\n", b"0\r\n\r\n" + FOREIGN),
    "junk behind the last chunk": ("GET", CHUNKED + b"5\r\nfirst\r\n", b"0\r\n\r\njunk"),
    "a body in the response to HEAD": ("HEAD", answer(b"first")[:-5], b"first"),
    "a response in the response to HEAD": ("HEAD", answer(FOREIGN)[: -len(FOREIGN)], FOREIGN),
    "a body of a 204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", FOREIGN),
    "a body of a 304": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", FOREIGN),
    "another protocol": ("GET", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", FOREIGN),
}


async def read(transport: Transport, request: TransportRequest) -> bytes:
    response = await transport.send(request)
    try:
        return await response.read(1_000_000)
    finally:
        response.close()


@pytest.mark.parametrize("excess", EXCESS)
async def test_what_nobody_asked_for_does_not_reach_the_next_request(
    create: Implementation, excess: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        http1_limits, "KEEP_ALIVE_SECONDS", 1000.0
    )  # so that nothing but the excess closes the connection
    method, first, then = EXCESS[excess]
    behave = SendsMore(first, then)
    async with running_upstream(behave) as upstream, aclosing(create(TIMEOUTS)) as transport:
        response = await transport.send(TransportRequest(method, upstream.url, {}))
        behave.may_go_on.set()
        if response.status == 200 and method == "GET":
            assert await response.read(100) == b"first"
        response.close()
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()
        assert await read(transport, TransportRequest("GET", upstream.url, {})) == b"own"
        assert (len(upstream.connections), len(upstream.requests)) == (2, 2)


async def test_bytes_that_the_event_loop_has_not_read_yet_count_as_well(create: Implementation) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with aclosing(create(TIMEOUTS)) as transport:
            asking = asyncio.create_task(read(transport, TransportRequest("GET", url, {})))
            kept, _ = await loop.sock_accept(listener)
            await loop.sock_recv(kept, 65536)
            kept.send(OWN)
            assert await asking == b"own"
            kept.send(FOREIGN)
            # From here to the request there is no await at which the loop could read. It is busy for a millisecond.
            until = time.monotonic() + ASK_SYSTEM_AFTER_SECONDS
            while time.monotonic() < until:
                pass
            asking = asyncio.Task(read(transport, TransportRequest("GET", url, {})))
            async with asyncio.timeout(10):
                new, _ = await loop.sock_accept(listener)
            await loop.sock_recv(new, 65536)
            new.send(OWN)
            assert await asking == b"own"
            kept.close()
            new.close()


async def test_an_early_response_to_an_upload_leaves_no_half_request_behind(create: Implementation) -> None:
    """The rest of the body would be the beginning of the next request."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 100
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with aclosing(create(TIMEOUTS)) as transport:
            asking = asyncio.create_task(read(transport, TransportRequest("POST", url, {}, body())))
            first, _ = await loop.sock_accept(listener)
            await loop.sock_recv(first, 65536)
            first.send(OWN)
            assert await asking == b"own"
            asking = asyncio.create_task(read(transport, TransportRequest("GET", url, {})))
            async with asyncio.timeout(10):
                second, _ = await loop.sock_accept(listener)
            await loop.sock_recv(second, 65536)
            second.send(OWN)
            assert await asking == b"own"
            first.close()
            second.close()


async def test_interim_responses_are_skipped(create: Implementation) -> None:
    response = EARLY_HINTS * MAX_INTERIM_RESPONSES + OWN
    async with running_upstream(always(response)) as upstream, aclosing(create(TIMEOUTS)) as transport:
        for method in ("GET", "POST"):
            assert await read(transport, TransportRequest(method, upstream.url, {})) == b"own"
        assert len(upstream.connections) == 1


async def test_heads_and_no_bodies_keep_the_connection(create: Implementation) -> None:
    async def behave(received: Received, connection: Connection) -> None:
        head = b"HTTP/1.1 204 No Content\r\n\r\n" if received.method == "DELETE" else OWN.removesuffix(b"own")
        await connection.send(head)

    async with running_upstream(behave) as upstream, aclosing(create(TIMEOUTS)) as transport:
        for method in ("HEAD", "DELETE", "HEAD"):
            assert await read(transport, TransportRequest(method, upstream.url, {})) == b""
        assert len(upstream.connections) == 1


FLOODS = {
    "interim responses": EARLY_HINTS * (MAX_INTERIM_RESPONSES + 1) + OWN,
    "headers of 8 KB": OWN.replace(b"\r\n\r\n", b"\r\n" + (b"X: " + b"y" * 8000 + b"\r\n") * 40 + b"\r\n"),
    "more headers than 512": OWN.replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 600 + b"\r\n"),
    "one header of 70 KB": OWN.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_head_without_end_is_refused(create: Implementation, flood: str) -> None:
    async with running_upstream(always(FLOODS[flood])) as upstream, aclosing(create(TIMEOUTS)) as transport:
        with pytest.raises(UpstreamFailed):
            await read(transport, TransportRequest("GET", upstream.url, {}))


async def test_a_head_of_any_useful_size_passes(create: Implementation) -> None:
    head = b"\r\nX: " + b"y" * 60_000 + b"\r\n" + b"X: y\r\n" * 300 + b"\r\n"
    response = answer(b"z" * MAX_HEAD_BYTES * 2).replace(b"\r\n\r\n", head, 1)
    async with running_upstream(always(response)) as upstream, aclosing(create(TIMEOUTS)) as transport:
        assert len(await read(transport, TransportRequest("GET", upstream.url, {}))) == MAX_HEAD_BYTES * 2


async def test_what_waits_for_a_slow_reader_is_bounded(create: Implementation) -> None:
    behave = always(answer(b"x" * 8_000_000))
    async with running_upstream(behave) as upstream, aclosing(create(TIMEOUTS)) as transport:
        response = await transport.send(TransportRequest("GET", upstream.url, {}))
        largest = 0
        async for chunk in response.chunks():
            largest = max(largest, len(chunk))
            for _ in range(50):
                await asyncio.sleep(0)  # a reader that does something else while the upstream goes on
        response.close()
        assert largest <= 2 * READ_BUFFER_BYTES + READ_BYTES


class ResetsFrom:
    """Answers the requests before number ``number``, and resets the connection at every later one."""

    def __init__(self, number: int, before_reset: bytes = b"") -> None:
        self.left = number
        self.before_reset = before_reset

    async def __call__(self, _received: Received, connection: Connection) -> None:
        self.left -= 1
        if self.left > 0:
            await connection.send(OWN)
            return
        if self.before_reset:
            await connection.send(self.before_reset)
        connection.reset()


REQUESTS = [("GET", {}, None), ("POST", {}, b"{}"), ("POST", {"Idempotency-Key": "k"}, b"{}"), ("PUT", {}, b"{}"),
            ("DELETE", {}, None)]  # fmt: skip


@pytest.mark.parametrize(("method", "headers", "body"), REQUESTS)
async def test_a_request_is_sent_twice_at_most(
    create: Implementation, method: str, headers: dict[str, str], body: bytes | None
) -> None:
    async with running_upstream(ResetsFrom(2)) as upstream, aclosing(create(TIMEOUTS)) as transport:
        await read(transport, TransportRequest("GET", upstream.url, {}))
        with pytest.raises(UpstreamUnreachable):
            await read(transport, TransportRequest(method, upstream.url, headers, body))
        assert len(upstream.requests) == 1 + 2


@pytest.mark.parametrize(("method", "headers", "body"), REQUESTS)
async def test_a_request_on_a_new_connection_is_sent_once(
    create: Implementation, method: str, headers: dict[str, str], body: bytes | None
) -> None:
    async with running_upstream(ResetsFrom(1)) as upstream, aclosing(create(TIMEOUTS)) as transport:
        with pytest.raises(UpstreamUnreachable):
            await read(transport, TransportRequest(method, upstream.url, headers, body))
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("before_reset", [b"H", EARLY_HINTS])
async def test_a_request_to_which_a_byte_came_is_not_sent_again(create: Implementation, before_reset: bytes) -> None:
    behave = ResetsFrom(2, before_reset)
    async with running_upstream(behave) as upstream, aclosing(create(TIMEOUTS)) as transport:
        await read(transport, TransportRequest("GET", upstream.url, {}))
        with pytest.raises(UpstreamUnreachable):
            await read(transport, TransportRequest("GET", upstream.url, {}))
        assert len(upstream.requests) == 2
