"""An upstream's event stream: whole events, errors found, a finished stream distinguished from a broken one."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.core import sse
from gateway.core.upstream_errors import UpstreamInvalid, UpstreamTimeout
from gateway.providers.openai.stream_ends import RESPONSES, DoneEnd, NoEnd, StreamEnd, TerminalEnd
from gateway.providers.openai.streaming import StreamChunk, StreamLimits, StreamStart, read_events

ENDS: tuple[Callable[[], StreamEnd], ...] = (lambda: DoneEnd(1), lambda: TerminalEnd(RESPONSES), NoEnd)
TEXT = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":2}}\n\n'
COMMENT = b": still here\n\n"
ERROR = b'data: {"error":{"message":"overloaded"}}\n\n'
REPORT = {"error": {"message": "overloaded"}}
CREATED = b'data: {"type":"response.created"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed"}\n\n'


async def arrive(chunks: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(*chunks: bytes, end: StreamEnd | None = None) -> list[StreamChunk]:
    limits = StreamLimits(1000, lambda: None)
    return [chunk async for chunk in read_events(b"".join(chunks[:1]), arrive(chunks[1:]), end or DoneEnd(1), limits)]


async def test_events_are_passed_on_as_they_arrive() -> None:
    assert await read(TEXT, FINISH + sse.DONE) == [StreamChunk(TEXT), StreamChunk(FINISH + sse.DONE)]


async def test_an_event_is_passed_on_once_it_is_whole() -> None:
    found = await read(TEXT[:5], TEXT[5:] + FINISH[:9], FINISH[9:], sse.DONE)
    assert found == [StreamChunk(TEXT), StreamChunk(FINISH), StreamChunk(sse.DONE)]


async def test_nothing_is_passed_on_behind_the_end() -> None:
    assert await read(sse.DONE + TEXT, TEXT) == [StreamChunk(sse.DONE)]


@pytest.mark.parametrize(
    "last", [(FINISH,), (FINISH, USAGE), (FINISH + USAGE,), (FINISH, COMMENT, USAGE, USAGE, COMMENT)]
)
async def test_an_end_that_was_omitted_is_added_behind_a_finish_reason(last: tuple[bytes, ...]) -> None:
    assert (await read(TEXT, *last))[-1] == StreamChunk(sse.DONE)


@pytest.mark.parametrize("chunks", [(), (TEXT,), (COMMENT,), (b"data: not JSON\n\n",), (b"data: [1]\n\n",)])
async def test_without_a_finish_reason_it_broke_off(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(UpstreamInvalid, match=r"broke off\."):
        await read(*chunks)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("half", [TEXT[:-5], b"event: ping", b"data: [DON", b"data: not JSON"])
async def test_half_an_event_at_the_end_is_an_error_in_every_stream(end: Callable[[], StreamEnd], half: bytes) -> None:
    with pytest.raises(UpstreamInvalid, match="broke off within an event"):
        await read(TEXT, half, end=end())


async def test_half_an_event_behind_the_end_changes_nothing() -> None:
    assert await read(FINISH, TEXT[:-5]) == [StreamChunk(FINISH), StreamChunk(sse.DONE)]


@pytest.mark.parametrize("line_end", [b"", b"\n", b"\r\n"])
async def test_a_last_event_needs_no_empty_line(line_end: bytes) -> None:
    assert (await read(TEXT, b"data: [DONE]" + line_end))[-1] == StreamChunk(sse.DONE)
    assert (await read(FINISH.rstrip() + line_end)) == [StreamChunk(FINISH), StreamChunk(sse.DONE)]
    assert (await read(FINISH, b": bye" + line_end))[1] == StreamChunk(b": bye\n\n")
    completed = await read(COMPLETED.rstrip() + line_end, end=TerminalEnd(RESPONSES))
    assert completed == [StreamChunk(COMPLETED)]


async def test_an_error_without_its_empty_line_is_found() -> None:
    assert (await read(TEXT, ERROR.rstrip()))[-1].error == REPORT


async def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    assert await read(b"\xef\xbb\xbf" + sse.DONE) == [StreamChunk(sse.DONE)]


async def test_a_connection_that_breaks_behind_the_last_choice_changes_nothing() -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield FINISH
        raise UpstreamTimeout("too slow")

    told: list[str] = []
    limits = StreamLimits(1000, lambda: told.append("whole"))
    found = [chunk async for chunk in read_events(b"", breaks(), DoneEnd(1), limits)]
    assert found == [StreamChunk(FINISH), StreamChunk(sse.DONE)]
    assert told == ["whole"]
    with pytest.raises(UpstreamTimeout):
        assert [chunk async for chunk in read_events(b"", breaks(), NoEnd(), limits)]


async def test_a_line_end_behind_the_last_event_is_no_event() -> None:
    assert (await read(FINISH, b"\n"))[-1] == StreamChunk(sse.DONE)


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
async def test_the_responses_api_ends_with_a_terminal_event(kind: str) -> None:
    terminal = COMPLETED.replace(b"completed", kind.encode())
    found = await read(TEXT, terminal + COMMENT, TEXT, end=TerminalEnd(RESPONSES))
    assert found == [StreamChunk(TEXT), StreamChunk(terminal)]
    with pytest.raises(UpstreamInvalid):
        await read(TEXT, FINISH, end=TerminalEnd(RESPONSES))


async def test_other_streams_may_end_anywhere_and_get_nothing_added() -> None:
    assert await read(TEXT, end=NoEnd()) == [StreamChunk(TEXT)]
    assert await read(end=NoEnd()) == []
    assert await read(sse.DONE, TEXT, end=NoEnd()) == [StreamChunk(sse.DONE), StreamChunk(TEXT)]


@pytest.mark.parametrize("end", ENDS)
async def test_an_error_ends_the_stream_and_what_came_before_is_passed_on(end: Callable[[], StreamEnd]) -> None:
    assert await read(TEXT + COMMENT + ERROR + TEXT, TEXT, end=end()) == [
        StreamChunk(TEXT + COMMENT),
        StreamChunk(ERROR, REPORT),
    ]
    assert await read(ERROR, end=end()) == [StreamChunk(ERROR, REPORT)]


async def test_an_event_that_does_not_end_is_refused() -> None:
    with pytest.raises(UpstreamInvalid, match="longer than 1000 bytes"):
        await read(TEXT, b"data: " + b"x" * 1000)


async def start_of(chunks: AsyncIterator[bytes], hold_seconds: float = 60) -> StreamStart:
    start = StreamStart(read_events(b"", chunks, NoEnd(), StreamLimits(1000, lambda: None)), hold_seconds)
    await start.read()
    return start


async def test_life_cycle_events_wait_for_the_first_content() -> None:
    start = await start_of(arrive((COMMENT, CREATED, TEXT, FINISH)))
    assert [chunk.data for chunk in start.opening] == [COMMENT, CREATED, TEXT]
    assert start.has_content
    assert [chunk.data async for chunk in start.rest()] == [FINISH]


@pytest.mark.parametrize(
    "failure", [ERROR, b'data: {"type":"response.failed","response":{"error":{"message":"overloaded"}}}\n\n']
)
async def test_an_error_behind_life_cycle_events_can_still_have_a_status(failure: bytes) -> None:
    start = await start_of(arrive((CREATED, failure)))
    assert start.report == REPORT
    assert (await start_of(arrive((CREATED + TEXT + failure,)))).report is None


async def test_life_cycle_events_are_released_in_the_end() -> None:
    """The time is over at once here; the next event is still waited for, and nothing is lost."""
    may_go_on = asyncio.Event()

    async def pauses() -> AsyncIterator[bytes]:
        yield CREATED
        await may_go_on.wait()
        yield TEXT

    start = await start_of(pauses(), hold_seconds=0)
    assert [chunk.data for chunk in start.opening] == [CREATED]
    assert not start.has_content
    may_go_on.set()
    assert [chunk.data async for chunk in start.rest()] == [TEXT]


async def test_a_stream_can_be_closed_while_its_next_event_is_waited_for() -> None:
    is_closed = asyncio.Event()

    async def never_goes_on() -> AsyncIterator[bytes]:
        try:
            yield CREATED
            await asyncio.Event().wait()
        finally:
            is_closed.set()

    start = await start_of(never_goes_on(), hold_seconds=0)
    await start.aclose()
    await is_closed.wait()


async def test_who_waits_for_the_first_content_can_be_cancelled() -> None:
    is_closed, has_begun = asyncio.Event(), asyncio.Event()

    async def never_goes_on() -> AsyncIterator[bytes]:
        try:
            yield CREATED
            has_begun.set()
            await asyncio.Event().wait()
        finally:
            is_closed.set()

    reading = asyncio.create_task(start_of(never_goes_on()))
    await has_begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await is_closed.wait()
