"""RFC 9112 on the side of the client, rule by rule: what is a response, where its body ends, and what is none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.providers.transport import http1_limits
from gateway.providers.transport.http1_parser import Body, InvalidResponse, ResponseParser, read_headers

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def parse(data: bytes, is_head: bool = False, size: int | None = None) -> ResponseParser:
    """Feeds all of it, in pieces of ``size`` bytes."""
    parser = ResponseParser()
    parser.is_head = is_head
    step = size or max(len(data), 1)
    for start in range(0, len(data), step):
        parser.feed(data[start : start + step])
    return parser


VALID = {
    "a length": (OK + b"Content-Length: 3\r\n\r\nabc", 200, b"abc", True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "an empty reason": (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "a reason of any bytes": (b"HTTP/1.1 200 \xffa\tb\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "chunks": (CHUNKED + b"3\r\nabc\r\n002\r\nde\r\n0\r\n\r\n", 200, b"abcde", True),
    "chunks with extensions and a trailer": (
        CHUNKED + b'3;a=b;c="d e"\r\nabc\r\n0;x\r\nX: y\r\nZ: \r\n\r\n', 200, b"abc", True,
    ),
    "a coding with a blank": (OK + b"Transfer-Encoding: \t chunked  \r\n\r\n1\r\na\r\n0\r\n\r\n", 200, b"a", True),
    "a coding in capitals": (OK + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n", 200, b"", True),
    "blanks around values": (OK + b"Content-Length: \t 3 \t\r\nX:y\r\nZ:\r\n\r\nabc", 200, b"abc", True),
    "connection: close": (OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", False),
    "close among other options": (OK + b"Connection: x, Close\r\nContent-Length: 0\r\n\r\n", 200, b"", False),
    "close beside keep-alive": (OK + b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                                200, b"", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", False),
    "HTTP/1.0 that is kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "304 with the length of what it does not send": (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "204 with a coding": (b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", 204, b"", True),
    "204 that closes": (b"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n", 204, b"", False),
    "interim responses": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 199 Y\r\nContent-Length: 5\r\n\r\n"
        + OK + b"Content-Length: 3\r\n\r\nabc", 200, b"abc", True),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 101, b"", False),
    "an upgrade that is no 101": (
        OK + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", True),
    "bytes above 127 in a value": (OK + b"X: \xe4\xff\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
}  # fmt: skip


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("size", [None, 1, 2, 7])
def test_valid_responses(name: str, size: int | None) -> None:
    data, status, body, may_keep = VALID[name]
    parser = parse(data, size=size)
    assert (parser.status, b"".join(parser.parts), parser.is_complete, parser.has_excess) == (status, body, True, False)
    assert parser.may_keep is may_keep


INVALID = {
    "another version": b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "small letters": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "another protocol of the same form": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "that protocol behind an interim response": b"HTTP/1.1 100 C\r\n\r\nICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an empty line first": b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "two blanks": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "a null byte in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "a control byte in the reason": b"HTTP/1.1 200 O\x1bK\r\nContent-Length: 0\r\n\r\n",
    "a status with a sign": b"HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
    "line feeds alone": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "one line feed alone": OK + b"X: y\nContent-Length: 0\r\n\r\n",
    "a return in a value": OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
    "a null byte in a value": OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a control byte in a value": OK + b"X: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "a folded line": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a header without colon": OK + b"bad header\r\nContent-Length: 0\r\n\r\n",
    "a header without name": OK + b": x\r\nContent-Length: 0\r\n\r\n",
    "a blank before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "a name that is no token": OK + b"X\xff: y\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": OK + b"Content-Length: +3\r\n\r\nabc",
    "a length in hexadecimal": OK + b"Content-Length: 0x3\r\n\r\nabc",
    "a length of nothing": OK + b"Content-Length: \r\n\r\n",
    "a length beyond 64 bits": OK + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a length and a coding": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding and a length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two codings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an unknown coding": OK + b"Transfer-Encoding: x\r\n\r\n",
    "a coding with a strange byte": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a coding with a tab, which llhttp does not see": OK + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    "a coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a long line": OK + b"X: " + b"y" * http1_limits.MAX_HEADER_BYTES + b"\r\n\r\n",
    "too many headers": OK + b"X: y\r\n" * (http1_limits.MAX_HEADERS + 1) + b"\r\n",
    "a head too long": OK + (b"X: " + b"y" * 60_000 + b"\r\n") * 5 + b"\r\n",
    "an interim response too many": b"HTTP/1.1 103 E\r\n\r\n" * (http1_limits.MAX_INTERIM_RESPONSES + 1) + OK + b"\r\n",
    "interim responses too long": (b"HTTP/1.1 103 E\r\nX: " + b"y" * 60_000 + b"\r\n\r\n") * 5 + OK + b"\r\n",
}


@pytest.mark.parametrize("name", INVALID)
@pytest.mark.parametrize("size", [None, 997])
def test_heads_that_are_invalid(name: str, size: int | None) -> None:
    with pytest.raises(InvalidResponse):
        parse(INVALID[name], size=size)


BAD_CHUNKS = [
    b"x\r\n", b"-1\r\n", b"+1\r\na\r\n", b"0x1\r\na\r\n", b"1 \r\na\r\n", b" 1\r\na\r\n", b"\r\n", b"1\na\r\n", b"1\r\nab",
    b"1\r\na\n", b"1\r\na0\r\n\r\n", b"fffffffffffffffff\r\n", b"1;\n\r\na\r\n", b"1;a\nb\r\na\r\n", b"1;a\rb\r\na\r\n",
    b"0\r\nbad trailer\r\n\r\n", b"0\r\nX: a\nb\r\n\r\n", b"0\r\n X: a\r\n\r\n", b"3\r\nabc\r\nzz\r\n", b"0\n\r\n", b"0\r\n\n",
    b"0\r\nX: y\r\n z\r\n\r\n", b"1_0\r\n", b"\xef\xbc\x91\r\na\r\n",
]  # fmt: skip


@pytest.mark.parametrize("chunks", BAD_CHUNKS)
@pytest.mark.parametrize("size", [None, 1])
def test_chunks_that_are_invalid(chunks: bytes, size: int | None) -> None:
    with pytest.raises(InvalidResponse):
        parse(CHUNKED + chunks, size=size)


@pytest.mark.parametrize("trailer", [b"X: y\r\n" * 100_000, b"X: " + b"y" * 600_000, b"X: y\r\n" + b"z" * 600_000])
def test_a_trailer_without_end_is_refused(trailer: bytes) -> None:
    with pytest.raises(InvalidResponse):
        parse(CHUNKED + b"0\r\n" + trailer, size=65536)


SECOND = OK + b"Content-Length: 7\r\n\r\nforeign"
EXCESS = [SECOND, SECOND[:9], b"H", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b"HTTP/1.1 100 Continue\r\n\r\n"]
COMPLETE = [
    OK + b"Content-Length: 3\r\n\r\nabc", OK + b"Content-Length: 0\r\n\r\n", CHUNKED + b"1\r\na\r\n0\r\n\r\n",
    CHUNKED + b"0\r\nX: y\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("excess", EXCESS)
@pytest.mark.parametrize("complete", COMPLETE)
@pytest.mark.parametrize("size", [None, 1, 2, 3, 5])
def test_what_comes_behind_the_end_is_excess_and_never_part_of_the_body(
    excess: bytes, complete: bytes, size: int | None
) -> None:
    alone = parse(complete)
    parser = parse(complete + excess, size=size)
    assert parser.is_complete and parser.has_excess and not alone.has_excess
    assert (parser.status, b"".join(parser.parts)) == (alone.status, b"".join(alone.parts))


@pytest.mark.parametrize("excess", [b"", b"foreign", SECOND])
def test_the_response_to_head_has_no_body(excess: bytes) -> None:
    parser = parse(OK + b"Content-Length: 7\r\n\r\n" + excess, is_head=True)
    assert (parser.is_complete, parser.parts, parser.has_excess) == (True, [], bool(excess))


def test_a_body_without_length_goes_on_until_the_connection_ends() -> None:
    parser = parse(OK + b"\r\nabc" + SECOND, size=4)
    assert (parser.body, parser.is_complete) == (Body.UNTIL_CLOSE, False)
    assert b"".join(parser.parts) == b"abc" + SECOND


def test_a_head_that_cannot_become_valid_is_refused_at_once() -> None:
    for data in (b"S", b"HTTP/2", b"\r", OK + b"X: y\n", OK + b"X: \0", OK + b"a\rb"):
        with pytest.raises(InvalidResponse):
            parse(data)


def test_of_several_headers_with_one_name_the_first_counts() -> None:
    pairs = [(b"X-A", b" 1 "), (b"x-a", b"2"), (b"Y", b"\xc3\xa4\xff")]
    assert read_headers(pairs) == {"x-a": "1", "y": "ä\udcff"}


PIECES = st.lists(
    st.sampled_from([*COMPLETE, SECOND, b"0\r\n\r\n", b"\r\n", b"HTTP/1.1 103 E\r\n\r\n", b"1\r\nb\r\n", OK])
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(COMPLETE), PIECES, st.lists(st.integers(1, 40), min_size=1))
def test_no_cut_changes_what_is_parsed(first: bytes, behind: list[bytes], cuts: list[int]) -> None:
    data = first + b"".join(behind)
    whole, parser, at, turn = parse(data), ResponseParser(), 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        parser.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert (parser.status, b"".join(parser.parts), parser.has_excess) == (
        whole.status, b"".join(whole.parts), whole.has_excess,
    )  # fmt: skip


def test_one_parser_parses_one_response_after_another() -> None:
    parser = ResponseParser()
    for data in (*COMPLETE, *COMPLETE[::-1]):
        parser.begin()
        parser.feed(data)
        alone = parse(data)
        assert (parser.status, parser.parts, parser.is_complete) == (alone.status, alone.parts, True)
