"""The adapter: heads as bytes that nobody can smuggle a header into, and requests that do not parse."""

import asyncio
import email.utils
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer
from pytest_aiohttp.plugin import AiohttpClient

from gateway.http.request import Request
from gateway.server.aiohttp_server import ONE_BLOCK_BYTES, AiohttpServer, encode_head, require_c_parser
from tests.support.reply import check_error
from tests.support.wire import connected, request

V1_0, V1_1 = (1, 0), (1, 1)


def head(status: int = 200, version: tuple[int, int] = V1_1, keeps_alive: bool = True, **headers: str) -> list[str]:
    text = encode_head(status, headers, 5, version=version, keeps_alive=keeps_alive).decode()
    assert text.endswith("\r\n\r\n")
    return text[:-4].split("\r\n")


def test_a_head() -> None:
    status_line, *lines = head(Server="gateway")
    assert status_line == "HTTP/1.1 200 OK"
    assert lines[:2] == ["Server: gateway", "content-length: 5"]
    assert email.utils.parsedate(lines[2].removeprefix("date: "))
    assert len(lines) == 3


@pytest.mark.parametrize("status", [204, 304])
def test_a_head_without_a_body_has_no_length(status: int) -> None:
    assert not any(line.startswith("content-length") for line in head(status))


@pytest.mark.parametrize(
    ("version", "keeps_alive", "expected"),
    [(V1_1, True, []), (V1_1, False, ["close"]), (V1_0, True, ["keep-alive"]), (V1_0, False, ["close"])],
)
def test_whether_the_connection_stays(version: tuple[int, int], keeps_alive: bool, expected: list[str]) -> None:
    lines = head(version=version, keeps_alive=keeps_alive)
    assert [line.removeprefix("connection: ") for line in lines if line.startswith("connection: ")] == expected


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb", "a\0b", "a\r\n\r\n<html>"])
@pytest.mark.parametrize("where", ["name", "value"])
def test_a_line_end_in_a_header_is_an_error(value: str, where: str) -> None:
    headers = {"x": value} if where == "value" else {value: "x"}
    with pytest.raises(ValueError, match="line end"):
        encode_head(200, headers, 0, version=V1_1, keeps_alive=True)


def test_headers_go_out_in_their_order() -> None:
    assert head(B="2", A="1")[1:3] == ["B: 2", "A: 1"]


def test_an_unknown_status_has_no_reason() -> None:
    assert head(499)[0] == "HTTP/1.1 499 "


def test_text_that_is_not_utf_8_survives() -> None:
    raw = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert b"x: caf\xe9\r\n" in encode_head(200, {"x": raw}, 0, version=V1_0, keeps_alive=True)


def test_the_c_parser_is_there() -> None:
    require_c_parser()


class HandlerServer(BaseTestServer):
    """A handler of ours on a socket."""

    def __init__(self, handler: Callable[[Request], Awaitable[None]]) -> None:
        super().__init__()
        self.handle = handler

    async def _make_runner(self, **kwargs: object) -> web.BaseRunner:
        return web.ServerRunner(AiohttpServer(self.handle))


async def test_a_client_that_has_gone_still_has_an_address() -> None:
    """For the access log, which is written when the request has ended."""
    began, addresses, ended = asyncio.Event(), [], asyncio.Event()

    async def handle(request: Request) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            addresses.append((request.connection.is_closing, request.connection.peer_address))
            ended.set()

    server = HandlerServer(handle)
    await server.start_server()
    try:
        assert server.port is not None
        async with connected(server.port) as client:
            await client.send(request("GET", "/"))
            await began.wait()
            client.abort()
        await ended.wait()
    finally:
        await server.close()
    assert addresses == [(True, "127.0.0.1")]


@pytest.mark.parametrize("size", [0, 5, ONE_BLOCK_BYTES, ONE_BLOCK_BYTES + 1])
async def test_bodies_of_every_size_arrive(aiohttp_client: AiohttpClient, size: int) -> None:
    async def handle(request: Request) -> None:
        await request.connection.send(200, {"Content-Type": "text/plain"}, b"x" * size, closes=False)

    client = await aiohttp_client(HandlerServer(handle))
    response = await client.get("/")
    assert (await response.read(), response.headers["Content-Length"]) == (b"x" * size, str(size))
    head_response = await client.head("/")
    assert (await head_response.read(), head_response.headers["Content-Length"]) == (b"", str(size))


async def test_a_request_body_arrives_in_chunks(aiohttp_client: AiohttpClient) -> None:
    async def handle(request: Request) -> None:
        body = await request.read(100)
        await request.connection.send(200, {}, body[::-1], closes=False)

    client = await aiohttp_client(HandlerServer(handle))
    assert await (await client.post("/", data=b"abc")).read() == b"cba"


async def test_a_stream_that_is_broken_off_has_no_end(aiohttp_client: AiohttpClient) -> None:
    async def handle(request: Request) -> None:
        await request.connection.start(200, {"Content-Type": "text/plain"})
        await request.connection.write(b"abc")
        request.connection.break_off()

    client = await aiohttp_client(HandlerServer(handle))
    assert client.port is not None
    async with connected(client.port) as raw:
        await raw.send(request("GET", "/"))
        reply = await raw.reply()
    assert (reply.body, reply.whole) == (b"abc", False)


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n"])
async def test_what_does_not_parse_gets_an_error_in_our_shape(aiohttp_client: AiohttpClient, data: bytes) -> None:
    async def handle(request: Request) -> None:
        raise AssertionError("it did not parse")

    client = await aiohttp_client(HandlerServer(handle))
    assert client.port is not None
    async with connected(client.port) as raw:
        await raw.send(data)
        reply = await raw.reply()
        assert await raw.until_closed() == b""
    check_error(reply, 400, "invalid_request_error", "invalid_http")
    assert reply.header("connection") == "close"
