"""HTTP by hand: requests as bytes, answers as they came, and whether they came to a proper end."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.gateway import BEARER, CHAT, JSON, KEY, Running, running_gateway
from tests.support.reply import Headers, Reply
from tests.support.upstream import Behaviour, Connection, Received, Upstream, running_upstream


def request(method: str, target: str, headers: Headers = (), body: bytes | None = None, version: str = "1.1") -> bytes:
    """A request with Host, and with a length if it has a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def post(target: str = "/v1/chat/completions", body: bytes = CHAT, headers: Headers = (BEARER,)) -> bytes:
    return request("POST", target, [JSON, *headers], body)


class Client:
    """A connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def abort(self) -> None:
        """Leave with a reset. A mere close would put its FIN behind whatever the gateway has not taken yet: then nobody
        on the gateway's side, its kernel included, can know that the client has gone."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def head(self, seconds: float = 10) -> Reply:
        async with asyncio.timeout(seconds):
            head = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Reply(int(status_line.split(" ")[1]), pairs, b"", False)

    async def reply(self, seconds: float = 10, *, to_head: bool = False) -> Reply:
        """The next answer, however it ends."""
        found = await self.head(seconds)
        async with asyncio.timeout(seconds):
            if to_head or found.status in (204, 304):
                found.whole = True
            elif (found.header("Transfer-Encoding") or "") == "chunked":
                found.body, found.whole = await self._chunks()
            elif (length := found.header("Content-Length")) is not None:
                found.body = await self._exactly(int(length))
                found.whole = len(found.body) == int(length)
            else:
                found.body = await self.until_closed()
        return found

    async def piece(self, seconds: float = 10) -> bytes | None:
        """One chunk's data; None where the connection ended without a proper end, ``b""`` for the proper end."""
        try:
            async with asyncio.timeout(seconds):
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                data = await self.reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return data[:-2]

    async def _chunks(self) -> tuple[bytes, bool]:
        parts = []
        while piece := await self.piece():
            parts.append(piece)
        return b"".join(parts), piece is not None

    async def _exactly(self, count: int) -> bytes:
        try:
            return await self.reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            return error.partial
        except ConnectionError:
            return b""

    async def until_closed(self) -> bytes:
        parts = []
        try:
            while part := await self.reader.read(65536):
                parts.append(part)
        except ConnectionError:
            pass
        return b"".join(parts)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def talk(port: int, data: bytes, seconds: float = 10) -> Reply:
    """One request on a connection of its own."""
    async with connected(port) as client:
        await client.send(data)
        return await client.reply(seconds, to_head=data.startswith(b"HEAD "))


@asynccontextmanager
async def gateway_before(
    behave: Behaviour, folder: Path, app_options: Mapping[str, Any] | None = None, **values: str
) -> AsyncIterator[tuple[Upstream, Running]]:
    """An upstream and a gateway with the environment key in front of it. ``app_options`` goes to ``App``."""
    async with running_upstream(behave) as upstream:
        chosen = {"FREEGPT_API_KEY": KEY, "GATEWAY_UPSTREAM_URL": upstream.url, **values}
        async with running_gateway(folder, app_options=app_options, **chosen) as gateway:
            yield upstream, gateway


async def never(_received: Received, connection: Connection) -> None:
    """An upstream that takes a request and says nothing until the other side leaves."""
    await connection.wait_closed()
