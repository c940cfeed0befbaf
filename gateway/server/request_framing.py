"""Says where a request ends, and which heads are refused, from the bytes alone. Pure."""

import re

_ZERO = ord("0")
_CHUNKED = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n")
_CHUNKED_BODY_END = re.compile(rb"[^\r\n]\r\n\r\n")


def is_bad_head(data: bytes, start: int, end: int) -> bool:
    """Returns whether a header has no name, HTTP/1.1 no ``Host``, or ``Transfer-Encoding`` is not that of RFC 9112 6.1.

    The parser takes an empty ``Transfer-Encoding`` for no body, and a server of HTTP/1.0 takes none for anything else: the body
    would be the next request.
    """
    is_1_0 = data[data.index(b"\n", start) - 2] == _ZERO
    head = data[start : end + 1].lower()  # with the line end of the last header
    if b"\n:" in head or (b"\nhost:" not in head and not is_1_0):
        return True
    return b"\ntransfer-encoding" in head and (is_1_0 or _CHUNKED.search(head) is None)


def part_of_chunks(data: bytes, start: int) -> int:
    """Returns up to where a body in chunks can be parsed without reading behind its end.

    It ends with an empty line behind a line that is not empty. Where that may have begun in what was parsed before, the line
    ends go one by one.
    """
    if start < 4 and data[start] in b"\r\n":
        return start + 1
    found = _CHUNKED_BODY_END.search(data, start)
    return len(data) if found is None else found.end()
