"""One request on a client's connection, and its response: the ``http.request.Connection`` of the server of our own."""

import socket
import struct
from collections.abc import Mapping
from enum import Enum, auto

from aiohttp.http import RawRequestMessage
from multidict import istr

from gateway.http.request import HTTP_1_1
from gateway.server.client_socket import ClientSocket
from gateway.server.request_body import BodyState, RequestBody
from gateway.server.response_head import WITHOUT_BODY, encode_head, encode_stream_head

ONE_BLOCK_BYTES = 256 * 1024
"""A longer body is not copied behind its head, but written after it."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_LAST_CHUNK = b"0\r\n\r\n"
_EXPECT = istr("Expect")


class BodyFraming(Enum):
    """Says how a client finds the end of a response that is sent piece by piece."""

    CHUNKED = auto()
    LENGTH = auto()
    """The head has a length."""
    CLOSE = auto()
    """The body ends with the connection: HTTP/1.0 knows nothing else."""
    NONE = auto()
    """There is no body: the response to HEAD, 204 and 304."""


class Http1Exchange:
    """What a handler sees of a connection while it answers one request."""

    __slots__ = (
        "_body",
        "_client",
        "_expects_continue",
        "_framing",
        "_head",
        "_left",
        "_method",
        "_version",
        "content_length",
        "has_body",
        "has_started",
        "keeps_alive",
        "peer_address",
    )

    def __init__(
        self, client: ClientSocket, head: RawRequestMessage, content_length: int | None, body: RequestBody | None
    ) -> None:
        """``content_length`` is what the head says; ``body`` is None for a request without one."""
        self._client = client
        self._method = head.method
        self._version = head.version
        self._body = body
        self._framing = BodyFraming.NONE
        self._head = b""
        """The head of a response that is sent piece by piece, until its first piece comes."""
        self._left = 0
        """How much of a body is left whose length the head has named."""
        self._expects_continue = (
            body is not None
            and body.state is BodyState.ARRIVING
            and body.total == 0
            and head.version >= HTTP_1_1  # HTTP/1.0 knows no expectations (RFC 9110 10.1.1)
            and _EXPECT in head.headers
        )
        """Whether the client may never send the body: it waits to be told to, and has not been."""
        self.keeps_alive = not head.should_close
        """Whether the connection can carry another request after this one."""
        self.has_started = False
        """Whether anything of the response has been sent."""
        self.content_length = content_length
        self.has_body = body is not None
        self.peer_address = client.peer_address  # known from the beginning: a closed connection has none any more

    @property
    def is_head(self) -> bool:
        """Whether the response has no body because of the request's method."""
        return self._method == "HEAD"

    @property
    def own_address(self) -> str | None:
        return self._client.own_address

    @property
    def is_closing(self) -> bool:
        return self._client.is_closing

    @property
    def file_descriptor(self) -> int | None:
        return self._client.file_descriptor

    def buffered_body(self, limit: int) -> bytes | None:
        body = self._body
        if body is None:
            return b""
        return body.take() if body.state is BodyState.WHOLE and body.total <= limit else None

    async def read_chunk(self) -> bytes:
        """Raises InvalidBody."""
        return b"" if self._body is None else await self._body.read()

    def send_continue(self) -> None:
        body = self._body
        if self._version >= HTTP_1_1 and body is not None and body.state is BodyState.ARRIVING:
            self._expects_continue = False
            self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def send(self, status: int, headers: Mapping[str, str], body: bytes, *, closes: bool) -> None:
        """Raises ValueError for a header that contains a line end, ConnectionError where the client goes meanwhile."""
        client = self._client
        if closes or client.must_close or self._expects_continue:
            self.keeps_alive = False
        head = encode_head(status, headers, len(body), version=self._version, keeps_alive=self.keeps_alive)
        self.has_started = True
        if self.is_head or status in WITHOUT_BODY:
            client.write(head)
        elif len(body) <= ONE_BLOCK_BYTES:
            client.write(head + body)
        else:
            client.write(head)
            client.write(body)
        if client.is_writing_paused:  # nobody may have more than one response in memory
            await client.drain()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Raises ValueError for a header that contains a line end."""
        if self._client.must_close or self._expects_continue:
            self.keeps_alive = False
        length = headers.get("Content-Length")
        if self.is_head or status in WITHOUT_BODY:
            self._framing = BodyFraming.NONE
        elif length is not None:
            self._framing, self._left = BodyFraming.LENGTH, int(length)
        elif self._version >= HTTP_1_1:
            self._framing = BodyFraming.CHUNKED
        else:
            self._framing, self.keeps_alive = BodyFraming.CLOSE, False
        is_chunked = self._framing is BodyFraming.CHUNKED
        self._head = encode_stream_head(
            status, headers, is_chunked=is_chunked, version=self._version, keeps_alive=self.keeps_alive
        )

    async def write(self, chunk: bytes) -> None:
        """Raises ConnectionError."""
        client = self._client
        if client.is_closing:
            raise ConnectionResetError("the client has gone")
        self._write_chunk(chunk)
        if client.is_writing_paused:
            await client.drain()

    def _write_chunk(self, chunk: bytes) -> None:
        if self._framing is BodyFraming.CHUNKED:
            piece = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        elif self._framing is BodyFraming.NONE:
            piece = b""
        else:
            piece = self._within_length(chunk)
        self._write_piece(piece)

    def _within_length(self, chunk: bytes) -> bytes:
        """Returns the chunk, without what is more than the head has said."""
        if self._framing is BodyFraming.LENGTH:
            chunk = chunk[: self._left]
            self._left -= len(chunk)
        return chunk

    def _write_piece(self, piece: bytes) -> None:
        if self._head:
            piece, self._head = self._head + piece, b""
            self.has_started = True
        if piece:
            self._client.write_open(piece)

    async def finish(self) -> None:
        """Ends the body; where it is shorter than its head has said, the connection is broken off. Raises ConnectionError."""
        if self._framing is BodyFraming.LENGTH and self._left:
            self.break_off()
            return
        self._write_piece(_LAST_CHUNK if self._framing is BodyFraming.CHUNKED else b"")
        if self._client.is_writing_paused:
            await self._client.drain()

    def break_off(self, last: bytes = b"") -> None:
        self.keeps_alive = False
        if last and not self._client.is_closing:
            self._write_chunk(last)
        if self._version < HTTP_1_1 and (raw := self._client.raw_socket) is not None:
            # To HTTP/1.0 the end of the connection is the end of the body; only a reset is not taken for one.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._client.close()

    def abort(self) -> None:
        self._client.abort()
