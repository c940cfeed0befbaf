"""What belongs to no request reaches none, whoever is cancelled at whatever moment; connections that nobody needs are closed."""

import asyncio
import re
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.timeouts import CoarseTimeouts
from gateway.core.upstream_errors import UpstreamFailed, UpstreamUnreachable
from gateway.providers.transport import http1_limits
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.http1_client import Http1Transport
from gateway.providers.transport.http1_connection import Http1Connection
from gateway.providers.transport.http1_response import Http1Response
from gateway.providers.transport.http1_state import State
from tests.support.serving import serving
from tests.support.upstream import Connection, Received, always, answer, running_upstream

LONG = Timeouts(30, 30, 30)


def get(url: str) -> TransportRequest:
    return TransportRequest("GET", url, {})


async def test_an_idle_connection_is_closed_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_limits, "KEEP_ALIVE_SECONDS", 0.1)
    async with running_upstream(always(answer(b"{}"))) as upstream, aclosing(Http1Transport(LONG)) as transport:
        response = await transport.send(get(upstream.url))
        await response.read(10)
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


async def test_an_idle_connection_is_too_old_before_the_clock_has_closed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_limits, "KEEP_ALIVE_SECONDS", 0.0)
    async with running_upstream(always(answer(b"{}"))) as upstream, aclosing(Http1Transport(LONG)) as transport:
        for _ in range(2):
            response = await transport.send(get(upstream.url))
            await response.read(10)
            await asyncio.sleep(0.01)
        assert len(upstream.connections) == 2


async def test_closing_the_transport_closes_idle_and_busy_connections() -> None:
    async def starts(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"one")
        await connection.wait_closed()

    async with running_upstream(starts) as upstream:
        transport = Http1Transport(LONG)
        response = await transport.send(get(upstream.url))
        pieces = response.chunks()
        assert await anext(pieces) == b"one"
        await transport.aclose()
        with pytest.raises(UpstreamFailed):
            await anext(pieces)
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


async def test_a_connection_is_kept_only_if_both_sides_may() -> None:
    for head in (b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n"):
        said = head + b"Content-Length: 2\r\n\r\n{}"
        async with running_upstream(always(said)) as upstream, aclosing(Http1Transport(LONG)) as transport:
            for _ in range(2):
                response = await transport.send(get(upstream.url))
                assert await response.read(10) == b"{}"
            assert len(upstream.connections) == 2


async def test_a_connection_carries_one_exchange_at_a_time() -> None:
    """Many at once: each on a connection of its own, and each with its own answer."""

    async def echoes(received: Received, connection: Connection) -> None:
        await asyncio.sleep(0)
        await connection.send(answer(received.target.encode()))

    async def ask(transport: Http1Transport, number: int) -> None:
        for turn in range(20):
            path = f"/{number}/{turn}"
            response = await transport.send(get(upstream.url + path))
            assert await response.read(100) == b"/v1" + path.encode()

    async with running_upstream(echoes) as upstream, aclosing(Http1Transport(LONG)) as transport:
        await asyncio.gather(*(ask(transport, number) for number in range(10)))
        assert len(upstream.connections) == 10


async def test_an_upstream_that_speaks_or_closes_before_it_is_asked_is_unreachable() -> None:
    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"{}"))

    async with serving(greets) as port, asyncio.timeout(10):
        connection = await open_idle(port)
        while connection.state is not State.CLOSED:
            await asyncio.sleep(0)
        response = Http1Response(asyncio.get_running_loop(), False, 30, 30)
        connection.send(response, b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(UpstreamUnreachable, match="closed the connection"):
            await response.wait_for_head(connection)


async def open_idle(port: int) -> Http1Connection:
    """Connects without sending anything."""
    loop = asyncio.get_running_loop()

    def create() -> Http1Connection:
        return Http1Connection(CoarseTimeouts(), lambda _: None, lambda _: None)

    _, connection = await loop.create_connection(create, "127.0.0.1", port)
    return connection


ID = re.compile(rb"\[id-(\d+)\]")
STYLES = ["whole", "pieces", "chunks", "late", "stall", "twice", "excess", "close", "reset", "early stop", "interim"]


class Misbehaves:
    """Answers each request in the style that its path names, with the id of the request in every answer."""

    async def __call__(self, received: Received, connection: Connection) -> None:
        number, style = received.target.split("/")[-2:]
        body = b"[id-%d]" % int(number) * 4
        style = style.replace("%20", " ")
        whole = answer(body)
        if style == "pieces":
            for start in range(0, len(whole), 7):
                await connection.send(whole[start : start + 7])
                await asyncio.sleep(0)
        elif style == "chunks":
            await connection.start_stream()
            for start in range(0, len(body), 5):
                await connection.chunk(body[start : start + 5])
            await connection.end_stream()
        elif style == "late":
            await asyncio.sleep(0.002)
            await connection.send(whole)
        elif style == "stall":
            await connection.send(whole[:-3])
            await asyncio.sleep(0.003)
            await connection.send(whole[-3:])
        elif style in ("twice", "excess"):
            await connection.send(whole + (whole if style == "twice" else whole[:9]))
        elif style == "interim":
            await connection.send(b"HTTP/1.1 103 Early\r\nX: %s\r\n\r\n" % body + whole)
        elif style in ("close", "reset"):
            await connection.send(whole)
            await asyncio.sleep(0)
            connection.reset() if style == "reset" else connection.writer.close()
        else:
            await connection.send(whole if style == "whole" else whole[:-20])
            if style == "early stop":
                connection.writer.close()


async def ask(transport: Http1Transport, url: str, number: int) -> bytes:
    """Reads in the way that the number chooses: as a whole, in chunks, or not to the end."""
    response: Http1Response = await transport.send(get(url))
    try:
        if number % 3 == 0:
            return await response.read(1000)
        found = b""
        async for chunk in response.chunks():
            found += chunk
            if number % 3 == 1:
                break
        return found
    finally:
        response.close()


async def step(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


CASES = st.lists(st.tuples(st.sampled_from(STYLES), st.integers(-1, 30)), min_size=1, max_size=25)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_no_answer_reaches_another_request_whoever_is_cancelled_at_whatever_await(cases: list[tuple[str, int]]) -> None:
    """A number from 0 on says after how many turns of the event loop the request is cancelled."""
    asyncio.run(check_cases(cases))


async def check_cases(cases: list[tuple[str, int]]) -> None:
    async with running_upstream(Misbehaves()) as upstream, aclosing(Http1Transport(LONG)) as transport:
        for number, (style, turns) in enumerate(cases):
            url = f"{upstream.url}/{number}/{style.replace(' ', '%20')}"
            task = asyncio.create_task(ask(transport, url, number))
            if turns >= 0:
                await step(turns)
                task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, bytes):
                assert {int(found) for found in ID.findall(result)} <= {number}
            else:
                assert isinstance(result, UpstreamFailed | asyncio.CancelledError)
            if turns < 0 and style in ("whole", "pieces", "chunks", "late", "twice", "excess", "interim"):
                assert isinstance(result, bytes) and result
