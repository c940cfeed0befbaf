"""Bodies between the socket and whoever reads them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.request import InvalidBody
from gateway.server.head_parser import create_parser
from gateway.server.request_body import READ_BUFFER_BYTES, ArrivedBody, ArrivingBody, BodyState, ChunkedBody, SizedBody

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Flow:
    """Notes whether reading is paused, whenever that may have changed."""

    def __init__(self) -> None:
        self.body: ArrivingBody | None = None
        self.calls: list[bool] = []

    def update(self) -> None:
        assert self.body is not None
        self.calls.append(self.body.is_paused)


def sized(length: int, flow: Flow | None = None) -> SizedBody:
    flow = flow or Flow()
    body = flow.body = SizedBody(length, flow.update)
    return body


def chunked(loop: asyncio.AbstractEventLoop) -> ChunkedBody:
    parser = create_parser(loop, 10_000, reads_body=True)
    [(_, reader)], _, _ = parser.feed_data(HEAD)
    flow = Flow()
    body = flow.body = ChunkedBody(parser, reader, flow.update)
    return body


async def test_a_body_that_is_there_already_is_taken_once() -> None:
    body = ArrivedBody(b"abc")
    assert (body.state, body.total, await body.read(), await body.read(), body.take()) == (
        BodyState.WHOLE,
        3,
        b"abc",
        b"",
        b"",
    )


async def test_a_body_with_a_length_takes_no_more() -> None:
    body = sized(5)
    assert body.feed(b"headabcrest", 4) == 9
    assert (body.take(), body.state) == (b"abcre", BodyState.WHOLE)


async def test_a_body_arrives_piece_by_piece() -> None:
    body = sized(6)
    assert body.feed(b"abc", 0) == 3
    assert (await body.read(), body.state) == (b"abc", BodyState.ARRIVING)
    reading = asyncio.create_task(body.read())
    await asyncio.sleep(0)
    assert body.feed(b"defGET", 0) == 3
    assert (await reading, await body.read(), body.total) == (b"def", b"", 6)


async def test_reading_pauses_while_too_much_waits() -> None:
    flow = Flow()
    body = sized(10 * READ_BUFFER_BYTES, flow)
    body.feed(b"x" * 2 * READ_BUFFER_BYTES, 0)
    assert flow.calls == []
    body.feed(b"x", 0)
    assert (body.is_paused, flow.calls) == (True, [True])
    assert len(body.take()) == 2 * READ_BUFFER_BYTES + 1
    assert (body.is_paused, flow.calls) == (False, [True, False])


async def test_a_body_that_nobody_wants_takes_up_no_memory() -> None:
    body = sized(10 * READ_BUFFER_BYTES)
    body.feed(b"x" * 100, 0)
    body.discard()
    body.feed(b"x" * (10 * READ_BUFFER_BYTES - 100), 0)
    assert (body.state, body.is_paused, body.take()) == (BodyState.WHOLE, False, b"")


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=5), st.integers(1, 7), st.sampled_from([b"", b"GET"]))
def test_chunks_are_decoded_however_they_are_cut(chunks: list[bytes], step: int, behind: bytes) -> None:
    async def run() -> tuple[bytes, BodyState, int]:
        body = chunked(asyncio.get_running_loop())
        data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        at = 0
        while body.state is BodyState.ARRIVING:
            piece = (data + behind)[at : at + step]
            at += body.feed(piece, 0)
        return body.take(), body.state, at - len(data)

    assert asyncio.run(run()) == (b"".join(chunks), BodyState.WHOLE, 0)


@pytest.mark.parametrize("data", [b"x\r\n", b"1\r\nab\r\n", b"-1\r\n", b"1 ;x\r\n\x00", b"0\r\nno colon\r\n\r\n"])
async def test_what_is_no_chunk_ends_the_body(data: bytes) -> None:
    body = chunked(asyncio.get_running_loop())
    at = 0
    while at < len(data) and body.state is BodyState.ARRIVING:
        at = body.feed(data, at)
    assert body.state is BodyState.INVALID
    body.take()
    with pytest.raises(InvalidBody):
        await body.read()


async def test_framing_alone_does_not_end_a_body() -> None:
    body = chunked(asyncio.get_running_loop())
    reading = asyncio.create_task(body.read())
    for piece in (b"3", b"\r", b"\n", b"ab"):
        await asyncio.sleep(0)
        assert not reading.done()
        body.feed(piece, 0)
    assert await reading == b"ab"
