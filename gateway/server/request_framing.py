"""Says where a request ends, and which heads are refused, from the bytes alone. Pure."""

import re

_ZERO = ord("0")
_CHUNKED_BODY_END = re.compile(rb"[^\r\n]\r\n\r\n")


def is_bad_head(data: bytes, start: int, end: int) -> bool:
    """Returns whether a header has no name, or HTTP/1.0 a ``Transfer-Encoding``, or HTTP/1.1 no ``Host`` (RFC 9112 5, 6.1, 3.2).

    A server of HTTP/1.0 takes a body in chunks for the next request.
    """
    if data.find(b"\n:", start, end) >= 0:
        return True
    if data[data.index(b"\n", start) - 2] == _ZERO:
        return b"\ntransfer-encoding" in data[start:end].lower()
    return data.find(b"\nHost:", start, end) < 0 and b"\nhost:" not in data[start:end].lower()


def part_of_chunks(data: bytes, start: int) -> int:
    """Returns up to where a body in chunks can be parsed without reading behind its end.

    It ends with an empty line behind a line that is not empty. Where that may have begun in what was parsed before, the line
    ends go one by one.
    """
    if start < 4 and data[start] in b"\r\n":
        return start + 1
    found = _CHUNKED_BODY_END.search(data, start)
    return len(data) if found is None else found.end()
