"""Reads HTTP/1.1 as RFC 9112 defines it, and forgives nothing: what it takes for a request is one to every server."""

import re
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

MAX_HEAD = 64 * 1024


class Rest(Enum):
    """What lies behind the last complete message."""

    NOTHING = "nothing"
    INCOMPLETE = "the beginning of a message"
    INVALID = "no message"
    CLOSED = "what nobody reads, because the connection ends before it"


class Message(NamedTuple):
    """A complete request or response. ``start`` is the first line."""

    start: bytes
    headers: list[tuple[str, bytes]]
    body: bytes

    def values(self, name: str) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    @property
    def status(self) -> int:
        return int(self.start[9:12])


class Stream(NamedTuple):
    """What a connection carried in one direction."""

    messages: list[Message]
    rest: Rest


class _Invalid(Exception): ...


class _Incomplete(Exception): ...


_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(?!CONNECT )[A-Z-]+ [!-~\x80-\xff]+ HTTP/1\.[01]")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-5][0-9]{2} [\t -~\x80-\xff]*")
_HEADER = re.compile(rb"(%s):[ \t]*([\t -~\x80-\xff]*?)[ \t]*" % _TOKEN)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")


def read_requests(data: bytes) -> Stream:
    """Returns all complete requests that ``data`` begins with."""
    messages: list[Message] = []
    at = 0
    while True:
        # RFC 9112 2.2: empty lines before a request are ignored. They begin no message, whatever their line ends are.
        at = len(data) - len(data[at:].lstrip(b"\r\n"))
        if at == len(data):
            return Stream(messages, Rest.NOTHING)
        try:
            message, at = _read_message(data, at, _REQUEST_LINE)
        except _Incomplete:
            return Stream(messages, Rest.INCOMPLETE)
        except _Invalid:
            return Stream(messages, Rest.INVALID)
        messages.append(message)
        if _closes(message):
            return Stream(messages, Rest.CLOSED)


def read_responses(data: bytes, methods: Sequence[bytes] = ()) -> Stream:
    """Returns the complete responses to requests of these methods, interim ones left out.

    A response without a length ends with the connection. Those to HEAD have no body.
    """
    messages: list[Message] = []
    at = 0
    while at < len(data):
        try:
            is_head = methods[len(messages) : len(messages) + 1] == [b"HEAD"]
            message, at = _read_message(data, at, _STATUS_LINE, is_head)
        except _Incomplete:
            return Stream(messages, Rest.INCOMPLETE)
        except _Invalid:
            return Stream(messages, Rest.INVALID)
        if message.status >= 200:
            messages.append(message)
            if _closes(message) and at < len(data):
                return Stream(messages, Rest.INVALID)
    return Stream(messages, Rest.NOTHING)


def _read_message(data: bytes, at: int, start_line: re.Pattern[bytes], is_head: bool = False) -> tuple[Message, int]:
    start, at = _line(data, at)
    if start_line.fullmatch(start) is None:
        raise _Invalid
    headers: list[tuple[str, bytes]] = []
    began = at
    while True:
        line, at = _line(data, at)
        if at - began > MAX_HEAD:
            raise _Invalid
        if not line:
            break
        found = _HEADER.fullmatch(line)
        if found is None:
            raise _Invalid
        headers.append((found[1].decode().lower(), found[2]))
    message = Message(start, headers, b"")
    is_request = start_line is _REQUEST_LINE
    if is_request and start.endswith(b"1.1") and len(message.values("host")) != 1:
        raise _Invalid
    body, at = (b"", at) if is_head else _read_body(data, at, message, is_request)
    return Message(start, headers, body), at


def _read_body(data: bytes, at: int, message: Message, is_request: bool) -> tuple[bytes, int]:
    coding, lengths = message.values("transfer-encoding"), message.values("content-length")
    if coding:
        if lengths or [value.lower() for value in coding] != [b"chunked"] or b"HTTP/1.1" not in message.start:
            raise _Invalid
        return _read_chunks(data, at)
    if lengths:
        if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,15}", lengths[0]):
            raise _Invalid
        end = at + int(lengths[0])
        if end > len(data):
            raise _Incomplete
        return data[at:end], end
    if is_request or message.status < 200 or message.status in (204, 304):
        return b"", at
    return data[at:], len(data)


def _read_chunks(data: bytes, at: int) -> tuple[bytes, int]:
    parts: list[bytes] = []
    while True:
        line, at = _line(data, at)
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise _Invalid
        if (count := int(size[1], 16)) == 0:
            break
        if at + count + 2 > len(data):
            raise _Incomplete
        if data[at + count : at + count + 2] != b"\r\n":
            raise _Invalid
        parts.append(data[at : at + count])
        at += count + 2
    while True:
        line, at = _line(data, at)
        if not line:
            return b"".join(parts), at
        if _HEADER.fullmatch(line) is None:
            raise _Invalid


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    """Returns the line without its end. A line feed or a return by itself ends no line, and belongs in none."""
    end = data.find(b"\r\n", at)
    line = data[at : end if end >= 0 else len(data)]
    if b"\n" in line or b"\r" in line[:-1] or (end >= 0 and b"\r" in line):
        raise _Invalid
    if end < 0:
        raise _Incomplete
    return line, end + 2


def _closes(message: Message) -> bool:
    options = {option.strip().lower() for value in message.values("connection") for option in value.split(b",")}
    return b"close" in options or (b"HTTP/1.0" in message.start and b"keep-alive" not in options)
