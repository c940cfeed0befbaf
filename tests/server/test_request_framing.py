"""Heads that are refused, and how far a body in chunks may be parsed."""

import asyncio

import pytest
from aiohttp.http import HttpVersion
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.server.head_parser import create_parser
from gateway.server.request_framing import HeadEnd, find_head_end, has_bad_framing, is_bad_head, part_of_chunks


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


@pytest.mark.parametrize(
    ("head", "end"),
    [
        (b"\r\n\n", HeadEnd.BLANK),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET", 29),
        (b"GE", HeadEnd.MISSING),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", HeadEnd.MISSING),
        (b"GET / HTTP/1.1\r\nHost: a\n\n", HeadEnd.INVALID),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", HeadEnd.INVALID),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", HeadEnd.INVALID),
        (b"get", HeadEnd.INVALID),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 100, HeadEnd.TOO_LARGE),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 100 + b"\r\n\r\n", HeadEnd.TOO_LARGE),
    ],
)
def test_where_a_head_ends(head: bytes, end: int) -> None:
    assert find_head_end(head, 0, 60) == end


@pytest.mark.parametrize(
    ("headers", "version", "chunked", "is_bad"),
    [
        ({}, 1, False, False),
        ({}, 1, True, True),
        ({"Transfer-Encoding": "\tChunked "}, 1, True, False),
        ({"Transfer-Encoding": "chunked"}, 1, False, True),
        ({"Transfer-Encoding": "chunked"}, 0, True, True),
        ({"Transfer-Encoding": "gzip, chunked"}, 1, True, True),
        ({"Transfer-Encoding": ""}, 1, False, True),
        ({"Transfer-Encoding": "chunked", "Content-Length": "3"}, 1, True, True),
    ],
)
async def test_framing_that_is_refused_whatever_the_parser_says(
    headers: dict[str, str], version: int, chunked: bool, is_bad: bool
) -> None:
    parser = create_parser(asyncio.get_running_loop(), 1000)
    [(message, _)], _, _ = parser.feed_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    parsed = CIMultiDictProxy(CIMultiDict(headers))
    message = message._replace(headers=parsed, version=HttpVersion(1, version), chunked=chunked)
    assert has_bad_framing(message) is is_bad
