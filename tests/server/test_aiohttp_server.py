"""The adapter: whole responses and chunks, and requests that do not parse."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer
from pytest_aiohttp.plugin import AiohttpClient

from gateway.http.request import Request
from gateway.server.aiohttp_server import ONE_BLOCK_BYTES, AiohttpServer, require_c_parser
from tests.support.reply import check_error
from tests.support.wire import connected, request


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
