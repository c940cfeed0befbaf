"""Defines a kept-alive connection that carries one response for each request, and nothing that nobody has asked for.

aiohttp gives a connection back to its pool at the end of a response and parses whatever arrives on it afterwards. The next
request on that connection, which may be another caller's, would get that as its response.
"""

import asyncio
import select
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage

from gateway.providers.transport import http1_limits as limits
from gateway.providers.transport.resolver import Resolver

_HEAD_PIECE_BYTES = 16 * 1024
"""How much is parsed at once while a head is expected: one read may contain thousands of interim responses."""


class Expected(Enum):
    """Says what may arrive on a connection."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class ConnectionClosed(aiohttp.ClientError):
    """Tells that the connection was closed before the head of a response was complete.

    ``is_unread`` says that it was a kept-alive one and carried not a byte of the response: the upstream closed it at the
    moment of its reuse. This is none of the classes on which aiohttp sends a request again by itself.
    """

    def __init__(self, is_unread: bool) -> None:
        super().__init__("the connection was closed")
        self.is_unread = is_unread


class ClientConnection(ResponseHandler):
    """Aborts itself when a byte arrives that no request has asked for, and when a head does not end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.requests = 0
        """How many requests it has carried."""
        self.head_bytes = 0
        """How many bytes have come for the newest of them before the head of its response was complete."""
        self._interim_responses = 0
        self._expected = Expected.NOTHING
        self._readable: Callable[[float], list[Any]] | None = None
        self._idle_since = 0.0
        """By the event loop's clock, which stands still during one of its turns."""

    @property
    def is_unread(self) -> bool:
        """Whether it has carried a request before the newest one, and not a byte of the response to that."""
        return self.requests > 1 and self.head_bytes == 0

    def is_connected(self) -> bool:
        """Returns whether the connection can be used; an idle one cannot if something waits on its socket to be read."""
        if not super().is_connected():
            return False
        if (
            self._expected is not Expected.NOTHING
            or self._loop.time() - self._idle_since < limits.ASK_SYSTEM_AFTER_SECONDS
        ):
            return True
        return not self._has_unread_bytes()

    def set_response_params(self, **params: Any) -> None:
        """Begins to expect the response to a new request."""
        self.requests += 1
        self.head_bytes = self._interim_responses = 0
        self._expected = Expected.HEAD
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parses what has arrived, as far as it is expected. Without ``data`` it goes on with what is buffered."""
        if not data or self._expected is Expected.BODY:
            super().data_received(data)
            self._abort_on_excess()
            return
        self._receive_head(data[:_HEAD_PIECE_BYTES])
        if rest := data[_HEAD_PIECE_BYTES:]:
            self.data_received(rest)

    def feed_data(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        """Takes a parsed head with its body from the parser; a second response to one request is discarded."""
        head, body = data
        if self._expected is not Expected.HEAD:
            self._abort()
        elif head.code >= 200 or head.code == 101:
            self._expected = Expected.BODY
            body.on_eof(self._end_response)
            super().feed_data(data, size)
        elif (count := self._interim_responses + 1) <= limits.MAX_INTERIM_RESPONSES:
            self._interim_responses = count
            super().feed_data(data, size)
        else:
            self._abort()

    def set_exception(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        """Ends what waits for a head with an error. One that tells of a closed connection is replaced by our own."""
        if isinstance(exc, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            super().set_exception(ConnectionClosed(self.is_unread), exc)
        else:
            super().set_exception(exc, *args, **kwargs)

    def _receive_head(self, data: bytes) -> None:
        self.head_bytes += len(data)
        if self._expected is Expected.NOTHING or self.head_bytes > limits.MAX_HEAD_BYTES:
            self._abort()
            return
        super().data_received(data)
        self._abort_on_excess()

    def _end_response(self) -> None:
        self._expected = Expected.NOTHING
        self._idle_since = self._loop.time()

    def _abort_on_excess(self) -> None:
        """Aborts a connection whose parser has read on behind the end of the response: the rest may come at any time."""
        if self._expected is not Expected.NOTHING or self._parser is None:
            return
        try:
            has_excess = self._parser.feed_eof() is not None
        except HttpProcessingError:
            has_excess = True
        if has_excess:
            self._abort()

    def _abort(self) -> None:
        self._expected = Expected.NOTHING
        self.force_close()
        if self.transport is not None:
            self.transport.abort()

    def _has_unread_bytes(self) -> bool:
        """Asks the system, because the event loop may be too busy to have read what has arrived."""
        if self._readable is None:
            if self.transport is None or not self.requests:
                return False
            poll = select.poll()
            poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
            self._readable = poll.poll
        return bool(self._readable(0))


class Connector(aiohttp.TCPConnector):
    """Creates connections of the class above. With ``is_kept_alive`` false each of them carries one request."""

    def __init__(self, resolver: Resolver, *, is_kept_alive: bool) -> None:
        super().__init__(
            limit=0,
            resolver=resolver,
            ttl_dns_cache=10,
            force_close=not is_kept_alive,
            keepalive_timeout=limits.KEEP_ALIVE_SECONDS if is_kept_alive else None,
        )
        self._factory = partial(cast(type[ResponseHandler], ClientConnection), loop=asyncio.get_running_loop())
