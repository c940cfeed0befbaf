"""Says where a request ends, and which heads are refused, from the bytes alone. Pure."""

import re
from enum import IntEnum

from aiohttp.http import RawRequestMessage
from multidict import istr

from gateway.http.request import HTTP_1_1

REQUEST_LINE = re.compile(rb"(?!CONNECT )[A-Z-]+ [^ \r\n#]+ HTTP/1\.[01]\r\n")
"""CONNECT is for proxies: aiohttp's parser would take its body for the next request."""
METHOD_START = re.compile(rb"[A-Z-]+( |\Z)")
HEAD_END = b"\n\r\n"
_TRANSFER_ENCODING = istr("Transfer-Encoding")
_CONTENT_LENGTH = istr("Content-Length")
_ZERO = ord("0")
_CHUNKED = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n")
_CHUNKED_BODY_END = re.compile(rb"[^\r\n]\r\n\r\n")


class HeadEnd(IntEnum):
    """Says why a head has no end yet."""

    BLANK = 0
    """There are only line ends, which are ignored before a request (RFC 9112 2.2)."""
    MISSING = -1
    INVALID = -2
    TOO_LARGE = -3


def find_head_end(data: bytes, start: int, max_bytes: int) -> int:
    """Returns where the head ends that begins at ``start``, or one of ``HeadEnd``."""
    if data[start] in b"\r\n":
        start = len(data) - len(data[start:].lstrip(b"\r\n"))
        if start == len(data):
            return HeadEnd.BLANK
    end = data.find(HEAD_END, start)
    if end >= 0:
        is_refused = REQUEST_LINE.match(data, start) is None or data.find(b"\n:", start, end) >= 0
    else:
        line = REQUEST_LINE if data.find(b"\n", start) >= 0 else METHOD_START
        is_refused = line.match(data, start) is None or data.find(b"\n\n", start) >= 0
    if is_refused:
        return HeadEnd.INVALID
    if (end if end >= 0 else len(data)) - start > max_bytes:
        return HeadEnd.TOO_LARGE
    return HeadEnd.MISSING if end < 0 else end + len(HEAD_END)


def has_bad_framing(message: RawRequestMessage) -> bool:
    """Returns whether a parsed head has another ``Transfer-Encoding`` than that of RFC 9112 6.1, or a length besides it.

    The parser takes an empty ``Transfer-Encoding`` for no body, and a server of HTTP/1.0 takes none for anything else: the body
    would be the next request.
    """
    encoding = message.headers.get(_TRANSFER_ENCODING)
    if encoding is None:
        return bool(message.chunked)
    is_chunked = encoding.strip(" \t").lower() == "chunked" and bool(message.chunked)
    return not is_chunked or message.version < HTTP_1_1 or _CONTENT_LENGTH in message.headers


def is_bad_head(data: bytes, start: int, end: int) -> bool:
    """Returns whether a header has no name, HTTP/1.1 no ``Host``, or ``Transfer-Encoding`` is not that of RFC 9112 6.1.

    The parser takes an empty ``Transfer-Encoding`` for no body, and a server of HTTP/1.0 takes none for anything else: the body
    would be the next request.
    """
    is_1_0 = data[data.index(b"\n", start) - 2] == _ZERO
    head = data[start : end + 1].lower()  # with the line end of the last header
    if b"\n:" in head or (b"\nhost:" not in head and not is_1_0):
        return True
    return b"\ntransfer-encoding:" in head and (is_1_0 or _CHUNKED.search(head) is None)


def part_of_chunks(data: bytes, start: int) -> int:
    """Returns up to where a body in chunks can be parsed without reading behind its end.

    It ends with an empty line behind a line that is not empty. Where that may have begun in what was parsed before, the line
    ends go one by one.
    """
    if start < 4 and data[start] in b"\r\n":
        return start + 1
    found = _CHUNKED_BODY_END.search(data, start)
    return len(data) if found is None else found.end()
