"""An upstream that dies at any byte of its stream: the official client raises, every time."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from tests.http.test_streams import assert_cut, chunk, recorded
from tests.support.gateway import KEY, STREAM, Running
from tests.support.upstream import Connection, Received
from tests.support.wire import connected, gateway_before, post

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
CHAT_STREAM = recorded(6)
FINISHED_AT = CHAT_STREAM.index(b"data: [DONE]")
RESPONSES_STREAM = b"".join(
    b"event: %s\ndata: %s\n\n" % (kind, data)
    for kind, data in (
        (b"response.created", b'{"type":"response.created","response":{"id":"r","model":"m","error":null}}'),
        (b"response.output_text.delta", b'{"type":"response.output_text.delta","delta":"Hi"}'),
        (b"response.completed", b'{"type":"response.completed","response":{"id":"r","model":"m","error":null}}'),
    )
)
COMPLETED_AT = RESPONSES_STREAM.index(b"event: response.completed")


class Breaking:
    """An upstream whose way to die is set from outside, request by request."""

    def __init__(self) -> None:
        self.data, self.at, self.how, self.chunked = b"", 0, "reset", True

    async def __call__(self, _received: Received, connection: Connection) -> None:
        if self.chunked:
            await connection.start_stream()
        else:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        sent = self.data[: self.at]
        if sent:
            await (connection.chunk(sent) if self.chunked else connection.send(sent))
        await self.die(connection)

    async def die(self, connection: Connection) -> None:
        if self.how == "stall":
            await connection.wait_closed()
        elif self.how == "reset":
            connection.reset()
        else:
            connection.writer.close()


@asynccontextmanager
async def breaking(folder: Path) -> AsyncIterator[tuple[Breaking, Running]]:
    upstream = Breaking()
    short = {"GATEWAY_CHUNK_TIMEOUT": "0.03", "GATEWAY_FIRST_BYTE_TIMEOUT": "0.3"}
    async with gateway_before(upstream, folder, **short) as (_, gateway):
        yield upstream, gateway


def offsets(data: bytes, end: int, step: int) -> list[int]:
    """Every byte in a campaign, else some; the ends of events always, for there a cut is hardest to see."""
    boundaries = {at + 2 for at in range(end - 2) if data[at : at + 2] == b"\n\n"}
    return sorted({*range(0, end, 1 if FULL else step), *boundaries})


async def check_offset(gateway: Running, client: openai.AsyncOpenAI, path: str) -> None:
    """Both by hand and through the official client."""
    async with connected(gateway.port) as raw:
        await raw.send(post(path, STREAM))
        reply = await raw.reply()
    if reply.status == 200:
        assert_cut_anyhow(reply.body, reply.whole)
    else:
        assert reply.status in (502, 504)
        assert reply.json()["error"]["type"] == "upstream_error"
    with pytest.raises(openai.APIError):
        if path == "/v1/responses":
            async for _ in await client.responses.create(model="m", input="Hi", stream=True):
                pass
        else:
            async for _ in await client.chat.completions.create(model="m", messages=[], stream=True):
                pass


def assert_cut_anyhow(body: bytes, whole: bool) -> None:
    assert not whole
    assert b"[DONE]" not in body.replace(b'\\"data: [DONE]\\"', b"")
    assert b'"error":{"message"' in body.split(b"\n\n")[-2]


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["reset", "fin", "stall"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "to the end"])
async def test_chat_breaks_at_every_byte(tmp_path: Path, how: str, chunked: bool) -> None:
    await break_everywhere(tmp_path, "/v1/chat/completions", CHAT_STREAM, FINISHED_AT, (how, chunked))


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["reset", "fin", "stall"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "to the end"])
async def test_responses_break_at_every_byte(tmp_path: Path, how: str, chunked: bool) -> None:
    await break_everywhere(tmp_path, "/v1/responses", RESPONSES_STREAM, COMPLETED_AT, (how, chunked))


async def break_everywhere(folder: Path, path: str, data: bytes, end: int, kind: tuple[str, bool]) -> None:
    failures: list[tuple[int, str]] = []
    how, chunked = kind
    tried = offsets(data, end, 61)
    async with breaking(folder) as (upstream, gateway):
        upstream.data, upstream.how, upstream.chunked = data, how, chunked
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
            for upstream.at in tried:
                try:
                    async with asyncio.timeout(10):
                        await check_offset(gateway, client, path)
                except (AssertionError, pytest.fail.Exception) as error:
                    failures.append((upstream.at, str(error)[:200]))
    print(f"{path} {how} chunked={chunked}: {len(tried)} offsets, {len(failures)} looked whole")
    assert not failures


async def test_a_stall_is_told_in_the_stream(tmp_path: Path) -> None:
    async with breaking(tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        upstream.data, upstream.how = b"data: " + chunk("Hi") + b"\n\n", "stall"
        upstream.at = len(upstream.data)
        await client.send(post(body=STREAM))
        reply = await client.reply()
    assert_cut(reply)
    assert b'"code":"upstream_timeout"' in reply.body


async def test_a_passed_stream_that_breaks_within_an_event(tmp_path: Path) -> None:
    """Of routes that are only passed through, too: the error is an event of its own, not the end of half a line."""
    async with breaking(tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        upstream.data, upstream.how = b'data: {"delta":"text"}\n\ndata: {"type":"del', "stall"
        upstream.at = len(upstream.data)
        await client.send(post("/v1/other", STREAM))
        reply = await client.reply()
    assert not reply.whole
    last = reply.body.rstrip(b"\n").rpartition(b"\n")[2]
    assert last.startswith(b'data: {"error":{')
    assert b'\n\ndata: {"error"' in reply.body
