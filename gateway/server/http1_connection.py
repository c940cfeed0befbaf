"""One client's connection: reads requests one at a time, and bounds what a client can make it keep.

aiohttp's parser reads the heads, and the chunks of bodies. What a client sends ahead stays unparsed and in the kernel until the
response before it has been written, so that no client has more than one response in memory. As every head is seen before it
is parsed, its request line is checked here, too: the parser takes more than RFC 9112 allows.
"""

import asyncio
import logging
from typing import Any, cast

from aiohttp.http import HttpProcessingError, RawRequestMessage
from multidict import istr

from gateway.core.errors import BadRequest, GatewayError, HeaderTooLarge, InternalError, RequestTimeout
from gateway.http.context import new_request_id
from gateway.http.request import Request
from gateway.server.client_socket import ClientSocket
from gateway.server.head_parser import create_parser, parser_error
from gateway.server.http1_exchange import Http1Exchange
from gateway.server.request_body import ArrivedBody, ArrivingBody, BodyState, ChunkedBody, RequestBody, SizedBody
from gateway.server.request_framing import HeadEnd, find_head_end, has_bad_framing
from gateway.server.response_head import error_response
from gateway.server.server_state import ServerState

log = logging.getLogger(__name__)

MAX_UNPARSED_BYTES = 64 * 1024
"""What is read ahead of the request that is being answered. More stays in the kernel."""
LINGERING_SECONDS = 2.0
"""How long an unread body is read on after its response, so that the client gets to see the response."""
_CONTENT_LENGTH = istr("Content-Length")


class Http1Connection(ClientSocket):
    """A connection that reads no further than the request that is being answered."""

    __slots__ = (
        "_body",
        "_exchange",
        "_is_invalid",
        "_is_last",
        "_is_reading_paused",
        "_next_request",
        "_parser",
        "_server",
        "_task",
        "_unparsed",
        "_wake",
        "idle_since",
    )

    def __init__(self, server: ServerState) -> None:
        super().__init__(server.coarse_timeouts, server.timeouts)
        self._server = server
        self._parser: Any = None
        self._unparsed = b""
        self._body: ArrivingBody | None = None
        """The body of the current request, also while its rest is read after the response."""
        self._exchange: Http1Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._next_request: Request | None = None
        """The request that the task has not begun to answer."""
        self._wake: asyncio.Future[None] | None = None
        self._is_invalid = False
        """Nothing is read any more: where the next request would begin is not known."""
        self._is_last = False
        """No request is read any more: the response before it closes the connection."""
        self._is_reading_paused = False
        self.idle_since = server.loop.time()  # by the event loop's clock

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has come yet."""
        return self._exchange is None and self._body is None and not self._unparsed

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task, while it answers a request."""
        return None if self._exchange is None else self._task

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the connection."""
        super().connection_made(transport)
        self._server.open.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the connection, and with it the request."""
        self._server.remove(self)
        self._unparsed = b""
        if self._task is not None:
            self._task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what belongs to the current request, or begins the next one."""
        self._parse(self._unparsed + data if self._unparsed else data)

    def _parse(self, data: bytes) -> None:
        self._unparsed = b""
        at, end = 0, len(data)
        while at < end and not self._is_invalid:
            body = self._body
            if body is not None and body.state is BodyState.ARRIVING:
                at = self._feed(body, data, at)
                if self._exchange is None and body.state is not BodyState.ARRIVING:
                    self._go_on()
            elif self._exchange is not None or self._is_last:
                break
            elif (head_end := self._head_end(data, at)) > 0:
                at = self._begin(data, at, head_end)
            else:
                self._keep(data[at:].lstrip(b"\r\n"))
                return
        self._keep(data[at:] if at < end and not self._is_invalid else b"")

    def _keep(self, data: bytes) -> None:
        self._unparsed = data
        if data or self._is_reading_paused:
            self._update_reading()

    def _update_reading(self) -> None:
        """Stops reading from the socket where enough waits here to be parsed or taken, and goes on where it does not."""
        transport = self._transport
        if transport is None:
            return
        body = self._body
        most = max(MAX_UNPARSED_BYTES, self._server.max_head_bytes)
        is_paused = len(self._unparsed) > most or (body is not None and body.is_paused)
        if is_paused != self._is_reading_paused:
            self._is_reading_paused = is_paused
            if is_paused:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _head_end(self, data: bytes, start: int) -> int:
        """Returns where the head ends that begins at ``start``, 0 if it is not complete or not to be parsed."""
        end = find_head_end(data, start, self._server.max_head_bytes)
        if end > 0:
            return end
        if end == HeadEnd.MISSING:
            error = RequestTimeout(f"The request's head was not complete after {self._timeouts.head:g} s.")
            self._start_read_deadline(self._timeouts.head, lambda: self._refuse(error))
        elif end == HeadEnd.TOO_LARGE:
            self._refuse(HeaderTooLarge(self._server.max_head_bytes))
        elif end == HeadEnd.INVALID:
            self._refuse(BadRequest("The request is not valid HTTP.", code="invalid_http"))
        return 0

    def _begin(self, data: bytes, start: int, head_end: int) -> int:
        """Begins to answer the request whose head ends at ``head_end``. Returns where the rest of the bytes begins."""
        if self._read_deadline is not None:
            self._stop_read_deadline()
        parser = self._parser
        if parser is None:
            parser = self._parser = create_parser(self._server.loop, self._server.max_head_bytes)
        try:
            messages, is_upgrade, _ = parser.feed_data(data[start:head_end])
        except HttpProcessingError as error:
            self._refuse(parser_error(error.message, self._server.max_head_bytes))
            return head_end
        message = cast("RawRequestMessage", messages[0][0] if messages else None)
        if len(messages) != 1 or has_bad_framing(message):
            self._refuse(BadRequest("The request is not valid HTTP.", code="invalid_http"))
            return head_end
        length = message.headers.get(_CONTENT_LENGTH)
        size = None if length is None else int(length)
        at = head_end
        body: RequestBody | None = None
        if size and at + size <= len(data):
            self._parser = None  # it expects the body
            body, at = ArrivedBody(data[at : at + size]), at + size
        elif size or message.chunked:
            self._parser = None
            body = self._body = self._create_body(size, data[start:head_end])
            if at < len(data):
                at = self._feed(self._body, data, at)
        elif is_upgrade:
            self._parser = None
        exchange = self._exchange = Http1Exchange(self, message, size, body)
        self._answer_soon(Request(message.method, message.path, message.headers, message.version, exchange))
        return at

    def _create_body(self, size: int | None, head: bytes) -> ArrivingBody:
        if size:
            return SizedBody(size, self._update_reading)
        parser = create_parser(self._server.loop, self._server.max_head_bytes, reads_body=True)
        [(_, reader)], _, _ = parser.feed_data(head)
        return ChunkedBody(parser, reader, self._update_reading)

    def _feed(self, body: ArrivingBody, data: bytes, at: int) -> int:
        at = body.feed(data, at)
        if body.state is BodyState.INVALID:
            self._is_invalid = self.must_close = True
        return at

    def _answer_soon(self, request: Request) -> None:
        """Gives the request to the connection's task. A task for each request would cost more than reading it did."""
        self._next_request = request
        if self._task is None:
            self._task = self._server.loop.create_task(self._answer_requests())
        elif (wake := self._wake) is not None and not wake.done():
            wake.set_result(None)

    async def _answer_requests(self) -> None:
        """Answers one request after the other, until the connection is lost."""
        try:
            while not self.is_closing:
                request, self._next_request = self._next_request, None
                if request is None:
                    self._wake = self._server.loop.create_future()
                    await self._wake
                else:
                    await self._answer(request)
        except asyncio.CancelledError:
            self.abort()  # without its task the connection would answer nothing any more
            raise

    async def _answer(self, request: Request) -> None:
        # No caller may have the exchange in a variable: it would keep the last body in memory while the connection is idle.
        exchange = cast(Http1Exchange, self._exchange)
        try:
            await self._server.handler(request)
        except asyncio.CancelledError:
            self.abort()  # the client has gone, or the server ends
        except Exception as error:  # whatever a handler raises is answered, and the connection goes on to be closed
            if not (isinstance(error, ConnectionError) and self.is_closing):
                self._answer_unhandled(error, exchange)
        finally:
            self._end_exchange(exchange)

    def _answer_unhandled(self, error: Exception, exchange: Http1Exchange) -> None:
        request_id = new_request_id()
        log.error("unhandled exception", exc_info=error, extra={"request_id": request_id})
        if exchange.has_started:
            exchange.break_off()
            return
        exchange.keeps_alive = False
        head, body = error_response(InternalError(request_id), request_id)
        self.write(head if exchange.is_head else head + body)

    def _end_exchange(self, exchange: Http1Exchange) -> None:
        """Goes on behind a request: with the rest of its body, with what the client has sent ahead, or with the end."""
        self._exchange = None
        body = self._body
        if body is None and exchange.keeps_alive and not (self.must_close or self._unparsed):
            self.idle_since = self._server.loop.time()  # the usual case
            return
        self._is_last = not exchange.keeps_alive
        if self.is_closing:
            return
        if body is not None and body.state is BodyState.ARRIVING:
            self._start_read_deadline(LINGERING_SECONDS, self.close)
            body.discard()
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._body = None
        self._stop_read_deadline()
        if self._is_last or self._is_invalid or self.must_close:
            self.close()
            return
        self.idle_since = self._server.loop.time()
        if self._unparsed or self._is_reading_paused:  # a body that nobody has read may have paused it
            self._parse(self._unparsed)

    def _refuse(self, error: GatewayError) -> None:
        """Answers what is not a request, and closes the connection."""
        self._is_invalid = True
        self._unparsed = b""
        self._stop_read_deadline()
        request_id = new_request_id()
        log.info("invalid request", extra={"request_id": request_id, "status": error.status})
        head, body = error_response(error, request_id)
        self.write(head + body)
        self.close()
