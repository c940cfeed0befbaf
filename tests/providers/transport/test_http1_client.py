"""Requests as they are sent: heads, bodies in one write, in pieces and in chunks, and answers that come before their end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from gateway.core.errors import BadRequest
from gateway.core.upstream_errors import UpstreamInvalid
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.http1_client import MAX_ONE_WRITE_BYTES, Framing, Http1Transport, encode_head
from tests.support.serving import serving
from tests.support.upstream import always, answer, running_upstream

LONG = Timeouts(30, 30, 30)
START = "POST / HTTP/1.1\r\nHost: h\r\n"


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def post(url: str, body: bytes | AsyncIterator[bytes] | None, headers: dict[str, str] | None = None) -> bytes:
    async with aclosing(Http1Transport(LONG, environ={})) as transport:
        response = await transport.send(TransportRequest("POST", url, headers or {}, body))
        try:
            return await response.read(1000)
        finally:
            response.close()


HEADS = [
    ("POST", {}, b"abc", Framing(False, 3), "Content-Length: 3\r\n"),
    ("POST", {"content-length": "9"}, b"abc", Framing(False, 3), "Content-Length: 3\r\n"),
    ("POST", {}, None, Framing(False, 0), "Content-Length: 0\r\n"),
    ("GET", {"A": "b", "C": "d"}, None, Framing(False, None), "A: b\r\nC: d\r\n"),
    ("POST", {}, stream(), Framing(True, None), "Transfer-Encoding: chunked\r\n"),
    ("POST", {"Content-Length": "5"}, stream(), Framing(False, 5), "Content-Length: 5\r\n"),
    ("GET", {"A": "\udcff\xe4"}, None, Framing(False, None), "A: \udcff\xe4\r\n"),
]


@pytest.mark.parametrize(("method", "headers", "body", "framing", "lines"), HEADS)
def test_heads(method: str, headers: dict[str, str], body: bytes | None, framing: Framing, lines: str) -> None:
    head, found = encode_head(START, TransportRequest(method, "", headers, body))
    assert (head, found) == (f"{START}{lines}\r\n".encode("utf-8", "surrogateescape"), framing)


BAD = [
    {"X": "a\r\nY: b"}, {"X": "a\nb"}, {"X": "a\rb"}, {"X": "a\0b"}, {"X\r\nY": "a"}, {"X ": "a"}, {"": "a"}, {"X:": "a"},
    {"Transfer-Encoding": "chunked"}, {"transfer-encoding": "x"}, {"Host": "other"}, {"Connection": "close"}, {"\xe4": "a"},
    {"X": "\ud800"},
]  # fmt: skip


@pytest.mark.parametrize("headers", BAD)
async def test_a_head_that_would_be_read_otherwise_is_not_sent(headers: dict[str, str]) -> None:
    async with running_upstream(always(answer(b"{}"))) as upstream:
        with pytest.raises(UpstreamInvalid):
            await post(upstream.url, b"x", headers)
        assert not upstream.connections


@pytest.mark.parametrize("length", ["", "-1", "+1", "1 ", "0x1", "\u0661"])
async def test_a_length_that_is_none_is_not_sent(length: str) -> None:
    async with running_upstream(always(answer(b"{}"))) as upstream:
        with pytest.raises(UpstreamInvalid):
            await post(upstream.url, stream(b"x"), {"Content-Length": length})
        assert not upstream.connections


@pytest.mark.parametrize("size", [0, 1, MAX_ONE_WRITE_BYTES, MAX_ONE_WRITE_BYTES + 1, 3_000_000])
async def test_bodies_of_every_size_arrive(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    async with running_upstream(always(answer(b"{}"))) as upstream:
        for _ in range(2):
            assert await post(upstream.url, body[:size]) == b"{}"
        assert [received.body for received in upstream.requests] == [body[:size]] * 2
        assert upstream.requests[0].header("Content-Length") == str(size)


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "300006"}])
async def test_an_upload_keeps_its_length_or_is_sent_in_chunks(headers: dict[str, str]) -> None:
    async with running_upstream(always(answer(b"{}"))) as upstream, aclosing(Http1Transport(LONG)) as transport:
        for _ in range(3):
            body = stream(b"one", b"", b"x" * 300_000, b"two")
            response = await transport.send(TransportRequest("POST", upstream.url, headers, body))
            assert await response.read(10) == b"{}"
        assert {received.body for received in upstream.requests} == {b"one" + b"x" * 300_000 + b"two"}
        assert upstream.requests[0].header("Content-Length") == headers.get("Content-Length")
        assert len(upstream.connections) == 1


@pytest.mark.parametrize(("length", "said"), [("2", "longer"), ("4", "shorter")])
async def test_an_upload_of_another_length_than_it_said_breaks_off(length: str, said: str) -> None:
    async with running_upstream(always(answer(b"{}"))) as upstream:
        with pytest.raises(UpstreamInvalid, match=said):
            await post(upstream.url, stream(b"abc"), {"Content-Length": length})
        assert not upstream.requests


async def test_an_error_of_the_body_is_raised_as_it_is() -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        raise BadRequest("The client broke off.")

    async with running_upstream(always(answer(b"{}"))) as upstream:
        with pytest.raises(BadRequest, match="The client broke off"):
            await post(upstream.url, breaks())
        assert not upstream.requests
        async with asyncio.timeout(10):
            await upstream.connections[0].closed.wait()


class RefusesUploads:
    """Answers as soon as it has seen the head, and reads nothing of the body. ``closed`` says when the client has gone."""

    def __init__(self, status: str, then_closes: bool) -> None:
        self.status, self.then_closes = status, then_closes
        self.closed = asyncio.Event()
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(b'{"error":1}', self.status))
        await writer.drain()
        if self.then_closes:
            return
        try:
            while await reader.read(65536):
                pass
        finally:
            self.closed.set()


async def endless(ended: asyncio.Event) -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)
    finally:
        ended.set()


@pytest.mark.parametrize("status", ["413 Content Too Large", "401 Unauthorized", "200 OK"])
@pytest.mark.parametrize("then_closes", [False, True])
@pytest.mark.parametrize("headers", [{}, {"Content-Length": "100000000"}])
async def test_an_early_answer_reaches_the_caller_and_ends_the_upload(
    status: str, then_closes: bool, headers: dict[str, str]
) -> None:
    upstream, ended = RefusesUploads(status, then_closes), asyncio.Event()
    async with serving(upstream) as port, aclosing(Http1Transport(LONG)) as transport, asyncio.timeout(20):
        url = f"http://127.0.0.1:{port}/v1"
        response = await transport.send(TransportRequest("POST", url, headers, endless(ended)))
        assert response.status == int(status[:3])
        assert await response.read(100) == b'{"error":1}'
        response.close()
        await ended.wait()
        if not then_closes:
            await upstream.closed.wait()
        response = await transport.send(TransportRequest("GET", url, {}))
        assert await response.read(100) == b'{"error":1}'
        assert len(upstream.heads) == 2


async def test_an_early_answer_to_a_large_body_reaches_the_caller() -> None:
    upstream = RefusesUploads("413 Content Too Large", then_closes=False)
    async with serving(upstream) as port, asyncio.timeout(20):
        assert await post(f"http://127.0.0.1:{port}/v1", bytes(50_000_000)) == b'{"error":1}'
        await upstream.closed.wait()


async def test_an_upload_waits_for_an_upstream_that_does_not_read() -> None:
    produced, goes_on = 0, asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(1000):
            produced += 65536
            yield b"x" * 65536

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await goes_on.wait()
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
        writer.write(answer(b"{}"))
        await reader.read()

    async with serving(slow) as port, asyncio.timeout(30):
        headers = {"Content-Length": str(65536 * 1000)}
        sending = asyncio.create_task(post(f"http://127.0.0.1:{port}/v1", body(), headers))
        before = -1
        while before != produced:
            before = produced
            await asyncio.sleep(0.1)
        assert produced < 65536 * 500  # what the two sockets take, and little more
        goes_on.set()
        assert await sending == b"{}"


async def test_cancelling_an_upload_ends_its_body() -> None:
    ended = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    async with serving(waits) as port, asyncio.timeout(20):
        sending = asyncio.create_task(post(f"http://127.0.0.1:{port}/v1", endless(ended)))
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await ended.wait()
