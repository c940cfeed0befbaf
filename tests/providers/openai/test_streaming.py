"""An upstream's event stream: whole events, errors found, a finished stream distinguished from a broken one."""

from collections.abc import AsyncIterator

import pytest

from gateway.core import sse
from gateway.core.errors import UpstreamInvalid
from gateway.providers.openai.streaming import StreamChunk, StreamEnd, read_events

TEXT = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":2}}\n\n'
COMMENT = b": still here\n\n"
ERROR = b'data: {"error":{"message":"overloaded"}}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed"}\n\n'


async def arrive(chunks: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(*chunks: bytes, end: StreamEnd = StreamEnd.DONE) -> list[StreamChunk]:
    return [chunk async for chunk in read_events(arrive(chunks), end)]


async def test_events_are_passed_on_as_they_arrive() -> None:
    assert await read(TEXT, FINISH + sse.DONE) == [StreamChunk(TEXT), StreamChunk(FINISH + sse.DONE)]


async def test_an_event_is_passed_on_once_it_is_whole() -> None:
    found = await read(TEXT[:5], TEXT[5:] + FINISH[:9], FINISH[9:], sse.DONE)
    assert found == [StreamChunk(TEXT), StreamChunk(FINISH), StreamChunk(sse.DONE)]


async def test_nothing_is_passed_on_behind_the_end() -> None:
    assert await read(sse.DONE + TEXT, TEXT) == [StreamChunk(sse.DONE)]


@pytest.mark.parametrize("last", [(FINISH,), (FINISH, USAGE), (FINISH + USAGE,), (FINISH, COMMENT, USAGE, COMMENT)])
async def test_an_end_that_was_omitted_is_added_behind_a_finish_reason(last: tuple[bytes, ...]) -> None:
    assert (await read(TEXT, *last))[-1] == StreamChunk(sse.DONE)


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (TEXT,),
        (COMMENT,),
        (FINISH, USAGE, USAGE),
        (FINISH + USAGE * 2,),
        (b"data: not JSON\n\n",),
        (b"data: [1]\n\n",),
    ],
)
async def test_without_a_finish_reason_it_broke_off(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(UpstreamInvalid, match=r"broke off\."):
        await read(*chunks)


@pytest.mark.parametrize("end", list(StreamEnd))
async def test_half_an_event_at_the_end_is_an_error_in_every_stream(end: StreamEnd) -> None:
    with pytest.raises(UpstreamInvalid, match="broke off within an event"):
        await read(FINISH, COMPLETED, TEXT[:-1], end=end)


async def test_a_line_end_behind_the_last_event_is_no_event() -> None:
    assert (await read(FINISH, b"\n"))[-1] == StreamChunk(sse.DONE)


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
async def test_the_responses_api_ends_with_a_terminal_event(kind: str) -> None:
    terminal = COMPLETED.replace(b"completed", kind.encode())
    assert await read(TEXT, terminal, end=StreamEnd.TERMINAL_EVENT) == [StreamChunk(TEXT), StreamChunk(terminal)]
    with pytest.raises(UpstreamInvalid):
        await read(TEXT, FINISH, end=StreamEnd.TERMINAL_EVENT)


async def test_other_streams_may_end_anywhere_and_get_nothing_added() -> None:
    assert await read(TEXT, end=StreamEnd.NONE) == [StreamChunk(TEXT)]
    assert await read(end=StreamEnd.NONE) == []
    assert await read(sse.DONE, TEXT, end=StreamEnd.NONE) == [StreamChunk(sse.DONE), StreamChunk(TEXT)]


@pytest.mark.parametrize("end", list(StreamEnd))
async def test_an_error_ends_the_stream_and_what_came_before_is_passed_on(end: StreamEnd) -> None:
    assert await read(TEXT + COMMENT + ERROR + TEXT, TEXT, end=end) == [
        StreamChunk(TEXT + COMMENT),
        StreamChunk(ERROR, {"message": "overloaded"}),
    ]
    assert await read(ERROR, end=end) == [StreamChunk(ERROR, {"message": "overloaded"})]


async def test_an_event_that_does_not_end_is_refused() -> None:
    with pytest.raises(UpstreamInvalid, match="longer than"):
        await read(TEXT, b"data: " + b"x" * sse.MAX_EVENT_BYTES)
