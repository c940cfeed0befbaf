"""A client that leaves stops the upstream's work within a second, whatever it was waiting for; nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.gateway import BEARER, CHAT, KEY, STREAM, Running, running_gateway
from tests.support.upstream import Connection, Received, Upstream
from tests.support.wire import Client, connected, gateway_before, post, request

SOON = 5.0  # the bound is one second; a machine that is busy with other tests may be late itself
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 2000 + b'"}}]}\n\n'
UPLOAD_HEAD = request(
    "POST", "/v1/files", [BEARER, ("Content-Type", "application/octet-stream"), ("Content-Length", "50000000")]
)


class Slow:
    """An upstream that does as the path or the body says, for ever. ``began`` is set when it has got that far."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    async def __call__(self, received: Received, connection: Connection) -> None:
        if b'"say"' in received.body:
            await self.flood(connection)
        elif b'"stream"' in received.body:
            await connection.start_stream()
            await connection.chunk(EVENT)
        elif b'"half"' in received.body:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        self.began.set()
        await connection.wait_closed()

    async def flood(self, connection: Connection) -> None:
        await connection.start_stream()
        while not connection.writer.is_closing():
            connection.writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
            try:
                async with asyncio.timeout(0.05):
                    await connection.writer.drain()
            except TimeoutError:
                self.began.set()  # nobody reads any more


async def upstream_is_left(upstream: Upstream, seconds: float = SOON) -> None:
    """Every connection that the gateway had is closed."""
    async with asyncio.timeout(seconds):
        for connection in upstream.connections:
            await connection.closed.wait()


HALF = CHAT[:-1] + b',"half":true}'
SAY = STREAM[:-1] + b',"say":1}'


@pytest.mark.parametrize("leave", ["abort", "fin"])
@pytest.mark.parametrize(
    "body", [CHAT, STREAM, HALF, CHAT[:-1] + b',"stream":false}'], ids=["head", "stream", "half an answer", "waiting"]
)
async def test_while_waiting(tmp_path: Path, body: bytes, leave: str) -> None:
    slow = Slow()
    async with gateway_before(slow, tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        await client.send(post(body=body))
        await slow.began.wait()
        if leave == "abort":
            client.abort()
        else:
            client.writer.close()
        await upstream_is_left(upstream)
        await gateway.wait_idle()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/engines/m/chat/completions"])
async def test_while_not_reading(tmp_path: Path, path: str) -> None:
    """The gateway waits for the client to take bytes, and the upstream for the gateway."""
    slow = Slow()
    async with gateway_before(slow, tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(post(path, SAY))
        await slow.began.wait()
        client.abort()
        await upstream_is_left(upstream)
        await gateway.wait_idle()


async def test_while_uploading(tmp_path: Path) -> None:
    async with uploading(tmp_path, read_on=True) as (gateway, client, taker):
        await client.send(UPLOAD_HEAD + b"x" * 100_000)
        await taker.began.wait()
        client.abort()
        async with asyncio.timeout(SOON):
            await taker.ended.wait()
        await gateway.wait_idle()


async def test_while_an_upload_is_stuck(tmp_path: Path) -> None:
    """The upstream does not take it, so the gateway does not read on: it must see the client leave all the same."""
    async with uploading(tmp_path, read_on=False) as (gateway, client, taker):
        client.writer.write(UPLOAD_HEAD + b"x" * 40_000_000)
        await taker.began.wait()
        await stands_still(client)
        client.abort()
        await gateway.wait_idle()


async def test_while_a_json_body_arrives(tmp_path: Path) -> None:
    slow = Slow()
    async with gateway_before(slow, tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        await client.send(post()[:-20])
        await gateway.wait_started()
        client.abort()
        await gateway.wait_idle()
        assert not upstream.requests


async def test_behind_pipelined_requests(tmp_path: Path) -> None:
    """A client may send the next requests early, more than are taken in: it is still seen when it leaves."""
    slow = Slow()
    async with gateway_before(slow, tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        client.writer.write(post() * 20_000)
        await slow.began.wait()
        await stands_still(client)
        client.abort()
        await upstream_is_left(upstream)
        await gateway.wait_idle()


async def stands_still(client: Client) -> None:
    """Until nothing leaves the client any more."""
    before = -1
    async with asyncio.timeout(10):
        while (left := client.writer.transport.get_write_buffer_size()) != before:
            before = left
            await asyncio.sleep(0.1)


class Taker:
    """A bare upstream that takes an upload, or only its beginning."""

    def __init__(self, read_on: bool) -> None:
        self.read_on, self.began, self.ended = read_on, asyncio.Event(), asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read(1)
            self.began.set()
            while self.read_on and await reader.read(65536):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended.set()


@asynccontextmanager
async def uploading(folder: Path, read_on: bool) -> AsyncIterator[tuple[Running, Client, Taker]]:
    taker = Taker(read_on)
    server = await asyncio.start_server(taker, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        async with (
            running_gateway(folder, FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=url) as gateway,
            connected(gateway.port) as client,
        ):
            yield gateway, client, taker
    finally:
        server.close()
        for writer in taker.writers:
            writer.transport.abort()
            await asyncio.sleep(0)
