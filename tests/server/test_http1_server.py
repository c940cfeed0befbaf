"""The server closes what is idle, ends gracefully, and answers the same bytes as the reference does."""

import asyncio

from gateway.http.request import Request
from gateway.server.deadlines import ConnectionTimeouts
from gateway.server.http1_server import Http1Server
from tests.server.server_contract import GET, LONG, Echo, Handler, HandlerServer
from tests.support.wire import connected


async def _serve(handler: Handler, keep_alive: float = 60.0) -> HandlerServer:
    def make(handle: Handler, timeouts: ConnectionTimeouts) -> Http1Server:
        return Http1Server(handle, timeouts, keep_alive_seconds=keep_alive)

    server = HandlerServer(make, handler)
    await server.start_server()
    return server


async def test_an_idle_connection_is_closed() -> None:
    server = await _serve(Echo(), keep_alive=0.0)
    try:
        assert server.port is not None
        async with connected(server.port) as client:
            await client.send(GET)
            assert (await client.reply()).status == 200
            assert await client.until_closed() == b""
    finally:
        await server.close()


async def test_a_request_in_progress_ends_before_its_connection_is_closed() -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def handle(received: Request) -> None:
        began.set()
        await may_end.wait()
        await received.connection.send(200, {}, b"whole", closes=False)

    server = await _serve(handle)
    assert server.port is not None
    async with connected(server.port) as client, connected(server.port) as idle:
        await client.send(GET)
        await began.wait()
        closing = asyncio.create_task(server.close())
        assert await idle.until_closed() == b""
        may_end.set()
        reply = await client.reply()
        assert (reply.body, reply.header("connection")) == (b"whole", "close")
        await closing


async def test_a_handler_may_be_replaced() -> None:
    server = Http1Server(Echo(), LONG)
    other = Echo()
    server.handler = other
    assert server.handler is other


async def test_what_a_client_has_not_taken_yet_is_not_cut_off_at_the_end() -> None:
    body = b"x" * 5_000_000
    ended = asyncio.Event()

    async def handle(received: Request) -> None:
        await received.connection.start(200, {"Content-Length": str(len(body))})
        for start in range(0, len(body), 50_000):
            await received.connection.write(body[start : start + 50_000])
        await received.connection.finish()
        ended.set()

    server = await _serve(handle)
    assert server.port is not None
    async with connected(server.port) as client:
        await client.send(GET)
        head = await client.head()
        taken = b""
        while not ended.is_set():
            taken += await client.reader.read(50_000)
        closing = asyncio.create_task(server.close())
        taken += await client.until_closed()
        await closing
    assert (head.status, len(taken)) == (200, len(body))
