"""A gateway in one process, between a client and an upstream in memory: all of its own code, and no socket that is written to."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import uvloop

from bench.payloads import chat_answer, chat_request
from bench.servers import KEY
from gateway.app import App
from gateway.config import settings
from gateway.server.http1_server import Http1Server

LIMITS = {"rpm": 100_000_000, "tpm": 1_000_000_000, "max_parallel": 1000, "budget": "100000/month"}
_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 30 Nov 2026 12:00:00 GMT\r\nServer: bench\r\n"


class MemoryTransport(asyncio.Transport):
    """The side of a connection that a protocol writes to. ``on_write`` takes what it writes."""

    def __init__(self, on_write: Callable[[bytes], None], sock: socket.socket | None = None) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8000), "socket": sock})
        self._on_write = on_write
        self._socket = sock
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._on_write(bytes(data))

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True
        if self._socket is not None:
            self._socket.close()

    def abort(self) -> None:
        self.close()

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Loop(uvloop.Loop):
    """An event loop whose connections to upstreams end in memory. Their sockets are connected, and nothing is sent on them."""

    async def create_connection(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        protocol = protocol_factory()
        answer = response_block(chat_answer())

        def reply(_request: bytes) -> None:
            self.call_soon(protocol.data_received, answer)

        transport = MemoryTransport(reply, options["sock"])
        protocol.connection_made(transport)
        return transport, protocol


def response_block(body: str) -> bytes:
    return f"{_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Client:
    """Sends one request after another on one connection in memory."""

    def __init__(self, server: Http1Server) -> None:
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._protocol = server()
        self._protocol.connection_made(MemoryTransport(self._take))

    def _take(self, data: bytes) -> None:
        self._answered.set_result(data)

    async def send(self, request: bytes) -> bytes:
        """Returns the response, once the connection is ready for the next request."""
        self._answered = asyncio.get_running_loop().create_future()
        self._protocol.data_received(request)
        answer = await self._answered
        await asyncio.sleep(0)  # the request's task ends
        return answer


def request_block(path: str, key: str, body: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n"
    return f"{head}Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class Running:
    """A started gateway, a client, and the request of a token with all four limits."""

    def __init__(self, app: App, client: Client, chat: bytes) -> None:
        self.app, self.client, self.chat = app, client, chat

    async def repeat(self, count: int) -> None:
        """Sends the request ``count`` times. Raises RuntimeError where one is not answered with 200."""
        for _ in range(count):
            answer = await self.client.send(self.chat)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"the gateway answered {answer[:300]!r}")


@asynccontextmanager
async def running(folder: Path) -> Any:
    """Starts a gateway in ``folder``, without its background tasks' timers having to fire."""
    os.chdir(folder)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        values = {
            "GATEWAY_UPSTREAM_URL": f"http://127.0.0.1:{upstream.getsockname()[1]}/v1",
            "GATEWAY_DATA_DIR": str(folder / "data"),
            "GATEWAY_LOG_FORMAT": "json",
            "FREEGPT_API_KEY": KEY,
        }
        (folder / "data").mkdir()
        app = App(settings.load(values))
        await app.start()
        client = Client(Http1Server(app.handle))
        creation = json.dumps({"name": "bench", "limits": LIMITS})
        answer = await client.send(request_block("/api/tokens", KEY, creation))
        token = json.loads(answer.partition(b"\r\n\r\n")[2])["token"]
        try:
            yield Running(app, client, request_block("/v1/chat/completions", token, chat_request()))
        finally:
            await app.stop()


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine on ``Loop``."""
    with asyncio.Runner(loop_factory=cast(Any, Loop)) as runner:
        return runner.run(main)
