"""An upstream made of bare sockets: it answers with the very bytes that a test gives it, in the very pieces."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Received:
    """One request as it came in."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    raw_head: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Connection:
    """The upstream's end of a connection. ``closed`` is set when the other side has gone."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def start_stream(self, content_type: str = "text/event-stream") -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % content_type.encode()
        )

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def wait_closed(self) -> None:
        """Until the other side closes or resets."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.closed.set()

    def reset(self) -> None:
        """A real reset: closing alone would send an orderly end."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Received, Connection], Awaitable[None]]


class Upstream:
    """Listens on a free loopback port. ``behave`` answers each request; ``requests`` has all that came."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[Received] = []
        self.connections: list[Connection] = []
        self.open_connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self.connections.append(connection)
        self.open_connections += 1
        try:
            while (received := await read_request(reader)) is not None:
                self.requests.append(received)
                await self.behave(received, connection)
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_connections -= 1
            connection.closed.set()
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    request_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = request_line.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    named = {name.lower(): value for name, value in headers}
    if named.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunked(reader)
    else:
        body = await reader.readexactly(int(named.get("content-length", "0")))
    return Received(method, target, headers, body, head)


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


@asynccontextmanager
async def running_upstream(behave: Behaviour) -> AsyncIterator[Upstream]:
    upstream = Upstream(behave)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=2**20)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for connection in upstream.connections:
            connection.writer.close()


def answer(body: bytes, status: str = "200 OK", content_type: str = "application/json", extra: bytes = b"") -> bytes:
    """A whole response with a length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n".encode()
    return head + extra + b"\r\n" + body


def always(response: bytes) -> Behaviour:
    async def behave(_received: Received, connection: Connection) -> None:
        await connection.send(response)

    return behave


class JsonUpstream:
    """An upstream built on aiohttp that answers every request with the same JSON. ``requests`` has all that came."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.requests: list[Received] = []
        self.url = ""
        self.app = web.Application()
        self.app.router.add_route("*", "/{path:.*}", self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        self.requests.append(Received(request.method, request.raw_path, headers, await request.read(), b""))
        return web.Response(body=self.body, content_type="application/json")


StartUpstream = Callable[[bytes], Awaitable[JsonUpstream]]
