"""Carries one exchange after another on one connection to an upstream, each with nothing but its own response."""

import asyncio
import math
import select
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from gateway.core.timeouts import CoarseTimeouts
from gateway.core.upstream_errors import UpstreamFailed, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.providers.transport import http1_limits as limits
from gateway.providers.transport.content_encoding import UnknownEncoding, decoder_for
from gateway.providers.transport.http1_parser import Body, InvalidResponse, ResponseParser
from gateway.providers.transport.http1_response import BROKEN_OFF, Http1Response
from gateway.providers.transport.http1_state import TRANSITIONS, Event, State

CLOSED = "The upstream closed the connection before it had answered."
NOT_HTTP = "The upstream's answer is not valid HTTP."
UNKNOWN_ENCODING = (
    "The upstream's answer has a content encoding that was not asked for and cannot be read: another one."
)


class Http1Connection(asyncio.Protocol):
    """Belongs to no exchange, or to exactly one. Anything that does not belong to that one closes the connection.

    ``keep`` is called with the connection when it may be used again, and ``forget`` when it never will be.
    """

    def __init__(
        self,
        timeouts: CoarseTimeouts,
        keep: Callable[["Http1Connection"], None],
        forget: Callable[["Http1Connection"], None],
    ) -> None:
        self.state = State.IDLE
        self.ends_at = math.inf
        """The time limit of whatever goes on at the moment, for ``CoarseTimeouts``."""
        self._loop = asyncio.get_running_loop()
        self._timeouts, self._keep, self._forget = timeouts, keep, forget
        self._transport: asyncio.Transport | None = None
        self._readable: Callable[[float], list[Any]] | None = None
        self._idle_since = 0.0
        self._was_used = False
        self._exchange: Http1Response | None = None
        self._parser = ResponseParser()
        self._may_keep = True
        """False while an upload is not complete."""
        self._is_read_paused = self._is_write_paused = self._has_eof = False
        self._drain_waiter: asyncio.Future[None] | None = None
        self._upload: asyncio.Task[None] | None = None

    # What the client calls.

    def is_reusable(self) -> bool:
        """Returns whether an idle connection can be used; it cannot if something waits on its socket to be read.

        The system is asked each time, for half a microsecond: a response that nobody has asked for may have come since the
        event loop has read last.
        """
        if self.state is not State.IDLE or self._transport is None or self._transport.is_closing():
            return False
        is_young = self._loop.time() - self._idle_since < limits.KEEP_ALIVE_SECONDS
        return is_young and not self._has_unread_bytes()

    def send(self, exchange: Http1Response, data: bytes) -> None:
        """Begins an exchange with the head of its request, and its body where that is no upload.

        The upstream may have closed the connection since it was opened. Raises RuntimeError where another exchange is not over.
        """
        if self.state is State.CLOSED or self._transport is None:
            exchange.fail(UpstreamUnreachable(CLOSED))
            return
        if self.state is not State.IDLE:
            raise RuntimeError("a connection carries one exchange at a time")
        self.state = TRANSITIONS[State.IDLE, Event.SEND]
        self.ends_at = exchange.head_due_at
        self._exchange = exchange
        parser = self._parser
        parser.is_head, exchange.parts = exchange.is_head, parser.parts
        self._transport.write(data)

    def upload(self, task: "asyncio.Task[None]") -> None:
        """Takes the task that sends the body. Until it is done the connection cannot be kept; a refusal cancels it."""
        self._upload = task
        self._may_keep = False
        task.add_done_callback(self._end_upload)

    async def write(self, data: bytes) -> None:
        """Writes a part of an upload, once the upstream has taken enough of those before it."""
        if self._is_write_paused:
            self._drain_waiter = self._loop.create_future()
            await self._drain_waiter
        elif self._has_unread_bytes():
            await asyncio.sleep(0)  # What is there is read first: a write to a closed connection would lose it.
        if self._transport is not None and self.state is not State.CLOSED:
            self._transport.write(data)

    def abort(self) -> None:
        """Closes the connection at once, whatever goes on."""
        self._close(None)

    def expire(self) -> None:
        """Closes a connection whose time is over: an idle one, or one on which something takes too long."""
        self._close(UpstreamTimeout("The upstream took too long to answer."))

    def resume(self) -> None:
        """Goes on to read, where reading had stopped because too much was waiting."""
        if self._is_read_paused and self._transport is not None and not self._transport.is_closing():
            self._is_read_paused = False
            self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._idle_since = self._loop.time()
        self._timeouts.start(self)

    def data_received(self, data: bytes) -> None:
        """Takes bytes from the upstream. Where none are expected, they close the connection."""
        exchange, parser = self._exchange, self._parser
        if exchange is None or (self.state is not State.HEAD and self.state is not State.BODY):
            self.abort()
            return
        try:
            parser.feed(data)
        except InvalidResponse:
            self._fail_invalid(exchange)
            return
        is_new = self.state is State.HEAD
        if is_new and (not parser.status or not self._begin_response(exchange)):
            return
        if parser.is_complete:
            self._end_response(exchange)
        elif is_new or parser.parts:
            self._go_on(exchange, len(data))

    def eof_received(self) -> None:
        """Takes the orderly end of what the upstream sends. Afterwards the connection is lost, by whatever error."""
        self._has_eof = True
        if self.state is State.IDLE:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Ends the exchange, with a fault unless its body ends in this way. A reset is never the end of a body."""
        exchange, is_end = self._exchange, self._has_eof and error is None
        if self.state is State.BODY and self._parser.body is Body.UNTIL_CLOSE and is_end and exchange is not None:
            self._end_response(exchange)
        elif self.state is State.HEAD:
            self._close(UpstreamUnreachable(CLOSED), is_unread=self._was_used and not self._parser.has_received)
        else:
            self._close(UpstreamInvalid(BROKEN_OFF))
        self._transport = None

    def pause_writing(self) -> None:
        """Makes an upload wait."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """Lets an upload go on."""
        self._is_write_paused = False
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What an exchange goes through.

    def _begin_response(self, exchange: Http1Response) -> bool:
        """Returns whether the response can be read."""
        parser = self._parser
        self.state = TRANSITIONS[State.HEAD, Event.HEAD]
        decoder = None
        if "content-encoding" in parser.headers and parser.body is not Body.NONE:
            try:
                decoder = decoder_for(parser.values("content-encoding"))
            except UnknownEncoding:
                self._close(UpstreamInvalid(UNKNOWN_ENCODING))
                return False
        exchange.begin(parser.status, parser.headers, decoder)
        if self._upload is not None and parser.status >= 300:
            self._upload.cancel()
        return True

    def _go_on(self, exchange: Http1Response, size: int) -> None:
        """Waits for more of the body, unless too much of it waits for the reader."""
        exchange.buffered += size
        if (
            exchange.buffered > 2 * limits.READ_BUFFER_BYTES
            and not self._is_read_paused
            and self._transport is not None
        ):
            self._is_read_paused = True
            self._transport.pause_reading()
        self.ends_at = math.inf
        exchange.wake()

    def _end_response(self, exchange: Http1Response) -> None:
        """Separates the connection from its exchange, and keeps it if it can be used again."""
        parser, transport = self._parser, self._transport
        was_sent = self._may_keep and transport is not None and not transport.get_write_buffer_size()
        can_keep = was_sent and parser.may_keep and not parser.has_excess
        self.state = TRANSITIONS.get((self.state, Event.END if can_keep else Event.CLOSE), State.CLOSED)
        self._exchange = None
        exchange.end()
        if self.state is not State.IDLE:
            self._close(None)
            return
        parser.begin()
        self._was_used = True
        self._idle_since = self._loop.time()
        self.ends_at = time.monotonic() + limits.KEEP_ALIVE_SECONDS
        if self._is_read_paused:
            self.resume()
        self._keep(self)

    def _fail_invalid(self, exchange: Http1Response) -> None:
        if self.state is State.HEAD and self._parser.status and not self._begin_response(exchange):
            return
        self._close(UpstreamInvalid(BROKEN_OFF if self._parser.status else NOT_HTTP))

    def _close(self, error: UpstreamFailed | None, is_unread: bool = False) -> None:
        self.state = State.CLOSED
        exchange, self._exchange = self._exchange, None
        self._timeouts.stop(self)
        self._forget(self)
        if self._upload is not None:
            self._upload.cancel()
        self.resume_writing()
        if self._transport is not None:
            self._transport.abort()
        if exchange is not None:
            exchange.fail(error or UpstreamInvalid(BROKEN_OFF), is_unread)

    def _end_upload(self, task: "asyncio.Task[None]") -> None:
        """Lets the connection be kept once the body was sent. A body that breaks off leaves half a request behind."""
        self._upload = None
        if task.cancelled():
            return
        if task.exception() is None:
            self._may_keep = True
        else:
            self._close(UpstreamInvalid(BROKEN_OFF))

    def _has_unread_bytes(self) -> bool:
        """Asks the system, because the event loop may be too busy to have read what has arrived."""
        if self._readable is None:
            if self._transport is None:
                return False
            poll = select.poll()
            poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
            self._readable = poll.poll
        return bool(self._readable(0))


Open = Callable[[Callable[[], Http1Connection]], Awaitable[Http1Connection]]


class ConnectionPool:
    """Keeps connections to one upstream. ``open_connection`` connects one that is given to it as a factory."""

    def __init__(self, timeouts: CoarseTimeouts, open_connection: Open) -> None:
        self._timeouts = timeouts
        self._open_connection = open_connection
        self._idle: dict[Http1Connection, None] = {}
        self._all: set[Http1Connection] = set()

    def take(self) -> Http1Connection | None:
        """Returns the idle connection that was used last, None where none can be used. It is nobody else's from now on."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_reusable():
                return connection
            connection.abort()
        return None

    async def open(self) -> Http1Connection:
        """Returns a new connection. Raises UpstreamUnreachable, UpstreamTimeout."""
        return await self._open_connection(self._create)

    def close(self) -> None:
        """Closes all connections, also those in use."""
        for connection in list(self._all):
            connection.abort()

    def _create(self) -> Http1Connection:
        connection = Http1Connection(self._timeouts, self._keep, self._forget)
        self._all.add(connection)
        return connection

    def _keep(self, connection: Http1Connection) -> None:
        self._idle[connection] = None

    def _forget(self, connection: Http1Connection) -> None:
        self._idle.pop(connection, None)
        self._all.discard(connection)
