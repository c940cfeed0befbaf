"""Heads that are refused, and how far a body in chunks may be parsed."""

import pytest

from gateway.server.request_framing import is_bad_head, part_of_chunks


@pytest.mark.parametrize(
    ("head", "is_bad"),
    [
        (b"GET / HTTP/1.1\r\nHost: a", False),
        (b"GET / HTTP/1.1\r\nX: y\r\nhOST: a", False),
        (b"GET / HTTP/1.1\r\nX-Host: a", True),
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: b", True),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nTransfer-encoding: chunked", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", False),
        (b"GET / HTTP/1.1\r\nTRANSFER-ENCODING:\tChunked \r\nHost: a", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked", True),
    ],
)
def test_heads(head: bytes, is_bad: bool) -> None:
    data = b"before" + head + b"\r\n\r\n"
    assert is_bad_head(data, 6, data.index(b"\n\r\n", 6)) is is_bad


@pytest.mark.parametrize(
    ("data", "start", "end"),
    [
        (b"0\r\n\r\nGET", 0, 5),
        (b"\r\n\r\nGET", 0, 1),
        (b"....5\r\nabc", 4, 10),
        (b"3\r\nabc\r\n0\r\nX: y\r\n\r\nGET", 0, 19),
    ],
)
def test_a_body_in_chunks_is_not_parsed_behind_its_end(data: bytes, start: int, end: int) -> None:
    assert part_of_chunks(data, start) == end
