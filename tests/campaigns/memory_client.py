"""A client of a server's protocol without a socket: bytes go in and out in memory, so that a million requests take minutes."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

QUIET_STEPS = 8
"""After as many turns of the event loop without a change nothing more comes: no step of a server waits for longer."""


class Exchange(NamedTuple):
    """What a connection did: the bytes that came back, whether the server has closed it, and whether with a reset."""

    received: bytes
    is_closed: bool
    is_reset: bool


class MemoryTransport(asyncio.Transport):
    """A connection whose client takes everything at once."""

    def __init__(self) -> None:
        self.is_reset = False
        sock = SimpleNamespace(family=None, setsockopt=self._set_option, fileno=lambda: 0)
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2), "socket": sock})
        self.protocol: asyncio.Protocol | None = None
        self.received: list[bytes] = []
        self.is_paused = False
        self._is_closing = False

    def _set_option(self, _level: int, option: int, _value: object) -> None:
        self.is_reset = self.is_reset or option == socket.SO_LINGER

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self.received.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.close()

    def _lose(self) -> None:
        if self.protocol is not None:
            self.protocol.connection_lost(None)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


async def exchange(server: Callable[[], Any], pieces: Sequence[bytes]) -> Exchange:
    """Sends the pieces to a new connection, one after the other, and ends it when nothing more comes."""
    transport = MemoryTransport()
    protocol = transport.protocol = server()
    protocol.connection_made(transport)
    for piece in pieces:
        if transport.is_paused:
            await _settle(transport, lambda: not transport.is_paused)
        if transport.is_closing() or transport.is_paused:
            break
        protocol.data_received(piece)
        await asyncio.sleep(0)
    await _settle(transport, transport.is_closing)
    found = Exchange(b"".join(transport.received), transport.is_closing(), transport.is_reset)
    transport.abort()
    await asyncio.sleep(0)
    return found


async def _settle(transport: MemoryTransport, is_over: Callable[[], bool]) -> None:
    """Waits until nothing more comes, or something has happened."""
    quiet, seen = 0, (0, False)
    while quiet < QUIET_STEPS and not is_over():
        await asyncio.sleep(0)
        now = (len(transport.received), transport.is_paused)
        quiet = quiet + 1 if now == seen else 0
        seen = now
