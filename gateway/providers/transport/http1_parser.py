"""Parses one response after another, strictly, without I/O. llhttp, which httptools wraps, reads the syntax.

llhttp gets whole heads alone, so that each of its messages is exactly one response. What it leaves open is decided here: which
body belongs to which status, where a body ends, and that not a byte may come behind it. What is not certain is refused.
"""

import re
from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.providers.transport import http1_limits as limits

_END_OF_HEAD = b"\r\n\r\n"
_BAD_LINE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_CLOSE = re.compile(r"(?:^|,)[ \t]*close[ \t]*(?:,|$)", re.IGNORECASE)


class InvalidResponse(Exception):
    """Tells that what came is no response of HTTP/1."""


class Body(Enum):
    """Says how the end of a body is found."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


class _Stop(Exception):
    """Stops llhttp where it has seen enough."""


class ResponseParser:
    """Parses the responses on one connection; ``begin`` comes between two of them."""

    def __init__(self) -> None:
        self._parser: HttpResponseParser | None = None
        self.begin()

    def begin(self) -> None:
        """Expects a response."""
        self.is_head = False
        """Whether the request was HEAD. To be set before the response comes."""
        self.status = 0
        """0 until the head is complete. Interim responses are skipped."""
        self.headers: dict[str, str] = {}
        """By names in small letters; of several with one name, the first."""
        self.body = Body.NONE
        self.parts: list[bytes] = []
        """The body, as far as it was parsed. Whoever takes it may empty the list."""
        self.has_received = False
        """Whether anything has come for this response."""
        self.is_complete = False
        self.has_excess = False
        """Whether something came behind the end."""
        self.may_keep = False
        """Whether the upstream keeps the connection, as far as it is known at the end."""
        self._is_begun = self._is_interim = self._is_invalid = False
        self._pairs: list[tuple[bytes, bytes]] = []
        self._buffer = self._tail = b""
        self._left = self._interim_responses = self._interim_bytes = self._bytes_without_body = 0

    def feed(self, data: bytes) -> None:
        """Parses what has come. Raises InvalidResponse, also for a body whose end cannot be found."""
        if not self.status:
            self._feed_head(data)
        elif self.is_complete:
            self.has_excess = True
        elif self.body is Body.CHUNKED:
            self._feed_chunks(data)
        else:
            self._feed_plain(data)

    # Called by llhttp.

    def on_message_begin(self) -> None:
        """Stops at a second message in one read: raises _Stop."""
        if self._is_begun:
            raise _Stop
        self._is_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header, or a field of the trailer, which nobody reads."""
        if not self.status:
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        """Takes the head. Raises _Stop at an interim response, and where the end of the body is not certain."""
        parser = self._parser
        status = parser.get_status_code() if parser is not None else 0
        if 100 <= status < 200 and status != 101:
            self._is_interim = True
            raise _Stop
        if len(self._pairs) > limits.MAX_HEADERS:
            raise _Stop
        self.headers = read_headers(self._pairs)
        self._choose_body(status)
        self.status = status

    def on_body(self, data: bytes) -> None:
        """Takes a part of the body, without what frames it."""
        if not self.is_complete:
            self.parts.append(data)
            self._bytes_without_body = 0

    def on_message_complete(self) -> None:
        """Takes the end of a body."""
        if not self.is_complete and self._parser is not None:
            self.is_complete = True
            self.may_keep = self._parser.should_keep_alive()

    # Heads.

    def _feed_head(self, data: bytes) -> None:
        self.has_received = True
        seen = len(self._buffer)
        if seen:
            data = self._buffer + data
        while data:
            size = data.find(_END_OF_HEAD, max(seen - 3, 0)) + 4
            if not data.startswith(b"HTTP/1.1 200 OK\r\n"):
                self._check_start(data, size)
            if size < 4:
                self._wait_for_head(data, max(seen - 1, 0))
                return
            if size > limits.MAX_HEADER_BYTES and max(map(len, data[:size].split(b"\r\n"))) > limits.MAX_HEADER_BYTES:
                raise InvalidResponse
            is_valid = self._parse(data)
            if not self._is_interim:
                self._begin_body(data, size, is_valid)
                return
            self._skip_interim(size)
            data, seen = data[size:], 0

    def _wait_for_head(self, data: bytes, start: int) -> None:
        """Keeps an incomplete head, unless it cannot become a valid one. What comes before ``start`` was checked before."""
        is_long = len(data) - data.rfind(b"\n") > limits.MAX_HEADER_BYTES
        if is_long or self._interim_bytes + len(data) > limits.MAX_HEAD_BYTES or _BAD_LINE.search(data, start):
            raise InvalidResponse
        self._buffer = data

    @staticmethod
    def _check_start(data: bytes, size: int) -> None:
        """Checks what llhttp is lenient about: the version, the reason, and transfer codings in HTTP/1.0 (RFC 9112 6.1)."""
        is_valid = data.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
        if size < 4:
            if not is_valid and (
                len(data) >= 9 or not (b"HTTP/1.1 ".startswith(data) or b"HTTP/1.0 ".startswith(data))
            ):
                raise InvalidResponse
            return
        is_coded = data.startswith(b"HTTP/1.0 ") and b"\ntransfer-encoding:" in data[:size].lower()
        if is_coded or _STATUS_LINE.match(data) is None:
            raise InvalidResponse

    def _skip_interim(self, size: int) -> None:
        self._interim_responses += 1
        self._interim_bytes += size
        if self._interim_responses > limits.MAX_INTERIM_RESPONSES or self._interim_bytes > limits.MAX_HEAD_BYTES:
            raise InvalidResponse
        self._is_interim = self._is_begun = False
        self._buffer = b""
        self._pairs = []
        self._parser = None

    def values(self, name: str) -> list[str]:
        """Returns all values under a name that is in small letters."""
        return [_text(value) for found, value in self._pairs if _lower(found) == name]

    def _choose_body(self, status: int) -> None:
        """Chooses how the body ends, by RFC 9112 6.3. llhttp has refused two lengths, and a length beside a coding."""
        headers = self.headers
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None and not self._is_chunked():
            raise _Stop
        if self.is_head or status in (101, 204, 304):
            self.is_complete = True
            closes = any(map(_CLOSE.search, self.values("connection")))
            self.may_keep = status != 101 and not closes and self._is_http_1_1()
        elif coding is not None:
            self.body = Body.CHUNKED
        elif length is not None:
            self.body, self._left = Body.LENGTH, int(length)
        else:
            self.body = Body.UNTIL_CLOSE

    def _is_chunked(self) -> bool:
        """Returns whether chunked is the only coding, in a spelling that llhttp takes for it: with a tab behind it does not."""
        codings = [value for name, value in self._pairs if _lower(name) == "transfer-encoding"]
        return len(codings) == 1 and codings[0].rstrip(b" ").lower() == b"chunked"

    def _is_http_1_1(self) -> bool:
        return self._parser is not None and self._parser.get_http_version() == "1.1"

    def _parse(self, data: bytes) -> bool:
        """Returns whether all of it is valid. The parser is used again only after a response that ended with its last byte."""
        parser = self._parser
        if parser is None:
            parser = self._parser = HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self._parser = None
        except HttpParserError:
            self._parser = None
            return False
        return True

    # Bodies.

    def _begin_body(self, data: bytes, size: int, is_valid: bool) -> None:
        self._buffer = b""
        if not self.status or self._interim_bytes + size > limits.MAX_HEAD_BYTES:
            self.status = 0
            raise InvalidResponse
        if self.body is Body.CHUNKED:
            self._tail = data[-5:]
            self._end_chunks(is_valid)
            return
        received = len(data) - size
        if self.is_complete:
            self.has_excess = not is_valid or received != self._left
            if self.has_excess or self.body is Body.NONE:
                self._parser = None
        elif not is_valid or self._parser is None:
            raise InvalidResponse
        else:
            self.may_keep = self._parser.should_keep_alive()
            self._parser = None
            self._left -= received

    def _feed_plain(self, data: bytes) -> None:
        """Takes a body as it is: llhttp would only copy it."""
        if self.body is Body.UNTIL_CLOSE:
            self.parts.append(data)
            return
        self._left -= len(data)
        if self._left > 0:
            self.parts.append(data)
            return
        self.has_excess = self._left < 0
        self.parts.append(data[: self._left] if self.has_excess else data)
        self.is_complete = True

    def _feed_chunks(self, data: bytes) -> None:
        """A trailer without end would be kept by llhttp's wrapper, so that what is no body is bounded."""
        self._tail = data[-5:] if len(data) >= 5 else (self._tail + data)[-5:]
        self._bytes_without_body += len(data)
        self._end_chunks(self._parse(data))
        if self._bytes_without_body > limits.MAX_HEAD_BYTES:
            raise InvalidResponse

    def _end_chunks(self, is_valid: bool) -> None:
        """Looks behind the last chunk: llhttp skips empty lines in front of a next head, but they are excess, too."""
        if self.is_complete:
            self.has_excess = not is_valid or self._tail[-4:] != _END_OF_HEAD or self._tail[:-4] == b"\n"
            if self.has_excess:
                self._parser = None
        elif not is_valid:
            raise InvalidResponse


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Returns headers by their names in small letters; of several with one name, the first."""
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(_lower(name), _text(value))
    return found


@lru_cache(maxsize=1024)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _text(value: bytes) -> str:
    return value.strip(b" \t").decode("utf-8", "surrogateescape")
