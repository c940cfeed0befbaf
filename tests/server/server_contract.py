"""What every server does on a socket: which bytes begin a request, what a client may make it keep, and for how long."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer
from pytest_aiohttp.plugin import AiohttpClient

from gateway.core.errors import BadRequest
from gateway.http.request import Request
from gateway.server.deadlines import ConnectionTimeouts
from gateway.server.head_limits import MAX_HEAD_BYTES
from tests.support.reply import check_error
from tests.support.wire import Client, connected, request

Handler = Callable[[Request], Awaitable[None]]
MakeServer = Callable[[Handler, ConnectionTimeouts], Any]
"""Creates a server for ``loop.create_server``, which aiohttp's runner can stop."""
INVALID = "invalid_request_error"
LONG = ConnectionTimeouts(60, 60)
GET = request("GET", "/")
BODY = b"x" * 100_000
CHUNKED = request("POST", "/", [("Transfer-Encoding", "chunked")])


class Echo:
    """Answers each request with its method, path and body, and counts them."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.count = 0

    async def __call__(self, received: Request) -> None:
        self.count += 1
        body = await received.read(10**7)
        said = f"{received.method} {received.raw_path} ".encode() + body
        await received.connection.send(200, {"Content-Type": "text/plain"}, self.body or said, closes=False)


async def settled(count: Callable[[], int]) -> int:
    """Returns the number once it no longer grows."""
    async with asyncio.timeout(10):
        seen, same = -1, 0
        while same < 20:
            await asyncio.sleep(0.005)
            same = same + 1 if count() == seen else 0
            seen = count()
    return seen


LINES = [b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1",
         b"GET / HTTP/1.1\t", b"GET / a HTTP/1.1", b"GET /", b"GET / HTTP/0.9", b"GET / HTTP/2.0", b"GET / RTSP/1.1",
         b"GET /#x HTTP/1.1", b"get / HTTP/1.1", b"\x16\x03\x01", b"CONNECT x:1 HTTP/1.1",
         b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked"]  # fmt: skip


class HandlerServer(BaseTestServer):
    """A handler of ours on a socket."""

    def __init__(self, make_server: MakeServer, handler: Handler, timeouts: ConnectionTimeouts = LONG) -> None:
        super().__init__()
        self.make_server, self.handle, self.timeouts = make_server, handler, timeouts

    async def _make_runner(self, **kwargs: object) -> web.BaseRunner:
        return web.ServerRunner(self.make_server(self.handle, self.timeouts))


class ServerContract:
    """Tests for a server. A subclass sets ``make_server``."""

    make_server: MakeServer

    def server(self, handler: Handler, timeouts: ConnectionTimeouts = LONG) -> HandlerServer:
        return HandlerServer(type(self).make_server, handler, timeouts)

    @asynccontextmanager
    async def serving(self, handler: Handler, timeouts: ConnectionTimeouts = LONG) -> AsyncIterator[Client]:
        """A connection to a server with this handler. The client's side takes in no more than it reads, and some KiB."""
        server = self.server(handler, timeouts)
        await server.start_server()
        assert server.port is not None
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()
            await server.close()

    async def test_a_client_that_reads_nothing_gets_no_more_than_the_first_responses(self) -> None:
        echo = Echo(BODY)
        async with self.serving(echo) as client:
            await client.send(GET * 500)
            answered = await settled(lambda: echo.count)
            assert 1 <= answered < 60  # what the kernel takes, and one response

    async def test_the_gateway_stops_reading_what_is_sent_ahead(self) -> None:
        echo = Echo(BODY)
        async with self.serving(echo) as client:
            client.writer.write(GET * 1_000_000)
            waiting = client.writer.transport.get_write_buffer_size
            await settled(lambda: echo.count)
            assert await settled(waiting) > 10_000_000

    async def test_what_was_sent_ahead_is_answered_in_its_order(self) -> None:
        echo = Echo()
        inner, chunked = b"GET /no HTTP/1.1\r\n\r\n", CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"
        parts = [request("GET", "/1"), request("POST", "/2", body=inner), chunked, request("GET", "/4")]
        async with self.serving(echo) as client:
            await client.send(b"".join(parts))
            bodies = [(await client.reply()).body for _ in parts]
        assert bodies == [b"GET /1 ", b"POST /2 GET /no HTTP/1.1\r\n\r\n", b"POST / abc", b"GET /4 "]

    @pytest.mark.parametrize("behind", [b"no request\r\n\r\n", GET.replace(b"GET ", b"GET  "), GET])
    async def test_nothing_is_answered_behind_the_last_request(self, behind: bytes) -> None:
        echo = Echo()
        async with self.serving(echo) as client:
            await client.send(request("GET", "/last", [("Connection", "close")]) + behind)
            assert (await client.reply()).body == b"GET /last "
            assert (await client.until_closed(), echo.count) == (b"", 1)

    @pytest.mark.parametrize("trailer", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"no colon"])
    async def test_a_trailer_that_is_refused_ends_the_body(self, trailer: bytes) -> None:
        async def handle(received: Request) -> None:
            with pytest.raises(BadRequest):
                await received.read(100)
            await received.connection.send(400, {}, b"refused", closes=True)

        async with self.serving(handle) as client:
            await client.send(CHUNKED + b"1\r\na\r\n0\r\n" + trailer + b"\r\n\r\n" + GET)
            assert (await client.reply()).body == b"refused"
            assert await client.until_closed() == b""

    @pytest.mark.parametrize(("head", "is_refused"), [
        (b"GET / HTTP/1.1\r\n\r\n", True), (b"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nhOsT: a\r\n\r\n", False), (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n", True),
    ])  # fmt: skip
    async def test_headers_have_names_and_http_1_1_has_one_host(self, head: bytes, is_refused: bool) -> None:
        async with self.serving(Echo()) as client:
            await client.send(head)
            reply = await client.reply()
        assert reply.status == (400 if is_refused else 200)

    async def test_a_broken_body_that_nobody_reads_gets_no_response_of_its_own(self) -> None:
        async def handle(received: Request) -> None:
            await received.connection.send(404, {}, b"none", closes=False)

        async with self.serving(handle) as client:
            await client.send(CHUNKED + b"1\r\nab\r\n0\r\n\r\n" + GET)
            assert (await client.reply()).body == b"none"
            assert await client.until_closed() == b""

    @pytest.mark.parametrize("end", [b"0\r\n\r\n", b"00;x=y\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n"])
    async def test_requests_that_arrive_byte_by_byte(self, end: bytes) -> None:
        echo = Echo()
        stream = (
            b"\r\n"
            + request("POST", "/1", body=b"a\r\n\r\nb")
            + CHUNKED
            + b"4\r\n\r\n\r\n\r\n"
            + end
            + request("GET", "/3")
        )
        async with self.serving(echo) as client:
            for index in range(len(stream)):
                client.writer.write(stream[index : index + 1])
                await asyncio.sleep(0)
            bodies = [(await client.reply()).body for _ in range(3)]
        assert bodies == [b"POST /1 a\r\n\r\nb", b"POST / \r\n\r\n", b"GET /3 "]

    @pytest.mark.parametrize("where", [5, 40, 66, *range(70, 90), 100, 120])
    async def test_requests_that_are_cut_anywhere(self, where: int) -> None:
        echo = Echo()
        stream = CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + request("POST", "/2", body=b"d") + request("GET", "/3")
        async with self.serving(echo) as client:
            await client.send(stream[:where])
            await settled(lambda: echo.count)
            await client.send(stream[where:])
            bodies = [(await client.reply()).body for _ in range(3)]
        assert bodies == [b"POST / abc", b"POST /2 d", b"GET /3 "]

    async def test_large_bodies_pass_a_reader_that_is_slower(self) -> None:
        sizes: list[int] = []

        async def handle(received: Request) -> None:
            size = 0
            async for chunk in received.chunks(10**8):
                size += len(chunk)
                await asyncio.sleep(0)
            sizes.append(size)
            await received.connection.send(200, {}, b"", closes=False)

        plain = request("POST", "/", body=b"y" * 3_000_000)
        chunked = CHUNKED + b"2dc6c0\r\n" + b"\r\n\r\n" * 750_000 + b"\r\n0\r\n\r\n"
        async with self.serving(handle) as client:
            client.writer.write(plain + chunked + GET)
            for _ in range(3):
                assert (await client.reply(30)).status == 200
        assert sizes == [3_000_000, 3_000_000, 0]

    @pytest.mark.parametrize(
        "before", [b"", GET, request("POST", "/", body=b"GET / HTTP/1.1\r\n"), CHUNKED + b"0\r\n\r\n"]
    )
    @pytest.mark.parametrize("line", LINES)
    async def test_a_request_line_that_is_not_exact_is_refused(self, line: bytes, before: bytes) -> None:
        """RFC 9112 3: a program before the gateway may read such a line otherwise."""
        echo = Echo()
        async with self.serving(echo) as client:
            await client.send(before + line + b"\r\nHost: x\r\n\r\n" + GET)
            if before:
                assert (await client.reply()).status == 200
            check_error(await client.reply(), 400, INVALID, "invalid_http")
            assert await client.until_closed() == b""
        assert echo.count == (1 if before else 0)

    async def test_empty_lines_before_a_request_are_ignored(self) -> None:
        async with self.serving(Echo()) as client:
            await client.send(b"\r\n\r\n" + GET)
            assert (await client.reply()).status == 200

    async def test_a_line_that_cannot_be_a_request_is_refused_before_the_head_ends(self) -> None:
        async with self.serving(Echo()) as client:
            await client.send(b"GET  / HTTP/1.1\r\n")
            check_error(await client.reply(), 400, INVALID, "invalid_http")

    async def test_a_head_has_a_largest_size(self) -> None:
        async with self.serving(Echo()) as client:
            await client.send(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEAD_BYTES // 6))
            check_error(await client.reply(), 431, INVALID, "header_too_large")

    @pytest.mark.parametrize(
        "header", [b"Cookie: a=" + b"b" * 9_000, b"X: " + b"y" * 60_000, b"X: y\r\n" * 400 + b"Y: z"]
    )
    async def test_large_headers_pass(self, header: bytes) -> None:
        async with self.serving(Echo()) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
            assert (await client.reply()).status == 200

    async def test_headers_have_a_largest_number(self) -> None:
        async with self.serving(Echo()) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 600 + b"\r\n")
            error = check_error(await client.reply(), 431, INVALID, "header_too_large")
        assert "512 headers" in error["message"]

    @pytest.mark.parametrize("name", ["User-Agent", "Content-Type"])
    async def test_a_header_that_may_not_appear_twice_is_named(self, name: str) -> None:
        async with self.serving(Echo()) as client:
            await client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{name}: a\r\n{name}: b\r\n\r\n".encode())
            error = check_error(await client.reply(), 400, INVALID, "invalid_http")
        assert name in error["message"]

    async def test_a_head_that_is_not_complete_in_time_is_answered_and_closed(self) -> None:
        async with self.serving(Echo(), ConnectionTimeouts(0.0, 60)) as client:
            await client.send(GET + GET[:20])
            assert (await client.reply()).status == 200
            check_error(await client.reply(), 408, INVALID, "request_timeout")
            assert await client.until_closed() == b""

    async def test_a_client_that_takes_nothing_is_disconnected_and_its_request_ended(self) -> None:
        ended = asyncio.Event()

        async def handle(received: Request) -> None:
            await received.connection.start(200, {"Content-Type": "text/plain"})
            try:
                while True:
                    await received.connection.write(BODY)
            finally:
                ended.set()

        async with self.serving(handle, ConnectionTimeouts(60, 0.1)) as client:
            await client.send(GET)
            async with asyncio.timeout(10):
                await ended.wait()

    async def test_a_response_that_is_not_taken_does_not_outlive_its_time_after_the_end(self) -> None:
        """The handler has returned, and what is left is less than the transport's buffer takes."""

        async def handle(received: Request) -> None:
            await received.connection.send(200, {}, BODY, closes=True)

        async with self.serving(handle, ConnectionTimeouts(60, 0.1)) as client:
            await client.send(GET)
            await asyncio.sleep(0)
            async with asyncio.timeout(10):
                assert len(await client.until_closed()) > 0

    async def test_a_client_that_reads_slowly_but_steadily_is_served(self) -> None:
        """The time limit passes several times over while some KiB are taken in each part of it."""

        async def handle(received: Request) -> None:
            await received.connection.send(200, {}, BODY * 40, closes=True)

        loop = asyncio.get_running_loop()
        async with self.serving(handle, ConnectionTimeouts(60, 0.4)) as client:
            await client.send(GET)
            ends = loop.time() + 4
            while loop.time() < ends:
                assert await client.reader.readexactly(4000)
                await asyncio.sleep(0.01)

    async def test_a_client_that_has_gone_still_has_an_address(self) -> None:
        """For the access log, which is written when the request has ended."""
        began, addresses, ended = asyncio.Event(), [], asyncio.Event()

        async def handle(received: Request) -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                addresses.append((received.connection.is_closing, received.connection.peer_address))
                ended.set()

        async with self.serving(handle) as client:
            await client.send(GET)
            await began.wait()
            client.writer.transport.abort()
            await ended.wait()
        assert addresses == [(True, "127.0.0.1")]

    @pytest.mark.parametrize("size", [0, 5, 2**18, 2**18 + 1])
    async def test_bodies_of_every_size_arrive(self, aiohttp_client: AiohttpClient, size: int) -> None:
        async def handle(received: Request) -> None:
            await received.connection.send(200, {"Content-Type": "text/plain"}, b"x" * size, closes=False)

        client = await aiohttp_client(self.server(handle))
        response = await client.get("/")
        assert (await response.read(), response.headers["Content-Length"]) == (b"x" * size, str(size))
        head_response = await client.head("/")
        assert (await head_response.read(), head_response.headers["Content-Length"]) == (b"", str(size))

    async def test_a_request_body_arrives_in_chunks(self, aiohttp_client: AiohttpClient) -> None:
        async def handle(received: Request) -> None:
            body = await received.read(100)
            await received.connection.send(200, {}, body[::-1], closes=False)

        client = await aiohttp_client(self.server(handle))
        assert await (await client.post("/", data=b"abc")).read() == b"cba"

    async def test_a_stream_that_is_broken_off_has_no_end(self, aiohttp_client: AiohttpClient) -> None:
        async def handle(received: Request) -> None:
            await received.connection.start(200, {"Content-Type": "text/plain"})
            await received.connection.write(b"abc")
            received.connection.break_off()

        client = await aiohttp_client(self.server(handle))
        assert client.port is not None
        async with connected(client.port) as raw:
            await raw.send(request("GET", "/"))
            reply = await raw.reply()
        assert (reply.body, reply.whole) == (b"abc", False)

    @pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n"])
    async def test_what_does_not_parse_gets_an_error_in_our_shape(
        self, aiohttp_client: AiohttpClient, data: bytes
    ) -> None:
        async def handle(received: Request) -> None:
            raise AssertionError("it did not parse")

        client = await aiohttp_client(self.server(handle))
        assert client.port is not None
        async with connected(client.port) as raw:
            await raw.send(data)
            reply = await raw.reply()
            assert await raw.until_closed() == b""
        check_error(reply, 400, "invalid_request_error", "invalid_http")
        assert reply.header("connection") == "close"
