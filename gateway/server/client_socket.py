"""A client's socket: writes, their back-pressure, and time limits for bytes that are not taken, and for what has to be sent."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from gateway.core.timeouts import CoarseTimeouts
from gateway.server.deadlines import ConnectionTimeouts, ReadDeadline, WriteDeadline


class ClientSocket(asyncio.Protocol):
    """A connection that can be written to. Once it is lost, what is written goes nowhere."""

    __slots__ = (
        "_coarse_timeouts",
        "_drain_waiter",
        "_read_deadline",
        "_timeouts",
        "_transport",
        "_write_deadline",
        "is_writing_paused",
        "must_close",
        "peer_address",
    )

    def __init__(self, coarse_timeouts: CoarseTimeouts, timeouts: ConnectionTimeouts) -> None:
        self._coarse_timeouts = coarse_timeouts
        self._timeouts = timeouts
        self._transport: asyncio.Transport | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._read_deadline: ReadDeadline | None = None
        self._write_deadline: WriteDeadline | None = None
        self.is_writing_paused = False
        """Whether the client has taken so little of what was written that no more should be."""
        self.must_close = False
        """Whether the response that is being sent is the last one."""
        self.peer_address: str | None = None

    @property
    def own_address(self) -> str | None:
        """The address of this end, None where there is none any more, or the socket has no address."""
        return None if self._transport is None else _host(self._transport.get_extra_info("sockname"))

    @property
    def is_closing(self) -> bool:
        """Whether the client has gone, or is about to be disconnected."""
        return self._transport is None or self._transport.is_closing()

    @property
    def file_descriptor(self) -> int | None:
        """The socket's descriptor, None where the connection is closing."""
        raw = self.raw_socket
        return None if raw is None else raw.fileno()

    @property
    def raw_socket(self) -> socket.socket | None:
        """The socket, None where the connection is closing."""
        if self._transport is None or self._transport.is_closing():
            return None
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self.peer_address = _host(transport.get_extra_info("peername"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the connection. Whoever waits until it can be written to gets ConnectionResetError."""
        self._transport = None
        self._stop_read_deadline()
        self._stop_write_deadline()
        waiter = self._drain_waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionResetError("the client has gone"))

    def write(self, data: bytes) -> None:
        """Writes, without waiting."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def write_open(self, data: bytes) -> None:
        """Writes to a connection that is known not to be closing."""
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Waits until the client has taken most of what was written. Raises ConnectionResetError."""
        if self._transport is None:
            raise ConnectionResetError("the client has gone")
        if not self.is_writing_paused:
            return
        waiter = self._drain_waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._drain_waiter = None

    def close(self) -> None:
        """Closes the connection once everything has been sent."""
        if self._transport is not None:
            self._transport.close()
            self.watch_unsent()

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Is called where the client takes less than is written."""
        self.is_writing_paused = True
        self.watch_unsent()

    def resume_writing(self) -> None:
        """Is called where the client has taken most of what was written."""
        self.is_writing_paused = False
        if self._write_deadline is not None:
            self._write_deadline.resumed += 1
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    def watch_unsent(self) -> None:
        """Begins to watch whether the client takes what was written, unless all of it has gone out."""
        transport = self._transport
        if self._write_deadline is not None or transport is None or transport.get_write_buffer_size() == 0:
            return
        self._write_deadline = WriteDeadline(transport, self._timeouts.write, self._stop_write_deadline)
        self._coarse_timeouts.start(self._write_deadline)

    def _start_read_deadline(self, seconds: float, on_late: Callable[[], None]) -> None:
        if self._read_deadline is None:
            self._read_deadline = ReadDeadline(seconds, on_late)
            self._coarse_timeouts.start(self._read_deadline)

    def _stop_read_deadline(self) -> None:
        if self._read_deadline is not None:
            self._coarse_timeouts.stop(self._read_deadline)
            self._read_deadline = None

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._coarse_timeouts.stop(self._write_deadline)
            self._write_deadline = None


def _host(address: object) -> str | None:
    """The host of an internet socket's address; a Unix socket has none."""
    return str(address[0]) if isinstance(address, tuple) else None
