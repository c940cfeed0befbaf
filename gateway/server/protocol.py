"""One client's connection: what aiohttp's protocol does, and bounds on what a client can make it keep.

aiohttp is given one request at a time. What a client sends ahead stays in ``_unparsed`` and in the kernel until the response
before it has been written, so that no client has more than one response in memory. As every head is seen before it is parsed,
its request line is checked here, too: aiohttp's parser takes more than RFC 9112 allows.
"""

import asyncio
import logging
from typing import Any, cast

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler

from gateway.core.errors import BadRequest, GatewayError, HeaderTooLarge, InternalError, RequestTimeout
from gateway.core.timeouts import CoarseTimeouts
from gateway.http.context import new_request_id
from gateway.server.deadlines import ConnectionTimeouts, ReadDeadline, WriteDeadline
from gateway.server.head_limits import MAX_HEAD_BYTES, MAX_HEADERS
from gateway.server.head_parser import parser_error
from gateway.server.request_framing import HEAD_END, METHOD_START, REQUEST_LINE, is_bad_head, part_of_chunks
from gateway.server.response_head import error_response

log = logging.getLogger(__name__)

MAX_UNPARSED_BYTES = 64 * 1024
"""What is read ahead of the request that is being answered. More stays in the kernel."""
_CHUNKED = -1


class HttpProtocol(RequestHandler):
    """A connection that reads no further than the request that is being answered, and whose writes have a time limit."""

    __slots__ = (
        "_body",
        "_body_left",
        "_coarse_timeouts",
        "_head_deadline",
        "_is_answering",
        "_is_invalid",
        "_is_last",
        "_max_head_bytes",
        "_max_unparsed",
        "_socket",
        "_timeouts",
        "_unparsed",
        "_write_deadline",
    )  # fmt: skip

    def __init__(
        self,
        server: web.Server,
        coarse_timeouts: CoarseTimeouts,
        timeouts: ConnectionTimeouts,
        *,
        max_head_bytes: int = MAX_HEAD_BYTES,
        **options: Any,
    ) -> None:
        # One header may have all of it: aiohttp's own limits are those of a line.
        options.update(max_line_size=max_head_bytes, max_field_size=max_head_bytes, max_headers=MAX_HEADERS)
        super().__init__(server, **options)
        self._max_head_bytes = max_head_bytes
        self._max_unparsed = max(MAX_UNPARSED_BYTES, max_head_bytes)
        self._coarse_timeouts = coarse_timeouts
        self._timeouts = timeouts
        self._unparsed = b""
        self._body: StreamReader = EMPTY_PAYLOAD
        self._body_left = 0
        """How many bytes of the body aiohttp has not been given."""
        self._is_answering = False
        """A request has been given to aiohttp, which begins it in a task of its own, one turn of the event loop later."""
        self._is_invalid = False
        """Nothing is read any more: where the next request would begin is not known."""
        self._is_last = False
        """No request is read any more: the response before it has closed the connection."""
        self._socket: asyncio.Transport | None = None
        self._head_deadline: ReadDeadline | None = None
        self._write_deadline: WriteDeadline | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the connection."""
        self._socket = cast(asyncio.Transport, transport)  # aiohttp forgets it before what was written has gone out
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the connection, and with it the request."""
        self._stop_head_deadline()
        self._stop_write_deadline()
        self._unparsed = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Gives aiohttp what belongs to the current request. aiohttp itself calls this without data, to go on with a body."""
        if not data:
            super().data_received(data)
        self._parse(self._unparsed + data if self._unparsed else data)

    def request_ended(self, *, keeps_alive: bool) -> None:
        """Goes on with what the client has sent ahead, once aiohttp has finished the current request."""
        self._is_answering = False
        self._is_last = not keeps_alive
        if self._unparsed:
            self._loop.call_soon(self._parse_next)

    def _parse_next(self) -> None:
        self._parse(self._unparsed)

    def _parse(self, data: bytes) -> None:
        self._unparsed = b""
        at, end = 0, len(data)
        while at < end and not (self._is_invalid or self._force_close or self._close):
            if not self._body.is_eof():
                if self._reading_paused or self._body_left == 0:
                    break
                at = self._parse_body(data, at)
            elif self._is_answering or self._request_in_progress or self._messages or self._upgraded or self._is_last:
                break
            elif (head_end := self._head_end(data, at)) > 0:
                at = self._parse_head(data, at, head_end)
            else:
                self._hold(data[at:].lstrip(b"\r\n"))
                return
        self._hold(data[at:] if at < end else b"")

    def _hold(self, data: bytes) -> None:
        self._unparsed = data
        if self._buffer_paused != (len(data) > self._max_unparsed):
            if self._buffer_paused:
                self._resume_reading_for_buffer()
            else:
                self._pause_reading_for_buffer()

    def _head_end(self, data: bytes, start: int) -> int:
        """Returns where the head ends that begins at ``start``, 0 if it is not complete or not to be parsed."""
        if data[start] in b"\r\n":  # RFC 9112 2.2: an empty line before a request is ignored
            start = len(data) - len(data[start:].lstrip(b"\r\n"))
            if start == len(data):
                return 0
        end = data.find(HEAD_END, start)
        has_line = end >= 0 or data.find(b"\n", start) >= 0
        begins_well = (REQUEST_LINE if has_line else METHOD_START).match(data, start)
        is_refused = begins_well is None or (end < 0 and data.find(b"\n\n", start) >= 0)
        if not is_refused and (end if end >= 0 else len(data)) - start > self._max_head_bytes:
            self._refuse(HeaderTooLarge(self._max_head_bytes))
            return 0
        if is_refused or (end >= 0 and is_bad_head(data, start, end)):
            self._refuse(BadRequest("The request is not valid HTTP.", code="invalid_http"))
            return 0
        if end < 0:
            self._start_head_deadline()
            return 0
        return end + len(HEAD_END)

    def _parse_head(self, data: bytes, start: int, end: int) -> int:
        self._stop_head_deadline()
        super().data_received(data if end - start == len(data) else data[start:end])
        if self._messages:
            self._is_answering = True
            message, self._body = cast("tuple[Any, StreamReader]", self._messages[-1])
            if self._body.is_eof():
                self._is_invalid = not hasattr(message, "headers")
            else:
                self._body_left = _CHUNKED if message.chunked else int(message.headers["Content-Length"])
        return end

    def _parse_body(self, data: bytes, start: int) -> int:
        if self._body_left == _CHUNKED:
            end = part_of_chunks(data, start)
        else:
            end = min(start + self._body_left, len(data))
            self._body_left -= end - start
        messages_before = len(self._messages)
        super().data_received(data if end - start == len(data) else data[start:end])
        if len(self._messages) > messages_before:
            self._end_body()
        return end

    def _end_body(self) -> None:
        """Ends a body that does not parse, and takes back the response that aiohttp would send besides its request's own."""
        self._messages.pop()
        self._is_invalid = True
        if self._body.exception() is None:
            self._body.set_exception(web.RequestPayloadError("the body is not valid"))
        self._body.feed_eof()  # aiohttp must not read on, to find the exception once more
        self.close()

    def _resume_reading_if_drained(self) -> None:
        """Does nothing: aiohttp calls it when it takes a request from its queue, and here ``request_ended`` resumes."""

    def _start_head_deadline(self) -> None:
        if self._head_deadline is None:
            self._head_deadline = ReadDeadline(self._timeouts.head, self._on_late_head)
            self._coarse_timeouts.start(self._head_deadline)

    def _stop_head_deadline(self) -> None:
        if self._head_deadline is not None:
            self._coarse_timeouts.stop(self._head_deadline)
            self._head_deadline = None

    def _on_late_head(self) -> None:
        self._refuse(RequestTimeout(f"The request's head was not complete after {self._timeouts.head:g} s."))

    def pause_writing(self) -> None:
        """Is called where the client takes less than is written."""
        super().pause_writing()
        self.watch_unsent()

    def resume_writing(self) -> None:
        """Is called where the client has taken most of what was written."""
        super().resume_writing()
        if self._write_deadline is not None:
            self._write_deadline.resumed += 1

    def watch_unsent(self) -> None:
        """Begins to watch whether the client takes what was written, unless all of it has gone out."""
        transport = self._socket
        if self._write_deadline is not None or transport is None or transport.get_write_buffer_size() == 0:
            return
        self._write_deadline = WriteDeadline(transport, self._timeouts.write, self._stop_write_deadline)
        self._coarse_timeouts.start(self._write_deadline)

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._coarse_timeouts.stop(self._write_deadline)
            self._write_deadline = None

    def _refuse(self, error: GatewayError) -> None:
        """Answers what is not a request, and closes the connection."""
        self._is_invalid = True
        self._stop_head_deadline()
        if self.transport is not None and not self.transport.is_closing():
            self._write_error(error, new_request_id())
        self.force_close()

    def _write_error(self, error: GatewayError, request_id: str, has_body: bool = True) -> None:
        self._is_last = True
        log.info("invalid request", extra={"request_id": request_id, "status": error.status})
        head, body = error_response(error, request_id)  # the connection is closed, whatever the version
        cast(asyncio.Transport, self.transport).write(head + body if has_body else head)
        self.watch_unsent()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what does not parse, and what a handler has raised, as JSON. Raises ConnectionResetError."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client has gone")
        request_id = new_request_id()
        error = parser_error(message or "", self._max_head_bytes)
        if status != 400:
            log.error("unhandled exception", exc_info=exc, extra={"request_id": request_id})
            error = InternalError(request_id)
        self._write_error(error, request_id, request.method != "HEAD")
        return cast(web.StreamResponse, _Sent())


class _Sent:
    """Stands for a response that has been written, after which the connection is closed."""

    keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Does nothing."""

    async def write_eof(self) -> None:
        """Does nothing."""
